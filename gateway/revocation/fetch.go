package revocation

import (
	"context"
	"crypto/x509"
	"net/url"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// This file keeps lists that come from URLs.

const (
	// MaxListBytes bounds a list that is fetched, of about 250 000 certificates.
	MaxListBytes = 10 << 20

	fetchTimeout = 30 * time.Second
	maxBackoff   = 5 * time.Minute
	minBackoff   = time.Second
	minPause     = 30 * time.Second // between two fetches that went well
	maxUnchanged = 4                // times that a server is believed to have nothing new
)

// Results of a fetch, as labels: a closed set, with those of a get.
const (
	fetched        = "ok"
	fetchUnchanged = "unchanged"
	fetchMalformed = "malformed" // no list to go by
	fetchUnsigned  = "unsigned"  // by none of the CAs
	fetchRollback  = "rollback"  // older than the one that is in force, which is current
	fetchPartial   = "partial"   // for other certificates than the one that is in force, which is current
	fetchEnded     = "ended"     // no longer, or not yet, current, and the one that is in force is no worse
)

var fetchResults = []string{
	fetched, fetchUnchanged, fetchMalformed, fetchUnsigned, fetchRollback, fetchPartial, fetchEnded, failedTimeout, failedUnreachable, failedStatus, failedOversized,
}

// slot is one place of the configuration, and the list that is in force from there.
type slot struct {
	index    int
	url      *url.URL                // nil: a file
	file     *list                   // what that has; nil: a URL
	list     atomic.Pointer[inForce] // nil: none has come
	cached   atomic.Pointer[inForce] // what is on disk, as far as this Checker has looked; of save, once it runs
	tried    atomic.Bool             // whether a fetch has ended, or a current list was kept; of a URL that a reload brought, true
	reported bool                    // whether the log has a line that the list is not current; of watch

	// Of the one goroutine that fetches:
	version     validators // of the list
	unchanged   int        // how often in a row the server said that this is the last one
	due         time.Time  // of the next fetch
	failures    int        // since the last one that went well
	complaining bool       // whether the log has a line about them
}

// moveTo is the slot at another place of the list.
func (s *slot) moveTo(index int) *slot {
	moved := &slot{
		index: index, url: s.url, reported: s.reported, version: s.version, unchanged: s.unchanged, due: s.due, failures: s.failures, complaining: s.complaining,
	}
	moved.list.Store(s.list.Load())
	moved.tried.Store(s.tried.Load())
	return moved
}

// keep fetches a list again and again.
func (c *Checker) keep(ctx context.Context, s *slot) {
	from := newClient(c.config, c.config.Dialer(namedAddr(s.url)), fetchTimeout)
	defer from.close()
	for {
		if wait := s.due.Sub(c.services.Now()); wait > 0 {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
		}
		result := c.fetch(ctx, from, s)
		if ctx.Err() != nil {
			return
		}
		s.tried.Store(true)
		c.unsave()
		c.services.Metrics.fetches.WithLabelValues(c.config.Listener, listLabel(s.index), result).Inc()
		s.schedule(result, c.services.Now(), c.config.Refresh)
		c.complain(s, result)
	}
}

// schedule says when the next fetch is: after refresh, half of what is left of the list where that is sooner, and after a failure
// soon, later each time. A tenth of it is left to chance, so that instances do not come together.
func (s *slot) schedule(result string, now time.Time, refresh time.Duration) {
	wait := refresh
	if result == fetched || result == fetchUnchanged {
		s.failures = 0
		if l := s.list.Load(); l != nil {
			wait = min(wait, max(l.parsed.NextUpdate.Sub(now)/2, min(minPause, refresh)))
		}
	} else {
		wait = min(wait, maxBackoff, minBackoff<<min(s.failures, 16))
		s.failures++
	}
	s.due = now.Add(wait - jitter(wait/10))
}

// complain has the log say once that a list cannot be fetched, and once that it can again.
func (c *Checker) complain(s *slot, result string) {
	failed := s.failures > 0
	if failed == s.complaining {
		return
	}
	s.complaining = failed
	at := []zap.Field{zap.String("listener", c.config.Listener), zap.Int("list", s.index), zap.String("result", result)}
	if failed && s.list.Load() == nil {
		c.services.Log.Error("a revocation list cannot be fetched, and none has come before", append(at, zap.Bool("refused", !c.config.Soft))...)
		return
	}
	if failed {
		c.services.Log.Warn("a revocation list cannot be fetched: the last one stays in force until it ends", at...)
		return
	}
	c.services.Log.Info("a revocation list is fetched again", at...)
}

// fetch asks for a list once, and puts it in force where it is one to go by.
func (c *Checker) fetch(ctx context.Context, from *client, s *slot) (result string) {
	a, failed := from.get(ctx, s.url, s.asked(c.services.Now()), MaxListBytes)
	if failed != "" {
		return failed
	}
	if a.unchanged {
		s.unchanged++
		return fetchUnchanged
	}
	s.unchanged = 0
	l, failed := verified(a.body, c.authorities())
	if failed != "" {
		return failed
	}
	now, last := c.services.Now(), s.list.Load()
	var held *list // of the same CA
	var beside []*list
	for other := range last.all() {
		if c.sameCA(l, other) {
			held = other
		} else {
			beside = append(beside, other)
		}
	}
	switch {
	case last == nil, held == nil && l.current(now):
	case held == nil:
		return fetchEnded
	case held == last.list && l.equal(held):
		s.version = a.version
		return fetchUnchanged
	case l.worse(held, now) != "":
		return l.worse(held, now)
	}
	if last != nil && held == nil {
		c.services.Log.Warn("a revocation list is another CA's than the one before from there: both are in force",
			zap.String("listener", c.config.Listener), zap.Int("list", s.index))
	}
	s.version = a.version
	s.list.Store(&inForce{l, beside})
	c.move()
	return fetched
}

// asked is the version that a server is told of that there is: none where the list is not current, and now and then. Versions are not
// signed, and one of another's making could have the server say for ever that there is nothing new.
func (s *slot) asked(now time.Time) validators {
	if l := s.list.Load(); l == nil || !l.current(now) || s.unchanged >= maxUnchanged {
		return validators{}
	}
	return s.version
}

// sameCA reports whether two lists are of one CA. The numbers of several say nothing of each other's, and whoever answers in a server's
// place may have a list of each.
func (c *Checker) sameCA(a, b *list) bool {
	return slices.ContainsFunc(c.authorities(), func(ca *x509.Certificate) bool { return a.signedBy(ca) && b.signedBy(ca) })
}

// verified reads a list that came from elsewhere, once one of the CAs has signed it, or says why not. Whoever can answer in the server's
// place would take a list out of force otherwise, by another one.
func verified(content []byte, cas []*x509.Certificate) (l *list, failed string) {
	unlisted, err := parseUnlisted(content)
	if err != nil {
		return nil, fetchMalformed
	}
	if !slices.ContainsFunc(cas, unlisted.signedBy) {
		return nil, fetchUnsigned
	}
	if l, err = parseList(content); err != nil {
		return nil, fetchMalformed
	}
	return l, ""
}

// worse says why a list is no better than another one of its CA, which is in force: "" where it is.
func (l *list) worse(held *list, now time.Time) string {
	switch {
	case held.current(now) && l.scope != nil && !slices.Equal(l.scope, held.scope):
		return fetchPartial
	case held.current(now) && l.before(held):
		return fetchRollback
	case !l.current(now) && (held.current(now) || l.before(held)):
		return fetchEnded
	}
	return ""
}

// watch has the log say once that a list is not current any more, and once that it is again.
func (c *Checker) watch(ctx context.Context) {
	for {
		now := c.services.Now()
		c.relist(now)
		wait := time.Minute
		for _, s := range c.lists {
			for l := range s.list.Load().all() {
				for _, t := range []time.Time{l.begins(), l.parsed.NextUpdate} {
					if left := t.Sub(now); left >= 0 {
						wait = min(wait, left+time.Millisecond)
					}
				}
			}
			l := s.shown(now)
			if l == nil {
				continue // which fetching complains of
			}
			c.report(s, !l.current(now), l.parsed.NextUpdate)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-c.moved:
		}
	}
}

func (c *Checker) report(s *slot, stale bool, end time.Time) {
	if stale == s.reported {
		return
	}
	s.reported = stale
	at := []zap.Field{zap.String("listener", c.config.Listener), zap.Int("list", s.index), zap.Time("next_update", end)}
	if stale {
		c.services.Log.Error("a revocation list is not current", append(at, zap.Bool("refused", !c.config.Soft))...)
		return
	}
	c.services.Log.Info("a revocation list is current again", at...)
	c.move()
}
