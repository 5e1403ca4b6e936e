package main

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/vault/keys"
)

// Steps of stories about face paymentsgate, and about tokens that are signed.
var paymentsSteps = []step{
	{"account-login PREFIX GATEWAY: with the account's public key; $PREFIX_access, $PREFIX_refresh", 2, doAccountLogin},
	{"pair PREFIX: the pair of tokens in the last answer", 1, doPair},
	{"api-signature VAR BODY [KEY-FILE]: over a request's body, in one line", 2, doAPISignature},
	{"wrapped VAR TEXT: with a space in place of each line break that clients put into base64", 2, doWrapped},
	{"base64 VAR FILE", 2, doBase64},
	{"jwt VAR [WORD=VALUE...]: a token; from= takes header and claims of another one, head= and claims= are JSON over them,\n" +
		"exp=, iat= and nbf= are durations from now, sign= is assertion, jwt, users, public, none, or a key's file", 1, doJWT},
	{"jwt-claim VAR TOKEN NAME", 3, doJWTClaim},
	{"jwt-head TOKEN: print its header", 1, doJWTHead},
	{"account-number SESSION: the last answer's, sealed for it, is the card's", 1, doAccountNumber},
}

func doAccountLogin(s *story, ts *testscript.TestScript, args []string) error {
	a := s.do(&call{request: request{
		method: "POST", url: ts.Getenv(args[1]+"_public") + "/auth/token",
		body: fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, s.doc.PaymentsGate.AccountID, s.doc.PaymentsGate.PublicKey),
	}})
	if err := s.check(ts, a, 200); err != nil {
		return err
	}
	return doPair(s, ts, args)
}

func doPair(s *story, ts *testscript.TestScript, args []string) error {
	p, err := readPair(&s.last.reply)
	if err != nil {
		return err
	}
	ts.Setenv(args[0]+"_access", p.Access)
	ts.Setenv(args[0]+"_refresh", p.Refresh)
	return nil
}

func doAPISignature(s *story, ts *testscript.TestScript, args []string) error {
	file := s.doc.PaymentsGate.PrivateKey
	if len(args) > 2 {
		file = args[2]
	}
	key, err := rsaKeyFile(filepath.Join(s.dir, file))
	if err != nil {
		return err
	}
	signature, err := sandbox.SignPaymentsGate(key, []byte(args[1]))
	if err != nil {
		return err
	}
	signature = strings.Join(strings.Fields(signature), "")
	s.canary.secret("signature", signature)
	ts.Setenv(args[0], signature)
	return nil
}

func doWrapped(_ *story, ts *testscript.TestScript, args []string) error {
	var lines []string
	for text := args[1]; text != ""; {
		n := min(76, len(text))
		lines, text = append(lines, text[:n]), text[n:]
	}
	ts.Setenv(args[0], strings.Join(lines, " "))
	return nil
}

func doBase64(s *story, ts *testscript.TestScript, args []string) error {
	ts.Setenv(args[0], base64.StdEncoding.EncodeToString([]byte(ts.ReadFile(args[1]))))
	return nil
}

// object is a JSON object whose members are put over others.
type object map[string]any

func (o object) over(text string) error {
	var next object
	if err := json.Unmarshal([]byte(text), &next); err != nil {
		return err
	}
	for name, value := range next {
		if value == nil {
			delete(o, name)
			continue
		}
		o[name] = value
	}
	return nil
}

func doJWT(s *story, ts *testscript.TestScript, args []string) error {
	head, claims, sign := object{}, object{}, "assertion"
	for _, arg := range args[1:] {
		word, value, _ := strings.Cut(arg, "=")
		var err error
		switch word {
		case "from":
			parts := strings.Split(value, ".")
			for i, o := range []object{head, claims} {
				raw, _ := base64.RawURLEncoding.DecodeString(parts[i])
				err = errors.Join(err, o.over(string(raw)))
			}
		case "head":
			err = head.over(value)
		case "claims":
			err = claims.over(value)
		case "sign":
			sign = value
		case "exp", "iat", "nbf":
			var d time.Duration
			d, err = time.ParseDuration(value)
			claims[word] = time.Now().Add(d).Unix()
		default:
			err = fmt.Errorf("unknown word %q", word)
		}
		if err != nil {
			return err
		}
	}
	token, err := s.sign(head, claims, sign)
	if err == nil {
		s.canary.token("token of the script's", token)
		ts.Setenv(args[0], token)
	}
	return err
}

// sign makes the compact form of a token (RFC 7515, section 7.1), signed or not as the script has it.
func (s *story) sign(head, claims object, how string) (string, error) {
	h, err := json.Marshal(head)
	if err != nil {
		return "", err
	}
	c, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(c)
	var signature []byte
	switch how {
	case "none":
	case "public": // the public key as a shared secret, which a verifier that lets the token choose takes
		public := ""
		if public, err = s.publicJWTKey(); err == nil {
			mac := hmac.New(sha256.New, []byte(public))
			mac.Write([]byte(text))
			signature = mac.Sum(nil)
		}
	case "jwt":
		signature, err = s.signWith("jwt-demo", "jwt-key.pem", text)
	case "users": // the authority of gnosispay's users
		signature, err = s.signWith("users-demo", "users-key.pem", text)
	case "assertion":
		signature, err = s.signAsAccount(text, head["alg"], s.doc.PaymentsGate.PrivateKey)
	default:
		signature, err = s.signAsAccount(text, head["alg"], how)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature), err
}

func (s *story) signAsAccount(text string, algorithm any, file string) ([]byte, error) {
	key, err := rsaKeyFile(filepath.Join(s.dir, file))
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256([]byte(text))
	if algorithm == "PS256" {
		return rsa.SignPSS(rand.Reader, key, crypto.SHA256, hash[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	}
	return rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, hash[:])
}

func (s *story) signWith(id, file, text string) ([]byte, error) {
	key, err := keys.Load(keys.Config{ID: id, Use: keys.UseJWT, File: filepath.Join(s.dir, file)})
	if err != nil {
		return nil, err
	}
	signers, err := jwtKeys([]*keys.Key{key})
	if err != nil {
		return nil, err
	}
	return signers[0].Sign([]byte(text))
}

// publicJWTKey is the JWKS' only key, as text.
func (s *story) publicJWTKey() (string, error) {
	for _, g := range s.gateways {
		a := s.do(&call{request: request{method: "GET", url: g.url("public") + "/.well-known/jwks.json"}})
		return string(a.body), a.err
	}
	return "", errors.New("no gateway")
}

func doJWTClaim(_ *story, ts *testscript.TestScript, args []string) error {
	parts := strings.Split(args[1], ".")
	if len(parts) != 3 {
		return errors.New("not a token of three parts")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	value, err := memberOf(raw, args[2])
	if err == nil {
		ts.Setenv(args[0], value)
	}
	return err
}

func doJWTHead(_ *story, ts *testscript.TestScript, args []string) error {
	head, _, _ := strings.Cut(args[0], ".")
	raw, err := base64.RawURLEncoding.DecodeString(head)
	fmt.Fprintf(ts.Stdout(), "%s\n", raw)
	return err
}

func doAccountNumber(s *story, _ *testscript.TestScript, args []string) error {
	var answer struct {
		Number *sandbox.Sealed `json:"account_number"`
	}
	if err := json.Unmarshal(s.last.body, &answer); err != nil || answer.Number == nil {
		return errors.New("no sealed account number in the answer")
	}
	if got, err := s.sessions[args[0]].Open(*answer.Number); err != nil || got != s.doc.Card.PAN {
		return errors.New("the account number does not open, or is another one")
	}
	return nil
}
