package gateway_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	walletsign "github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/elements"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file has who the users of face gnosispay are: an authority signs their tokens, and their wallets what they authorize.

const (
	usersBy   = "https://auth.example" // whose tokens users show
	usersOf   = "cards"                // their audience
	app       = "app-demo"             // of gp-demo
	otherApp  = "app-other"            // of gp-other
	otherShop = "https://shop.example" // which embeds it

	gnosisOwner = "gnosis-owner" // whom the issuer takes our key for
)

// claims of a user's token.
type claims map[string]any

// userJWT is a token of a user, signed by the authority.
func (h *house) userJWT(user string, change ...func(claims)) string {
	c := claims{"iss": usersBy, "aud": usersOf, "sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	for _, f := range change {
		f(c)
	}
	return h.secret(signJWT(keys.EdDSA, c))
}

func signJWT(key string, c claims) string {
	payload, err := json.Marshal(c)
	must(err)
	signer := jwts(key)[0]
	text := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":%q,"kid":"EdDSA"}`, signer.Algorithm())) + "." + base64.RawURLEncoding.EncodeToString(payload)
	signature, err := signer.Sign([]byte(text))
	must(err)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// userRoutes are those of face gnosispay, whose unbound tokens take a user's proof: the mint, the cards of an issuer, and cards that
// users bring to another.
func userRoutes(h *house) []gateway.Route {
	routes := h.routes(h.issuerOf("rain", h.o.issuer))[:2]
	cards, f := &routes[1], h.userFace()
	cards.UnboundTokens, cards.Challenges, cards.Users = policy.UnboundWithUserProof, h.challenges(), h.users()
	cards.Challenges.Typed = credential.TypedDomain{Name: "Cardstile", Version: "1", ChainID: 100}
	cards.Operations = []policy.Operation{policy.CardReveal, policy.PINReveal, policy.PINSet, policy.ChallengeMint}
	cards.Files = append(assets(), gateway.File{
		Path: "/elements/themes/" + app + ".css", Headers: []exchange.HeaderField{{Name: "Content-Type", Value: "text/css; charset=utf-8"}}, Body: []byte("main{}"),
	})
	f.PIN, f.PINWithPAN, f.Typed, f.Apps = face.PINSoftware, true, true, map[string]string{app: partnerID, otherApp: "gp-other"}
	f.CardPage = cardPages(map[string][]string{app: {origin, "https://app.example:8443"}, otherApp: {otherShop}})
	speak(cards, "gnosispay", f)
	return append(routes, h.verifyRoute(h.issuerKind("gnosispay", nil)))
}

// userFace is what all faces for users have.
func (h *house) userFace() face.Config {
	f := sealedFace()
	f.SessionSPKI, f.UserProofs = shared().clients.PublicSPKI(), true
	return f
}

// verifyRoute takes cards that users bring.
func (h *house) verifyRoute(is *gateway.Issuer) gateway.Route {
	r := sealedRoute(is)
	r.Users, r.UploadKeys, r.Operations = h.users(), shared().uploads, []policy.Operation{policy.CardVerify}
	r.Origins = []string{origin}
	f := h.userFace()
	f.UploadKeys = shared().uploads
	speak(&r, "gnosispay", f)
	return r
}

func (h *house) users() *credential.UserTokens {
	users, err := credential.NewUserTokens(credential.UserTokensConfig{
		JWKS: credential.JWKS(jwts(keys.EdDSA)...), Issuer: usersBy, Audience: usersOf, Environment: "test",
		Now: func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) },
	})
	must(err)
	return users
}

// cardPages are the pages of apps, by the origins that embed them.
func cardPages(apps map[string][]string) func(url.Values, *exchange.Response) {
	made := map[string]elements.Page{}
	for id, origins := range apps {
		var err error
		made[id], err = elements.CardPage(&elements.App{ID: id, Origins: origins})
		must(err)
	}
	unknown := elements.UnknownPage()
	return func(q url.Values, out *exchange.Response) {
		page, ok := made[q.Get("appId")]
		if !ok {
			page, out.Status = unknown, 404
		}
		writePage(&page, out)
	}
}

// typed is a challenge as a wallet shows it.
type typed struct {
	Domain  credential.TypedDomain
	Primary string `json:"primaryType"`
	Message struct{ Authorization, Nonce string }
}

func challengeCall(id, action, jwt string) call {
	return call{listener: "public", method: "GET", path: "/pci/cards/" + id + "/challenge?action=" + action, header: []string{"Authorization", "Bearer " + jwt}}
}

func (h *house) typedOf(r reply) (t typed) {
	h.t.Helper()
	if err := json.Unmarshal([]byte(r.body), &t); r.status != 200 || err != nil || t.Message.Nonce == "" {
		h.t.Fatalf("no challenge: %d %s", r.status, r.body)
	}
	h.secret(t.Message.Nonce)
	return t
}

// signTyped is eth_signTypedData_v4.
func (w *wallet) signTyped(t typed) string {
	data := credential.TypedData{Domain: t.Domain, Authorization: t.Message.Authorization, Nonce: t.Message.Nonce}
	hash, err := data.Hash()
	must(err)
	compact := walletsign.SignCompact(w.key, hash[:], false) // v, r, s
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}

// signedBy adds what a user's wallet signed, beside the user's token.
func (x call) signedBy(h *house, w *wallet, jwt string, t typed) call {
	return x.with("Cardstile-User-Token", jwt, "Cardstile-User-Nonce", t.Message.Nonce, "Cardstile-User-Signature", h.secret(w.signTyped(t)))
}

func verifyCall(jwt string, upload sandbox.GnosisUpload) call {
	body, err := json.Marshal(upload)
	must(err)
	return call{
		listener: "public", method: "POST", path: "/api/v1/cards/verify", body: string(body),
		header: []string{"Authorization", "Bearer " + jwt, "Content-Type", "application/json"},
	}
}

// upload seals a card number as a cardholder's device does.
func (h *house) upload(number string) sandbox.GnosisUpload {
	u, err := sandbox.NewGnosisUpload(shared().session, number)
	must(err)
	h.secret(u.EncryptedKey)
	return u
}

// brought reports what is not as it must be with the cards that the issuer has: the one that the user brought, and no other.
func (h *house) brought(r reply) error {
	cards, card := h.gnosis.Cards(), h.cards["brought"]
	if len(cards) != 1 || cards[0].NumberSHA256 != sha256.Sum256([]byte(card.PAN)) || cards[0].Owner != gnosisOwner {
		return errors.New("the issuer has not the card that was brought")
	}
	if want := fmt.Sprintf(`{"cardId":%q}`, cards[0].ID); r.body != want {
		return fmt.Errorf("answered %s, want %s", r.body, want)
	}
	return nil
}

// gnosisBrings is the act of face gnosispay with a card that a user has.
func (h *house) gnosisBrings(b back) error {
	r, err := h.asked(h.anybody(), verifyCall(h.userJWT(b.user), h.upload(h.cards["brought"].PAN)))
	if err != nil {
		return err
	}
	return h.brought(r)
}
