package drill

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

// verb is what a call asks for. Revoking is redeeming and throwing the value away: the store has no other way to end a token.
type verb uint8

const (
	mint verb = iota + 1
	redeem
	revoke
)

func (v verb) String() string { return [...]string{"?", "mint", "redeem", "revoke"}[v] }

// answer is what a call was told.
type answer uint8

const (
	yes answer = iota + 1
	exists
	spent
	expired
	fenced
	unknown
	full    // nothing was stored
	nothing // no answer: it may have happened, or happen yet
)

func (a answer) String() string {
	return [...]string{"?", "yes", "exists", "spent", "expired", "fenced", "unknown", "full", "no answer"}[a]
}

// call is one operation, as its gateway saw it.
type call struct {
	verb    verb
	gateway string
	attempt uint64
	answer  answer
	text    string // the error's
	value   string
	began   int64
	ended   int64
	reach   []*Watch // of the servers that it may have come to
	fair    bool     // no fault was on its way, and none began

	facts // what the judge found out
}

// Token is one digest with all that was asked of it.
type Token struct {
	Number int
	Kind   store.Kind
	Digest store.Digest

	value string
	ttl   time.Duration

	mu    sync.Mutex
	calls []*call
	asked int // how often it was asked for while the workers were at work
}

// History is all tokens in the order of their minting. Safe for concurrent use.
type History struct {
	start time.Time

	mu       sync.Mutex
	tokens   []*Token
	attempts uint64
}

// NewHistory returns an empty one, whose clock begins now.
func NewHistory() *History { return &History{start: time.Now()} }

// Now is in ns since the start.
func (h *History) Now() int64 { return int64(time.Since(h.start)) }

func (h *History) attempt() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempts++
	return h.attempts
}

// Attempt is a number's attempt, as the store takes it.
func Attempt(n uint64) (a store.Attempt) {
	binary.BigEndian.PutUint64(a[8:], n)
	return a
}

// add returns a token that is in the history now, and nowhere else. Its value has pad bytes beyond those that tell it from others.
func (h *History) add(r *rand.Rand, kind store.Kind, ttl time.Duration, pad int) *Token {
	k := &Token{Kind: kind, ttl: ttl}
	// A digest that is not from the seed: drills must not meet each other's tokens in a server that was kept.
	k.Digest = sha256.Sum256(binary.BigEndian.AppendUint64(fmt.Appendf(nil, "%p %d", k, time.Now().UnixNano()), r.Uint64()))
	k.value = fmt.Sprintf("value %x", r.Uint64()) + strings.Repeat(".", pad)
	h.mu.Lock()
	defer h.mu.Unlock()
	k.Number = len(h.tokens)
	h.tokens = append(h.tokens, k)
	return k
}

// All returns the tokens. The slice is not to be changed.
func (h *History) All() []*Token {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tokens[:len(h.tokens):len(h.tokens)]
}

// Counts says how many calls there were, by verb and answer: "redeem yes".
func (h *History) Counts() (calls int, counts map[string]int) {
	counts = map[string]int{}
	for _, k := range h.All() {
		for _, c := range k.past() {
			calls++
			counts[c.verb.String()+" "+c.answer.String()]++
		}
	}
	return calls, counts
}

func (k *Token) record(c *call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, c)
}

func (k *Token) past() []*call {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[:len(k.calls):len(k.calls)]
}

// String is the token's story. Neither its digest nor its value is in it.
func (k *Token) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "token %d (%s, for %v):\n", k.Number, k.Kind, k.ttl)
	for _, c := range k.past() {
		var where []string
		for _, w := range c.reach {
			where = append(where, fmt.Sprintf("%s %.6s", w.Name, w.possible(c.began, c.ended)))
		}
		fmt.Fprintf(&b, "  %9.3f…%9.3f ms: gateway %s at %s: %s", float64(c.began)/1e6, float64(c.ended)/1e6, c.gateway, strings.Join(where, " or "), c.verb)
		if c.verb != mint {
			fmt.Fprintf(&b, " as attempt %d", c.attempt)
		}
		fmt.Fprintf(&b, ": %s", c.answer)
		if c.answer == nothing {
			fmt.Fprintf(&b, " (%s)", c.text)
		}
		b.WriteString("\n")
	}
	return b.String()
}
