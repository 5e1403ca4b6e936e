package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/policy"
)

// The documents of docs/openapi are held to the program: their paths and methods to the routes of the demo, and every exchange
// of the flows, and of openapi_calls_test.go, to what they say of it.

// apiDocument is what one face's document says.
type apiDocument struct {
	face  string
	spec  *openapi3.T
	paths []*apiPath
}

// apiPath is one path at one server. Servers are written https://{listener}/base: the variable is the listener's name in the
// demo.
type apiPath struct {
	doc      *apiDocument
	listener string
	server   *openapi3.Server
	template string // in the document
	path     string // with the server's base, without a slash at its end
	item     *openapi3.PathItem
}

// apiSources are the documents' texts, by face.
func apiSources(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("docs/openapi/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no documents (%v)", err)
	}
	texts := map[string]string{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[strings.TrimSuffix(filepath.Base(file), ".yaml")] = string(content)
	}
	return texts
}

// readAPI reads and validates documents, their examples included unless options say otherwise.
func readAPI(texts map[string]string, options ...openapi3.ValidationOption) (map[string]*apiDocument, error) {
	docs := map[string]*apiDocument{}
	for name, text := range texts {
		spec, err := openapi3.NewLoader().LoadFromData([]byte(text))
		if err == nil {
			err = spec.Validate(context.Background(), options...)
		}
		if err != nil {
			return nil, fmt.Errorf("docs/openapi/%s.yaml: %w", name, err)
		}
		doc := &apiDocument{face: name, spec: spec}
		for template, item := range spec.Paths.Map() {
			servers := spec.Servers
			if len(item.Servers) > 0 {
				servers = item.Servers
			}
			for _, s := range servers {
				m := apiServer.FindStringSubmatch(s.URL)
				if m == nil {
					return nil, fmt.Errorf("docs/openapi/%s.yaml: server %q is not https://{listener}/base", name, s.URL)
				}
				doc.paths = append(doc.paths, &apiPath{doc, m[1], s, template, noSlash(m[2] + template), item})
			}
		}
		docs[name] = doc
	}
	return docs, nil
}

var apiServer = regexp.MustCompile(`^https://\{([a-z]+)\}(/.*[^/])?$`)

// noSlash is a path without the slash at its end, which counts for nothing.
func noSlash(path string) string {
	if short := strings.TrimSuffix(path, "/"); short != "" {
		return short
	}
	return "/"
}

func loadAPI(t testing.TB) map[string]*apiDocument {
	t.Helper()
	docs, err := readAPI(apiSources(t))
	if err != nil {
		t.Fatal(err)
	}
	return docs
}

// TestOpenAPIDocuments loads and validates each document.
func TestOpenAPIDocuments(t *testing.T) {
	for name, doc := range loadAPI(t) {
		ids := map[string]bool{}
		for _, p := range doc.paths {
			for method, op := range p.item.Operations() {
				if op.OperationID == "" || op.Summary == "" || op.Responses.Len() == 0 || op.Security == nil {
					t.Errorf("%s: %s %s lacks its id, summary, responses or security", name, method, p.path)
				}
				ids[op.OperationID] = true
			}
			if p.item.Trace != nil || p.item.Head != nil {
				t.Errorf("%s: %s: HEAD and TRACE are none of ours", name, p.path)
			}
		}
		operations := 0
		for _, item := range doc.spec.Paths.Map() {
			operations += len(item.Operations())
		}
		if len(ids) != operations {
			t.Errorf("%s: %d operations have %d ids", name, operations, len(ids))
		}
	}
	content, err := os.ReadFile("docs/faces/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range loadAPI(t) {
		if !strings.Contains(string(content), "("+name+".md)") || !strings.Contains(string(content), "(../openapi/"+name+".yaml)") {
			t.Errorf("docs/faces/README.md does not name face %s with its page and document", name)
		}
	}
}

// TestOpenAPIRoutes compares what the demo's configuration serves with what is documented.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	h := newHouse(t, t.TempDir(), newCanary())
	b, err := load(h.path("config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	served := servedBy(b)
	docs := loadAPI(t)
	for _, d := range differences(served, docs) {
		t.Error(d)
	}
	// Each way of being wrong is found.
	for _, m := range []mutation{
		{"gnosispay", "  /api/v1/cards/{cardId}/details:\n", "  /api/v1/cards/{cardId}/detail:\n"},
		{"exa", "  - url: https://{public}/api\n", "  - url: https://{public}/apis\n"},
		{"exa", "    patch:\n      operationId: patchRoot\n", "    put:\n      operationId: patchRoot\n"},
		{"bridge", "/freeze:\n", "/freezing:\n"},
		{"paymentsgate", "  /banks/find:\n", "  /banks/findings:\n"},
		{"paymentsgate", "    get:\n      operationId: getWallet\n", "    delete:\n      operationId: getWallet\n"},
	} {
		if mutated := m.apply(t, docs); len(differences(served, mutated)) == 0 {
			t.Errorf("%s: %q in place of %q: not noticed", m.face, m.next, m.old)
		}
	}
	delete(docs, "bridge")
	if len(differences(served, docs)) == 0 {
		t.Error("a face without a document: not noticed")
	}
}

// mutation is a mistake in a document.
type mutation struct{ face, old, next string }

// apply makes the mistake once, where the text stands first, among documents that are else as they are.
func (m mutation) apply(t testing.TB, docs map[string]*apiDocument) map[string]*apiDocument {
	t.Helper()
	text := apiSources(t)[m.face]
	if !strings.Contains(text, m.old) {
		t.Fatalf("%s has no %q", m.face, m.old)
	}
	mutated, err := readAPI(map[string]string{m.face: strings.Replace(text, m.old, m.next, 1)}, openapi3.DisableExamplesValidation()) // examples are found wrong before any exchange is
	if err != nil {
		t.Fatal(err)
	}
	all := maps.Clone(docs)
	all[m.face] = mutated[m.face]
	return all
}

// servedBy lists what a configuration serves: by face, "listener METHOD path".
func servedBy(b *builder) map[string]map[string]bool {
	served := map[string]map[string]bool{}
	for i := range b.routes {
		r := &b.routes[i]
		l := b.listeners[slices.IndexFunc(b.listeners, func(l gateway.Listener) bool { return l.Name == r.Listener })]
		if served[r.Name] == nil {
			served[r.Name] = map[string]bool{}
		}
		for _, e := range r.Face.Endpoints() {
			if !offered(r.Operations, e.Operations) || e.Certificate && l.ClientCAs == nil {
				continue
			}
			at := noSlash(strings.TrimSuffix(e.Pattern, "{$}"))
			served[r.Name][r.Listener+" "+e.Method+" "+at] = true
			if e.CORS != nil {
				served[r.Name][r.Listener+" OPTIONS "+at] = true
			}
		}
	}
	return served
}

// offered reports whether a route's list has all operations of an endpoint; no list has all.
func offered(list, operations []policy.Operation) bool {
	return len(list) == 0 || !slices.ContainsFunc(operations, func(op policy.Operation) bool { return !slices.Contains(list, op) })
}

// differences compares both ways.
func differences(served map[string]map[string]bool, docs map[string]*apiDocument) []string {
	var found []string
	for name, calls := range served {
		if docs[name] == nil {
			found = append(found, fmt.Sprintf("face %s has no document", name))
			continue
		}
		documented := map[string]bool{}
		for _, p := range docs[name].paths {
			for method := range p.item.Operations() {
				documented[p.listener+" "+method+" "+p.path] = true
			}
		}
		for call := range calls {
			if !documented[call] {
				found = append(found, fmt.Sprintf("%s: served and not documented: %s", name, call))
			}
		}
		for call := range documented {
			if !calls[call] {
				found = append(found, fmt.Sprintf("%s: documented and not served: %s", name, call))
			}
		}
	}
	for name := range docs {
		if _, err := face.Lookup(name); err != nil || served[name] == nil {
			found = append(found, fmt.Sprintf("%s: documented, and no face of the demo's", name))
		}
	}
	slices.Sort(found)
	return found
}

// apiExchange is one exchange as it went over the wire.
type apiExchange struct {
	listener string
	method   string
	url      *url.URL
	sent     http.Header
	body     []byte
	status   int
	header   http.Header
	answer   []byte
}

func (x *apiExchange) String() string {
	return fmt.Sprintf("%s %s %d", x.method, x.url.Path, x.status) // its query may be a proof
}

// preflight reports whether a browser asks before it calls (Fetch Standard, section 3.2).
func (x *apiExchange) preflight() bool {
	return x.method == http.MethodOptions && x.sent.Get("Origin") != "" && x.sent.Get("Access-Control-Request-Method") != ""
}

// recorder keeps all exchanges of a client.
type recorder struct {
	next      http.RoundTripper
	listeners map[string]string // by host
	to        *[]*apiExchange
}

// RoundTrip implements http.RoundTripper.
func (r *recorder) RoundTrip(q *http.Request) (*http.Response, error) {
	x := &apiExchange{listener: r.listeners[q.URL.Host], method: q.Method, url: q.URL, sent: q.Header.Clone()}
	if q.Body != nil {
		var err error
		if x.body, err = io.ReadAll(q.Body); err != nil {
			return nil, err
		}
		q = q.Clone(q.Context())
		q.Body = io.NopCloser(bytes.NewReader(x.body))
	}
	res, err := r.next.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if x.answer, err = io.ReadAll(res.Body); err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(x.answer))
	x.status, x.header = res.StatusCode, res.Header.Clone()
	*r.to = append(*r.to, x)
	return res, nil
}

// record has a tester's exchanges kept.
func (t *tester) record(to *[]*apiExchange) {
	listeners := map[string]string{}
	for name, base := range map[string]string{"partners": t.doc.PartnersURL, "public": t.doc.PublicURL} {
		listeners[strings.TrimPrefix(base, "https://")] = name
	}
	t.client.Transport = &recorder{t.client.Transport, listeners, to}
	t.partner.Transport = &recorder{t.partner.Transport, listeners, to}
}

// find returns the documented path that an exchange was on, and what its wildcards were: of several, the one with most text, and
// of the same text in several documents the one that has the method.
func find(docs map[string]*apiDocument, x *apiExchange) (found *apiPath, params map[string]string) {
	parts := strings.Split(noSlash(x.url.Path), "/")
	for _, doc := range docs {
		for _, p := range doc.paths {
			segments := strings.Split(p.path, "/")
			if p.listener != x.listener || len(segments) != len(parts) {
				continue
			}
			here, fits := map[string]string{}, true
			for i, s := range segments {
				if strings.HasPrefix(s, "{") {
					here[strings.Trim(s, "{}")] = parts[i]
				} else if s != parts[i] {
					fits = false
				}
			}
			better := found == nil || len(here) < len(params) || len(here) == len(params) && found.item.GetOperation(x.method) == nil && p.item.GetOperation(x.method) != nil
			if fits && better {
				found, params = p, here
			}
		}
	}
	return found, params
}

// check reports in what an exchange is not as documented.
func check(docs map[string]*apiDocument, x *apiExchange) error {
	if strings.HasPrefix(x.url.Path, "/elements/") && x.method == http.MethodGet {
		return nil // a file that pages of ours load, whose name is theirs to know
	}
	p, params := find(docs, x)
	if p == nil {
		if x.status != http.StatusNotFound || x.header.Get("Content-Type") != "application/problem+json" {
			return fmt.Errorf("%v: no document has the path", x)
		}
		return nil
	}
	op := p.item.GetOperation(x.method)
	if op == nil || x.method == http.MethodOptions && !x.preflight() {
		return p.notAllowed(docs, x)
	}
	if op.Responses.Value(strconv.Itoa(x.status)) == nil {
		return fmt.Errorf("%v: %s has no such status", x, op.OperationID)
	}
	if err := errors.Join(p.answered(x, op, params), undocumentedHeaders(x, op.Responses.Value(strconv.Itoa(x.status)).Value)); err != nil {
		return fmt.Errorf("%v: %w", x, err)
	}
	if x.status/100 != 2 {
		return nil
	}
	if err := errors.Join(p.asked(x, op, params), undocumentedQuery(x, p.item, op)); err != nil {
		return fmt.Errorf("%v: it was done, and the document does not let it be asked: %w", x, err)
	}
	return nil
}

// input is an exchange as the validator takes it.
func (p *apiPath) input(x *apiExchange, op *openapi3.Operation, params map[string]string) *openapi3filter.RequestValidationInput {
	q := &http.Request{Method: x.method, URL: x.url, Header: x.sent, Body: io.NopCloser(bytes.NewReader(x.body)), ContentLength: int64(len(x.body))}
	return &openapi3filter.RequestValidationInput{
		Request: q, PathParams: params, QueryParams: x.url.Query(),
		Route:   &routers.Route{Spec: p.doc.spec, Server: p.server, Path: p.template, PathItem: p.item, Method: x.method, Operation: op},
		Options: &openapi3filter.Options{IncludeResponseStatus: true, AuthenticationFunc: p.shows},
	}
}

// shows reports whether a request has the credential of a scheme. Whether it is good, the answer says.
func (p *apiPath) shows(_ context.Context, in *openapi3filter.AuthenticationInput) error {
	q, there := in.RequestValidationInput.Request, false
	switch s := in.SecurityScheme; s.Type {
	case "http":
		there = strings.HasPrefix(q.Header.Get("Authorization"), "Bearer ")
	case "mutualTLS":
		there = p.listener == "partners"
	case "apiKey":
		if there = q.Header.Get(s.Name) != ""; s.In == "cookie" {
			_, err := q.Cookie(s.Name)
			there = err == nil
		}
	}
	if !there {
		return fmt.Errorf("no %s", in.SecuritySchemeName)
	}
	return nil
}

// asked checks a request: parameters, credentials, body.
func (p *apiPath) asked(x *apiExchange, op *openapi3.Operation, params map[string]string) error {
	return openapi3filter.ValidateRequest(context.Background(), p.input(x, op, params))
}

// answered checks an answer: its headers, type and body.
func (p *apiPath) answered(x *apiExchange, op *openapi3.Operation, params map[string]string) error {
	in := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: p.input(x, op, params), Status: x.status, Header: x.header, Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}
	in.SetBodyBytes(x.answer)
	if response := op.Responses.Value(strconv.Itoa(x.status)).Value; len(response.Content) == 0 && len(x.answer) > 0 {
		return errors.New("a body, and none is documented")
	}
	return openapi3filter.ValidateResponse(context.Background(), in)
}

// undocumentedHeaders are those of an answer that the document does not name and that are not HTTP's own.
func undocumentedHeaders(x *apiExchange, response *openapi3.Response) error {
	known := []string{"Content-Type", "Content-Length", "Date", "Connection"}
	for name := range response.Headers {
		known = append(known, http.CanonicalHeaderKey(name))
	}
	for name := range x.header {
		if !slices.Contains(known, name) {
			return fmt.Errorf("header %s is not documented", name)
		}
	}
	return nil
}

// undocumentedQuery is what stands in a query without being a parameter.
func undocumentedQuery(x *apiExchange, item *openapi3.PathItem, op *openapi3.Operation) error {
	for name := range x.url.Query() {
		if op.Parameters.GetByInAndName("query", name) == nil && item.Parameters.GetByInAndName("query", name) == nil {
			return fmt.Errorf("parameter %s is not documented", name)
		}
	}
	return nil
}

// notAllowed checks the answer to a method that the path does not have. Of a path in several documents it is any one's.
func (p *apiPath) notAllowed(docs map[string]*apiDocument, x *apiExchange) error {
	var methods []string
	var failed error
	for _, doc := range docs {
		for _, same := range doc.paths {
			if same.listener == p.listener && same.path == p.path {
				methods = slices.AppendSeq(methods, maps.Keys(same.item.Operations()))
			}
		}
	}
	slices.Sort(methods)
	methods = slices.DeleteFunc(methods, func(m string) bool { return m == http.MethodOptions })
	if x.status != http.StatusMethodNotAllowed || x.header.Get("Allow") != strings.Join(methods, ", ") {
		return fmt.Errorf("%v, Allow %q: the document has %v", x, x.header.Get("Allow"), methods)
	}
	if x.method == http.MethodHead {
		return nil
	}
	for _, doc := range docs {
		for _, same := range doc.paths {
			if same.listener != p.listener || same.path != p.path {
				continue
			}
			said := doc.spec.Components.Responses["MethodNotAllowed"]
			op := &openapi3.Operation{Responses: openapi3.NewResponses(openapi3.WithStatus(http.StatusMethodNotAllowed, said))}
			// CORS' headers depend on which of the path's methods is asked, and here it is none.
			err := same.answered(x, op, nil)
			if err == nil {
				return nil
			}
			failed = fmt.Errorf("%v: %w", x, err)
		}
	}
	return failed
}
