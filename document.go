package main

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cardstile/cardstile/policy"
)

// document is a configuration file whose values remember where they stand. It is decoded by its own walk over the YAML
// nodes: every problem is found in one pass, each with its key path and line, and no problem quotes a value, since a
// secret may have been written where a path belongs.
type document struct {
	file     string
	root     *yaml.Node
	problems []problem
}

// problem is one thing wrong with a configuration.
type problem struct {
	file string
	line int
	path string // of the key, as in routes[0].issuer
	text string
}

func (p problem) String() string {
	where := p.file
	if p.line > 0 {
		where += ":" + strconv.Itoa(p.line)
	}
	if p.path != "" {
		where += ": " + p.path
	}
	return where + ": " + p.text
}

// problems is an error that lists all of them.
type problems []problem

// Error implements error.
func (ps problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// readDocument decodes a file into v. An error means that nothing could be decoded at all.
func readDocument(file string, v any) (*document, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parseDocument(file, content, v)
}

func parseDocument(file string, content []byte, v any) (*document, error) {
	d := &document{file: file, root: &yaml.Node{Kind: yaml.MappingNode}}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var root, more yaml.Node
	switch err := decoder.Decode(&root); {
	case errors.Is(err, io.EOF):
		return d, nil // empty
	case err != nil:
		return nil, problems{syntaxProblem(file, content, err)}
	}
	switch err := decoder.Decode(&more); {
	case err == nil:
		d.at(&more, "", "a second document begins here: the file is to hold one")
	case !errors.Is(err, io.EOF):
		return nil, problems{syntaxProblem(file, content, err)}
	}
	if len(root.Content) > 0 {
		d.root = root.Content[0]
		d.decode(d.root, reflect.ValueOf(v).Elem(), "")
	}
	return d, nil
}

// syntaxProblem is what the YAML parser says, with its line. Where its text could quote the file, another one stands in.
func syntaxProblem(file string, content []byte, err error) problem {
	p := problem{file: file, text: strings.TrimPrefix(err.Error(), "yaml: ")}
	if line, text, ok := strings.Cut(strings.TrimPrefix(p.text, "line "), ": "); ok {
		if n, err := strconv.Atoi(line); err == nil {
			p.line, p.text = n, text
		}
	}
	if m := unknownAnchor.FindStringSubmatch(p.text); m != nil {
		before, _, _ := bytes.Cut(content, []byte("*"+m[1]))
		p.line = 1 + bytes.Count(before, []byte("\n"))
		p.text = "a text that begins with * needs quotes: without them it stands for an anchor, and there is none of this name"
	} else if strings.ContainsAny(oneQuoted.ReplaceAllString(p.text, ""), "\"'`") {
		p.text = "not YAML"
	}
	return p
}

var (
	unknownAnchor = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
	oneQuoted     = regexp.MustCompile(`'.'`) // what the parser expected
)

func (d *document) at(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, problem{d.file, n.Line, path, fmt.Sprintf(format, args...)})
}

// problem reports something about the value at a path, at the line of the deepest part of the path that is there.
func (d *document) problem(path, format string, args ...any) {
	d.at(d.find(path), path, format, args...)
}

// find returns the node at a path, or its deepest ancestor.
func (d *document) find(path string) *yaml.Node {
	n := d.root
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == step {
					next = n.Content[i+1]
					if next.Kind != yaml.ScalarNode {
						next.Line = n.Content[i].Line // the key's own line, not that of its first child
					}
				}
			}
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(step); err == nil && i < len(n.Content) {
				next = n.Content[i]
			}
		}
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

var (
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
	durationType    = reflect.TypeFor[time.Duration]()
)

// wanted says what a type's text looks like.
var wanted = map[reflect.Type]string{
	reflect.TypeFor[*netip.Prefix](): "a network, as in 10.0.0.0/8",
	reflect.TypeFor[*policy.Rate]():  "a rate, as in 10/s, 600/m, 120/h or 1000/d",
}

func (d *document) decode(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Tag == "!!null" {
		return // a key without a value is a key left out
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), path)
	case v.Addr().Type().Implements(textUnmarshaler):
		d.text(n, v.Addr().Interface().(encoding.TextUnmarshaler), path)
	case v.Type() == durationType:
		d.duration(n, v, path)
	case v.Kind() == reflect.Struct:
		d.structure(n, v, path)
	case v.Kind() == reflect.Map:
		d.mapping(n, v, path)
	case v.Kind() == reflect.Slice:
		d.sequence(n, v, path)
	case v.Kind() == reflect.String:
		if d.scalar(n, path, "text", "!!str", "!!int", "!!float", "!!bool", "!!timestamp") {
			v.SetString(n.Value)
		}
	case v.Kind() == reflect.Int:
		d.integer(n, v, path)
	case v.Kind() == reflect.Bool:
		if d.scalar(n, path, "true or false", "!!bool") {
			v.SetBool(strings.EqualFold(n.Value, "true"))
		}
	default:
		panic("config: internal error: no decoding for " + v.Type().String())
	}
}

// scalar checks that a node is a plain value of one of the tags.
func (d *document) scalar(n *yaml.Node, path, want string, tags ...string) bool {
	if n.Kind != yaml.ScalarNode || !slices.Contains(tags, n.Tag) {
		d.at(n, path, "want %s", want)
		return false
	}
	return true
}

func (d *document) integer(n *yaml.Node, v reflect.Value, path string) {
	if !d.scalar(n, path, "a whole number", "!!int") {
		return
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if err != nil || i < 0 {
		d.at(n, path, "want a whole number, zero or more")
		return
	}
	v.SetInt(i)
}

func (d *document) duration(n *yaml.Node, v reflect.Value, path string) {
	t, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || t < 0 {
		d.at(n, path, "want a duration with its unit, as in 10s or 500ms")
		return
	}
	v.SetInt(int64(t))
}

func (d *document) text(n *yaml.Node, v encoding.TextUnmarshaler, path string) {
	want := wanted[reflect.TypeOf(v)]
	if d.scalar(n, path, want, "!!str", "!!int", "!!float") && v.UnmarshalText([]byte(n.Value)) != nil {
		d.at(n, path, "want %s", want)
	}
}

func (d *document) sequence(n *yaml.Node, v reflect.Value, path string) {
	if n.Kind != yaml.SequenceNode {
		d.at(n, path, "want a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *document) mapping(n *yaml.Node, v reflect.Value, path string) {
	if !d.keys(n, path) {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for i := range firsts(n) {
		value := reflect.New(v.Type().Elem()).Elem()
		d.decode(n.Content[i+1], value, join(path, n.Content[i].Value))
		v.SetMapIndex(reflect.ValueOf(n.Content[i].Value), value)
	}
}

func (d *document) structure(n *yaml.Node, v reflect.Value, path string) {
	if !d.keys(n, path) {
		return
	}
	fields := map[string]int{}
	for i := range v.NumField() {
		fields[v.Type().Field(i).Tag.Get("yaml")] = i
	}
	for i := range firsts(n) {
		key := n.Content[i].Value
		field, ok := fields[key]
		if !ok {
			known := make([]string, 0, len(fields))
			for name := range fields {
				known = append(known, name)
			}
			slices.Sort(known)
			d.at(n.Content[i], join(path, key), "unknown key (known: %s)", strings.Join(known, ", "))
			continue
		}
		d.decode(n.Content[i+1], v.Field(field), join(path, key))
	}
}

// keys checks that a node is a mapping that names nothing twice.
func (d *document) keys(n *yaml.Node, path string) bool {
	if n.Kind != yaml.MappingNode {
		d.at(n, path, "want keys with values")
		return false
	}
	seen := map[string]bool{}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			d.at(key, path, "want plain keys")
			return false
		}
		if seen[key.Value] {
			d.at(key, join(path, key.Value), "the key stands here twice")
		}
		seen[key.Value] = true
	}
	return true
}

// firsts are the places of a mapping's keys, without those that stand there a second time.
func firsts(n *yaml.Node) iter.Seq[int] {
	return func(yield func(int) bool) {
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			if key := n.Content[i].Value; !seen[key] {
				seen[key] = true
				if !yield(i) {
					return
				}
			}
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
