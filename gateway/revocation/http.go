package revocation

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// This file is how servers of CAs are asked. They are not trusted: what they say is signed.

// Why there is no answer, as labels: a closed set.
const (
	failedTimeout     = "timeout"
	failedUnreachable = "unreachable" // the destination guard's refusals included
	failedStatus      = "status"      // another one than 200; redirects, too
	failedOversized   = "oversized"
)

// maxHeaderBytes bounds an answer's header.
const maxHeaderBytes = 16 << 10

// client goes to a dialer's destinations alone, follows no redirect, and knows no proxy. Safe for concurrent use.
type client struct{ http *http.Client }

func newClient(c Config, dialer *net.Dialer, timeout time.Duration) *client {
	return &client{&http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSClientConfig: c.TLS, TLSHandshakeTimeout: timeout,
			MaxResponseHeaderBytes: maxHeaderBytes, DisableCompression: true, // what is small on the way may be large here
			MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       timeout,
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// validators are what a server calls a version of what it has (RFC 9110 section 8.8).
type validators struct{ tag, modified string }

// answer is a server's.
type answer struct {
	body      []byte
	unchanged bool // it is what the validators are of
	version   validators
}

// get fetches what stands at a URL, of maxBytes at most, or says why not. held is the version that is there already; zero: none.
func (c *client) get(ctx context.Context, from *url.URL, held validators, maxBytes int64) (a answer, failed string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from.String(), nil)
	if err != nil {
		return answer{}, failedUnreachable
	}
	if held.tag != "" {
		r.Header.Set("If-None-Match", held.tag)
	}
	if held.modified != "" {
		r.Header.Set("If-Modified-Since", held.modified)
	}
	return c.do(r, held != validators{}, maxBytes)
}

// post sends a question of OCSP (RFC 6960 appendix A.1).
func (c *client) post(ctx context.Context, to *url.URL, question []byte, maxBytes int64) (a answer, failed string) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), bytes.NewReader(question))
	if err != nil {
		return answer{}, failedUnreachable
	}
	r.Header.Set("Content-Type", "application/ocsp-request")
	return c.do(r, false, maxBytes)
}

func (c *client) do(r *http.Request, conditional bool, maxBytes int64) (a answer, failed string) {
	r.Header.Set("User-Agent", "cardstile")
	response, err := c.http.Do(r)
	if err != nil {
		return answer{}, failure(err)
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified && conditional:
		return answer{unchanged: true}, ""
	case response.StatusCode != http.StatusOK:
		return answer{}, failedStatus
	}
	if a.body, err = io.ReadAll(io.LimitReader(response.Body, maxBytes+1)); err != nil {
		return answer{}, failure(err)
	}
	if int64(len(a.body)) > maxBytes {
		return answer{}, failedOversized
	}
	a.version = validators{response.Header.Get("ETag"), response.Header.Get("Last-Modified")}
	return a, ""
}

func failure(err error) string {
	var netErr net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &netErr) && netErr.Timeout() {
		return failedTimeout
	}
	return failedUnreachable
}

// namedAddr is the address in a URL, if it has one in place of a host's name.
func namedAddr(u *url.URL) netip.Addr {
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// jitter is a time up to most, by chance.
func jitter(most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	var b [8]byte
	rand.Read(b[:])
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(most))
}
