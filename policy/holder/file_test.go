package holder_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/holder"
)

const good = `# whose cards
cards:
  - id: 123e4567-e89b-12d3-a456-426655440000
    issuer: rain
    issuer_card: rain-1
    partners: [gp-demo, other]
    users: [ada]
    environment: test
  - {id: 0042, issuer: rain, partners: [gp-demo], users: [ada, bob], environment: production}
users:
  - {id: ada, partner: gp-demo, issuer: rain, issuer_user: u-1}
  - {id: bob, partner: gp-demo, issuer: rain}
`

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "holders.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFileAnswers(t *testing.T) {
	f, err := holder.LoadFile(write(t, good))
	if err != nil {
		t.Fatal(err)
	}
	card, err := f.Card(t.Context(), "123e4567-e89b-12d3-a456-426655440000")
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v", *card); got != "{Card:123e4567-e89b-12d3-a456-426655440000 Issuer:rain IssuerCard:rain-1 Partners:[gp-demo other] Users:[ada] Environment:test}" {
		t.Error(got)
	}
	card, err = f.Card(t.Context(), "0042")
	if err != nil || card.IssuerCard != "0042" || card.Environment != "production" {
		t.Errorf("%+v, %v", card, err)
	}
	user, err := f.User(t.Context(), "ada")
	if err != nil || user.IssuerUser != "u-1" || user.Partner != "gp-demo" || user.Issuer != "rain" || len(user.Cards) != 2 {
		t.Errorf("%+v, %v", user, err)
	}
	user, err = f.User(t.Context(), "bob")
	if err != nil || user.IssuerUser != "bob" || !slices.Equal(user.Cards, []string{"0042"}) {
		t.Errorf("%+v, %v", user, err)
	}
	for _, id := range []string{"", "42", "123E4567-E89B-12D3-A456-426655440000", "ada", "123e4567-e89b-12d3-a456-426655440000 "} {
		if card, err := f.Card(t.Context(), id); !errors.Is(err, holder.ErrNoCard) || card != nil {
			t.Errorf("Card(%q) = %v, %v", id, card, err)
		}
	}
	if user, err := f.User(t.Context(), "Ada"); !errors.Is(err, holder.ErrNoUser) || user != nil {
		t.Errorf("%v, %v", user, err)
	}
}

// passkeys is the form of users who sign by themselves. The passkeys are of WebAuthn Level 3's test vectors, sections
// 16.2 and 16.11; the account is of ERC-55's.
const passkeys = `cards:
  - {id: c, issuer: rain, partners: [p], users: [ada], environment: test}
users:
  - id: ada
    partner: p
    issuer: rain
    account: 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed
    passkeys:
      - id: -R85HbTJsv3g6nAYnLo_tj9Xm6YSKzOtlP8-wzAIS-Q
        public_key: MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEr++hb5fKmy0j64bMtkCY0g25CFYGLrJJwzqbZy8m32GTCla4ei/KZjNLA0WKv4eXF8Esxo7XMpCvLiZkeWuSIA==
      - {id: zp-EDtllmVgM0UD7x7syMGM_UPYQQa_3Mwiuccqoor0, public_key: MCowBQYDK2VwAyEAROBt3TMcNqjcZnurUryuY0hskWql4znmrOuqhJNL+DI=}
  - {id: 0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed, partner: p, issuer: rain}
  - {id: 0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359, partner: p, issuer: rain, account: "0x5AAEB6053F3E94C9B9A09F33669435E7EF1BEAED"}
`

// wallet is another of ERC-55's addresses.
const wallet = "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb"

// TestUsersWallets: in whatever case they are written, and each user's own.
func TestUsersWallets(t *testing.T) {
	f, err := holder.LoadFile(write(t, `cards:
  - {id: c, issuer: rain, partners: [p], users: [ada], environment: test}
users:
  - {id: ada, partner: p, issuer: rain, wallets: [0xd1220a0cf47c7b9be7a2e6ba89f429762e7b9adb, "0xDBF03B407C01E7CD3CBEA99509D93F8DDDC8C6FB"]}
  - {id: 0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359, partner: p, issuer: rain, wallets: [0xfb6916095ca1df60bb79ce92ce3ea74c37c5d359]}
`))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string][]string{
		"ada": {wallet, "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB"},
		"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359": {"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"},
	} {
		user, err := f.User(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, address := range user.Signers() {
			got = append(got, address.String())
		}
		if !slices.Equal(got, want) || len(user.Wallets) != len(want) {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}

func TestUsersWhoSign(t *testing.T) {
	f, err := holder.LoadFile(write(t, passkeys))
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]struct {
		passkeys int
		account  string
	}{
		"ada": {2, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"},
		"0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed": {0, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"},
		"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359": {0, "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"},
	} {
		user, err := f.User(t.Context(), id)
		if err != nil || user.Account != want.account || len(user.Passkeys) != want.passkeys {
			t.Errorf("%+v, %v", user, err)
			continue
		}
		for i, passkey := range user.Passkeys {
			if _, err := passkey.Key(); err != nil || passkey.ID != []string{"-R85HbTJsv3g6nAYnLo_tj9Xm6YSKzOtlP8-wzAIS-Q", "zp-EDtllmVgM0UD7x7syMGM_UPYQQa_3Mwiuccqoor0"}[i] {
				t.Errorf("passkey %d: %s, %v", i, passkey.ID, err)
			}
		}
	}
	f, err = holder.LoadFile(write(t, good))
	if err != nil {
		t.Fatal(err)
	}
	if user, err := f.User(t.Context(), "ada"); err != nil || user.Account != "" || user.Passkeys != nil || user.Wallets != nil {
		t.Errorf("%+v, %v", user, err)
	}
}

func TestZeroFileKnowsNobody(t *testing.T) {
	var f holder.File
	if card, err := f.Card(t.Context(), ""); !errors.Is(err, holder.ErrNoCard) || card != nil {
		t.Errorf("%v, %v", card, err)
	}
	if user, err := f.User(t.Context(), ""); !errors.Is(err, holder.ErrNoUser) || user != nil {
		t.Errorf("%v, %v", user, err)
	}
}

func TestValidate(t *testing.T) {
	path := write(t, good)
	f, err := holder.LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Validate([]string{"gp-demo", "other"}, []string{"rain"}); err != nil {
		t.Error(err)
	}
	err = f.Validate([]string{"other"}, []string{"bridge"})
	for _, want := range []string{
		`:4: issuer "rain"`, `:6: partner "gp-demo"`, `:9: issuer "rain"`, `:9: partner "gp-demo"`,
		`:11: partner "gp-demo"`, `:11: issuer "rain"`, `:12: partner "gp-demo"`,
	} {
		if err == nil || !strings.Contains(err.Error(), path+want) {
			t.Errorf("%v\ndoes not say %s", err, want)
		}
	}
	if strings.Contains(err.Error(), "other") {
		t.Errorf("%v complains about a known partner", err)
	}
}

func TestStrays(t *testing.T) {
	f, err := holder.LoadFile(write(t, good))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		rain  string
		count int
		line  string
	}{{"test", 1, ":9"}, {"production", 1, ":8"}, {"", 0, ""}, {"neither", 2, ":8"}} {
		count, first := f.Strays(map[string]string{"rain": c.rain, "other": "test"})
		if count != c.count || !strings.HasSuffix(first, c.line) {
			t.Errorf("issuer of %q: %d strays, the first at %q", c.rain, count, first)
		}
	}
}

func TestFilesThatDoNotLoad(t *testing.T) {
	const card = "\n  - {id: c, issuer: rain, partners: [p], environment: test"
	const user = "cards:" + card + "}\nusers:\n  - {id: u, partner: p, issuer: rain, "
	const key = ", public_key: MCowBQYDK2VwAyEAROBt3TMcNqjcZnurUryuY0hskWql4znmrOuqhJNL+DI="
	for name, test := range map[string]struct {
		text string
		want []string // each with the line
	}{
		"empty":              {"", []string{":1: the file is empty"}},
		"a comment":          {"# nothing\n", []string{":1: the file is empty"}},
		"no cards":           {"users: []\n", []string{":1: no cards"}},
		"not YAML":           {"cards: [", []string{":1: "}},
		"a list":             {"- a", []string{":1: "}},
		"unknown keys":       {"cards:" + card + ", color: red}\nholders: []", []string{":2: field color not found", ":3: field holders not found"}},
		"key twice":          {"cards:" + card + ", id: d}", []string{":2: "}},
		"cards twice":        {"cards:" + card + "}\ncards: []", []string{":3: "}},
		"second document":    {"cards:" + card + "}\n---\ncards: []", []string{":3: a second document"}},
		"id a list":          {"cards:\n  - id: [a]\n", []string{":2: want a single value"}},
		"card twice":         {"cards:" + card + "}" + card + "}", []string{`:3: card "c" is listed already, on line 2`}},
		"user twice":         {"cards:" + card + "}\nusers:\n  - {id: u, partner: p, issuer: rain}\n  - {id: u, partner: p, issuer: rain}", []string{`:5: user "u" is listed already, on line 4`}},
		"empty item":         {"cards:\n  - {}\n", []string{":2: issuer is missing", ":2: a card without partners", ":2: environment must be", ":2: id of a card is missing"}},
		"null item":          {"cards:\n  -\n", []string{":2: nothing stands here"}},
		"null values":        {"cards:\n  - id:\n    issuer: ~\n    partners: [null]\n    environment: test\n    users:\n", []string{":2: nothing", ":3: nothing", ":4: nothing", ":6: nothing"}},
		"empty values":       {"cards:\n  - id: ''\n    issuer: ''\n    partners: ['']\n    users: ['']\n    environment: ''\n", []string{":2: id of a card is missing", ":3: issuer is missing", ":4: partner is missing", ":6: environment must be"}},
		"nothing at all":     {"~", []string{":1: nothing stands here"}},
		"environment":        {"cards:\n  - id: c\n    issuer: rain\n    partners: [p]\n    environment: prod", []string{":5: environment must be"}},
		"partner twice":      {"cards:\n  - {id: c, issuer: rain, partners: [p, p], environment: test}", []string{`:2: partner "p" is named twice`}},
		"user named twice":   {"cards:" + card + ", users: [u, u]}\nusers: [{id: u, partner: p, issuer: rain}]", []string{`:2: user "u" is named twice`}},
		"unlisted user":      {"cards:" + card + ", users: [u]}", []string{`:2: user "u" is not listed`}},
		"another's user":     {"cards:" + card + ", users: [u]}\nusers: [{id: u, partner: q, issuer: rain}]", []string{`:2: user "u" is of partner "q"`}},
		"user elsewhere":     {"cards:" + card + ", users: [u]}\nusers: [{id: u, partner: p, issuer: bridge}]", []string{`:2: user "u" is of issuer "bridge"`}},
		"space in an id":     {"cards:\n  - {id: 'a b', issuer: rain, partners: [p], environment: test}", []string{":2: id of a card has a space"}},
		"NUL in an id":       {"cards:\n  - {id: \"a\\0\", issuer: rain, partners: [p], environment: test}", []string{":2: id of a card has a space"}},
		"look-alike partner": {"cards:\n  - {id: a, issuer: rain, partners: [gp-dеmo], environment: test}", []string{":2: partner has a space or a character outside ASCII"}},
		"long id":            {"cards:\n  - {id: " + strings.Repeat("a", 257) + ", issuer: rain, partners: [p], environment: test}", []string{":2: id of a card is longer"}},
		"user of nobody":     {"cards:" + card + "}\nusers:\n  - {id: u}", []string{":4: partner is missing", ":4: issuer is missing"}},
		"account":            {user + "account: 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAe}", []string{":4: account must be 0x and 40"}},
		"no account":         {user + "account: ''}", []string{":4: account must be 0x and 40"}},
		"account's checksum": {user + "account: 0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed}", []string{":4: account has a wrong checksum"}},
		"wallet":             {user + "wallets: [u]}", []string{":4: a wallet must be 0x and 40 hexadecimal digits"}},
		"wallet of nothing":  {user + "wallets: ['']}", []string{":4: a wallet must be 0x and 40 hexadecimal digits"}},
		"wallet's line":      {user + "wallets: [\n" + wallet + ",\n0x0]}", []string{":6: a wallet must be 0x"}},
		"wallet's checksum":  {user + "wallets: [0x5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed]}", []string{":4: a wallet has a wrong checksum"}},
		"wallet twice":       {user + "wallets: [" + wallet + ",\n" + strings.ToLower(wallet) + "]}", []string{`:5: wallet "` + wallet + `" is listed already, on line 4`}},
		"wallet of two":      {user + "wallets: [" + wallet + "]}\n  - {id: v, partner: p, issuer: rain, wallets: [" + wallet + "]}", []string{`:5: wallet "` + wallet + `" is listed already, on line 4`}},
		"wallet, then an id": {user + "wallets: [" + wallet + "]}\n  - {id: " + strings.ToLower(wallet) + ", partner: p, issuer: rain}", []string{":5: the id is a wallet of another user, on line 4"}},
		"id, then a wallet":  {user + "}\n  - {id: " + wallet + ", partner: p, issuer: rain}\n  - {id: v, partner: p, issuer: rain, wallets: [" + wallet + "]}", []string{`:6: wallet "` + wallet + `" is the id of another user, on line 5`}},
		"too many wallets":   {user + "wallets: [" + strings.Repeat("x,", 33) + "]}", []string{":4: more than 32 wallets"}},
		"passkey of nothing": {user + "passkeys: [{}]}", []string{":4: id of a passkey is missing"}},
		"passkey, no key":    {user + "passkeys: [{id: AA}]}", []string{":4: public_key of a passkey is missing"}},
		"passkey, more":      {user + "passkeys: [{id: AA, name: x" + key + "}]}", []string{":4: field name not found"}},
		"passkey's line":     {user + "passkeys: [\n{id: AA,\npublic_key: AA==}]}", []string{":6: public_key: want a P-256"}},
		"passkey's id, ends": {user + "passkeys: [{id: AB" + key + "}]}", []string{":4: id of a passkey must be"}},
		"passkey's id, pad":  {user + "passkeys: [{id: 'AA==' " + key + "}]}", []string{":4: id of a passkey must be"}},
		"passkey's id, line": {user + "passkeys: [{id: \"AA\\n\" " + key + "}]}", []string{":4: id of a passkey must be"}},
		"passkey's id, long": {user + "passkeys: [{id: " + strings.Repeat("AAAA", 342) + key + "}]}", []string{":4: id of a passkey must be"}},
		"passkey twice":      {user + "passkeys: [{id: AA" + key + "},\n{id: AA" + key + "}]}", []string{`:5: passkey "AA" is listed already, on line 4`}},
		"passkey of two":     {user + "passkeys: [{id: AA" + key + "}]}\n  - {id: v, partner: p, issuer: rain, passkeys: [{id: AA" + key + "}]}", []string{`:5: passkey "AA" is listed already, on line 4`}},
		"too many passkeys":  {user + "passkeys: [" + strings.Repeat("{id: AA"+key+"},", 33) + "]}", []string{":4: more than 32 passkeys"}},
		"passkey, no base64": {user + "passkeys: [{id: AA" + key + "=}]}", []string{":4: public_key must be base64"}},
		"passkey, two lines": {user + "passkeys: [{id: AA, public_key: \"MCowBQYDK2VwAyEA\\nROBt3TMcNqjcZnurUryuY0hskWql4znmrOuqhJNL+DI=\"}]}", []string{":4: public_key must be base64"}},
		"passkey, other key": {user + "passkeys: [{id: AA, public_key: MCowBQYDK2VuAyEAROBt3TMcNqjcZnurUryuY0hskWql4znmrOuqhJNL+DI=}]}", []string{":4: public_key: want a P-256"}},
		"all of it, sorted":  {"cards:\n  - {id: c, issuer: rain, partners: [p], environment: x}\nusers:\n  - {id: u, partner: p}", []string{":2: environment", ":4: issuer is missing"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, test.text)
			f, err := holder.LoadFile(path)
			if err == nil || f != nil {
				t.Fatalf("LoadFile = %v, %v", f, err)
			}
			at := 0
			for _, want := range test.want {
				found := strings.Index(err.Error()[at:], path+want)
				if found < 0 {
					t.Fatalf("%v\ndoes not say (in this order) %s", err, want)
				}
				at += found
			}
		})
	}
	if f, err := holder.LoadFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) || f != nil {
		t.Errorf("%v, %v", f, err)
	}
}

// FuzzFile: what loads is consistent: a card has a partner and an environment,
// a user and a card that name each other have partner and issuer in common,
// accounts have their one spelling, and a passkey has a key and one user.
func FuzzFile(f *testing.F) {
	f.Add(good)
	f.Add(passkeys)
	f.Add(strings.Replace(passkeys, "    passkeys:", "    wallets: ["+wallet+"]\n    passkeys:", 1))
	f.Add("cards:\n  - &a {id: c, issuer: rain, partners: [p], environment: test}\n  - {<<: *a, id: d}\n")
	f.Add("cards: [{id: c, issuer: i, partners: [p], users: [u], environment: test}]\nusers: [{id: u, partner: p, issuer: i}]")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := holder.Parse("holders.yaml", []byte(text))
		if err != nil {
			return
		}
		cards, users := holder.Contents(file)
		if len(cards) == 0 {
			t.Fatal("no cards")
		}
		for id, card := range cards {
			if id == "" || card.Card != id || card.Issuer == "" || card.IssuerCard == "" || len(card.Partners) == 0 || card.Environment != "test" && card.Environment != "production" {
				t.Fatalf("%q: %+v", id, card)
			}
			for _, name := range card.Users {
				user := users[name]
				if user == nil || !slices.Contains(card.Partners, user.Partner) || user.Issuer != card.Issuer || !slices.Contains(user.Cards, id) {
					t.Fatalf("card %+v of user %+v", card, user)
				}
			}
		}
		owners := map[string]string{}
		for id, user := range users {
			if address, ok := policy.ParseAddress(user.Account); ok != (user.Account != "") || ok && address.String() != user.Account {
				t.Fatalf("account %q", user.Account)
			}
			for _, passkey := range user.Passkeys {
				_, err := passkey.Key()
				if owner, taken := owners[passkey.ID]; taken || err != nil {
					t.Fatalf("passkey %q of %q and %q: %v", passkey.ID, id, owner, err)
				}
				owners[passkey.ID] = id
			}
			for _, address := range user.Wallets {
				if owner, taken := owners[address.String()]; taken {
					t.Fatalf("wallet %s of %q and %q", address, id, owner)
				}
				owners[address.String()] = id
			}
			if id == "" || user.ID != id || user.Partner == "" || user.IssuerUser == "" {
				t.Fatalf("%q: %+v", id, user)
			}
			for _, name := range user.Cards {
				if cards[name] == nil || !slices.Contains(cards[name].Users, id) {
					t.Fatalf("user %+v of card %+v", user, cards[name])
				}
			}
		}
	})
}
