package gateway

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// penalties remember who has used up the limit of failed openings, until it has room again, so that the next preamble of
// theirs is refused before it costs an RSA operation [18]. The limit itself is the store's, and shared; this is what this
// process knows of it.
type penalties struct {
	mu    sync.Mutex
	until map[string]time.Time // guarded by mu
}

// maxRemembered bounds what is remembered of callers. Beyond it all is forgotten, and learned again.
const maxRemembered = 10_000

func (p *penalties) punish(who string, now time.Time, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil || len(p.until) >= maxRemembered {
		p.until = map[string]time.Time{}
	}
	p.until[who] = now.Add(d)
}

// left is how long somebody still has to wait; zero is not at all.
func (p *penalties) left(who string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[who]
	if !ok {
		return 0
	}
	if !now.Before(until) {
		delete(p.until, who)
		return 0
	}
	return until.Sub(now)
}

// strangers count the exchanges of each address that came without an accepted credential: with none, or with one that was refused.
// Each of them is recorded, and synced, so that without a bound anybody could fill the disk of the audit log, which stops all
// releases. It is this process' own count: a stranger's load is on the process that it calls. Networks of IPv6 count by their /64
// (RFC 6177).
type strangers struct {
	mu   sync.Mutex
	tats map[netip.Prefix]int64 // GCRA's theoretical arrival time, in microseconds; guarded by mu
}

func networkOf(a netip.Addr) netip.Prefix {
	bits := 64
	if a.Is4() {
		bits = 32
	}
	p, _ := a.WithZone("").Prefix(bits) // the zero Addr has the zero Prefix: one for all whose address is not known
	return p
}

// count takes one from an address' rate.
func (s *strangers) count(a netip.Addr, now time.Time, rate policy.Rate) {
	network := networkOf(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tats == nil || len(s.tats) >= maxRemembered {
		s.tats = map[netip.Prefix]int64{}
	}
	if tat, ok, _, _ := rate.GCRA(now.UnixMicro(), s.tats[network]); ok {
		s.tats[network] = tat
	}
}

// left is how long an address still has to wait; zero is not at all.
func (s *strangers) left(a netip.Addr, now time.Time, rate policy.Rate) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	tat, known := s.tats[networkOf(a)]
	if !known {
		return 0
	}
	_, ok, after, _ := rate.GCRA(now.UnixMicro(), tat)
	if ok {
		return 0
	}
	return after
}

// countFailedOpen limits who sends preambles that do not open: each costs an RSA operation, and each is a question to our
// key [18].
func (x *running) countFailedOpen(ctx context.Context, who string) error {
	taken, err := x.g.services.Store.Take(ctx, limitDigest(x.st.config.CardDigest, "failed_opens", who), x.st.limits.FailedOpens)
	if err != nil || taken.OK {
		return err
	}
	x.g.penalties.punish(who, time.Now(), taken.RetryAfter)
	return x.limited("failed_opens", taken.RetryAfter)
}

// offender tells callers apart for the limit of failed openings: the partner, the proven user, and the card, so that one
// cardholder's failures are not another's.
func offender(p proven, d decided) string {
	var partner, card string
	if p.partner != nil {
		partner = p.partner.ID
	}
	if d.holding != nil {
		card = d.holding.Card
	}
	return partner + "\x00" + p.account + "\x00" + p.user + "\x00" + card
}
