package gateway_test

import (
	"testing"
	"time"
)

// TestReplayNamesTheFirst: whoever shows a token that was used up is recorded beside who used it up, and when: an auditor finds
// both records by the attempt. Nothing of it is told to the caller.
func TestReplayNamesTheFirst(t *testing.T) {
	h := newHouse(t, options{})
	token := h.mint()
	replays := func(kind string) float64 { return h.metric("cardstile_replays_total", "kind", kind) }
	if r := h.anybody().do(detailsCall(card, token, h.session().ID())); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	first := h.records()[len(h.records())-1]
	if len(first.Attempt) != 32 || first.FirstAttempt != "" || replays("token") != 0 {
		t.Errorf("the first: %+v, %v replays", first, replays("token"))
	}
	again := h.anybody().do(detailsCall(card, token, h.session().ID()))
	never := h.anybody().do(detailsCall(card, "never-minted", h.session().ID()))
	if again.status != 401 || again.body != never.body {
		t.Errorf("%d %s, and of one that never was %s", again.status, again.body, never.body)
	}
	records := h.records()
	r := records[len(records)-2]
	if r.Reason != "token_spent" || r.FirstAttempt != first.Attempt || r.FirstPartner != "gp-demo" || r.Partner != "" || r.Address == "" || r.Attempt == first.Attempt || r.Attempt == "" {
		t.Errorf("the replay: %+v, the first: %+v", r, first)
	}
	when, err := time.Parse(time.RFC3339Nano, r.FirstTime)
	recorded, _ := time.Parse(time.RFC3339Nano, first.Time)
	if ahead := recorded.Sub(when); err != nil || ahead < -2*time.Millisecond || ahead > time.Minute { // it is redeemed, then recorded
		t.Errorf("first at %s (%v), recorded at %s", r.FirstTime, err, first.Time)
	}
	if last := records[len(records)-1]; last.Attempt != "" && last.FirstAttempt != "" || replays("token") != 1 {
		t.Errorf("what never was is no replay: %+v, %v replays", last, replays("token"))
	}

	s := h.session()
	set := h.setPINCall(card, h.mint(), s, "9153")
	for want, status := range []int{200, 400} {
		if r := h.partner().do(set); r.status != status || replays("envelope") != float64(want) {
			t.Errorf("%d %s, %v replays of envelopes", r.status, r.body, replays("envelope"))
		}
		set.header[1] = "Bearer " + h.mint()
	}
}
