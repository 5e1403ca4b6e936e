package credential_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"
	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// typedVectors are of ethers 6.17.0 and viem 2.57.20, which agree in hash and signature. The key is that of the EIP's
// example, the Keccak-256 of "cow".
var typedVectors = []struct{ data, hash, signature string }{
	{
		`{"domain":{"name":"Cardstile","version":"1","chainId":100},"primaryType":"Message","types":{"Message":[{"name":"authorization","type":"string"},{"name":"nonce","type":"uint256"}]},"message":{"authorization":"Show the card details","nonce":"12345678901234567890"}}`,
		"df2af841ea0e61134448a71197d2e35430ee6d3f59f13c7d297ae5f335061608",
		"0x7dbaa71fd4de514d857156f5edb29df8bd2486b5b2b44142089f5917f962d9bb27d53992dddb4d6386ed5c5e4a6365de9d5cde82cfd989579d2c794b5e171d901c",
	},
	{
		`{"domain":{"name":"Größe & <Söhne>","version":"2.0.1","chainId":1},"primaryType":"Message","types":{"Message":[{"name":"authorization","type":"string"},{"name":"nonce","type":"uint256"}]},"message":{"authorization":"PIN \"zeigen\"\n日本語","nonce":"115792089237316195423570985008687907853269984665640564039457584007913129639935"}}`,
		"5d56b28a0823393e141592b965d8d2027049606006c1b198ff5f2bc30745a28a",
		"0x91ad20aca8e6cb455d376c9784237a73b3fcab520c29dfc7c81e515da99ddbfb143e6f0e60be36807ccc9121eaa45d9d0fa5b867d5411b0700717dce85e471381c",
	},
	{
		`{"domain":{"name":"a","version":"b","chainId":9007199254740991},"primaryType":"Message","types":{"Message":[{"name":"authorization","type":"string"},{"name":"nonce","type":"uint256"}]},"message":{"authorization":"c","nonce":"0"}}`,
		"28191309ea1e6fa339af28122fb9af9ad685618adb2db2e2ec7beeb1bf637755",
		"0x987c973fa6e9122290b4108e778a8f5a710812562f87e74265e11d86ba22b90075940f99aea924cd04bcc841481ed9a651b00b9dcdccb6f77a9a3909456e797d1c",
	},
}

// cow is the address of the EIP's example.
const cow = "0xCD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"

func TestTypedDataVectors(t *testing.T) {
	signer, _ := policy.ParseAddress(cow)
	wallets := credential.NewWallets(credential.WalletsConfig{})
	for _, vector := range typedVectors {
		data, err := credential.ParseTyped(vector.data)
		if err != nil {
			t.Fatal(err)
		}
		hash, err := data.Hash()
		if err != nil || hex.EncodeToString(hash[:]) != vector.hash {
			t.Errorf("%s has the hash %x, %v; want %s", vector.data, hash, err, vector.hash)
		}
		if text, err := data.MarshalJSON(); err != nil || string(text) != vector.data {
			t.Errorf("%s is written as %s, %v", vector.data, text, err)
		}
		challenge := typedChallenge(vector.data)
		want := policy.Proof{Kind: policy.KindWallet, User: "ada", Card: "card-1", Environment: "test"}
		if proof, err := wallets.ProveTyped(vector.signature, challenge, []policy.Address{{1}, signer}); err != nil || proof != want {
			t.Errorf("%+v, %v", proof, err)
		}
	}
}

// TestTypedStructsAreTheEIPs has the example of EIP-712 (assets/eip-712/Example.js): a struct of structs, and its domain.
func TestTypedStructsAreTheEIPs(t *testing.T) {
	hexed := func(text string) (word [32]byte) {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		copy(word[32-len(raw):], raw)
		return word
	}
	text := func(s string) [32]byte { return credential.Keccak256(s) }
	const personType = "Person(string name,address wallet)"
	person := func(name, wallet string) [32]byte {
		return credential.TypedStruct(personType, text(name), hexed(wallet))
	}
	mail := credential.TypedStruct("Mail(Person from,Person to,string contents)"+personType,
		person("Cow", "CD2a3d9F938E13CD947Ec05AbC7FE734Df8DD826"), person("Bob", "bBbBBBBbbBBBbbbBbbBbbbbBBbBbbbbBbBbbBBbB"), text("Hello, Bob!"))
	domain := credential.TypedStruct("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)",
		text("Ether Mail"), text("1"), hexed("01"), hexed("CcCCccccCCCCcCCCCCCcCcCccCcCCCcCcccccccC"))
	hash := credential.Keccak256("\x19\x01", string(domain[:]), string(mail[:]))
	for name, got := range map[string][2]string{
		"mail":   {hex.EncodeToString(mail[:]), "c52c0ee5d84264471806290a3f2c4cecfc5490626bf912d01f240d7a274b371e"},
		"domain": {hex.EncodeToString(domain[:]), "f2cee375fa42b42143804025fc449deafd50cc031ca257e0b194a650a912090f"},
		"hash":   {hex.EncodeToString(hash[:]), "be609aee343fb3c4b28e1df9e632fca64fcfaede20f02e86244efddf30957bd2"},
	} {
		if got[0] != got[1] {
			t.Errorf("%s: %s, want %s", name, got[0], got[1])
		}
	}
	r, s := hexed("4355c47d63924e8a72e509b65029052eb6c299d53a04e167c5775fd466751c9d"), hexed("07299936d304c153f6443dfa05f40ff007d72911b6f72307f996231605b91562")
	address, ok := credential.RecoverAddress(hash[:], [65]byte(append(append(r[:], s[:]...), 28)))
	if !ok || address.String() != cow {
		t.Errorf("signed by %s", address)
	}
}

func typedChallenge(message string) *credential.Challenge {
	return &credential.Challenge{ChallengeUse: reveal(), Message: message}
}

// reveal is the use of a challenge of typed data.
func reveal() credential.ChallengeUse {
	return credential.ChallengeUse{
		Purpose: string(policy.CardReveal), Method: policy.MethodEIP712, Face: "gnosispay", Environment: "test", Partner: "p", User: "ada", Card: "card-1",
	}
}

var domain = credential.TypedDomain{Name: "Cardstile", Version: "1", ChainID: 100}

// signTyped is eth_signTypedData_v4.
func (w wallet) signTyped(t testing.TB, data credential.TypedData) string {
	t.Helper()
	hash, err := data.Hash()
	if err != nil {
		t.Fatal(err)
	}
	compact := ecdsa.SignCompact(w.key, hash[:], false)
	return "0x" + hex.EncodeToString(append(compact[1:], compact[0]))
}

func mintTyped(t testing.TB, c *credential.Challenges, use credential.ChallengeUse) credential.TypedData {
	t.Helper()
	data, _, err := c.MintTyped(t.Context(), use, 0, domain, "Show the card details", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestTypedChallengeIsProvenOnce(t *testing.T) {
	at, w := newClock(), newWallet(t)
	for name, s := range map[string]store.Store{"memory": memory(t, at), "redis": redis(t)} {
		t.Run(name, func(t *testing.T) {
			c := challenges(t, s, at)
			for _, operation := range []policy.Operation{policy.CardReveal, policy.PINReveal, policy.PINSet} {
				use := reveal()
				use.Purpose = string(operation)
				data, expires, err := c.MintTyped(t.Context(), use, 0, domain, "Show <it> & sign", time.Minute)
				if err != nil || !expires.Equal(at.now().Add(time.Minute)) || data.Domain != domain || data.Authorization != "Show <it> & sign" {
					t.Fatalf("%+v until %s, %v", data, expires, err)
				}
				signature := w.signTyped(t, data)
				// What the user signs is shown to nobody again: nonce and signature suffice.
				taken, err := c.TakeNonce(t.Context(), data.Nonce, use, firstTry)
				if err != nil || taken.ChallengeUse != use {
					t.Fatalf("%+v, %v", taken, err)
				}
				proof, err := credential.NewWallets(credential.WalletsConfig{}).ProveTyped(signature, taken, []policy.Address{w.address()})
				if err != nil || proof != (policy.Proof{Kind: policy.KindWallet, User: "ada", Card: "card-1", Environment: "test"}) {
					t.Fatalf("%+v, %v", proof, err)
				}
				again, err := c.TakeNonce(t.Context(), data.Nonce, use, secondTry)
				notTaken(t, again, err, policy.RefusedSpent, data.Nonce)
			}
		})
	}
}

// TestTypedNonces: each is a number of 256 bits with the tag of its key in front and 232 random bits.
func TestTypedNonces(t *testing.T) {
	key := newKey("digest")
	c := challengesWith(t, newTampered(), newClock(), key)
	tag := ring{key}.tag(key)
	var ones, zeros [32]byte
	for range 200 {
		nonce := mintTyped(t, c, reveal()).Nonce
		n, ok := new(big.Int).SetString(nonce, 10)
		if !ok || !regexp.MustCompile(`^(0|[1-9][0-9]*)$`).MatchString(nonce) || n.BitLen() > 256 {
			t.Fatalf("nonce %q", nonce)
		}
		var raw [32]byte
		n.FillBytes(raw[:])
		if [3]byte(raw[:]) != tag {
			t.Fatalf("nonce %x does not begin with %x", raw, tag)
		}
		for i := range raw {
			ones[i] |= raw[i]
			zeros[i] |= ^raw[i]
		}
	}
	for i := 3; i < 32; i++ {
		if ones[i] != 0xff || zeros[i] != 0xff {
			t.Errorf("byte %d has bits that do not change: %x, %x", i, ones[i], zeros[i])
		}
	}
}

// TestTypedChallengeIsBound: a nonce for one operation is unknown for another, and stays good; all else spends it.
func TestTypedChallengeIsBound(t *testing.T) {
	at := newClock()
	c := challenges(t, memory(t, at), at)
	for name, test := range map[string]struct {
		change func(*credential.ChallengeUse)
		reason string
		spends bool
	}{
		"operation":   {func(u *credential.ChallengeUse) { u.Purpose = string(policy.PINReveal) }, policy.RefusedUnknown, false},
		"login":       {func(u *credential.ChallengeUse) { u.Purpose = credential.PurposeLogin }, policy.RefusedUnknown, false},
		"no user":     {func(u *credential.ChallengeUse) { u.User = "" }, policy.RefusedBound, false},
		"no card":     {func(u *credential.ChallengeUse) { u.Card = "" }, policy.RefusedBound, false},
		"method":      {func(u *credential.ChallengeUse) { u.Method = policy.MethodSIWE }, policy.RefusedBound, false},
		"user":        {func(u *credential.ChallengeUse) { u.User = "bob" }, policy.RefusedBound, true},
		"card":        {func(u *credential.ChallengeUse) { u.Card = "card-2" }, policy.RefusedBound, true},
		"face":        {func(u *credential.ChallengeUse) { u.Face = "exa" }, policy.RefusedBound, true},
		"partner":     {func(u *credential.ChallengeUse) { u.Partner = "q" }, policy.RefusedBound, true},
		"environment": {func(u *credential.ChallengeUse) { u.Environment = "production" }, policy.RefusedBound, true},
	} {
		t.Run(name, func(t *testing.T) {
			nonce, use := mintTyped(t, c, reveal()).Nonce, reveal()
			test.change(&use)
			got, err := c.TakeNonce(t.Context(), nonce, use, firstTry)
			notTaken(t, got, err, test.reason, nonce)
			got, err = c.TakeNonce(t.Context(), nonce, reveal(), secondTry)
			if test.spends {
				notTaken(t, got, err, policy.RefusedSpent)
			} else if err != nil {
				t.Errorf("it was spent: %v", err)
			}
		})
	}
}

func TestNoncesThatAreNotOurs(t *testing.T) {
	s := newTampered()
	c := challenges(t, s, newClock())
	good := mintTyped(t, c, reveal()).Nonce
	n, _ := new(big.Int).SetString(good, 10)
	s.asked = 0
	for name, test := range map[string]struct{ nonce, reason string }{
		"nothing":          {"", policy.RefusedMalformed},
		"a leading zero":   {"0" + good, policy.RefusedMalformed},
		"a sign":           {"+" + good, policy.RefusedMalformed},
		"negative":         {"-" + good, policy.RefusedMalformed},
		"hex":              {"0x" + n.Text(16), policy.RefusedMalformed},
		"underscores":      {good[:3] + "_" + good[3:], policy.RefusedMalformed},
		"a space":          {good + " ", policy.RefusedMalformed},
		"a line break":     {good + "\n", policy.RefusedMalformed},
		"an exponent":      {"1e10", policy.RefusedMalformed},
		"other digits":     {"١٢٣", policy.RefusedMalformed},
		"257 bits":         {new(big.Int).Lsh(big.NewInt(1), 256).String(), policy.RefusedMalformed},
		"very long":        {strings.Repeat("9", 100_000), policy.RefusedMalformed},
		"zero":             {"0", policy.RefusedUnknown},
		"another key's":    {new(big.Int).Xor(n, new(big.Int).Lsh(big.NewInt(1), 255)).String(), policy.RefusedUnknown},
		"the greatest one": {new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(1)).String(), policy.RefusedUnknown},
	} {
		got, err := c.TakeNonce(t.Context(), test.nonce, reveal(), firstTry)
		notTaken(t, got, err, test.reason, test.nonce)
		if s.asked != 0 {
			t.Fatalf("%s: the store was asked", name)
		}
	}
	got, err := c.TakeNonce(t.Context(), new(big.Int).Xor(n, big.NewInt(1)).String(), reveal(), firstTry)
	notTaken(t, got, err, policy.RefusedUnknown)
	if _, err := c.TakeNonce(t.Context(), good, reveal(), firstTry); err != nil {
		t.Errorf("the good one, after all of them: %v", err)
	}
	s.err = errDown
	got, err = c.TakeNonce(t.Context(), good, reveal(), secondTry)
	unavailable(t, policy.Proof{}, err)
	if data, expires, err := c.MintTyped(t.Context(), reveal(), 0, domain, "a", time.Minute); !errors.Is(err, store.ErrUnavailable) ||
		got != nil || data != (credential.TypedData{}) || !expires.IsZero() {
		t.Errorf("%+v until %s, %v", data, expires, err)
	}
}

func TestTypedChallengesThatAreNotMinted(t *testing.T) {
	s := newTampered()
	c := challenges(t, s, newClock())
	for name, test := range map[string]struct {
		use   func(*credential.ChallengeUse)
		typed func(*credential.TypedDomain)
		text  string
	}{
		"login":          {use: func(u *credential.ChallengeUse) { u.Purpose = credential.PurposeLogin }},
		"a freeze":       {use: func(u *credential.ChallengeUse) { u.Purpose = string(policy.CardStatus) }},
		"no purpose":     {use: func(u *credential.ChallengeUse) { u.Purpose = "" }},
		"another method": {use: func(u *credential.ChallengeUse) { u.Method = policy.MethodWebAuthn }},
		"no user":        {use: func(u *credential.ChallengeUse) { u.User = "" }},
		"no card":        {use: func(u *credential.ChallengeUse) { u.Card = "" }},
		"no face":        {use: func(u *credential.ChallengeUse) { u.Face = "" }},
		"no environment": {use: func(u *credential.ChallengeUse) { u.Environment = "" }},
		"no name":        {typed: func(d *credential.TypedDomain) { d.Name = "" }},
		"no version":     {typed: func(d *credential.TypedDomain) { d.Version = "" }},
		"no chain":       {typed: func(d *credential.TypedDomain) { d.ChainID = 0 }},
		"no such chain":  {typed: func(d *credential.TypedDomain) { d.ChainID = 1 << 53 }},
		"long name":      {typed: func(d *credential.TypedDomain) { d.Name = strings.Repeat("a", 1025) }},
		"no text":        {text: "-"},
		"long text":      {text: strings.Repeat("a", 1025)},
		"not UTF-8":      {text: "\xff"},
	} {
		use, typed, text := reveal(), domain, "Show it"
		if test.use != nil {
			test.use(&use)
		}
		if test.typed != nil {
			test.typed(&typed)
		}
		if test.text != "" {
			text = strings.TrimPrefix(test.text, "-")
		}
		if data, expires, err := c.MintTyped(t.Context(), use, 0, typed, text, time.Minute); err == nil || data != (credential.TypedData{}) || !expires.IsZero() {
			t.Errorf("%s: %+v until %s, %v", name, data, expires, err)
		}
		if len(s.values) > 0 {
			t.Fatalf("%s is stored", name)
		}
	}
	// Nor is an operation's challenge one of the other ways.
	challenge := credential.Challenge{ChallengeUse: reveal(), Message: "Show it"}
	if _, _, err := c.Mint(t.Context(), challenge, time.Minute); err == nil {
		t.Error("a statement authorizes an operation")
	}
	challenge.Method = policy.MethodWebAuthn
	if _, err := c.MintFor(t.Context(), challenge, time.Minute); err == nil {
		t.Error("a passkey authorizes an operation")
	}
}

func TestTypedSignaturesThatProveNothing(t *testing.T) {
	at, w := newClock(), newWallet(t)
	c := challenges(t, memory(t, at), at)
	wallets := credential.NewWallets(credential.WalletsConfig{})
	data := mintTyped(t, c, reveal())
	taken, err := c.TakeNonce(t.Context(), data.Nonce, reveal(), firstTry)
	if err != nil {
		t.Fatal(err)
	}
	good := w.signTyped(t, data)
	own := []policy.Address{w.address()}
	other := data
	other.Authorization = "Show the PIN"
	another := data
	another.Nonce = "1"
	elsewhere := data
	elsewhere.Domain.ChainID++
	for name, test := range map[string]struct {
		signature string
		challenge *credential.Challenge
		signers   []policy.Address
		reason    string
	}{
		"nothing":            {"", taken, own, policy.RefusedMalformed},
		"short":              {good[:130], taken, own, policy.RefusedMalformed},
		"no hex":             {good[:131] + "g", taken, own, policy.RefusedMalformed},
		"compact (EIP-2098)": {good[:130], taken, own, policy.RefusedMalformed},
		"no challenge":       {good, nil, own, policy.RefusedBound},
		"another challenge":  {good, walletChallenge("ada", "a"), own, policy.RefusedBound},
		"not typed data":     {good, typedChallenge("{}"), own, policy.RefusedBound},
		"of another method":  {good, &credential.Challenge{ChallengeUse: credential.ChallengeUse{Method: policy.MethodSIWE, User: "u", Card: "c"}, Message: taken.Message}, own, policy.RefusedBound},
		"of no user":         {good, &credential.Challenge{ChallengeUse: credential.ChallengeUse{Method: policy.MethodEIP712, Card: "c"}, Message: taken.Message}, own, policy.RefusedBound},
		"of no card":         {good, &credential.Challenge{ChallengeUse: credential.ChallengeUse{Method: policy.MethodEIP712, User: "u"}, Message: taken.Message}, own, policy.RefusedBound},
		"high s":             {highS(t, good), taken, own, policy.RefusedSignature},
		"zero":               {"0x" + strings.Repeat("0", 130), taken, own, policy.RefusedSignature},
		"recovery id":        {good[:130] + "02", taken, own, policy.RefusedSignature},
		"another wallet":     {newWallet(t).signTyped(t, data), taken, own, policy.RefusedUser},
		"nobody's wallet":    {good, taken, nil, policy.RefusedUser},
		"another's wallet":   {good, taken, []policy.Address{{}, newWallet(t).address()}, policy.RefusedUser},
		"another text":       {w.signTyped(t, other), taken, own, policy.RefusedUser},
		"another nonce":      {w.signTyped(t, another), taken, own, policy.RefusedUser},
		"another chain":      {w.signTyped(t, elsewhere), taken, own, policy.RefusedUser},
		"personal_sign":      {w.sign(taken.Message), taken, own, policy.RefusedUser},
	} {
		t.Run(name, func(t *testing.T) {
			proof, err := wallets.ProveTyped(test.signature, test.challenge, test.signers)
			refused(t, proof, err, policy.KindWallet, test.reason, test.signature)
		})
	}
	// A message of typed data is no SIWE message, and the other way round.
	proof, err := wallets.Prove(taken.Message, w.sign(taken.Message), taken)
	refused(t, proof, err, policy.KindWallet, policy.RefusedBound)
	if _, err := wallets.ProveTyped(good, taken, own); err != nil {
		t.Errorf("the good one: %v", err)
	}
}

// highS is the twin of a signature (EIP-2).
func highS(t testing.TB, signature string) string {
	t.Helper()
	raw, err := hex.DecodeString(signature[2:])
	if err != nil {
		t.Fatal(err)
	}
	var s secp256k1.ModNScalar
	s.SetByteSlice(raw[32:64])
	s.Negate()
	twin := s.Bytes()
	copy(raw[32:64], twin[:])
	raw[64] = 27 + (1 - (raw[64] - 27))
	return "0x" + hex.EncodeToString(raw)
}

func TestOneOfManyTakesANonce(t *testing.T) {
	at := newClock()
	c := challenges(t, memory(t, at), at)
	nonce := mintTyped(t, c, reveal()).Nonce
	var won atomic.Int64
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if _, err := c.TakeNonce(t.Context(), nonce, reveal(), store.Attempt{2, byte(i)}); err == nil {
				won.Add(1)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		t.Errorf("%d had it", won.Load())
	}
}

// TestTypedDataIsReadInOneWay: what is written is read, encoding/json writes the same JSON, and no other text is one.
func TestTypedDataIsReadInOneWay(t *testing.T) {
	text := rapid.StringN(1, 40, 1024)
	rapid.Check(t, func(rt *rapid.T) {
		data := credential.TypedData{
			Domain:        credential.TypedDomain{Name: text.Draw(rt, "name"), Version: text.Draw(rt, "version"), ChainID: rapid.Uint64Range(1, 1<<53-1).Draw(rt, "chain")},
			Authorization: text.Draw(rt, "authorization"),
			Nonce:         new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 32).Draw(rt, "nonce")).String(),
		}
		written, err := data.MarshalJSON()
		if err != nil {
			return // not UTF-8
		}
		back, err := credential.ParseTyped(string(written))
		if err != nil || back != data {
			rt.Fatalf("%s came back as %+v: %v", written, back, err)
		}
		embedded, err := json.Marshal(map[string]any{"data": data})
		var one, two any
		if err != nil || json.Unmarshal(embedded, &one) != nil || json.Unmarshal([]byte(`{"data":`+string(written)+`}`), &two) != nil {
			rt.Fatalf("%s: %v", embedded, err)
		}
		if a, b := mustJSON(rt, one), mustJSON(rt, two); a != b {
			rt.Fatalf("%s, and by itself %s", a, b)
		}
	})
	good := typedVectors[0].data
	for name, text := range map[string]string{
		"nothing":        "",
		"another domain": strings.Replace(good, `"chainId":100`, `"chainId":100,"salt":"0x"`, 1),
		"another type":   strings.Replace(good, `"uint256"`, `"uint128"`, 1),
		"more types":     strings.Replace(good, `"types":{`, `"types":{"EIP712Domain":[],`, 1),
		"another order":  strings.Replace(good, `"name":"Cardstile","version":"1"`, `"version":"1","name":"Cardstile"`, 1),
		"space":          good + " ",
		"more":           good + "{}",
		"twice":          strings.Replace(good, `"version":"1"`, `"version":"1","version":"1"`, 1),
		"escaped":        strings.Replace(good, "Show", `\u0053how`, 1),
		"primary type":   strings.Replace(good, `"primaryType":"Message"`, `"primaryType":"Mail"`, 1),
		"a number":       strings.Replace(good, `"12345678901234567890"`, "12345678901234567890", 1),
		"nonce":          strings.Replace(good, `"12345678901234567890"`, `"012345678901234567890"`, 1),
	} {
		if data, err := credential.ParseTyped(text); err == nil || data != (credential.TypedData{}) {
			t.Errorf("%s: %+v, %v", name, data, err)
		}
	}
}

func mustJSON(t *rapid.T, value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
