package sandbox

import (
	"fmt"
	"time"
)

// Fault is a way in which an issuer fails. The zero Fault is none.
//
// A fault spoils the answer, not the effect: when the answer to a PIN that is being set is held back, cut off or garbled, the PIN has been
// set. Only Fault500 and FaultPANInError refuse before anything happens.
type Fault struct {
	kind   faultKind
	delay  time.Duration
	header string
	call   Call
}

type faultKind uint8

const (
	faultNone faultKind = iota
	faultHang
	faultSlow
	fault500
	faultMalformedJSON
	faultWrongCiphertext
	faultWrongIV
	faultMissingField
	faultHugeBody
	faultTruncatedBody
	faultWrongContentType
	faultDisconnect
	faultRedirect
	faultPANInError
	faultNullPIN
	faultEmptyBody
	faultPANInMember
	faultPANInHeader
)

// The faults. They are values that nothing changes.
var (
	// FaultHang never answers: it waits until the caller gives up or the server is shut down.
	FaultHang = Fault{kind: faultHang}
	// Fault500 answers 500 in the issuer's error shape and does nothing.
	Fault500 = Fault{kind: fault500}
	// FaultMalformedJSON answers 200 with the first half of the JSON, its length stated truthfully.
	FaultMalformedJSON = Fault{kind: faultMalformedJSON}
	// FaultWrongCiphertext flips one bit of each sealed value. Answers without sealed values stay as they are.
	FaultWrongCiphertext = Fault{kind: faultWrongCiphertext}
	// FaultWrongIV answers another well-formed IV than the one used. Answers without sealed values stay as they are.
	FaultWrongIV = Fault{kind: faultWrongIV}
	// FaultMissingField leaves out encryptedCvc, encryptedPin, expirationMonth, lastName or timeBasedSecret (Rain), card_details,
	// card_security_code or ephemeral_key (Bridge), account_number, amount or balances (Payments), paymentId (Payroc) or cardId (GnosisCards),
	// whichever the answer has.
	FaultMissingField = Fault{kind: faultMissingField}
	// FaultHugeBody puts 16 MiB of spaces before the last brace of a valid answer, without stating a length.
	FaultHugeBody = Fault{kind: faultHugeBody}
	// FaultTruncatedBody states the whole length, sends half of it and closes the connection.
	FaultTruncatedBody = Fault{kind: faultTruncatedBody}
	// FaultWrongContentType answers the right body as text/html.
	FaultWrongContentType = Fault{kind: faultWrongContentType}
	// FaultDisconnect closes the connection without a byte.
	FaultDisconnect = Fault{kind: faultDisconnect}
	// FaultRedirect answers 307 to /redirected on the same server; whoever follows it shows in Requests.
	FaultRedirect = Fault{kind: faultRedirect}
	// FaultPANInError answers 500 with an error text that carries the card number and CVC in clear, and does nothing.
	FaultPANInError = Fault{kind: faultPANInError}
	// FaultNullPIN is the other way in which the contract says that no PIN is set: 200 {"encryptedPin":null} in place of the error. It
	// changes nothing but that answer.
	FaultNullPIN = Fault{kind: faultNullPIN}
	// FaultEmptyBody answers the right status without a body, which the contract allows for a PIN that was set and for nothing else.
	FaultEmptyBody = Fault{kind: faultEmptyBody}
	// FaultPANInMember adds to an answer that is no error the member "processor", which no contract has: {"trace":"authorized card <number>"}.
	FaultPANInMember = Fault{kind: faultPANInMember}
)

// FaultSlow answers rightly after d.
func FaultSlow(d time.Duration) Fault { return Fault{kind: faultSlow, delay: d} }

// FaultPANInHeader answers rightly, with the card number as the value of a header field of this name.
func FaultPANInHeader(name string) Fault { return Fault{kind: faultPANInHeader, header: name} }

// On returns the fault, restricted to one call.
func (f Fault) On(call Call) Fault {
	f.call = call
	return f
}

// applies reports whether the fault concerns a call.
func (f Fault) applies(call Call) bool {
	return f.kind != faultNone && (f.call == "" || f.call == call)
}

// hugeBytes is the padding of FaultHugeBody.
const hugeBytes = 16 << 20

// refusal is the answer of the faults that stand in for the call, in the issuer's error shape: nothing is done. Nil for the other faults.
func (f Fault) refusal(c Card, failure func(status int, message string) *answer) *answer {
	switch f.kind {
	case fault500:
		return failure(500, "")
	case faultPANInError:
		return failure(500, fmt.Sprintf("processor refused card %s with code %s", c.PAN, c.CVC))
	default:
		return nil
	}
}

// leak puts the card number where the fault has it. The answer's body is the caller's own.
func (f Fault) leak(a *answer, c Card) {
	switch {
	case f.kind == faultPANInMember && a.ok():
		a.body["processor"] = map[string]any{"trace": "authorized card " + c.PAN}
	case f.kind == faultPANInHeader:
		if a.header == nil {
			a.header = make(map[string]string, 1)
		}
		a.header[f.header] = c.PAN
	}
}
