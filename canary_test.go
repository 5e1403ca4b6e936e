package main

import (
	"bytes"
	"encoding/base64"
	bigendian "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/internal/testredis"
)

// The canary knows every secret of one story: card numbers, security codes, PINs and their blocks, session ids and
// secrets, tokens, API keys, sessions of pages, cookie signatures and key files. It is shown everything that the program let go of in a
// place where none of them belongs: logs, audit files, metrics, answers, and all of Redis. See TestLeaksAreFound for
// what it is worth.
//
// A secret of seven bytes or more is searched for as bytes, in hex, in base64 (at every alignment, so that it is found
// inside a longer value too), percent-encoded, as Go prints a byte slice, and, where it is digits, grouped by four and
// packed two to a byte. Security codes and short PINs are found by chance in any text with times, ports and durations in
// it. They are searched for as whole words of the texts, and as whole values of the numbers, in which the program says
// something: JSON strings and numbers other than those of listed fields, label values, Redis keys and values; and
// anywhere after a word that announces them, as in "cvc=123".
type canary struct {
	mu      sync.Mutex
	secrets []secretValue
	known   map[string]bool // values among secrets
	places  []place
}

type secretValue struct {
	what      string
	forms     map[string]string // by name
	short     string            // the digits of a short one
	announced *regexp.Regexp    // the short one after a word that announces it
}

type place struct{ name, text string }

func newCanary() *canary { return &canary{known: map[string]bool{}} }

// leak is a secret where it must not be.
type leak struct{ what, form, place string }

// String does not print the secret.
func (l leak) String() string {
	return fmt.Sprintf("canary: %s (%s) stands in %s", l.what, l.form, l.place)
}

const longEnough = 7 // bytes: shorter ones are found by chance

// secret makes a value known.
func (c *canary) secret(what, value string) {
	if value == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[value] {
		return
	}
	c.known[value] = true
	s := secretValue{what: what}
	if len(value) >= longEnough {
		s.forms = forms(value)
	} else {
		s.short = value
		s.announced = regexp.MustCompile(`(?i)(cv[cv]2?|pin|code|secret)[^0-9a-z]{0,4}` + value + `([^0-9]|$)`)
	}
	c.secrets = append(c.secrets, s)
}

// forms are the ways in which a value could be written.
func forms(value string) map[string]string {
	raw := []byte(value)
	all := map[string]string{
		"plain": value, "hex": hex.EncodeToString(raw), "upper-case hex": strings.ToUpper(hex.EncodeToString(raw)),
		"byte slice": strings.Trim(fmt.Sprint(raw), "[]"),
	}
	var percent strings.Builder
	for _, b := range raw {
		fmt.Fprintf(&percent, "%%%02X", b)
	}
	all["percent"] = percent.String()
	if escaped := strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(value); escaped != value {
		all["query"] = escaped
	}
	for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for shift := range 3 {
			// What stands around it changes the characters at both ends.
			text := encoding.EncodeToString(append(make([]byte, shift), raw...))
			begin := []int{0, 2, 3}[shift]
			end := (shift + len(raw)) * 8 / 6
			all[fmt.Sprintf("%s at %d", name, shift)] = text[begin:end]
		}
	}
	if strings.Trim(value, "0123456789") == "" {
		var groups []string
		for group := range slices.Chunk(raw, 4) {
			groups = append(groups, string(group))
		}
		all["grouped by spaces"], all["grouped by hyphens"] = strings.Join(groups, " "), strings.Join(groups, "-")
		if packed, err := hex.DecodeString(value); err == nil {
			all["packed"] = string(packed)
		}
	}
	return all
}

// card makes all that is secret of a card known.
func (c *canary) card(card sandbox.Card) {
	c.secret("card number", card.PAN)
	c.secret("security code", card.CVC)
	c.pin(card.PIN)
}

// pin makes a PIN and its block (ISO 9564 as ASCII text, both spellings) known.
func (c *canary) pin(pin string) {
	c.secret("PIN", pin)
	block := fmt.Sprintf("2%x%s%s", len(pin), pin, strings.Repeat("F", 14-len(pin)))
	c.secret("PIN block", block)
	if other := strings.ToUpper(block); other != block {
		c.secret("PIN block", other)
	}
}

// session makes a session's id and secret known.
func (c *canary) session(s *sandbox.Session) {
	c.secret("session id", s.ID())
	c.secret("session secret", s.Secret())
	raw, err := hex.DecodeString(s.Secret())
	if err != nil {
		panic(err) // it is hex
	}
	c.secret("session secret's bytes", string(raw))
}

// handedOut is what answers of 2xx give to their callers: secrets from then on, and their own answers are where they belong.
var handedOut = []struct {
	what string
	at   *regexp.Regexp
}{
	{"token", regexp.MustCompile(`"ephemeralToken":"([^"]+)"`)},
	{"ephemeral key", regexp.MustCompile(`"ephemeral_key":"([^"]+)"`)},
	{"access token", regexp.MustCompile(`"access_token":"([^"]+)"`)},
	{"refresh token", regexp.MustCompile(`"refresh_token":"([^"]+)"`)},
	{"provisioning secret", regexp.MustCompile(`"secret":"([^"]+)"`)},
	{"session of hosted fields", regexp.MustCompile(`"processingTerminalId":"[^"]*","token":"([^"]+)"`)},
	{"single-use token", regexp.MustCompile(`^\{"token":"([^"]+)"`)},
	{"nonce of typed data", regexp.MustCompile(`"nonce":"([0-9]{60,78})"`)},
	{"passkey's challenge", regexp.MustCompile(`"challenge":"([0-9A-Za-z_-]{43})"`)},
	{"nonce of a challenge", regexp.MustCompile(`\\nNonce: ([0-9A-Za-z]+)`)},
	{"challenge's id", regexp.MustCompile(`(?m)^(?:Set-Cookie: session_id=|X-Session-Id: )([^;\s]+)`)},
	{"cookie signature", regexp.MustCompile(`(?m)^Set-Cookie: credential_id=[^.;]+\.([^;\s]+)`)},
}

// answered notes an answer to a caller, and learns what is handed out in it.
func (c *canary) answered(status int, header http.Header, body []byte) {
	var head strings.Builder
	_ = header.Write(&head) // a strings.Builder takes everything
	places := []string{head.String(), string(body)}
	for i := range places {
		for _, h := range handedOut {
			if status/100 != 2 {
				break
			}
			places[i] = h.at.ReplaceAllStringFunc(places[i], func(found string) string {
				value := h.at.FindStringSubmatch(found)[1]
				c.token(h.what, value)
				return strings.Replace(found, value, "(handed out)", 1)
			})
		}
	}
	c.saw("the header of an answer", places[0])
	c.saw("an answer", places[1])
}

// inClear are the members of answers whose callers get card data in clear, by the word of their route.
var inClear = regexp.MustCompile(`"(card_number|card_security_code|account_number)":"[^"]*"`)

// shown takes card data out of an answer that it belongs into. Whoever calls it says so.
func shown(body []byte) []byte { return inClear.ReplaceAll(body, []byte(`"$1":"(shown)"`)) }

// token makes a token known: its text, its bytes, and the parts of one that is signed.
func (c *canary) token(what, token string) {
	c.secret(what, token)
	if raw, err := base64.RawURLEncoding.DecodeString(token); err == nil {
		c.secret(what+"'s bytes", string(raw))
	}
	if parts := strings.Split(token, "."); len(parts) == 3 && parts[2] != "" {
		c.secret(what+"'s signature", parts[2])
	}
	if plain, err := url.PathUnescape(token); err == nil && plain != token {
		c.secret(what, plain)
	}
}

// presented are the members of requests' bodies that prove something.
var presented = regexp.MustCompile(`"(refresh_token|client_assertion|public_key|signature|clientDataJSON|authenticatorData|token|encryptedKey)"\s*:\s*"([^"]+)"`)

// sent learns what a caller proves something with. What is shorter than any of ours is noise, which a script sends.
func (c *canary) sent(header http.Header, url *url.URL, body string) {
	learn := func(what, value string) {
		if len(value) > 2*longEnough {
			c.token(what, value)
		}
	}
	token, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	if ok {
		learn("token", token)
	}
	for name, what := range map[string]string{
		"Api-Key": "partner's API key", "Api-Signature": "signature", "X-Session-Id": "challenge's id", "Sessionid": "session id",
		"Cardstile-Client-Secret": "client secret", "X-Api-Key": "partner's API key of payroc", "Cardstile-User-Token": "user token",
		"Cardstile-User-Nonce": "nonce of typed data", "Cardstile-User-Signature": "user's signature",
	} {
		learn(what, header.Get(name))
	}
	for _, name := range []string{"secret", "clientSecret"} {
		learn("client secret", url.Query().Get(name))
	}
	learn("session of hosted fields", url.Query().Get(sessionOfPage))
	if m := inPath.FindStringSubmatch(url.EscapedPath()); m != nil {
		learn("session of hosted fields", m[1])
	}
	for _, m := range presented.FindAllStringSubmatch(body, -1) {
		learn(m[1], m[2])
	}
}

// inPath is the session in the path of what a page of hosted fields calls, and sessionOfPage where it stands in the page's own query.
var inPath = regexp.MustCompile(`/hosted-fields-sessions/([^/]+)`)

const sessionOfPage = "hostedFieldsSessionId"

// ownToken takes out of the page of a field the session that it was asked for with: it belongs there.
func ownToken(asked *url.URL, body []byte) []byte {
	token := asked.Query().Get(sessionOfPage)
	if asked.Path != "/merchant/hosted-fields" || token == "" {
		return body
	}
	return bytes.ReplaceAll(body, []byte(`"`+token+`"`), []byte(`"(its own)"`))
}

// saw notes what stood at a place.
func (c *canary) saw(name, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places = append(c.places, place{name, text})
}

func (c *canary) dump(name string, server *testredis.Server) {
	for key, value := range server.Dump() {
		c.saw("a key of Redis "+name, key)
		c.saw("a value of Redis "+name, value)
	}
}

// auditFiles takes every audit file of a directory, renamed ones too.
func (c *canary) auditFiles(t testing.TB, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*audit*jsonl*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c.saw("the audit log", string(content))
	}
}

// search returns every leak, each once per place.
func (c *canary) search() []leak {
	c.mu.Lock()
	defer c.mu.Unlock()
	var short []*secretValue
	for i := range c.secrets {
		if c.secrets[i].short != "" {
			short = append(short, &c.secrets[i])
		}
	}
	var found []leak
	forms := c.formsByBeginning()
	for _, p := range c.places {
		for s, form := range forms.in(p.text) {
			found = append(found, leak{s.what, form, p.name})
		}
		words := wordsOf(p.text)
		for _, s := range short {
			if form, there := s.in(p.text, words); there {
				found = append(found, leak{s.what, form, p.name})
			}
		}
	}
	slices.SortFunc(found, func(a, b leak) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(found)
}

// beginning is the first bytes of a form: no form is shorter, that of eight digits two to a byte included.
type beginning uint32

const beginningBytes = 4

// beginnings are the forms of all long secrets, by how they begin, so that a text is gone through once for all of them: there are
// thousands of forms and of places.
type beginnings map[beginning][]soughtForm

type soughtForm struct {
	of         *secretValue
	name, text string
}

func (c *canary) formsByBeginning() beginnings {
	all := beginnings{}
	for i := range c.secrets {
		s := &c.secrets[i]
		for name, text := range s.forms {
			b := beginning(bigendian.BigEndian.Uint32([]byte(text[:beginningBytes])))
			all[b] = append(all[b], soughtForm{s, name, text})
		}
	}
	return all
}

// in returns the secrets that stand in a text, with a form of each.
func (all beginnings) in(text string) map[*secretValue]string {
	found := map[*secretValue]string{}
	var last beginning // the bytes up to i
	for i := range len(text) {
		last = last<<8 | beginning(text[i])
		for _, f := range all[last] {
			if at := i + 1 - beginningBytes; at >= 0 && strings.HasPrefix(text[at:], f.text) {
				found[f.of] = f.name
			}
		}
	}
	return found
}

// in looks for a short secret.
func (s *secretValue) in(text string, words map[string]bool) (form string, there bool) {
	if words[s.short] {
		return "word", true
	}
	const around = 24 // bytes of what announces it
	for at := 0; ; at++ {
		n := strings.Index(text[at:], s.short)
		if n < 0 {
			return "", false
		}
		at += n
		if s.announced.MatchString(text[max(0, at-around):min(len(text), at+len(s.short)+utf8.UTFMax)]) {
			return "announced", true
		}
	}
}

// numbers are the JSON fields whose values are numbers of ours, in logs, audit records and answers.
var numbers = map[string]bool{
	"seq": true, "status": true, "latency_us": true, "ts": true, "amount": true, "mode": true, "expirationYear": true, "expirationMonth": true,
	"lastFour": true, "size": true, "records": true,
}

// wordsOf returns what a text says, in words and numbers: of a line of JSON its strings and numbers, of another line what
// stands between quotes, and the whole where it has neither. A word is bounded by anything but letters, digits and what
// numbers of other kinds are written with (times, addresses, durations, versions, ids).
func wordsOf(text string) map[string]bool {
	words := map[string]bool{}
	add := func(text string) {
		for _, w := range word.FindAllString(text, -1) {
			words[strings.Trim(w, ",;")] = true
		}
	}
	for line := range strings.Lines(text) {
		var value any
		d := json.NewDecoder(strings.NewReader(line))
		d.UseNumber()
		if d.Decode(&value) == nil {
			walk("", value, add)
			continue
		}
		quoted := quotes.FindAllString(line, -1)
		for _, q := range quoted {
			add(strings.Trim(q, `"`))
		}
		if len(quoted) == 0 && !sample.MatchString(line) {
			add(line)
		}
	}
	return words
}

var (
	word   = regexp.MustCompile(`[^\s"'(){}\[\]<>=|]+`)
	quotes = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	sample = regexp.MustCompile(`^[a-z_]+(\{.*\})? [-+.0-9eINa]+\n?$`) // of a metric without labels
)

func walk(name string, value any, add func(string)) {
	switch v := value.(type) {
	case string:
		if !numbers[name] {
			add(v)
		}
	case json.Number:
		if !numbers[name] {
			add(v.String())
		}
	case []any:
		for _, item := range v {
			walk(name, item, add)
		}
	case map[string]any:
		for key, item := range v {
			add(key)
			walk(key, item, add)
		}
	}
}
