package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"time"

	"github.com/cardstile/cardstile/internal/durable"
)

// ErrIndex says that the index is not as the CA wrote it.
var ErrIndex = errors.New("the index is not as the CA wrote it")

// What an entry tells of.
const (
	eventIssued  = "issued"
	eventRevoked = "revoked"
)

// entry is a line of the index. What was written is never changed: a revocation is a line of its own.
type entry struct {
	Event       string    `json:"event"`
	Time        time.Time `json:"time"`
	Partner     string    `json:"partner,omitempty"`
	Serial      string    `json:"serial"` // hex
	Fingerprint string    `json:"fingerprint,omitempty"`
	Subject     string    `json:"subject,omitempty"` // for people; what counts is in the certificate
	NotBefore   time.Time `json:"not_before,omitzero"`
	NotAfter    time.Time `json:"not_after,omitzero"`
	Certificate []byte    `json:"certificate,omitempty"` // DER
	Reason      string    `json:"reason,omitempty"`
}

// line is an entry as it is kept: with the digest of the line before it and the CA's signature over both.
type line struct {
	Entry     json.RawMessage `json:"entry"`
	Previous  string          `json:"previous"` // SHA-256 in hex; empty in the first
	Signature []byte          `json:"signature"`
}

// labelIndex begins what is signed. A certificate or a CRL begins with 0x30, so that neither can be taken for a line.
const labelIndex = "cardstile CA index 1\n"

func signed(previous string, entry []byte) []byte {
	digest := sha256.Sum256([]byte(labelIndex + previous + "\n" + string(entry)))
	return digest[:]
}

func digestOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Certificate is one that the CA issued.
type Certificate struct {
	*x509.Certificate
	Partner string
	Revoked time.Time // zero: it is not
	Reason  string    // of the revocation
}

// Serial is the serial number in hex.
func (c *Certificate) Serial() string { return SerialText(c.SerialNumber) }

// SerialText is a serial number in hex, as the index has it.
func SerialText(n *big.Int) string { return fmt.Sprintf("%032x", n) }

// Valid reports whether the certificate can be used at a time.
func (c *Certificate) Valid(at time.Time) bool {
	return c.Revoked.IsZero() && !at.Before(c.NotBefore) && !at.After(c.NotAfter)
}

// Status is "valid", "revoked", "expired" or "not yet valid".
func (c *Certificate) Status(at time.Time) string {
	switch {
	case !c.Revoked.IsZero():
		return "revoked"
	case at.After(c.NotAfter):
		return "expired"
	case at.Before(c.NotBefore):
		return "not yet valid"
	}
	return "valid"
}

// readIndex verifies every line, the chain of them, and that none of the end is missing.
func (a *Authority) readIndex() error {
	content, err := os.ReadFile(a.path(indexFile))
	if err != nil {
		return err
	}
	lines, last, err := a.head()
	if err != nil {
		return err
	}
	a.index, a.issued, a.last, a.lines = content, nil, "", 0
	for text := range bytes.Lines(content) {
		if err := a.readLine(text); err != nil {
			return fmt.Errorf("%s: line %d: %w: %w", a.path(indexFile), a.lines+1, ErrIndex, err)
		}
		a.lines++
		a.last = digestOf(text)
		if a.lines == lines && a.last != last {
			return fmt.Errorf("%s: %w: line %d is not the one that stood there", a.path(indexFile), ErrIndex, lines)
		}
	}
	if a.lines < lines {
		return fmt.Errorf("%s: %w: it has %d lines, and had %d", a.path(indexFile), ErrIndex, a.lines, lines)
	}
	return nil
}

func (a *Authority) readLine(text []byte) error {
	var l line
	if !bytes.HasSuffix(text, []byte("\n")) || json.Unmarshal(text, &l) != nil {
		return errors.New("not a whole line of JSON")
	}
	key, ok := a.certificate.PublicKey.(*ecdsa.PublicKey)
	switch {
	case l.Previous != a.last:
		return errors.New("it does not follow the line before it")
	case !ok || !ecdsa.VerifyASN1(key, signed(l.Previous, l.Entry), l.Signature):
		return errors.New("its signature is not the CA's")
	}
	var e entry
	if err := json.Unmarshal(l.Entry, &e); err != nil {
		return errors.New("not an entry")
	}
	return a.apply(&e)
}

func (a *Authority) apply(e *entry) error {
	switch e.Event {
	case eventIssued:
		c, err := x509.ParseCertificate(e.Certificate)
		if err != nil || SerialText(c.SerialNumber) != e.Serial {
			return errors.New("its certificate does not parse, or has another serial number")
		}
		a.issued = append(a.issued, &Certificate{Certificate: c, Partner: e.Partner})
		return nil
	case eventRevoked:
		for _, c := range a.issued {
			if c.Serial() == e.Serial {
				if c.Revoked.IsZero() { // a later line has another reason alone
					c.Revoked = e.Time
				}
				c.Reason = e.Reason
				return nil
			}
		}
		return errors.New("it revokes a certificate that was not issued")
	}
	return fmt.Errorf("event %q is not known", e.Event)
}

// head is how many lines the index had and the last one's digest. It is written after the index, which may have lines
// more, where a process ended in between, and never fewer.
func (a *Authority) head() (lines int, last string, err error) {
	content, err := os.ReadFile(a.path(headFile))
	if err != nil {
		return 0, "", err
	}
	if n, _ := fmt.Sscanf(string(content), "%d %s", &lines, &last); n != 2 || lines < 0 {
		return 0, "", fmt.Errorf("%s: %w", a.path(headFile), ErrIndex)
	}
	return lines, last, nil
}

// append adds entries, all or none. Whatever can fail for want of room or rights fails before the index is another one.
func (a *Authority) append(entries ...entry) error {
	index, last := bytes.Clone(a.index), a.last
	for i := range entries {
		text, err := json.Marshal(&entries[i])
		if err != nil {
			return err
		}
		signature, err := a.key.Sign(rand.Reader, signed(last, text), indexHash)
		if err != nil {
			return fmt.Errorf("sign the index: %w", err)
		}
		written, err := json.Marshal(line{text, last, signature})
		if err != nil {
			return err
		}
		written = append(written, '\n')
		last, index = digestOf(written), append(index, written...)
	}
	newIndex, err := durable.Prepare(a.path(indexFile), index, 0o600)
	if err != nil {
		return fmt.Errorf("the index stays as it is: %w", err)
	}
	defer newIndex.Drop()
	newHead, err := durable.Prepare(a.path(headFile), fmt.Appendf(nil, "%d %s\n", a.lines+len(entries), last), 0o600)
	if err != nil {
		return fmt.Errorf("the index stays as it is: %w", err)
	}
	defer newHead.Drop()
	if err := newIndex.Put(); err != nil {
		return fmt.Errorf("put the index in its place: %w", err)
	}
	for i := range entries {
		if err := a.apply(&entries[i]); err != nil {
			return err
		}
	}
	a.index, a.last, a.lines = index, last, a.lines+len(entries)
	if err := newHead.Put(); err != nil { // the next entry brings it up to date
		return fmt.Errorf("it stands in the index, and %s is behind: %w", a.path(headFile), err)
	}
	return nil
}
