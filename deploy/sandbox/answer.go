package sandbox

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// answer is a status and a JSON object, before a fault spoils it.
type answer struct {
	status int
	body   map[string]any
	header map[string]string // beside those of every answer
}

// ok reports whether what was asked for was done.
func (a *answer) ok() bool { return a.status/100 == 2 }

func success(body map[string]any) *answer { return &answer{status: http.StatusOK, body: body} }

// optional lists, for FaultMissingField, the field that each kind of answer loses.
var optional = []string{
	"encryptedCvc", "encryptedPin", "expirationMonth", "lastName", "timeBasedSecret", // Rain
	"card_details", "card_security_code", "ephemeral_key", // Bridge
	"account_number", "amount", "balances", // Payments
	"paymentId", // Payroc
	"cardId",    // GnosisCards
}

// deliver sends the answer as the fault has it. It waits no longer than the caller or, for a fault, until Shutdown.
func (i *issuer) deliver(w http.ResponseWriter, req *http.Request, a *answer, f Fault) {
	switch f.kind {
	case faultHang:
		wait(req, nil, i.closed)
		panic(http.ErrAbortHandler)
	case faultSlow:
		t := time.NewTimer(f.delay)
		defer t.Stop()
		if !wait(req, t.C, i.closed) { // who has stopped waiting must not get an answer in the moment of leaving
			panic(http.ErrAbortHandler)
		}
	case faultDisconnect:
		panic(http.ErrAbortHandler)
	case faultRedirect:
		http.Redirect(w, req, "/redirected", http.StatusTemporaryRedirect)
		return
	case faultWrongCiphertext:
		a.reseal(func(v Sealed) Sealed { return Sealed{IV: v.IV, Data: flip(v.Data)} })
	case faultWrongIV:
		a.reseal(func(v Sealed) Sealed { return Sealed{IV: flip(v.IV), Data: v.Data} })
	case faultMissingField:
		for _, name := range optional {
			delete(a.body, name)
		}
	}

	text := marshal(a.body)
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("X-Request-Id", randomHex(16))
	h.Set("Set-Cookie", i.name+"_affinity="+randomHex(8)+"; Path=/; HttpOnly")
	for name, value := range a.header {
		h.Set(name, value)
	}
	if f.kind == faultWrongContentType {
		h.Set("Content-Type", "text/html; charset=utf-8")
	}
	switch f.kind {
	case faultHugeBody:
		w.WriteHeader(a.status)
		w.Write(text[:len(text)-1])
		// A write fails when the caller has had enough, which is how it should end.
		io.CopyN(w, spaces{}, hugeBytes)
		w.Write([]byte("}"))
		return
	case faultMalformedJSON:
		text = text[:len(text)/2]
	case faultEmptyBody:
		text = nil
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(a.status)
	if f.kind == faultTruncatedBody {
		w.Write(text[:len(text)/2])
		// Without the flush, the first half would not leave before the connection is cut.
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	w.Write(text)
}

// wait returns when t fires, the caller gives up, or closed is closed, and whether it was t.
func wait(req *http.Request, t <-chan time.Time, closed <-chan struct{}) bool {
	select {
	case <-t:
		return true
	case <-req.Context().Done():
	case <-closed:
	}
	return false
}

// marshal returns JSON in which no character is escaped for HTML's sake.
func marshal(v any) []byte {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("sandbox: internal error: " + err.Error())
	}
	return bytes.TrimRight(out.Bytes(), "\n")
}

func (a *answer) reseal(change func(Sealed) Sealed) {
	for name, v := range a.body {
		if v, ok := v.(Sealed); ok {
			a.body[name] = change(v)
		}
	}
}

// flip inverts the lowest bit of the first byte of base64 text.
func flip(text string) string {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 {
		panic("sandbox: internal error: not base64 of our own")
	}
	b[0] ^= 1
	return base64.StdEncoding.EncodeToString(b)
}

// spaces is an endless reader of spaces, which JSON allows between any two tokens.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// fmtUUID writes the first 16 bytes of b in the form of a UUID.
func fmtUUID(b [32]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
