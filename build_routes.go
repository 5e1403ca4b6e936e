package main

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

// This file resolves routes: a face on a listener, an issuer behind it.

func (b *builder) loadRoutes() {
	if len(b.config.Routes) == 0 {
		b.problem("routes", "required: at least one")
	}
	for i := range b.config.Routes {
		at := fmt.Sprintf("routes[%d]", i)
		c := &b.config.Routes[i]
		if r, k, ok := b.route(at, c); ok {
			b.routes = append(b.routes, r)
			b.routeKeys = append(b.routeKeys, k)
			b.routeOf = append(b.routeOf, i)
		}
	}
	b.checkSharing()
	b.checkLogins()
}

// signers are the keys that sign what a route's callers show. Their provers are made when there is a store.
type signers struct{ cookie, jwt []*keys.Key }

// route resolves one route.
func (b *builder) route(at string, c *RouteConfig) (gateway.Route, signers, bool) {
	before := len(b.problems)
	r := gateway.Route{
		Listener: c.Listener, Name: c.Face, Environment: b.environment(at+".environment", c.Environment),
		UnboundTokens: c.UnboundTokens, PIN: face.PINMode(c.PIN), Legacy: c.Legacy, Origins: c.Origins,
		KeepOnWrongProof: c.WrongProof == "keep",
	}
	if l := b.listener(c.Listener); l == nil && len(b.config.Listeners) > 0 {
		b.problem(at+".listener", "no listener has this name (known: %s)", known(b.config.Listeners))
	} else if l != nil && l.Environment != r.Environment {
		b.problem(at+".listener", "the listener is of environment %s, the route of %s", l.Environment, r.Environment)
	}
	kind, err := face.Lookup(c.Face)
	if err != nil {
		b.problem(at+".face", "%v", err)
		return r, signers{}, false
	}
	b.routeHosts(at, c, &r)
	b.routeIssuer(at, c, &r)
	b.routePartner(at, c, kind, &r)
	b.routeSessions(at, c, kind, &r)
	signing := b.routeSigners(at, c, kind, r.Environment)
	b.routeClear(at, c, kind, &r)
	b.routeModes(at, c, kind)
	b.routeBrowsers(at, c)
	pages := b.routePages(at, c, kind, &r)
	if kind.Takes(policy.KindFields) {
		r.Hosted = b.routeHosted(pages.fields)
	}
	forwards := b.routeForwards(at, c, kind)
	for i, op := range c.Operations {
		if !slices.Contains(policy.Operations(), policy.Operation(op)) {
			b.problem(fmt.Sprintf("%s.operations[%d]", at, i), "unknown operation (known: %s)", listed(policy.Operations()))
		}
		r.Operations = append(r.Operations, policy.Operation(op))
	}
	if len(b.problems) > before || c.SessionKey != "" && r.ClientKeys == nil {
		return r, signing, false
	}
	fc := face.Config{
		PIN: r.PIN, PINWithPAN: c.PINWithPAN, Clear: r.ClientKeys != nil && r.ClientKeys.InClear(), Forward: forwards,
		PublicKey: publicKeyDigest, JWKS: b.jwks(at, signing.jwt), Serves: serves(&r, c),
		UserProofs: c.UserTokens != nil, Typed: c.TypedData != nil,
		CardPage: pages.card, Apps: pages.apps, HostedFields: pages.fields,
	}
	if r.ClientKeys != nil && !fc.Clear {
		fc.SessionKeys, fc.PINKeys, fc.SessionSPKI = r.ClientKeys, r.ClientKeys, r.ClientKeys.PublicSPKI()
	}
	if r.UploadKeys != nil {
		fc.UploadKeys = r.UploadKeys
	}
	if r.PIN == face.PINBlind && r.Issuer != nil {
		fc.PINKeys = r.Issuer.SessionKey
	}
	r.Face, err = kind.New(fc)
	if err != nil {
		b.problem(at, "%v", err)
		return r, signing, false
	}
	b.routePINSet(at, &r)
	return r, signing, true
}

// routePINSet judges PIN changes where the store is in memory: a restart forgets which envelopes were seen [10].
func (b *builder) routePINSet(at string, r *gateway.Route) {
	if b.config.Store.Redis != nil || r.PIN == face.PINOff || len(r.Operations) > 0 && !slices.Contains(r.Operations, policy.PINSet) {
		return
	}
	if !slices.ContainsFunc(r.Face.Endpoints(), func(e face.Endpoint) bool { return slices.Contains(e.Operations, policy.PINSet) }) {
		return
	}
	const why = "pin.set with a store in memory: a restart forgets which PIN changes were seen: one that was captured within 24 h could be sent again"
	if production(r.Environment) {
		b.problem(at+".pin", "%s; name a store.redis, or leave pin.set out of operations", why)
		return
	}
	b.notice("%s: %s", at, why)
}

func (b *builder) routeIssuer(at string, c *RouteConfig, r *gateway.Route) {
	if c.Issuer == "" {
		b.problem(at+".issuer", "required (known: %s)", known(b.config.Issuers))
		return
	}
	config, ok := b.config.Issuers[c.Issuer]
	if !ok {
		b.problem(at+".issuer", "no issuer has this name (known: %s)", known(b.config.Issuers))
		return
	}
	if e := b.environment("issuers."+c.Issuer+".environment", config.Environment); e != r.Environment {
		b.problem(at+".issuer", "the issuer is of environment %s, the route of %s", e, r.Environment)
	}
	r.Issuer = b.issuers[c.Issuer] // nil where it has problems of its own, told there
}

func (b *builder) routePartner(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) {
	if c.Partner == "" {
		if kind.Takes(policy.KindCookie) {
			b.problem(at+".partner", "required: the callers of this face do not show their partner")
		}
		return
	}
	r.Partner = c.Partner
	if b.partners == nil {
		return
	}
	switch p := b.partners.ByID(c.Partner); {
	case p == nil:
		if !slices.Contains(b.partnerIDs(), c.Partner) { // else its problem was told
			b.problem(at+".partner", "no partner has this id")
		}
	case p.Environment != r.Environment:
		b.problem(at+".partner", "the partner is of environment %s, the route of %s", p.Environment, r.Environment)
	}
}

// routeSessions resolves what opens the callers' sessions.
func (b *builder) routeSessions(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) {
	if kind.SessionFormat == vault.FormatClear {
		b.refuseKeys(at, c)
		return
	}
	format, err := envelope.ByName(kind.SessionFormat)
	if err != nil {
		panic("internal error: " + err.Error()) // a table of ours
	}
	if chain := b.keyChain(at, keys.UseSession, r.Environment, c.SessionKey, c.PreviousSessionKey); len(chain) > 0 {
		for _, name := range format.Legacy() {
			if !slices.Contains(c.Legacy, name) {
				b.problem(at+".legacy", "the clients of face %s need %s: name it, legacy: [%s]", c.Face, name, name)
			}
			b.notice("%s: legacy: session ids of face %s use %s", at, c.Face, name)
			b.outside(at+".session_key", name)
		}
		if r.ClientKeys, err = vault.NewClientKeys(format, chain...); err != nil {
			b.problem(at+".session_key", "%v", err)
		}
		b.routeUploads(at, c, kind, r, chain)
	}
	for i, name := range c.Legacy {
		if !slices.Contains(format.Legacy(), name) {
			b.problem(fmt.Sprintf("%s.legacy[%d]", at, i), "unknown primitive (known: %s)", strings.Join(format.Legacy(), ", "))
		}
	}
}

// routeSigners resolves what signs the callers' cookies and access tokens.
func (b *builder) routeSigners(at string, c *RouteConfig, kind face.Kind, environment string) signers {
	if kind.Takes(policy.KindCookie) && c.CookieKey == "" {
		b.problem(at+".cookie_key", "required by face %s", c.Face)
	}
	if (kind.Takes(policy.KindRefresh) || kind.Takes(policy.KindFields)) && c.JWTKey == "" {
		b.problem(at+".jwt_key", "required by face %s", c.Face)
	}
	return signers{
		cookie: b.keyChain(at, keys.UseCookie, environment, c.CookieKey, c.PreviousCookieKey),
		jwt:    b.keyChain(at, keys.UseJWT, environment, c.JWTKey, c.PreviousJWTKey),
	}
}

// routeUploads makes what opens the cards that users bring, under the same keys, in the format that they have.
func (b *builder) routeUploads(at string, c *RouteConfig, kind face.Kind, r *gateway.Route, chain []*keys.Key) {
	if kind.UploadFormat == "" || r.Issuer == nil || !r.Issuer.Adapter.Serves(policy.CardVerify) {
		return
	}
	format, err := envelope.ByName(kind.UploadFormat)
	if err != nil {
		panic("internal error: " + err.Error()) // a table of ours
	}
	if r.UploadKeys, err = vault.NewClientKeys(format, chain...); err != nil {
		b.problem(at+".session_key", "%v", err)
	}
}

// refuseKeys refuses what opens session ids, on a route whose callers send none.
func (b *builder) refuseKeys(at string, c *RouteConfig) {
	if c.SessionKey != "" || c.PreviousSessionKey != "" {
		b.problem(at+".session_key", "face %s has no session ids", c.Face)
	}
	if len(c.Legacy) > 0 {
		b.problem(at+".legacy", "face %s has no session ids", c.Face)
	}
}

// routeClear makes the callers' leg one in clear, where face and route both say so [12].
func (b *builder) routeClear(at string, c *RouteConfig, kind face.Kind, r *gateway.Route) {
	switch {
	case c.ClientLeg == "":
	case c.ClientLeg != vault.FormatClear:
		b.problem(at+".client_leg", "want clear, or nothing")
	case kind.ClientLeg != vault.FormatClear:
		b.problem(at+".client_leg", "face %s has no card data in clear", c.Face)
	default:
		r.ClientKeys = vault.InsecureClearClient()
		b.notice("%s: client_leg: clear: card data leaves in clear inside TLS", at)
	}
}

// routeForwards resolves the route's forwarded calls.
func (b *builder) routeForwards(at string, c *RouteConfig, kind face.Kind) []exchange.ForwardCall {
	if len(c.Forward) > 0 && !kind.Forwards {
		b.problem(at+".forward", "face %s forwards nothing", c.Face)
		return nil
	}
	calls := b.forwards(at, c)
	if kind.Takes(policy.KindFields) {
		is := b.issuers[c.Issuer]
		for i := range calls {
			if calls[i].Token != "" && is != nil && is.SessionKey.InClear() {
				b.problem(fmt.Sprintf("%s.forward[%d].card_token", at, i), "issuer %s has no sessions, and a held card goes to none in clear: want one of kind payroc", c.Issuer)
			}
			if calls[i].Token != "" && calls[i].Terminal == "" {
				b.problem(fmt.Sprintf("%s.forward[%d].terminal", at, i), "required with card_token: a card is paid with at the terminal that it was submitted for")
			}
		}
		return calls
	}
	for i := range calls {
		if calls[i].Token != "" || calls[i].Terminal != "" {
			b.problem(fmt.Sprintf("%s.forward[%d]", at, i), "face %s has no card_token and no terminal", c.Face)
		}
	}
	return calls
}

// routeBrowsers checks which pages may call.
func (b *builder) routeBrowsers(at string, c *RouteConfig) {
	b.origins(at+".origins", c.Origins)
	for i, text := range c.TokenURL {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) || u.Host == "" || u.User != nil || u.Fragment != "" {
			b.problem(fmt.Sprintf("%s.token_url[%d]", at, i), "want the URL of /auth/token as callers see it, as in https://api.example/auth/token")
		} else {
			b.checkPort(fmt.Sprintf("%s.token_url[%d]", at, i), u)
		}
	}
	if d := c.Domain; d != "" && (strings.ContainsAny(d, "/:@ ") || strings.ToLower(d) != d) {
		b.problem(at+".domain", "want a host name, as in web.example")
	}
	if c.Domain != "" {
		b.outside(at+".domain", outsideWallet)
	}
	if c.TypedData != nil {
		b.outside(at+".typed_data", outsideWallet)
	}
	if c.Domain == "" && c.ChainID != 0 {
		b.problem(at+".chain_id", "needs domain")
	}
	if c.ChainID < 0 {
		b.problem(at+".chain_id", "want a chain's number (EIP-155)")
	}
	if c.WrongProof == "keep" {
		b.notice("%s: wrong_proof: keep: a wrong secret leaves its ephemeral key as it is, to be guessed again", at)
	}
	if c.WrongProof != "" && c.WrongProof != "burn" && c.WrongProof != "keep" {
		b.problem(at+".wrong_proof", "want burn or keep")
	}
}

// origins checks a list of origins as browsers send them.
func (b *builder) origins(at string, all []string) {
	for i, origin := range all {
		u, err := url.Parse(origin)
		if err != nil || u.Scheme != "https" && (!loopback(u.Hostname()) || production(b.config.Environment)) || u.Host == "" || u.Scheme+"://"+u.Host != origin || strings.ToLower(origin) != origin {
			b.problem(fmt.Sprintf("%s[%d]", at, i), "want an origin as browsers send it, as in https://app.example")
		} else {
			b.checkPort(fmt.Sprintf("%s[%d]", at, i), u)
		}
	}
}

// serves says what a route offers of what its issuer can do.
func serves(r *gateway.Route, c *RouteConfig) func(policy.Operation) bool {
	offered, is := r.Operations, r.Issuer
	return func(op policy.Operation) bool {
		if len(offered) > 0 && !slices.Contains(offered, op) {
			return false
		}
		switch {
		case op == policy.ChallengeMint || op == policy.SessionMint && c.CookieKey != "" || op == policy.CardLink:
			return c.Domain != "" || c.TypedData != nil
		case op == policy.CardProvision && c.Domain == "" && c.JWTKey == "":
			return false // a scope of its own, which older configurations do not offer
		case op.Mints() || op == policy.CardMode:
			return true
		}
		return is != nil && is.Adapter.Serves(op)
	}
}

// publicKeyDigest reads a public key as callers of a face send it.
func publicKeyDigest(text string) (spki [32]byte, err error) {
	spki, _, err = keys.ParsePublicBase64(text)
	switch {
	case errors.Is(err, keys.ErrPrivateKey):
		return spki, face.ErrPrivateKey
	case err != nil:
		return spki, face.ErrPublicKey
	}
	return spki, nil
}

// routeModes checks the switches of a route, and puts those that weaken it into the inventory.
func (b *builder) routeModes(at string, c *RouteConfig, kind face.Kind) {
	switch face.PINMode(c.PIN) {
	case face.PINOff, face.PINBlind:
	case face.PINSoftware:
		b.notice("%s: pin: software: PIN blocks are opened in memory", at)
	default:
		b.problem(at+".pin", "want blind or software, or nothing")
	}
	if c.PINWithPAN {
		if c.PIN != string(face.PINSoftware) {
			b.problem(at+".pin_with_pan", "needs pin: software")
		}
		b.notice("%s: pin_with_pan: a PIN may stand beside a card number in one answer", at)
	}
	switch c.UnboundTokens {
	case "", policy.UnboundWithUserProof:
		if c.TypedData != nil {
			b.notice("%s: unbound_tokens: with_user_proof: a user's token opens their cards without their wallet's signature", at)
		}
	case policy.UnboundWithUserSignature:
		if c.TypedData == nil {
			b.problem(at+".unbound_tokens", "with_user_signature needs typed_data: what users sign")
		}
	case policy.UnboundRefuse:
	case policy.UnboundAllow:
		b.notice("%s: unbound_tokens: allow: whoever holds a partner's token opens any card of that partner", at)
	default:
		b.problem(at+".unbound_tokens", "want with_user_proof, with_user_signature, refuse or allow")
	}
	if c.UnboundTokens != "" && !kind.Takes(policy.KindToken) {
		b.problem(at+".unbound_tokens", "face %s has no tokens", c.Face)
	}
	if c.StatelessCookies {
		if c.Domain != "" {
			b.problem(at+".stateless_cookies", "a login keeps a record: leave domain out")
		}
		b.notice("%s: stateless_cookies: signed cookies without a login record, which cannot be revoked and never expire", at)
	}
}

// checkGateway has the gateway judge what it will be given: routes that are in one another's way, or serve nothing.
func (b *builder) checkGateway() {
	if len(b.problems) > 0 {
		return // it would be given less than is configured
	}
	err := gateway.Check(gateway.Config{Listeners: b.listeners, Routes: b.routes, Partners: b.partners, Engine: b.engine, Holders: b.holders})
	if route, ok := errors.AsType[*gateway.RouteError](err); ok {
		b.problem(fmt.Sprintf("routes[%d]", route.Index), "%v", route.Err)
	} else if err != nil {
		b.problem("routes", "%v", err)
	}
}
