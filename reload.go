package main

import (
	"slices"

	"go.uber.org/zap"
)

// reloader reloads beside whatever else a process does: a key that is new takes a second to open, and a file on a mount that
// hangs takes for ever. It reloads once at a time, and remembers one more. Its methods are called by one goroutine.
type reloader struct {
	p       *process
	reload  func() (*builder, error)
	watch   watcher
	notices []string // of the configuration that is in force
	running bool
	unread  int    // looks since a file changed that has not been read since
	again   string // why to reload once more when this one is done; empty: not
	done    chan reloaded
}

// reloaded is what came of a reload.
type reloaded struct {
	why  string
	next *builder
	err  error
}

func newReloader(p *process, file string, b *builder) *reloader {
	reload := func() (*builder, error) { return p.reload(file) }
	return &reloader{p: p, reload: reload, watch: watcher{b.seen}, notices: b.notices, done: make(chan reloaded, 1)}
}

// begin reloads, now or when the reload that runs is done. What was asked for in between is one.
func (r *reloader) begin(why string) {
	if r.running {
		r.again = why
		return
	}
	r.running, r.unread = true, 0
	go func() {
		next, err := r.reload()
		r.done <- reloaded{why, next, err}
	}()
}

// look reloads where a file has changed, once it is at rest. While a reload runs, it is not known yet which files count.
func (r *reloader) look() {
	if r.running {
		return
	}
	changed := r.watch.changed()
	if !changed && r.unread == 0 {
		return
	}
	if r.unread++; !changed || r.unread >= settleLooks {
		r.begin("file changed")
	}
}

// end takes in what came over done.
func (r *reloader) end(result reloaded) {
	r.running = false
	r.watch = watcher{result.next.seen}
	if result.err != nil {
		r.p.log.Error("reload failed: the old configuration stays in force", zap.String("cause", result.why), zap.Error(result.err))
	} else {
		r.p.log.Info("reloaded", zap.String("cause", result.why))
		r.p.draining = result.next.config.Shutdown
		r.p.inventory(added(r.notices, result.next.notices))
		r.notices = result.next.notices
	}
	if why := r.again; why != "" {
		r.again = ""
		r.begin(why)
	}
}

// added returns those that were not there before.
func added(before, now []string) []string {
	var fresh []string
	for _, s := range now {
		if !slices.Contains(before, s) {
			fresh = append(fresh, s)
		}
	}
	return fresh
}

// inventory logs what the configuration switches on that an auditor will ask about.
func (p *process) inventory(notices []string) {
	for _, n := range notices {
		p.log.Info("inventory", zap.String("entry", n))
	}
}
