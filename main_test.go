package main

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write golden files and generated pages instead of comparing with them")

// built is the program that the stories run: the real one, made once and only where a test asks for it.
var built struct {
	once sync.Once
	dir  string
	path string
	err  error
}

// TestMain has twice as many tests run at once as there are processors, unless -parallel says otherwise: most of them wait, for a
// browser, an issuer that hangs, or a failover.
func TestMain(m *testing.M) {
	flag.Parse()
	said := false
	flag.Visit(func(f *flag.Flag) { said = said || f.Name == "test.parallel" })
	if !said {
		if err := flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0))); err != nil {
			panic(err) // it is a number
		}
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// binary returns the path of the program, built as the Makefile builds it.
func binary(t testing.TB) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "cardstile-test"); built.err == nil {
			built.path = filepath.Join(built.dir, "cardstile")
			built.err = build(built.path)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}

// build builds the program to path, with further arguments for `go build`.
func build(path string, args ...string) error {
	args = append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=v0-test", "-o", path}, args...)
	cmd := exec.Command("go", append(args, ".")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd.Run()
}
