package elements_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/elements"
	"pgregory.net/rapid"
)

// dangerous is what no value may hold: what ends a declaration, loads, escapes, hides in a comment, or calls a function
// that is not a colour's.
func dangerous(value string) bool {
	lower := strings.ToLower(value)
	if strings.ContainsAny(value, "@;{}\\<>!&*:`$=?[]^|~\n\r\t\x00") || strings.Contains(value, "/*") || strings.Contains(value, "//") {
		return true
	}
	for _, m := range call.FindAllStringSubmatch(lower, -1) {
		switch m[1] {
		case "rgb", "rgba", "hsl", "hsla":
		case "var":
		default:
			return true
		}
	}
	return strings.Count(value, `"`)%2 != 0 || strings.Count(value, "'")%2 != 0 || strings.Count(value, "(") != strings.Count(value, ")")
}

var call = regexp.MustCompile(`([a-z-]*)\(`)

// allowedAnywhere returns the sheet that a value got into, by any property or variable.
func allowedAnywhere(value string) string {
	for _, property := range elements.Properties() {
		a := app(func(a *elements.App) { a.CSS = map[string]map[string]string{".pse-card-value": {property: value}} })
		if a.Check() == nil {
			return string(elements.ThemeCSS(a))
		}
	}
	for _, name := range elements.ThemeNames() {
		a := app(func(a *elements.App) { a.Theme = map[string]string{name: value} })
		if a.Check() == nil {
			return string(elements.ThemeCSS(a)) + " "
		}
	}
	return ""
}

// TestNothingDangerousIsAllowed builds values of what is allowed and what is not.
func TestNothingDangerousIsAllowed(t *testing.T) {
	pieces := []string{
		"red", "#fff", "1px", "0", "solid", "auto", "none", "bold", "1.5", "serif", `"A"`, "'B'", "rgb(1, 2, 3)", "var(--cs-text)", " ", ", ", ",", "-", "/", "(", ")", "%",
		"url(", "URL(x)", "@import", ";", "{", "}", "\\", "<", ">", "/*", "*/", "expression(", "!important", "\n", "\x00", "\u212a", "\u017f", "\"", "'", ":", "calc(", "var(--x)", "attr(", "image-set(", "--cs-text",
	}
	rapid.Check(t, func(t *rapid.T) {
		value := strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 1, 6).Draw(t, "pieces"), "")
		if sheet := allowedAnywhere(value); sheet != "" && dangerous(value) {
			t.Fatalf("%q is allowed: %s", value, sheet)
		}
	})
}

// FuzzStyle: no value that is allowed has anything dangerous in it, and the sheet that it is written to holds what was
// meant, once.
func FuzzStyle(f *testing.F) {
	for _, s := range []string{"red", "url(x)", "1px solid #000", `"Inter", serif`, "red;}", "rgb(0 0 0 / 1)", "var(--cs-text)", "0 0 1px red", "\\75rl(x)", "a/**/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		sheet := allowedAnywhere(value)
		if sheet == "" {
			return
		}
		if dangerous(value) {
			t.Fatalf("%q is allowed: %s", value, sheet)
		}
		if open := strings.Count(sheet, "{"); open != strings.Count(sheet, "}") || strings.Count(sheet, value) == 0 {
			t.Fatalf("%q became %s", value, sheet)
		}
	})
}

// TestEveryPatternCompiles: each one is tried, and refuses what nobody may say.
func TestEveryPatternCompiles(t *testing.T) {
	if sheet := allowedAnywhere("url(x)"); sheet != "" {
		t.Error(sheet)
	}
	if n := len(elements.Properties()); n < 40 {
		t.Errorf("only %d properties", n)
	}
}
