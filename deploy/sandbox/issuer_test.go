package sandbox_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// server is what all issuers have beside their own API.
type server interface {
	Handler() http.Handler
	Serve(net.Listener) error
	Shutdown(context.Context) error
	SetFault(id string, f sandbox.Fault)
	Requests() []sandbox.Seen
	Count(sandbox.Call) int
	Total() int
}

// caller is a client of a running issuer.
type caller struct {
	t      *testing.T
	url    string
	header []string // of each request: names and values in turn
	client *http.Client
	errors string // the type of errors, where they have one of their own
}

// listen starts an issuer, which ends with the test, and returns a caller that sends these header fields.
func listen(t *testing.T, s server, config *tls.Config, header ...string) *caller {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	transport := &http.Transport{DisableCompression: true}
	c := &caller{t: t, url: "http://" + ln.Addr().String(), header: header}
	if config != nil {
		roots := x509.NewCertPool()
		roots.AddCert(config.Certificates[0].Leaf)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "issuer.example.com"}
		transport.ForceAttemptHTTP2 = true
		c.url = "https://" + ln.Addr().String()
	}
	c.client = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return c
}

// request makes a request with the caller's header fields and these: an empty value takes one away.
func (c *caller) request(method, path, body string, header ...string) *http.Request {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for pairs := range slices.Chunk(slices.Concat(c.header, header), 2) {
		req.Header.Del(pairs[0])
		if pairs[1] != "" {
			req.Header.Set(pairs[0], pairs[1])
		}
	}
	return req
}

// call returns the status and the object that was answered.
func (c *caller) call(method, path, body string, header ...string) (int, map[string]any) {
	c.t.Helper()
	res, err := c.client.Do(c.request(method, path, body, header...))
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	want := "application/json; charset=utf-8"
	if res.StatusCode >= 400 && c.errors != "" {
		want = c.errors
	}
	if got := res.Header.Get("Content-Type"); got != want {
		c.t.Errorf("%s %s: content type %q", method, path, got)
	}
	var out map[string]any
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return res.StatusCode, out
}

// get returns the answer to a GET and as much of its body as could be read.
func (c *caller) get(path string, header ...string) (*http.Response, []byte, error) {
	c.t.Helper()
	return c.do(c.request("GET", path, "", header...))
}

// do returns the answer to a request and as much of its body as could be read.
func (c *caller) do(req *http.Request) (*http.Response, []byte, error) {
	res, err := c.client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

// faulty holds an issuer to the faults that all issuers have, on one call that answers 200 and may be repeated. They are set for id.
func faulty(t *testing.T, s server, c *caller, card sandbox.Card, id string, call sandbox.Call, path string, header ...string) {
	t.Helper()
	faultyCall(t, s, card, id, call, 200, func() (*http.Response, []byte, error) { return c.get(path, header...) })
}

// faultyCall is faulty with a call of any kind, which is answered with this status however often it is made.
func faultyCall(t *testing.T, s server, card sandbox.Card, id string, call sandbox.Call, status int, ask func() (*http.Response, []byte, error)) {
	t.Helper()
	whole := func(res *http.Response, body []byte, err error) bool {
		return res.StatusCode == status && err == nil && json.Valid(body)
	}
	for name, v := range map[string]struct {
		fault sandbox.Fault
		holds func(res *http.Response, body []byte, err error) bool
	}{
		"500": {sandbox.Fault500, func(res *http.Response, body []byte, _ error) bool {
			return res.StatusCode == 500 && json.Valid(body)
		}},
		"malformed": {sandbox.FaultMalformedJSON, func(res *http.Response, body []byte, err error) bool {
			return res.StatusCode == status && err == nil && !json.Valid(body)
		}},
		"huge": {sandbox.FaultHugeBody, func(res *http.Response, body []byte, err error) bool {
			return whole(res, body, err) && res.ContentLength < 0 && len(body) > 16<<20
		}},
		"truncated": {sandbox.FaultTruncatedBody, func(res *http.Response, body []byte, err error) bool {
			return res.StatusCode == status && errors.Is(err, io.ErrUnexpectedEOF) && int64(len(body)) == res.ContentLength/2
		}},
		"content type": {sandbox.FaultWrongContentType, func(res *http.Response, body []byte, err error) bool {
			return whole(res, body, err) && res.Header.Get("Content-Type") == "text/html; charset=utf-8"
		}},
		"disconnect": {sandbox.FaultDisconnect, func(res *http.Response, _ []byte, err error) bool {
			return res == nil && err != nil
		}},
		"redirect": {sandbox.FaultRedirect, func(res *http.Response, _ []byte, _ error) bool {
			return res.StatusCode == 307 && res.Header.Get("Location") == "/redirected"
		}},
		"card number in error": {sandbox.FaultPANInError, func(res *http.Response, body []byte, _ error) bool {
			return res.StatusCode == 500 && bytes.Contains(body, []byte(card.PAN)) && bytes.Contains(body, []byte(card.CVC)) && json.Valid(body)
		}},
		"card number in member": {sandbox.FaultPANInMember, func(res *http.Response, body []byte, err error) bool {
			return whole(res, body, err) && bytes.Contains(body, []byte(`"processor":{"trace":"authorized card `+card.PAN+`"}`))
		}},
		"card number in header": {sandbox.FaultPANInHeader("Retry-After"), func(res *http.Response, body []byte, err error) bool {
			return whole(res, body, err) && res.Header.Get("Retry-After") == card.PAN
		}},
		"empty": {sandbox.FaultEmptyBody, func(res *http.Response, body []byte, err error) bool {
			return res.StatusCode == status && len(body) == 0 && err == nil
		}},
		"slow":            {sandbox.FaultSlow(time.Millisecond), whole},
		"on another call": {sandbox.Fault500.On(sandbox.CallOther), whole},
		"on this call": {sandbox.Fault500.On(call), func(res *http.Response, _ []byte, _ error) bool {
			return res.StatusCode == 500
		}},
		"none": {sandbox.Fault{}, whole},
	} {
		s.SetFault(id, v.fault)
		if res, body, err := ask(); !v.holds(res, body, err) {
			t.Errorf("%s: %v, %d bytes, %v", name, res, len(body), err)
		}
	}
	s.SetFault(id, sandbox.Fault{})
}
