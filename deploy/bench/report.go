package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// report is everything that a run found out.
type report struct {
	Date     time.Time    `json:"date"`
	Options  string       `json:"options"`
	Machine  machine      `json:"machine"`
	Rows     []row        `json:"rows,omitempty"` // none where only the store is measured
	Ratios   []ratio      `json:"ratios,omitempty"`
	Idle     []idleRow    `json:"idle,omitempty"`
	Profiles []profile    `json:"profiles,omitempty"`
	Store    *storeReport `json:"store,omitempty"`
}

// ratio compares two rows of one run. It is taken within each round, so that what disturbs a round disturbs both sides.
type ratio struct {
	Of   string  `json:"of"`
	To   string  `json:"to"`
	Is   spread  `json:"is"`
	Goal float64 `json:"goal,omitempty"` // at most
}

// ratios are the comparisons that the project has set itself goals for, and those that explain them.
func ratios(rows []row) []ratio {
	find := func(operation string, servers ...string) *row {
		for i, r := range rows {
			if r.Operation == operation && r.Server == servers[0] && (operation != opReveal || r.Connections == 16) {
				return &rows[i]
			}
		}
		return nil
	}
	var all []ratio
	add := func(of, to string, goal float64, a, b *row, of1 func(a float64, round int) float64) {
		if a == nil || b == nil {
			return
		}
		var values []float64
		for i := range min(len(a.cpu), len(b.cpu)) {
			if b.cpu[i] > 0 { // else it ran for less than the processor's clock tells
				values = append(values, of1(a.cpu[i], i)/b.cpu[i])
			}
		}
		all = append(all, ratio{of, to, spreadOf(values), goal})
	}
	whole := func(a float64, _ int) float64 { return a }
	const us, proxy = "Cardstile", "ReverseProxy"
	direct, direct1, nginx := find(opForward, proxy), find(opForward, proxyH1Name), find(opForward, "nginx")

	forward := find(opForward, us)
	add("forward with all stages", "ReverseProxy forward", 1, forward, direct, whole)
	add("forward with all stages", "ReverseProxy forward, HTTP/1.1 to the issuer", 0, forward, direct1, whole)
	add("forward with all stages", "nginx forward", 0, forward, nginx, whole)

	card := find(opProfile, us)
	add("profile (2 issuer calls)", "ReverseProxy forward (1 call)", 0, card, direct, whole)
	add("the same, per issuer call", "ReverseProxy forward", 0, card, direct, func(a float64, _ int) float64 { return a / 2 })

	if rsa := find(opRSA, "crypto/rsa"); rsa != nil {
		without := func(a float64, round int) float64 { return a - rsa.cpu[round] }
		reveal, pin := find(opReveal, us), find(opPIN, us)
		add("reveal without its RSA operation (2 issuer calls)", "ReverseProxy forward (1 call)", 1.5, reveal, direct, without)
		add("the same, per issuer call", "ReverseProxy forward", 1.5, reveal, direct, func(a float64, round int) float64 { return without(a, round) / 2 })
		add("PIN reveal without its RSA operation (1 issuer call)", "ReverseProxy forward (1 call)", 1.5, pin, direct, without)
		add("RSA operation", "whole reveal", 0, rsa, reveal, whole)
	}
	handshake := find(opHandshake, us)
	add("handshake", "nginx handshake", 0.55, handshake, find(opHandshake, "nginx"), whole)
	add("handshake", "ReverseProxy handshake", 0.9, handshake, find(opHandshake, proxy), whole)
	add("handshake, X25519MLKEM768", "ReverseProxy, the same", 0, find(opHybrid, us), find(opHybrid, proxy), whole)
	add("ReverseProxy forward", "nginx forward", 0, direct, nginx, whole)
	return all
}

const proxyH1Name = "ReverseProxy, HTTP/1.1 to the issuer"

// markdown writes the report.
func (r *report) markdown(out io.Writer) error {
	var b strings.Builder
	r.heading(&b)
	if len(r.Rows) > 0 {
		r.table(&b)
		r.comparisons(&b)
	}
	idleMarkdown(&b, r.Idle)
	for _, p := range r.Profiles {
		p.markdown(&b)
	}
	if r.Store != nil {
		r.Store.markdown(&b)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// heading says when and where.
func (r *report) heading(b *strings.Builder) {
	m := r.Machine
	if r.Machine.Cardstile == "" {
		fmt.Fprintf(b, "%s · %s · %d processors · kernel %s · %s · load average before %s, after %s\n",
			r.Date.Format(time.DateOnly), m.Processor, m.Processors, m.Kernel, m.Go, m.LoadBefore, m.LoadAfter)
		return
	}
	fmt.Fprintf(b, "%s · %s · %d processors (measured server on one, load and issuer on another) · kernel %s · audit log on %s\n\n",
		r.Date.Format(time.DateOnly), m.Processor, m.Processors, m.Kernel, m.FileSystem)
	fmt.Fprintf(b, "%s · load and ReverseProxy %s", m.Cardstile, m.Go)
	if m.Nginx != "" {
		fmt.Fprintf(b, " · %s", m.Nginx)
	}
	fmt.Fprintf(b, " · %s, medians (lowest–highest) · load average before %s, after %s\n\n", r.Options, m.LoadBefore, m.LoadAfter)
}

// table is a line for each row, and what its exchanges are.
func (r *report) table(b *strings.Builder) {
	b.WriteString("| operation | server | connections | issuer calls | CPU-µs per exchange | exchanges/s | processor busy | p50 ms | p99 ms | p99.9 ms | allocations | KB | syncs |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range r.Rows {
		fmt.Fprintf(b, "| %s | %s | %d | %d | **%.0f** (%.0f–%.0f) | %.0f | %.0f %% | %s | %s | %s | %s | %s | %s |\n",
			row.Operation, row.Server, row.Connections, row.Calls, row.CPU.Median, row.CPU.Min, row.CPU.Max, row.Throughput.Median, 100*row.Busy.Median,
			millis(row.P50), millis(row.P99), millis(row.P999), number(row.Objects, 1, "%.0f"), number(row.Bytes, 1024, "%.1f"), number(row.Syncs, 1, "%.2f"))
	}
	b.WriteString("\nWhat one exchange includes:\n\n")
	said := map[string]bool{}
	for _, row := range r.Rows {
		if line := fmt.Sprintf("- %s, %s: %s\n", row.Operation, row.Server, row.Includes); !said[line] {
			said[line] = true
			b.WriteString(line)
		}
	}
}

// comparisons are the ratios beside their goals.
func (r *report) comparisons(b *strings.Builder) {
	if len(r.Ratios) == 0 {
		return
	}
	b.WriteString("\n| CPU per exchange of | to | ratio | goal |\n|---|---|--:|--:|\n")
	for _, q := range r.Ratios {
		goal := ""
		if q.Goal > 0 {
			goal = fmt.Sprintf("≤ %.2f", q.Goal)
		}
		fmt.Fprintf(b, "| %s | %s | **%.2f** (%.2f–%.2f) | %s |\n", q.Of, q.To, q.Is.Median, q.Is.Min, q.Is.Max, goal)
	}
}

func millis(us float64) string {
	if us == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", us/1000)
}

// number is a figure that a server may not know.
func number(s *spread, unit float64, format string) string {
	if s == nil {
		return "–"
	}
	return fmt.Sprintf(format, s.Median/unit)
}
