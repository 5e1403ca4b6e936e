package credential_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"math/big"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// rsaKeys are of whoever a test needs: made once, since that takes long.
var rsaKeys = sync.OnceValue(func() (keys [3]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

// spki is the fingerprint of one of the rsaKeys.
func spki(key int) policy.Fingerprint {
	der, err := x509.MarshalPKIXPublicKey(&rsaKeys()[key].PublicKey)
	if err != nil {
		panic(err)
	}
	return sha256.Sum256(der)
}

func accountKey(t testing.TB, key *rsa.PublicKey) credential.AccountKey {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return credential.AccountKey{SPKI: sha256.Sum256(der), Public: key}
}

// account has the first of the rsaKeys.
func account(t testing.TB) credential.Account {
	t.Helper()
	return credential.Account{
		ID: "acc-1", Partner: "pg", Environment: "test", Login: credential.LoginPublicKey, Requests: credential.RequestsOptional,
		Keys: []credential.AccountKey{accountKey(t, &rsaKeys()[0].PublicKey)},
	}
}

func accounts(t testing.TB, list ...credential.Account) *credential.Accounts {
	t.Helper()
	a, err := credential.NewAccounts(list)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAccountsAreFoundByTheirExactID(t *testing.T) {
	one, two := account(t), account(t)
	one.ID, two.ID = "b", "A"
	a := accounts(t, one, two)
	if got, ok := a.Account("b"); !ok || got.ID != "b" || got.Partner != "pg" {
		t.Errorf("%+v, %t", got, ok)
	}
	for _, id := range []string{"", "a", "B", "b ", "bb"} {
		if got, ok := a.Account(id); ok || got != nil {
			t.Errorf("%q finds %+v", id, got)
		}
	}
	all := a.All()
	if len(all) != 2 || all[0].ID != "A" || all[1].ID != "b" {
		t.Errorf("all are %+v", all)
	}
	one.Keys[0] = credential.AccountKey{}
	if got, _ := a.Account("b"); got.Keys[0] == one.Keys[0] {
		t.Error("the account changed with the caller's list")
	}
	var none *credential.Accounts
	if got, ok := none.Account("b"); ok || got != nil || none.All() != nil {
		t.Error("no accounts have an account")
	}
}

func TestAccountsThatAreNotAccepted(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	key := &rsaKeys()[0].PublicKey
	with := func(keys ...credential.AccountKey) func(*credential.Account) {
		return func(a *credential.Account) { a.Keys = keys }
	}
	odd := func(n *big.Int, e int) credential.AccountKey {
		return accountKey(t, &rsa.PublicKey{N: n, E: e})
	}
	for problem, change := range map[string]func(*credential.Account){
		"the id is missing":             func(a *credential.Account) { a.ID = "" },
		"has other characters":          func(a *credential.Account) { a.ID = "a b" },
		"the partner is missing":        func(a *credential.Account) { a.Partner = "" },
		"environment must be":           func(a *credential.Account) { a.Environment = "" },
		"login must be one of":          func(a *credential.Account) { a.Login = "" },
		`["public_key" "signature"`:     func(a *credential.Account) { a.Login = "password" },
		"requests must be one of":       func(a *credential.Account) { a.Requests = "" },
		`["off" "optional" "required"]`: func(a *credential.Account) { a.Requests = "on" },
		"there is no public key":        with(),
		"key 1: it is missing":          with(credential.AccountKey{}),
		"it has 1024 bits":              with(accountKey(t, &small.PublicKey)),
		"it has 8193 bits":              with(odd(new(big.Int).SetBit(new(big.Int), 8192, 1), 65537)),
		"its exponent is even":          with(odd(key.N, 65536)),
		"or less than 3":                with(odd(key.N, 1)),
		"key 2: its fingerprint is not": with(accountKey(t, key), credential.AccountKey{SPKI: [32]byte{1}, Public: key}),
	} {
		bad := account(t)
		change(&bad)
		if a, err := credential.NewAccounts([]credential.Account{bad}); err == nil || a != nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%v, want %q", err, problem)
		}
	}
	// Every problem is reported.
	bad := account(t)
	bad.Login, bad.Requests, bad.Keys = "x", "x", nil
	_, err = credential.NewAccounts([]credential.Account{bad, account(t)})
	for _, problem := range []string{"login", "requests", "no public key", "two accounts have this id"} {
		if err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%v, want also %q", err, problem)
		}
	}
}

func TestAccountsBelongToPartners(t *testing.T) {
	partners, err := policy.NewPartners([]policy.Partner{{ID: "pg", Environment: "test"}, {ID: "live", Environment: "production"}})
	if err != nil {
		t.Fatal(err)
	}
	good, strange, other := account(t), account(t), account(t)
	strange.ID, strange.Partner = "acc-2", "who"
	other.ID, other.Partner = "acc-3", "live"
	if err := accounts(t, good).Validate(partners); err != nil {
		t.Error(err)
	}
	err = accounts(t, good, strange, other).Validate(partners)
	for _, problem := range []string{`"who" is not configured`, `"acc-3" is of environment "test"`} {
		if err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%v, want %q", err, problem)
		}
	}
}

// TestPublicKeyProvesItsAccountWeakly [23].
func TestPublicKeyProvesItsAccountWeakly(t *testing.T) {
	keys := rsaKeys()
	one, two := account(t), account(t)
	one.Keys = append(one.Keys, accountKey(t, &keys[1].PublicKey))
	two.ID, two.Keys = "acc-2", []credential.AccountKey{accountKey(t, &keys[2].PublicKey)}
	a := accounts(t, one, two)
	for i := range 2 {
		proof, err := a.ProvePublicKey("acc-1", accountKey(t, &keys[i].PublicKey).SPKI)
		if err != nil || proof != (policy.Proof{
			Kind: policy.KindPublicKey, Partner: "pg", Account: "acc-1", Environment: "test", Weak: true, ID: "public_key:acc-1",
			Key: spki(i),
		}) {
			t.Errorf("%+v, %v", proof, err)
		}
	}
	// Whatever is wrong, the refusal is the same.
	const want = "refused public_key: unknown"
	no := func(a *credential.Accounts, id string, spki [32]byte) {
		t.Helper()
		proof, err := a.ProvePublicKey(id, spki)
		refused(t, proof, err, policy.KindPublicKey, policy.RefusedUnknown, id)
		if err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	right := one.Keys[0].SPKI
	no(a, "acc-1", two.Keys[0].SPKI)
	no(a, "acc-2", right)
	no(a, "acc-1", [32]byte{})
	no(a, "acc-3", right) // also the one that stands in for it
	no(a, "", right)
	no(accounts(t), "acc-1", right)
	for bit := range 256 {
		changed := right
		changed[bit/8] ^= 1 << (bit % 8)
		no(a, "acc-1", changed)
	}
}

// TestWhatSuffices: each login takes its own proof and what is stronger, of that
// account alone.
func TestWhatSuffices(t *testing.T) {
	public := policy.Proof{Kind: policy.KindPublicKey, Partner: "pg", Account: "acc-1", Weak: true, ID: "public_key:acc-1"}
	signature := policy.Proof{Kind: policy.KindSignature, Partner: "pg", Account: "acc-1", ID: "signature:acc-1"}
	assertion := policy.Proof{Kind: policy.KindSignature, Partner: "pg", Account: "acc-1", ID: "private_key_jwt:acc-1"}
	const weak, strong, no = "weak", "strong", "no"
	shown := []struct {
		name        string
		proofs      []policy.Proof
		certificate string
	}{
		{"nothing", nil, ""}, {"certificate", nil, "pg"},
		{"public", []policy.Proof{public}, ""}, {"public, certificate", []policy.Proof{public}, "pg"},
		{"signature", []policy.Proof{public, signature}, ""}, {"signature, certificate", []policy.Proof{signature}, "pg"},
		{"assertion", []policy.Proof{assertion}, ""}, {"another's certificate", []policy.Proof{public}, "other"},
	}
	for login, want := range map[string][]string{
		credential.LoginPublicKey:     {no, no, weak, strong, strong, strong, strong, weak},
		credential.LoginSignature:     {no, no, no, no, strong, strong, strong, no},
		credential.LoginPrivateKeyJWT: {no, no, no, no, no, no, strong, no},
		credential.LoginCertificate:   {no, no, no, strong, no, strong, no, no},
	} {
		one := account(t)
		one.Login = login
		a := accounts(t, one)
		for i, s := range shown {
			got := no
			if weakly, ok := a.Suffices("acc-1", s.proofs, s.certificate); ok && weakly {
				got = weak
			} else if ok {
				got = strong
			} else if weakly {
				t.Errorf("%s with %s: weak, and not enough", login, s.name)
			}
			if got != want[i] {
				t.Errorf("%s with %s: %s, want %s", login, s.name, got, want[i])
			}
			for name, change := range map[string]func(*policy.Proof){
				"account": func(p *policy.Proof) { p.Account = "acc-2" },
				"partner": func(p *policy.Proof) { p.Partner = "other" },
				"kind":    func(p *policy.Proof) { p.Kind = policy.KindJWT },
			} {
				changed := slices.Clone(s.proofs)
				for j := range changed {
					change(&changed[j])
				}
				if _, ok := a.Suffices("acc-1", changed, s.certificate); ok {
					t.Errorf("%s with %s of another %s suffices", login, s.name, name)
				}
			}
			if _, ok := a.Suffices("acc-2", s.proofs, s.certificate); ok {
				t.Errorf("%s with %s suffices for nobody", login, s.name)
			}
		}
	}
}

// TestLoginKeyIsOfTheStrongestProof: in whichever order they were shown, and of
// that account alone.
func TestLoginKeyIsOfTheStrongestProof(t *testing.T) {
	public := policy.Proof{Kind: policy.KindPublicKey, Account: "acc-1", ID: "public_key:acc-1", Key: [32]byte{1}}
	signature := policy.Proof{Kind: policy.KindSignature, Account: "acc-1", ID: "signature:acc-1", Key: [32]byte{2}}
	assertion := policy.Proof{Kind: policy.KindSignature, Account: "acc-1", ID: "private_key_jwt:acc-1", Key: [32]byte{3}}
	session := policy.Proof{Kind: policy.KindJWT, Account: "acc-1", Key: [32]byte{4}}
	other := policy.Proof{Kind: policy.KindSignature, Account: "acc-2", ID: "private_key_jwt:acc-2", Key: [32]byte{5}}
	certificate := policy.Proof{Kind: policy.KindCertificate, Partner: "pg", Certificate: [32]byte{6}}
	for want, proofs := range map[byte][]policy.Proof{
		0: {session, other, certificate}, 1: {certificate, public, other}, 2: {public, signature, session}, 3: {public, assertion, signature},
	} {
		for range 2 {
			if got := credential.LoginKey("acc-1", proofs); got != [32]byte{want} {
				t.Errorf("%x, want %d first", got, want)
			}
			slices.Reverse(proofs)
		}
	}
	if got := credential.LoginKey("acc-1", nil); got != [32]byte{} {
		t.Errorf("of nothing: %x", got)
	}
}
