package policy

import (
	"bytes"
	"crypto/sha256"
	"slices"
)

// Way is a digest of something by which a partner may come in: it begins with
// what it is of.
type Way [16]byte

const (
	waySelf    = 1 + iota // the partner itself, where it is not disabled
	waySubject            // a certificate's subject under a CA
	wayPin                // a public key
	wayAnyKey             // every public key: there are no pins
	wayAll                // too many to tell apart: any change of them is one
)

// maxWays bounds how many are told apart.
const maxWays = 400

func newWay(of byte, parts ...[]byte) (w Way) {
	sum := sha256.Sum256(append([]byte{of}, bytes.Join(parts, nil)...))
	copy(w[:], sum[:])
	w[0] = of
	return w
}

// Ways lists by what the partner may come in, in one order. There is none where
// it is disabled. The CAs are those that Partners gives it.
func (p *Partner) Ways() []Way {
	if p.Disabled {
		return nil
	}
	ways := []Way{newWay(waySelf)}
	for _, subject := range p.Subjects {
		for _, ca := range p.CA {
			ways = append(ways, newWay(waySubject, ca[:], []byte(subject.key)))
		}
	}
	for _, pin := range p.Pins {
		ways = append(ways, newWay(wayPin, pin[:]))
	}
	if len(p.Subjects) > 0 && len(p.Pins) == 0 {
		ways = append(ways, newWay(wayAnyKey))
	}
	slices.SortFunc(ways, func(a, b Way) int { return bytes.Compare(a[:], b[:]) })
	ways = slices.Compact(ways)
	if len(ways) > maxWays {
		all := sha256.New()
		for i := range ways {
			all.Write(ways[i][:])
		}
		return []Way{newWay(wayAll, all.Sum(nil))}
	}
	return ways
}

// Narrowed reports whether a way is gone: somebody who could come in as the
// partner before cannot any more. A pin is not gone where there are none now.
func Narrowed(before, now []Way) bool {
	anyKey := slices.Contains(now, newWay(wayAnyKey))
	return slices.ContainsFunc(before, func(w Way) bool {
		return !slices.Contains(now, w) && !(w[0] == wayPin && anyKey)
	})
}
