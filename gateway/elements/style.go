package elements

import (
	_ "embed" // style.json
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// styleJSON is the one allow-list: of what an operator configures, which is checked here, and of what a page passes to
// its frame as `style`, which src/style.ts checks in the browser.
//
//go:embed src/style.json
var styleJSON []byte

// grammar says what may be styled, and how: names with the patterns of their values.
type grammar struct {
	properties, theme         map[string]*regexp.Regexp
	selectors, fieldSelectors []string
}

const (
	colorScheme   = "color-scheme"
	darkPrefix    = "dark-"
	maxStyleValue = 200 // characters
)

// allowed is style.json, compiled when it is first needed: a gateway without pages needs none of it.
var allowed = sync.OnceValue(loadGrammar)

// loadGrammar reads style.json. Its patterns are regular expressions, in lower case and matched in either, where <kind>
// stands for the kind of that name. A pattern is matched with the whole value.
func loadGrammar() *grammar {
	var file struct {
		Kinds, Properties, Theme  map[string]string
		Selectors, FieldSelectors []string
	}
	if err := json.Unmarshal(styleJSON, &file); err != nil {
		panic("elements: internal error: style.json: " + err.Error())
	}
	var expand func(pattern string) string
	expand = func(pattern string) string {
		return placeholder.ReplaceAllStringFunc(pattern, func(kind string) string {
			return "(?:" + expand(file.Kinds[kind[1:len(kind)-1]]) + ")"
		})
	}
	compile := func(patterns map[string]string) map[string]*regexp.Regexp {
		compiled := make(map[string]*regexp.Regexp, len(patterns))
		for name, pattern := range patterns {
			compiled[name] = regexp.MustCompile(`\A(?i:` + expand(pattern) + `)\z`)
		}
		return compiled
	}
	return &grammar{compile(file.Properties), compile(file.Theme), file.Selectors, file.FieldSelectors}
}

var placeholder = regexp.MustCompile(`<[a-z]+>`)

// check returns the first thing that is not allowed, in the order of names. It says where, and not what was written there.
func (g *grammar) check(theme map[string]string, css map[string]map[string]string, selectors []string) error {
	for _, name := range sortedKeys(theme) {
		pattern, ok := g.theme[name]
		if !ok {
			return fmt.Errorf("theme: there is no %q; there is %s", name, strings.Join(sortedKeys(g.theme), ", "))
		}
		if !allows(pattern, theme[name]) {
			return fmt.Errorf("theme: %s: its value is not allowed", name)
		}
	}
	for _, selector := range sortedKeys(css) {
		if !slices.Contains(selectors, selector) {
			return fmt.Errorf("css: there is no %q; there is %s", selector, strings.Join(selectors, ", "))
		}
		for _, name := range sortedKeys(css[selector]) {
			pattern, ok := g.properties[name]
			if !ok {
				return fmt.Errorf("css: %s: %q is not a property that may be set", selector, name)
			}
			if !allows(pattern, css[selector][name]) {
				return fmt.Errorf("css: %s: %s: its value is not allowed", selector, name)
			}
		}
	}
	return nil
}

// allows reports whether the whole value is what the pattern says. It fails closed: values that are long, or not of
// ASCII (which folding case could make ASCII), are not looked at, and what has no pattern is not allowed.
func allows(pattern *regexp.Regexp, value string) bool {
	return pattern != nil && len(value) <= maxStyleValue && strings.IndexFunc(value, func(r rune) bool { return r < ' ' || r > '~' }) < 0 && pattern.MatchString(value)
}

// sheet writes a style sheet of what is allowed. Themes win over the default's rules for dark mode by being more
// specific, since the default's stand in another file.
func (g *grammar) sheet(theme map[string]string, css map[string]map[string]string, selectors []string) []byte {
	var light, dark, rules strings.Builder
	for _, name := range sortedKeys(theme) {
		switch {
		case name == colorScheme || !allows(g.theme[name], theme[name]):
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
			if allows(g.properties[name], css[selector][name]) {
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
