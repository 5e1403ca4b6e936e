package revocation

import (
	"bytes"
	"math/big"
	"slices"
	"time"

	"go.uber.org/zap"
)

// This file is what becomes of lists in files at a reload: a file that went back, or has ended, takes no newer list out of force. Whoever
// means it takes the list from the configuration, or starts anew: nothing is known then.

// Results of a file that is new, as labels: a closed set.
const (
	fileTaken    = "ok"
	fileRollback = "rollback" // older than the list of this CA that is in force, which stays
	fileEnded    = "ended"    // while the one that is in force, and stays, has not
)

var fileResults = []string{fileTaken, fileRollback, fileEnded}

// succeedFiles holds lists in files against those of the configuration before. A file that is as it was goes on with what was in force
// by it. The others are held against those that are not there any more, by their CAs: places change, and a deleted list is gone.
func (c *Checker) succeedFiles(old *Checker) {
	before := slices.DeleteFunc(slices.Clone(old.lists), func(s *slot) bool { return s.file == nil })
	var changed []*slot
	for _, s := range c.lists {
		if s.file == nil {
			continue
		}
		i := slices.IndexFunc(before, func(o *slot) bool { return o.file.equal(s.file) })
		if i < 0 {
			changed = append(changed, s)
			continue
		}
		s.reported = before[i].reported
		for held := range before[i].list.Load().all() {
			c.hold(held, []*slot{s})
		}
		before = slices.Delete(before, i, i+1)
	}
	for _, gone := range before {
		for held := range gone.list.Load().all() {
			c.hold(held, changed)
		}
	}
	for _, s := range changed {
		c.took(s)
	}
}

// hold keeps a list in force that outlasts all of its CA in files that may have come in its place: beside the newest of these, which
// revokes too.
func (c *Checker) hold(held *list, files []*slot) {
	now := c.services.Now()
	files = slices.DeleteFunc(slices.Clone(files), func(s *slot) bool { return !c.sameList(s.file, held) })
	if len(files) == 0 || slices.ContainsFunc(files, func(s *slot) bool { return !held.outlasts(s.file, now) }) {
		return
	}
	newest := files[0]
	for _, s := range files {
		if newest.file.before(s.file) {
			newest = s
		}
	}
	if other := newest.kept(); other != nil && held.before(other) {
		return
	}
	l := &inForce{newest.file, []*list{held}}
	if newest.file.before(held) {
		l = &inForce{held, []*list{newest.file}}
	}
	newest.list.Store(l)
}

// sameList reports whether two lists in files are of one CA, and for the same certificates. A CA whose certificate the configuration does
// not have is known by its name and the identifier of its key.
func (c *Checker) sameList(a, b *list) bool {
	if !slices.Equal(a.scope, b.scope) {
		return false
	}
	if c.acceptable(a) || c.acceptable(b) {
		return c.sameCA(a, b)
	}
	key := a.parsed.AuthorityKeyId
	return len(key) > 0 && bytes.Equal(key, b.parsed.AuthorityKeyId) && bytes.Equal(a.parsed.RawIssuer, b.parsed.RawIssuer)
}

// outlasts reports whether a list stays in force when another one of its CA comes.
func (l *list) outlasts(other *list, now time.Time) bool {
	return other.before(l) || l.current(now) && !other.current(now)
}

// kept is the list that a file holds in force besides its own; nil: none.
func (s *slot) kept() *list {
	for l := range s.list.Load().all() {
		if l != s.file {
			return l
		}
	}
	return nil
}

// took counts what came of a file, and has the log say where it is not what is in force.
func (c *Checker) took(s *slot) {
	kept, result := s.kept(), fileTaken
	switch now := c.services.Now(); {
	case kept == nil:
	case s.file.before(kept):
		result = fileRollback
	case !s.file.parsed.NextUpdate.After(now):
		result = fileEnded
	}
	c.services.Metrics.files.WithLabelValues(c.config.Listener, listLabel(s.index), result).Inc()
	if result == fileTaken {
		return
	}
	c.services.Log.Warn("a revocation list in a file is no better than the last one, which stays in force", zap.String("listener", c.config.Listener),
		zap.Int("list", s.index), zap.String("file", c.config.Lists[s.index].Name), zap.String("result", result),
		zap.String("number", numberText(s.file.parsed.Number)), zap.String("number_in_force", numberText(kept.parsed.Number)),
		zap.Time("next_update", s.file.parsed.NextUpdate), zap.Time("next_update_in_force", kept.parsed.NextUpdate))
}

// numberText is a list's number, of 20 octets at most (RFC 5280 section 5.2.3).
func numberText(n *big.Int) string {
	switch {
	case n == nil:
		return "none"
	case n.BitLen() > 160:
		return "too long"
	}
	return n.String()
}

// shown is the list that tells how a place stands: of a file, one that is current, if there is.
func (s *slot) shown(now time.Time) *list {
	l := s.list.Load()
	if l == nil {
		return nil
	}
	if s.file != nil && len(l.beside) > 0 && !l.current(now) && l.beside[0].current(now) {
		return l.beside[0]
	}
	return l.list
}
