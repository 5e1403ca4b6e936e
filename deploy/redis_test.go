package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// startRedis runs a redis-server with redis.conf and an ACL file, on a port and in a folder of its own, and returns its address.
func startRedis(t *testing.T, acl string) string {
	t.Helper()
	server := program(t, "redis-server", "redis-server")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	_, port, _ := net.SplitHostPort(address)
	// Only where it is and listens differs from how it is deployed. The folder is entered as soon as its line is read.
	dir := t.TempDir()
	text := read(t, "redis/redis.conf")
	conf := filepath.Join(dir, "redis.conf")
	write(t, conf, strings.Replace(text, "\ndir /data\n", "\ndir "+dir+"\n", 1))
	cmd := exec.Command(server, conf, "--port", port, "--bind", "127.0.0.1", "--aclfile", acl)
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // its own words say more than its exit status
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-ended
	})
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return address
		}
		select {
		case <-ended:
			t.Fatalf("redis-server ended: %s", said.String())
		case <-t.Context().Done():
			t.Fatal("redis-server does not listen")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// rules returns the words of a user's line of users.acl.
func rules(t *testing.T, user string) []string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^user ` + user + ` (.*)$`).FindStringSubmatch(read(t, "redis/users.acl"))
	if m == nil {
		t.Fatalf("users.acl has no user %s", user)
	}
	return strings.Fields(m[1])
}

// TestUserHasTheRightsThatTheStoreAsksFor, no more and no less: what the store says it needs is the one truth.
func TestUserHasTheRightsThatTheStoreAsksFor(t *testing.T) {
	want := append([]string{"on", "resetpass", "resetkeys", "resetchannels", "-@all"}, strings.Fields(store.AccessRules(""))...)
	got := rules(t, "cardstile")
	if slices.Sort(want); !slices.Equal(slices.Sorted(slices.Values(got)), want) {
		t.Errorf("rules %v, want %v", got, want)
	}
	if got := strings.Join(rules(t, "default"), " "); got != "off resetpass resetkeys resetchannels -@all" {
		t.Errorf("default user: %s", got)
	}
}

func TestStoreWorksUnderItsUser(t *testing.T) {
	dir := prepared(t)
	address := startRedis(t, filepath.Join(dir, "secrets", "redis_acl"))
	s, err := store.NewRedis(store.RedisConfig{
		Addresses: []string{address}, Username: "cardstile", PasswordFile: filepath.Join(dir, "secrets", "redis_password"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	d := store.Digest{1}
	rate, err := policy.ParseRate("600/m")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"ready", func() error { return s.Ready(ctx) }},
		{"mint", func() error { return s.Mint(ctx, store.KindToken, d, []byte("grant"), time.Minute) }},
		{"redeem", func() error {
			value, err := s.Redeem(ctx, store.KindToken, d, store.Attempt{1})
			if err == nil && string(value) != "grant" {
				err = fmt.Errorf("value %q", value)
			}
			return err
		}},
		{"redeem again", func() error {
			if _, err := s.Redeem(ctx, store.KindToken, d, store.Attempt{2}); !errors.Is(err, store.ErrSpent) {
				return fmt.Errorf("error %v, want %w", err, store.ErrSpent)
			}
			return nil
		}},
		{"once", func() error { return s.Once(ctx, store.KindEnvelope, d, time.Minute) }},
		{"put", func() error { return s.Put(ctx, store.KindLogin, d, []byte("login"), time.Minute) }},
		{"get", func() error { _, err := s.Get(ctx, store.KindLogin, d); return err }},
		{"delete", func() error { return s.Delete(ctx, store.KindLogin, d) }},
		{"take", func() error { _, err := s.Take(ctx, d, rate); return err }},
	} {
		if err := step.do(); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
	}
}

func TestUserCanDoNothingElse(t *testing.T) {
	dir := prepared(t)
	address := startRedis(t, filepath.Join(dir, "secrets", "redis_acl"))
	client := func(username, password string) *redis.Client {
		c := redis.NewClient(&redis.Options{Addr: address, Username: username, Password: password, MaxRetries: -1, Protocol: 2, DisableIdentity: true})
		t.Cleanup(func() { c.Close() })
		return c
	}
	refused := func(c *redis.Client, want string, args ...any) {
		t.Helper()
		if err := c.Do(t.Context(), args...).Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %s", args, err, want)
		}
	}
	password := strings.TrimSpace(read(t, filepath.Join(dir, "secrets", "redis_password")))
	c := client("cardstile", password)
	if err := c.Set(t.Context(), "cardstile:x", "1", time.Minute).Err(); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]any{
		{"KEYS", "*"}, {"SCAN", "0"}, {"FLUSHALL"}, {"CONFIG", "GET", "*"}, {"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"},
		{"ACL", "LIST"}, {"MONITOR"}, {"REPLICAOF", "127.0.0.1", "1"}, {"SHUTDOWN"}, {"SAVE"}, {"SCRIPT", "FLUSH"},
		{"FUNCTION", "LIST"}, {"MODULE", "LIST"}, {"CLIENT", "LIST"}, {"PUBLISH", "c", "m"}, {"DUMP", "cardstile:x"}, {"PERSIST", "cardstile:x"},
		{"SET", "other:x", "1"}, {"GET", "other:x"}, {"DEL", "other:x"}, {"SET", "cardstile", "1"},
	} {
		refused(c, "NOPERM", args...)
	}
	refused(c, "DEBUG command not allowed", "DEBUG", "SLEEP", "0")
	for script, want := range map[string]string{
		`return redis.call('KEYS', '*')`:          "can't run this command",
		`return redis.call('GET', 'other:x')`:     "can't access at least one of the keys",
		`return redis.call('CONFIG', 'GET', '*')`: "not allowed from script",
	} {
		refused(c, want, "EVAL", script, 0)
	}
	refused(client("cardstile", password+"x"), "WRONGPASS", "PING")
	refused(client("cardstile", ""), "NOAUTH", "PING")
	refused(client("default", "x"), "WRONGPASS", "PING")
	// This is also what compose takes for a sign of health.
	refused(client("", ""), "NOAUTH", "PING")
	if err := client("cardstile", password).Do(context.Background(), "PING").Err(); err != nil {
		t.Error(err)
	}
}

// TestUserWithoutPasswordIsLockedOut: users.acl as it is in the repository lets nobody in, so that deploying it as it is fails closed.
func TestUserWithoutPasswordIsLockedOut(t *testing.T) {
	acl, err := filepath.Abs("redis/users.acl")
	if err != nil {
		t.Fatal(err)
	}
	address := startRedis(t, acl)
	for _, password := range []string{"x", " "} {
		c := redis.NewClient(&redis.Options{Addr: address, Username: "cardstile", Password: password, MaxRetries: -1, Protocol: 2, DisableIdentity: true})
		if err := c.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
			t.Errorf("password %q: error %v", password, err)
		}
		c.Close()
	}
}
