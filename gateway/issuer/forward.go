package issuer

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
)

// forward is any JSON API whose calls a route declares: they are carried as they are, but for declared fields. Those cross
// this leg in clear, inside TLS, by the configuration's word [12]. Of the issuer's headers, the content type alone goes on.
type forward struct{}

var _ Issuer = (*forward)(nil)

func newForward(Config) (Issuer, error) { return &forward{}, nil }

// Serves implements Issuer.
func (*forward) Serves(op policy.Operation) bool {
	return op == policy.Forward || op == policy.ForwardReveal || op == policy.ForwardSubmit
}

// Do implements Issuer.
func (f *forward) Do(ctx context.Context, up Upstream, c *Call) (*exchange.Result, error) {
	with, err := f.submitted(c)
	if err != nil {
		return nil, err
	}
	return f.carry(ctx, up, c, with, f.header(c))
}

// carry sends the caller's body with these members replaced, and carries the answer back. The issuer's refusals and failures
// are answers too, for the caller to read: only a redirect, and what is no JSON, is not passed on.
func (f *forward) carry(ctx context.Context, up Upstream, c *Call, with []vault.Replacement, header []Header) (*exchange.Result, error) {
	var message *vault.Outgoing
	if c.Forward.Body != nil {
		var err error
		if message, err = c.Session.Rewrite(c.Forward.Body, with); err != nil {
			return nil, err
		}
	}
	call := c.Forward.Call
	var res Response
	defer func() { res.Clear.Close() }()
	if err := up.RoundTrip(ctx, &Request{
		Call: call.Name, Method: call.Method, Path: c.Forward.Path, Query: c.Forward.Query, Header: header, Message: message,
		Changes: call.Changes || c.Has(policy.ForwardSubmit) || c.Forward.Paid, Shape: call.Response, AnyStatus: true,
	}, &res); err != nil {
		return nil, err
	}
	if vault.HoldsPANString(res.ContentType) {
		return nil, fmt.Errorf("%w: content type", ErrGuard)
	}
	switch {
	case res.Status == http.StatusUnauthorized: // it is about our credential: the caller's was good
		return nil, fmt.Errorf("%w: status %d", ErrRefused, res.Status)
	case res.Status/100 == 2, res.Status/100 == 4, res.Status/100 == 5:
	default:
		return nil, fmt.Errorf("%w: status %d", ErrAnswer, res.Status)
	}
	answer := &exchange.Forwarded{Status: res.Status, RetryAfter: res.RetryAfter}
	if empty := res.Clear == nil && len(res.Body) == 0 || res.Clear != nil && res.Clear.Empty(); empty {
		return &exchange.Result{Forward: answer}, nil
	}
	var ok bool
	if answer.ContentType, ok = jsonMedia(res.ContentType); !ok || res.Clear == nil {
		return nil, fmt.Errorf("%w: not JSON", ErrAnswer) // its text is the issuer's proxy's, or a way around the guard
	}
	var err error
	if answer.Message, err = f.answer(c, res.Clear); err != nil {
		return nil, err
	}
	return &exchange.Result{Forward: answer}, nil
}

// submitted is what stands in the place of the fields that the caller sealed: the same, resealed for the issuer.
func (*forward) submitted(c *Call) (with []vault.Replacement, err error) {
	body := c.Forward.Body
	if body == nil {
		return nil, nil
	}
	for pointer, field := range c.Forward.Call.Submit {
		if !body.Has(pointer) {
			continue
		}
		if c.Session == nil {
			return nil, vault.ErrOpen
		}
		in, err := body.Sealed(pointer)
		if err != nil {
			return nil, err // the face has looked
		}
		out, err := c.Session.Reseal(field, vault.ToIssuer, in)
		if err != nil {
			return nil, err // the client's ciphertext, not the issuer's answer
		}
		with = append(with, vault.Replacement{Pointer: pointer, With: out})
	}
	return with, nil
}

func (*forward) header(c *Call) []Header {
	if c.IdempotencyKey == "" {
		return nil
	}
	return []Header{{"Idempotency-Key", c.IdempotencyKey}}
}

// answer is the issuer's body with declared fields resealed for the client, where they may be shown, and masked otherwise [13].
// What is null or absent stays so. A card number anywhere else is ErrGuard [16].
func (f *forward) answer(c *Call, body *vault.Body) (*vault.Outgoing, error) {
	var with []vault.Replacement
	for pointer, field := range c.Forward.Call.Fields {
		if !body.Has(pointer) {
			continue
		}
		shown, err := f.shown(c, body, pointer, field)
		if err != nil {
			return nil, answerError(pointer, err)
		}
		with = append(with, shown)
	}
	message, err := c.Session.Rewrite(body, with)
	if err != nil {
		return nil, err
	}
	if message.HoldsPAN() {
		message.Destroy()
		return nil, ErrGuard
	}
	return message, nil
}

// shown is what stands in the place of a declared field.
func (*forward) shown(c *Call, body *vault.Body, pointer string, field vault.Field) (out vault.Replacement, err error) {
	if c.Session == nil {
		return out, vault.ErrOpen
	}
	in, err := body.Field(pointer)
	if err != nil {
		return out, err
	}
	out.Pointer = pointer
	if slices.Contains(c.Reveal, policy.Field(field.String())) {
		out.With, err = c.Session.Reseal(field, vault.ToClient, in)
	} else {
		out.Text, err = c.Session.Mask(field, in)
	}
	return out, err
}

// jsonMedia is the media type of a content type in its one spelling, without parameters, if it is JSON's or of its suffix
// (RFC 6839, section 3.1).
func jsonMedia(contentType string) (string, bool) {
	media, _, err := mime.ParseMediaType(contentType)
	return media, err == nil && (media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json"))
}
