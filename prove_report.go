package main

import (
	"fmt"
	"strings"

	"github.com/cardstile/cardstile/internal/drill"
)

// reportText is what `cardstile prove` prints: the verdict in the last line, and above it what it rests on.
func reportText(r *drill.Report) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	row := func(n any, what string) { line("  %9v  %s", n, what) }
	some := func(n int64, what string) {
		if n > 0 {
			row(n, what)
		}
	}
	line("Redis %s: %s", strings.Join(r.Redis.Addresses, ", "), deployed(r.Redis))
	line("fence by %s; %d workers for %.1f s, whose calls wait %d ms; --seed %d", r.Fence, r.Workers, r.Seconds, r.TimeoutMS, r.Seed)
	line("\ntokens")
	t := r.Tokens
	row(t.Minted, "minted, and told so")
	row(t.Redeemed, "redeemed")
	row(t.RedeemedTwice, "redeemed twice: must be 0")
	row(t.Lost, "lost, though the tenure that minted them lasted: must be 0")
	row(t.Wrong, "wrong besides: must be 0")
	row(t.Fenced, "fenced: another tenure had minted them")
	row(t.Gone, "unknown: gone with the tenure that minted them")
	row(t.Expired, "expired")
	line("calls")
	row(r.Calls.All, "in all")
	row(r.Calls.Spent, "replays, told \"spent\"")
	row(r.Calls.Again, "retries of the same attempt, given their answer again")
	row(r.Calls.Unavailable, "without an answer")
	some(int64(r.Calls.Full), "refused: there was no room")
	some(int64(r.Calls.Unseen), "while the tenure could not be seen")
	row(r.Latency.Mint, "mint, p50/p99 in ms where no fault was on the way")
	row(r.Latency.Redeem, "redeem, the same")
	line("faults")
	f := r.Faults
	row(f.BrokenReplies, "replies that broke off")
	row(f.Blackouts, "times a gateway was cut off")
	row(f.Stalls, "times replies came too late")
	row(f.Slow, "times replies came slowly")
	some(f.Commands, "times a command of --fault was run")
	some(f.CommandsFailed, "times it failed")
	line("tenures")
	for _, s := range r.Tenures.Seen {
		line("  %7.1f s  %.8s… at %s", s.Seconds, s.ID, s.Server)
	}
	line("")
	for _, n := range remarksOnProof(r) {
		line("note: %s", n)
	}
	const most = 3
	for _, v := range r.Violations[:min(most, len(r.Violations))] {
		line("%s: %s", v.Crime, v.History)
	}
	if n := len(r.Violations) - most; n > 0 {
		line("… and %d violations more: --json has all\n", n)
	}
	line("%s", verdict(r))
	return b.String()
}

func deployed(d drill.Deployment) string {
	text := "one server"
	switch d.Mode {
	case "sentinel":
		text = "Sentinels and their primary"
	case "cluster":
		text = fmt.Sprintf("Cluster of %d primaries", d.Primaries)
	}
	if d.Replicas == 1 {
		text += ", 1 replica"
	} else {
		text += fmt.Sprintf(", %d replicas", d.Replicas)
	}
	if d.Version != "" {
		text += ", version " + d.Version
	}
	return text
}

// remarksOnProof are what a reader of the verdict should know.
func remarksOnProof(r *drill.Report) (notes []string) {
	say := func(when bool, format string, args ...any) {
		if when {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	say(r.Tenures.Changes == 0 && r.Faults.Commands == 0, "no failover was tried: --fault has one happen")
	say(r.Tenures.Changes == 0 && r.Faults.Commands > 0, "no tenure ended: what --fault did was no failover, or came too late")
	say(r.Calls.Unseen > 0, "calls under a tenure that was not seen are judged for being redeemed twice, not for being lost")
	say(r.Tokens.Unanswered > 0, "%d tokens were not asked for once more", r.Tokens.Unanswered)
	say(r.Keys.Left > 0, "%d keys are left in Redis: not the drill's, or they could not be removed", r.Keys.Left)
	say(r.Keys.Left < 0, "the drill's keys could not all be removed; Redis forgets them within 70 minutes")
	return notes
}

func verdict(r *drill.Report) string {
	early := ""
	if r.Interrupted {
		early = ", until it was interrupted"
	}
	t := r.Tokens
	switch r.Verdict {
	case drill.Held:
		return fmt.Sprintf("held%s: of %d tokens none was redeemed twice, and none was lost under its tenure", early, t.Minted)
	case drill.Violated:
		return fmt.Sprintf("violated: %d tokens redeemed twice, %d lost, %d wrong besides", t.RedeemedTwice, t.Lost, t.Wrong)
	}
	return fmt.Sprintf("undecided%s: %s", early, r.Why)
}
