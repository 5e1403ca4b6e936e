package gateway_test

import (
	"encoding/xml"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// waivers are the strict cases of h2spec in which net/http's server fails, by section of RFC 7540 and what is sent, and what it does instead.
var waivers = map[string]string{
	"http2/6.5.3 Sends multiple values of SETTINGS_INITIAL_WINDOW_SIZE":                                            "a SETTINGS frame that says one thing twice ends the connection",
	"http2/8.1.2.2 Sends a HEADERS frame that contains the connection-specific header field":                       "the request is answered 400 instead of being reset: it reaches no handler",
	"http2/8.1.2.2 Sends a HEADERS frame that contains the TE header field with any value other than \"trailers\"": "the request is answered 400 instead of being reset: it reaches no handler",
}

// TestH2spec: h2spec, in strict mode, finds nothing in a listener without client certificates but what is waived, and all of that.
func TestH2spec(t *testing.T) {
	dir := t.TempDir()
	binary, report := filepath.Join(dir, "h2spec"), filepath.Join(dir, "report.xml")
	if text, err := exec.Command("go", "-C", "../tools", "build", "-o", binary, "github.com/summerwind/h2spec/cmd/h2spec").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	h := newHouse(t, options{routes: wide})
	// The path is one that reads a body before it answers a POST, so that what is wrong with one is found first.
	host, port, err := net.SplitHostPort(h.gateway.Addr("public").String())
	must(err)
	text, _ := exec.Command(binary, "--strict", "--tls", "--insecure", "--timeout", "2", "--host", host, "--port", port, "--path", "/auth/token", "--junit-report", report).CombinedOutput()
	content, err := os.ReadFile(report)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var suites struct {
		Suites []struct {
			Cases []struct {
				Package string `xml:"package,attr"`
				Name    string `xml:"classname,attr"`
				Failure *struct {
					Text string `xml:",chardata"`
				} `xml:"failure"`
				Error *struct {
					Text string `xml:",chardata"`
				} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	must(xml.Unmarshal(content, &suites))
	ran, failed := 0, map[string]string{}
	for _, s := range suites.Suites {
		for _, c := range s.Cases {
			ran++
			switch name := c.Package + " " + c.Name; {
			case c.Failure != nil:
				failed[name] = c.Failure.Text
			case c.Error != nil:
				failed[name] = c.Error.Text
			case c.Skipped != nil:
				t.Errorf("skipped: %s", name)
			}
		}
	}
	if ran != 146 {
		t.Errorf("%d cases ran", ran)
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if waivers[name] == "" {
			t.Errorf("%q fails: %s", name, strings.Join(strings.Fields(failed[name]), " "))
		}
	}
	for name := range waivers {
		if _, ok := failed[name]; !ok {
			t.Errorf("%q is waived, and passes", name)
		}
	}
}
