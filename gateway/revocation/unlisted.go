package revocation

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// This file is which CAs have no list.

// Unlisted are the CAs of the configuration that no list is of. There are none where certificates are not held against lists, or a list
// is to come from a URL: it may be theirs.
func (c *Checker) Unlisted() (cas []*x509.Certificate) {
	if c == nil || len(c.lists) == 0 || slices.ContainsFunc(c.lists, func(s *slot) bool { return s.list.Load() == nil }) {
		return nil
	}
	for _, ca := range c.config.CAs {
		if !slices.ContainsFunc(c.lists, func(s *slot) bool { return s.list.Load().signedBy(ca) }) {
			cas = append(cas, ca)
		}
	}
	return cas
}

// unlisted are the CAs that the log has a line of that no list of theirs is current. Safe for concurrent use.
type unlisted struct {
	mu  sync.Mutex
	cas map[unlistedCA]*x509.Certificate
}

// unlistedCA tells CAs apart, and for want of what.
type unlistedCA struct {
	id     [32]byte
	others bool // lists of its are current, and for other certificates
}

const (
	maxUnlisted  = 64  // CAs that are not the configuration's: one that it has can make any number below it
	maxNameBytes = 256 // of a CA's name in the log
)

// note reports whether a CA is new, and whether there is room for it.
func (u *unlisted) note(id unlistedCA, ca *x509.Certificate, ours func() bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cas[id] != nil || len(u.cas) >= maxUnlisted && !ours() {
		return false
	}
	u.cas[id] = copied(ca)
	return true
}

// unlist has the log say once which CA it is that no list is current of, or none for a certificate, when that is judged.
func (c *Checker) unlist(ca *x509.Certificate, others bool) {
	id := issuerID(ca)
	ours := func() bool {
		return slices.ContainsFunc(c.authorities(), func(own *x509.Certificate) bool { return issuerID(own) == id })
	}
	if !c.unlisted.note(unlistedCA{id, others}, ca, ours) {
		return
	}
	fields := append(c.aboutCA(ca), zap.Bool("refused", !c.config.Soft))
	for l := range c.listsOf(ca) {
		fields = append(fields, zap.Time("next_update", l.parsed.NextUpdate))
		break
	}
	if others {
		c.services.Log.Error("no revocation list of a CA is for a certificate that does not name its distribution point", fields...)
		return
	}
	c.services.Log.Error("no revocation list of a CA is current", fields...)
}

// relist has the log say once which of these CAs have a current list again.
func (c *Checker) relist(now time.Time) {
	c.unlisted.mu.Lock()
	defer c.unlisted.mu.Unlock()
	for id, ca := range c.unlisted.cas {
		for l := range c.listsOf(ca) {
			if l.current(now) && (!id.others || l.scope == nil) {
				delete(c.unlisted.cas, id)
				c.services.Log.Info("a revocation list of a CA is current again", c.aboutCA(ca)...)
				break
			}
		}
	}
}

// aboutCA names a CA in the log. Two that have one name are told apart by their certificates.
func (c *Checker) aboutCA(ca *x509.Certificate) []zap.Field {
	name := ca.Subject.String()
	return []zap.Field{
		zap.String("listener", c.config.Listener), zap.String("ca", strings.ToValidUTF8(name[:min(len(name), maxNameBytes)], "")),
		zap.String("ca_certificate", fmt.Sprintf("%x", sha256.Sum256(ca.Raw))),
	}
}
