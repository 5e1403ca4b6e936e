package policy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/policy"
)

// TestCredentialNeverPrints tries every way in which a value commonly ends in a
// log.
func TestCredentialNeverPrints(t *testing.T) {
	const secret = "s3cr3t-value"
	c := policy.NewCredential(policy.KindToken, secret)
	if c.Value() != secret {
		t.Fatal("the value is lost")
	}
	if (policy.Credential{}).Value() != "" {
		t.Error("the zero credential has a value")
	}
	nested := struct {
		C  policy.Credential
		P  *policy.Credential
		L  []policy.Credential
		M  map[string]policy.Credential
		In any
	}{c, &c, []policy.Credential{c}, map[string]policy.Credential{"k": c}, c}
	var printed []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%p", "%T", "%50s", "%.3s"} {
		printed = append(printed, fmt.Sprintf(verb, c), fmt.Sprintf(verb, &c), fmt.Sprintf(verb, nested))
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, c); got != "credential(token)" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
	if encoded, err := json.Marshal(c); err != nil || string(encoded) != `"credential(token)"` {
		t.Errorf("encoded as %s, %v", encoded, err)
	}
	encoded, err := json.Marshal(nested)
	if err != nil {
		t.Fatal(err)
	}
	printed = append(printed, string(encoded), c.String(), c.GoString(), fmt.Sprint(c), fmt.Errorf("%w: %v", fmt.Errorf("x"), c).Error())
	for _, text := range printed {
		for _, bad := range []string{secret, fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret), "s3c"} {
			if strings.Contains(text, bad) {
				t.Errorf("printed: %s", text)
			}
		}
	}
}

func TestRefusedAndDeniedSayWhatTheyKnow(t *testing.T) {
	for want, err := range map[string]error{
		"refused token: spent":                    &policy.Refused{Kind: policy.KindToken, Reason: policy.RefusedSpent},
		"refused cookie: login: over":             &policy.Refused{Kind: policy.KindCookie, Reason: policy.RefusedLogin, Detail: "over"},
		"denied: not_holder":                      &policy.Denied{Reason: policy.DeniedNotHolder},
		"denied: forbidden by night":              &policy.Denied{Reason: policy.DeniedForbidden, Rule: "night"},
		"denied: error by a.cedar:3: overflowing": &policy.Denied{Reason: policy.DeniedError, Rule: "a.cedar:3", Detail: "overflowing"},
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
