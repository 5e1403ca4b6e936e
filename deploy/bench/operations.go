package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/vault/keys"
)

// cell is one row of the report: a server doing an operation.
type cell struct {
	operation   string
	server      *server
	connections int
	calls       int    // of the issuer, for each exchange
	includes    string // what one exchange is
	once        bool   // each exchange takes a token of its own, minted before the clock starts

	// load makes one worker per connection. Tokens are given where once is set.
	load func(ctx context.Context, tokens *tokens) ([]worker, error)
}

// worker does one exchange, and checks its answer. It returns errExhausted where nothing is left to do it with.
type worker struct {
	exchange func() error
	close    func()
}

var errExhausted = errors.New("no tokens left")

// tokens are handed out one at a time.
type tokens struct {
	all  []string
	next atomic.Int64
}

func (t *tokens) take() (string, bool) {
	i := int(t.next.Add(1)) - 1
	if i >= len(t.all) {
		return "", false
	}
	return t.all[i], true
}

// The operations.
const (
	opHandshake = "handshake"
	opHybrid    = "handshake-hybrid"
	opMint      = "mint"
	opRefused   = "refused"
	opReveal    = "reveal"
	opPIN       = "pin"
	opForward   = "forward"
	opProfile   = "profile"
	opRSA       = "rsa"
	opIdle      = "idle"  // memory, and no row among the exchanges
	opStore     = "store" // not a row among the exchanges, but a part of its own
)

// operations are all that -only can name, the store's part included.
var operations = []string{opHandshake, opHybrid, opMint, opRefused, opReveal, opPIN, opForward, opProfile, opRSA, opIdle, opStore}

// cells are all rows that are measured, in the order of the report.
func (w *world) cells() ([]cell, error) {
	content, err := os.ReadFile(w.path("session-public.pem"))
	if err != nil {
		return nil, err
	}
	public, err := keys.ParsePublicPEM(content)
	if err != nil {
		return nil, err
	}
	session, err := sandbox.NewSession(public)
	if err != nil {
		return nil, err
	}
	var all []cell
	add := func(c cell) {
		if c.server != nil && w.only.MatchString(c.operation) {
			all = append(all, c)
		}
	}
	for _, s := range []*server{w.cardstile, w.proxy, w.nginxServer} {
		add(cell{
			operation: opHandshake, server: s, connections: w.connections, load: w.handshakes(s, w.connections, w.partner),
			includes: fmt.Sprintf("TCP, full TLS 1.3 handshake with client certificate (ECDSA P-256, %s), close; Cardstile holds it against a revocation list of 1000", w.partner.CurvePreferences[0]),
		})
	}
	for _, s := range []*server{w.cardstile, w.proxy} {
		add(cell{
			operation: opHybrid, server: s, connections: w.connections, load: w.handshakes(s, w.connections, w.hybrid),
			includes: "the same with X25519MLKEM768, which Go and browsers offer by default",
		})
	}
	n := w.connections
	add(cell{
		operation: opMint, server: w.cardstile, connections: n, includes: "mTLS connection kept; partner, policy, limit, token stored, audit record synced",
		load: w.requests(w.cardstile.address, w.partner, n, repeat(mintRequest), 200, "ephemeralToken"),
	})
	add(cell{
		operation: opRefused, server: w.cardstile, connections: n, once: true, includes: "a spent token, otherwise as reveal: 401, audit record synced, no RSA, no issuer",
		load: w.refusals(n, session.ID()),
	})
	for _, n := range []int{1, 16, 64} {
		add(cell{
			operation: opReveal, server: w.cardstile, connections: n, calls: 2, once: true,
			includes: "token redeemed, policy, limits, session opened (one RSA-2048), new issuer session, issuer calls card and secrets, PAN and CVC resealed, audit record synced",
			load:     w.spending(n, "details", session.ID(), "encryptedPan"),
		})
	}
	add(cell{
		operation: opPIN, server: w.cardstile, connections: n, calls: 1, once: true, includes: "as reveal, with one issuer call (pin) and one field",
		load: w.spending(n, "pin", session.ID(), "encryptedPin"),
	})
	add(cell{
		operation: opForward, server: w.cardstile, connections: n, calls: 1,
		includes: "all stages, no declared fields: GET /wallet of a service account; TLS connection kept; access token verified, its login looked up, policy, limits, answer searched for card numbers, audit record synced",
		load:     w.forwards(n),
	})
	direct := repeat(get(forwarded, "Authorization: Bearer "+w.paymentsKey, "Accept: application/json"))
	for _, s := range []*server{w.proxy, w.proxyH1, w.nginxServer} {
		if s == nil {
			continue
		}
		add(cell{
			operation: opForward, server: s, connections: n, calls: 1, includes: "mTLS connection kept; GET /wallet passed on, nothing looked at, nothing recorded",
			load: w.requests(s.address, w.partner, n, direct, 200, walletMember),
		})
	}
	add(cell{
		operation: opProfile, server: w.cardstile, connections: n, calls: 2,
		includes: "all stages, nothing sealed: Exa GET /api/card without sessionid; mTLS connection kept; partner, cookie user, policy, limits, issuer calls card and user, audit record synced",
		load:     w.requests(w.cardstile.address, w.partner, n, repeat(get("/api/card", "Cookie: credential_id="+signCookie(w.cookieKey, exaUser))), 200, cardID),
	})
	add(cell{operation: opRSA, server: w.rsa, connections: 1, includes: "RSA-OAEP (SHA-1) decryption, 2048 bits, in a loop by itself"})
	return all, nil
}

func get(path string, fields ...string) []byte {
	b := fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: localhost\r\n", path)
	for _, f := range fields {
		b = append(append(b, f...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

var mintRequest = []byte("POST /api/v1/ephemeral-token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n")

// source gives a worker its next request; nil is no more. Its bytes are good until the next call.
type source func(*tokens) func() []byte

func repeat(request []byte) source {
	return func(*tokens) func() []byte { return func() []byte { return request } }
}

// cardRequest is a card operation of the gnosispay face with a token.
func cardRequest(b []byte, part, token, sessionID string) []byte {
	b = fmt.Appendf(b[:0], "GET /api/v1/cards/%s/%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n", cardID, part, token)
	return fmt.Appendf(b, "sessionid: %s\r\n\r\n", sessionID)
}

// The call that is forwarded, and what its answer has.
const (
	forwarded    = "/wallet"
	walletMember = `"balances"`
)

// forwards are calls of a service account. It logs in when the connections are made, which is before the clock starts: its
// access token lives an hour.
func (w *world) forwards(n int) func(context.Context, *tokens) ([]worker, error) {
	return func(ctx context.Context, t *tokens) ([]worker, error) {
		access, err := w.logIn(ctx)
		if err != nil {
			return nil, fmt.Errorf("log in: %w", err)
		}
		return w.requests(w.publicAddress(), w.public, n, repeat(get(forwarded, "Authorization: Bearer "+access)), 200, walletMember)(ctx, t)
	}
}

// logIn returns an access token of the service account.
func (w *world) logIn(ctx context.Context) (string, error) {
	key, err := os.ReadFile(w.path("account-public.pem"))
	if err != nil {
		return "", err
	}
	c, err := dial(ctx, w.publicAddress(), w.public)
	if err != nil {
		return "", err
	}
	defer c.conn.Close()
	login := fmt.Sprintf(`{"account_id":%q,"public_key":%q}`, account, base64.StdEncoding.EncodeToString(key))
	status, body, err := c.do(fmt.Appendf(nil, "POST /auth/token HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(login), login))
	if err != nil {
		return "", err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || status != 200 || answer.AccessToken == "" {
		return "", fmt.Errorf("status %d, and no access token", status)
	}
	return answer.AccessToken, nil
}

// spending are requests that each spend a token.
func (w *world) spending(n int, part, sessionID, want string) func(context.Context, *tokens) ([]worker, error) {
	return w.requests(w.publicAddress(), w.public, n, func(t *tokens) func() []byte {
		var b []byte
		return func() []byte {
			token, ok := t.take()
			if !ok {
				return nil
			}
			b = cardRequest(b, part, token, sessionID)
			return b
		}
	}, 200, want)
}

// refusals spend one token and then show it again and again.
func (w *world) refusals(n int, sessionID string) func(context.Context, *tokens) ([]worker, error) {
	return func(ctx context.Context, t *tokens) ([]worker, error) {
		token, ok := t.take()
		if !ok {
			return nil, errExhausted
		}
		request := cardRequest(nil, "details", token, sessionID)
		c, err := dial(ctx, w.publicAddress(), w.public)
		if err != nil {
			return nil, err
		}
		defer c.conn.Close()
		if status, _, err := c.do(request); err != nil || status != 200 {
			return nil, fmt.Errorf("spend a token: status %d, %w", status, err)
		}
		return w.requests(w.publicAddress(), w.public, n, repeat(request), 401, "")(ctx, t)
	}
}

// requests are exchanges over n connections that are kept. They are open when this returns.
func (w *world) requests(address string, config *tls.Config, n int, from source, wantStatus int, want string) func(context.Context, *tokens) ([]worker, error) {
	expected := []byte(want)
	return func(ctx context.Context, t *tokens) ([]worker, error) {
		var all []worker
		for range n {
			c, err := dial(ctx, address, config)
			if err != nil {
				closeAll(all)
				return nil, err
			}
			next := from(t)
			all = append(all, worker{close: func() { c.conn.Close() }, exchange: func() error {
				request := next()
				if request == nil {
					return errExhausted
				}
				status, body, err := c.do(request)
				if err != nil {
					return err
				}
				if status != wantStatus || !bytes.Contains(body, expected) {
					return fmt.Errorf("status %d, want %d with %q: %.200s", status, wantStatus, want, body)
				}
				return nil
			}})
		}
		return all, nil
	}
}

// handshakes are exchanges over a new connection each.
func (w *world) handshakes(s *server, n int, config *tls.Config) func(context.Context, *tokens) ([]worker, error) {
	return func(ctx context.Context, _ *tokens) ([]worker, error) {
		all := make([]worker, n)
		for i := range all {
			all[i] = worker{close: func() {}, exchange: func() error { return handshake(ctx, s.address, config) }}
		}
		return all, nil
	}
}

func closeAll(all []worker) {
	for _, w := range all {
		w.close()
	}
}
