package gateway

import (
	"sync"
	"time"
)

// penalties remember who has used up the limit of failed openings, until it has room again, so that the next preamble of
// theirs is refused before it costs an RSA operation [18]. The limit itself is the store's, and shared; this is what this
// process knows of it.
type penalties struct {
	mu    sync.Mutex
	until map[string]time.Time // guarded by mu
}

// maxPenalties bounds the memory. Beyond it the oldest knowledge is given up: the limit still answers, after the operation.
const maxPenalties = 10_000

func (p *penalties) punish(who string, now time.Time, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.until == nil || len(p.until) >= maxPenalties {
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
