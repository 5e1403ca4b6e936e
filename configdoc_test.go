package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/issuer"
)

// configStructs are the types of config.go: their comments, and their fields in order.
type configStruct struct {
	doc    string
	fields []configField
}

type configField struct {
	name, key, typ, doc string // typ as Go writes it
}

func parseConfig(t *testing.T) map[string]configStruct {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]configStruct{}
	for _, d := range f.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			continue
		}
		for _, spec := range decl.Specs {
			named := spec.(*ast.TypeSpec)
			s, ok := named.Type.(*ast.StructType)
			if !ok {
				t.Fatalf("%s is no struct", named.Name)
			}
			c := configStruct{doc: oneLine(decl.Doc.Text())}
			if c.doc == "" {
				t.Errorf("type %s has no comment", named.Name)
			}
			for _, field := range s.Fields.List {
				c.fields = append(c.fields, parseField(t, named.Name.Name, field))
			}
			all[named.Name.Name] = c
		}
	}
	return all
}

func parseField(t *testing.T, in string, f *ast.Field) configField {
	t.Helper()
	if len(f.Names) != 1 || f.Tag == nil {
		t.Fatalf("%s: a field without a name or a tag of its own", in)
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		t.Fatal(err)
	}
	c := configField{name: f.Names[0].Name, key: reflect.StructTag(tag).Get("yaml"), doc: oneLine(f.Doc.Text()), typ: typeText(f.Type)}
	switch {
	case !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(c.key):
		t.Errorf("%s.%s: yaml key %q", in, c.name, c.key)
	case !strings.HasPrefix(c.doc, c.name+" ") && !strings.HasPrefix(c.doc, c.name+",") || !strings.HasSuffix(c.doc, "."):
		t.Errorf("%s.%s: its comment is to be sentences that begin with its name: %q", in, c.name, c.doc)
	}
	return c
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

func typeText(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return typeText(e.X) + "." + e.Sel.Name
	case *ast.StarExpr:
		return "*" + typeText(e.X)
	case *ast.ArrayType:
		return "[]" + typeText(e.Elt)
	case *ast.MapType:
		return "map[" + typeText(e.Key) + "]" + typeText(e.Value)
	}
	return ""
}

// kinds are how values are written.
var configKinds = map[string]string{
	"string": "text", "int": "number", "bool": "true or false", "time.Duration": "duration", "policy.Rate": "rate",
	"netip.Prefix": "network", "map[string]string": "texts by name", "map[string]map[string]string": "texts by two names", "[]string": "list of texts", "[]netip.Prefix": "list of networks",
}

// TestConfigurationDoc keeps docs/configuration.md what the comments of config.go say.
func TestConfigurationDoc(t *testing.T) {
	structs := parseConfig(t)
	var page strings.Builder
	page.WriteString(configIntroduction)
	reached := map[string]bool{"Config": true}
	for _, f := range structs["Config"].fields {
		fmt.Fprintf(&page, "\n## `%s`\n\n%s\n", f.key, sentences(f))
		if kind, ok := configKinds[f.typ]; ok {
			fmt.Fprintf(&page, "\nA %s.\n", kind)
			continue
		}
		prefix := map[bool]string{true: "<name>.", false: ""}[strings.HasPrefix(f.typ, "map[")]
		if strings.HasPrefix(f.typ, "[]") {
			page.WriteString("\nA list; each entry has\n")
		}
		page.WriteString("\n| key | value | |\n|---|---|---|\n")
		writeRows(t, &page, structs, reached, f.typ, prefix)
	}
	for name := range structs {
		if !reached[name] {
			t.Errorf("type %s is used by no key", name)
		}
	}
	compareGolden(t, "docs/configuration.md", page.String())
}

// writeRows writes a row for each key of a struct, and for those below it.
func writeRows(t *testing.T, page *strings.Builder, structs map[string]configStruct, reached map[string]bool, typ, prefix string) {
	t.Helper()
	name := typ[strings.LastIndexAny(typ, "]*")+1:]
	s, ok := structs[name]
	if !ok {
		t.Fatalf("no words for values of type %s", typ)
	}
	reached[name] = true
	for _, f := range s.fields {
		if kind, ok := configKinds[f.typ]; ok {
			fmt.Fprintf(page, "| `%s%s` | %s | %s |\n", prefix, f.key, kind, cell(sentences(f)))
			continue
		}
		fmt.Fprintf(page, "| `%s%s` | keys | %s |\n", prefix, f.key, cell(sentences(f)))
		below := prefix + f.key + "."
		if strings.HasPrefix(f.typ, "map[") {
			below += "<name>."
		}
		writeRows(t, page, structs, reached, f.typ, below)
	}
}

// sentences is a field's comment as a page says it: without the name of the Go field, which is the key.
func sentences(f configField) string {
	rest := strings.TrimLeft(strings.TrimPrefix(f.doc, f.name), ", ")
	for _, verb := range []string{"is ", "are "} {
		rest = strings.TrimPrefix(rest, verb)
	}
	return strings.ToUpper(rest[:1]) + rest[1:]
}

// cell is a text in a table. What Markdown would take for mark-up is escaped outside of code.
func cell(s string) string {
	parts := strings.Split(s, "`")
	for i := 0; i < len(parts); i += 2 {
		parts[i] = strings.NewReplacer("|", `\|`, "<", `\<`, "*", `\*`, "[", `\[`).Replace(parts[i])
	}
	return strings.Join(parts, "`")
}

const configIntroduction = `# Configuration

<!-- Made from the comments in config.go by ` + "`make docs`" + `; a test holds it to them. -->

One YAML file. [config.example.yaml](../config.example.yaml) has every key once; ` + "`cardstile check --config config.yaml`" + ` finds
what is wrong with a configuration and everything that it names, each problem with key and line, and starts nothing.

- **Paths** are relative to the file. **Secrets** are paths to files, never values. Where one stands in the configuration by mistake, what is
  said about it does not quote it.
- A **duration** has its unit: ` + "`500ms`, `10s`, `2m`" + `. A **rate** is a number per second, minute, hour or day: ` + "`10/s`, `600/m`, `120/h`, `1000/d`" + `.
  A **network** is an address with its length: ` + "`10.0.0.0/8`" + `. A key that is left out, or has no value, has its default.
- **Unknown keys, unknown names and contradictions** stop the start.
- **Reload**: SIGHUP, or a change of any file that the configuration names, within a second (a key with a
  passphrase takes up to a second more in the reload after its file or passphrase has changed, and in no other). It replaces everything at once, for exchanges that begin from then on, on open connections too.
  A file is read when it is at rest; half a file can be a good one with less in it, so put a new one in its place by renaming, as ` + "`mv`" + ` does. A configuration that is bad leaves the old one in force, which the log
  and ` + "`cardstile_config_reloads_total{result=\"failed\"}`" + ` show. Some keys need a restart: it says so where they stand.
- **Environments**: what is ` + "`test`" + ` never meets what is ` + "`production`" + `. Listeners, keys, partners, issuers and routes have the configuration's
  environment unless they state their own.
- Card, user and credential files have their own form: the [holder directory](../policy/holder/file.go) and the [API keys](../policy/credential/file.go).
`

// TestDefaultsAreAsDocumented compares the defaults of limits that the comments state with those in the code.
func TestDefaultsAreAsDocumented(t *testing.T) {
	defaults := reflect.ValueOf(gateway.Limits{}.WithDefaults())
	stated := regexp.MustCompile("Default `([^`]+)`")
	compared := 0
	for _, f := range parseConfig(t)["LimitsConfig"].fields {
		m := stated.FindStringSubmatch(f.doc)
		if m == nil {
			continue
		}
		field := defaults.FieldByName(f.name)
		if !field.IsValid() {
			t.Errorf("gateway.Limits has no %s", f.name)
			continue
		}
		got, want := fmt.Sprint(field.Interface()), m[1]
		if d, err := time.ParseDuration(want); err == nil {
			want = d.String()
		}
		if got != want {
			t.Errorf("limits.%s: documented as %s, and is %s", f.key, want, got)
		}
		compared++
	}
	if compared < 12 {
		t.Errorf("only %d defaults compared", compared)
	}
}

// TestKindsOfIssuersAreDocumented, all of them.
func TestKindsOfIssuersAreDocumented(t *testing.T) {
	_, err := issuer.Lookup("none")
	_, known, ok := strings.Cut(err.Error(), "(known: ")
	doc, readErr := os.ReadFile("docs/configuration.md")
	if readErr != nil || !ok {
		t.Fatal(readErr, err)
	}
	for line := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(line, "| `<name>.kind` | text | The issuer's API") {
			continue
		}
		for kind := range strings.SplitSeq(strings.TrimSuffix(known, ")"), ", ") {
			if !strings.Contains(line, "`"+kind+"`") {
				t.Errorf("%s is not in %s", kind, line)
			}
		}
		return
	}
	t.Error("kinds are nowhere documented")
}
