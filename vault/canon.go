package vault

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

// Canon is what of a message is digested. The zero Canon is none and is refused. They are a closed set because they read
// card data: another one is another constant here.
type Canon uint8

const (
	// CanonRaw is the bytes as they came.
	CanonRaw Canon = iota + 1

	// CanonSortedValues is the values of PaymentsGate's request signatures: of every scalar, depth first, its key in lower
	// case and its index; sorted by both; the values only, one after the other. Nested keys are not prefixed.
	//
	// Where published clients disagree with each other it is refused rather than guessed: arrays, nulls, a document that
	// is no object, keys that are not ASCII, and numbers that are not written as ECMAScript would (RFC 8785, section 3.2.2.3).
	CanonSortedValues
)

var (
	errCanon  = errors.New("has no canonical form")
	errClosed = errors.New("vault: the body is closed")
)

// Digest is SHA-256 of the canonical form, for signatures. A digest of a body that holds a card number says which number
// it was, to who tries them all: it is not kept. What is kept is a MAC of the digest.
//
// It fails with [ErrBody] where the body has no such form. An empty body has both: no bytes, and no values.
func (b *Body) Digest(c Canon) (digest [32]byte, err error) {
	raw := b.raw.Bytes()
	if raw == nil {
		return digest, errClosed
	}
	return c.digest(raw, b.shape.maxDepth)
}

// digest is SHA-256 of the canonical form of a document, or of nothing.
func (c Canon) digest(document []byte, maxDepth int) (digest [32]byte, err error) {
	switch c {
	case CanonRaw:
		return sha256.Sum256(document), nil
	case CanonSortedValues:
		if len(document) == 0 {
			return sha256.Sum256(nil), nil
		}
		text, err := sortedValues(document, maxDepth)
		if err != nil {
			return digest, err
		}
		defer text.Destroy()
		return sha256.Sum256(text.Bytes()), nil
	}
	return digest, errors.New("vault: unknown canonical form")
}

// scalars collects the values of a document for CanonSortedValues.
type scalars struct {
	document []byte
	all      []scalar
}

type scalar struct {
	key        string // in lower case
	start, end int
	text       bool // a string, with its quotes
}

// visit implements visitor.
func (s *scalars) visit(v *visited) error {
	switch v.kind {
	case jsontext.KindBeginObject:
		return nil
	case jsontext.KindString, jsontext.KindTrue, jsontext.KindFalse:
	case jsontext.KindNumber:
		if !canonicalNumber(s.document[v.start:v.end]) {
			return errCanon
		}
	default:
		return errCanon
	}
	key, err := lowerKey(s.document[v.nameStart:v.nameEnd])
	if err != nil {
		return err
	}
	s.all = append(s.all, scalar{key, v.start, v.end, v.kind == jsontext.KindString})
	return nil
}

// sortedValues is the text of CanonSortedValues. The caller destroys it.
func sortedValues(document []byte, maxDepth int) (*secret.Buffer, error) {
	s := scalars{document: document}
	if err := walk(document, nil, maxDepth, &s); err != nil {
		return nil, err
	}
	// Scalars end in the order of their indexes, which a stable sort keeps.
	slices.SortStableFunc(s.all, func(x, y scalar) int { return cmp.Compare(x.key, y.key) })
	scratch := secret.New(len(document)) // values are never longer than their texts
	defer scratch.Destroy()
	out := scratch.Bytes()[:0]
	for _, v := range s.all {
		raw := document[v.start:v.end]
		if !v.text {
			out = append(out, raw...)
			continue
		}
		var err error
		if out, err = jsontext.AppendUnquote(out, raw); err != nil {
			return nil, where(err)
		}
	}
	text := secret.New(len(out))
	copy(text.Bytes(), out)
	return text, nil
}

// lowerKey is the key of a raw name. The lower case of other scripts depends on who asks, and so does their order. A
// scalar without a name is the document itself.
func lowerKey(name []byte) (string, error) {
	if len(name) == 0 {
		return "", errCanon
	}
	key, err := jsontext.AppendUnquote(nil, name)
	if err != nil {
		return "", err
	}
	for _, c := range key {
		if c >= 0x80 {
			return "", errCanon
		}
	}
	return string(bytes.ToLower(key)), nil
}

// canonicalNumber reports whether a number is written as ECMAScript writes it: what parses and prints it again, in any
// language, then has the same text.
func canonicalNumber(raw []byte) bool {
	scratch := make([]byte, len(raw), 2*len(raw)+32)
	copy(scratch, raw)
	again := jsontext.Value(scratch)
	same := again.Canonicalize() == nil && bytes.Equal(again, raw)
	clear(scratch[:cap(scratch)])
	return same
}
