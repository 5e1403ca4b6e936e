package gateway

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// This file is what ends after stage 5: operations about credentials of ours.

// mints is what each of them does.
var mints = map[policy.Operation]func(*running, context.Context, *exchange.Call, proven, decided) (*exchange.Result, error){
	policy.FieldsMint:     (*running).mintFields,
	policy.FieldsRead:     (*running).readFields,
	policy.FieldSubmit:    (*running).submitField,
	policy.TokenMint:      (*running).mintToken,
	policy.ChallengeMint:  (*running).mintChallenge,
	policy.SessionMint:    (*running).mintSession,
	policy.SessionRefresh: (*running).refreshSession,
	policy.SessionRevoke:  (*running).revokeSession,
	policy.SessionCheck:   (*running).checkSession,
}

// mintToken makes a token that stands for the partner, its certificate, and what the call binds it to.
func (x *running) mintToken(ctx context.Context, call *exchange.Call, p proven, d decided) (*exchange.Result, error) {
	if p.partner == nil {
		return nil, exchange.Fail(exchange.Unauthorized, "no_partner")
	}
	if call.CardToken {
		return x.mintCardToken(ctx, call, p)
	}
	grant := policy.Grant{
		Partner: p.partner.ID, Certificate: x.event.Certificate, User: p.user,
		Operation: call.Bind.Operation, Card: call.Bind.Card, SessionHash: call.Bind.SessionHash, Nonce: call.Bind.Nonce,
		Environment: x.ep.route.Environment, Face: x.ep.route.Name, Generation: x.generation(&p),
	}
	if grant.User == "" {
		grant.User = call.Bind.User
	}
	if err := x.noteCertificate(ctx); err != nil {
		return nil, err
	}
	x.idempotent.effect = true
	token, expires, err := x.st.config.Tokens.Mint(ctx, grant, credential.Minting{
		TTL: call.Bind.TTL, Keep: x.ep.route.KeepOnWrongProof && grant.Nonce != [32]byte{}, Seed: x.idempotent.seed,
	})
	if err != nil {
		return nil, err
	}
	x.g.metrics.minted.Inc()
	return &exchange.Result{Token: token, Expires: expires}, nil
}

// errNoSessions: an endpoint that mints sessions stands on a route that has nothing to make one of.
var errNoSessions = errors.New("the route has no key for sessions")

// LoginTTL is how long a user stays logged in. Source: Exa's cookie, 24 hours.
const LoginTTL = 24 * time.Hour

// mintSession logs in: a service account gets an access token and a refresh token, a user a cookie.
func (x *running) mintSession(ctx context.Context, _ *exchange.Call, p proven, _ decided) (*exchange.Result, error) {
	who := cmp.Or(p.account, p.user, p.partnerID())
	if err := x.limit(ctx, "login", limitDigest(x.st.config.CardDigest, "login", x.ep.route.Name+"\x00"+who), x.st.limits.Login); err != nil {
		return nil, err
	}
	switch rt := x.ep.route; {
	case rt.Hosted != nil:
		return x.mintBearer(&p)
	case rt.Families != nil && p.account != "":
		refresh, session, err := rt.Families.Begin(ctx, p.account, p.weak, credential.LoginKey(p.account, p.proofs), x.generation(&p))
		if err != nil {
			return nil, err
		}
		return x.pair(refresh, session)
	case rt.Cookies != nil && p.user != "":
		if err := rt.Cookies.Login(ctx, p.user, LoginTTL, x.generation(&p)); err != nil {
			return nil, err
		}
		x.g.metrics.credentials.WithLabelValues(mintedSession).Inc()
		return &exchange.Result{Token: rt.Cookies.Sign(p.user), Expires: x.request.Received.Add(LoginTTL), Account: p.user}, nil
	}
	return nil, errNoSessions
}

// mintBearer makes an access token of the API key that was shown.
func (x *running) mintBearer(p *proven) (*exchange.Result, error) {
	for i := range p.proofs {
		if proof := &p.proofs[i]; proof.Kind == policy.KindAPIKey {
			token, _, err := x.ep.route.Hosted.Bearers.Mint(*proof, x.generation(p))
			if err != nil {
				return nil, err
			}
			x.g.metrics.credentials.WithLabelValues(mintedSession).Inc()
			return &exchange.Result{Token: token, Expires: x.request.Received.Add(x.ep.route.Hosted.Bearers.TTL()), Scope: proof.Scope}, nil
		}
	}
	return nil, errNoSessions
}

// refreshSession makes the next pair of the same login. The refresh token that asks for it is used up.
func (x *running) refreshSession(ctx context.Context, _ *exchange.Call, p proven, _ decided) (*exchange.Result, error) {
	rt := x.ep.route
	if rt.Families == nil {
		return nil, errNoSessions
	}
	refresh, err := rt.Families.Rotate(ctx, p.session)
	if err != nil {
		return nil, err
	}
	return x.pair(refresh, p.session)
}

// pair makes the access token that goes with a refresh token.
func (x *running) pair(refresh string, session credential.Session) (*exchange.Result, error) {
	jwts := x.ep.route.JWTs
	access, _, err := jwts.Mint(session)
	if err != nil {
		return nil, err
	}
	x.g.metrics.credentials.WithLabelValues(mintedSession).Inc()
	// The token's own end is a whole second, up to one earlier: clients are told of an hour, not of a second less.
	return &exchange.Result{Token: access, Refresh: refresh, Expires: x.request.Received.Add(jwts.TTL()), Account: session.Account()}, nil
}

// revokeSession ends the login that a refresh token belongs to. Whoever shows one that was used before ended it already.
func (x *running) revokeSession(ctx context.Context, call *exchange.Call, _ proven, _ decided) (*exchange.Result, error) {
	rt := x.ep.route
	if rt.Families == nil {
		return nil, errNoSessions
	}
	for _, c := range call.Credentials {
		if c.Kind == policy.KindRefresh {
			return &exchange.Result{}, rt.Families.Revoke(ctx, c)
		}
	}
	return nil, errNoSessions
}

// checkSession says what an access token is good for: that it is has been proven.
func (x *running) checkSession(_ context.Context, _ *exchange.Call, p proven, _ decided) (*exchange.Result, error) {
	result := &exchange.Result{Account: p.account}
	for i := range p.proofs {
		if p.proofs[i].Kind == policy.KindJWT {
			result.Expires = p.proofs[i].Expires
		}
	}
	return result, nil
}
