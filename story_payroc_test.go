package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"
)

// Steps of stories about face payroc.
var payrocSteps = []step{
	{"payroc-bearer VAR GATEWAY [API-KEY]", 2, doPayrocBearer},
	{"fields VAR GATEWAY BEARER [IDEMPOTENCY-KEY]: a session of hosted fields; $VAR, and $VAR_at, where its page calls", 3, doFields},
	{"type-card SESSION-URL [FIELD...]: submit them as a page does; pan, expiry and cvc are not said, and there is name", 1, doTypeCard},
	{"card-token VAR SESSION-URL [IDEMPOTENCY-KEY]: a single-use token for what was submitted", 2, doCardToken},
	{"pay [STATUS] GATEWAY BEARER TOKEN [IDEMPOTENCY-KEY]: with a single-use token", 3, doPay},
	{"paid COUNT: so many payments reached the issuer, the last one with the very card that was typed", 1, doPaid},
}

func doPayrocBearer(s *story, ts *testscript.TestScript, args []string) error {
	key := s.doc.Payroc.APIKey
	if len(args) > 2 {
		key = args[2]
	}
	a := s.do(&call{request: request{method: "POST", url: ts.Getenv(args[1]+"_public") + "/authorize", header: map[string]string{"x-api-key": key}}})
	if err := s.check(ts, a, 200); err != nil {
		return err
	}
	return doMember(s, ts, []string{args[0], "access_token"})
}

func doFields(s *story, ts *testscript.TestScript, args []string) error {
	key := randomUUID()
	if len(args) > 3 {
		key = args[3]
	}
	base := ts.Getenv(args[1] + "_public")
	a := s.do(&call{request: request{
		method: "POST", url: base + "/v1/processing-terminals/" + s.doc.Payroc.TerminalID + "/hosted-fields-sessions",
		header: traded{Access: args[2]}.header(key), body: fmt.Sprintf(`{"libVersion":%q,"scenario":"payment"}`, s.doc.Payroc.LibVersion),
	}})
	if err := s.check(ts, a, 201); err != nil {
		return err
	}
	page, err := readPage(&a.reply, s.doc.Payroc.TerminalID)
	ts.Setenv(args[0], page.Token)
	ts.Setenv(args[0]+"_at", base+"/merchant/api/v2/hosted-fields-sessions/"+url.PathEscape(page.Token))
	return err
}

func doTypeCard(s *story, ts *testscript.TestScript, args []string) error {
	fields := args[1:]
	if len(fields) == 0 {
		fields = []string{"pan", "expiry", "cvc"}
	}
	all := typed(s.house.checkout)
	bodies := map[string]string{"pan": all[0], "expiry": all[1], "cvc": all[2], "name": all[3]}
	for _, field := range fields {
		a := s.do(&call{request: request{method: "POST", url: args[0] + "/fields", header: map[string]string{"Idempotency-Key": randomUUID()}, body: bodies[field]}})
		if err := s.check(ts, a, 200); err != nil {
			return err
		}
	}
	return nil
}

func doCardToken(s *story, ts *testscript.TestScript, args []string) error {
	key := randomUUID()
	if len(args) > 2 {
		key = args[2]
	}
	a := s.do(&call{request: request{method: "POST", url: args[1] + "/single-use-tokens", header: map[string]string{"Idempotency-Key": key}}})
	if err := s.check(ts, a, 200); err != nil {
		return err
	}
	return doMember(s, ts, []string{args[0], "token"})
}

func doPay(s *story, ts *testscript.TestScript, args []string) error {
	status := 201
	if n, err := strconv.Atoi(args[0]); err == nil {
		status, args = n, args[1:]
	}
	if len(args) < 3 {
		return errors.New("want GATEWAY BEARER TOKEN")
	}
	key := randomUUID()
	if len(args) > 3 {
		key = args[3]
	}
	t := &tester{doc: s.doc}
	t.doc.PublicURL = ts.Getenv(args[0] + "_public")
	return s.check(ts, s.do(&call{request: t.payment(traded{Access: args[1]}, args[2], key)}), status)
}

// doPaid never prints what it compares.
func doPaid(s *story, _ *testscript.TestScript, args []string) error {
	payments := s.house.payroc.Payments()
	if got := strconv.Itoa(len(payments)); got != args[0] {
		return fmt.Errorf("%s payments reached the issuer, want %s", got, args[0])
	}
	if len(payments) == 0 {
		return nil
	}
	return s.house.paidWith(payments[len(payments)-1].NumberSHA256, payments[len(payments)-1].CodeSHA256, payments[len(payments)-1].ExpiryDate)
}

// paidWith compares a card with the one that callers type in.
func (h *house) paidWith(number, code [sha256.Size]byte, expiry string) error {
	c := h.checkout
	if number != sha256.Sum256([]byte(c.PAN)) || code != sha256.Sum256([]byte(c.CVC)) || expiry != c.ExpiryMonth+c.ExpiryYear[2:] {
		return errors.New("it was paid with another card")
	}
	return nil
}
