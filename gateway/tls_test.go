package gateway_test

import (
	"bufio"
	"context"
	"crypto/fips140"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/audit"
	"github.com/cardstile/cardstile/policy"
)

// shake does a handshake and one request, so that what the server has to say after the client's last flight arrives too.
func (h *house) shake(listener string, c *tls.Config) (tls.ConnectionState, error) {
	c = c.Clone()
	if c.RootCAs == nil {
		c.RootCAs = shared().servers.pool()
	}
	c.ServerName = "localhost"
	conn, err := tls.Dial("tcp", h.gateway.Addr(listener).String(), c)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	if _, err := io.WriteString(conn, "GET /nothing HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
		return tls.ConnectionState{}, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	if answer.StatusCode != http.StatusNotFound {
		return tls.ConnectionState{}, fmt.Errorf("status %d", answer.StatusCode)
	}
	return conn.ConnectionState(), nil
}

func with(c tls.Certificate) *tls.Config { return &tls.Config{Certificates: []tls.Certificate{c}} }

// tooLong is a chain longer than its CA allows.
func tooLong() (*authority, tls.Certificate) {
	root := &authority{key: ecKey()}
	template := caTemplate("short")
	template.MaxPathLenZero = true
	root.certificate = sign(template, template, root.key.Public(), root.key)
	return root, root.intermediate("one too many").client(subject)
}

// TestHandshakeFailures: who is not to come in ends in the handshake, with the alert that tells a client why, one count
// under its reason, a line in the log, and nothing else.
func TestHandshakeFailures(t *testing.T) {
	k := shared()
	past := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(-time.Hour)
	}
	future := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(time.Hour), time.Now().Add(48*time.Hour)
	}
	servers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	short, long := tooLong()
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Listeners[0].ClientCAs.AddCert(short.certificate) }})
	for _, test := range []struct {
		name, reason string
		config       *tls.Config
		alert12      string
		alert13      string
	}{
		{"no certificate", "no_certificate", &tls.Config{}, "handshake failure", "certificate required"},
		{"the same name of another CA", "unknown_ca", with(k.stranger.client(subject)), "unknown certificate authority", "unknown certificate authority"},
		{"the CA's own key without its chain", "unknown_ca", with(noChain(k.partners.intermediate("partners").client(subject))), "unknown certificate authority", "unknown certificate authority"},
		{"expired", "expired", with(k.partners.client(subject, past)), "expired certificate", "expired certificate"},
		{"not yet valid", "not_yet_valid", with(k.partners.client(subject, future)), "expired certificate", "expired certificate"},
		{"a server's certificate", "wrong_usage", with(k.partners.client(subject, servers)), "bad certificate", "bad certificate"},
		{"a chain that is too long", "bad_certificate", with(long), "bad certificate", "bad certificate"},
		{"client does not trust us", "refused_by_client", &tls.Config{Certificates: []tls.Certificate{k.partner}, RootCAs: k.stranger.pool()}, "", ""},
		{"no common protocol above TLS", "no_common_protocol", &tls.Config{Certificates: []tls.Certificate{k.partner}, NextProtos: []string{"spdy/1"}}, "no application protocol", "no application protocol"},
	} {
		for version, alert := range map[uint16]string{tls.VersionTLS12: test.alert12, tls.VersionTLS13: test.alert13} {
			name := fmt.Sprintf("%s, %s", test.name, tls.VersionName(version))
			c := test.config.Clone()
			c.MinVersion, c.MaxVersion = version, version
			before, lines := h.metric("cardstile_handshake_failures_total", "listener", "partners", "reason", test.reason), strings.Count(h.log.String(), "handshake failed")
			_, err := h.shake("partners", c)
			if err == nil || alert != "" && !strings.HasSuffix(err.Error(), alert) {
				t.Errorf("%s: %v, want %s", name, err, alert)
			}
			eventually(t, name+" is counted", func() bool {
				return h.metric("cardstile_handshake_failures_total", "listener", "partners", "reason", test.reason) == before+1
			})
			eventually(t, name+" is logged", func() bool { return strings.Count(h.log.String(), "handshake failed") == lines+1 })
			line := `"reason":"` + test.reason + `","address":"127.0.0.1"`
			if len(test.config.Certificates) > 0 && test.reason != "refused_by_client" && test.reason != "no_common_protocol" { // which come before it
				line += fmt.Sprintf(`,"certificate":"%x"`, sha256.Sum256(test.config.Certificates[0].Certificate[0]))
			}
			if !strings.Contains(h.log.String(), line+"}") {
				t.Errorf("%s: the log does not say %s", name, line)
			}
		}
	}
	if h.metric("cardstile_handshakes_total") != 0 || len(h.records()) != 0 || h.metric("cardstile_exchanges_total") != 0 {
		t.Error("a failed handshake left more than a metric and a log line")
	}
	eventually(t, "the connections are closed", func() bool { return h.metric("cardstile_connections", "listener", "partners") == 0 })
}

// TestAlertArrives: a client that is still sending its request when it is refused can go on sending, and then hears why. A
// connection that was closed at once would break under it, and many clients tell that instead of the alert.
func TestAlertArrives(t *testing.T) {
	h := newHouse(t, options{})
	attempt := func(n int) error {
		raw, err := net.Dial("tcp", h.gateway.Addr("partners").String())
		must(err)
		defer raw.Close()
		conn := tls.Client(raw, &tls.Config{RootCAs: shared().servers.pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13})
		must(conn.Handshake())
		eventually(t, "the handshake has failed", func() bool {
			return h.metric("cardstile_handshake_failures_total", "reason", "no_certificate") == float64(n)
		})
		for range 3 { // the first would be answered with a reset, and the next ones fail
			if _, err := conn.Write(make([]byte, 1<<10)); err != nil {
				return err
			}
			time.Sleep(5 * time.Millisecond)
		}
		_, err = conn.Read(make([]byte, 1))
		return err
	}
	var err error
	for n := range 5 { // a busy machine may let the time pass in which the server waits
		if err = attempt(n + 1); strings.HasSuffix(err.Error(), "certificate required") {
			return
		}
	}
	t.Errorf("the client is told %v", err)
}

func noChain(c tls.Certificate) tls.Certificate {
	c.Certificate = c.Certificate[:1]
	return c
}

// TestHandshakeVersions: TLS 1.2 and 1.3 with authenticated encryption; nothing else.
func TestHandshakeVersions(t *testing.T) {
	h := newHouse(t, options{})
	for version, ok := range map[uint16]bool{tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		for _, listener := range []string{"partners", "public"} {
			c := with(shared().partner)
			c.MinVersion, c.MaxVersion = version, version
			before := h.metric("cardstile_handshakes_total", "listener", listener, "version", tls.VersionName(version))
			state, err := h.shake(listener, c)
			if (err == nil) != ok || ok && state.Version != version {
				t.Errorf("%s on %s: %v", tls.VersionName(version), listener, err)
			}
			counted := func() float64 {
				return h.metric("cardstile_handshakes_total", "listener", listener, "version", tls.VersionName(version)) - before
			}
			if ok {
				eventually(t, tls.VersionName(version)+" is counted", func() bool { return counted() == 1 })
			} else if got := counted(); got != 0 {
				t.Errorf("%s on %s: %v handshakes", tls.VersionName(version), listener, got)
			}
		}
	}
	aead := map[uint16]bool{}
	for _, s := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if s.SupportedVersions[0] == tls.VersionTLS13 {
			continue // all of TLS 1.3's are, and Go does not let one choose
		}
		good := strings.Contains(s.Name, "ECDHE_ECDSA") && (strings.Contains(s.Name, "GCM") || strings.Contains(s.Name, "CHACHA20") && !fips140.Enabled()) // an EC certificate
		c := with(shared().partner)
		c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{s.ID}
		state, err := h.shake("partners", c)
		if (err == nil) != good || good && state.CipherSuite != s.ID {
			t.Errorf("%s: %v", s.Name, err)
		}
		aead[s.ID] = good
	}
	eventually(t, "suites and versions that we do not speak are counted as such", func() bool {
		return h.metric("cardstile_handshake_failures_total", "reason", "no_common_parameters") >= 20
	})
}

// TestHandshakeAccepts: every form of certificate that partners have.
func TestHandshakeAccepts(t *testing.T) {
	k := shared()
	second := newAuthority("second")
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Listeners[0].ClientCAs.AddCert(second.certificate) }})
	forbidden := want{status: 403, body: gnosis("Forbidden"), results: []string{"refused certificate"}, outcome: "forbidden"}
	minted := want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"}
	noUsage := func(c *x509.Certificate) { c.ExtKeyUsage = nil }
	both := func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	twice := func(c *x509.Certificate) {
		c.Subject = pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: []int{2, 5, 4, 3}, Value: "gp_f1a9b6c741c94510bb3b27f2e8379e29"}, {Type: []int{2, 5, 4, 3}, Value: "gp_f1a9b6c741c94510bb3b27f2e8379e29"},
			{Type: []int{2, 5, 4, 6}, Value: "US"},
		}}
	}
	for _, test := range []struct {
		name        string
		certificate tls.Certificate
		want        want
	}{
		{"EC", k.partner, minted},
		{"RSA", k.partners.clientWithKey(rsaKey(), subject), minted},
		{"through an intermediate", k.partners.intermediate("below").client(subject), minted},
		{"through two", k.partners.intermediate("below").intermediate("far below").client(subject), minted},
		{"no usage stated", k.partners.client(subject, noUsage), minted},
		{"for clients and servers", k.partners.client(subject, both), minted},
		{"unknown subject", k.partners.client("CN=gp_99999999999999999999999999999999,C=US"), forbidden},
		{"another country", k.partners.client("CN=gp_f1a9b6c741c94510bb3b27f2e8379e29,C=DE"), forbidden},
		{"upper case", k.partners.client("CN=GP_F1A9B6C741C94510BB3B27F2E8379E29,C=US"), forbidden},
		{"the name twice", k.partners.client(subject, twice), forbidden},
		{"the same name of a second trusted CA", second.client(subject), forbidden},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			c := h.callerWith(&test.certificate, true, func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version })
			h.expect(test.name+", "+tls.VersionName(version), c, mintCall(""), test.want)
			last := h.records()[len(h.records())-1]
			if last.Certificate != fmt.Sprintf("%x", policy.FingerprintOf(test.certificate.Leaf)) || (last.Partner != "") != (test.want.status == 200) {
				t.Errorf("%s: recorded certificate %q, partner %q", test.name, last.Certificate, last.Partner)
			}
		}
	}
}

// TestNoResumption: where a client certificate is required no connection is resumed, so that none skips being judged.
func TestNoResumption(t *testing.T) {
	h := newHouse(t, options{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for listener, resumes := range map[string]bool{"partners": false, "public": true} {
			c := with(shared().partner)
			c.MinVersion, c.MaxVersion, c.ClientSessionCache = version, version, tls.NewLRUClientSessionCache(8)
			for i := range 3 {
				state, err := h.shake(listener, c)
				if err != nil {
					t.Fatal(err)
				}
				if want := resumes && i > 0; state.DidResume != want {
					t.Errorf("connection %d to %s under %s: resumed %t", i, listener, tls.VersionName(version), state.DidResume)
				}
			}
		}
	}
}

// TestVerifyConnection: were a ticket to resume a connection after all, its certificate is judged against the CAs in force.
func TestVerifyConnection(t *testing.T) {
	k := shared()
	c := gateway.ServerTLS(k.server, k.partners.pool())
	if c.ClientAuth != tls.RequireAndVerifyClientCert || !c.SessionTicketsDisabled || c.MinVersion != tls.VersionTLS12 {
		t.Errorf("%+v", c)
	}
	for name, test := range map[string]struct {
		state tls.ConnectionState
		ok    bool
	}{
		"of our CA":  {tls.ConnectionState{DidResume: true, PeerCertificates: []*x509.Certificate{k.partner.Leaf}}, true},
		"a stranger": {tls.ConnectionState{DidResume: true, PeerCertificates: []*x509.Certificate{k.stranger.client(subject).Leaf}}, false},
		"nobody":     {tls.ConnectionState{DidResume: true}, false},
		"an old chain": {tls.ConnectionState{DidResume: true, PeerCertificates: []*x509.Certificate{k.stranger.client(subject).Leaf},
			VerifiedChains: [][]*x509.Certificate{{k.partner.Leaf, k.partners.certificate}}}, false},
		"a server": {tls.ConnectionState{DidResume: true, PeerCertificates: []*x509.Certificate{k.partners.server().Leaf}}, false},
	} {
		if err := c.VerifyConnection(test.state); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if open := gateway.ServerTLS(k.server, nil); open.ClientAuth != tls.NoClientCert || open.SessionTicketsDisabled {
		t.Errorf("without client CAs: %+v", open)
	}
}

// TestNotTLS, and who leaves or says nothing.
func TestNotTLS(t *testing.T) {
	for reason, say := range map[string]string{"not_tls": "GET / HTTP/1.1\r\n\r\n", "disconnected": "\x16\x03\x01", "timeout": "\x16\x03\x01"} {
		h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
			if reason == "timeout" {
				c.Limits.Handshake = 300 * time.Millisecond
			}
		}})
		conn, err := net.Dial("tcp", h.gateway.Addr("partners").String())
		must(err)
		_, err = io.WriteString(conn, say)
		must(err)
		if reason == "disconnected" {
			must(conn.Close())
		}
		eventually(t, reason+" is counted", func() bool {
			return h.metric("cardstile_handshake_failures_total", "listener", "partners", "reason", reason) == 1
		})
		logged := strings.Contains(h.log.String(), `"reason":"`+reason+`"`)
		if want := reason != "disconnected"; logged != want { // port scans and health checks
			t.Errorf("%s is logged: %t", reason, logged)
		}
		conn.Close()
	}
}

// TestSlowHandshakes: callers who dawdle in the handshake keep nobody else waiting.
func TestSlowHandshakes(t *testing.T) {
	h := newHouse(t, options{})
	for range 50 {
		conn, err := net.Dial("tcp", h.gateway.Addr("partners").String())
		must(err)
		defer conn.Close()
	}
	h.expect("beside them", h.partner(), mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})
}

// TestCloseEndsHandshakes: a shutdown does not wait for those who have not finished theirs.
func TestCloseEndsHandshakes(t *testing.T) {
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) { c.Limits.Handshake = time.Hour }})
	for _, say := range []string{"", "\x16\x03\x01"} {
		conn, err := net.Dial("tcp", h.gateway.Addr("partners").String())
		must(err)
		defer conn.Close()
		_, err = io.WriteString(conn, say)
		must(err)
	}
	eventually(t, "they are there", func() bool { return h.metric("cardstile_connections", "listener", "partners") == 2 })
	done := make(chan struct{})
	go func() {
		h.shutdown()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for handshakes that do not end")
	}
	if got := h.metric("cardstile_handshake_failures_total"); got != 0 {
		t.Errorf("%v handshakes are counted as failed", got)
	}
}

// TestHandshakeReasons: the reasons are a closed set, and each is met.
func TestHandshakeReasons(t *testing.T) {
	now := time.Now()
	old, young := &x509.Certificate{NotAfter: now.Add(-time.Hour)}, &x509.Certificate{NotBefore: now.Add(time.Hour)}
	verification := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	for _, test := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "read", Err: timeoutError{}}, "timeout"},
		{verification(x509.UnknownAuthorityError{}), "unknown_ca"},
		{verification(x509.CertificateInvalidError{Cert: old, Reason: x509.Expired}), "expired"},
		{verification(x509.CertificateInvalidError{Cert: young, Reason: x509.Expired}), "not_yet_valid"},
		{verification(x509.CertificateInvalidError{Cert: old, Reason: x509.IncompatibleUsage}), "wrong_usage"},
		{verification(x509.CertificateInvalidError{Cert: old, Reason: x509.TooManyIntermediates}), "bad_certificate"},
		{tls.RecordHeaderError{}, "not_tls"},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, "refused_by_client"},
		{io.EOF, "disconnected"},
		{io.ErrUnexpectedEOF, "disconnected"},
		{&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, "disconnected"},
		{errors.New("tls: client didn't provide a certificate"), "no_certificate"},
		{errors.New("tls: no certificates configured"), "no_such_host"},
		{errors.New("tls: client offered only unsupported versions: [301]"), "no_common_parameters"},
		{errors.New("tls: no cipher suite supported by both client and server"), "no_common_parameters"},
		{errors.New("tls: no key exchanges supported by both client and server"), "no_common_parameters"},
		{errors.New(`tls: client requested unsupported application protocols (["spdy/1"])`), "no_common_protocol"},
		{errors.New("4111111111111111"), "other"},
	} {
		if got := gateway.HandshakeReason(test.err); got != test.want {
			t.Errorf("%v: %s, want %s", test.err, got, test.want)
		}
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

// TestPartnersSwitch: a partner that is switched off is refused on the very connection that it has open, and so are its
// unused tokens, which stay dead; switched on again, it goes on.
func TestPartnersSwitch(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		h := newHouse(t, options{})
		partner, anybody := h.callerWith(&shared().partner, http2, nil), h.callerWith(nil, http2, nil)
		s := h.session()
		tokens := []string{h.mintBody(partner, ""), h.mintBody(partner, "")}
		anybody.do(call{listener: "public", method: "GET", path: "/nothing"})
		connections := h.metric("cardstile_handshakes_total")

		h.o.partners = demoPartners(func(p *policy.Partner) { p.Disabled = true })
		must(h.gateway.Reload(h.newConfig()))
		h.expect("mint, off", partner, mintCall(""),
			want{status: 403, body: gnosis("Forbidden"), results: []string{"refused denied_disabled"}, outcome: "forbidden"})
		h.expect("token, off", anybody, detailsCall(card, tokens[0], s.ID()),
			want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_revoked"}, outcome: "unauthorized", refused: "revoked"})
		h.generationBeyond(0)

		h.o.partners = demoPartners()
		must(h.gateway.Reload(h.newConfig()))
		h.expect("mint, on", partner, mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})
		h.expect("token, on", anybody, detailsCall(card, tokens[1], s.ID()),
			want{status: 401, body: gnosis("Unauthorized"), results: []string{"refused token_revoked"}, outcome: "unauthorized", redeemed: 1, refused: "revoked"})
		h.expect("another token, on", anybody, detailsCall(card, h.mintBody(partner, ""), s.ID()),
			want{status: 200, results: []string{"done"}, rule: "reveal", outcome: "done", upstream: 2, redeemed: 1})
		if got := h.metric("cardstile_handshakes_total"); got != connections {
			t.Errorf("%v connections were made anew", got-connections)
		}
	}
}

// TestOpenConnectionsAreJudged: a certificate that ends, a CA that is taken out, and a CA that is put in reach connections
// that are open.
func TestOpenConnectionsAreJudged(t *testing.T) {
	k := shared()
	clock := &turned{}
	h := newHouse(t, options{services: func(s *gateway.Services) { s.Now = clock.now }})
	forbidden := want{status: 403, body: gnosis("Forbidden"), results: []string{"refused certificate"}, outcome: "forbidden"}

	ending := k.partners.client(subject, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(30 * time.Minute) })
	leaving := h.callerWith(&ending, true, nil)
	h.mintBody(leaving, "")
	staying := h.partner()
	h.mintBody(staying, "")
	stranger := h.anybody()
	stranger.do(call{listener: "public", method: "GET", path: "/nothing"})
	connections := h.metric("cardstile_handshakes_total")
	clock.turn(31 * time.Minute)
	eventually(t, "how partners stand is known at that hour", func() bool { return staying.do(mintCall("")).status == 200 })
	h.expect("expired meanwhile", leaving, mintCall(""), forbidden)
	h.expect("still good", staying, mintCall(""), want{status: 200, results: []string{"done"}, rule: "mint", outcome: "done"})

	h.o.config = func(_ *house, c *gateway.Config) {
		c.Listeners[0].ClientCAs = k.stranger.pool()
		c.Listeners[1].ClientCAs = k.partners.pool()
	}
	must(h.gateway.Reload(h.newConfig()))
	h.expect("another CA", staying, mintCall(""), forbidden)
	// The public listener requires certificates now; a connection from before has none.
	h.expect("no certificate", stranger, detailsCall(card, "x", preamble(256)),
		want{status: 403, body: gnosis("Forbidden"), results: []string{"refused no_certificate"}, outcome: "forbidden"})
	if got := h.metric("cardstile_handshakes_total"); got != connections {
		t.Errorf("%v connections were made anew", got-connections)
	}
	if _, err := h.shake("public", &tls.Config{MinVersion: tls.VersionTLS13}); err == nil {
		t.Error("a new connection without a certificate is let in")
	}
}

// TestProxyProtocol: a listed address must name the caller, and is believed; from any other such a header is not TLS.
func TestProxyProtocol(t *testing.T) {
	listed := true
	h := newHouse(t, options{config: func(_ *house, c *gateway.Config) {
		for i := range c.Listeners {
			c.Listeners[i].ProxyProtocol = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
			if listed {
				c.Listeners[i].ProxyProtocol = append(c.Listeners[i].ProxyProtocol, netip.MustParsePrefix("127.0.0.0/8"))
			}
		}
	}})
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x01\x30\x39\x01\xbb" // 203.0.113.9:12345 to 192.0.2.1:443
	mint := func(header string) (reply, error) {
		c := h.partner()
		transport := c.c.Transport.(*http.Transport)
		transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, address)
			if err == nil {
				_, err = io.WriteString(conn, header)
			}
			return conn, err
		}
		return c.try(mintCall(""))
	}
	for _, test := range []struct{ name, header, address string }{
		{"version 1", "PROXY TCP4 203.0.113.7 192.0.2.1 12345 443\r\n", "203.0.113.7"},
		{"version 1, IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n", "2001:db8::7"},
		{"version 2", v2, "203.0.113.9"},
	} {
		r, err := mint(test.header)
		if err != nil || r.status != 200 {
			t.Fatalf("%s: %+v, %v", test.name, r, err)
		}
		if last := h.records()[len(h.records())-1]; last.Address != test.address {
			t.Errorf("%s: recorded %s", test.name, last.Address)
		}
	}
	for _, header := range []string{"", "PROXY TCP4 203.0.113.7\r\n", "PROXY TCP4 999.0.113.7 192.0.2.1 12345 443\r\n", v2[:20]} {
		if _, err := mint(header); err == nil {
			t.Errorf("%q is let in", header)
		}
	}
	// An address in a header of HTTP is nobody's.
	c := h.callerWith(&shared().partner, true, nil)
	listed = false
	must(h.gateway.Reload(h.newConfig()))
	x := mintCall("")
	x.header = append(x.header, "X-Forwarded-For", "203.0.113.8", "Forwarded", "for=203.0.113.8")
	if r := c.do(x); r.status != 200 {
		t.Fatalf("%+v", r)
	}
	if last := h.records()[len(h.records())-1]; last.Address != "127.0.0.1" {
		t.Errorf("recorded %s", last.Address)
	}
	for name, header := range map[string]string{"version 1": "PROXY TCP4 203.0.113.7 192.0.2.1 12345 443\r\n", "version 2": v2} {
		before := h.metric("cardstile_handshake_failures_total", "reason", "not_tls")
		if _, err := mint(header); err == nil {
			t.Errorf("%s from an address that is not listed is let in", name)
		}
		eventually(t, "it is counted", func() bool { return h.metric("cardstile_handshake_failures_total", "reason", "not_tls") == before+1 })
	}
	for _, r := range h.records() {
		if r.Result == string(audit.ResultDone) && strings.HasPrefix(r.Address, "203.0.113.8") {
			t.Error("a caller named its own address")
		}
	}
}
