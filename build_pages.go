package main

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/elements"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault"
)

// This file resolves the pages that run in cardholders' browsers, and what proves cardholders there.

// pages are those of one route.
type pages struct {
	card   func(url.Values, *exchange.Response) // nil where it has none
	apps   map[string]string                    // the partner of each app
	fields *face.HostedFields                   // nil where it has none
}

func (b *builder) routePages(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) pages {
	var p pages
	b.routeUsers(at, c, kind)
	if len(c.Apps) > 0 {
		p.card, p.apps = b.routeApps(at, c, kind, r)
	}
	if c.HostedFields != nil {
		p.fields = b.routeFields(at+".hosted_fields", c, kind, r)
	}
	return p
}

// routeUsers checks what proves the users of a route.
func (b *builder) routeUsers(at string, c *RouteConfig, kind face.Kind) {
	proves := kind.Takes(policy.KindToken) && kind.Takes(policy.KindJWT)
	if c.UserTokens != nil {
		switch u := c.UserTokens; {
		case !proves:
			b.problem(at+".user_tokens", "face %s has no users who show tokens of others", c.Face)
		case u.Issuer == "" || u.Audience == "":
			b.problem(at+".user_tokens", "issuer and audience are required")
		default:
			b.jwksFiles[u.JWKS], _ = b.read(at+".user_tokens.jwks", u.JWKS)
			b.checkUserTokens(at+".user_tokens", u)
		}
	}
	if c.TypedData != nil {
		if c.UserTokens == nil {
			b.problem(at+".typed_data", "needs user_tokens: who is to sign")
		}
		if c.TypedData.Name == "" || len(c.TypedData.Name) > 100 {
			b.problem(at+".typed_data.name", "required: what wallets show of who asks, at most 100 bytes")
		}
		if c.TypedData.ChainID < 0 {
			b.problem(at+".typed_data.chain_id", "want a chain's number (EIP-155)")
		}
	}
}

// checkUserTokens has the keys judged: whoever only checks a configuration has no store, and needs none for this.
func (b *builder) checkUserTokens(at string, u *UserTokensConfig) {
	content := b.jwksFiles[u.JWKS]
	if content == nil {
		return // told already
	}
	if _, err := credential.NewUserTokens(credential.UserTokensConfig{JWKS: content, Issuer: u.Issuer, Audience: u.Audience, Environment: "test"}); err != nil {
		b.problem(at, "%v", err)
	}
}

// routeApps makes the pages of apps that embed elements.
func (b *builder) routeApps(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) (func(url.Values, *exchange.Response), map[string]string) {
	if kind.UploadFormat == "" {
		b.problem(at+".apps", "face %s has no elements", c.Face)
		return nil, nil
	}
	if c.PIN == string(face.PINBlind) {
		b.problem(at+".pin", "elements seal PINs for our key: want software, or nothing")
	}
	made, partners := map[string]elements.Page{}, map[string]string{}
	for i := range c.Apps {
		app, key, before := &c.Apps[i], fmt.Sprintf("%s.apps[%d]", at, i), len(b.problems)
		if _, twice := made[app.ID]; twice || b.apps[app.ID] {
			b.problem(key+".id", "%q is taken", app.ID)
		}
		b.apps[app.ID] = true
		b.origins(key+".origins", app.Origins)
		if !slices.Contains(b.partnerIDs(), app.Partner) {
			b.problem(key+".partner", "no partner has this id")
		}
		if len(b.problems) > before {
			continue
		}
		e := elements.App{
			ID: app.ID, Origins: app.Origins, Theme: app.Page.Theme, CSS: app.Page.CSS, Locale: app.Page.Locale, SameOrigin: app.Page.SameOrigin, Show: app.Show, PINDigits: app.PINDigits,
		}
		page, err := elements.CardPage(&e)
		if err != nil {
			b.problem(key, "%v", err)
			continue
		}
		made[app.ID], partners[app.ID] = page, app.Partner
		r.Files = append(r.Files, style("/elements/themes/"+app.ID+".css", elements.ThemeCSS(&e)))
	}
	if slices.ContainsFunc(c.Apps, func(a AppConfig) bool { return a.Page.SameOrigin }) {
		b.notice("%s: apps: page.same_origin: a page of our own origin can read what elements show", at)
	}
	if slices.ContainsFunc(b.config.Routes, func(o RouteConfig) bool {
		return o.Listener == c.Listener && o.HostedFields != nil && o.HostedFields.Script != ""
	}) {
		b.problem(at+".apps", "hosted_fields.script of another route would run in the origin of these cards: put one of them on a listener of its own")
	}
	r.Files = append(r.Files, assets()...)
	unknown := elements.UnknownPage()
	return func(query url.Values, out *exchange.Response) {
		page, ok := made[query.Get("appId")]
		if !ok {
			page, out.Status = unknown, 404
		}
		writePage(&page, out)
	}, partners
}

// assets are the files that all pages load.
func assets() []gateway.File {
	var files []gateway.File
	for _, a := range elements.Assets() {
		files = append(files, gateway.File{Path: a.Path, Headers: headers(a.Headers), Body: a.Body, Immutable: true})
	}
	return files
}

// style is a sheet that a reload may change.
func style(path string, sheet []byte) gateway.File {
	return gateway.File{Path: path, Headers: []exchange.HeaderField{{Name: "Content-Type", Value: "text/css; charset=utf-8"}}, Body: sheet}
}

func headers(of []elements.Header) []exchange.HeaderField {
	all := make([]exchange.HeaderField, len(of))
	for i, h := range of {
		all[i] = exchange.HeaderField{Name: h.Name, Value: h.Value}
	}
	return all
}

func writePage(page *elements.Page, out *exchange.Response) {
	out.Header, out.Body = headers(page.Headers), append(out.Body[:0], page.HTML...)
}

// routeHosted is what the gateway asks of hosted fields; what needs a store is made with one.
func (b *builder) routeHosted(fields *face.HostedFields) *gateway.Hosted {
	h := &gateway.Hosted{Terminals: map[string][]string{}}
	for i := range b.config.Partners {
		h.Terminals[b.config.Partners[i].ID] = b.config.Partners[i].Terminals
	}
	if fields != nil {
		h.CVV, h.Name = fields.CVV == "mandatory", fields.Name
	}
	return h
}

// libraryVersion is the form of a library's version.
var libraryVersion = regexp.MustCompile(`^[0-9A-Za-z.+-]{1,50}$`)

// routeFields resolves how hosted fields are.
func (b *builder) routeFields(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) *face.HostedFields {
	h := c.HostedFields
	if !kind.Takes(policy.KindFields) {
		b.problem(at, "face %s has no hosted fields", c.Face)
		return nil
	}
	if c.ClientLeg != vault.FormatClear {
		b.problem(at, "its pages send card data in clear inside TLS: say client_leg: clear")
	}
	if len(c.Origins) == 0 {
		b.problem(at, "needs origins: the pages that may embed the fields")
	}
	if len(h.Libraries) == 0 {
		b.problem(at+".libraries", "required: at least one version")
	}
	for i, version := range h.Libraries {
		if !libraryVersion.MatchString(version) {
			b.problem(fmt.Sprintf("%s.libraries[%d]", at, i), "want a version, as in 1.7.0.261457")
		}
	}
	cvv := h.CVV
	switch cvv {
	case "":
		cvv = "mandatory"
	case "mandatory", "enabled", "disabled":
	default:
		b.problem(at+".cvv", "want mandatory, enabled or disabled")
	}
	if len(c.Origins) == 0 {
		return nil
	}
	made, err := elements.NewFields(elements.Fields{
		Script: h.Script, Integrity: h.Integrity, Origins: c.Origins, Theme: h.Page.Theme, CSS: h.Page.CSS, Locale: h.Page.Locale, SameOrigin: h.Page.SameOrigin,
	})
	if err != nil {
		b.problem(at, "%v", err)
		return nil
	}
	r.Files = append(r.Files, assets()...)
	if h.Page.SameOrigin {
		b.notice("%s: page.same_origin: a page of our own origin can read what is typed", at)
	}
	r.Files = append(r.Files, style(elements.FieldsThemePath, made.ThemeCSS()))
	b.notice("%s: hosted fields: a submitted card waits sealed in the store, at most 30 minutes, security code included", at)
	return &face.HostedFields{
		Libraries: h.Libraries, CVV: cvv, Name: h.CardholderName, Expired: h.ExpiredCards, Tokenize: h.Tokenization,
		Page: func(query url.Values, out *exchange.Response) error {
			page, err := made.Page(query)
			if wrong, ok := errors.AsType[*elements.ErrQuery](err); ok {
				return exchange.Wrong("query", wrong.Parameter, "query")
			}
			if err == nil {
				writePage(&page, out)
			}
			return err
		},
	}
}
