package vault_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault"
)

func TestShapeRefuses(t *testing.T) {
	pan := func(pointers ...string) map[string]vault.Field {
		m := map[string]vault.Field{}
		for _, p := range pointers {
			m[p] = vault.FieldPAN
		}
		return m
	}
	for name, c := range map[string]vault.ShapeConfig{
		"whole document":        {Public: []string{""}},
		"no slash":              {Public: []string{"a"}},
		"fragment":              {Public: []string{"#/a"}},
		"bad escape":            {Public: []string{"/a~2"}},
		"escape at the end":     {Clear: pan("/a~")},
		"escape before a slash": {Clear: pan("/a~/b")},
		"twice public":          {Public: []string{"/a", "/a"}},
		"public and clear":      {Public: []string{"/a"}, Clear: pan("/a")},
		"clear and sealed":      {Clear: pan("/a"), Sealed: pan("/a")},
		"inside":                {Public: []string{"/a"}, Clear: pan("/a/b")},
		"around":                {Public: []string{"/a/b"}, Clear: pan("/a")},
		"inside a sealed one":   {Public: []string{"/a/iv"}, Sealed: pan("/a")},
		"inside a token":        {Public: []string{"/a/type"}, Tokens: []string{"/a"}},
		"around a token":        {Tokens: []string{"/a/b"}, Sealed: pan("/a")},
		"token and clear":       {Tokens: []string{"/a"}, Clear: pan("/a")},
		"twice a token":         {Tokens: []string{"/a", "/a"}},
		"token as the whole":    {Tokens: []string{""}},
		"no field":              {Clear: map[string]vault.Field{"/a": 0}},
		"unknown field":         {Sealed: map[string]vault.Field{"/a": 5}},
		"negative bytes":        {MaxBytes: -1},
		"too many bytes":        {MaxBytes: 16<<20 + 1},
		"negative depth":        {MaxDepth: -1},
		"too deep":              {MaxDepth: 1001},
		"deeper than itself":    {MaxDepth: 2, Public: []string{"/a/b/c"}},
	} {
		if s, err := vault.NewShape(c); err == nil || s != nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := vault.NewShape(vault.ShapeConfig{Public: []string{"/a", "/ab", "/a~1b", "//", "/a-/x"}, Clear: pan("/b/0", "/b/1"), Sealed: pan("/c"), Tokens: []string{"/d", "/e/0"}}); err != nil {
		t.Error(err)
	}
}

// TestPointers: RFC 6901, section 5, and what stands at its edges. Every value is its own pointer.
func TestPointers(t *testing.T) {
	const document = `{"foo":["/foo/0","/foo/1",["/foo/2/0"],"s"],"":"/","a/b":"/a~1b","c%d":"/c%d","e^f":"/e^f","g|h":"/g|h","i\\j":"/i\\j","k\"l":"/k\"l"," ":"/ ","m~n":"/m~0n",
		"~1":"/~01","o":{"0":"/o/0","00":"/o/00","-":"/o/-","-1":"/o/-1","":{"":"/o//"}},"\u0065sc":"/esc","ü":"/ü","\ud83d\ude00":"/😀",
		"foo2":{"0":{"x":"/foo2/0/x"}},"n":null,"num":12,"obj":{},"n2":null,"num2":12,"obj2":{},"t":true,"dup":{"a":1},"dup2":{"a":1}}`
	there := []string{"/foo/0", "/foo/1", "/foo/2/0", "/", "/a~1b", "/c%d", "/e^f", "/g|h", `/i\j`, `/k"l`, "/ ", "/m~0n", "/~01", "/o/0", "/o/00", "/o/-", "/o/-1", "/o//", "/esc", "/ü", "/😀", "/foo2/0/x"}
	absent := []string{"/foo/4", "/foo/00", "/foo/-", "/foo/01", "/foo/+1", "/foo/ 1", "/foo/1e0", "/foo/-1", "/foo/18446744073709551616", "/foo/4294967296", "/foo/3/0", "/Foo/1",
		"/a/b", "/m~1n", "/o/000", "/o/1", "/nothing", "/n2/x", "/num2/0", "/obj2/x", "/foo2/0/y", "/foo2/00/x", "/esc2", "/%66oo/0"}
	other := []string{"/n", "/num", "/obj", "/t"}
	pointers := append(append(append([]string{}, there...), absent...), other...)
	for use, shape := range map[string]*vault.Shape{
		"public": must(vault.NewShape(vault.ShapeConfig{Public: pointers})),
		"clear": must(vault.NewShape(vault.ShapeConfig{Clear: func() map[string]vault.Field {
			m := map[string]vault.Field{}
			for _, p := range pointers {
				m[p] = vault.FieldPAN
			}
			return m
		}()})),
	} {
		b := newBody(t, shape, document)
		for _, p := range there {
			text, err := b.Text(p)
			field, fieldErr := b.Field(p)
			if use == "public" && (text != p || err != nil || fieldErr != vault.ErrMember) || use == "clear" && (text != "" || err != vault.ErrMember || fieldErr != nil || !field.InClear()) {
				t.Errorf("%s %q: %q, %v; %v", use, p, text, err, fieldErr)
			}
			if !b.Has(p) || b.Null(p) {
				t.Errorf("%s %q is not there", use, p)
			}
		}
		for _, p := range append(absent, other...) {
			text, err := b.Text(p)
			field, fieldErr := b.Field(p)
			if text != "" || err != vault.ErrMember || fieldErr != vault.ErrMember || field != (vault.Sealed{}) {
				t.Errorf("%s %q: %q, %v; %v", use, p, text, err, fieldErr)
			}
		}
		for _, p := range absent {
			if b.Has(p) || b.Null(p) {
				t.Errorf("%s %q is there", use, p)
			}
		}
		if b.Has("/n") || !b.Null("/n") || !b.Has("/num") || !b.Has("/obj") || b.Has("/dup/a") || b.Null("/dup/a") {
			t.Errorf("%s: null, a number, an object, or what is not declared", use)
		}
		if text, err := b.Text("/dup/a"); text != "" || err != vault.ErrMember {
			t.Errorf("undeclared: %q, %v", text, err)
		}
	}
}

// TestBodyRefuses: strict JSON within bounds, an error that says where, and the bytes zeroed all the same.
func TestBodyRefuses(t *testing.T) {
	shape := must(vault.NewShape(vault.ShapeConfig{MaxBytes: 200, MaxDepth: 4, Public: []string{"/a"}, Clear: map[string]vault.Field{"/card_number": vault.FieldPAN}}))
	const pan = "4111111111111111"
	for name, text := range map[string]string{
		"nothing":               ``,
		"white space":           "  ",
		"duplicate name":        `{"card_number":"` + pan + `","card_number":"1"}`,
		"duplicate by escape":   `{"card_number":"` + pan + `","c\u0061rd_number":"1"}`,
		"duplicate, undeclared": `{"x":{"y":1,"y":"` + pan + `"}}`,
		"two values":            `{"card_number":"` + pan + `"} {}`,
		"a comma at the end":    `{"card_number":"` + pan + `",}`,
		"a comment":             `{"card_number":"` + pan + `"} // x`,
		"open":                  `{"card_number":"` + pan + `"`,
		"open string":           `{"card_number":"` + pan,
		"crossed":               `{"card_number":["` + pan + `"}]`,
		"no name":               `{"` + pan + `"}`,
		"number for a name":     `{` + pan + `:1}`,
		"BOM":                   "\ufeff" + `{"card_number":"` + pan + `"}`,
		"invalid UTF-8":         `{"card_number":"` + pan + "\xff" + `"}`,
		"half a surrogate":      `{"card_number":"` + pan + `\ud800"}`,
		"control character":     "{\"card_number\":\"" + pan + "\n\"}",
		"single quotes":         `{'card_number':'` + pan + `'}`,
		"NaN":                   `{"card_number":NaN}`,
		"leading zero":          `{"card_number":0` + pan + `}`,
		"too deep":              `{"a":[[[["` + pan + `"]]]]}`,
		"too deep, skipped":     `{"x":[[[[]]]]}`,
		"too long":              `{"card_number":"` + pan + `","x":"` + strings.Repeat("x", 200) + `"}`,
	} {
		raw := make([]byte, len(text), len(text)+16)
		copy(raw[:cap(raw)], text+pan)
		b, err := vault.NewBody(raw, shape)
		if b != nil || !errors.Is(err, vault.ErrBody) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for i := 0; i+3 <= len(pan); i++ {
			if strings.Contains(err.Error(), pan[i:i+3]) && name != "too long" {
				t.Errorf("%s: the error quotes: %v", name, err)
			}
		}
		if !bytes.Equal(raw[:cap(raw)], make([]byte, cap(raw))) {
			t.Errorf("%s: not zeroed", name)
		}
	}
	for _, text := range []string{`null`, `1`, `"x"`, `[]`, `{}`, ` {"a":[[[1]]]} `, "\t\r\n{}", `{"card_number":"` + strings.Repeat("x", 182) + `"}`} {
		b, err := vault.NewBody([]byte(text), shape)
		if err != nil {
			t.Errorf("%.20s: %v", text, err)
		}
		b.Close()
	}
}

// TestBodyCloses: the caller's bytes are zeroed up to their capacity, and everything fails afterwards.
func TestBodyCloses(t *testing.T) {
	raw := make([]byte, len(bridgeAnswer), len(bridgeAnswer)+32)
	copy(raw[:cap(raw)], bridgeAnswer+bridgeAnswer)
	b, err := vault.NewBody(raw, bridgeShape)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(raw, []byte(bridgeAnswer)) {
		t.Error("the body was changed")
	}
	b.Close()
	b.Close()
	(*vault.Body)(nil).Close()
	if !bytes.Equal(raw[:cap(raw)], make([]byte, cap(raw))) {
		t.Error("not zeroed")
	}
	if text, err := b.Text("/expiry_date"); text != "" || err != vault.ErrMember {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := b.Field("/card_number"); err != vault.ErrMember {
		t.Error(err)
	}
	if b.Has("/card_number") || b.Null("/card_number") {
		t.Error("something is there")
	}
	if d, err := b.Digest(vault.CanonRaw); err == nil || d != [32]byte{} {
		t.Error("a digest")
	}
	if o, err := new(vault.Session).Rewrite(b, nil); o != nil || err != vault.ErrSplice {
		t.Error("rewritten")
	}
}

// TestPublicMembersHoldNoPAN: a declaration that was wrong does not let a card number through.
func TestPublicMembersHoldNoPAN(t *testing.T) {
	shape := must(vault.NewShape(vault.ShapeConfig{Public: []string{"/last_4"}}))
	for text, ok := range map[string]bool{
		`"1111"`: true, `""`: true, `"a\"\u00e9\n"`: true, `"411111******1111"`: true, `"4111111111111112"`: true,
		`"4111111111111111"`: false, `"x 4111 1111 1111 1111"`: false, `"\u0034111111111111111"`: false, `4111111111111111`: false, `["1111"]`: false,
	} {
		var want string
		_ = json.Unmarshal([]byte(text), &want)
		if !ok {
			want = ""
		}
		got, err := newBody(t, shape, `{"last_4":`+text+`}`).Text("/last_4")
		if got != want || (err == nil) != ok || err != nil && err != vault.ErrMember {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}

func TestSealedMembers(t *testing.T) {
	shape := must(vault.NewShape(vault.ShapeConfig{Sealed: map[string]vault.Field{"/card/pan": vault.FieldPAN}}))
	for text, ok := range map[string]bool{
		`{"data":"QUJD","iv":"REVG"}`:                  true,
		`{"iv":"REVG", "data":"QUJD"}`:                 true,
		`{"d\u0061ta":"QU\u004aD","iv":"REVG"}`:        true,
		`{"data":"QUJD"}`:                              false,
		`{"data":"QUJD","iv":"REVG","tag":"x"}`:        false,
		`{"data":"QUJD","IV":"REVG"}`:                  false,
		`{"data":null,"iv":"REVG"}`:                    false,
		`{"data":1,"iv":"REVG"}`:                       false,
		`{"data":{"data":"QUJD","iv":""},"iv":"REVG"}`: false,
		`["QUJD","REVG"]`:                              false,
		`"4111111111111111"`:                           false,
		`null`:                                         false,
		`{"data":"4111111111111111","iv":"REVG"}`:      false,
		`{"data":"QUJD","iv":"4111 1111 1111 1111"}`:   false,
		`{}`: false,
		`{"data":"QUJD","iv":"REVG","iv2":{"iv":"REVG"}}`: false,
	} {
		b := newBody(t, shape, `{"card":{"pan":`+text+`}}`)
		got, err := b.Sealed("/card/pan")
		if (err == nil) != ok || ok && got != (vault.Sealed{Data: "QUJD", IV: "REVG"}) || !ok && (got != vault.Sealed{} || err != vault.ErrMember) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if _, err := b.Field("/card/pan"); err != vault.ErrMember {
			t.Errorf("as a field in clear: %v", err)
		}
		for _, p := range []string{"/card/pan", "/card/pan/data", "/card/pan/iv", ""} {
			if _, err := b.Text(p); err != vault.ErrMember {
				t.Errorf("%q as public: %v", p, err)
			}
		}
	}
	if _, err := newBody(t, shape, `{}`).Sealed("/card/pan"); err != vault.ErrMember {
		t.Error(err)
	}
}

func TestTokens(t *testing.T) {
	shape := must(vault.NewShape(vault.ShapeConfig{Tokens: []string{"/paymentMethod"}, Sealed: map[string]vault.Field{"/s": vault.FieldPAN}}))
	for text, ok := range map[string]bool{
		`{"type":"singleUseToken","token":"dG9rZW4"}`:                     true,
		`{"token":"dG9rZW4", "type":"singleUseToken"}`:                    true,
		`{"t\u0079pe":"singleUse\u0054oken","token":"dG9rZW4"}`:           true,
		`{"type":"singleUseToken"}`:                                       false,
		`{"type":"singleUseToken","token":"dG9rZW4","x":1}`:               false,
		`{"type":"singleUseToken","Token":"dG9rZW4"}`:                     false,
		`{"type":"singleUseToken","token":null}`:                          false,
		`{"type":"singleUseToken","token":1}`:                             false,
		`{"type":{"type":"singleUseToken","token":""},"token":"dG9rZW4"}`: false,
		`["singleUseToken","dG9rZW4"]`:                                    false,
		`"dG9rZW4"`:                                                       false,
		`null`:                                                            false,
		`{}`:                                                              false,
		`{"type":"singleUseToken","token":"4111111111111111"}`:            false,
		`{"type":"4111-1111-1111-1111","token":"dG9rZW4"}`:                false,
		`{"type":"card","cardDetails":{"type":"x","token":"dG9rZW4"}}`:    false,
		`{"data":"singleUseToken","iv":"dG9rZW4"}`:                        false,
	} {
		b := newBody(t, shape, `{"paymentMethod":`+text+`}`)
		kind, token, err := b.Token("/paymentMethod")
		if (err == nil) != ok || ok && (kind != "singleUseToken" || token != "dG9rZW4") || !ok && (kind != "" || token != "" || err != vault.ErrMember) {
			t.Errorf("%s: %q, %q, %v", text, kind, token, err)
		}
		if b.Has("/paymentMethod") == (text == `null`) || b.Null("/paymentMethod") != (text == `null`) {
			t.Errorf("%s: there, or null", text)
		}
		for _, p := range []string{"/paymentMethod", "/paymentMethod/type", "/paymentMethod/token", ""} {
			_, textErr := b.Text(p)
			_, fieldErr := b.Field(p)
			_, sealedErr := b.Sealed(p)
			if textErr != vault.ErrMember || fieldErr != vault.ErrMember || sealedErr != vault.ErrMember {
				t.Errorf("%q as something else: %v, %v, %v", p, textErr, fieldErr, sealedErr)
			}
		}
	}
	b := newBody(t, shape, `{"s":{"type":"a","token":"b"}}`)
	for _, p := range []string{"/paymentMethod", "/s", "/x"} {
		if _, _, err := b.Token(p); err != vault.ErrMember {
			t.Errorf("%s: %v", p, err)
		}
	}
	b.Close()
	if _, _, err := b.Token("/paymentMethod"); err != vault.ErrMember || b.Has("/s") {
		t.Errorf("closed: %v", err)
	}
}

// TestDigests checks the vector of PaymentsGate's contract, and what has no canonical form.
func TestDigests(t *testing.T) {
	shape := must(vault.NewShape(vault.ShapeConfig{}))
	const vector = `{"amount":10,"Currency":"AZN","recipient":{"type":"card","account_number":"4000"},"ok":true}`
	sum := func(text string) string { s := sha256.Sum256([]byte(text)); return hex.EncodeToString(s[:]) }
	for text, want := range map[string]string{
		vector:                            "c9570bc1d0e06776ffac8c0d8debc7cf7e666d6102f6430d75f736afcc3bfd57",
		`{}`:                              sum(""),
		`{"b":"2","a":"1"}`:               sum("12"),
		`{"a":"2","A":"1","x":{"a":"3"}}`: sum("213"),
		`{"x":{"a":"3"},"A":"1","a":"2"}`: sum("312"),
		`{"b":false,"a":"é\n\u0041"}`:     sum("é\nAfalse"),
		`{"\u0061":1,"b":-1.5,"c":1e+21,"d":100}`: sum("1-1.51e+21100"),
		`{"a":[]}`: "", `{"a":[1]}`: "", `{"a":null}`: "", `[]`: "", `1`: "", `"x"`: "", `null`: "", `true`: "", `{"a":{"b":[{"c":1}]}}`: "",
		`{"é":1}`: "", `{"a":1.0}`: "", `{"a":1e2}`: "", `{"a":-0}`: "", `{"a":9007199254740993}`: "", `{"a":0.1000}`: "", `{"a":1E400}`: "",
	} {
		got, err := newBody(t, shape, text).Digest(vault.CanonSortedValues)
		if want == "" {
			if !errors.Is(err, vault.ErrBody) || got != [32]byte{} || !strings.Contains(err.Error(), "canonical") {
				t.Errorf("%s: %x, %v", text, got, err)
			}
			continue
		}
		if hex.EncodeToString(got[:]) != want || err != nil {
			t.Errorf("%s: %x, %v", text, got, err)
		}
	}
	b := newBody(t, shape, vector)
	if got, err := b.Digest(vault.CanonRaw); got != sha256.Sum256([]byte(vector)) || err != nil {
		t.Errorf("raw: %x, %v", got, err)
	}
	for _, c := range []vault.Canon{0, 3} {
		if got, err := b.Digest(c); got != [32]byte{} || err == nil {
			t.Errorf("canon %d: %x", c, got)
		}
	}
}

func TestExpiry(t *testing.T) {
	for _, c := range []struct {
		form              vault.ExpiryForm
		text, month, year string
	}{
		{vault.ExpiryMMSlashYY, "12/30", "12", "2030"}, {vault.ExpiryMMSlashYY, "01/00", "01", "2000"}, {vault.ExpiryMMYY, "0999", "09", "2099"},
		{vault.ExpiryYYYYDashMM, "2031-10", "10", "2031"}, {"MM/YYYY", "07/2030", "07", "2030"},
	} {
		month, year, err := c.form.Parse(c.text)
		if month != c.month || year != c.year || err != nil {
			t.Errorf("%s: %s %s %v", c.text, month, year, err)
		}
		if got, err := c.form.Append([]byte("x"), c.month, c.year); string(got) != "x"+c.text || err != nil {
			t.Errorf("%s: %s %v", c.text, got, err)
		}
	}
	for _, text := range []string{"", "00/30", "13/30", "99/30", "1/30", "12/3", "12-30", "12/300", " 2/30", "12/3x", "1x/30", "١2/30", "12/30 ", "+1/30", "12/-1", "4111111111111111", "0:/30", "1:/30", "1//30"} {
		if month, year, err := vault.ExpiryMMSlashYY.Parse(text); err == nil || month != "" || year != "" || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%q: %s %s %v", text, month, year, err)
		}
	}
	for _, c := range []struct{ form, month, year string }{
		{"MM/YY", "1", "2030"}, {"MM/YY", "12", "30"}, {"MM/YY", "00", "2030"}, {"MM/YY", "13", "2030"}, {"MM/YY", "1:", "2030"}, {"MM/YY", "12", "20x0"}, {"MM/YY", "12", "2130"},
		{"MM/YY", "", ""}, {"", "12", "2030"}, {"MM", "12", "2030"}, {"MMM/YY", "12", "2030"}, {"MM/YYY", "12", "2030"}, {"MM/YYYYYY", "12", "2030"}, {"M/YY", "12", "2030"},
	} {
		if got, err := vault.ExpiryForm(c.form).Append(nil, c.month, c.year); err == nil || len(got) != 0 {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for _, form := range []vault.ExpiryForm{"", "MM", "YY", "xx/yy", "MMM/YY", "MM/Y"} {
		if _, _, err := form.Parse(strings.NewReplacer("M", "1", "Y", "3").Replace(string(form))); err == nil {
			t.Errorf("form %q", form)
		}
	}
}

// FuzzBody: what the strict reader takes, encoding/json takes too, and every member reads the same in both; a secret
// string comes out of a session as encoding/json reads it; nothing in clear is public; without a sensitive member, and
// only then, it passes as it came.
func FuzzBody(f *testing.F) {
	shape := must(vault.NewShape(vault.ShapeConfig{Public: []string{"/a", "/a~1b/~0", "/l/1/x"}, Clear: map[string]vault.Field{"/p": vault.FieldPAN}, Sealed: map[string]vault.Field{"/s": vault.FieldCVC}, Tokens: []string{"/t"}}))
	session, _, _ := newHouse(f).openLegs(f, true, true)
	for _, seed := range []string{
		bridgeAnswer, `{"a":"x","p":"4111111111111111","s":{"data":"QQ==","iv":"QQ=="}}`, `{"a/b":{"~":"y"},"l":[0,{"x":"z"}]}`, `{"a":"\u0041\n","p":"\u0034111111111111111"}`,
		`{"a":null,"p":4111111111111111}`, `{"a":"1","a":"2"}`, `[{"x":1}]`, `{"s":{"data":"1","iv":"2","x":{}}}`, `{"t":{"type":"a","token":"b"}}`, `{"t":{"type":"a","token":["b"]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		raw := bytes.Clone(document)
		b, err := vault.NewBody(raw, shape)
		if err != nil {
			if !errors.Is(err, vault.ErrBody) || len(bytes.Trim(raw, "\x00")) != 0 {
				t.Fatalf("%v", err)
			}
			return
		}
		var oracle any
		reference := json.NewDecoder(bytes.NewReader(document))
		reference.UseNumber() // of any size
		if err := reference.Decode(&oracle); err != nil {
			t.Fatalf("encoding/json refuses: %v", err)
		}
		at := func(tokens ...any) any {
			v := oracle
			for _, token := range tokens {
				switch token := token.(type) {
				case string:
					m, _ := v.(map[string]any)
					v = m[token]
				case int:
					l, _ := v.([]any)
					if len(l) <= token {
						return nil
					}
					v = l[token]
				}
			}
			return v
		}
		element := at("l", 1, "x")
		if m, ok := at("l").(map[string]any); ok { // "1" names a member too
			inner, _ := m["1"].(map[string]any)
			element = inner["x"]
		}
		for pointer, value := range map[string]any{"/a": at("a"), "/a~1b/~0": at("a/b", "~"), "/l/1/x": element} {
			want, isString := value.(string)
			if got, err := b.Text(pointer); (err == nil) != (isString && !vault.HoldsPANString(want)) || err == nil && got != want {
				t.Fatalf("%s: %q, %v, want %q", pointer, got, err, want)
			}
		}
		if want, isString := at("p").(string); isString {
			out, err := session.Reseal(vault.FieldPAN, vault.ToClient, must(b.Field("/p")))
			digits := len(want) >= 12 && len(want) <= 19 && strings.Trim(want, "0123456789") == ""
			if (err == nil) != digits {
				t.Fatalf("%v", err)
			}
			if err == nil && rendered(t, session, out) != want {
				t.Fatal("another text")
			}
		} else if _, err := b.Field("/p"); err != vault.ErrMember {
			t.Fatalf("a field that is no string: %v", err)
		}
		kind, _ := at("t", "type").(string)
		token, isToken := at("t", "token").(string)
		members, _ := at("t").(map[string]any)
		_, hasType := members["type"].(string)
		isToken = isToken && hasType && len(members) == 2 && !vault.HoldsPANString(kind) && !vault.HoldsPANString(token)
		if gotKind, got, err := b.Token("/t"); (err == nil) != isToken || err == nil && (gotKind != kind || got != token) {
			t.Fatalf("%q, %q, %v, want %q, %q", gotKind, got, err, kind, token)
		}
		var none *vault.Session
		if o, err := none.Rewrite(b, nil); (err == nil) == (b.Has("/p") || b.Has("/s") || b.Has("/t")) || err == nil && written(t, o) != string(document) {
			t.Fatalf("passed: %v", err)
		}
		b.Close()
		if len(bytes.Trim(raw, "\x00")) != 0 {
			t.Fatal("not zeroed")
		}
	})
}

// BenchmarkBody is once per message of a protocol in clear.
func BenchmarkBody(b *testing.B) {
	large := `{"items":[` + strings.Repeat(`{"id":"123e4567-e89b-12d3-a456-426655440000","n":12.5,"ok":true},`, 160) + `null],"card_number":"4111111111111111"}`
	for name, text := range map[string]string{"bridge": bridgeAnswer, fmt.Sprintf("%dKiB", len(large)>>10): large} {
		b.Run(name, func(b *testing.B) {
			raw := make([]byte, 0, len(text))
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				body, err := vault.NewBody(append(raw[:0], text...), bridgeShape)
				if err != nil {
					b.Fatal(err)
				}
				body.Close()
			}
		})
	}
}
