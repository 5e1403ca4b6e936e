//go:build !race

package audit_test

import (
	"context"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/audit"
)

// Not under the race detector, where a sync.Pool forgets at random.
func TestRecordDoesNotAllocate(t *testing.T) {
	l := open(t, audit.Config{File: newPath(t), Instance: "gw-1", MAC: newPooledMAC(), Clock: func() time.Time { return testTime }})
	e := fullEvent()
	if n := testing.AllocsPerRun(200, func() {
		if err := l.Record(context.Background(), e); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for a record", n)
	}
}
