package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// Steps of stories about the users of face gnosispay.
var gnosisSteps = []step{
	{"typed-sign VAR [other]: what the last answer gives to sign, by the user's wallet or another one; $VAR and $VAR_nonce", 1, doTypedSign},
	{"upload VAR [NUMBER]: a card number, sealed as a device uploads it; a new one by default", 1, doUpload},
	{"uploaded COUNT VAR: the issuer has taken so many cards, the last one being what was sealed", 2, doUploaded},
}

func doTypedSign(s *story, ts *testscript.TestScript, args []string) error {
	var d typedData
	if err := json.Unmarshal(s.last.body, &d); err != nil || d.Message.Nonce == "" {
		return errors.New("the last answer is nothing to sign")
	}
	key := s.house.state.Wallet
	if len(args) > 1 {
		key = newWallet()
	}
	signature := walletSignTyped(key, &d)
	s.canary.secret("user's signature", signature)
	ts.Setenv(args[0], signature)
	ts.Setenv(args[0]+"_nonce", d.Message.Nonce)
	return nil
}

func doUpload(s *story, ts *testscript.TestScript, args []string) error {
	number := sandbox.RandomCard("", "").PAN
	if len(args) > 1 {
		number = args[1]
	}
	t, err := newTesterOf(s.dir)
	if err != nil {
		return err
	}
	u, err := sandbox.NewGnosisUpload(t.public, number)
	if err != nil {
		return err
	}
	s.canary.secret("card number", number)
	s.canary.secret("upload's key", u.EncryptedKey)
	body, err := json.Marshal(u)
	if err != nil {
		return err
	}
	for name, value := range map[string]string{"": string(body), "_pan": u.EncryptedPAN, "_key": u.EncryptedKey, "_iv": u.IV, "_number": number} {
		ts.Setenv(args[0]+name, value)
	}
	return nil
}

func doUploaded(s *story, ts *testscript.TestScript, args []string) error {
	cards := s.house.cards.Cards()
	if got := fmt.Sprint(len(cards)); got != args[0] {
		return fmt.Errorf("%s cards reached the issuer, want %s", got, args[0])
	}
	if len(cards) > 0 && cards[len(cards)-1].NumberSHA256 != sha256.Sum256([]byte(ts.Getenv(args[1]+"_number"))) {
		return errors.New("the issuer took another number")
	}
	return nil
}

// uploaded opens a card number that was sealed for the gateway, with the gateway's own key.
func (h *house) uploaded(body []byte) (number string, ok bool) {
	var u struct{ EncryptedPan, EncryptedKey, IV []byte } // base64
	key, err := h.rsaKey("session-key.pem")
	if err != nil {
		panic(err)
	}
	if json.Unmarshal(body, &u) != nil || len(u.IV) != 12 {
		return "", false // noise, which a flow sends
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, key, u.EncryptedKey, nil)
	if err != nil {
		return "", false
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil {
		return "", false
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return "", false
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return "", false
	}
	plain, err := aead.Open(nil, u.IV, u.EncryptedPan, nil)
	return string(plain), err == nil
}
