package gateway

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// This file makes a call with an idempotency key once. What is kept of it is sealed, and bound to caller, place, key and body:
// of a mint the seed that the token is made of again [8], of everything else the answer as it was written. The answer to a payment
// with a held card is sealed under the token that was used up, which a repetition shows again.

const kindIdempotent store.Kind = "idempotent"

// idempotent is what an exchange knows of its idempotency key. The zero value has none.
type idempotent struct {
	scope   store.Digest
	body    store.Digest
	attempt store.Attempt
	owner   bool             // whether this exchange makes the call, and is to end it
	effect  bool             // whether it may have had its effect
	seed    *credential.Seed // of a mint
	secret  []byte           // what the caller showed and nothing keeps: its key, and the session of its page
	kept    *keptAnswer      // what a repetition is answered
}

// replays reports whether the call was made before.
func (i *idempotent) replays() bool { return i.kept != nil }

// keptAnswer is what is kept of a call. Its encoding is version, status (2), expiry of the token (8, Unix ms), lengths and
// values of seed and content type, and the body.
type keptAnswer struct {
	status      int
	expires     int64
	seed        []byte
	contentType string
	held        bool // the body is sealed under the token that the call used up
	body        []byte
}

const (
	keptVersion     = 1
	keptHeldVersion = 2
)

func (k *keptAnswer) encode() []byte {
	b := []byte{keptVersion}
	if k.held {
		b[0] = keptHeldVersion
	}
	b = binary.BigEndian.AppendUint16(b, uint16(k.status))
	b = binary.BigEndian.AppendUint64(b, uint64(k.expires))
	b = appendSized(b, string(k.seed))
	b = appendSized(b, k.contentType)
	return append(b, k.body...)
}

var errKept = errors.New("a kept answer is not one of ours")

func decodeKept(b []byte) (*keptAnswer, error) {
	if len(b) < 1+2+8 || b[0] != keptVersion && b[0] != keptHeldVersion {
		return nil, errKept
	}
	k := &keptAnswer{held: b[0] == keptHeldVersion, status: int(binary.BigEndian.Uint16(b[1:])), expires: int64(binary.BigEndian.Uint64(b[3:]))}
	b = b[11:]
	for _, into := range []func([]byte){func(v []byte) { k.seed = v }, func(v []byte) { k.contentType = string(v) }} {
		if len(b) < 2 {
			return nil, errKept
		}
		n := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < n {
			return nil, errKept
		}
		into(b[:n])
		b = b[n:]
	}
	k.body = b
	return k, nil
}

func appendSized(b []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(text))), text...)
}

// leaseBeyond is how much longer than an exchange its lease is: whoever takes over finds it dead.
const leaseBeyond = 5 * time.Second

// beginIdempotent makes this exchange the one that makes the call, or finds what it was answered before.
func (x *running) beginIdempotent(ctx context.Context, call *exchange.Call, p *proven) error {
	rule := x.ep.Idempotency
	if rule == nil || call.IdempotencyKey == "" || p.partner == nil {
		return nil
	}
	i := &x.idempotent
	i.scope = x.idempotencyScope(p.partner.ID, call.IdempotencyKey)
	i.secret = appendSized(appendSized(nil, call.IdempotencyKey), fieldsOfPage(call).Value())
	var err error
	if i.body, err = x.bodyDigest(); err != nil {
		return err
	}
	rand.Read(i.attempt[:])
	begun, err := x.g.services.Store.Begin(ctx, kindIdempotent, i.scope, i.body, i.attempt, x.st.limits.Exchange+leaseBeyond, rule.Keep, rule.Tombstone)
	if err != nil {
		return err
	}
	i.owner = begun.Owner
	if from := x.seeded(call); from != nil {
		seed, err := from.NewSeed(i.seedContext())
		if err != nil {
			return err
		}
		i.seed = &seed
	}
	if begun.Owner {
		return nil
	}
	plain, err := x.st.config.Answers.Open(nil, i.data(), begun.Value)
	if err == nil {
		i.kept, err = decodeKept(plain)
	}
	if err != nil {
		// A key that was retired too early, or somebody wrote to the store: what was answered is not known any more.
		return &exchange.Failure{Kind: exchange.KeyExpired, Reason: "idempotency_kept", Err: err}
	}
	return nil
}

// idempotencyScope is where a key is looked up: one partner's key is nothing to another's, nor one call's to another call.
func (x *running) idempotencyScope(partner, key string) (scope store.Digest) {
	x.st.config.CardDigest.MAC(scope[:0], x.scopeOf("idempotency scope\x00", partner, key))
	return scope
}

// scopeOf says whose key it is, and of which call; no two say the same.
func (x *running) scopeOf(label string, whose ...string) []byte {
	message := []byte(label)
	for _, part := range append(whose, x.ep.route.Name, x.ep.route.Environment, x.request.Method, strings.TrimSuffix(x.request.Path, "/")) {
		message = binary.BigEndian.AppendUint32(message, uint32(len(part)))
		message = append(message, part...)
	}
	return message
}

// issuerKey is the idempotency key that goes to the issuer, the same for each repetition, so that the issuer judges them: the
// caller's own [28]. Where several act under one credential, and so are one to the issuer, it is made of who they are and their
// key, since one's key must not answer with another's call; it has the form of a UUID version 4 (RFC 9562 section 5.4), which
// some issuers want. No key of ours is in it, so that a rotation does not make another of it.
func (x *running) issuerKey(call *exchange.Call, p proven) string {
	if call.IdempotencyKey == "" || !x.ep.route.Issuer.shared {
		return call.IdempotencyKey
	}
	sum := sha256.Sum256(x.scopeOf("issuer idempotency key\x00", p.partnerID(), p.account, call.IdempotencyKey))
	id := sum[:16]
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// bodyDigest is the keyed digest of the raw body, and of the page's session where one submits it: with the key alone, a card
// number could be guessed from its digest, since there are not that many.
func (x *running) bodyDigest() (digest store.Digest, err error) {
	sum := sha256.Sum256(x.request.Body)
	if x.request.Clear != nil {
		if sum, err = x.request.Clear.Digest(vault.CanonRaw); err != nil {
			return digest, err
		}
	}
	x.st.config.CardDigest.MAC(digest[:0], append(append([]byte("idempotency body\x00"), sum[:]...), x.idempotent.secret...))
	return digest, nil
}

// data is the associated data of what is kept.
func (i *idempotent) data() []byte {
	return append(append([]byte("cardstile idempotent answer v1"), i.scope[:]...), i.body[:]...)
}

// seedContext is what a seeded token depends on beside its salt. Who has the store and all of our keys lacks the secret.
func (i *idempotent) seedContext() []byte {
	return append(append(append([]byte{}, i.scope[:]...), i.body[:]...), i.secret...)
}

// seeder makes tokens that are made again for a repetition [8].
type seeder interface {
	NewSeed(context []byte) (credential.Seed, error)
	Again(partner string, seed credential.Seed) (token string, err error)
}

// seeded is what makes the token of a call, nil where it mints none.
func (x *running) seeded(call *exchange.Call) seeder {
	h := x.ep.route.Hosted
	switch op := call.Operations[0]; {
	case op == policy.FieldsMint && h != nil:
		return h.Sessions
	case op == policy.TokenMint && call.CardToken && h != nil:
		return h.Cards
	case op == policy.TokenMint && !call.CardToken:
		return x.st.config.Tokens
	}
	return nil
}

// replay answers a call that was made before: of a mint the same token, spent or not; of all else the same words.
func (x *running) replay(call *exchange.Call, p proven) (*exchange.Result, error) {
	x.event.Reason = "replayed"
	x.g.metrics.replayed.WithLabelValues(x.ep.route.Name, x.ep.names[0]).Inc()
	kept := x.idempotent.kept
	if len(kept.seed) == 0 {
		return nil, nil
	}
	seed, err := credential.ParseSeed(kept.seed, x.idempotent.seedContext())
	if err != nil {
		return nil, err
	}
	token, err := x.seeded(call).Again(p.partner.ID, seed)
	if err != nil {
		return nil, err
	}
	return &exchange.Result{Token: token, Expires: time.UnixMilli(kept.expires)}, nil
}

// renderKept gives the answer again that a call was given.
func (x *running) renderKept(call *exchange.Call, kept *keptAnswer, out *exchange.Response) (err error) {
	out.Status, out.ContentType = kept.status, kept.contentType
	if !kept.held {
		out.Body = append(out.Body[:0], kept.body...)
		return nil
	}
	for _, c := range call.Credentials {
		if c.Kind == policy.KindCardToken {
			out.Clear, err = x.ep.route.Hosted.Holder.Kept(c.Value(), x.idempotent.data(), kept.body)
			return err
		}
	}
	return errKept
}

// keep ends a call that was made: what comes of it is the answer to its repetitions. A refusal that came after the call may
// have had its effect is one too; where it is open what became of it, the next one is passed on, and the issuer judges [28]. Not so
// a payment with a held card, which cannot be sent again: that it is open stays its answer.
func (x *running) keep(ctx context.Context, result *exchange.Result, out *exchange.Response, f *exchange.Failure) {
	i := &x.idempotent
	if !i.owner {
		return
	}
	i.owner = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), x.st.limits.Exchange)
	defer cancel()
	var err error
	switch {
	case f != nil && (!i.effect || reopens(f.Kind) && !x.hosted.card.Present()), out.Clear != nil && !x.hosted.card.Present():
		// What may hold card data is not kept [11].
		err = x.g.services.Store.Abandon(ctx, kindIdempotent, i.scope, i.attempt)
	default:
		err = x.finish(ctx, result, out)
	}
	if err != nil { // the answer is good all the same; a repetition may be made again, or be told to wait
		x.g.services.Log.Warn("an idempotent call could not be ended", zap.String("exchange", x.request.ID), zap.Error(err))
	}
}

func (x *running) finish(ctx context.Context, result *exchange.Result, out *exchange.Response) error {
	i := &x.idempotent
	kept := keptAnswer{status: out.Status, contentType: out.ContentType, body: out.Body}
	if out.Clear != nil {
		var err error
		if kept.body, err = x.ep.route.Hosted.Holder.Keep(x.hosted.token, i.data(), out.Clear); err != nil {
			return errors.Join(err, x.g.services.Store.Abandon(ctx, kindIdempotent, i.scope, i.attempt))
		}
		kept.held = true
	}
	if i.seed != nil && result != nil {
		seed, err := i.seed.AppendBinary(nil)
		if err != nil {
			return err
		}
		kept = keptAnswer{status: out.Status, expires: result.Expires.UnixMilli(), seed: seed}
	}
	sealed, err := x.st.config.Answers.Seal(nil, i.data(), kept.encode())
	if err != nil {
		return err
	}
	if len(sealed) > store.MaxValueBytes {
		return x.g.services.Store.Abandon(ctx, kindIdempotent, i.scope, i.attempt)
	}
	return x.g.services.Store.Finish(ctx, kindIdempotent, i.scope, i.attempt, sealed)
}

// reopens reports whether a failure leaves open what became of the call, so that a repetition is to be passed on.
func reopens(kind exchange.Kind) bool {
	switch kind {
	case exchange.Internal, exchange.Unavailable, exchange.IssuerFailed, exchange.IssuerTimeout, exchange.OutcomeUnknown, exchange.LimitReached:
		return true
	}
	return false
}
