package chaos

import (
	"encoding/binary"
	"fmt"
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
	reach   []*node

	facts // what the judge found out
}

// token is one digest with all that was asked of it.
type token struct {
	number int
	kind   store.Kind
	digest store.Digest
	value  string
	ttl    time.Duration

	mu    sync.Mutex
	calls []*call
	asked int // how often it was asked for while the workers were at work
}

// history is all tokens in the order of their minting.
type history struct {
	mu       sync.Mutex
	tokens   []*token
	attempts uint64
}

func (h *history) attempt() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempts++
	return h.attempts
}

// id is an attempt as the store takes it.
func id(n uint64) (a store.Attempt) {
	binary.BigEndian.PutUint64(a[8:], n)
	return a
}

func (h *history) add(k *token) {
	h.mu.Lock()
	defer h.mu.Unlock()
	k.number = len(h.tokens)
	h.tokens = append(h.tokens, k)
}

func (h *history) all() []*token {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.tokens[:len(h.tokens):len(h.tokens)]
}

func (k *token) record(c *call) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls = append(k.calls, c)
}

func (k *token) past() []*call {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[:len(k.calls):len(k.calls)]
}

// String is the token's story.
func (k *token) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "token %d (%s, for %v):\n", k.number, k.kind, k.ttl)
	for _, c := range k.past() {
		var where []string
		for _, n := range c.reach {
			where = append(where, fmt.Sprintf("%s %.6s", n.name, n.watch.possible(c.began, min(c.ended, n.watch.now()))))
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
