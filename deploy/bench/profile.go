package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

//go:embed profiler.go.txt
var profiler string

// profile is where the time of one operation goes.
type profile struct {
	Operation string  `json:"operation"`
	Samples   int     `json:"samples"`
	Buckets   []share `json:"buckets"`
	Functions []share `json:"functions"` // with what they call
}

// share is a part of a profile, 1 is all of it.
type share struct {
	Name string  `json:"name"`
	Of1  float64 `json:"share"`
}

// exchangeForProfiled builds Cardstile with a profiler, and lets it serve in place of the measured one.
func (w *world) exchangeForProfiled(ctx context.Context) error {
	binary, err := w.buildProfiled(ctx)
	if err != nil {
		return err
	}
	w.end(w.cardstile)
	w.cardstile, err = w.startCardstile(ctx, binary, "CARDSTILE_BENCH_DIR="+w.dir)
	return err
}

// profiles profiles three operations of a Cardstile with a profiler.
func (w *world) profiles(ctx context.Context) ([]profile, error) {
	binary := w.cardstile.cmd.Path
	cells, err := w.cells()
	if err != nil {
		return nil, err
	}
	var all []profile
	for _, c := range cells {
		wanted := c.operation == opReveal && c.connections == 16 || c.operation == opHandshake || c.operation == opForward
		if c.server != w.cardstile || !wanted {
			continue
		}
		length := w.profile
		if c.operation == opReveal {
			length *= 3 // most samples fall into RSA, and the others matter
		}
		stacks, err := w.stacksOf(ctx, c, length, binary)
		if err != nil {
			return nil, fmt.Errorf("profile of %s: %w", c.operation, err)
		}
		all = append(all, summarize(c.operation, stacks))
		if c.operation == opReveal {
			rest := slices.DeleteFunc(stacks, func(s stack) bool { return bucketOf(s.frames) == bucketRSA })
			all = append(all, summarize("reveal without its RSA operation", rest))
		}
		fmt.Fprintf(w.progress, "profile of %s done\n", c.operation)
	}
	return all, nil
}

// buildProfiled builds the module's root with one more file.
func (w *world) buildProfiled(ctx context.Context) (string, error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "profiler.go"): w.path("profiler.go")}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(w.write("profiler.go", profiler), w.write("overlay.json", string(overlay))); err != nil {
		return "", err
	}
	binary := w.path("cardstile-profiled")
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", w.path("overlay.json"), "-trimpath", "-o", binary, ".")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build -overlay: %w: %s", err, out)
	}
	return binary, nil
}

// stacksOf profiles one operation. The profiler begins a little before the load, and ends a little after it.
func (w *world) stacksOf(ctx context.Context, c cell, length time.Duration, binary string) ([]stack, error) {
	name := w.path("cpu.pprof")
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	process := c.server.cmd.Process
	inner := c.load
	c.load = func(ctx context.Context, t *tokens) ([]worker, error) {
		workers, err := inner(ctx, t)
		if err == nil {
			err = process.Signal(syscall.SIGUSR1)
		}
		return workers, err
	}
	if _, err := w.sample(ctx, c, length, 1000); err != nil {
		return nil, err
	}
	if err := process.Signal(syscall.SIGUSR2); err != nil {
		return nil, err
	}
	if err := c.server.wait(ctx, func() error { _, err := os.Stat(name); return err }); err != nil {
		return nil, err
	}
	traces, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-traces", binary, name).Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof: %w", err)
	}
	if err := os.Rename(name, w.path("cpu-"+c.operation+".pprof")); err != nil {
		return nil, err
	}
	return parseTraces(traces)
}

// stack is one kind of sample: functions from the innermost out, and how much time was spent so.
type stack struct {
	frames []string
	weight time.Duration
}

// parseTraces reads `pprof -traces`: after each line of dashes a stack, whose first line begins with its time.
func parseTraces(text []byte) ([]stack, error) {
	var all []stack
	var current *stack
	began := false
	for in := bufio.NewScanner(bytes.NewReader(text)); in.Scan(); {
		line := strings.TrimSpace(in.Text())
		switch {
		case strings.HasPrefix(line, "-----------+"):
			began, current = true, nil
		case !began || line == "":
		case current == nil:
			first, frame, ok := strings.Cut(line, " ")
			weight, err := time.ParseDuration(first)
			if !ok || err != nil {
				return nil, fmt.Errorf("traces: want a time and a function in %q", line)
			}
			all = append(all, stack{[]string{frameName(frame)}, weight})
			current = &all[len(all)-1]
		default:
			current.frames = append(current.frames, frameName(line))
		}
	}
	if len(all) == 0 {
		return nil, errors.New("traces: no samples")
	}
	return all, nil
}

func frameName(s string) string { return strings.TrimSuffix(strings.TrimSpace(s), " (inline)") }

// bucket is a kind of work. A stack belongs to the first bucket of the table that knows one of its functions by a prefix
// of its name; leaf is asked of the innermost functions only, up to the first that is not of the runtime.
type bucket struct {
	name     string
	prefixes []string
	leaf     bool
}

// bucketRSA is the one RSA operation of a reveal that cannot be made cheaper here.
const bucketRSA = "crypto/rsa: opening the client's session"

// buckets are ordered: what is special before what it is part of.
var buckets = []bucket{
	{name: "garbage collection", prefixes: []string{"runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcStart", "runtime.gcMarkDone", "runtime.deductAssistCredit"}},
	{name: bucketRSA, prefixes: []string{"crypto/rsa.DecryptOAEP", "crypto/rsa.(*PrivateKey).Decrypt", "crypto/internal/fips140/rsa.DecryptOAEP"}},
	{name: "crypto/rsa: making the issuer's session", prefixes: []string{"crypto/rsa.EncryptOAEP", "crypto/internal/fips140/rsa.EncryptOAEP"}},
	{name: "allocation", prefixes: []string{"runtime.mallocgc", "runtime.newobject", "runtime.makeslice", "runtime.growslice", "runtime.mallocgcSmall"}, leaf: true},
	{name: "audit: record, write, fdatasync", prefixes: []string{"github.com/cardstile/cardstile/gateway/audit."}},
	{name: "sockets: read, write, accept, close", prefixes: []string{"internal/poll.", "syscall.", "internal/runtime/syscall.", "runtime.netpoll", "runtime.epoll"}},
	{name: "access tokens: JWT", prefixes: []string{"github.com/cardstile/cardstile/policy/credential.(*jwtIssuer)"}},
	{name: "certificates: crypto/ecdsa, crypto/x509", prefixes: []string{"crypto/ecdsa.", "crypto/internal/fips140/ecdsa.", "crypto/x509.", "encoding/asn1."}},
	{name: "key agreement: crypto/ecdh, ML-KEM", prefixes: []string{"crypto/ecdh.", "crypto/mlkem.", "crypto/internal/fips140/mlkem."}},
	{name: "policy: Cedar", prefixes: []string{"github.com/cedar-policy/", "github.com/cardstile/cardstile/policy.(*Engine)"}},
	{name: "store", prefixes: []string{"github.com/cardstile/cardstile/policy/store."}},
	{name: "credentials and the rest of policy", prefixes: []string{"github.com/cardstile/cardstile/policy"}},
	{name: "vault without RSA", prefixes: []string{"github.com/cardstile/cardstile/vault"}},
	{name: "metrics", prefixes: []string{"github.com/prometheus/"}},
	{name: "JSON", prefixes: []string{"encoding/json", "github.com/go-json-experiment/", "github.com/cardstile/cardstile/gateway/exchange."}},
	{name: "crypto/tls: records and handshake messages", prefixes: []string{"crypto/tls."}},
	{name: "net/http: client to the issuer", prefixes: []string{"net/http.(*Transport)", "net/http.(*persistConn)", "net/http.(*http2Transport)", "net/http.(*http2ClientConn)", "net/http.(*http2clientConn", "net/http.(*http2clientStream)", "net/http.http2", "net/http/internal/http2.", "golang.org/x/net/http2"}},
	{name: "net/http: server", prefixes: []string{"net/http.", "net/textproto.", "bufio."}},
	{name: "gateway", prefixes: []string{"github.com/cardstile/cardstile/", "main."}},
	{name: "scheduler and the rest of the runtime", prefixes: []string{""}},
}

// bucketOf finds the bucket of a stack.
func bucketOf(frames []string) string {
	for _, b := range buckets {
		for _, f := range frames {
			if slices.ContainsFunc(b.prefixes, func(p string) bool { return strings.HasPrefix(f, p) }) {
				return b.name
			}
			if b.leaf && !strings.HasPrefix(f, "runtime.") {
				break
			}
		}
	}
	panic("bench: internal error: the last bucket takes everything")
}

// A profile names so many functions, those that a reader can do something about: not the outer ones, in which nearly
// everything happens, and of functions that only call one another, which have the same share, one.
const (
	topFunctions = 15
	outer        = .5
	alike        = .002
)

// summarize adds up stacks by bucket, and by function with what it calls.
func summarize(operation string, stacks []stack) profile {
	var total time.Duration
	buckets, functions := map[string]time.Duration{}, map[string]time.Duration{}
	for _, s := range stacks {
		total += s.weight
		buckets[bucketOf(s.frames)] += s.weight
		seen := map[string]bool{} // a function that calls itself counts once
		for _, f := range s.frames {
			if !seen[f] {
				seen[f] = true
				functions[f] += s.weight
			}
		}
	}
	p := profile{Operation: operation, Samples: int(total * profileRate / time.Second), Buckets: shares(buckets, total)}
	for _, s := range shares(functions, total) {
		if last := len(p.Functions) - 1; s.Of1 < outer && (last < 0 || p.Functions[last].Of1-s.Of1 > alike) && last+1 < topFunctions {
			p.Functions = append(p.Functions, s)
		}
	}
	return p
}

// profileRate is how often profiler.go.txt has the profiler look, per second of processor time.
const profileRate = 250

// shares sorts, the largest first; of equal ones the shortest name, which is commonly the one that others call.
func shares(of map[string]time.Duration, total time.Duration) []share {
	var all []share
	for name, weight := range of {
		all = append(all, share{name, float64(weight) / float64(total)})
	}
	slices.SortFunc(all, func(a, b share) int {
		return cmp.Or(cmp.Compare(b.Of1, a.Of1), len(a.Name)-len(b.Name), strings.Compare(a.Name, b.Name))
	})
	return all
}

// markdown writes two tables: by kind of work, and by function.
func (p *profile) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\nWhere the time of %s goes (CPU profile, %d samples):\n\n| kind of work | share |\n|---|--:|\n", p.Operation, p.Samples)
	for _, s := range p.Buckets {
		fmt.Fprintf(b, "| %s | %.1f %% |\n", s.Name, 100*s.Of1)
	}
	fmt.Fprintf(b, "\n| function, with what it calls | share |\n|---|--:|\n")
	for _, s := range p.Functions {
		fmt.Fprintf(b, "| `%s` | %.1f %% |\n", s.Name, 100*s.Of1)
	}
}
