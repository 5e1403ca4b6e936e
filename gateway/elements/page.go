package elements

import (
	"errors"
	"fmt"
	"html"
	"net/netip"
	"net/url"
	"strings"
)

// ReportPath is where browsers tell of violations of a page's policy.
const ReportPath = assetPrefix + "csp-report"

// document is what pages differ in. Everything else about them is the same, and static.
type document struct {
	title, scheme, locale string
	meta                  []Header // names without "cardstile-"
	style, script         string   // names of assets; an empty script is none
	theme                 string   // path, or empty
	vendor                *vendorScript
	body                  string // HTML
}

// vendorScript is a script of somebody else's, which runs before ours.
type vendorScript struct{ url, integrity string }

// page writes the document. Scripts and styles are files: the policy forbids what stands inline.
func (d *document) page(policy policy) Page {
	scheme, language := "", d.locale
	if d.scheme == "light" || d.scheme == "dark" {
		scheme = ` data-scheme="` + d.scheme + `"`
	}
	if language == "" {
		language = "en" // until the script has asked the browser
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"%s\"%s>\n<head>\n<meta charset=\"utf-8\">\n<title>%s</title>\n", language, scheme, html.EscapeString(d.title))
	b.WriteString("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"robots\" content=\"noindex\">\n")
	for _, m := range append(d.meta, Header{"locale", d.locale}) {
		fmt.Fprintf(&b, "<meta name=\"cardstile-%s\" content=\"%s\">\n", m.Name, html.EscapeString(m.Value))
	}
	style := Lookup(d.style)
	fmt.Fprintf(&b, "<link rel=\"stylesheet\" href=\"%s\" integrity=\"%s\" crossorigin=\"anonymous\">\n", style.Path, style.Integrity)
	if d.theme != "" {
		fmt.Fprintf(&b, "<link rel=\"stylesheet\" href=\"%s\">\n", html.EscapeString(d.theme))
	}
	if d.vendor != nil {
		b.WriteString(scriptTag(d.vendor.url, d.vendor.integrity))
	}
	if d.script != "" {
		script := Lookup(d.script)
		b.WriteString(scriptTag(script.Path, script.Integrity))
	}
	fmt.Fprintf(&b, "</head>\n<body>\n%s\n<noscript><p class=\"cs-status\">This takes JavaScript.</p></noscript>\n</body>\n</html>\n", d.body)
	return Page{HTML: []byte(b.String()), Headers: policy.headers()}
}

// scriptTag defers: scripts run in order, once the document is there.
func scriptTag(src, integrity string) string {
	return fmt.Sprintf("<script src=\"%s\" integrity=\"%s\" crossorigin=\"anonymous\" defer></script>\n", html.EscapeString(src), html.EscapeString(integrity))
}

// policy is a Content-Security-Policy with the headers that go with it. Its zero value lets nobody embed the page.
type policy struct {
	ancestors    []string // exact origins
	vendor       string   // a script beside our own, by URL
	trustedTypes bool     // no sink of the DOM takes text as code; a vendor's script may need that
}

func strictPolicy(ancestors []string) policy { return policy{ancestors: ancestors, trustedTypes: true} }

// csp returns the policy: pages load nothing but files of ours, and call nobody but us.
func (p *policy) csp() string {
	scripts, ancestors := "'self'", "'none'"
	if p.vendor != "" {
		scripts += " " + p.vendor
	}
	if len(p.ancestors) > 0 {
		ancestors = strings.Join(p.ancestors, " ")
	}
	directives := []string{
		"default-src 'none'",
		"script-src " + scripts,
		"style-src 'self'",
		"connect-src 'self'",
		"base-uri 'none'",
		"form-action 'none'",
		"frame-ancestors " + ancestors,
	}
	if p.trustedTypes {
		directives = append(directives, "require-trusted-types-for 'script'", "trusted-types 'none'")
	}
	return strings.Join(append(directives, "report-uri "+ReportPath, "report-to csp"), "; ")
}

// permissions are what pages may use of the device: the clipboard, to write. Features that are not named are denied by
// their own defaults to frames of another origin, unless the embedding page allows them; these it cannot.
const permissions = "accelerometer=(), autoplay=(), browsing-topics=(), camera=(), clipboard-read=(), clipboard-write=(self), display-capture=(), encrypted-media=(), " +
	"fullscreen=(), geolocation=(), gyroscope=(), hid=(), identity-credentials-get=(), local-fonts=(), magnetometer=(), microphone=(), midi=(), payment=(), picture-in-picture=(), " +
	"publickey-credentials-create=(), publickey-credentials-get=(), screen-wake-lock=(), serial=(), storage-access=(), usb=(), xr-spatial-tracking=()"

func (p *policy) headers() []Header {
	h := []Header{
		{"Content-Type", "text/html; charset=utf-8"},
		{"Content-Security-Policy", p.csp()},
		{"Reporting-Endpoints", `csp="` + ReportPath + `"`},
		{"Referrer-Policy", "no-referrer"},
		{"Permissions-Policy", permissions},
		{"X-Content-Type-Options", "nosniff"},
		{"Cache-Control", "no-store"}, // keeps the page out of the back/forward cache too
		{"Cross-Origin-Opener-Policy", "same-origin"},
		{"Origin-Agent-Cluster", "?1"},
	}
	if len(p.ancestors) == 0 {
		return append(h, Header{"X-Frame-Options", "DENY"}, Header{"Cross-Origin-Resource-Policy", "same-origin"})
	}
	// Pages that are cross-origin isolated embed only what says that it may be, and is so itself.
	h = append(h, Header{"Cross-Origin-Resource-Policy", "cross-origin"})
	if p.vendor == "" {
		h = append(h, Header{"Cross-Origin-Embedder-Policy", "require-corp"})
	}
	return h
}

// checkOrigins wants what browsers say as event.origin, letter for letter: everything is compared as text.
func checkOrigins(origins []string) error {
	if len(origins) == 0 {
		return errors.New("origins: at least one page embeds it")
	}
	seen := map[string]bool{}
	for i, o := range origins {
		if err := checkOrigin(o); err != nil {
			return fmt.Errorf("origins[%d]: %w", i, err)
		}
		if seen[o] {
			return fmt.Errorf("origins[%d]: it is there twice", i)
		}
		seen[o] = true
	}
	return nil
}

func checkOrigin(o string) error {
	u, err := url.Parse(o)
	if err != nil || u.Host == "" || u.Scheme+"://"+u.Host != o {
		return errors.New("it is scheme://host or scheme://host:port, and nothing behind")
	}
	host, port := u.Hostname(), u.Port()
	switch {
	case u.Scheme == "http" && host != "localhost" && host != "127.0.0.1", u.Scheme != "http" && u.Scheme != "https":
		return errors.New("it begins with https://; http:// is for localhost and 127.0.0.1")
	case !isHost(host):
		return errors.New("its host is a name of lower-case letters, digits, '-' and '.', or an IPv4 address")
	case port == "" && strings.HasSuffix(o, ":"), u.Scheme == "https" && port == "443", u.Scheme == "http" && port == "80", !isPort(port):
		return errors.New("its port is 1 to 65535, and left out where it is the scheme's own")
	}
	return nil
}

// isHost takes names as browsers spell them: lower case, punycode. A policy has no way to name an IPv6 address
// (CSP level 3, section 2.3.1), so that there are none here.
func isHost(host string) bool {
	if strings.Trim(host, "0123456789.") == "" {
		a, err := netip.ParseAddr(host)
		return err == nil && a.Is4()
	}
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return false
		}
	}
	return true
}

func isPort(port string) bool {
	if port == "" {
		return true
	}
	n := 0
	for _, c := range port {
		if c < '0' || c > '9' || n > 65535 {
			return false
		}
		n = n*10 + int(c-'0')
	}
	return port[0] != '0' && n >= 1 && n <= 65535
}
