package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

func TestRedisConfigIsChecked(t *testing.T) {
	good := passwordFile(t, "secret\n")
	one := []string{"127.0.0.1:6379"}
	for name, c := range map[string]store.RedisConfig{
		"no address":             {},
		"no port":                {Addresses: []string{"localhost"}},
		"no host":                {Addresses: []string{":6379"}},
		"a negative database":    {Addresses: one, DB: -1},
		"a database of Cluster":  {Addresses: []string{"a:1", "b:1"}, DB: 1},
		"a negative pool":        {Addresses: one, PoolSize: -1},
		"a negative time-out":    {Addresses: one, Timeout: -1},
		"a negative dial":        {Addresses: one, DialTimeout: -1},
		"a user and no password": {Addresses: one, Username: "u"},
		"braces in the prefix":   {Addresses: one, Prefix: "a{b}"},
		"a long prefix":          {Addresses: one, Prefix: strings.Repeat("p", 65)},
		"no such password file":  {Addresses: one, PasswordFile: filepath.Join(t.TempDir(), "none")},
		"an empty password file": {Addresses: one, PasswordFile: passwordFile(t, "\n")},
		"two lines of password":  {Addresses: one, PasswordFile: passwordFile(t, "canary-a\ncanary-b\n")},
	} {
		r, err := store.NewRedis(c)
		if err == nil {
			r.Close()
			t.Errorf("%s was taken", name)
		} else if strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: the error quotes the password: %v", name, err)
		}
	}
	for name, c := range map[string]store.RedisConfig{
		"a server":  {Addresses: one, DB: 1, PasswordFile: good, Username: "u", Prefix: "cs:test_1.x-y"},
		"a socket":  {Addresses: []string{"/run/redis.sock"}},
		"IPv6":      {Addresses: []string{"[::1]:6379"}},
		"Sentinels": {Addresses: []string{"a:1", "b:1"}, MasterName: "m", DB: 1},
		"a Cluster": {Addresses: []string{"a:1", "b:1"}},
	} {
		r, err := store.NewRedis(c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r.Close()
	}
}

func passwordFile(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The names under which servers cache the scripts are written down in the code. Where this fails, it says what to write.
func TestScriptsHaveTheirNames(t *testing.T) {
	s := testredis.Start(t)
	for source, sha := range store.Scripts() {
		if want := s.Do("SCRIPT", "LOAD", source); want != sha {
			_, title, _ := strings.Cut(source, "\n")
			title, _, _ = strings.Cut(title, "\n")
			t.Errorf("the script %q is %v, not %s: write that into redis_scripts.go", title, want, sha)
		}
	}
}

func TestRedisLosesItsScripts(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	d := digest()
	must(t, r.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
	s.Do("SCRIPT", "FLUSH")
	v, err := r.Redeem(t.Context(), store.KindToken, d, attempt(1))
	if err != nil || string(v) != "v" {
		t.Errorf("%q, %v", v, err)
	}
}

// What lies in Redis: only keys under the prefix, all with an end. A spent token's record has its value, sealed as it came,
// as long as it stays, so that spending writes in place; who asks for it after the window is refused.
func TestRedisKeepsNothingLongerThanItNeeds(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, Prefix: "other"})
	r.ShortenWindows(100*time.Millisecond, time.Hour)
	d := digest()
	must(t, r.Ready(t.Context()))
	must(t, r.Mint(t.Context(), store.KindToken, d, []byte("canary"), time.Hour))
	must(t, r.Once(t.Context(), store.KindEnvelope, d, time.Hour))
	must(t, r.Put(t.Context(), store.KindLogin, d, []byte("login"), time.Hour))
	_, err := r.Take(t.Context(), d, policy.Rate{Count: 5, Per: time.Hour})
	must(t, err)
	_, err = r.Redeem(t.Context(), store.KindToken, d, attempt(1))
	must(t, err)
	time.Sleep(102 * time.Millisecond)

	dump := s.Dump()
	if len(dump) != 4 {
		t.Errorf("%d keys: %q", len(dump), dump)
	}
	for key, value := range dump {
		name := strings.TrimPrefix(key, "0/")
		if !strings.HasPrefix(name, "other:") {
			t.Errorf("key %q is not under the prefix", key)
		}
		if ttl := s.Do("PTTL", name).(int64); ttl <= 0 {
			t.Errorf("key %q has no end: %d", key, ttl)
		}
		if strings.Contains(value, "canary") != strings.Contains(name, ":token:") {
			t.Errorf("key %q: %q", key, value)
		}
	}
	_, err = r.Redeem(t.Context(), store.KindToken, d, attempt(1))
	wantError(t, "after the window", err, store.ErrSpent)
}

// A held card leaves no second copy for its attempt, and its own is gone at once.
func TestRedisKeepsNoHeldCard(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	d := digest()
	must(t, r.Mint(t.Context(), store.KindCard, d, []byte("canary"), time.Hour))
	if dump := fmt.Sprint(s.Dump()); strings.Count(dump, "canary") != 1 {
		t.Fatalf("this test finds nothing: %q", dump)
	}
	_, err := r.Redeem(t.Context(), store.KindCard, d, attempt(1))
	must(t, err)
	dump := s.Dump()
	if len(dump) != 1 {
		t.Errorf("%d keys: %q", len(dump), dump)
	}
	for key, value := range dump {
		if strings.Contains(value, "canary") {
			t.Errorf("key %q has it still", key)
		}
	}
}

// The script and the function are the same arithmetic.
func TestTakeScriptIsGCRA(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	rapid.Check(t, func(t *rapid.T) {
		rate := policy.Rate{
			Count: rapid.IntRange(1, 10_000).Draw(t, "count"),
			Per:   time.Duration(rapid.Int64Range(10_000, policy.MaxRatePer.Microseconds()).Draw(t, "per")) * time.Microsecond,
		}
		d := digest()
		key := r.LimitKey(d)
		tat := int64(0)
		if rapid.Bool().Draw(t, "kept") { // as another rate, or another clock, may have left it
			tat = time.Now().UnixMicro() + rapid.Int64Range(-2*rate.Burst(), 2*rate.Burst()).Draw(t, "ahead")
			s.Do("SET", key, strconv.FormatInt(tat, 10), "PX", "3600000")
		}
		for range rapid.IntRange(1, 20).Draw(t, "calls") {
			got, err := r.TakeScript(t.Context(), d, rate)
			if err != nil || len(got) != 4 {
				t.Fatal(got, err)
			}
			newTAT, ok, retry, remaining := rate.GCRA(got[3], tat)
			if (got[0] == 1) != ok || got[1] != retry.Microseconds() || got[2] != int64(remaining) {
				t.Fatalf("the script says %v, the function %v %v %d", got, ok, retry, remaining)
			}
			if !ok {
				continue
			}
			tat = newTAT
			if ttl := s.Do("PTTL", key).(int64); ttl == -2 && newTAT > time.Now().UnixMicro()+2000 { // it is to be there still
				t.Fatal("nothing was kept")
			}
			if newTAT-got[3] > time.Minute.Microseconds() { // it is there still
				if kept := s.Do("GET", key); kept != strconv.FormatInt(newTAT, 10) {
					t.Fatalf("the script kept %v, the function %d", kept, newTAT)
				}
			} else {
				s.Do("SET", key, strconv.FormatInt(newTAT, 10), "PX", "3600000") // or it may expire between two calls
			}
		}
	})
}

// A token is redeemed under the tenure that minted it, or not at all [9].
func TestTenure(t *testing.T) {
	mint := func(t *testing.T, r *store.Redis) (live, spent store.Digest) {
		t.Helper()
		live, spent = digest(), digest()
		for _, d := range []store.Digest{live, spent} {
			must(t, r.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
		}
		_, err := r.Redeem(t.Context(), store.KindToken, spent, attempt(1))
		must(t, err)
		return live, spent
	}
	wantBoth := func(t *testing.T, r *store.Redis, live, spent store.Digest, want error) {
		t.Helper()
		for _, d := range []store.Digest{live, spent} {
			_, err := r.Redeem(t.Context(), store.KindToken, d, attempt(1))
			wantError(t, "redeem", err, want)
		}
	}
	// after waits until the store answers again: its first connections are those of the process that is gone.
	after := func(t *testing.T, r *store.Redis) {
		t.Helper()
		for r.Ready(t.Context()) != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}

	for name, args := range map[string][]string{
		"snapshot":         {"--save", "3600 1"},
		"append-only file": {"--appendonly", "yes", "--appendfsync", "always"},
	} {
		t.Run("restart with "+name, func(t *testing.T) {
			s := testredis.Start(t, args...)
			r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
			live, spent := mint(t, r)
			s.Restart()
			after(t, r)
			wantBoth(t, r, live, spent, store.ErrFenced)
			wantError(t, "mint over it", r.Mint(t.Context(), store.KindToken, live, nil, time.Hour), store.ErrExists)
			d := digest()
			must(t, r.Mint(t.Context(), store.KindToken, d, nil, time.Hour))
			_, err := r.Redeem(t.Context(), store.KindToken, d, attempt(1))
			must(t, err)
		})
	}
	t.Run("crash with nothing kept", func(t *testing.T) {
		s := testredis.Start(t)
		r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
		live, spent := mint(t, r)
		s.Kill()
		s.Restart()
		after(t, r)
		wantBoth(t, r, live, spent, store.ErrUnknown)
	})
	t.Run("promoted replica, and back", func(t *testing.T) {
		primary, replica := testredis.Start(t), testredis.Start(t)
		r := newRedis(t, store.RedisConfig{Addresses: []string{primary.Addr}})
		follow(replica, primary)
		live, spent := mint(t, r)
		caughtUp(replica, primary)

		other := newRedis(t, store.RedisConfig{Addresses: []string{replica.Addr}})
		_, err := other.Redeem(t.Context(), store.KindToken, live, attempt(1))
		wantReason(t, "redeem on a replica", err, store.ReasonReadOnly)
		wantReason(t, "mint on a replica", other.Mint(t.Context(), store.KindToken, digest(), nil, time.Hour), store.ReasonReadOnly)
		err = other.Ready(t.Context())
		wantReason(t, "ready on a replica", err, store.ReasonReadOnly)
		wantText(t, err, "replica", "primary")

		// A replica that may be written to has the same replication id: only its role gives it away.
		replica.Do("CONFIG", "SET", "replica-read-only", "no")
		_, err = other.Redeem(t.Context(), store.KindToken, live, attempt(1))
		wantReason(t, "redeem on a writable replica", err, store.ReasonReadOnly)
		wantReason(t, "mint on a writable replica", other.Mint(t.Context(), store.KindToken, digest(), nil, time.Hour), store.ReasonReadOnly)
		err = other.Ready(t.Context())
		wantReason(t, "ready on a writable replica", err, store.ReasonReadOnly)
		wantText(t, err, "slave", "primary")

		replica.Do("REPLICAOF", "NO", "ONE")
		wantBoth(t, other, live, spent, store.ErrFenced)
		follow(primary, replica)
		primary.Do("REPLICAOF", "NO", "ONE")
		after(t, r)
		wantBoth(t, r, live, spent, store.ErrFenced)
	})
}

// follow makes a replica of another server, and returns when it has its data.
func follow(replica, primary *testredis.Server) {
	host, port, _ := strings.Cut(primary.Addr, ":")
	replica.Do("REPLICAOF", host, port)
	for !strings.Contains(replica.Do("INFO", "replication").(string), "master_link_status:up") {
		time.Sleep(5 * time.Millisecond)
	}
}

// caughtUp returns when a replica has all that was written until now. WAIT would speak for its own connection alone.
func caughtUp(replica, primary *testredis.Server) {
	offset := func(s *testredis.Server, field string) int {
		_, rest, _ := strings.Cut(s.Do("INFO", "replication").(string), "\n"+field+":")
		digits, _, _ := strings.Cut(rest, "\r")
		n, _ := strconv.Atoi(digits)
		return n
	}
	for want := offset(primary, "master_repl_offset"); offset(replica, "slave_repl_offset") < want; {
		time.Sleep(time.Millisecond)
	}
}

func wantReason(t *testing.T, what string, err error, want store.Reason) {
	t.Helper()
	u, ok := errors.AsType[*store.Unavailable](err)
	if !ok || u.Reason != want || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%s: %v, want the reason %q", what, err, want)
	}
}

func wantText(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestRedisOverTLS(t *testing.T) {
	s := testredis.StartWith(t, testredis.Options{TLS: true})
	another := testredis.StartWith(t, testredis.Options{TLS: true})
	plain := testredis.Start(t)
	_, port, _ := strings.Cut(s.Addr, ":")

	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, TLS: s.ClientTLS()})
	must(t, r.Ready(t.Context()))
	byName := newRedis(t, store.RedisConfig{Addresses: []string{"localhost:" + port}, TLS: s.ClientTLS()})
	must(t, byName.Ready(t.Context()))

	wrongCA := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, TLS: another.ClientTLS()})
	err := wrongCA.Ready(t.Context())
	wantReason(t, "another CA", err, store.ReasonTLS)
	wantText(t, err, s.Addr, "unknown authority")
	wantReason(t, "another CA", wrongCA.Once(t.Context(), store.KindEnvelope, digest(), time.Hour), store.ReasonTLS)

	named := s.ClientTLS()
	named.ServerName = "redis.example"
	wrongName := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, TLS: named})
	wantReason(t, "another name", wrongName.Ready(t.Context()), store.ReasonTLS)

	toPlain := newRedis(t, store.RedisConfig{Addresses: []string{plain.Addr}, TLS: s.ClientTLS(), DialTimeout: 100 * time.Millisecond})
	err = toPlain.Ready(t.Context()) // it waits for the end of a line
	wantReason(t, "TLS to a server without", err, store.ReasonTimeout)
	wantText(t, err, "TLS")

	toTLS := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	err = toTLS.Ready(t.Context())
	wantReason(t, "no TLS to a server with", err, store.ReasonConnection)
	wantText(t, err, "TLS")
}

func TestRedisPassword(t *testing.T) {
	s := testredis.StartWith(t, testredis.Options{Password: "canary-right"})
	file := passwordFile(t, "canary-right\n")
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, PasswordFile: file})
	must(t, r.Ready(t.Context()))

	for name, c := range map[string]store.RedisConfig{
		"wrong": {PasswordFile: passwordFile(t, "canary-wrong")},
		"none":  {},
		"user":  {Username: "somebody", PasswordFile: file},
	} {
		c.Addresses = []string{s.Addr}
		bad := newRedis(t, c)
		for call, err := range map[string]error{
			"ready": bad.Ready(t.Context()),
			"mint":  bad.Mint(t.Context(), store.KindToken, digest(), []byte("canary-value"), time.Hour),
		} {
			wantReason(t, name+": "+call, err, store.ReasonAuth)
			if strings.Contains(err.Error(), "canary") {
				t.Errorf("%s: %s: it quotes what it must not: %v", name, call, err)
			}
		}
		wantText(t, bad.Ready(t.Context()), "password")
	}
}

// The password is changed on the server and in the file, and nothing is restarted.
func TestRedisPasswordIsReadForEachConnection(t *testing.T) {
	s := testredis.StartWith(t, testredis.Options{Password: "old"})
	file := passwordFile(t, "old\n")
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, PasswordFile: file})
	must(t, r.Ready(t.Context()))

	s.Do("CONFIG", "SET", "requirepass", "new")
	must(t, os.WriteFile(file, []byte("new\r\n"), 0o600))
	s.Do("CLIENT", "KILL", "USER", "default")
	must(t, r.Ready(t.Context()))

	must(t, os.Remove(file))
	s.Do("CLIENT", "KILL", "USER", "default")
	err := r.Ready(t.Context())
	wantReason(t, "without its file", err, store.ReasonPassword)
	wantText(t, err, file)
}

func TestRedisUser(t *testing.T) {
	rules := store.AccessRules("")
	s := testredis.StartWith(t, testredis.Options{Users: []string{
		"enough on >pw " + rules,
		"noinfo on >pw " + rules + " -info",
		"nokeys on >pw " + strings.Replace(rules, "~cardstile:*", "~elsewhere:*", 1),
		"noset on >pw " + rules + " -set",
		"noeval on >pw " + rules + " -eval -evalsha",
		"halfinfo on >pw " + rules + " -info +info|replication",
		"config on >pw " + rules + " -info +info|replication +config|get",
	}})
	as := func(user string) *store.Redis {
		return newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, Username: user, PasswordFile: passwordFile(t, "pw")})
	}

	enough := as("enough")
	must(t, enough.Ready(t.Context()))
	for name, call := range calls(enough) {
		if err := call(t.Context()); !isAnswer(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, as("config").Ready(t.Context()))

	for user, want := range map[string][]string{
		"noinfo":   {"INFO", "ACL SETUSER noinfo +info"},
		"nokeys":   {"ACL SETUSER nokeys ~cardstile:*"},
		"noset":    {"ACL SETUSER noset", "+set"},
		"noeval":   {"ACL SETUSER noeval", "+evalsha"},
		"halfinfo": {"maxmemory-policy could not be checked", "ACL SETUSER halfinfo +info"},
	} {
		err := as(user).Ready(t.Context())
		wantReason(t, user, err, store.ReasonPermission)
		wantText(t, err, want...)
	}
	wantReason(t, "mint without +info", as("noinfo").Mint(t.Context(), store.KindToken, digest(), nil, time.Hour), store.ReasonPermission)
}

func TestRedisThatEvictsIsNotReady(t *testing.T) {
	s := testredis.Start(t, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	err := r.Ready(t.Context())
	wantReason(t, "ready", err, store.ReasonEviction)
	wantText(t, err, "allkeys-lru", "noeviction")
	s.Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	must(t, r.Ready(t.Context()))
}

// A server without memory mints nothing, and still redeems.
func TestRedisOutOfMemory(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	d := digest()
	must(t, r.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
	s.Do("CONFIG", "SET", "maxmemory", "1")
	for what, err := range map[string]error{
		"mint": r.Mint(t.Context(), store.KindToken, digest(), nil, time.Hour),
		"once": r.Once(t.Context(), store.KindEnvelope, digest(), time.Hour),
		"put":  r.Put(t.Context(), store.KindLogin, digest(), nil, time.Hour),
	} {
		wantReason(t, what, err, store.ReasonFull)
		wantError(t, what, err, store.ErrFull)
	}
	_, err := r.Take(t.Context(), digest(), policy.Rate{Count: 1, Per: time.Hour})
	wantError(t, "take", err, store.ErrFull)
	err = r.Ready(t.Context())
	wantError(t, "ready", err, store.ErrFull)
	wantText(t, err, "maxmemory")
	v, err := r.Redeem(t.Context(), store.KindToken, d, attempt(1))
	if err != nil || string(v) != "v" {
		t.Errorf("redeem: %q, %v", v, err)
	}
	_, err = r.Redeem(t.Context(), store.KindToken, d, attempt(2))
	wantError(t, "redeem again", err, store.ErrSpent)
}

// A paused server holds nobody longer than the caller's deadline: nothing else here would ever end the wait, and a crowd
// of callers wait side by side, also when the very first call of the process is among them.
func TestPausedRedisHoldsNobody(t *testing.T) {
	for _, cold := range []bool{true, false} {
		s := testredis.Start(t)
		r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, Timeout: time.Hour, DialTimeout: time.Hour, PoolSize: 4})
		if !cold {
			must(t, r.Ready(t.Context()))
			for range 4 {
				must(t, r.Once(t.Context(), store.KindEnvelope, digest(), time.Hour))
			}
		}
		all := calls(r)
		s.Pause()
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		done := make(chan error)
		waiting := 0
		for _, call := range all {
			for range 10 {
				waiting++
				go func() { done <- call(ctx) }()
			}
		}
		for range waiting {
			err := <-done
			wantReason(t, "paused", err, store.ReasonTimeout)
			wantError(t, "paused", err, context.DeadlineExceeded)
		}
		cancel()
		s.Resume()
	}
}

func TestRedisTimeout(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, Timeout: 50 * time.Millisecond, DialTimeout: 50 * time.Millisecond})
	d := digest()
	must(t, r.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
	s.Pause()
	a := attempt(1)
	_, err := r.Redeem(context.Background(), store.KindToken, d, a)
	wantReason(t, "paused", err, store.ReasonTimeout)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("the caller had no deadline")
	}
	wantText(t, r.Ready(context.Background()), "in time")
	s.Resume()
	// The server may have spent it meanwhile: the same attempt is told so with the value, another one is not.
	var v []byte
	for {
		if v, err = r.Redeem(t.Context(), store.KindToken, d, a); !errors.Is(err, store.ErrUnavailable) {
			break
		}
	}
	if err != nil || string(v) != "v" {
		t.Errorf("the same attempt again: %q, %v", v, err)
	}
	_, err = r.Redeem(t.Context(), store.KindToken, d, attempt(2))
	wantError(t, "another attempt", err, store.ErrSpent)
}

func TestRedisStopped(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	must(t, r.Ready(t.Context()))
	s.Stop()
	for name, call := range calls(r) {
		err := call(t.Context())
		wantError(t, name, err, store.ErrUnavailable)
	}
	err := r.Ready(t.Context())
	wantReason(t, "ready", err, store.ReasonDial)
	wantText(t, err, s.Addr, "refused")
	s.Restart()
	for r.Ready(t.Context()) != nil {
		time.Sleep(10 * time.Millisecond)
	}
	must(t, r.Mint(t.Context(), store.KindToken, digest(), nil, time.Hour))
}

func TestRedisPoolExhausted(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, PoolSize: 1, Timeout: 250 * time.Millisecond})
	release, err := r.HoldConnection(t.Context())
	must(t, err)
	wantReason(t, "no connection", r.Once(t.Context(), store.KindEnvelope, digest(), time.Hour), store.ReasonPool)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantReason(t, "a caller who is gone", r.Once(ctx, store.KindEnvelope, digest(), time.Hour), store.ReasonCanceled)
	release()
	must(t, r.Once(t.Context(), store.KindEnvelope, digest(), time.Hour))
}

// A record that something else has written under our key is neither a token nor "unknown".
func TestRedisForeignRecord(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	foreign := func(value func(key string)) error {
		d := digest()
		must(t, r.Mint(t.Context(), store.KindToken, d, []byte("v"), time.Hour))
		for key := range s.Dump() {
			if key := strings.TrimPrefix(key, "0/"); strings.Contains(key, ":token:") {
				value(key)
			}
		}
		_, err := r.Redeem(t.Context(), store.KindToken, d, attempt(1))
		s.Do("FLUSHALL")
		return err
	}
	wantError(t, "short", foreign(func(key string) { s.Do("SET", key, "x") }), store.ErrFenced)
	wantError(t, "empty", foreign(func(key string) { s.Do("SET", key, "") }), store.ErrFenced)
	wantReason(t, "list", foreign(func(key string) { s.Do("DEL", key); s.Do("RPUSH", key, "x") }), store.ReasonReply)
	wantReason(t, "state", foreign(func(key string) {
		s.Do("SET", key, "X"+s.Do("GET", key).(string)[1:])
	}), store.ReasonReply)
	wantReason(t, "expiry", foreign(func(key string) {
		s.Do("SETRANGE", key, 0, "S")
		s.Do("SETRANGE", key, 17, "no time here")
	}), store.ReasonReply)
	wantError(t, "without an end", foreign(func(key string) { s.Do("PERSIST", key) }), store.ErrExpired)
}

// A server's clock that is set back revives nothing: neither what is spent, nor the value that was taken out of a record.
func TestRedisClockSetBack(t *testing.T) {
	clock := testredis.NewClock(t)
	s := testredis.StartWith(t, testredis.Options{Clock: clock})
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	for kind, again := range map[store.Kind]error{store.KindToken: nil, store.KindCard: store.ErrSpent} {
		d := digest()
		must(t, r.Mint(t.Context(), kind, d, []byte("v"), time.Hour))
		_, err := r.Redeem(t.Context(), kind, d, attempt(1))
		must(t, err)
		clock.Set(-time.Minute)
		v, err := r.Redeem(t.Context(), kind, d, attempt(1))
		wantError(t, string(kind)+", the same attempt", err, again)
		if err != nil && v != nil {
			t.Errorf("%s: a value came with it: %q", kind, v)
		}
		_, err = r.Redeem(t.Context(), kind, d, attempt(2))
		wantError(t, string(kind)+", another attempt", err, store.ErrSpent)
		clock.Set(0)
	}
}

// The rules are enough in a Cluster, too, whose client asks where the slots are.
func TestRedisUserOfACluster(t *testing.T) {
	var nodes []*testredis.Server
	var addresses []string
	for range 3 {
		n := testredis.StartWith(t, testredis.Options{Cluster: true, Users: []string{"enough on >pw " + store.AccessRules(""), "default off"}})
		nodes, addresses = append(nodes, n), append(addresses, n.Addr)
	}
	testredis.Join(3, nodes...)
	r := newRedis(t, store.RedisConfig{Addresses: addresses, Username: "enough", PasswordFile: passwordFile(t, "pw")})
	must(t, r.Ready(t.Context()))
	for name, call := range calls(r) {
		if err := call(t.Context()); !isAnswer(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Sentinels have users of their own, who may do next to nothing.
func TestRedisUserOfSentinels(t *testing.T) {
	primary := testredis.Start(t)
	sentinel := testredis.StartWith(t, testredis.Options{Sentinel: true, Users: []string{
		"asks on >other-pw allchannels -@all +hello +ping +subscribe +sentinel|get-master-addr-by-name +sentinel|sentinels", "default off",
	}})
	sentinel.Monitor("m", primary.Addr, time.Minute)
	with := func(file string) *store.Redis {
		return newRedis(t, store.RedisConfig{
			Addresses: []string{sentinel.Addr}, MasterName: "m", SentinelUsername: "asks", SentinelPasswordFile: file,
			Timeout: time.Second, DialTimeout: time.Second,
		})
	}
	r := with(passwordFile(t, "other-pw\n"))
	must(t, r.Ready(t.Context()))
	d := digest()
	must(t, r.Mint(t.Context(), store.KindToken, d, nil, time.Hour))
	_, err := r.Redeem(t.Context(), store.KindToken, d, attempt(1))
	must(t, err)
	err = with(passwordFile(t, "canary-wrong\n")).Ready(t.Context())
	if err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("with a wrong password: %v", err)
	}
}
