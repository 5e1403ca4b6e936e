package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault/ca"
)

// This file has what commands print with --json, of which docs/partners.md tells. Members are added, never renamed.
// Digests, pins and serial numbers are in hex, times in RFC 3339 and UTC.

// notes are the warnings of a command: each is for people at once, and all of them stand in its JSON.
type notes struct {
	said     io.Writer
	warnings []string
}

func (n *notes) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	n.warnings = append(n.warnings, text)
	fmt.Fprintln(n.said, "warning: "+text)
}

// damaged tells what is damaged of a CA.
func (n *notes) damaged(a *ca.Authority) {
	for _, text := range a.Damage() {
		n.warn("%s", text)
	}
}

// jsonFlag has a command print a document for programs in place of text.
func jsonFlag(cmd *cobra.Command, asJSON *bool) {
	cmd.Flags().BoolVar(asJSON, "json", false, "print one JSON document")
}

// authorityReport is what `ca init --json` prints.
type authorityReport struct {
	CA          string    `json:"ca"`          // the directory
	Certificate string    `json:"certificate"` // file to trust
	Subject     string    `json:"subject"`
	SHA256      string    `json:"sha256"`
	NotAfter    time.Time `json:"not_after"`
	Sealed      bool      `json:"sealed"` // its key
	CRLURL      string    `json:"crl_url,omitempty"`
	Warnings    []string  `json:"warnings,omitempty"`
}

// listReport is what `ca crl --json` prints.
type listReport struct {
	CRL        string    `json:"crl"` // the file
	Number     *big.Int  `json:"number"`
	Revoked    int       `json:"revoked"` // how many certificates it has
	ThisUpdate time.Time `json:"this_update"`
	NextUpdate time.Time `json:"next_update"`
	Warnings   []string  `json:"warnings,omitempty"`
}

// issueReport is what `partner add --json` and `partner renew --json` print: of a certificate, or of a request in the outbox.
type issueReport struct {
	Partner     string             `json:"partner"`
	Certificate *certificateReport `json:"certificate,omitempty"`
	Out         string             `json:"out,omitempty"` // file that has it
	PEM         string             `json:"pem,omitempty"` // where no file has it: the certificate, and CAs between it and its anchor
	Configure   string             `json:"configure,omitempty"`
	Request     *requestReport     `json:"request,omitempty"`
	Warnings    []string           `json:"warnings,omitempty"`
}

// requestReport is of a request that is in the outbox.
type requestReport struct {
	File    string `json:"file"`
	Subject string `json:"subject"`
	Key     string `json:"key"` // "EC P-256", "RSA 2048", "Ed25519"
	Pin     string `json:"pin"`
}

// revokeReport is what `partner revoke --json` prints, also where not all that it was asked for was done.
type revokeReport struct {
	Partner   string          `json:"partner"`
	Revoked   []revokedReport `json:"revoked"`          // now, or for another reason now
	Unchanged []revokedReport `json:"unchanged"`        // as they were revoked before
	CRL       string          `json:"crl,omitempty"`    // file that was written
	Tokens    *standingReport `json:"tokens,omitempty"` // how the partner stands, where all that was minted for it was ended
	Warnings  []string        `json:"warnings,omitempty"`
}

type revokedReport struct {
	Serial  string    `json:"serial"`
	Revoked time.Time `json:"revoked"`
	Reason  string    `json:"reason"`
}

func revokedOf(c *ca.Certificate) revokedReport {
	return revokedReport{c.Serial(), c.Revoked.UTC(), c.Reason}
}

// standingReport is what `partner disable|enable|revoke-tokens --json` print.
type standingReport struct {
	Partner string `json:"partner"`
	Changed bool   `json:"changed"` // false: it was so already
	Before  uint64 `json:"generation_before"`

	// State, Generation, Since and Cause are as in `partner show`.
	State      string     `json:"state"`
	Generation uint64     `json:"generation"`
	Since      *time.Time `json:"since,omitempty"`
	Cause      string     `json:"cause,omitempty"`
	Warnings   []string   `json:"warnings,omitempty"`
}

func standingOf(p *policy.Partner, from, to credential.Standing) *standingReport {
	r := reportOf(p.ID, p)
	r.stands(to)
	return &standingReport{
		Partner: p.ID, Changed: from != to, Before: from.Generation, State: r.State, Generation: to.Generation, Since: r.Since, Cause: r.Cause,
	}
}

// certificateOf reports on a certificate. p is nil where the configuration does not know the partner.
func certificateOf(c *ca.Certificate, issuer policy.Fingerprint, p *policy.Partner, now time.Time) certificateReport {
	fingerprint, pin := policy.FingerprintOf(c.Certificate), policy.PinOf(c.Certificate)
	r := certificateReport{
		Serial: c.Serial(), Status: c.Status(now), Subject: nameText(c.RawSubject), Issuer: nameText(c.RawIssuer), IssuerSHA256: hex.EncodeToString(issuer[:]),
		NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC(), DaysLeft: daysLeft(c.NotAfter, now),
		SHA256: hex.EncodeToString(fingerprint[:]), Pin: hex.EncodeToString(pin[:]), Reason: c.Reason, certificate: c.Certificate,
	}
	if !c.Revoked.IsZero() {
		revoked := c.Revoked.UTC()
		r.Revoked = &revoked
	}
	if p != nil && len(p.Pins) > 0 {
		pinned := slices.Contains(p.Pins, pin)
		r.Pinned = &pinned
	}
	return r
}
