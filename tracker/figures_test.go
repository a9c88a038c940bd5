package tracker

import (
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"
)

// TestFigures counts by pool, kind and reason.
func TestFigures(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter = 2 * time.Minute }))
		other := newPool(t, l.Tracker, PoolConfig{Name: "a", Logger: quiet})
		f := l.open(p, false)
		l.open(p, false)
		f.out("")
		f.begin("BEGIN", "")
		l.sleep(time.Second)
		f.query("SELECT 1", "")
		f.query("SELECT 2", "")
		f.prepare("SELECT 3")
		l.sleep(time.Second)
		want := []PoolFigures{{Pool: "a"}, {
			Pool: "db", Idle: 1, Leased: 1,
			Transactions: Openings{1, 2 * time.Second},
			Rows:         Openings{2, time.Second},
			Statements:   Openings{1, time.Second},
		}}
		if got := l.Figures(); !reflect.DeepEqual(got.Pools, want) {
			t.Errorf("figures %+v,\nwant %+v", got.Pools, want)
		}
		other.Close()

		l.sleep(10 * time.Minute) // reaped
		f.in()
		f.Recycled(ReasonMaxAccess)
		f.Recycled(ReasonMaxAccess)
		got := l.Figures()
		if len(got.Pools) != 1 {
			t.Fatalf("%d pools are left", len(got.Pools))
		}
		var leaks []string
		for _, n := range got.Pools[0].Leaks {
			leaks = append(leaks, fmt.Sprintf("%v %s %d %d %d", n.Kind, n.Reason, n.Found, n.Reaped, n.Recovered))
		}
		wantLeaks := []string{"transaction leak_after 1 1 0", "rows leak_after 2 2 0"}
		if !reflect.DeepEqual(leaks, wantLeaks) {
			t.Errorf("leaks %q, want %q", leaks, wantLeaks)
		}
		if want := []RecycleCount{{ReasonMaxAccess, 2}}; !reflect.DeepEqual(got.Pools[0].Recycled, want) {
			t.Errorf("recycled %v, want %v", got.Pools[0].Recycled, want)
		}
		s := l.Stats()
		var found, reaped uint64
		for _, n := range got.Pools[0].Leaks {
			found, reaped = found+n.Found, reaped+n.Reaped
		}
		if found != s.LeakedDetected || reaped != s.Reaped {
			t.Errorf("figures count %d found and %d reaped, Stats %d and %d", found, reaped, s.LeakedDetected, s.Reaped)
		}
	})
}

// TestTallyIsBounded: a detector that makes reasons up fills no memory.
func TestTallyIsBounded(t *testing.T) {
	var y tally
	const n = 1000
	for i := range n {
		y.leak(EventSuspect, &Leak{Kind: Kind(i % 4), Reason: Reason(fmt.Sprint(i))}, true)
	}
	var f PoolFigures
	y.figures(&f)
	var sum, others uint64
	for _, l := range f.Leaks {
		sum += l.Found
		if l.Reason == reasonOther {
			others += l.Found
		}
	}
	if sum != n || others != n-tallied || len(f.Leaks) > tallied+4 {
		t.Errorf("%d counts of %d leaks, %d of them other", len(f.Leaks), sum, others)
	}
}

// TestSubscribeLifecycle hears of opening and closing, and makes leases tell
// nothing.
func TestSubscribeLifecycle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		var all, some box[[]EventType]
		hear := func(b *box[[]EventType]) func(Event) {
			return func(e Event) { b.set(append(b.get(), e.Type)) }
		}
		defer tr.SubscribeLifecycle(hear(&some))()
		p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
		lease := func() {
			c := p.Open(still{}, true, "")
			c.CheckIn()
			c.Close()
			synctest.Wait()
		}
		if tr.leaseEvents.Load() {
			t.Error("leases tell for nobody")
		}
		lease()
		cancel := tr.Subscribe(hear(&all))
		lease()
		cancel()
		if tr.leaseEvents.Load() {
			t.Error("leases go on telling")
		}
		want := []EventType{EventOpened, EventClosed, EventOpened, EventClosed}
		if got := some.get(); !reflect.DeepEqual(got, want) {
			t.Errorf("lifecycle: %v, want %v", got, want)
		}
		want = []EventType{EventOpened, EventCheckOut, EventCheckIn, EventClosed}
		if got := all.get(); !reflect.DeepEqual(got, want) {
			t.Errorf("all: %v, want %v", got, want)
		}
	})
}

// BenchmarkFigures reads a thousand connections, each with a transaction, rows
// and ten statements.
func BenchmarkFigures(b *testing.B) {
	tr := New(Options{})
	for i := range 10 {
		p := newPool(b, tr, PoolConfig{Name: fmt.Sprint("db", i), Mode: Basic, Logger: quiet})
		for range 100 {
			c := p.Open(still{}, true, "")
			defer c.Close()
			c.BeginTx("BEGIN", "")
			c.OpenRows(new(Resource), "SELECT 1", "")
			for range 10 {
				c.OpenStatement(new(Resource), "SELECT 1", "")
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		tr.Figures()
	}
}
