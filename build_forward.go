package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/vault"
)

// This file resolves the calls that a route forwards.

// forwardMethods are those that a route may carry, by whether they have a body.
var forwardMethods = map[string]bool{
	http.MethodGet: false, http.MethodDelete: false, http.MethodPost: true, http.MethodPut: true, http.MethodPatch: true,
}

// forwardFields are the fields that can be declared.
var forwardFields = []vault.Field{vault.FieldPAN, vault.FieldCVC, vault.FieldAccount}

func (b *builder) forwards(at string, c *RouteConfig) []exchange.ForwardCall {
	var calls []exchange.ForwardCall
	for i := range c.Forward {
		before := len(b.problems)
		call := b.forward(fmt.Sprintf("%s.forward[%d]", at, i), &c.Forward[i])
		if len(b.problems) == before {
			calls = append(calls, call)
		}
	}
	return calls
}

func (b *builder) forward(at string, c *ForwardConfig) exchange.ForwardCall {
	call := exchange.ForwardCall{
		Name: c.Method + " " + c.Path, Method: c.Method, Pattern: c.Path, Bind: c.Bind, Changes: c.Method != http.MethodGet,
		Without: exchange.WithoutSession(c.WithoutSession),
		Fields:  b.fields(at+".fields", c.Fields), Submit: b.fields(at+".submit", c.Submit), Token: c.CardToken, Terminal: c.Terminal,
	}
	body, known := forwardMethods[c.Method]
	if !known {
		b.problem(at+".method", "want GET, POST, PUT, PATCH or DELETE")
	}
	path, err := face.ParseForwardPath(c.Path)
	if err != nil {
		b.problem(at+".path", "want a path of whole segments, with wildcards as in /deals/{id}")
	}
	for _, name := range slices.Sorted(maps.Keys(c.Bind)) {
		if !slices.Contains(path.Wildcards(), name) {
			b.problem(at+".bind."+name, "the path has no wildcard of this name")
		}
		if to := c.Bind[name]; to != "account" && to != "partner" {
			b.problem(at+".bind."+name, "want account or partner")
		}
	}
	switch call.Without {
	case "":
		call.Without = exchange.WithoutMask
	case exchange.WithoutMask, exchange.WithoutRefuse:
	case exchange.WithoutClear:
		b.notice("%s: without_session: clear: declared fields leave in clear where the caller brought no session", at)
	default:
		b.problem(at+".without_session", "want mask, refuse or clear")
	}
	if len(call.Submit) > 0 && !body {
		b.problem(at+".submit", "the method has no body")
	}
	if call.Response, err = vault.NewShape(vault.ShapeConfig{Clear: call.Fields, MaxBytes: b.config.Limits.AnswerBytes}); err != nil {
		b.problem(at+".fields", "%v", err)
	}
	if c.CardToken != "" && !body {
		b.problem(at+".card_token", "the method has no body")
	}
	if c.Terminal != "" && !body {
		b.problem(at+".terminal", "the method has no body")
	}
	for key, pointer := range map[string]string{"card_token": c.CardToken, "terminal": c.Terminal} {
		if _, err := vault.NewShape(vault.ShapeConfig{Public: []string{pointer}}); pointer != "" && err != nil {
			b.problem(at+"."+key, "want a member of the body, by JSON pointer (RFC 6901), as in /paymentMethod")
			body = false // told
		}
	}
	if body {
		shape := vault.ShapeConfig{Sealed: call.Submit, Exact: true, MaxBytes: b.config.Limits.BodyBytes}
		if c.CardToken != "" {
			shape.Tokens = []string{c.CardToken}
		}
		if c.Terminal != "" {
			shape.Public = []string{c.Terminal}
		}
		if call.Request, err = vault.NewShape(shape); err != nil {
			b.problem(at+".submit", "%v", err)
		}
	}
	return call
}

func (b *builder) fields(at string, named map[string]string) map[string]vault.Field {
	fields := map[string]vault.Field{}
	for pointer, name := range named {
		i := slices.IndexFunc(forwardFields, func(f vault.Field) bool { return f.String() == name })
		if i < 0 {
			b.problem(at, "%q: want pan, cvc or account", pointer)
			continue
		}
		fields[pointer] = forwardFields[i]
	}
	return fields
}
