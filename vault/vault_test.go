package vault_test

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/internal/secret"
	"github.com/cardstile/cardstile/vault/keys"
)

var binding = bytes.Repeat([]byte{0xb1}, 32)

// The run's RSA keys: files for ours, a private key for the issuer's sandbox.
var (
	sessionPEM = sync.OnceValue(func() []byte { return must(keys.Generate(keys.UseSession, 0)) })
	secondPEM  = sync.OnceValue(func() []byte { return must(keys.Generate(keys.UseSession, 0)) })
	longerPEM  = sync.OnceValue(func() []byte { return must(keys.Generate(keys.UseSession, 2304)) })
	issuerRSA  = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	weakIssuer = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func sessionKey(t testing.TB, id, environment string, content []byte) *keys.Key {
	t.Helper()
	path := filepath.Join(t.TempDir(), id)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	k, err := keys.Load(keys.Config{ID: id, Use: keys.UseSession, File: path, Environment: environment})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// house is a vault with one session key and one issuer.
type house struct {
	vault  *vault.Vault
	key    *keys.Key
	client *vault.ClientKeys
	issuer *vault.IssuerKey
}

func newHouse(t testing.TB) *house {
	t.Helper()
	rain := must(envelope.ByName("rain"))
	k := sessionKey(t, "session-2026", "", sessionPEM())
	return &house{
		vault:  must(vault.New(vault.Config{})),
		key:    k,
		client: must(vault.NewClientKeys(rain, k)),
		issuer: must(vault.NewIssuerKey(rain, &issuerRSA().PublicKey)),
	}
}

// peer is the far end of a leg as the published clients write it: with the standard library alone.
type peer struct{ key []byte }

// newPeer makes a key as a client does, and its sessionid.
func newPeer(t testing.TB, pub *rsa.PublicKey) (*peer, string) {
	t.Helper()
	key := make([]byte, 16)
	_, _ = rand.Read(key)
	wrapped, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, pub, []byte(base64.StdEncoding.EncodeToString(key)), nil)
	if err != nil {
		t.Fatal(err)
	}
	return &peer{key}, base64.StdEncoding.EncodeToString(wrapped)
}

// readPeer is the issuer, which opens our preamble.
func readPeer(t testing.TB, private *rsa.PrivateKey, preamble string) *peer {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(preamble)
	if err != nil {
		t.Fatal(err)
	}
	text, err := rsa.DecryptOAEP(sha1.New(), nil, private, raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(key) != 16 {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	return &peer{key}
}

func (p *peer) seal(text string, ivBytes int) vault.Sealed {
	gcm := must(cipher.NewGCMWithNonceSize(must(aes.NewCipher(p.key)), ivBytes))
	iv := make([]byte, ivBytes)
	_, _ = rand.Read(iv)
	return vault.Sealed{
		Data: base64.StdEncoding.EncodeToString(gcm.Seal(nil, iv, []byte(text), nil)),
		IV:   base64.StdEncoding.EncodeToString(iv),
	}
}

func (p *peer) open(t testing.TB, s vault.Sealed) (text string, ivBytes int) {
	t.Helper()
	iv, data := must(base64.StdEncoding.DecodeString(s.IV)), must(base64.StdEncoding.DecodeString(s.Data))
	gcm := must(cipher.NewGCMWithNonceSize(must(aes.NewCipher(p.key)), len(iv)))
	plain, err := gcm.Open(nil, iv, data, nil)
	if err != nil {
		t.Errorf("the peer cannot open: %v", err)
	}
	return string(plain), len(iv)
}

func (h *house) preamble(t testing.TB, text string) vault.Preamble {
	t.Helper()
	p, err := h.client.Parse(text)
	if err != nil || !p.Present() {
		t.Fatalf("parse: %v", err)
	}
	return p
}

// open gives an open session and its two far ends.
func (h *house) open(t testing.TB) (s *vault.Session, client, issuer *peer) {
	t.Helper()
	client, text := newPeer(t, h.key.Public())
	s, err := h.vault.Open(context.Background(), vault.Opening{
		Binding: binding, Client: h.client, Preamble: h.preamble(t, text), Issuer: h.issuer, Slot: must(h.vault.Reserve()),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, client, readPeer(t, issuerRSA(), s.IssuerPreamble())
}

// opens is the counter of sessions opened, by result.
func opens(t testing.TB, v *vault.Vault, result string) int {
	t.Helper()
	return int(metric(t, v, "cardstile_vault_opens_total", map[string]string{"result": result}))
}

func metric(t testing.TB, v *vault.Vault, name string, labels map[string]string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(v.Collectors()...)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	next:
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if labels[l.GetName()] != l.GetValue() {
					continue next
				}
			}
			if h := m.GetHistogram(); h != nil {
				return float64(h.GetSampleCount())
			}
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s%v", name, labels)
	return 0
}

func TestBothWays(t *testing.T) {
	h := newHouse(t)
	s, client, issuer := h.open(t)
	for _, c := range []struct {
		field vault.Field
		text  string
	}{
		{vault.FieldPAN, "4111111111111111"}, {vault.FieldPAN, "411111111111"}, {vault.FieldPAN, "4111111111111111111"},
		{vault.FieldCVC, "123"}, {vault.FieldCVC, "1234"},
		{vault.FieldPIN, "245820FFFFFFFFFF"}, {vault.FieldPIN, "2c582039174658FF"},
		{vault.FieldAccount, "4111111111111111"}, {vault.FieldAccount, "1234"}, {vault.FieldAccount, "GB29 NWBK 6016 1331 9268 19"},
		{vault.FieldAccount, "MT31 MALT 0110 0000 0001 2345 mtlc"}, {vault.FieldAccount, "+994 50-123-45-67"},
	} {
		for _, ivBytes := range []int{12, 16} {
			in := issuer.seal(c.text, ivBytes)
			out, err := s.Reseal(c.field, vault.ToClient, in)
			if err != nil {
				t.Fatalf("%s to client: %v", c.field, err)
			}
			if got, n := client.open(t, out); got != c.text || n != 16 {
				t.Errorf("%s to client: %q under %d bytes", c.field, got, n)
			}
			out, err = s.Reseal(c.field, vault.ToIssuer, client.seal(c.text, ivBytes))
			if err != nil {
				t.Fatalf("%s to issuer: %v", c.field, err)
			}
			if got, n := issuer.open(t, out); got != c.text || n != ivBytes {
				t.Errorf("%s to issuer: %q under %d bytes, want %d", c.field, got, n, ivBytes)
			}
		}
	}
}

// TestFormatsMeet: a client's leg of one format and an issuer's of another, both ways; gnosis has 12-byte IVs alone.
func TestFormatsMeet(t *testing.T) {
	h := newHouse(t)
	gnosis := must(envelope.ByName("gnosis"))
	clientKeys, issuerKey := must(vault.NewClientKeys(gnosis, h.key)), must(vault.NewIssuerKey(gnosis, &issuerRSA().PublicKey))
	key, text, err := gnosis.Wrap(h.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	client := must(gnosis.NewCipher(key))
	s := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: clientKeys, Preamble: must(clientKeys.Parse(text)), Issuer: h.issuer}))
	issuer := readPeer(t, issuerRSA(), s.IssuerPreamble())
	data, iv, err := client.Seal(secret.From([]byte("4111111111111111")), 12)
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, vault.Sealed{Data: data, IV: iv})
	if err != nil {
		t.Fatal(err)
	}
	if got, n := issuer.open(t, out); got != "4111111111111111" || n != 12 {
		t.Errorf("gnosis to rain: %q under %d bytes", got, n)
	}
	out, err = s.Reseal(vault.FieldPAN, vault.ToClient, issuer.seal("4111111111111111", 16))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.Open(out.Data, out.IV); err != nil || string(got.Bytes()) != "4111111111111111" || len(out.IV) != 16 {
		t.Errorf("rain to gnosis: %v", err)
	}
	// The other way round: what a page of ours sealed as rain's clients do goes to gnosis, which wants its own.
	rainClient, text := newPeer(t, h.key.Public())
	s = must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: h.client, Preamble: h.preamble(t, text), Issuer: issuerKey}))
	wrapped := must(gnosis.ParsePreamble(s.IssuerPreamble(), 256))
	theirs := must(gnosis.NewCipher(must(gnosis.Unwrap(issuerRSA(), 256, wrapped))))
	out, err = s.Reseal(vault.FieldPAN, vault.ToIssuer, rainClient.seal("4111111111111111", 16))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := theirs.Open(out.Data, out.IV); err != nil || string(got.Bytes()) != "4111111111111111" || len(out.IV) != 16 {
		t.Errorf("rain's client to gnosis: %v", err)
	}
}

// TestPINIsRespelled: an issuer's capital length digit becomes what Exa's client reads; weak PINs are shown, not set.
func TestPINIsRespelled(t *testing.T) {
	s, client, issuer := newHouse(t).open(t)
	out, err := s.Reseal(vault.FieldPIN, vault.ToClient, issuer.seal("2C582039174658FF", 16))
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := client.open(t, out); got != "2c582039174658FF" {
		t.Errorf("got %q", got)
	}
}

func TestWeakPIN(t *testing.T) {
	h := newHouse(t)
	s, client, issuer := h.open(t)
	for _, block := range []string{"241234FFFFFFFFFF", "240000FFFFFFFFFF", "26654321FFFFFFFF"} {
		if out, err := s.Reseal(vault.FieldPIN, vault.ToIssuer, client.seal(block, 16)); err != vault.ErrWeakPIN || out != (vault.Sealed{}) {
			t.Errorf("%s to issuer: %v, %v", block, out, err)
		}
		out, err := s.Reseal(vault.FieldPIN, vault.ToClient, issuer.seal(block, 16))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := client.open(t, out); got != block {
			t.Errorf("%s to client became %q", block, got)
		}
	}
	if n := metric(t, h.vault, "cardstile_vault_reseals_total", map[string]string{"field": "pin", "direction": "to_issuer", "result": "weak"}); n != 3 {
		t.Errorf("%v weak PINs counted", n)
	}
}

// TestResealRefuses: each gets the bare ErrOpen, and nothing is given out.
func TestResealRefuses(t *testing.T) {
	h := newHouse(t)
	s, client, issuer := h.open(t)
	_, otherClient, otherIssuer := h.open(t)
	good := issuer.seal("4111111111111111", 16)
	fromClient := client.seal("4111111111111111", 16)
	second := issuer.seal("123", 16)
	cases := map[string]struct {
		f  vault.Field
		d  vault.Direction
		in vault.Sealed
	}{
		"no field":                 {0, vault.ToClient, good},
		"unknown field":            {5, vault.ToClient, good},
		"no direction":             {vault.FieldPAN, 0, good},
		"unknown direction":        {vault.FieldPAN, 3, good},
		"wrong direction":          {vault.FieldPAN, vault.ToIssuer, good},
		"wrong direction back":     {vault.FieldPAN, vault.ToClient, fromClient},
		"another session's":        {vault.FieldPAN, vault.ToClient, otherIssuer.seal("4111111111111111", 16)},
		"another client's":         {vault.FieldPAN, vault.ToIssuer, otherClient.seal("4111111111111111", 16)},
		"CVC for PAN":              {vault.FieldPAN, vault.ToClient, second},
		"PAN for CVC":              {vault.FieldCVC, vault.ToClient, good},
		"PAN for PIN":              {vault.FieldPIN, vault.ToClient, good},
		"PIN for PAN":              {vault.FieldPAN, vault.ToClient, issuer.seal("245820FFFFFFFFFF", 16)},
		"IV of another field":      {vault.FieldPAN, vault.ToClient, vault.Sealed{Data: good.Data, IV: second.IV}},
		"data of another field":    {vault.FieldPAN, vault.ToClient, vault.Sealed{Data: second.Data, IV: good.IV}},
		"nothing":                  {vault.FieldPAN, vault.ToClient, vault.Sealed{}},
		"11 digits":                {vault.FieldPAN, vault.ToClient, issuer.seal("41111111111", 16)},
		"20 digits":                {vault.FieldPAN, vault.ToClient, issuer.seal("41111111111111111111", 16)},
		"a letter":                 {vault.FieldPAN, vault.ToClient, issuer.seal("411111111111111l", 16)},
		"blanks":                   {vault.FieldPAN, vault.ToClient, issuer.seal("4111 1111 1111 1111", 16)},
		"digits of another script": {vault.FieldPAN, vault.ToClient, issuer.seal("٤١١١١١١١", 16)},
		"a quote":                  {vault.FieldPAN, vault.ToClient, issuer.seal(`41111111111"1111`, 16)},
		"empty":                    {vault.FieldPAN, vault.ToClient, issuer.seal("", 16)},
		"CVC of 2":                 {vault.FieldCVC, vault.ToClient, issuer.seal("12", 16)},
		"CVC of 5":                 {vault.FieldCVC, vault.ToClient, issuer.seal("12345", 16)},
		"CVC with LF":              {vault.FieldCVC, vault.ToClient, issuer.seal("123\n", 16)},
		"PIN of 3":                 {vault.FieldPIN, vault.ToIssuer, client.seal("23582FFFFFFFFFFF", 16)},
		"PIN without a block":      {vault.FieldPIN, vault.ToIssuer, client.seal("5820", 16)},
		"account of 3":             {vault.FieldAccount, vault.ToClient, second},
		"account of 35":            {vault.FieldAccount, vault.ToClient, issuer.seal(strings.Repeat("1", 35), 16)},
		"account, empty":           {vault.FieldAccount, vault.ToClient, issuer.seal("", 16)},
		"account for PAN":          {vault.FieldPAN, vault.ToClient, issuer.seal("GB29NWBK60161331", 16)},
		"IV of 8":                  {vault.FieldPAN, vault.ToClient, issuer.seal("4111111111111111", 8)},
		"IV of 24":                 {vault.FieldPAN, vault.ToClient, issuer.seal("4111111111111111", 24)},
		"LF in data":               {vault.FieldPAN, vault.ToClient, vault.Sealed{Data: good.Data + "\n", IV: good.IV}},
	}
	data := must(base64.StdEncoding.DecodeString(good.Data))
	for i := range 8 * len(data) {
		changed := bytes.Clone(data)
		changed[i/8] ^= 1 << (i % 8)
		cases[fmt.Sprintf("bit %d", i)] = struct {
			f  vault.Field
			d  vault.Direction
			in vault.Sealed
		}{vault.FieldPAN, vault.ToClient, vault.Sealed{Data: base64.StdEncoding.EncodeToString(changed), IV: good.IV}}
	}
	for name, c := range cases {
		if out, err := s.Reseal(c.f, c.d, c.in); err != vault.ErrOpen || out != (vault.Sealed{}) {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	if out, err := s.Reseal(vault.FieldPAN, vault.ToClient, good); err != nil {
		t.Errorf("the good one: %v, %v", out, err)
	}
}

// TestAccountCharacters tries every byte at each end and between: a letter, a digit, a space, '+' and '-' are all there is.
func TestAccountCharacters(t *testing.T) {
	s, client, issuer := newHouse(t).open(t)
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 +-"
	for c := range 256 {
		for at := range 4 {
			text := []byte("1234")
			text[at] = byte(c)
			out, err := s.Reseal(vault.FieldAccount, vault.ToClient, issuer.seal(string(text), 16))
			if strings.IndexByte(allowed, byte(c)) < 0 {
				if err != vault.ErrOpen || out != (vault.Sealed{}) {
					t.Errorf("%q: %v", text, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if got, _ := client.open(t, out); got != string(text) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
}

func TestClosedSession(t *testing.T) {
	s, _, issuer := newHouse(t).open(t)
	in := issuer.seal("4111111111111111", 16)
	s.Close()
	s.Close()
	if out, err := s.Reseal(vault.FieldPAN, vault.ToClient, in); err != vault.ErrOpen {
		t.Errorf("%v, %v", out, err)
	}
	if s.IssuerPreamble() != "" {
		t.Error("a closed session has a preamble")
	}
	var none *vault.Session
	none.Close()
}

// TestFreshEachTime: no IV, issuer key or preamble comes twice.
func TestFreshEachTime(t *testing.T) {
	h := newHouse(t)
	seen := map[string]bool{}
	for range 3 {
		s, _, issuer := h.open(t)
		in := issuer.seal("4111111111111111", 16)
		for range 50 {
			out, err := s.Reseal(vault.FieldPAN, vault.ToClient, in)
			if err != nil || seen[out.IV] || seen[out.Data] || out.IV == in.IV {
				t.Fatalf("sealed alike: %v, %v", out, err)
			}
			seen[out.IV], seen[out.Data] = true, true
		}
		if seen[s.IssuerPreamble()] || seen[string(issuer.key)] {
			t.Error("an issuer session came again")
		}
		seen[s.IssuerPreamble()], seen[string(issuer.key)] = true, true
	}
}

func TestOpenRefuses(t *testing.T) {
	h := newHouse(t)
	_, text := newPeer(t, h.key.Public())
	_, foreign := newPeer(t, &issuerRSA().PublicKey)
	good := h.preamble(t, text)
	raw := must(base64.StdEncoding.DecodeString(text))
	parsed := func(p []byte) vault.Preamble { return h.preamble(t, base64.StdEncoding.EncodeToString(p)) }
	flipped := bytes.Clone(raw)
	flipped[100] ^= 1
	foreignSlot := must(must(vault.New(vault.Config{})).Reserve())
	for name, c := range map[string]struct {
		change func(*vault.Opening)
		want   error // nil: some other error
	}{
		"no binding":          {func(o *vault.Opening) { o.Binding = nil }, vault.ErrBinding},
		"15 bytes of binding": {func(o *vault.Opening) { o.Binding = binding[:15] }, vault.ErrBinding},
		"another key's":       {func(o *vault.Opening) { o.Preamble = h.preamble(t, foreign) }, vault.ErrOpen},
		"a byte short":        {func(o *vault.Opening) { o.Preamble = parsed(raw[:255]) }, vault.ErrOpen},
		"half":                {func(o *vault.Opening) { o.Preamble = parsed(raw[:128]) }, vault.ErrOpen},
		"a bit flipped":       {func(o *vault.Opening) { o.Preamble = parsed(flipped) }, vault.ErrOpen},
		"no preamble":         {func(o *vault.Opening) { o.Preamble = vault.Preamble{} }, vault.ErrPreamble},
		"no client keys":      {func(o *vault.Opening) { o.Client = nil }, nil},
		"no legs":             {func(o *vault.Opening) { *o = vault.Opening{Binding: binding, Slot: o.Slot} }, nil},
		"another's slot":      {func(o *vault.Opening) { o.Slot = foreignSlot }, nil},
	} {
		o := vault.Opening{Binding: binding, Client: h.client, Preamble: good, Issuer: h.issuer}
		own := must(h.vault.Reserve())
		o.Slot = own
		c.change(&o)
		s, err := h.vault.Open(context.Background(), o)
		if err == nil || s != nil || c.want != nil && err != c.want {
			t.Errorf("%s: %v, %v, want %v", name, s, err, c.want)
		}
		if o.Slot != own {
			own.Release()
		}
		if n := metric(t, h.vault, "cardstile_vault_rsa_queue", nil); n != 0 {
			t.Errorf("%s: %v places are not returned", name, n)
		}
	}
	if n := opens(t, h.vault, "failed"); n != 10 {
		t.Errorf("%d failures counted", n)
	}
	// Two of them reached RSA: another key's and the flipped one.
	if n := metric(t, h.vault, "cardstile_vault_rsa_duration_seconds", nil); n != 2 {
		t.Errorf("%v RSA operations", n)
	}
}

func TestParseRefuses(t *testing.T) {
	h := newHouse(t)
	for _, text := range []string{"", "!", strings.Repeat("A", 344+4), "AAAA\n", base64.StdEncoding.EncodeToString(make([]byte, 257))} {
		if p, err := h.client.Parse(text); err != vault.ErrPreamble || p.Present() {
			t.Errorf("%.20q: %v", text, err)
		}
		if p, err := h.issuer.Parse(text); err != vault.ErrPreamble || p.Present() {
			t.Errorf("%.20q for the issuer: %v", text, err)
		}
	}
}

// TestOneLeg: a session may have the issuer's leg alone, which costs no private key, or the client's alone.
func TestOneLeg(t *testing.T) {
	h := newHouse(t)
	s, err := h.vault.Open(context.Background(), vault.Opening{Binding: binding, Issuer: h.issuer})
	if err != nil {
		t.Fatal(err)
	}
	issuer := readPeer(t, issuerRSA(), s.IssuerPreamble())
	if _, err := s.Reseal(vault.FieldPAN, vault.ToClient, issuer.seal("4111111111111111", 16)); err != vault.ErrOpen {
		t.Errorf("to a client that is not there: %v", err)
	}
	if n := metric(t, h.vault, "cardstile_vault_rsa_duration_seconds", nil); n != 0 {
		t.Errorf("%v RSA operations", n)
	}
	client, text := newPeer(t, h.key.Public())
	s, err = h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: h.client, Preamble: h.preamble(t, text)})
	if err != nil || s.IssuerPreamble() != "" {
		t.Fatal(err)
	}
	if _, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, client.seal("4111111111111111", 16)); err != vault.ErrOpen {
		t.Errorf("to an issuer that is not there: %v", err)
	}
}

// TestSeveralClientKeys: while one key replaces another, clients of both are served, and each length has its own keys.
func TestSeveralClientKeys(t *testing.T) {
	h := newHouse(t)
	rain := must(envelope.ByName("rain"))
	second, longer := sessionKey(t, "second", "", secondPEM()), sessionKey(t, "longer", "", longerPEM())
	c, err := vault.NewClientKeys(rain, longer, h.key, second)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(c.PublicSPKI())
	if err != nil || !longer.Public().Equal(pub) {
		t.Errorf("the primary's SPKI is not given: %v", err)
	}
	c.PublicSPKI()[0] ^= 1
	if _, err := x509.ParsePKIXPublicKey(c.PublicSPKI()); err != nil {
		t.Error("a caller can change the SPKI")
	}
	before := 0.0
	for _, k := range []struct {
		key        *keys.Key
		operations float64
	}{{longer, 1}, {h.key, 1}, {second, 2}} {
		client, text := newPeer(t, k.key.Public())
		p, err := c.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		s, err := h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: c, Preamble: p, Issuer: h.issuer})
		if err != nil {
			t.Fatalf("%v: %v", k.key, err)
		}
		out, err := s.Reseal(vault.FieldPAN, vault.ToClient, readPeer(t, issuerRSA(), s.IssuerPreamble()).seal("4111111111111111", 16))
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := client.open(t, out); got != "4111111111111111" {
			t.Errorf("%v: %q", k.key, got)
		}
		after := metric(t, h.vault, "cardstile_vault_rsa_duration_seconds", nil)
		if after-before != k.operations {
			t.Errorf("%v: %v RSA operations, want %v", k.key, after-before, k.operations)
		}
		before = after
	}
}

// TestOneChainOfTwoFormats: the session keys of a route that has both are the same, and neither opens what is the other's.
func TestOneChainOfTwoFormats(t *testing.T) {
	h := newHouse(t)
	rain, gnosis := must(envelope.ByName("rain")), must(envelope.ByName("gnosis"))
	chain := []*keys.Key{sessionKey(t, "longer", "", longerPEM()), h.key, sessionKey(t, "second", "", secondPEM())}
	ofRain, ofGnosis := must(vault.NewClientKeys(rain, chain...)), must(vault.NewClientKeys(gnosis, chain...))
	if !bytes.Equal(ofRain.PublicSPKI(), ofGnosis.PublicSPKI()) {
		t.Error("clients are told different keys")
	}
	for _, k := range chain {
		key, text, err := gnosis.Wrap(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		data, iv, err := must(gnosis.NewCipher(key)).Seal(secret.From([]byte(clearPAN)), 12)
		if err != nil {
			t.Fatal(err)
		}
		s := must(h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: ofGnosis, Preamble: must(ofGnosis.Parse(text)), Issuer: h.issuer}))
		out, err := s.Reseal(vault.FieldPAN, vault.ToIssuer, vault.Sealed{Data: data, IV: iv})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := readPeer(t, issuerRSA(), s.IssuerPreamble()).open(t, out); got != clearPAN {
			t.Errorf("%v: %q", k, got)
		}
		_, other := newPeer(t, k.Public())
		for text, c := range map[string]*vault.ClientKeys{text: ofRain, other: ofGnosis} {
			if s, err := h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: c, Preamble: must(c.Parse(text)), Issuer: h.issuer}); s != nil || err != vault.ErrOpen {
				t.Errorf("%v: another format's: %v", k, err)
			}
		}
	}
}

func TestClientKeysRefuses(t *testing.T) {
	rain := must(envelope.ByName("rain"))
	k := sessionKey(t, "k", "test", sessionPEM())
	path := filepath.Join(t.TempDir(), "i")
	if err := os.WriteFile(path, sessionPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	issuer := must(keys.Load(keys.Config{ID: "i", Use: keys.UseIssuer, File: path, Environment: "test"}))
	for name, ks := range map[string][]*keys.Key{
		"none":              nil,
		"nil":               {k, nil},
		"issuer's":          {k, issuer},
		"other environment": {k, sessionKey(t, "p", "production", secondPEM())},
		"twice":             {k, k},
	} {
		if _, err := vault.NewClientKeys(rain, ks...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := vault.NewClientKeys(nil, k); err == nil {
		t.Error("no format: taken")
	}
	if _, err := vault.NewIssuerKey(nil, k.Public()); err == nil {
		t.Error("no format: taken")
	}
	if _, err := vault.NewIssuerKey(rain, nil); err == nil {
		t.Error("no issuer key: taken")
	}
}

// TestIssuerOf1024Bits: encrypting to a short key works where the caller allowed it, and shorter ones never.
func TestIssuerOf1024Bits(t *testing.T) {
	rain := must(envelope.ByName("rain"))
	k, err := vault.NewIssuerKey(rain, &weakIssuer().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newHouse(t).vault.Open(context.Background(), vault.Opening{Binding: binding, Issuer: k})
	if err != nil {
		t.Fatal(err)
	}
	readPeer(t, weakIssuer(), s.IssuerPreamble())
	short := weakIssuer().PublicKey
	short.N = must(rsa.GenerateKey(rand.Reader, 1024)).Primes[0]
	if _, err := vault.NewIssuerKey(rain, &short); err == nil {
		t.Error("an issuer key of 512 bits was taken")
	}
}

// TestBlind: the preamble and the PIN pass as they are; any other field, and what has no sealed field's shape, does not.
func TestBlind(t *testing.T) {
	h := newHouse(t)
	client, text := newPeer(t, &issuerRSA().PublicKey)
	p, err := h.issuer.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.vault.Blind(binding, p)
	if err != nil {
		t.Fatal(err)
	}
	if s.IssuerPreamble() != text {
		t.Error("the preamble changed")
	}
	for _, d := range []vault.Direction{vault.ToIssuer, vault.ToClient} {
		in := client.seal("241234FFFFFFFFFF", 16) // weak, which nobody here can see
		if out, err := s.Reseal(vault.FieldPIN, d, in); err != nil || out != in {
			t.Errorf("%s: %v, %v", d, out, err)
		}
		for name, c := range map[string]struct {
			f  vault.Field
			in vault.Sealed
		}{
			"PAN":      {vault.FieldPAN, in},
			"CVC":      {vault.FieldCVC, in},
			"none":     {0, in},
			"text":     {vault.FieldPIN, vault.Sealed{Data: "241234FFFFFFFFFF", IV: in.IV}},
			"IV of 8":  {vault.FieldPIN, vault.Sealed{Data: in.Data, IV: "AAAAAAAAAAA="}},
			"too long": {vault.FieldPIN, vault.Sealed{Data: strings.Repeat("A", 1<<16), IV: in.IV}},
		} {
			if out, err := s.Reseal(c.f, d, c.in); err != vault.ErrOpen || out != (vault.Sealed{}) {
				t.Errorf("%s %s: %v, %v", name, d, out, err)
			}
		}
	}
	if n := metric(t, h.vault, "cardstile_vault_rsa_duration_seconds", nil); n != 0 {
		t.Errorf("%v RSA operations in a blind session", n)
	}
	if _, err := h.vault.Blind(binding[:15], p); err != vault.ErrBinding {
		t.Errorf("short binding: %v", err)
	}
	if _, err := h.vault.Blind(binding, vault.Preamble{}); err != vault.ErrPreamble {
		t.Errorf("no preamble: %v", err)
	}
	s.Close()
	if _, err := s.Reseal(vault.FieldPIN, vault.ToIssuer, client.seal("x", 16)); err != vault.ErrOpen {
		t.Errorf("closed: %v", err)
	}
}

func TestNames(t *testing.T) {
	for v, want := range map[fmt.Stringer]string{
		vault.FieldPAN: "pan", vault.FieldCVC: "cvc", vault.FieldPIN: "pin", vault.FieldAccount: "account", vault.Field(0): "invalid", vault.Field(9): "invalid",
		vault.ToIssuer: "to_issuer", vault.ToClient: "to_client", vault.Direction(0): "invalid", vault.Direction(9): "invalid",
	} {
		if v.String() != want {
			t.Errorf("%T is %s, want %s", v, v, want)
		}
	}
	if !errors.Is(vault.ErrOpen, envelope.ErrOpen) || !errors.Is(vault.ErrPreamble, envelope.ErrPreamble) {
		t.Error("one failure has two errors")
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []vault.Config{{MaxRSA: -1}, {QueuePerSlot: -1}} {
		if _, err := vault.New(c); err == nil {
			t.Errorf("%+v taken", c)
		}
	}
}

func TestNothingPrintsASession(t *testing.T) {
	h := newHouse(t)
	s, client, issuer := h.open(t)
	_, text := newPeer(t, h.key.Public())
	p := h.preamble(t, text)
	o := vault.Opening{Binding: binding, Client: h.client, Preamble: p, Issuer: h.issuer}
	leaks := []string{text[:24], fmt.Sprintf("%x", client.key), fmt.Sprintf("%x", issuer.key), s.IssuerPreamble()[:24]}
	raw := must(base64.StdEncoding.DecodeString(text))
	for _, b := range [][]byte{client.key, issuer.key, raw} {
		leaks = append(leaks, string(b[:8]), fmt.Sprintf("%x", b[:8]), strings.Trim(fmt.Sprint(b[:8]), "[]"), fmt.Sprintf("%x", base64.StdEncoding.EncodeToString(b)[:10]))
	}
	for _, v := range []any{s, *s, p, &p, o, &o, h.client, h.issuer, struct{ s *vault.Session }{s}, struct{ p vault.Preamble }{p}, []vault.Preamble{p}} {
		texts := []string{}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
			texts = append(texts, fmt.Sprintf(verb, v))
		}
		if encoded, err := json.Marshal(v); err == nil {
			texts = append(texts, string(encoded))
		}
		for _, got := range texts {
			for _, leak := range leaks {
				if strings.Contains(got, leak) {
					t.Errorf("%T shows a secret: %.120s", v, got)
				}
			}
		}
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	h := newHouse(t)
	s, _, issuer := h.open(t)
	if _, err := s.Reseal(vault.FieldCVC, vault.ToClient, issuer.seal("123", 16)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reseal(vault.FieldCVC, vault.ToClient, vault.Sealed{}); err == nil {
		t.Fatal("nothing was opened")
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(h.vault.Collectors()...)
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for result, want := range map[string]float64{"ok": 1, "failed": 1} {
		if n := metric(t, h.vault, "cardstile_vault_reseals_total", map[string]string{"field": "cvc", "direction": "to_client", "result": result}); n != want {
			t.Errorf("%v reseals are %s", n, result)
		}
	}
	if opens(t, h.vault, "ok") != 1 || metric(t, h.vault, "cardstile_vault_rsa_duration_seconds", nil) != 1 {
		t.Error("the open is not counted")
	}
}

// FuzzReseal: of all that a client may send, only what was sealed with its key passes, and what passes is what was sealed.
func FuzzReseal(f *testing.F) {
	h := newHouse(f)
	s, client, issuer := h.open(f)
	f.Add("4111111111111111", uint8(1), uint16(0), byte(0))
	f.Add("123", uint8(2), uint16(3), byte(1))
	f.Add("245820FFFFFFFFFF", uint8(3), uint16(30), byte(0x20))
	f.Add("GB29 NWBK 6016 1331 9268 19", uint8(4), uint16(2), byte(0))
	f.Fuzz(func(t *testing.T, text string, field uint8, at uint16, mask byte) {
		if len(text) > 4000 {
			return
		}
		in := client.seal(text, 12+4*int(at&1))
		raw := []byte(in.Data + in.IV)
		raw[int(at)%len(raw)] ^= mask
		in.Data, in.IV = string(raw[:len(in.Data)]), string(raw[len(in.Data):])
		out, err := s.Reseal(vault.Field(field), vault.ToIssuer, in)
		if err != nil {
			if err != vault.ErrOpen && err != vault.ErrWeakPIN || out != (vault.Sealed{}) {
				t.Fatalf("%v, %v", out, err)
			}
			return
		}
		got, _ := issuer.open(t, out)
		most := 19
		if vault.Field(field) == vault.FieldAccount {
			most = 34
		}
		respelled := vault.Field(field) == vault.FieldPIN && strings.EqualFold(got, text)
		if mask != 0 || got != text && !respelled || len(text) < 3 || len(text) > most {
			t.Fatalf("%q, changed by %#x, became %q as %s", text, mask, got, vault.Field(field))
		}
	})
}

// BenchmarkOpen is once per reveal; its one RSA operation is nearly all of it.
func BenchmarkOpen(b *testing.B) {
	h := newHouse(b)
	_, text := newPeer(b, h.key.Public())
	b.ReportAllocs()
	for b.Loop() {
		p, err := h.client.Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		slot, err := h.vault.Reserve()
		if err != nil {
			b.Fatal(err)
		}
		s, err := h.vault.Open(context.Background(), vault.Opening{Binding: binding, Client: h.client, Preamble: p, Issuer: h.issuer, Slot: slot})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}

// BenchmarkReseal is twice per reveal.
func BenchmarkReseal(b *testing.B) {
	s, _, issuer := newHouse(b).open(b)
	in := issuer.seal("4111111111111111", 16)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Reseal(vault.FieldPAN, vault.ToClient, in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkResealPIN(b *testing.B) {
	s, client, _ := newHouse(b).open(b)
	in := client.seal("245820FFFFFFFFFF", 16)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Reseal(vault.FieldPIN, vault.ToIssuer, in); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReserve is once per exchange that opens a session, before anything else is spent.
func BenchmarkReserve(b *testing.B) {
	v := must(vault.New(vault.Config{}))
	b.ReportAllocs()
	for b.Loop() {
		s, err := v.Reserve()
		if err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
}
