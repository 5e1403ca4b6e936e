package vault

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Defaults and the most of ShapeConfig. Nesting beyond the most would meet the limit of the JSON reader itself.
const (
	defaultBodyBytes = 256 << 10
	maxBodyBytes     = 16 << 20
	defaultBodyDepth = 32
	maxBodyDepth     = 1000
)

// ShapeConfig declares which members of a kind of body may be read, and how. A member is named by its JSON pointer
// (RFC 6901), array elements by their index. What is not declared is never read, by anybody.
type ShapeConfig struct {
	// Public are strings that callers read, such as a type or the last four digits.
	Public []string

	// Clear are strings that hold a sensitive field in clear.
	Clear map[string]Field

	// Sealed are objects {"data","iv"} that hold a sensitive field sealed.
	Sealed map[string]Field

	// Tokens are objects {"type","token"} that stand for a card. They are no card data, and leave no more than it does.
	Tokens []string

	// Exact refuses a body in which a name beside a declared one differs from it in case alone: a receiver who does not mind
	// case would take it for that one, and what was checked would not be what is read.
	Exact bool

	MaxBytes int // of the whole body; default 256 KiB, at most 16 MiB
	MaxDepth int // of objects and arrays inside each other; default 32, at most 1000
}

// Shape is a ShapeConfig made ready at load. It is safe for concurrent use.
type Shape struct {
	maxBytes, maxDepth int
	members            []member // each object is followed by its two parts
	root               *node
}

type member struct {
	pointer string
	use     use
	field   Field
}

// use is what a declared member is for.
type use uint8

const (
	usePublic use = iota + 1
	useClear
	useSealed
	useToken
	usePart // a string of a sealed one or of a token; has no pointer of its own
)

// parts are the members that objects of a use have, in the order in which they follow it.
var parts = map[use][]string{useSealed: {"data", "iv"}, useToken: {"type", "token"}}

// sensitive reports whether such a member never leaves as it came.
func (u use) sensitive() bool { return u == useClear || u == useSealed || u == useToken }

// NewShape checks the declarations: pointers that are none, that are declared twice, or of which one leads through
// another, and fields that are none.
func NewShape(c ShapeConfig) (*Shape, error) {
	s := &Shape{maxBytes: c.MaxBytes, maxDepth: c.MaxDepth, root: newNode()}
	if s.maxBytes == 0 {
		s.maxBytes = defaultBodyBytes
	}
	if s.maxDepth == 0 {
		s.maxDepth = defaultBodyDepth
	}
	if s.maxBytes < 0 || s.maxBytes > maxBodyBytes || s.maxDepth < 0 || s.maxDepth > maxBodyDepth {
		return nil, fmt.Errorf("body shape: %d bytes and a depth of %d: want at most %d and %d", c.MaxBytes, c.MaxDepth, maxBodyBytes, maxBodyDepth)
	}
	problems := make([]error, 0)
	for _, pointer := range c.Public {
		problems = append(problems, s.declare(member{pointer, usePublic, 0}))
	}
	for _, pointer := range slices.Sorted(maps.Keys(c.Clear)) {
		problems = append(problems, s.declare(member{pointer, useClear, c.Clear[pointer]}))
	}
	for _, pointer := range slices.Sorted(maps.Keys(c.Sealed)) {
		problems = append(problems, s.declare(member{pointer, useSealed, c.Sealed[pointer]}))
	}
	for _, pointer := range c.Tokens {
		problems = append(problems, s.declare(member{pointer, useToken, 0}))
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	if c.Exact {
		s.root.spell()
	}
	return s, nil
}

// declare adds a member to the tree.
func (s *Shape) declare(m member) error {
	if (m.use == useClear || m.use == useSealed) && (m.field == 0 || m.field >= fields) {
		return fmt.Errorf("body shape: %q: not a field", m.pointer)
	}
	tokens, err := parsePointer(m.pointer)
	if err != nil {
		return fmt.Errorf("body shape: %q: %w", m.pointer, err)
	}
	if len(tokens) > s.maxDepth {
		return fmt.Errorf("body shape: %q: deeper than %d", m.pointer, s.maxDepth)
	}
	for i := range s.members {
		other := &s.members[i]
		if other.use == usePart {
			continue
		}
		if other.pointer == m.pointer || strings.HasPrefix(other.pointer, m.pointer+"/") || strings.HasPrefix(m.pointer, other.pointer+"/") {
			return fmt.Errorf("body shape: %q: declared twice, or inside %q", m.pointer, other.pointer)
		}
	}
	n := s.root.grow(tokens)
	n.member = len(s.members)
	s.members = append(s.members, m)
	for _, name := range parts[m.use] {
		n.grow([]string{name}).member = len(s.members)
		s.members = append(s.members, member{use: usePart})
	}
	return nil
}

// index is the member of that pointer and use, -1 where none is declared.
func (s *Shape) index(pointer string, of use) int {
	for i := range s.members {
		if s.members[i].use == of && s.members[i].pointer == pointer {
			return i
		}
	}
	return -1
}
