package credential

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// siweMaxBytes bounds a message.
const siweMaxBytes = 8 << 10

// siweHeader follows the domain in a message's first line.
const siweHeader = " wants you to sign in with your Ethereum account:"

// siweClockSkew is how far another instance's clock, which wrote Issued At, may
// be ahead of ours.
const siweClockSkew = time.Minute

// SIWE is a message that a wallet shows its user and signs: ERC-4361, version 1
// (https://eips.ethereum.org/EIPS/eip-4361, as of 2024). Optional members are
// left out where they are empty. Times are RFC 3339 texts, which SIWETime
// writes.
//
// Each message has one text and each text one message. Where the ERC leaves a
// choice we take the narrow one: the domain has no user info, which only
// deceives; chain ids have no leading zeros; a statement, a request id and a
// list of resources are not empty where they are present.
type SIWE struct {
	Scheme         string // "https"; optional
	Domain         string // host, or host:port
	Address        policy.Address
	Statement      string // one line; optional
	URI            string
	ChainID        uint64 // EIP-155; not zero
	Nonce          string // at least 8 letters and digits
	IssuedAt       string
	ExpirationTime string   // optional; it is not good from then on
	NotBefore      string   // optional; nor until then
	RequestID      string   // optional
	Resources      []string // URIs; optional
}

// SIWETime writes a time for a message: in UTC, in milliseconds.
func SIWETime(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// ParseSIWE reads a message. The error names the member that is wrong, and
// never quotes it.
func ParseSIWE(text string) (*SIWE, error) {
	if len(text) > siweMaxBytes {
		return nil, siweError("length")
	}
	var m SIWE
	if wrong := m.read(&siweLines{rest: text, more: true}); wrong != "" {
		return nil, siweError(wrong)
	}
	// One text per message: what is read is what would be written.
	if again, err := m.Text(); err != nil {
		return nil, err
	} else if again != text {
		return nil, siweError("spelling")
	}
	return &m, nil
}

// Text writes the message. The error names a member that is missing or that no
// message can have.
func (m *SIWE) Text() (string, error) {
	if wrong := m.wrong(); wrong != "" {
		return "", siweError(wrong)
	}
	var text strings.Builder
	write := func(parts ...string) {
		for _, part := range parts {
			text.WriteString(part)
		}
	}
	if m.Scheme != "" {
		write(m.Scheme, "://")
	}
	write(m.Domain, siweHeader, "\n", m.Address.String(), "\n\n")
	if m.Statement != "" {
		write(m.Statement, "\n")
	}
	write("\nURI: ", m.URI, "\nVersion: 1\nChain ID: ", strconv.FormatUint(m.ChainID, 10), "\nNonce: ", m.Nonce, "\nIssued At: ", m.IssuedAt)
	for _, optional := range [...]struct{ name, value string }{
		{"Expiration Time", m.ExpirationTime}, {"Not Before", m.NotBefore}, {"Request ID", m.RequestID},
	} {
		if optional.value != "" {
			write("\n", optional.name, ": ", optional.value)
		}
	}
	if len(m.Resources) > 0 {
		write("\nResources:")
	}
	for _, resource := range m.Resources {
		write("\n- ", resource)
	}
	if text.Len() > siweMaxBytes {
		return "", siweError("length")
	}
	return text.String(), nil
}

// current reports whether the message is good at a time: issued a minute ahead
// at most, not expired, and not from later on. Its members are as Text wants
// them.
func (m *SIWE) current(now time.Time) bool {
	issued, _ := siweTime(m.IssuedAt)
	if issued.After(now.Add(siweClockSkew)) {
		return false
	}
	if expires, ok := siweTime(m.ExpirationTime); ok && !now.Before(expires) {
		return false
	}
	from, ok := siweTime(m.NotBefore)
	return !ok || !now.Before(from)
}

func siweError(member string) error { return fmt.Errorf("not an ERC-4361 message: %s", member) }

// siweLines are the lines of a message that are not read yet. There is no line
// after the last one, even if it is empty.
type siweLines struct {
	rest string
	more bool
}

// next takes a line; none is "".
func (l *siweLines) next() string {
	var line string
	line, l.rest, l.more = strings.Cut(l.rest, "\n")
	return line
}

// member takes the value of a line "name: value", or leaves the line alone.
func (l *siweLines) member(name string) (value string, ok bool) {
	line, _, _ := strings.Cut(l.rest, "\n")
	if value, ok = strings.CutPrefix(line, name+": "); !l.more || !ok {
		return "", false
	}
	l.next()
	return value, true
}

// read fills the message, and returns which member is not where it has to be.
// What the members are is not looked at.
func (m *SIWE) read(lines *siweLines) (wrong string) {
	domain, ok := strings.CutSuffix(lines.next(), siweHeader)
	if !ok {
		return "first line"
	}
	if m.Domain = domain; strings.Contains(domain, "://") {
		m.Scheme, m.Domain, _ = strings.Cut(domain, "://")
	}
	if m.Address, ok = policy.ParseAddress(lines.next()); !ok {
		return "address"
	}
	if lines.next() != "" {
		return "statement"
	}
	if m.Statement = lines.next(); m.Statement != "" && lines.next() != "" {
		return "statement"
	}
	var version, chain string
	for _, required := range [...]struct {
		name string
		to   *string
	}{{"URI", &m.URI}, {"Version", &version}, {"Chain ID", &chain}, {"Nonce", &m.Nonce}, {"Issued At", &m.IssuedAt}} {
		if *required.to, ok = lines.member(required.name); !ok {
			return required.name
		}
	}
	if version != "1" {
		return "Version"
	}
	var err error
	if m.ChainID, err = strconv.ParseUint(chain, 10, 64); err != nil {
		return "Chain ID"
	}
	for _, optional := range [...]struct {
		name string
		to   *string
	}{{"Expiration Time", &m.ExpirationTime}, {"Not Before", &m.NotBefore}, {"Request ID", &m.RequestID}} {
		*optional.to, _ = lines.member(optional.name)
	}
	if lines.more && lines.next() != "Resources:" {
		return "unknown line"
	}
	for lines.more {
		resource, ok := strings.CutPrefix(lines.next(), "- ")
		if !ok {
			return "Resources"
		}
		m.Resources = append(m.Resources, resource)
	}
	return ""
}

// wrong returns the member that no message can have, or "".
func (m *SIWE) wrong() string {
	switch {
	case m.Scheme != "" && !siweScheme(m.Scheme):
		return "scheme"
	case !siweDomain(m.Domain):
		return "domain"
	case !siweOf(m.Statement, siweReserved+" "):
		return "statement"
	case !siweURI(m.URI):
		return "URI"
	case m.ChainID == 0:
		return "Chain ID"
	case len(m.Nonce) < 8 || !alphanumeric(m.Nonce):
		return "Nonce"
	case !siweOf(strings.ReplaceAll(m.RequestID, "%", ""), siweSubDelims+":@") || !escaped(m.RequestID):
		return "Request ID"
	}
	if _, ok := siweTime(m.IssuedAt); !ok {
		return "Issued At"
	}
	if _, ok := siweTime(m.ExpirationTime); !ok && m.ExpirationTime != "" {
		return "Expiration Time"
	}
	if _, ok := siweTime(m.NotBefore); !ok && m.NotBefore != "" {
		return "Not Before"
	}
	for _, resource := range m.Resources {
		if !siweURI(resource) {
			return "Resources"
		}
	}
	return ""
}

// Characters of RFC 3986, section 2.2, beside the unreserved ones.
const (
	siweSubDelims = "!$&'()*+,;="
	siweReserved  = ":/?#[]@" + siweSubDelims
)

// siweOf reports whether a text has unreserved characters (RFC 3986, section
// 2.3) and those of more alone.
func siweOf(text, more string) bool {
	for _, c := range []byte(text) {
		if !alphanumericByte(c) && strings.IndexByte("-._~", c) < 0 && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}

// escaped reports whether each "%" begins an escape.
func escaped(text string) bool {
	_, err := url.PathUnescape(text)
	return err == nil
}

func alphanumeric(text string) bool {
	for _, c := range []byte(text) {
		if !alphanumericByte(c) {
			return false
		}
	}
	return true
}

func alphanumericByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// siweScheme checks a scheme (RFC 3986, section 3.1).
func siweScheme(scheme string) bool {
	if scheme == "" || !alphanumericByte(scheme[0]) || scheme[0] <= '9' {
		return false
	}
	for _, c := range []byte(scheme) {
		if !alphanumericByte(c) && strings.IndexByte("+-.", c) < 0 {
			return false
		}
	}
	return true
}

// siweDomain checks an authority (RFC 3986, section 3.2) without user info.
func siweDomain(domain string) bool {
	if !siweOf(domain, siweSubDelims+":[]") {
		return false
	}
	u, err := url.Parse("https://" + domain)
	return err == nil && u.Hostname() != "" && u.Host == domain
}

// siweURI checks a URI (RFC 3986, section 3).
func siweURI(uri string) bool {
	scheme, _, ok := strings.Cut(uri, ":")
	if !ok || !siweScheme(scheme) || strings.Count(uri, "#") > 1 || !siweOf(uri, siweReserved+"%") || !escaped(uri) {
		return false
	}
	_, err := url.Parse(uri)
	return err == nil
}

// siweTime reads a time (RFC 3339, section 5.6, in upper case). The parser of
// package time lets through hours of one digit, commas before fractions, and
// zones of 24 hours.
func siweTime(text string) (t time.Time, ok bool) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || len(text) < len("2006-01-02T15:04:05Z") || text[len("2006-01-02T15")] != ':' || strings.Contains(text, ",") {
		return time.Time{}, false
	}
	zone := text[len(text)-len("24:00"):]
	return t, strings.HasSuffix(text, "Z") || zone < "24:00"
}
