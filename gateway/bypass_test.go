package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
)

// This file has one test for each published way around client certificates that gateways of this kind have had, under the name by
// which it was published. Each says in a line what was wrong there, and shows that it does not work here.

// openStreet is a street of which it is known that good certificates open it: all that is refused afterwards is held against that.
func openStreet(t *testing.T, change ...func(*street, *gateway.Config)) *street {
	t.Helper()
	s := newStreet(t, change...)
	s.opens()
	return s
}

// opens is what any refusal is held against: clients made in the same way get in where they should.
func (s *street) opens() {
	s.t.Helper()
	visit{sni: apiHost, host: apiHost, certificate: &shared().partner}.each(func(v visit) {
		if err := s.shakes(v); err != nil {
			s.t.Fatalf("a good certificate, %s: %v", tls.VersionName(v.version), err)
		}
		if r, err := s.who(v); err != nil || r.status != 200 || r.body != "api" {
			s.t.Fatalf("a good certificate, %s: %d %s %v", tls.VersionName(v.version), r.status, r.body, err)
		}
	})
}

// each tries it over both protocols and versions.
func (v visit) each(try func(visit)) {
	for _, v.http1 = range []bool{false, true} {
		for _, v.version = range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			try(v)
		}
	}
}

// aside is a client that wants to get past the certificate of a host on a connection for another, which is good for that one: it is
// answered 421, and nothing comes of it.
func (s *street) aside(name string, v visit) {
	s.t.Helper()
	c := s.client(v)
	if r, err := s.send(c, visit{host: v.sni}, call{method: "GET", path: "/who"}); err != nil || r.status != 200 {
		s.t.Errorf("%s: of its own host it is answered %d %s, %v", name, r.status, r.body, err)
	}
	for _, x := range []call{mintCall(""), {method: "GET", path: "/who"}} {
		s.refuses(name+": "+x.path, http.StatusMisdirectedRequest, notFor(v.sni), func() (reply, error) { return s.send(c, v, x) })
	}
}

// notFor is why a request for a host that is served is refused on a connection for another name, "" being none.
func notFor(sni string) string {
	if sni == "" {
		return "no_sni"
	}
	return "not_sni"
}

// asides is aside over both protocols and versions.
func (s *street) asides(name string, v visit) {
	s.t.Helper()
	v.each(func(v visit) { s.aside(name, v) })
}

// ends is a connection for a host that wants a certificate, without a good one: the server ends it for that reason, and no request on it
// is answered. With a good one (nil where there is none) the same request is.
func (s *street) ends(name, reason string, v visit, good *tls.Certificate) {
	s.t.Helper()
	before := s.snapshot(want{})
	s.shut(name, reason, v.version, func() error { return s.shakes(v) })
	for _, x := range []call{mintCall(""), {method: "GET", path: "/who"}} {
		if r, err := s.send(s.client(v), v, x); err == nil {
			s.t.Errorf("%s: %s is answered %d %s", name, x.path, r.status, r.body)
		}
	}
	if after := s.snapshot(want{}); after != before {
		s.t.Errorf("%s: it left more than an alert", name)
	}
	if v.certificate = good; good == nil {
		return
	}
	if r, err := s.who(v); err != nil || r.status != 200 {
		s.t.Errorf("%s: with a good certificate it is answered %d %s, %v", name, r.status, r.body, err)
	}
}

// end is ends over both protocols and versions.
func (s *street) end(name, reason string, v visit, good *tls.Certificate) {
	s.t.Helper()
	v.each(func(v visit) { s.ends(name, reason, v, good) })
}

// shakes returns what ends a connection at the end of its handshake; nil where the server keeps it. What it then sends is a request that
// is malformed in both protocols.
func (s *street) shakes(v visit) error {
	c := s.client(v).Transport.(*http.Transport).TLSClientConfig.Clone()
	if c.NextProtos = []string{"h2", "http/1.1"}; v.http1 {
		c.NextProtos = []string{"http/1.1"}
	}
	conn, err := tls.Dial("tcp", s.gateway.Addr("public").String(), c)
	if err != nil {
		return err
	}
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	fmt.Fprint(conn, "NONE\r\n\r\n") // an answer shows that the server kept it
	_, err = conn.Read(make([]byte, 1))
	return err
}

// shut wants that the server ends what is tried in the handshake, that the client hears of it what it should (see alertsFor), and that it is
// counted under its reason. Version 0 is TLS 1.3.
func (s *street) shut(name, reason string, version uint16, try func() error) {
	s.t.Helper()
	count := func() float64 {
		return s.metric("cardstile_handshake_failures_total", "listener", "public", "reason", reason)
	}
	before := count()
	err := try()
	if err == nil || !slices.ContainsFunc(alertsFor(reason, version), func(alert string) bool {
		return strings.HasSuffix(err.Error(), "remote error: tls: "+alert)
	}) {
		s.t.Errorf("%s, %s: %v, want one of the alerts %q", name, tls.VersionName(version), err, alertsFor(reason, version))
		return
	}
	eventually(s.t, name+" is counted as "+reason, func() bool { return count() > before })
}

// alertsFor are the alerts that a client may see for a reason. Of no certificate TLS 1.3 has one of its own (RFC 8446 section 6.2), TLS 1.2 (RFC
// 5246 section 7.4.6) has not; of an unknown CA callers that are greeted see the general one, and the reason is in the metric alone.
func alertsFor(reason string, version uint16) []string {
	switch reason {
	case "no_certificate":
		if version == tls.VersionTLS12 {
			return []string{"handshake failure"}
		}
		return []string{"certificate required"}
	case "unknown_ca":
		return []string{"unknown certificate authority", "bad certificate"}
	case "wrong_usage":
		return []string{"bad certificate"}
	}
	panic("a reason that no bypass ends for: " + reason)
}

// TestBypassCVE2022_23632: Traefik looked TLS options up by the Host as it was written: with a dot at its end the host had the default
// ones, without client certificates.
func TestBypassCVE2022_23632(t *testing.T) {
	s := openStreet(t)
	for _, host := range []string{apiHost + ".", apiHost + ".:443", strings.ToUpper(apiHost) + "."} {
		s.asides("SNI of a public host", visit{sni: publicHost, host: host})
		s.asides("SNI of nobody", visit{sni: noHost, host: host})
		s.asides("no SNI", visit{host: host})
		s.end("its own SNI", "no_certificate", visit{sni: apiHost, host: host}, &shared().partner)
	}
}

// TestBypassCVE2022_46153: Traefik served a router whose TLS options did not load, for a CA file that was wrong, with empty ones.
func TestBypassCVE2022_46153(t *testing.T) {
	s := openStreet(t)
	c := s.newConfig()
	c.Listeners[1].HostClientCAs[apiHost] = nil
	if _, err := gateway.New(s.services, c); err == nil {
		t.Error("it starts without the CAs of a host")
	}
	if s.gateway.Reload(c) == nil {
		t.Error("it reloads without the CAs of a host")
	}
	s.end("after the reload", "no_certificate", visit{sni: apiHost, host: apiHost}, &shared().partner)
}

// TestBypassCVE2026_27586: Caddy passed over a CA file that it could not read, and took certificates of the system's authorities. That
// a file which does not load keeps the configuration from being used is shown by hosts.txtar; here, that no configuration
// without a set of CAs would take anybody's.
func TestBypassCVE2026_27586(t *testing.T) {
	s := openStreet(t, func(_ *street, c *gateway.Config) { c.Listeners[1].ClientCAs = x509.NewCertPool() })
	stranger := shared().stranger.client(subject)
	for _, certificate := range []*tls.Certificate{&stranger, &shared().partner} {
		s.end("a listener's, of no CA", "unknown_ca", visit{sni: noHost, host: noHost, certificate: certificate}, nil)
	}
	s.end("a listener's, of no CA", "no_certificate", visit{sni: noHost, host: noHost}, nil)
	if c := gateway.ServerTLS(shared().server, x509.NewCertPool()); c.ClientCAs == nil || c.ClientAuth != tls.RequireAndVerifyClientCert {
		t.Error("an empty set of CAs is none")
	}
}

// TestBypassCVE2026_32305: Traefik looked for the name in the first record of a ClientHello: cut in two it had none, and the
// connection got the default options.
func TestBypassCVE2026_32305(t *testing.T) {
	s := openStreet(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for name, split := range map[string]func([]byte) [][]byte{
			"a byte in the first": inTwo(1), "the header of the handshake in the first": inTwo(4), "a record for each byte": inOnes,
			"the name in the second": func(hello []byte) [][]byte { return inTwo(bytes.Index(hello, []byte(apiHost)) - 1)(hello) },
			"cut in the name":        func(hello []byte) [][]byte { return inTwo(bytes.Index(hello, []byte(apiHost)) + 3)(hello) },
			"all but the last byte":  func(hello []byte) [][]byte { return inTwo(len(hello) - 1)(hello) },
			"the length in between":  func(hello []byte) [][]byte { return inTwo(2)(hello) },
		} {
			s.shut(name, "no_certificate", version, func() error {
				_, err := s.fragmented(apiHost, nil, version, false, split)
				return err
			})
			if got, err := s.fragmented(apiHost, &shared().partner, version, false, split); err != nil || got != "api" {
				t.Errorf("%s, %s, with a certificate: %q %v", name, tls.VersionName(version), got, err)
			}
		}
		empty := func(hello []byte) [][]byte { return [][]byte{hello[:9], {}, hello[9:]} } // which is not TLS (RFC 8446 section 5.1)
		for _, certificate := range []*tls.Certificate{nil, &shared().partner} {
			if got, err := s.fragmented(apiHost, certificate, version, false, empty); err == nil || !strings.HasSuffix(err.Error(), "remote error: tls: unexpected message") {
				t.Errorf("an empty one in between, %s: %q %v", tls.VersionName(version), got, err)
			}
		}
	}
}

// TestBypassCVE2026_48491: Traefik compared the options of SNI and Host by exact names: a Host that only a wildcard names had the
// default ones, and went through on a connection of a host without certificates.
func TestBypassCVE2026_48491(t *testing.T) {
	s := openStreet(t)
	for _, host := range []string{cardsHost, namedHost, "three.cards.example.com", "ONE.cards.example.com", "*.cards.example.com"} {
		for _, sni := range []string{publicHost, wwwHost, noHost, ""} {
			for _, http1 := range []bool{false, true} {
				v := visit{sni: sni, host: host, http1: http1}
				status, reason := http.StatusMisdirectedRequest, notFor(sni)
				if host == "*.cards.example.com" { // which is no host
					status, reason = http.StatusBadRequest, "malformed"
				}
				s.refuses(fmt.Sprintf("%s on a connection for %q", host, sni), status, reason, func() (reply, error) { return s.mint(v) })
			}
		}
	}
	for _, host := range []string{cardsHost, namedHost, "three.cards.example.com"} {
		s.end("its own SNI", "no_certificate", visit{sni: host, host: host}, &shared().partner)
	}
}

// TestBypassCVE2026_53622: Traefik's HTTP/3 looked options up by the exact SNI: a name below a wildcard, or in another case, had the
// default ones. Here TLS is chosen over TCP alone, and by the same names as routes.
func TestBypassCVE2026_53622(t *testing.T) {
	s := openStreet(t)
	for _, name := range []string{cardsHost, namedHost, "three.cards.example.com", "ONE.CARDS.EXAMPLE.COM", "API.example.com", "aPi.eXample.Com"} {
		s.end("SNI", "no_certificate", visit{sni: name, host: name}, &shared().partner)
		s.end("SNI, and Host in lower case", "no_certificate", visit{sni: name, host: strings.ToLower(name)}, &shared().partner)
	}
}

// TestBypassCVE2026_39858: Traefik took X-Forwarded fields out under their own names alone, and left those with underscores, which the
// servers behind it read as the same.
func TestBypassCVE2026_39858(t *testing.T) {
	issuerHearsOnly(t, "X_Forwarded_Tls_Client_Cert", "X_Forwarded_Proto", "X_Forwarded_For", "X-Forwarded_Client-Cert", "x_forwarded_client_cert", "X_Forwarded-Host")
}

// TestBypassCVE2025_64484: so did OAuth2-Proxy with the fields that say who a user is.
func TestBypassCVE2025_64484(t *testing.T) {
	issuerHearsOnly(t, "X_Forwarded_User", "X_Forwarded_Email", "X_Forwarded_Access_Token", "X-Forwarded_Groups", "X_SSL_Client_Verify")
}

// TestBypassCVE2026_46579: OpenShift's router passed X-SSL-Client fields on that its caller had written, where no certificate was.
func TestBypassCVE2026_46579(t *testing.T) {
	issuerHearsOnly(t, "X-SSL", "X-SSL-Client-Verify", "X-SSL-Client-SHA1", "X-SSL-Client-DN", "X-SSL-Client-CN", "X-SSL-Issuer", "X-SSL-Client-NotBefore", "X-SSL-Client-NotAfter", "X-SSL-Client-DER")
}

// issuerHearsOnly sends these fields along with a card's reveal, and looks at all that the issuer gets.
func issuerHearsOnly(t *testing.T, fields ...string) {
	t.Helper()
	h := newHouse(t, options{})
	for _, http2 := range []bool{false, true} {
		x := detailsCall(card, h.mint(), h.session().ID())
		for _, field := range fields {
			x = x.with(field, "SUCCESS")
		}
		if r := h.callerWith(nil, http2, nil).do(x); r.status != 200 {
			t.Fatalf("%d %s", r.status, r.body)
		}
	}
	heard(t, h)
}

// heard wants that the issuer got no fields but those that requests to it are made of.
func heard(t *testing.T, h *house) {
	t.Helper()
	if len(h.rain.Requests()) == 0 {
		t.Error("the issuer was not asked")
	}
	for _, r := range h.rain.Requests() {
		for field := range r.Header {
			switch field {
			case "Accept", "User-Agent", "Traceparent", "X-Request-Id", "Api-Key", "Sessionid":
			default:
				t.Errorf("the issuer got %s: %q", field, r.Header[field])
			}
		}
	}
}

// TestBypassCVE2024_45410: Traefik removed X-Forwarded fields of its own where the caller named them in Connection.
func TestBypassCVE2024_45410(t *testing.T) { namedInConnection(t) }

// TestBypassCVE2025_48865: so did Fabio.
func TestBypassCVE2025_48865(t *testing.T) { namedInConnection(t) }

// namedInConnection wants that fields which the gateway adds are there, though a caller names them as fields of its connection alone.
func namedInConnection(t *testing.T) {
	t.Helper()
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
		reveals := c.Routes[1]
		reveals.Listener, reveals.Operations, reveals.ClientCert = "partners", c.Routes[1].Operations, gateway.ClientCertLeaf
		c.Routes[0].Operations = c.Routes[0].Operations[:1]
		reveals.Operations = append(reveals.Operations, "card.reveal", "card.profile")
		c.Routes = append(c.Routes, reveals)
	}})
	x := detailsCall(card, h.mint(), h.session().ID())
	x.listener = "partners"
	x = x.with("Connection", "keep-alive, Client-Cert, Traceparent, X-Request-Id, Api-Key, Sessionid", "Connection", "User-Agent")
	if r := h.callerWith(&shared().partner, false, nil).do(x); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	for _, r := range h.rain.Requests() {
		for _, field := range []string{"Client-Cert", "Traceparent", "X-Request-Id", "Api-Key", "User-Agent"} {
			if len(r.Header[field]) != 1 {
				t.Errorf("the issuer got %s: %q", field, r.Header[field])
			}
		}
	}
}

// TestBypassCVE2026_27588: Caddy compared Host with long lists of hosts (more than 100) in its own case, so that another case missed
// the route, and the access control with it.
func TestBypassCVE2026_27588(t *testing.T) {
	var many []string
	for i := range 150 {
		many = append(many, fmt.Sprintf("h%03d.example.com", i))
	}
	s := openStreet(t, func(s *street, c *gateway.Config) {
		c.Routes[1].Hosts = append(c.Routes[1].Hosts, many...)
		for _, name := range many {
			c.Listeners[1].HostClientCAs[name] = shared().partners.pool()
		}
	})
	for _, name := range []string{many[0], many[99], many[149]} {
		upper := strings.ToUpper(name)
		for _, host := range []string{name, upper} {
			s.end("no certificate", "no_certificate", visit{sni: name, host: host}, &shared().partner)
			s.end("no certificate, SNI in upper case", "no_certificate", visit{sni: upper, host: host}, &shared().partner)
			s.asides("SNI of another", visit{sni: publicHost, host: host})
		}
		if r, err := s.mint(visit{sni: name, host: upper, certificate: &shared().partner}); err != nil || r.status != 200 {
			t.Errorf("%s: %d %v", upper, r.status, err)
		}
	}
}

// TestBypassCVE2021_39155: Istio compared the hosts of a policy with Host in its own case, and routed in any.
func TestBypassCVE2021_39155(t *testing.T) {
	s := openStreet(t)
	for _, host := range []string{"Api.example.com", "API.EXAMPLE.COM", "api.example.COM"} {
		s.asides("SNI of a public host", visit{sni: publicHost, host: host})
		s.end("its own SNI", "no_certificate", visit{sni: apiHost, host: host}, &shared().partner)
	}
}

// TestBypassCVE2021_36371: Ambassador took the TLS context by SNI and the backend by Host, which did not have to agree: the certificate
// of one host, or none, opened another.
func TestBypassCVE2021_36371(t *testing.T) { frontings(t) }

// TestBypassCVE2025_66614: so did Tomcat with the virtual hosts of one connector.
func TestBypassCVE2025_66614(t *testing.T) { frontings(t) }

// TestBypassAPISIXHostAndSNI: so did APISIX, until its pull request 8967; there is no number for it.
func TestBypassAPISIXHostAndSNI(t *testing.T) { frontings(t) }

// frontings tries every pair of two hosts, with the certificate of the first one.
func frontings(t *testing.T) {
	t.Helper()
	s := openStreet(t)
	certificates := map[string]*tls.Certificate{apiHost: &shared().partner, cardsHost: &shared().partner, namedHost: &shared().partner, otherHost: &s.neighbour}
	for _, sni := range append([]string{""}, allHosts...) {
		for _, host := range []string{apiHost, otherHost, cardsHost, namedHost} {
			if sni != host {
				s.aside(sni+" for "+host, visit{sni: sni, host: host, certificate: certificates[sni]})
				s.aside(sni+" for "+host, visit{sni: sni, host: host, certificate: certificates[sni], http1: true})
			}
		}
	}
}

// TestBypassCVE2025_23419: nginx resumed a TLS 1.3 session of one server block in another, past its client certificates.
func TestBypassCVE2025_23419(t *testing.T) { resumedElsewhere(t, tls.VersionTLS13) }

// TestBypassCVE2014_3616: nginx resumed a session of one server block in another, where they shared a cache or a ticket key.
func TestBypassCVE2014_3616(t *testing.T) { resumedElsewhere(t, tls.VersionTLS12) }

// TestBypassCVE2025_23048: Apache's mod_ssl resumed a TLS 1.3 session of one virtual host in another with other client CAs.
func TestBypassCVE2025_23048(t *testing.T) { resumedElsewhere(t, tls.VersionTLS13) }

// resumedElsewhere offers the ticket of each host to each other one, with the first one's certificate and with none.
func resumedElsewhere(t *testing.T, version uint16) {
	t.Helper()
	s := openStreet(t)
	certificates := map[string]*tls.Certificate{apiHost: &shared().partner, cardsHost: &shared().partner, namedHost: &shared().partner, otherHost: &s.neighbour}
	tickets := 0
	for _, from := range allHosts {
		for _, to := range allHosts {
			cache := &oneTicket{}
			if _, _, err := s.resume(from, certificates[from], version, cache); err != nil {
				t.Fatalf("%s: %v", from, err)
			}
			if cache.state != nil {
				tickets++
			}
			if from == to {
				continue
			}
			for _, certificate := range []*tls.Certificate{nil, certificates[from]} {
				name := from + " at " + to
				try := func() error {
					resumed, r, err := s.resume(to, certificate, version, &oneTicket{state: cache.state})
					if resumed || err == nil && r.status != 200 {
						t.Errorf("%s: resumed %t, %d %s", name, resumed, r.status, r.body)
					}
					return err
				}
				ca := map[string]string{apiHost: "partners", cardsHost: "partners", namedHost: "partners", otherHost: "neighbours"}
				switch {
				case ca[to] != "" && certificate == nil:
					s.shut(name, "no_certificate", version, try)
				case ca[to] != "" && ca[to] != ca[from]:
					s.shut(name, "unknown_ca", version, try)
				default:
					if err := try(); err != nil {
						t.Errorf("%s: %v", name, err)
					}
				}
			}
		}
	}
	if tickets != 3*len(allHosts) {
		t.Errorf("%d tickets were given: want those of the three hosts without certificates", tickets)
	}
}

// TestBypassCVE2025_68121: Go's crypto/tls resumed sessions after the ClientCAs of the configuration had changed; of a clone it took
// the ticket keys too.
func TestBypassCVE2025_68121(t *testing.T) { ticketsAfterReload(t) }

// TestBypassCVE2022_21654: Envoy resumed sessions after the settings by which certificates are judged had changed.
func TestBypassCVE2022_21654(t *testing.T) { ticketsAfterReload(t) }

// ticketsAfterReload offers tickets from before a reload that asks for certificates, or for others.
func ticketsAfterReload(t *testing.T) {
	t.Helper()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := openStreet(t)
		open, closed := &oneTicket{}, &oneTicket{}
		if _, _, err := s.resume(publicHost, nil, version, open); err != nil || open.state == nil {
			t.Fatalf("a ticket %t, %v", open.state != nil, err)
		}
		if _, _, err := s.resume(apiHost, &shared().partner, version, closed); err != nil {
			t.Fatal(err)
		}
		c := s.newConfig()
		c.Listeners[1].HostClientCAs[apiHost] = s.neighbours.pool()
		c.Listeners[1].HostClientCAs[publicHost] = s.neighbours.pool()
		must(s.gateway.Reload(c))
		for host, cache := range map[string]*oneTicket{publicHost: open, apiHost: closed} {
			for reason, certificate := range map[string]*tls.Certificate{"no_certificate": nil, "unknown_ca": &shared().partner} {
				s.shut(host, reason, version, func() error {
					_, _, err := s.resume(host, certificate, version, &oneTicket{state: cache.state})
					return err
				})
			}
			if resumed, r, err := s.resume(host, &s.neighbour, version, &oneTicket{state: cache.state}); resumed || err != nil || r.status != 200 {
				t.Errorf("%s, %s, who may: resumed %t, %d %v", host, tls.VersionName(version), resumed, r.status, err)
			}
		}
	}
}

// TestBypassCVE2020_8660: Envoy's TLS inspector did not know a ClientHello of TLS 1.3 alone, found no name in it, and took another
// filter chain. The hello here offers nothing of TLS 1.2.
func TestBypassCVE2020_8660(t *testing.T) {
	s := openStreet(t)
	only := func(hello []byte) [][]byte {
		if legacy := binary.BigEndian.Uint16(hello[4:]); legacy != tls.VersionTLS12 {
			t.Errorf("legacy_version %x", legacy)
		}
		if !bytes.Contains(hello, []byte{0, 43, 0, 3, 2, 3, 4}) { // supported_versions, with one
			t.Error("the hello offers more than TLS 1.3")
		}
		return [][]byte{hello}
	}
	s.shut("without a certificate", "no_certificate", tls.VersionTLS13, func() error {
		_, err := s.fragmented(apiHost, nil, tls.VersionTLS13, false, only)
		return err
	})
	if got, err := s.fragmented(apiHost, &shared().partner, tls.VersionTLS13, false, only); err != nil || got != "api" {
		t.Errorf("with one: %q %v", got, err)
	}
}

// TestBypassCVE2016_4979: Apache's httpd did not ask requests of HTTP/2 for the certificate that it required of a location.
func TestBypassCVE2016_4979(t *testing.T) {
	s := openStreet(t)
	for _, test := range []struct {
		host, face string
		good       *tls.Certificate
	}{{apiHost, "api", &shared().partner}, {cardsHost, "cards", &shared().partner}, {otherHost, "other", &s.neighbour}} {
		s.shut(test.host, "no_certificate", 0, func() error {
			_, err := s.frames(test.host, nil, ":method=POST", ":scheme=https", ":path=/api/v1/ephemeral-token", ":authority="+test.host)
			return err
		})
		if got, err := s.frames(test.host, test.good, ":method=GET", ":scheme=https", ":path=/who", ":authority="+test.host); err != nil || got != test.face {
			t.Errorf("%s, with a certificate: %q %v", test.host, got, err)
		}
		s.ends("HTTP/2", "no_certificate", visit{sni: test.host, host: test.host}, test.good)
	}
}

// TestBypassCVE2022_21657: Envoy took certificates for any purpose as a client's.
func TestBypassCVE2022_21657(t *testing.T) {
	s := openStreet(t)
	for name, usages := range map[string][]x509.ExtKeyUsage{
		"a server's": {x509.ExtKeyUsageServerAuth}, "for e-mail": {x509.ExtKeyUsageEmailProtection}, "for code and time": {x509.ExtKeyUsageCodeSigning, x509.ExtKeyUsageTimeStamping},
	} {
		certificate := shared().partners.client(subject, func(c *x509.Certificate) { c.ExtKeyUsage = usages })
		s.end(name, "wrong_usage", visit{sni: apiHost, host: apiHost, certificate: &certificate}, &shared().partner)
		s.end(name+", below a wildcard", "wrong_usage", visit{sni: cardsHost, host: cardsHost, certificate: &certificate}, &shared().partner)
	}
}

// TestBypassCVE2018_21246: Caddy (before 0.10.13) took the client certificates of one site for a connection, and served another site's
// requests on it: there was no strict matching of hosts yet. Here there is no other.
func TestBypassCVE2018_21246(t *testing.T) { frontings(t) }

// TestBypassCVE2019_0215: Apache's httpd (2.4.37 and 2.4.38) asked for certificates by location, in TLS 1.3 after the handshake: a client
// that offered to be asked then (post_handshake_auth, RFC 8446 section 4.2.6) got in without one. Here nobody is asked later: whoever is
// on a connection without certificates gets nothing of a host with them, whatever the path, and at that host whoever has none is refused
// in the handshake. The client is openssl's: crypto/tls does not make that offer.
func TestBypassCVE2019_0215(t *testing.T) {
	s := openStreet(t)
	request := func(method, path, host, connection string) string {
		return method + " " + path + " HTTP/1.1\r\nHost: " + host + "\r\nConnection: " + connection + "\r\nContent-Length: 0\r\n\r\n"
	}
	mint := request("POST", mintCall("").path, apiHost, "close")

	asked := request("GET", "/who", publicHost, "keep-alive") + request("POST", mintCall("").path, publicHost, "keep-alive") + mint
	if got, heard := s.offering(publicHost, nil, asked); !slices.Equal(got, []int{200, 404, 421}) {
		t.Errorf("at a host without certificates: %d\n%s", got, heard)
	}
	if got, heard := s.offering(apiHost, &shared().partner, request("GET", "/who", apiHost, "keep-alive")+request("GET", "/who", publicHost, "close")); !slices.Equal(got, []int{200, 421}) {
		t.Errorf("with a certificate: %d\n%s", got, heard)
	}
	before := s.snapshot(want{})
	failures := func() float64 {
		return s.metric("cardstile_handshake_failures_total", "listener", "public", "reason", "no_certificate")
	}
	refused := failures()
	if got, heard := s.offering(apiHost, nil, mint); len(got) != 0 || !strings.Contains(heard, "SSL alert number 116") { // certificate_required
		t.Errorf("without one: %d\n%s", got, heard)
	}
	eventually(t, "whoever has none is counted", func() bool { return failures() == refused+1 })
	if s.snapshot(want{}) != before {
		t.Error("without one: it left more than an alert")
	}
}

// offering has openssl make requests on a connection of TLS 1.3 that offers post-handshake authentication; the last of them has the server
// close it. It returns the statuses of the answers, and what openssl says.
func (s *street) offering(sni string, certificate *tls.Certificate, requests string) (statuses []int, heard string) {
	s.t.Helper()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		s.t.Fatal("openssl is missing: apt-get install openssl")
	}
	dir := s.t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		must(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
		return path
	}
	messages := filepath.Join(dir, "messages")
	cmd := exec.CommandContext(s.t.Context(), openssl, "s_client", "-connect", s.gateway.Addr("public").String(), "-servername", sni,
		"-CAfile", write("servers.pem", "CERTIFICATE", shared().servers.certificate.Raw), "-verify_return_error", "-tls1_3", "-enable_pha", "-quiet", "-msg", "-msgfile", messages)
	if certificate != nil {
		key, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
		must(err)
		cmd.Args = append(cmd.Args, "-cert", write("client.pem", "CERTIFICATE", certificate.Certificate[0]), "-key", write("client-key.pem", "PRIVATE KEY", key))
	}
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(requests), &out, &errs
	cmd.Run() //nolint:errcheck // it fails where it is refused; what counts is what it heard
	sent, err := os.ReadFile(messages)
	if hello := strings.Join(strings.Fields(string(sent)), " "); err != nil || !strings.Contains(hello, "ClientHello") || !strings.Contains(hello, " 00 31 00 00 ") {
		s.t.Fatalf("it does not offer it: %v\n%s\n%s", err, sent, errs.Bytes())
	}
	for answers := bufio.NewReader(&out); ; {
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			return statuses, errs.String()
		}
		_, err = io.Copy(io.Discard, answer.Body)
		must(err)
		statuses = append(statuses, answer.StatusCode)
	}
}
