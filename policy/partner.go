package policy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Fingerprint is a SHA-256: of a certificate's DER where it names a CA, of a
// SubjectPublicKeyInfo's DER where it is a pin.
type Fingerprint = [32]byte

// ParseFingerprint reads 64 hex digits, with or without colons between the
// bytes, as `openssl x509 -fingerprint -sha256` prints them.
func ParseFingerprint(text string) (Fingerprint, error) {
	digits := text
	if strings.Contains(text, ":") {
		if len(text) != 32*3-1 {
			return Fingerprint{}, errFingerprint
		}
		for i := 2; i < len(text); i += 3 {
			if text[i] != ':' {
				return Fingerprint{}, errFingerprint
			}
		}
		digits = strings.ReplaceAll(text, ":", "")
	}
	var f Fingerprint
	if len(digits) != 2*len(f) {
		return Fingerprint{}, errFingerprint
	}
	if _, err := hex.Decode(f[:], []byte(digits)); err != nil {
		return Fingerprint{}, errFingerprint
	}
	return f, nil
}

var errFingerprint = errors.New("not a SHA-256 fingerprint: 64 hex digits")

// FingerprintOf is the SHA-256 of a certificate's DER.
func FingerprintOf(certificate *x509.Certificate) Fingerprint { return sha256.Sum256(certificate.Raw) }

// PinOf is the SHA-256 of a certificate's SubjectPublicKeyInfo, as in RFC 7469
// section 2.4.
func PinOf(certificate *x509.Certificate) Fingerprint {
	return sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
}

// Partner is an organisation that calls us. It is immutable once it is part of
// a Partners; a reload replaces the whole registry.
type Partner struct {
	ID          string // letters, digits, ".", "_", "-"; at most 64
	Disabled    bool   // the partner's switch: every exchange is denied
	Environment string // "test" or "production" [5]

	// Subjects are the names in its client certificates. A partner without
	// one calls without certificates.
	Subjects []Subject

	// CA are the certification authorities of which one must end the chain.
	// Empty: the default of NewPartners.
	CA []Fingerprint

	// Pins, if there are any, are the public keys of which the leaf must
	// have one.
	Pins []Fingerprint

	Rate          Rate // of its exchanges; zero: the configuration's default
	MaxConcurrent int  // of its exchanges at one time; zero: the configuration's default
}

// Partners is the registry of those whom we know. It is immutable and safe for
// concurrent use.
type Partners struct {
	byID      map[string]*Partner
	bySubject map[string]*Partner // CA fingerprint ‖ canonical subject
}

// PartnerError is what is wrong with a partner of a list, by itself or beside
// those before it.
type PartnerError struct {
	Index int // in the list
	Err   error
}

// Error implements error.
func (e *PartnerError) Error() string { return e.Err.Error() }

// Unwrap returns what is wrong.
func (e *PartnerError) Unwrap() error { return e.Err }

// NewPartners checks the partners against each other and indexes them. Every
// problem is reported: the error joins a *PartnerError for each partner that
// has one. defaultCA is the CA of the listener, for partners that
// name none; where the listener trusts several CAs each partner must say which
// one is its own, since any of them could issue its subject [4].
func NewPartners(list []Partner, defaultCA ...Fingerprint) (*Partners, error) {
	p := &Partners{
		byID:      make(map[string]*Partner, len(list)),
		bySubject: make(map[string]*Partner, len(list)),
	}
	var problems []error
	for i := range list {
		partner := list[i]
		partner.Subjects = slices.Clone(partner.Subjects)
		partner.CA = slices.Clone(partner.CA)
		partner.Pins = slices.Clone(partner.Pins)
		if err := p.add(&partner, defaultCA); err != nil {
			problems = append(problems, &PartnerError{i, err})
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Partners) add(partner *Partner, defaultCA []Fingerprint) error {
	if !validPartnerID(partner.ID) {
		return fmt.Errorf("partner %q: the id must be 1 to 64 letters, digits, dots, underscores or hyphens", partner.ID)
	}
	if p.byID[partner.ID] != nil {
		return fmt.Errorf("partner %q: two partners have this id", partner.ID)
	}
	p.byID[partner.ID] = partner
	if partner.MaxConcurrent < 0 {
		return fmt.Errorf("partner %q: max_concurrent is negative", partner.ID)
	}
	if len(partner.Subjects) == 0 {
		if len(partner.CA) > 0 || len(partner.Pins) > 0 {
			return fmt.Errorf("partner %q: names a CA or pins, but no certificate subject", partner.ID)
		}
		return nil
	}
	if len(partner.CA) == 0 {
		if len(defaultCA) != 1 {
			return fmt.Errorf("partner %q: names no CA, and the listeners trust %d of them: certificate.ca must say which", partner.ID, len(defaultCA))
		}
		partner.CA = defaultCA[:1:1]
	}
	return p.claim(partner)
}

// claim enters the partner's subjects under each of its CAs.
func (p *Partners) claim(partner *Partner) error {
	var problems []error
	for _, subject := range partner.Subjects {
		if subject == (Subject{}) {
			problems = append(problems, fmt.Errorf("partner %q: an empty certificate subject", partner.ID))
			continue
		}
		for _, ca := range partner.CA {
			key := string(ca[:]) + subject.key
			if other := p.bySubject[key]; other != nil {
				problems = append(problems, fmt.Errorf("partner %q: the certificate subject %q under the CA %x… belongs to partner %q already",
					partner.ID, subject, ca[:4], other.ID))
				continue
			}
			p.bySubject[key] = partner
		}
	}
	return errors.Join(problems...)
}

func validPartnerID(id string) bool {
	if id == "" || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		alphanumeric := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !alphanumeric && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// ByID returns the partner with that id, or nil.
func (p *Partners) ByID(id string) *Partner {
	if p == nil {
		return nil
	}
	return p.byID[id]
}

// All returns the partners in the order of their ids. They are shared, and not to be changed.
func (p *Partners) All() []*Partner {
	if p == nil {
		return nil
	}
	all := slices.Collect(maps.Values(p.byID))
	slices.SortFunc(all, func(a, b *Partner) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// Len is the number of partners.
func (p *Partners) Len() int {
	if p == nil {
		return 0
	}
	return len(p.byID)
}

// ByChain returns the partner of a verified chain: leaf first, trust anchor
// last, as crypto/tls verified it. The subject is looked up under that anchor
// alone, so another trusted CA that issues the same subject finds nobody [4].
// A disabled partner is found: whoever decides denies it. Errors are *Refused,
// with the reasons "certificate" and "partner".
func (p *Partners) ByChain(chain []*x509.Certificate) (*Partner, error) {
	if p == nil || len(chain) < 2 {
		// A chain of one is a leaf that is its own anchor: a CA's own
		// certificate, which is nobody's client certificate.
		return nil, &Refused{Kind: KindCertificate, Reason: RefusedCertificate, Detail: "no chain from a leaf to a CA"}
	}
	leaf, ca := chain[0], FingerprintOf(chain[len(chain)-1])
	var buffer [512]byte
	key, err := appendSubjectKey(append(buffer[:0], ca[:]...), leaf.RawSubject)
	if err != nil {
		// The parser's words never quote a value.
		return nil, &Refused{Kind: KindCertificate, Reason: RefusedCertificate, Detail: err.Error()}
	}
	partner := p.bySubject[string(key)]
	if partner == nil {
		return nil, &Refused{Kind: KindCertificate, Reason: RefusedPartner, Detail: "no partner has this subject under this CA"}
	}
	if len(partner.Pins) > 0 && !slices.Contains(partner.Pins, PinOf(leaf)) {
		return nil, &Refused{Kind: KindCertificate, Reason: RefusedCertificate, Detail: "the public key is not one of the partner's pins"}
	}
	return partner, nil
}
