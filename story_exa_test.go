package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// Steps of stories about face exa. Texts to sign are kept as JSON strings: they have several lines.
var exaSteps = []step{
	{"challenge PREFIX GATEWAY [CREDENTIAL]: what a login signs; $PREFIX_session (a cookie), $PREFIX_id, and $PREFIX_message or $PREFIX_challenge", 2, doChallenge},
	{"consent VAR GATEWAY siwe|webauthn [COOKIE]: what the link of a card signs", 3, doConsent},
	{"wallet-sign VAR MESSAGE [other]: by the user's wallet, or another one", 2, doWalletSign},
	{"shift VAR MESSAGE DURATION: the same message, with its times moved", 3, doShift},
	{"passkey NAME: a user with a passkey, who has the card too; $NAME_id", 1, doPasskey},
	{"assert VAR PASSKEY CHALLENGE [ORIGIN]: what the passkey signs, on a page of the listed origin or another one", 3, doAssert},
}

func doChallenge(s *story, ts *testscript.TestScript, args []string) error {
	id := s.doc.Exa.CredentialID
	if len(args) > 2 {
		id = args[2]
	}
	a := s.do(&call{request: request{method: "GET", url: ts.Getenv(args[1]+"_public") + "/api/auth/authentication?credentialId=" + id}})
	if err := s.check(ts, a, 200); err != nil {
		return err
	}
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if c.Name == "session_id" && c.Value == a.header.Get("X-Session-Id") {
			ts.Setenv(args[0]+"_session", c.Name+"="+c.Value)
			ts.Setenv(args[0]+"_id", c.Value)
		}
	}
	var challenge struct {
		Message   json.RawMessage
		Challenge string
	}
	if err := json.Unmarshal(a.body, &challenge); err != nil {
		return err
	}
	ts.Setenv(args[0]+"_message", string(challenge.Message))
	ts.Setenv(args[0]+"_challenge", challenge.Challenge)
	return nil
}

func doConsent(s *story, ts *testscript.TestScript, args []string) error {
	cookie := s.doc.Exa.Cookie
	if len(args) > 3 {
		cookie = args[3]
	}
	a := s.do(&call{request: request{
		method: "GET", url: ts.Getenv(args[1]+"_public") + "/api/card?scope=" + args[2], header: map[string]string{"Cookie": cookie},
	}})
	if err := s.check(ts, a, 200); err != nil {
		return err
	}
	var card struct{ Challenge json.RawMessage }
	if err := json.Unmarshal(a.body, &card); err != nil || card.Challenge == nil {
		return errors.New("the answer has nothing to sign")
	}
	ts.Setenv(args[0], string(card.Challenge))
	return nil
}

// textOf reads a JSON string.
func textOf(quoted string) (text string, err error) {
	err = json.Unmarshal([]byte(quoted), &text)
	return text, err
}

func doWalletSign(s *story, ts *testscript.TestScript, args []string) error {
	message, err := textOf(args[1])
	if err != nil {
		return err
	}
	key := s.house.state.Wallet
	if len(args) > 2 {
		key = newWallet()
	}
	signature := walletSign(key, message)
	s.canary.secret("wallet's signature", signature)
	ts.Setenv(args[0], signature)
	return nil
}

var siweTimes = regexp.MustCompile(`(Issued At|Expiration Time): (\S+)`)

func doShift(_ *story, ts *testscript.TestScript, args []string) error {
	message, err := textOf(args[1])
	if err != nil {
		return err
	}
	by, err := time.ParseDuration(args[2])
	if err != nil {
		return err
	}
	shifted := siweTimes.ReplaceAllStringFunc(message, func(found string) string {
		m := siweTimes.FindStringSubmatch(found)
		at, parseError := time.Parse(time.RFC3339, m[2])
		err = errors.Join(err, parseError)
		return m[1] + ": " + at.Add(by).UTC().Format("2006-01-02T15:04:05.000Z")
	})
	if shifted == message {
		return errors.New("the message has no times")
	}
	quoted, marshalError := json.Marshal(shifted)
	ts.Setenv(args[0], string(quoted))
	return errors.Join(err, marshalError)
}

func doPasskey(s *story, ts *testscript.TestScript, args []string) error {
	p := sandbox.NewPasskey(demoDomain)
	s.passkeys[args[0]] = p
	spki, err := spkiOf(p.COSEKey())
	if err != nil {
		return err
	}
	wallet := s.house.exaUser()
	s.house.edit("holders.yaml", fmt.Sprintf("users: [%q", wallet), fmt.Sprintf("users: [%q, %q", wallet, p.CredentialID()))
	s.house.edit("holders.yaml", "\nusers:\n", fmt.Sprintf(
		"\nusers:\n  - {id: %[1]q, partner: gp-demo, issuer: rain, issuer_user: %[2]q, account: %[3]q, passkeys: [{id: %[1]q, public_key: %[4]q}]}\n",
		p.CredentialID(), s.house.state.Users[0].ID, walletAddress(newWallet()), base64.StdEncoding.EncodeToString(spki),
	))
	ts.Setenv(args[0]+"_id", p.CredentialID())
	return nil
}

// spkiOf is the SubjectPublicKeyInfo of a passkey's COSE key, whose coordinates stand at its end (see sandbox.Passkey.COSEKey).
func spkiOf(cose []byte) ([]byte, error) {
	const coordinate = 32
	n := len(cose)
	x, y := cose[n-2*coordinate-3:n-coordinate-3], cose[n-coordinate:]
	point := append(append([]byte{4}, x...), y...)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKIXPublicKey(key)
}

func doAssert(s *story, ts *testscript.TestScript, args []string) error {
	p := s.passkeys[args[1]]
	if p == nil {
		return fmt.Errorf("no passkey %s", args[1])
	}
	var signed []byte
	if strings.HasPrefix(args[2], `"`) { // a statement
		text, err := textOf(args[2])
		if err != nil {
			return err
		}
		signed = []byte(text)
	} else {
		raw, err := base64.RawURLEncoding.DecodeString(args[2])
		if err != nil {
			return err
		}
		signed = raw
	}
	origin := s.doc.Origin
	if len(args) > 3 {
		origin = args[3]
	}
	ts.Setenv(args[0], string(p.Assert(signed, origin)))
	return nil
}
