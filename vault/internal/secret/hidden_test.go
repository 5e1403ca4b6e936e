package secret_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/internal/secret"
)

type inner struct{ Text string }

// TestHiddenIsOutOfReach nests a hidden value as deep as a struct of ours may stand in another, by value and by pointer.
func TestHiddenIsOutOfReach(t *testing.T) {
	type hidden = secret.Hidden[inner]
	type holder struct{ h hidden }
	v := secret.Hide(&inner{canary})
	for _, v := range []any{
		v, &v, holder{v}, &holder{v}, struct{ h holder }{holder{v}}, struct{ h *holder }{&holder{v}},
		struct{ H hidden }{v}, []hidden{v}, map[int]*hidden{1: &v}, []any{v}, [1]any{holder{v}},
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%X", "%q", "%d", "%t", "%e", "%z", "%U", "%c"} {
			got := fmt.Sprintf(verb, v)
			if strings.Contains(got, canary) || strings.Contains(strings.ToLower(got), fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of %T: %s", verb, v, got)
			}
		}
		if got, err := json.Marshal(v); err == nil && strings.Contains(string(got), canary) {
			t.Errorf("JSON of %T: %s", v, got)
		}
	}
}

func TestHiddenHolds(t *testing.T) {
	v := &inner{canary}
	if secret.Hide(v).Get() != v {
		t.Error("another value")
	}
	var zero secret.Hidden[inner]
	if zero.Get() != nil {
		t.Error("the zero Hidden holds something")
	}
}

// TestWhyAPointerIsNotEnough keeps the reason for Hidden true: when it fails, fmt has changed and Hidden may go.
func TestWhyAPointerIsNotEnough(t *testing.T) {
	verb := "%s" // go vet knows that the verb is wrong, and that is the point
	//lint:ignore SA5009 the same
	if got := fmt.Sprintf(verb, struct{ p *inner }{&inner{canary}}); !strings.Contains(got, canary) {
		t.Errorf("fmt prints %s", got)
	}
}
