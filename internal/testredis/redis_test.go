package testredis_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/internal/testredis"
)

func TestStartRestartAndStop(t *testing.T) {
	var pid int
	var dir string
	t.Run("server", func(t *testing.T) {
		s := testredis.Start(t, "--save", "3600 1", "--maxmemory", "64mb")
		dir = s.Dir
		s.Do("SET", "kept", "value")
		first := s.PID()
		s.Restart()
		if s.PID() == first {
			t.Error("the process is the same after Restart")
		}
		if got := s.Do("GET", "kept"); got != "value" {
			t.Errorf("GET = %v: its directory was not kept", got)
		}
		s.Kill()
		s.Restart()
		pid = s.PID()
	})
	if err := syscall.Kill(pid, 0); err == nil {
		t.Error("the server outlived its test")
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("its directory was left behind: %v", err)
	}
}

func TestDumpFindsEverything(t *testing.T) {
	s := testredis.StartWith(t, testredis.Options{Password: "secret"})
	s.Do("SET", "string", "canary-1")
	s.Do("HSET", "hash", "canary-2", "canary-3")
	s.Do("RPUSH", "list", "canary-4")
	s.Do("SADD", "set", "canary-5")
	s.Do("ZADD", "zset", 1, "canary-6")
	s.Do("XADD", "stream", "*", "field", "canary-7")
	other := redis.NewClient(&redis.Options{Addr: s.Addr, Password: "secret", DB: 9})
	defer other.Close()
	if err := other.Set(context.Background(), "canary-8", "x", 0).Err(); err != nil {
		t.Fatal(err)
	}

	dump := s.Dump()
	if len(dump) != 7 {
		t.Errorf("%d keys, want 7: %q", len(dump), dump)
	}
	var all strings.Builder
	for key, value := range dump {
		all.WriteString(key + " " + value + "\n")
	}
	for i := '1'; i <= '8'; i++ {
		if want := "canary-" + string(i); !strings.Contains(all.String(), want) {
			t.Errorf("the dump misses %s", want)
		}
	}
}

func TestTLSOnly(t *testing.T) {
	s := testredis.StartWith(t, testredis.Options{TLS: true})
	trusted, err := tls.Dial("tcp", s.Addr, s.ClientTLS())
	if err != nil {
		t.Fatal(err)
	}
	trusted.Close()
	if _, err := tls.Dial("tcp", s.Addr, &tls.Config{}); err == nil {
		t.Error("its certificate is trusted by everybody")
	}
	plain, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_, _ = plain.Write([]byte("PING\r\n"))
	reply := make([]byte, 7)
	if n, _ := plain.Read(reply); strings.HasPrefix(string(reply[:n]), "+PONG") {
		t.Error("it answers without TLS")
	}
}

func TestUsers(t *testing.T) {
	s := testredis.StartWith(t, testredis.Options{Users: []string{"reader on >pw ~* +get +hello"}})
	c := redis.NewClient(&redis.Options{Addr: s.Addr, Username: "reader", Password: "pw", DisableIdentity: true})
	defer c.Close()
	if err := c.Set(context.Background(), "k", "v", 0).Err(); !redis.IsPermissionError(err) {
		t.Errorf("SET = %v, want NOPERM", err)
	}
	if err := c.Get(context.Background(), "k").Err(); err != redis.Nil {
		t.Errorf("GET = %v, want nil reply", err)
	}
}
