package main

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	bigendian "encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/vault/keys"
)

// TestHeldCardsAreReadByNobody kills the gateway after a card was typed in, and again after it became a token, and gives all of Redis
// and all of the gateway's keys to a thief, who reads no card. With the page's session, or with the token, the thief does, so that the
// thief is one to be afraid of; and once the token is used up, not even with all of these [11].
func TestHeldCardsAreReadByNobody(t *testing.T) {
	t.Parallel()
	for stage, read := range crash(t, binary(t), "") {
		if strings.HasPrefix(stage, "with ") != (len(read) > 0) {
			t.Errorf("%s: the thief reads %v", stage, read)
		}
	}
}

// TestThievesAreFound lets the thief at programs that protect cards less: each must be noticed without any token.
func TestThievesAreFound(t *testing.T) {
	t.Parallel()
	for name, weak := range map[string]struct {
		sources map[string][2]string
		stage   string
	}{
		"sessions of a seed alone": {map[string][2]string{
			"gateway/idempotent.go": {"\ti.secret = appendSized(appendSized(nil, call.IdempotencyKey), fieldsOfPage(call).Value())\n", ""},
		}, "typed in"},
		"tokens of a seed alone": {map[string][2]string{
			"gateway/idempotent.go": {"append([]byte{}, i.scope[:]...), i.body[:]...), i.secret...)", "append([]byte{}, i.scope[:]...), i.body[:]...), []byte{}...)"},
		}, "minted"},
		"a digest of the body": {map[string][2]string{
			"gateway/idempotent.go": {`append(append([]byte("idempotency body\x00"), sum[:]...), x.idempotent.secret...))`, `append([]byte("idempotency body\x00"), sum[:]...))`},
		}, "typed in"},
		"a card under our key alone": {map[string][2]string{
			"vault/keys/ring.go": {"k.TokenSealer(r.label, token)", "k.Sealer(r.label)"},
		}, "minted"},
		"parts that stay": {map[string][2]string{
			"policy/credential/fields.go": {"Records.Delete(ctx, storeFieldsSubmit, ", "Records.Delete(ctx, storeFields, "},
		}, "paid, to who knows all tokens"},
		"a value that stays for a repetition": {map[string][2]string{
			"policy/store/store.go": {"\t\treturn 0\n\t}\n\treturn ReplayWindow\n", "\t\treturn ReplayWindow\n\t}\n\treturn ReplayWindow\n"},
		}, "paid, to who knows all tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if read := crash(t, buildLeaky(t, weak.sources), weak.stage); len(read[weak.stage]) == 0 {
				t.Errorf("%s: the thief reads nothing: %v", weak.stage, read)
			}
		})
	}
}

// crash goes through a payment, with a gateway that is killed in between, and returns what a thief reads at each stage, or at one.
func crash(t *testing.T, program, only string) map[string][]string {
	t.Helper()
	c := newCanary()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), c)
	server := testredis.Start(t)
	h.useRedis(server.Addr)
	stages := map[string][]string{}
	thieves := map[string]*thief{}
	look := func(stage string, dump map[string]string, tell func(*thief)) {
		if only != "" && stage != only {
			return
		}
		th := newThief(t, h, dump)
		tell(th)
		stages[stage], thieves[stage] = th.read(), th
	}
	nothing := func(*thief) {}
	ctx := t.Context()
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := func() (*gatewayProcess, *tester) {
		g := serveProcess(t, program, h.path("config.yaml"))
		return g, h.caller(g)
	}
	die := func(g *gatewayProcess) {
		do(g.cmd.Process.Kill())
		<-g.ended
	}

	g, caller := begin()
	bearer, err := caller.authorize(ctx, "")
	do(err)
	begun, claim, mint, pay := randomUUID(), randomUUID(), randomUUID(), randomUUID()
	page, err := caller.beginFields(ctx, bearer, begun)
	do(err)
	_, err = caller.want(ctx, caller.client, 200, caller.page(page, "GET", "/configuration", claim, ""))
	do(err)
	submitted := map[string]string{} // the texts of submissions' idempotency keys, by body
	for _, field := range typed(h.checkout) {
		submitted[field] = randomUUID()
		_, err := caller.want(ctx, caller.client, 200, caller.page(page, "POST", "/fields", submitted[field], field))
		do(err)
	}
	die(g)
	dump := server.Dump()
	look("typed in", dump, nothing)
	look("with the page's session", dump, func(th *thief) { th.knowing(page.Token) })
	look("with the key that the session was begun with", dump, func(th *thief) { th.knowing(begun) })
	look("with what a submission was digested with", dump, func(th *thief) { th.digested(submitted[typed(h.checkout)[0]], page.Token) })

	g, caller = begin()
	token, err := caller.mintCardToken(ctx, page, mint)
	do(err)
	die(g)
	dump = server.Dump()
	look("minted", dump, nothing)
	look("minted, to who has the session", dump, func(th *thief) { th.knowing(page.Token) })
	look("with the token", dump, func(th *thief) { th.knowing(token) })

	g, caller = begin()
	r, err := caller.want(ctx, caller.client, 201, caller.payment(bearer, token, pay))
	do(err)
	do(caller.paidWith(r))
	if paid := h.payroc.Payments(); len(paid) != 1 || h.paidWith(paid[0].NumberSHA256, paid[0].CodeSHA256, paid[0].ExpiryDate) != nil {
		t.Error("the issuer did not get the card that was typed in")
	}
	look("paid, to who knows all tokens", server.Dump(), func(th *thief) {
		for _, secret := range append([]string{page.Token, token, begun, claim, mint, pay}, slices.Collect(maps.Values(submitted))...) {
			th.knowing(secret)
		}
	})
	die(g)
	for stage := range guessed(thieves) {
		stages[stage] = append(stages[stage], "a digest of the submission, by which a guess is known to be right")
	}
	return stages
}

// thief has all of Redis and all of the gateway's keys, knows the gateway's source, and may have been told some secrets besides. What
// they open they look into for more.
type thief struct {
	t       *testing.T
	h       *house
	raw     map[string][]byte // the keys' bytes, by file
	tags    map[string][]byte // by which values and tokens name their key
	storage *keys.Key
	sealers map[string]*keys.Sealer // by label
	source  texts
	entries []entry
	known   []string // secrets that may be tokens, and what idempotency keys may be
	found   *canary
	binds   [][]byte // what a digest of a body may have been made with besides
	seen    map[string]bool
}

// entry is a value of the store, or what one was opened to, with the digests that it is kept under.
type entry struct {
	name    string
	value   []byte
	digests [][]byte
}

func newThief(t *testing.T, h *house, dump map[string]string) *thief {
	t.Helper()
	th := &thief{t: t, h: h, raw: map[string][]byte{}, tags: map[string][]byte{}, found: newCanary(), seen: map[string]bool{}, sealers: map[string]*keys.Sealer{}, source: sourceTexts(t)}
	for use, file := range map[keys.Use]string{keys.UseStorage: "storage", keys.UseDigest: "digest", keys.UseCookie: "cookie", keys.UseAudit: "audit", keys.UseJWT: "jwt"} {
		block, _ := pem.Decode(h.read(file + "-key.pem"))
		th.raw[file] = block.Bytes
		key, err := keys.Load(keys.Config{ID: file + "-demo", Use: use, File: h.path(file + "-key.pem")})
		if err != nil {
			t.Fatal(err)
		}
		tag := key.Tag()
		th.tags[file] = tag[:]
		if use == keys.UseStorage {
			th.storage = key
		}
	}
	for _, secret := range []struct{ what, value string }{{"card number", h.checkout.PAN}, {"security code", h.checkout.CVC}} {
		th.found.secret(secret.what, secret.value)
	}
	byDigest := map[string][][]byte{} // records of one name are about one thing
	for key, value := range dump {
		for _, d := range keyDigest.FindAllString(key, -1) {
			if len(value) == 94 { // of an idempotent call: state, attempt, digest of the body, times (redis_begin.lua)
				byDigest[d] = append(byDigest[d], []byte(value[17:49]))
			}
		}
	}
	for key, value := range dump {
		e := entry{name: key, value: []byte(value)}
		for _, d := range keyDigest.FindAllString(key, -1) {
			if own, err := base64.RawURLEncoding.DecodeString(d); err == nil {
				e.digests = append(append(e.digests, own), byDigest[d]...)
			}
		}
		th.entries = append(th.entries, e)
		th.found.saw("the store", key+"\n"+value)
	}
	if len(dump) < 5 {
		t.Fatalf("the store holds %d values", len(dump))
	}
	return th
}

var keyDigest = regexp.MustCompile(`[A-Za-z0-9_-]{43}`)

// knowing tells the thief a secret.
func (th *thief) knowing(secret string) { th.known = append(th.known, secret) }

// digested tells the thief what a body was digested with.
func (th *thief) digested(key, session string) { th.binds = append(th.binds, sized(key, session)) }

// sized writes texts with their lengths, as the gateway does.
func sized(texts ...string) (b []byte) {
	for _, text := range texts {
		b = append(bigendian.BigEndian.AppendUint16(b, uint16(len(text))), text...)
	}
	return b
}

// read tries everything, and says what of the card was found.
func (th *thief) read() (what []string) {
	tokens := slices.Clone(th.known)
	for i := 0; i < len(th.entries); i++ { // what is opened is appended
		th.open(&th.entries[i])
		tokens = append(tokens, th.again(th.entries[i].value, th.entries[i].digests)...)
		tokens = append(tokens, textsOf(th.entries[i])...)
	}
	tokens = append(tokens, th.source.labels...)
	for _, token := range tokens {
		if len(token) >= keys.MinTokenBytes && !th.seen["token "+token] {
			th.seen["token "+token] = true
			th.openHeld(token, "cardstile held card v1")
		}
	}
	for _, label := range slices.Concat(th.source.derive, th.source.labels) {
		th.openHeld("", label)
	}
	for _, l := range th.found.search() {
		what = append(what, l.what+" in "+l.place)
	}
	return slices.Compact(what)
}

// texts are what the source says in quotes: labels of keys, and of associated data and messages.
type texts struct{ derive, labels []string }

var (
	deriveLabel = regexp.MustCompile(`(?:NewSealRing|NewTokenRing|NewMACRing|ring|labelled|MAC|Sealer|TokenSealer)\("([^"]+)"`)
	anyLabel    = regexp.MustCompile(`"((?:cardstile|idempotency|issuer idempotency) [^"\n]{1,60})"`)
)

// sourceTexts reads them from the source, so that no label is forgotten here.
func sourceTexts(t *testing.T) texts {
	t.Helper()
	all, err := readSourceTexts()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var readSourceTexts = sync.OnceValues(func() (texts, error) {
	found := map[string]bool{}
	var all texts
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		content, err := os.ReadFile(path)
		for _, m := range deriveLabel.FindAllSubmatch(content, -1) {
			if !found["d"+string(m[1])] {
				found["d"+string(m[1])], all.derive = true, append(all.derive, string(m[1]))
			}
		}
		for _, m := range anyLabel.FindAllSubmatch(content, -1) {
			if label := strings.ReplaceAll(string(m[1]), `\x00`, "\x00"); !found[label] {
				found[label], all.labels = true, append(all.labels, label)
			}
		}
		return err
	})
	for _, label := range []string{"answer", "card grant", "card token seed", "fields seed", "fields", "card"} {
		if !slices.Contains(all.derive, label) {
			err = errors.Join(err, fmt.Errorf("the source derives no key for %q, which it did: look what became of it", label))
		}
	}
	for _, label := range []string{"cardstile held card v1", "cardstile kept answer v1", "cardstile idempotent answer v1", "cardstile card token grant v1", "idempotency body\x00", "cardstile token hint v1"} {
		if !slices.Contains(all.labels, label) {
			err = errors.Join(err, fmt.Errorf("the source has no label %q, which it had: look what became of it", label))
		}
	}
	return all, err
})

// sealed are the parts of a value that may be sealed: they begin with the key's tag and go to the end.
func (th *thief) sealed(value []byte) (all [][]byte) {
	for i := 0; ; {
		n := bytes.Index(value[i:], th.tags["storage"])
		if n < 0 {
			return all
		}
		i += n + len(th.tags["storage"])
		all = append(all, value[i:])
	}
}

// open opens what our keys open without a token, under every label, and looks into that too.
func (th *thief) open(e *entry) {
	source := &th.source
	bound := th.associated(e, source.labels)
	for _, sealed := range th.sealed(e.value) {
		for _, label := range slices.Concat(source.derive, source.labels) {
			s := th.sealers[label]
			if s == nil {
				var err error
				if s, err = th.storage.Sealer(label); err != nil {
					th.t.Fatal(err)
				}
				th.sealers[label] = s
			}
			for _, data := range bound {
				if plain, err := s.Open(nil, data, sealed); err == nil && !th.seen[string(plain)] {
					th.seen[string(plain)] = true
					th.entries = append(th.entries, entry{e.name + ", opened as " + label, plain, e.digests})
					th.found.saw("what was opened of "+kindOf(e.name), string(plain))
				}
			}
		}
	}
}

// associated is what data a value may have been sealed with: a label, and digests that it is kept under or bound to.
func (th *thief) associated(e *entry, labels []string) (all [][]byte) {
	for _, label := range labels {
		all = append(all, []byte(label))
		for i, d := range e.digests {
			all = append(all, append([]byte(label), d...))
			if i > 0 && strings.Contains(label, "answer") { // bound to two of them
				all = append(all, slices.Concat([]byte(label), e.digests[0], d))
			}
		}
	}
	return all
}

// kindOf is what a key of the store is about.
func kindOf(name string) string { return keyDigest.ReplaceAllString(name, "…") }

// openHeld looks for the card in what is sealed under a token, without asking whether it is authentic: that takes no associated data.
func (th *thief) openHeld(token, label string) {
	key, err := hkdf.Key(sha256.New, th.raw["storage"], []byte(token), label, sha256.Size)
	if err != nil {
		th.t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		th.t.Fatal(err)
	}
	for i := range th.entries {
		e := &th.entries[i]
		for _, sealed := range th.sealed(e.value) {
			if len(sealed) <= keys.SealOverhead {
				continue
			}
			nonce, text := sealed[:12], bytes.Clone(sealed[12:len(sealed)-16])
			cipher.NewCTR(block, append(slices.Clip(nonce), 0, 0, 0, 2)).XORKeyStream(text, text) // as GCM begins (NIST SP 800-38D, section 7.1)
			// In noise the few digits of a code would be found by chance.
			if bytes.Contains(text, []byte(th.h.checkout.PAN)) || string(text) == th.h.checkout.CVC {
				th.found.saw(kindOf(e.name), string(text))
			}
		}
	}
}

// again makes the tokens again of which a value keeps the seed: version, tag of the digest key, salt.
func (th *thief) again(value []byte, digests [][]byte) (tokens []string) {
	mark := append([]byte{1}, th.tags["digest"]...)
	at := bytes.Index(value, mark)
	if at < 0 || at+len(mark)+32 > len(value) || len(digests) == 0 {
		return nil
	}
	salt := value[at+len(mark) : at+len(mark)+32]
	hint := sha256.Sum256([]byte("cardstile token hint v1" + demoPartner))
	secrets := [][]byte{nil, sized("", ""), sized("")}
	for _, a := range th.known {
		secrets = append(secrets, sized(a, ""), sized("", a))
		for _, b := range th.known {
			secrets = append(secrets, sized(a, b))
		}
	}
	for _, label := range th.source.derive {
		mac, err := hkdf.Key(sha256.New, th.raw["digest"], nil, label, sha256.Size)
		if err != nil {
			th.t.Fatal(err)
		}
		for _, body := range append(digests, nil) {
			for _, secret := range secrets {
				hash := hmac.New(sha256.New, mac)
				for _, part := range [][]byte{salt, []byte(demoPartner), slices.Concat(digests[0], body, secret)} {
					hash.Write(append(bigendian.BigEndian.AppendUint32(nil, uint32(len(part))), part...))
				}
				sum := hash.Sum(nil)
				for _, raw := range [][]byte{slices.Concat(th.tags["digest"], sum), slices.Concat(th.tags["digest"], hint[:4], sum)} {
					tokens = append(tokens, base64.RawURLEncoding.EncodeToString(raw))
				}
			}
		}
	}
	return tokens
}

// textsOf is all that stands in an entry and could be a token.
func textsOf(e entry) []string {
	all := []string{e.name, string(e.value)}
	for _, raw := range append(e.digests, e.value) {
		all = append(all, string(raw), base64.RawURLEncoding.EncodeToString(raw), fmt.Sprintf("%x", raw))
	}
	return all
}

// guessed are the stages at which a digest in the store tells a thief who guesses the card that the guess is right. Here the guess is
// right. Thieves who know no more than others make the same guesses, which are many: they are made once.
func guessed(thieves map[string]*thief) map[string]bool {
	found := map[string]bool{}
	byKnowledge := map[string]map[string]*thief{} // by what digests may have been made with, and stage
	for stage, th := range thieves {
		binds := fmt.Sprintf("%q", th.binds)
		if byKnowledge[binds] == nil {
			byKnowledge[binds] = map[string]*thief{}
		}
		byKnowledge[binds][stage] = th
	}
	for _, alike := range byKnowledge {
		stages := map[[sha256.Size]byte][]string{} // by all that could be a digest
		var one *thief
		for stage, th := range alike {
			one = th
			for digest := range th.digests() {
				stages[digest] = append(stages[digest], stage)
			}
		}
		one.guess(func(sum [sha256.Size]byte) {
			for _, stage := range stages[sum] {
				found[stage] = true
			}
		})
	}
	return found
}

// digests is all in the store that could be one.
func (th *thief) digests() map[[sha256.Size]byte]bool {
	all := map[[sha256.Size]byte]bool{}
	for i := range th.entries {
		for _, value := range append(th.entries[i].digests, th.entries[i].value) {
			for at := 0; at+sha256.Size <= len(value); at++ {
				all[[sha256.Size]byte(value[at:])] = true
			}
		}
	}
	return all
}

// guess makes every digest that could be one of the card.
func (th *thief) guess(made func([sha256.Size]byte)) {
	guesses := [][]byte{[]byte(th.h.checkout.PAN), []byte(th.h.checkout.CVC)}
	for _, body := range typed(th.h.checkout)[:3] {
		sum := sha256.Sum256([]byte(body))
		guesses = append(guesses, []byte(body), sum[:])
	}
	for _, guess := range slices.Clone(guesses) {
		for _, bind := range slices.Concat(th.binds, [][]byte{sized("", ""), sized("")}) {
			guesses = append(guesses, slices.Concat(guess, bind))
		}
	}
	source := &th.source
	prefixes := []string{"", "card\x00", "card_taken\x00"}
	for _, label := range source.labels {
		prefixes = append(prefixes, label, label+"\x00")
	}
	for _, raw := range th.raw {
		macs := [][]byte{raw, nil}
		for _, label := range slices.Concat(source.derive, source.labels) {
			if mac, err := hkdf.Key(sha256.New, raw, nil, label, sha256.Size); err == nil {
				macs = append(macs, mac)
			}
		}
		for _, mac := range macs {
			hash, sum := hmac.New(sha256.New, mac), [sha256.Size]byte{}
			for _, prefix := range prefixes {
				for _, guess := range guesses {
					hash.Reset()
					hash.Write([]byte(prefix))
					hash.Write(guess)
					made([sha256.Size]byte(hash.Sum(sum[:0])))
				}
			}
		}
	}
}
