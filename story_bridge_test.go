package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// Steps of stories about face bridge.
var bridgeSteps = []step{
	{"bridge-proof NAME: what a page draws for one reveal; $NAME_secret, $NAME_timestamp, $NAME_nonce", 1, doBridgeProof},
	{"bridge-key VAR GATEWAY PROOF [IDEMPOTENCY-KEY]: an ephemeral key for the nonce of a proof", 3, doBridgeKey},
	{"shown: the last answer is the card, in clear", 0, doShown},
}

func doBridgeProof(s *story, ts *testscript.TestScript, args []string) error {
	secret, timestamp := sandbox.NewBridgeProof()
	nonce := sandbox.BridgeNonce(secret, timestamp)
	s.canary.secret("client secret", secret)
	s.canary.secret("nonce", nonce)
	for name, value := range map[string]string{"secret": secret, "timestamp": timestamp, "nonce": nonce} {
		ts.Setenv(args[0]+"_"+name, value)
	}
	return nil
}

func doBridgeKey(s *story, ts *testscript.TestScript, args []string) error {
	header := map[string]string{"Api-Key": s.doc.Bridge.APIKey}
	if len(args) > 3 {
		header["Idempotency-Key"] = args[3]
	}
	a := s.do(&call{request: request{
		method: "POST", url: ts.Getenv(args[1]+"_account") + "/ephemeral_keys", header: header,
		body: fmt.Sprintf(`{"client_nonce":%q}`, ts.Getenv(args[2]+"_nonce")),
	}})
	if err := s.check(ts, a, 200); err != nil {
		return err
	}
	return doMember(s, ts, []string{args[0], "ephemeral_key"})
}

// doShown never prints what it compares.
func doShown(s *story, _ *testscript.TestScript, _ []string) error {
	var card struct {
		Number string `json:"card_number"`
		Code   string `json:"card_security_code"`
		Expiry string `json:"expiry_date"`
	}
	if err := json.Unmarshal(s.last.body, &card); err != nil {
		return errors.New("the answer is no card")
	}
	want := s.doc.Card
	if card.Number != want.PAN || card.Code != want.CVC || card.Expiry != want.ExpiryMonth+"/"+want.ExpiryYear[2:] {
		return errors.New("the card is another one")
	}
	return nil
}
