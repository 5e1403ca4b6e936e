package audit

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"go.uber.org/zap"
)

const (
	maxBatchBytes = 1 << 20 // a batch ends with the record that goes beyond

	firstRetry = 100 * time.Millisecond // pause before the first probe of a failing disk; doubles
	lastRetry  = 5 * time.Second        // up to this
)

// writer owns the file and the chain. Everything in it belongs to the goroutine of run, or to newWriter before that.
type writer struct {
	log    *Log
	path   string
	open   openFunc
	logger *zap.Logger
	clock  func() time.Time
	max    int

	file     file
	chain    chain
	at       Position // of the last durable record
	next     Position // of the last record in buffer
	notes    []note   // go in front of the next batch
	unclosed bool     // the file ends in a line that lacks its newline
	residue  int64    // where to cut the file before anything is written, or -1

	batch  []*entry
	buffer []byte

	failing bool
	since   time.Time     // of the first failure
	lost    uint64        // records refused since then
	pause   time.Duration // before the next probe
	retry   *time.Timer   // runs while failing
}

// newWriter opens the file, finds its end and tries to write the first note.
func newWriter(l *Log, c Config) (*writer, error) {
	f, err := c.open(c.File, nil)
	if err != nil {
		return nil, err
	}
	w := &writer{
		log: l, path: c.File, open: c.open, logger: c.Logger, clock: c.Clock, max: c.MaxBatch,
		file:    f,
		chain:   chain{mac: c.MAC, instance: appendText(nil, c.Instance)},
		residue: -1,
		retry:   time.NewTimer(lastRetry),
	}
	w.retry.Stop()
	end, err := w.end(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	w.unclosed = end.unclosed
	if len(end.residue) > 0 {
		n := leftover(c.MAC, end.residue)
		n.time = w.clock()
		w.notes = append(w.notes, n)
		w.logger.Warn("audit log does not end in a whole record: its last bytes are kept outside the chain",
			zap.String("file", w.path), zap.String("kind", string(n.kind)), zap.Int("bytes", n.bytes))
	}
	w.setPosition(end.at)
	w.notes = append(w.notes, note{kind: NoteStart, time: w.clock()})
	w.commit(nil) // an error stops releases, not the process
	return w, nil
}

// end finds where the chain in f ends, and what stands behind it.
func (w *writer) end(f file) (ending, error) {
	size, _, err := f.Stat()
	if err != nil {
		return ending{}, fmt.Errorf("stat: %w", cause(err))
	}
	return findEnd(f, size, w.chain.mac)
}

func (w *writer) setPosition(p Position) {
	w.at = p
	w.log.mu.Lock()
	w.log.position = p
	w.log.mu.Unlock()
}

// run writes what is queued until the queue is closed and empty.
func (w *writer) run() {
	defer close(w.log.done)
	for {
		select {
		case e, ok := <-w.log.queue:
			if !ok {
				w.log.closeErr = w.stop()
				return
			}
			runtime.Gosched() // who was answered just now may have its next record at hand: half the syncs at eight callers
			w.gather(e)
			w.answer(w.commit(w.batch))
		case answer := <-w.log.reopens:
			answer <- w.rotate()
		case <-w.retry.C:
			w.commit(nil)
		}
	}
}

// gather takes first and whatever else has been queued meanwhile.
func (w *writer) gather(first *entry) {
	w.batch = append(w.batch[:0], first)
	head := len(w.chain.instance) + macLength + hashText + 64 // at most what a line adds to its body
	size := head + len(first.body)
	for len(w.batch) < w.max && size < maxBatchBytes {
		select {
		case e, ok := <-w.log.queue:
			if !ok {
				return // run meets it again
			}
			w.batch = append(w.batch, e)
			size += head + len(e.body)
		default:
			return
		}
	}
}

// answer tells the batch's callers; their entries are not ours from then on.
func (w *writer) answer(err error) {
	for i, e := range w.batch {
		w.batch[i] = nil
		e.done <- err
	}
}

// commit makes the pending notes and batch durable, or nothing.
func (w *writer) commit(batch []*entry) error {
	reason, err := w.try(batch)
	if err != nil {
		err = fmt.Errorf("audit log %q: %w", w.path, err)
		w.fail(reason, err, len(batch))
		return err
	}
	w.settle()
	return nil
}

// settle takes note of a successful try.
func (w *writer) settle() {
	w.setPosition(w.next)
	w.notes, w.unclosed = w.notes[:0], false
	if !w.failing {
		return
	}
	w.retry.Stop()
	w.failing = false
	w.log.setReady(nil)
	w.logger.Info("audit log works again", zap.String("file", w.path), zap.Uint64("lost", w.lost), zap.Stringer("position", w.at))
}

// try writes and syncs; after an error, the file has been cut back to what it was, or residue says that it still has to be.
func (w *writer) try(batch []*entry) (reason string, err error) {
	if err := w.cut(); err != nil {
		return failTruncate, err
	}
	size, links, err := w.file.Stat()
	if err != nil {
		return failWrite, fmt.Errorf("stat: %w", cause(err))
	}
	if links == 0 {
		return failRemoved, errors.New("the file was removed: reopen the log to go on in a new one")
	}
	count := w.render(batch)
	if n, err := w.file.Write(w.buffer); err != nil || n < len(w.buffer) {
		w.undo(size)
		if err == nil {
			err = io.ErrShortWrite
		}
		if isFull(err) {
			return failFull, fmt.Errorf("write: %w", cause(err))
		}
		return failWrite, fmt.Errorf("write: %w", cause(err))
	}
	began := time.Now()
	err = w.file.Sync()
	w.log.metrics.sync.Observe(time.Since(began).Seconds())
	if err != nil {
		w.undo(size) // what a failed sync left in the page cache may or may not reach the disk
		if isFull(err) {
			return failFull, fmt.Errorf("sync: %w", cause(err)) // of delayed allocation
		}
		return failSync, fmt.Errorf("sync: %w", cause(err))
	}
	w.log.metrics.records.Add(float64(count))
	w.log.metrics.batch.Observe(float64(count))
	return "", nil
}

// render fills buffer with the lines of the pending notes and of batch, and returns how many.
func (w *writer) render(batch []*entry) (count int) {
	b := w.buffer[:0]
	w.next = w.at
	if w.unclosed {
		b = append(b, '\n')
	}
	line := func(n *note) {
		b = w.chain.appendLine(b, &w.next, n.appendBody(nil))
		count++
	}
	for i := range w.notes {
		line(&w.notes[i])
	}
	if w.failing {
		line(&note{kind: NoteResumed, time: w.clock(), since: w.since, lost: w.lost})
	}
	for _, e := range batch {
		b = w.chain.appendLine(b, &w.next, e.body)
		count++
	}
	w.buffer = b
	return count
}

// undo takes back what was written behind size.
func (w *writer) undo(size int64) {
	w.residue = size
	w.cut() // or before the next write
}

// cut removes what an undo could not. It never makes a file longer that somebody else has cut.
func (w *writer) cut() error {
	if w.residue < 0 {
		return nil
	}
	size, _, err := w.file.Stat()
	if err == nil && size > w.residue {
		err = w.file.Truncate(w.residue)
	}
	if err != nil {
		return fmt.Errorf("truncate: %w", cause(err))
	}
	w.residue = -1
	return nil
}

// fail notes that n records were refused for err, and sees to it that a probe follows.
func (w *writer) fail(reason string, err error, n int) {
	w.log.setReady(err)
	w.log.metrics.failures.WithLabelValues(reason).Add(float64(max(n, 1)))
	if !w.failing {
		w.failing, w.since, w.lost, w.pause = true, w.clock(), 0, firstRetry
		w.retry.Reset(w.pause)
		w.logger.Error("audit log fails: nothing is released", zap.Error(err))
	} else if n == 0 { // a probe
		w.pause = min(2*w.pause, lastRetry)
		w.retry.Reset(w.pause)
	}
	w.lost += uint64(n)
}

// rotate goes on in the file that has the path now.
func (w *writer) rotate() error {
	if err := w.change(); err != nil {
		return fmt.Errorf("audit log %q: reopen: %w", w.path, err)
	}
	return nil
}

func (w *writer) change() error {
	if err := w.cut(); err != nil { // the old file must end in a record
		return err
	}
	if w.unclosed || len(w.notes) > 0 && w.notes[0].bytes > 0 {
		return errors.New("the open file ends in what a crash left there, which could not be accounted for yet")
	}
	f, err := w.open(w.path, w.file)
	if err != nil || f == w.file {
		return err
	}
	end, err := w.end(f)
	if err == nil && (end.unclosed || len(end.residue) > 0 || end.at != w.at && end.at != genesis(w.chain.mac)) {
		err = errors.New("the file holds records already, and they do not end where the chain stands")
	}
	if err != nil {
		f.Close()
		return err
	}
	old, pending := w.file, len(w.notes)
	w.file = f
	w.notes = append(w.notes, note{kind: NoteContinue, time: w.clock()})
	if _, err := w.try(nil); err != nil {
		w.file, w.notes, w.residue = old, w.notes[:pending], -1
		f.Close()
		return err
	}
	w.settle()
	w.logger.Info("audit log goes on in a new file", zap.String("file", w.path), zap.Stringer("position", w.at))
	if err := old.Close(); err != nil { // all that it holds has been synced
		w.logger.Warn("audit log: close of the old file", zap.String("file", w.path), zap.Error(cause(err)))
	}
	return nil
}

// stop writes the last note and lets the file go.
func (w *writer) stop() error {
	w.retry.Stop()
	w.notes = append(w.notes, note{kind: NoteStop, time: w.clock()})
	err := w.commit(nil)
	if closing := w.file.Close(); err == nil && closing != nil {
		err = fmt.Errorf("audit log %q: close: %w", w.path, cause(closing))
	}
	w.retry.Stop()
	w.log.setReady(ErrClosed)
	w.logger.Info("audit log closed", zap.String("file", w.path), zap.Stringer("position", w.at))
	return err
}
