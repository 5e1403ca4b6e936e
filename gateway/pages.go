package gateway

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/face"
)

// This file is what listeners serve to browsers beside exchanges: the files that our pages load, and what browsers report of
// pages that did what their policy forbids. Both are public, and neither is recorded.

// File is a file that a page of ours loads. Routes of one listener may bring the same.
type File struct {
	Path      string // whole
	Headers   []exchange.HeaderField
	Body      []byte
	Immutable bool // the path has the content's digest in it
}

// reportsPath is where browsers report (CSP level 3, section 5), and maxReport what a report may have, in bytes.
const (
	reportsPath = "/elements/csp-report"
	maxReport   = 16 << 10
)

// serveFiles puts the files of a virtual host's routes on it, those of routes that name it more closely first.
func (g *Gateway) serveFiles(st *state, l *listenerState, h *virtualHost) {
	seen := map[string]bool{}
	for rank := rankExact; rank > rankNone; rank-- {
		for i := range st.config.Routes {
			r := &st.config.Routes[i]
			if r.Listener != l.Name || r.rank(h.name) != rank {
				continue
			}
			for _, f := range r.Files {
				if !seen[f.Path] {
					seen[f.Path] = true
					h.mux.HandleFunc("GET "+f.Path, f.serve)
				}
			}
			if len(r.Files) > 0 && !seen[reportsPath] {
				seen[reportsPath] = true
				h.mux.HandleFunc("POST "+reportsPath, g.report)
			}
		}
	}
}

func (f *File) serve(w http.ResponseWriter, _ *http.Request) {
	writeResponse(w, newID(), &exchange.Response{Status: http.StatusOK, Header: f.Headers, Body: f.Body, Immutable: f.Immutable})
}

// report counts a violation by its directive. What else a report says is its sender's word, and may quote anything. Who sends
// many is turned away as strangers are: browsers send few.
func (g *Gateway) report(w http.ResponseWriter, r *http.Request) {
	var out exchange.Response
	now, from, limits := time.Now(), addrPort(r.RemoteAddr), g.state.Load().limits
	left := g.strangers.left(from, now, limits.Unproven)
	g.strangers.count(from, now, limits.Unproven)
	body, err := readBody(r, nil, maxReport)
	directives, ok := reported(body)
	switch media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); {
	case left > 0:
		face.FailProblem(exchange.LimitReached, &out)
		out.RetryAfter = seconds(left)
	case !slices.Contains(reportTypes, strings.ToLower(strings.TrimSpace(media))): // no page of another origin can send these unasked
		face.FailProblem(exchange.UnsupportedMedia, &out)
	case err != nil:
		face.FailProblem(exchange.TooLarge, &out)
	case !ok:
		face.FailProblem(exchange.BadRequest, &out)
	default:
		out.Status = http.StatusNoContent
		slices.Sort(directives)
		for _, directive := range slices.Compact(directives) { // one page may try a hundred times
			g.metrics.violations.WithLabelValues(directive).Inc()
		}
	}
	writeResponse(w, newID(), &out)
}

// reportTypes are what browsers send: with report-uri, and by the Reporting API.
var reportTypes = []string{"application/csp-report", "application/reports+json"}

// maxReports is how many reports of one request are counted: browsers send what gathered in a minute.
const maxReports = 32

// reported reads a report of either form: {"csp-report":{"violated-directive"}}, or a list of
// {"type":"csp-violation","body":{"effectiveDirective"}} (Reporting API).
func reported(body []byte) (directives []string, ok bool) {
	var old struct {
		Report *struct {
			Effective string `json:"effective-directive"`
			Violated  string `json:"violated-directive"`
		} `json:"csp-report"`
	}
	if json.Unmarshal(body, &old) == nil && old.Report != nil {
		directive := old.Report.Effective
		if directive == "" {
			directive, _, _ = strings.Cut(old.Report.Violated, " ")
		}
		return []string{knownDirective(directive)}, true
	}
	var list []struct {
		Type string `json:"type"`
		Body struct {
			Effective string `json:"effectiveDirective"`
		} `json:"body"`
	}
	if json.Unmarshal(body, &list) != nil || len(list) > maxReports {
		return nil, false
	}
	for i := range list {
		if list[i].Type == "csp-violation" {
			directives = append(directives, knownDirective(list[i].Body.Effective))
		}
	}
	return directives, true
}

// cspDirectives are those of our pages' policies, as labels.
var cspDirectives = []string{
	"base-uri", "connect-src", "default-src", "font-src", "form-action", "frame-ancestors", "frame-src", "img-src", "manifest-src",
	"media-src", "object-src", "require-trusted-types-for", "script-src", "script-src-attr", "script-src-elem", "style-src",
	"style-src-attr", "style-src-elem", "trusted-types", "worker-src",
}

func knownDirective(name string) string {
	if slices.Contains(cspDirectives, name) {
		return name
	}
	return "other"
}
