package main

import (
	"encoding"
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// decodeConfig decodes a text as `check` does, and returns what is wrong with it.
func decodeConfig(text []byte) (Config, *document, problems) {
	var c Config
	d, err := parseDocument("config.yaml", text, &c)
	var found problems
	switch {
	case errors.As(err, &found):
		return c, nil, found
	case err != nil:
		panic("an error that is not problems: " + err.Error())
	}
	return c, d, problems(d.problems)
}

// planted stands for a secret in the fuzzed texts.
const planted = "hunter2hunter2"

// FuzzDocument: whatever the file, every problem stands at a line of it and quotes no value; and what decodes without a
// problem is the same once it was written out and read again.
func FuzzDocument(f *testing.F) {
	example, err := os.ReadFile("config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	for _, seed := range []string{
		"", "#", "---\n...\n", "a: *hunter2hunter2", "listeners: &a {x: {address: hunter2hunter2}}\nissuers: *a", "keys: [&a [*a]]",
		"environment: !hunter2hunter2 test", "environment: !!binary aHVudGVyMg==", "<<: {environment: test}", "? [a]\n: b", "limits: {read: hunter2hunter2}",
		"limits: {rsa: 0x10, partner: hunter2hunter2}", "partners:\n- rate: 10/s\n  certificate: ~\n- ~\n", "hunter2hunter2", "- hunter2hunter2", "\ttab: 1",
		"listeners:\n  x:\n    proxy_protocol: {from: [10.0.0.0/8, ~, hunter2hunter2]}\n", "audit: {file: 2026-11-23, instance: 1e3}\nlog: {level: on}\n",
		"environment: test\n---\nenvironment: hunter2hunter2", "admin: \"hunter2hunter2\n", "admin: 'hunter2hunter2", "a: b: hunter2hunter2", "%hunter2hunter2", "environment: \xff",
		"store: {memory: {max_entries: 99999999999999999999}}", "shutdown: {grace: -1s, timeout: 1}", "routes: [{pin: [hunter2hunter2]}]", "\"\": hunter2hunter2",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		config, d, found := decodeConfig(text)
		lines := strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + strings.Count(string(text), "\u0085") +
			strings.Count(string(text), "\u2028") + strings.Count(string(text), "\u2029") + 1
		keyed := d != nil && isKey(d.root, planted)
		for _, p := range found {
			if p.line < 0 || p.line > lines {
				t.Errorf("%s: line %d of %d", p.text, p.line, lines)
			}
			if p.line == 0 && d != nil {
				t.Errorf("%s: no line", p.text)
			}
			if strings.Contains(p.String(), planted) && !keyed {
				t.Errorf("quotes a value: %s", p)
			}
		}
		if len(found) > 0 {
			return
		}
		written, err := yaml.Marshal(encode(reflect.ValueOf(config)))
		if err != nil {
			t.Fatal(err)
		}
		again, _, found := decodeConfig(written)
		if len(found) > 0 || !reflect.DeepEqual(config, again) {
			t.Errorf("%s\nwas read again with %v as\n%+v, not\n%+v", written, found, again, config)
		}
	})
}

// isKey reports whether a text is part of a key somewhere: keys are named in problems.
func isKey(n *yaml.Node, text string) bool {
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			if strings.Contains(n.Content[i].Value, text) {
				return true
			}
		}
	}
	return slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return isKey(c, text) })
}

// encode writes a configuration as a document. What is zero is left out, where leaving it out means zero.
func encode(v reflect.Value) *yaml.Node {
	if m, ok := v.Interface().(encoding.TextMarshaler); ok && v.Kind() != reflect.Pointer {
		text, err := m.MarshalText()
		if err != nil || v.IsZero() {
			return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
		}
		return scalarNode(string(text))
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return scalarNode(d.String())
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encode(v.Elem())
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for i := range v.NumField() {
			if !v.Field(i).IsZero() {
				n.Content = append(n.Content, scalarNode(v.Type().Field(i).Tag.Get("yaml")), encode(v.Field(i)))
			}
		}
		return n
	case reflect.Map:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, key := range v.MapKeys() {
			n.Content = append(n.Content, scalarNode(key.String()), encode(v.MapIndex(key)))
		}
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.Len() {
			n.Content = append(n.Content, encode(v.Index(i)))
		}
		return n
	case reflect.String:
		return scalarNode(v.String())
	}
	n := new(yaml.Node)
	if err := n.Encode(v.Interface()); err != nil {
		panic(err) // a number or a switch
	}
	return n
}

func scalarNode(text string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: yaml.DoubleQuotedStyle}
}

// TestEveryKeyIsRead gives each key of the example a value and finds it in the Config: a field that the decoder passes over
// would be a setting without effect.
func TestEveryKeyIsRead(t *testing.T) {
	text, err := os.ReadFile("config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config, _, found := decodeConfig(text)
	if len(found) > 0 {
		t.Fatal(found)
	}
	written, err := yaml.Marshal(encode(reflect.ValueOf(config)))
	if err != nil {
		t.Fatal(err)
	}
	stated, kept := map[string]int{}, map[string]int{}
	for where, text := range map[*map[string]int][]byte{&stated: text, &kept: written} {
		var root yaml.Node
		if err := yaml.Unmarshal(text, &root); err != nil {
			t.Fatal(err)
		}
		countKeys(root.Content[0], reflect.TypeFor[Config](), "", *where)
	}
	for _, switchedOff := range []string{
		"partners[].disabled", "issuers.*.shared_credential", "routes[].stateless_cookies", "routes[].apps[].page.same_origin",
		"routes[].hosted_fields.page.same_origin", "routes[].hosted_fields.cardholder_name", "routes[].hosted_fields.expired_cards",
		"routes[].hosted_fields.tokenization",
	} {
		delete(stated, switchedOff) // false, which is left out
	}
	if !reflect.DeepEqual(stated, kept) {
		t.Errorf("stated %v\nkept %v", stated, kept)
	}
}

// TestProblemsOfOneFileAreFoundAtOnce: what the decoder cannot read does not hide what the steps after it find, and what
// only comes of it is not told.
func TestProblemsOfOneFileAreFoundAtOnce(t *testing.T) {
	file := t.TempDir() + "/config.yaml"
	text := "environment: test\nholders: [x]\nlimits: {read: 10}\nadmin: {address: nowhere}\nrotues: []\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := load(file)
	var found problems
	if !errors.As(err, &found) {
		t.Fatal(err)
	}
	var said []string
	for _, p := range found {
		said = append(said, p.path)
	}
	want := []string{"listeners", "routes", "policies", "audit.file", "holders", "limits.read", "admin.address", "rotues"}
	if !slices.Equal(said, want) {
		t.Errorf("problems at %q, want %q", said, want)
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		path, above string
		want        bool
	}{
		{"a", "a", true}, {"a.b", "a", true}, {"a[0].b", "a", true}, {"a[0]", "a[0]", true}, {"x", "", true},
		{"ab", "a", false}, {"a", "a.b", false}, {"a[10]", "a[1]", false},
	} {
		if within(c.path, c.above) != c.want {
			t.Errorf("%q within %q: %t", c.path, c.above, !c.want)
		}
	}
}
