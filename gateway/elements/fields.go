package elements

import (
	"errors"
	"fmt"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Fields is what the pages of hosted fields are made of: one frame for each field of a card.
type Fields struct {
	// Script and Integrity are a vendor's script, by https URL and digest (sha256-, sha384- or sha512-), that serves the
	// fields in place of ours. Both are empty, or both are set.
	Script, Integrity string
	// Origins, Theme, CSS, Locale and SameOrigin are as in [App]; selectors are [FieldSelectors].
	Origins    []string
	Theme      map[string]string
	CSS        map[string]map[string]string
	Locale     string
	SameOrigin bool
}

// FieldPages makes the pages of hosted fields. It is safe for concurrent use.
type FieldPages struct {
	fields Fields
	theme  []byte
}

// FieldsThemePath is where the style of hosted fields is served, as text/css and revalidated by browsers.
const FieldsThemePath = "/merchant/hosted-fields.css"

// NewFields checks what pages are made of.
func NewFields(f Fields) (*FieldPages, error) {
	if err := checkOrigins(f.Origins); err != nil {
		return nil, err
	}
	if err := checkLocale(f.Locale); err != nil {
		return nil, err
	}
	if err := checkVendor(f.Script, f.Integrity); err != nil {
		return nil, err
	}
	g := allowed()
	if err := g.check(f.Theme, f.CSS, g.fieldSelectors); err != nil {
		return nil, err
	}
	return &FieldPages{fields: f, theme: g.sheet(f.Theme, f.CSS, g.fieldSelectors)}, nil
}

// ThemeCSS returns what is served at [FieldsThemePath]. It is empty where nothing is set, and then no page asks for it.
func (f *FieldPages) ThemeCSS() []byte { return f.theme }

// ErrQuery is a query that no page of a field answers. It says which parameter, and not what it was: a card number has
// been seen in such places.
type ErrQuery struct{ Parameter string }

func (e *ErrQuery) Error() string {
	return fmt.Sprintf("query: %s is missing, repeated or not allowed", e.Parameter)
}

// Fields of a card, and the button that sends them.
const submitField = "submit"

var cardFields = []string{"cardholderName", "cardNumber", "expiryDate", "cvv", submitField}

// Names of the query's parameters. Source: GET /merchant/hosted-fields.
const (
	paramField        = "field"
	paramSession      = "hostedFieldsSessionId"
	paramName         = "isCardholderNameMandatory"
	paramCVV          = "isCvvMandatory"
	paramCVVTerminal  = "isCvvMandatoryTerminalSetting"
	paramLocale       = "locale"
	paramPlaceholder  = "placeholder"
	paramTargetOrigin = "targetOrigin"
	paramValue        = "value"
)

const maxText = 100 // characters of a placeholder or a button

var (
	sessionForm = regexp.MustCompile(`\A[A-Za-z0-9._~+/=-]{1,1000}\z`)
	localeForm  = regexp.MustCompile(`\A[A-Za-z]{2,3}(?:[_-][A-Za-z0-9]{1,8}){0,3}\z`)
)

// Page returns the page of one field. Only the origin that the query names can embed it, and it must be one of ours.
// All failures are *[ErrQuery]. Parameters that we do not know are ignored, as is the value of a field that a person
// fills in.
func (f *FieldPages) Page(q url.Values) (Page, error) {
	p := query{values: q}
	field := p.get(paramField, func(v string) bool { return slices.Contains(cardFields, v) })
	session := p.get(paramSession, sessionForm.MatchString)
	origin := p.get(paramTargetOrigin, func(v string) bool { return slices.Contains(f.fields.Origins, v) })
	name, cvv, terminal := p.optional(paramName, isBool), p.optional(paramCVV, isBool), p.optional(paramCVVTerminal, isBool)
	language := p.optional(paramLocale, localeForm.MatchString)
	placeholder := p.optional(paramPlaceholder, isText)
	value := ""
	if field == submitField {
		value = p.optional(paramValue, isText)
	}
	if p.wrong != "" {
		return Page{}, &ErrQuery{p.wrong}
	}
	d := document{
		title: "Card field", scheme: f.scheme(), locale: f.locale(language),
		meta: []Header{
			{"field", field},
			{"session", session},
			{"target-origin", origin},
			{"same-origin", strconv.FormatBool(f.fields.SameOrigin)},
			{"name-mandatory", name},
			{"cvv-mandatory", either(cvv, terminal)},
			{"value", value},
		},
		style: "field.css", script: "field.js",
		body: fieldBody(field, placeholder, value),
	}
	if len(f.theme) > 0 {
		d.theme = FieldsThemePath
	}
	policy := strictPolicy([]string{origin})
	if f.fields.Script != "" {
		d.script, d.vendor = "vendor-field.js", &vendorScript{f.fields.Script, f.fields.Integrity}
		policy.vendor, policy.trustedTypes = f.fields.Script, false
	}
	return d.page(policy), nil
}

// fieldBody holds one control, as vendors' scripts expect. What it is called is our script's to say, in the page's language.
func fieldBody(field, placeholder, value string) string {
	if field == submitField {
		return fmt.Sprintf(`<main class="cs-field"><button type="button" class="cs-submit" id="submit">%s</button></main>`, html.EscapeString(value))
	}
	return fmt.Sprintf(`<main class="cs-field"><input class="cs-input" id="%[1]s" name="%[1]s" placeholder="%[2]s" autocomplete="off"></main>`, field, html.EscapeString(placeholder))
}

// locale is what the page's query asks for, where we speak it; else what is configured.
func (f *FieldPages) locale(asked string) string {
	language, _, _ := strings.Cut(strings.ReplaceAll(strings.ToLower(asked), "_", "-"), "-")
	if slices.Contains(Locales(), language) {
		return language
	}
	return f.fields.Locale
}

// scheme is light unless the theme says otherwise: a field stands in a form whose page cannot be asked, and few are dark.
func (f *FieldPages) scheme() string {
	if s := f.fields.Theme[colorScheme]; s != "" {
		return s
	}
	return "light"
}

// query reads parameters and remembers the first that is wrong.
type query struct {
	values url.Values
	wrong  string
}

func (p *query) get(name string, ok func(string) bool) string {
	all := p.values[name]
	if len(all) != 1 || !ok(all[0]) {
		if p.wrong == "" {
			p.wrong = name
		}
		return ""
	}
	return all[0]
}

// optional takes an empty parameter for one that is left out, as published clients write them.
func (p *query) optional(name string, ok func(string) bool) string {
	if all := p.values[name]; len(all) == 0 || len(all) == 1 && all[0] == "" {
		return ""
	}
	return p.get(name, ok)
}

func isBool(v string) bool { return v == "true" || v == "false" }

func either(a, b string) string {
	if a == "true" || b == "true" {
		return "true"
	}
	return "false"
}

// isText takes what a person may read on a page: no control characters, nothing that turns the direction of text.
func isText(v string) bool {
	return utf8.ValidString(v) && utf8.RuneCountInString(v) <= maxText && strings.IndexFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) < 0
}

// checkVendor wants a URL that a policy can name by origin and path (CSP level 3, section 2.3.1), and a digest: what
// somebody else's server sends runs only if it is what the operator has looked at.
func checkVendor(script, integrity string) error {
	if script == "" && integrity == "" {
		return nil
	}
	u, err := url.Parse(script)
	if err != nil || u.Scheme != "https" || u.User != nil || !isHost(u.Hostname()) || !isPort(u.Port()) || u.Scheme+"://"+u.Host+u.Path != script ||
		!scriptPath.MatchString(u.Path) {
		return errors.New("script: it is https://host/path of letters, digits and -._~/, without a query")
	}
	if !integrityForm.MatchString(integrity) {
		return errors.New("integrity: it is sha256-, sha384- or sha512- and the digest in base64")
	}
	return nil
}

var (
	scriptPath    = regexp.MustCompile(`\A/[A-Za-z0-9._~/-]*[A-Za-z0-9_~-]\z`) // a path that ends in a slash would name a whole directory
	integrityForm = regexp.MustCompile(`\Asha(?:256-[A-Za-z0-9+/]{43}=|384-[A-Za-z0-9+/]{64}|512-[A-Za-z0-9+/]{86}==)\z`)
)
