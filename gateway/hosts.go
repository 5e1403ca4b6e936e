package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
)

// This file is which host is meant. A connection names one in its handshake (SNI), and its requests name one each; they must be
// the same, because the handshake is judged by the first and routes are found by the second.

// virtualHosts are all of a listener. Exact names come before wildcards, and those before any.
type virtualHosts struct {
	exact map[string]*virtualHost
	wild  map[string]*virtualHost // by what stands behind "*."
	any   *virtualHost

	greeted *greeted
}

// of returns the virtual host of a name in lower case, "" being a connection or request by address. A wildcard stands for exactly
// one label (RFC 9525 section 6.3).
func (hs *virtualHosts) of(name string) *virtualHost {
	if h := hs.exact[name]; h != nil {
		return h
	}
	if _, parent, ok := strings.Cut(name, "."); ok {
		if h := hs.wild[parent]; h != nil {
			return h
		}
	}
	return hs.any
}

// all returns every virtual host, in the order of their names.
func (hs *virtualHosts) all() []*virtualHost {
	all := []*virtualHost{hs.any}
	for _, h := range hs.exact {
		all = append(all, h)
	}
	for _, h := range hs.wild {
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b *virtualHost) int { return strings.Compare(a.name, b.name) })
	return all
}

// newHosts makes the virtual hosts of a listener: one for each name that a route or a set of client CAs is for, and one for
// everything else. None of them falls back on another's TLS: a set that is nil is an error. Fails closed.
func (g *Gateway) newHosts(l *Listener, routes []Route) (*virtualHosts, error) {
	cas := map[string]*x509.CertPool{}
	for text, pool := range l.HostClientCAs {
		name, err := HostPattern(text)
		switch {
		case err != nil:
			return nil, fmt.Errorf("listener %s: client CAs of host %q: %w", l.Name, text, err)
		case pool == nil:
			return nil, fmt.Errorf("listener %s: the client CAs of host %s are missing", l.Name, name)
		case cas[name] != nil:
			return nil, fmt.Errorf("listener %s: two sets of client CAs for host %s", l.Name, name)
		}
		cas[name] = pool
	}
	names := map[string]bool{}
	for name := range cas {
		names[name] = true
	}
	for i := range routes {
		if routes[i].Listener != l.Name {
			continue
		}
		for _, text := range routes[i].Hosts {
			name, err := HostPattern(text)
			if err != nil {
				return nil, &RouteError{i, fmt.Errorf("host %q: %w", text, err)}
			}
			names[name] = true
		}
	}
	if len(l.Hosts) > 0 && g.managed == nil {
		return nil, fmt.Errorf("listener %q: certificates of hosts need a restart where there were none at the start", l.Name)
	}
	hs := &virtualHosts{
		exact: map[string]*virtualHost{}, wild: map[string]*virtualHost{}, any: g.newVirtualHost(l, "", l.ClientCAs), greeted: newGreeted(),
	}
	for name := range names {
		pool := cas[name]
		_, parent, _ := strings.Cut(name, ".")
		if pool == nil {
			pool = cas["*."+parent]
		}
		if pool == nil {
			pool = l.ClientCAs
		}
		if strings.HasPrefix(name, "*.") {
			hs.wild[parent] = g.newVirtualHost(l, name, pool)
		} else {
			hs.exact[name] = g.newVirtualHost(l, name, pool)
		}
	}
	return hs, nil
}

// listenTLS is what a listener begins a handshake with: nothing but the choice of a virtual host's, by the name in the
// ClientHello as crypto/tls put it together, in however many records it came; or an authority's validation (see challenged).
func (hs *virtualHosts) listenTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if challenged := hs.any.tls.GetConfigForClient; challenged != nil {
				if c, err := challenged(hello); c != nil || err != nil {
					return c, err
				}
			}
			h := hs.of(sniName(hello.ServerName))
			if hs.greeted.has(hello.Conn.RemoteAddr(), time.Now()) {
				return h.quick, nil
			}
			return h.tls, nil
		},
	}
}

// bindTickets has session tickets resume only under the very configuration that gave them (their keys are its own, where
// crypto/tls would take those of the listener) and for the name that they were given to.
func bindTickets(c *tls.Config) {
	label := func(cs *tls.ConnectionState) string { return "cardstile host " + sniName(cs.ServerName) }
	c.WrapSession = func(cs tls.ConnectionState, ss *tls.SessionState) ([]byte, error) {
		ss.Extra = append(ss.Extra, []byte(label(&cs)))
		return c.EncryptTicket(cs, ss)
	}
	c.UnwrapSession = func(identity []byte, cs tls.ConnectionState) (*tls.SessionState, error) {
		ss, err := c.DecryptTicket(identity, cs)
		if err != nil || ss == nil || len(ss.Extra) != 1 || string(ss.Extra[0]) != label(&cs) {
			return nil, err // nil and nil: a full handshake
		}
		return ss, nil
	}
}

// sniName is a name of a ClientHello as hosts are looked up: in lower case, and "" where it is an address, which is none (RFC 6066
// section 3). crypto/tls refuses one with a dot at its end. What is no name matches no request's.
func sniName(name string) string {
	if _, err := netip.ParseAddr(name); err == nil {
		return ""
	}
	return strings.ToLower(name)
}

// HostPattern reads the name of a host in a configuration: in ASCII (of an internationalised name its A-labels), in any case, with
// "*." in front for every name that has one label more. Addresses are none: a connection by address names no host.
func HostPattern(text string) (string, error) {
	name, wild := strings.CutPrefix(text, "*.")
	a, ok := parseAuthority(name)
	switch {
	case strings.ContainsFunc(text, func(r rune) bool { return r > 0x7e }):
		return "", errors.New("want A-labels, as in xn--bcher-kva.example")
	case ok && a.address.IsValid():
		return "", errors.New("an address: connections by address name no host")
	case !ok || a.port != defaultPort || strings.Contains(name, ":"):
		return "", errors.New("want a name, as in api.example.com or *.cards.example.com")
	case wild && !strings.Contains(a.name, "."):
		return "", errors.New("a wildcard needs two labels behind it, as in *.cards.example.com")
	case wild:
		return "*." + a.name, nil
	}
	return a.name, nil
}

// authority is whom a request is for (RFC 3986 section 3.2): a name in lower case or an address, and a port. Two that mean the
// same are equal.
type authority struct {
	name    string // "" where address is valid
	address netip.Addr
	port    uint16
}

const defaultPort = 443 // RFC 9110 section 4.2.2

// parseAuthority reads a Host field or an :authority. It fails where there is no host, something besides host and port, or a host
// that readers could take for different ones: an address in another notation than RFC 3986's, a name that is not ASCII.
func parseAuthority(text string) (a authority, ok bool) {
	host, port := text, ""
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host, port = text[:i], text[i+1:]
	}
	a.port = defaultPort
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return authority{}, false
		}
		a.port = uint16(n)
	}
	if inner, is := strings.CutPrefix(host, "["); is {
		inner, closed := strings.CutSuffix(inner, "]")
		address, err := netip.ParseAddr(inner)
		a.address = address.Unmap()
		return a, closed && err == nil && address.Is6() && address.Zone() == ""
	}
	if a.name, ok = domainName(host); !ok {
		return authority{}, false
	}
	if last := a.name[strings.LastIndexByte(a.name, '.')+1:]; number(last) {
		address, err := netip.ParseAddr(a.name)
		a.name, a.address = "", address
		return a, err == nil && address.Is4()
	}
	return a, true
}

// number reports whether a name's last label makes it an IPv4 address for readers of URLs (URL Standard, "ends in a number").
func number(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	for _, c := range []byte(digits) {
		if (c < '0' || c > '9') && (!hex || c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// domainName reads a name of labels (RFC 1123 section 2.1, and underscores, which are in use), with one dot at its end or none.
func domainName(text string) (string, bool) {
	text = strings.TrimSuffix(text, ".")
	if text == "" || len(text) > 253 {
		return "", false
	}
	label, upper := 0, false
	for _, c := range []byte(text) {
		switch {
		case c == '.' && label > 0:
			label = 0
			continue
		case 'A' <= c && c <= 'Z':
			upper = true
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return "", false
		}
		if label++; label > 63 {
			return "", false
		}
	}
	if upper {
		text = strings.ToLower(text)
	}
	return text, label > 0
}

// connection is what is known of one connection since its handshake.
type connection struct {
	peer *peer       // nil without a certificate
	name string      // that it was made for, "" by address
	told atomic.Bool // whether the log has a line about requests that were refused for their host
}

type connectionKey struct{}

func newConnection(cs *tls.ConnectionState) *connection {
	return &connection{peer: newPeer(cs), name: sniName(cs.ServerName)}
}

func connectionOf(r *http.Request) *connection {
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	return c
}

// Why a request is refused for its host: a closed set. Of malformed the status is 400, of the others 421.
const (
	hostMalformed = "malformed" // it names none, several, or something that is no host
	hostDiffers   = "differs"   // its names are not all the same
	hostScheme    = "scheme"    // it is not for https
	hostPort      = "port"      // it is for another listener's port
	hostNotSNI    = "not_sni"   // the connection was made for another name
	hostNoSNI     = "no_sni"    // the connection was made for no name, and the request's is one that routes or client CAs are for
	hostUnknown   = "unknown"   // nothing is served under that name
)

var hostRefusals = []string{hostMalformed, hostDiffers, hostScheme, hostPort, hostNotSNI, hostNoSNI, hostUnknown}

// find returns the virtual host that a request is for, or why it is refused. Every name that it has counts: the connection's, Host
// or :authority, Host beside :authority, and that of a target in absolute form, which net/http puts in Host's place (RFC 9112
// section 3.2.2); the Host field beside such a target it leaves out, and nobody reads it. Fails closed.
func (g *Gateway) find(l *listenerState, r *http.Request, c *connection) (h *virtualHost, refused string) {
	a, ok := parseAuthority(r.Host)
	if !ok || c == nil || r.URL.User != nil {
		return nil, hostMalformed
	}
	if beside, is := r.Header["Host"]; is { // HTTP/2 alone: net/http takes that of HTTP/1.1 out
		switch other, ok := parseAuthority(beside[0]); {
		case !ok || len(beside) > 1:
			return nil, hostMalformed
		case other != a:
			return nil, hostDiffers
		}
	}
	if r.URL.Scheme != "" && r.URL.Scheme != "https" {
		return nil, hostScheme
	}
	if g.elsewhere(l.Name, a.port) {
		return nil, hostPort
	}
	h = l.hosts.of(a.name)
	switch {
	case c.name != "" && c.name != a.name:
		return nil, hostNotSNI
	case c.name == "" && h != l.hosts.any:
		return nil, hostNoSNI
	case !h.serves:
		return nil, hostUnknown
	}
	return h, ""
}

// elsewhere reports whether a port is that of another listener of ours. Others are not told apart: where ports are mapped, callers
// name one that we do not know.
func (g *Gateway) elsewhere(name string, port uint16) bool {
	if port == defaultPort || portOf(g.bound[name]) == port {
		return false
	}
	for other, address := range g.bound {
		if other != name && portOf(address) == port {
			return true
		}
	}
	return false
}

func portOf(a net.Addr) uint16 {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return 0
	}
	return uint16(tcp.Port)
}

// misdirected refuses a request for its host (RFC 9110 section 15.5.20), before anything of it is read. A client that used the
// connection for a second host, as HTTP/2 allows, makes one of its own (RFC 9113 section 9.1.2). What the request named is not
// repeated, here or in the log.
func (g *Gateway) misdirected(w http.ResponseWriter, r *http.Request, listener, reason string) {
	g.metrics.misdirected.WithLabelValues(listener, reason).Inc()
	if c := connectionOf(r); c != nil && c.told.CompareAndSwap(false, true) {
		g.services.Log.Warn("request refused for its host", zap.String("listener", listener), zap.String("reason", reason),
			zap.Stringer("address", addrPort(r.RemoteAddr)))
	}
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close") // what is left of the body is not read
	}
	if reason == hostMalformed {
		g.answer(w, exchange.BadRequest)
		return
	}
	var out exchange.Response
	face.FailMisdirected(&out)
	writeResponse(w, newID(), &out)
}

// Ranks of a route on a virtual host.
const (
	rankNone  = iota // it is for other hosts
	rankAny          // it names no host
	rankWild         // it names a wildcard
	rankExact        // it names the host
)

// rank is how closely a route names a virtual host. Of two with one path the closer one has it.
func (r *Route) rank(host string) int {
	if len(r.Hosts) == 0 {
		return rankAny
	}
	best := rankNone
	_, parent, _ := strings.Cut(host, ".")
	for _, text := range r.Hosts {
		switch name, _ := HostPattern(text); {
		case host == "" || name == "":
		case name == host:
			return rankExact
		case name == "*."+parent && !strings.HasPrefix(host, "*."):
			best = rankWild
		}
	}
	return best
}
