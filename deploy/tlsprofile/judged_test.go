package tlsprofile

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// recorded are reports on a listener of the demo.
func recorded(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// judged is what both recorded reports come to.
func judged(t *testing.T, testssl, sslscan []byte, waivers []waiver) verdict {
	t.Helper()
	found, err := parseTestssl(testssl)
	if err != nil {
		t.Fatal(err)
	}
	also, err := parseSslscan(sslscan)
	if err != nil {
		t.Fatal(err)
	}
	return judge(map[string][]finding{"public": append(found, also...)}, waivers)
}

func TestJudgePasses(t *testing.T) {
	v := judged(t, recorded(t, "testssl.json"), recorded(t, "sslscan.xml"), waivers)
	if len(v.wrong) != 0 || len(v.waived) != len(waivers) || len(v.low) == 0 {
		t.Errorf("%q\nwaived %q\nlow %q", v.wrong, v.waived, v.low)
	}
}

// TestJudgeFindsWhatIsPlanted: each thing that must not be makes the judgement red, and nothing else in it.
func TestJudgeFindsWhatIsPlanted(t *testing.T) {
	for _, c := range []struct{ report, old, new, want string }{
		{"testssl.json", `"RC4", "severity": "OK"`, `"RC4", "severity": "HIGH"`, "public: testssl: RC4: HIGH"},
		{"testssl.json", `"SSLv3", "severity": "OK"`, `"SSLv3", "severity": "CRITICAL"`, "public: testssl: SSLv3: CRITICAL"},
		{"testssl.json", `"cert_validityPeriod", "severity": "INFO"`, `"cert_validityPeriod", "severity": "MEDIUM"`, "public: testssl: cert_validityPeriod: MEDIUM"},
		{"testssl.json", `"ROBOT", "severity": "OK"`, `"ROBOT", "severity": "WARN"`, "public: testssl: ROBOT: WARN"},
		{"testssl.json", `"ROBOT", "severity": "OK"`, `"ROBOT", "severity": "DIRE"`, "public: testssl: ROBOT: DIRE"},
		{"testssl.json", `"cert_revocation", "severity": "HIGH"`, `"cert_revocation", "severity": "CRITICAL"`, "public: testssl: cert_revocation: CRITICAL"},
		{"testssl.json", `"cert_revocation", "severity": "HIGH"`, `"cert_revocation", "severity": "OK"`, "the waiver of testssl: cert_revocation is not needed"},
		{"sslscan.xml", `version="1.0" enabled="0"`, `version="1.0" enabled="1"`, "public: sslscan: protocol tls 1.0: HIGH"},
		{"sslscan.xml", `type="ssl" version="3" enabled="0"`, `type="ssl" version="3" enabled="1"`, "public: sslscan: protocol ssl 3: HIGH"},
		{"sslscan.xml", `renegotiation supported="0"`, `renegotiation supported="1"`, "public: sslscan: renegotiation: HIGH"},
		{"sslscan.xml", `sslversion="TLSv1.2" vulnerable="0"`, `sslversion="TLSv1.2" vulnerable="1"`, "public: sslscan: heartbleed TLSv1.2: CRITICAL"},
		{"sslscan.xml", `ECDHE-ECDSA-AES128-GCM-SHA256`, `ECDHE-ECDSA-AES128-SHA256`, "public: sslscan: cipher TLSv1.2 ECDHE-ECDSA-AES128-SHA256: HIGH"},
		{"sslscan.xml", `ECDHE-ECDSA-AES128-GCM-SHA256`, `AES128-GCM-SHA256`, "public: sslscan: cipher TLSv1.2 AES128-GCM-SHA256: HIGH"},
		{"sslscan.xml", `id="0xCCA9" strength="strong"`, `id="0xCCA9" strength="weak"`, "public: sslscan: cipher TLSv1.2 ECDHE-ECDSA-CHACHA20-POLY1305: HIGH"},
		{"sslscan.xml", `<renegotiation`, `<compression supported="1" /><renegotiation`, "public: sslscan: compression: HIGH"},
		{"sslscan.xml", `ecdsa-with-SHA256<`, `ecdsa-with-SHA1<`, "public: sslscan: certificate signature: HIGH"},
		{"sslscan.xml", `type="EC" curve_name="prime256v1" bits="128"`, `type="RSA" bits="1024"`, "public: sslscan: certificate key: HIGH"},
		{"sslscan.xml", `<expired>false`, `<expired>true`, "public: sslscan: certificate expired: HIGH"},
		{"sslscan.xml", `<self-signed>false`, `<self-signed>true`, "public: sslscan: certificate self-signed: MEDIUM"},
	} {
		reports := map[string][]byte{"testssl.json": recorded(t, "testssl.json"), "sslscan.xml": recorded(t, "sslscan.xml")}
		planted := bytes.Replace(reports[c.report], []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(planted, reports[c.report]) {
			t.Fatalf("%s is not in %s", c.old, c.report)
		}
		reports[c.report] = planted
		v := judged(t, reports["testssl.json"], reports["sslscan.xml"], waivers)
		if !slices.ContainsFunc(v.wrong, func(line string) bool { return strings.HasPrefix(line, c.want) }) {
			t.Errorf("%s: %q, want %s", c.new, v.wrong, c.want)
		}
		if len(v.wrong) > 2 || len(v.wrong) == 2 && !strings.HasPrefix(v.wrong[1], "the waiver of") {
			t.Errorf("%s: %q", c.new, v.wrong)
		}
	}
}

// TestSecureRenegotiation: a server may say that it knows RFC 5746. Whether it lets clients begin is testssl.sh's secure_client_renego.
func TestSecureRenegotiation(t *testing.T) {
	scan := bytes.Replace(recorded(t, "sslscan.xml"), []byte(`renegotiation supported="0" secure="0"`), []byte(`renegotiation supported="1" secure="1"`), 1)
	if v := judged(t, recorded(t, "testssl.json"), scan, waivers); bytes.Equal(scan, recorded(t, "sslscan.xml")) || len(v.wrong) != 0 {
		t.Errorf("%q", v.wrong)
	}
}

func TestStaleWaiver(t *testing.T) {
	v := judged(t, recorded(t, "testssl.json"), recorded(t, "sslscan.xml"), append(slices.Clone(waivers), waiver{"testssl", "BREACH", "HIGH", "none"}))
	if len(v.wrong) != 1 || v.wrong[0] != "the waiver of testssl: BREACH is not needed: take it out" {
		t.Errorf("%q", v.wrong)
	}
}

// TestReportsThatAreNotWhole: a scan that was cut short, or met something that is not TLS, is no clean one.
func TestReportsThatAreNotWhole(t *testing.T) {
	var all []finding
	if err := json.Unmarshal(recorded(t, "testssl.json"), &all); err != nil {
		t.Fatal(err)
	}
	for _, id := range looked {
		cut, err := json.Marshal(slices.DeleteFunc(slices.Clone(all), func(f finding) bool { return f.ID == id }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parseTestssl(cut); err == nil {
			t.Errorf("a report without %s passes", id)
		}
	}
	for _, report := range []string{"", "[]", "{}", "[", "null"} {
		if _, err := parseTestssl([]byte(report)); err == nil {
			t.Errorf("%q passes", report)
		}
	}
	whole := string(recorded(t, "sslscan.xml"))
	for _, report := range []string{
		"", "<document/>", whole[:len(whole)/2],
		strings.Replace(whole, `version="1.2" enabled="1"`, `version="1.2" enabled="0"`, 1),
		strings.Replace(whole, `version="1.3" enabled="1"`, `version="1.3" enabled="0"`, 1),
		strings.ReplaceAll(whole, "<cipher ", "<other "), strings.ReplaceAll(whole, "<heartbleed ", "<other "),
		strings.ReplaceAll(whole, "<renegotiation ", "<other "), strings.NewReplacer("<certificates>", "<other>", "</certificates>", "</other>").Replace(whole),
		strings.Replace(whole, `<protocol type="ssl" version="2" enabled="0" />`, "", 1),
	} {
		if _, err := parseSslscan([]byte(report)); err == nil {
			t.Errorf("%.80q passes", report)
		}
	}
}
