package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// redisServer is a Redis that this program started, with a connection that asks it about itself.
type redisServer struct {
	*server
	admin   *redis.Client
	version string
}

// redisName is the program that is looked for.
const redisName = "redis-server"

func findRedis(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return "", errors.New("redis-server is not installed. Type: sudo apt-get install --no-install-recommends redis-server (or leave it out: -only with other operations)")
}

// startRedis starts a server that keeps nothing on disk, on loopback; a replica of the primary where that is not nil.
func (w *world) startRedis(ctx context.Context, binary string, core int, name string, primary *redisServer) (*redisServer, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	log := w.path("redis-" + name + ".log")
	config := fmt.Sprintf(redisConfig, ports[0], w.dir, log)
	if primary != nil {
		config += fmt.Sprintf("replicaof %s\n", strings.Replace(primary.address, ":", " ", 1))
	}
	file := "redis-" + name + ".conf"
	if err := w.write(file, config); err != nil {
		return nil, err
	}
	s := &redisServer{server: &server{name: "Redis " + name, address: fmt.Sprintf("127.0.0.1:%d", ports[0]), cmd: exec.Command(binary, w.path(file))}}
	if err := w.run(core, s.server, false); err != nil {
		return nil, err
	}
	s.log = log
	logging.Disable() // what go-redis would print while the server starts is in the errors
	s.admin = redis.NewClient(plainOptions(s.address, 0, 1))
	w.closers = append(w.closers, s.admin)
	return s, s.wait(ctx, func() error {
		info, err := s.info(ctx, "server")
		s.version = info["redis_version"]
		return err
	})
}

// redisConfig has room for a replica that is behind, since it shares its processor with the load.
const redisConfig = `bind 127.0.0.1
port %d
dir %s
logfile %s
save ""
appendonly no
maxmemory-policy noeviction
repl-diskless-sync-delay 0
client-output-buffer-limit replica 0 0 0
`

// info reads sections of INFO.
func (s *redisServer) info(ctx context.Context, sections ...string) (map[string]string, error) {
	text, err := s.admin.Info(ctx, sections...).Result()
	if err != nil {
		return nil, fmt.Errorf("%s: INFO: %w", s.name, err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields, nil
}

// cpu is what the server has used so far, user and system, of all threads.
func (s *redisServer) cpu(ctx context.Context) (time.Duration, error) {
	info, err := s.info(ctx, "cpu")
	if err != nil {
		return 0, err
	}
	user, errUser := strconv.ParseFloat(info["used_cpu_user"], 64)
	system, errSystem := strconv.ParseFloat(info["used_cpu_sys"], 64)
	if err := errors.Join(errUser, errSystem); err != nil {
		return 0, fmt.Errorf("%s: INFO cpu: %w", s.name, err)
	}
	return time.Duration((user + system) * float64(time.Second)), nil
}

// used is the server's memory, once nobody but us is connected: bytes.
func (s *redisServer) used(ctx context.Context) (n int, err error) {
	err = s.wait(ctx, func() error {
		info, err := s.info(ctx, "memory", "clients")
		if err != nil {
			return err
		}
		if others := info["connected_clients"]; others != "1" {
			return fmt.Errorf("%s connections, want 1", others)
		}
		n, err = strconv.Atoi(info["used_memory"])
		return err
	})
	return n, err
}

// followers are how many replicas a server has, and how often it had to give one everything.
type followers struct{ online, full int }

func (s *redisServer) replication(ctx context.Context) (r followers, err error) {
	info, err := s.info(ctx, "replication", "stats")
	if err != nil {
		return r, err
	}
	for name, value := range info {
		if strings.HasPrefix(name, "slave") && strings.Contains(value, "state=online") {
			r.online++
		}
	}
	if r.full, err = strconv.Atoi(info["sync_full"]); err != nil {
		return r, fmt.Errorf("%s: INFO stats: %w", s.name, err)
	}
	return r, nil
}

func (s *redisServer) waitForReplicas(ctx context.Context, n int) error {
	return s.wait(ctx, func() error {
		r, err := s.replication(ctx)
		if err == nil && r.online != n {
			err = fmt.Errorf("%d replicas, want %d", r.online, n)
		}
		return err
	})
}

// flush empties all databases, and returns when that is done.
func (s *redisServer) flush(ctx context.Context) error {
	return s.admin.Do(ctx, "FLUSHALL", "SYNC").Err()
}
