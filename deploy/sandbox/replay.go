package sandbox

import (
	"crypto/sha256"
	"maps"
	"sync"
	"time"
)

// replays remembers the first answer to each request that came with an Idempotency-Key. Errors are not remembered: nothing was done.
// It forgets nothing as long as the process lives. The zero value is ready to use; safe for concurrent use.
type replays struct {
	mu    sync.Mutex
	first map[string]replay // by the key, and by whose it is where there are several callers
}

type replay struct {
	request [sha256.Size]byte
	at      time.Time
	answer  *answer
}

// replayTime is how long a first answer is given again.
const replayTime = 24 * time.Hour

// once carries out do, or returns the first answer again where the same request came under this key within replayTime. It is not ok where the
// key came with another method, path or body, or longer ago: then nothing is done. Requests wait for each other here.
func (r *replays) once(key string, req request, do func() *answer) (a *answer, ok bool) {
	digest := sha256.Sum256([]byte(req.Method + "\x00" + req.URL.EscapedPath() + "\x00" + string(req.body)))
	r.mu.Lock()
	defer r.mu.Unlock()
	before, seen := r.first[key]
	if !seen {
		before = replay{request: digest, at: time.Now(), answer: do()}
		if before.answer.ok() {
			if r.first == nil {
				r.first = make(map[string]replay)
			}
			r.first[key] = before
		}
	}
	if before.request != digest || time.Since(before.at) >= replayTime {
		return nil, false
	}
	// A copy, for faults change answers.
	return &answer{status: before.answer.status, body: maps.Clone(before.answer.body)}, true
}
