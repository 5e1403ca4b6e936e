package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// idleConnections are open at once, each with one exchange behind it.
const idleConnections = 1000

// idleGoal is what an idle mTLS connection may take at most, in bytes.
const idleGoal = 30 << 10

// idleRow is what a connection takes that waits for its next request.
type idleRow struct {
	Server      string  `json:"server"`
	Connections int     `json:"connections"`
	Live        float64 `json:"live_bytes,omitempty"` // heap and stacks after a collection; zero where there is no telling
	Resident    float64 `json:"resident_bytes"`       // of the process, after it gave back what it does not use; the kernel's buffers are not in it
	Goal        float64 `json:"goal,omitempty"`       // at most, of Live
}

// memory is what a process has.
type memory struct{ live, resident int64 }

// measureIdle opens many connections to each server, one after the other. Cardstile has to be the one that tells of its memory.
func (w *world) measureIdle(ctx context.Context) ([]idleRow, error) {
	direct := repeat(get(forwarded, "Authorization: Bearer "+w.paymentsKey, "Accept: application/json"))
	var rows []idleRow
	for _, s := range []*server{w.cardstile, w.proxy, w.nginxServer} {
		if s == nil {
			continue
		}
		request, goal := direct, 0.0
		if s == w.cardstile {
			request, goal = repeat(mintRequest), idleGoal
		}
		// Those of the first go go through what a process allocates once, and are closed again.
		for _, n := range []int{100, idleConnections} {
			row, err := w.idle(ctx, s, n, request)
			if err != nil {
				return nil, fmt.Errorf("idle connections of %s: %w", s.name, err)
			}
			if row.Goal = goal; n == idleConnections {
				rows = append(rows, row)
			}
		}
		fmt.Fprintf(w.progress, "idle connections of %s done\n", s.name)
	}
	return rows, nil
}

func (w *world) idle(ctx context.Context, s *server, n int, request source) (idleRow, error) {
	before, err := s.memory(ctx, w.dir)
	if err != nil {
		return idleRow{}, err
	}
	open := w.requests(s.address, w.partner, 1, request, 200, "")
	var workers []worker
	defer func() { closeAll(workers) }()
	for range n { // each with its exchange at once, since servers wait for the first request of a connection only so long
		one, err := open(ctx, nil)
		if err != nil {
			return idleRow{}, err
		}
		workers = append(workers, one...)
		if err := one[0].exchange(); err != nil {
			return idleRow{}, err
		}
	}
	after, err := s.memory(ctx, w.dir)
	if err != nil {
		return idleRow{}, err
	}
	per := func(a, b int64) float64 { return float64(a-b) / float64(n) }
	return idleRow{Server: s.name, Connections: n, Live: per(after.live, before.live), Resident: per(after.resident, before.resident)}, nil
}

// memory has a server collect its garbage, where it has any, and asks what is left.
func (s *server) memory(ctx context.Context, dir string) (m memory, err error) {
	switch {
	case s.admin != "": // Cardstile with its profiler: the file is there when it is complete
		name := filepath.Join(dir, "memory")
		os.Remove(name) //nolint:errcheck // of the last time, if any
		if err := s.cmd.Process.Signal(syscall.SIGWINCH); err != nil {
			return m, err
		}
		var content []byte
		if err := s.wait(ctx, func() (err error) { content, err = os.ReadFile(name); return err }); err != nil {
			return m, err
		}
		m.live, err = strconv.ParseInt(string(content), 10, 64)
	case s.in != nil:
		var answer string
		if answer, err = s.ask("memory"); err == nil {
			m.live, err = strconv.ParseInt(answer, 10, 64)
		}
	}
	if err != nil {
		return m, err
	}
	for _, pid := range s.pids {
		content, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
		if err != nil {
			return m, err
		}
		bytes, err := residentBytes(string(content))
		if err != nil {
			return m, err
		}
		m.resident += bytes
	}
	return m, nil
}

// residentBytes reads VmRSS of /proc/<pid>/status (proc_pid_status(5)).
func residentBytes(status string) (int64, error) {
	for line := range strings.Lines(status) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("process status: VmRSS: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("process status: no VmRSS")
}

// idleMarkdown writes the part of the report.
func idleMarkdown(b *strings.Builder, rows []idleRow) {
	if len(rows) == 0 {
		return
	}
	b.WriteString("\n| KiB of an idle mTLS connection | connections | heap and stacks | goal | resident |\n|---|--:|--:|--:|--:|\n")
	for _, r := range rows {
		live := "–"
		if r.Live != 0 {
			live = fmt.Sprintf("**%.1f**", r.Live/1024)
		}
		fmt.Fprintf(b, "| %s | %d | %s | %s | %.1f |\n", r.Server, r.Connections, live, judged("≤ %.0f", r.Live/1024, r.Goal/1024), r.Resident/1024)
	}
}
