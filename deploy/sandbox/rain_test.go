package sandbox_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

const (
	apiKey = "rain-test-key"
	cardID = "123e4567-e89b-12d3-a456-426655440000"
	noPIN  = "00000000-0000-4000-8000-000000000002"
	userID = "00000000-0000-4000-8000-00000000000a"
)

var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// issuer is a running sandbox of Rain and a caller of it.
type issuer struct {
	*sandbox.Rain
	*caller
	card sandbox.Card
}

func config() sandbox.RainConfig {
	card := sandbox.RandomCard(cardID, "")
	card.UserID = userID
	bare := sandbox.RandomCard(noPIN, "")
	bare.PIN = ""
	return sandbox.RainConfig{
		APIKey: apiKey, Key: testKey(), Cards: []sandbox.Card{card, bare},
		Users: []sandbox.User{{ID: userID, FirstName: "Ada", LastName: "Lovelace", Email: "ada@example.com"}},
	}
}

func start(t *testing.T, c sandbox.RainConfig) *issuer {
	t.Helper()
	r, err := sandbox.NewRain(c)
	if err != nil {
		t.Fatal(err)
	}
	header := []string{"Api-Key", apiKey, "Accept", "application/json", "Content-Type", "application/json"}
	return &issuer{Rain: r, caller: listen(t, r, c.TLS, header...), card: c.Cards[0]}
}

// refused asserts an error answer in the issuer's shape.
func (i *issuer) refused(what string, status int, message, method, path, body string, header ...string) {
	i.t.Helper()
	got, out := i.call(method, path, body, header...)
	if got != status || out["message"] != message || out["error"] == "" || len(out) != 2 {
		i.t.Errorf("%s: %d %v, want %d %q", what, got, out, status, message)
	}
}

func session(t *testing.T) *sandbox.Session {
	t.Helper()
	s, err := sandbox.NewSession(&testKey().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sealed(t *testing.T, v any) sandbox.Sealed {
	t.Helper()
	m, ok := v.(map[string]any)
	if !ok || len(m) != 2 {
		t.Fatalf("not a sealed value: %v", v)
	}
	return sandbox.Sealed{IV: m["iv"].(string), Data: m["data"].(string)}
}

func pinBody(t *testing.T, s *sandbox.Session, pin string) string {
	t.Helper()
	v, err := s.SealPIN(pin)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"encryptedPin":{"data":%q,"iv":%q}}`, v.Data, v.IV)
}

const (
	cardPath    = "/issuing/cards/" + cardID
	secretsPath = cardPath + "/secrets"
	pinPath     = cardPath + "/pin"
)

func TestCardAndUser(t *testing.T) {
	i := start(t, config())
	status, card := i.call("GET", cardPath, "")
	want := map[string]any{
		"id": cardID, "userId": userID, "type": "virtual", "status": "active", "last4": i.card.PAN[12:],
		"expirationMonth": "12", "expirationYear": "2030", "productId": "408",
	}
	for name, v := range want {
		if card[name] != v {
			t.Errorf("card %s = %v, want %v", name, card[name], v)
		}
	}
	limit, _ := card["limit"].(map[string]any)
	if status != 200 || limit["amount"] != 1e6 || limit["frequency"] != "per7DayPeriod" {
		t.Errorf("card: %d, limit %v", status, limit)
	}
	if text := fmt.Sprint(card); strings.Contains(text, i.card.PAN) {
		t.Error("card shows its number")
	}
	status, user := i.call("GET", "/issuing/users/"+userID, "")
	if status != 200 || user["firstName"] != "Ada" || user["lastName"] != "Lovelace" || user["email"] != "ada@example.com" || user["isActive"] != true {
		t.Errorf("user: %d %v", status, user)
	}
	_, first := i.call("GET", cardPath+"/processorDetails", "")
	_, second := i.call("GET", cardPath+"/processorDetails", "")
	if first["processorCardId"] == "" || first["processorCardId"] != second["processorCardId"] || first["timeBasedSecret"] == second["timeBasedSecret"] {
		t.Errorf("processor details: %v, then %v", first, second)
	}
}

func TestStatus(t *testing.T) {
	i := start(t, config())
	for _, to := range []string{"locked", "active", "canceled"} {
		status, card := i.call("PATCH", cardPath, `{"id":"`+cardID+`","status":"`+to+`"}`)
		if status != 200 || card["status"] != to || i.Status(cardID) != to {
			t.Errorf("to %s: %d %v", to, status, card)
		}
	}
	i.refused("from canceled", 400, "Card is canceled", "PATCH", cardPath, `{"status":"active"}`)
	for _, body := range []string{
		``, `{`, `[]`, `{"status":""}`, `{"status":"ACTIVE"}`, `{"status":7}`, `{"status":"active"} {}`, `{"state":"active"}`,
		`{"limit":{}}`, `{"limit":{"amount":-1,"frequency":"allTime"}}`, `{"id":"another","status":"locked"}`,
	} {
		i.refused("body "+body, 400, "Bad request", "PATCH", "/issuing/cards/"+noPIN, body)
	}
	if got := i.Status(noPIN); got != "active" {
		t.Errorf("a refused change made the card %s", got)
	}
	if _, card := i.call("PATCH", "/issuing/cards/"+noPIN, `{"limit":{"amount":5,"frequency":"allTime"}}`); card["status"] != "active" {
		t.Errorf("a new limit made the card %v", card["status"])
	}
}

func TestSecrets(t *testing.T) {
	i := start(t, config())
	s := session(t)
	status, out := i.call("GET", secretsPath, "", "SessionId", s.ID())
	if status != 200 || len(out) != 2 {
		t.Fatalf("%d %v", status, out)
	}
	pan, err := s.Open(sealed(t, out["encryptedPan"]))
	if err != nil || pan != i.card.PAN {
		t.Errorf("card number does not come through: %v", err)
	}
	cvc, err := s.Open(sealed(t, out["encryptedCvc"]))
	if err != nil || cvc != i.card.CVC {
		t.Errorf("CVC does not come through: %v", err)
	}
	if iv := sealed(t, out["encryptedPan"]).IV; len(iv) != 24 || iv == sealed(t, out["encryptedCvc"]).IV {
		t.Errorf("IV %q is not 16 bytes, or was used twice", iv)
	}
}

func TestPIN(t *testing.T) {
	i := start(t, config())
	read := func(path string) (string, error) {
		s := session(t)
		_, out := i.call("GET", path, "", "SessionId", s.ID())
		return s.OpenPIN(sealed(t, out["encryptedPin"]))
	}
	if pin, err := read(pinPath); pin != i.card.PIN || err != nil {
		t.Errorf("read %q, %v, want %q", pin, err, i.card.PIN)
	}
	path := "/issuing/cards/" + noPIN + "/pin"
	i.refused("no PIN", 400, "Failed to get PIN, card does not have PIN set", "GET", path, "", "SessionId", session(t).ID())
	s := session(t)
	if status, out := i.call("PUT", path, pinBody(t, s, "852417"), "SessionId", s.ID()); status != 200 || len(out) != 0 {
		t.Errorf("set: %d %v", status, out)
	}
	if pin, err := read(path); pin != "852417" || err != nil || i.PIN(noPIN) != "852417" {
		t.Errorf("after set: %q, %v, issuer has %q", pin, err, i.PIN(noPIN))
	}
}

func TestRefusedPINIsNotSet(t *testing.T) {
	i := start(t, config())
	s := session(t)
	for _, weak := range []string{"1234", "4321", "0000", "123456789012"} {
		i.refused("weak "+weak, 400, "Weak PIN", "PUT", pinPath, pinBody(t, s, weak), "SessionId", s.ID())
	}
	notABlock := s.Seal("8524")
	for what, body := range map[string]string{
		"PIN without its block":  fmt.Sprintf(`{"encryptedPin":{"data":%q,"iv":%q}}`, notABlock.Data, notABlock.IV),
		"sealed for another":     pinBody(t, session(t), "8524"),
		"IV of no valid length":  `{"encryptedPin":{"data":"AAAA","iv":"AAAA"}}`,
		"fields that are absent": `{"encryptedPin":{}}`,
	} {
		i.refused(what, 400, "Invalid encrypted PIN", "PUT", pinPath, body, "SessionId", s.ID())
	}
	for _, body := range []string{``, `{}`, `{"encryptedPin":null}`, `{"encryptedPin":"8524"}`, pinBody(t, s, "8524") + "{}", `{"data":"","iv":""}`} {
		i.refused("body "+body, 400, "Bad request", "PUT", pinPath, body, "SessionId", s.ID())
	}
	i.refused("no session", 400, "Invalid session id", "PUT", pinPath, pinBody(t, s, "8524"))
	if got := i.PIN(cardID); got != i.card.PIN {
		t.Errorf("a refused PIN was set: %s", got)
	}
}

func TestRefusals(t *testing.T) {
	i := start(t, config())
	id := session(t).ID()
	i.refused("no key", 401, "Unauthorized", "GET", secretsPath, "", "Api-Key", "", "SessionId", id)
	i.refused("wrong key", 401, "Unauthorized", "GET", secretsPath, "", "Api-Key", apiKey+"x", "SessionId", id)
	i.refused("wrong key, unknown path", 401, "Unauthorized", "GET", "/nowhere", "", "Api-Key", "x")
	i.refused("no session", 400, "Invalid session id", "GET", secretsPath, "")
	i.refused("no session for the PIN", 400, "Invalid session id", "GET", pinPath, "")
	i.refused("bad session", 400, "Invalid session id", "GET", secretsPath, "", "SessionId", id[:len(id)-4])
	i.refused("unknown card", 404, "Not Found", "GET", "/issuing/cards/unknown/secrets", "", "SessionId", id)
	i.refused("user as card", 404, "Not Found", "GET", "/issuing/cards/"+userID, "")
	i.refused("card as user", 404, "Not Found", "GET", "/issuing/users/"+cardID, "")
	for _, path := range []string{"/", "/issuing", "/issuing/cards", "/issuing/cards/", cardPath + "/", cardPath + "/secrets/x", "/issuing/cards//secrets"} {
		i.refused("path "+path, 404, "Not Found", "GET", path, "", "SessionId", id)
	}
	i.refused("method", 405, "Method not allowed", "POST", secretsPath, "{}", "SessionId", id)
	i.refused("accept", 406, "Not acceptable", "GET", cardPath, "", "Accept", "text/html")
	i.refused("content type", 415, "Unsupported media type", "PATCH", cardPath, `{"status":"locked"}`, "Content-Type", "text/plain")
	i.refused("no content type", 415, "Unsupported media type", "PATCH", cardPath, `{"status":"locked"}`, "Content-Type", "")
	i.refused("long body", 413, "Payload too large", "PATCH", cardPath, strings.Repeat(" ", 65<<10))
	if status, _ := i.call("GET", cardPath, "", "Accept", "text/html;q=0.9, */*;q=0.1", "Content-Type", ""); status != 200 {
		t.Errorf("any type accepted: %d", status)
	}
	if got := i.Status(cardID); got != "active" {
		t.Errorf("a refused change made the card %s", got)
	}
}

func TestTwoHeadersOfAKindAreRefused(t *testing.T) {
	i := start(t, config())
	for name, status := range map[string]int{"Api-Key": 401, "SessionId": 400} {
		req := i.request("GET", secretsPath, "", "SessionId", session(t).ID())
		req.Header.Add(name, req.Header.Get(name))
		res, err := i.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != status {
			t.Errorf("%s twice: %d, want %d", name, res.StatusCode, status)
		}
	}
}

// TestSessionHeaderInAnyCase writes the request by hand: a Go client would send the canonical spelling.
func TestSessionHeaderInAnyCase(t *testing.T) {
	i := start(t, config())
	for _, name := range []string{"SessionId", "sessionid", "SESSIONID", "sessionId"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(i.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: issuer\r\napi-key: %s\r\n%s: %s\r\nConnection: close\r\n\r\n", secretsPath, apiKey, name, session(t).ID())
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 200 {
			t.Errorf("header %s: %d", name, res.StatusCode)
		}
		conn.Close()
	}
}

func TestFaults(t *testing.T) {
	i := start(t, config())
	faulty(t, i, i.caller, i.card, cardID, sandbox.CallSecrets, secretsPath, "SessionId", session(t).ID())
	i.SetFault(userID, sandbox.Fault500)
	if res, _, err := i.get("/issuing/users/" + userID); err != nil || res.StatusCode != 500 {
		t.Errorf("fault of a user: %v, %v", res, err)
	}
}

func TestMissingField(t *testing.T) {
	i := start(t, config())
	i.SetFault(cardID, sandbox.FaultMissingField)
	i.SetFault(userID, sandbox.FaultMissingField)
	for path, fields := range map[string][2]string{
		secretsPath:                    {"encryptedCvc", "encryptedPan"},
		pinPath:                        {"encryptedPin", ""},
		cardPath:                       {"expirationMonth", "expirationYear"},
		cardPath + "/processorDetails": {"timeBasedSecret", "processorCardId"},
		"/issuing/users/" + userID:     {"lastName", "firstName"},
	} {
		status, out := i.call("GET", path, "", "SessionId", session(t).ID())
		_, missing := out[fields[0]]
		_, kept := out[fields[1]]
		if status != 200 || missing || !kept && fields[1] != "" {
			t.Errorf("%s: %d %v", path, status, out)
		}
	}
}

func TestWrongCiphertextAndWrongIVOpenToNothing(t *testing.T) {
	i := start(t, config())
	for name, fault := range map[string]sandbox.Fault{"ciphertext": sandbox.FaultWrongCiphertext, "IV": sandbox.FaultWrongIV} {
		i.SetFault(cardID, fault)
		s := session(t)
		status, out := i.call("GET", secretsPath, "", "SessionId", s.ID())
		for _, field := range []string{"encryptedPan", "encryptedCvc"} {
			v := sealed(t, out[field])
			if _, err := s.Open(v); status != 200 || len(v.IV) != 24 || err == nil {
				t.Errorf("wrong %s: %s: status %d, IV %q, error %v", name, field, status, v.IV, err)
			}
		}
	}
}

func TestNoPINAsNull(t *testing.T) {
	i := start(t, config())
	i.SetFault(noPIN, sandbox.FaultNullPIN)
	status, out := i.call("GET", "/issuing/cards/"+noPIN+"/pin", "", "SessionId", session(t).ID())
	if v, there := out["encryptedPin"]; status != 200 || !there || v != nil {
		t.Errorf("%d %v", status, out)
	}
}

// TestFaultSpoilsTheAnswerNotTheEffect is what makes the outcome of a write that timed out unknown.
func TestFaultSpoilsTheAnswerNotTheEffect(t *testing.T) {
	i := start(t, config())
	set := func(pin string) error {
		s := session(t)
		res, err := i.client.Do(i.request("PUT", pinPath, pinBody(t, s, pin), "SessionId", s.ID()))
		if err == nil {
			res.Body.Close()
		}
		return err
	}
	i.SetFault(cardID, sandbox.FaultDisconnect)
	if err := set("8524"); err == nil || i.PIN(cardID) != "8524" {
		t.Errorf("disconnect: error %v, PIN %s", err, i.PIN(cardID))
	}
	i.SetFault(cardID, sandbox.Fault500)
	if err := set("9630"); err != nil || i.PIN(cardID) != "8524" {
		t.Errorf("500: error %v, PIN %s", err, i.PIN(cardID))
	}
}

func TestHangEndsWithTheCallerOrTheServer(t *testing.T) {
	i := start(t, config())
	i.SetFault(cardID, sandbox.FaultHang)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	hang := func(ctx context.Context) {
		_, err := i.client.Do(i.request("GET", secretsPath, "", "SessionId", session(t).ID()).WithContext(ctx))
		done <- err
	}
	go hang(ctx)
	waitFor(t, func() bool { return i.Count(sandbox.CallSecrets) == 1 })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("after the caller gave up: %v", err)
	}
	go hang(context.Background())
	waitFor(t, func() bool { return i.Count(sandbox.CallSecrets) == 2 })
	if err := i.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("a hanging call was answered at shutdown")
	}
}

// waitFor polls for something that is about to happen; the test's own deadline is the limit.
func waitFor(t *testing.T, holds func() bool) {
	t.Helper()
	for !holds() {
		if t.Context().Err() != nil {
			t.Fatal("test ended first")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestRequestsShowWhatArrived(t *testing.T) {
	c := config()
	c.KeepRequests = 3
	i := start(t, c)
	for range 3 {
		i.call("GET", cardPath, "")
	}
	i.call("PATCH", cardPath+"?x=%2F", `{"status":"locked"}`, "Traceparent", "00-01-01-01")
	i.refused("other", 404, "Not Found", "GET", "/elsewhere", "")
	seen := i.Requests()
	if len(seen) != 3 || i.Total() != 5 || i.Count(sandbox.CallCard) != 3 || i.Count(sandbox.CallUpdate) != 1 || i.Count(sandbox.CallOther) != 1 {
		t.Fatalf("%d kept, %d in all", len(seen), i.Total())
	}
	if seen[2].Path != "/elsewhere" {
		t.Errorf("last request: %s", seen[2].Path)
	}
	got := seen[1]
	if got.Method != "PATCH" || got.Path != cardPath+"?x=%2F" || got.Proto != "HTTP/1.1" || got.Host != strings.TrimPrefix(i.url, "http://") ||
		got.Header.Get("Traceparent") != "00-01-01-01" || got.BodyBytes != 19 || got.BodySHA256 != sha256.Sum256([]byte(`{"status":"locked"}`)) {
		t.Errorf("seen: %+v", got)
	}
}

func TestRequestsAreCopies(t *testing.T) {
	i := start(t, config())
	req := i.request("GET", cardPath, "", "Traceparent", "before")
	i.Handler().ServeHTTP(httptest.NewRecorder(), req)
	req.Header.Set("Traceparent", "after")
	if got := i.Requests()[0].Header.Get("Traceparent"); got != "before" {
		t.Errorf("a header that was seen changed to %q", got)
	}
}

func TestNoRequestsAreKeptWhereNoneShouldBe(t *testing.T) {
	c := config()
	c.KeepRequests = -1
	i := start(t, c)
	i.call("GET", cardPath, "")
	if len(i.Requests()) != 0 || i.Total() != 1 {
		t.Errorf("%d kept, %d in all", len(i.Requests()), i.Total())
	}
}

func TestAnswersCarryHeadersOfTheIssuersOwn(t *testing.T) {
	i := start(t, config())
	res, err := i.client.Do(i.request("GET", cardPath, ""))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if len(res.Header.Get("X-Request-Id")) != 32 || !strings.HasPrefix(res.Header.Get("Set-Cookie"), "rain_affinity=") {
		t.Errorf("header: %v", res.Header)
	}
}

func TestHTTPSWithHTTP2(t *testing.T) {
	c := config()
	c.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	i := start(t, c)
	s := session(t)
	_, out := i.call("GET", secretsPath, "", "SessionId", s.ID())
	if pan, err := s.Open(sealed(t, out["encryptedPan"])); pan != i.card.PAN || err != nil {
		t.Errorf("card number does not come through: %v", err)
	}
	if got := i.Requests()[0].Proto; got != "HTTP/2.0" {
		t.Errorf("protocol %s", got)
	}
	i.SetFault(cardID, sandbox.FaultTruncatedBody)
	res, err := i.client.Do(i.request("GET", secretsPath, "", "SessionId", s.ID()))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := io.ReadAll(res.Body); err == nil {
		t.Error("a truncated body was read to its end")
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer.example.com"}, DNSNames: []string{"issuer.example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func TestConfigurationIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*sandbox.RainConfig){
		"no API key":       func(c *sandbox.RainConfig) { c.APIKey = "" },
		"no key":           func(c *sandbox.RainConfig) { c.Key = nil },
		"no certificate":   func(c *sandbox.RainConfig) { c.TLS = &tls.Config{} },
		"card twice":       func(c *sandbox.RainConfig) { c.Cards = append(c.Cards, c.Cards[0]) },
		"user twice":       func(c *sandbox.RainConfig) { c.Users = append(c.Users, c.Users[0]) },
		"user without id":  func(c *sandbox.RainConfig) { c.Users = append(c.Users, sandbox.User{}) },
		"unknown user":     func(c *sandbox.RainConfig) { c.Cards[0].UserID = "nobody" },
		"no card id":       func(c *sandbox.RainConfig) { c.Cards[0].ID = "" },
		"id with a slash":  func(c *sandbox.RainConfig) { c.Cards[0].ID = "a/b" },
		"short number":     func(c *sandbox.RainConfig) { c.Cards[0].PAN = "41111111111" },
		"wrong last digit": func(c *sandbox.RainConfig) { c.Cards[0].PAN = "4111111111111112" },
		"letters":          func(c *sandbox.RainConfig) { c.Cards[0].PAN = "411111111111111x" },
		"CVC":              func(c *sandbox.RainConfig) { c.Cards[0].CVC = "12" },
		"month 13":         func(c *sandbox.RainConfig) { c.Cards[0].ExpiryMonth = "13" },
		"month 0":          func(c *sandbox.RainConfig) { c.Cards[0].ExpiryMonth = "0" },
		"month 00":         func(c *sandbox.RainConfig) { c.Cards[0].ExpiryMonth = "00" },
		"month 012":        func(c *sandbox.RainConfig) { c.Cards[0].ExpiryMonth = "012" },
		"year":             func(c *sandbox.RainConfig) { c.Cards[0].ExpiryYear = "30" },
		"PIN":              func(c *sandbox.RainConfig) { c.Cards[0].PIN = "123" },
		"status":           func(c *sandbox.RainConfig) { c.Cards[0].Status = "ACTIVE" },
		"limit":            func(c *sandbox.RainConfig) { c.Cards[0].Limit = sandbox.Limit{Amount: 1, Frequency: "daily"} },
	} {
		c := config()
		pan := c.Cards[0].PAN
		spoil(&c)
		_, err := sandbox.NewRain(c)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		for _, secret := range []string{pan, c.Cards[0].PAN, apiKey} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error quotes a secret: %v", name, err)
			}
		}
	}
	c := config()
	c.Cards[0].ExpiryMonth, c.Cards[0].Status, c.Cards[0].Limit = "01", "", sandbox.Limit{}
	if _, err := sandbox.NewRain(c); err != nil {
		t.Errorf("defaults: %v", err)
	}
}

// TestPublishedClient runs the documented functions of the published client, in the language that they are documented in.
func TestPublishedClient(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatal("node is missing: apt-get install nodejs")
	}
	i := start(t, config())
	spki, err := x509.MarshalPKIXPublicKey(i.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	input, err := json.Marshal(map[string]string{
		"url": i.url, "apiKey": apiKey, "cardId": cardID, "newPIN": "852417",
		"pem": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})),
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, filepath.Join("testdata", "device.mjs"))
	cmd.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var got struct{ PAN, CVC, PIN, PINAfter string }
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.PAN != i.card.PAN || got.CVC != i.card.CVC || got.PIN != "24"+i.card.PIN+"FFFFFFFFFF" || got.PINAfter != "26852417FFFFFFFF" {
		t.Errorf("the client read %+v", got)
	}
	if i.PIN(cardID) != "852417" {
		t.Errorf("the client's PIN did not arrive: %q", i.PIN(cardID))
	}
}

// TestStandardLibraryAlone keeps the sandbox a second opinion: with one import of ours, it would share our mistakes.
func TestStandardLibraryAlone(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, source, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, spec := range file.Imports {
			if first, _, _ := strings.Cut(strings.Trim(spec.Path.Value, `"`), "/"); strings.Contains(first, ".") || spec.Path.Value == `"C"` {
				t.Errorf("%s imports %s", name, spec.Path.Value)
			}
		}
	}
}
