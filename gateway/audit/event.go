package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Phase tells the two records of an operation that changes something apart [17]. The zero value is a single record: a read, a refusal, a mint.
type Phase string

const (
	PhaseIntent  Phase = "intent"  // synced before the issuer is called
	PhaseOutcome Phase = "outcome" // synced before the answer is released
)

// Result is how an exchange ended. The zero value is invalid, except for an intent, which has none yet.
type Result string

const (
	ResultDone    Result = "done"    // released
	ResultRefused Result = "refused" // by us or by the issuer, for a reason of the caller's
	ResultFailed  Result = "failed"  // nothing was released, for a reason that is not the caller's
	ResultUnknown Result = "unknown" // a change may or may not have happened at the issuer
)

// Event is what one record says. Its fields are an allow-list: what has no field here is not recorded, and none of them holds card data.
//
// Every string is bounded: each byte that is not valid UTF-8 becomes U+FFFD, and what is then longer than 256 bytes is cut before the first
// rune that goes beyond 253 bytes and ends in "…". Of lists, the first 16 are recorded, and a longer one ends in "…" as its last element.
// In the file, everything that is not printable in the sense of [strconv.IsPrint] is escaped, so that a terminal may show it.
type Event struct {
	Time        time.Time // when it happened; zero: when it is recorded. Years 0 to 9999
	Exchange    string    // id of the exchange
	Trace       string    // trace id, where there is one
	Phase       Phase
	Listener    string
	Face        string
	Operations  []string
	Partner     string
	User        string
	Account     string   // service account of the partner
	Certificate [32]byte // SHA-256 of the client certificate's DER; zero: none
	Card        [32]byte // keyed digest of the card reference; zero: none
	Issuer      string
	Call        string // of a forward: method and path as the route declares them
	Result      Result
	Reason      string // a word of a closed set: at most 64 of a–z, 0–9, "_", "-", "."; anything else is an error
	Rule        string // the rule that decided
	Status      int    // HTTP status; 0: none
	Address     netip.Addr
	Legacy      []string // named legacy primitives that were used [15]
	Software    bool     // a PIN was handled in software [14]
	Attempt     [16]byte // under which the exchange redeemed what is good once, or tried to; zero: nothing
	First       First    // of what was redeemed before
	Latency     time.Duration
}

// First is the redemption before, of a credential that was presented again. Its exchange is the one whose record has the
// same attempt.
type First struct {
	Attempt [16]byte // zero: this is no replay
	Time    time.Time
	Partner string // whose credential it is, where it says so itself
}

const (
	maxReason = 64 // bytes
	maxList   = 16 // elements
)

// check refuses what no exchange can mean, so that a slip in the caller stops the exchange rather than blurring the record. It fails closed.
func (e *Event) check() error {
	switch e.Phase {
	case "", PhaseIntent, PhaseOutcome:
	default:
		return errors.New("audit: event: unknown phase")
	}
	switch e.Result {
	case ResultDone, ResultRefused, ResultFailed, ResultUnknown:
		if e.Phase == PhaseIntent {
			return errors.New("audit: event: an intent has no result yet")
		}
	case "":
		if e.Phase != PhaseIntent {
			return errors.New("audit: event: no result")
		}
	default:
		return errors.New("audit: event: unknown result")
	}
	if !isWord(e.Reason) {
		return errors.New("audit: event: reason is not a word of a closed set") // not quoted: it may be anything
	}
	for _, t := range [...]time.Time{e.Time, e.First.Time} {
		if y := t.UTC().Year(); y < 0 || y > 9999 {
			return fmt.Errorf("audit: event: time: year %d", y)
		}
	}
	return nil
}

// isWord reports whether s could be a word of a closed set, or is empty.
func isWord(s string) bool {
	if len(s) > maxReason {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// appendBody appends the part of a line that belongs to the event: from `,"time":` to the latency. now stands in for a zero Time.
func (e *Event) appendBody(b []byte, now func() time.Time) ([]byte, error) {
	if err := e.check(); err != nil {
		return b, err
	}
	t := e.Time
	if t.IsZero() {
		t = now()
	}
	b = append(b, `,"time":`...)
	b = appendTime(b, t)
	b = appendField(b, `,"phase":`, string(e.Phase))
	b = append(b, `,"exchange":`...)
	b = appendText(b, e.Exchange)
	b = appendField(b, `,"trace":`, e.Trace)
	b = appendField(b, `,"listener":`, e.Listener)
	b = appendField(b, `,"face":`, e.Face)
	b = appendList(b, `,"operations":`, e.Operations)
	b = appendField(b, `,"partner":`, e.Partner)
	b = appendField(b, `,"user":`, e.User)
	b = appendField(b, `,"account":`, e.Account)
	b = appendDigest(b, `,"certificate":"`, &e.Certificate)
	b = appendDigest(b, `,"card":"`, &e.Card)
	b = appendField(b, `,"issuer":`, e.Issuer)
	b = appendField(b, `,"call":`, e.Call)
	b = appendField(b, `,"result":`, string(e.Result))
	b = appendField(b, `,"reason":`, e.Reason)
	b = appendField(b, `,"rule":`, e.Rule)
	if e.Status != 0 {
		b = append(b, `,"status":`...)
		b = strconv.AppendInt(b, int64(e.Status), 10)
	}
	if e.Address.IsValid() {
		// A zone is a name of this host, not of the caller, and may hold any byte.
		b = append(b, `,"address":"`...)
		b = e.Address.Unmap().WithZone("").AppendTo(b)
		b = append(b, '"')
	}
	b = appendList(b, `,"legacy":`, e.Legacy)
	if e.Software {
		b = append(b, `,"software":true`...)
	}
	b = appendID(b, `,"attempt":"`, &e.Attempt)
	if e.First.Attempt != [16]byte{} {
		b = appendID(b, `,"first_attempt":"`, &e.First.Attempt)
		b = append(b, `,"first_time":`...)
		b = appendTime(b, e.First.Time)
		b = appendField(b, `,"first_partner":`, e.First.Partner)
	}
	b = append(b, `,"latency_us":`...)
	return strconv.AppendInt(b, max(0, e.Latency.Microseconds()), 10), nil
}

// appendField appends key and s, or nothing where s is empty.
func appendField(b []byte, key, s string) []byte {
	if s == "" {
		return b
	}
	return appendText(append(b, key...), s)
}

// appendList appends key and an array of at most maxList texts, or nothing where list is empty.
func appendList(b []byte, key string, list []string) []byte {
	if len(list) == 0 {
		return b
	}
	b = append(b, key...)
	b = append(b, '[')
	for i, s := range list {
		if i > 0 {
			b = append(b, ',')
		}
		if i == maxList {
			b = appendText(b, ellipsis)
			break
		}
		b = appendText(b, s)
	}
	return append(b, ']')
}

// appendID appends key, whose last byte is the opening quote, and id in hex, or nothing where id is zero.
func appendID(b []byte, key string, id *[16]byte) []byte {
	if *id == ([16]byte{}) {
		return b
	}
	return append(hex.AppendEncode(append(b, key...), id[:]), '"')
}

// appendDigest appends key, whose last byte is the opening quote, and d in hex, or nothing where d is zero.
func appendDigest(b []byte, key string, d *[32]byte) []byte {
	if *d == ([32]byte{}) {
		return b
	}
	return append(hex.AppendEncode(append(b, key...), d[:]), '"')
}
