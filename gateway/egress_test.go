package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/policy"
)

// TestDestinations: public addresses unless something is listed; what is listed and nothing else then; what is not public only from
// inside its own block; and an IPv4 address inside IPv6 is that IPv4 address.
func TestDestinations(t *testing.T) {
	networks := func(list ...string) (all []netip.Prefix) {
		for _, p := range list {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	public := gateway.Destinations{}
	private := gateway.Destinations{Listed: networks("10.20.0.0/16", "fd00:1::/32")}
	anywhere := gateway.Destinations{Listed: networks("0.0.0.0/0", "::/0")}
	metadata := gateway.Destinations{Listed: networks("169.254.169.254/32")}
	one := gateway.Destinations{Listed: networks("8.8.8.0/24")}
	literal := gateway.Destinations{Named: netip.MustParseAddr("::ffff:10.1.1.1")}
	test := gateway.Destinations{Loopback: true}
	both := gateway.Destinations{Loopback: true, Listed: networks("8.8.8.0/24"), Named: netip.MustParseAddr("10.1.1.1")}
	for name, c := range map[string]struct {
		d       gateway.Destinations
		allowed string
		refused string
	}{
		"public": {public, "8.8.8.8 2606:4700::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8", "0.0.0.0 :: 127.0.0.1 127.9.9.9 ::1 10.1.2.3 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 " +
			"169.254.169.254 fe80::1 fe80::1%lo fd00:ec2::254 224.0.0.1 ff02::1 255.255.255.255 192.0.2.1 198.18.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 64:ff9b::a9fe:a9fe " +
			"64:ff9b::7f00:1 64:ff9b:1::1 2002:a9fe:a9fe:: 2002:808:808:: 2001::1 2001:db8::1 ::127.0.0.1 fec0::1"},
		"a private network":           {private, "10.20.0.1 ::ffff:10.20.3.4 64:ff9b::10.20.0.1 fd00:1::5", "10.21.0.1 8.8.8.8 127.0.0.1 169.254.169.254 fd00:2::1"},
		"anywhere":                    {anywhere, "8.8.8.8 2606:4700::1", "127.0.0.1 ::1 10.0.0.1 169.254.169.254 ::ffff:169.254.169.254 fe80::1 0.0.0.0 :: 224.0.0.1 2002:808:808::"},
		"metadata by name":            {metadata, "169.254.169.254 ::ffff:169.254.169.254", "169.254.169.253 8.8.8.8"},
		"one":                         {one, "8.8.8.1 64:ff9b::8.8.8.1", "8.8.9.1 2606:4700::1 127.0.0.1"},
		"an address in a URL":         {literal, "10.1.1.1 8.8.8.8", "10.1.1.2"},
		"test":                        {test, "127.0.0.1 ::1 8.8.8.8", "10.0.0.1 169.254.169.254"},
		"what is listed stands alone": {both, "8.8.8.8", "127.0.0.1 10.1.1.1"},
	} {
		for want, list := range map[bool]string{true: c.allowed, false: c.refused} {
			for text := range strings.FieldsSeq(list) {
				if got := c.d.Allow(netip.MustParseAddr(text)); got != want {
					t.Errorf("%s: %s allowed: %t", name, text, got)
				}
			}
		}
	}
	if public.Allow(netip.Addr{}) || anywhere.Allow(netip.Addr{}) {
		t.Error("no address is one")
	}
	for text, fine := range map[string]bool{"10.0.0.0/8": true, "10.0.0.1/8": false, "::ffff:10.0.0.0/104": false, "224.0.0.0/4": false, "ff02::/16": false, "2002:a00::/24": false, "0.0.0.0/0": true} {
		if err := gateway.CheckDestination(netip.MustParsePrefix(text)); (err == nil) != fine {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// failedCall is a forwarded call for which the issuer was not reached.
func failedCall(reason string) want {
	return want{status: 502, results: []string{"failed " + reason}, rule: "call", outcome: "issuer_failed"}
}

// TestIssuerDestination: it is the address that a name has now which counts, before a byte is sent; the record and the metric say so; and
// a reload changes it.
func TestIssuerDestination(t *testing.T) {
	var d gateway.Destinations
	host := "localhost"
	h := newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) {
		if c.Name == "payments" {
			named := *c.URL
			named.Host = net.JoinHostPort(host, c.URL.Port())
			c.URL, c.Destinations = &named, d
		}
	}})
	c := h.anybody()
	l := h.accountLogin(account)
	h.expect("a name that means loopback", c, l.wallet(), failedCall("issuer_destination"))
	if h.metric("cardstile_issuer_duration_seconds", "issuer", "payments", "result", "destination") != 1 {
		t.Error("not counted as what it was")
	}
	for _, test := range []struct {
		name, host string
		d          gateway.Destinations
		fine       bool
	}{
		{"test", "localhost", gateway.Destinations{Loopback: true}, true},
		{"listed", "localhost", gateway.Destinations{Listed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}, true},
		{"another is listed", "localhost", gateway.Destinations{Loopback: true, Listed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, false},
		{"in the URL", "127.0.0.1", gateway.Destinations{}, true},
		{"in the URL, another is listed", "127.0.0.1", gateway.Destinations{Listed: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}, false},
	} {
		d, host = test.d, test.host
		h.reload()
		w := failedCall("issuer_destination")
		if test.fine {
			w = called()
		}
		h.expect(test.name, c, l.wallet(), w)
	}
}

// TestIssuerPin: a certificate of the right authority and name with another key than the pinned ones gets no request.
func TestIssuerPin(t *testing.T) {
	leaf, err := x509.ParseCertificate(shared().server.Certificate[0])
	must(err)
	var pins []policy.Fingerprint
	h := newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) {
		if c.Name == "payments" {
			c.Pins = pins
		}
	}})
	c := h.anybody()
	l := h.accountLogin(account)
	h.expect("no pin", c, l.wallet(), called())
	pins = []policy.Fingerprint{{1}, policy.PinOf(leaf)}
	h.reload()
	h.expect("one of two", c, l.wallet(), called())
	pins = []policy.Fingerprint{{1}, policy.PinOf(shared().servers.certificate)}
	h.reload()
	h.expect("another's", c, l.wallet(), failedCall("issuer_pin"))
	if h.metric("cardstile_issuer_duration_seconds", "issuer", "payments", "result", "pin") != 1 {
		t.Error("not counted as what it was")
	}
}

// TestRedirectsAreAnswers: no redirect is followed, to wherever and however often it is answered, and no credential goes there.
func TestRedirectsAreAnswers(t *testing.T) {
	var elsewhere, asked atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	status, to := 0, ""
	first := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Location", to)
		w.WriteHeader(status)
	}))
	defer first.Close()
	place, err := url.Parse(first.URL)
	must(err)
	h := newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) {
		if c.Name == "payments" {
			c.URL, c.TLS = place, nil
		}
	}})
	c := h.anybody()
	l := h.accountLogin(account)
	n := int64(0)
	for _, status = range []int{301, 302, 303, 307, 308} {
		for _, to = range []string{other.URL + "/wallet", "/deals/list", strings.Replace(first.URL, "127.0.0.1", "localhost", 1) + "/wallet"} {
			for _, x := range []call{l.wallet(), l.call("POST", "/deals/payin", `{"a":1}`)} {
				r := c.do(x)
				if n++; asked.Load() != n || elsewhere.Load() != 0 {
					t.Fatalf("%d to %s: asked %d times, elsewhere %d", status, to, asked.Load()-n+1, elsewhere.Load())
				}
				if r.header.Get("Location") != "" || r.status/100 == 2 {
					t.Errorf("%d to %s answers %d, Location %q", status, to, r.status, r.header.Get("Location"))
				}
			}
		}
	}
}

// TestNoProxyOfTheEnvironment: it runs itself anew, since net/http reads these variables once.
func TestNoProxyOfTheEnvironment(t *testing.T) {
	if os.Getenv("HTTPS_PROXY") != "http://"+os.Getenv("TEST_PROXY") || os.Getenv("TEST_PROXY") == "" {
		proxy, err := net.Listen("tcp", "127.0.0.1:0")
		must(err)
		defer proxy.Close()
		seen := make(chan struct{}, 8)
		go func() {
			for {
				c, err := proxy.Accept()
				if err != nil {
					return
				}
				seen <- struct{}{}
				c.Close()
			}
		}()
		again := exec.Command(os.Args[0], "-test.run=^TestNoProxyOfTheEnvironment$")
		at := proxy.Addr().String()
		again.Env = append(os.Environ(), "TEST_PROXY="+at, "HTTPS_PROXY=http://"+at, "https_proxy=http://"+at, "HTTP_PROXY=http://"+at, "ALL_PROXY=http://"+at, "NO_PROXY=", "no_proxy=")
		if text, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
		select {
		case <-seen:
			t.Error("the proxy of the environment was asked")
		default:
		}
		return
	}
	if u, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: "issuer.invalid"}}); err != nil || u == nil {
		t.Fatalf("the environment names no proxy: %v", err)
	}
	h := newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) {
		if c.Name == "payments" {
			c.URL = &url.URL{Scheme: "https", Host: "issuer.invalid"} // no name server knows it (RFC 6761 section 6.4)
			c.TLS = &tls.Config{}
		}
	}})
	h.expect("a proxy", h.anybody(), h.accountLogin(account).wallet(), failedCall("issuer_unreachable"))
}
