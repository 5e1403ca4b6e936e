package elements

import (
	_ "embed" // style.json
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// styleJSON is the one allow-list: of what an operator configures, which is checked here, and of what a page passes to
// its frame as `style`, which src/style.ts checks in the browser.
//
//go:embed src/style.json
var styleJSON []byte

// grammar says what may be styled, and how. A pattern is a regular expression, in lower case and matched in either,
// where <kind> stands for the kind of that name. It is matched with the whole value.
type grammar struct {
	Kinds          map[string]string
	Properties     map[string]string // name to pattern
	Theme          map[string]string // name to pattern
	Selectors      []string
	FieldSelectors []string
}

const (
	colorScheme   = "color-scheme"
	darkPrefix    = "dark-"
	maxStyleValue = 200 // characters
)

func loadGrammar() *grammar {
	var g grammar
	if err := json.Unmarshal(styleJSON, &g); err != nil {
		panic("elements: internal error: style.json: " + err.Error())
	}
	return &g
}

// check returns the first thing that is not allowed, in the order of names. It says where, and not what was written there.
func (g *grammar) check(theme map[string]string, css map[string]map[string]string, selectors []string) error {
	for _, name := range sortedKeys(theme) {
		pattern, ok := g.Theme[name]
		if !ok {
			return fmt.Errorf("theme: there is no %q; there is %s", name, strings.Join(sortedKeys(g.Theme), ", "))
		}
		if !g.allows(pattern, theme[name]) {
			return fmt.Errorf("theme: %s: its value is not allowed", name)
		}
	}
	for _, selector := range sortedKeys(css) {
		if !slices.Contains(selectors, selector) {
			return fmt.Errorf("css: there is no %q; there is %s", selector, strings.Join(selectors, ", "))
		}
		for _, name := range sortedKeys(css[selector]) {
			pattern, ok := g.Properties[name]
			if !ok {
				return fmt.Errorf("css: %s: %q is not a property that may be set", selector, name)
			}
			if !g.allows(pattern, css[selector][name]) {
				return fmt.Errorf("css: %s: %s: its value is not allowed", selector, name)
			}
		}
	}
	return nil
}

// allows reports whether the whole value is what the pattern says. It fails closed: values that are long, or not of
// ASCII, are not looked at.
func (g *grammar) allows(pattern, value string) bool {
	if value == "" || len(value) > maxStyleValue || strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) >= 0 {
		return false
	}
	return regexp.MustCompile(`\A(?i:` + g.expand(pattern) + `)\z`).MatchString(value)
}

func (g *grammar) expand(pattern string) string {
	return placeholder.ReplaceAllStringFunc(pattern, func(kind string) string {
		return "(?:" + g.expand(g.Kinds[kind[1:len(kind)-1]]) + ")"
	})
}

var placeholder = regexp.MustCompile(`<[a-z]+>`)

// sheet writes a style sheet of what is allowed. Themes win over the default's rules for dark mode by being more
// specific, since the default's stand in another file.
func (g *grammar) sheet(theme map[string]string, css map[string]map[string]string, selectors []string) []byte {
	var light, dark, rules strings.Builder
	for _, name := range sortedKeys(theme) {
		switch pattern, ok := g.Theme[name]; {
		case !ok || name == colorScheme || !g.allows(pattern, theme[name]):
		case strings.HasPrefix(name, darkPrefix):
			fmt.Fprintf(&dark, "--cs-%s:%s;", strings.TrimPrefix(name, darkPrefix), theme[name])
		default:
			fmt.Fprintf(&light, "--cs-%s:%s;", name, theme[name])
		}
	}
	if light.Len() > 0 {
		fmt.Fprintf(&rules, ":root:root:root{%s}\n", light.String())
	}
	if dark.Len() > 0 {
		fmt.Fprintf(&rules, "@media (prefers-color-scheme:dark){:root:root:root:not([data-scheme=light]){%s}}\n", dark.String())
		fmt.Fprintf(&rules, ":root:root:root[data-scheme=dark]{%s}\n", dark.String())
	}
	for _, selector := range selectors { // in the order of the table, not of the configuration
		var body strings.Builder
		for _, name := range sortedKeys(css[selector]) {
			if pattern, ok := g.Properties[name]; ok && g.allows(pattern, css[selector][name]) {
				fmt.Fprintf(&body, "%s:%s;", name, css[selector][name])
			}
		}
		if body.Len() > 0 {
			fmt.Fprintf(&rules, "%s{%s}\n", selector, body.String())
		}
	}
	return []byte(rules.String())
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
