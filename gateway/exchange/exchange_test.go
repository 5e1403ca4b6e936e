package exchange_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
)

func TestOneValue(t *testing.T) {
	r := exchange.Request{Header: http.Header{"Once": {"a"}, "Twice": {"a", "a"}, "Empty": {""}}}
	for name, want := range map[string]struct {
		value string
		ok    bool
	}{"once": {"a", true}, "ONCE": {"a", true}, "twice": {"", false}, "empty": {"", true}, "absent": {"", true}} {
		if value, ok := r.One(name); value != want.value || ok != want.ok {
			t.Errorf("%s: %q, %t", name, value, ok)
		}
	}
}

type body struct {
	A string        `json:"a"`
	B *int          `json:"b"`
	T exchange.Text `json:"t"`
}

// TestDecodeStrict: what two readers could understand differently is refused, and what it says of it quotes nothing.
func TestDecodeStrict(t *testing.T) {
	for _, good := range []string{`{}`, `{"a":"x"}`, " {\"a\":\"x\"}\n", `{"a":"x","b":1,"t":""}`, `{"b":null}`} {
		var v body
		if err := exchange.DecodeStrict([]byte(good), &v); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", " ", "null", " null\n", "[]", `"4111111111111111"`, "4111111111111111", `{"a":"4111111111111111"`, `{"a":"4111111111111111"}x`, `{}{}`,
		`{"a":4111111111111111}`, `{"a":"x","a":"4111111111111111"}`, `{"A":"4111111111111111"}`, `{"c":"4111111111111111"}`, `{"4111111111111111":1}`,
		"{\"a\":\"4111111111111111\xff\"}", `{"b":"4111111111111111"}`, `{"b":4111111111111111111111}`, `{"a":"\ud800 4111111111111111"}`,
		`{'a':'4111111111111111'}`, `{"t":null}`, `{"t":1}`, `{"t":["4111111111111111"]}`, `{"t":{"t":"4111111111111111"}}`, `{"t":"a","t":"b"}`,
		strings.Repeat(`{"a":`, 20_000), strings.Repeat("[", 1<<16), `{"b":` + strings.Repeat("[", 1<<16),
	} {
		var v body
		err := exchange.DecodeStrict([]byte(bad), &v)
		if err == nil {
			t.Errorf("%.60s is taken for %+v", bad, v)
		} else if strings.Contains(err.Error(), "4111") || len(err.Error()) > 80 {
			t.Errorf("the error quotes: %v", err)
		}
	}
}

func TestTextTellsEmptyFromAbsent(t *testing.T) {
	for text, want := range map[string]exchange.Text{
		`{}`: {}, `{"t":""}`: {Present: true}, `{"t":"\u00e9"}`: {Value: "é", Present: true},
	} {
		var v body
		if err := exchange.DecodeStrict([]byte(text), &v); err != nil || v.T != want {
			t.Errorf("%s: %+v, %v", text, v.T, err)
		}
	}
}

// TestDecodeLenient: an issuer may add what it likes, and must not say one thing twice.
func TestDecodeLenient(t *testing.T) {
	var v body
	if err := exchange.DecodeLenient([]byte(`{"new":[1,{"a":2}],"a":"x","A":"y"}`), &v); err != nil || v.A != "x" {
		t.Errorf("%+v, %v", v, err)
	}
	for _, bad := range []string{`{"a":"4111111111111111","a":"y"}`, `{"new":1,"new":"4111111111111111"}`, "{\"new\":\"4111111111111111\xff\"}", `{"a":{"4111111111111111":1}}`, ""} {
		var v body
		if err := exchange.DecodeLenient([]byte(bad), &v); err == nil || strings.Contains(err.Error(), "4111") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// FuzzAppendString: valid JSON for every text; a text of valid UTF-8 reads back as it was, and any other one as what
// encoding/json makes of it.
func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\xff\x00\u2028\"\\")
	f.Add("a\xc3(\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, s string) {
		out := exchange.AppendMember([]byte("{"), "m", s)
		var back map[string]string
		if err := json.Unmarshal(append(out, '}'), &back); err != nil || !utf8.Valid(out) {
			t.Fatalf("%q: %v", out, err)
		}
		if utf8.ValidString(s) && back["m"] != s {
			t.Fatalf("%q became %q", s, back["m"])
		}
		if !strings.Contains(s, "\ufffd") && strings.Contains(back["m"], "\ufffd") == utf8.ValidString(s) {
			t.Fatalf("%q became %q", s, back["m"])
		}
	})
}

// FuzzParseSessionHash: each hash has one text.
func FuzzParseSessionHash(f *testing.F) {
	f.Add("VlPqeT4Lt7UhB6c8nqSyeM1FThgXeDIiyJ6NYRxLLVo")
	f.Add("VlPqeT4Lt7UhB6c8nqSyeM1FThgXeDIiyJ6NYRxLLVo\n")
	f.Add(strings.Repeat("A", 43))
	f.Fuzz(func(t *testing.T, text string) {
		hash, err := exchange.ParseSessionHash(text)
		if err != nil {
			if len(text) >= 12 && strings.Contains(err.Error(), text) {
				t.Fatal("the error quotes")
			}
			return
		}
		if hash == [32]byte{} || base64.RawURLEncoding.EncodeToString(hash[:]) != text {
			t.Fatalf("%q is taken for %x", text, hash)
		}
	})
}

func TestSessionHash(t *testing.T) {
	hash := exchange.SessionHash("ABC=")
	parsed, err := exchange.ParseSessionHash(base64.RawURLEncoding.EncodeToString(hash[:]))
	if err != nil || parsed != hash || hash == exchange.SessionHash("ABC") {
		t.Errorf("%x, %x, %v", hash, parsed, err)
	}
}

// TestKinds: every kind has a name of its own; the names are labels.
func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range exchange.Kinds() {
		if name := k.String(); name == "" || seen[name] {
			t.Errorf("kind %d is named %q", k, name)
		}
		seen[k.String()] = true
	}
	if len(seen) != int(exchange.KindCount) || exchange.Kind(0) != exchange.Internal || exchange.KindCount.String() != "internal" {
		t.Errorf("%d names; the zero kind is %v", len(seen), exchange.Kind(0))
	}
}

func TestFailureSaysKindReasonAndCause(t *testing.T) {
	cause := errors.New("cause")
	for failure, want := range map[*exchange.Failure]string{
		exchange.Fail(exchange.NotFound, "gone"):                              "not_found (gone)",
		{Kind: exchange.Internal, Reason: "x", Err: cause}:                    "internal (x): cause",
		{Kind: exchange.LimitReached, Reason: "limit_card", RetryAfter: 1000}: "limited (limit_card)",
	} {
		if failure.Error() != want || errors.Is(failure, cause) != (failure.Err != nil) {
			t.Error(failure)
		}
	}
}

func TestHas(t *testing.T) {
	if c := (&exchange.Call{}); c.Has("") || c.Has("card.reveal") {
		t.Error("an empty call has an operation")
	}
	if c := (&exchange.Call{Operations: []policy.Operation{"card.profile", "card.reveal"}}); !c.Has("card.reveal") || c.Has("pin.set") {
		t.Error(c.Operations)
	}
}
