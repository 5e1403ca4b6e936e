package credential_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// goodAssertion is how a browser's toJSON writes one.
const goodAssertion = `{"authenticatorAttachment":"platform","clientExtensionResults":{},"id":"AQID","rawId":"AQID","response":` +
	`{"authenticatorData":"BAUG","clientDataJSON":"e30","signature":"Bwg","userHandle":"CQ"},"type":"public-key"}`

func TestAssertionIsRead(t *testing.T) {
	for name, text := range map[string]string{
		"a browser's":      goodAssertion,
		"no attachment":    strings.Replace(goodAssertion, `"authenticatorAttachment":"platform",`, "", 1),
		"null attachment":  strings.Replace(goodAssertion, `"platform"`, "null", 1),
		"no user handle":   strings.Replace(goodAssertion, `,"userHandle":"CQ"`, "", 1),
		"null user handle": strings.Replace(goodAssertion, `"CQ"`, "null", 1),
		"extensions":       strings.Replace(goodAssertion, "{}", `{"appid":true}`, 1),
		"spaces":           " " + strings.Replace(goodAssertion, ":", " : ", 1) + "\n",
	} {
		a, err := credential.ParseAssertion([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a.ID != "AQID" || string(a.ClientDataJSON) != "{}" || !bytes.Equal(a.AuthenticatorData, []byte{4, 5, 6}) || !bytes.Equal(a.Signature, []byte{7, 8}) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestMalformedAssertions(t *testing.T) {
	for name, change := range map[string][2]string{
		"nothing":               {goodAssertion, ""},
		"null":                  {goodAssertion, "null"},
		"a list":                {goodAssertion, "[" + goodAssertion + "]"},
		"two values":            {goodAssertion, goodAssertion + goodAssertion},
		"no id":                 {`"id":"AQID",`, ""},
		"null id":               {`"id":"AQID"`, `"id":null`},
		"empty id":              {"AQID", ""},
		"no rawId":              {`"rawId":"AQID",`, ""},
		"another rawId":         {`"rawId":"AQID"`, `"rawId":"AQIE"`},
		"id twice":              {`"id":"AQID"`, `"id":"AQID","id":"AQID"`},
		"ID":                    {`"id":`, `"ID":`},
		"no type":               {`,"type":"public-key"`, ""},
		"another type":          {"public-key", "password"},
		"no response":           {`"response":`, `"answer":`},
		"null response":         {`{"authenticatorData":"BAUG","clientDataJSON":"e30","signature":"Bwg","userHandle":"CQ"}`, "null"},
		"no extensions":         {`"clientExtensionResults":{},`, ""},
		"null extensions":       {`"clientExtensionResults":{}`, `"clientExtensionResults":null`},
		"extensions, a list":    {`"clientExtensionResults":{}`, `"clientExtensionResults":[]`},
		"no signature":          {`"signature":"Bwg",`, ""},
		"no client data":        {`"clientDataJSON":"e30",`, ""},
		"no authenticator data": {`"authenticatorData":"BAUG",`, ""},
		"a member more":         {`"type"`, `"method":"webauthn","type"`},
		"in the response too":   {`"signature"`, `"publicKey":"","signature"`},
		"signature a number":    {`"Bwg"`, "7"},
		"padded":                {`"Bwg"`, `"Bwg="`},
		"stray bits":            {`"Bwg"`, `"Bwh"`},
		"standard alphabet":     {`"Bwg"`, `"B+g"`},
		"line break":            {`"Bwg"`, `"Bw\ng"`},
		"long id":               {`AQID`, strings.Repeat("AAAA", 342)},
		"long client data":      {`"e30"`, `"` + strings.Repeat("AAAA", 4<<10+1) + `"`},
		"long data":             {`"BAUG"`, `"` + strings.Repeat("AAAA", 342) + `"`},
		"long signature":        {`"Bwg"`, `"` + strings.Repeat("AAAA", 171) + `"`},
		"long user handle":      {`"CQ"`, `"` + strings.Repeat("AAAA", 22) + `"`},
		"long all together":     {`{}`, `{"x":"` + strings.Repeat("A", 24<<10) + `"}`},
	} {
		text := strings.ReplaceAll(goodAssertion, change[0], change[1])
		if text == goodAssertion {
			t.Fatalf("%s changes nothing", name)
		}
		a, err := credential.ParseAssertion([]byte(text))
		r, ok := errors.AsType[*policy.Refused](err)
		if !ok || r.Kind != policy.KindPasskey || r.Reason != policy.RefusedMalformed || a != nil {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
}

// FuzzAssertion: what is read has an id, is within its bounds, and stands in the
// text as it is; what is wrong is malformed, and nothing else.
func FuzzAssertion(f *testing.F) {
	f.Add([]byte(goodAssertion))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := credential.ParseAssertion(text)
		if err != nil {
			if r, ok := errors.AsType[*policy.Refused](err); !ok || r.Reason != policy.RefusedMalformed || a != nil {
				t.Fatalf("%+v, %v", a, err)
			}
			return
		}
		if a.ID == "" || len(a.Signature) > 512 || len(a.AuthenticatorData) > 1<<10 || len(a.ClientDataJSON) > 12<<10 {
			t.Fatalf("%+v", a)
		}
		for _, part := range []string{a.ID, base64url(a.Signature), base64url(a.ClientDataJSON)} {
			if !bytes.Contains(text, []byte(part)) && !bytes.ContainsRune(text, '\\') {
				t.Fatalf("%q is not in %q", part, text)
			}
		}
	})
}

// FuzzClientData: whatever a browser says that was signed, and however it is
// written, it is taken only if another reader of JSON finds this challenge and an
// origin of ours in it.
func FuzzClientData(f *testing.F) {
	challenge := statement()
	a := newAuthenticator(f, "EdDSA", challenge.Message)
	p, user := passkeys(f, nil), ada(a.passkey(f))
	f.Add(a.sign(f).ClientDataJSON)
	f.Add([]byte(`{"type":"webauthn.get"}`))
	f.Fuzz(func(t *testing.T, client []byte) {
		a.clientDataRaw = append([]byte{}, client...)
		proof, err := p.Prove(a.sign(t), &challenge, user)
		if err != nil {
			if proof != (policy.Proof{}) {
				t.Fatalf("%+v beside %v", proof, err)
			}
			return
		}
		var read map[string]any
		if err := json.Unmarshal(client, &read); err != nil {
			t.Fatalf("%q: %v", client, err)
		}
		if read["type"] != "webauthn.get" || read["challenge"] != base64url([]byte(challenge.Message)) || read["crossOrigin"] == true ||
			read["origin"] != "https://app.example" && read["origin"] != "http://localhost:8080" {
			t.Fatalf("%q is taken", client)
		}
	})
}
