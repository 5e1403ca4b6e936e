package sandbox_test

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

const (
	gnosisKey  = "gnosis-test-key"
	gnosisUser = "partner-1"
	verifyPath = "/api/v1/cards/verify"
)

// shortModulus has 1024 bits.
var shortModulus = new(big.Int).Lsh(big.NewInt(1), 1023)

// gnosisCards is a running sandbox of GnosisCards and a caller of it.
type gnosisCards struct {
	*sandbox.GnosisCards
	*caller
}

func gnosisConfig() sandbox.GnosisCardsConfig {
	return sandbox.GnosisCardsConfig{APIKeys: map[string]string{gnosisKey: gnosisUser, "other-key": "partner-2"}, Key: testKey()}
}

func startGnosisCards(t *testing.T) *gnosisCards {
	t.Helper()
	g, err := sandbox.NewGnosisCards(gnosisConfig())
	if err != nil {
		t.Fatal(err)
	}
	return &gnosisCards{GnosisCards: g, caller: listen(t, g, nil, "Authorization", "Bearer "+gnosisKey, "Content-Type", "application/json")}
}

func upload(t *testing.T, number string) sandbox.GnosisUpload {
	t.Helper()
	u, err := sandbox.NewGnosisUpload(&testKey().PublicKey, number)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func uploadBody(t *testing.T, u sandbox.GnosisUpload) string {
	t.Helper()
	body, err := json.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestGnosisCardsTakesCards(t *testing.T) {
	g := startGnosisCards(t)
	for n, test := range []struct{ number, key, owner, masked string }{
		{"4111111111111111", gnosisKey, gnosisUser, "411111******1111"},
		{"378282246310005", "other-key", "partner-2", "378282*****0005"},
		{"676100000006", gnosisKey, gnosisUser, "676100**0006"},
		{"6205500000000000004", gnosisKey, gnosisUser, "620550*********0004"},
	} {
		status, out := g.call("POST", verifyPath, uploadBody(t, upload(t, test.number)), "Authorization", "Bearer "+test.key)
		id, _ := out["cardId"].(string)
		if status != 200 || len(id) != 36 || len(out) != 1 {
			t.Fatalf("%s: %d %v", test.number, status, out)
		}
		want := sandbox.UploadedCard{ID: id, Owner: test.owner, CardNumber: test.masked, NumberSHA256: sha256.Sum256([]byte(test.number))}
		if cards := g.Cards(); len(cards) != n+1 || cards[n] != want || strings.Contains(fmt.Sprintf("%+v", cards), test.number) {
			t.Errorf("%s: %+v", test.number, cards)
		}
	}
	exists := `{"error":"Card already exists"}`
	g.answers("again", 422, exists, "POST", verifyPath, uploadBody(t, upload(t, "4111111111111111")))
	g.answers("another's", 422, exists, "POST", verifyPath, uploadBody(t, upload(t, "4111111111111111")), "Authorization", "Bearer other-key")
	if got := len(g.Cards()); got != 4 || g.Count(sandbox.CallVerify) != 6 {
		t.Errorf("%d cards, %d calls", got, g.Count(sandbox.CallVerify))
	}
}

func TestGnosisCardsRefusals(t *testing.T) {
	g := startGnosisCards(t)
	good := upload(t, "4111111111111111")
	body := uploadBody(t, good)
	for _, value := range []string{"", "Bearer", "Bearer x", "Basic " + gnosisKey} {
		g.answers("authorization "+value, 401, `{"message":"Unauthorized"}`, "POST", verifyPath, body, "Authorization", value)
	}
	g.answers("path", 404, `{"error":"Not found"}`, "POST", "/api/v1/cards", body)
	g.answers("method", 405, `{"error":"Method not allowed"}`, "GET", verifyPath, "")
	g.answers("content type", 415, `{"error":"Unsupported media type"}`, "POST", verifyPath, body, "Content-Type", "text/plain")
	g.answers("long body", 413, `{"error":"Payload too large"}`, "POST", verifyPath, strings.Repeat(" ", 65<<10))
	g.answers("check digit", 422, `{"error":"Invalid card number"}`, "POST", verifyPath, uploadBody(t, upload(t, "4111111111111112")))

	bad := `{"error":"Invalid card data","details":"encryptedPan, encryptedKey and iv: cannot be opened as a card number"}`
	change := func(change func(*sandbox.GnosisUpload)) string {
		u := good
		change(&u)
		return uploadBody(t, u)
	}
	rain := session(t)
	for name, body := range map[string]string{
		"nothing": ``, "no JSON": `{`, "empty": `{}`, "an array": `[]`, "another member": strings.Replace(body, "{", `{"x":1,`, 1),
		"no number":        uploadBody(t, upload(t, "not a number")),
		"11 digits":        uploadBody(t, upload(t, "41111111111")),
		"20 digits":        uploadBody(t, upload(t, "41111111111111111111")),
		"IV of another":    change(func(u *sandbox.GnosisUpload) { u.IV = "ABCDEFGHIJKLMNOP" }),
		"short IV":         change(func(u *sandbox.GnosisUpload) { u.IV = u.IV[:12] }),
		"IV of 16 bytes":   change(func(u *sandbox.GnosisUpload) { u.IV = base64.StdEncoding.EncodeToString([]byte(u.IV)) }),
		"key of another":   change(func(u *sandbox.GnosisUpload) { u.EncryptedKey = upload(t, "4111111111111111").EncryptedKey }),
		"a session's key":  change(func(u *sandbox.GnosisUpload) { u.EncryptedKey = rain.ID() }),
		"no key":           change(func(u *sandbox.GnosisUpload) { u.EncryptedKey = "" }),
		"number in clear":  change(func(u *sandbox.GnosisUpload) { u.EncryptedPAN = "4111111111111111" }),
		"number not there": change(func(u *sandbox.GnosisUpload) { u.EncryptedPAN = "" }),
	} {
		g.answers(name, 400, bad, "POST", verifyPath, body)
	}
	if got := g.Cards(); len(got) != 0 {
		t.Errorf("refused requests made %v", got)
	}
}

// TestGnosisCardsTakesOneOnce: also where it is brought at the same time.
func TestGnosisCardsTakesOneOnce(t *testing.T) {
	g := startGnosisCards(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := map[int]int{}
	for range 16 {
		req := g.request("POST", verifyPath, uploadBody(t, upload(t, "4111111111111111")))
		all.Go(func() {
			res, _, err := g.do(req)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			taken[res.StatusCode]++
		})
	}
	all.Wait()
	if len(g.Cards()) != 1 || taken[200] != 1 || taken[422] != 15 {
		t.Errorf("%d cards, %v", len(g.Cards()), taken)
	}
}

func TestGnosisCardsFaults(t *testing.T) {
	g := startGnosisCards(t)
	number := "4111111111111111"
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
		holds func(res *http.Response, body string, err error) bool
		taken bool
	}{
		{"500", sandbox.Fault500, func(res *http.Response, body string, _ error) bool {
			return res.StatusCode == 500 && body == `{"error":"Internal server error"}`
		}, false},
		{"card number in error", sandbox.FaultPANInError, func(res *http.Response, body string, _ error) bool {
			return res.StatusCode == 500 && strings.Contains(body, number)
		}, false},
		{"on another call", sandbox.Fault500.On(sandbox.CallPayment), func(res *http.Response, _ string, _ error) bool { return res.StatusCode == 200 }, true},
		{"missing field", sandbox.FaultMissingField, func(res *http.Response, body string, _ error) bool { return res.StatusCode == 200 && body == `{}` }, true},
		{"card number in member", sandbox.FaultPANInMember, func(res *http.Response, body string, _ error) bool {
			return res.StatusCode == 200 && strings.Contains(body, number)
		}, true},
		{"card number in header", sandbox.FaultPANInHeader("X-Card"), func(res *http.Response, _ string, _ error) bool { return res.Header.Get("X-Card") == number }, true},
		{"empty", sandbox.FaultEmptyBody, func(res *http.Response, body string, _ error) bool { return res.StatusCode == 200 && body == "" }, true},
		{"redirect", sandbox.FaultRedirect, func(res *http.Response, _ string, _ error) bool { return res.StatusCode == 307 }, true},
		{"disconnect", sandbox.FaultDisconnect, func(res *http.Response, _ string, err error) bool { return res == nil && err != nil }, true},
	} {
		g := startGnosisCards(t)
		g.SetFault(gnosisUser, test.fault)
		res, body, err := g.do(g.request("POST", verifyPath, uploadBody(t, upload(t, number))))
		if !test.holds(res, string(body), err) || len(g.Cards()) == 1 != test.taken {
			t.Errorf("%s: %v %s %v, %d cards", test.name, res, body, err, len(g.Cards()))
		}
	}
	g.SetFault("partner-2", sandbox.Fault500)
	if status, _ := g.call("POST", verifyPath, uploadBody(t, upload(t, number))); status != 200 {
		t.Errorf("another's fault: %d", status)
	}
}

func TestGnosisCardsConfigurationIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*sandbox.GnosisCardsConfig){
		"no API keys":   func(c *sandbox.GnosisCardsConfig) { c.APIKeys = nil },
		"empty API key": func(c *sandbox.GnosisCardsConfig) { c.APIKeys[""] = "x" },
		"empty owner":   func(c *sandbox.GnosisCardsConfig) { c.APIKeys["x"] = "" },
		"no key":        func(c *sandbox.GnosisCardsConfig) { c.Key = nil },
		"short key": func(c *sandbox.GnosisCardsConfig) {
			c.Key = &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: shortModulus, E: 65537}}
		},
		"no certificate": func(c *sandbox.GnosisCardsConfig) { c.TLS = &tls.Config{} },
	} {
		c := gnosisConfig()
		spoil(&c)
		if _, err := sandbox.NewGnosisCards(c); err == nil || !strings.HasPrefix(err.Error(), "sandbox: gnosis cards: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	g, err := sandbox.NewGnosisCards(gnosisConfig())
	if err != nil || !g.PublicKey().Equal(&testKey().PublicKey) {
		t.Errorf("%v", err)
	}
}
