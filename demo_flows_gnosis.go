package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// The flows of face gnosispay in which a cardholder shows who they are, and of the page that runs in their browser.

// user is what a user shows beside the partner's token.
func (t *tester) user(token string, s *sandbox.Session, more ...string) map[string]string {
	h := bearing(token, s)
	h["Cardstile-User-Token"] = t.doc.GnosisPay.UserToken
	for i := 0; i+1 < len(more); i += 2 {
		h[more[i]] = more[i+1]
	}
	return h
}

// showsUser has a user's token narrow what the partner's opens: it opens their own cards, and what is wrong with it is told as what is
// wrong with the partner's.
func (t *tester) showsUser(ctx context.Context) error {
	token, s, err := t.begin(ctx)
	if err != nil {
		return err
	}
	r, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.card("details"), header: t.user(token, s, "Cardstile-App", t.doc.GnosisPay.AppID)})
	if err != nil {
		return err
	}
	if err := t.openDetails(r, s); err != nil {
		return err
	}
	_, err = t.want(ctx, t.client, 401, request{method: "GET", url: t.card("details"), header: t.user(token, s)})
	if err != nil {
		return err
	}
	for _, wrong := range [][]string{
		{"Cardstile-User-Token", unsigned(t.doc.GnosisPay.UserToken)}, {"Cardstile-User-Token", "x"}, {"Cardstile-User-Token", t.doc.Exa.ProvisioningToken},
		{"Cardstile-App", "nobodys"},
	} {
		if token, err = t.mint(ctx, ""); err != nil {
			return err
		}
		if _, err := t.want(ctx, t.client, 401, request{method: "GET", url: t.card("details"), header: t.user(token, s, wrong...)}); err != nil {
			return err
		}
	}
	return nil
}

// openDetails checks that sealed details are the card's.
func (t *tester) openDetails(r *reply, s *sandbox.Session) error {
	var d details
	if err := json.Unmarshal(r.body, &d); err != nil || d.Data.EncryptedPan == nil || d.Data.EncryptedCvc == nil {
		return errors.New("the answer lacks the encrypted details")
	}
	return errors.Join(opens(s, *d.Data.EncryptedPan, t.doc.Card.PAN, "card number"), opens(s, *d.Data.EncryptedCvc, t.doc.Card.CVC, "security code"))
}

// typedData is what a wallet is given to sign.
type typedData struct {
	Domain struct {
		Name, Version string
		ChainID       uint64
	}
	PrimaryType string
	Message     struct{ Authorization, Nonce string }
}

// toSign asks for what the user is to sign for an action.
func (t *tester) toSign(ctx context.Context, action string) (d typedData, err error) {
	r, err := t.want(ctx, t.client, 200, request{
		method: "GET", url: t.doc.PublicURL + "/pci/cards/" + t.doc.Card.ID + "/challenge?action=" + action,
		header: map[string]string{"Authorization": "Bearer " + t.doc.GnosisPay.UserToken},
	})
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(r.body, &d); err != nil || d.PrimaryType != "Message" || !decimal.MatchString(d.Message.Nonce) || d.Message.Authorization == "" || d.Domain.ChainID == 0 {
		return d, errors.New("the answer is no typed data for a wallet")
	}
	return d, nil
}

var decimal = regexp.MustCompile(`^[1-9][0-9]{0,77}$`)

// signed are the headers that a signature goes in.
func (d *typedData) signed(key string) []string {
	return []string{"Cardstile-User-Nonce", d.Message.Nonce, "Cardstile-User-Signature", walletSignTyped(key, d)}
}

func (t *tester) signsUser(ctx context.Context) error {
	key, err := t.wallet()
	if err != nil {
		return err
	}
	s, err := t.session()
	if err != nil {
		return err
	}
	details := func(status int, d *typedData, signer string) (*reply, error) {
		token, err := t.mint(ctx, "")
		if err != nil {
			return nil, err
		}
		return t.want(ctx, t.client, status, request{method: "GET", url: t.card("details"), header: t.user(token, s, d.signed(signer)...)})
	}
	d, err := t.toSign(ctx, "view-details")
	if err != nil {
		return err
	}
	r, err := details(200, &d, key)
	if err != nil {
		return err
	}
	if err := t.openDetails(r, s); err != nil {
		return err
	}
	if _, err := details(401, &d, key); err != nil { // used
		return err
	}
	// Another wallet's signature uses it up too; and what was signed for another action is for that alone.
	if d, err = t.toSign(ctx, "view-details"); err != nil {
		return err
	}
	if _, err := details(401, &d, newWallet()); err != nil {
		return err
	}
	if _, err := details(401, &d, key); err != nil {
		return err
	}
	if d, err = t.toSign(ctx, "view-pin"); err != nil {
		return err
	}
	if _, err := details(401, &d, key); err != nil {
		return err
	}
	bearer := map[string]string{"Authorization": "Bearer " + t.doc.GnosisPay.UserToken}
	for _, refused := range []struct {
		status int
		path   string
		header map[string]string
	}{
		{400, t.doc.Card.ID + "/challenge?action=view-all", bearer},
		{401, t.doc.Card.ID + "/challenge?action=view-details", nil},
		{404, randomUUID() + "/challenge?action=view-details", bearer},
	} {
		if _, err := t.want(ctx, t.client, refused.status, request{method: "GET", url: t.doc.PublicURL + "/pci/cards/" + refused.path, header: refused.header}); err != nil {
			return err
		}
	}
	return nil
}

// publicKey is a key that a page seals for.
func (t *tester) publicKey(ctx context.Context, path string) (*rsa.PublicKey, error) {
	r, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.doc.PublicURL + path})
	if err != nil {
		return nil, err
	}
	var answer struct{ PublicKey []byte } // base64 of the SubjectPublicKeyInfo
	if err := json.Unmarshal(r.body, &answer); err != nil {
		return nil, errors.New("the answer is no public key")
	}
	key, err := x509.ParsePKIXPublicKey(answer.PublicKey)
	if err != nil {
		return nil, err
	}
	public, ok := key.(*rsa.PublicKey)
	if !ok || !public.Equal(t.public) {
		return nil, errors.New("the public key is another one")
	}
	return public, nil
}

func (t *tester) takesCards(ctx context.Context) error {
	public, err := t.publicKey(ctx, "/api/v1/user/card-public-key")
	if err != nil {
		return err
	}
	upload := func(status int, number string, spoil func(*sandbox.GnosisUpload)) (*reply, error) {
		u, err := sandbox.NewGnosisUpload(public, number)
		if err != nil {
			return nil, err
		}
		spoil(&u)
		body, err := json.Marshal(u)
		if err != nil {
			return nil, err
		}
		return t.want(ctx, t.client, status, request{
			method: "POST", url: t.doc.PublicURL + "/api/v1/cards/verify", body: string(body),
			header: map[string]string{"Authorization": "Bearer " + t.doc.GnosisPay.UserToken},
		})
	}
	whole := func(*sandbox.GnosisUpload) {}
	number := sandbox.RandomCard("", "").PAN // a new one, which the issuer does not have
	r, err := upload(200, number, whole)
	if err != nil {
		return err
	}
	var taken struct{ CardID string }
	if err := json.Unmarshal(r.body, &taken); err != nil || taken.CardID == "" {
		return errors.New("the answer has no card id")
	}
	// The issuer knows it by now: what it has opened is the number that was sealed.
	if _, err := upload(422, number, whole); err != nil {
		return err
	}
	next := sandbox.RandomCard("", "").PAN
	for _, spoil := range []func(*sandbox.GnosisUpload){
		func(u *sandbox.GnosisUpload) { u.IV = "ABCDEFGHIJKLMNOP" },
		func(u *sandbox.GnosisUpload) { u.EncryptedPAN = base64.StdEncoding.EncodeToString(make([]byte, 32)) },
		func(u *sandbox.GnosisUpload) { u.EncryptedKey = "x" },
		func(u *sandbox.GnosisUpload) { u.IV = "" },
	} {
		if _, err := upload(400, next, spoil); err != nil {
			return err
		}
	}
	_, err = t.want(ctx, t.client, 401, request{method: "POST", url: t.doc.PublicURL + "/api/v1/cards/verify", body: `{"encryptedPan":"x","encryptedKey":"x","iv":"x"}`})
	return err
}

// servesCardPage asks for the page that shows a card, as the published SDK's frame does.
func (t *tester) servesCardPage(ctx context.Context) error {
	if _, err := t.publicKey(ctx, "/api/v1/session-key"); err != nil {
		return err
	}
	page, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.doc.PublicURL + "/?appId=" + url.QueryEscape(t.doc.GnosisPay.AppID)})
	if err != nil {
		return err
	}
	if err := framedBy(page, t.doc.Origin); err != nil {
		return err
	}
	unknown, err := t.want(ctx, t.client, 404, request{method: "GET", url: t.doc.PublicURL + "/?appId=nobodys"})
	if err != nil {
		return err
	}
	if err := framedBy(unknown, "'none'"); err != nil {
		return err
	}
	// The page loads nothing but files of ours, whose names and tags have their digests.
	files := loaded.FindAllSubmatch(page.body, -1)
	if len(files) < 2 || bytes.Contains(page.body, []byte("<script>")) {
		return errors.New("the page has no script of its own, or one that stands inline")
	}
	for _, file := range files {
		if _, err := t.want(ctx, t.client, 200, request{method: "GET", url: t.doc.PublicURL + string(file[1])}); err != nil {
			return err
		}
	}
	return nil
}

var loaded = regexp.MustCompile(`(?:href|src)="(/elements/[^"]+)" integrity="sha384-[^"]+"`)

// framedBy checks that a page may be embedded by pages of an origin, and by others only where they are listed with it.
func framedBy(page *reply, origin string) error {
	csp := page.header.Get("Content-Security-Policy")
	_, after, _ := strings.Cut(csp, "; frame-ancestors ")
	ancestors, _, _ := strings.Cut(after, ";")
	switch {
	case !strings.HasPrefix(csp, "default-src 'none'; script-src 'self'"):
		return fmt.Errorf("the page's policy is %q", csp)
	case !strings.Contains(" "+ancestors+" ", " "+origin+" ") || strings.Contains(ancestors, "*") || strings.Contains(ancestors, elsewhere):
		return fmt.Errorf("the page may be embedded by %q, want %s", ancestors, origin)
	case page.header.Get("Referrer-Policy") != "no-referrer" || page.header.Get("X-Content-Type-Options") != "nosniff" || !strings.HasPrefix(page.header.Get("Content-Type"), "text/html"):
		return fmt.Errorf("the page's headers are %v", page.header)
	}
	return nil
}
