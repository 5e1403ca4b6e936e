// Package demo answers: what does it take to show a card on a page?
//
// It is a partner's website, as small as one can be: a page that embeds the elements of a gateway, and the backend that the page asks
// for tokens. It is served by `cardstile demo` and by nothing else, below /demo/ on the public listener. It is no part of the gateway:
// it calls it from outside, over TLS, with the credentials of the demo's partner.
package demo

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"
)

//go:embed page.html page.js page.css
var files embed.FS

// Config is what a partner knows of its gateway.
type Config struct {
	// PublicURL is the public listener: scheme, host and port. The page stands there too, so that one certificate that a browser
	// takes is enough; nobody else's page may call its backend.
	PublicURL string
	Public    *http.Client

	// PartnersURL is where tokens are minted, with the certificate that Partner shows.
	PartnersURL string
	Partner     *http.Client

	// App and Card are the appId and the card of the elements. UserToken says who looks at them; it may be empty.
	App, Card, UserToken string

	// APIKey and Terminal take payments. LibVersion is the library's version that sessions of hosted fields are asked for.
	APIKey, Terminal, LibVersion string

	// Library and Integrity are the script of hosted fields, by its path on the public listener and its digest.
	Library, Integrity string
}

// check returns what is missing.
func (c *Config) check() error {
	for name, value := range map[string]string{
		"public URL": c.PublicURL, "partners' URL": c.PartnersURL, "app": c.App, "card": c.Card, "API key": c.APIKey,
		"terminal": c.Terminal, "library's version": c.LibVersion, "library": c.Library, "integrity": c.Integrity,
	} {
		if value == "" {
			return fmt.Errorf("demo: %s is empty", name)
		}
	}
	if c.Public == nil || c.Partner == nil {
		return errors.New("demo: a client is missing")
	}
	return nil
}

const (
	prefix = "/demo/"

	maxBody   = 4 << 10          // bytes that the page sends
	maxAnswer = 64 << 10         // bytes that the gateway answers with
	patience  = 10 * time.Second // for everything that one call of the page takes
)

// Page serves the page and plays its backend. It is safe for concurrent use.
type Page struct {
	config Config
	host   string
	files  map[string]file
	calls  map[string]call
}

// file is a part of the page. It never changes while the program runs.
type file struct {
	contentType string
	body        []byte
}

// call is something that the page asks its backend for. What it returns is written as JSON.
type call func(context.Context, asked) (any, error)

// asked is what the page may say.
type asked struct {
	Token string `json:"token"`
}

// New returns the page of a partner.
func New(c Config) (*Page, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	public, err := url.Parse(c.PublicURL)
	if err != nil || public.Scheme+"://"+public.Host != c.PublicURL {
		return nil, errors.New("demo: the public URL is scheme://host:port, and nothing behind")
	}
	p := &Page{config: c, host: public.Host, files: map[string]file{}}
	for path, f := range map[string]struct{ name, contentType string }{
		prefix:              {"page.html", "text/html; charset=utf-8"},
		prefix + "page.js":  {"page.js", "text/javascript; charset=utf-8"},
		prefix + "page.css": {"page.css", "text/css; charset=utf-8"},
	} {
		body, err := files.ReadFile(f.name)
		if err != nil {
			return nil, err
		}
		p.files[path] = file{f.contentType, body}
	}
	p.calls = map[string]call{
		prefix + "token":          p.mintToken,
		prefix + "fields-session": p.beginFields,
		prefix + "pay":            p.pay,
	}
	return p, nil
}

// policy is the page's Content-Security-Policy: it loads and frames what stands at its own origin, and nobody frames it.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// ServeHTTP implements http.Handler.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	f, isFile := p.files[r.URL.Path]
	c, isCall := p.calls[r.URL.Path]
	switch {
	case isFile && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		p.serve(w, r, f)
	case isCall && r.Method == http.MethodPost:
		p.answer(w, r, c)
	case isFile:
		h.Set("Allow", "GET, HEAD")
		fail(w, &failure{http.StatusMethodNotAllowed, "this is only read"})
	case isCall:
		h.Set("Allow", "POST")
		fail(w, &failure{http.StatusMethodNotAllowed, "this is only posted to"})
	default:
		fail(w, &failure{http.StatusNotFound, "there is nothing of this name"})
	}
}

// serve writes a file. Under another name of this machine the page would be of another origin, which no element knows: whoever comes
// by that name is sent to the right one.
func (p *Page) serve(w http.ResponseWriter, r *http.Request, f file) {
	if r.Host != p.host {
		http.Redirect(w, r, p.config.PublicURL+r.URL.Path, http.StatusTemporaryRedirect)
		return
	}
	write(w, http.StatusOK, f.contentType, f.body)
}

// answer does what the page asks for.
func (p *Page) answer(w http.ResponseWriter, r *http.Request, c call) {
	in, err := p.read(w, r)
	if err != nil {
		fail(w, err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	out, err := c(ctx, in)
	if err != nil {
		fail(w, err)
		return
	}
	body, err := json.Marshal(out)
	if err != nil {
		fail(w, err)
		return
	}
	write(w, http.StatusOK, "application/json", body)
}

// read takes a call from the page, and from no other: browsers say whose page calls, on every POST, and a page has no way to say
// something else (Fetch standard, "append a request Origin header"). A form could not send this content type either.
func (p *Page) read(w http.ResponseWriter, r *http.Request) (in asked, err error) {
	if origins := r.Header.Values("Origin"); len(origins) != 1 || origins[0] != p.config.PublicURL {
		return in, &failure{http.StatusForbidden, "only the demo's own page may ask for this"}
	}
	if contentType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || contentType != "application/json" {
		return in, &failure{http.StatusUnsupportedMediaType, "the body must be application/json"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return in, &failure{http.StatusRequestEntityTooLarge, "the body is too large"}
	}
	if err != nil || json.Unmarshal(body, &in) != nil {
		return in, &failure{http.StatusBadRequest, "the body must be a JSON object"}
	}
	return in, nil
}

// failure is an answer that is no success, in words that the page shows. Nothing that the gateway said is in them.
type failure struct {
	status int
	text   string
}

func (f *failure) Error() string { return f.text }

// fail writes an error. What one says that is no failure stays here: it may quote what was sent.
func fail(w http.ResponseWriter, err error) {
	f, ok := errors.AsType[*failure](err)
	if !ok {
		f = &failure{http.StatusInternalServerError, "something went wrong"}
	}
	body, err := json.Marshal(map[string]string{"error": f.text})
	if err != nil {
		panic("demo: internal error: " + err.Error()) // a text has no way not to be JSON
	}
	write(w, f.status, "application/json", body)
}

func write(w http.ResponseWriter, status int, contentType string, body []byte) {
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // whoever asked is gone
}
