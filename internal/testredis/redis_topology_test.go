package testredis_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/internal/testredis"
)

func TestClock(t *testing.T) {
	clock := testredis.NewClock(t)
	s := testredis.StartWith(t, testredis.Options{Clock: clock})
	ahead := func() time.Duration {
		seconds, err := strconv.ParseInt(s.Do("TIME").([]any)[0].(string), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return time.Until(time.Unix(seconds, 0)).Round(10 * time.Minute)
	}
	for _, want := range []time.Duration{0, 2 * time.Hour, -2 * time.Hour, 0} {
		clock.Set(want)
		if got := ahead(); got != want {
			t.Errorf("the server's clock is %v ahead, want %v", got, want)
		}
	}
}

func TestSmallDisk(t *testing.T) {
	s := testredis.StartWith(t, testredis.Options{SmallDisk: true, Args: []string{"--appendonly", "yes"}})
	filled := s.FillDisk()
	value := strings.Repeat("v", 64<<10)
	s.Eventually("a full disk refuses writes", func() bool {
		_, err := s.Try("SET", "k", value)
		return err != nil && strings.HasPrefix(err.Error(), "MISCONF")
	})
	if !filled {
		t.Log("mounting is not permitted here: the disk is a limit on each file")
		return
	}
	s.FreeDisk()
	s.Eventually("a disk with room takes them", func() bool {
		_, err := s.Try("SET", "k", "v")
		return err == nil
	})
}

func TestSentinelsFailOver(t *testing.T) {
	primary, replica := testredis.Start(t), testredis.Start(t)
	replica.Follow(primary.Addr)
	replica.Synced()
	var sentinels []*testredis.Server
	for range 2 {
		s := testredis.StartWith(t, testredis.Options{Sentinel: true})
		s.Monitor("m", primary.Addr, 500*time.Millisecond)
		sentinels = append(sentinels, s)
	}
	for _, s := range sentinels {
		s.Eventually("the Sentinel knows the other one and the replica", func() bool {
			return strings.Contains(s.Field("sentinel", "master0"), "status=ok") && strings.HasSuffix(s.Field("sentinel", "master0"), "slaves=1,sentinels=2")
		})
	}
	primary.Kill()
	replica.Eventually("the replica is promoted", func() bool { return replica.Field("replication", "role") == "master" })
}

func TestJoin(t *testing.T) {
	var nodes []*testredis.Server
	for range 4 {
		nodes = append(nodes, testredis.StartWith(t, testredis.Options{Cluster: true}))
	}
	testredis.Join(3, nodes...)
	if got := nodes[3].Field("replication", "role"); got != "slave" {
		t.Errorf("the fourth node is a %s", got)
	}
}
