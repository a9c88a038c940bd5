package tracker

import (
	"strings"
	"sync"
	"testing"
)

func maxPools(n int64) Policy { return limits(func(p *Policy) { p.MaxPools = n }) }

// of opens a pool of a file.
func (l *lab) of(path string, p Policy) *Pool {
	l.t.Helper()
	return newPool(l.t, l.Tracker, PoolConfig{Name: "db", Path: path, Policy: p, Logger: quiet})
}

func TestPoolsOfOneFile(t *testing.T) {
	inBubble(t, func(l *lab) {
		a := l.of("/a.db", maxPools(3))
		for range 10 {
			l.of("/b.db", maxPools(0))
			l.of("", maxPools(1))
		}
		l.of("/a.db", maxPools(3))
		l.expect()
		c := l.of("/a.db", maxPools(3))
		l.expect("0s suspect pool max_pools #1")
		d := l.of("/a.db", maxPools(3))
		d.Close()
		d.Close()
		l.expect()
		for range 30 {
			l.of("/a.db", maxPools(0)).Close() // asks for nothing, and takes nothing back
		}
		l.expect()
		c.Close()
		l.expect("0s recovered pool max_pools #1")
		a.Close()
		e := l.of("/a.db", maxPools(2))
		l.expect("0s suspect pool max_pools #2")
		if err := e.SetPolicy(maxPools(5)); err != nil {
			t.Fatal(err)
		}
		l.expect("0s recovered pool max_pools #2")
		checkBalance(t, l.Stats(), 0)
		for _, name := range []string{"db", "db-1"} {
			l.Tracker.mu.Lock()
			p := l.pools[name]
			l.Tracker.mu.Unlock()
			if p != nil {
				checkBalance(t, p.Stats(), 0)
			}
		}
	})
}

// The lowest limit counts, also if it comes last and there are no more pools than
// it allows.
func TestPoolsOfOneFileByTheLowestLimit(t *testing.T) {
	inBubble(t, func(l *lab) {
		a := l.of("/a.db", DefaultPolicy())
		l.of("/a.db", maxPools(2))
		l.expect("0s suspect pool max_pools #1")
		a.Close()
		l.expect("0s recovered pool max_pools #1")
		b := l.of("/b.db", DefaultPolicy())
		if err := b.SetPolicy(maxPools(1)); err != nil {
			t.Fatal(err)
		}
		l.expect("0s suspect pool max_pools #2")
	})
}

// The place that opened most of them is named, by one of its pools; the figures
// are that pool's.
func TestPoolsNameThePlace(t *testing.T) {
	inBubble(t, func(l *lab) {
		first := l.of("/a.db", maxPools(4))
		open := func() *Pool { return l.of("/a.db", maxPools(4)) }
		var most []*Pool
		for range 2 {
			l.sleep(sec)
			most = append(most, open())
		}
		l.sleep(sec)
		last := l.of("/a.db", maxPools(4))
		h := l.LeakHistory()
		if len(h) != 1 || h[0].Pool != most[0].Name() || h[0].Leak.Pool != most[0].Name() || h[0].Leak.Count != 4 || h[0].Leak.Age != 2*sec ||
			!strings.Contains(h[0].Leak.Stack.String(), "TestPoolsNameThePlace.func1.1") {
			t.Fatalf("%+v", h)
		}
		if s := most[0].Stats(); s.LeakedDetected != 1 {
			t.Errorf("%+v", s)
		}
		if s := last.Stats(); s.LeakedDetected != 0 {
			t.Errorf("%+v", s)
		}
		n := most[0].tally.leaks[leakKey{KindPool, ReasonMaxPools}]
		if n == nil || n.Found != 1 || n.Recovered != 0 {
			t.Errorf("%+v", n)
		}
		first.Close()
		if s := most[0].Stats(); s.Recovered != 1 || n.Recovered != 1 {
			t.Errorf("%+v, %+v", s, n)
		}
	})
}

// Pools come and go at once: for each suspect one recovery, in that order.
func TestPoolsComeAndGo(t *testing.T) {
	tr := New(Options{History: 1 << 16})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				p, err := tr.NewPool(PoolConfig{Path: "/a.db", Policy: maxPools(4), Logger: quiet})
				if err != nil {
					t.Error(err)
					return
				}
				p.Close()
			}
		})
	}
	wg.Wait()
	want := EventSuspect
	for _, e := range tr.LeakHistory() {
		if e.Type != want {
			t.Fatalf("%v, want %v", e.Type, want)
		}
		want = EventSuspect + EventRecovered - want
	}
	if want != EventSuspect || len(tr.tooMany) != 0 {
		t.Errorf("a suspect is left: %v", tr.tooMany)
	}
	checkBalance(t, tr.Stats(), 0)
}
