package store_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// impostor is a server that speaks just enough of RESP to give answers that a real one gives rarely, and counts what it
// was asked.
type impostor struct {
	addr string
	mu   sync.Mutex
	seen map[string]int
}

// newImpostor answers every command but those of a handshake with reply, as it goes over the wire. An empty reply closes
// the connection.
func newImpostor(t *testing.T, reply string) *impostor {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	i := &impostor{addr: l.Addr().String(), seen: make(map[string]int)}
	var wg sync.WaitGroup
	var conns sync.Map
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Store(c, nil)
			wg.Go(func() {
				defer c.Close()
				i.serve(c, reply)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		wg.Wait()
	})
	return i
}

func (i *impostor) serve(c net.Conn, reply string) {
	in := bufio.NewReader(c)
	for {
		name, err := readCommand(in)
		if err != nil {
			return
		}
		i.mu.Lock()
		i.seen[name]++
		i.mu.Unlock()
		answer := reply
		switch {
		case name == "hello":
			answer = "-ERR unknown command\r\n"
		case name == "command":
			answer = "*0\r\n"
		case name == "cluster": // SLOTS: all of them are here
			host, port, _ := net.SplitHostPort(i.addr)
			answer = fmt.Sprintf("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$%d\r\n%s\r\n:%s\r\n", len(host), host, port)
		case reply == "":
			return
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (i *impostor) count(names ...string) (n int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, name := range names {
		n += i.seen[name]
	}
	return n
}

// readCommand reads an array of bulk strings and returns the first one in lower case.
func readCommand(in *bufio.Reader) (name string, err error) {
	number := func(prefix byte) (int, error) {
		line, err := in.ReadString('\n')
		if err != nil || line[0] != prefix {
			return 0, io.ErrUnexpectedEOF
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number('*')
	if err != nil {
		return "", err
	}
	for part := range n {
		length, err := number('$')
		if err != nil {
			return "", err
		}
		b := make([]byte, length+2)
		if _, err := io.ReadFull(in, b); err != nil {
			return "", err
		}
		if part == 0 {
			name = strings.ToLower(string(b[:length]))
		}
	}
	return name, nil
}

// Whatever the server says that is no answer, the caller learns that there is none, and a reason out of the closed set.
func TestEveryFailureIsUnavailable(t *testing.T) {
	const secret = "canary-in-a-reply"
	for reply, want := range map[string]store.Reason{
		"-READONLY You can't write against a read only replica.\r\n":                     store.ReasonReadOnly,
		"-LOADING Redis is loading the dataset in memory\r\n":                            store.ReasonLoading,
		"-MASTERDOWN Link with MASTER is down\r\n":                                       store.ReasonLoading,
		"-OOM command not allowed when used memory > 'maxmemory'.\r\n":                   store.ReasonFull,
		"-NOAUTH Authentication required.\r\n":                                           store.ReasonAuth,
		"-WRONGPASS invalid username-password pair\r\n":                                  store.ReasonAuth,
		"-NOPERM this user has no permissions to run the '" + secret + "' command\r\n":   store.ReasonPermission,
		"-MISCONF Redis is configured to save RDB snapshots\r\n":                         store.ReasonPersist,
		"-NOREPLICAS Not enough good replicas to write.\r\n":                             store.ReasonReplicas,
		"-BUSY Redis is busy running a script.\r\n":                                      store.ReasonBusy,
		"-CLUSTERDOWN Hash slot not served\r\n":                                          store.ReasonCluster,
		"-MOVED 3999 127.0.0.1:1\r\n":                                                    store.ReasonCluster,
		"-ASK 3999 127.0.0.1:1\r\n":                                                      store.ReasonCluster,
		"-TRYAGAIN Multiple keys request during rehashing of slot\r\n":                   store.ReasonCluster,
		"-ERR max number of clients reached\r\n":                                         store.ReasonClients,
		"-ERR unknown command 'EVALSHA', with args beginning with: '" + secret + "'\r\n": store.ReasonReply,
		"-ERR Error running script: " + secret + "\r\n":                                  store.ReasonReply,
		"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n":         store.ReasonReply,
		":77\r\n":                             store.ReasonReply,
		"*1\r\n$1\r\nx\r\n":                   store.ReasonReply,
		"*4\r\n:1\r\n:0\r\n:0\r\n$1\r\nx\r\n": store.ReasonReply,
		"":                                    store.ReasonConnection,
		"HTTP/1.1 400 Bad Request\r\n":        store.ReasonConnection,
	} {
		i := newImpostor(t, reply)
		r := newRedis(t, store.RedisConfig{Addresses: []string{i.addr}})
		check := func(what string, err error) {
			t.Helper()
			wantReason(t, strings.TrimSpace(reply)+": "+what, err, want)
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: it quotes the server: %v", what, err)
			}
		}
		ctx, d := t.Context(), digest()
		v, err := r.Redeem(ctx, store.KindToken, d, attempt(1))
		check("redeem", err)
		if v != nil {
			t.Errorf("a value came with it: %q", v)
		}
		check("mint", r.Mint(ctx, store.KindToken, d, []byte(secret), time.Hour))
		taken, err := r.Take(ctx, d, policy.Rate{Count: 1, Per: time.Hour})
		check("take", err)
		if taken.OK {
			t.Error("taken, with an error")
		}
		if reply == "" || reply[0] == '-' || reply[0] == 'H' { // the others are answers to a plain command
			check("once", r.Once(ctx, store.KindEnvelope, d, time.Hour))
			check("put", r.Put(ctx, store.KindLogin, d, []byte(secret), time.Hour))
			v, err = r.Get(ctx, store.KindLogin, d)
			check("get", err)
			if v != nil {
				t.Errorf("a value came with it: %q", v)
			}
			check("delete", r.Delete(ctx, store.KindLogin, d))
		}
		begun, err := r.Begin(ctx, kindCall, d, d, attempt(1), time.Hour, time.Hour, 0)
		check("begin", err)
		if begun.Owner || begun.Value != nil {
			t.Errorf("begun, with an error: %+v", begun)
		}
		check("finish", r.Finish(ctx, kindCall, d, attempt(1), []byte(secret)))
		check("abandon", r.Abandon(ctx, kindCall, d, attempt(1)))
		if err := r.Ready(ctx); err == nil {
			t.Errorf("%q: ready", reply)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("ready quotes the server: %v", err)
		}
	}
}

// What must happen once is sent once, whatever becomes of its reply; what may be repeated is.
func TestSingleUseIsNeverSentTwice(t *testing.T) {
	for name, reply := range map[string]string{
		"the reply is lost": "",
		"a replica":         "-READONLY You can't write against a read only replica.\r\n",
		"it is loading":     "-LOADING Redis is loading the dataset in memory\r\n",
	} {
		i := newImpostor(t, reply)
		r := newRedis(t, store.RedisConfig{Addresses: []string{i.addr}})
		ctx, d := t.Context(), digest()
		sent := func(what string, want int, commands ...string) {
			t.Helper()
			if n := i.count(commands...); n != want {
				t.Errorf("%s: %s was sent %d times, want %d", name, what, n, want)
			}
		}
		_ = r.Mint(ctx, store.KindToken, d, nil, time.Hour)
		sent("mint", 1, "eval", "evalsha")
		_, _ = r.Redeem(ctx, store.KindCard, d, attempt(1))
		sent("mint, and redeem what is given away once", 2, "eval", "evalsha")
		_, _ = r.Take(ctx, d, policy.Rate{Count: 1, Per: time.Hour})
		sent("mint, redeem and take", 3, "eval", "evalsha")
		_ = r.Once(ctx, store.KindEnvelope, d, time.Hour)
		sent("once", 1, "set")
		_, _ = r.Get(ctx, store.KindLogin, d)
		sent("get", 2, "get")
		_, _ = r.Begin(ctx, kindCall, d, d, attempt(1), time.Hour, time.Hour, 0)
		sent("all before, and begin", 5, "eval", "evalsha")
		_ = r.Finish(ctx, kindCall, d, attempt(1), nil)
		sent("all before, and finish", 7, "eval", "evalsha")
		_ = r.Abandon(ctx, kindCall, d, attempt(1))
		sent("all before, and abandon", 9, "eval", "evalsha")
		_, _ = r.Redeem(ctx, store.KindToken, d, attempt(1))
		again := 1
		if reply == "" { // the same attempt may ask again, and may have got it
			again = 2
		}
		sent("all before, and redeem", 9+again, "eval", "evalsha")
	}
}

// A Cluster's client tries again by itself where a reply was lost, unless it is told not to.
func TestSingleUseIsNeverSentTwiceInCluster(t *testing.T) {
	i := newImpostor(t, "")
	r := newRedis(t, store.RedisConfig{Addresses: []string{i.addr, i.addr}})
	ctx, d := t.Context(), digest()
	sent := func(what string, want int, commands ...string) {
		t.Helper()
		if n := i.count(commands...); n != want {
			t.Errorf("%s: sent %d times, want %d", what, n, want)
		}
	}
	err := r.Mint(ctx, store.KindToken, d, nil, time.Hour)
	wantReason(t, "mint", err, store.ReasonConnection)
	sent("mint", 1, "eval", "evalsha")
	_, err = r.Redeem(ctx, store.KindToken, d, attempt(1))
	wantReason(t, "redeem", err, store.ReasonConnection)
	sent("mint, and redeem twice", 3, "eval", "evalsha")
	_, err = r.Take(ctx, d, policy.Rate{Count: 1, Per: time.Hour})
	wantReason(t, "take", err, store.ReasonConnection)
	sent("mint, redeem twice and take", 4, "eval", "evalsha")
	wantReason(t, "once", r.Once(ctx, store.KindEnvelope, d, time.Hour), store.ReasonConnection)
	sent("once", 1, "set")
}
