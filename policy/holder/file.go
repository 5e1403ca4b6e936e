package holder

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cardstile/cardstile/policy"
)

// File is a directory read from a YAML file, in full, once. The operator writes
// it, so it is the authority on partners and on users. It is immutable; a
// reload reads it again into another one.
//
//	cards:
//	  - id: 123e4567-e89b-12d3-a456-426655440000
//	    issuer: rain
//	    issuer_card: 0d6c9c1e        # the issuer's own id; left out: the same id
//	    partners: [gp-demo]
//	    users: [ada]                 # left out: no user proof opens it
//	    environment: test
//	users:
//	  - id: ada
//	    partner: gp-demo
//	    issuer: rain
//	    issuer_user: u-1             # left out: the same id
//	    account: 0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed   # left out: the user's id, where that is an address
//	    wallets:                     # whose signatures are the user's, beside an id that is an address; left out: none
//	      - 0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359
//	    passkeys:                    # left out: none
//	      - id: zp-EDtllmVgM0UD7x7syMGM_UPYQQa_3Mwiuccqoor0
//	        public_key: MCowBQYDK2VwAyEAROBt3TMcNqjcZnurUryuY0hskWql4znmrOuqhJNL+DI=
//
// A user that a card names must be listed, with a partner and the issuer of
// that card: otherwise no exchange could ever be theirs.
//
// An address's mixed-case letters are its checksum (ERC-55); all upper or all
// lower case has none. A wallet belongs to one user. A passkey's id is its credential id in base64url without
// padding, as browsers give it, and belongs to one user. Its public key is the
// SubjectPublicKeyInfo in base64, on one line: what getPublicKey returns of an
// AuthenticatorAttestationResponse (WebAuthn Level 3, section 5.2.1.1).
type File struct {
	name  string
	cards map[string]*policy.Holding
	users map[string]*policy.User
	uses  []use
	lives []life
}

var _ Directory = (*File)(nil)

// use is one mention of a name from the configuration.
type use struct {
	kind string // "partner" or "issuer"
	name string
	line int
}

// Card returns the holding of a card, or ErrNoCard.
func (f *File) Card(_ context.Context, id string) (*policy.Holding, error) {
	if card := f.cards[id]; card != nil {
		return card, nil
	}
	return nil, ErrNoCard
}

// User returns a user, or ErrNoUser.
func (f *File) User(_ context.Context, id string) (*policy.User, error) {
	if user := f.users[id]; user != nil {
		return user, nil
	}
	return nil, ErrNoUser
}

// Validate checks that every partner and issuer that the file names is
// configured. Every problem is reported, with file and line.
func (f *File) Validate(partners, issuers []string) error {
	known := map[string][]string{"partner": partners, "issuer": issuers}
	var problems []error
	for _, use := range f.uses {
		if !slices.Contains(known[use.kind], use.name) {
			problems = append(problems, fmt.Errorf("%s:%d: %s %q is not configured", f.name, use.line, use.kind, use.name))
		}
	}
	return errors.Join(problems...)
}

// life is which environment a card is of, and where that stands.
type life struct {
	issuer, environment string
	line                int
}

// Strays returns how many cards are of another environment than their issuer, and the place of the first: every exchange
// with one is refused. environments are those of the configured issuers, by name.
func (f *File) Strays(environments map[string]string) (count int, first string) {
	for _, c := range f.lives {
		if of := environments[c.issuer]; of == "" || of == c.environment {
			continue
		}
		if count++; count == 1 {
			first = fmt.Sprintf("%s:%d", f.name, c.line)
		}
	}
	return count, first
}

// text is a scalar that knows its line.
type text struct {
	string
	line int
}

// UnmarshalYAML takes any scalar by its spelling: an id may look like a number.
func (t *text) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.ScalarNode {
		return fmt.Errorf("line %d: want a single value", node.Line)
	}
	*t = text{node.Value, node.Line}
	return nil
}

// The file's form. lines of items are added after decoding.
type (
	fileForm struct {
		Cards []cardForm `yaml:"cards"`
		Users []userForm `yaml:"users"`
	}
	cardForm struct {
		ID          text   `yaml:"id"`
		Issuer      text   `yaml:"issuer"`
		IssuerCard  text   `yaml:"issuer_card"`
		Partners    []text `yaml:"partners"`
		Users       []text `yaml:"users"`
		Environment text   `yaml:"environment"`

		line int
	}
	userForm struct {
		ID         text `yaml:"id"`
		Partner    text `yaml:"partner"`
		Issuer     text `yaml:"issuer"`
		IssuerUser text `yaml:"issuer_user"`
		Account    text `yaml:"account"`

		Wallets  []text        `yaml:"wallets"`
		Passkeys []passkeyForm `yaml:"passkeys"`

		line int
	}
	passkeyForm struct {
		ID        text `yaml:"id"`
		PublicKey text `yaml:"public_key"`
	}
)

// LoadFile reads a directory. Every problem is reported, with file and line.
func LoadFile(path string) (*File, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("holder directory: %w", err)
	}
	return parse(path, source)
}

func parse(name string, source []byte) (*File, error) {
	form, err := decode(name, source)
	if err != nil {
		return nil, err
	}
	r := reader{File: &File{
		name:  name,
		cards: make(map[string]*policy.Holding, len(form.Cards)),
		users: make(map[string]*policy.User, len(form.Users)),
	}, lines: make(map[string]int)}
	for i := range form.Users {
		r.user(&form.Users[i])
	}
	for i := range form.Cards {
		r.card(&form.Cards[i])
	}
	if len(form.Cards) == 0 && len(r.problems) == 0 {
		r.problem(1, "no cards: every exchange that touches one would be refused")
	}
	if err := r.err(); err != nil {
		return nil, err
	}
	return r.File, nil
}

// decode reads the one document of the file, and refuses what it does not know.
func decode(name string, source []byte) (*fileForm, error) {
	var form fileForm
	decoder := yaml.NewDecoder(bytes.NewReader(source))
	decoder.KnownFields(true)
	if err := decoder.Decode(&form); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s:1: the file is empty", name)
		}
		return nil, yamlProblems(name, err)
	}
	var document yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
	case err != nil:
		return nil, yamlProblems(name, err)
	default:
		return nil, fmt.Errorf("%s:%d: a second document", name, document.Line)
	}
	if err := yaml.Unmarshal(source, &document); err != nil {
		return nil, yamlProblems(name, err)
	}
	if err := errors.Join(nulls(name, &document)...); err != nil {
		return nil, err
	}
	form.number(&document)
	return &form, nil
}

// nulls finds keys and items without a value, which the decoder would drop
// without a word.
func nulls(name string, node *yaml.Node) []error {
	if node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null" {
		return []error{fmt.Errorf("%s:%d: nothing stands here; leave the key or item out, or give it a value", name, node.Line)}
	}
	var problems []error
	for _, child := range node.Content {
		problems = append(problems, nulls(name, child)...)
	}
	return problems
}

// number notes on which line each card and user begins.
func (f *fileForm) number(document *yaml.Node) {
	if len(document.Content) != 1 {
		return
	}
	root := document.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		list := root.Content[i+1]
		if list.Kind == yaml.AliasNode {
			list = list.Alias
		}
		for n, item := range list.Content {
			switch key := root.Content[i].Value; {
			case key == "cards" && n < len(f.Cards):
				f.Cards[n].line = item.Line
			case key == "users" && n < len(f.Users):
				f.Users[n].line = item.Line
			}
		}
	}
}

// yamlProblems puts the file's name before each of the decoder's lines.
func yamlProblems(name string, err error) error {
	texts := []string{err.Error()}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = typed.Errors
	}
	var problems []error
	for _, text := range texts {
		line := 0
		for _, form := range []string{"yaml: line %d: ", "line %d: "} {
			if n, _ := fmt.Sscanf(text, form, &line); n == 1 {
				text = text[len(fmt.Sprintf(form, line)):]
				break
			}
		}
		problems = append(problems, fmt.Errorf("%s:%d: %s", name, max(line, 1), text))
	}
	return errors.Join(problems...)
}

// reader checks the form and fills the directory.
type reader struct {
	*File
	lines    map[string]int // "card "+id, "user "+id, "wallet "+address, "signer "+address, "passkey "+id → where it stands
	problems []problem
}

type problem struct {
	line int
	text string
}

func (r *reader) problem(line int, format string, args ...any) {
	r.problems = append(r.problems, problem{line, fmt.Sprintf(format, args...)})
}

// err is every problem, from the top of the file to its end.
func (r *reader) err() error {
	slices.SortStableFunc(r.problems, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var joined []error
	for _, p := range r.problems {
		joined = append(joined, fmt.Errorf("%s:%d: %s", r.name, p.line, p.text))
	}
	return errors.Join(joined...)
}

// maxNameBytes bounds every id and name.
const maxNameBytes = 256

// require checks a required value.
func (r *reader) require(what string, t text, line int) bool {
	line = max(t.line, line)
	switch {
	case t.string == "":
		r.problem(line, "%s is missing", what)
	case len(t.string) > maxNameBytes:
		r.problem(line, "%s is longer than %d bytes", what, maxNameBytes)
	case !visible(t.string):
		r.problem(line, "%s has a space or a character outside ASCII", what)
	default:
		return true
	}
	return false
}

func visible(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// configured checks a name of the configuration, and keeps it for Validate.
func (r *reader) configured(kind string, t text, line int) {
	if r.require(kind, t, line) {
		r.uses = append(r.uses, use{kind, t.string, max(t.line, line)})
	}
}

// claim checks an id and that it is the first of its kind.
func (r *reader) claim(what string, id text, line int) bool {
	return r.require("id of a "+what, id, line) && r.first(what, id)
}

// first checks that an id is the first of its kind.
func (r *reader) first(what string, id text) bool {
	key := what + " " + id.string
	if first, taken := r.lines[key]; taken {
		r.problem(id.line, "%s %q is listed already, on line %d", what, id.string, first)
		return false
	}
	r.lines[key] = id.line
	return true
}

func (r *reader) user(form *userForm) {
	r.configured("partner", form.Partner, form.line)
	r.configured("issuer", form.Issuer, form.line)
	if form.IssuerUser.string == "" {
		form.IssuerUser = form.ID
	}
	if !r.claim("user", form.ID, form.line) {
		return
	}
	r.require("issuer_user", form.IssuerUser, form.line)
	r.users[form.ID.string] = &policy.User{
		ID: form.ID.string, Partner: form.Partner.string, Issuer: form.Issuer.string, IssuerUser: form.IssuerUser.string,
		Account: r.account(form), Wallets: r.wallets(form), Passkeys: r.passkeys(form),
	}
}

// account is the user's account in its one spelling, or "".
func (r *reader) account(form *userForm) string {
	t := form.Account
	if t.line == 0 {
		if address, ok := policy.ParseAddress(form.ID.string); ok {
			return address.String()
		}
		return ""
	}
	address, ok := r.address("account", t, form.line)
	if !ok {
		return ""
	}
	return address.String()
}

// address reads an address, and checks its checksum where it has one.
func (r *reader) address(what string, t text, line int) (policy.Address, bool) {
	line = max(t.line, line)
	address, ok := policy.ParseAddress(t.string)
	if !ok {
		r.problem(line, "%s must be 0x and 40 hexadecimal digits", what)
		return policy.Address{}, false
	}
	digits := t.string[2:]
	if t.string != address.String() && digits != strings.ToLower(digits) && digits != strings.ToUpper(digits) {
		r.problem(line, "%s has a wrong checksum in its upper and lower case letters (ERC-55)", what)
	}
	return address, true
}

// maxWallets bounds a user's wallets.
const maxWallets = 32

// wallets are the user's, each of which signs for one user: where an id is an
// address, that wallet is this user's, and may be listed as well.
func (r *reader) wallets(form *userForm) []policy.Address {
	own, signs := policy.ParseAddress(form.ID.string)
	if signs {
		r.lines["signer "+own.String()] = form.ID.line
		if first, taken := r.lines["wallet "+own.String()]; taken {
			r.problem(form.ID.line, "the id is a wallet of another user, on line %d", first)
		}
	}
	if len(form.Wallets) > maxWallets {
		r.problem(form.line, "more than %d wallets", maxWallets)
		return nil
	}
	var wallets []policy.Address
	for _, t := range form.Wallets {
		address, ok := r.address("a wallet", t, form.line)
		line := max(t.line, form.line)
		if !ok || !r.first("wallet", text{address.String(), line}) {
			continue
		}
		if first, taken := r.lines["signer "+address.String()]; taken && !(signs && address == own) {
			r.problem(line, "wallet %q is the id of another user, on line %d", address, first)
		}
		wallets = append(wallets, address)
	}
	return wallets
}

// Bounds of passkeys. Credential ids have at most 1023 bytes (WebAuthn Level 3,
// section 4).
const (
	maxPasskeys           = 32
	maxPasskeyIDBytes     = 1023
	maxPublicKeyTextBytes = 1024
)

func (r *reader) passkeys(form *userForm) []policy.Passkey {
	if len(form.Passkeys) > maxPasskeys {
		r.problem(form.line, "more than %d passkeys", maxPasskeys)
		return nil
	}
	var passkeys []policy.Passkey
	for _, p := range form.Passkeys {
		line := max(p.ID.line, p.PublicKey.line, form.line)
		id, err := base64.RawURLEncoding.Strict().DecodeString(p.ID.string)
		switch {
		case p.ID.string == "":
			r.problem(line, "id of a passkey is missing")
		case err != nil || len(id) > maxPasskeyIDBytes || strings.ContainsAny(p.ID.string, "\r\n"):
			r.problem(p.ID.line, "id of a passkey must be 1 to %d bytes in base64url without padding", maxPasskeyIDBytes)
		case r.first("passkey", p.ID):
			passkeys = append(passkeys, policy.Passkey{ID: p.ID.string, PublicKey: r.publicKey(p.PublicKey, line)})
		}
	}
	return passkeys
}

// publicKey decodes a passkey's key, and checks that it is one.
func (r *reader) publicKey(t text, line int) []byte {
	line = max(t.line, line)
	if t.string == "" {
		r.problem(line, "public_key of a passkey is missing")
		return nil
	}
	der, err := base64.StdEncoding.Strict().DecodeString(t.string)
	if err != nil || len(t.string) > maxPublicKeyTextBytes || strings.ContainsAny(t.string, "\r\n") {
		r.problem(line, "public_key must be base64 on one line")
		return nil
	}
	if _, err := (&policy.Passkey{PublicKey: der}).Key(); err != nil {
		r.problem(line, "public_key: %v", err)
	}
	return der
}

func (r *reader) card(form *cardForm) {
	r.configured("issuer", form.Issuer, form.line)
	if form.IssuerCard.string == "" {
		form.IssuerCard = form.ID
	}
	partners := r.list("partner", form.Partners, form.line)
	if len(form.Partners) == 0 {
		r.problem(form.line, "a card without partners: nobody could use it")
	}
	users := r.list("user", form.Users, form.line)
	if env := form.Environment; env.string != "test" && env.string != "production" {
		r.problem(max(env.line, form.line), `environment must be "test" or "production"`)
	}
	if !r.claim("card", form.ID, form.line) {
		return
	}
	r.require("issuer_card", form.IssuerCard, form.line)
	holding := &policy.Holding{
		Card: form.ID.string, Issuer: form.Issuer.string, IssuerCard: form.IssuerCard.string,
		Partners: partners, Users: users, Environment: form.Environment.string,
	}
	r.cards[holding.Card] = holding
	r.lives = append(r.lives, life{holding.Issuer, holding.Environment, max(form.Environment.line, form.line)})
	for _, id := range form.Users {
		r.owns(id, holding)
	}
}

// list checks the names of a list, which must differ.
func (r *reader) list(what string, list []text, line int) []string {
	var names []string
	for _, t := range list {
		if slices.Contains(names, t.string) {
			r.problem(max(t.line, line), "%s %q is named twice", what, t.string)
			continue
		}
		names = append(names, t.string)
		if what == "partner" {
			r.configured(what, t, line)
		}
	}
	return names
}

// owns gives a user the card, if the two can belong together.
func (r *reader) owns(id text, card *policy.Holding) {
	user := r.users[id.string]
	switch {
	case user == nil:
		r.problem(max(id.line, 1), "user %q is not listed under users", id.string)
	case !slices.Contains(card.Partners, user.Partner):
		r.problem(id.line, "user %q is of partner %q, who does not hold this card", id.string, user.Partner)
	case user.Issuer != card.Issuer:
		r.problem(id.line, "user %q is of issuer %q, and this card is not", id.string, user.Issuer)
	case !slices.Contains(user.Cards, card.Card):
		user.Cards = append(user.Cards, card.Card)
	}
}
