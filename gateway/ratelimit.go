package gateway

import (
	"context"
	"strconv"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// rateHeaders are what an answer says of the caller's own limits: of the one that is nearest to its end. The zero value says
// nothing.
type rateHeaders struct {
	limit, remaining int
	reset            time.Time // when all of it will have come back, or for who is beyond it, the next one
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

// count takes a place in the limits per partner, per card, and per card for what is done to its PIN [14].
func (x *running) count(ctx context.Context, call *exchange.Call, p proven, d decided) error {
	// A refresh token that was used up is not lost to a limit: who came back with it would end the login.
	if p.session == (credential.Session{}) && !x.hosted.counted {
		if err := x.limitPartner(ctx, &p, p.has(policy.KindFields)); err != nil {
			return err
		}
	}
	if err := x.limitUser(ctx, call, p); err != nil {
		return err
	}
	if d.holding == nil || call.Operations[0].Mints() {
		return nil
	}
	for _, l := range []struct {
		op   policy.Operation
		name string
		rate policy.Rate
	}{{policy.PINReveal, "pin_reveal", x.st.limits.PINReveal}, {policy.PINSet, "pin_set", x.st.limits.PINSet}} {
		if !call.Has(l.op) {
			continue
		}
		if err := x.limit(ctx, l.name, limitDigest(x.st.config.CardDigest, l.name, d.holding.Card), l.rate); err != nil {
			return err
		}
	}
	return x.limit(ctx, "card", x.event.Card, x.st.limits.Card)
}

// limitPartner takes one from the partner's rate. What pages of its customers do has a rate of its own beside it, as high, so that
// they do not use up the backend's.
func (x *running) limitPartner(ctx context.Context, p *proven, page bool) error {
	known := x.st.partners[p.partnerID()]
	if known == nil {
		return nil
	}
	digest := known.digest
	if page {
		digest = known.pages
	}
	return x.limit(ctx, "partner", digest, known.rate)
}

// limitUser takes one from the rate of a user for what is kept for them, or tried, without a card's limit: challenges for their
// wallet, and cards that they bring.
func (x *running) limitUser(ctx context.Context, call *exchange.Call, p proven) error {
	if p.user == "" || call.Challenge.Method != policy.MethodEIP712 && !call.Has(policy.CardVerify) {
		return nil
	}
	return x.limit(ctx, "user", limitDigest(x.st.config.CardDigest, "user", p.user), x.st.limits.User)
}

// limit takes one from a rate; the zero rate is no limit.
func (x *running) limit(ctx context.Context, name string, digest store.Digest, rate policy.Rate) error {
	if rate.IsZero() {
		return nil
	}
	taken, err := x.g.services.Store.Take(ctx, digest, rate)
	if err != nil {
		return err
	}
	x.rate.note(name, rate, taken, time.Now())
	if !taken.OK {
		return x.limited(name, taken.RetryAfter)
	}
	return nil
}

func (x *running) limited(name string, after time.Duration) *exchange.Failure {
	x.g.metrics.limited.WithLabelValues(name).Inc()
	return &exchange.Failure{Kind: exchange.LimitReached, Reason: "limit_" + name, RetryAfter: seconds(after)}
}

// limitDigest is where the limit of that name and id is counted. A card's is its digest by itself, which no name and NUL
// begin.
func limitDigest(mac policy.MAC, name, id string) (d store.Digest) {
	mac.MAC(d[:0], []byte(name+"\x00"+id))
	return d
}

// seconds rounds up: who comes back in time must not come too early.
func seconds(d time.Duration) int { return int((d + time.Second - 1) / time.Second) }
