package vault_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault"
)

// pieces is a reader that gives a text in pieces, then err, and remembers the memory that it was given to fill.
type pieces struct {
	text string
	each int
	err  error // with the last piece; io.EOF alone after it where late
	late bool
	seen [][]byte
	read int // bytes
	room int // the most that it was given, with what stood before
}

func (r *pieces) Read(p []byte) (int, error) {
	r.seen, r.room = append(r.seen, p), max(r.room, r.read+cap(p))
	n := copy(p, r.text[:min(len(r.text), r.each)])
	r.read += n
	if r.text = r.text[n:]; n < len(p) {
		p[n] = '4' // a reader may use all of p
	}
	if r.text == "" && (!r.late || n == 0) {
		return n, r.err
	}
	return n, nil
}

// zeroed reports whether no memory that was filled holds anything.
func (r *pieces) zeroed() bool {
	for _, p := range r.seen {
		if len(bytes.Trim(p, "\x00")) != 0 {
			return false
		}
	}
	return true
}

func TestReadBody(t *testing.T) {
	const most = 70 << 10
	shape := must(vault.NewShape(vault.ShapeConfig{MaxBytes: most, Public: []string{"/a"}}))
	for length, want := range map[int]error{256 << 10: nil, 256<<10 + 1: vault.ErrBodyTooLarge} {
		if _, err := vault.NewBody(append([]byte("{}"), bytes.Repeat([]byte{' '}, length-2)...), must(vault.NewShape(vault.ShapeConfig{}))); !errors.Is(err, want) {
			t.Errorf("%d bytes without a limit of one's own: %v", length, err)
		}
	}
	for _, length := range []int{len(`{"a":"b","x":""}`), 1000, 1023, 1024, 1025, 2048, 2049, 60000, most - 1, most} {
		text := fmt.Sprintf(`{"a":"b","x":"%s"}`, strings.Repeat("x", length-len(`{"a":"b","x":""}`)))
		for _, announced := range []int64{-1, 0, 1, int64(length), most, most + 1, math.MaxInt64} {
			for _, r := range []*pieces{{each: 700}, {each: most, late: true}, {each: most}} {
				r.text, r.err = text, io.EOF
				b, err := vault.ReadBody(r, announced, shape)
				if err != nil {
					t.Fatalf("%d bytes of %d: %v", length, announced, err)
				}
				if got, err := b.Text("/a"); got != "b" || err != nil || b.Empty() {
					t.Errorf("%d bytes of %d: %q, %v", length, announced, got, err)
				}
				if got, err := b.Digest(vault.CanonRaw); got != sha256.Sum256([]byte(text)) || err != nil {
					t.Errorf("%d bytes of %d: others, %v", length, announced, err)
				}
				if r.room > most+1 {
					t.Errorf("%d bytes of %d: room for %d", length, announced, r.room)
				}
				if b.Close(); !r.zeroed() || b.Empty() {
					t.Errorf("%d bytes of %d in pieces of %d: not zeroed", length, announced, r.each)
				}
			}
		}
	}
}

// TestReadBodyGrows: an announcement is worth 64 KiB, one that is right saves every move, and what was moved from is
// zeroed then, not at the end.
func TestReadBodyGrows(t *testing.T) {
	shape := must(vault.NewShape(vault.ShapeConfig{MaxBytes: 1 << 20}))
	for announced, room := range map[int64]int{-1: 1<<10 + 1, 0: 1<<10 + 1, 2000: 2001, 64 << 10: 64<<10 + 1, 1 << 20: 64<<10 + 1, 1 << 40: 64<<10 + 1} {
		r := &pieces{text: `"` + strings.Repeat("4", 1998) + `"`, each: 300, err: io.EOF}
		b, err := vault.ReadBody(r, announced, shape)
		if err != nil {
			t.Fatal(err)
		}
		if got := cap(r.seen[0]); got != room {
			t.Errorf("%d announced: room for %d", announced, got)
		}
		if first, last := r.seen[0], r.seen[len(r.seen)-1]; room < 2000 && len(bytes.Trim(first, "\x00")) != 0 {
			t.Errorf("%d announced: what was moved from is not zeroed", announced)
		} else if room > 2000 && &first[:cap(first)][cap(first)-1] != &last[:cap(last)][cap(last)-1] {
			t.Errorf("%d announced: moved", announced)
		}
		b.Close()
	}
}

func TestReadBodyRefuses(t *testing.T) {
	const most = 5000
	shape := must(vault.NewShape(vault.ShapeConfig{MaxBytes: most}))
	broken := errors.New("broken")
	long := `"` + strings.Repeat("4", most-2) + `"`
	for name, c := range map[string]struct {
		text     string
		err      error
		tooLarge bool
		body     bool
	}{
		"a byte too long":         {long + " ", io.EOF, true, true},
		"far too long":            {strings.Repeat(long, 1000), io.EOF, true, true},
		"too long, then broken":   {long + " ", broken, true, true},
		"no JSON":                 {`{"a":4111111111111111`, io.EOF, false, true},
		"white space":             {" ", io.EOF, false, true},
		"broken":                  {`"4111111111111111"`, broken, false, false},
		"broken after growth":     {long[:3000], broken, false, false},
		"broken at once":          {"", broken, false, false},
		"cut off by its protocol": {`"4111111111111111"`, io.ErrUnexpectedEOF, false, false},
	} {
		for _, each := range []int{1, 333, most, 2 * most} {
			r := &pieces{text: c.text, each: each, err: c.err}
			b, err := vault.ReadBody(r, int64(each), shape)
			if b != nil || errors.Is(err, vault.ErrBodyTooLarge) != c.tooLarge || errors.Is(err, vault.ErrBody) != c.body || !c.body && !errors.Is(err, c.err) {
				t.Errorf("%s: %v", name, err)
			}
			if !r.zeroed() {
				t.Errorf("%s: not zeroed", name)
			}
			if strings.Contains(err.Error(), "411") {
				t.Errorf("%s: the error quotes: %v", name, err)
			}
			if r.read > most+1 {
				t.Errorf("%s: %d bytes were read", name, r.read)
			}
		}
	}
	// What is read whole elsewhere is told by the same error.
	if _, err := vault.NewBody([]byte(long+" "), shape); !errors.Is(err, vault.ErrBodyTooLarge) {
		t.Error(err)
	}
	if _, err := vault.NewBody(nil, shape); !errors.Is(err, vault.ErrBody) || errors.Is(err, vault.ErrBodyTooLarge) {
		t.Error(err)
	}
}

// TestEmptyBody: a message of zero bytes is no error, has no member, and a digest of no bytes.
func TestEmptyBody(t *testing.T) {
	none := sha256.Sum256(nil)
	for _, announced := range []int64{-1, 0, 100} {
		b, err := vault.ReadBody(strings.NewReader(""), announced, dealShape)
		if err != nil {
			t.Fatal(err)
		}
		if !b.Empty() || b.Has("/type") || b.Null("/type") {
			t.Error("something is there")
		}
		if text, err := b.Text("/type"); text != "" || err != vault.ErrMember {
			t.Errorf("%q, %v", text, err)
		}
		if _, err := b.Field("/account_number"); err != vault.ErrMember {
			t.Error(err)
		}
		if _, err := b.Sealed("/sealed"); err != vault.ErrMember {
			t.Error(err)
		}
		for _, c := range []vault.Canon{vault.CanonRaw, vault.CanonSortedValues} {
			if got, err := b.Digest(c); got != none || err != nil {
				t.Errorf("canon %d: %x, %v", c, got, err)
			}
		}
		if got, err := b.Digest(0); got != [32]byte{} || err == nil {
			t.Errorf("no canon: %x", got)
		}
		if b.Close(); b.Empty() {
			t.Error("a closed body is an empty one")
		}
		if got, err := b.Digest(vault.CanonRaw); got != [32]byte{} || err == nil {
			t.Error("a digest of what is closed")
		}
	}
	if newBody(t, dealShape, "null").Empty() {
		t.Error("null is empty")
	}
}

// FuzzReadBody: in whatever pieces and whatever is announced, what is read is what NewBody makes of the whole.
func FuzzReadBody(f *testing.F) {
	shape := must(vault.NewShape(vault.ShapeConfig{MaxBytes: 3000, Public: []string{"/a"}}))
	f.Add([]byte(`{"a":"b"}`), 1, int64(9), false)
	f.Add([]byte(`"`+strings.Repeat("x", 2998)+`"`), 700, int64(-1), true)
	f.Add([]byte(strings.Repeat(" ", 3001)), 4000, int64(1<<40), true)
	f.Add([]byte{}, 1, int64(5), false)
	f.Fuzz(func(t *testing.T, document []byte, each int, announced int64, late bool) {
		r := &pieces{text: string(document), each: max(1, each), err: io.EOF, late: late}
		b, err := vault.ReadBody(r, announced, shape)
		if err != nil && !r.zeroed() {
			t.Fatal("not zeroed")
		}
		if len(document) == 0 {
			if err != nil || !b.Empty() {
				t.Fatalf("nothing: %v", err)
			}
			return
		}
		whole, wholeErr := vault.NewBody(bytes.Clone(document), shape)
		if fmt.Sprint(err) != fmt.Sprint(wholeErr) || errors.Is(err, vault.ErrBodyTooLarge) != (len(document) > 3000) {
			t.Fatalf("%v, whole %v", err, wholeErr)
		}
		if err != nil {
			return
		}
		text, err := b.Text("/a")
		wholeText, wholeErr := whole.Text("/a")
		if text != wholeText || err != wholeErr || must(b.Digest(vault.CanonRaw)) != sha256.Sum256(document) {
			t.Fatalf("%q, %v", text, err)
		}
		if b.Close(); !r.zeroed() {
			t.Fatal("not zeroed")
		}
	})
}

// BenchmarkReadBody is once per message of a forward route.
func BenchmarkReadBody(b *testing.B) {
	r := strings.NewReader(bridgeAnswer)
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(bridgeAnswer)
		must(vault.ReadBody(r, int64(len(bridgeAnswer)), bridgeShape)).Close()
	}
}
