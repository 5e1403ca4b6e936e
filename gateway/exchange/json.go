package exchange

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// decodeStrict refuses what encoding/json lets through and what two readers of one body could understand differently:
// duplicate names and invalid UTF-8 (both by default), and unknown names. Names match by case.
var decodeStrict = json.JoinOptions(json.RejectUnknownMembers(true))

// DecodeStrict reads a caller's whole body into v: one JSON value, no unknown, duplicate or differently-cased names. The
// error says where it went wrong and never what stood there.
func DecodeStrict(body []byte, v any) error {
	if string(bytes.TrimSpace(body)) == "null" { // which would be taken for an empty object
		return errNull
	}
	return where(json.Unmarshal(body, v, decodeStrict))
}

var errNull = errors.New("unexpected JSON null")

// Text is a member of a caller's body that must be a string wherever it is there: null is not taken for absent, because
// who sends it may have meant to send something.
type Text struct {
	Value   string
	Present bool
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *Text) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	token, err := d.ReadToken()
	if err != nil {
		return err
	}
	if token.Kind() != '"' {
		return errors.New("want a string")
	}
	t.Value, t.Present = token.String(), true
	return nil
}

// DecodeLenient reads an issuer's whole body into v: unknown names are the issuer's business, duplicate ones are not.
func DecodeLenient(body []byte, v any) error { return where(json.Unmarshal(body, v)) }

func where(err error) error {
	if err == nil {
		return nil
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return fmt.Errorf("malformed JSON at byte %d", syntax.ByteOffset)
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return fmt.Errorf("unexpected JSON value at byte %d", semantic.ByteOffset)
	}
	return errors.New("malformed JSON")
}

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendString(dst []byte, s string) []byte {
	out, err := jsontext.AppendQuote(dst, s)
	if err != nil {
		out, _ = jsontext.AppendQuote(dst, strings.ToValidUTF8(s, "\uFFFD"))
	}
	return out
}

// AppendMember appends `"name":"value"`; name is a constant that needs no escape.
func AppendMember(dst []byte, name, value string) []byte {
	dst = append(dst, '"')
	dst = append(dst, name...)
	dst = append(dst, '"', ':')
	return AppendString(dst, value)
}
