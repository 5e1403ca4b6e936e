package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"

	"github.com/cardstile/cardstile/gateway"
)

func cmdServe() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "serve", Short: "Serve a configuration until SIGTERM; SIGHUP reloads", Args: cobra.NoArgs,
		Long: "Serve listens, and answers until SIGTERM or SIGINT, which drain: exchanges in flight end, new\n" +
			"connections are refused. SIGHUP reads the configuration again and opens the audit log anew;\n" +
			"so does a change of any file that the configuration names. A bad configuration leaves the\n" +
			"old one in force and says so.\n\n" +
			"The heap may gather 64 MiB of garbage, and where more than that is live as much again. GOMEMLIMIT\n" +
			"(as in GOMEMLIMIT=200MiB) holds it within a container's limit; GOGC in the environment, if it is\n" +
			"not 100, replaces that rule by Go's own.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd.Context(), file, serving{})
		},
	}
	configFlag(cmd, &file)
	return cmd
}

// serving is what a command adds to a configuration that it serves.
type serving struct {
	beside  gateway.Beside
	started func(*process) error // called once it answers
}

// serve runs a configuration until a signal or ctx ends it.
func serve(ctx context.Context, file string, with serving) error {
	if err := harden(); err != nil {
		return err
	}
	b, err := load(file)
	if err != nil {
		return err
	}
	log, err := newLogger(b.config.Log)
	if err != nil {
		return err
	}
	gateway.WithholdStandardLog(log)
	defer log.Sync() //nolint:errcheck // standard error has nothing to sync
	p, err := newProcess(b, log, with.beside)
	if err != nil {
		return err
	}
	defer p.close() //nolint:errcheck // its records are synced; there is nobody left to tell
	p.inventory(b.notices)
	// Signals are taken from before the first connection on: until then the kernel's default, death, is right.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	if err := p.gateway.Listen(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- p.gateway.Serve() }()
	for name := range p.services.Addresses {
		log.Info("listening", zap.String("listener", name), zap.Stringer("address", p.gateway.Addr(name)))
	}
	log.Info("listening", zap.String("listener", "admin"), zap.Stringer("address", p.gateway.Addr("admin")))
	if with.started != nil {
		if err := with.started(p); err != nil {
			return errors.Join(err, p.shutdown(ctx))
		}
	}
	return p.run(ctx, file, b, signals, ended)
}

// run reloads and drains as signals say.
func (p *process) run(ctx context.Context, file string, b *builder, signals <-chan os.Signal, ended <-chan error) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	r, heap := newReloader(p, file, b), newHeadroom()
	for {
		select {
		case err := <-ended:
			return fmt.Errorf("listener ended: %w", err)
		case <-ctx.Done():
			return p.drain(signals, ended)
		case <-tick.C:
			r.look()
			heap.look()
		case result := <-r.done:
			r.end(result)
		case s := <-signals:
			if s != syscall.SIGHUP {
				p.log.Info("draining", zap.Stringer("signal", s))
				return p.drain(signals, ended)
			}
			go p.reopen() // it waits for a sync that runs: on a disk that hangs, SIGTERM must not wait behind it
			r.begin("SIGHUP")
		}
	}
}

func (p *process) reopen() {
	if err := p.services.Audit.Reopen(); err != nil {
		p.log.Error("audit log was not opened anew", zap.Error(err))
	}
}

// drain ends the process in good order. A signal to end that comes meanwhile cuts short what it waits for: first the grace, then
// what is in flight.
func (p *process) drain(signals <-chan os.Signal, ended <-chan error) error {
	p.gateway.Drain()
	if grace := p.draining.Grace; grace > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), grace)
		p.hurried(ctx, signals)
		cancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		p.hurried(ctx, signals)
		cancel()
	}()
	err := p.shutdown(ctx)
	<-ended
	if err != nil {
		p.log.Warn("stopped; what was in flight is cut off")
	} else {
		p.log.Info("drained")
	}
	if errors.Is(err, context.Canceled) { // what was cut short was cut short on purpose
		return nil
	}
	return err
}

// hurried waits for a signal to end, no longer than ctx.
func (p *process) hurried(ctx context.Context, signals <-chan os.Signal) {
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			if s == syscall.SIGHUP {
				continue
			}
			p.log.Warn("not waiting any longer", zap.Stringer("signal", s))
			return
		}
	}
}

// shutdown lets what is in flight end, for as long as the configuration says.
func (p *process) shutdown(ctx context.Context) error {
	timeout := p.draining.Timeout
	if timeout == 0 {
		timeout = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return p.gateway.Shutdown(ctx)
}

// newLogger logs to standard error: JSON, or for people where it is a terminal.
func newLogger(c LogConfig) (*zap.Logger, error) {
	level, err := logLevel(c)
	if err != nil {
		return nil, err
	}
	console := c.Format == "console" || (c.Format == "" || c.Format == "auto") && term.IsTerminal(int(os.Stderr.Fd()))
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.ISO8601TimeEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if console {
		encoding.EncodeLevel = zapcore.CapitalColorLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	core := zapcore.NewCore(encoder, zapcore.Lock(os.Stderr), level)
	return zap.New(newSampled(core)), nil
}

func logLevel(c LogConfig) (zapcore.Level, error) {
	switch c.Level {
	case "", "info":
		return zapcore.InfoLevel, nil
	case "debug":
		return zapcore.DebugLevel, nil
	case "warn":
		return zapcore.WarnLevel, nil
	case "error":
		return zapcore.ErrorLevel, nil
	}
	return 0, errors.New("want debug, info, warn or error")
}
