package tracker

import (
	"fmt"
	"os"
	"path/filepath"
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
		if want := []ReasonCount{{ReasonMaxAccess, 2}}; !reflect.DeepEqual(got.Pools[0].Recycled, want) {
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

// TestFiguresOfMemoryAndWAL: a file's log counts once, connections' memory for
// each pool, SQLite's once.
func TestFiguresOfMemoryAndWAL(t *testing.T) {
	inBubble(t, func(l *lab) {
		file := filepath.Join(t.TempDir(), "db")
		if err := os.WriteFile(file+"-wal", make([]byte, 5000), 0o600); err != nil {
			t.Fatal(err)
		}
		var memory box[Memory]
		memory.set(Memory{Total: 100, UsedPercent: 90, SQLite: 7000})
		l.SetMemorySource(memory.get)
		policy := limits(func(p *Policy) { p.Pressure = 0.8 })
		for i, name := range []string{"old", "new"} {
			p := newPool(t, l.Tracker, PoolConfig{Name: name, Mode: Observe, Policy: policy, Logger: quiet})
			for range 2 {
				f := &fake{l: l, bytes: int64(1000 * (i + 1))}
				f.mu.Lock()
				f.Conn = p.New(false, "")
				f.OpenedFile(File{Path: file})
				f.Register(f)
				f.mu.Unlock()
				l.fakes = append(l.fakes, f)
			}
			time.Sleep(time.Second)
		}
		l.fakes[0].Blocked(ReasonBusy, false)
		l.fakes[0].Blocked(ReasonBusy, false)
		l.fakes[1].Blocked(ReasonLocked, false)
		l.fakes[3].out("")
		l.fakes[3].ForceClosed()
		l.sleep(2 * time.Minute)
		got := l.Figures()
		want := Figures{SQLiteMemory: 7000, MemoryPressure: true, PressureEvents: 1, Pools: []PoolFigures{
			{Pool: "new", Idle: 1, Leased: 1, Memory: 2000, ForceClosed: 1, Lost: 1},
			{Pool: "old", Idle: 2, Memory: 2000, WAL: 5000, Blocked: []ReasonCount{{ReasonBusy, 2}, {ReasonLocked, 1}}},
		}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("figures %+v,\nwant %+v", got, want)
		}
		if n := l.Stats().WALBytes; n != 5000 {
			t.Errorf("Stats: %d bytes of WAL", n)
		}
		memory.set(Memory{Total: 100, UsedPercent: 10})
		l.sleep(2 * time.Minute)
		if got := l.Figures(); got.MemoryPressure || got.PressureEvents != 1 {
			t.Errorf("after the pressure: %+v", got)
		}
		for _, f := range l.fakes[:2] {
			f.Close()
		}
		l.fakes = l.fakes[2:]
		if got := l.Figures().Pools; got[0].WAL != 5000 || got[1].WAL != 0 || got[1].Memory != 0 {
			t.Errorf("with the new pool alone: %+v", got)
		}
		memory.set(Memory{Total: 100, UsedPercent: 90})
		l.sleep(2 * time.Minute)
		if got := l.Figures(); !got.MemoryPressure || got.PressureEvents != 2 {
			t.Errorf("under pressure again: %+v", got)
		}
		for _, f := range l.fakes {
			f.Close()
		}
		if l.Figures().MemoryPressure {
			t.Error("there is pressure where nobody looks")
		}
	})
}

// TestFiguresOfPools: too many pools of a file are a leak of one of them, which
// counts its end as well.
func TestFiguresOfPools(t *testing.T) {
	inBubble(t, func(l *lab) {
		open := func() *Pool {
			return newPool(t, l.Tracker, PoolConfig{Mode: Basic, Path: "/db", Logger: quiet, Policy: limits(func(p *Policy) { p.MaxPools = 3 })})
		}
		pools := []*Pool{open(), open(), open(), open()}
		count := func() (found, recovered uint64) {
			for _, p := range l.Figures().Pools {
				for _, n := range p.Leaks {
					if n.Kind != KindPool || n.Reason != ReasonMaxPools {
						t.Errorf("a leak of kind %v: %s", n.Kind, n.Reason)
					}
					found, recovered = found+n.Found, recovered+n.Recovered
				}
			}
			return found, recovered
		}
		if found, recovered := count(); found != 1 || recovered != 0 {
			t.Errorf("%d found, %d recovered", found, recovered)
		}
		suspect := l.History()[0]
		if suspect.Pool != suspect.Leak.Pool {
			t.Errorf("the event is of pool %s, the leak of %s", suspect.Pool, suspect.Leak.Pool)
		}
		left := 2
		for _, p := range pools {
			if p.Name() != suspect.Pool && left > 0 {
				p.Close()
				left--
			}
		}
		if found, recovered := count(); found != 1 || recovered != 1 {
			t.Errorf("after closing, %d found, %d recovered", found, recovered)
		}
		for _, p := range pools {
			p.Close()
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
