package secret_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

const canary = "canary-5f0c2b"

// TestNothingPrintsTheContent walks every verb that fmt knows, alone and inside other values.
func TestNothingPrintsTheContent(t *testing.T) {
	b := secret.From([]byte(canary))
	values := map[string]any{
		"pointer":  b,
		"in slice": []*secret.Buffer{b},
		"in map":   map[string]*secret.Buffer{"k": b},
		"exported": struct{ B *secret.Buffer }{b},
		"hidden":   struct{ b *secret.Buffer }{b},
		"nested":   struct{ p *struct{ b *secret.Buffer } }{&struct{ b *secret.Buffer }{b}},
		"any":      []any{b},
		// The value behind the pointer, which go vet forbids to copy, as a reflecting printer would meet it.
		"value": reflect.ValueOf(b).Elem(),
	}
	decimal := strings.Trim(fmt.Sprint([]byte(canary)), "[]")
	hexText := fmt.Sprintf("%x", canary)
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "% x", "%q", "%d", "%o", "%b", "%c", "%U", "%T", "%p"} {
			got := fmt.Sprintf(verb, v)
			for _, leak := range []string{canary, decimal, hexText, strings.ToUpper(hexText), "0x63, 0x61"} {
				if strings.Contains(got, leak) {
					t.Errorf("%s printed with %s shows the content: %s", name, verb, got)
				}
			}
		}
	}
	for name, v := range values {
		if name == "value" {
			continue
		}
		got, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if strings.Contains(string(got), canary) || strings.Contains(string(got), "Y2FuYXJ5") {
			t.Errorf("%s as JSON shows the content: %s", name, got)
		}
	}
	if got, _ := json.Marshal(map[string]any{"b": b}); string(got) != `{"b":"[redacted]"}` {
		t.Errorf("JSON is %s", got)
	}
	if got, _ := b.MarshalText(); string(got) != secret.Redacted {
		t.Errorf("text is %s", got)
	}
	if b.String() != secret.Redacted || b.GoString() != secret.Redacted {
		t.Error("String or GoString do not redact")
	}
}

func TestDestroyZeroes(t *testing.T) {
	for _, n := range []int{1, 16, 64, 65, 500} {
		b := secret.New(n)
		p := b.Bytes()
		if len(p) != n || cap(p) != n {
			t.Fatalf("New(%d) holds %d bytes of capacity %d", n, len(p), cap(p))
		}
		for i := range p {
			p[i] = 0xaa
		}
		b.Destroy()
		for i, x := range p {
			if x != 0 {
				t.Fatalf("byte %d of %d survived Destroy", i, n)
			}
		}
		if b.Bytes() != nil || b.Len() != 0 {
			t.Errorf("a destroyed Buffer of %d bytes still gives content", n)
		}
		b.Destroy()
	}
}

// TestDestroyZeroesWhatItOwns covers the capacity too: an appended-to slice keeps older bytes beyond its length.
func TestDestroyZeroesWhatItOwns(t *testing.T) {
	p := []byte(canary)
	secret.From(p[:3]).Destroy()
	for i, x := range p {
		if x != 0 {
			t.Fatalf("byte %d survived", i)
		}
	}
	secret.From(nil).Destroy()
	secret.New(0).Destroy()
	var none *secret.Buffer
	none.Destroy()
	if none.Bytes() != nil || none.Len() != 0 {
		t.Error("nil Buffer holds something")
	}
}

func TestNewIsZero(t *testing.T) {
	for range 100 {
		b := secret.New(64)
		for _, x := range b.Bytes() {
			if x != 0 {
				t.Fatal("a new Buffer is not zero")
			}
		}
		copy(b.Bytes(), canary)
		b.Destroy()
	}
}

func TestEqual(t *testing.T) {
	a, b := secret.From([]byte("same")), secret.From([]byte("same"))
	other, longer := secret.From([]byte("sama")), secret.From([]byte("same."))
	if !a.Equal(b) || a.Equal(other) || a.Equal(longer) || a.Equal(nil) {
		t.Error("Equal is wrong")
	}
	b.Destroy()
	if a.Equal(b) || b.Equal(b) {
		t.Error("a destroyed Buffer equals something")
	}
}

func TestNotComparable(t *testing.T) {
	if reflect.TypeFor[secret.Buffer]().Comparable() {
		t.Error("secret.Buffer can be compared with ==")
	}
}

func TestNegativeLengthPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	secret.New(-1)
}

// TestDestroyAtOnce: if a block were put back twice, two Buffers would share it.
func TestDestroyAtOnce(t *testing.T) {
	for range 200 {
		b := secret.New(16)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(b.Destroy)
		}
		wg.Wait()
		seen := map[*byte]bool{}
		var made []*secret.Buffer
		for range 4 {
			n := secret.New(16)
			if p := &n.Bytes()[0]; seen[p] {
				t.Fatal("two Buffers share their memory")
			} else {
				seen[p] = true
			}
			made = append(made, n)
		}
		for _, n := range made {
			n.Destroy()
		}
	}
}

func BenchmarkNewDestroy(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		secret.New(16).Destroy()
	}
}
