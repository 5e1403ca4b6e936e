package audit

// What the tests in package audit_test need of the inside.

const (
	MaxLine    = maxLine
	MaxList    = maxList
	MaxText    = maxText
	TailWindow = tailWindow
)

// File is what a test may put in front of the real file.
type File = file

// Intercept makes the log use what wrap returns in the place of each file that it opens.
func (c *Config) Intercept(wrap func(File) File) {
	opened := map[file]file{} // by wrapper
	c.open = func(path string, current file) (file, error) {
		f, err := openDisk(path, opened[current])
		if err != nil {
			return nil, err
		}
		if current != nil && f == opened[current] {
			return current, nil
		}
		w := wrap(f)
		opened[w] = f
		return w, nil
	}
}

// AppendText is the escaper.
func AppendText(b []byte, s string) []byte { return appendText(b, s) }

// ParseLine reports whether line is a record, and the chain fields that it was read to have.
func ParseLine(line []byte, mac MAC) (seq uint64, prev string, ok bool) {
	var r record
	ok = r.parse(line, mac)
	return r.seq, string(r.prev), ok
}

// Queued returns how many records wait for the writer.
func (l *Log) Queued() int { return len(l.queue) }
