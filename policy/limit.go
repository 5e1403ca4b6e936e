package policy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is a limit: at most Count at once, refilled evenly over Per. It is written "600/m".
//
// The zero Rate is "nothing configured": IsZero tells, and the caller then asks nobody. As a limit it permits nothing.
type Rate struct {
	// Count is how many may come at once, and how many come back within Per. At least 1, at most one per microsecond.
	Count int
	// Per is the time in which Count comes back. At least a microsecond, at most MaxRatePer.
	Per time.Duration
}

// MaxRatePer bounds Rate.Per, so that the arithmetic of GCRA stays exact in a script's doubles too (integers below 2^53).
const MaxRatePer = 31 * 24 * time.Hour

// rateUnits are the units that a written rate may name.
var rateUnits = []struct {
	text string
	per  time.Duration
}{
	{"s", time.Second},
	{"m", time.Minute},
	{"h", time.Hour},
	{"d", 24 * time.Hour},
}

// ParseRate reads "<count>/<unit>", where unit is s, m, h or d: "600/m" is 600 per minute.
func ParseRate(text string) (Rate, error) {
	count, unit, found := strings.Cut(text, "/")
	if !found {
		return Rate{}, fmt.Errorf("rate %q: want <count>/<unit>, such as 600/m", text)
	}
	if count == "" || strings.Trim(count, "0123456789") != "" {
		return Rate{}, fmt.Errorf("rate %q: the count must be a whole number", text)
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return Rate{}, fmt.Errorf("rate %q: the count is too large", text)
	}
	for _, u := range rateUnits {
		if u.text != unit {
			continue
		}
		r := Rate{Count: n, Per: u.per}
		if err := r.Validate(); err != nil {
			return Rate{}, fmt.Errorf("rate %q: %w", text, err)
		}
		return r, nil
	}
	return Rate{}, fmt.Errorf("rate %q: the unit must be s, m, h or d", text)
}

// IsZero reports that no rate is set.
func (r Rate) IsZero() bool { return r == Rate{} }

// Validate returns what is wrong with r as a limit, or nil.
func (r Rate) Validate() error {
	switch {
	case r.Count < 1:
		return errors.New("the count must be at least 1")
	case r.Per < time.Microsecond || r.Per > MaxRatePer:
		return errors.New("the time must be between a microsecond and 31 days")
	case int64(r.Count) > r.Per.Microseconds():
		return errors.New("at most one per microsecond can be counted")
	}
	return nil
}

// String writes r as ParseRate reads it. A Per that is no unit is written as a duration, which ParseRate refuses.
func (r Rate) String() string {
	if r.IsZero() {
		return ""
	}
	for _, u := range rateUnits {
		if u.per == r.Per {
			return strconv.Itoa(r.Count) + "/" + u.text
		}
	}
	return strconv.Itoa(r.Count) + "/" + r.Per.String()
}

// MarshalText writes r as String does.
func (r Rate) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRate reads, so that a Rate can stand in a configuration.
func (r *Rate) UnmarshalText(text []byte) error {
	parsed, err := ParseRate(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// Interval is the time that one takes to come back, in microseconds: Per/Count, rounded up, so that rounding never
// lets more through. It is 0 for a rate that is not valid.
func (r Rate) Interval() int64 {
	if r.Validate() != nil {
		return 0
	}
	n := int64(r.Count)
	return (r.Per.Microseconds() + n - 1) / n
}

// Burst is how far ahead of now the theoretical arrival time may run, in microseconds: Count × Interval.
func (r Rate) Burst() int64 { return int64(r.Count) * r.Interval() }

// GCRA is the generic cell rate algorithm (ITU-T I.371, virtual scheduling): one number is all that is kept.
//
// now is the present and tat the theoretical arrival time that the last permitted call left behind, both in
// microseconds on one clock; tat is 0, or anything in the past, where there was none. Where ok, newTAT is to be kept
// until it lies in the past, and remaining more would be permitted at once. Where not ok, newTAT need not be kept, and
// after retryAfter (rounded to nothing: microseconds) one would be permitted.
//
// A tat farther ahead than this rate allows (the rate was raised since, or the clock went back) counts as full, so
// that a full quota is refilled within Per whatever was kept. A rate that is not valid permits nothing.
//
// The store's script does the same arithmetic on the server; a property test holds the two together.
func (r Rate) GCRA(now, tat int64) (newTAT int64, ok bool, retryAfter time.Duration, remaining int) {
	interval := r.Interval()
	if interval == 0 {
		return tat, false, 0, 0
	}
	burst := int64(r.Count) * interval
	tat = min(max(tat, now), now+burst)
	next := tat + interval
	if ahead := next - now; ahead > burst {
		return tat, false, time.Duration(ahead-burst) * time.Microsecond, 0
	}
	return next, true, 0, int((burst - (next - now)) / interval)
}
