package audit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
)

// ErrClosed is what a log answers after Close.
var ErrClosed = errors.New("audit: log is closed")

const (
	defaultBatch = 256
	limitBatch   = 4096
)

// Config says where a log goes and who it is.
type Config struct {
	// File is the path of the log. It is created with mode 0600 where it does not exist; its directory must.
	File string
	// Instance names this process in its records, at most 256 bytes; required.
	Instance string
	// MAC links the records, commonly from a key of use "audit" under [Label]; required. One chain has one key: to change it, move the
	// file away while the log is closed.
	MAC MAC
	// MaxBatch bounds the records that share one write and one sync, and those that may wait for the next; default 256, at most 4096.
	MaxBatch int
	// Clock is the time of records whose event has none, and of notes; default time.Now.
	Clock func() time.Time
	// Logger hears when records begin to fail and when they work again; default none.
	Logger *zap.Logger

	open openFunc // default openDisk
}

// check fills the defaults in.
func (c *Config) check() error {
	switch {
	case c.File == "":
		return errors.New("audit: no file")
	case c.Instance == "":
		return errors.New("audit: no instance")
	case len(c.Instance) > maxText:
		return fmt.Errorf("audit: instance is longer than %d bytes", maxText)
	case c.MAC == nil:
		return errors.New("audit: no mac")
	case c.MaxBatch < 0 || c.MaxBatch > limitBatch:
		return fmt.Errorf("audit: max batch %d: want 1 to %d", c.MaxBatch, limitBatch)
	}
	if c.MaxBatch == 0 {
		c.MaxBatch = defaultBatch
	}
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.open == nil {
		c.open = openDisk
	}
	return nil
}

// Log is an open audit log. It is safe for concurrent use.
type Log struct {
	clock   func() time.Time
	metrics *metrics

	entries sync.Pool
	queue   chan *entry
	reopens chan chan error
	done    chan struct{} // closed when the writer has ended

	// accepting is held for reading while something is sent to the writer, and for writing to close that way. It guards closed.
	accepting sync.RWMutex
	closed    bool
	closeErr  error // of the last write; set before done is closed

	mu       sync.Mutex
	ready    error    // guarded by mu; nil while records work
	position Position // guarded by mu
}

// entry is a record on its way to the writer.
type entry struct {
	body []byte     // appendBody of the event
	done chan error // holds one value, so that the writer never waits for a caller who left
}

// Open opens or creates the log and goes on where its last record ended. What a crash left behind that record stays in the file and is
// accounted for by a note (see the package comment).
//
// A path that cannot be opened, a file that another log holds, and a file that does not end in records made under this key are errors. A full or
// failing disk is not: the log then opens and is not [Log.Ready] until its first note could be written.
func Open(c Config) (*Log, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	l := &Log{
		clock:   c.Clock,
		metrics: newMetrics(),
		queue:   make(chan *entry, c.MaxBatch),
		reopens: make(chan chan error),
		done:    make(chan struct{}),
	}
	l.entries.New = func() any { return &entry{done: make(chan error, 1)} }
	w, err := newWriter(l, c)
	if err != nil {
		return nil, fmt.Errorf("audit log %q: %w", c.File, err)
	}
	go w.run()
	return l, nil
}

// Record writes e and returns nil only after it is on the disk. Whatever the error, nothing may be released. Several callers share one write and
// one sync; if those fail, each of them gets the error, and
// what had been written is cut off the file again: at once, or, where even that fails, before anything else is written.
//
// When ctx ends first, its error is returned although the record may still be written: pass a context that outlives the caller's connection,
// with a deadline. e is read before Record returns, and not kept. An event that means nothing (see [Event]) is an error.
func (l *Log) Record(ctx context.Context, e *Event) error {
	n := l.entries.Get().(*entry)
	var err error
	if n.body, err = e.appendBody(n.body[:0], l.clock); err != nil {
		l.entries.Put(n)
		l.fail(failInvalid)
		return err
	}
	if err := l.enqueue(ctx, n); err != nil {
		l.entries.Put(n)
		return err
	}
	select {
	case err = <-n.done:
	case <-ctx.Done():
		select {
		case err = <-n.done: // both had happened
		default:
			l.fail(failCanceled)
			return fmt.Errorf("audit: record: %w", ctx.Err()) // n is the writer's until it has been written
		}
	}
	l.entries.Put(n)
	return err
}

// enqueue hands n to the writer, or waits for room. After nil, the writer answers.
func (l *Log) enqueue(ctx context.Context, n *entry) error {
	if err := ctx.Err(); err != nil {
		l.fail(failCanceled)
		return fmt.Errorf("audit: record: %w", err)
	}
	l.accepting.RLock()
	defer l.accepting.RUnlock()
	if l.closed {
		l.fail(failClosed)
		return ErrClosed
	}
	select {
	case l.queue <- n:
		return nil
	case <-ctx.Done():
		l.fail(failCanceled)
		return fmt.Errorf("audit: record: %w", ctx.Err())
	}
}

func (l *Log) fail(reason string) { l.metrics.failures.WithLabelValues(reason).Inc() }

// Reopen opens the path anew, after the file was renamed: the chain goes on in the new file, which must be empty or end exactly where the chain
// stands. Records that come meanwhile wait. If the path is still the open file, nothing happens; if anything fails, the open file stays in force. It waits for a
// sync that is under way.
func (l *Log) Reopen() error {
	answer := make(chan error, 1)
	if err := l.ask(answer); err != nil {
		return err
	}
	return <-answer
}

func (l *Log) ask(answer chan error) error {
	l.accepting.RLock()
	defer l.accepting.RUnlock()
	if l.closed {
		return ErrClosed
	}
	l.reopens <- answer
	return nil
}

// Ready returns nil while records can be written, and otherwise why not. After a failure it becomes nil by itself: the log tries again, with
// growing pauses of up to five seconds, whether or not there is anything to record. It does not block.
func (l *Log) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

func (l *Log) setReady(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = err
}

// Position returns where the chain stands: after the last record that is on the disk. It is an anchor for [Reach].
func (l *Log) Position() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.position
}

// Close writes what is waiting and a last note, and returns what went wrong with those. Records that come later get [ErrClosed].
// It waits for the disk, however long that takes. To close twice does no harm.
func (l *Log) Close() error {
	l.accepting.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.accepting.Unlock()
	<-l.done
	return l.closeErr
}
