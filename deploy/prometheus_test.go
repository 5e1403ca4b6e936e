package deploy_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	rulesFile     = "prometheus/rules.yml"
	rulesTestFile = "prometheus/rules_test.yml"
	dashboardFile = "grafana/cardstile.json"
)

// readMetrics reads metrics.txt, which a test of the gateway compares with what is registered.
func readMetrics(t *testing.T) []metric {
	t.Helper()
	var out []metric
	for n, line := range strings.Split(read(t, "metrics.txt"), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 3 || !slices.Contains([]string{"counter", "gauge", "histogram", "summary"}, f[1]) {
			t.Fatalf("metrics.txt:%d: want name, type, labels", n+1)
		}
		m := metric{name: f[0], kind: f[1]}
		if f[2] != "-" {
			m.labels = strings.Split(f[2], ",")
		}
		if !slices.IsSorted(m.labels) || len(out) > 0 && out[len(out)-1].name >= m.name {
			t.Fatalf("metrics.txt:%d: not sorted", n+1)
		}
		out = append(out, m)
	}
	return out
}

// builtIn are series that Prometheus makes itself.
var builtIn = []metric{{name: "up", kind: "gauge"}}

type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func readRules(t *testing.T) []rule {
	t.Helper()
	var d struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	readYAML(t, rulesFile, &d)
	var all []rule
	for _, g := range d.Groups {
		all = append(all, g.Rules...)
	}
	return all
}

func TestPromtoolTakesRulesAndTheirTestsPass(t *testing.T) {
	promtool := program(t, "promtool", "prometheus")
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		out, errs, ok := run(t, "prometheus", promtool, args...)
		if !ok || strings.Contains(out+errs, "FAILED") {
			t.Errorf("promtool %v: %s%s", args, out, errs)
		}
	}
}

// TestEveryAlertIsTested makes each alert silent in turn, and then noisy: its unit tests must notice both.
func TestEveryAlertIsTested(t *testing.T) {
	promtool := program(t, "promtool", "prometheus")
	all := readRules(t)
	var cases struct {
		Files    []string         `yaml:"rule_files"`
		Interval string           `yaml:"evaluation_interval"`
		Tests    []map[string]any `yaml:"tests"`
	}
	readYAML(t, rulesTestFile, &cases)
	for _, r := range all {
		// Only its own assertions, for promtool takes a second for all of them.
		own := cases
		own.Tests = nil
		for _, test := range cases.Tests {
			test = maps.Clone(test)
			asserts := slices.DeleteFunc(slices.Clone(test["alert_rule_test"].([]any)), func(c any) bool {
				return c.(map[string]any)["alertname"] != r.Alert
			})
			if test["alert_rule_test"] = asserts; len(asserts) > 0 {
				own.Tests = append(own.Tests, test)
			}
		}
		for what, expr := range map[string]string{
			"as it is":               r.Expr,
			"never fires":            "(" + r.Expr + ") and vector(1) > 2",
			"fires for all and none": "vector(1)",
		} {
			t.Run(r.Alert+" "+what, func(t *testing.T) {
				dir := t.TempDir()
				changed := r
				changed.Expr = expr
				writeYAML(t, filepath.Join(dir, "rules.yml"), map[string]any{"groups": []any{map[string]any{"name": "g", "rules": []rule{changed}}}})
				writeYAML(t, filepath.Join(dir, "rules_test.yml"), own)
				out, errs, ok := run(t, dir, promtool, "test", "rules", "rules_test.yml")
				if changed.Expr == r.Expr {
					if !ok {
						t.Errorf("%s%s", out, errs)
					}
				} else if ok || !strings.Contains(out+errs, "alertname: "+r.Alert) {
					t.Errorf("the unit tests do not fail: %s%s", out, errs)
				}
			})
		}
	}
}

func writeYAML(t *testing.T, path string, v any) {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, string(text))
}

func TestEveryAlertSaysWhatToDo(t *testing.T) {
	all := readRules(t)
	seen := map[string]bool{}
	for _, r := range all {
		if seen[r.Alert] || !strings.HasPrefix(r.Alert, "Cardstile") {
			t.Errorf("%s: there twice, or without its prefix", r.Alert)
		}
		seen[r.Alert] = true
		if s := r.Labels["severity"]; s != "page" && s != "ticket" || len(r.Labels) != 1 {
			t.Errorf("%s: labels %v, want severity page or ticket", r.Alert, r.Labels)
		}
		if r.Annotations["summary"] == "" || r.Annotations["action"] == "" || len(r.Annotations) != 2 {
			t.Errorf("%s: want a summary and an action", r.Alert)
		}
	}
	for _, name := range []string{
		"CardstileNotReady", "CardstileAuditFailing", "CardstileHandshakeFailures", "CardstileTokenReplay", "CardstileIssuerErrors",
		"CardstileIssuerErrorsSlowBurn", "CardstileIssuerSlow", "CardstileCircuitOpen", "CardstileShedding",
		"CardstileCertificateExpires30Days", "CardstileCertificateExpires14Days", "CardstileCertificateExpires7Days", "CardstileCertificateNotIssued", "CardstileCertificateNotRenewed",
		"CardstileCertificateMissing", "CardstileCertificateNotStapled",
		"CardstileReloadFailed", "CardstileRSASaturated", "CardstileStoreErrors", "CardstileStoreSlow",
	} {
		if !seen[name] {
			t.Errorf("no alert %s", name)
		}
	}
}

// TestScrapeConfiguration has promtool read prometheus.yml beside the rules that it names and a token where compose puts one.
func TestScrapeConfiguration(t *testing.T) {
	promtool := program(t, "promtool", "prometheus")
	dir := t.TempDir()
	token := filepath.Join(dir, "admin_token")
	write(t, token, "token")
	text := read(t, "prometheus/prometheus.yml")
	if !strings.Contains(text, "credentials_file: /run/secrets/admin_token\n") {
		t.Fatal("the scrape does not read its token from the secret admin_token")
	}
	ca := filepath.Join(prepared(t), "public", "server-ca.pem")
	text = strings.NewReplacer("/run/secrets/admin_token", token, "/etc/prometheus/server-ca.pem", ca).Replace(text)
	write(t, filepath.Join(dir, "prometheus.yml"), text)
	write(t, filepath.Join(dir, "rules.yml"), read(t, rulesFile))
	if out, errs, ok := run(t, dir, promtool, "check", "config", "prometheus.yml"); !ok || !strings.Contains(out, "1 rule files found") {
		t.Errorf("promtool check config: %s%s", out, errs)
	}
	var config struct {
		Scrape []struct {
			Job string `yaml:"job_name"`
		} `yaml:"scrape_configs"`
	}
	if err := yaml.Unmarshal([]byte(text), &config); err != nil || len(config.Scrape) != 1 || config.Scrape[0].Job != "cardstile" {
		t.Errorf("the job that CardstileDown watches is not there: %+v, %v", config, err)
	}
}

type panel struct {
	Title   string  `json:"title"`
	Type    string  `json:"type"`
	Panels  []panel `json:"panels"`
	GridPos struct{ H, W, X, Y int }
	ID      int `json:"id"`
	Targets []struct{ Expr, LegendFormat string }
}

type dashboard struct {
	Title      string  `json:"title"`
	UID        string  `json:"uid"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name, Type, Definition string
		} `json:"list"`
	} `json:"templating"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// dashboardExpressions returns the PromQL of every panel and variable, with Grafana's own variables replaced, by where it stands.
func dashboardExpressions(t *testing.T) map[string]string {
	t.Helper()
	d := readDashboard(t)
	out := map[string]string{}
	replace := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".+")
	for _, p := range d.Panels {
		for i, target := range p.Targets {
			out[fmt.Sprintf("panel %d %q query %d", p.ID, p.Title, i)] = replace.Replace(target.Expr)
		}
	}
	variable := regexp.MustCompile(`^label_values\((.+), ([a-z_]+)\)$`)
	for _, v := range d.Templating.List {
		if v.Type != "query" {
			continue
		}
		m := variable.FindStringSubmatch(v.Definition)
		if m == nil {
			t.Fatalf("variable %s: %q is not label_values(metric, label)", v.Name, v.Definition)
		}
		out["variable "+v.Name] = fmt.Sprintf("count by (%s) (%s)", m[2], m[1])
	}
	return out
}

func TestDashboardIsWhole(t *testing.T) {
	d := readDashboard(t)
	if d.UID != "cardstile" || d.Title != "Cardstile" {
		t.Errorf("title %q, uid %q", d.Title, d.UID)
	}
	var rows []string
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || len(p.Panels) != 0 {
			t.Errorf("panel %d %q: id used twice, or panels hidden in a row", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		} else if len(p.Targets) == 0 || p.Title == "" {
			t.Errorf("panel %d %q shows nothing", p.ID, p.Title)
		}
	}
	want := []string{"Now", "Exchanges", "Tokens", "Credentials", "Handshakes", "Stages", "Store", "Issuers", "Vault", "Audit", "Runtime"}
	if !slices.Equal(rows, want) {
		t.Errorf("rows %v, want %v", rows, want)
	}
	for i, p := range d.Panels {
		for _, q := range d.Panels[i+1:] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q overlap", p.Title, q.Title)
			}
		}
	}
}

// TestDashboardIsPromQL has Prometheus' own parser read each expression, as a recording rule.
func TestDashboardIsPromQL(t *testing.T) {
	promtool := program(t, "promtool", "prometheus")
	type recording struct {
		Record string `yaml:"record"`
		Expr   string `yaml:"expr"`
	}
	var rules []recording
	for where, expr := range dashboardExpressions(t) {
		name := "r" + regexp.MustCompile(`[^a-zA-Z0-9]+`).ReplaceAllString(where, "_")
		rules = append(rules, recording{name, expr})
	}
	if len(rules) < 40 {
		t.Fatalf("only %d expressions", len(rules))
	}
	dir := t.TempDir()
	writeYAML(t, filepath.Join(dir, "rules.yml"), map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if out, errs, ok := run(t, dir, promtool, "check", "rules", "rules.yml"); !ok {
		t.Errorf("%s%s", out, errs)
	}
}

// expressions are all that name metrics: the dashboard's and the alerts'.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	out := dashboardExpressions(t)
	all := readRules(t)
	for _, r := range all {
		out["alert "+r.Alert] = r.Expr
	}
	return out
}

func TestOnlyMetricsThatExistAreNamed(t *testing.T) {
	metrics := append(readMetrics(t), builtIn...)
	for where, expr := range expressions(t) {
		for _, u := range unknownNames(metrics, expr) {
			t.Errorf("%s: there is no %s", where, u)
		}
	}
}

// TestEveryMetricIsShown: a metric that nobody looks at is either missing on the dashboard or not worth having.
func TestEveryMetricIsShown(t *testing.T) {
	shown := map[string]bool{}
	metrics := append(readMetrics(t), builtIn...)
	for _, expr := range expressions(t) {
		found, err := namesIn(expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found.selectors {
			m, _ := find(metrics, s.metric)
			shown[m.name] = true
		}
	}
	for _, m := range metrics {
		if !shown[m.name] {
			t.Errorf("%s is neither on the dashboard nor in an alert", m.name)
		}
	}
}

// TestAWrongNameIsNoticed renames each metric of metrics.txt, and then each label, as a change of the code would: whatever names it must be
// reported.
func TestAWrongNameIsNoticed(t *testing.T) {
	metrics := append(readMetrics(t), builtIn...)
	all := expressions(t)
	noticed := func(changed []metric) bool {
		for _, expr := range all {
			if len(unknownNames(changed, expr)) > 0 {
				return true
			}
		}
		return false
	}
	if noticed(metrics) {
		t.Fatal("something is unknown before anything was renamed")
	}
	for i, m := range metrics {
		changed := slices.Clone(metrics)
		changed[i].name += "_renamed"
		if !noticed(changed) {
			t.Errorf("metric %s was renamed, and nothing noticed", m.name)
		}
	}
	used := map[string]bool{}
	for _, expr := range all {
		found, err := namesIn(expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range found.selectors {
			m, _ := find(metrics, s.metric)
			for _, l := range append(found.grouped, s.labels...) {
				if slices.Contains(m.labels, l) {
					used[m.name+" "+l] = true
				}
			}
		}
	}
	for i, m := range metrics {
		for j, l := range m.labels {
			if !used[m.name+" "+l] {
				continue
			}
			changed := slices.Clone(metrics)
			changed[i].labels = slices.Clone(m.labels)
			changed[i].labels[j] += "_renamed"
			if !noticed(changed) {
				t.Errorf("label %s of %s was renamed, and nothing noticed", l, m.name)
			}
		}
	}
}

func TestNamesIn(t *testing.T) {
	for expr, want := range map[string]string{
		`up`:                            `up`,
		`up{job="a", instance=~"b{c}"}`: `up[job instance]`,
		`sum by (a, b) (rate(x_total{l!="}"}[5m]))`: `x_total[l] by a b`,
		`sum(x) by (a)`:                         `x by a`,
		`x / on (a) group_left (b) y`:           `x y by a b`,
		`x and y or z unless w`:                 `x y z w`,
		`x > bool 3 * y offset 5m`:              `x y`,
		`time() - min(x)`:                       `x`,
		`x{a='b\'c', d=` + "`e\"`" + `} == 1e3`: `x[a d]`,
		`rate(x:y_sum[5m])`:                     `x:y_sum`,
		"histogram_quantile(0.99, sum by (le) (rate(x_bucket[5m]))) > 2\nand y": `x_bucket y by le`,
		`absent(x) or vector(1)`:   `x`,
		`quantile by (a) (0.5, b)`: `b by a`,
		`count without (a) (b)`:    `b by a`,
	} {
		got, err := namesIn(expr)
		if err != nil {
			t.Errorf("%s: %v", expr, err)
			continue
		}
		var text []string
		for _, s := range got.selectors {
			if len(s.labels) > 0 {
				s.metric += fmt.Sprint(s.labels)
			}
			text = append(text, s.metric)
		}
		if len(got.grouped) > 0 {
			text = append(text, "by", strings.Join(got.grouped, " "))
		}
		if strings.Join(text, " ") != want {
			t.Errorf("%s: %s, want %s", expr, strings.Join(text, " "), want)
		}
	}
	for _, expr := range []string{`{__name__="x"}`, `sum({job="a"})`, `x{a="b"`, `sum by (a`} {
		if got, err := namesIn(expr); err == nil {
			t.Errorf("%s: %+v", expr, got)
		}
	}
}
