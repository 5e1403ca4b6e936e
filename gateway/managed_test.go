package gateway_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/libdns/libdns"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/goleak"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/internal/testacme"
	"github.com/cardstile/cardstile/vault/keys"
)

// The hosts of these tests: the partners' listener has both, the public one the second.
const (
	host  = "api.example.test"
	other = "pay.example.test"
)

// managed are the options of a house whose certificates are obtained.
func managed(m *gateway.Managed, change ...func(*gateway.Config)) options {
	return options{
		services: func(s *gateway.Services) { s.Managed = m },
		config: func(_ *house, c *gateway.Config) {
			c.Certificates = seals("certificate")
			c.Listeners[0].Certificate, c.Listeners[0].Hosts = tls.Certificate{}, []string{host, other}
			c.Listeners[1].Certificate, c.Listeners[1].Hosts = tls.Certificate{}, []string{other}
			for _, f := range change {
				f(c)
			}
		},
	}
}

// by is an authority as a gateway's configuration has it.
func by(ca *testacme.CA, challenge gateway.Challenge) *gateway.ACME {
	return &gateway.ACME{URL: ca.URL, Roots: ca.Directory, Email: "ops@example.test", Challenge: challenge}
}

// hello shakes hands, and returns the certificate that it was shown.
func (h *house) hello(listener string, c *tls.Config) (*x509.Certificate, error) {
	conn, err := tls.Dial("tcp", h.gateway.Addr(listener).String(), c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	// Under TLS 1.3 the server judges a client's certificate after the client is done: an answer shows that it was let in.
	if _, err := io.WriteString(conn, "GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		return nil, err
	}
	if _, err := io.ReadAll(conn); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

// awaited waits until a host's certificate is served, and returns it. What fails once, as a validation on a busy machine, certmagic
// tries again after a minute.
func (h *house) awaited(listener, name string, roots *x509.CertPool) *x509.Certificate {
	h.t.Helper()
	var c *x509.Certificate
	defer func() {
		if h.t.Failed() {
			h.t.Log(h.log.String())
		}
	}()
	within(h.t, 90*time.Second, "a certificate for "+name, func() (ok bool) {
		var err error
		c, err = h.hello(listener, &tls.Config{RootCAs: roots, ServerName: name, Certificates: []tls.Certificate{shared().partner}})
		return err == nil
	})
	return c
}

// TestACME: for each challenge, with an authority that rejects good nonces and takes its time, certificates are had, and
// nothing readable is kept.
func TestACME(t *testing.T) {
	for _, test := range []struct {
		name    string
		prepare func(*testing.T, *testacme.CA) *gateway.ACME
	}{
		{"tls-alpn-01", func(_ *testing.T, ca *testacme.CA) *gateway.ACME { return by(ca, gateway.ChallengeALPN) }},
		{"http-01", func(_ *testing.T, ca *testacme.CA) *gateway.ACME {
			a := by(ca, gateway.ChallengeHTTP)
			a.HTTPAddress = "127.0.0.1:0"
			return a
		}},
		{"dns-01 by a program", func(_ *testing.T, ca *testacme.CA) *gateway.ACME {
			a := by(ca, gateway.ChallengeDNS)
			a.DNS = &gateway.DNSHook{Program: []string{"sh", "-c", `cat >>"$0"`, ca.DNS.File}, Resolvers: []string{ca.DNS.Addr}}
			return a
		}},
		{"dns-01 by a web hook", func(t *testing.T, ca *testacme.CA) *gateway.ACME {
			a := by(ca, gateway.ChallengeDNS)
			hook, roots := dnsWebhook(t, ca.DNS.File)
			a.DNS = &gateway.DNSHook{URL: hook, Roots: roots, Bearer: "hook-bearer-of-the-tests", Resolvers: []string{ca.DNS.Addr}}
			return a
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ca := testacme.Start(t, testacme.Options{BindingID: "kid-1", BindingKey: "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"})
			ca.Hold()
			a := test.prepare(t, ca)
			a.BindingID, a.BindingKey = "kid-1", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
			dir := filepath.Join(t.TempDir(), "certificates")
			// Challenges that are under way are known to the whole process, so that hosts are to be of one test each.
			label := strings.ReplaceAll(test.name, " ", "-")
			first, second := label+"."+host, label+"."+other
			h := newHouse(t, managed(&gateway.Managed{ACME: a, Directory: dir}, func(c *gateway.Config) {
				c.Listeners[0].Hosts, c.Listeners[1].Hosts = []string{first, second}, []string{second}
			}))
			h.secret(a.BindingKey)
			ca.TLS.Lead(h.gateway.Addr("partners").String())
			if web := h.gateway.Addr("http-01"); web != nil {
				ca.HTTP.Lead(web.String())
			}
			ca.Held(t)
			h.withoutCertificates(a.Challenge, first, second)
			ca.Release()
			h.withCertificates(ca, a, first, second)
			if changes, err := ca.DNS.Changes(); err != nil || (a.DNS != nil) != (len(changes) == 4) {
				t.Errorf("changes of DNS: %+v, %v", changes, err)
			}
			h.shutdown()
			nothingReadable(t, dir)
		})
	}
}

// withoutCertificates looks at a gateway whose orders have not been finished.
func (h *house) withoutCertificates(c gateway.Challenge, host, other string) {
	h.t.Helper()
	_, err := h.hello("public", &tls.Config{InsecureSkipVerify: true, ServerName: other})
	if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
		h.t.Errorf("without a certificate: %v", err)
	}
	eventually(h.t, "it is counted", func() bool {
		return h.metric("cardstile_handshake_failures_total", "listener", "public", "reason", "no_such_host") > 0
	})
	// An authority that comes by the way of the callers must find it ready: see waiting.
	status, body := http.StatusOK, `{"status":"ready","waiting":["certificates: none for `+host+`","certificates: none for `+other+`"]}`+"\n"
	if c == gateway.ChallengeDNS {
		status, body = http.StatusServiceUnavailable, `{"status":"unready","problems":["certificates: none for `+host+`","certificates: none for `+other+`"]}`+"\n"
	}
	if r := h.admin("GET", "/readyz"); r.status != status || r.body != body {
		h.t.Errorf("readyz: %d %s", r.status, r.body)
	}
	if n := h.metric("cardstile_certificate_expiry_timestamp_seconds"); n != 0 {
		h.t.Errorf("certificates end at %v", n)
	}
}

// withCertificates waits for certificates, and looks at them.
func (h *house) withCertificates(ca *testacme.CA, a *gateway.ACME, host, other string) {
	h.t.Helper()
	first := h.awaited("partners", host, ca.Roots)
	second := h.awaited("partners", other, ca.Roots)
	if got := h.awaited("public", other, ca.Roots); !got.Equal(second) {
		h.t.Error("two listeners have two certificates of one host")
	}
	for name, want := range map[string]*x509.Certificate{host: first, strings.ToUpper(other): second, "": first} {
		c := &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: []tls.Certificate{shared().partner}}
		if got, err := h.hello("partners", c); err != nil || !got.Equal(want) {
			h.t.Errorf("named %q: %v, want that of %s", name, err, want.DNSNames)
		}
	}
	for listener, name := range map[string]string{"public": host, "partners": "www.example.test"} {
		c := &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: []tls.Certificate{shared().partner}}
		if _, err := h.hello(listener, c); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			h.t.Errorf("%s on %s: %v", name, listener, err)
		}
	}
	for at, c := range map[[2]string]*x509.Certificate{{"partners", host}: first, {"partners", other}: second, {"public", other}: second} {
		if end := h.metric("cardstile_certificate_expiry_timestamp_seconds", "listener", at[0], "kind", "server", "host", at[1]); end != float64(c.NotAfter.Unix()) {
			h.t.Errorf("%v ends at %v, want %v", at, end, c.NotAfter.Unix())
		}
	}
	for _, name := range []string{host, other} {
		eventually(h.t, "the order is counted", func() bool {
			return h.metric("cardstile_certificate_orders_total", "host", name, "operation", "obtain", "result", "ok") == 1
		})
	}
	if n := h.metric("cardstile_certificate_orders_total"); n != 2 || ca.Orders() != 2 {
		h.t.Errorf("%v orders are counted, %d were taken", n, ca.Orders())
	}
	if r := h.admin("GET", "/readyz"); r.status != 200 || r.body != `{"status":"ready"}`+"\n" {
		h.t.Errorf("readyz: %d %s", r.status, r.body)
	}
	if _, err := h.hello("partners", &tls.Config{RootCAs: ca.Roots, ServerName: host}); err == nil {
		h.t.Error("let in without a client certificate")
	}
	if a.Challenge == gateway.ChallengeHTTP {
		h.answersChallengesAlone(host)
	}
}

// answersChallengesAlone: whatever else comes in clear gets 404, and is redirected nowhere.
func (h *house) answersChallengesAlone(host string) {
	h.t.Helper()
	for _, r := range []struct{ method, path, host string }{
		{"GET", "/", host}, {"GET", "/.well-known/acme-challenge/none", host}, {"GET", "/.well-known/acme-challenge/", host},
		{"GET", "/.well-known/acme-challenge/none", "elsewhere.example"}, {"GET", "/api/v1/cards", host}, {"POST", "/.well-known/acme-challenge/none", host},
	} {
		request, err := http.NewRequest(r.method, "http://"+h.gateway.Addr("http-01").String()+r.path, nil)
		must(err)
		request.Host = r.host
		answer, err := http.DefaultTransport.RoundTrip(request)
		if err != nil {
			h.t.Errorf("%+v: %v", r, err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusNotFound || len(body) != 0 || answer.Header.Get("Location") != "" {
			h.t.Errorf("%+v: %d %q", r, answer.StatusCode, body)
		}
	}
}

// nothingReadable looks through a directory of certificates.
func nothingReadable(t *testing.T, dir string) {
	t.Helper()
	found := 0
	must(filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			info, _ := d.Info()
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		}
		content, err := os.ReadFile(path)
		must(err)
		if strings.Contains(string(content), "PRIVATE KEY") || strings.Contains(string(content), "CERTIFICATE") {
			t.Errorf("%s can be read", path)
		}
		if strings.HasSuffix(path, ".key") {
			found++
		}
		return nil
	}))
	if found != 3 { // of two hosts, and of the account
		t.Errorf("%d keys are kept", found)
	}
}

// dnsWebhook is a hook that takes changes into a file.
func dnsWebhook(t *testing.T, file string) (string, *x509.CertPool) {
	var mu sync.Mutex
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodPost || r.URL.Path != "/hook" || r.Header.Get("Authorization") != "Bearer hook-bearer-of-the-tests" || r.Header.Get("Content-Type") != "application/json" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		must(err)
		_, err = io.Copy(f, r.Body)
		must(errors.Join(err, f.Close()))
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server.URL + "/hook", roots
}

// TestALPNDoor: while a challenge is under way, whoever offers its protocol alone, for its host, sees its certificate, and gets
// no further. Nobody else gets past the listener's own rules by it.
func TestALPNDoor(t *testing.T) {
	dir := t.TempDir()
	must(os.Chmod(dir, 0o700))
	a := &gateway.ACME{URL: "https://127.0.0.1:1/dir", Challenge: gateway.ChallengeALPN}
	storage := &certmagic.FileStorage{Path: dir}
	keep := func(key string, value []byte) {
		sealed, err := seals("certificate").Seal(nil, []byte(key), value)
		must(errors.Join(err, storage.Store(t.Context(), key, sealed)))
	}
	// The host has a certificate, which is to be renewed.
	own := shared().servers.issue(ecKey(), &x509.Certificate{DNSNames: []string{host}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	ownKey, err := certmagic.PEMEncodePrivateKey(own.PrivateKey)
	must(err)
	const by = "127.0.0.1-1-dir"
	keep(certmagic.StorageKeys.SiteCert(by, host), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.Certificate[0]}))
	keep(certmagic.StorageKeys.SitePrivateKey(by, host), ownKey)
	keep(certmagic.StorageKeys.SiteMeta(by, host), []byte(`{"sans":["`+host+`"]}`))
	h := newHouse(t, managed(&gateway.Managed{ACME: a, Directory: dir}))
	if c := h.awaited("partners", host, shared().servers.pool()); !c.Equal(own.Leaf) {
		t.Fatal("another certificate")
	}
	exchanges, handshakes := h.metric("cardstile_exchanges_total"), h.metric("cardstile_handshakes_total")
	// The challenge is under way at another instance, which says so in the storage.
	challenge, err := json.Marshal(acme.Challenge{Type: acme.ChallengeTypeTLSALPN01, Token: "t", KeyAuthorization: "t.k", Identifier: acme.Identifier{Type: "dns", Value: host}})
	must(err)
	const key = "acme/" + by + "/challenge_tokens/" + host + ".json"
	keep(key, challenge)

	var tickets noTickets
	dial := func(version uint16, name string, protocols ...string) (*tls.Conn, error) {
		return tls.Dial("tcp", h.gateway.Addr("partners").String(), &tls.Config{
			InsecureSkipVerify: true, ServerName: name, NextProtos: protocols, MinVersion: version, MaxVersion: version,
			ClientSessionCache: &tickets,
		})
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		conn, err := dial(version, host, "acme-tls/1")
		if err != nil {
			t.Fatalf("%s: the authority is not let see: %v", tls.VersionName(version), err)
		}
		state := conn.ConnectionState()
		leaf := state.PeerCertificates[0]
		if state.NegotiatedProtocol != "acme-tls/1" || !slices.Equal(leaf.DNSNames, []string{host}) ||
			!slices.ContainsFunc(leaf.Extensions, func(e pkix.Extension) bool { return e.Id.String() == "1.3.6.1.5.5.7.1.31" && e.Critical }) {
			t.Errorf("%s: %+v", tls.VersionName(version), leaf.Subject)
		}
		// What it sends is not answered: the connection ends, and no ticket came that would open it again.
		must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n") // it may be closed by now
		if answer, _ := io.ReadAll(conn); len(answer) != 0 {
			t.Errorf("%s: it is answered %q", tls.VersionName(version), answer)
		}
		conn.Close()
		for _, refused := range []struct {
			name, sni string
			protocols []string
		}{
			{"with http/1.1", host, []string{"acme-tls/1", "http/1.1"}},
			{"after h2", host, []string{"h2", "acme-tls/1"}},
			{"twice", host, []string{"acme-tls/1", "acme-tls/1"}},
			{"a host without a challenge", other, []string{"acme-tls/1"}},
			{"a host that is not ours", "www.example.test", []string{"acme-tls/1"}},
			{"no host", "", []string{"acme-tls/1"}},
			{"another protocol", host, []string{"acme-tls/2"}},
			{"none", host, nil},
		} {
			conn, err := dial(version, refused.sni, refused.protocols...)
			if err == nil { // under TLS 1.3 the client is done before it is judged
				must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
				_, err = conn.Read(make([]byte, 1))
				if conn.ConnectionState().NegotiatedProtocol == "acme-tls/1" {
					t.Errorf("%s, %s: let through the door", refused.name, tls.VersionName(version))
				}
				conn.Close()
			}
			if alert := new(net.OpError); !errors.As(err, &alert) || alert.Op != "remote error" {
				t.Errorf("%s, %s: %v", refused.name, tls.VersionName(version), err)
			}
		}
	}
	if h.metric("cardstile_exchanges_total") != exchanges || h.metric("cardstile_handshakes_total") != handshakes+2 { // the authority's two
		t.Error("something came through")
	}
	if n := tickets.Load(); n != 0 {
		t.Errorf("%d tickets were given", n)
	}
	if _, err := tls.Dial("tcp", h.gateway.Addr("public").String(), &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{"acme-tls/1"}}); err == nil {
		t.Error("let in on a listener that does not have the host")
	}
	must(storage.Delete(t.Context(), key))
	if _, err := dial(tls.VersionTLS13, host, "acme-tls/1"); err == nil {
		t.Error("let in after the challenge")
	}
	// What somebody else put there is not ours.
	must(storage.Store(t.Context(), key, challenge))
	if _, err := dial(tls.VersionTLS13, host, "acme-tls/1"); err == nil {
		t.Error("a challenge that we did not seal is answered")
	}
}

// noTickets counts the sessions that a client could resume.
type noTickets struct{ atomic.Int64 }

func (*noTickets) Get(string) (*tls.ClientSessionState, bool) { return nil, false }
func (n *noTickets) Put(_ string, s *tls.ClientSessionState) {
	if s != nil {
		n.Add(1)
	}
}

// TestDNSHookFails: what goes wrong is said, and nothing that the hook said or that is a secret.
func TestDNSHookFails(t *testing.T) {
	const secret = "hook-secret-of-the-tests"
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/fine", http.StatusTemporaryRedirect)
		case "/hangs":
			<-hang
		case "/fine":
		default:
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, secret)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(hang) })
	for _, test := range []struct {
		hook gateway.DNSHook
		want string
	}{
		{gateway.DNSHook{Program: []string{"sh", "-c", "echo " + secret + " | tee /dev/stderr; exit 3"}}, "dns hook: append: the program ended with exit status 3"},
		{gateway.DNSHook{Program: []string{"sh", "-c", "sleep 60 & wait"}, Timeout: 50 * time.Millisecond}, "dns hook: append: no answer within 50ms"},
		{gateway.DNSHook{Program: []string{"/nowhere"}}, "dns hook: append: fork/exec /nowhere: no such file or directory"},
		{gateway.DNSHook{URL: server.URL + "/fails?key=" + secret, Bearer: secret}, "dns hook: append: status 500"},
		{gateway.DNSHook{URL: server.URL + "/moved"}, "dns hook: append: status 307"},
		{gateway.DNSHook{URL: server.URL + "/hangs", Timeout: 50 * time.Millisecond}, "dns hook: append: no answer within 50ms"},
		{gateway.DNSHook{URL: "http://127.0.0.1:1/" + secret}, "dns hook: append: dial tcp 127.0.0.1:1: connect: connection refused"},
		{gateway.DNSHook{URL: server.URL + "/fine"}, ""},
		{gateway.DNSHook{Program: []string{"sh", "-c", `grep -qx '{"operation":"append","zone":"example.test.","records":\[{"name":"a","type":"TXT","ttl":60,"value":"v"}\]}'`}}, ""},
	} {
		_, err := test.hook.AppendRecords(t.Context(), "example.test.", []libdns.Record{libdns.RR{Name: "a", Type: "TXT", TTL: time.Minute, Data: "v"}})
		if text := fmt.Sprint(err); text != test.want && (err != nil || test.want != "") {
			t.Errorf("%q, want %q", text, test.want)
		}
	}
}

// TestKeyTypes: keys are of the type that is configured, P-256 where none is.
func TestKeyTypes(t *testing.T) {
	for name, want := range map[string]int{"": 256, "p384": 384} {
		m := gateway.Managed{Directory: filepath.Join(t.TempDir(), "certificates"), KeyType: name}
		h := newHouse(t, managed(&m))
		key, ok := h.awaited("public", other, h.localRoots(m)).PublicKey.(*ecdsa.PublicKey)
		if !ok || key.Params().BitSize != want {
			t.Errorf("%q: %+v", name, key)
		}
	}
}

// TestALPNDoorIsShut where another challenge is configured.
func TestALPNDoorIsShut(t *testing.T) {
	dir := t.TempDir()
	must(os.Chmod(dir, 0o700))
	a := &gateway.ACME{URL: "https://127.0.0.1:1/dir", Challenge: gateway.ChallengeHTTP, HTTPAddress: "127.0.0.1:0"}
	h := newHouse(t, managed(&gateway.Managed{ACME: a, Directory: dir}))
	challenge, err := json.Marshal(acme.Challenge{Type: acme.ChallengeTypeHTTP01, Token: "t", KeyAuthorization: "t.k", Identifier: acme.Identifier{Type: "dns", Value: host}})
	must(err)
	const key = "acme/127.0.0.1-1-dir/challenge_tokens/" + host + ".json"
	sealed, err := seals("certificate").Seal(nil, []byte(key), challenge)
	must(err)
	must((&certmagic.FileStorage{Path: dir}).Store(t.Context(), key, sealed))
	if _, err := tls.Dial("tcp", h.gateway.Addr("partners").String(), &tls.Config{InsecureSkipVerify: true, ServerName: host, NextProtos: []string{"acme-tls/1"}}); err == nil {
		t.Error("let in by a challenge that is answered elsewhere")
	}
	request, err := http.NewRequest("GET", "http://"+h.gateway.Addr("http-01").String()+"/.well-known/acme-challenge/t", nil)
	must(err)
	request.Host = host
	answer, err := http.DefaultTransport.RoundTrip(request)
	must(err)
	body, err := io.ReadAll(answer.Body)
	must(errors.Join(err, answer.Body.Close()))
	if answer.StatusCode != 200 || string(body) != "t.k" {
		t.Errorf("the challenge itself: %d %q", answer.StatusCode, body)
	}
}

// TestRenewalUnderLoad: certificates that end within seconds are renewed, and no request fails meanwhile: neither one on a new
// connection nor one on an old one.
func TestRenewalUnderLoad(t *testing.T) {
	t.Parallel()
	ca := testacme.Start(t, testacme.Options{Validity: 24 * time.Second})
	h := newHouse(t, managed(&gateway.Managed{ACME: by(ca, gateway.ChallengeALPN), Directory: filepath.Join(t.TempDir(), "c"), CheckEvery: 50 * time.Millisecond},
		func(c *gateway.Config) { c.Listeners[0].Hosts = []string{host} }))
	ca.TLS.Lead(h.gateway.Addr("partners").String())
	first := h.awaited("partners", host, ca.Roots)

	stop := make(chan struct{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen, failures, requests := map[string]bool{}, []string{}, 0
	load := func(fresh bool) {
		transport := &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: ca.Roots, ServerName: host, Certificates: []tls.Certificate{shared().partner}},
			DisableKeepAlives: fresh, ForceAttemptHTTP2: true,
		}
		defer transport.CloseIdleConnections()
		pace := time.NewTicker(5 * time.Millisecond) // of handshakes alone there would be no end
		defer pace.Stop()
		for {
			select {
			case <-stop:
				return
			case <-pace.C:
			}
			request, err := http.NewRequest("GET", "https://"+h.gateway.Addr("partners").String()+"/nothing", nil)
			must(err)
			request.Host = host
			answer, err := transport.RoundTrip(request)
			if err == nil {
				io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
				if answer.StatusCode != http.StatusNotFound {
					err = fmt.Errorf("status %d", answer.StatusCode)
				}
			}
			mu.Lock()
			requests++
			if err != nil {
				failures = append(failures, err.Error())
			} else if fresh {
				seen[answer.TLS.PeerCertificates[0].SerialNumber.String()] = true
			}
			mu.Unlock()
		}
	}
	for _, fresh := range []bool{true, true, false} {
		wg.Go(func() { load(fresh) })
	}
	eventually(t, "a renewal", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(failures) > 0 || len(seen) >= 2
	})
	close(stop)
	wg.Wait()
	if len(failures) > 0 {
		t.Errorf("of %d requests %d failed: %s", requests, len(failures), failures[0])
	}
	if n := h.metric("cardstile_certificate_orders_total", "operation", "renew", "result", "ok"); n < 1 || requests < 100 {
		t.Errorf("%v renewals, %d requests", n, requests)
	}
	if last := h.metric("cardstile_certificate_expiry_timestamp_seconds", "listener", "partners"); last <= float64(first.NotAfter.Unix()) {
		t.Errorf("the certificate that is shown ends at %v, the first one at %v", last, first.NotAfter.Unix())
	}
}

// TestSuggestedRenewal: a certificate that is good for months is renewed when its authority suggests it, and the next one is not
// (RFC 9773).
func TestSuggestedRenewal(t *testing.T) {
	t.Parallel()
	const suggested = "suggested.example.test" // certmagic keeps the challenges that are under way by host alone, for the whole process
	ca := testacme.Start(t, testacme.Options{Suggestions: 1})
	h := newHouse(t, managed(&gateway.Managed{ACME: by(ca, gateway.ChallengeALPN), Directory: filepath.Join(t.TempDir(), "c"), CheckEvery: 50 * time.Millisecond},
		func(c *gateway.Config) {
			c.Listeners[0].Hosts, c.Listeners[1].Hosts, c.Listeners[1].Certificate = []string{suggested}, nil, shared().server
		}))
	ca.TLS.Lead(h.gateway.Addr("partners").String())
	first := h.awaited("partners", suggested, ca.Roots)
	if time.Until(first.NotAfter) < 30*24*time.Hour {
		t.Fatalf("it ends at %v: it would be renewed anyway", first.NotAfter)
	}
	renewals := func() float64 {
		return h.metric("cardstile_certificate_orders_total", "operation", "renew", "result", "ok")
	}
	within(t, 90*time.Second, "it is renewed", func() bool { return renewals() >= 1 })
	eventually(t, "the new one is served", func() bool {
		return h.awaited("partners", suggested, ca.Roots).SerialNumber.Cmp(first.SerialNumber) != 0
	})
	second := h.awaited("partners", suggested, ca.Roots)
	for range 10 { // ten looks and more at what is to be renewed
		time.Sleep(50 * time.Millisecond)
	}
	if again := h.awaited("partners", suggested, ca.Roots); again.SerialNumber.Cmp(second.SerialNumber) != 0 || renewals() != 1 || ca.Orders() != 2 {
		t.Errorf("%v renewals, %d orders: nobody suggested a second", renewals(), ca.Orders())
	}
}

// TestLocalCA: the development CA issues for the listeners' hosts, and instances that share a storage share it.
func TestLocalCA(t *testing.T) {
	m := gateway.Managed{Directory: filepath.Join(t.TempDir(), "certificates")}
	h := newHouse(t, managed(&m))
	roots := h.localRoots(m)
	first := h.awaited("partners", host, roots)
	if !slices.Equal(first.DNSNames, []string{host}) || first.IsCA || time.Until(first.NotAfter) > 8*24*time.Hour {
		t.Errorf("%v, CA %v, until %v", first.DNSNames, first.IsCA, first.NotAfter)
	}
	h.awaited("partners", other, roots)
	again := newHouse(t, managed(&m))
	if c := again.awaited("partners", host, roots); !c.Equal(first) {
		t.Error("another instance has another certificate")
	}
	if again.localCAPEM(m) != h.localCAPEM(m) {
		t.Error("another instance has another CA")
	}
	nothingReadable(t, m.Directory)
}

func (h *house) localCAPEM(m gateway.Managed) string {
	h.t.Helper()
	certificate, err := gateway.LocalCA(h.t.Context(), m, seals("certificate"), h.services.Log)
	must(err)
	return string(certificate)
}

func (h *house) localRoots(m gateway.Managed) *x509.CertPool {
	h.t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(h.localCAPEM(m))) {
		h.t.Fatal("no certificate")
	}
	return roots
}

// TestReloadOfHosts: hosts come and go, and connections that are open stay.
func TestReloadOfHosts(t *testing.T) {
	m := gateway.Managed{Directory: filepath.Join(t.TempDir(), "certificates")}
	hosts := []string{host, other}
	h := newHouse(t, managed(&m, func(c *gateway.Config) { c.Listeners[0].Hosts = hosts }))
	roots := h.localRoots(m)
	first := h.awaited("partners", host, roots)
	h.awaited("public", other, roots)
	open, err := tls.Dial("tcp", h.gateway.Addr("partners").String(), &tls.Config{RootCAs: roots, ServerName: host, Certificates: []tls.Certificate{shared().partner}})
	must(err)
	defer open.Close()

	if n := h.metric("cardstile_certificate_orders_total", "host", host); n != 1 {
		t.Errorf("%v orders", n)
	}
	hosts = []string{"new.example.test", "*.wild.example.test"}
	must(h.gateway.Reload(h.newConfig()))
	h.awaited("partners", "new.example.test", roots)
	h.awaited("partners", "any.wild.example.test", roots)
	for _, gone := range []string{host, "wild.example.test", "a.b.wild.example.test"} {
		if _, err := h.hello("partners", &tls.Config{InsecureSkipVerify: true, ServerName: gone}); err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: %v", gone, err)
		}
	}
	h.awaited("public", other, roots)
	if n := h.metric("cardstile_certificate_expiry_timestamp_seconds", "host", host); n != 0 || h.gateway.Kept(host) != 0 || h.gateway.Kept(other) != 1 {
		t.Error("a host that has gone is shown, or kept, and would be renewed")
	}
	must(open.SetDeadline(time.Now().Add(20 * time.Second)))
	io.WriteString(open, "GET /nothing HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	if answer, err := io.ReadAll(open); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 404") {
		t.Errorf("a connection that was open: %q, %v", answer, err)
	}
	hosts = []string{host}
	must(h.gateway.Reload(h.newConfig()))
	if back := h.awaited("partners", host, roots); !back.Equal(first) {
		t.Error("a host that came back has another certificate than it has in the storage")
	}
	if n := h.metric("cardstile_certificate_orders_total", "host", host); n != 0 { // what was counted before went with the host
		t.Errorf("%v orders of a host that came back", n)
	}
}

// TestHostsNeedARestart where no certificates were obtained at the start.
func TestHostsNeedARestart(t *testing.T) {
	h := newHouse(t, options{})
	c := h.newConfig()
	c.Listeners[0].Hosts = []string{host}
	if err := h.gateway.Reload(c); err == nil || !strings.Contains(err.Error(), "restart") {
		t.Errorf("%v", err)
	}
	if err := gateway.Check(c); err != nil {
		t.Errorf("check: %v", err)
	}
}

// TestWrongKey: an instance without the key that sealed a certificate says so, and has no other one issued: it would put that in
// the place of the one that the others have.
func TestWrongKey(t *testing.T) {
	m := gateway.Managed{Directory: filepath.Join(t.TempDir(), "certificates")}
	h := newHouse(t, managed(&m))
	roots := h.localRoots(m)
	first := h.awaited("partners", host, roots)
	foreign, err := keys.Ephemeral("another", keys.UseStorage)
	must(err)
	ring, err := keys.NewSealRing("certificate", foreign)
	must(err)
	lost := newHouse(t, managed(&m, func(c *gateway.Config) { c.Certificates = ring }))
	eventually(t, "it is said", func() bool { return strings.Contains(lost.log.String(), "does not open with the keys of use storage") })
	if status, problems := lost.readyz(); status != 503 || !strings.Contains(problems, "certificates: none for "+host) {
		t.Errorf("%d %s", status, problems)
	}
	if n := lost.metric("cardstile_certificate_orders_total"); n != 0 {
		t.Errorf("%v orders", n)
	}
	// With both keys it opens, and what is written once is sealed anew.
	both, err := keys.NewSealRing("certificate", foreign, shared().symmetry[keys.UseStorage])
	must(err)
	found := newHouse(t, managed(&m, func(c *gateway.Config) { c.Certificates = both }))
	if c := found.awaited("partners", host, roots); !c.Equal(first) {
		t.Error("another certificate")
	}
	if _, err := gateway.LocalCA(t.Context(), m, both, h.services.Log); err != nil {
		t.Error(err)
	}
	content, err := os.ReadFile(filepath.Join(m.Directory, "local", "ca.key"))
	must(err)
	if _, err := ring.Open(nil, []byte("local/ca.key"), content); err != nil {
		t.Errorf("the CA's key is not sealed with the new primary: %v", err)
	}
}

// TestShutdownGivesLocksBack: an instance that ends in the middle of an order leaves it to the next one at once, and nothing
// runs on.
func TestShutdownGivesLocksBack(t *testing.T) {
	ca := testacme.Start(t, testacme.Options{})
	server, redis := redisFiles(t)
	must(redis.Ready(t.Context()))
	ca.Hold()
	h := newHouse(t, managed(&gateway.Managed{ACME: by(ca, gateway.ChallengeALPN), Files: redis}))
	ca.TLS.Lead(h.gateway.Addr("partners").String())
	ca.Held(t)
	if locks := server.Do("KEYS", "*:lock:*").([]any); len(locks) == 0 {
		t.Error("nothing is locked")
	}
	h.shutdown()
	if locks := server.Do("KEYS", "*:lock:*").([]any); len(locks) != 0 {
		t.Errorf("left behind: %v", locks)
	}
}

// TestNothingRunsOn when a gateway that kept certificates has ended.
func TestNothingRunsOn(t *testing.T) {
	_, redis := redisFiles(t)
	m := gateway.Managed{Files: redis}
	must(redis.Ready(t.Context()))
	before := goleak.IgnoreCurrent()
	t.Run("house", func(t *testing.T) {
		h := newHouse(t, managed(&m))
		h.awaited("partners", host, h.localRoots(m))
		h.awaited("public", other, h.localRoots(m))
	})
	goleak.VerifyNone(t, before)
}
