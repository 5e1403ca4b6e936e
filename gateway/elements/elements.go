// Package elements answers: what runs in a cardholder's browser?
//
// It holds the pages that partners embed as frames, with their script and style: the card page, which shows a card or a
// PIN and sets one, and the pages of hosted fields, into which a card is typed. The pages are static. What they show
// they fetch themselves, sealed for a key that they made, so that neither these pages nor this package see card data.
//
// Sources are in src, in TypeScript; `make elements` bundles them into dist, which is embedded. See tools/elements.
package elements

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Page is a document that is served as it is.
type Page struct {
	HTML    []byte
	Headers []Header // Content-Type is among them; the caller adds what it adds to every answer
}

// Header is a header of an answer.
type Header struct{ Name, Value string }

// App is a partner's page that embeds elements [22].
type App struct {
	// ID is the appId of published clients: 1 to 64 of A-Z a-z 0-9 . _ -, and no path of dots.
	ID string
	// Origins are the exact origins of pages that may embed the card page, at least one: https://host, with :port where
	// it is not 443. http:// is for localhost and 127.0.0.1.
	Origins []string
	// Theme sets CSS variables, by their names without "--cs-": see [ThemeNames].
	Theme map[string]string
	// CSS sets properties of the elements that partners may style: see [Selectors] and [Properties]. Values have a
	// grammar for each property. Nothing in it loads, positions or takes off the page; an operator can still
	// make text too small, or of the colour behind it.
	CSS map[string]map[string]string
	// Locale is one of [Locales]. Empty: what the browser prefers among them, or else en.
	Locale string
	// SameOrigin has a page of the frame's own origin embed it, which can read all that it shows: for demonstrations.
	SameOrigin bool
	// Show is how long a card or PIN stays on the screen, 5 s to 5 min. Zero: a minute.
	Show time.Duration
	// PINDigits is how long a PIN that is set must be, 4 to 12. Zero: 4.
	PINDigits int
}

const (
	defaultShow = time.Minute
	minShow     = 5 * time.Second
	maxShow     = 5 * time.Minute

	defaultPINDigits = 4
	minPINDigits     = 4 // ISO 9564-1, section 8.1
	maxPINDigits     = 12
)

// Check returns what is wrong with an App. Its errors name members, never their values.
func (a *App) Check() error {
	if !isAppID(a.ID) {
		return errors.New("id: it has 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-', not dots alone")
	}
	if err := checkOrigins(a.Origins); err != nil {
		return err
	}
	if a.Show != 0 && (a.Show < minShow || a.Show > maxShow) {
		return fmt.Errorf("show: it is %v to %v", minShow, maxShow)
	}
	if a.PINDigits != 0 && (a.PINDigits < minPINDigits || a.PINDigits > maxPINDigits) {
		return fmt.Errorf("pin digits: they are %d to %d", minPINDigits, maxPINDigits)
	}
	if err := checkLocale(a.Locale); err != nil {
		return err
	}
	g := allowed()
	return g.check(a.Theme, a.CSS, g.selectors)
}

// CardPage returns the page of GET /?appId=: the frame in which an app of this partner shows its cards.
func CardPage(a *App) (Page, error) {
	if err := a.Check(); err != nil {
		return Page{}, fmt.Errorf("app %q: %w", a.ID, err)
	}
	show, digits := a.Show, a.PINDigits
	if show == 0 {
		show = defaultShow
	}
	if digits == 0 {
		digits = defaultPINDigits
	}
	d := document{
		title: "Card", scheme: a.Theme[colorScheme], locale: a.Locale,
		meta: []Header{
			{"app", a.ID},
			{"origins", strings.Join(a.Origins, " ")},
			{"same-origin", strconv.FormatBool(a.SameOrigin)},
			{"show-seconds", strconv.Itoa(int(show.Seconds()))},
			{"pin-digits", strconv.Itoa(digits)},
		},
		style: "card.css", script: "card.js",
		body: `<div id="cardstile"></div>`,
	}
	if css := ThemeCSS(a); len(css) > 0 {
		d.theme = themePrefix + a.ID + ".css"
	}
	return d.page(strictPolicy(a.Origins)), nil
}

// ThemeCSS returns what is served at /elements/themes/<ID>.css, as text/css and revalidated by browsers: an app's theme
// may change under its name. It is empty for an App that sets nothing, whose page does not ask for it. The App has been
// checked; one that has not gives a style sheet without what is wrong.
func ThemeCSS(a *App) []byte {
	g := allowed()
	return g.sheet(a.Theme, a.CSS, g.selectors)
}

const themePrefix = assetPrefix + "themes/"

// UnknownPage returns the page of an appId that is nobody's. It says so, to a person; nobody can embed it.
func UnknownPage() Page {
	d := document{
		title: "Unknown app", style: "card.css",
		body: `<main class="pse-container"><p class="cs-status">There is no app of this name here.</p></main>`,
	}
	return d.page(strictPolicy(nil))
}

// Locales are the languages that pages speak, sorted.
func Locales() []string { return []string{"de", "en", "es", "fr", "it", "pt"} }

// ThemeNames are the variables that a theme may set, sorted. Those that begin with "dark-" hold where the cardholder's
// device is in dark mode; color-scheme is light, dark or "light dark", which is the default.
func ThemeNames() []string { return sortedKeys(allowed().theme) }

// Selectors are the elements of the card page that partners may style.
func Selectors() []string { return slices.Clone(allowed().selectors) }

// FieldSelectors are the elements of hosted fields' pages that an operator may style.
func FieldSelectors() []string { return slices.Clone(allowed().fieldSelectors) }

// Properties are what may be set on such elements, sorted.
func Properties() []string { return sortedKeys(allowed().properties) }

func isAppID(id string) bool {
	if len(id) < 1 || len(id) > 64 || strings.Trim(id, ".") == "" {
		return false
	}
	return strings.IndexFunc(id, func(r rune) bool { return !isAlphanumeric(r) && !strings.ContainsRune("._-", r) }) < 0
}

func checkLocale(locale string) error {
	if locale != "" && !slices.Contains(Locales(), locale) {
		return fmt.Errorf("locale: it is one of %s", strings.Join(Locales(), ", "))
	}
	return nil
}

func isAlphanumeric(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}
