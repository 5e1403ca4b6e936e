package face_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

var update = flag.Bool("update", false, "write the golden files anew")

// session is a well-formed sessionid for a key of 2048 bits. It opens nothing, and a face does not try.
var session = base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0x5a}, 256))

// clientKeys are a real route's keys: one pair for the whole run.
var clientKeys = sync.OnceValue(func() *vault.ClientKeys {
	dir, err := os.MkdirTemp("", "face")
	check(err)
	defer os.RemoveAll(dir)
	pem, err := keys.Generate(keys.UseSession, 2048)
	check(err)
	file := filepath.Join(dir, "session.pem")
	check(os.WriteFile(file, pem, 0o600))
	key, err := keys.Load(keys.Config{ID: "session", Use: keys.UseSession, File: file})
	check(err)
	clients, err := vault.NewClientKeys(envelope.Rain{}, key)
	check(err)
	return clients
})

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// everything is a configuration in which a face offers all that it has.
func everything() face.Config {
	return face.Config{SessionKeys: clientKeys(), PINKeys: clientKeys(), PIN: face.PINSoftware, PINWithPAN: true, Clear: true, PublicKey: readPublicKey, JWKS: []byte(jwks), Forward: forwards()}
}

// everythingOf is the same for the face of a name: each face forwards calls of its own.
func everythingOf(name string) face.Config {
	c := everything()
	if name == "payroc" {
		c.HostedFields, c.Forward = hostedFields(), payrocForwards()
	}
	return c
}

func newFace(t testing.TB, name string, c face.Config) face.Face {
	t.Helper()
	kind, err := face.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := kind.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// server serves a face's endpoints the way a mux matches them, and keeps what was found.
type server struct {
	mux      *http.ServeMux
	endpoint *face.Endpoint
	param    func(string) string
}

func newServer(f face.Face) *server {
	s := &server{mux: http.NewServeMux()}
	paths := map[string]map[string]*face.Endpoint{}
	for _, e := range f.Endpoints() {
		if paths[e.Pattern] == nil {
			paths[e.Pattern] = map[string]*face.Endpoint{}
		}
		paths[e.Pattern][e.Method] = &e
	}
	for pattern, methods := range paths {
		s.mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) { s.endpoint, s.param = methods[r.Method], r.PathValue })
	}
	return s
}

// received is when requests of these tests come.
var received = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// parse reads a request from its bytes, with a real HTTP parser, and gives it to the endpoint that it names.
func (s *server) parse(t testing.TB, raw string) (*face.Endpoint, *exchange.Call, error) {
	t.Helper()
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.ReplaceAll(raw, "\n", "\r\n"))))
	if err != nil {
		t.Fatalf("not a request: %v\n%s", err, raw)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	s.endpoint = nil
	s.mux.ServeHTTP(nopWriter{}, r)
	if s.endpoint == nil {
		return nil, nil, nil
	}
	request := &exchange.Request{Method: r.Method, Path: r.URL.Path, RawQuery: r.URL.RawQuery, Header: r.Header, Body: body, Param: s.param, Received: received}
	if s.endpoint.Shape != nil {
		request.Body = nil
		if request.Clear, err = vault.ReadBody(bytes.NewReader(body), -1, s.endpoint.Shape); err != nil {
			return s.endpoint, nil, exchange.Fail(exchange.BadRequest, "read in the vault")
		}
	}
	c, err := s.endpoint.Parse(request)
	return s.endpoint, c, err
}

type nopWriter struct{}

func (nopWriter) Header() http.Header         { return http.Header{} }
func (nopWriter) Write(b []byte) (int, error) { return len(b), nil }
func (nopWriter) WriteHeader(int)             {}

// describe writes a call, or why there is none, as the golden files hold it.
func describe(e *face.Endpoint, c *exchange.Call, err error) string {
	var b strings.Builder
	if e == nil {
		return "no endpoint\n"
	}
	if err != nil {
		failure, ok := errors.AsType[*exchange.Failure](err)
		if !ok {
			return fmt.Sprintf("an error of another type: %v\n", err)
		}
		return fmt.Sprintf("failure %s: %s\n", failure.Kind, failure.Reason)
	}
	fmt.Fprintf(&b, "operations %v\ncard %q\n", c.Operations, c.Card)
	for _, credential := range c.Credentials {
		fmt.Fprintf(&b, "credential %s %q\n", credential.Kind, credential.Value())
	}
	if c.Preamble.Present() {
		fmt.Fprintf(&b, "session %x\n", c.SessionHash)
	} else if c.SessionHash != [32]byte{} {
		b.WriteString("a session hash without a session\n")
	}
	if c.PIN != (vault.Sealed{}) {
		fmt.Fprintf(&b, "pin data %q iv %q\n", c.PIN.Data, c.PIN.IV)
	}
	if c.Bind.TTL != 0 {
		fmt.Fprintf(&b, "ttl %s\n", c.Bind.TTL)
	}
	if bind := c.Bind; bind != (exchange.Bind{TTL: bind.TTL}) {
		fmt.Fprintf(&b, "bind operation %q card %q session %x\n", bind.Operation, bind.Card, bind.SessionHash)
	}
	return b.String()
}

// golden compares with a file of testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (write it with -update, and read it)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n%s", file, firstDifference(string(want), got))
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		var a, b string
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\nwant %s\ngot  %s", i+1, a, b)
		}
	}
	return "nowhere"
}

// named is a request under the name of what it shows.
type named struct{ name, raw string }

func describeAll(t *testing.T, f face.Face, requests []named) string {
	t.Helper()
	s := newServer(f)
	var b strings.Builder
	for _, r := range requests {
		e, c, err := s.parse(t, r.raw)
		fmt.Fprintf(&b, "== %s\n%s\n", r.name, describe(e, c, err))
	}
	return strings.ReplaceAll(b.String(), fmt.Sprintf("%x", sha256.Sum256([]byte(session))), "<hash of the sessionid>")
}

// TestEveryKindHasAnAnswer: no face leaves a kind of failure to chance, and what it answers is JSON in one spelling.
func TestEveryKindHasAnAnswer(t *testing.T) {
	names := face.Names()
	slices.Sort(names)
	if !slices.Equal(names, []string{"bridge", "exa", "gnosispay", "paymentsgate", "payroc"}) {
		t.Fatalf("faces are %v: a new one needs its rows here", names)
	}
	for _, name := range names {
		f := newFace(t, name, everythingOf(name))
		var b strings.Builder
		for _, kind := range exchange.Kinds() {
			if !face.Says(name, kind) {
				t.Errorf("%s has no answer to %s", name, kind)
			}
			var out exchange.Response
			f.Fail(kind, exchange.Place{}, &out)
			if out.Status < 400 || out.Status > 599 || out.ContentType != failureType(name) || !json.Valid(out.Body) {
				t.Errorf("%s, %s: %d %s %s", name, kind, out.Status, out.ContentType, out.Body)
			}
			fmt.Fprintf(&b, "%-18s %d %s %s\n", kind, out.Status, out.ContentType, out.Body)
		}
		golden(t, name+".failures.golden", b.String())
	}
	var b strings.Builder
	for _, kind := range exchange.Kinds() {
		var out exchange.Response
		face.FailProblem(kind, &out)
		if out.ContentType != "application/problem+json" || !json.Valid(out.Body) {
			t.Errorf("problem, %s: %s %s", kind, out.ContentType, out.Body)
		}
		fmt.Fprintf(&b, "%-18s %d %s %s\n", kind, out.Status, out.ContentType, out.Body)
	}
	golden(t, "problem.failures.golden", b.String())
}

// failureType is the media type of a face's failures.
func failureType(name string) string {
	if name == "payroc" { // RFC 7807, by contract
		return "application/problem+json"
	}
	return "application/json"
}

// TestRefusalsAreIdentical: what a refusal says depends on its kind alone, not on what was answered before in the same
// memory, and nobody can change what the next caller reads.
func TestRefusalsAreIdentical(t *testing.T) {
	fail := map[string]func(exchange.Kind, *exchange.Response){"problem": face.FailProblem}
	for _, name := range face.Names() {
		f := newFace(t, name, everythingOf(name))
		fail[name] = func(kind exchange.Kind, out *exchange.Response) { f.Fail(kind, exchange.Place{}, out) }
	}
	for name, fail := range fail {
		for _, kind := range exchange.Kinds() {
			var first exchange.Response
			fail(kind, &first)
			want := string(first.Body)
			for i := range first.Body {
				first.Body[i] = 'x'
			}
			used := exchange.Response{Status: 200, ContentType: "text/html", Body: append(make([]byte, 0, 4096), "what an earlier exchange left"...)}
			fail(kind, &used)
			if string(used.Body) != want || used.Status != first.Status || used.ContentType != first.ContentType {
				t.Errorf("%s, %s: %q after %q", name, kind, used.Body, want)
			}
		}
	}
}

// TestUnknownKindIsOpaque: a kind that no table has is the opaque 500.
func TestUnknownKindIsOpaque(t *testing.T) {
	for _, name := range face.Names() {
		f := newFace(t, name, everythingOf(name))
		var internal, unknown exchange.Response
		f.Fail(exchange.Internal, exchange.Place{}, &internal)
		f.Fail(exchange.KindCount+1, exchange.Place{}, &unknown)
		if unknown.Status != internal.Status || !bytes.Equal(unknown.Body, internal.Body) {
			t.Errorf("%s: %d %s", name, unknown.Status, unknown.Body)
		}
	}
}

func TestLookupNamesTheKnown(t *testing.T) {
	if _, err := face.Lookup("gnosis"); err == nil || err.Error() != `unknown face "gnosis" (known: bridge, exa, gnosispay, paymentsgate, payroc)` {
		t.Error(err)
	}
}
