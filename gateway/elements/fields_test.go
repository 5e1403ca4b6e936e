package elements_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/elements"
)

func fields(changes ...func(*elements.Fields)) elements.Fields {
	f := elements.Fields{Origins: []string{"https://shop.example", "https://other.example"}}
	for _, change := range changes {
		change(&f)
	}
	return f
}

func pages(t *testing.T, f elements.Fields) *elements.FieldPages {
	t.Helper()
	p, err := elements.NewFields(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// query is what a published client asks for.
func query(changes ...string) url.Values {
	q := url.Values{
		"field": {"cardNumber"}, "hostedFieldsSessionId": {"abc.DEF-123_~+/="}, "isCardholderNameMandatory": {"true"}, "isCvvMandatory": {"false"},
		"isCvvMandatoryTerminalSetting": {"true"}, "locale": {"de-AT"}, "placeholder": {`4111 1111 "<b>`}, "targetOrigin": {"https://shop.example"}, "value": {""},
	}
	for i := 0; i < len(changes); i += 2 {
		q.Set(changes[i], changes[i+1])
	}
	return q
}

const digest = "sha384-oqVuAfXRKap7fdgcCY5uykM6+R9GqQ8K/uxy9rx7HNQlGYl1kPzQho1wx4JwY8wC"

func TestFieldPage(t *testing.T) {
	f := pages(t, fields())
	p, err := f.Page(query())
	if err != nil {
		t.Fatal(err)
	}
	checkDocument(t, p)
	want := "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; " +
		"frame-ancestors https://shop.example; require-trusted-types-for 'script'; trusted-types 'none'; report-uri /elements/csp-report; report-to csp"
	if got := header(t, p, "Content-Security-Policy"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	text := string(p.HTML)
	for _, want := range []string{
		`<html lang="de" data-scheme="light">`,
		`<meta name="cardstile-field" content="cardNumber">`,
		`<meta name="cardstile-session" content="abc.DEF-123_~+/=">`,
		`<meta name="cardstile-target-origin" content="https://shop.example">`,
		`<meta name="cardstile-name-mandatory" content="true">`,
		`<meta name="cardstile-cvv-mandatory" content="true">`,
		`<input class="cs-input" id="cardNumber" name="cardNumber" placeholder="4111 1111 &#34;&lt;b&gt;" autocomplete="off">`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Contains(text, "hosted-fields.css") || len(f.ThemeCSS()) != 0 {
		t.Error("it asks for a theme that says nothing")
	}
}

func TestSubmitPage(t *testing.T) {
	p, err := pages(t, fields()).Page(query("field", "submit", "value", `Pay & "go"`))
	if err != nil {
		t.Fatal(err)
	}
	checkDocument(t, p)
	if want := `<button type="button" class="cs-submit" id="submit">Pay &amp; &#34;go&#34;</button>`; !strings.Contains(string(p.HTML), want) {
		t.Errorf("no %s in\n%s", want, p.HTML)
	}
}

// TestCardDataInTheQueryStaysThere: what a client prefills is not written into a page, and not into an error.
func TestCardDataInTheQueryStaysThere(t *testing.T) {
	const pan = "5555555555554444"
	p, err := pages(t, fields()).Page(query("value", pan))
	if err != nil || strings.Contains(string(p.HTML), pan) {
		t.Errorf("%v\n%s", err, p.HTML)
	}
	if _, err := pages(t, fields()).Page(query("field", pan)); err == nil || strings.Contains(err.Error(), pan) {
		t.Errorf("%v", err)
	}
}

func TestVendorPage(t *testing.T) {
	f := pages(t, fields(func(f *elements.Fields) {
		f.Script, f.Integrity = "https://vendor.example/js/hosted-fields/1.7.js", digest
	}))
	p, err := f.Page(query())
	if err != nil {
		t.Fatal(err)
	}
	checkDocument(t, p)
	csp := header(t, p, "Content-Security-Policy")
	if !strings.Contains(csp, "script-src 'self' https://vendor.example/js/hosted-fields/1.7.js;") || strings.Contains(csp, "trusted-types") ||
		!strings.Contains(csp, "frame-ancestors https://shop.example;") {
		t.Error(csp)
	}
	text := string(p.HTML)
	vendor := strings.Index(text, `<script src="https://vendor.example/js/hosted-fields/1.7.js" integrity="`+digest+`" crossorigin="anonymous" defer></script>`)
	own := strings.Index(text, `<script src="/elements/vendor-field.`)
	if vendor < 0 || own < vendor || strings.Contains(text, "/elements/field.") && strings.Contains(text, `src="/elements/field.`) {
		t.Errorf("scripts of\n%s", text)
	}
}

func TestFieldsTheme(t *testing.T) {
	f := pages(t, fields(func(f *elements.Fields) {
		f.Theme = map[string]string{"accent": "#123456", "color-scheme": "light dark"}
		f.CSS = map[string]map[string]string{".cs-input": {"font-size": "18px"}}
		f.Locale = "fr"
	}))
	if got, want := string(f.ThemeCSS()), ":root:root:root{--cs-accent:#123456;}\n.cs-input{font-size:18px;}\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
	for locale, want := range map[string]string{"": "fr", "ja": "fr", "en_US": "en", "PT-br": "pt"} {
		p, err := f.Page(query("locale", locale))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(p.HTML), `<html lang="`+want+`">`) || !strings.Contains(string(p.HTML), `href="`+elements.FieldsThemePath+`"`) {
			t.Errorf("%s: want %s in\n%s", locale, want, p.HTML)
		}
	}
}

func TestQueryRefusals(t *testing.T) {
	f := pages(t, fields())
	twice := query()
	twice.Add("targetOrigin", "https://shop.example")
	without := func(name string) url.Values { q := query(); q.Del(name); return q }
	for name, c := range map[string]struct {
		query url.Values
		want  string
	}{
		"no field":          {without("field"), "field"},
		"unknown field":     {query("field", "pin"), "field"},
		"no session":        {without("hostedFieldsSessionId"), "hostedFieldsSessionId"},
		"empty session":     {query("hostedFieldsSessionId", ""), "hostedFieldsSessionId"},
		"odd session":       {query("hostedFieldsSessionId", `"><script>`), "hostedFieldsSessionId"},
		"long session":      {query("hostedFieldsSessionId", strings.Repeat("a", 1001)), "hostedFieldsSessionId"},
		"no origin":         {without("targetOrigin"), "targetOrigin"},
		"any origin":        {query("targetOrigin", "*"), "targetOrigin"},
		"foreign origin":    {query("targetOrigin", "https://evil.example"), "targetOrigin"},
		"origin with slash": {query("targetOrigin", "https://shop.example/"), "targetOrigin"},
		"origin in capital": {query("targetOrigin", "https://SHOP.example"), "targetOrigin"},
		"origin twice":      {twice, "targetOrigin"},
		"odd flag":          {query("isCvvMandatory", "1"), "isCvvMandatory"},
		"odd flag, name":    {query("isCardholderNameMandatory", "yes"), "isCardholderNameMandatory"},
		"odd flag, setting": {query("isCvvMandatoryTerminalSetting", "TRUE"), "isCvvMandatoryTerminalSetting"},
		"odd locale":        {query("locale", "en'"), "locale"},
		"long placeholder":  {query("placeholder", strings.Repeat("a", 101)), "placeholder"},
		"control character": {query("placeholder", "a\nb"), "placeholder"},
		"turned text":       {query("placeholder", "a\u202eb"), "placeholder"},
		"not UTF-8":         {query("placeholder", "a\xff"), "placeholder"},
		"long button":       {query("field", "submit", "value", strings.Repeat("a", 101)), "value"},
	} {
		p, err := f.Page(c.query)
		var wrong *elements.ErrQuery
		if !errors.As(err, &wrong) || wrong.Parameter != c.want || p.HTML != nil || p.Headers != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFieldsRefusals(t *testing.T) {
	script := func(script, integrity string) func(*elements.Fields) {
		return func(f *elements.Fields) { f.Script, f.Integrity = script, integrity }
	}
	const url = "https://vendor.example/a.js"
	for name, c := range map[string]struct {
		change func(*elements.Fields)
		want   string
	}{
		"no origins":             {func(f *elements.Fields) { f.Origins = nil }, "origins:"},
		"origin":                 {func(f *elements.Fields) { f.Origins = []string{"*"} }, "origins[0]"},
		"locale":                 {func(f *elements.Fields) { f.Locale = "xx" }, "locale:"},
		"theme":                  {func(f *elements.Fields) { f.Theme = map[string]string{"accent": "x("} }, "theme: accent"},
		"card page's selector":   {func(f *elements.Fields) { f.CSS = map[string]map[string]string{".pse-card-value": {}} }, `css: there is no ".pse-card-value"`},
		"no integrity":           {script(url, ""), "integrity:"},
		"no script":              {script("", digest), "script:"},
		"weak digest":            {script(url, "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="), "integrity:"},
		"short digest":           {script(url, digest[:40]), "integrity:"},
		"two digests":            {script(url, digest+" "+digest), "integrity:"},
		"plain HTTP":             {script("http://vendor.example/a.js", digest), "script:"},
		"no host":                {script("https:///a.js", digest), "script:"},
		"no path":                {script("https://vendor.example", digest), "script:"},
		"a directory":            {script("https://vendor.example/js/", digest), "script:"},
		"query":                  {script(url+"?v=1", digest), "script:"},
		"fragment":               {script(url+"#x", digest), "script:"},
		"user":                   {script("https://u:p@vendor.example/a.js", digest), "script:"},
		"semicolon in the path":  {script("https://vendor.example/a;b.js", digest), "script:"},
		"space in the path":      {script("https://vendor.example/a b.js", digest), "script:"},
		"escape in the path":     {script("https://vendor.example/a%20b.js", digest), "script:"},
		"a policy in the host":   {script("https://*.example/a.js", digest), "script:"},
		"data":                   {script("data:text/javascript,alert(1)", digest), "script:"},
		"quote in the integrity": {script(url, digest+`"`), "integrity:"},
	} {
		if _, err := elements.NewFields(fields(c.change)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// FuzzFieldPage: whatever a query says, a page is embedded by an origin of ours alone, and its text stays text.
func FuzzFieldPage(f *testing.F) {
	f.Add("cardNumber", "abc", "https://shop.example", "de", "1234", "x")
	f.Add("submit", "abc", "https://shop.example", "", "", `"><script>alert(1)</script>`)
	f.Add("cvv", `"`, "https://evil.example", "e'", "\x00", "\u202e")
	made, err := elements.NewFields(fields())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, field, session, origin, locale, placeholder, value string) {
		p, err := made.Page(query("field", field, "hostedFieldsSessionId", session, "targetOrigin", origin, "locale", locale, "placeholder", placeholder, "value", value))
		if err != nil {
			var wrong *elements.ErrQuery
			if !errors.As(err, &wrong) || p.HTML != nil {
				t.Fatal(err)
			}
			return
		}
		if csp := header(t, p, "Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors https://shop.example;") && !strings.Contains(csp, "frame-ancestors https://other.example;") {
			t.Fatal(csp)
		}
		checkDocument(t, p)
		text := string(p.HTML)
		if strings.Count(text, "<script") != 1 || strings.Count(text, "<input")+strings.Count(text, "<button") != 1 || strings.Count(text, "<meta") != 11 {
			t.Fatalf("markup:\n%s", text)
		}
	})
}
