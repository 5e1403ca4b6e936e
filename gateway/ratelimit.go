package gateway

import (
	"strconv"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// rateHeaders are what an answer says of the caller's own limits: of the one that is nearest to its end. The zero value says
// nothing.
type rateHeaders struct {
	limit, remaining int
	reset            time.Time // when all of it will have come back
}

// note takes what a limit answered. Limits of a card are not told: they are other callers' too.
func (r *rateHeaders) note(name string, rate policy.Rate, taken store.Taken, now time.Time) {
	if name != "partner" && name != "credential" || r.limit > 0 && r.remaining <= taken.Remaining {
		return
	}
	r.limit, r.remaining = rate.Count, taken.Remaining
	used := time.Duration(int64(rate.Count-taken.Remaining)*rate.Interval()) * time.Microsecond
	if !taken.OK {
		used = taken.RetryAfter
	}
	r.reset = now.Add(used)
}

// write sets X-RateLimit-Limit, X-RateLimit-Remaining and X-RateLimit-Reset, the last in Unix seconds, rounded up: as the
// published clients of Payroc read it.
func (r *rateHeaders) write(out *exchange.Response) {
	if r.limit == 0 {
		return
	}
	out.Header = append(out.Header,
		exchange.HeaderField{Name: "X-Ratelimit-Limit", Value: strconv.Itoa(r.limit)},
		exchange.HeaderField{Name: "X-Ratelimit-Remaining", Value: strconv.Itoa(r.remaining)},
		exchange.HeaderField{Name: "X-Ratelimit-Reset", Value: strconv.FormatInt((r.reset.UnixMilli()+999)/1000, 10)})
}
