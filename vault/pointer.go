package vault

import (
	"errors"
	"strconv"
	"strings"
)

// node is a place in the tree of declared pointers. What no pointer leads to has none.
type node struct {
	edges  []edge
	member int  // index into Shape.members; -1 where nothing is declared here
	exact  bool // another spelling of a declared name is refused
}

type edge struct {
	token string // unescaped
	index int    // of an array's element; -1 where token is none (RFC 6901, section 4)
	to    *node
}

func newNode() *node { return &node{member: -1} }

// name is the node of an object's member, nil where none is declared.
func (n *node) name(token []byte) *node {
	if n != nil {
		for i := range n.edges {
			if n.edges[i].token == string(token) {
				return n.edges[i].to
			}
		}
	}
	return nil
}

// misspelt reports whether a name is another spelling of a declared one: what a reader who does not mind case takes for it.
func (n *node) misspelt(token []byte) bool {
	for i := range n.edges {
		if n.exact && strings.EqualFold(n.edges[i].token, string(token)) {
			return true
		}
	}
	return false
}

// spell has names be exact from here on.
func (n *node) spell() {
	n.exact = true
	for i := range n.edges {
		n.edges[i].to.spell()
	}
}

// element is the node of an array's element.
func (n *node) element(index int) *node {
	if n != nil {
		for i := range n.edges {
			if n.edges[i].index == index {
				return n.edges[i].to
			}
		}
	}
	return nil
}

// grow returns the node that tokens lead to, and makes what is missing of the way.
func (n *node) grow(tokens []string) *node {
	for _, token := range tokens {
		next := n.name([]byte(token))
		if next == nil {
			next = newNode()
			n.edges = append(n.edges, edge{token: token, index: arrayIndex(token), to: next})
		}
		n = next
	}
	return n
}

var errPointer = errors.New("not a JSON pointer to a member (RFC 6901)")

// parsePointer splits a JSON pointer into its tokens (RFC 6901, sections 3 and 4). The pointer to the whole document is
// refused.
func parsePointer(text string) ([]string, error) {
	if !strings.HasPrefix(text, "/") {
		return nil, errPointer
	}
	tokens := strings.Split(text[1:], "/")
	for i, token := range tokens {
		for rest := token; ; {
			_, after, found := strings.Cut(rest, "~")
			if !found {
				break
			}
			if after == "" || after[0] != '0' && after[0] != '1' {
				return nil, errPointer
			}
			rest = after[1:]
		}
		tokens[i] = unescapePointer.Replace(token)
	}
	return tokens, nil
}

// unescapePointer goes from left to right, once: "~01" is "~1".
var unescapePointer = strings.NewReplacer("~1", "/", "~0", "~")

// arrayIndex is the element that a token names: no sign, no leading zeros. "-" names the one after the last, which no
// document has.
func arrayIndex(token string) int {
	if token == "" || token[0] == '0' && token != "0" || strings.Trim(token, "0123456789") != "" {
		return -1
	}
	n, err := strconv.Atoi(token)
	if err != nil {
		return -1
	}
	return n
}
