package policy_test

import (
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"pgregory.net/rapid"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]policy.Rate{
		"1/s":       {Count: 1, Per: time.Second},
		"600/m":     {Count: 600, Per: time.Minute},
		"120/h":     {Count: 120, Per: time.Hour},
		"5/d":       {Count: 5, Per: 24 * time.Hour},
		"1000000/s": {Count: 1_000_000, Per: time.Second},
	} {
		got, err := policy.ParseRate(text)
		if err != nil || got != want {
			t.Errorf("ParseRate(%q) = %+v, %v; want %+v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("ParseRate(%q).String() = %q", text, got.String())
		}
	}
}

func TestParseRateRefuses(t *testing.T) {
	for _, text := range []string{
		"", "/", "600", "600/", "/m", "0/m", "-1/m", "+1/m", "1.5/m", " 1/m", "1/m ", "1 /m", "1/M", "1/min", "1/w",
		"1/m/s", "1000001/s", "99999999999999999999/d", "0x10/m", "1_000/m", "１/m",
	} {
		if got, err := policy.ParseRate(text); err == nil {
			t.Errorf("ParseRate(%q) = %+v, want an error", text, got)
		}
	}
}

func TestRateAsText(t *testing.T) {
	var r policy.Rate
	if err := r.UnmarshalText([]byte("600/m")); err != nil {
		t.Fatal(err)
	}
	if err := r.UnmarshalText([]byte("nonsense")); err == nil {
		t.Error("nonsense was taken")
	}
	if text, err := r.MarshalText(); err != nil || string(text) != "600/m" {
		t.Errorf("MarshalText = %q, %v: a refused text must leave the rate as it was", text, err)
	}
	if got := (policy.Rate{Count: 5, Per: 90 * time.Second}).String(); got != "5/1m30s" {
		t.Errorf("String = %q", got)
	}
	if got := (policy.Rate{}).String(); got != "" {
		t.Errorf("String of the zero rate = %q", got)
	}
}

// The zero rate, and every other one that is not valid, permits nothing.
func TestInvalidRatePermitsNothing(t *testing.T) {
	for _, r := range []policy.Rate{
		{}, {Count: -1, Per: time.Minute}, {Count: 1}, {Count: 1, Per: -time.Second}, {Count: 2, Per: time.Microsecond},
		{Count: 1, Per: time.Nanosecond}, {Count: 1, Per: policy.MaxRatePer + 1},
	} {
		if r.Validate() == nil {
			t.Errorf("%+v is said to be valid", r)
		}
		if _, ok, _, _ := r.GCRA(1_000_000, 0); ok {
			t.Errorf("%+v permitted one", r)
		}
	}
}

func TestGCRACountsDown(t *testing.T) {
	r := policy.Rate{Count: 3, Per: 3 * time.Second}
	const now = int64(1_700_000_000_000_000)
	tat := int64(0)
	for want := 2; want >= 0; want-- {
		next, ok, retry, remaining := r.GCRA(now, tat)
		if !ok || retry != 0 || remaining != want {
			t.Fatalf("ok %v, retry %v, remaining %d; want %d", ok, retry, remaining, want)
		}
		tat = next
	}
	if _, ok, retry, _ := r.GCRA(now, tat); ok || retry != time.Second {
		t.Fatalf("the fourth: ok %v, retry %v; want refused for a second", ok, retry)
	}
	if _, ok, _, _ := r.GCRA(now+time.Second.Microseconds()-1, tat); ok {
		t.Error("permitted a microsecond early")
	}
	if _, ok, _, _ := r.GCRA(now+time.Second.Microseconds(), tat); !ok {
		t.Error("refused when one has come back")
	}
}

// A rate that was raised, or a clock that went back, must not lock anybody out for longer than Per.
func TestGCRAForgetsADistantArrival(t *testing.T) {
	r := policy.Rate{Count: 10, Per: time.Second}
	const now = int64(1_700_000_000_000_000)
	_, ok, retry, _ := r.GCRA(now, now+24*time.Hour.Microseconds())
	if ok || retry > time.Second {
		t.Errorf("ok %v, retry after %v", ok, retry)
	}
}

// An interval is a whole number of microseconds; what is lost in that is never the caller's gain.
func TestRoundingLetsNoMoreThrough(t *testing.T) {
	r := policy.Rate{Count: 3, Per: 10 * time.Microsecond}
	const start = int64(1_700_000_000_000_000)
	tat, permitted := int64(0), int64(0)
	for now := start; now < start+1000; now++ { // asked every microsecond
		next, ok, _, _ := r.GCRA(now, tat)
		if !ok {
			continue
		}
		tat = next
		permitted++
		if most := 3 + (now-start)*3/10; permitted > most {
			t.Fatalf("%d permitted within %d µs, at most %d may be", permitted, now-start, most)
		}
	}
}

func rates(t *rapid.T) policy.Rate {
	r := policy.Rate{
		Count: rapid.IntRange(1, 10_000).Draw(t, "count"),
		Per:   time.Duration(rapid.Int64Range(10_000, policy.MaxRatePer.Microseconds()).Draw(t, "per")) * time.Microsecond,
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	return r
}

// In any stretch of time, no more are permitted than Count and what comes back meanwhile; retryAfter is exact;
// remaining is the truth.
func TestGCRAProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rates(t)
		const start = int64(1_700_000_000_000_000)
		now, tat, permitted := start, int64(0), int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "calls") {
			now += rapid.Int64Range(0, 3*r.Interval()).Draw(t, "wait")
			next, ok, retry, remaining := r.GCRA(now, tat)
			if !ok {
				if retry <= 0 {
					t.Fatalf("refused, and to be tried again after %v", retry)
				}
				later := now + retry.Microseconds()
				if _, early, _, _ := r.GCRA(later-1, tat); early {
					t.Fatal("permitted before retryAfter")
				}
				if _, due, _, _ := r.GCRA(later, tat); !due {
					t.Fatal("refused after retryAfter")
				}
				continue
			}
			permitted++
			tat = next
			if float64(permitted) > float64(r.Count)*(1+float64(now-start)/float64(r.Per.Microseconds())) {
				t.Fatalf("%d permitted within %d µs of %+v", permitted, now-start, r)
			}
			rest := tat
			for i := range min(remaining, 50) {
				var more bool
				if rest, more, _, _ = r.GCRA(now, rest); !more {
					t.Fatalf("remaining %d, but only %d were permitted", remaining, i)
				}
			}
			if remaining <= 50 {
				if _, more, _, _ := r.GCRA(now, rest); more {
					t.Fatalf("more than the remaining %d were permitted", remaining)
				}
			}
		}
	})
}
