// Package tlsprofile answers: what do those who look for weak TLS find on our listeners? `make test-tls` has testssl.sh and sslscan
// look, and this file judges what they say; its own test runs with all others.
package tlsprofile

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// finding is one line of a report.
type finding struct {
	Tool     string `json:"-"`
	ID       string `json:"id"`
	Severity string `json:"severity"`
	Text     string `json:"finding"`
}

// severities are testssl.sh's, in their order. WARN says that something could not be looked at, which is no better than what might have
// been found; so is a severity that is not here.
var severities = []string{"DEBUG", "OK", "INFO", "LOW", "MEDIUM", "WARN", "HIGH", "CRITICAL", "FATAL"}

func rank(severity string) int {
	if i := slices.Index(severities, severity); i >= 0 {
		return i
	}
	return len(severities)
}

var tolerated = rank("LOW")

// waiver lets a finding pass up to a severity, by its name and with the reason.
type waiver struct{ tool, id, severity, why string }

// waivers are what a private CA, and a scan of this machine, imply. One that nothing needs is an error.
var waivers = []waiver{
	{"testssl", "cert_revocation", "HIGH", "the test's private CA publishes no revocation lists and has no OCSP responder; a public one does, and its responses are stapled"},
	{"testssl", "engine_problem", "WARN", "about the scanner's own openssl, which has no GOST"},
}

// verdict is what comes of a judgement.
type verdict struct {
	wrong  []string // what must not be
	waived []string
	low    []string // for who reads the report
}

// judge holds the findings of all targets against the waivers.
func judge(targets map[string][]finding, waivers []waiver) verdict {
	var v verdict
	used := make([]bool, len(waivers))
	for target, found := range targets {
		for _, f := range found {
			line := fmt.Sprintf("%s: %s: %s: %s: %s", target, f.Tool, f.ID, f.Severity, f.Text)
			i := slices.IndexFunc(waivers, func(w waiver) bool { return w.tool == f.Tool && w.id == f.ID })
			switch {
			case rank(f.Severity) < tolerated:
			case rank(f.Severity) == tolerated:
				v.low = append(v.low, line)
			case i >= 0 && rank(f.Severity) <= rank(waivers[i].severity):
				used[i] = true
				v.waived = append(v.waived, line+" ("+waivers[i].why+")")
			default:
				v.wrong = append(v.wrong, line)
			}
		}
	}
	for i, w := range waivers {
		if !used[i] {
			v.wrong = append(v.wrong, fmt.Sprintf("the waiver of %s: %s is not needed: take it out", w.tool, w.id))
		}
	}
	for _, lines := range [][]string{v.wrong, v.waived, v.low} {
		slices.Sort(lines)
	}
	return v
}

// looked are checks that a whole report of testssl.sh has: one without them was cut short. scanTime is its last.
var looked = []string{
	"SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3", "cipherlist_NULL", "cipherlist_aNULL", "cipherlist_EXPORT", "cipherlist_LOW",
	"cipherlist_3DES_IDEA", "PFS", "cert_signatureAlgorithm", "cert_keySize", "cert_chain_of_trust", "cert_expirationStatus", "heartbleed", "CCS",
	"ROBOT", "secure_renego", "secure_client_renego", "CRIME_TLS", "POODLE_SSL", "SWEET32", "FREAK", "LOGJAM", "BEAST", "LUCKY13", "RC4", "scanTime",
}

// parseTestssl reads the flat JSON that testssl.sh writes.
func parseTestssl(report []byte) ([]finding, error) {
	var found []finding
	if err := json.Unmarshal(report, &found); err != nil {
		return nil, fmt.Errorf("testssl.sh: %w", err)
	}
	for i := range found {
		found[i].Tool = "testssl"
	}
	for _, id := range looked {
		if !slices.ContainsFunc(found, func(f finding) bool { return f.ID == id }) {
			return nil, fmt.Errorf("testssl.sh: nothing on %s: the report is not whole", id)
		}
	}
	return found, nil
}

// sslscan is the part of its XML that is judged.
type sslscan struct {
	Protocols []struct {
		Type    string `xml:"type,attr"`
		Version string `xml:"version,attr"`
		Enabled string `xml:"enabled,attr"`
	} `xml:"ssltest>protocol"`
	Compression []struct {
		Supported string `xml:"supported,attr"`
	} `xml:"ssltest>compression"`
	Renegotiation []struct {
		Supported string `xml:"supported,attr"`
		Secure    string `xml:"secure,attr"`
	} `xml:"ssltest>renegotiation"`
	Heartbleed []struct {
		Version    string `xml:"sslversion,attr"`
		Vulnerable string `xml:"vulnerable,attr"`
	} `xml:"ssltest>heartbleed"`
	Ciphers []struct {
		Version  string `xml:"sslversion,attr"`
		Name     string `xml:"cipher,attr"`
		Strength string `xml:"strength,attr"`
	} `xml:"ssltest>cipher"`
	Certificates []struct {
		Signature  string `xml:"signature-algorithm"`
		SelfSigned string `xml:"self-signed"`
		Expired    string `xml:"expired"`
		Key        struct {
			Error string `xml:"error,attr"`
			Type  string `xml:"type,attr"`
			Bits  int    `xml:"bits,attr"`
		} `xml:"pk"`
	} `xml:"ssltest>certificates>certificate"`
}

// parseSslscan reads the XML that sslscan writes. It only tells what there is: what is weak is said here.
func parseSslscan(report []byte) ([]finding, error) {
	var doc sslscan
	if err := xml.Unmarshal(report, &doc); err != nil {
		return nil, fmt.Errorf("sslscan: %w", err)
	}
	var found []finding
	say := func(weak bool, severity, id, text string) {
		if !weak {
			severity = "OK"
		}
		found = append(found, finding{"sslscan", id, severity, text})
	}
	enabled := map[string]bool{}
	for _, p := range doc.Protocols {
		name := p.Type + " " + p.Version
		enabled[name] = p.Enabled == "1"
		modern := name == "tls 1.2" || name == "tls 1.3"
		say(enabled[name] && !modern, "HIGH", "protocol "+name, "enabled: "+p.Enabled)
	}
	if len(doc.Protocols) != 6 || !enabled["tls 1.2"] || !enabled["tls 1.3"] || len(doc.Ciphers) == 0 || len(doc.Certificates) == 0 || len(doc.Heartbleed) == 0 || len(doc.Renegotiation) == 0 {
		return nil, errors.New("sslscan: the report is not whole, or there is no TLS 1.2 or 1.3")
	}
	for _, c := range doc.Compression {
		say(c.Supported != "0", "HIGH", "compression", "supported: "+c.Supported)
	}
	for _, r := range doc.Renegotiation {
		say(r.Supported != "0" && r.Secure != "1", "HIGH", "renegotiation", "supported: "+r.Supported+", secure: "+r.Secure)
	}
	for _, h := range doc.Heartbleed {
		say(h.Vulnerable != "0", "CRITICAL", "heartbleed "+h.Version, "vulnerable: "+h.Vulnerable)
	}
	for _, c := range doc.Ciphers {
		aead := strings.Contains(c.Name, "GCM") || strings.Contains(c.Name, "POLY1305")
		secret := c.Version == "TLSv1.3" || strings.HasPrefix(c.Name, "ECDHE-")
		say(!aead || !secret || c.Strength != "strong" && c.Strength != "acceptable", "HIGH", "cipher "+c.Version+" "+c.Name, c.Strength)
	}
	for _, c := range doc.Certificates {
		signature := strings.ToLower(c.Signature)
		say(!strings.Contains(signature, "sha256") && !strings.Contains(signature, "sha384") && !strings.Contains(signature, "sha512"), "HIGH", "certificate signature", c.Signature)
		say(c.Key.Error != "false" || c.Key.Type == "RSA" && c.Key.Bits < 2048 || c.Key.Bits < 112, "HIGH", "certificate key", fmt.Sprintf("%s %d", c.Key.Type, c.Key.Bits))
		say(c.Expired != "false", "HIGH", "certificate expired", c.Expired)
		say(c.SelfSigned != "false", "MEDIUM", "certificate self-signed", c.SelfSigned)
	}
	return found, nil
}
