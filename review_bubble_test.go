//go:build cgo

package leakguard

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestWakeFromABubble: a tracker made outside a synctest bubble still looks
// when something inside the bubble woke it. A timer that is reset inside a
// bubble goes by the bubble's clock, which is decades ahead of the real one.
func TestWakeFromABubble(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{Tracker: tr, Policy: limits(func(p *tracker.Policy) {
		p.LeakAfter, p.CheckInterval = 200*time.Millisecond, 20*time.Millisecond
	})})
	run(t, g, createT)
	synctest.Test(t, func(t *testing.T) {
		// Any other test's change of limits wakes the reaper.
		if err := g.connector.SetPolicy(limits(func(p *tracker.Policy) {
			p.LeakAfter, p.CheckInterval = 200*time.Millisecond, 20*time.Millisecond
		})); err != nil {
			t.Fatal(err)
		}
	})
	g.begin(t)
	g.wait(t, tracker.EventSuspect) // in vain if the reaper does not look any more
}
