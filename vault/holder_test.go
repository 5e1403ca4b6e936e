package vault_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/keys"
)

// The tokens of a page's session and of one payment.
const (
	sessionToken = "c2Vzc2lvbiB0b2tlbiBzZXNzaW9uIHRva2VuIHNlc3M"
	paymentToken = "cGF5bWVudCB0b2tlbiBwYXltZW50IHRva2VuIHBheW0"
)

// fieldsShape is a field that a page submits, as Payroc's does: one at a time.
var fieldsShape = must(vault.NewShape(vault.ShapeConfig{
	Public: []string{"/type"}, Clear: map[string]vault.Field{"/cardNumber": vault.FieldPAN, "/cvv": vault.FieldCVC, "/pin": vault.FieldPIN, "/iban": vault.FieldAccount},
}))

func storageKey(t testing.TB, id, environment string, fill byte) *keys.Key {
	t.Helper()
	content := pem.EncodeToMemory(&pem.Block{
		Type: "CARDSTILE KEY", Headers: map[string]string{"Use": string(keys.UseStorage)}, Bytes: bytes.Repeat([]byte{fill}, 32),
	})
	path := filepath.Join(t.TempDir(), id)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return must(keys.Load(keys.Config{ID: id, Use: keys.UseStorage, File: path, Environment: environment}))
}

// till is a house that holds cards, and a session of a page that submits in clear.
type till struct {
	*house
	holder *vault.Holder
	page   *vault.Session
}

func newTill(t testing.TB) *till {
	t.Helper()
	h := newHouse(t)
	page := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: vault.InsecureClearClient()}))
	t.Cleanup(page.Close)
	return &till{house: h, holder: must(h.vault.NewHolder(storageKey(t, "storage-2026", "", 7))), page: page}
}

func (h *till) submitted(t testing.TB, pointer, text string) vault.Sealed {
	t.Helper()
	quoted, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return must(newBody(t, fieldsShape, `{"`+pointer[1:]+`":`+string(quoted)+`}`).Field(pointer))
}

// parts holds a number, a code and both details under the session's token.
func (h *till) parts(t testing.TB, number, code string) vault.Parts {
	t.Helper()
	return vault.Parts{
		Fields: map[vault.Field][]byte{
			vault.FieldPAN: must(h.holder.Hold(h.page, sessionToken, vault.FieldPAN, h.submitted(t, "/cardNumber", number))),
			vault.FieldCVC: must(h.holder.Hold(h.page, sessionToken, vault.FieldCVC, h.submitted(t, "/cvv", code))),
		},
		Details: map[vault.Detail][]byte{
			vault.DetailExpiry: must(h.holder.HoldDetail(sessionToken, vault.DetailExpiry, "1230")),
			vault.DetailName:   must(h.holder.HoldDetail(sessionToken, vault.DetailName, "Zoë O'Hara-李")),
		},
	}
}

// redeem opens a session whose client's leg is a held card.
func (h *till) redeem(t testing.TB, token string, card []byte, issuer *vault.IssuerKey) (*vault.Session, error) {
	t.Helper()
	s, err := h.vault.Open(context.Background(), vault.Opening{Binding: binding, Held: h.holder.Held(token, card), Issuer: issuer})
	if (s == nil) != (err != nil) {
		t.Fatalf("%v, %v", s, err)
	}
	if err == nil {
		t.Cleanup(s.Close)
	}
	return s, err
}

func held(t testing.TB, s *vault.Session, f vault.Field) vault.Sealed {
	t.Helper()
	in, ok := s.Held(f)
	if !ok || !in.InClear() || in.Data != "" || in.IV != "" {
		t.Fatalf("%s is not held", f)
	}
	return in
}

// TestHeldCard is the way of a card: submitted in pieces, held, taken together, resealed for the issuer of the payment.
func TestHeldCard(t *testing.T) {
	h := newTill(t)
	card, err := h.holder.Rehold(sessionToken, h.parts(t, "4111111111111111", "123"), paymentToken)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.redeem(t, paymentToken, card, h.issuer)
	if err != nil {
		t.Fatal(err)
	}
	issuer := readPeer(t, issuerRSA(), s.IssuerPreamble())
	for f, want := range map[vault.Field]string{vault.FieldPAN: "4111111111111111", vault.FieldCVC: "123"} {
		out, err := s.Reseal(f, vault.ToIssuer, held(t, s, f))
		if err != nil {
			t.Fatal(err)
		}
		if got, n := issuer.open(t, out); got != want || n != 16 {
			t.Errorf("%s: %q under %d bytes", f, got, n)
		}
	}
	for d, want := range map[vault.Detail]string{vault.DetailExpiry: "1230", vault.DetailName: "Zoë O'Hara-李"} {
		if got, ok := s.HeldDetail(d); got != want || !ok {
			t.Errorf("%s: %q, %t", d, got, ok)
		}
	}
	for f, want := range map[vault.Field]string{vault.FieldPAN: "411111******1111", vault.FieldCVC: "***"} {
		if got, err := s.Mask(f, held(t, s, f)); got != want || err != nil {
			t.Errorf("mask of %s: %q, %v", f, got, err)
		}
	}
	// An issuer in clear gets the same, spliced into its message.
	s, err = h.redeem(t, paymentToken, card, vault.InsecureClearIssuer())
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, held(t, s, vault.FieldPAN))
	if err != nil {
		t.Fatal(err)
	}
	if got := rendered(t, s, out); got != "4111111111111111" {
		t.Errorf("in clear: %q", got)
	}
	// Without an issuer there is a mask, and nothing to reseal for.
	s, err = h.redeem(t, paymentToken, card, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Mask(vault.FieldPAN, held(t, s, vault.FieldPAN)); got != "411111******1111" || err != nil {
		t.Errorf("no issuer: %q, %v", got, err)
	}
	if out, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, held(t, s, vault.FieldPAN)); err != vault.ErrOpen || out != (vault.Sealed{}) {
		t.Errorf("no issuer: %v", err)
	}
	if n := metric(t, h.vault, "cardstile_vault_rsa_duration_seconds", nil); n != 0 {
		t.Errorf("%v RSA operations", n)
	}
}

// TestHeldPartly: a card has what was submitted, and says so.
func TestHeldPartly(t *testing.T) {
	h := newTill(t)
	parts := h.parts(t, "378282246310005", "1234")
	delete(parts.Fields, vault.FieldCVC)
	delete(parts.Details, vault.DetailName)
	s, err := h.redeem(t, paymentToken, must(h.holder.Rehold(sessionToken, parts, paymentToken)), h.issuer)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []vault.Field{0, vault.FieldPAN, vault.FieldCVC, vault.FieldPIN, vault.FieldAccount, 9} {
		if _, ok := s.Held(f); ok != (f == vault.FieldPAN) {
			t.Errorf("%s is held: %t", f, ok)
		}
	}
	for _, d := range []vault.Detail{0, vault.DetailExpiry, vault.DetailName, 9} {
		if got, ok := s.HeldDetail(d); ok != (d == vault.DetailExpiry) || (got == "1230") != ok {
			t.Errorf("%s is held: %q", d, got)
		}
	}
	s.Close()
	if _, ok := s.Held(vault.FieldPAN); ok {
		t.Error("a closed session holds a field")
	}
	if got, ok := s.HeldDetail(vault.DetailExpiry); ok || got != "" {
		t.Error("a closed session holds a detail")
	}
	if _, ok := h.page.Held(vault.FieldPAN); ok {
		t.Error("a page holds a field")
	}
	if _, ok := h.page.HeldDetail(vault.DetailExpiry); ok {
		t.Error("a page holds a detail")
	}
}

// TestHoldSealed: what comes over a sealed leg can be held too.
func TestHoldSealed(t *testing.T) {
	h := newTill(t)
	s, client, _ := h.open(t)
	part, err := h.holder.Hold(s, sessionToken, vault.FieldPAN, client.seal("4111111111111111", 12))
	if err != nil {
		t.Fatal(err)
	}
	card := must(h.holder.Rehold(sessionToken, vault.Parts{Fields: map[vault.Field][]byte{vault.FieldPAN: part}}, paymentToken))
	redeemed, err := h.redeem(t, paymentToken, card, vault.InsecureClearIssuer())
	if err != nil {
		t.Fatal(err)
	}
	if got := rendered(t, redeemed, must(redeemed.Reseal(vault.FieldPAN, vault.ToIssuer, held(t, redeemed, vault.FieldPAN)))); got != "4111111111111111" {
		t.Errorf("%q", got)
	}
}

// TestHeldIsHKDF opens a part as RFC 5869 says it is sealed, with the standard library alone.
func TestHeldIsHKDF(t *testing.T) {
	h := newTill(t)
	const label = "cardstile held card v1"
	sealed := h.parts(t, "4111111111111111", "123").Fields[vault.FieldPAN]
	if tag := sha256.Sum256([]byte("storage-2026")); !bytes.Equal(sealed[:3], tag[:3]) {
		t.Errorf("the key's tag is %x", sealed[:3])
	}
	sub := must(hkdf.Key(sha256.New, bytes.Repeat([]byte{7}, 32), []byte(sessionToken), label, 32))
	digest := sha256.Sum256([]byte(label + "\x00" + sessionToken))
	gcm := must(cipher.NewGCM(must(aes.NewCipher(sub))))
	got, err := gcm.Open(nil, sealed[3:15], sealed[15:], append([]byte(label+"\x00pan\x00"), digest[:]...))
	if err != nil || string(got) != "4111111111111111" {
		t.Errorf("%q, %v", got, err)
	}
}

// TestStoreReadsNothing has what a dump of the store has, and every key of the gateway: all but the tokens [11].
func TestStoreReadsNothing(t *testing.T) {
	h := newTill(t)
	parts := h.parts(t, "4111111111111111", "123")
	card := must(h.holder.Rehold(sessionToken, parts, paymentToken))
	k := storageKey(t, "storage-2026", "", 7)
	const label = "cardstile held card v1"
	var rings []*keys.SealRing
	ring := must(keys.NewTokenRing(label, k))
	guesses := []string{"", strings.Repeat("\x00", 32), label}
	for _, token := range []string{sessionToken, paymentToken} { // digests are what stores know of tokens
		for _, text := range []string{token, label + "\x00" + token} {
			digest := sha256.Sum256([]byte(text))
			guesses = append(guesses, string(digest[:]), fmt.Sprintf("%x", digest), base64.RawURLEncoding.EncodeToString(digest[:]))
		}
	}
	for _, guess := range guesses {
		if r, err := ring.For(guess); err == nil {
			rings = append(rings, r)
		}
	}
	for _, l := range []string{label, "card", "grant", "answer"} {
		rings = append(rings, must(keys.NewSealRing(l, k)))
	}
	dump := [][]byte{card}
	for _, v := range parts.Fields {
		dump = append(dump, v)
	}
	for _, v := range parts.Details {
		dump = append(dump, v)
	}
	for _, v := range dump {
		for _, leak := range []string{"4111", "123", "1230", "Zo", "Hara", base64.StdEncoding.EncodeToString([]byte("411111"))} {
			if bytes.Contains(v, []byte(leak)) && len(leak) > 3 {
				t.Errorf("%x shows %s", v, leak)
			}
		}
		for i, r := range rings {
			for _, token := range append(guesses, sessionToken, paymentToken) {
				digest := sha256.Sum256([]byte(label + "\x00" + token))
				for _, part := range []string{"pan", "cvc", "expiry", "name", "card"} {
					if got, err := r.Open(nil, append([]byte(label+"\x00"+part+"\x00"), digest[:]...), v); err == nil {
						t.Errorf("ring %d opens %s: %q", i, part, got)
					}
				}
			}
		}
	}
}

// TestReholdRefuses: each value opens as what it is, under its token, and no other way; one that does not spoils all.
func TestReholdRefuses(t *testing.T) {
	h := newTill(t)
	other := "b3RoZXIgdG9rZW4gb3RoZXIgdG9rZW4gb3RoZXIgdG8"
	good := h.parts(t, "4111111111111111", "123")
	card := must(h.holder.Rehold(sessionToken, good, paymentToken))
	elsewhere := must(h.holder.Hold(h.page, other, vault.FieldPAN, h.submitted(t, "/cardNumber", "4111111111111111")))
	pan, cvc, expiry, name := good.Fields[vault.FieldPAN], good.Fields[vault.FieldCVC], good.Details[vault.DetailExpiry], good.Details[vault.DetailName]
	fields := func(f vault.Field, v []byte) vault.Parts {
		return vault.Parts{Fields: map[vault.Field][]byte{f: v}}
	}
	part := func(of, text string) []byte { return must(h.holder.HoldPart(sessionToken, of, text)) }
	with := func(d vault.Detail, v []byte) vault.Parts {
		return vault.Parts{Fields: map[vault.Field][]byte{vault.FieldPAN: pan}, Details: map[vault.Detail][]byte{d: v}}
	}
	cases := map[string]struct {
		from  string
		parts vault.Parts
		to    string
	}{
		"nothing":           {sessionToken, vault.Parts{}, paymentToken},
		"details alone":     {sessionToken, vault.Parts{Details: good.Details}, paymentToken},
		"another token":     {other, good, paymentToken},
		"the payment's":     {paymentToken, good, other},
		"no token":          {"", good, paymentToken},
		"a short token":     {sessionToken[:21], good, paymentToken},
		"the same token":    {sessionToken, good, sessionToken},
		"another's number":  {sessionToken, fields(vault.FieldPAN, elsewhere), paymentToken},
		"CVC as PAN":        {sessionToken, fields(vault.FieldPAN, cvc), paymentToken},
		"PAN as CVC":        {sessionToken, fields(vault.FieldCVC, pan), paymentToken},
		"PAN as account":    {sessionToken, fields(vault.FieldAccount, pan), paymentToken},
		"PAN as PIN":        {sessionToken, fields(vault.FieldPIN, pan), paymentToken},
		"PAN as nothing":    {sessionToken, fields(0, pan), paymentToken},
		"PAN as unknown":    {sessionToken, fields(200, pan), paymentToken},
		"expiry as PAN":     {sessionToken, fields(vault.FieldPAN, expiry), paymentToken},
		"PAN as name":       {sessionToken, with(vault.DetailName, pan), paymentToken},
		"name as expiry":    {sessionToken, with(vault.DetailExpiry, name), paymentToken},
		"expiry as nothing": {sessionToken, with(0, expiry), paymentToken},
		"expiry as unknown": {sessionToken, with(200, expiry), paymentToken},
		"a card as PAN":     {paymentToken, fields(vault.FieldPAN, card), other},
		"empty":             {sessionToken, fields(vault.FieldPAN, nil), paymentToken},
		"nothing sealed":    {sessionToken, fields(vault.FieldPAN, pan[:keys.TagBytes+keys.SealOverhead]), paymentToken},
		"too long":          {sessionToken, fields(vault.FieldPAN, make([]byte, 1<<20)), paymentToken},
		// What none of us would have sealed.
		"a PIN":            {sessionToken, fields(vault.FieldPIN, part("pin", "245820FFFFFFFFFF")), paymentToken},
		"a field of none":  {sessionToken, fields(0, part("invalid", "x")), paymentToken},
		"a detail of none": {sessionToken, with(0, part("invalid", "x")), paymentToken},
		"an empty PAN":     {sessionToken, fields(vault.FieldPAN, part("pan", "")), paymentToken},
		"256 bytes":        {sessionToken, with(vault.DetailName, part("name", strings.Repeat("a", 256))), paymentToken},
	}
	for i := range 8 * len(pan) {
		changed := bytes.Clone(pan)
		changed[i/8] ^= 1 << (i % 8)
		cases[fmt.Sprintf("bit %d", i)] = struct {
			from  string
			parts vault.Parts
			to    string
		}{sessionToken, vault.Parts{Fields: map[vault.Field][]byte{vault.FieldPAN: changed, vault.FieldCVC: cvc}}, paymentToken}
	}
	for n := range pan {
		cases[fmt.Sprintf("cut to %d", n)] = struct {
			from  string
			parts vault.Parts
			to    string
		}{sessionToken, fields(vault.FieldPAN, pan[:n]), paymentToken}
	}
	for name, c := range cases {
		if out, err := h.holder.Rehold(c.from, c.parts, c.to); err != vault.ErrOpen || out != nil {
			t.Errorf("%s: %x, %v", name, out, err)
		}
	}
	if out, err := h.holder.Rehold(sessionToken, good, paymentToken[:21]); err == nil || err == vault.ErrOpen || out != nil {
		t.Errorf("to a short token: %v", err)
	}
	if _, err := h.holder.Rehold(sessionToken, good, paymentToken); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// TestRedeemRefuses: a card opens as the leg of a session under its token alone, and every bit of it matters.
func TestRedeemRefuses(t *testing.T) {
	h := newTill(t)
	parts := h.parts(t, "4111111111111111", "123")
	card := must(h.holder.Rehold(sessionToken, parts, paymentToken))
	type redemption struct {
		token string
		card  []byte
	}
	cases := map[string]redemption{
		"the session's token":  {sessionToken, card},
		"no token":             {"", card},
		"a short token":        {paymentToken[:21], card},
		"a part":               {sessionToken, parts.Fields[vault.FieldPAN]},
		"nothing":              {paymentToken, nil},
		"a byte more":          {paymentToken, append(bytes.Clone(card), 0)},
		"too long":             {paymentToken, make([]byte, 1<<20)},
		"what we do not write": {paymentToken, must(h.holder.HoldPart(paymentToken, "card", "x"))},
		"twice":                {paymentToken, must(h.holder.HoldPart(paymentToken, "card", "\x01\x031234\x01\x031234"))},
		"out of order":         {paymentToken, must(h.holder.HoldPart(paymentToken, "card", "\x02\x03123\x01\x0c411111111111"))},
		"a PIN":                {paymentToken, must(h.holder.HoldPart(paymentToken, "card", "\x03\x10245820FFFFFFFFFF"))},
		"a length too long":    {paymentToken, must(h.holder.HoldPart(paymentToken, "card", "\x01\x0d411111111111"))},
		"no length":            {paymentToken, must(h.holder.HoldPart(paymentToken, "card", "\x01"))},
	}
	for i := range 8 * len(card) {
		changed := bytes.Clone(card)
		changed[i/8] ^= 1 << (i % 8)
		cases[fmt.Sprintf("bit %d", i)] = redemption{paymentToken, changed}
	}
	for n := range card {
		cases[fmt.Sprintf("cut to %d", n)] = redemption{paymentToken, card[:n]}
	}
	for name, c := range cases {
		if s, err := h.redeem(t, c.token, c.card, vault.InsecureClearIssuer()); err != vault.ErrOpen {
			t.Errorf("%s: %v, %v", name, s, err)
		}
	}
	if n := opens(t, h.vault, "failed"); n != len(cases) {
		t.Errorf("%d failures counted of %d", n, len(cases))
	}
	// What was authenticated is still checked before it goes anywhere.
	s, err := h.redeem(t, paymentToken, must(h.holder.HoldPart(paymentToken, "card", "\x01\x0b41111111111\x02\x02\"}")), vault.InsecureClearIssuer())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []vault.Field{vault.FieldPAN, vault.FieldCVC} {
		if out, err := s.Reseal(f, vault.ToIssuer, held(t, s, f)); err != vault.ErrOpen || out != (vault.Sealed{}) {
			t.Errorf("%s: %v", f, err)
		}
		if out, err := s.Mask(f, held(t, s, f)); err != vault.ErrOpen || out != "" {
			t.Errorf("%s: %v", f, err)
		}
	}
}

func TestHoldRefuses(t *testing.T) {
	h := newTill(t)
	sealed, client, issuer := h.open(t)
	number := h.submitted(t, "/cardNumber", "4111111111111111")
	closed := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: vault.InsecureClearClient()}))
	closed.Close()
	issuerOnly := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Issuer: vault.InsecureClearIssuer()}))
	_, text := newPeer(t, &issuerRSA().PublicKey)
	blind := must(h.vault.Blind(binding, must(h.issuer.Parse(text))))
	redeemed := must(h.redeem(t, paymentToken, must(h.holder.Rehold(sessionToken, h.parts(t, "4111111111111111", "123"), paymentToken)), h.issuer))
	for name, c := range map[string]struct {
		s  *vault.Session
		f  vault.Field
		in vault.Sealed
	}{
		"no field":              {h.page, 0, number},
		"unknown field":         {h.page, 200, number},
		"a PIN":                 {h.page, vault.FieldPIN, h.submitted(t, "/pin", "245820FFFFFFFFFF")},
		"an account":            {h.page, vault.FieldAccount, h.submitted(t, "/iban", "4111111111111111")},
		"PAN as CVC":            {h.page, vault.FieldCVC, number},
		"11 digits":             {h.page, vault.FieldPAN, h.submitted(t, "/cardNumber", "41111111111")},
		"20 digits":             {h.page, vault.FieldPAN, h.submitted(t, "/cardNumber", "41111111111111111111")},
		"groups":                {h.page, vault.FieldPAN, h.submitted(t, "/cardNumber", "4111 1111 1111 1111")},
		"CVC of 2":              {h.page, vault.FieldCVC, h.submitted(t, "/cvv", "12")},
		"CVC of 5":              {h.page, vault.FieldCVC, h.submitted(t, "/cvv", "12345")},
		"empty":                 {h.page, vault.FieldCVC, h.submitted(t, "/cvv", "")},
		"ciphertext":            {h.page, vault.FieldPAN, client.seal("4111111111111111", 16)},
		"nothing":               {h.page, vault.FieldPAN, vault.Sealed{}},
		"a handle, sealed leg":  {sealed, vault.FieldPAN, number},
		"the issuer's field":    {sealed, vault.FieldPAN, issuer.seal("4111111111111111", 16)},
		"closed":                {closed, vault.FieldPAN, number},
		"no client":             {issuerOnly, vault.FieldPAN, number},
		"blind":                 {blind, vault.FieldPAN, client.seal("4111111111111111", 16)},
		"held already":          {redeemed, vault.FieldPAN, held(t, redeemed, vault.FieldPAN)},
		"held by another":       {h.page, vault.FieldPAN, held(t, redeemed, vault.FieldPAN)},
		"submitted to redeemed": {redeemed, vault.FieldPAN, number},
	} {
		if out, err := h.holder.Hold(c.s, sessionToken, c.f, c.in); err != vault.ErrOpen || out != nil {
			t.Errorf("%s: %x, %v", name, out, err)
		}
	}
	for _, token := range []string{"", sessionToken[:21]} {
		if out, err := h.holder.Hold(h.page, token, vault.FieldPAN, number); err == nil || out != nil || strings.Contains(err.Error(), "4111") {
			t.Errorf("token of %d: %x, %v", len(token), out, err)
		}
		if out, err := h.holder.HoldDetail(token, vault.DetailExpiry, "1230"); err == nil || out != nil {
			t.Errorf("token of %d: %x, %v", len(token), out, err)
		}
	}
	for name, ks := range map[string][]*keys.Key{
		"no keys": nil, "nil": {nil}, "another use": {h.key}, "two environments": {storageKey(t, "a", "test", 1), storageKey(t, "b", "production", 2)},
	} {
		if holder, err := h.vault.NewHolder(ks...); err == nil || holder != nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestHeldDetails(t *testing.T) {
	h := newTill(t)
	long := strings.Repeat("é", 127) + "e"
	for _, c := range []struct {
		d    vault.Detail
		text string
		ok   bool
	}{
		{vault.DetailExpiry, "0126", true}, {vault.DetailExpiry, "1299", true}, {vault.DetailExpiry, "1326", false}, {vault.DetailExpiry, "0026", false},
		{vault.DetailExpiry, "12/30", false}, {vault.DetailExpiry, "122030", false}, {vault.DetailExpiry, "12 3", false}, {vault.DetailExpiry, "", false}, {vault.DetailExpiry, "١٢٣٠", false},
		{vault.DetailName, "A", true}, {vault.DetailName, "J. R. O'Neill-Smith 3rd", true}, {vault.DetailName, "محمد", true}, {vault.DetailName, long, true}, {vault.DetailName, `"\`, true},
		{vault.DetailName, long + "e", false}, {vault.DetailName, "", false}, {vault.DetailName, "a\nb", false}, {vault.DetailName, "a\x00", false}, {vault.DetailName, "a\x7f", false},
		{vault.DetailName, "a\xff", false}, {vault.DetailName, "a\u202eb", false}, {vault.DetailName, "a\u00a0b", false},
		{vault.DetailName, "4111111111111111", false}, {vault.DetailName, "Name 4111 1111 1111 1111", false},
		{0, "1230", false}, {3, "1230", false}, {200, "1230", false},
	} {
		part, err := h.holder.HoldDetail(sessionToken, c.d, c.text)
		if !c.ok {
			if err != vault.ErrOpen || part != nil {
				t.Errorf("%s %q: %v", c.d, c.text, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s %q: %v", c.d, c.text, err)
		}
		parts := h.parts(t, "4111111111111111", "123")
		parts.Details[c.d] = part
		s, err := h.redeem(t, paymentToken, must(h.holder.Rehold(sessionToken, parts, paymentToken)), h.issuer)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := s.HeldDetail(c.d); got != c.text || !ok {
			t.Errorf("%s %q became %q", c.d, c.text, got)
		}
	}
	for d, want := range map[vault.Detail]string{vault.DetailExpiry: "expiry", vault.DetailName: "name", 0: "invalid", 9: "invalid"} {
		if d.String() != want {
			t.Errorf("%d is %s", d, d)
		}
	}
}

// TestHeldHandlesAreHeld: a handle to a held field is good in its session, as its field, towards the issuer.
func TestHeldHandlesAreHeld(t *testing.T) {
	h := newTill(t)
	card := must(h.holder.Rehold(sessionToken, h.parts(t, "4111111111111111", "123"), paymentToken))
	s, again := must(h.redeem(t, paymentToken, card, h.issuer)), must(h.redeem(t, paymentToken, card, h.issuer))
	issuer := readPeer(t, issuerRSA(), s.IssuerPreamble())
	both, _, _ := h.openLegs(t, true, true)
	sealed, client, _ := h.open(t)
	pan := held(t, s, vault.FieldPAN)
	for name, c := range map[string]struct {
		s  *vault.Session
		f  vault.Field
		d  vault.Direction
		in vault.Sealed
	}{
		"as CVC":                  {s, vault.FieldCVC, vault.ToIssuer, pan},
		"as account":              {s, vault.FieldAccount, vault.ToIssuer, pan},
		"to the client":           {s, vault.FieldPAN, vault.ToClient, pan},
		"the issuer's to the leg": {s, vault.FieldPAN, vault.ToClient, issuer.seal("4111111111111111", 16)},
		"of another redemption":   {again, vault.FieldPAN, vault.ToIssuer, pan},
		"on legs in clear":        {both, vault.FieldPAN, vault.ToIssuer, pan},
		"on sealed legs":          {sealed, vault.FieldPAN, vault.ToIssuer, pan},
		"a body's on the card":    {s, vault.FieldPAN, vault.ToIssuer, h.submitted(t, "/cardNumber", "4111111111111111")},
		"a ciphertext":            {s, vault.FieldPAN, vault.ToIssuer, client.seal("4111111111111111", 16)},
		"nothing":                 {s, vault.FieldPAN, vault.ToIssuer, vault.Sealed{}},
	} {
		if out, err := c.s.Reseal(c.f, c.d, c.in); err != vault.ErrOpen || out != (vault.Sealed{}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		s  *vault.Session
		f  vault.Field
		in vault.Sealed
	}{
		"another redemption": {again, vault.FieldPAN, pan}, "legs in clear": {both, vault.FieldPAN, pan}, "sealed legs": {sealed, vault.FieldPAN, pan}, "as CVC": {s, vault.FieldCVC, pan},
	} {
		if got, err := c.s.Mask(c.f, c.in); err != vault.ErrOpen || got != "" {
			t.Errorf("mask, %s: %q, %v", name, got, err)
		}
	}
	// The issuer's fields are masked as ever.
	if got, err := s.Mask(vault.FieldPAN, issuer.seal("5555555555554444", 16)); got != "555555******4444" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	// It is not written before it is resealed, and texts on it change nothing.
	if o, err := s.Render([]byte("[]"), []vault.Splice{{At: 1, Field: pan}}); err != vault.ErrSplice || o != nil {
		t.Errorf("rendered: %v", err)
	}
	out, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, withTexts(pan, client.seal("4111111111111111", 12)))
	if err != nil {
		t.Fatal(err)
	}
	if got, n := issuer.open(t, out); got != "4111111111111111" || n != 16 {
		t.Errorf("%q under %d bytes", got, n)
	}
	memory := [][]byte{vault.HeldMemory(pan), vault.HeldMemory(held(t, s, vault.FieldCVC)), vault.HeldDetailMemory(pan, vault.DetailExpiry), vault.HeldDetailMemory(pan, vault.DetailName)}
	s.Close()
	for _, m := range memory {
		if len(m) == 0 || len(bytes.Trim(m, "\x00")) != 0 {
			t.Error("what was held is not zeroed")
		}
	}
	if out, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, pan); err != vault.ErrOpen || out != (vault.Sealed{}) {
		t.Errorf("closed: %v", err)
	}
}

func TestHeldOpening(t *testing.T) {
	h := newTill(t)
	card := h.holder.Held(paymentToken, must(h.holder.Rehold(sessionToken, h.parts(t, "4111111111111111", "123"), paymentToken)))
	_, text := newPeer(t, h.key.Public())
	if !card.Present() || (vault.Held{}).Present() {
		t.Error("present")
	}
	for name, c := range map[string]struct {
		o    vault.Opening
		want error // nil: some other error
	}{
		"no binding":               {vault.Opening{Held: card, Issuer: h.issuer}, vault.ErrBinding},
		"short binding":            {vault.Opening{Binding: binding[:15], Held: card, Issuer: h.issuer}, vault.ErrBinding},
		"beside a client":          {vault.Opening{Binding: binding, Held: card, Client: vault.InsecureClearClient()}, nil},
		"beside a client's legs":   {vault.Opening{Binding: binding, Held: card, Client: h.client, Preamble: h.preamble(t, text), Issuer: h.issuer}, nil},
		"with a preamble":          {vault.Opening{Binding: binding, Held: card, Preamble: h.preamble(t, text), Issuer: h.issuer}, nil},
		"absent":                   {vault.Opening{Binding: binding}, nil},
		"a card that is not there": {vault.Opening{Binding: binding, Held: h.holder.Held(paymentToken, nil)}, vault.ErrOpen},
	} {
		c.o.Slot = must(h.vault.Reserve())
		if s, err := h.vault.Open(context.Background(), c.o); s != nil || err == nil || c.want != nil && err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := metric(t, h.vault, "cardstile_vault_rsa_queue", nil); n != 0 {
		t.Errorf("%v places held", n)
	}
}

// TestHoldersRotate: what an old primary sealed is taken over and redeemed while its key is there, and not after.
func TestHoldersRotate(t *testing.T) {
	h := newTill(t)
	old, young := storageKey(t, "storage-2026", "", 7), storageKey(t, "storage-2027", "", 8)
	during, after := must(h.vault.NewHolder(young, old)), must(h.vault.NewHolder(young))
	parts := h.parts(t, "4111111111111111", "123")
	before := must(h.holder.Rehold(sessionToken, parts, paymentToken))
	card, err := during.Rehold(sessionToken, parts, paymentToken)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		holder *vault.Holder
		card   []byte
		want   error
	}{"old, during": {during, before, nil}, "new, during": {during, card, nil}, "new, after": {after, card, nil}, "old, after": {after, before, vault.ErrOpen}, "new, before": {h.holder, card, vault.ErrOpen}} {
		h.holder = c.holder
		if _, err := h.redeem(t, paymentToken, c.card, h.issuer); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, err := after.Rehold(sessionToken, parts, paymentToken); err != vault.ErrOpen || out != nil {
		t.Errorf("parts, after: %v", err)
	}
}

func TestHeldFreshEachTime(t *testing.T) {
	h := newTill(t)
	seen := map[string]bool{}
	for range 50 {
		parts := h.parts(t, "4111111111111111", "123")
		for _, v := range [][]byte{parts.Fields[vault.FieldPAN], parts.Details[vault.DetailExpiry], must(h.holder.Rehold(sessionToken, parts, paymentToken))} {
			if seen[string(v[3:15])] {
				t.Fatal("a nonce came twice")
			}
			seen[string(v[3:15])] = true
		}
	}
}

func TestHoldsAreCounted(t *testing.T) {
	h := newTill(t)
	parts := h.parts(t, "4111111111111111", "123")
	must(h.holder.Rehold(sessionToken, parts, paymentToken))
	_, _ = h.holder.Rehold(paymentToken, parts, sessionToken)
	_, _ = h.holder.Hold(h.page, sessionToken, vault.FieldCVC, h.submitted(t, "/cvv", "12"))
	_, _ = h.holder.HoldDetail(sessionToken, vault.DetailName, "")
	must(h.vault.NewHolder(storageKey(t, "another", "", 1))) // counts along
	for part, want := range map[string][2]float64{"pan": {1, 0}, "cvc": {1, 1}, "expiry": {1, 0}, "name": {1, 1}, "card": {1, 1}} {
		for i, result := range []string{"ok", "failed"} {
			if n := metric(t, h.vault, "cardstile_vault_holds_total", map[string]string{"part": part, "result": result}); n != want[i] {
				t.Errorf("%s %s: %v", part, result, n)
			}
		}
	}
	// A vault that holds nothing exposes none.
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newHouse(t).vault.Collectors()...)
	for _, f := range must(r.Gather()) {
		if f.GetName() == "cardstile_vault_holds_total" {
			t.Error("counted without a holder")
		}
	}
}

func TestNothingPrintsAHeldCard(t *testing.T) {
	h := newTill(t)
	card := must(h.holder.Rehold(sessionToken, h.parts(t, "4111111111111111", "123"), paymentToken))
	s := must(h.redeem(t, paymentToken, card, h.issuer))
	read := h.holder.Held(paymentToken, card)
	o := vault.Opening{Binding: binding, Held: read}
	pan := held(t, s, vault.FieldPAN)
	var leaks []string
	for _, secret := range []string{"41111111", "Zoë", "O'Hara", "1230", paymentToken[:8], sessionToken[:8], string(card[:8])} {
		leaks = append(leaks, secret, fmt.Sprintf("%x", secret), strings.Trim(fmt.Sprint([]byte(secret)), "[]"))
	}
	for _, v := range []any{h.holder, *h.holder, read, &read, o, &o, s, *s, pan, &pan, []vault.Sealed{pan}, struct{ h vault.Held }{read}, struct{ s *vault.Sealed }{&pan}} {
		texts := []string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		if encoded, err := json.Marshal(v); err == nil {
			texts = append(texts, string(encoded))
		}
		for _, got := range texts {
			for _, leak := range leaks {
				if strings.Contains(got, leak) {
					t.Errorf("%T shows a secret: %.200s", v, got)
				}
			}
		}
	}
}

// FuzzHeld: what was held comes out as it was, at the far end of the issuer's leg; and nothing comes out under another
// token, of a value that was changed, or of one that stands for another thing.
func FuzzHeld(f *testing.F) {
	h := newTill(f)
	f.Add(uint64(1), uint8(16), "A. Cardholder", uint8(12), sessionToken, paymentToken, uint16(0), byte(0))
	f.Add(uint64(2), uint8(19), "", uint8(0), sessionToken, sessionToken, uint16(20), byte(1))
	f.Add(uint64(3), uint8(15), "Zoë", uint8(99), strings.Repeat("A", 100), paymentToken+"\x00", uint16(200), byte(0x80))
	f.Fuzz(func(t *testing.T, seed uint64, n uint8, name string, year uint8, from, to string, at uint16, mask byte) {
		number := randomPAN(rand.New(rand.NewPCG(seed, 0)), 13+int(n)%7)
		expiry := fmt.Sprintf("%02d%02d", 1+seed%12, year%100)
		part, err := h.holder.Hold(h.page, from, vault.FieldPAN, h.submitted(t, "/cardNumber", number))
		if (err == nil) != (len(from) >= keys.MinTokenBytes) {
			t.Fatalf("token of %d: %v", len(from), err)
		}
		if err != nil {
			return
		}
		parts := vault.Parts{Fields: map[vault.Field][]byte{vault.FieldPAN: part}, Details: map[vault.Detail][]byte{}}
		parts.Details[vault.DetailExpiry] = must(h.holder.HoldDetail(from, vault.DetailExpiry, expiry))
		if sealed, err := h.holder.HoldDetail(from, vault.DetailName, name); err == nil {
			parts.Details[vault.DetailName] = sealed
		} else {
			name = ""
		}
		if out, err := h.holder.Rehold(from, vault.Parts{Fields: map[vault.Field][]byte{vault.FieldCVC: part}}, to); err != vault.ErrOpen || out != nil {
			t.Fatalf("a number as a code: %v", err)
		}
		card, err := h.holder.Rehold(from, parts, to)
		if (err == nil) != (from != to && len(to) >= keys.MinTokenBytes) {
			t.Fatalf("%q to %q: %v", from, to, err)
		}
		if err != nil {
			return
		}
		if bytes.Contains(card, []byte(number)) || bytes.Contains(part, []byte(number)) {
			t.Fatal("in clear")
		}
		if _, err := h.redeem(t, from, card, nil); err != vault.ErrOpen {
			t.Fatalf("%q opens what is under %q", from, to)
		}
		changed := bytes.Clone(card)
		changed[int(at)%len(card)] ^= mask
		s, err := h.redeem(t, to, changed, vault.InsecureClearIssuer())
		if (err == nil) != (mask == 0) || err != nil && err != vault.ErrOpen {
			t.Fatalf("changed by %#x at %d: %v", mask, at, err)
		}
		if err != nil {
			return
		}
		out, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, held(t, s, vault.FieldPAN))
		if err != nil {
			t.Fatal(err)
		}
		gotExpiry, _ := s.HeldDetail(vault.DetailExpiry)
		gotName, there := s.HeldDetail(vault.DetailName)
		if got := rendered(t, s, out); got != number || gotExpiry != expiry || gotName != name || there != (name != "") {
			t.Fatalf("%s, %s, %q became %s, %s, %q", number, expiry, name, got, gotExpiry, gotName)
		}
	})
}

// BenchmarkHold is once per field that a page submits.
func BenchmarkHold(b *testing.B) {
	h := newTill(b)
	in := h.submitted(b, "/cardNumber", "4111111111111111")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.holder.Hold(h.page, sessionToken, vault.FieldPAN, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRehold is once per payment, as is the opening of the card.
func BenchmarkRehold(b *testing.B) {
	h := newTill(b)
	parts := h.parts(b, "4111111111111111", "123")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h.holder.Rehold(sessionToken, parts, paymentToken); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOpenHeld(b *testing.B) {
	h := newTill(b)
	card := must(h.holder.Rehold(sessionToken, h.parts(b, "4111111111111111", "123"), paymentToken))
	b.ReportAllocs()
	for b.Loop() {
		s := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Held: h.holder.Held(paymentToken, card), Issuer: vault.InsecureClearIssuer()}))
		if _, ok := s.Held(vault.FieldPAN); !ok {
			b.Fatal("not held")
		}
		s.Close()
	}
}
