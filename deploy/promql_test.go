package deploy_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// selector is one vector selector of a PromQL expression: a metric with the labels that it is matched by.
type selector struct {
	metric string
	labels []string
}

// names are the metric and label names of a PromQL expression.
type names struct {
	selectors []selector
	grouped   []string // labels of by, without, on, ignoring, group_left, group_right
}

// promQLToken is one token of PromQL, as far as names matter: a string, a duration or number, an identifier, or one other character.
var promQLToken = regexp.MustCompile(`^(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|` + "`[^`]*`" + `|[0-9][0-9a-zA-Z._]*|[a-zA-Z_:][a-zA-Z0-9_:]*|.)`)

var (
	promQLLists = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	promQLWords = []string{"and", "or", "unless", "bool", "offset", "atan2", "inf", "nan", "start", "end"}
)

// namesIn takes an expression apart. It does not check the syntax, which promtool does; it knows where in valid PromQL an identifier is the
// name of a metric, of a label, or neither.
func namesIn(expression string) (names, error) {
	var tokens []string
	for rest := expression; rest != ""; {
		if strings.TrimLeft(rest[:1], " \t\r\n") == "" {
			rest = rest[1:]
			continue
		}
		t := promQLToken.FindString(rest)
		if t == "" {
			return names{}, fmt.Errorf("no token at %q", rest)
		}
		tokens = append(tokens, t)
		rest = rest[len(t):]
	}
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	// list reads identifiers between the bracket at i and its closing one, and returns the index behind that.
	list := func(i int, closing string, take func(i int)) (int, error) {
		for i++; at(i) != closing; i++ {
			if at(i) == "" {
				return 0, fmt.Errorf("no %s in %q", closing, expression)
			}
			if isIdentifier(at(i)) {
				take(i)
			}
		}
		return i, nil
	}
	var out names
	var err error
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		switch {
		case t == "{":
			// A selector without a name could match anything.
			return names{}, fmt.Errorf("a selector without a metric in %q", expression)
		case !isIdentifier(t):
		case slices.Contains(promQLLists, strings.ToLower(t)):
			if at(i+1) == "(" {
				i, err = list(i+1, ")", func(i int) { out.grouped = append(out.grouped, tokens[i]) })
			}
		case slices.Contains(promQLWords, strings.ToLower(t)), at(i+1) == "(":
		// An aggregation may have its labels before its argument: sum by (x) (…).
		case slices.Contains(promQLLists, strings.ToLower(at(i+1))) && at(i+2) == "(" && !strings.Contains(t, "_"):
		default:
			s := selector{metric: t}
			if at(i+1) == "{" {
				i, err = list(i+1, "}", func(i int) { s.labels = append(s.labels, tokens[i]) })
			}
			out.selectors = append(out.selectors, s)
		}
		if err != nil {
			return names{}, err
		}
	}
	return out, nil
}

func isIdentifier(t string) bool {
	c := t[0]
	return c == '_' || c == ':' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// metric is one line of metrics.txt.
type metric struct {
	name, kind string
	labels     []string
}

// scraped are labels that every series has from its scrape.
var scraped = []string{"instance", "job"}

// find returns the metric that a series belongs to, with the labels that this series has.
func find(metrics []metric, series string) (metric, bool) {
	for _, m := range metrics {
		labels := slices.Concat(m.labels, scraped)
		switch {
		case m.kind == "histogram" && series == m.name+"_bucket":
			return metric{m.name, m.kind, append(labels, "le")}, true
		case m.kind == "summary" && series == m.name:
			return metric{m.name, m.kind, append(labels, "quantile")}, true
		case (m.kind == "histogram" || m.kind == "summary") && (series == m.name+"_sum" || series == m.name+"_count"),
			(m.kind == "counter" || m.kind == "gauge") && series == m.name:
			return metric{m.name, m.kind, labels}, true
		}
	}
	return metric{}, false
}

// unknownNames returns what an expression names that does not exist.
func unknownNames(metrics []metric, expression string) []string {
	found, err := namesIn(expression)
	if err != nil {
		return []string{err.Error()}
	}
	if len(found.selectors) == 0 {
		return []string{"no metric"}
	}
	var unknown, labels []string
	for _, s := range found.selectors {
		m, ok := find(metrics, s.metric)
		if !ok {
			unknown = append(unknown, "metric "+s.metric)
			continue
		}
		labels = append(labels, m.labels...)
		for _, l := range s.labels {
			if !slices.Contains(m.labels, l) {
				unknown = append(unknown, fmt.Sprintf("label %s of %s", l, s.metric))
			}
		}
	}
	for _, l := range found.grouped {
		if !slices.Contains(labels, l) {
			unknown = append(unknown, "label "+l)
		}
	}
	return unknown
}
