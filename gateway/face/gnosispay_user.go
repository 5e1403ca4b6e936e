package face

import (
	"encoding/base64"
	"net/http"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// This file is what the users of gnosispay show and send themselves: who they are beside a partner's token [1], what their
// wallets sign, the page that runs in their browser, and cards that they bring.

// How a client says who its user is, beside the partner's token: ours, the vendor's calls are not public. The token is what the
// element SDK calls gnosisPayApiAuthToken or authModuleToken; signature and nonce are of its version 3.
const (
	userTokenHeader     = "Cardstile-User-Token"
	userNonceHeader     = "Cardstile-User-Nonce"
	userSignatureHeader = "Cardstile-User-Signature"
	appHeader           = "Cardstile-App"
)

// gnosisPayUsers is how pages of other origins call what users call: nothing that the browser adds is a credential here.
var gnosisPayUsers = &CORS{Headers: []string{"Authorization", "Content-Type"}}

// userEndpoints are those for users.
func (g *gnosisPay) userEndpoints() []Endpoint {
	var all []Endpoint
	if g.config.CardPage != nil {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: "/{$}", Operations: []policy.Operation{policy.CardReveal}, Static: g.page,
		})
	}
	if g.config.SessionSPKI != nil {
		key := publicKeyJSON(g.config.SessionSPKI)
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: "/api/v1/session-key", Operations: []policy.Operation{policy.CardReveal}, Static: staticJSON(key),
		})
	}
	if g.config.UserProofs && g.config.Typed && g.config.serves(policy.ChallengeMint) {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: "/pci/cards/{cardId}/challenge", CORS: gnosisPayUsers,
			Operations: []policy.Operation{policy.ChallengeMint}, Parse: g.parseChallenge, Render: g.renderChallenge,
		})
	}
	if g.config.UserProofs && g.config.UploadKeys != nil && g.config.SessionSPKI != nil && g.config.serves(policy.CardVerify) {
		all = append(all, Endpoint{
			Method: http.MethodGet, Pattern: "/api/v1/user/card-public-key", CORS: gnosisPayUsers,
			Operations: []policy.Operation{policy.CardVerify}, Static: staticJSON(publicKeyJSON(g.config.SessionSPKI)),
		}, Endpoint{
			Method: http.MethodPost, Pattern: "/api/v1/cards/verify", MaxBody: maxBody, CORS: gnosisPayUsers,
			Operations: []policy.Operation{policy.CardVerify}, Parse: g.parseVerify, Render: g.renderVerify, Fail: g.failVerify,
		})
	}
	return all
}

// failVerify is the face's answer, with the member that published clients read beside it at 400.
func (g *gnosisPay) failVerify(kind exchange.Kind, at exchange.Place, out *exchange.Response) {
	g.Fail(kind, at, out)
	if out.Status == http.StatusBadRequest {
		out.Body = exchange.AppendMember(append(out.Body[:len(out.Body)-1], ','), "details", "encryptedPan, encryptedKey and iv are required, each of its form")
		out.Body = append(out.Body, '}')
	}
}

// publicKeyJSON is {"publicKey": base64 of the SubjectPublicKeyInfo's DER}.
func publicKeyJSON(spki []byte) []byte {
	return append(exchange.AppendMember([]byte{'{'}, "publicKey", base64.StdEncoding.EncodeToString(spki)), '}')
}

// page is the page of `/?appId=`: public, and the same for everybody.
func (g *gnosisPay) page(r *exchange.Request, out *exchange.Response) {
	g.config.CardPage(query(r), out)
}

// userProof reads what says who the user is, and which page of ours asks.
func (g *gnosisPay) userProof(r *exchange.Request, c *exchange.Call) error {
	token, single := r.One(userTokenHeader)
	nonce, singleNonce := r.One(userNonceHeader)
	signature, singleSignature := r.One(userSignatureHeader)
	app, singleApp := r.One(appHeader)
	if !single || !singleNonce || !singleSignature || !singleApp {
		return exchange.Fail(exchange.BadRequest, "duplicate_header")
	}
	if app != "" {
		partner, known := g.config.Apps[app]
		if !known {
			return exchange.Fail(exchange.Unauthorized, "unknown_app")
		}
		c.App, c.Partner = app, partner
	}
	if token != "" {
		c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindJWT, token))
	}
	if (nonce == "") != (signature == "") || nonce != "" && token == "" {
		return exchange.Fail(exchange.BadRequest, "user_signature") // one is nothing without the others
	}
	if nonce == "" {
		return nil
	}
	// After the token: one that is spent or expired is asked for anew, and the signature is still good for that one.
	c.Credentials = append(c.Credentials, policy.NewCredential(policy.KindChallenge, nonce))
	c.Signed = exchange.Signed{Method: policy.MethodEIP712, Signature: signature}
	return nil
}

// gnosisPayActions are the actions that a wallet signs for, by the name of each in the query.
var gnosisPayActions = map[string]policy.Operation{
	"view-details": policy.CardReveal, "view-pin": policy.PINReveal, "change-pin": policy.PINSet,
}

// parseChallenge reads what the user is to sign for: GET /pci/cards/{cardId}/challenge?action=…
func (g *gnosisPay) parseChallenge(r *exchange.Request) (*exchange.Call, error) {
	user, err := bearer(r, policy.KindJWT)
	if err != nil {
		return nil, err
	}
	actions := query(r)["action"]
	if len(r.Body) != 0 || len(actions) != 1 || gnosisPayActions[actions[0]] == "" {
		return nil, exchange.Fail(exchange.BadRequest, "action")
	}
	return &exchange.Call{
		Operations:  []policy.Operation{policy.ChallengeMint},
		Credentials: []policy.Credential{user},
		Card:        r.Param("cardId"),
		Challenge:   exchange.Challenge{Method: policy.MethodEIP712, For: gnosisPayActions[actions[0]]},
	}, nil
}

// renderChallenge writes the typed data that is to be signed (EIP-712).
func (g *gnosisPay) renderChallenge(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	out.Body, out.ContentType = append(out.Body[:0], res.Challenge.Options...), jsonType
}

// parseVerify reads {"encryptedPan","encryptedKey","iv"}: a card number under a session of its own, whose key is in the body.
func (g *gnosisPay) parseVerify(r *exchange.Request) (*exchange.Call, error) {
	user, err := bearer(r, policy.KindJWT)
	if err != nil {
		return nil, err
	}
	if err := jsonBody(r); err != nil {
		return nil, err
	}
	var body struct {
		EncryptedPAN exchange.Text `json:"encryptedPan"`
		EncryptedKey exchange.Text `json:"encryptedKey"`
		IV           exchange.Text `json:"iv"`
	}
	if err := exchange.DecodeStrict(r.Body, &body); err != nil {
		return nil, &exchange.Failure{Kind: exchange.BadRequest, Reason: "body", Err: err}
	}
	if body.EncryptedPAN.Value == "" || body.IV.Value == "" || body.EncryptedKey.Value == "" {
		return nil, exchange.Fail(exchange.BadRequest, "body")
	}
	c := &exchange.Call{
		Operations:  []policy.Operation{policy.CardVerify},
		Credentials: []policy.Credential{user},
		Upload:      vault.Sealed{Data: body.EncryptedPAN.Value, IV: body.IV.Value},
	}
	return c, preambleText(body.EncryptedKey.Value, c, g.config.UploadKeys)
}

func (g *gnosisPay) renderVerify(_ *exchange.Call, res *exchange.Result, out *exchange.Response) {
	out.Body = append(exchange.AppendMember(append(out.Body[:0], '{'), "cardId", res.Card.ID), '}')
	out.ContentType = jsonType
}
