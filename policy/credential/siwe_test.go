package credential_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// siweExamples are the informal examples of ERC-4361: with an implicit and an
// explicit scheme, with a port; and messages of spruceid/siwe's test vectors
// (test/parsing_positive.json).
var siweExamples = map[string]string{
	"implicit scheme": `example.com wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json`,
	"implicit scheme and port": `example.com:3388 wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json`,
	"explicit scheme": `https://example.com wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json`,
	"no statement": `service.org wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2


URI: https://service.org/login
Version: 1
Chain ID: 1
Nonce: 32891757
Issued At: 2021-09-30T16:25:24.000Z`,
	"IP address": `127.0.0.1:8080 wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ServiceOrg Terms of Service: https://service.org/tos

URI: https://service.org/login
Version: 1
Chain ID: 1
Nonce: 32891757
Issued At: 2021-09-30T16:25:24.000Z`,
	"everything": siweWhole,
}

const siweWhole = `service.org wants you to sign in with your Ethereum account:
0xe5A12547fe4E872D192E3eCecb76F2Ce1aeA4946

I accept the ServiceOrg Terms of Service: https://service.org/tos

URI: https://service.org/login
Version: 1
Chain ID: 1
Nonce: 12341234
Issued At: 2022-03-17T12:45:13.610Z
Expiration Time: 2023-03-17T12:45:13.610Z
Not Before: 2022-03-17T12:45:13.610Z
Request ID: some_id
Resources:
- https://service.org/login`

func parseSIWE(t testing.TB, text string) *credential.SIWE {
	t.Helper()
	m, err := credential.ParseSIWE(text)
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return m
}

func TestSIWEExamples(t *testing.T) {
	for name, text := range siweExamples {
		if again, err := parseSIWE(t, text).Text(); err != nil || again != text {
			t.Errorf("%s: %v:\n%s", name, err, again)
		}
	}
	address, _ := policy.ParseAddress("0xe5a12547fe4e872d192e3ececb76f2ce1aea4946")
	want := credential.SIWE{
		Domain: "service.org", Address: address, Statement: "I accept the ServiceOrg Terms of Service: https://service.org/tos",
		URI: "https://service.org/login", ChainID: 1, Nonce: "12341234", IssuedAt: "2022-03-17T12:45:13.610Z",
		ExpirationTime: "2023-03-17T12:45:13.610Z", NotBefore: "2022-03-17T12:45:13.610Z", RequestID: "some_id",
		Resources: []string{"https://service.org/login"},
	}
	if got := parseSIWE(t, siweWhole); !reflect.DeepEqual(*got, want) {
		t.Errorf("%+v", got)
	}
	if got := parseSIWE(t, siweExamples["explicit scheme"]); got.Scheme != "https" || got.Domain != "example.com" {
		t.Errorf("scheme %q, domain %q", got.Scheme, got.Domain)
	}
}

// TestNoSIWE changes a good message in one place. Among the changes are all of
// spruceid/siwe's test/parsing_negative.json that are none of another message.
func TestNoSIWE(t *testing.T) {
	for name, change := range map[string][2]string{
		"no domain":                 {"service.org wants", " wants"},
		"user info":                 {"service.org wants", "me@service.org wants"},
		"domain with a path":        {"service.org wants", "service.org/x wants"},
		"domain with a space":       {"service.org wants", "service org wants"},
		"domain, escaped":           {"service.org wants", "service%2eorg wants"},
		"domain, a port alone":      {"service.org wants", ":80 wants"},
		"domain, no port":           {"service.org wants", "service.org:x wants"},
		"empty scheme":              {"service.org wants", "://service.org wants"},
		"scheme begins with digit":  {"service.org wants", "1s://service.org wants"},
		"other header":              {"Ethereum account", "Solana account"},
		"no address":                {"0xe5A12547fe4E872D192E3eCecb76F2Ce1aeA4946", ""},
		"no checksum":               {"0xe5A12547fe4E872D192E3eCecb76F2Ce1aeA4946", "0xe5a12547fe4e872d192e3ececb76f2ce1aea4946"},
		"wrong checksum":            {"0xe5A1", "0xE5A1"},
		"address, 0X":               {"0xe5A1", "0XE5A1"},
		"empty line too many":       {"\n\nI accept", "\n\n\nI accept"},
		"empty line too few":        {"\n\nI accept", "\nI accept"},
		"statement and no line":     {"tos\n\nURI", "tos\nURI"},
		"empty statement":           {"\nI accept the ServiceOrg Terms of Service: https://service.org/tos\n", "\n\n\n"},
		"two statements":            {"Service: https", "Service: \nhttps"},
		"statement with a tab":      {"I accept", "I\taccept"},
		"statement, not ASCII":      {"I accept", "I äccept"},
		"statement with a CR":       {"I accept", "I\raccept"},
		"no URI":                    {"URI: https://service.org/login\n", ""},
		"relative URI":              {"URI: https://service.org/login", "URI: _not_a_rfc3986_valid_uri_"},
		"URI, bad escape":           {"service.org/login\nVersion", "service.org/%l\nVersion"},
		"URI with a space":          {"service.org/login\nVersion", "service.org/a b\nVersion"},
		"URI of two fragments":      {"service.org/login\nVersion", "service.org/#a#b\nVersion"},
		"no version":                {"Version: 1\n", ""},
		"version 2":                 {"Version: 1", "Version: 2"},
		"version 01":                {"Version: 1", "Version: 01"},
		"order":                     {"Version: 1\nChain ID: 1", "Chain ID: 1\nVersion: 1"},
		"no chain":                  {"Chain ID: 1\n", ""},
		"chain 0":                   {"Chain ID: 1", "Chain ID: 0"},
		"chain 01":                  {"Chain ID: 1", "Chain ID: 01"},
		"chain +1":                  {"Chain ID: 1", "Chain ID: +1"},
		"chain ?":                   {"Chain ID: 1", "Chain ID: ?"},
		"chain 2^64":                {"Chain ID: 1", "Chain ID: 18446744073709551616"},
		"no nonce":                  {"Nonce: 12341234\n", ""},
		"nonce of 7":                {"Nonce: 12341234", "Nonce: 1234123"},
		"nonce with a dash":         {"Nonce: 12341234", "Nonce: 1234-234"},
		"no issued at":              {"Issued At: 2022-03-17T12:45:13.610Z\n", ""},
		"issued at a JS date":       {"Issued At: 2022-03-17T12:45:13.610Z", "Issued At: Wed Oct 05 2011 16:48:00 GMT+0200 (CEST)"},
		"issued at, no zone":        {"Issued At: 2022-03-17T12:45:13.610Z", "Issued At: 2022-03-17T12:45:13.610"},
		"issued at, comma":          {"Issued At: 2022-03-17T12:45:13.610Z", "Issued At: 2022-03-17T12:45:13,610Z"},
		"issued at, short hour":     {"Issued At: 2022-03-17T12:45:13.610Z", "Issued At: 2022-03-17T2:45:13.610Z"},
		"issued at, zone of 24 h":   {"Issued At: 2022-03-17T12:45:13.610Z", "Issued At: 2022-03-17T12:45:13.610+24:00"},
		"issued at, lower case":     {"Issued At: 2022-03-17T12:45:13.610Z", "Issued At: 2022-03-17t12:45:13.610z"},
		"issued on 30 February":     {"Issued At: 2022-03-17", "Issued At: 2022-02-30"},
		"expires, no time":          {"Expiration Time: 2023-03-17T12:45:13.610Z", "Expiration Time: "},
		"expires, JS date":          {"Expiration Time: 2023-03-17T12:45:13.610Z", "Expiration Time: Wed Oct 05 2011 16:48:00 GMT+0200 (CEST)"},
		"not before, JS date":       {"Not Before: 2022-03-17T12:45:13.610Z", "Not Before: Wed Oct 05 2011"},
		"not before twice":          {"Request ID: some_id", "Not Before: 2022-03-17T12:45:13.610Z"},
		"request id empty":          {"Request ID: some_id", "Request ID: "},
		"request id, a slash":       {"Request ID: some_id", "Request ID: some/id"},
		"request id, bad escape":    {"Request ID: some_id", "Request ID: some%2"},
		"request id, no space":      {"Request ID: some_id", "Request ID:some_id"},
		"request id after":          {"Request ID: some_id\nResources:\n- https://service.org/login", "Resources:\n- https://service.org/login\nRequest ID: some_id"},
		"resources empty":           {"Resources:\n- https://service.org/login", "Resources:"},
		"resources, space":          {"Resources:", "Resources: "},
		"resource, no dash":         {"- https", "https"},
		"resource, no URI":          {"- https://service.org/login", "- _not_a_rfc3986_valid_uri_"},
		"resource, two on a line":   {"- https://service.org/login", "- https://service.org/login - https://service.org/login/2"},
		"another line":              {"Request ID: some_id", "Request ID: some_id\nX: y"},
		"a line break at the end":   {"- https://service.org/login", "- https://service.org/login\n"},
		"a line break at the start": {"service.org wants", "\nservice.org wants"},
		"CRLF":                      {"\n", "\r\n"},
		"too long":                  {"- https://service.org/login", "- https://service.org/" + strings.Repeat("a", 8<<10)},
	} {
		text := strings.Replace(siweWhole, change[0], change[1], 1)
		if text == siweWhole {
			t.Fatalf("%s changes nothing", name)
		}
		m, err := credential.ParseSIWE(text)
		if err == nil || m != nil {
			t.Errorf("%s: %+v, %v", name, m, err)
		} else if strings.Contains(err.Error(), "service.org") {
			t.Errorf("%s: %v quotes the message", name, err)
		}
	}
	for i := range strings.Index(siweWhole, ".610Z") {
		if m, err := credential.ParseSIWE(siweWhole[:i]); err == nil {
			t.Errorf("%q is %+v", siweWhole[:i], m)
		}
	}
}

// TestTextRefusesWhatIsNoMessage: nothing can be written that is not read again,
// such as a statement that goes on to be other members.
func TestTextRefusesWhatIsNoMessage(t *testing.T) {
	for name, change := range map[string]func(*credential.SIWE){
		"nothing":    func(m *credential.SIWE) { *m = credential.SIWE{} },
		"statement":  func(m *credential.SIWE) { m.Statement = "yes\n\nURI: https://evil.example" },
		"nonce":      func(m *credential.SIWE) { m.Nonce += "\nIssued At: 2022-03-17T12:45:13.610Z" },
		"request id": func(m *credential.SIWE) { m.RequestID = "a\nResources:" },
		"resource":   func(m *credential.SIWE) { m.Resources = append(m.Resources, "https://a.example\n- b:") },
		"time":       func(m *credential.SIWE) { m.IssuedAt = "" },
		"chain":      func(m *credential.SIWE) { m.ChainID = 0 },
		"length":     func(m *credential.SIWE) { m.Statement = strings.Repeat("a", 8<<10) },
	} {
		m := parseSIWE(t, siweWhole)
		change(m)
		if text, err := m.Text(); err == nil || text != "" {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
}

func TestSIWETimes(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 123_999_999, time.FixedZone("CET", 3600))
	if text := credential.SIWETime(at); text != "2026-11-23T11:00:00.123Z" {
		t.Error(text)
	}
	at = at.Truncate(time.Second)
	for name, test := range map[string]struct {
		change func(*credential.SIWE)
		want   bool
	}{
		"just now":               {func(m *credential.SIWE) {}, true},
		"long ago":               {func(m *credential.SIWE) { m.IssuedAt = "2021-09-30T16:25:24Z" }, true},
		"a minute ahead":         {func(m *credential.SIWE) { m.IssuedAt = credential.SIWETime(at.Add(time.Minute)) }, true},
		"more than a minute":     {func(m *credential.SIWE) { m.IssuedAt = credential.SIWETime(at.Add(time.Minute + time.Millisecond)) }, false},
		"five minutes ahead":     {func(m *credential.SIWE) { m.IssuedAt = credential.SIWETime(at.Add(5 * time.Minute)) }, false},
		"expires in a moment":    {func(m *credential.SIWE) { m.ExpirationTime = credential.SIWETime(at.Add(time.Millisecond)) }, true},
		"expires now":            {func(m *credential.SIWE) { m.ExpirationTime = credential.SIWETime(at) }, false},
		"not before now":         {func(m *credential.SIWE) { m.NotBefore = credential.SIWETime(at) }, true},
		"not before the next ms": {func(m *credential.SIWE) { m.NotBefore = credential.SIWETime(at.Add(time.Millisecond)) }, false},
	} {
		m := parseSIWE(t, siweExamples["no statement"])
		m.IssuedAt = credential.SIWETime(at)
		test.change(m)
		text, err := m.Text()
		if err != nil {
			t.Fatal(err)
		}
		if got := credential.Current(parseSIWE(t, text), at); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestWrittenSIWEIsRead: whatever members a message has, it is read as it was
// written, or not written.
func TestWrittenSIWEIsRead(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := func(name, characters string) string {
			return rapid.StringOfN(rapid.RuneFrom([]rune(characters)), 0, 12, -1).Draw(rt, name)
		}
		m := credential.SIWE{
			Scheme: text("scheme", "ht+1"), Domain: text("domain", "ab.:1[]@"), Statement: text("statement", "a :/\nURI"), URI: "a:" + text("uri", "a:/?#%20[]"),
			ChainID: rapid.Uint64().Draw(rt, "chain"), Nonce: text("nonce", "aZ09-"), IssuedAt: "2021-09-30T16:25:24" + text("zone", "Z.0"),
			RequestID: text("request id", "a%20/"),
		}
		copy(m.Address[:], rapid.SliceOfN(rapid.Byte(), 20, 20).Draw(rt, "address"))
		for range rapid.IntRange(0, 2).Draw(rt, "resources") {
			m.Resources = append(m.Resources, "b:"+text("resource", "a-\n "))
		}
		written, err := m.Text()
		if err != nil {
			return
		}
		if read, err := credential.ParseSIWE(written); err != nil || !reflect.DeepEqual(*read, m) {
			rt.Fatalf("%+v\nis read as %+v, %v", m, read, err)
		}
	})
}

// FuzzSIWE: what is read is written as it was, and has what a message needs.
func FuzzSIWE(f *testing.F) {
	for _, text := range siweExamples {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := credential.ParseSIWE(text)
		if err != nil {
			if m != nil {
				t.Fatalf("%+v beside %v", m, err)
			}
			return
		}
		again, err := m.Text()
		if err != nil || again != text {
			t.Fatalf("%q\nis written as %q, %v", text, again, err)
		}
		if strings.ContainsAny(m.Domain, "@/ \n") || strings.Contains(m.Statement, "\n") || len(m.Nonce) < 8 || !strings.Contains(text, m.Address.String()) {
			t.Fatalf("%+v", m)
		}
	})
}
