package vault_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/vault"
)

const clearPAN = "4111111111111111"

// clearFields is a session over two clear legs, with a PAN and a CVC that leave to the client.
func clearFields(t testing.TB, h *house) (s *vault.Session, pan, cvc vault.Sealed) {
	t.Helper()
	s, _, _ = h.openLegs(t, true, true)
	b := newBody(t, bridgeShape, bridgeAnswer)
	for f, at := range map[vault.Field]*vault.Sealed{vault.FieldPAN: &pan, vault.FieldCVC: &cvc} {
		var err error
		if *at, err = s.Reseal(f, vault.ToClient, must(b.Field(map[vault.Field]string{vault.FieldPAN: "/card_number", vault.FieldCVC: "/card_security_code"}[f]))); err != nil {
			t.Fatal(err)
		}
	}
	b.Close() // what leaves does not need what came
	return s, pan, cvc
}

func TestRender(t *testing.T) {
	s, pan, cvc := clearFields(t, newHouse(t))
	for _, c := range []struct {
		template string // § is the PAN, ¤ the CVC
		want     string // empty: refused
	}{
		{`{"card_number":§,"card_security_code":¤,"expiry_date":"12/30"}`, `{"card_number":"4111111111111111","card_security_code":"123","expiry_date":"12/30"}`},
		{`§`, `"4111111111111111"`},
		{` [ ¤ , § , § ] `, ` [ "123" , "4111111111111111" , "4111111111111111" ] `},
		{`{"a":{"b":[1,{"c":§}]},"d":"x"}`, `{"a":{"b":[1,{"c":"4111111111111111"}]},"d":"x"}`},
		{`{"a":"4111111111111111","b":§}`, `{"a":"4111111111111111","b":"4111111111111111"}`},
		{`{}`, `{}`},
		{`{"a":"§"}`, ``},            // in a string
		{`{"a":"x§y"}`, ``},          // the same
		{`{"a":"\§"}`, ``},           // the same
		{`["\§]`, ``},                // the end of one
		{`{§:1}`, ``},                // a name
		{`{"a":1,§:1}`, ``},          // the same
		{`{"a":§ "b":1}`, ``},        // no comma
		{`{"a":"b"§}`, ``},           // beside a value
		{`[1§]`, ``},                 // the same
		{`[§§]`, ``},                 // beside another
		{`§ {}`, ``},                 // two values
		{`{"a":§`, ``},               // open
		{`{"a":§,"a":1}`, ``},        // duplicate names
		{`["\\"§"]`, ``},             // between strings
		{`["` + "\xff" + `",§]`, ``}, // no UTF-8
		{``, ``},
	} {
		var template []byte
		var splices []vault.Splice
		for _, r := range c.template {
			switch r {
			case '§':
				splices = append(splices, vault.Splice{At: len(template), Field: pan})
			case '¤':
				splices = append(splices, vault.Splice{At: len(template), Field: cvc})
			case '\ufffd':
				template = append(template, 0xff)
			default:
				template = append(template, string(r)...)
			}
		}
		before := bytes.Clone(template)
		o, err := s.Render(template, splices)
		if !bytes.Equal(template, before) {
			t.Errorf("%s: the template was changed", c.template)
		}
		if c.want == "" {
			if err != vault.ErrSplice || o != nil {
				t.Errorf("%s: %v", c.template, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		if got := written(t, o); got != c.want {
			t.Errorf("%s: %s", c.template, got)
		}
	}
	for name, splices := range map[string][]vault.Splice{
		"before the beginning": {{At: -1, Field: pan}},
		"behind the end":       {{At: 4, Field: pan}},
		"backwards":            {{At: 2, Field: pan}, {At: 1, Field: pan}},
	} {
		if o, err := s.Render([]byte("[,]"), splices); err != vault.ErrSplice || o != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOutgoingIsZeroed looks at the memory that a writer saw, after Destroy.
func TestOutgoingIsZeroed(t *testing.T) {
	s, pan, _ := clearFields(t, newHouse(t))
	template := []byte(`{"x":"` + strings.Repeat("x", 100) + `","card_number":}`)
	for name, destroy := range map[string]func(*vault.Outgoing){
		"Destroy": func(o *vault.Outgoing) { o.Destroy(); o.Destroy() },
		"Close":   func(o *vault.Outgoing) { r := o.Reader(); _ = r.Close(); _ = r.Close() },
	} {
		o, err := s.Render(template, []vault.Splice{{At: len(template) - 1, Field: pan}})
		if err != nil {
			t.Fatal(err)
		}
		var seen []byte
		if _, err := o.WriteTo(writer(func(p []byte) (int, error) { seen = p; return len(p), nil })); err != nil || !bytes.Contains(seen, []byte(clearPAN)) {
			t.Fatalf("%s: %v", name, err)
		}
		destroy(o)
		if !bytes.Equal(seen, make([]byte, len(seen))) || o.Len() != 0 {
			t.Errorf("%s: not zeroed", name)
		}
		if n, err := o.WriteTo(io.Discard); n != 0 || err != vault.ErrSplice {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if n, err := o.Reader().Read(make([]byte, 10)); n != 0 || err != vault.ErrSplice {
			t.Errorf("%s: %d, %v", name, n, err)
		}
		if o.HoldsPAN() {
			t.Errorf("%s: nothing holds a PAN", name)
		}
	}
	(*vault.Outgoing)(nil).Destroy()

	// What the session kept is zeroed with it.
	kept := vault.Leaving(pan)
	if string(kept) != clearPAN {
		t.Fatal("nothing kept")
	}
	if s.Close(); !bytes.Equal(kept, make([]byte, len(clearPAN))) {
		t.Error("not zeroed by the session")
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestOutgoingWrites(t *testing.T) {
	s, pan, _ := clearFields(t, newHouse(t))
	render := func() *vault.Outgoing {
		return must(s.Render([]byte(`{"card_number":}`), []vault.Splice{{At: 15, Field: pan}}))
	}
	const want = `{"card_number":"4111111111111111"}`
	broken := errors.New("broken")
	if n, err := render().WriteTo(writer(func([]byte) (int, error) { return 3, broken })); n != 3 || err != broken {
		t.Errorf("%d, %v", n, err)
	}
	if n, err := render().WriteTo(writer(func([]byte) (int, error) { return 3, nil })); n != 3 || err != io.ErrShortWrite {
		t.Errorf("%d, %v", n, err)
	}
	r := render().Reader()
	if got, err := io.ReadAll(io.MultiReader(io.LimitReader(r, 5), r)); string(got) != want || err != nil {
		t.Errorf("%s, %v", got, err)
	}
	// A transport may close while it reads: what was read is the message or an error, never zeros.
	for range 20 {
		o := render()
		r := o.Reader()
		var wait sync.WaitGroup
		wait.Go(func() { _ = r.Close() })
		p := make([]byte, 4)
		for at := 0; ; {
			n, err := r.Read(p)
			if string(p[:n]) != want[at:at+n] {
				t.Errorf("read %q", p[:n])
			}
			if at += n; err != nil {
				if err != io.EOF && err != vault.ErrSplice {
					t.Error(err)
				}
				break
			}
		}
		wait.Wait()
		if o.Len() != 0 {
			t.Error("closed and not destroyed")
		}
	}
}

var dealShape = must(vault.NewShape(vault.ShapeConfig{
	Public: []string{"/type"},
	Clear:  map[string]vault.Field{"/account_number": vault.FieldPAN, "/more/cvc": vault.FieldCVC, "/list/1/pan": vault.FieldPAN},
	Sealed: map[string]vault.Field{"/sealed": vault.FieldPAN},
	Tokens: []string{"/method"},
}))

// TestRewrite: a body passes as it is, but for the declared members.
func TestRewrite(t *testing.T) {
	h := newHouse(t)
	s, pan, cvc := clearFields(t, h)
	ciphertext := vault.Sealed{Data: "QUJD", IV: "REVG"}
	const document = ` {"more":{"cvc":"123","x":1.50}, "type":"card","account_number" : "4111111111111111","list":[0,{"pan":"5555555555554444"}],"sealed":{"data":"eA==","iv":"eQ=="},"ü":"\u00fc"}`
	all := []vault.Replacement{{Pointer: "/account_number", With: ciphertext}, {Pointer: "/more/cvc", Text: "***"}, {Pointer: "/list/1/pan", With: pan}, {Pointer: "/sealed", With: cvc}}
	o, err := s.Rewrite(newBody(t, dealShape, document), all)
	if err != nil {
		t.Fatal(err)
	}
	const want = ` {"more":{"cvc":"***","x":1.50}, "type":"card","account_number" : {"data":"QUJD","iv":"REVG"},"list":[0,{"pan":"4111111111111111"}],"sealed":"123","ü":"\u00fc"}`
	if got := written(t, o); got != want {
		t.Errorf("%s", got)
	}
	if o.HoldsPAN() {
		t.Error("what was declared is held against it")
	}
	o.Destroy()

	for name, c := range map[string]struct {
		document string
		with     []vault.Replacement
		want     error
	}{
		"nothing declared there":   {`{"x":"4"}`, nil, nil},
		"null stays":               {`{"account_number":null,"more":{"cvc":null}}`, nil, nil},
		"one left":                 {document, all[:3], vault.ErrSplice},
		"another left":             {document, all[1:], vault.ErrSplice},
		"a number left":            {`{"account_number":4111111111111111}`, nil, vault.ErrSplice},
		"an array left":            {`{"account_number":["4111111111111111"]}`, nil, vault.ErrSplice},
		"a string for sealed left": {`{"sealed":"4111111111111111"}`, nil, vault.ErrSplice},
		"not there":                {`{}`, all[:1], vault.ErrMember},
		"null":                     {`{"account_number":null}`, all[:1], vault.ErrMember},
		"public":                   {`{"type":"x"}`, []vault.Replacement{{Pointer: "/type", Text: "y"}}, vault.ErrMember},
		"undeclared":               {`{"x":"x"}`, []vault.Replacement{{Pointer: "/x", Text: "y"}}, vault.ErrMember},
		"inside a sealed one":      {document, append(all[:4:4], vault.Replacement{Pointer: "/sealed/data", Text: "y"}), vault.ErrMember},
		"twice":                    {`{"account_number":"4"}`, []vault.Replacement{all[0], all[0]}, vault.ErrSplice},
		"by nothing":               {`{"account_number":"4"}`, []vault.Replacement{{Pointer: "/account_number"}}, vault.ErrSplice},
		"by two":                   {`{"account_number":"4"}`, []vault.Replacement{{Pointer: "/account_number", With: ciphertext, Text: "x"}}, vault.ErrSplice},
		"by no UTF-8":              {`{"account_number":"4"}`, []vault.Replacement{{Pointer: "/account_number", Text: "\xff"}}, vault.ErrSplice},
		"by no UTF-8, sealed":      {`{"account_number":"4"}`, []vault.Replacement{{Pointer: "/account_number", With: vault.Sealed{Data: "\xff"}}}, vault.ErrSplice},
		"a number":                 {`{"account_number":4111111111111111}`, all[:1], nil},
		"quotes":                   {`{"account_number":"4"}`, []vault.Replacement{{Pointer: "/account_number", Text: `","x":"`}}, nil},
		"quotes, sealed":           {`{"account_number":"4"}`, []vault.Replacement{{Pointer: "/account_number", With: vault.Sealed{Data: `","x":"`, IV: `"}`}}}, nil},
		"a handle to a body":       {`{"account_number":"4"}`, []vault.Replacement{{Pointer: "/account_number", With: must(newBody(t, bridgeShape, bridgeAnswer).Field("/card_number"))}}, vault.ErrSplice},
	} {
		o, err := s.Rewrite(newBody(t, dealShape, c.document), c.with)
		if err != c.want || (o == nil) != (err != nil) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if err == nil {
			var was, is map[string]any
			if json.Unmarshal([]byte(c.document), &was) != nil || json.Unmarshal([]byte(written(t, o)), &is) != nil || len(was) != len(is) {
				t.Errorf("%s: %s", name, written(t, o))
			}
		}
	}
	closed := newBody(t, dealShape, document)
	closed.Close()
	if o, err := s.Rewrite(closed, all); o != nil || err != vault.ErrSplice {
		t.Errorf("a closed body: %v", err)
	}
	// Without a session, masks and ciphertexts alone.
	var none *vault.Session
	if o, err := none.Rewrite(newBody(t, dealShape, `{"account_number":"4"}`), []vault.Replacement{{Pointer: "/account_number", With: pan}}); o != nil || err != vault.ErrSplice {
		t.Errorf("a handle without a session: %v", err)
	}
	if o, err := none.Rewrite(newBody(t, dealShape, `{"account_number":"4"}`), []vault.Replacement{{Pointer: "/account_number", Text: "****"}}); err != nil || written(t, o) != `{"account_number":"****"}` {
		t.Errorf("a mask without a session: %v", err)
	}
}

// TestRewriteToken: a token is replaced by a fragment, which is one value, and never leaves.
func TestRewriteToken(t *testing.T) {
	var none *vault.Session
	const document = `{"amount":1.50,"method":{"type":"singleUseToken","token":"dG9rZW4"},"n":[1]}`
	replaced := func(document string, with ...vault.Replacement) (string, error) {
		o, err := none.Rewrite(newBody(t, dealShape, document), with)
		if (o == nil) != (err != nil) {
			t.Errorf("%v, %v", o, err)
		}
		if err != nil {
			return "", err
		}
		defer o.Destroy()
		return written(t, o), nil
	}
	for fragment, ok := range map[string]bool{
		`{"type":"card","cardDetails":{"encryptedPan":{"data":"QUJD","iv":"REVG"}}}`: true,
		` [1, {}] `: true,
		`"x"`:       true,
		`1`:         true,
		`null`:      true,

		``:              false,
		` `:             false,
		`{`:             false,
		`{}{}`:          false,
		`{},"x":{}`:     false,
		`1,"amount2":2`: false,
		`{}}`:           false,
		`"x":1`:         false,
		`{"a":1,"a":2}`: false,
		`{a:1}`:         false,
		"\"\xff\"":      false,
		`01`:            false,
		strings.Repeat("[", 1001) + strings.Repeat("]", 1001): false,
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000): false, // with what it stands in
	} {
		got, err := replaced(document, vault.Replacement{Pointer: "/method", JSON: []byte(fragment)})
		if want := `{"amount":1.50,"method":` + fragment + `,"n":[1]}`; ok && (got != want || err != nil) || !ok && err != vault.ErrSplice {
			t.Errorf("%.40q: %.80s, %v", fragment, got, err)
		}
	}
	fragment := []byte(`{}`)
	for name, c := range map[string]struct {
		document string
		with     []vault.Replacement
		want     error
	}{
		"left":                  {document, nil, vault.ErrSplice},
		"what is no token left": {`{"method":{"type":"card","cardDetails":{"cardNumber":"4111111111111111"}}}`, nil, vault.ErrSplice},
		"a text left":           {`{"method":"4111111111111111"}`, nil, vault.ErrSplice},
		"null stays":            {`{"method":null}`, nil, nil},
		"null replaced":         {`{"method":null}`, []vault.Replacement{{Pointer: "/method", JSON: fragment}}, vault.ErrMember},
		"absent":                {`{}`, []vault.Replacement{{Pointer: "/method", JSON: fragment}}, vault.ErrMember},
		"inside":                {document, []vault.Replacement{{Pointer: "/method/token", JSON: fragment}}, vault.ErrMember},
		"by nothing":            {document, []vault.Replacement{{Pointer: "/method"}}, vault.ErrSplice},
		"by a text and JSON":    {document, []vault.Replacement{{Pointer: "/method", JSON: fragment, Text: "x"}}, vault.ErrSplice},
		"by a field and JSON":   {document, []vault.Replacement{{Pointer: "/method", JSON: fragment, With: vault.Sealed{Data: "x"}}}, vault.ErrSplice},
		"twice":                 {document, []vault.Replacement{{Pointer: "/method", JSON: fragment}, {Pointer: "/method", JSON: fragment}}, vault.ErrSplice},
		"by a text":             {document, []vault.Replacement{{Pointer: "/method", Text: "x"}}, nil},
		"public, by JSON":       {`{"type":"x"}`, []vault.Replacement{{Pointer: "/type", JSON: fragment}}, vault.ErrMember},
	} {
		if got, err := replaced(c.document, c.with...); err != c.want || err == nil && !json.Valid([]byte(got)) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	// A field too, and beside other replacements.
	got, err := replaced(`{"sealed":{"data":"eA==","iv":"eQ=="},"method":{"type":"a","token":"b"},"account_number":"4111111111111111"}`,
		vault.Replacement{Pointer: "/account_number", JSON: []byte(`["x"]`)}, vault.Replacement{Pointer: "/method", JSON: fragment}, vault.Replacement{Pointer: "/sealed", Text: "***"})
	if want := `{"sealed":"***","method":{},"account_number":["x"]}`; got != want || err != nil {
		t.Errorf("%s, %v", got, err)
	}
}

// TestPassing: whatever JSON a body is, without a declared member it leaves as it came, with a digest that is its own.
func TestPassing(t *testing.T) {
	var none *vault.Session
	for _, document := range []string{
		`{}`, `[]`, `null`, `true`, `0`, `-1.50e+3`, `"x"`, `""`, "\t\r\n{ \"a\" : [ 1 , {} ] }\n", `[{"account_number":"4111111111111111"},[[]]]`, `{"x":{"account_number":"4"},"\u0061":"\ud83d\ude00\/"}`,
		`"` + strings.Repeat("x", 100000) + `"`, strings.Repeat("[", 32) + strings.Repeat("]", 32),
	} {
		b := newBody(t, dealShape, document)
		o, err := none.Rewrite(b, nil)
		if err != nil {
			t.Errorf("%.40s: %v", document, err)
			continue
		}
		b.Close() // what leaves does not need what came
		if got := written(t, o); got != document || o.Len() != len(document) {
			t.Errorf("%.40s: %.40s", document, got)
		}
		if got, err := o.Digest(vault.CanonRaw); got != sha256.Sum256([]byte(document)) || err != nil {
			t.Errorf("%.40s: %x, %v", document, got, err)
		}
		o.Destroy()
	}
	empty := must(vault.ReadBody(strings.NewReader(""), -1, dealShape))
	if o, err := none.Rewrite(empty, []vault.Replacement{{Pointer: "/account_number", Text: "x"}}); o != nil || err != vault.ErrMember {
		t.Errorf("an empty body with a replacement: %v", err)
	}
	o, err := none.Rewrite(empty, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(o.Reader()); len(got) != 0 || err != nil || written(t, o) != "" || o.HoldsPAN() {
		t.Errorf("an empty body: %q, %v", got, err)
	}
	for _, c := range []vault.Canon{vault.CanonRaw, vault.CanonSortedValues} {
		if got, err := o.Digest(c); got != sha256.Sum256(nil) || err != nil {
			t.Errorf("an empty body, canon %d: %x, %v", c, got, err)
		}
	}
	empty.Close()
	if o, err := none.Rewrite(empty, nil); o != nil || err != vault.ErrSplice {
		t.Errorf("an empty body, closed: %v", err)
	}
}

// TestOutgoingDigest: what the receiver of a message computes, of the fields in clear too.
func TestOutgoingDigest(t *testing.T) {
	s, pan, cvc := clearFields(t, newHouse(t))
	o := must(s.Render([]byte(`{"Z":,"n":10,"a":{"b":}}`), []vault.Splice{{At: 5, Field: pan}, {At: 22, Field: cvc}}))
	received := must(vault.NewBody([]byte(written(t, o)), dealShape))
	for c, text := range map[vault.Canon]string{vault.CanonRaw: `{"Z":"4111111111111111","n":10,"a":{"b":"123"}}`, vault.CanonSortedValues: "123104111111111111111"} {
		got, err := o.Digest(c)
		if got != sha256.Sum256([]byte(text)) || err != nil || got != must(received.Digest(c)) {
			t.Errorf("canon %d: %x, %v", c, got, err)
		}
	}
	if got, err := o.Digest(0); got != [32]byte{} || err == nil {
		t.Errorf("no canon: %x", got)
	}
	list := must(s.Render([]byte(`[]`), nil))
	if got, err := list.Digest(vault.CanonSortedValues); got != [32]byte{} || !errors.Is(err, vault.ErrBody) {
		t.Errorf("an array: %x, %v", got, err)
	}
	deep := must(s.Render([]byte(strings.Repeat(`{"a":`, 999)+`{}`+strings.Repeat("}", 999)), nil))
	if got, err := deep.Digest(vault.CanonSortedValues); got != sha256.Sum256(nil) || err != nil {
		t.Errorf("as deep as a message may be: %x, %v", got, err)
	}
	o.Destroy()
	if got, err := o.Digest(vault.CanonRaw); got != [32]byte{} || err != vault.ErrSplice {
		t.Errorf("destroyed: %x, %v", got, err)
	}
}

// TestOutgoingGuard: card numbers are found beside those that were declared, and only there.
func TestOutgoingGuard(t *testing.T) {
	s, pan, cvc := clearFields(t, newHouse(t))
	for _, c := range []struct {
		before, between, after string
		want                   bool
	}{
		{`{"a":`, `,"b":`, `}`, false},
		{`{"x":"4111111111111111","a":`, `,"b":`, `}`, true},
		{`{"a":`, `,"x":"4111 1111 1111 1111","b":`, `}`, true},
		{`{"a":`, `,"b":`, `,"x":4111111111111111}`, true},
		{`{"4111111111111111":`, `,"b":`, `}`, true},
		{`[4111111111111,`, `,`, `]`, false}, // no valid check digit
		{`["411111111111",`, `,`, `]`, false},
	} {
		template := c.before + c.between + c.after
		o, err := s.Render([]byte(template), []vault.Splice{{At: len(c.before), Field: pan}, {At: len(c.before) + len(c.between), Field: cvc}})
		if err != nil {
			t.Fatalf("%s: %v", template, err)
		}
		if got := o.HoldsPAN(); got != c.want {
			t.Errorf("%s: %t", template, got)
		}
		if !vault.HoldsPANString(written(t, o)) {
			t.Errorf("%s: the whole of it does hold one", template)
		}
	}
}

// FuzzRender: whatever the template, what is rendered is JSON that says what the template says, with the card number in
// one place, as a whole value.
func FuzzRender(f *testing.F) {
	s, pan, _ := clearFields(f, newHouse(f))
	f.Add([]byte(`{"card_number":}`), 15)
	f.Add([]byte(`["",]`), 4)
	f.Add([]byte(`{"a":"b"}`), 7)
	f.Fuzz(func(t *testing.T, template []byte, at int) {
		o, err := s.Render(template, []vault.Splice{{At: at, Field: pan}})
		if err != nil {
			if err != vault.ErrSplice || o != nil {
				t.Fatal(err)
			}
			return
		}
		got := written(t, o)
		if got != string(template[:at])+`"`+clearPAN+`"`+string(template[at:]) {
			t.Fatalf("%s", got)
		}
		// A marker that no other value has shows that the place is that of a value.
		var v any
		if json.Unmarshal([]byte(string(template[:at])+`[["marker"]]`+string(template[at:])), &v) != nil || json.Unmarshal([]byte(got), &v) != nil {
			t.Fatalf("no value can stand there: %s", got)
		}
	})
}

// BenchmarkRender is once per answer in clear.
func BenchmarkRender(b *testing.B) {
	s, pan, cvc := clearFields(b, newHouse(b))
	template := []byte(`{"card_number":,"card_security_code":,"expiry_date":"12/30"}`)
	splices := []vault.Splice{{At: 15, Field: pan}, {At: 37, Field: cvc}}
	b.ReportAllocs()
	for b.Loop() {
		o, err := s.Render(template, splices)
		if err != nil {
			b.Fatal(err)
		}
		o.Destroy()
	}
}

// BenchmarkRewrite is once per forwarded answer with a declared field.
func BenchmarkRewrite(b *testing.B) {
	var s *vault.Session
	body := newBody(b, dealShape, `{"type":"card","account_number":"4111111111111111","holder":"A B","bank":"x"}`)
	with := []vault.Replacement{{Pointer: "/account_number", Text: "411111******1111"}}
	b.ReportAllocs()
	for b.Loop() {
		o, err := s.Rewrite(body, with)
		if err != nil {
			b.Fatal(err)
		}
		o.Destroy()
	}
}
