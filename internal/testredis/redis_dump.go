package testredis

import (
	"context"
	"fmt"
	"strings"
)

// Do runs one command as the server's own administrator and returns its reply. It goes over the unix socket, so it works
// whatever TLS, passwords and users the test has set up.
func (s *Server) Do(args ...any) any {
	s.t.Helper()
	reply, err := s.Try(args...)
	if err != nil {
		s.t.Fatalf("redis: %v: %v", args[0], err)
	}
	return reply
}

// Try is Do for a server that may be down, and for any goroutine: it returns the error.
func (s *Server) Try(args ...any) (any, error) {
	return s.admin.Do(context.Background(), args...).Result()
}

// Dump returns every key of every database with its value, for a test that looks for what must not be there. Keys are
// "<database>/<key>"; a value that is no string is its elements, one on each line.
func (s *Server) Dump() map[string]string {
	s.t.Helper()
	ctx := context.Background()
	all := make(map[string]string)
	const databases = 16
	for db := range databases {
		conn := s.admin.Conn() // SELECT is a connection's state
		if err := conn.Select(ctx, db).Err(); err != nil {
			s.t.Fatal(err)
		}
		keys := conn.Scan(ctx, 0, "", 1000).Iterator()
		for keys.Next(ctx) {
			key := keys.Val()
			var reply any
			var err error
			switch kind := conn.Type(ctx, key).Val(); kind {
			case "string":
				reply, err = conn.Get(ctx, key).Result()
			case "hash":
				reply, err = conn.HGetAll(ctx, key).Result()
			case "list":
				reply, err = conn.LRange(ctx, key, 0, -1).Result()
			case "set":
				reply, err = conn.SMembers(ctx, key).Result()
			case "zset":
				reply, err = conn.ZRangeWithScores(ctx, key, 0, -1).Result()
			case "stream":
				reply, err = conn.XRange(ctx, key, "-", "+").Result()
			case "none": // expired since SCAN named it
				continue
			default:
				s.t.Fatalf("redis: key of type %s", kind)
			}
			if err != nil {
				continue // expired between TYPE and now
			}
			all[fmt.Sprintf("%d/%s", db, key)] = text(reply)
		}
		if err := keys.Err(); err != nil {
			s.t.Fatal(err)
		}
		conn.Select(ctx, 0)
		conn.Close()
	}
	return all
}

func text(reply any) string {
	switch v := reply.(type) {
	case string:
		return v
	case []string:
		return strings.Join(v, "\n")
	case map[string]string:
		var b strings.Builder
		for field, value := range v {
			b.WriteString(field + "\n" + value + "\n")
		}
		return b.String()
	default:
		return fmt.Sprint(v)
	}
}
