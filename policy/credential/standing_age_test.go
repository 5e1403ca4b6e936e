package credential_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// slowShelf answers a reading with what was there when it began, after a while.
type slowShelf struct {
	*shelf
	takes time.Duration
}

func (s slowShelf) Shared(ctx context.Context, kind store.Kind) (map[string]store.Versioned, error) {
	values, err := s.shelf.Shared(ctx, kind)
	time.Sleep(s.takes)
	return values, err
}

// TestWhatIsKnownIsAsOldAsItsReading: what a reading found counts from when it began. It may have been said otherwise before it
// came to an end, and the second would not hold.
func TestWhatIsKnownIsAsOldAsItsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 900 * time.Millisecond
		s := newShelf()
		seals := newSeals(t, "key", nil)
		fast := newStandings(t, s, seals)
		slow := newStandings(t, slowShelf{s, takes}, seals)
		var ended time.Time
		go func() {
			if st := slow.at(t, "a"); st.Disabled { // the reading began before it was said
				t.Error("it knows what was said after its reading began")
			}
			ended = time.Now()
		}()
		synctest.Wait() // it has read, and has not got the answer yet
		begun := time.Now()
		said := make(chan error, 1)
		go func() {
			_, _, err := fast.Disable(context.Background(), "a")
			said <- err
		}()
		time.Sleep(takes)
		synctest.Wait()
		if got := ended.Sub(begun); got != takes {
			t.Fatalf("the reading took %v, not %v", got, takes)
		}
		// From here on the store has nothing to say to anybody who asks.
		s.with(func(s *shelf) { s.down = &store.Unavailable{Store: "shelf", Reason: store.ReasonDial} })
		time.Sleep(credential.StandingFresh - takes) // to the end of the second that began with the reading
		if st, err := slow.At(t.Context(), "a", credential.StandingFresh); err != nil || st.Disabled {
			t.Errorf("a second after the reading began: %+v, %v", st, err)
		}
		time.Sleep(time.Nanosecond)
		if st, err := slow.At(t.Context(), "a", credential.StandingFresh); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("later than that: %+v, %v", st, err)
		}
		if err := <-said; err == nil { // it could not look whether it stands
			t.Error("the command has not noticed that the store is gone")
		}
	})
}
