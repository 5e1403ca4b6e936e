package gateway

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// state is one configuration, compiled. It is replaced as a whole and never changed.
type state struct {
	config    Config
	limits    Limits
	listeners map[string]*listenerState
	partners  map[string]*partnerState

	certificates *credential.Certificates
	revoking     []*clientTrust // those who hold certificates against revocations, each once
	bounds       map[*slots]int // of what is in flight, once this configuration is in force
}

// partnerState is what an exchange needs to know of its partner's share.
type partnerState struct {
	slots  *slots       // in-flight exchanges
	rate   policy.Rate  // zero is no limit
	digest store.Digest // where the rate is counted
	pages  store.Digest // and that of its customers' pages
}

// listenerState is what one configuration says of a listener.
type listenerState struct {
	Listener
	hosts *virtualHosts
	tls   *tls.Config
}

// virtualHost is what a listener is under one name: whose certificates its callers must have, and what it serves.
type virtualHost struct {
	Listener        // with the client CAs of this name
	name     string // api.example.com, *.cards.example.com, or "" for what no other one is named
	tls      *tls.Config
	quick    *tls.Config  // for callers that have been greeted
	trust    *clientTrust // nil where no client certificate is asked for
	mux      *http.ServeMux
	paths    map[string]*path // by pattern
	serves   bool             // whether anything is there
}

func (g *Gateway) newVirtualHost(l *Listener, name string, clientCAs *x509.CertPool) *virtualHost {
	h := &virtualHost{Listener: *l, name: name, tls: ServerTLS(l.Certificate, clientCAs), mux: http.NewServeMux(), paths: map[string]*path{}}
	h.ClientCAs = clientCAs
	if len(l.Hosts) > 0 {
		h.tls = g.managed.config(h.Listener)
	}
	h.quick = h.tls
	if clientCAs != nil {
		h.trust = newClientTrust(clientCAs, l.Revocations, g.services.Now)
		h.tls, h.quick = h.trust.guard(h.tls)
	}
	bindTickets(h.tls)
	if h.quick != h.tls {
		bindTickets(h.quick)
	}
	return h
}

// proxied reports whether a connection from this address speaks the PROXY protocol.
func (l *listenerState) proxied(from net.Addr) bool {
	ip := hostAddr(from).WithZone("")
	return slices.ContainsFunc(l.ProxyProtocol, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// route is a Route with what its exchanges need at hand.
type route struct {
	Route
	issuer   *slots // in-flight exchanges at the issuer
	software bool   // whether its PINs are handled in software
	clear    bool   // whether its clients' leg is in clear
}

// endpoint is one method of one path on one route, with its metrics resolved.
type endpoint struct {
	face.Endpoint
	route   *route
	counted map[policy.Operation]*counted // by the operation that an exchange begins with
	names   []string                      // of the operations, for the audit event
}

// counted are the metrics of what an endpoint does.
type counted struct {
	outcomes [len(outcomeKinds)]prometheus.Counter // by failure kind
	done     prometheus.Counter
	duration prometheus.Observer
}

// usual are the metrics of exchanges of which nothing more is known.
func (ep *endpoint) usual() *counted { return ep.counted[ep.Operations[0]] }

// path is all methods of one pattern.
type path struct {
	g       *Gateway
	st      *state
	l       *listenerState
	host    *virtualHost
	index   int // of the first route that has it
	methods map[string]*endpoint
	ranks   map[string]int // of the methods' routes
	allow   string
}

// compile resolves a configuration: every route has a listener, every path one owner, every operation an issuer.
func (g *Gateway) compile(c Config) (*state, error) {
	st := &state{config: c, limits: c.Limits.WithDefaults(), listeners: map[string]*listenerState{}, partners: map[string]*partnerState{}, bounds: map[*slots]int{}}
	st.bounds[g.slots.global] = st.limits.Concurrent
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if _, ok := g.services.Addresses[l.Name]; !ok {
			return nil, fmt.Errorf("listener %q: a listener that was not there at the start needs a restart", l.Name)
		}
		hosts, err := g.newHosts(l, c.Routes)
		if err != nil {
			return nil, err
		}
		st.listeners[l.Name] = &listenerState{Listener: *l, hosts: hosts, tls: hosts.listenTLS()}
	}
	for _, p := range c.Partners.All() {
		known := &partnerState{slots: g.slots.partner(p.ID), rate: p.Rate, digest: limitDigest(c.CardDigest, "partner", p.ID), pages: limitDigest(c.CardDigest, "partner pages", p.ID)}
		if known.rate.IsZero() {
			known.rate = st.limits.Partner
		}
		st.partners[p.ID] = known
		st.bounds[known.slots] = cmp.Or(p.MaxConcurrent, st.limits.ConcurrentPerPartner)
	}
	var err error
	if st.certificates, err = credential.NewCertificates(credential.CertificatesConfig{Partners: c.Partners}); err != nil {
		return nil, err
	}
	for i := range c.Routes {
		if err := g.compileRoute(st, i, &c.Routes[i]); err != nil {
			return nil, &RouteError{i, err}
		}
	}
	for _, l := range st.listeners {
		for _, h := range l.hosts.all() {
			if err := g.serveHost(st, l, h); err != nil {
				return nil, err
			}
			st.revokes(h.trust)
		}
	}
	return st, nil
}

// serveHost puts on a virtual host what it serves.
func (g *Gateway) serveHost(st *state, l *listenerState, h *virtualHost) error {
	g.serveFiles(st, l, h)
	beside := g.services.Beside[l.Name]
	if beside != nil {
		h.mux.Handle("/demo/", beside)
	}
	h.serves = beside != nil || len(h.paths) > 0
	if h.paths["/"] == nil {
		h.mux.HandleFunc("/", g.noRoute)
	}
	for _, pattern := range slices.Sorted(maps.Keys(h.paths)) { // so that of two that collide the same one is named
		p := h.paths[pattern]
		if err := register(h.mux, pattern, p); err != nil {
			return &RouteError{p.index, err}
		}
	}
	return nil
}

// register puts a path on a listener, and the same with a slash at its end: some clients add one, and a redirect would break
// them. Paths that a request could match alike are an error.
func register(mux *http.ServeMux, pattern string, p *path) (err error) {
	defer func() {
		if conflict := recover(); conflict != nil { // ServeMux panics, with both patterns in its words
			err = fmt.Errorf("path %s cannot be told apart from another one", pattern)
		}
	}()
	mux.Handle(pattern, p)
	if !strings.HasSuffix(pattern, "/") && !strings.HasSuffix(pattern, "/{$}") && !strings.HasSuffix(pattern, "...}") {
		mux.Handle(pattern+"/{$}", p)
	}
	return nil
}

// enforce puts in force what lies outside a state and outlives it: bounds and gauges.
func (g *Gateway) enforce(st *state) {
	for s, max := range st.bounds {
		s.max.Store(int64(max))
	}
	for i := range st.config.Routes {
		if is := st.config.Routes[i].Issuer; is != nil {
			g.metrics.egressBlocked.WithLabelValues(is.Name) // from zero, so that the first one shows as an increase
		}
	}
	g.circuits(st)
	for name := range st.listeners {
		for _, reason := range hostRefusals {
			g.metrics.misdirected.WithLabelValues(name, reason)
		}
		g.metrics.claims.WithLabelValues(name)
	}
	g.metrics.certificates(st.config)
}

func (g *Gateway) compileRoute(st *state, index int, r *Route) error {
	l := st.listeners[r.Listener]
	if l == nil {
		return fmt.Errorf("route %s: unknown listener %q", r.Name, r.Listener)
	}
	rt := &route{Route: *r, software: r.PIN == face.PINSoftware, clear: r.ClientKeys != nil && r.ClientKeys.InClear()}
	if r.Issuer != nil {
		rt.issuer = g.slots.issuer(r.Issuer.Name)
		st.bounds[rt.issuer] = r.Issuer.concurrent(st.limits)
	}
	if r.Partner != "" && st.partners[r.Partner] == nil {
		return fmt.Errorf("route %s: unknown partner %q", r.Name, r.Partner)
	}
	var served []policy.Operation
	for _, e := range r.Face.Endpoints() {
		if !rt.offers(e.Operations) {
			continue
		}
		on := slices.DeleteFunc(l.hosts.all(), func(h *virtualHost) bool { return e.Certificate && h.ClientCAs == nil || r.rank(h.name) == rankNone })
		if len(on) == 0 {
			continue
		}
		if err := rt.carries(e.Operations); err != nil {
			return fmt.Errorf("route %s on %s: %w", r.Name, r.Listener, err)
		}
		ep := g.compileEndpoint(rt, e)
		for _, h := range on {
			p := h.paths[e.Pattern]
			if p == nil {
				p = &path{g: g, st: st, l: l, host: h, index: index, methods: map[string]*endpoint{}, ranks: map[string]int{}}
				h.paths[e.Pattern] = p
			}
			if err := p.put(ep, r.rank(h.name)); err != nil {
				return err
			}
		}
		served = append(served, e.Operations...)
	}
	if err := rt.lacks(served); err != nil {
		return fmt.Errorf("route %s on %s: %w", r.Name, r.Listener, err)
	}
	if r.Issuer != nil && len(served) > 0 && len(rt.Operations) == 0 && !slices.ContainsFunc(served, r.Issuer.Adapter.Serves) {
		return fmt.Errorf("route %s on %s: issuer %s can do nothing that the face asks for there", r.Name, r.Listener, r.Issuer.Name)
	}
	if len(served) == 0 {
		return fmt.Errorf("route %s on %s: serves nothing there (operations, session_key and the listener's client_ca decide what)", r.Name, r.Listener)
	}
	return nil
}

// put gives a method of the path to an endpoint, unless that of a route that names the host more closely has it.
func (p *path) put(ep *endpoint, rank int) error {
	switch other := p.methods[ep.Method]; {
	case other != nil && p.ranks[ep.Method] == rank:
		on := p.l.Name
		if p.host.name != "" {
			on += ", host " + p.host.name + ","
		}
		return fmt.Errorf("route %s: %s %s on listener %s is served by route %s already", ep.route.Name, ep.Method, ep.Pattern, on, other.route.Name)
	case other != nil && p.ranks[ep.Method] > rank:
		return nil
	}
	p.methods[ep.Method], p.ranks[ep.Method] = ep, rank
	p.allow = strings.Join(p.allowed(), ", ")
	return nil
}

func (p *path) allowed() []string {
	methods := make([]string, 0, len(p.methods))
	for m := range p.methods {
		methods = append(methods, m)
	}
	slices.Sort(methods)
	return methods
}

// offers reports whether the route's own list has the endpoint's operations; an empty list has all.
func (rt *route) offers(operations []policy.Operation) bool {
	if len(rt.Operations) == 0 {
		return true
	}
	return !slices.ContainsFunc(operations, func(op policy.Operation) bool { return !slices.Contains(rt.Operations, op) })
}

// lacks reports what the route's own list names and its issuer cannot do: a face leaves such operations out by itself, and who
// named one would wait for it in vain.
func (rt *route) lacks(served []policy.Operation) error {
	for _, op := range rt.Operations {
		if slices.Contains(served, op) {
			continue
		}
		if err := rt.carries([]policy.Operation{op}); err != nil {
			return err
		}
	}
	return nil
}

// carries reports why the route's issuer cannot do the operations.
func (rt *route) carries(operations []policy.Operation) error {
	for _, op := range operations {
		if op.Mints() || own(op) {
			continue
		}
		if rt.Issuer == nil {
			return fmt.Errorf("%s needs an issuer", op)
		}
		if !rt.Issuer.Adapter.Serves(op) {
			return fmt.Errorf("issuer %s cannot do %s", rt.Issuer.Name, op)
		}
	}
	return nil
}

func (g *Gateway) compileEndpoint(rt *route, e face.Endpoint) *endpoint {
	ep := &endpoint{Endpoint: e, route: rt, counted: make(map[policy.Operation]*counted, len(e.Operations))}
	if ep.Status == 0 {
		ep.Status = http.StatusOK
	}
	if ep.Fail == nil {
		ep.Fail = rt.Face.Fail
	}
	for _, op := range e.Operations {
		ep.counted[op] = g.metrics.counted(rt.Name, string(op))
	}
	if e.CORS != nil {
		g.metrics.preflights.WithLabelValues(rt.Name, "allowed")
		g.metrics.preflights.WithLabelValues(rt.Name, "refused")
	}
	if e.Idempotency != nil {
		g.metrics.replayed.WithLabelValues(rt.Name, string(e.Operations[0]))
	}
	ep.names = nameAll(e.Operations)
	return ep
}

// circuits tells of those of a configuration.
func (g *Gateway) circuits(st *state) {
	for i := range st.config.Routes {
		if is := st.config.Routes[i].Issuer; is != nil {
			g.metrics.circuit(is.Name, is.open())
		}
	}
}

// forget drops what is kept of issuers and partners that a new configuration does not name. Counters stay, as counters do.
func (g *Gateway) forget(old, st *state) {
	g.slots.keep(st.bounds)
	for i := range old.config.Routes {
		if is := old.config.Routes[i].Issuer; is != nil {
			g.metrics.issuerCircuit.DeleteLabelValues(is.Name)
		}
	}
	g.circuits(st)
}

// retire ends what a replaced configuration holds on to. Exchanges that still run under it end undisturbed.
func (st *state) retire() {
	for i := range st.config.Routes {
		if is := st.config.Routes[i].Issuer; is != nil {
			is.retire()
		}
	}
}
