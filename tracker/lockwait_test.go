package tracker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// took is a wait that takes as long as the test says.
type took struct{ d time.Duration }

func (w *took) Took() time.Duration { return w.d }

// block has the connection wait for a lock, to run a text.
func (f *fake) block(text string) *took {
	w := &took{LockWaitAfter}
	f.enter()
	f.asleep.Store(true)
	f.Record()
	f.Conn.query = text
	f.Recorded()
	f.WaitsLong(w)
	return w
}

// got ends the wait, and the operation goes on.
func (f *fake) got(w *took, after time.Duration) {
	w.d = after
	f.asleep.Store(false)
}

// A wait counts once its operation is over, or its connection waits again or is gone;
// while the operation works it is none that waits.
func TestLockWaits(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, reportAfter(0))
		f := l.open(p, true)
		counted := func(count uint64, seconds float64) {
			t.Helper()
			for _, s := range []Stats{l.Stats(), p.Stats()} {
				if s.LockWaitCount != count || s.LockWaitSeconds != seconds {
					t.Errorf("%d waits, %v s, want %d, %v", s.LockWaitCount, s.LockWaitSeconds, count, seconds)
				}
			}
		}
		w := f.block("INSERT 1")
		if s := l.Stats(); len(s.LockWaiting) != 1 || s.Verdict != Good {
			t.Errorf("waits: %+v, %v", s.LockWaiting, s.Verdict)
		}
		w.d = 999 * time.Millisecond
		if s := l.Stats(); s.Verdict != Good {
			t.Errorf("below a second: %v %q", s.Verdict, s.Findings)
		}
		w.d = time.Second
		if s := l.Stats(); s.Verdict != Attention || !strings.Contains(fmt.Sprint(s.Findings), "not known whose") {
			t.Errorf("for nobody known: %v %q", s.Verdict, s.Findings)
		}
		f.got(w, 2*time.Second)
		if s := l.Stats(); len(s.LockWaiting) != 0 || s.Verdict != Good {
			t.Errorf("works: %+v, %v", s.LockWaiting, s.Verdict)
		}
		counted(0, 0)
		again := &took{LockWaitAfter} // for another lock, in the same operation
		f.WaitsLong(again)
		f.got(again, time.Second)
		counted(1, 2) // by another line
		f.leave()
		counted(2, 3)
		f.got(f.block("INSERT 2"), 4*time.Second)
		f.leave()
		f.got(f.block("INSERT 3"), 5*time.Second)
		counted(3, 7)
		f.Close()
		counted(4, 12)
		if s := p.Stats(); len(s.LockWaits) != 2 || s.LockWaits[0].Count != 3 || s.LockWaits[0].Longest != 5 || s.LockWaits[0].Query != "INSERT 3" || s.LockWaits[0].Holder != "not known" {
			t.Errorf("%+v", s.LockWaits)
		}
		if f := l.Figures().Pools[0]; f.LockWaits != 4 || f.LockWaitDuration != 12*time.Second {
			t.Errorf("%+v", f)
		}
	})
}

// However many pairs there are, a pool tells 64 apart, counts the others together, and
// loses none.
func TestLockWaitsBounded(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, reportAfter(0))
		f := l.open(p, true)
		const n = 3 * maxLockWaits
		for i := range n {
			w := &longWait{conn: f.Conn, wait: &took{time.Second}, by: lockHolder{place: heldElsewhere, pid: i + 1, command: fmt.Sprint("program", i)}}
			w.count()
		}
		p.tracker.waits.mu.Lock()
		held := len(p.waits.pairs)
		p.tracker.waits.mu.Unlock()
		if held != maxLockWaits+1 {
			t.Errorf("%d pairs are kept", held)
		}
		s := l.Stats()
		other := slices.IndexFunc(s.LockWaits, func(n LockWaits) bool { return n.WaiterSite == otherWaits })
		if len(s.LockWaits) != maxLockWaits || s.LockWaitCount != n || other < 0 || s.LockWaits[other].Count != n-maxLockWaits || s.LockWaits[other].Holder != otherWaits {
			t.Errorf("%d pairs of %d waits, other: %d", len(s.LockWaits), s.LockWaitCount, other)
		}
		for range 2 { // one program that runs again is the same, and the last process is told
			w := &longWait{conn: f.Conn, wait: &took{time.Second}, by: lockHolder{place: heldElsewhere, pid: 9999, command: "program0"}}
			w.count()
		}
		if n := l.Stats().LockWaits; n[0].Count < 3 && n[1].Count < 3 || !slices.ContainsFunc(n, func(n LockWaits) bool { return n.Holder == "process 9999 (program0)" && n.Count == 3 }) {
			t.Errorf("%+v", n[:2])
		}
	})
}

// Who waits is told for each holder, red before amber, and not without end.
func TestWaitFindings(t *testing.T) {
	var waiting []LockWaiting
	add := func(holder lockPlace, name, exempt string, seconds float64) {
		w := LockWaiting{ConnectionID: "db#9", Site: "a/b.go:1", For: seconds, Holder: "rows", HolderSite: "c/d.go:2", HolderConnection: name, Exempt: exempt, by: holder}
		if holder != heldByGuarded {
			w.Holder, w.HolderSite, w.HolderConnection = name, "", ""
		}
		waiting = append(waiting, w)
	}
	add(heldElsewhere, "process 12 (sqlite3)", "", 5)
	add(heldByGuarded, "db#1", "nightly", 4)
	add(heldByGuarded, "db#2", "", 3)
	add(heldByGuarded, "db#2", "", 2)
	add(heldPastGuard, "this process, past the guard", "", 1.5)
	add(heldByGuarded, "db#3", "", 0.9)
	var s Stats
	s.judge(nil, nil, waiting, time.Now())
	want := []string{
		"2 operations wait for a lock, the longest for 3s at a/b.go:1 held by a result set of db#2, opened at c/d.go:2",
		"an operation at a/b.go:1 has waited 1.5s for a lock held by this process, past the guard",
		"an operation at a/b.go:1 has waited 5s for a lock held by process 12 (sqlite3)",
		"an operation at a/b.go:1 has waited 4s for a lock held by a result set of db#1, opened at c/d.go:2, which is exempt: nightly",
	}
	if !slices.Equal(s.Findings, want) || s.Verdict != Bad {
		t.Errorf("%v\n%q\nwant\n%q", s.Verdict, s.Findings, want)
	}
	for i := range 20 {
		add(heldByGuarded, fmt.Sprint("db#", 10+i), "", 2)
	}
	s = Stats{}
	s.judge(nil, nil, waiting, time.Now())
	if n := len(s.Findings); n != maxWaitFindings+1 || !strings.Contains(s.Findings[n-1], "19 more") {
		t.Errorf("%d: %q", n, s.Findings)
	}
	s = Stats{}
	s.judge(nil, nil, []LockWaiting{waiting[1]}, time.Now())
	if s.Verdict != Attention {
		t.Errorf("for one that is exempt: %v", s.Verdict)
	}
}
