package sandbox

import (
	"crypto/sha256"
	"maps"
	"net/http"
	"slices"
	"sync"
)

// Seen is a request that reached the issuer, whether it was answered or refused.
type Seen struct {
	Method string
	// Path is the escaped path with the query, as it stood in the request line.
	Path string
	// Proto is "HTTP/1.1" or "HTTP/2.0".
	Proto string
	// Host is the authority that the request named.
	Host string
	// Header is a copy of all header fields as net/http gives them: the canonical spelling, Host removed.
	Header http.Header
	// BodyBytes and BodySHA256 describe the body as far as it was read: 64 KiB at most.
	BodyBytes  int
	BodySHA256 [sha256.Size]byte
}

// observer keeps the last requests and counts calls. Its zero value with a bound is ready to use; safe for concurrent use.
type observer struct {
	keep int // how many requests are kept; the oldest go first

	mu     sync.Mutex
	seen   []Seen
	counts map[Call]int
}

func (o *observer) request(r *http.Request, body []byte) {
	if o.keep <= 0 {
		return
	}
	s := Seen{
		Method: r.Method, Path: r.URL.RequestURI(), Proto: r.Proto, Host: r.Host, Header: r.Header.Clone(),
		BodyBytes: len(body), BodySHA256: sha256.Sum256(body),
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) >= o.keep {
		o.seen = slices.Delete(o.seen, 0, len(o.seen)-o.keep+1)
	}
	o.seen = append(o.seen, s)
}

func (o *observer) call(c Call) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.counts == nil {
		o.counts = make(map[Call]int)
	}
	o.counts[c]++
}

func (o *observer) requests() []Seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

func (o *observer) count(c Call) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.counts[c]
}

func (o *observer) total() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	for v := range maps.Values(o.counts) {
		n += v
	}
	return n
}
