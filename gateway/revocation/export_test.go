package revocation

import (
	"crypto/x509"
	"time"
	goweak "weak"
)

// Due is how long after a fetch the next one is, where a list that ends at a time is in force, and so many fetches failed before.
func Due(result string, failures int, end, now time.Time, refresh time.Duration) time.Duration {
	s := &slot{failures: failures}
	l := &list{parsed: &x509.RevocationList{NextUpdate: end}}
	s.list.Store(&inForce{list: l})
	s.schedule(result, now, refresh)
	return s.due.Sub(now)
}

// Remember sets how many certificates are remembered, and Remembered tells how many are.
func (c *Checker) Remember(most int) { c.ocsp.most = most }

func (c *Checker) Remembered() int {
	c.ocsp.mu.Lock()
	defer c.ocsp.mu.Unlock()
	return len(c.ocsp.questions)
}

// Ask is ask.
func (c *Checker) Ask(chains [][]*x509.Certificate, now time.Time) { c.ask(chains, now) }

// Verified tells of how many CAs it is known whether they signed the first list.
func (c *Checker) Verified() (n int) {
	for range c.lists[0].list.Load().signed.Range {
		n++
	}
	return n
}

// LastList tells, when the list has come that is the first place's now, whether it is still in memory.
func (c *Checker) LastList() (there func() bool) {
	last := goweak.Make(c.lists[0].list.Load().list)
	return func() bool { return last.Value() != nil }
}
