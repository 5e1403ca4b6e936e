package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// file is what a log asks of its file. Only the writer calls it, one call at a time.
type file interface {
	io.ReaderAt
	io.Writer // appends
	io.Closer
	Sync() error // data and size, not times
	Truncate(size int64) error
	Stat() (size int64, links uint64, err error)
}

// openFunc opens the log at path for appending and takes its lock. Where path is still the file that is open as current, it returns current
// itself: a second lock on it would fail. current may be nil.
type openFunc func(path string, current file) (file, error)

// diskFile is a regular file under an exclusive lock, which ends with it.
type diskFile struct {
	*os.File
	status unix.Stat_t // of the last Stat, so that none is allocated
}

var _ file = (*diskFile)(nil)

// openDisk creates a file that does not exist with mode 0600 and makes its name durable. It refuses what is not a regular file: a pipe or a
// terminal cannot be synced.
func openDisk(path string, current file) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open: %w", cause(err))
	}
	same, err := prepare(f, current)
	if err != nil || same {
		f.Close() // nothing was written to it
	}
	if err != nil {
		return nil, err
	}
	if same {
		return current, nil
	}
	return &diskFile{File: f}, nil
}

// prepare checks and locks f, unless it is the file that current holds.
func prepare(f *os.File, current file) (same bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("stat: %w", cause(err))
	}
	if !info.Mode().IsRegular() {
		return false, errors.New("not a regular file")
	}
	if c, ok := current.(*diskFile); ok {
		old, err := c.File.Stat()
		if err != nil {
			return false, fmt.Errorf("stat: %w", cause(err))
		}
		if os.SameFile(info, old) {
			return true, nil
		}
	}
	if err := lock(f); err != nil {
		return false, err
	}
	if info.Size() > 0 {
		return false, nil
	}
	return false, syncDirectory(filepath.Dir(f.Name()))
}

// syncDirectory makes the names in a directory durable, where its file system knows how.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open directory: %w", cause(err))
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("sync directory: %w", cause(err))
	}
	return nil
}

// Stat is fstat(2). A file without links was removed.
func (f *diskFile) Stat() (size int64, links uint64, err error) {
	if err := unix.Fstat(int(f.Fd()), &f.status); err != nil {
		return 0, 0, err
	}
	return f.status.Size, uint64(f.status.Nlink), nil
}

// lock takes the exclusive flock(2) of f without waiting.
func lock(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
		case err == nil:
			return nil
		case errors.Is(err, unix.EWOULDBLOCK):
			return errors.New("in use: another process, or another log of this one, writes to it")
		case err != unix.EINTR:
			return fmt.Errorf("lock: %w", err)
		}
	}
}

// cause strips the path and the operation off an error of os: the log's own errors name both.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// tailWindow is how many bytes at the end of a file Open searches for the last record: more than any batch leaves behind.
const tailWindow = 2 * (maxBatchBytes + maxLine)

// ending is what Open finds at the end of a file.
type ending struct {
	at       Position // after the last record
	residue  []byte   // bytes behind it: what a crash, or somebody, left there
	unclosed bool     // the last byte is not a newline
}

// findEnd finds the last record of f. A whole record that lacks nothing but its newline counts. A file in which nothing was ever finished,
// empty or one line without a newline, ends at genesis.
func findEnd(f io.ReaderAt, size int64, mac MAC) (ending, error) {
	start := max(0, size-tailWindow)
	tail := make([]byte, size-start)
	if _, err := f.ReadAt(tail, start); err != nil && !errors.Is(err, io.EOF) {
		return ending{}, fmt.Errorf("read: %w", cause(err))
	}
	e := ending{unclosed: len(tail) > 0 && tail[len(tail)-1] != '\n'}
	var r record
	for end := len(tail); end >= 0; { // each end is that of a line, without its newline
		before := bytes.LastIndexByte(tail[:end], '\n')
		if r.parse(tail[before+1:end], mac) {
			e.at = Position{Seq: r.seq, Hash: r.hash}
			e.residue = tail[min(end+1, len(tail)):]
			return e, nil
		}
		end = before
	}
	if start == 0 && bytes.IndexByte(tail, '\n') < 0 {
		e.at, e.residue = genesis(mac), tail
		return e, nil
	}
	return ending{}, errors.New("does not end in records made under this key: another key, another kind of file, or edited; move it away to begin a new chain")
}
