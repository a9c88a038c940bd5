//go:build unix

package capi_test

import (
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

// A wait is told once, when it has taken 100 ms, and only to who asked; what it took
// stays what it was when the next one begins and when the connection is closed.
func TestLongWait(t *testing.T) {
	path := tableIn(t)
	c := open(t, path)
	w := &waiter{c, capi.NewWait(capi.Of(c), capi.FileID{Device: 3, Inode: 9}, 250*time.Millisecond)}
	var told []*capi.LongWait
	var early time.Duration
	began := time.Now()
	w.Tell(func(l *capi.LongWait) { told, early = append(told, l), time.Since(began) })
	unlock := lock(t, path)
	defer unlock()
	if w.write(t) {
		t.Fatal("there was no lock")
	}
	if len(told) != 1 || early < capi.LongWaitAfter {
		t.Fatalf("told %d times, after %v", len(told), early)
	}
	first := told[0].Took()
	if first < 200*time.Millisecond || first > 10*time.Second {
		t.Errorf("took %v, want about 250 ms", first)
	}
	w.Busy(capi.Of(c), 120*time.Millisecond)
	if w.write(t) {
		t.Fatal("there was no lock")
	}
	if len(told) != 2 || told[0].Took() != first || told[1].Took() >= first {
		t.Fatalf("told %d times, took %v then %v, now %v", len(told), first, told[0].Took(), told[1].Took())
	}
	w.Busy(capi.Of(c), 50*time.Millisecond)
	w.write(t)
	second := told[1].Took()
	w.Busy(capi.Of(c), 150*time.Millisecond)
	w.Quiet()
	w.write(t)
	if len(told) != 2 || told[1].Took() != second {
		t.Errorf("after Quiet told %d times; the second took %v, was %v", len(told), told[1].Took(), second)
	}
	c.Close()
	w.Free()
	if told[0].Took() != first || told[1].Took() != second {
		t.Errorf("after Free %v and %v, were %v and %v", told[0].Took(), told[1].Took(), first, second)
	}
}
