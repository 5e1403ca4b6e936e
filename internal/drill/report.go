package drill

import (
	"fmt"
	"slices"
	"time"
)

// Verdict is what a run came to.
type Verdict string

// The verdicts.
const (
	Held      Verdict = "held"
	Violated  Verdict = "violated"
	Undecided Verdict = "undecided" // there was nothing to judge, or it could not be judged in time
)

// Report is what a run came to, and what it is made of. No digest, value or password is in it.
type Report struct {
	Verdict     Verdict    `json:"verdict"`
	Why         string     `json:"why,omitempty"` // of Undecided
	Redis       Deployment `json:"redis"`
	Fence       string     `json:"fence"` // tenure or quorum
	Seed        uint64     `json:"seed"`
	Seconds     float64    `json:"seconds"` // how long the workers were at work
	Interrupted bool       `json:"interrupted"`
	Workers     int        `json:"workers"`
	TimeoutMS   int64      `json:"timeout_ms"` // of each gateway's calls
	Tokens      Counts     `json:"tokens"`
	Calls       Calls      `json:"calls"`
	Latency     struct {
		Mint   Latency `json:"mint"`
		Redeem Latency `json:"redeem"`
	} `json:"latency"` // of what was answered while no fault was on its way
	Faults     Faults  `json:"faults"`
	Tenures    Tenures `json:"tenures"`
	Keys       Keys    `json:"keys"`
	Violations []Found `json:"violations"`
}

// Deployment is the Redis.
type Deployment struct {
	Addresses []string `json:"addresses"`
	Mode      string   `json:"mode"` // one address, sentinel or cluster
	Version   string   `json:"version"`
	Primaries int      `json:"primaries"`
	Replicas  int      `json:"replicas"`
}

// Counts are of tokens.
type Counts struct {
	All           int `json:"all"`
	Minted        int `json:"minted"` // acknowledged
	Redeemed      int `json:"redeemed"`
	RedeemedTwice int `json:"redeemed_twice"`   // by two attempts: must be 0
	Lost          int `json:"lost"`             // minted under a tenure that lasted, and gone: must be 0
	Wrong         int `json:"wrong_besides"`    // any other crime: must be 0
	Fenced        int `json:"fenced"`           // refused, since another tenure minted it
	Gone          int `json:"gone_with_tenure"` // unknown after the tenure that minted it ended
	Undecided     int `json:"undecided"`        // could not be judged in time
	Expired       int `json:"expired"`          // told to be expired
	Unanswered    int `json:"unanswered"`       // were not answered for in the end, when each is asked for once more
}

// Calls are of what gateways asked.
type Calls struct {
	All         int `json:"all"`
	Spent       int `json:"spent"`         // replays by others, told so
	Again       int `json:"again"`         // retries of the same attempt, given their answer again
	Unavailable int `json:"unavailable"`   // without an answer
	Full        int `json:"full"`          // mints for which there was no room
	Unseen      int `json:"tenure_unseen"` // answered while the server's tenure could not be seen
}

// Latency is in milliseconds.
type Latency struct {
	P50 float64 `json:"p50_ms"`
	P99 float64 `json:"p99_ms"`
}

// String returns p50/p99, for people.
func (l Latency) String() string { return fmt.Sprintf("%.2f/%.2f", l.P50, l.P99) }

// Faults are what the run did.
type Faults struct {
	BrokenReplies  int   `json:"broken_replies"`
	Blackouts      int64 `json:"blackouts"`
	Stalls         int64 `json:"stalls"`
	Slow           int64 `json:"slow"`
	Commands       int64 `json:"commands"`
	CommandsFailed int64 `json:"commands_failed"`
}

// Tenures are what was seen of them.
type Tenures struct {
	Changes int        `json:"changes"`
	Seen    []Sighting `json:"seen"`
}

// Sighting is the first one of a tenure.
type Sighting struct {
	Server  string  `json:"server"`
	ID      string  `json:"replid"`
	Seconds float64 `json:"seconds"` // since the start
}

// Keys are those of the drill in Redis.
type Keys struct {
	Removed int64 `json:"removed"`
	Left    int64 `json:"left"` // -1: it is not known
}

// Found is a violation.
type Found struct {
	Crime   Crime  `json:"crime"`
	Token   int    `json:"token"`
	History string `json:"history"`
}

// judge fills in the report.
func (r *runner) judge() {
	all := r.load.History.All()
	for _, k := range all {
		reach := r.deployment.reach(k)
		for _, c := range k.past() {
			c.reach = reach
		}
	}
	found, undecided := Judge(r.load.History, Circumstances{Unsharp: int64(unsharp), Quorum: r.Redis.Quorum != nil})
	p := &r.report
	p.Fence, p.Seed, p.Workers, p.TimeoutMS = "tenure", r.Seed, r.load.Workers*len(r.load.Gateways), r.Redis.Timeout.Milliseconds()
	if r.Redis.Quorum != nil {
		p.Fence = "quorum"
	}
	p.Tokens.All, p.Tokens.Undecided = len(all), undecided
	p.Violations = []Found{}
	crimes := map[*Token][]Crime{}
	for _, v := range found {
		crimes[v.Token] = append(crimes[v.Token], v.Crime)
		p.Violations = append(p.Violations, Found{v.Crime, v.Token.Number, v.Token.String()})
	}
	slices.SortStableFunc(p.Violations, func(a, b Found) int { return gravity(a.Crime) - gravity(b.Crime) })
	for _, cs := range crimes {
		switch {
		case slices.Contains(cs, Twice):
			p.Tokens.RedeemedTwice++
		case slices.Contains(cs, Lost):
			p.Tokens.Lost++
		default:
			p.Tokens.Wrong++
		}
	}
	var times [2][]float64 // of mints, of redemptions
	for _, k := range all {
		r.count(k, len(crimes[k]) > 0, &times)
	}
	p.Latency.Mint, p.Latency.Redeem = latency(times[0]), latency(times[1])
	p.Faults = Faults{
		r.network.Broken(), r.faults.dark.Load(), r.faults.stalls.Load(), r.faults.slow.Load(), r.faults.commands.Load(), r.faults.failed.Load(),
	}
	p.Tenures.Seen = []Sighting{}
	for _, t := range r.deployment.tenures() {
		p.Tenures.Seen = append(p.Tenures.Seen, Sighting{t.Server, t.ID, time.Duration(t.Since).Seconds()})
	}
	p.Tenures.Changes = max(0, len(p.Tenures.Seen)-p.Redis.Primaries)
	switch {
	case len(found) > 0:
		p.Verdict = Violated
	case undecided > 0:
		p.Verdict, p.Why = Undecided, "some tokens could not be judged in time"
	case p.Tokens.Unanswered > 0 && !p.Interrupted:
		p.Verdict, p.Why = Undecided, "the store did not answer in the end, when each token is asked for once more"
	case p.Tokens.Redeemed == 0:
		p.Verdict, p.Why = Undecided, "nothing was redeemed, so that nothing was shown"
	default:
		p.Verdict = Held
	}
}

// gravity orders crimes by what they cost.
func gravity(c Crime) int { return slices.Index([]Crime{Twice, Strange, Crossed, Lost, Illegal}, c) }

// count adds what became of a token.
func (r *runner) count(k *Token, isWrong bool, times *[2][]float64) {
	t, calls := &r.report.Tokens, &r.report.Calls
	var minted, redeemed, fencedOnce, gone, expiredOnce bool
	had := map[uint64]bool{}
	for _, c := range k.past() {
		calls.All++
		if c.fair && c.answer != nothing && c.gateway != thief {
			i := 1
			if c.verb == mint {
				i = 0
			}
			times[i] = append(times[i], float64(c.ended-c.began)/1e6)
		}
		switch c.answer {
		case yes:
			if c.verb == mint {
				minted = true
				break
			}
			redeemed = true
			if had[c.attempt] {
				calls.Again++
			}
			had[c.attempt] = true
		case spent:
			calls.Spent++
		case expired:
			expiredOnce = true
		case fenced:
			fencedOnce = true
		case unknown:
			gone = gone || minted && c.otherTenure && !c.longExpired
		case full:
			calls.Full++
		case nothing:
			calls.Unavailable++
		}
		if c.unseen {
			calls.Unseen++
		}
	}
	for n, is := range map[*int]bool{
		&t.Minted: minted, &t.Redeemed: redeemed, &t.Fenced: fencedOnce, &t.Gone: gone && !fencedOnce && !isWrong, &t.Expired: expiredOnce,
	} {
		if is {
			*n++
		}
	}
}

// latency sorts the times.
func latency(times []float64) Latency {
	if len(times) == 0 {
		return Latency{}
	}
	slices.Sort(times)
	at := func(part int) float64 { return times[(len(times)-1)*part/100] }
	return Latency{at(50), at(99)}
}
