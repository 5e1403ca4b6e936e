package revocation

import (
	"crypto/x509"
	"slices"
)

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
