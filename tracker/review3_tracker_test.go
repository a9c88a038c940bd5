package tracker

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
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

// gated is a fake whose gate lets one in at a time, as a driver's does, and whose answer
// takes a while.
type gated struct {
	*several
	inside atomic.Bool
}

func (g *gated) TxStateOf(schema string) TxState {
	if !g.inside.CompareAndSwap(false, true) {
		return TxUnknown
	}
	defer g.inside.Store(false)
	for range 1000 {
		runtime.Gosched()
	}
	return g.several.TxStateOf(schema)
}

// Several that are blocked at the same time ask the same connections. None of them takes
// another one's question for an operation that is running, which may hold the lock.
func TestReviewSeveralAskAtOnce(t *testing.T) {
	file := File{Path: filepath.Join(t.TempDir(), "a.db")}
	inBubble(t, func(l *lab) {
		f := l.on(l.pool(Observe, limits(nil)), file)
		f.begin("BEGIN", "") // and nothing else: it has no lock
		s := &gated{several: f.with(map[string]TxState{"main": TxNone})}
		l.Tracker.mu.Lock()
		f.control = s
		l.Tracker.mu.Unlock()
		var wait sync.WaitGroup
		for range 4 {
			me := l.on(l.pool(Observe, limits(nil)), file)
			wait.Go(func() { me.Blocked(ReasonBusy, false) })
		}
		wait.Wait()
		l.told()
		for _, e := range l.History() {
			if e.Type == EventBlocked && len(e.Blame.Holders) > 0 {
				t.Errorf("%v", e.Blame)
			}
		}
	})
}
