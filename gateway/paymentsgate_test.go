package gateway_test

import (
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/keys"
)

// login is what a service account has once it is logged in.
type login struct {
	Access  string `json:"access_token"`
	Refresh string `json:"refresh_token"`
	Expires int    `json:"expires_in"`
}

// call is one with the login's access token.
func (l login) call(method, path, body string, header ...string) call {
	x := call{listener: "public", method: method, path: path, body: body, header: []string{"Authorization", "Bearer " + l.Access}}
	if body != "" {
		x = x.with("Content-Type", "application/json")
	}
	return x.with(header...)
}

// signed adds the account's signature over the body.
func (h *house) signed(x call) call {
	signature, err := sandbox.SignPaymentsGate(shared().service, []byte(x.body))
	must(err)
	return x.with("Api-Signature", h.secret(strings.Join(strings.Fields(signature), "")))
}

// loginCall is that of an account with its public key.
func loginCall(id string) call {
	return call{
		listener: "public", method: "POST", path: "/auth/token", header: []string{"Content-Type", "application/json"},
		body: fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, id, publicText(&shared().service.PublicKey)),
	}
}

// readLogin reads a pair of tokens.
func (h *house) readLogin(r reply) (l login) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(r.body), &l); r.status != http.StatusOK || err != nil || strings.Count(l.Access, ".") != 2 || l.Refresh == "" || l.Expires < 3590 || l.Expires > 3600 {
		h.t.Fatalf("no pair of tokens: %d %s", r.status, r.body)
	}
	h.secret(l.Access)
	h.secret(l.Refresh)
	return l
}

func (h *house) accountLogin(id string) login {
	h.t.Helper()
	return h.readLogin(h.anybody().do(h.signed(loginCall(id))))
}

// PaymentsGate's answers, word for word.
func payError(status int, code, text string) string {
	return fmt.Sprintf(`{"error":%q,"message":%q,"statusCode":%d}`, code, text, status)
}

var payUnauthorized = payError(401, "UNAUTHORIZED", "Invalid credentials")

// payRefused is a 401 of a reason.
func payRefused(reason string) want {
	return want{status: 401, body: payUnauthorized, results: []string{"refused " + reason}, outcome: "unauthorized"}
}

// plainRefused is what a failed refresh answers, so that published clients log in anew.
func plainRefused(reason string) want {
	return want{status: 401, body: "Unauthorized", results: []string{"refused " + reason}, outcome: "unauthorized"}
}

func loggedIn() want {
	return want{status: 200, results: []string{"done"}, rule: "account", outcome: "done"}
}
func stayed() want {
	return want{status: 200, results: []string{"done"}, rule: "stay", outcome: "done"}
}
func checked() want {
	return want{status: 200, results: []string{"done"}, rule: "call", outcome: "done"}
}

// called is what comes of a forwarded call that changes nothing.
func called() want {
	return want{status: 200, results: []string{"done"}, rule: "call", outcome: "done", upstream: 1}
}

func refreshCall(token string, header ...string) call {
	return call{listener: "public", method: "POST", path: "/auth/token/refresh", body: fmt.Sprintf(`{"refresh_token":%q}`, token),
		header: append([]string{"Content-Type", "application/json"}, header...)}
}

func revokeCall(token string) call {
	x := refreshCall(token)
	x.path = "/auth/token/revoke"
	return x
}

func (l login) validate() call { return l.call("GET", "/auth/token/validate", "") }
func (l login) wallet() call   { return l.call("GET", "/wallet", "") }

// TestPaymentsGate: an account logs in, calls, stays logged in and logs out.
func TestPaymentsGate(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	l := h.readLogin(h.expect("login", c, h.signed(loginCall(account)), loggedIn()))
	r := h.expect("validate", c, l.validate(), checked())
	var v struct {
		Account string `json:"account_id"`
		Exp     int64
	}
	must(json.Unmarshal([]byte(r.body), &v))
	if left := time.Until(time.Unix(v.Exp, 0)); v.Account != account || left < 59*time.Minute || left > time.Hour {
		t.Errorf("validated: %s", r.body)
	}
	r = h.expect("call", c, l.wallet(), called())
	if r.body != `{"balances":[{"amount":"1000.00","currency":"EUR"}]}` || r.header.Get("Content-Type") != "application/json" {
		t.Errorf("answered %s %s", r.header.Get("Content-Type"), r.body)
	}
	h.expect("call with a question mark", c, l.call("GET", "/wallet?", ""), called())
	next := h.readLogin(h.expect("refresh", c, refreshCall(l.Refresh), stayed()))
	again := h.readLogin(h.expect("refresh, with an access token that is over", c, refreshCall(next.Refresh, "Authorization", "Bearer expired"), stayed()))
	for name, l := range map[string]login{"first": l, "next": next, "last": again} {
		h.expect(name, c, l.wallet(), called()) // until its own hour is over
	}
	if r := h.expect("revoke", c, revokeCall(again.Refresh), stayed()); r.body != "{}" {
		t.Errorf("revoked: %s", r.body)
	}
	for name, l := range map[string]login{"first": l, "next": next, "last": again} {
		h.expect(name+", afterwards", c, l.wallet(), payRefused("jwt_login"))
		h.expect(name+", validate, afterwards", c, l.validate(), payRefused("jwt_login"))
	}
	h.expect("refresh, afterwards", c, refreshCall(again.Refresh), plainRefused("refresh_spent"))
	for _, rec := range h.records() {
		if rec.Result == "done" && (rec.Account != account && rec.Rule != "stay" || rec.Partner != partnerID || rec.Face != "paymentsgate" || rec.Issuer != "payments") {
			t.Errorf("recorded %+v", rec)
		}
		if (rec.Call == "GET /wallet") != (rec.Operations[0] == "forward") && rec.Result == "done" {
			t.Errorf("recorded %+v", rec)
		}
	}
}

// TestPaymentsGateLogins: what each account has to show. Whatever is wrong with it is one 401 that mints nothing.
func TestPaymentsGateLogins(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	otherKey := newRSAKey()
	with := func(id, key string) call {
		x := loginCall(id)
		x.body = fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, id, key)
		return x
	}
	public := publicText(&shared().service.PublicKey)
	raw, err := base64.StdEncoding.DecodeString(public)
	must(err)
	dressed := base64.StdEncoding.EncodeToString([]byte("\ufeff" + strings.ReplaceAll(string(raw), "\n", "\r\n")))
	stranger := loginCall(account)
	signature, err := sandbox.SignPaymentsGate(otherKey, []byte(stranger.body))
	must(err)
	moved := h.signed(loginCall(weak)).header
	for name, test := range map[string]struct {
		x    call
		want want
	}{
		"by its key, where that is enough": {loginCall(weak), loggedIn()},
		"by its signature, where a key is": {h.signed(loginCall(weak)), loggedIn()},
		"with a BOM and CRLF in its key":   {with(weak, dressed), loggedIn()},
		"its id in upper case":             {with(strings.ToUpper(weak), public), loggedIn()},
		"with members that are none of ours": {func() call {
			x := loginCall(weak)
			x.body = strings.Replace(x.body, "{", `{"sdk":"1.0","x":{"y":[]},`, 1)
			return x
		}(), loggedIn()},
		"by its key, where that is not enough": {loginCall(account), payRefused("public_key_signature")},
		"another key":                          {with(weak, publicText(&otherKey.PublicKey)), payRefused("public_key_unknown")},
		"nobody":                               {with("00000000-0000-4000-8000-00000000000f", public), payRefused("public_key_unknown")},
		"no UUID":                              {with("gp-demo", public), payRefused("account")},
		"a stranger's signature":               {stranger.with("Api-Signature", strings.Join(strings.Fields(signature), "")), payRefused("signature_signature")},
		"a signature over another body":        {call{listener: "public", method: "POST", path: "/auth/token", body: loginCall(account).body, header: moved}, payRefused("signature_signature")},
		"a signature that is none":             {loginCall(account).with("Api-Signature", "%%"), payRefused("signature_malformed")},
		"a private key":                        {with(weak, base64.StdEncoding.EncodeToString(privatePEM(shared().service))), want{status: 400, body: payError(400, "BAD_REQUEST", "Invalid request: body public_key"), results: []string{"refused private_key"}, outcome: "bad_request"}},
		"no key":                               {with(weak, ""), want{status: 400, results: []string{"refused public_key"}, outcome: "bad_request"}},
		"no account":                           {with("", public), want{status: 400, body: payError(400, "BAD_REQUEST", "Invalid request: body account_id"), results: []string{"refused member"}, outcome: "bad_request"}},
		"two of them": {func() call {
			x := loginCall(weak)
			x.body = strings.Replace(x.body, "{", `{"account_id":"`+account+`",`, 1)
			return x
		}(), want{status: 400, results: []string{"refused body"}, outcome: "bad_request"}},
		"text":  {loginCall(weak).without("Content-Type").with("Content-Type", "text/plain"), want{status: 415, results: []string{"refused content_type"}, outcome: "unsupported_media"}},
		"deep":  {func() call { x := loginCall(weak); x.body = strings.Repeat(`{"a":`, 200); return x }(), want{status: 400, results: []string{"refused body"}, outcome: "bad_request"}},
		"large": {func() call { x := loginCall(weak); x.body = `{"a":"` + strings.Repeat("a", 20_000) + `"}`; return x }(), want{status: 413, results: []string{"refused body_too_large"}, outcome: "too_large"}},
	} {
		h.expect(name, c, test.x, test.want)
		// A key that anybody may have makes nobody of a record, where that is not enough.
		if last := h.records()[len(h.records())-1]; test.want.status != 200 && (last.Account != "" || last.Partner != "") {
			t.Errorf("%s: recorded of account %q, partner %q", name, last.Account, last.Partner)
		}
	}
	if strings.Contains(h.log.String()+h.auditText(), "PRIVATE") {
		t.Error("a private key is written down")
	}
}

// TestPaymentsGateAssertions: an assertion logs in once (RFC 7523), at this place, and now.
func TestPaymentsGateAssertions(t *testing.T) {
	h := newHouse(t, options{routes: wide, accounts: serviceAccounts(func(a *credential.Account) { a.Login = credential.LoginPrivateKeyJWT })})
	c, otherKey := h.anybody(), newRSAKey()
	now := time.Now().Unix()
	claims := func(change map[string]any) map[string]any {
		all := map[string]any{"iss": account, "sub": account, "aud": "https://" + domain + "/auth/token", "exp": now + 60, "iat": now, "jti": rand.Text()}
		for name, v := range change {
			all[name] = v
		}
		return all
	}
	by := func(assertion string) call {
		x := loginCall(account)
		x.body = fmt.Sprintf(`{"account_id":%q,"client_assertion_type":"urn:ietf:params:oauth:client-assertion-type:jwt-bearer","client_assertion":%q}`, account, h.secret(assertion))
		return x
	}
	rs256 := func(key *rsa.PrivateKey) func([]byte) []byte {
		return func(message []byte) []byte {
			digest := sha256.Sum256(message)
			signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, digest[:])
			must(err)
			return signature
		}
	}
	header := map[string]any{"alg": "RS256", "typ": "JWT"}
	good := by(forge(header, claims(nil), rs256(shared().service)))
	h.expect("good", c, good, loggedIn())
	h.expect("again", c, good, payRefused("signature_spent"))
	h.expect("a signature is not enough", c, h.signed(loginCall(account)), payRefused("public_key_signature"))
	for name, test := range map[string]struct {
		change map[string]any
		reason string
	}{
		"elsewhere":         {map[string]any{"aud": "https://evil.example/auth/token"}, "bound"},
		"for two":           {map[string]any{"aud": []string{"https://" + domain + "/auth/token", "https://evil.example"}}, "bound"},
		"over":              {map[string]any{"exp": now - 300}, "expired"},
		"for an hour":       {map[string]any{"exp": now + 3600}, "expired"},
		"from the future":   {map[string]any{"iat": now + 300}, "expired"},
		"somebody's for me": {map[string]any{"iss": weak}, "malformed"},
		"without an id":     {map[string]any{"jti": ""}, "malformed"},
		"another account's": {map[string]any{"iss": weak, "sub": weak}, "user"},
		"nobody's":          {map[string]any{"iss": "nobody", "sub": "nobody"}, "signature"},
	} {
		h.expect(name, c, by(forge(header, claims(test.change), rs256(shared().service))), payRefused("signature_"+test.reason))
	}
	h.expect("a stranger's", c, by(forge(header, claims(nil), rs256(otherKey))), payRefused("signature_signature"))
	h.expect("unsigned", c, by(forge(map[string]any{"alg": "none"}, claims(nil), func([]byte) []byte { return nil })), payRefused("signature_malformed"))
}

// TestPaymentsGateCertificates: an account that asks for a certificate of its partner logs in with one alone.
func TestPaymentsGateCertificates(t *testing.T) {
	h := newHouse(t, options{
		accounts: serviceAccounts(func(a *credential.Account) { a.Login = credential.LoginCertificate }),
		routes: func(h *house) []gateway.Route {
			public, partners := h.paymentsRoute(h.issuerKind("forward", nil)), h.paymentsRoute(h.issuerKind("forward", nil))
			partners.Listener = "partners"
			return []gateway.Route{public, partners}
		},
	})
	x := loginCall(account)
	h.expect("without", h.anybody(), x, payRefused("public_key_signature"))
	h.expect("without, signed", h.anybody(), h.signed(x), payRefused("public_key_signature"))
	x.listener = "partners"
	h.expect("with", h.partner(), x, loggedIn())
	other := shared().partners.client(otherName)
	h.expect("another partner's", h.callerWith(&other, true, nil), x, payRefused("public_key_partner"))
}

// forge makes a JWS of any header and claims.
func forge(header, claims map[string]any, sign func([]byte) []byte) string {
	encode := base64.RawURLEncoding.EncodeToString
	first, err := json.Marshal(header)
	must(err)
	second, err := json.Marshal(claims)
	must(err)
	text := encode(first) + "." + encode(second)
	return text + "." + encode(sign([]byte(text)))
}

func privatePEM(key *rsa.PrivateKey) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// TestAccessTokensThatProveNothing: each is the same 401, of a call and of its validation; nothing is sent, and one record says why.
func TestAccessTokensThatProveNothing(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	l := h.accountLogin(account)
	parts := strings.Split(l.Access, ".")
	var claims map[string]any
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(err)
	must(json.Unmarshal(payload, &claims))
	key := jwts(keys.ES256)[0]
	ours := func(message []byte) []byte { s, err := key.Sign(message); must(err); return s }
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	hmacOf := func(secret []byte) func([]byte) []byte {
		return func(message []byte) []byte { m := hmac.New(sha256.New, secret); m.Write(message); return m.Sum(nil) }
	}
	head := func(change map[string]any) map[string]any {
		all := map[string]any{"alg": "ES256", "typ": "JWT", "kid": "ES256"}
		maps.Copy(all, change)
		return all
	}
	says := func(change map[string]any) map[string]any {
		all := maps.Clone(claims)
		maps.Copy(all, change)
		for name, v := range change {
			if v == nil {
				delete(all, name)
			}
		}
		return all
	}
	now := time.Now().Unix()
	scoped, _, err := h.exaScoped().Mint(ada, time.Hour)
	must(err)
	h.expect("forged as it is", c, login{Access: forge(head(nil), claims, ours)}.wallet(), called()) // so that the others fail for what they change
	for name, test := range map[string]struct{ token, reason string }{
		"none":                        {forge(head(map[string]any{"alg": "none"}), claims, func([]byte) []byte { return nil }), "malformed"},
		"None":                        {forge(head(map[string]any{"alg": "None"}), claims, ours), "signature"},
		"HS256 by the public PEM":     {forge(head(map[string]any{"alg": "HS256"}), claims, hmacOf(public)), "signature"},
		"HS256 by the public DER":     {forge(head(map[string]any{"alg": "HS256"}), claims, hmacOf(der)), "signature"},
		"HS256 by nothing":            {forge(head(map[string]any{"alg": "HS256"}), claims, hmacOf(nil)), "signature"},
		"EdDSA under ES256's id":      {forge(head(map[string]any{"alg": "EdDSA"}), claims, ours), "signature"},
		"jku":                         {forge(head(map[string]any{"jku": "https://evil.example/jwks"}), claims, ours), "malformed"},
		"x5u":                         {forge(head(map[string]any{"x5u": "https://evil.example/x5u"}), claims, ours), "malformed"},
		"x5c":                         {forge(head(map[string]any{"x5c": []string{"AAAA"}}), claims, ours), "malformed"},
		"jwk":                         {forge(head(map[string]any{"jwk": map[string]any{"kty": "oct", "k": "AAAA"}}), claims, ours), "malformed"},
		"zip":                         {forge(head(map[string]any{"zip": "DEF"}), claims, ours), "malformed"},
		"crit":                        {forge(head(map[string]any{"crit": []string{"exp"}}), claims, ours), "malformed"},
		"b64":                         {forge(head(map[string]any{"b64": false}), claims, ours), "malformed"},
		"PBES2":                       {forge(map[string]any{"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 100_000_000, "p2s": "AAAA"}, claims, ours), "malformed"},
		"another key's id":            {forge(head(map[string]any{"kid": "EdDSA"}), claims, ours), "unknown"},
		"a path for an id":            {forge(head(map[string]any{"kid": "../../dev/null"}), claims, ours), "unknown"},
		"no key's id":                 {forge(map[string]any{"alg": "ES256", "typ": "JWT"}, claims, ours), "unknown"},
		"another type":                {forge(head(map[string]any{"typ": "at+jwt"}), claims, ours), "malformed"},
		"over":                        {forge(head(nil), says(map[string]any{"exp": now - 1}), ours), "expired"},
		"never over":                  {forge(head(nil), says(map[string]any{"exp": nil}), ours), "expired"},
		"over in words":               {forge(head(nil), says(map[string]any{"exp": "tomorrow"}), ours), "malformed"},
		"made in five minutes":        {forge(head(nil), says(map[string]any{"iat": now + 300}), ours), "expired"},
		"good in five minutes":        {forge(head(nil), says(map[string]any{"nbf": now + 300}), ours), "expired"},
		"for another audience":        {forge(head(nil), says(map[string]any{"aud": "another"}), ours), "bound"},
		"for several":                 {forge(head(nil), says(map[string]any{"aud": []string{"cardstile"}}), ours), "malformed"},
		"of another issuer":           {forge(head(nil), says(map[string]any{"iss": "another"}), ours), "bound"},
		"of no login":                 {forge(head(nil), says(map[string]any{"sid": nil}), ours), "bound"},
		"of nobody's login":           {forge(head(nil), says(map[string]any{"sid": base64.RawURLEncoding.EncodeToString(make([]byte, 28))}), ours), "login"},
		"with a scope":                {forge(head(nil), says(map[string]any{"scope": "card:provisioning"}), ours), "bound"},
		"of an account that is none":  {forge(head(nil), says(map[string]any{"sub": "nobody"}), ours), "unknown"},
		"with a claim of somebody's":  {forge(head(nil), says(map[string]any{"admin": true}), ours), "malformed"},
		"of more assurance":           {forge(head(nil), says(map[string]any{"acr": "high"}), ours), "malformed"},
		"a flipped bit":               {l.Access[:len(l.Access)-2] + map[bool]string{true: "B", false: "A"}[l.Access[len(l.Access)-2] == 'A'] + l.Access[len(l.Access)-1:], "signature"},
		"another's signature":         {parts[0] + "." + parts[1] + "." + strings.Split(h.accountLogin(account).Access, ".")[2], "signature"},
		"no signature":                {parts[0] + "." + parts[1] + ".", "malformed"},
		"two parts":                   {parts[0] + "." + parts[1], "malformed"},
		"four parts":                  {l.Access + ".AAAA", "malformed"},
		"padded":                      {l.Access + "=", "malformed"},
		"garbage":                     {"garbage", "malformed"},
		"a refresh token":             {l.Refresh, "malformed"},
		"an ephemeral token":          {h.mint(), "malformed"},
		"a wallet extension's of exa": {h.secret(scoped), "unknown"},
	} {
		forged := login{Access: h.secret(test.token)}
		w := payRefused("jwt_" + test.reason)
		h.expect(name, c, forged.wallet(), w)
		h.expect(name+", validate", c, forged.validate(), w)
	}
	for name, x := range map[string]call{
		"none at all": l.wallet().without("Authorization"), "two": l.wallet().with("Authorization", "Bearer "+l.Access),
		"another scheme": l.wallet().without("Authorization").with("Authorization", "Basic "+l.Access), "no scheme": l.wallet().without("Authorization").with("Authorization", l.Access),
	} {
		h.expect(name, c, x, payRefused("no_credential"))
	}
	h.expect("the good one, afterwards", c, l.wallet(), called())
}

// TestJWTKeyRotation: with the new key before it in force, the old one's tokens are good, new ones are the new key's, and both are
// in the set; without it they are not. A key that others could sign with is in no set [23].
func TestJWTKeyRotation(t *testing.T) {
	ids := []string{keys.ES256}
	h := newHouse(t, options{routes: func(h *house) []gateway.Route {
		return []gateway.Route{h.paymentsRouteOf(h.issuerKind("forward", nil), jwts(ids...))}
	}})
	c := h.anybody()
	kid := func(l login) string {
		var header struct{ Kid string }
		text, err := base64.RawURLEncoding.DecodeString(l.Access[:strings.Index(l.Access, ".")])
		must(err)
		must(json.Unmarshal(text, &header))
		return header.Kid
	}
	published := func() string {
		r := h.expect("the set", c, call{listener: "public", method: "GET", path: "/.well-known/jwks.json"}, want{status: 200})
		var set struct{ Keys []map[string]string }
		must(json.Unmarshal([]byte(r.body), &set))
		var names []string
		for _, k := range set.Keys {
			names = append(names, k["kid"])
			if k["d"] != "" || k["k"] != "" || k["use"] != "sig" || k["alg"] != k["kid"] {
				t.Errorf("the set holds %v", slices.Sorted(maps.Keys(k)))
			}
		}
		return strings.Join(names, " ")
	}
	var last login
	for _, step := range []struct {
		ids        []string
		set, signs string
		old        bool // whether the step before's token is good
	}{
		{[]string{keys.ES256}, "ES256", "ES256", true},
		{[]string{keys.EdDSA, keys.ES256}, "ES256 EdDSA", "EdDSA", true},
		{[]string{keys.EdDSA}, "EdDSA", "EdDSA", true},
		{[]string{keys.HS256, keys.EdDSA}, "EdDSA", "HS256", true},
		{[]string{keys.ES256}, "ES256", "ES256", false},
	} {
		ids = step.ids
		h.reload()
		if last.Access != "" {
			w := called()
			if !step.old {
				w = payRefused("jwt_unknown")
			}
			h.expect(fmt.Sprintf("%v, the token before", step.ids), c, last.wallet(), w)
			last = h.readLogin(h.expect("its login goes on", c, refreshCall(last.Refresh), stayed()))
		} else {
			last = h.accountLogin(account)
		}
		h.expect(fmt.Sprintf("%v, its own", step.ids), c, last.wallet(), called())
		if got := published(); got != step.set || kid(last) != step.signs {
			t.Errorf("%v: published %q, signed by %q", step.ids, got, kid(last))
		}
	}
}

// TestRefreshReuse: a refresh token that is shown twice ends its whole login, on every gateway, and no other login.
func TestRefreshReuse(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		sibling := h.sibling(options{routes: wide})
		c, there := h.anybody(), sibling.anybody()
		first, other := h.accountLogin(account), h.accountLogin(account)
		second := h.readLogin(h.expect("refresh", c, refreshCall(first.Refresh), stayed()))
		third := sibling.readLogin(sibling.expect("refresh, there", there, refreshCall(second.Refresh), stayed()))
		h.expect("call", c, third.wallet(), called())
		sibling.expect("call, there", there, first.wallet(), called())

		h.expect("the second again", c, refreshCall(second.Refresh), plainRefused("refresh_spent"))
		for name, l := range map[string]login{"first": first, "second": second, "third": third} {
			h.expect(name, c, l.wallet(), payRefused("jwt_login"))
			sibling.expect(name+", there", there, l.wallet(), payRefused("jwt_login"))
			sibling.expect(name+", validate, there", there, l.validate(), payRefused("jwt_login"))
		}
		if r := h.expect("the third, which nobody has used", c, refreshCall(third.Refresh), plainRefused("refresh_login")); !strings.HasPrefix(r.header.Get("Content-Type"), "text/plain") {
			t.Errorf("a failed refresh is %s", r.header.Get("Content-Type"))
		}
		h.expect("the other login", c, other.wallet(), called())
		h.expect("the other login's refresh", c, refreshCall(other.Refresh), stayed())
	})
}

// TestRefreshOneWinner: of many that refresh with one token at once, one gets a pair, and the login is over: somebody has it twice.
func TestRefreshOneWinner(t *testing.T) {
	onEachStore(t, func(t *testing.T, use func(store.Store) store.Store) {
		h := newHouse(t, options{routes: wide, store: use})
		l := h.accountLogin(account)
		x := refreshCall(l.Refresh)
		if got := h.race(50, func(int) call { return x }); got[200] > 1 || got[200]+got[401] != 50 {
			t.Errorf("answers %v", got)
		}
		h.expect("afterwards", h.anybody(), l.wallet(), payRefused("jwt_login"))
	})
}

// TestRefreshTokensThatProveNothing: a plain 401, which ends nobody's login.
func TestRefreshTokensThatProveNothing(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	l := h.accountLogin(account)
	flipped := l.Refresh[:60] + map[bool]string{true: "B", false: "A"}[l.Refresh[60] == 'A'] + l.Refresh[61:]
	for name, test := range map[string]struct{ token, reason string }{
		"nobody's, of this login": {flipped, "unknown"}, "of another key": {strings.Repeat("A", len(l.Refresh)), "unknown"}, "garbage": {"garbage", "malformed"},
		"padded": {l.Refresh + "=", "malformed"}, "an access token": {l.Access, "malformed"}, "with a line break": {l.Refresh[:10] + "\n" + l.Refresh[10:], "malformed"},
	} {
		h.expect(name, c, refreshCall(test.token), plainRefused("refresh_"+test.reason))
		h.expect(name+", revoke", c, revokeCall(test.token), payRefused("refresh_"+test.reason))
	}
	for name, x := range map[string]call{"none": refreshCall(""), "null": {listener: "public", method: "POST", path: "/auth/token/refresh", body: `{"refresh_token":null}`, header: []string{"Content-Type", "application/json"}}} {
		h.expect(name, c, x, want{status: 400, body: payError(400, "BAD_REQUEST", "Invalid request: body refresh_token"), results: []string{"refused member"}, outcome: "bad_request"})
	}
	h.expect("the good one", c, refreshCall(l.Refresh), stayed())
}

// fenced is a store that had another tenure when its refresh tokens were minted.
type fenced struct {
	store.Store
	now atomic.Bool
}

func (f *fenced) Redeem(ctx context.Context, k store.Kind, d store.Digest, a store.Attempt) ([]byte, error) {
	if f.now.Load() && k == "refresh" {
		return nil, store.ErrFenced
	}
	return f.Store.Redeem(ctx, k, d, a)
}

// TestFencedRefresh: after a failover nobody can know whether a refresh token was used. It is a plain 401, and its login lives [9].
func TestFencedRefresh(t *testing.T) {
	var f *fenced
	h := newHouse(t, options{routes: wide, store: func(s store.Store) store.Store { f = &fenced{Store: s}; return f }})
	c := h.anybody()
	l := h.accountLogin(account)
	f.now.Store(true)
	for range 2 {
		h.expect("fenced", c, refreshCall(l.Refresh), plainRefused("refresh_fenced"))
		h.expect("its login", c, l.wallet(), called())
	}
	f.now.Store(false)
	h.expect("revoke", c, revokeCall(l.Refresh), stayed())
	h.expect("afterwards", c, l.wallet(), payRefused("jwt_login"))
}

// TestFencedRevoke: whoever logs out with a refresh token that a failover made good for nothing is refused, and logged out.
func TestFencedRevoke(t *testing.T) {
	var f *fenced
	h := newHouse(t, options{routes: wide, store: func(s store.Store) store.Store { f = &fenced{Store: s}; return f }})
	c := h.anybody()
	l := h.accountLogin(account)
	other := h.accountLogin(account)
	f.now.Store(true)
	h.expect("revoke", c, revokeCall(l.Refresh), payRefused("refresh_fenced"))
	h.expect("afterwards", c, l.wallet(), payRefused("jwt_login"))
	h.expect("another login", c, other.wallet(), called())
}

// TestAccountsThatChange: an account that is gone with a reload has no tokens any more; one whose partner is switched off calls
// nobody; one that asks for more than before ends the logins that showed less.
func TestAccountsThatChange(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	strong := h.accountLogin(account)
	low := h.readLogin(h.expect("by its key", c, loginCall(weak), loggedIn()))

	h.o.accounts = serviceAccounts(func(a *credential.Account) { a.Login = credential.LoginSignature })
	h.reload()
	h.expect("less than is asked for now", c, low.wallet(), payRefused("jwt_login"))
	h.expect("less than is asked for now, refresh", c, refreshCall(low.Refresh), plainRefused("refresh_login"))
	h.expect("as much", c, strong.wallet(), called())

	h.o.accounts = serviceAccounts()[1:]
	h.reload()
	h.expect("gone", c, strong.wallet(), payRefused("jwt_unknown"))
	h.expect("gone, validate", c, strong.validate(), payRefused("jwt_unknown"))
	h.expect("gone, login", c, h.signed(loginCall(account)), payRefused("public_key_unknown"))

	h.o.accounts, h.o.partners = serviceAccounts(), demoPartners(func(p *policy.Partner) { p.Disabled = true })
	h.reload()
	off := want{status: 403, body: payError(403, "FORBIDDEN", "Forbidden"), results: []string{"refused denied_disabled"}, outcome: "forbidden"}
	h.expect("switched off", c, strong.wallet(), off)
	h.expect("switched off, login", c, h.signed(loginCall(account)), off)
	h.expect("switched off, refresh", c, refreshCall(strong.Refresh), want{status: 401, body: "Unauthorized", results: []string{"refused refresh_revoked"}, outcome: "unauthorized"})
}

// TestWeakAssurance: who logged in with a public key, which anybody may have, is shown no field by the policy that asks for more;
// the same account with a signature is [23].
func TestWeakAssurance(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, s := h.anybody(), h.session()
	credentials := "/deals/" + sandbox.DealWithCard(payOwner) + "/credentials"
	low := h.readLogin(h.expect("by its key", c, loginCall(weak), loggedIn()))
	for range 2 { // its refreshed tokens are no better
		h.expect("call", c, low.wallet(), called())
		h.expect("masked", c, low.call("GET", credentials, ""), called())
		h.expect("sealed", c, low.call("GET", credentials, "", "sessionid", s.ID()),
			want{status: 403, body: payError(403, "FORBIDDEN", "Forbidden"), results: []string{"refused denied_no_policy"}, outcome: "forbidden"})
		low = h.readLogin(h.expect("refresh", c, refreshCall(low.Refresh), stayed()))
	}
	// A signature over one request, which whoever captured it can send again, lifts no session.
	sealed := fmt.Sprintf(`{"recipient":{"account_number":{"data":%q,"iv":%q}}}`, s.Seal("5555555555554444").Data, "AAAAAAAAAAAAAAAAAAAAAA==")
	h.expect("signed", c, h.signed(low.call("POST", "/deals/payout", sealed, "sessionid", s.ID())),
		want{status: 403, body: payError(403, "FORBIDDEN", "Forbidden"), results: []string{"refused denied_no_policy"}, outcome: "forbidden"})
	high := h.accountLogin(weak)
	w := called()
	w.rule = "call,fields"
	h.expect("sealed, with a signature", c, high.call("GET", credentials, "", "sessionid", s.ID()), w)
}

// TestRequestSignatures: off looks at none, optional wants a good one where there is one, required wants one.
func TestRequestSignatures(t *testing.T) {
	const body = `{"amount":10,"currency":"EUR","recipient":{"type":"card"}}`
	for mode, accepts := range map[string]struct{ none, bad, array bool }{
		credential.RequestsOff: {true, true, true}, credential.RequestsOptional: {true, false, false}, credential.RequestsRequired: {false, false, false},
	} {
		h := newHouse(t, options{routes: wide, accounts: serviceAccounts(func(a *credential.Account) { a.Requests = mode })})
		c := h.anybody()
		l := h.accountLogin(account)
		made := want{status: 200, results: []string{"intent", "done"}, rule: "call", outcome: "done", upstream: 1}
		refused := func(reason string) want { return payRefused("signature_" + reason) }
		either := func(ok bool, w want) want {
			if ok {
				return made
			}
			return w
		}
		payin := func(body string) call { return l.call("POST", "/deals/payin", body) }
		good := h.signed(payin(body))
		h.expect(mode+": good", c, good, made)
		h.expect(mode+": none", c, payin(body), either(accepts.none, refused("signature")))
		changed := good
		changed.body = strings.Replace(body, "10", "11", 1)
		h.expect(mode+": of another body", c, changed, either(accepts.bad, refused("signature")))
		spaced := good
		spaced.body = strings.ReplaceAll(body, ",", " , ")
		h.expect(mode+": of the same values", c, spaced, made)
		h.expect(mode+": garbage", c, payin(body).with("Api-Signature", "%%"), either(accepts.bad, refused("malformed")))
		// Clients disagree on the canonical form of a body with an array: it is said so, rather than guessed.
		array := payin(`{"amount":10,"tags":[1]}`).with("Api-Signature", good.header[len(good.header)-1])
		unsignable := payError(400, "BAD_REQUEST", "Invalid request: a signed body has arrays, nulls or numbers without a canonical form")
		h.expect(mode+": array", c, array, either(accepts.array, want{status: 400, body: unsignable, results: []string{"refused canonical"}, outcome: "bad_request"}))
		// Of a body that says nothing, one signature would be every other's.
		for _, nothing := range []string{"{}", `{"cancel":{}}`, `{"amount":""}`} {
			unsaid := payError(400, "BAD_REQUEST", "Invalid request: a signed body has no value that the signature is over")
			if mode != credential.RequestsOff {
				h.expect(mode+": "+nothing, c, h.signed(payin(nothing)), want{status: 400, body: unsaid, results: []string{"refused canonical_empty"}, outcome: "bad_request"})
			}
		}
		h.expect(mode+": two", c, good.with("Api-Signature", "AAAA"), want{status: 400, results: []string{"refused duplicate_header"}, outcome: "bad_request"})
		h.expect(mode+": without a body there is nothing to sign", c, l.wallet(), called())
		sent := 2
		for _, ok := range []bool{accepts.none, accepts.bad, accepts.bad, accepts.array} {
			if ok {
				sent++
			}
		}
		if h.payments.Deals(payOwner) != sent {
			t.Errorf("%s: %d deals were made, want %d", mode, h.payments.Deals(payOwner), sent)
		}
	}
}
