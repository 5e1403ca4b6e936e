package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// profileCall is a partner's backend that looks at a card.
func (h *house) profileCall(key string) call {
	return h.bridgeCall(key, "GET", "cus-rain", "ca-rain", "", "")
}

func keyRefused(reason string) want {
	return want{status: 401, body: bridgeBadKey, results: []string{"refused api_key_" + reason}, outcome: "unauthorized"}
}

// TestAPIKeys: several keys of a partner are good at once; whatever is wrong with one is one answer, but for none at all.
func TestAPIKeys(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c := h.anybody()
	good := want{status: 200, results: []string{"done"}, rule: "key", outcome: "done", upstream: -1}
	h.expect("first", c, h.profileCall("first"), good)
	h.expect("second", c, h.profileCall("second"), good)
	h.expect("revoked", c, h.profileCall("revoked"), keyRefused("unknown"))
	h.expect("of production", c, h.profileCall("production"),
		want{status: 403, body: bridgeForbidden, results: []string{"refused denied_environment"}, outcome: "forbidden"})
	key := h.apiKeys["first"]
	flipped := key[:20] + map[bool]string{true: "B", false: "A"}[key[20] == 'A'] + key[21:]
	for name, test := range map[string]struct{ key, reason string }{
		"nobody's":         {flipped, "unknown"},
		"garbage":          {"garbage", "malformed"},
		"in upper case":    {strings.ToUpper(key), "malformed"},
		"padded":           {key + "=", "malformed"},
		"cut off":          {key[:len(key)-1], "malformed"},
		"environment only": {"cs_test_", "malformed"},
		"as production's":  {strings.Replace(key, "cs_test_", "cs_production_", 1), "unknown"},
		"as a bearer":      {"Bearer " + key, "malformed"},
		"with a space in":  {key[:30] + " " + key[30:], "malformed"},
		"twice in one":     {key + "," + key, "malformed"},
		"very long":        {strings.Repeat("a", 8000), "malformed"},
	} {
		h.expect(name, c, h.profileCall("").with("Api-Key", test.key), keyRefused(test.reason))
	}
	h.expect("none", c, h.profileCall(""), want{status: 401, body: bridgeNoKey, results: []string{"refused no_credential"}, outcome: "unauthorized"})
	h.expect("empty", c, h.profileCall("").with("Api-Key", ""), want{status: 401, body: bridgeNoKey, results: []string{"refused no_credential"}, outcome: "unauthorized"})
	h.expect("two", c, h.profileCall("first").with("Api-Key", h.apiKeys["second"]),
		want{status: 401, body: bridgeBadKey, results: []string{"refused duplicate_header"}, outcome: "unauthorized"})
	h.expect("in its place a token", c, h.profileCall("").with("Authorization", "Bearer "+key),
		want{status: 401, body: bridgeNoKey, results: []string{"refused no_credential"}, outcome: "unauthorized"})
}

// TestAPIKeyRotation: a key that is added is good with the next reload, one that is revoked is refused from it on, on connections
// that are open as well; what was minted under it is the partner's, and stays good.
func TestAPIKeyRotation(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, p := h.anybody(), h.proof()
	good := want{status: 200, results: []string{"done"}, rule: "key", outcome: "done", upstream: -1}
	h.expect("the old one", c, h.profileCall("first"), good)
	token := h.bridgeMint(backs["rain"], p)
	entry, secret, err := credential.Add(h.keyFile, credential.NewAPIKey{Partner: partnerID, Environment: "test", Now: time.Now()})
	must(err)
	h.apiKeys["third"] = h.secret(secret)
	h.expect("before the reload", c, h.profileCall("third"), keyRefused("unknown"))
	h.reload()
	h.expect("the new one", c, h.profileCall("third"), good)
	h.expect("the old one beside it", c, h.profileCall("first"), good)
	all, err := credential.List(h.keyFile)
	must(err)
	must(credential.Revoke(h.keyFile, all[0].ID, time.Now()))
	h.reload()
	h.expect("the old one, revoked", c, h.profileCall("first"), keyRefused("unknown"))
	h.expect("the new one, still", c, h.profileCall("third"), good)
	h.expect("what the old one minted", c, p.reveal(token), shown())
	must(credential.Revoke(h.keyFile, entry.ID, time.Now()))
	h.reload()
	h.expect("the new one, revoked", c, h.profileCall("third"), keyRefused("unknown"))
}

// TestAPIKeyOfASwitchedOffPartner: its keys, and what they minted before, open nothing.
func TestAPIKeyOfASwitchedOffPartner(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	c, p := h.anybody(), h.proof()
	token := h.bridgeMint(backs["rain"], p)
	h.o.partners = demoPartners(func(p *policy.Partner) { p.Disabled = true })
	h.reload()
	h.expect("its key", c, h.profileCall("first"), want{status: 403, body: bridgeForbidden, results: []string{"refused denied_disabled"}, outcome: "forbidden"})
	h.expect("what it minted", c, p.reveal(token), want{status: 401, body: bridgeBadProof, results: []string{"refused token_revoked"}, outcome: "unauthorized", refused: "revoked"})
	h.expect("another's", c, h.bridgeCall("other", "GET", "cus-other", "ca-other", "", ""),
		want{status: 200, results: []string{"done"}, rule: "key", outcome: "done", upstream: -1})

	h.o.partners = h.o.partners[1:] // and where it is gone, routes that name it aside
	h.o.routes = func(h *house) []gateway.Route { return []gateway.Route{h.bridgeRoute(h.issuerOf("rain", nil))} }
	h.reload()
	h.expect("of a partner that is gone", c, h.profileCall("first"), keyRefused("partner"))
}
