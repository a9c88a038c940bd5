package tracker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// unusedPools has max_pools n and leak_after five minutes.
func unusedPools(n int64) Policy {
	return limits(func(p *Policy) { p.MaxPools, p.LeakAfter = n, 5*mins })
}

// many opens n pools by one line, each with a connection in it if connected.
func (l *lab) many(n int, p Policy, connected bool) (pools []*Pool, conns []*fake) {
	l.t.Helper()
	for range n {
		pools = append(pools, l.of("", p))
	}
	if connected {
		for _, p := range pools {
			conns = append(conns, l.open(p, false))
		}
	}
	return pools, conns
}

// Pools in memory that one line opens, and nobody uses or closes.
func TestUnusedPools(t *testing.T) {
	inBubble(t, func(l *lab) {
		pools, conns := l.many(50, unusedPools(20), true)
		l.many(1, unusedPools(20), true)
		l.poke() // and all are seen at the same time
		l.until(5*mins - 1)
		l.expect()
		l.until(5 * mins)
		l.expect("5m0s suspect pool max_pools #1")
		l.until(time.Hour)
		l.expect()
		leak := l.LeakHistory()[0].Leak
		if leak.Count != 51 || !leak.OnePlace || leak.Pool != pools[0].Name() || leak.Age != 5*mins || leak.Idle != 5*mins || leak.Kept == "" {
			t.Errorf("%+v", leak)
		}
		if s := leak.String(); !strings.HasPrefix(s, "pool unused for 5m0s and left open, one of 51 from one place (max_pools) on db: opened at ") || !strings.Contains(s, "_test.go:") {
			t.Error(s)
		}
		if s := limitText(leak); s != "max_pools (51 open from one place)" {
			t.Error(s)
		}
		for _, c := range conns {
			c.expectOrders()
			c.Close()
		}
		for _, p := range pools[:31] {
			p.Close()
		}
		l.until(2 * time.Hour)
		l.expect() // 20 are left, by now without connections
		pools[40].Close()
		l.expect("2h0m0s recovered pool max_pools #1")
		checkBalance(t, l.Stats(), 0)
	})
}

// A pool for each tenant, used now and then: no suspect. When enough of them are
// not used any more, they are, until they are used again.
func TestPoolsOfTenants(t *testing.T) {
	inBubble(t, func(l *lab) {
		_, conns := l.many(30, unusedPools(20), true)
		use := func(n int) {
			for _, c := range conns[:n] {
				c.out("")
				c.in()
			}
		}
		for range 15 {
			l.sleep(4 * mins)
			use(30)
		}
		l.until(time.Hour)
		for range 15 {
			use(11)
			l.sleep(4 * mins)
		}
		l.expect() // 19 of them
		use(10)
		l.until(2*time.Hour + 2*mins)
		l.expect("2h2m0s suspect pool max_pools #1")
		if leak := l.LeakHistory()[0].Leak; leak.Count != 20 {
			t.Errorf("%+v", leak)
		}
		use(11)
		l.sleep(mins)
		l.expect("2h3m0s recovered pool max_pools #1")
		l.sleep(time.Hour)
		l.expect("2h8m0s suspect pool max_pools #2")
	})
}

// Pools without connections count from when they were opened, or had the last one.
// The reaper comes for them, and rests when there is nothing left to find.
func TestPoolsWithoutConnections(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.many(19, unusedPools(20), false)
		if l.running() {
			t.Error("the reaper is at work for less than max_pools")
		}
		l.sleep(10 * mins)
		pools, _ := l.many(1, unusedPools(20), false)
		if l.Tracker.mu.Lock(); !l.reaper.armed {
			t.Error("the reaper is at rest")
		}
		l.Tracker.mu.Unlock()
		l.until(15*mins - 1)
		l.expect()
		l.sleep(2 * mins)
		l.expect("15m0s suspect pool max_pools #1") // as far as it knows
		l.sleep(10 * mins)
		if l.Tracker.mu.Lock(); l.reaper.armed || l.crowded {
			t.Error("the reaper is at work")
		}
		l.Tracker.mu.Unlock()
		pools[0].Close()
		l.expect(fmt.Sprint(l.since(), " recovered pool max_pools #1"))
	})
	inBubble(t, func(l *lab) {
		_, conns := l.many(20, unusedPools(20), true)
		for range 10 {
			l.sleep(4 * mins)
			conns[0].touch()
		}
		conns[0].Close() // used since the last look
		for _, c := range conns[1:] {
			c.Close() // not used for long
		}
		l.until(45 * mins)
		l.expect()
		l.until(47 * mins)
		l.expect("46m0s suspect pool max_pools #1")
	})
	// A connection that comes and goes between two looks is a use.
	inBubble(t, func(l *lab) {
		pools, _ := l.many(20, unusedPools(20), false)
		for range 15 {
			l.sleep(4*mins + 10*sec)
			pools[7].Open(still{}, true, "").Close()
		}
		l.expect()
		l.sleep(10 * mins)
		l.expect("1h8m0s suspect pool max_pools #1")
	})
}

// What does not count.
func TestPoolsThatDoNotCount(t *testing.T) {
	for name, open := range map[string]func(l *lab){
		"too few": func(l *lab) { l.many(19, unusedPools(20), true) },
		"two places": func(l *lab) {
			for range 19 {
				p, err := l.NewPool(PoolConfig{Policy: unusedPools(20), Logger: quiet})
				if err != nil {
					l.t.Fatal(err)
				}
				q, err := l.NewPool(PoolConfig{Policy: unusedPools(20), Logger: quiet})
				if err != nil {
					l.t.Fatal(err)
				}
				l.open(p, false)
				l.open(q, false)
			}
		},
		"leased": func(l *lab) {
			_, conns := l.many(20, limits(func(p *Policy) { p.MaxPools, p.LeakAfter = 20, 5*mins }), true)
			conns[0].out("")
		},
		"busy": func(l *lab) {
			_, conns := l.many(20, unusedPools(20), true)
			conns[0].enter()
		},
		"closed": func(l *lab) {
			pools, _ := l.many(20, unusedPools(20), true)
			pools[0].Close()
		},
		"no call sites": func(l *lab) {
			for range 30 {
				l.open(newPool(l.t, l.Tracker, PoolConfig{Policy: unusedPools(20), Logger: quiet, NoStacks: true}), false)
			}
		},
		"mode basic": func(l *lab) {
			for range 30 {
				l.open(newPool(l.t, l.Tracker, PoolConfig{Mode: Basic, Policy: unusedPools(20), Logger: quiet}), false)
			}
		},
		"max_pools off":  func(l *lab) { l.many(30, unusedPools(0), true) },
		"leak_after off": func(l *lab) { l.many(30, limits(func(p *Policy) { p.MaxPools = 20 }), true) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				open(l)
				l.sleep(time.Hour)
				for _, e := range l.LeakHistory() {
					if e.Leak.Kind == KindPool {
						t.Errorf("%v", e.Leak)
					}
				}
				for _, f := range l.fakes {
					if f.Word().Load()&gate.Busy != 0 {
						f.leave()
					}
				}
			})
		})
	}
}

// Pools of one file are told for their file, at once, and not again for their place.
func TestPoolsOfOneFileAndPlace(t *testing.T) {
	inBubble(t, func(l *lab) {
		var pools []*Pool
		for i := range 25 {
			path := "/a.db"
			if i >= 10 {
				path = fmt.Sprint("/", i)
			}
			pools = append(pools, l.of(path, unusedPools(10)))
		}
		l.expect("0s suspect pool max_pools #1")
		l.sleep(10 * mins)
		l.expect("5m0s suspect pool max_pools #2")
		of := func(i int) *Leak { return l.LeakHistory()[i].Leak }
		if l := of(0); l.Count != 10 || l.OnePlace {
			t.Errorf("%v", l)
		}
		// The reaper may have come before the last of them were open.
		if l := of(1); l.Count < 10 || l.Count > 15 || !l.OnePlace {
			t.Errorf("%v", l)
		}
		pools[0].Close()
		l.expect("10m0s recovered pool max_pools #1")
	})
}

// The lowest of their limits counts, as it is now.
func TestUnusedPoolsLimits(t *testing.T) {
	inBubble(t, func(l *lab) {
		pools, _ := l.many(10, unusedPools(20), true)
		l.until(10 * mins)
		l.expect()
		if err := pools[3].SetPolicy(unusedPools(10)); err != nil {
			t.Fatal(err)
		}
		l.until(11 * mins)
		l.expect("10m0s suspect pool max_pools #1")
		if err := pools[3].SetPolicy(unusedPools(11)); err != nil {
			t.Fatal(err)
		}
		l.until(12 * mins)
		l.expect("11m0s recovered pool max_pools #1")
	})
}

// Pools of one line come and go at once, beside a reaper that looks.
func TestPoolsOfOnePlaceComeAndGo(t *testing.T) {
	tr := New(Options{History: 1 << 16})
	tr.reaper.patience = time.Millisecond
	policy := limits(func(p *Policy) { p.MaxPools, p.LeakAfter, p.CheckInterval = 4, time.Millisecond, time.Millisecond })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			var open []*Pool
			for j := range 200 {
				p, err := tr.NewPool(PoolConfig{Policy: policy, Logger: quiet})
				if err != nil {
					t.Error(err)
					return
				}
				if (i+j)%3 == 0 {
					p.Open(still{}, false, "").Close()
				}
				if open = append(open, p); len(open) > 3 {
					open[0].Close()
					open = open[1:]
				}
				if j%50 == 0 {
					time.Sleep(3 * time.Millisecond) // some are found
				}
			}
			for _, p := range open {
				p.Close()
			}
		})
	}
	wg.Wait()
	tr.Close()
	tr.mu.Lock()
	for _, at := range tr.places {
		if at.open != 0 || at.crowded || at.told.leak != nil || tr.crowded {
			t.Errorf("left: %+v, crowded %v", at, tr.crowded)
		}
	}
	tr.mu.Unlock()
	want := EventSuspect
	for _, e := range tr.LeakHistory() {
		if e.Type != want {
			t.Fatalf("%v, want %v", e.Type, want)
		}
		want = EventSuspect + EventRecovered - want
	}
	if want != EventSuspect {
		t.Error("a suspect is left")
	}
	s := tr.Stats()
	checkBalance(t, s, 0)
	t.Logf("%d suspects", s.LeakedDetected)
}
