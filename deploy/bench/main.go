package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	binary      string         // the Cardstile that is measured
	round       time.Duration  // of one server doing one operation
	rounds      int            // of all servers doing all operations
	connections int            // of operations that do not say otherwise
	pairs       int            // of each row of the store
	profile     time.Duration  // of one operation; zero is no profile
	limit       time.Duration  // of everything
	only        *regexp.Regexp // names of operations
	nginx       bool
	json        string // file for the figures
	keep        bool   // the working directory
	dir         string // where the working directory is made: its file system carries the audit log
	progress    io.Writer
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		if err := playRole(role, os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s: %v\n", role, err)
			os.Exit(1)
		}
		return
	}
	o, err := parseOptions(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		err = bench(ctx, o, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func parseOptions(args []string, out io.Writer) (options, error) {
	o := options{progress: out}
	var only string
	var without bool
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.SetOutput(out)
	f.StringVar(&o.binary, "binary", filepath.Join("bin", "cardstile"), "the Cardstile to measure")
	f.DurationVar(&o.round, "round", 2*time.Second, "length of one measurement")
	f.IntVar(&o.rounds, "rounds", 5, "measurements of each row; the median counts")
	f.IntVar(&o.connections, "connections", 16, "connections of the rows that do not state their own")
	f.IntVar(&o.pairs, "pairs", 1_000_000, "tokens that are minted and redeemed for each row of the store")
	f.DurationVar(&o.profile, "profile", 5*time.Second, "length of a profile; 0 is none")
	f.DurationVar(&o.limit, "limit", 20*time.Minute, "end with an error after this time")
	f.StringVar(&only, "only", "", "measure only operations whose names match this expression: "+strings.Join(operations, ", "))
	f.BoolVar(&without, "without-nginx", false, "leave nginx out")
	f.StringVar(&o.json, "json", "", "write the figures to this file too")
	f.BoolVar(&o.keep, "keep", false, "keep the working directory (keys, logs, profiles) and say where it is")
	f.StringVar(&o.dir, "dir", "", "make the working directory here; its file system carries the audit log (default: the temporary directory)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.nginx = !without
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.pairs < storeSlices {
		return o, fmt.Errorf("-pairs is at least %d", storeSlices)
	}
	if o.round < 50*time.Millisecond || o.rounds < 1 || o.connections < 1 || o.profile < 0 {
		return o, errors.New("-round is at least 50ms, -rounds and -connections at least 1, -profile not negative")
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	if !slices.ContainsFunc(operations, o.only.MatchString) {
		return o, errors.New("-only: no operation has such a name")
	}
	return o, nil
}

// bench measures everything and writes the report.
func bench(ctx context.Context, o options, out io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, o.limit, fmt.Errorf("not done within %s: take a shorter -round", o.limit))
	defer cancel()
	cores, restore, err := pinSelf()
	if err != nil {
		return err
	}
	defer restore()
	// The load is one more process on a processor of its own, beside the issuer: more Go processors would only contend.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	dir, err := os.MkdirTemp(o.dir, "cardstile-bench-")
	if err != nil {
		return err
	}
	if o.keep {
		fmt.Fprintln(o.progress, "working directory:", dir)
	} else {
		defer os.RemoveAll(dir)
	}
	w := &world{options: o, dir: dir, cores: cores}
	defer w.stop()
	r := report{Date: time.Now().UTC().Truncate(time.Second), Options: o.describe(), Machine: newMachine(dir)}
	if o.exchanges() {
		if err := w.measureExchanges(ctx, &r); err != nil {
			return err
		}
		w.stop()
	}
	if o.only.MatchString(opStore) {
		if r.Store, err = w.measureStore(ctx); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	r.Machine.LoadAfter = loadAverage()
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	return r.markdown(out)
}

// exchanges says whether anything is measured beside the store.
func (o options) exchanges() bool {
	return slices.ContainsFunc(operations, func(name string) bool { return name != opStore && o.only.MatchString(name) })
}

// measureExchanges starts every server, and measures and profiles the exchanges.
func (w *world) measureExchanges(ctx context.Context, r *report) error {
	if err := w.start(ctx); err != nil {
		return err
	}
	if err := w.versions(ctx, &r.Machine); err != nil {
		return err
	}
	var err error
	if r.Rows, err = w.measure(ctx); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	r.Ratios = ratios(r.Rows)
	idle := w.only.MatchString(opIdle)
	if !idle && w.profile == 0 {
		return nil
	}
	if err := w.exchangeForProfiled(ctx); err != nil {
		return errors.Join(context.Cause(ctx), err)
	}
	if idle {
		if r.Idle, err = w.measureIdle(ctx); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	if w.profile > 0 {
		if r.Profiles, err = w.profiles(ctx); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	return nil
}

// describe is what a reader of the figures must know about the options.
func (o options) describe() string {
	return fmt.Sprintf("%d rounds of %s", o.rounds, o.round)
}
