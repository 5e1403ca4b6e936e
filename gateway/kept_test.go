package gateway_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// everything is one call of each kind on the wide routes, in an order in which they are all answered 200, and what each leaves with
// whoever made it. It is what tests about all faces go through.
func (h *house) everything() {
	h.t.Helper()
	c, w, key, s, p := h.anybody(), shared().wallet, shared().passkey, h.session(), h.proof()
	ok := func(name string, x call) reply {
		h.t.Helper()
		r := c.do(x)
		if r.status != 200 {
			h.t.Fatalf("%s: %d %s", name, r.status, r.body)
		}
		return r
	}
	ok("details", detailsCall(card, h.mint(), s.ID()))
	ok("set PIN", h.setPINCall(card, h.mint(), s, nextPIN))
	mint := h.bridgeMintCall(p, "Idempotency-Key", "one")
	token := h.ephemeralKey(ok("bridge mint", mint))
	ok("bridge mint, replayed", mint)
	ok("bridge reveal", p.reveal(token))
	frozen := h.bridgeCall("second", "POST", "cus-rain", "ca-rain", "/freeze", "", "Idempotency-Key", "two")
	ok("freeze", frozen)
	ok("freeze, replayed", frozen)
	ok("unfreeze", h.bridgeCall("second", "POST", "cus-rain", "ca-rain", "/unfreeze", "", "Idempotency-Key", "three"))
	l := h.accountLogin(account)
	next := h.readLogin(ok("refresh", refreshCall(l.Refresh)))
	ok("forward", h.signed(next.call("POST", "/deals/payin", `{"amount":1}`, "Idempotency-Key", "four")))
	sealed := s.Seal(h.secret("5555555555554444"))
	ok("submit", next.call("POST", "/deals/payout", fmt.Sprintf(`{"amount":1,"recipient":{"account_number":{"data":%q,"iv":%q}}}`, sealed.Data, sealed.IV), "sessionid", s.ID()))
	ok("fields", next.call("GET", dealWithCard+"/credentials", "", "sessionid", s.ID()))
	begun := h.exaChallenge(w.address)
	h.cookieOf(ok("login", begun.login(w.address, h.secret(w.sign(begun.Message)))), "credential_id", 86400)
	begun = h.exaChallenge("")
	h.cookieOf(ok("login by passkey", begun.passkeyLogin(h, key, origin)), "credential_id", 86400)
	ok("mode", h.exaPatch(w.address, `{"mode":3}`))
	ok("card", h.exaCall(w.address, s.ID()))
	statement := h.exaConsent(w.address, "siwe")
	ok("link", h.linkCall(w.address, statement, w.sign(statement)))
	statement = h.exaConsent(key.CredentialID(), "webauthn")
	ok("link by passkey", h.passkeyLink(key.CredentialID(), key, statement))
	ok("exa PIN", h.exaPINCall(w.address, h.session(), nextPIN))
	extension, _, err := h.exaScoped().Mint(w.address, time.Hour)
	must(err)
	ok("provision", call{listener: "public", method: "GET", path: "/api/card/provisioning", header: []string{"Authorization", "Bearer " + h.secret(extension)}})
	ok("revoke", revokeCall(next.Refresh))
	page := h.page()
	ok("configuration", page.configuration())
	submitted := page.fields()
	for _, x := range append(submitted, submitted[1]) {
		ok("submit field", x)
	}
	taken := page.mint()
	held := h.tokenOf(ok("mint for card", taken))
	ok("mint for card, replayed", taken)
	pay := payCall(h.bearer("first"), held)
	for range 2 {
		if r := c.do(pay); r.status != 201 {
			h.t.Fatalf("pay: %d %s", r.status, r.body)
		}
	}
}

// keeping is a store of which all is noted that it is given.
type keeping struct {
	store.Store
	mu     sync.Mutex
	values map[store.Kind][][]byte // guarded by mu
}

func (k *keeping) note(kind store.Kind, d store.Digest, value []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.values == nil {
		k.values = map[store.Kind][][]byte{}
	}
	k.values[kind] = append(k.values[kind], append(d[:], value...))
}

func (k *keeping) Mint(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	k.note(kind, d, value)
	return k.Store.Mint(ctx, kind, d, value, ttl)
}

func (k *keeping) Put(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	k.note(kind, d, value)
	return k.Store.Put(ctx, kind, d, value, ttl)
}

func (k *keeping) Once(ctx context.Context, kind store.Kind, d store.Digest, ttl time.Duration) error {
	k.note(kind, d, nil)
	return k.Store.Once(ctx, kind, d, ttl)
}

func (k *keeping) Begin(ctx context.Context, kind store.Kind, scope, body store.Digest, a store.Attempt, lease, keep, tombstone time.Duration) (store.Begun, error) {
	k.note(kind, scope, body[:])
	return k.Store.Begin(ctx, kind, scope, body, a, lease, keep, tombstone)
}

func (k *keeping) Finish(ctx context.Context, kind store.Kind, scope store.Digest, a store.Attempt, value []byte) error {
	k.note(kind, scope, value)
	return k.Store.Finish(ctx, kind, scope, a, value)
}

func (k *keeping) Take(ctx context.Context, d store.Digest, r policy.Rate) (store.Taken, error) {
	k.note("limit", d, nil)
	return k.Store.Take(ctx, d, r)
}

// TestNothingInClearIsKept: whatever of all faces comes to the store is digests and what is sealed: no token, key, password, card or
// PIN, nor whose they are, as text, in hex or in base64, and nothing of that in the log, the audit log and the metrics.
func TestNothingInClearIsKept(t *testing.T) {
	server := testredis.Start(t)
	for name, use := range map[string]func(store.Store) store.Store{
		"memory": func(s store.Store) store.Store { return s },
		"Redis": func(own store.Store) store.Store {
			must(own.Close())
			r, err := store.NewRedis(store.RedisConfig{Addresses: []string{server.Addr}, Timeout: 10 * time.Second})
			must(err)
			return r
		},
	} {
		var k *keeping
		h := newHouse(t, options{routes: wide, store: func(own store.Store) store.Store { k = &keeping{Store: use(own)}; return k }})
		h.everything()
		for _, kind := range []store.Kind{store.KindToken, store.KindEnvelope, store.KindLogin, "idempotent", "refresh", "family", "challenge", "mode", "link",
			store.KindCard, "fields", "fields_mint", "fields_claim", "fields_submit", "card_taken"} {
			if len(k.values[kind]) == 0 {
				t.Errorf("%s: nothing of kind %s was kept: the test looks at too little", name, kind)
			}
		}
		private := append([]string{account, ada, shared().wallet.address, shared().passkey.CredentialID(), partnerID, "cus-rain", "ca-rain", card, "wallet-card", "client_nonce", "Ada Lovelace", "ephemeral_key", holderName, terminal}, h.secrets...)
		for _, c := range h.cards {
			private = append(private, c.PAN, base64.StdEncoding.EncodeToString([]byte(c.PAN)))
		}
		search := func(where string, kept []byte) {
			for _, s := range private {
				for _, form := range []string{s, hex.EncodeToString([]byte(s)), strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(s)), "=")} {
					if bytes.Contains(kept, []byte(form)) {
						t.Errorf("%s: %s holds %d characters that are private: %.6s…", name, where, len(s), s)
					}
				}
				if raw, err := base64.RawURLEncoding.DecodeString(s); err == nil && len(raw) >= 16 && bytes.Contains(kept, raw) {
					t.Errorf("%s: %s holds what %.6s… says", name, where, s)
				}
			}
		}
		for kind, all := range k.values {
			for _, value := range all {
				search(string(kind), value)
			}
		}
		if name == "Redis" {
			for key, value := range server.Dump() {
				search("Redis", []byte(key+"\x00"+value))
			}
		}
	}
}

// TestReplayedMintIsKeptAsASalt: of a mint not even what is sealed holds the token: it is made again of a salt and our key [8].
func TestReplayedMintIsKeptAsASalt(t *testing.T) {
	var k *keeping
	h := newHouse(t, options{routes: wide, store: func(s store.Store) store.Store { k = &keeping{Store: s}; return k }})
	token := h.ephemeralKey(h.anybody().do(h.bridgeMintCall(h.proof(), "Idempotency-Key", "one")))
	begun, kept := k.values["idempotent"][0], k.values["idempotent"][1]
	if len(k.values["idempotent"]) != 2 || !bytes.Equal(begun[:32], kept[:32]) {
		t.Fatal("the call was not begun and ended once")
	}
	plain, err := h.config.Answers.Open(nil, append([]byte("cardstile idempotent answer v1"), begun...), kept[32:])
	if err != nil || len(plain) < 32 {
		t.Fatalf("what is kept does not open: %v", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	must(err)
	if bytes.Contains(plain, []byte(token)) || bytes.Contains(plain, raw[7:]) {
		t.Error("the token is kept")
	}
}

// TestSecretsSearchFinds: the search at the end of each test is one that finds.
func TestSecretsSearchFinds(t *testing.T) {
	h := newHouse(t, options{routes: wide, quiet: true})
	h.everything()
	for _, want := range []string{h.apiKeys["first"], h.apiKeys["second"], bridgeKey, payKey, payrocKey, h.cards["ic-1"].PAN, h.cards["pay-1"].PAN, h.cards["held"].PAN} {
		found := false
		for _, s := range h.secrets {
			found = found || s == want
		}
		if !found {
			t.Errorf("%.6s… is not searched for", want)
		}
	}
	kinds := map[string]bool{}
	for _, s := range h.secrets {
		switch {
		case strings.HasPrefix(s, "cs_"):
			kinds["API key"] = true
		case strings.Count(s, ".") == 2:
			kinds["JWT"] = true
		case len(s) == 68:
			kinds["refresh token"] = true
		case len(s) == 52:
			kinds["ephemeral token"] = true
		case len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "":
			kinds["client secret"] = true
		case strings.HasPrefix(s, "0x") && len(s) == 132:
			kinds["wallet's signature"] = true
		case len(s) == 344:
			kinds["account's signature or session id"] = true
		case len(s) == 47:
			kinds["challenge id"] = true
		}
	}
	if len(kinds) != 8 {
		t.Errorf("searched for are %v", kinds)
	}
}
