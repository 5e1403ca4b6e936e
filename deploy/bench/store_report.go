package main

import (
	"fmt"
	"strings"
)

// markdown writes the store's part of the report.
func (r *storeReport) markdown(b *strings.Builder) {
	fmt.Fprintf(b, "\n### The store\n\n%d pairs of mint and redemption in each row, %d at a time, %d tokens of each worker live, values of %d bytes · "+
		"%d slices, medians (lowest–highest) · Redis %s on one processor, the client on the other, and the replicas too",
		r.Pairs, r.Workers, r.Live, r.ValueBytes, r.Slices, r.Redis)
	if r.Client != "" {
		fmt.Fprintf(b, " · go-redis %s", r.Client)
	}
	b.WriteString("\n\n| store | replicas | pairs/s | client, CPU-µs per pair | server, CPU-µs per pair | mint p50 µs | p99 | p99.9 | redeem p50 µs | p99 | p99.9 |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range r.Rows {
		server := "–"
		if row.Server != nil {
			server = bold(*row.Server, "%.1f")
		}
		fmt.Fprintf(b, "| %s | %d | %.0f | %s | %s | %s | %s | %s | %s | %s | %s |\n", row.Store, row.Replicas, row.Throughput.Median,
			bold(row.Client, "%.1f"), server, brief(row.Mint.P50), brief(row.Mint.P99), brief(row.Mint.P999), brief(row.Redeem.P50), brief(row.Redeem.P99), brief(row.Redeem.P999))
	}
	b.WriteString("\n| CPU per fenced pair of | to | ratio | goal |\n|---|---|--:|--:|\n")
	for _, q := range r.Ratios {
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", q.Of, q.To, bold(q.Is, "%.3f"), judged("≤ %.2f", q.Is.Median, q.Goal))
	}
	b.WriteString("\n| memory, bytes per token | value | tokens | live | goal | spent |\n|---|--:|--:|--:|--:|--:|\n")
	for _, m := range r.Memory {
		fmt.Fprintf(b, "| %s | %d | %d | **%.0f** | %s | %.0f |\n", m.Store, m.ValueBytes, m.Tokens, m.Live, judged("≤ %.0f", m.Live, m.Goal), m.Spent)
	}
}

// brief has decimals where they matter.
func brief(us float64) string {
	if us < 10 {
		return fmt.Sprintf("%.1f", us)
	}
	return fmt.Sprintf("%.0f", us)
}

// bold is a median with its spread beside it.
func bold(s spread, format string) string {
	return fmt.Sprintf("**"+format+"** ("+format+"–"+format+")", s.Median, s.Min, s.Max)
}

// judged is a goal, where there is one, and whether a figure meets it.
func judged(format string, is, goal float64) string {
	switch {
	case goal == 0:
		return ""
	case is <= goal:
		return fmt.Sprintf(format+", met", goal)
	}
	return fmt.Sprintf(format+", not met", goal)
}
