package main

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestReloader has reloads asked for while one runs: they become one more, and only what is new of the inventory is told.
func TestReloader(t *testing.T) {
	core, said := observer.New(zap.InfoLevel)
	r := newReloader(&process{log: zap.New(core)}, "", &builder{notices: []string{"old"}})
	next := &builder{notices: []string{"old", "new"}, config: Config{Shutdown: ShutdownConfig{Grace: time.Minute}}}
	hang, running := make(chan struct{}), make(chan struct{}, 3)
	r.reload = func() (*builder, error) {
		running <- struct{}{}
		<-hang
		return next, nil
	}
	r.begin("one")
	<-running
	r.begin("two")
	r.begin("three")
	r.watch.seen = map[string]string{"nowhere": "another stamp"}
	r.look()
	close(hang)
	for range 2 {
		r.end(<-r.done)
	}
	if r.running || len(running) != 1 { // the second one
		t.Errorf("running: %t; %d reloads after the first", r.running, len(running))
	}
	if r.p.draining.Grace != time.Minute {
		t.Errorf("shutdown is not as it was reloaded: %v", r.p.draining)
	}
	told := func(message, field string) (all []string) {
		for _, e := range said.FilterMessage(message).All() {
			all = append(all, e.ContextMap()[field].(string))
		}
		return all
	}
	if got := told("reloaded", "cause"); !slices.Equal(got, []string{"one", "three"}) {
		t.Errorf("reloaded for %q", got)
	}
	if got := told("inventory", "entry"); !slices.Equal(got, []string{"new"}) {
		t.Errorf("told of the inventory: %q", got)
	}
}
