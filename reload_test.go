package main

import (
	"os"
	"path/filepath"
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

// TestLook: a file that changes is read when it is at rest, and after a few looks all the same. What SIGHUP has read is not read again.
func TestLook(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := func() *builder { return &builder{seen: map[string]string{file: stamp(file)}} }
	if watchInterval*settleLooks > 600*time.Millisecond {
		t.Error("a switch and pins would take more than a second, with the time that it takes to read them") // [20]
	}
	write("")
	r := newReloader(&process{log: zap.NewNop()}, "", seen())
	begun := 0
	r.reload = func() (*builder, error) {
		begun++
		return seen(), nil
	}
	looks := func(text string, want int) {
		t.Helper()
		if text != "" {
			write(text)
		}
		r.look()
		if r.running {
			r.end(<-r.done)
		}
		if begun != want {
			t.Fatalf("%d reloads, want %d", begun, want)
		}
	}
	looks("", 0)
	looks("a", 0)
	looks("", 1) // at rest
	looks("", 1)
	looks("ab", 1)
	looks("abc", 1)
	looks("abcd", 2) // for the third time
	looks("", 2)
	looks("abcde", 2)
	r.begin("SIGHUP")
	r.end(<-r.done)
	looks("", 3)
	looks("", 3)
}

// TestStamp: whatever way a file is replaced by another, it is seen.
func TestStamp(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, text string) { t.Helper(); must(os.WriteFile(at(name), []byte(text), 0o600)) }
	for _, version := range []string{"v1", "v2"} {
		must(os.Mkdir(at(version), 0o700))
		write(version+"/key", "secret")
	}
	write("file", "one")
	must(os.Symlink("v1", at("..data"))) // as Kubernetes mounts them
	must(os.Symlink("..data/key", at("key")))
	w := &watcher{map[string]string{}}
	for _, name := range []string{at("file"), at("key"), at("to come"), globbed + at("*.cedar")} {
		w.seen[name] = stamp(name)
	}
	info, err := os.Stat(at("file"))
	must(err)
	tick := func() { // waits until the file system's clock moves on, which has steps of some milliseconds in older kernels
		write("clock", "")
		first := stamp(at("clock"))
		eventually(t, "the file system's clock", func() bool {
			must(os.Chmod(at("clock"), 0o600))
			return stamp(at("clock")) != first
		})
	}
	for _, c := range []struct {
		how    string
		change func()
	}{
		{"in place", func() { write("file", "more than one") }},
		{"a rename", func() { write("new", "two"); must(os.Rename(at("new"), at("file"))) }},
		{"one of the same size and time", func() {
			write("new", "one")
			must(os.Chtimes(at("new"), info.ModTime(), info.ModTime()))
			must(os.Rename(at("new"), at("file")))
		}},
		{"in place, and the same size and time", func() {
			write("file", "uno")
			must(os.Chtimes(at("file"), info.ModTime(), info.ModTime()))
		}},
		{"its mode", func() { must(os.Chmod(at("file"), 0o640)) }},
		{"a link above it", func() { must(os.Symlink("v2", at("..tmp"))); must(os.Rename(at("..tmp"), at("..data"))) }},
		{"one that comes", func() { write("to come", "") }},
		{"one that goes", func() { must(os.Remove(at("file"))) }},
		{"one that a pattern names", func() { write("a.cedar", "") }},
		{"one that it names no more", func() { must(os.Remove(at("a.cedar"))) }},
	} {
		if w.changed() {
			t.Errorf("before %s: changed", c.how)
		}
		tick()
		c.change()
		if !w.changed() {
			t.Errorf("%s: not seen", c.how)
		}
	}
}
