package tracker

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

// Provable is that of ProofControl: whatever has the text "provable".
func (f *fake) Provable() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.rows {
		if r.query == "provable" {
			return true
		}
	}
	return false
}

// collections gives the tracker a collector that writes down when garbage was collected.
func (l *lab) collections() (k *collector, told func() []time.Duration) {
	var at []time.Duration
	k = &collector{
		collect: func() {
			l.mu.Lock()
			at = append(at, l.since())
			l.mu.Unlock()
		},
		heap: func() (uint64, uint64) { return 100, 10 << 20 },
	}
	l.collector = k
	return k, func() []time.Duration {
		l.mu.Lock()
		defer l.mu.Unlock()
		return at
	}
}

func collecting(p *Policy) { p.ReportAfter, p.Collect = 30*sec, true }

// Rows that rest before somebody have the garbage collected once for each time that
// they rest, and once a minute at the most.
func TestCollect(t *testing.T) {
	inBubble(t, func(l *lab) {
		_, told := l.collections()
		p := l.pool(Enforce, limits(collecting))
		file := File{Path: "/a.db"}
		f, later, w := l.on(p, file), l.on(p, file), l.on(p, file)
		f.query("provable", "")
		l.until(20 * sec)
		if n := told(); len(n) != 0 {
			t.Errorf("nobody waits: collected at %v", n)
		}
		w.enter()
		w.waits(true)
		l.until(25 * sec)
		if n := told(); len(n) != 1 || n[0] > 23*sec {
			t.Errorf("collected at %v, want once", n)
		}
		later.query("provable", "")
		l.until(80 * sec)
		if n := told(); len(n) != 1 {
			t.Errorf("within a minute collected at %v", n)
		}
		l.until(90 * sec)
		if n := told(); len(n) != 2 || n[1]-n[0] < collectInterval {
			t.Errorf("for what came later collected at %v", n)
		}
		l.until(300 * sec)
		if n := told(); len(n) != 2 {
			t.Errorf("for the same rows again: %v", n)
		}
		f.touch()
		l.until(400 * sec)
		if n := told(); len(n) != 3 {
			t.Errorf("for rows that moved and rest again: %v", n)
		}
		w.waits(false)
		w.leave()
	})
}

// Where nothing can be proven, or somebody wants none, there is none.
func TestCollectNot(t *testing.T) {
	for name, c := range map[string]struct {
		policy Policy
		heap   func() (uint64, uint64)
		open   func(f *fake)
	}{
		"other rows":    {open: func(f *fake) { f.query("cancellable", "") }},
		"a transaction": {open: func(f *fake) { f.begin("BEGIN", ""); f.query("provable", "") }},
		"switched off":  {policy: limits(func(p *Policy) { p.ReportAfter = 30 * sec })},
		"not reported":  {policy: limits(func(p *Policy) { p.Collect = true })},
		"GC off":        {heap: func() (uint64, uint64) { return math.MaxUint64, 0 }},
		"large heap":    {heap: func() (uint64, uint64) { return 100, 1<<30 + 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				k, told := l.collections()
				if c.heap != nil {
					k.heap = c.heap
				}
				if c.policy == (Policy{}) {
					c.policy = limits(collecting)
				}
				if c.open == nil {
					c.open = func(f *fake) { f.query("provable", "") }
				}
				p := l.pool(Enforce, c.policy)
				file := File{Path: "/a.db"}
				f, w := l.on(p, file), l.on(p, file)
				c.open(f)
				w.enter()
				w.waits(true)
				l.until(200 * sec)
				if n := told(); len(n) != 0 {
					t.Errorf("collected at %v", n)
				}
				w.waits(false)
				w.leave()
			})
		})
	}
}

// A collection that takes long keeps nobody: the reaper goes on, several trackers have
// one at a time, and closing waits for it.
func TestCollectTakesLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release, begun := make(chan struct{}), 0
		k := &collector{
			collect: func() { begun++; <-release },
			heap:    func() (uint64, uint64) { return 100, 0 },
		}
		a, b := New(Options{}), New(Options{})
		if !k.ask(a.Go) {
			t.Fatal("not asked for")
		}
		synctest.Wait()
		time.Sleep(2 * collectInterval)
		if k.ask(b.Go) || begun != 1 {
			t.Errorf("%d at a time", begun)
		}
		closed := false
		go func() { a.Close(); closed = true }()
		synctest.Wait()
		if closed {
			t.Error("closed beside it")
		}
		close(release)
		synctest.Wait()
		if !closed || !k.ask(b.Go) {
			t.Error("not over")
		}
		b.Close()
	})
}

// A tracker that was made in a bubble asks for none: it takes the machine's time.
func TestCollectInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if l := New(Options{}); l.collector != nil {
			t.Error("it has a collector")
		}
	})
	if New(Options{}).collector != theCollector {
		t.Error("outside it has another one than all have")
	}
}

// The runtime says whether its collector is off.
func TestHeapNow(t *testing.T) {
	old := debug.SetGCPercent(50)
	defer debug.SetGCPercent(old)
	if percent, live := heapNow(); percent != 50 || live > maxCollectHeap {
		t.Errorf("GOGC %d, %d bytes live", percent, live)
	}
	k := &collector{collect: func() {}, heap: heapNow}
	now := func(f func()) { f() }
	debug.SetGCPercent(-1)
	if k.ask(now) {
		percent, _ := heapNow()
		t.Errorf("asked for while it is off, %d", percent)
	}
	debug.SetGCPercent(50)
	if !k.ask(now) {
		t.Error("not asked for")
	}
}
