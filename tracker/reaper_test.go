package tracker

import (
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

const (
	sec  = time.Second
	mins = time.Minute
)

// In all these tests the reaper first sees a connection when lab.open returns.
// With limits of some minutes it looks once a minute, so what is done ten
// seconds later it notices at 1m0s.

func leakAfter(d time.Duration) Policy { return limits(func(p *Policy) { p.LeakAfter = d }) }

func TestRowsSuspectThenReaped(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		l.sleep(10 * sec)
		r := f.query("SELECT 1", "")
		word := f.Word().Load()
		l.until(6*mins - 1)
		l.expect()
		l.until(6 * mins)
		l.expect("6m0s suspect rows leak_after #1")
		f.expectOrders()
		if s := p.Stats(); s.LeakDetection.PotentiallyLeakedCount != 1 || s.LeakedDetected != 1 || !s.ActiveConnectionDetails[0].PotentiallyLeaked {
			t.Errorf("suspect not in %+v", s)
		}
		l.until(7*mins - 1)
		l.expect()
		l.until(7 * mins)
		l.expect("7m0s reaped rows leak_after #1")
		orders := f.given()
		if len(orders) != 1 || orders[0].String() != "7m0s lease leak_after #1 done" || orders[0].o.Word != word || orders[0].o.Resource != 0 {
			t.Errorf("ordered %v with word %#x, want the lease with %#x", orders, orders[0].o.Word, word)
		}
		if !f.closed(r) {
			t.Error("the rows are open")
		}
		leak := orders[0].o.Leaks[0]
		if leak.Limit != 5*mins || leak.Idle != 5*mins || leak.Age != 6*mins-10*sec || leak.Query != "SELECT 1" ||
			leak.ConnectionID != f.ID() || leak.Pool != "db" || !leak.OpenedAt.Equal(l.start.Add(10*sec)) || leak.Level != 0 {
			t.Errorf("leak %+v", leak)
		}
		// The lease stays out: what was found in it covers it.
		l.until(2 * time.Hour)
		l.expect()
		f.expectOrders()
		checkBalance(t, p.Stats(), 0)
		if s := p.Stats(); s.Reaped != 1 || s.LeakDetection.PotentiallyLeakedCount != 0 {
			t.Errorf("%+v", s)
		}
	})
}

func TestTransactionSuspectThenReaped(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
		f.begin("BEGIN", "")
		l.until(6 * mins)
		l.expect("6m0s suspect transaction leak_after #1")
		l.until(time.Hour)
		l.expect("7m0s reaped transaction leak_after #1")
		f.expectOrders("7m0s lease leak_after #1 done")
	})
}

// A lease's order carries all that it undoes: its rows and its transaction.
func TestLeaseOrderCarriesAllLeaks(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
		f.begin("BEGIN", "")
		f.SetLevel(2)
		f.query("SELECT 1", "")
		f.query("SELECT 2", "")
		f.prepare("SELECT 3")
		l.until(6 * mins)
		l.expect("6m0s suspect rows leak_after #1", "6m0s suspect rows leak_after #2", "6m0s suspect transaction leak_after #3")
		l.until(time.Hour)
		l.expect("7m0s reaped rows leak_after #1", "7m0s reaped rows leak_after #2", "7m0s reaped transaction leak_after #3")
		orders := f.given()
		if len(orders) != 1 || orders[0].o.Scope != ScopeLease || len(orders[0].o.Leaks) != 3 {
			t.Fatalf("ordered %v", orders)
		}
		for i, want := range []struct {
			query    string
			resource uint64
			level    int
		}{{"SELECT 2", 4, 0}, {"SELECT 1", 3, 0}, {"SELECT 2", 2, 2}} {
			if l := orders[0].o.Leaks[i]; l.Query != want.query || l.Resource != want.resource || l.Level != want.level {
				t.Errorf("leak %d: %+v, want %+v", i, l, want)
			}
		}
	})
}

// The check that makes a suspect never reaps it, even if it is made twice.
func TestNotReapedAtOnce(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f, g := l.open(p, true), l.open(p, true)
		f.begin("BEGIN", "")
		f.query("SELECT 1", "")
		g.query("SELECT 2", "")
		for l.since() < 5*mins+30*sec {
			l.sleep(30 * sec)
			g.touch()
		}
		l.until(6 * mins)
		l.expect("6m0s suspect rows leak_after #1", "6m0s suspect transaction leak_after #2", "6m0s suspect rows leak_after #3")
		g.touch()
		for range 3 {
			if err := p.SetPolicy(p.Policy()); err != nil { // has all looked at
				t.Fatal(err)
			}
			synctest.Wait()
		}
		f.expectOrders()
		g.expectOrders()
		l.expect()
	})
}

// Nor does a second criterion at the same check.
func TestNotReapedByTwoReasons(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		l.AddDetector(func(r Record) Reason {
			if r.OpenRows > 0 && l.since() >= 6*mins {
				return "mine"
			}
			return ""
		})
		f := l.open(p, true)
		f.query("SELECT 1", "")
		for l.since() < 5*mins+30*sec {
			l.sleep(30 * sec)
			f.touch()
		}
		l.until(6 * mins)
		l.expect("6m0s suspect rows leak_after #1")
		f.expectOrders()
	})
}

// Rows that are suspects already do not take new ones along unasked.
func TestLeaseReapedWhenAllAreConfirmed(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.query("SELECT 1", "")
		read := f.query("SELECT 2", "")
		for l.since() < 5*mins+30*sec {
			l.sleep(30 * sec)
			f.next(read)
		}
		l.until(6 * mins)
		l.expect("6m0s suspect rows leak_after #1") // and nothing moves any more
		l.until(11 * mins)
		l.expect("11m0s suspect rows leak_after #2")
		f.expectOrders()
		l.until(12 * mins)
		l.expect("12m0s reaped rows leak_after #2", "12m0s reaped rows leak_after #1")
	})
}

// Rows that became suspects while their connection moved, and could not be
// undone then, are undone with their lease once that rests.
func TestSuspectRowsWhenLeaseRests(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.query("SELECT 1", "")
		for l.since() < 5*mins+30*sec {
			l.sleep(30 * sec)
			f.touch()
		}
		l.until(6*mins + 30*sec)
		l.expect("6m0s suspect rows leak_after #1")
		f.touch()
		f.shutGate(true) // when the reaper looks, somebody is inside
		l.until(7*mins + 30*sec)
		f.shutGate(false) // and nothing moves any more
		l.until(time.Hour)
		got := l.told()
		if len(got) != 1 || !strings.HasSuffix(got[0], " reaped rows leak_after #1") {
			t.Errorf("told %q", got)
		}
		checkBalance(t, p.Stats(), 0)
	})
}

// A suspect recovers by itself, once, in each of the ways it can.
func TestSuspectRecovers(t *testing.T) {
	for _, c := range []struct {
		name string
		how  func(f *fake, r *Resource)
	}{
		{"close", func(f *fake, r *Resource) { f.finish(r) }},
		{"next", func(f *fake, r *Resource) { f.next(r) }},
		{"connection closed", func(f *fake, r *Resource) { f.finish(r); f.in(); f.Close() }},
	} {
		t.Run("rows/"+c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, leakAfter(5*mins))
				f := l.open(p, true)
				r := f.query("SELECT 1", "")
				l.until(6*mins + 1)
				l.expect("6m0s suspect rows leak_after #1")
				c.how(f, r)
				l.until(7*mins + 1)
				f.expectOrders()
				if got := l.told(); len(got) != 1 || !strings.HasSuffix(got[0], " recovered rows leak_after #1") {
					t.Errorf("told %q", got)
				}
				if s := p.Stats(); s.Recovered != 1 || s.LeakDetection.PotentiallyLeakedCount != 0 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
	for _, c := range []struct {
		name string
		how  func(f *fake)
	}{
		{"commit", func(f *fake) { f.commit() }},
		{"any activity", func(f *fake) { f.touch() }},
		{"connection closed", func(f *fake) { f.Close() }},
	} {
		t.Run("transaction/"+c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, leakAfter(5*mins))
				f := l.open(p, true)
				f.begin("BEGIN", "")
				l.until(6*mins + 1)
				l.expect("6m0s suspect transaction leak_after #1")
				c.how(f)
				l.until(7*mins + 1)
				f.expectOrders()
				if got := l.told(); len(got) != 1 || !strings.HasSuffix(got[0], " recovered transaction leak_after #1") {
					t.Errorf("told %q", got)
				}
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
	for _, c := range []struct {
		name string
		how  func(f *fake)
	}{
		{"check-in", func(f *fake) { f.in() }},
		{"any activity", func(f *fake) { f.touch() }},
		{"connection closed", func(f *fake) { f.Close() }},
	} {
		t.Run("lease/"+c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, leakAfter(5*mins))
				f := l.open(p, true)
				l.until(5*mins + 1)
				l.expect("5m0s suspect connection leak_after #1")
				f.expectOrders("5m0s release leak_after done")
				c.how(f)
				l.until(6*mins + 1)
				f.expectOrders()
				if got := l.told(); len(got) != 1 || !strings.HasSuffix(got[0], " recovered connection leak_after #1") {
					t.Errorf("told %q", got)
				}
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
}

// A suspect that works again is none any more, while it works and not only
// once it is through: the operation may take an hour.
func TestSuspectRecoversWhileBusy(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(6*mins + 1)
		l.expect("6m0s suspect transaction leak_after #1")
		f.enter()
		l.until(time.Hour)
		l.expect("7m0s recovered transaction leak_after #1")
		if n := p.Stats().LeakDetection.PotentiallyLeakedCount; n != 0 {
			t.Errorf("%d potentially leaked while it works", n)
		}
		f.leave()
		f.expectOrders()
	})
}

// A lease that holds nothing but the connection is reported once, its memory
// is released once, and it is left alone.
func TestEmptyLeaseIsLeftAlone(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.do(func() { f.Executing("UPDATE t SET x = 1") })
		l.until(24 * time.Hour)
		l.expect("6m0s suspect connection leak_after #1")
		orders := f.given()
		if len(orders) != 1 || orders[0].String() != "6m0s release leak_after done" || orders[0].o.Word != f.Word().Load()&^gate.Flags {
			t.Errorf("ordered %v", orders)
		}
		if r := p.Records()[0]; !r.Suspect {
			t.Error("no suspect any more")
		}
		if e := l.History()[1]; e.Type != EventSuspect || e.Leak.Query != "UPDATE t SET x = 1" {
			t.Errorf("%+v", e.Leak)
		}
		// The next lease is another one.
		f.in()
		f.out("")
		l.until(25 * time.Hour)
		if got := l.told(); len(got) != 2 || !strings.HasSuffix(got[1], "suspect connection leak_after #2") {
			t.Errorf("told %q", got)
		}
		checkBalance(t, p.Stats(), 1)
	})
}

// Old is not idle: activity of any kind keeps a lease from being a suspect, and
// a statement that runs is activity for as long as it runs.
func TestActivityIsNotIdle(t *testing.T) {
	for name, work := range map[string]func(f *fake, r *Resource){
		"rows":      func(f *fake, r *Resource) { f.next(r) },
		"statement": func(f *fake, r *Resource) { f.touch(); f.next(r) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
				r := f.query("SELECT 1", "")
				f.begin("BEGIN", "")
				for range 100 {
					l.sleep(4 * mins)
					work(f, r)
				}
				l.expect()
				f.expectOrders()
			})
		})
	}
	t.Run("running", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.AddDetector(func(r Record) Reason {
				if r.Busy && r.Idle != 0 {
					t.Errorf("busy and idle for %v", r.Idle)
				}
				return ""
			})
			f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
			f.begin("BEGIN", "")
			f.enter()
			l.until(24*time.Hour + 10*sec)
			f.leave()
			l.until(24*time.Hour + 6*mins - 1)
			l.expect()
			f.expectOrders()
			l.until(24*time.Hour + 6*mins)
			l.expect("24h6m0s suspect transaction leak_after #1")
		})
	})
}

// Stats reads the activity word too; what it sees first the reaper must still
// take for activity.
func TestStatsHidesNoActivity(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		for range 300 {
			l.sleep(10 * sec)
			f.touch()
			l.sleep(10 * sec)
			p.Stats()
		}
		l.expect()
		// and reading makes none
		for range 6 {
			l.sleep(mins)
			p.Stats()
			p.Records()
		}
		l.expect("1h45m0s suspect transaction leak_after #1", "1h46m0s reaped transaction leak_after #1")
	})
}

// Nor is it taken for activity later than the next check would.
func TestStatsDelaysNothing(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(4*sec))
		f := l.open(p, true)
		l.sleep(2500 * time.Millisecond)
		f.begin("BEGIN", "")
		p.Stats()
		l.until(mins)
		l.expect("7s suspect transaction leak_after #1", "8s reaped transaction leak_after #1")
	})
}

// The gate keeps flags of its own in the word: they are no activity, neither
// for the reaper nor for Stats, and no part of an order's word.
func TestFlagsAreNoActivity(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.query("SELECT 1", "")
		generation := f.Word().Load()
		for l.since() < 5*mins {
			l.sleep(50 * sec)
			f.Word().Store(f.Word().Load() ^ 1<<5)
			p.Stats()
		}
		f.Word().Or(1 << 1)
		l.until(6*mins + 1)
		l.expect("6m0s suspect rows leak_after #1")
		f.Word().Or(1 << 2)
		l.until(7 * mins)
		l.expect("7m0s reaped rows leak_after #1")
		if orders := f.given(); len(orders) != 1 || orders[0].o.Word != generation {
			t.Errorf("ordered %v", orders)
		}
	})
}

// Neither does it at the very moment the tracker was made, which in a bubble
// lasts.
func TestStatsAtTheBeginning(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, false)
		f.out("")
		f.begin("BEGIN", "")
		p.Stats()
		l.until(4 * mins)
		p.Stats()
		l.until(6*mins + 30*sec)
		l.expect("6m0s suspect transaction leak_after #1")
	})
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		l.open(p, true)
		p.Stats()
		l.until(4 * mins)
		p.Stats()
		l.until(5*mins + 30*sec)
		l.expect("5m0s suspect connection leak_after #1")
	})
}

// A transaction by SQL text in the pool is a suspect after a second and rolled
// back by leak_after.
func TestTransactionInPool(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.CheckInterval = 40*sec, mins }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		id := f.tx
		f.in()
		word := f.Word().Load() &^ gate.Flags
		l.until(11*sec - 1)
		l.expect()
		l.until(11 * sec) // noticed at 10s
		l.expect("11s suspect transaction in_pool #1")
		f.expectOrders()
		l.until(50*sec - 1)
		l.expect()
		l.until(50 * sec)
		l.expect("50s reaped transaction in_pool #1")
		orders := f.given()
		if len(orders) != 1 || orders[0].String() != "50s transaction leak_after #1 done" || orders[0].o.Word != word || orders[0].o.Resource != id {
			t.Errorf("ordered %+v", orders)
		}
		if leak := orders[0].o.Leaks[0]; leak.Limit != sec || leak.Idle != sec || leak.Kind != KindTransaction {
			t.Errorf("leak %+v", leak)
		}
		l.until(time.Hour)
		l.expect()
		f.expectOrders()
	})
}

// It may legally go on in the next lease.
func TestTransactionInPoolGoesOn(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter = 40 * sec }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		for range 10 {
			f.in()
			l.sleep(30 * sec)
			f.out("")
			f.touch()
		}
		f.in()
		l.sleep(30 * sec)
		f.out("")
		f.commit()
		f.in()
		l.sleep(time.Hour)
		if s := p.Stats(); s.Reaped != 0 || s.LeakedDetected != s.Recovered || s.Recovered == 0 {
			t.Errorf("%+v", s)
		}
		f.expectOrders()
	})
}

// tx_timeout holds in the pool too, also where leak_after is off.
func TestTransactionInPoolTimesOut(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.TxTimeout = 40 * sec }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.in()
		l.until(time.Hour)
		l.expect("11s suspect transaction in_pool #1", "50s reaped transaction tx_timeout #1")
		f.expectOrders("50s transaction tx_timeout #1 done")
	})
}

// The jitter takes off up to 2.5 %, and not the same of all.
func TestLifetimeJitter(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	policy := p.Policy()
	seen := make(map[time.Duration]bool)
	for range 1000 {
		c := p.Open(still{}, false, "")
		life := c.lifetime(&policy)
		if life > 30*mins || life < 30*mins-45*sec {
			t.Fatalf("lifetime %v", life)
		}
		seen[life/(5*sec)] = true
		c.Close()
	}
	if len(seen) < 9 {
		t.Errorf("lifetimes fall into %d of 9 parts", len(seen))
	}
}

// By text; for lines see TestStatementsOfOnePlace.
func TestMaxStatements(t *testing.T) {
	three := limits(func(p *Policy) { p.MaxStatements = 3 })
	textsOnly := func(l *lab) *Pool {
		return newPool(t, l.Tracker, PoolConfig{Name: "db", Mode: Enforce, Policy: three, Logger: quiet, NoStacks: true})
	}
	t.Run("report and forgive", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := textsOnly(l)
			f := l.open(p, true)
			f.prepare("SELECT 0")
			f.prepare("SELECT 1")
			f.prepare("SELECT 1")
			l.until(mins)
			l.expect() // three, but not of the same text
			last := f.prepare("SELECT 1")
			l.until(2 * mins)
			l.expect("2m0s suspect statement max_statements #1")
			f.prepare("SELECT 1")
			l.until(time.Hour)
			l.expect()
			if s := p.Stats(); s.LeakDetection.PotentiallyLeakedCount != 1 || s.OpenStatements != 5 {
				t.Errorf("%+v", s)
			}
			leak := l.History()[1].Leak
			if leak.Count != 3 || leak.OnePlace || leak.Kept == "" || leak.Query != "SELECT 1" || leak.Limit != 0 {
				t.Errorf("leak %+v", leak)
			}
			f.finish(last)
			f.finish(f.stmts[1])
			l.until(2 * time.Hour)
			l.expect("1h1m0s recovered statement max_statements #1")
			f.prepare("SELECT 1")
			f.prepare("SELECT 2")
			f.prepare("SELECT 1")
			l.until(3 * time.Hour)
			l.expect("2h1m0s suspect statement max_statements #2")
			for _, r := range f.stmts {
				f.finish(r)
			}
			l.until(4 * time.Hour)
			l.expect("3h1m0s recovered statement max_statements #2")
			f.expectOrders()
			checkBalance(t, p.Stats(), 0)
		})
	})
	t.Run("exchanged", func(t *testing.T) { // as many as before, but of one text
		inBubble(t, func(l *lab) {
			f := l.open(textsOnly(l), true)
			for i := range 3 {
				f.prepare(fmt.Sprint("SELECT ", i))
			}
			l.until(mins)
			l.expect()
			for i := range 3 {
				f.finish(f.stmts[i])
				f.prepare("SELECT 1")
			}
			l.until(2*mins + 1)
			l.expect("2m0s suspect statement max_statements #1")
		})
	})
	t.Run("limit lowered", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, limits(nil))
			f := l.open(p, true)
			for range 3 {
				f.prepare("SELECT 1")
			}
			l.until(10 * mins)
			l.expect()
			if err := p.SetPolicy(three); err != nil {
				t.Fatal(err)
			}
			l.until(12 * mins)
			l.expect("10m0s suspect statement max_statements #1")
		})
	})
	t.Run("connection closed", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, three)
			f := l.open(p, true)
			for range 3 {
				f.prepare("SELECT 1")
			}
			l.until(mins)
			l.expect("1m0s suspect statement max_statements #1")
			for _, r := range f.stmts {
				f.finish(r)
			}
			f.Close()
			l.expect("1m0s recovered statement max_statements #1")
			checkBalance(t, p.Stats(), 0)
		})
	})
}

// A limit of nought is off: nothing happens, whatever is forgotten.
func TestLimitsOff(t *testing.T) {
	all := Policy{MaxLifetime: 30 * mins, MaxIdle: 5 * mins, LeakAfter: 5 * mins, TxTimeout: 10 * mins, TxLimit: 40 * mins, MaxAccess: 2, MaxStatements: 2}
	for name, off := range map[string]func(p *Policy){
		"max_lifetime":   func(p *Policy) { p.MaxLifetime = 0 },
		"max_idle":       func(p *Policy) { p.MaxIdle = 0 },
		"leak_after":     func(p *Policy) { p.LeakAfter = 0 },
		"tx_timeout":     func(p *Policy) { p.TxTimeout = 0 },
		"tx_limit":       func(p *Policy) { p.TxLimit = 0 },
		"max_access":     func(p *Policy) { p.MaxAccess = 0 },
		"max_statements": func(p *Policy) { p.MaxStatements = 0 },
		"all": func(p *Policy) {
			*p = Policy{}
		},
		"none": func(p *Policy) {},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				policy := all
				off(&policy)
				policy.CheckInterval, policy.MemoryInterval = mins, mins
				p := l.pool(Enforce, policy)

				forgotten := l.open(p, true) // leak_after
				forgotten.query("SELECT 1", "")

				active := l.open(p, true) // tx_timeout, tx_limit, max_statements
				active.begin("BEGIN", "")
				active.prepare("SELECT 1")
				active.prepare("SELECT 1")

				idle := l.open(p, true) // max_idle
				idle.in()

				busy := l.open(p, true) // max_lifetime, max_access
				var due []Reason
				for range 60 {
					l.sleep(mins)
					active.touch()
					if r := busy.in(); r != "" {
						due = append(due, r)
					}
					busy.out("")
				}
				seen := make(map[string]bool)
				for _, line := range l.told() {
					for _, limit := range strings.Fields(line)[1:] {
						seen[limit] = true
					}
				}
				for _, r := range due {
					seen[string(r)] = true
				}
				for limit, on := range map[string]bool{
					"max_lifetime":   policy.MaxLifetime > 0,
					"max_idle":       policy.MaxIdle > 0,
					"leak_after":     policy.LeakAfter > 0,
					"tx_timeout":     policy.TxTimeout > 0,
					"tx_limit":       policy.TxLimit > 0,
					"max_access":     policy.MaxAccess > 0,
					"max_statements": policy.MaxStatements > 0,
				} {
					if seen[limit] != on {
						t.Errorf("%s: %v, want %v", limit, seen[limit], on)
					}
				}
			})
		})
	}
}

// Rows that rest while their connection moves are undone alone.
func TestRowsOnly(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		forgotten, read := f.query("SELECT 1", ""), f.query("SELECT 2", "")
		f.next(forgotten)
		f.next(forgotten)
		work := func(until time.Duration) {
			for l.since() < until {
				l.sleep(30 * sec)
				f.next(read)
			}
		}
		work(6*mins - 30*sec)
		l.expect()
		work(6 * mins)
		l.expect("6m0s suspect rows leak_after #1")
		f.expectOrders()
		id := forgotten.ID()
		work(7 * mins)
		l.expect("7m0s reaped rows leak_after #1")
		orders := f.given()
		if len(orders) != 1 || orders[0].String() != "7m0s rows leak_after #1 done" || orders[0].o.Resource != id {
			t.Fatalf("ordered %+v", orders)
		}
		if leak := orders[0].o.Leaks[0]; leak.Query != "SELECT 1" || leak.Idle != 5*mins || leak.Age != 6*mins || leak.Limit != 5*mins {
			t.Errorf("leak %+v", leak)
		}
		if !f.closed(forgotten) || f.closed(read) || f.tx == 0 {
			t.Error("more or less was undone than the rows")
		}
		work(time.Hour)
		l.expect()
		checkBalance(t, p.Stats(), 0)
	})
}

// They recover by being read, even while the order is on its way.
func TestRowsOnlyRecover(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		r := f.query("SELECT 1", "")
		work := func(until time.Duration) {
			for l.since() < until {
				l.sleep(30 * sec)
				f.touch()
			}
		}
		work(6 * mins)
		l.expect("6m0s suspect rows leak_after #1")
		f.next(r)
		work(11 * mins)
		l.expect("7m0s recovered rows leak_after #1")
		f.expectOrders()
		work(12 * mins)
		l.expect("12m0s suspect rows leak_after #2")
		f.carry(func(o *Order) Outcome {
			f.next(r)
			return f.drive(o)
		})
		work(13 * mins)
		f.expectOrders("13m0s rows leak_after #2 void")
		l.expect()
		work(14 * mins)
		l.expect("14m0s recovered rows leak_after #2")
		if f.closed(r) {
			t.Error("rows that were read were closed")
		}
		checkBalance(t, p.Stats(), 0)
	})
}

// Order.Rested tells used rows, other rows and other orders apart.
func TestOrderRested(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
		r, other := f.query("SELECT 1", ""), f.query("SELECT 2", "")
		var rested, used, another, again []bool
		f.carry(func(o *Order) Outcome {
			if o.Scope != ScopeRows {
				return Void
			}
			rested = append(rested, o.Rested(r))
			another = append(another, o.Rested(other))
			r.Use()
			used = append(used, o.Rested(r))
			f.CloseResource(r)
			f.OpenRows(r, "SELECT 3", "") // the same record for other rows
			again = append(again, o.Rested(r))
			return Void
		})
		for l.since() < 7*mins {
			l.sleep(30 * sec)
			f.next(other)
		}
		if !slices.Equal(rested, []bool{true}) || !slices.Equal(another, []bool{false}) ||
			!slices.Equal(used, []bool{false}) || !slices.Equal(again, []bool{false}) {
			t.Errorf("rested %v, other rows %v, used %v, opened again %v", rested, another, used, again)
		}
		if (&Order{}).Rested(r) {
			t.Error("an order without rows means these")
		}
	})
}

// What is exempt, handed out raw, or of a pool that observes is reported once,
// with the reason, and never undone.
func TestReportOnly(t *testing.T) {
	policy := limits(func(p *Policy) {
		p.LeakAfter, p.TxTimeout, p.MaxIdle, p.MaxLifetime = 5*mins, time.Hour, 5*mins, 30*mins
	})
	for _, c := range []struct {
		name         string
		mode         Mode
		lease        string // exempt
		raw          bool
		hold         func(f *fake)
		want         string
		exempt, kept string
	}{
		{"observe rows", Observe, "", false, func(f *fake) { f.query("SELECT 1", "") }, "rows leak_after", "", ""},
		{"observe transaction", Observe, "", false, func(f *fake) { f.begin("BEGIN", "") }, "transaction leak_after", "", ""},
		{"observe lease", Observe, "", false, func(f *fake) {}, "connection leak_after", "", ""},
		{"observe in the pool", Observe, "", false, func(f *fake) { f.begin("BEGIN", ""); f.in() }, "transaction in_pool", "", ""},
		{"exempt lease, rows", Enforce, "import", false, func(f *fake) { f.query("SELECT 1", "") }, "rows leak_after", "import", ""},
		{"exempt lease, transaction", Enforce, "import", false, func(f *fake) { f.begin("BEGIN", "") }, "transaction leak_after", "import", ""},
		{"exempt rows", Enforce, "", false, func(f *fake) { f.query("SELECT 1", "import") }, "rows leak_after", "import", ""},
		{"exempt transaction", Enforce, "", false, func(f *fake) { f.begin("BEGIN", "import") }, "transaction leak_after", "import", ""},
		{"exempt in the pool", Enforce, "", false, func(f *fake) { f.begin("BEGIN", "import"); f.in() }, "transaction in_pool", "import", ""},
		{"raw rows", Enforce, "", true, func(f *fake) { f.query("SELECT 1", "") }, "rows leak_after", "", "the raw connection is in use"},
		{"raw transaction", Enforce, "", true, func(f *fake) { f.begin("BEGIN", "") }, "transaction leak_after", "", "the raw connection is in use"},
		{"raw lease", Enforce, "", true, func(f *fake) {}, "connection leak_after", "", "the raw connection is in use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(c.mode, policy)
				f := l.open(p, false)
				f.out(c.lease)
				if c.raw {
					f.do(f.HandedOut)
				}
				c.hold(f)
				l.until(24 * time.Hour)
				got := l.told()
				if len(got) != 1 || !strings.Contains(got[0], "suspect "+c.want+" #1") {
					t.Errorf("told %q, want once %q", got, c.want)
				}
				f.expectOrders()
				leak := l.History()[1].Leak
				if leak == nil || leak.Exempt != c.exempt || leak.Kept != c.kept {
					t.Errorf("leak %+v", leak)
				}
				if s := p.Stats(); s.LeakedDetected != 1 || s.Reaped != 0 || s.ForceClosed != 0 || s.LeakDetection.PotentiallyLeakedCount != 1 {
					t.Errorf("%+v", s)
				}
			})
		})
	}
	t.Run("idle connections", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Observe, policy)
			for range 3 {
				f := l.open(p, true)
				f.in()
				defer f.expectOrders()
			}
			l.until(24 * time.Hour)
			l.expect()
		})
	})
}

// Rows that are exempt are spared by their own order, while others are not.
func TestRowsOnlyReportOnly(t *testing.T) {
	for _, c := range []struct {
		name        string
		mode        Mode
		lease, rows string
		raw         bool
	}{{"observe", Observe, "", "", false}, {"exempt lease", Enforce, "import", "", false},
		{"exempt rows", Enforce, "", "import", false}, {"raw", Enforce, "", "", true}} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				f := l.open(l.pool(c.mode, leakAfter(5*mins)), false)
				f.out(c.lease)
				if c.raw {
					f.do(f.HandedOut)
				}
				f.query("SELECT 1", c.rows)
				for l.since() < time.Hour {
					l.sleep(30 * sec)
					f.touch()
				}
				l.expect("6m0s suspect rows leak_after #1")
				f.expectOrders()
			})
		})
	}
}

// A busy transaction beyond tx_limit is condemned, and nudged every 2 ms, then
// slower, until its owner is out; the owner carries the order out.
func TestCondemned(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.TxLimit = 10 * mins }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.enter() // a statement that runs
		l.until(11*mins + 21*time.Millisecond)
		l.expect("11m0s suspect transaction tx_limit #1")
		f.expectOrders("11m0s transaction tx_limit #1 condemned")
		f.leave()
		l.expect("11m0.021s reaped transaction tx_limit #1")
		l.until(time.Hour)
		f.expectOrders()
		want := []time.Duration{11 * mins}
		for d := time.Duration(0); d < 21*time.Millisecond; {
			d += max(d/4, 2*time.Millisecond)
			want = append(want, 11*mins+d)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if !slices.Equal(f.nudges, want) {
			t.Errorf("nudged at %v, want %v", f.nudges, want)
		}
		checkBalance(t, p.Stats(), 0)
	})
}

// What does not end is nudged more and more seldom, but never less than four times a
// second: it may go on to another statement.
func TestCondemnedForLong(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.TxLimit = 10 * mins }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.enter()
		l.until(12 * mins)
		f.leave()
		l.sleep(sec)
		f.mu.Lock()
		defer f.mu.Unlock()
		last := f.nudges[len(f.nudges)-1]
		if f.nudges[0] != 11*mins || last < 12*mins || last > 12*mins+250*time.Millisecond {
			t.Errorf("nudged from %v to %v, want from 11m until it is over", f.nudges[0], last)
		}
		for i, at := range f.nudges[1 : len(f.nudges)-1] {
			age := f.nudges[i] - 11*mins
			// Sooner if the reaper is there anyhow.
			if gap, want := at-f.nudges[i], min(max(age/4, 2*time.Millisecond), 250*time.Millisecond); gap < want/2 || gap > want+time.Millisecond {
				t.Fatalf("nudged after %v and %v later, want %v later", age, gap, want)
			}
		}
		if after := slices.IndexFunc(f.nudges, func(at time.Duration) bool { return at > 11*mins+sec }); len(f.nudges)-after > 300 {
			t.Errorf("%d nudges in the 59 s behind the first one", len(f.nudges)-after)
		}
		checkBalance(t, p.Stats(), 0)
	})
}

// Where a condemned operation is all that there is, the reaper does not come each
// check_interval; but it is there in time when something begins.
func TestCondemnedAlone(t *testing.T) {
	const ms = time.Millisecond
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.TxLimit, p.LeakAfter, p.CheckInterval = 400*ms, 400*ms, 10*ms }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.enter()
		l.until(20 * sec)
		f.mu.Lock()
		n := len(f.nudges)
		for i := n - 20; i < n-1; i++ {
			if gap := f.nudges[i+1] - f.nudges[i]; gap != 250*ms {
				t.Errorf("nudged %v after the one before", gap)
			}
		}
		f.mu.Unlock()
		l.told()
		l.sleep(130 * ms)
		f.leave() // its owner carries the order out, and begins another one
		f.begin("BEGIN", "")
		began := l.since()
		f.enter()
		l.sleep(450 * ms)
		f.mu.Lock()
		if o := f.orders[len(f.orders)-1]; o.at < began+400*ms || o.at > began+415*ms {
			t.Errorf("the next one is condemned after %v", o.at-began)
		}
		f.mu.Unlock()
		l.sleep(20 * sec)
		began = l.since()
		other := l.open(p, false) // nobody else has woken the reaper
		other.out("")
		other.query("SELECT 1", "")
		l.sleep(500 * ms)
		if o := other.given(); len(o) != 1 || o[0].at < began+400*ms || o[0].at > began+430*ms {
			t.Errorf("after %v: %v", began, o)
		}
		f.leave()
	})
}

// While something is nudged, checks of other connections go on in time, and
// several operations are nudged together.
func TestCondemnedTogether(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.TxLimit, p.LeakAfter = 4*sec, 4*sec }))
		a, b, other := l.open(p, true), l.open(p, true), l.open(p, true)
		a.begin("BEGIN", "")
		b.begin("BEGIN", "")
		a.enter()
		b.enter()
		l.sleep(2500 * time.Millisecond)
		other.query("SELECT 1", "")
		l.until(5500 * time.Millisecond)
		a.leave()
		a.in()
		l.until(9999 * time.Millisecond)
		b.leave()
		b.in()
		l.until(mins)
		l.expect("5s suspect transaction tx_limit #1", "5s suspect transaction tx_limit #2",
			"5.5s reaped transaction tx_limit #1",
			"7s suspect rows leak_after #3", "8s reaped rows leak_after #3",
			"9.999s reaped transaction tx_limit #2")
		if a, b := len(a.nudges), len(b.nudges); a < 15 || a > 35 || b < 30 || b > 60 || b < a+10 {
			t.Errorf("%d and %d nudges: more and more seldom, each on its own", a, b)
		}
		checkBalance(t, p.Stats(), 0)
	})
}

// A COMMIT that succeeds voids the verdict: the order is settled as void, the
// transaction is over, and the suspect recovered.
func TestCondemnedCommits(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.TxLimit = 10 * mins }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.enter()
		l.until(11 * mins)
		l.expect("11m0s suspect transaction tx_limit #1")
		f.EndTx() // COMMIT
		o := f.order
		f.order = nil
		f.Settle(o, Void)
		f.leave()
		l.until(time.Hour)
		l.expect("11m0s recovered transaction tx_limit #1")
		checkBalance(t, p.Stats(), 0)
	})
}

// A void order leaves a suspect that is still open, and is given again.
func TestVoidKeepsSuspect(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy Policy
		hold   func(f *fake)
		want   []string
		scope  string
		reason string
	}{
		{"lease", leakAfter(5 * mins), func(f *fake) { f.query("SELECT 1", "") }, []string{"6m0s suspect rows leak_after #1"}, "lease", "leak_after"},
		{"transaction", limits(func(p *Policy) { p.TxLimit = 6 * mins }), func(f *fake) { f.begin("BEGIN", "") }, []string{"7m0s suspect transaction tx_limit #1"}, "transaction", "tx_limit"},
		{"in the pool", leakAfter(6 * mins), func(f *fake) { f.begin("BEGIN", ""); f.in() }, []string{"1m1s suspect transaction in_pool #1"}, "transaction", "leak_after"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, c.policy)
				f := l.open(p, true)
				c.hold(f)
				f.shutGate(true)
				l.until(7*mins + 30*sec)
				l.expect(c.want...)
				if got := f.given(); len(got) != 1 || !strings.HasSuffix(got[0].String(), fmt.Sprintf("%s %s #1 void", c.scope, c.reason)) {
					t.Errorf("ordered %v", got)
				}
				l.until(9*mins + 30*sec)
				l.expect()
				if got := f.given(); len(got) != 2 {
					t.Errorf("ordered again %v", got)
				}
				checkBalance(t, p.Stats(), 1)
				f.shutGate(false)
				l.until(10*mins + 30*sec)
				got := l.told()
				if len(got) != 1 || !strings.Contains(got[0], "reaped") {
					t.Errorf("told %q", got)
				}
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
}

// A void order whose resource was closed meanwhile is a recovery, told once.
func TestVoidOfClosed(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		r := f.query("SELECT 1", "")
		f.carry(func(*Order) Outcome {
			f.finish(r) // just before the order gets the gate
			return Void
		})
		l.until(7 * mins)
		l.expect("6m0s suspect rows leak_after #1", "6m0s suspect transaction leak_after #2", "7m0s recovered rows leak_after #1")
		f.carry(nil)
		f.commit()
		l.expect("7m0s recovered transaction leak_after #2")
		l.until(8 * mins)
		l.expect()
		checkBalance(t, p.Stats(), 0)
	})
}

// Rows that garbage collection proves, and the driver closes, while an order for
// them is on its way are reaped once, and did not recover.
func TestProvenWhileOrdered(t *testing.T) {
	t.Run("void", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, leakAfter(5*mins))
			f := l.open(p, true)
			r := f.query("SELECT 1", "")
			f.carry(func(*Order) Outcome {
				f.Proven(r, true)
				f.CloseResource(r)
				return Void
			})
			l.until(time.Hour)
			l.expect("6m0s suspect rows leak_after #1", "7m0s proven rows proven #1", "7m0s reaped rows proven #1")
			if s := p.Stats(); s.LeakedDetected != 1 || s.Reaped != 1 || s.Recovered != 0 {
				t.Errorf("%d found, %d reaped, %d recovered", s.LeakedDetected, s.Reaped, s.Recovered)
			}
		})
	})
	t.Run("done", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, leakAfter(5*mins))
			f := l.open(p, true)
			f.begin("BEGIN", "")
			r := f.query("SELECT 1", "")
			f.carry(func(o *Order) Outcome {
				f.Proven(r, true)
				f.CloseResource(r)
				return f.drive(o)
			})
			l.until(time.Hour)
			if s := p.Stats(); s.LeakedDetected != 2 || s.Reaped != 2 || s.Recovered != 0 {
				t.Errorf("%d found, %d reaped, %d recovered", s.LeakedDetected, s.Reaped, s.Recovered)
			}
		})
	})
}

// What waits for a free gate is asked for at once, and again if the gate was
// taken once more.
func TestPending(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
		f.touch()
		l.until(70 * sec)
		f.Pending()
		synctest.Wait()
		f.expectOrders("1m10s proven proven done")
		l.until(5 * mins)
		f.expectOrders()
		f.enter()
		f.Pending()
		synctest.Wait()
		f.expectOrders("5m0s proven proven void")
		f.leave()
		l.until(7 * mins)
		if got := f.given(); len(got) == 0 {
			t.Error("what was handed over while the gate was taken is forgotten")
		}
	})
}

// The reaper's goroutine exists only while there is something to watch.
func TestReaperLifecycle(t *testing.T) {
	inBubble(t, func(l *lab) {
		check := func(when string, want bool) {
			t.Helper()
			if l.running() != want {
				t.Errorf("%s: running is %v", when, !want)
			}
		}
		check("new", false)
		p := l.pool(Enforce, DefaultPolicy())
		check("with a pool", false)
		if err := p.SetPolicy(leakAfter(mins)); err != nil {
			t.Fatal(err)
		}
		check("with a policy", false)
		cancel := l.AddDetector(func(Record) Reason { return "" })
		check("with a detector", false)
		cancel()
		a := l.open(p, true)
		check("with a connection", true)
		b := l.open(p, false)
		b.Close()
		check("with one left", true)
		a.Close()
		check("with none", false)
		l.Close() // waits
		for range 3 {
			c := l.open(p, true)
			check("again", true)
			c.query("SELECT 1", "")
			l.told()
			l.sleep(5 * mins)
			if got := l.told(); len(got) != 2 {
				t.Errorf("told %q", got)
			}
			c.Close()
			check("and again none", false)
		}
		p.Close()
		l.Close()
	})
}

// Pools that ask for nothing start no reaper, and do not keep one.
func TestReaperOnlyForWatched(t *testing.T) {
	inBubble(t, func(l *lab) {
		basic, watched := l.pool(Basic, DefaultPolicy()), l.pool(Observe, DefaultPolicy())
		b := l.open(basic, true)
		b.query("SELECT 1", "")
		if l.running() {
			t.Error("a basic pool started the reaper")
		}
		if err := basic.SetPolicy(leakAfter(mins)); err != nil || l.running() {
			t.Error("SetPolicy of a basic pool started the reaper", err)
		}
		l.sleep(24 * time.Hour)
		l.expect()
		b.expectOrders()
		if err := watched.SetPolicy(leakAfter(mins)); err != nil || l.running() {
			t.Error("SetPolicy of a pool without connections started the reaper", err)
		}
		w := l.open(watched, true)
		if !l.running() {
			t.Error("an observing pool did not start the reaper")
		}
		l.sleep(24 * time.Hour)
		if r := basic.Records()[0]; r.Suspect {
			t.Error("the reaper judges a basic pool")
		}
		w.Close()
		if l.running() {
			t.Error("a basic pool keeps the reaper")
		}
	})
}

// Pools that ask for nothing do not make the checks of others more frequent.
func TestReaperPaceIsOfWatched(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.open(l.pool(Basic, leakAfter(4*time.Millisecond)), true)
		l.pool(Enforce, leakAfter(4*time.Millisecond)) // without connections
		l.open(l.pool(Enforce, limits(nil)), true)
		l.sleep(10 * mins)
		l.Tracker.mu.Lock()
		defer l.Tracker.mu.Unlock()
		if l.reaper.wait != mins {
			t.Errorf("the reaper comes each %v", l.reaper.wait)
		}
	})
}

// Close waits for the reaper and for the closings it began.
func TestCloseWaits(t *testing.T) {
	for name, end := range map[string]func(l *lab, p *Pool){
		"pool":    func(l *lab, p *Pool) { p.Close() },
		"tracker": func(l *lab, p *Pool) { l.Tracker.Close() },
	} {
		for _, checking := range []time.Duration{100 * time.Millisecond, sec} {
			t.Run(fmt.Sprint(name, " ", checking), func(t *testing.T) {
				inBubble(t, func(l *lab) {
					p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = mins }))
					f := l.open(p, true)
					f.in()
					var closed, checked atomic.Bool
					f.carry(func(*Order) Outcome {
						l.Go(func() { time.Sleep(450 * time.Millisecond); closed.Store(true) })
						time.Sleep(checking) // the reaper itself is not through
						checked.Store(true)
						return Done
					})
					l.sleep(75 * sec)
					l.Tracker.Close() // must not wait: a connection is open
					if checked.Load() {
						t.Error("Close waits for a reaper that has work")
					}
					f.Close()
					end(l, p)
					if !closed.Load() || !checked.Load() {
						t.Errorf("Close returned although closing is over: %v, the reaper: %v", closed.Load(), checked.Load())
					}
				})
			})
		}
	}
}

// The reaper ends and begins again while an order is carried out: a Control is
// for one order at a time.
func TestOneOrderAtATime(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = mins }))
		for range 3 {
			f := l.open(p, false)
			var inside atomic.Int64
			f.carry(func(*Order) Outcome {
				if inside.Add(1) != 1 {
					t.Error("two orders for one connection")
				}
				time.Sleep(10 * mins)
				inside.Add(-1)
				return Done
			})
			f.out("")
			f.in()
			l.sleep(2 * mins) // it is being closed
			f.Close()
		}
		l.sleep(time.Hour)
	})
}

// After Close, leases that are still out stay watched.
func TestPoolCloseKeepsWatch(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f, g := l.open(p, true), l.open(p, true)
		f.query("SELECT 1", "")
		g.Close()
		p.Close()
		p.Close()
		l.until(7 * mins)
		l.expect("6m0s suspect rows leak_after #1", "7m0s reaped rows leak_after #1")
		if s := l.Stats(); s.TotalConnections != 1 || s.Created != 2 || s.Reaped != 1 {
			t.Errorf("%+v", s)
		}
		f.Close()
		if s := l.Stats(); s.TotalConnections != 0 || s.Created != 2 || s.Reaped != 1 || s.LeakedDetected != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// A pool that needs shorter checks wakes the reaper.
func TestWakesEarly(t *testing.T) {
	t.Run("second pool", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			l.open(l.pool(Enforce, DefaultPolicy()), false)
			l.until(10 * sec)                                     // the next check is at 1m0s
			f := l.open(l.pool(Enforce, leakAfter(4*sec)), false) // and nothing else wakes it
			f.out("")
			f.begin("BEGIN", "")
			l.until(25 * sec)
			l.expect("15s suspect transaction leak_after #1", "16s reaped transaction leak_after #1")
		})
	})
	t.Run("policy", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, unreported())
			f := l.open(p, true)
			f.begin("BEGIN", "")
			l.until(2*mins + 10*sec) // the next check is at 3m0s
			if err := p.SetPolicy(leakAfter(40 * sec)); err != nil {
				t.Fatal(err)
			}
			l.until(5 * mins) // it was seen to move last at 1m0s
			l.expect("2m10s suspect transaction leak_after #1", "2m20s reaped transaction leak_after #1")
		})
	})
	t.Run("detector", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, limits(nil)), true)
			f.begin("BEGIN", "")
			l.until(mins + 10*sec)
			l.AddDetector(func(Record) Reason { return "mine" })
			l.until(3 * mins)
			l.expect("1m10s suspect transaction mine #1", "2m10s reaped transaction mine #1")
		})
	})
	t.Run("longer", func(t *testing.T) { // and sleeps again when it may
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, leakAfter(4*sec))
			var checks atomic.Int64
			l.AddDetector(func(Record) Reason { checks.Add(1); return "" })
			f := l.open(p, true)
			f.begin("BEGIN", "")
			l.until(10*sec + 1)
			if checks.Load() < 3 {
				t.Errorf("%d checks", checks.Load())
			}
			if err := p.SetPolicy(limits(nil)); err != nil {
				t.Fatal(err)
			}
			l.sleep(0)
			checks.Store(0)
			l.sleep(10 * mins)
			if n := checks.Load(); n != 10 {
				t.Errorf("%d checks in 10 minutes, want one each check_interval", n)
			}
		})
	})
}

// A detector that names a lease makes it a suspect, and has it reaped if it is
// still named at the next check.
func TestDetector(t *testing.T) {
	inBubble(t, func(l *lab) {
		var records []Record
		l.AddDetector(func(r Record) Reason {
			records = append(records, r)
			if r.OpenRows > 0 {
				return "too many rows"
			}
			return ""
		})
		l.AddDetector(func(r Record) Reason {
			if r.OpenRows > 0 {
				return "not asked any more"
			}
			return ""
		})
		p := l.pool(Enforce, limits(nil))
		idle, f := l.open(p, false), l.open(p, true)
		f.query("SELECT 1", "")
		l.until(mins)
		l.expect("1m0s suspect rows too many rows #1")
		if leak := l.History()[2].Leak; leak.Limit != 0 || leak.Reason != "too many rows" {
			t.Errorf("leak %+v", leak)
		}
		l.until(time.Hour)
		l.expect("2m0s reaped rows too many rows #1")
		f.expectOrders("2m0s lease too many rows #1 done")
		for _, r := range records {
			if r.ConnectionID == idle.ID() || !r.Leased {
				t.Fatalf("asked about %+v", r)
			}
		}
		if r := records[1]; r.Pool != "db" || r.OpenRows != 1 || r.Query != "SELECT 1" || len(r.Stack) == 0 || r.Age != mins {
			t.Errorf("asked about %+v", r)
		}
	})
}

func TestDetectorRecovers(t *testing.T) {
	for _, c := range []struct {
		name string
		hold func(f *fake)
		kind string
	}{
		{"rows", func(f *fake) { f.query("SELECT 1", "") }, "rows"},
		{"transaction", func(f *fake) { f.begin("BEGIN", "") }, "transaction"},
		{"lease", func(f *fake) {}, "connection"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				var name box[Reason]
				l.AddDetector(func(Record) Reason { return name.get() })
				p := l.pool(Enforce, limits(nil))
				f := l.open(p, true)
				c.hold(f)
				l.until(90 * sec)
				name.set("mine")
				l.until(2*mins + 1)
				l.expect("2m0s suspect " + c.kind + " mine #1")
				name.set("")
				l.until(10 * mins)
				l.expect("3m0s recovered " + c.kind + " mine #1")
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
}

// Activity between the two checks spares what a detector names, whatever it is.
func TestDetectorActivityBetween(t *testing.T) {
	for name, hold := range map[string]func(f *fake){
		"rows":        func(f *fake) { f.query("SELECT 1", "") },
		"transaction": func(f *fake) { f.begin("BEGIN", "") },
		"both":        func(f *fake) { f.begin("BEGIN", ""); f.query("SELECT 1", "") },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				l.AddDetector(func(Record) Reason { return "mine" })
				p := l.pool(Enforce, limits(nil))
				f := l.open(p, true)
				l.sleep(10 * sec)
				hold(f)
				for l.since() < 30*mins {
					l.sleep(30 * sec)
					f.touch()
				}
				for _, c := range f.given() {
					if c.o.Scope != ScopeRelease {
						t.Errorf("ordered %v although it moved", c)
					}
				}
				if s := p.Stats(); s.Reaped != 0 {
					t.Errorf("%d reaped", s.Reaped)
				}
			})
		})
	}
}

// What moves while its detector thinks is no suspect.
func TestDetectorOvertaken(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(nil))
		f := l.open(p, true)
		f.query("SELECT 1", "")
		l.AddDetector(func(Record) Reason { f.touch(); return "mine" })
		l.until(time.Hour)
		l.expect()
		f.expectOrders()
	})
}

// A detector is asked about every leased connection, however old it is.
func TestDetectorOfOldConnection(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxLifetime = 30 * mins }))
		f := l.open(p, true)
		l.until(time.Hour)
		asked := 0
		l.AddDetector(func(Record) Reason { asked++; return "" })
		for range 10 {
			l.sleep(mins)
			f.touch()
		}
		if asked < 10 {
			t.Errorf("asked %d times in 10 minutes", asked)
		}
	})
}

func TestDetectorCancel(t *testing.T) {
	inBubble(t, func(l *lab) {
		asked, others := 0, 0
		cancel := l.AddDetector(func(Record) Reason { asked++; return "mine" })
		cancelOther := l.AddDetector(func(Record) Reason { others++; return "" })
		p := l.pool(Enforce, limits(nil))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(mins)
		l.expect("0s suspect connection mine #1", "1m0s recovered connection mine #1", "1m0s suspect transaction mine #2")
		cancel()
		cancel()
		was := asked
		l.until(10 * mins)
		if asked != was || others == 0 {
			t.Errorf("asked %d times after cancel, the other %d times", asked-was, others)
		}
		if got := l.told(); len(got) != 1 || !strings.HasSuffix(got[0], "recovered transaction mine #2") {
			t.Errorf("told %q", got)
		}
		cancelOther()
		was = others
		l.until(20 * mins)
		if others != was {
			t.Errorf("asked %d times after cancel", others-was)
		}
		f.expectOrders("0s release mine done")
	})
}

// Without its detector a suspicion does not stand.
func TestDetectorCancelLast(t *testing.T) {
	inBubble(t, func(l *lab) {
		cancel := l.AddDetector(func(Record) Reason { return "mine" })
		p := l.pool(Enforce, limits(nil))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(mins)
		l.told()
		cancel()
		l.until(10 * mins)
		if n := p.Stats().LeakDetection.PotentiallyLeakedCount; n != 0 {
			t.Errorf("%d potentially leaked, named by nobody", n)
		}
		checkBalance(t, p.Stats(), 0)
	})
}

// What broke a limit meanwhile stands also when the detector that named it first
// is gone.
func TestDetectorCancelAfterTimeout(t *testing.T) {
	inBubble(t, func(l *lab) {
		cancel := l.AddDetector(func(r Record) Reason {
			if r.TransactionLevel > 0 {
				return "mine"
			}
			return ""
		})
		p := l.pool(Observe, limits(func(p *Policy) { p.TxTimeout = 10 * mins }))
		f := l.open(p, true)
		l.sleep(10 * sec)
		f.begin("BEGIN", "")
		l.until(mins)
		l.expect("1m0s suspect transaction mine #1")
		l.until(20 * mins)
		cancel()
		l.until(time.Hour)
		l.expect()
		if n := p.Stats().LeakDetection.PotentiallyLeakedCount; n != 1 {
			t.Errorf("%d potentially leaked", n)
		}
	})
}

// A panic in a detector is contained and counted, and the others are asked.
func TestDetectorPanics(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.AddDetector(func(Record) Reason { panic("no") })
		l.AddDetector(func(Record) Reason { return "mine" })
		p := l.pool(Enforce, limits(nil))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(mins)
		l.expect("0s suspect connection mine #1", "1m0s recovered connection mine #1", "1m0s suspect transaction mine #2")
		if s := l.Stats(); s.CallbackPanics != 2 {
			t.Errorf("%d panics counted", s.CallbackPanics)
		}
	})
}

// A detector that ends its goroutine must not end the guard with it.
func TestDetectorExits(t *testing.T) {
	inBubble(t, func(l *lab) {
		first := box[bool]{v: true}
		l.AddDetector(func(Record) Reason {
			if first.swap(false) {
				runtime.Goexit()
			}
			return ""
		})
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(10 * mins)
		l.expect("6m0s suspect transaction leak_after #1", "7m0s reaped transaction leak_after #1")
		if s := l.Stats(); s.CallbackPanics != 1 {
			t.Errorf("%d counted", s.CallbackPanics)
		}
	})
}

// A detector may ask the tracker, whatever it asks.
func TestDetectorMayAsk(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(nil))
		f := l.open(p, true)
		l.until(10 * sec)
		f.begin("BEGIN", "")
		l.AddDetector(func(r Record) Reason {
			l.Stats()
			l.WriteTo(io.Discard)
			for _, r := range p.Records() {
				if r.Suspect {
					return ""
				}
			}
			return "mine"
		})
		l.until(90 * sec)
		l.expect("10s suspect transaction mine #1", "1m10s recovered transaction mine #1")
	})
}

// A machine that was suspended, a stopped process or a check that took an hour
// ages nothing.
func TestDelayedCheckAgesNothing(t *testing.T) {
	inBubble(t, func(l *lab) {
		var stop box[bool]
		l.AddDetector(func(Record) Reason {
			if stop.swap(false) {
				time.Sleep(time.Hour)
			}
			return ""
		})
		p := l.pool(Enforce, unreported())
		f, g, idle, used := l.open(p, true), l.open(p, true), l.open(p, true), l.open(p, true)
		f.begin("BEGIN", "")
		g.query("SELECT 1", "")
		idle.in()
		l.until(90 * sec)
		stop.set(true)
		// Work was last seen at 1m0s; the check at 2m0s lasts until 1h2m0s, and
		// of that at most one and a half times the minute that was planned
		// counts: 5m0s of age are not there before another 2m30s.
		l.until(time.Hour + 2*mins)
		l.expect()
		l.until(time.Hour + 4*mins + 29*sec)
		l.expect()
		f.expectOrders()
		g.expectOrders()
		idle.expectOrders()
		if r := used.in(); r != "" { // max_lifetime is half an hour
			t.Errorf("check-in says %q", r)
		}
		used.out("")
		l.until(time.Hour + 6*mins)
		used.in()
		l.until(time.Hour + 10*mins)
		got := l.told()
		if len(got) != 5 {
			t.Errorf("told %q", got)
		}
		if s := p.Stats(); s.Reaped != 2 || s.Expired != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// Many connections come and go while the reaper starts and ends.
func TestReaperAddRemove(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.MaxIdle = 2*time.Millisecond, time.Millisecond }))
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(uint64(i), 1))
				for range 50 {
					leased := rng.IntN(2) == 0
					f := newFake(l, p, leased)
					for range rng.IntN(4) {
						switch rng.IntN(5) {
						case 0:
							f.query("SELECT 1", "")
						case 1:
							f.mu.Lock()
							open := f.tx != 0
							f.mu.Unlock()
							if !open {
								f.begin("BEGIN", "")
							}
						case 2:
							f.in()
							leased = false
						case 3:
							if !leased {
								f.out("")
							}
							leased = true
						case 4:
							time.Sleep(time.Duration(rng.IntN(10)) * time.Millisecond)
						}
					}
					f.mu.Lock()
					f.rollback()
					f.mu.Unlock()
					f.Close()
				}
			})
		}
		done := make(chan bool)
		var watcher sync.WaitGroup
		watcher.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					l.Stats()
					l.History()
					time.Sleep(time.Millisecond)
				}
			}
		})
		wg.Wait()
		close(done)
		watcher.Wait()
		synctest.Wait()
		if l.running() {
			t.Error("the reaper runs without connections")
		}
		p.Close()
		if s := l.Stats(); s.Created != 400 || s.TotalConnections != 0 || s.LeakedDetected == 0 {
			t.Errorf("%+v", s)
		}
		checkBalance(t, l.Stats(), 0)
	})
}

// A lease that begins with its connection is watched from its beginning, even
// if the reaper comes by at that moment and nothing ever runs on it.
func TestReaperSeesFirstLease(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(4*sec))
		l.queue.mu.Lock() // holds Open up where it tells that the connection is open
		var opening sync.WaitGroup
		opening.Go(func() { l.fakes = append(l.fakes, newFake(l, p, true)) })
		for seen := false; !seen; runtime.Gosched() {
			l.Tracker.mu.Lock()
			seen = len(l.conns) == 1 && l.conns[0].seen.known
			l.Tracker.mu.Unlock()
		}
		l.queue.mu.Unlock()
		opening.Wait()
		l.until(mins)
		if got := l.told(); len(got) != 1 || got[0] != "4s suspect connection leak_after #1" {
			t.Errorf("told %q", got)
		}
	})
}

// The same outside a bubble, with the machine's clock.
func TestReaperAddRemoveForReal(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Logger: quiet, Policy: limits(func(p *Policy) { p.LeakAfter, p.MaxIdle = 2*time.Millisecond, time.Millisecond })})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				c := owned{p.Open(still{}, true, "")}
				var r Resource
				c.OpenRows(&r, "SELECT 1", "")
				c.CloseResource(&r)
				c.CheckIn()
				c.Close()
			}
		})
	}
	wg.Wait()
	p.Close()
	noReaper(t)
	if s := tr.Stats(); s.Created != 4000 || s.TotalConnections != 0 {
		t.Errorf("%+v", s)
	}
}

// Whatever the limits, when things are opened, and how they are used: a limit
// is never met early, and late at most by a quarter of itself or one
// check_interval.
func TestNeverEarlyNeverLate(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 300 {
		leak := time.Duration(1+rng.IntN(600_000)) * time.Millisecond
		interval := time.Duration(1+rng.IntN(120_000)) * time.Millisecond
		tx := rng.IntN(2) == 0
		absolute := tx && rng.IntN(2) == 0
		policy := limits(func(p *Policy) {
			p.CheckInterval = interval
			if absolute {
				p.TxLimit = leak
			} else {
				p.LeakAfter = leak
			}
		})
		slack := max(min(leak/4, interval), time.Millisecond)
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, policy)
			f := l.open(p, true)
			l.sleep(time.Duration(rng.Int64N(int64(10 * leak))))
			if !absolute {
				f.touch()
			}
			l.told()
			opened := l.since()
			use := func() {}
			if tx {
				f.begin("BEGIN", "")
			} else {
				r := f.query("SELECT 1", "")
				use = r.Use
			}
			last := opened
			for range rng.IntN(4) {
				l.sleep(time.Duration(rng.Int64N(int64(leak * 3 / 4))))
				if l.since()-opened < leak {
					f.do(use)
					last = l.since()
				}
			}
			from := last
			if absolute {
				from = opened
			}
			l.sleep(3*leak + 3*interval)
			var suspect, reaped time.Duration = -1, -1
			for _, e := range l.History() {
				switch at := e.Time.Sub(l.start); {
				case e.Type == EventSuspect && e.Leak.Kind != KindConnection:
					suspect = at
				case e.Type == EventReaped:
					reaped = at
				}
			}
			if late := suspect - from - leak; suspect < 0 || late < 0 || late > slack+time.Millisecond {
				t.Errorf("seed %d, round %d: limit %v, check_interval %v: suspect %v late", seed, round, leak, interval, late)
			}
			want := suspect + slack + time.Millisecond
			if absolute {
				want = suspect
			}
			if reaped < suspect || reaped > want || !absolute && reaped == suspect {
				t.Errorf("seed %d, round %d: limit %v, check_interval %v: suspect at %v, reaped at %v", seed, round, leak, interval, suspect, reaped)
			}
		})
	}
}

// TestReaperPatience: the first look comes a moment after the first connection,
// and a pool that is opened and closed again and again sets nothing off.
func TestReaperPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		p := newPool(t, tr, PoolConfig{Logger: quiet, Policy: leakAfter(time.Minute)})
		looks := 0
		defer tr.AddDetector(func(Record) Reason { looks++; return "" })()
		for range 3 {
			p.Open(still{}, true, "").Close()
			time.Sleep(patience / 10)
			synctest.Wait()
		}
		if looks != 0 {
			t.Errorf("%d looks at connections that were closed at once", looks)
		}
		time.Sleep(time.Hour) // the timer fires, finds nothing and stays off
		synctest.Wait()
		tr.mu.Lock()
		if tr.reaper.armed || tr.reaper.running {
			t.Error("the reaper is armed with nothing to look at")
		}
		tr.mu.Unlock()

		c := p.Open(still{}, true, "")
		time.Sleep(patience)
		synctest.Wait()
		if looks != 1 {
			t.Errorf("%d looks after %v, want 1", looks, patience)
		}
		c.Close()
		c = p.Open(still{}, true, "") // while the timer is still armed
		tr.mu.Lock()
		wait := tr.reaper.wait
		tr.mu.Unlock()
		time.Sleep(wait)
		synctest.Wait()
		if looks != 2 {
			t.Errorf("%d looks after the next, want 2", looks)
		}
		c.Close()
		p.Close()
		tr.Close()
	})
}
