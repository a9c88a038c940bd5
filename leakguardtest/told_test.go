package leakguardtest_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// What was told is forgotten with its tracker.
func TestKeepsNoTracker(t *testing.T) {
	before := leakguardtest.Remembered()
	for range 10 {
		now(tracker.New(tracker.Options{}))
	}
	deadline := time.After(time.Minute)
	for leakguardtest.Remembered() > before {
		runtime.GC()
		select {
		case <-deadline:
			t.Fatalf("%d trackers are remembered, want %d", leakguardtest.Remembered(), before)
		case <-time.After(time.Millisecond):
		}
	}
}
