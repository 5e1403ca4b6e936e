package gateway

import (
	"net/http"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
)

// This file is CORS (Fetch Standard, section 3.2): which pages of other origins may call, and read what they are answered.
// Lists are exact; what is not on them gets no header of CORS, so that browsers keep the answer from the page.

// maxPreflightAge is how long a browser may remember a preflight's answer, in seconds.
const maxPreflightAge = "600"

// allows reports whether pages of an origin may call an endpoint, and under which name they are told so.
func (ep *endpoint) allows(origin string) (name string, ok bool) {
	switch {
	case ep.CORS == nil || origin == "":
		return "", false
	case ep.CORS.AnyOrigin:
		return "*", true
	}
	return origin, slices.Contains(ep.route.Origins, origin)
}

// cors sets the headers that let the page read the answer. An answer that depends on the origin says so, whatever it was.
func (ep *endpoint) cors(h http.Header, origin string) {
	if ep.CORS == nil {
		return
	}
	if !ep.CORS.AnyOrigin {
		h["Vary"] = varyOrigin
	}
	name, ok := ep.allows(origin)
	if !ok {
		return
	}
	h["Access-Control-Allow-Origin"] = []string{name}
	if ep.CORS.Credentials {
		h["Access-Control-Allow-Credentials"] = trueOnly
	}
	if len(ep.CORS.Expose) > 0 {
		h["Access-Control-Expose-Headers"] = []string{strings.Join(ep.CORS.Expose, ", ")}
	}
}

var (
	varyOrigin = []string{"Origin"}
	trueOnly   = []string{"true"}
)

// preflight answers a browser that asks whether a page may make a call. It is no exchange: nothing is proven, spent or
// recorded. It reports false where the request is no preflight, or nothing here is for browsers.
func (p *path) preflight(w http.ResponseWriter, r *http.Request, id string) bool {
	origin, wanted := one(r.Header, "Origin"), one(r.Header, "Access-Control-Request-Method")
	if r.Method != http.MethodOptions || origin == "" || wanted == "" {
		return false
	}
	ep := p.methods[wanted]
	if ep == nil {
		ep = p.any()
	}
	if ep.CORS == nil {
		return false
	}
	out := exchange.Response{}
	if _, ok := ep.allows(origin); !ok || p.methods[wanted] == nil {
		ep.Fail(exchange.Forbidden, exchange.Place{}, &out)
		w.Header()["Vary"] = varyOrigin
		p.g.metrics.preflights.WithLabelValues(ep.route.Name, "refused").Inc()
		writeResponse(w, id, &out)
		return true
	}
	h := w.Header()
	ep.cors(h, origin)
	h["Access-Control-Allow-Methods"] = []string{p.allow}
	if len(ep.CORS.Headers) > 0 {
		h["Access-Control-Allow-Headers"] = []string{strings.Join(ep.CORS.Headers, ", ")}
	}
	h["Access-Control-Max-Age"] = []string{maxPreflightAge}
	out.Status = http.StatusNoContent
	p.g.metrics.preflights.WithLabelValues(ep.route.Name, "allowed").Inc()
	writeResponse(w, id, &out)
	return true
}

// one is the only value of a header, "" where there is none or more than one.
func one(h http.Header, name string) string {
	if v := h.Values(name); len(v) == 1 {
		return v[0]
	}
	return ""
}

// origin refuses what changes or mints something with a cookie that a browser added, for a page that is not on the list [21].
// A request without Origin comes from no page.
func (x *running) origin(call *exchange.Call) error {
	ep := x.ep
	if ep.CORS == nil || !ep.CORS.Credentials || len(x.request.Header.Values("Origin")) == 0 {
		return nil
	}
	if _, ok := ep.allows(x.request.Origin); ok {
		return nil
	}
	if x.request.Method == http.MethodGet && !slices.ContainsFunc(call.Operations, policy.Operation.Mints) {
		return nil // the page will not get to read it
	}
	return exchange.Fail(exchange.Forbidden, "origin")
}
