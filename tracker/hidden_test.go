package tracker

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wrapped opens a connection that database/sql reaches through a wrapper around the
// driver, with a lease whose end it may not hear of.
func (l *lab) wrapped(p *Pool) *fake {
	f := &fake{l: l, owned: owned{p.New(true, "")}}
	f.Wrapped()
	l.fakes = append(l.fakes, f)
	f.Register(f)
	synctest.Wait()
	return f
}

const hidesCheckIns = "check-ins, which a wrapper around the driver hides: leases that hold nothing are not judged"

// Where nobody says that a lease is over, one that holds nothing is no suspect: it
// may sit in the pool. Stats says so when it matters, and until a check-in is seen.
func TestHiddenCheckIns(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f, other := l.wrapped(p), l.wrapped(newPool(t, l.Tracker, PoolConfig{Name: "other", Policy: limits(nil), Logger: quiet}))
		l.sleep(10 * sec)
		f.touch()
		l.until(6*mins - 1)
		if missing := p.Stats().Missing; len(missing) != 0 {
			t.Errorf("missing %q before anything was to be judged", missing)
		}
		l.until(24 * time.Hour)
		l.expect()
		f.expectOrders()
		if s := p.Stats(); !slices.Equal(s.Missing, []string{hidesCheckIns}) || s.LeakDetection.PotentiallyLeakedCount != 0 {
			t.Errorf("%+v", s)
		}
		if missing := other.Pool().Stats().Missing; len(missing) != 0 {
			t.Errorf("the other pool misses %q", missing)
		}
		f.SawCheckIn() // of another connection: now the end of this lease would have been told
		l.sleep(2 * mins)
		got := l.told()
		if len(got) != 1 || !strings.HasSuffix(got[0], "suspect connection leak_after #1") {
			t.Errorf("told %q", got)
		}
		f.wantScopes("release leak_after done")
	})
}

// Nor is it one for its memory, which a connection in the pool may keep.
func TestHiddenCheckInsAndMemory(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakMemory = 1 << 20 }))
		light, f := l.wrapped(p), l.wrapped(p)
		light.touch()
		l.sleep(30 * sec)
		if missing := p.Stats().Missing; len(missing) != 0 {
			t.Errorf("missing %q before anything was to be judged", missing)
		}
		f.hold(2 << 20)
		l.sleep(mins)
		l.expect()
		if missing := p.Stats().Missing; !slices.Equal(missing, []string{hidesCheckIns}) {
			t.Errorf("missing %q", missing)
		}
		r := f.query("SELECT 1", "")
		l.sleep(mins)
		l.expect("2m0s suspect connection leak_memory #1")
		f.finish(r)
		l.sleep(mins)
		l.expect("3m0s recovered connection leak_memory #1")
		f.SawCheckIn()
		l.sleep(mins)
		l.expect("4m0s suspect connection leak_memory #2")
	})
}

// What a lease holds is not hidden.
func TestHiddenCheckInsHideNoLeak(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout, p.MaxStatements = 5*mins, 10*mins, 2 }))
		rows, tx, working, stmts := l.wrapped(p), l.wrapped(p), l.wrapped(p), l.wrapped(p)
		plain := l.open(p, true)
		l.sleep(10 * sec)
		rows.query("SELECT 1", "")
		tx.begin("BEGIN", "")
		working.begin("BEGIN", "")
		stmts.prepare("SELECT 2")
		stmts.prepare("SELECT 2")
		plain.touch()
		working.work(11 * mins)
		got := l.told()
		slices.Sort(got)
		want := []string{
			"11m0s suspect transaction tx_timeout #5",
			"1m0s suspect statement max_statements #1",
			"6m0s suspect connection leak_after #4",
			"6m0s suspect rows leak_after #2",
			"6m0s suspect transaction leak_after #3",
			"7m0s reaped rows leak_after #2",
			"7m0s reaped transaction leak_after #3",
		}
		if !slices.Equal(got, want) {
			t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
		rows.expectOrders("7m0s lease leak_after #2 done")
		tx.expectOrders("7m0s lease leak_after #3 done")
		stmts.expectOrders()
		plain.expectOrders("6m0s release leak_after done")
		working.commit()
	})
}

// Under -race: a detector that names such a lease, beside reports.
func TestHiddenCheckInsNamedByDetector(t *testing.T) {
	for range 50 {
		tr := New(Options{})
		tr.reaper.patience = time.Hour // it looks when the test says so
		p := newPool(t, tr, PoolConfig{Policy: limits(nil), Logger: quiet})
		tr.AddDetector(func(Record) Reason { return "mine" })
		c := p.New(true, "")
		c.Wrapped()
		c.Register(still{})
		var over atomic.Bool
		var reports sync.WaitGroup
		begun := make(chan bool)
		reports.Go(func() {
			for p.Stats(); !over.Load(); p.Stats() {
				select {
				case begun <- true:
				default:
				}
			}
		})
		<-begun
		tr.reaper.look()
		over.Store(true)
		reports.Wait()
		if missing := p.Stats().Missing; !slices.Equal(missing, []string{hidesCheckIns}) {
			t.Fatalf("missing %q", missing)
		}
		c.Close()
		p.Close()
		tr.Close()
	}
}

// A hidden connection is leased for good, as far as anybody knows: it is nobody's
// neighbour in the pool, and is refreshed in its time.
func TestHiddenConnectionIsOnlyRefreshed(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.machine(90)
		p := l.pool(Enforce, pressed(func(p *Policy) { p.MaxIdle, p.MaxLifetime = 5*mins, 30*mins }))
		f, idle := l.wrapped(p), l.open(p, true)
		f.live(0)
		idle.in()
		if idle.Leave() {
			t.Error("it may leave beside one of which nobody knows where it is")
		}
		l.until(2 * time.Hour)
		f.expectOrders("30s release pressure done", "30m0s give up max_lifetime refreshed")
	})
}
