package gateway

import (
	"context"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"
)

// This file answers an authority that comes by HTTP (RFC 8555 section 8.3), and nobody else.

// listenHTTP opens the listener of ChallengeHTTP; nil where there is none.
func (g *Gateway) listenHTTP() (net.Listener, error) {
	if g.managed == nil || g.managed.c.ACME == nil || g.managed.c.ACME.Challenge != ChallengeHTTP {
		return nil, nil
	}
	return net.Listen("tcp", g.managed.c.ACME.HTTPAddress)
}

// keepCertificates begins to keep the certificates of hosts, and waits a little for those that are in the storage, so that a
// restart refuses nobody. opened are the listeners by name, web that of ChallengeHTTP.
func (g *Gateway) keepCertificates(opened map[string]net.Listener, web net.Listener) {
	if g.managed == nil {
		return
	}
	config := g.state.Load().config
	var alpn, at net.Addr
	for _, l := range config.Listeners {
		if len(l.Hosts) > 0 && alpn == nil {
			alpn = opened[l.Name].Addr()
		}
	}
	if web != nil {
		at = web.Addr()
		g.bound[ChallengeListener] = at
		g.services.Log.Info("listening", zap.String("listener", ChallengeListener), zap.Stringer("address", at))
		g.listeners = append(g.listeners, &listener{name: ChallengeListener, accepted: newFew(web)})
		g.servers = append(g.servers, g.newChallengeServer())
	}
	g.managed.start(alpn, at)
	select {
	case <-g.managed.keep(hosts(config.Listeners)):
	case <-time.After(loadTime):
	}
}

// Names of the listeners that no configuration names.
const (
	AdminListener     = "admin"   // the operators'
	ChallengeListener = "http-01" // that of ChallengeHTTP
)

// newChallengeServer answers challenges for our hosts that are under way, and 404 to everything else: it redirects nobody, since
// who came in clear has shown what they carry.
func (g *Gateway) newChallengeServer() *http.Server {
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Cache-Control"] = noStore
			k := g.managed.running.Load()
			if g.ours(r.Host) && k != nil && k.acme.HandleHTTPChallenge(w, r) {
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}),
		ReadTimeout:                  5 * time.Second,
		WriteTimeout:                 5 * time.Second,
		MaxHeaderBytes:               4 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     serverLog(g.services.Log, ChallengeListener),
		BaseContext:                  func(net.Listener) context.Context { return g.managed.ctx },
	}
	server.SetKeepAlivesEnabled(false)
	return server
}

// ours reports whether a Host header names one of our hosts: the storage is not asked for others.
func (g *Gateway) ours(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return host != "" && hostOf(hosts(g.state.Load().config.Listeners), host) != ""
}

// few accepts few connections at once. Each has 5 s for its request, and 5 s for its answer.
type few struct {
	net.Listener
	room chan struct{} // one element per connection that is open
}

func newFew(l net.Listener) *few { return &few{l, make(chan struct{}, 64)} }

// Accept implements net.Listener.
func (f *few) Accept() (net.Conn, error) {
	f.room <- struct{}{}
	c, err := f.Listener.Accept()
	if err != nil {
		<-f.room
		return nil, err
	}
	return &countedConn{Conn: c, leave: func() { <-f.room }}, nil
}
