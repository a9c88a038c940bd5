package tracker

import (
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stuck is an order's way that does not end before it is told to.
func stuck(goOn <-chan struct{}, begun *atomic.Int64) func(*Order) Outcome {
	return func(*Order) Outcome {
		begun.Add(1)
		<-goOn
		return Done
	}
}

// A ROLLBACK that does not come back, or a hook of the program in it, delays
// nobody: what another pool forgets is found and undone at its time, and that
// pool closes.
func TestSlowOrderDelaysNobody(t *testing.T) {
	inBubble(t, func(l *lab) {
		slow, other := l.pool(Enforce, leakAfter(5*mins)), l.pool(Enforce, leakAfter(20*mins))
		goOn := make(chan struct{})
		var begun atomic.Int64
		s, o := l.open(slow, true), l.open(other, true)
		s.query("SELECT slow", "")
		s.carry(stuck(goOn, &begun))
		o.query("SELECT other", "")
		l.until(7 * mins)
		l.expect("6m0s suspect rows leak_after #1")
		if begun.Load() != 1 {
			t.Fatalf("%d orders have begun, want 1", begun.Load())
		}
		l.until(23 * mins)
		l.expect("21m0s suspect rows leak_after #2", "22m0s reaped rows leak_after #2")
		o.expectOrders("22m0s lease leak_after #2 done")
		o.Close()
		other.Close()

		// A pool that comes meanwhile, too.
		third := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(third, true)
		f.query("SELECT third", "")
		l.until(30 * mins)
		l.expect("29m0s suspect rows leak_after #3", "30m0s reaped rows leak_after #3")
		f.Close()
		third.Close()

		if begun.Load() != 1 {
			t.Errorf("%d orders for the slow one, want no second beside the first", begun.Load())
		}
		close(goOn)
		synctest.Wait()
		l.expect("30m0s reaped rows leak_after #1")
		s.expectOrders("30m0s lease leak_after #1 done")
	})
}

// The orders for one connection come one after the other. What else is due for
// it waits, and is looked at as soon as they are over.
func TestOrdersOfOneConnectionInTurn(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.query("SELECT 1", "")
		goOn := make(chan struct{})
		var inside, most atomic.Int64
		var scopes []Scope // guarded by inside being 1
		f.carry(func(o *Order) Outcome {
			most.Store(max(most.Load(), inside.Add(1)))
			defer inside.Add(-1)
			scopes = append(scopes, o.Scope)
			<-goOn
			return Done
		})
		l.until(6*mins + 30*sec)
		f.pending.Store(true) // found together with the lease
		l.until(7*mins + sec)
		f.Pending() // comes while the first order is carried out
		l.until(20 * mins)
		if !slices.Equal(scopes, []Scope{ScopeProven}) {
			t.Errorf("orders so far: %v", scopes)
		}
		for range 2 {
			goOn <- struct{}{}
			synctest.Wait()
		}
		defer close(goOn)
		if !slices.Equal(scopes, []Scope{ScopeProven, ScopeLease, ScopeProven}) {
			t.Errorf("orders: %v, want proven, lease, and proven again at once", scopes)
		}
		if most.Load() != 1 {
			t.Errorf("%d orders at the same time", most.Load())
		}
	})
}

// A detector names a connection while an order for it is carried out: the order
// that follows from it does not come beside the first.
func TestDetectorBesideAnOrder(t *testing.T) {
	inBubble(t, func(l *lab) {
		defer l.AddDetector(func(Record) Reason { return "named" })()
		f := l.open(l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter = time.Hour })), true)
		f.query("SELECT 1", "")
		goOn := make(chan struct{})
		var begun atomic.Int64
		f.carry(stuck(goOn, &begun))
		l.sleep(mins) // a suspect, and to be undone at the next look
		f.pending.Store(true)
		l.sleep(mins + sec)
		if n := begun.Load(); n != 1 {
			t.Errorf("%d orders have begun, want 1", n)
		}
		close(goOn)
		l.sleep(3 * mins)
		var scopes []Scope
		for _, o := range f.given() {
			scopes = append(scopes, o.o.Scope)
		}
		if !slices.Contains(scopes, ScopeLease) {
			t.Errorf("orders: %v, want the lease among them", scopes)
		}
	})
}

// More is found at once than is carried out at the same time, and all of it is
// stuck: the rest comes as soon as there is room, is looked at meanwhile, and
// nothing turns.
func TestFullHouse(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.MaxIdle = 5*mins, 6*mins }))
		goOn := make(chan struct{})
		var begun atomic.Int64
		const more = 6
		var last *fake
		var rows *Resource
		for range maxCarriers + more {
			last = l.open(p, true)
			rows = last.query("SELECT 1", "")
			last.carry(stuck(goOn, &begun))
		}
		idle := l.open(p, true)
		idle.in()
		idle.carry(stuck(goOn, &begun))
		l.poke() // and all are seen at the same time
		expect := func(when string, want int64) {
			t.Helper()
			synctest.Wait()
			if n := begun.Load(); n != want {
				t.Errorf("%s: %d orders have begun, want %d", when, n, want)
			}
		}
		l.until(6*mins + sec)
		expect("full", maxCarriers)
		goOn <- struct{}{}
		expect("one through", maxCarriers+1)
		l.until(2 * time.Hour)
		expect("all stuck", maxCarriers+1)
		if n := l.Stats().Reaped; n != 1 {
			t.Errorf("%d are called reaped, want 1", n)
		}

		l.told()
		last.next(rows) // no leak, as it turns out
		l.until(2*time.Hour + mins)
		if told := l.told(); len(told) != 1 {
			t.Errorf("told %q, want that one has recovered", told)
		}

		l.sleep(sec)
		began := l.since()
		close(goOn)
		l.sleep(maxCarriers * stuckAfter)
		expect("all through", maxCarriers+more-1+1) // and one was idle
		if n := l.Stats().Reaped; n != maxCarriers+more-1 {
			t.Errorf("%d are reaped, want %d", n, maxCarriers+more-1)
		}
		idle.expectOrders(began.String() + " give up max_idle done")
	})
}

// Orders that take a little while are carried out by one, in the order in which
// they were found: who waits for the disk gains nothing from company.
func TestOrdersInTurn(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		var inside, most atomic.Int64
		var got, want []string
		for range 3 * maxCarriers {
			f := l.open(p, true)
			f.query("SELECT 1", "")
			want = append(want, f.ID())
			f.carry(func(*Order) Outcome {
				most.Store(max(most.Load(), inside.Add(1)))
				defer inside.Add(-1)
				got = append(got, f.ID())
				time.Sleep(stuckAfter / 4)
				return Done
			})
		}
		l.until(8 * mins)
		if most.Load() != 1 {
			t.Errorf("%d orders at the same time", most.Load())
		}
		if !slices.Equal(got, want) {
			t.Errorf("the orders came to %v, want %v", got, want)
		}
	})
}

// A carrier ends with somebody's code: what is queued behind it is carried out
// all the same.
func TestCarrierEnds(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f, next := l.open(p, true), l.open(p, true)
		f.query("SELECT 1", "")
		next.query("SELECT 2", "")
		f.carry(func(*Order) Outcome {
			runtime.Goexit()
			return Void
		})
		l.until(7*mins + sec)
		next.expectOrders("7m0.01s lease leak_after #2 done")
	})
}

// A burst of orders that take no time is through at once.
func TestManyOrders(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = 5 * mins }))
		const n = 20 * maxCarriers
		for range n {
			f := l.open(p, true)
			f.in()
		}
		l.until(6*mins + sec)
		if s := l.Stats(); s.Recycled != n {
			t.Errorf("%d are closed, want %d", s.Recycled, n)
		}
	})
}

// While thousands of orders are carried out, the reaper does not look at everything
// again after each of them.
func TestManyOrdersFewLooks(t *testing.T) {
	inBubble(t, func(l *lab) {
		var looks atomic.Int64
		step := l.reaper.step
		l.reaper.step = func() time.Duration { looks.Add(1); return step() }
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle, p.CheckInterval = 5*mins, 100*time.Millisecond }))
		const n = 2000
		for range n {
			f := l.open(p, true)
			f.in()
			f.carry(func(*Order) Outcome {
				time.Sleep(time.Millisecond)
				return Done
			})
		}
		l.poke()
		l.until(5*mins - sec)
		looks.Store(0)
		l.until(5*mins + 5*sec)
		if l.fakes[0].given() == nil {
			t.Error("nothing was ordered")
		}
		if got := looks.Load(); got > 70 { // each check_interval, and once more
			t.Errorf("%d looks in six seconds", got)
		}
	})
}

// Close waits for orders that are being carried out.
func TestCloseWaitsForOrders(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.query("SELECT 1", "")
		goOn := make(chan struct{})
		var begun atomic.Int64
		f.carry(stuck(goOn, &begun))
		l.until(7*mins + sec)
		if begun.Load() != 1 {
			t.Fatal("no order is under way")
		}
		f.Close() // a driver would wait here
		closed := make(chan struct{})
		go func() { p.Close(); close(closed) }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the order")
		default:
		}
		close(goOn)
		<-closed
	})
}

// An operation that is condemned by an order on a goroutine of its own is
// interrupted again at once, not at the next look.
func TestCondemnedIsNudgedSoon(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, limits(func(p *Policy) { p.TxLimit = 5 * mins })), true)
		f.begin("BEGIN", "")
		f.enter()
		l.until(6*mins + 10*nudgeInterval)
		f.expectOrders("6m0s transaction tx_limit #1 condemned")
		f.mu.Lock()
		nudges := len(f.nudges)
		f.mu.Unlock()
		if nudges < 5 {
			t.Errorf("%d nudges within %v", nudges, 10*nudgeInterval)
		}
		f.leave()
	})
}
