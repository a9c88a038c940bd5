package tracker

import (
	"fmt"
	"path/filepath"
	"testing"
)

// A connection whose real one was out once, and left nothing, is at rest like any other:
// its file is measured in turn.
func TestReviewNothingLeftPinsNothing(t *testing.T) {
	const n = 3*restingFiles + 10
	dir := t.TempDir()
	inBubble(t, func(l *lab) {
		for i := range n {
			p := l.pool(Observe, limits(func(p *Policy) { p.WALLimit = 1 << 40 }))
			f := l.on(p, File{Path: filepath.Join(dir, fmt.Sprint(i)), Device: 1, Inode: uint64(i + 1)})
			f.do(func() { f.HandedOut(); f.TakenBack(TxNone, "") })
			f.in()
		}
		l.sleep(3 * mins)
		l.Tracker.mu.Lock()
		defer l.Tracker.mu.Unlock()
		if got := len(l.Tracker.wals.due(nil)); got > restingFiles {
			t.Errorf("%d files are measured, want %d", got, restingFiles)
		}
	})
}

// A lease with the real connection that is forgotten is told for that, also where it may
// keep a WAL.
func TestReviewRawLeaseIsForgottenBesideAWAL(t *testing.T) {
	file := File{Path: filepath.Join(t.TempDir(), "a.db")}
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.WALLimit, p.LeakAfter = 1000, 5*mins }))
		f := l.on(p, file)
		f.do(f.HandedOut)
		wal(t, file, 1001)
		l.sleep(20 * mins)
		l.expectLeaks("suspect connection wal_limit")
		held := l.Held()
		if len(held) != 1 || held[0].Suspect == nil || held[0].Suspect.Reason != ReasonLeakAfter {
			t.Errorf("%+v", held)
		}
	})
}
