package tracker

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestOpenedIn: the event of opening says how long it took, and no other does.
func TestOpenedIn(t *testing.T) {
	inBubble(t, func(l *lab) {
		c := l.pool(Enforce, limits(nil)).New(false, "")
		c.OpenedIn(3 * time.Millisecond)
		c.Register(still{})
		c.Close()
		synctest.Wait()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, e := range l.events {
			want := time.Duration(0)
			if e.Type == EventOpened {
				want = 3 * time.Millisecond
			}
			if e.Duration != want {
				t.Errorf("%v: %v, want %v", e.Type, e.Duration, want)
			}
		}
		if len(l.events) != 2 {
			t.Errorf("told %d events, want 2", len(l.events))
		}
	})
}
