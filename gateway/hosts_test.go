package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
)

// The hosts of a street: one listener, public, whose callers need a certificate or none, by the name that they call.
const (
	apiHost    = "api.example.com"       // a certificate of the partners' CA
	otherHost  = "other.example.com"     // one of the neighbours' CA
	cardsHost  = "one.cards.example.com" // by a wildcard: one of the partners' CA
	namedHost  = "two.cards.example.com" // below the wildcard, with a route of its own
	publicHost = "public.example.com"    // none
	wwwHost    = "www.example.com"       // none
	noHost     = "nobody.example.com"    // of which no route and no CA is
)

var allHosts = []string{apiHost, otherHost, cardsHost, namedHost, publicHost, wwwHost, noHost}

// street is a house whose listener has many hosts.
type street struct {
	*house
	neighbours *authority
	neighbour  tls.Certificate // of gp-other
	asked      atomic.Int64    // requests that reached a probe
	mu         sync.Mutex
	seen       http.Header // of the last of them; guarded by mu
}

// probe is a face that says its own name at GET /who.
type probe struct {
	name string
	s    *street
}

func (p probe) Endpoints() []face.Endpoint {
	return []face.Endpoint{{Method: "GET", Pattern: "/who", Operations: []policy.Operation{policy.TokenMint}, Static: func(r *exchange.Request, out *exchange.Response) {
		p.s.asked.Add(1)
		p.s.mu.Lock()
		defer p.s.mu.Unlock()
		p.s.seen = r.Header.(http.Header).Clone()
		out.ContentType, out.Body = "text/plain", append(out.Body, p.name...)
	}}}
}

func (probe) Fail(kind exchange.Kind, _ exchange.Place, out *exchange.Response) {
	face.FailProblem(kind, out)
}

func newStreet(t testing.TB, change ...func(*street, *gateway.Config)) *street {
	s := &street{neighbours: newAuthority("neighbours")}
	s.neighbour = s.neighbours.client(otherName)
	list := demoPartners()
	list[1].CA = []policy.Fingerprint{policy.FingerprintOf(s.neighbours.certificate)}
	certificate := shared().servers.issue(ecKey(), &x509.Certificate{
		Subject: pkix.Name{CommonName: "street"}, DNSNames: []string{"localhost", "*.example.com", "*.cards.example.com", "*.a.example.com"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	who := func(name string, hosts ...string) gateway.Route {
		return gateway.Route{Listener: "public", Name: name, Face: probe{name, s}, Environment: "test", Hosts: hosts}
	}
	s.house = newHouse(t, options{partners: list, config: func(h *house, c *gateway.Config) {
		s.house = h
		public := &c.Listeners[1]
		public.Certificate = certificate
		public.HostClientCAs = map[string]*x509.CertPool{
			apiHost: shared().partners.pool(), "*.cards.example.com": shared().partners.pool(), otherHost: s.neighbours.pool(),
		}
		mint := c.Routes[0]
		mint.Listener, mint.Hosts = "public", []string{apiHost, "*.cards.example.com", "OTHER.example.com"}
		c.Routes = append(c.Routes[:1:1], mint, who("any"), who("public", publicHost), who("www", wwwHost), who("api", apiHost), who("other", otherHost),
			who("cards", "*.cards.example.com"), who("named", namedHost))
		for _, f := range change {
			f(s, c)
		}
	}})
	return s
}

// visit is a connection and a request on it.
type visit struct {
	sni, host   string // "" names none; the request's is then the address
	certificate *tls.Certificate
	http1       bool
	version     uint16 // of TLS; 1.3 where it is zero
	header      []string
}

// client makes a client of connections for a name. A certificate is sent whatever the server asks for.
func (s *street) client(v visit) *http.Client {
	c := &tls.Config{RootCAs: shared().servers.pool(), ServerName: v.sni, MinVersion: tls.VersionTLS12, MaxVersion: v.version}
	if v.certificate != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return v.certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: c, ForceAttemptHTTP2: !v.http1}
	if v.http1 {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func (s *street) send(c *http.Client, v visit, x call) (reply, error) {
	r, err := http.NewRequest(x.method, fmt.Sprintf("https://127.0.0.1:%d%s", s.port("public"), x.path), strings.NewReader(x.body))
	must(err)
	r.Host = v.host
	for i := 0; i+1 < len(x.header); i += 2 {
		r.Header[x.header[i]] = append(r.Header[x.header[i]], x.header[i+1])
	}
	answer, err := c.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, string(text), answer.Proto}, err
}

// mint mints on a connection of its own, who asks for the probe's name.
func (s *street) mint(v visit) (reply, error) { return s.send(s.client(v), v, mintCall("")) }

func (s *street) who(v visit) (reply, error) {
	return s.send(s.client(v), v, call{method: "GET", path: "/who", header: v.header})
}

// misdirected is the count of refusals for a reason.
func (s *street) misdirected(reason string) float64 {
	return s.metric("cardstile_misdirected_total", "listener", "public", "reason", reason)
}

// refuses makes a request in any way, and wants that it is answered so and that nothing came of it.
func (s *street) refuses(name string, status int, reason string, ask func() (reply, error)) {
	s.t.Helper()
	w := want{status: status, body: problem(status)}
	before, asked, count := s.snapshot(w), s.asked.Load(), s.misdirected(reason)
	r, err := ask()
	if err != nil {
		s.t.Errorf("%s: %v, want %d", name, err, status)
		return
	}
	s.compare(name, before, r, w)
	if s.asked.Load() != asked {
		s.t.Errorf("%s: it reached a face", name)
	}
	if got := s.misdirected(reason) - count; got != 1 {
		s.t.Errorf("%s: counted %v times as %s", name, got, reason)
	}
}

// TestHostAgrees: a request is for the host that its connection was made for, in whatever way that is written, and no other.
func TestHostAgrees(t *testing.T) {
	s := newStreet(t)
	port, partners := s.port("public"), s.port("partners")
	for _, http1 := range []bool{false, true} {
		for _, host := range []string{
			"api.example.com", "API.Example.COM", "api.example.com.", "api.example.com:443", "Api.example.com.:443", "api.example.com:",
			fmt.Sprintf("api.example.com:%d", port), "api.example.com:65535",
		} {
			r, err := s.mint(visit{sni: apiHost, host: host, certificate: &shared().partner, http1: http1})
			if err != nil || r.status != 200 {
				t.Errorf("%s: %d %s %v", host, r.status, r.body, err)
			}
		}
		for host, reason := range map[string]string{
			publicHost: "not_sni", otherHost: "not_sni", noHost: "not_sni", cardsHost: "not_sni", "com": "not_sni", "api.example.com.evil.example": "not_sni",
			"xapi.example.com": "not_sni", "example.com": "not_sni", "127.0.0.1": "not_sni", "[::1]": "not_sni", "api-example.com": "not_sni",
			fmt.Sprintf("api.example.com:%d", partners): "port", fmt.Sprintf("api.example.com:%d", s.gateway.Addr("admin").(*net.TCPAddr).Port): "port",
		} {
			v := visit{sni: apiHost, host: host, certificate: &shared().partner, http1: http1}
			s.refuses(host, 421, reason, func() (reply, error) { return s.mint(v) })
		}
	}
	if log := s.log.String(); strings.Contains(log, "evil.example") || strings.Count(log, `"request refused for its host"`) != 26 || !strings.Contains(log, `"reason":"not_sni","address":"127.0.0.1"`) {
		t.Errorf("%d lines in the log, with what a caller wrote: %t", strings.Count(log, `"request refused for its host"`), strings.Contains(log, "evil.example"))
	}
}

// TestSNICase: so it is with the name in the handshake.
func TestSNICase(t *testing.T) {
	s := newStreet(t)
	for _, sni := range []string{"API.EXAMPLE.COM", "api.Example.com"} {
		if r, err := s.mint(visit{sni: sni, host: apiHost, certificate: &shared().partner}); err != nil || r.status != 200 {
			t.Errorf("%s: %d %v", sni, r.status, err)
		}
		if r, err := s.mint(visit{sni: sni, host: apiHost, version: tls.VersionTLS12}); err == nil {
			t.Errorf("%s without a certificate: %d", sni, r.status)
		}
	}
}

// exchangeRaw sends bytes on a connection for a name and reads one answer of HTTP/1.
func (s *street) exchangeRaw(sni string, certificate *tls.Certificate, text string) (reply, error) {
	c := &tls.Config{RootCAs: shared().servers.pool(), ServerName: sni, NextProtos: []string{"http/1.1"}}
	if sni == "" {
		c.ServerName = "127.0.0.1" // which is not sent
	}
	if certificate != nil {
		c.Certificates = []tls.Certificate{*certificate}
	}
	conn, err := tls.Dial("tcp", s.gateway.Addr("public").String(), c)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	if _, err := io.WriteString(conn, strings.ReplaceAll(text, "\n", "\r\n")); err != nil {
		return reply{}, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return reply{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return reply{answer.StatusCode, answer.Header, string(body), answer.Proto}, err
}

// TestHostMalformed: what names no host, or one that readers could take for different ones, is refused.
func TestHostMalformed(t *testing.T) {
	s := newStreet(t)
	for _, host := range []string{
		"", ".", "..", "api.example.com..", ".api.example.com", "api..example.com", "api.example.com:0", "api.example.com:65536", "api.example.com:443:443",
		"api.example.com:https", "api.example.com:+443", "api%2eexample.com", "api.example.com,public.example.com", "[::1", "::1", "[fe80::1%25lo]",
		"[127.0.0.1]", "[::1]x", "127.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "127.0.0.256", "*.cards.example.com", strings.Repeat("a", 64) + ".example.com", strings.Repeat("a.", 127) + "example",
	} {
		s.refuses(host, 400, "malformed", func() (reply, error) {
			return s.exchangeRaw(apiHost, &shared().partner, "POST /api/v1/ephemeral-token HTTP/1.1\nHost: "+host+"\nContent-Type: application/json\nContent-Length: 0\n\n")
		})
	}
	s.refuses("none, of HTTP/1.0", 400, "malformed", func() (reply, error) {
		return s.exchangeRaw(apiHost, &shared().partner, "POST /api/v1/ephemeral-token HTTP/1.0\nContent-Type: application/json\nContent-Length: 0\n\n")
	})
	// These net/http refuses.
	before, asked := s.snapshot(want{}), s.asked.Load()
	for name, fields := range map[string]string{
		"none": "", "two": "Host: api.example.com\nHost: public.example.com\n", "twice the same": "Host: api.example.com\nHost: api.example.com\n",
		"a space in the port": "Host: api.example.com: 443\n", "a user": "Host: user@api.example.com\n",
		"not ASCII": "Host: b\xc3\xbccher.example\n", "a space": "Host: api.example.com public.example.com\n", "folded": "Host: api.example.com\n public.example.com\n",
		"a space before the colon": "Host : api.example.com\n", "a bare CR": "Host: api.example.com\rX: y\n", "NUL": "Host: api.example.com\x00\n",
	} {
		r, err := s.exchangeRaw(apiHost, &shared().partner, "POST /api/v1/ephemeral-token HTTP/1.1\n"+fields+"Content-Type: application/json\nContent-Length: 0\n\n")
		if err != nil || r.status != 400 {
			t.Errorf("%s: %d %s %v", name, r.status, r.body, err)
		}
	}
	if after := s.snapshot(want{}); after != before || s.asked.Load() != asked {
		t.Error("a request without one host left more than an answer")
	}
}

// TestAbsoluteForm: the authority of a target in absolute form is the request's host (RFC 9112 section 3.2.2), and judged as one.
func TestAbsoluteForm(t *testing.T) {
	s := newStreet(t)
	ask := func(sni, target, host string) func() (reply, error) {
		return func() (reply, error) {
			return s.exchangeRaw(sni, nil, "GET "+target+" HTTP/1.1\nHost: "+host+"\nConnection: close\n\n")
		}
	}
	for _, target := range []string{"https://public.example.com/who", "https://PUBLIC.example.com:443/who", "HTTPS://public.example.com./who"} {
		if r, err := ask(publicHost, target, publicHost)(); err != nil || r.status != 200 || r.body != "public" {
			t.Errorf("%s: %d %s %v", target, r.status, r.body, err)
		}
	}
	s.refuses("the target is another host's", 421, "not_sni", ask(publicHost, "https://www.example.com/who", publicHost))
	s.refuses("the target is one's that needs a certificate", 421, "not_sni", ask(publicHost, "https://api.example.com/who", publicHost))
	s.refuses("not for https", 421, "scheme", ask(publicHost, "http://public.example.com/who", publicHost))
	s.refuses("of another scheme", 421, "scheme", ask(publicHost, "ftp://public.example.com/who", publicHost))
	s.refuses("with a user", 400, "malformed", ask(publicHost, "https://public.example.com:x@/who", publicHost))
	// The field beside it does not choose the host: net/http leaves it out, as the RFC says.
	if r, err := ask(publicHost, "https://public.example.com/who", wwwHost)(); err != nil || r.body != "public" {
		t.Errorf("another Host field: %d %s %v", r.status, r.body, err)
	}
	if r, err := s.exchangeRaw(publicHost, nil, "CONNECT api.example.com:443 HTTP/1.1\nHost: public.example.com\n\n"); err != nil || r.status != 421 {
		t.Errorf("CONNECT: %d %v", r.status, err)
	}
	if r, err := s.exchangeRaw(publicHost, nil, "OPTIONS * HTTP/1.1\nHost: public.example.com\n\n"); err != nil || r.status != 404 {
		t.Errorf("OPTIONS *: %d %v", r.status, err)
	}
}

// TestByAddress: a connection that was made for no name reaches what is for no name, and nothing else.
func TestByAddress(t *testing.T) {
	s := newStreet(t)
	port := s.port("public")
	for _, host := range []string{"127.0.0.1", fmt.Sprintf("127.0.0.1:%d", port), "127.0.0.1.", "[::1]", fmt.Sprintf("[::1]:%d", port), "[::ffff:127.0.0.1]", noHost, "localhost"} {
		r, err := s.exchangeRaw("", nil, "GET /who HTTP/1.1\nHost: "+host+"\nConnection: close\n\n")
		if err != nil || r.status != 200 || r.body != "any" {
			t.Errorf("%s: %d %s %v", host, r.status, r.body, err)
		}
	}
	for _, host := range []string{apiHost, otherHost, cardsHost, namedHost, publicHost, wwwHost} {
		for _, certificate := range []*tls.Certificate{nil, &shared().partner} {
			s.refuses(host, 421, "no_sni", func() (reply, error) {
				return s.exchangeRaw("", certificate, "GET /who HTTP/1.1\nHost: "+host+"\nConnection: close\n\n")
			})
		}
	}

	// Where every route names a host, an address and a name of nobody reach nothing.
	s = newStreet(t, func(_ *street, c *gateway.Config) {
		c.Routes = slices.DeleteFunc(c.Routes, func(r gateway.Route) bool { return r.Listener == "public" && len(r.Hosts) == 0 })
	})
	s.refuses("an address", 421, "unknown", func() (reply, error) {
		return s.exchangeRaw("", nil, "GET /who HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n")
	})
	s.refuses("nobody's name", 421, "unknown", func() (reply, error) { return s.who(visit{sni: noHost, host: noHost}) })
}

// TestRoutesOfHosts: the route that names a host most closely has a path, and one that names none has what is left.
func TestRoutesOfHosts(t *testing.T) {
	routesOfHosts(t, newStreet(t))
	routesOfHosts(t, newStreet(t, func(_ *street, c *gateway.Config) { slices.Reverse(c.Routes) })) // their order says nothing
}

func routesOfHosts(t *testing.T, s *street) {
	t.Helper()
	k := shared()
	for _, http1 := range []bool{false, true} {
		for host, test := range map[string]struct {
			name        string
			certificate *tls.Certificate
		}{
			publicHost: {"public", nil}, wwwHost: {"www", nil}, noHost: {"any", nil}, "localhost": {"any", nil}, apiHost: {"api", &k.partner},
			cardsHost: {"cards", &k.partner}, namedHost: {"named", &k.partner}, "x.a.example.com": {"any", nil}, otherHost: {"other", &s.neighbour},
		} {
			r, err := s.who(visit{sni: host, host: host, certificate: test.certificate, http1: http1})
			if err != nil || r.status != 200 || r.body != test.name {
				t.Errorf("%s: %d %s %v, want %s", host, r.status, r.body, err, test.name)
			}
		}
	}
	// A wildcard is one label: the names above and below it are nobody's, and ask for no certificate.
	for _, host := range []string{"cards.example.com", "x.y.cards.example.com", "xcards.example.com"} {
		c := &tls.Config{InsecureSkipVerify: true, ServerName: host}
		conn, err := tls.Dial("tcp", s.gateway.Addr("public").String(), c)
		must(err)
		must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
		fmt.Fprintf(conn, "GET /who HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host)
		answer, err := io.ReadAll(conn)
		conn.Close()
		if err != nil || !bytes.HasSuffix(answer, []byte("any")) {
			t.Errorf("%s: %q %v", host, answer, err)
		}
	}
	// The path of a route that names its host is not there under another name.
	if r, err := s.mint(visit{sni: publicHost, host: publicHost}); err != nil || r.status != 404 {
		t.Errorf("mint at another host: %d %v", r.status, err)
	}
}

// TestHostClientCAs: each host takes the certificates of its own authorities, and none of another's.
func TestHostClientCAs(t *testing.T) {
	s := newStreet(t)
	k := shared()
	stranger := k.stranger.client(subject)
	certificates := map[string]*tls.Certificate{"none": nil, "the partners'": &k.partner, "the neighbours'": &s.neighbour, "a stranger's": &stranger}
	takes := map[string]string{apiHost: "the partners'", cardsHost: "the partners'", namedHost: "the partners'", otherHost: "the neighbours'"}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, host := range []string{apiHost, cardsHost, namedHost, otherHost} {
			for name, certificate := range certificates {
				r, err := s.mint(visit{sni: host, host: host, certificate: certificate, version: version})
				if ok := takes[host] == name; ok != (err == nil) || ok && r.status != 200 {
					t.Errorf("%s at %s, %s: %d %v", name, host, tls.VersionName(version), r.status, err)
				}
			}
		}
		for _, host := range []string{publicHost, noHost} {
			if r, err := s.who(visit{sni: host, host: host, certificate: certificates["a stranger's"], version: version}); err != nil || r.status != 200 {
				t.Errorf("%s asks for a certificate: %d %v", host, r.status, err)
			}
		}
	}
	for _, rec := range s.records() {
		if want := map[bool]string{true: "gp-other", false: partnerID}[rec.Certificate == fmt.Sprintf("%x", policy.FingerprintOf(s.neighbour.Leaf))]; rec.Partner != want {
			t.Errorf("recorded partner %q, want %s", rec.Partner, want)
		}
	}
}

// TestCoalescing: a connection that was made for one host serves no other, however much its certificate is for both, and goes on to
// serve its own (RFC 9113 section 9.1.2).
func TestCoalescing(t *testing.T) {
	s := newStreet(t)
	k := shared()
	for from, certificate := range map[string]*tls.Certificate{publicHost: nil, wwwHost: &k.partner, apiHost: &k.partner, otherHost: &s.neighbour, cardsHost: &k.partner, noHost: nil} {
		v := visit{sni: from, host: from, certificate: certificate}
		c := s.client(v)
		connections := s.metric("cardstile_handshakes_total", "listener", "public")
		for _, to := range append([]string{"three.cards.example.com", "somebody.example.com"}, allHosts...) { // some are one virtual host
			if to == from {
				continue
			}
			s.refuses(from+" for "+to, 421, "not_sni", func() (reply, error) {
				return s.send(c, visit{host: to}, call{method: "GET", path: "/who"})
			})
			if r, err := s.send(c, v, call{method: "GET", path: "/who"}); err != nil || r.status != 200 || r.proto != "HTTP/2.0" {
				t.Errorf("%s after %s: %d %v", from, to, r.status, err)
			}
		}
		if got := s.metric("cardstile_handshakes_total", "listener", "public") - connections; got != 1 {
			t.Errorf("%s: %v connections", from, got)
		}
	}
	if got := strings.Count(s.log.String(), `"request refused for its host"`); got != 6 {
		t.Errorf("%d lines in the log: want one for each connection", got)
	}
}

// frames speaks HTTP/2 by hand, for what no client would send: a request of these fields, in this order, and the body of its answer.
func (s *street) frames(sni string, certificate *tls.Certificate, fields ...string) (string, error) {
	c := &tls.Config{RootCAs: shared().servers.pool(), ServerName: sni, NextProtos: []string{"h2"}}
	if certificate != nil {
		c.Certificates = []tls.Certificate{*certificate}
	}
	conn, err := tls.Dial("tcp", s.gateway.Addr("public").String(), c)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	frame := func(kind, flags byte, stream uint32, payload []byte) []byte {
		b := []byte{0, byte(len(payload) >> 8), byte(len(payload)), kind, flags}
		return append(binary.BigEndian.AppendUint32(b, stream), payload...)
	}
	var block []byte // RFC 7541 section 6.2.2: literals, without indexing
	for _, text := range fields {
		name, value, _ := strings.Cut(text, "=")
		block = append(block, 0, byte(len(name)))
		block = append(append(append(block, name...), byte(len(value))), value...)
	}
	out := append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, nil)...)
	if _, err := conn.Write(append(out, frame(1, 0x5, 1, block)...)); err != nil { // END_STREAM, END_HEADERS
		return "", err
	}
	var body []byte
	for head := make([]byte, 9); ; {
		if _, err := io.ReadFull(conn, head); err != nil {
			return "", err
		}
		payload := make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
		if _, err := io.ReadFull(conn, payload); err != nil {
			return "", err
		}
		switch kind := head[3]; {
		case kind == 3 || kind == 7:
			return "", fmt.Errorf("frame of type %d: %x", kind, payload)
		case kind == 0:
			body = append(body, payload...)
		}
		if (head[3] == 0 || head[3] == 1) && head[4]&1 != 0 {
			return string(body), nil
		}
	}
}

// TestAuthority: of HTTP/2 there are two fields that can name a host, and they must be one.
func TestAuthority(t *testing.T) {
	s := newStreet(t)
	for _, test := range []struct {
		name   string
		fields []string
		want   string
		reason string
	}{
		{":authority", []string{":authority=public.example.com"}, "public", ""},
		{"Host", []string{"host=public.example.com"}, "public", ""},
		{"both", []string{":authority=public.example.com", "host=public.example.com"}, "public", ""},
		{"both, written differently", []string{":authority=PUBLIC.example.com", "host=public.example.com.:443"}, "public", ""},
		{"neither", nil, problem(400), "malformed"},
		{"another Host", []string{":authority=public.example.com", "host=www.example.com"}, problem(421), "differs"},
		{"another :authority", []string{":authority=www.example.com", "host=public.example.com"}, problem(421), "differs"},
		{"another port", []string{":authority=public.example.com", "host=public.example.com:8443"}, problem(421), "differs"},
		{"one that needs a certificate", []string{":authority=public.example.com", "host=api.example.com"}, problem(421), "differs"},
		{"both are others", []string{":authority=api.example.com", "host=api.example.com"}, problem(421), "not_sni"},
		{"two Host", []string{":authority=public.example.com", "host=public.example.com", "host=public.example.com"}, problem(400), "malformed"},
		{"two Host alone", []string{"host=public.example.com", "host=www.example.com"}, problem(400), "malformed"},
		{"Host that is none", []string{":authority=public.example.com", "host="}, problem(400), "malformed"},
		{":authority that is none", []string{":authority=public.example.com:x"}, problem(400), "malformed"},
		{":authority that is not ASCII", []string{":authority=b\xc3\xbccher.example"}, problem(400), "malformed"},
	} {
		count := s.misdirected(test.reason)
		got, err := s.frames(publicHost, nil, append([]string{":method=GET", ":scheme=https", ":path=/who"}, test.fields...)...)
		if err != nil || got != test.want {
			t.Errorf("%s: %q %v, want %q", test.name, got, err, test.want)
		}
		if test.reason != "" && s.misdirected(test.reason) != count+1 {
			t.Errorf("%s: not counted as %s", test.name, test.reason)
		}
	}
	for name, fields := range map[string][]string{
		"two :authority": {":authority=public.example.com", ":authority=www.example.com"}, "a user": {":authority=user@public.example.com"},
		":authority after a field": {"x=y", ":authority=public.example.com"},
	} {
		if got, err := s.frames(publicHost, nil, append([]string{":method=GET", ":scheme=https", ":path=/who"}, fields...)...); err == nil {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// oneTicket is a client's cache that offers its ticket to whatever host it calls.
type oneTicket struct {
	mu    sync.Mutex
	state *tls.ClientSessionState
}

func (o *oneTicket) Get(string) (*tls.ClientSessionState, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state, o.state != nil
}

func (o *oneTicket) Put(_ string, state *tls.ClientSessionState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = state
}

// resume connects for a name with what tickets there are. A certificate is sent whatever the server asks for.
func (s *street) resume(sni string, certificate *tls.Certificate, version uint16, cache tls.ClientSessionCache) (bool, reply, error) {
	c := &tls.Config{RootCAs: shared().servers.pool(), ServerName: sni, MinVersion: tls.VersionTLS12, MaxVersion: version, ClientSessionCache: cache}
	if certificate != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	conn, err := tls.Dial("tcp", s.gateway.Addr("public").String(), c)
	if err != nil {
		return false, reply{}, err
	}
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	fmt.Fprintf(conn, "GET /who HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", sni)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, reply{}, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return conn.ConnectionState().DidResume, reply{answer.StatusCode, answer.Header, string(body), answer.Proto}, err
}

// TestTicketsOfHosts: a ticket resumes at the host that gave it, and nowhere else; a host that requires certificates gives none.
func TestTicketsOfHosts(t *testing.T) {
	s := newStreet(t)
	k := shared()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, from := range []string{publicHost, noHost} {
			for _, to := range append(slices.Clone(allHosts), "other-name.example.com") {
				cache := &oneTicket{}
				if resumed, r, err := s.resume(from, nil, version, cache); resumed || err != nil || r.status != 200 {
					t.Fatalf("%s: %t %d %v", from, resumed, r.status, err)
				}
				if cache.state == nil {
					t.Fatalf("%s gives no ticket", from)
				}
				certificate := map[string]*tls.Certificate{apiHost: &k.partner, cardsHost: &k.partner, namedHost: &k.partner, otherHost: &s.neighbour}[to]
				resumed, r, err := s.resume(to, certificate, version, cache)
				if err != nil || r.status != 200 || resumed != (to == from) {
					t.Errorf("%s of %s at %s: resumed %t, %d %v", tls.VersionName(version), from, to, resumed, r.status, err)
				}
			}
		}
		for host, certificate := range map[string]*tls.Certificate{apiHost: &k.partner, otherHost: &s.neighbour, cardsHost: &k.partner} {
			cache := &oneTicket{}
			if _, _, err := s.resume(host, certificate, version, cache); err != nil || cache.state != nil {
				t.Errorf("%s, %s: a ticket %t, %v", host, tls.VersionName(version), cache.state != nil, err)
			}
		}
	}
}

// TestMissingClientCAs: a set of client CAs that is not there is no set: nothing is served on it, and what was in force stays.
func TestMissingClientCAs(t *testing.T) {
	s := newStreet(t)
	for name, change := range map[string]func(*gateway.Config){
		"none":             func(c *gateway.Config) { c.Listeners[1].HostClientCAs[apiHost] = nil },
		"none of wildcard": func(c *gateway.Config) { c.Listeners[1].HostClientCAs["*.cards.example.com"] = nil },
		"two":              func(c *gateway.Config) { c.Listeners[1].HostClientCAs["API.example.com"] = s.neighbours.pool() },
		"of an address":    func(c *gateway.Config) { c.Listeners[1].HostClientCAs["127.0.0.1"] = s.neighbours.pool() },
		"of everything":    func(c *gateway.Config) { c.Listeners[1].HostClientCAs["*"] = s.neighbours.pool() },
	} {
		c := s.newConfig()
		change(&c)
		if _, err := gateway.New(s.services, c); err == nil {
			t.Errorf("%s: it starts", name)
		}
		if err := s.gateway.Reload(c); err == nil {
			t.Errorf("%s: it is put in force", name)
		}
		if r, err := s.mint(visit{sni: apiHost, host: apiHost}); err == nil {
			t.Errorf("%s: no certificate, %d", name, r.status)
		}
		if r, err := s.mint(visit{sni: apiHost, host: apiHost, certificate: &shared().partner}); err != nil || r.status != 200 {
			t.Errorf("%s: the old configuration is gone: %d %v", name, r.status, err)
		}
	}
	// An empty set is a set: nobody is in it.
	c := s.newConfig()
	c.Listeners[1].HostClientCAs[apiHost] = x509.NewCertPool()
	must(s.gateway.Reload(c))
	for _, certificate := range []*tls.Certificate{nil, &shared().partner, &s.neighbour} {
		if r, err := s.mint(visit{sni: apiHost, host: apiHost, certificate: certificate}); err == nil {
			t.Errorf("nobody's CA: %d", r.status)
		}
	}
}

// TestReloadOfVirtualHosts: what a reload changes of a host reaches connections that are open.
func TestReloadOfVirtualHosts(t *testing.T) {
	s := newStreet(t)
	k := shared()
	partner, anybody := visit{sni: apiHost, host: apiHost, certificate: &k.partner}, visit{sni: publicHost, host: publicHost}
	pc, ac := s.client(partner), s.client(anybody)
	for c, v := range map[*http.Client]visit{pc: partner, ac: anybody} {
		if r, err := s.send(c, v, call{method: "GET", path: "/who"}); err != nil || r.status != 200 {
			t.Fatalf("%s: %d %v", v.host, r.status, err)
		}
	}
	s.o.config = func(next func(*house, *gateway.Config)) func(*house, *gateway.Config) {
		return func(h *house, c *gateway.Config) {
			next(h, c)
			c.Listeners[1].HostClientCAs[apiHost] = s.neighbours.pool()
			c.Listeners[1].HostClientCAs[publicHost] = k.partners.pool()
			c.Routes[1].Hosts = append(c.Routes[1].Hosts, publicHost)
		}
	}(s.o.config)
	must(s.gateway.Reload(s.newConfig()))
	for reason, test := range map[string]struct {
		c *http.Client
		v visit
	}{"certificate": {pc, partner}, "no_certificate": {ac, anybody}} {
		r, err := s.send(test.c, test.v, mintCall(""))
		if last := s.records()[len(s.records())-1]; err != nil || r.status != 403 || last.Reason != reason {
			t.Errorf("%s: %d %v, recorded %q", test.v.host, r.status, err, last.Reason)
		}
	}
}

// splitting is a connection whose first record, the ClientHello, is sent as others. RFC 8446 section 5.1 lets a handshake message
// stand in any number of records.
type splitting struct {
	net.Conn
	split func(hello []byte) [][]byte // what each record is to have of it
	once  bool
	slow  bool // every byte is written by itself
}

func (s *splitting) Write(b []byte) (int, error) {
	if s.once {
		return s.Conn.Write(b)
	}
	s.once = true
	const head = 5
	if int(binary.BigEndian.Uint16(b[3:])) != len(b)-head || b[0] != 22 {
		return 0, fmt.Errorf("the first write is no record: %x", b[:head])
	}
	var out []byte
	for _, part := range s.split(b[head:]) {
		out = append(append(out, b[0], b[1], b[2], byte(len(part)>>8), byte(len(part))), part...)
	}
	if !s.slow {
		_, err := s.Conn.Write(out)
		return len(b), err
	}
	for i := range out {
		if _, err := s.Conn.Write(out[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// fragmented asks who is there on a connection whose ClientHello is split.
func (s *street) fragmented(sni string, certificate *tls.Certificate, version uint16, slow bool, split func([]byte) [][]byte) (string, error) {
	raw, err := net.Dial("tcp", s.gateway.Addr("public").String())
	must(err)
	defer raw.Close()
	c := &tls.Config{RootCAs: shared().servers.pool(), ServerName: sni, MinVersion: version, MaxVersion: version, CurvePreferences: []tls.CurveID{tls.CurveP256}} // a short hello
	if certificate != nil {
		c.Certificates = []tls.Certificate{*certificate}
	}
	conn := tls.Client(&splitting{Conn: raw, split: split, slow: slow}, c)
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	if err := conn.HandshakeContext(context.Background()); err != nil {
		return "", err
	}
	fmt.Fprintf(conn, "GET /who HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", sni)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return string(body), err
}

// inTwo splits at a place, inOnes at every one.
func inTwo(at int) func([]byte) [][]byte {
	return func(hello []byte) [][]byte { return [][]byte{hello[:at], hello[at:]} }
}

func inOnes(hello []byte) (all [][]byte) {
	for i := range hello {
		all = append(all, hello[i:i+1])
	}
	return all
}

// TestFragmentedClientHello: however a ClientHello is cut into records and segments, its name counts, and the certificate that goes
// with the name is required.
func TestFragmentedClientHello(t *testing.T) {
	s := newStreet(t)
	k := shared()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		length := 0
		if _, err := s.fragmented(apiHost, &k.partner, version, false, func(hello []byte) [][]byte { length = len(hello); return [][]byte{hello} }); err != nil {
			t.Fatal(err)
		}
		named := 0
		for at := 1; at < length; at++ {
			split := func(hello []byte) [][]byte {
				if name := bytes.Index(hello, []byte(apiHost)); at < name {
					named++ // the name is whole, and in the second record
				}
				return inTwo(at)(hello)
			}
			if got, err := s.fragmented(apiHost, &k.partner, version, false, split); err != nil || got != "api" {
				t.Errorf("%s, cut at %d: %q %v", tls.VersionName(version), at, got, err)
			}
			if got, err := s.fragmented(apiHost, nil, version, false, inTwo(at)); err == nil {
				t.Errorf("%s, cut at %d, without a certificate: %q", tls.VersionName(version), at, got)
			}
		}
		if named < 20 {
			t.Errorf("the name was in the second record %d times", named)
		}
		for _, slow := range []bool{false, true} {
			if got, err := s.fragmented(apiHost, &k.partner, version, slow, inOnes); err != nil || got != "api" {
				t.Errorf("%s, a record for each byte: %q %v", tls.VersionName(version), got, err)
			}
			if got, err := s.fragmented(apiHost, nil, version, slow, inOnes); err == nil {
				t.Errorf("%s, a record for each byte, without a certificate: %q", tls.VersionName(version), got)
			}
			if got, err := s.fragmented(publicHost, nil, version, slow, inOnes); err != nil || got != "public" {
				t.Errorf("%s, a record for each byte, of a host without certificates: %q %v", tls.VersionName(version), got, err)
			}
		}
		// A name with a dot at its end is none (RFC 6066 section 3).
		dotted := func(hello []byte) [][]byte {
			return [][]byte{bytes.Replace(hello, []byte("api.example.com"), []byte("api.example.co."), 1)}
		}
		if got, err := s.fragmented(apiHost, nil, version, false, dotted); err == nil {
			t.Errorf("%s, a dot at the end: %q", tls.VersionName(version), got)
		}
	}
}

// TestHostPattern: names as a configuration has them.
func TestHostPattern(t *testing.T) {
	for text, want := range map[string]string{
		"api.example.com": "api.example.com", "API.Example.com": "api.example.com", "api.example.com.": "api.example.com", "localhost": "localhost",
		"*.cards.example.com": "*.cards.example.com", "*.Example.COM": "*.example.com", "xn--bcher-kva.example": "xn--bcher-kva.example", "a_b.example.com": "a_b.example.com",
	} {
		if got, err := gateway.HostPattern(text); err != nil || got != want {
			t.Errorf("%s: %q %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", ".", "*", "*.", "*.com", "**.example.com", "*.*.example.com", "a.*.example.com", "a*.example.com", "*a.example.com", "api.example.com:443", "api.example.com:8443", "api.example.com:",
		"https://api.example.com", "api.example.com/x", "b\u00fccher.example", "127.0.0.1", "[::1]", "::1", "*.0.0.1", "1", "a b", "user@example.com", " api.example.com",
	} {
		if got, err := gateway.HostPattern(text); err == nil {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// TestHostRoutesRefused: two routes for one path of one host are a mistake; for different hosts they are none.
func TestHostRoutesRefused(t *testing.T) {
	s := newStreet(t)
	for _, test := range []struct{ host, want string }{
		{publicHost, "route x: GET /who on listener public, host public.example.com, is served by route public already"},
		{"*.cards.example.com", "route x: GET /who on listener public, host *.cards.example.com, is served by route cards already"},
		{"", "route x: GET /who on listener public is served by route any already"},
		{"bad host", `host "bad host": want a name`},
		{"new.example.com", ""},
	} {
		c := s.newConfig()
		r := gateway.Route{Listener: "public", Name: "x", Face: probe{"x", s}, Environment: "test"}
		if test.host != "" {
			r.Hosts = []string{test.host}
		}
		c.Routes = append(c.Routes, r)
		err := s.gateway.Reload(c)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", test.host, err)
		}
	}
	if r, err := s.who(visit{sni: "new.example.com", host: "new.example.com"}); err != nil || r.body != "x" {
		t.Errorf("%s %v", r.body, err)
	}
	// The endpoint of a certificate is not there where none is asked for.
	c := s.newConfig()
	c.Routes[1].Hosts = []string{publicHost}
	if err := s.gateway.Reload(c); err == nil || !strings.Contains(err.Error(), "serves nothing there") {
		t.Errorf("a mint without certificates: %v", err)
	}
}

// TestRevokedAtHosts: the lists of a listener count at the hosts that have CAs of their own, in handshakes and on open connections.
func TestRevokedAtHosts(t *testing.T) {
	s := newStreet(t)
	k := shared()
	open := map[string]*http.Client{}
	visits := map[string]visit{apiHost: {sni: apiHost, host: apiHost, certificate: &k.partner}, otherHost: {sni: otherHost, host: otherHost, certificate: &s.neighbour}}
	for host, v := range visits {
		open[host] = s.client(v)
		if r, err := s.send(open[host], v, mintCall("")); err != nil || r.status != 200 {
			t.Fatalf("%s: %d %v", host, r.status, err)
		}
	}
	c := s.newConfig()
	c.Listeners[1].Revocations = heldAgainst([]*authority{k.partners, s.neighbours}, false, k.partners.revokes(nil), s.neighbours.revokes([]*x509.Certificate{s.neighbour.Leaf}))
	must(s.gateway.Reload(c))
	if r, err := s.mint(visits[apiHost]); err != nil || r.status != 200 {
		t.Errorf("a good one: %d %v", r.status, err)
	}
	if r, err := s.mint(visits[otherHost]); err == nil {
		t.Errorf("a revoked one: %d", r.status)
	}
	for host, want := range map[string]int{apiHost: 200, otherHost: 403} {
		if r, err := s.send(open[host], visits[host], mintCall("")); err != nil || r.status != want {
			t.Errorf("%s, open: %d %v", host, r.status, err)
		}
	}
}

// TestClientCAsOfManagedHosts: hosts whose certificates are obtained have client CAs of their own just the same.
func TestClientCAsOfManagedHosts(t *testing.T) {
	m := gateway.Managed{Directory: t.TempDir() + "/certificates"}
	h := newHouse(t, managed(&m, func(c *gateway.Config) {
		c.Listeners[1].Hosts = []string{other, host}
		c.Listeners[1].HostClientCAs = map[string]*x509.CertPool{host: shared().partners.pool()}
	}))
	roots := h.localRoots(m)
	h.awaited("public", other, roots)
	certificate := with(shared().partner)
	certificate.RootCAs, certificate.ServerName = roots, host
	eventually(t, "the host's certificate", func() bool { _, err := h.hello("public", certificate); return err == nil })
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if _, err := h.hello("public", &tls.Config{RootCAs: roots, ServerName: host, MinVersion: version, MaxVersion: version}); err == nil {
			t.Errorf("%s: a connection without a certificate", tls.VersionName(version))
		}
		if _, err := h.hello("public", &tls.Config{RootCAs: roots, ServerName: other, MinVersion: version, MaxVersion: version}); err != nil {
			t.Errorf("%s: the other host: %v", tls.VersionName(version), err)
		}
	}
}
