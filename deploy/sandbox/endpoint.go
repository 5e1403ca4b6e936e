package sandbox

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Call names a call of an issuer's API.
type Call string

// CallOther is everything that an API does not have.
const CallOther Call = "other"

// endpoint is a call of the API of an issuer I.
type endpoint[I any] struct {
	method string
	path   string // {} stands for one segment: an id
	call   Call
	do     func(I, request) *answer
}

// request is an authenticated request for something that exists.
type request struct {
	*http.Request
	account string // whose API key it came with, where there are several
	id      string // of the card, user or deal that the call is for; empty where it is for none
	card    Card   // zero where the call is for none
	body    []byte
}

// find returns the endpoint that a request names and the ids in its path. Without one, its call is CallOther, and known says whether the path
// exists for another method.
func find[I any](api []endpoint[I], req *http.Request) (found endpoint[I], ids []string, known bool) {
	for _, e := range api {
		got, ok := match(e.path, req.URL.Path)
		known = known || ok
		if ok && e.method == req.Method {
			return e, got, true
		}
	}
	return endpoint[I]{call: CallOther}, nil, known
}

// match returns the segments of path that stand for {} in pattern.
func match(pattern, path string) (ids []string, ok bool) {
	for more := true; more; {
		var want, got string
		var left bool
		want, pattern, left = strings.Cut(pattern, "/")
		got, path, more = strings.Cut(path, "/")
		switch {
		case left != more:
			return nil, false
		case want == "{}":
			ids = append(ids, got)
		case want != got:
			return nil, false
		}
	}
	return ids, true
}

// one returns the value of a header field that is there exactly once and not empty.
func one(h http.Header, name string) (string, bool) {
	values := h.Values(name)
	if len(values) != 1 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

// isKey compares a header field with a digest of the right value, in constant time. Fails closed: exactly one field.
func isKey(h http.Header, name string, want [sha256.Size]byte) bool {
	value, ok := one(h, name)
	got := sha256.Sum256([]byte(value))
	return ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// bearer returns the token of a request that authenticates with one (RFC 6750, section 2.1).
func bearer(h http.Header) (string, bool) {
	value, _ := one(h, "Authorization")
	scheme, token, _ := strings.Cut(value, " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// isBearer compares a request's token with a digest of the right one, in constant time.
func isBearer(h http.Header, want [sha256.Size]byte) bool {
	token, ok := bearer(h)
	got := sha256.Sum256([]byte(token))
	return ok && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// oneOf returns the value of a parameter that has two names and is there exactly once and not empty.
func oneOf(query url.Values, names ...string) (string, bool) {
	var values []string
	for _, name := range names {
		values = slices.Concat(values, query[name])
	}
	if len(values) != 1 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

// isJSON reports whether the Content-Type is JSON. Where there is no body, it may be absent.
func isJSON(req *http.Request, required bool) bool {
	stated := req.Header.Values("Content-Type")
	if len(stated) == 0 {
		return !required
	}
	t, _, err := mime.ParseMediaType(stated[0])
	return len(stated) == 1 && err == nil && t == "application/json"
}

// decode reads one JSON object with no unknown keys and nothing behind it.
func decode(body []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
