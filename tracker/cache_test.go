package tracker

import (
	"testing"
	"time"
)

// cached is a fake whose program asked for a cache.
type cached struct {
	*fake
	size  int64
	asked int
	shy   bool // it cannot be asked
}

func (c *cached) CacheSize() (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	return c.size, !c.inside && !c.shut && !c.shy
}

func (c *cached) TxStateOf(string) TxState { return c.TxState() }

// as changes what it says.
func (c *cached) as(size int64, shy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size, c.shy = size, shy
}

func (c *cached) times() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// caching makes a fake one of those. The reaper is at rest, so nobody looks.
func (f *fake) caching(size int64) *cached {
	c := &cached{fake: f, size: size}
	f.l.Tracker.mu.Lock()
	defer f.l.Tracker.mu.Unlock()
	f.control = c
	return c
}

// The limits of memory are no less than the program's own cache and a quarter, and
// only who holds more than the policy allows is asked for it, when it has moved.
func TestLimitsOfMemoryAndCache(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.ConnMemory, p.LeakMemory = 100, 200 }))
		light := l.holding(p, true, 100, 0).caching(1000)
		full := l.holding(p, true, 1250, 1250).caching(1000)
		over := l.holding(p, true, 1251, 1251).caching(1000)
		small := l.holding(p, true, 150, 150).caching(10)
		plain := l.holding(p, true, 150, 150)
		asked := func(want ...int) {
			t.Helper()
			for i, c := range []*cached{light, full, over, small} {
				if n := c.times(); n != want[i] {
					t.Errorf("%s was asked %d times, want %d", c.ID(), n, want[i])
				}
			}
		}
		l.sleep(30 * time.Second)
		light.wantScopes()
		full.wantScopes()
		over.wantScopes("release conn_memory done", "give up conn_memory refreshed")
		small.wantScopes("release conn_memory done", "give up conn_memory refreshed")
		plain.wantScopes("release conn_memory done", "give up conn_memory refreshed")
		if e := l.typed(EventSuspect); len(e) != 1 || e[0].ConnectionID != over.ID() || e[0].Leak.LimitBytes != 1250 {
			t.Errorf("told %+v", e)
		}
		asked(0, 1, 1, 1)
		full.hold(1250)
		l.sleep(30 * time.Second)
		asked(0, 2, 1, 1)
		full.as(0, false) // the program gives it back
		full.touch()
		l.sleep(30 * time.Second)
		full.wantScopes("release conn_memory done", "give up conn_memory refreshed")
		asked(0, 3, 1, 1)
	})
}

// As long as the connection cannot be asked, it is left alone. What it said before
// holds on.
func TestCacheThatCannotBeAsked(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.ConnMemory, p.LeakMemory = 100, 200 }))
		f := l.holding(p, true, 1300, 1300).caching(1000)
		f.as(1000, true)
		l.sleep(time.Minute)
		f.wantScopes()
		l.expect()
		if r := f.in(); r != "" {
			t.Errorf("to be given up for %q", r)
		}
		f.out("")
		f.as(1000, false)
		l.sleep(30 * time.Second)
		f.wantScopes("release conn_memory done", "give up conn_memory refreshed")
		l.expect("1m30s suspect connection leak_memory #1", "1m30s refreshed conn_memory")
		f.as(1000, true)
		f.hold(1200)
		l.sleep(30 * time.Second)
		f.wantScopes()
		l.expect("2m0s recovered connection leak_memory #1")
	})
}

// A limit that is off stays off.
func TestCacheAndLimitsThatAreOff(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakMemory = 1 << 40 }))
		f := l.holding(p, true, 1300, 1300).caching(1000)
		l.sleep(time.Hour)
		f.wantScopes()
		if n := f.times(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
}
