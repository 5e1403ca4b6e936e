package gateway

import (
	"cmp"
	"crypto/tls"
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
	tls *tls.Config
	mux *http.ServeMux
}

// proxied reports whether a connection from this address speaks the PROXY protocol.
func (l *listenerState) proxied(from net.Addr) bool {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
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
	index   int // of the first route that has it
	methods map[string]*endpoint
	allow   string
}

// compile resolves a configuration: every route has a listener, every path one owner, every operation an issuer.
func (g *Gateway) compile(c Config) (*state, error) {
	st := &state{config: c, limits: c.Limits.WithDefaults(), listeners: map[string]*listenerState{}, partners: map[string]*partnerState{}, bounds: map[*slots]int{}}
	st.bounds[g.slots.global] = st.limits.Concurrent
	for _, l := range c.Listeners {
		if _, ok := g.services.Addresses[l.Name]; !ok {
			return nil, fmt.Errorf("listener %q: a listener that was not there at the start needs a restart", l.Name)
		}
		ls := &listenerState{Listener: l, mux: http.NewServeMux()}
		switch {
		case len(l.Hosts) == 0:
			ls.tls = ServerTLS(l.Certificate, l.ClientCAs)
		case g.managed != nil:
			ls.tls = g.managed.config(l)
		default:
			return nil, fmt.Errorf("listener %q: certificates of hosts need a restart where there were none at the start", l.Name)
		}
		l.Revocations.guard(ls.tls, l.ClientCAs)
		st.listeners[l.Name] = ls
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
	paths := map[string]*path{}
	for i := range c.Routes {
		if err := g.compileRoute(st, i, &c.Routes[i], paths); err != nil {
			return nil, &RouteError{i, err}
		}
	}
	for name, l := range st.listeners {
		g.serveFiles(st, l)
		if beside := g.services.Beside[name]; beside != nil {
			l.mux.Handle("/demo/", beside)
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(paths)), func(key string) bool { return key == name+" /" }) {
			l.mux.HandleFunc("/", g.noRoute)
		}
		for _, key := range slices.Sorted(maps.Keys(paths)) { // so that of two that collide the same one is named
			p := paths[key]
			if on, pattern, _ := strings.Cut(key, " "); on == name {
				if err := register(l.mux, pattern, p); err != nil {
					return nil, &RouteError{p.index, err}
				}
			}
		}
	}
	return st, nil
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
			g.metrics.circuit(is.Name, is.open())
			g.metrics.egressBlocked.WithLabelValues(is.Name) // from zero, so that the first one shows as an increase
		}
	}
	g.metrics.certificates(st.config.Listeners)
}

func (g *Gateway) compileRoute(st *state, index int, r *Route, paths map[string]*path) error {
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
		if !rt.offers(e.Operations) || e.Certificate && l.ClientCAs == nil {
			continue
		}
		if err := rt.carries(e.Operations); err != nil {
			return fmt.Errorf("route %s on %s: %w", r.Name, r.Listener, err)
		}
		key := r.Listener + " " + e.Pattern
		p := paths[key]
		if p == nil {
			p = &path{g: g, st: st, l: l, index: index, methods: map[string]*endpoint{}}
			paths[key] = p
		}
		if other := p.methods[e.Method]; other != nil {
			return fmt.Errorf("route %s: %s %s on listener %s is served by route %s already", r.Name, e.Method, e.Pattern, r.Listener, other.route.Name)
		}
		p.methods[e.Method] = g.compileEndpoint(rt, e)
		p.allow = strings.Join(p.allowed(), ", ")
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

// retire ends what a replaced configuration holds on to. Exchanges that still run under it end undisturbed.
func (st *state) retire() {
	for i := range st.config.Routes {
		if is := st.config.Routes[i].Issuer; is != nil {
			is.retire()
		}
	}
}
