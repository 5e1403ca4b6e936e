package vault

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// visitor is told of each value of a document once it is complete, in document order of their ends. It does not keep v.
type visitor interface{ visit(v *visited) error }

// visited is one value. Offsets are into the document; name is its raw text with quotes, empty in arrays.
type visited struct {
	start, end         int
	nameStart, nameEnd int
	node               *node // nil where nothing is declared
	kind               jsontext.Kind
	children           int // of an object or array
}

// walker reads a document from beginning to end without copying values out of it.
type walker struct {
	decoder *jsontext.Decoder
	input   bytes.Buffer // the decoder reads its bytes in place
	frames  []frame
	name    []byte  // of a member whose name has escapes
	told    visited // what the visitor is told
}

// frame is an object or array that was entered and not left.
type frame struct {
	at       visited
	children int
}

var walkers = sync.Pool{New: func() any {
	return &walker{decoder: jsontext.NewDecoder(new(bytes.Buffer)), frames: make([]frame, 0, 8)}
}}

// nothing is what an idle decoder reads, so that it keeps no document alive.
var nothing = new(bytes.Buffer)

// walk reads one strict JSON document: no duplicate names, no invalid UTF-8 (RFC 7493, sections 2.1 and 2.3), no nesting
// beyond maxDepth, nothing after it. Errors say where and never quote.
func walk(document []byte, root *node, maxDepth int, v visitor) error {
	w := walkers.Get().(*walker)
	defer w.done()
	w.input = *bytes.NewBuffer(document)
	w.decoder.Reset(&w.input)
	return where(w.walk(root, maxDepth, v))
}

func (w *walker) done() {
	w.input = bytes.Buffer{}
	w.decoder.Reset(nothing)
	clear(w.frames[:cap(w.frames)])
	w.frames = w.frames[:0]
	clear(w.name[:cap(w.name)])
	w.name = w.name[:0]
	walkers.Put(w)
}

var (
	errDepth    = errors.New("nested too deep")
	errTrailing = errors.New("something after the value")
	errSpelling = errors.New("another spelling of a declared name")
)

func (w *walker) walk(root *node, maxDepth int, v visitor) error {
	w.told = visited{node: root}
	if err := w.value(maxDepth, v); err != nil {
		return err
	}
	for len(w.frames) > 0 {
		var err error
		if kind := w.decoder.PeekKind(); kind == '}' || kind == ']' {
			err = w.leave(v)
		} else if err = w.child(); err == nil {
			err = w.value(maxDepth, v)
		}
		if err != nil {
			return err
		}
	}
	return w.end()
}

// child makes w.told the next value of the innermost object, whose name it reads, or array.
func (w *walker) child() error {
	top := &w.frames[len(w.frames)-1]
	top.children++
	w.told = visited{}
	if top.at.kind == '[' {
		w.told.node = top.at.node.element(top.children - 1)
		return nil
	}
	name, err := w.decoder.ReadValue()
	if err != nil {
		return err
	}
	w.told.nameEnd = int(w.decoder.InputOffset())
	w.told.nameStart = w.told.nameEnd - len(name)
	w.told.node, err = w.named(top.at.node, name)
	return err
}

// value reads a scalar, or enters an object or array.
func (w *walker) value(maxDepth int, v visitor) error {
	w.told.kind = w.decoder.PeekKind()
	if w.told.kind != '{' && w.told.kind != '[' {
		raw, err := w.decoder.ReadValue()
		if err != nil {
			return err
		}
		w.told.end = int(w.decoder.InputOffset())
		w.told.start = w.told.end - len(raw)
		return v.visit(&w.told)
	}
	if len(w.frames) == maxDepth {
		return errDepth
	}
	if _, err := w.decoder.ReadToken(); err != nil {
		return err
	}
	w.told.start = int(w.decoder.InputOffset()) - 1
	w.frames = append(w.frames, frame{at: w.told})
	return nil
}

// leave leaves the innermost object or array.
func (w *walker) leave(v visitor) error {
	if _, err := w.decoder.ReadToken(); err != nil {
		return err
	}
	top := len(w.frames) - 1
	w.told = w.frames[top].at
	w.told.end, w.told.children = int(w.decoder.InputOffset()), w.frames[top].children
	w.frames = w.frames[:top]
	return v.visit(&w.told)
}

// named is the node of the member with this raw name.
func (w *walker) named(of *node, name []byte) (*node, error) {
	if of == nil || len(of.edges) == 0 {
		return nil, nil
	}
	token := name[1 : len(name)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		var err error
		if w.name, err = jsontext.AppendUnquote(w.name[:0], name); err != nil {
			return nil, err
		}
		token = w.name
	}
	found := of.name(token)
	if found == nil && of.misspelt(token) {
		return nil, errSpelling
	}
	return found, nil
}

// end wants nothing but white space to be left.
func (w *walker) end() error {
	switch _, err := w.decoder.ReadToken(); err {
	case io.EOF:
		return nil
	case nil:
		return errTrailing
	default:
		return err
	}
}

// where keeps of an error what does not quote the document.
func where(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: malformed JSON at byte %d", ErrBody, syntax.ByteOffset)
	case errors.Is(err, errDepth), errors.Is(err, errTrailing), errors.Is(err, errSpelling), errors.Is(err, errCanon):
		return fmt.Errorf("%w: %w", ErrBody, err)
	}
	return fmt.Errorf("%w: malformed JSON", ErrBody)
}
