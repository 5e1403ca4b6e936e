package elements_test

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/elements"
)

// app returns an App that is right, changed by what a test is about.
func app(changes ...func(*elements.App)) *elements.App {
	a := &elements.App{ID: "demo", Origins: []string{"https://app.example", "http://localhost:9002"}}
	for _, change := range changes {
		change(a)
	}
	return a
}

func cardPage(t *testing.T, a *elements.App) elements.Page {
	t.Helper()
	p, err := elements.CardPage(a)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func header(t *testing.T, p elements.Page, name string) string {
	t.Helper()
	var all []string
	for _, h := range p.Headers {
		if h.Name == name {
			all = append(all, h.Value)
		}
	}
	if len(all) != 1 {
		t.Fatalf("%s: %q", name, all)
	}
	return all[0]
}

func TestAssets(t *testing.T) {
	all := elements.Assets()
	if len(all) != 6 {
		t.Errorf("%d assets", len(all))
	}
	for _, a := range all {
		name, integrity := sha256.Sum256(a.Body), sha512.Sum384(a.Body)
		if digest := hex.EncodeToString(name[:])[:10]; !strings.Contains(a.Path, "."+digest+".") || !strings.HasPrefix(a.Path, "/elements/") {
			t.Errorf("%s: its digest is %s", a.Path, digest)
		}
		if want := "sha384-" + base64.StdEncoding.EncodeToString(integrity[:]); a.Integrity != want {
			t.Errorf("%s: integrity is %s, want %s", a.Path, a.Integrity, want)
		}
		if a.Headers[0] != (elements.Header{Name: "Content-Type", Value: a.ContentType}) {
			t.Errorf("%s: %v, and its type is %s", a.Path, a.Headers[0], a.ContentType)
		}
		// What is loaded by its digest from elsewhere is the library alone.
		open := slices.Contains(a.Headers, elements.Header{Name: "Access-Control-Allow-Origin", Value: "*"})
		if open != strings.Contains(a.Path, "hosted-fields") {
			t.Errorf("%s: any origin may read it: %v", a.Path, open)
		}
	}
	if !slices.IsSortedFunc(all, func(a, b elements.Asset) int { return strings.Compare(a.Path, b.Path) }) {
		t.Error("they are not sorted")
	}
	if elements.Lookup(elements.HostedFieldsLibrary).Path == "" {
		t.Error("the library has no path")
	}
}

// TestNothingLoadsOrRunsText: scripts have no way to make text into code or to call anybody else, and styles load nothing.
func TestNothingLoadsOrRunsText(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|XMLHttpRequest|WebSocket|localStorage|sessionStorage|indexedDB|document\.cookie|console\.|"\*"|sourceMappingURL|@import|url\(|https?://[^w]`)
	for _, a := range elements.Assets() {
		if found := forbidden.FindString(string(a.Body)); found != "" {
			t.Errorf("%s has %s", a.Path, found)
		}
	}
}

const wantCSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
	"frame-ancestors https://app.example http://localhost:9002; require-trusted-types-for 'script'; trusted-types 'none'; " +
	"report-uri /elements/csp-report; report-to csp"

func TestCardPageHeaders(t *testing.T) {
	p := cardPage(t, app())
	for name, want := range map[string]string{
		"Content-Security-Policy":      wantCSP,
		"Content-Type":                 "text/html; charset=utf-8",
		"Reporting-Endpoints":          `csp="/elements/csp-report"`,
		"Referrer-Policy":              "no-referrer",
		"X-Content-Type-Options":       "nosniff",
		"Cache-Control":                "no-store",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "cross-origin",
		"Cross-Origin-Embedder-Policy": "require-corp",
	} {
		if got := header(t, p, name); got != want {
			t.Errorf("%s: %s\nwant %s", name, got, want)
		}
	}
	if got := header(t, p, "Permissions-Policy"); !strings.Contains(got, "clipboard-write=(self)") || strings.Contains(got, "=*") {
		t.Errorf("Permissions-Policy: %s", got)
	}
	for _, h := range p.Headers {
		if h.Name == "Strict-Transport-Security" || h.Name == "X-Frame-Options" || strings.ContainsAny(h.Value, "\r\n") {
			t.Errorf("%s: %s", h.Name, h.Value)
		}
	}
}

func TestUnknownPage(t *testing.T) {
	p := elements.UnknownPage()
	if csp := header(t, p, "Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none';") {
		t.Errorf("it can be embedded: %s", csp)
	}
	if got := header(t, p, "X-Frame-Options"); got != "DENY" {
		t.Errorf("X-Frame-Options: %s", got)
	}
	checkDocument(t, p)
	if strings.Contains(string(p.HTML), "<script") {
		t.Error("it has a script")
	}
}

// checkDocument holds a page to its policy: nothing stands inline, what it loads is ours, with its digest.
func checkDocument(t *testing.T, p elements.Page) {
	t.Helper()
	text := string(p.HTML)
	for _, m := range regexp.MustCompile(`(?s)<script([^>]*)>(.*?)</script>`).FindAllStringSubmatch(text, -1) {
		if m[2] != "" || !strings.Contains(m[1], " src=") || !strings.Contains(m[1], ` crossorigin="anonymous"`) {
			t.Errorf("script: %s", m[0])
		}
	}
	if found := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:`).FindString(text); found != "" {
		t.Errorf("inline: %s", found)
	}
	known := map[string]string{}
	for _, a := range elements.Assets() {
		known[a.Path] = a.Integrity
	}
	for _, m := range regexp.MustCompile(`(?:src|href)="(/elements/[^"]*)"( integrity="([^"]*)")?`).FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(m[1], "/elements/themes/") {
			continue
		}
		if known[m[1]] == "" || known[m[1]] != m[3] {
			t.Errorf("%s has the integrity %q, want %q", m[1], m[3], known[m[1]])
		}
	}
	if regexp.MustCompile(`(?:src|href)="(?:https?:)?//`).MatchString(text) && !strings.Contains(text, "vendor.example") {
		t.Errorf("it loads from elsewhere:\n%s", text)
	}
}

func TestCardPage(t *testing.T) {
	a := app(func(a *elements.App) {
		a.Locale, a.Show, a.PINDigits = "de", 90*time.Second, 6
		a.Theme = map[string]string{"color-scheme": "dark"}
	})
	p := cardPage(t, a)
	checkDocument(t, p)
	for _, want := range []string{
		`<html lang="de" data-scheme="dark">`,
		`<meta name="cardstile-app" content="demo">`,
		`<meta name="cardstile-origins" content="https://app.example http://localhost:9002">`,
		`<meta name="cardstile-show-seconds" content="90">`,
		`<meta name="cardstile-pin-digits" content="6">`,
		`<meta name="cardstile-locale" content="de">`,
	} {
		if !strings.Contains(string(p.HTML), want) {
			t.Errorf("no %s in\n%s", want, p.HTML)
		}
	}
	if strings.Contains(string(p.HTML), "/themes/") {
		t.Error("it asks for a theme that says nothing")
	}
	a.Theme["accent"] = "#123456"
	if p := cardPage(t, a); !strings.Contains(string(p.HTML), `href="/elements/themes/demo.css"`) {
		t.Errorf("no theme in\n%s", p.HTML)
	}
	plain := string(cardPage(t, app()).HTML)
	for _, want := range []string{`<html lang="en">`, `show-seconds" content="60"`, `pin-digits" content="4"`, `locale" content=""`} {
		if !strings.Contains(plain, want) {
			t.Errorf("no %s in\n%s", want, plain)
		}
	}
}

func TestThemeCSS(t *testing.T) {
	got := string(elements.ThemeCSS(app(func(a *elements.App) {
		a.Theme = map[string]string{"accent": "#123456", "dark-accent": "rgb(1 2 3 / 50%)", "font": `"Inter", sans-serif`, "color-scheme": "light dark"}
		a.CSS = map[string]map[string]string{
			"#pse-done-button": {"border-radius": "4px 8px"},
			".pse-card-value":  {"color": "var(--cs-accent)", "background": "papayawhip"},
		}
	})))
	want := `:root:root:root{--cs-accent:#123456;--cs-font:"Inter", sans-serif;}
@media (prefers-color-scheme:dark){:root:root:root:not([data-scheme=light]){--cs-accent:rgb(1 2 3 / 50%);}}
:root:root:root[data-scheme=dark]{--cs-accent:rgb(1 2 3 / 50%);}
.pse-card-value{background:papayawhip;color:var(--cs-accent);}
#pse-done-button{border-radius:4px 8px;}
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	// Whoever does not check gets nothing of what is wrong.
	got = string(elements.ThemeCSS(app(func(a *elements.App) {
		a.Theme = map[string]string{"accent": "red;}*{", "x": "red"}
		a.CSS = map[string]map[string]string{"body": {"color": "red"}, ".pse-card-value": {"position": "fixed", "color": "url(x)"}}
	})))
	if got != "" {
		t.Errorf("got %s", got)
	}
}

func TestAppRefusals(t *testing.T) {
	origin := func(o string) func(*elements.App) {
		return func(a *elements.App) { a.Origins = []string{"https://app.example", o} }
	}
	css := func(selector, property, value string) func(*elements.App) {
		return func(a *elements.App) { a.CSS = map[string]map[string]string{selector: {property: value}} }
	}
	theme := func(name, value string) func(*elements.App) {
		return func(a *elements.App) { a.Theme = map[string]string{name: value} }
	}
	id := func(id string) func(*elements.App) { return func(a *elements.App) { a.ID = id } }
	for name, c := range map[string]struct {
		change func(*elements.App)
		want   string
	}{
		"no id":                {id(""), "id:"},
		"long id":              {id(strings.Repeat("a", 65)), "id:"},
		"id of dots":           {id(".."), "id:"},
		"id with slash":        {id("a/b"), "id:"},
		"id with quote":        {id(`a"`), "id:"},
		"id not of ASCII":      {id("ä"), "id:"},
		"no origins":           {func(a *elements.App) { a.Origins = nil }, "origins:"},
		"origin twice":         {origin("https://app.example"), "origins[1]: it is there twice"},
		"any origin":           {origin("*"), "origins[1]"},
		"null":                 {origin("null"), "origins[1]"},
		"any host":             {origin("https://*.example"), "origins[1]"},
		"plain HTTP":           {origin("http://app.example"), "origins[1]"},
		"other scheme":         {origin("ftp://app.example"), "origins[1]"},
		"data":                 {origin("data:text/html,x"), "origins[1]"},
		"path":                 {origin("https://app2.example/"), "origins[1]"},
		"query":                {origin("https://app2.example?x"), "origins[1]"},
		"fragment":             {origin("https://app2.example#x"), "origins[1]"},
		"user":                 {origin("https://u@app2.example"), "origins[1]"},
		"capitals":             {origin("https://App2.example"), "origins[1]"},
		"capital scheme":       {origin("HTTPS://app2.example"), "origins[1]"},
		"the scheme's port":    {origin("https://app2.example:443"), "origins[1]"},
		"empty port":           {origin("https://app2.example:"), "origins[1]"},
		"port 0":               {origin("https://app2.example:0"), "origins[1]"},
		"port with a zero":     {origin("https://app2.example:0443"), "origins[1]"},
		"big port":             {origin("https://app2.example:65536"), "origins[1]"},
		"IPv6":                 {origin("https://[::1]"), "origins[1]"},
		"semicolon":            {origin("https://app2.example;script-src *"), "origins[1]"},
		"space":                {origin("https://app2.example https://b.example"), "origins[1]"},
		"comma":                {origin("https://app2.example,b"), "origins[1]"},
		"quote":                {origin("https://app2.example'"), "origins[1]"},
		"line":                 {origin("https://app2.example\n"), "origins[1]"},
		"not of ASCII":         {origin("https://ä.example"), "origins[1]"},
		"dot at the end":       {origin("https://app2.example."), "origins[1]"},
		"an odd IPv4":          {origin("https://127.1"), "origins[1]"},
		"locale":               {func(a *elements.App) { a.Locale = "en-US" }, "locale: it is one of de, en"},
		"short show":           {func(a *elements.App) { a.Show = time.Second }, "show: it is 5s to 5m0s"},
		"long show":            {func(a *elements.App) { a.Show = time.Hour }, "show:"},
		"short PIN":            {func(a *elements.App) { a.PINDigits = 3 }, "pin digits: they are 4 to 12"},
		"long PIN":             {func(a *elements.App) { a.PINDigits = 13 }, "pin digits:"},
		"theme's name":         {theme("acent", "red"), `theme: there is no "acent"; there is accent, `},
		"theme's value":        {theme("accent", "4111;"), "theme: accent: its value is not allowed"},
		"theme without value":  {theme("accent", ""), "theme: accent:"},
		"a variable in itself": {theme("accent", "red}"), "theme: accent:"},
		"scheme":               {theme("color-scheme", "only dark"), "theme: color-scheme:"},
		"selector":             {css("body", "color", "red"), `css: there is no "body"; there is .pse-container, `},
		"two selectors":        {css(".pse-card-value,*", "color", "red"), "css: there is no"},
		"field's selector":     {css(".cs-input", "color", "red"), "css: there is no"},
		"position":             {css(".pse-card-value", "position", "fixed"), `css: .pse-card-value: "position" is not a property that may be set`},
		"transform":            {css(".pse-card-value", "transform", "none"), `"transform"`},
		"z-index":              {css(".pse-card-value", "z-index", "1"), `"z-index"`},
		"opacity":              {css(".pse-card-value", "opacity", "1"), `"opacity"`},
		"content":              {css(".pse-card-value", "content", "none"), `"content"`},
		"image":                {css(".pse-card-value", "background-image", "none"), `"background-image"`},
		"capital property":     {css(".pse-card-value", "Color", "red"), `"Color"`},
		"custom property":      {css(".pse-card-value", "--cs-text", "red"), `"--cs-text"`},
		"hidden":               {css(".pse-card-value", "display", "none"), "css: .pse-card-value: display: its value is not allowed"},
		"url":                  {css(".pse-card-value", "background", "url(//evil.example)"), "background: its value"},
		"important":            {css(".pse-card-value", "color", "red !important"), "color: its value"},
		"second declaration":   {css(".pse-card-value", "color", "red;position:fixed"), "color: its value"},
		"no such colour":       {css(".pse-card-value", "color", "blak"), "color: its value"},
		"negative margin":      {css(".pse-card-value", "margin", "-4px"), "margin: its value"},
		"no unit":              {css(".pse-card-value", "padding", "4"), "padding: its value"},
		"expression":           {css(".pse-card-value", "width", "expression(1)"), "width: its value"},
		"calc":                 {css(".pse-card-value", "width", "calc(1px)"), "width: its value"},
		"comment":              {css(".pse-card-value", "color", "red/**/"), "color: its value"},
		"escape":               {css(".pse-card-value", "font-family", `"\22"`), "font-family: its value"},
		"Kelvin sign":          {css(".pse-card-value", "color", "blac\u212a"), "color: its value"},
		"long s":               {css(".pse-card-value", "border-style", "da\u017fhed"), "border-style: its value"},
		"long":                 {css(".pse-card-value", "font-family", strings.Repeat("a", 201)), "font-family: its value"},
		"line in a value":      {css(".pse-card-value", "color", "red\n"), "color: its value"},
	} {
		a := app(c.change)
		err := a.Check()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
			continue
		}
		for _, properties := range a.CSS {
			for _, value := range properties {
				if len(value) > 5 && strings.Contains(err.Error(), value) {
					t.Errorf("%s: the error quotes the value: %v", name, err)
				}
			}
		}
		if p, err := elements.CardPage(a); err == nil || p.HTML != nil {
			t.Errorf("%s: there is a page all the same", name)
		}
	}
}

func TestAppAllowed(t *testing.T) {
	for _, origins := range [][]string{
		{"https://a.example"}, {"https://a.example:8443", "https://a.example"}, {"http://localhost"}, {"http://127.0.0.1:1"}, {"https://192.0.2.1"},
		{"https://xn--bcher-kva.example"}, {"https://a-b.c-d.example:65535"},
	} {
		if err := app(func(a *elements.App) { a.Origins = origins }).Check(); err != nil {
			t.Errorf("%s: %v", origins, err)
		}
	}
	for property, values := range map[string][]string{
		"color":          {"#fff", "#ABCD", "#a1b2c3", "#a1b2c3d4", "Black", "rgb(0, 0, 0)", "rgba(1,2,3,.5)", "hsl(120deg 50% 50%)", "hsla(120, 50%, 50%, 0.5)", "var(--cs-muted)", "transparent"},
		"border":         {"none", "1px solid #000", "0 dashed rgb(0 0 0)"},
		"box-shadow":     {"none", "0 1px 2px rgba(0,0,0,.2)", "-1px 0 0 1px black"},
		"font-family":    {"serif", "Helvetica Neue, Arial", `"A B", 'C', sans-serif`},
		"font-weight":    {"400", "bold"},
		"letter-spacing": {"-0.5px", "normal", "0.02em"},
		"line-height":    {"1.5", "20px", "normal"},
		"margin":         {"0 auto", "1px 2px 3px 4px"},
		"padding":        {"0", "1.5rem 10%"},
	} {
		for _, value := range values {
			err := app(func(a *elements.App) { a.CSS = map[string]map[string]string{".pse-container": {property: value}} }).Check()
			if err != nil {
				t.Errorf("%s: %s: %v", property, value, err)
			}
		}
	}
	for _, selector := range elements.Selectors() {
		if err := app(func(a *elements.App) { a.CSS = map[string]map[string]string{selector: {}} }).Check(); err != nil {
			t.Error(err)
		}
	}
}

// TestThemeNamesAreUsed: what a theme may set is a variable of the style sheet.
func TestThemeNamesAreUsed(t *testing.T) {
	css := string(elements.Lookup("card.css").Body)
	for _, name := range elements.ThemeNames() {
		variable := "--cs-" + strings.TrimPrefix(name, "dark-") + ":"
		if name != "color-scheme" && !strings.Contains(css, variable) {
			t.Errorf("no %s", variable)
		}
	}
	for _, selector := range elements.Selectors() {
		if name := selector[1:]; !strings.Contains(string(elements.Lookup("card.js").Body), name) {
			t.Errorf("no element is %s", selector)
		}
	}
}

// TestLocales: each language has a file of messages, with all messages in it and the values that they name.
func TestLocales(t *testing.T) {
	files, err := filepath.Glob("src/locales/*.json")
	if err != nil {
		t.Fatal(err)
	}
	messages := map[string]map[string]string{}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		var m map[string]string
		if err := json.Unmarshal(text, &m); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		names, messages[name] = append(names, name), m
	}
	if !slices.Equal(names, elements.Locales()) {
		t.Errorf("files %s, locales %s", names, elements.Locales())
	}
	placeholders := regexp.MustCompile(`\{[a-z]+\}`)
	for name, m := range messages {
		if len(m) != len(messages["en"]) {
			t.Errorf("%s has %d messages, want %d", name, len(m), len(messages["en"]))
		}
		for key, en := range messages["en"] {
			if m[key] == "" || !slices.Equal(placeholders.FindAllString(m[key], -1), placeholders.FindAllString(en, -1)) {
				t.Errorf("%s: %s: %q", name, key, m[key])
			}
		}
	}
}
