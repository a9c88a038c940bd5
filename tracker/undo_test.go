package tracker

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// whatHeld returns the id of what a connection holds of a kind.
func whatHeld(t testing.TB, f *fake, k Kind) uint64 {
	t.Helper()
	for _, h := range f.Pool().tracker.Held() {
		if h.ConnectionID == f.ID() && h.Kind == k {
			return h.Resource
		}
	}
	t.Fatalf("no %v is held", k)
	return 0
}

func TestUndo(t *testing.T) {
	for _, mode := range []Mode{Enforce, Observe, Basic} {
		for _, c := range []struct {
			name   string
			kind   Kind
			exempt string
			hold   func(f *fake)
			want   string // the order
		}{
			{"rows", KindRows, "", func(f *fake) { f.next(f.query("SELECT 1", "")) }, "rows operator"},
			{"exempt rows", KindRows, "import", func(f *fake) { f.query("SELECT 1", "import") }, "rows operator"},
			{"transaction", KindTransaction, "", func(f *fake) { f.begin("BEGIN", "") }, "transaction operator"},
			{"lease", KindConnection, "", func(f *fake) { f.query("SELECT 1", ""); f.begin("BEGIN", "") }, "lease operator"},
			{"exempt lease", KindConnection, "import", func(f *fake) { f.query("SELECT 1", "") }, "lease operator"},
			{"bare lease", KindConnection, "", func(f *fake) {}, "lease operator"},
		} {
			t.Run(mode.String()+" "+c.name, func(t *testing.T) {
				inBubble(t, func(l *lab) {
					p := l.pool(mode, leakAfter(5*mins))
					f := l.open(p, false)
					f.out(c.exempt)
					c.hold(f)
					if err := l.Undo(l.t.Context(), f.ID(), whatHeld(t, f, c.kind)); err != nil {
						t.Fatal(err)
					}
					given := f.given()
					if len(given) != 1 || !strings.Contains(given[0].String(), c.want) || given[0].out != Done {
						t.Fatalf("ordered %v", given)
					}
					if s := p.Stats(); s.Reaped == 0 || s.Reaped != s.LeakedDetected || s.LeakDetection.PotentiallyLeakedCount != 0 {
						t.Errorf("%d of %d reaped, %d open", s.Reaped, s.LeakedDetected, s.LeakDetection.PotentiallyLeakedCount)
					}
					for _, e := range l.LeakHistory() {
						if e.Reason != ReasonOperator || e.Leak.Exempt != c.exempt {
							t.Errorf("%+v", e)
						}
					}
					f.in()
					l.sleep(time.Minute)
					checkBalance(t, p.Stats(), 0)
				})
			})
		}
	}
}

// A suspect is undone for the operator, and stays the same leak.
func TestUndoSuspect(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Observe, leakAfter(5*mins)), true)
		f.query("SELECT 1", "")
		l.until(10 * time.Minute)
		l.expect("6m0s suspect rows leak_after #1")
		if err := l.Undo(l.t.Context(), f.ID(), whatHeld(t, f, KindRows)); err != nil {
			t.Fatal(err)
		}
		l.expect("10m0s reaped rows operator #1")
	})
}

func TestUndoErrors(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.prepare("SELECT 2")
		rows := f.query("SELECT 1", "")
		id := rows.ID()
		undo := func(name, want string) {
			t.Helper()
			if err := l.Undo(l.t.Context(), f.ID(), id); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
		f.enter()
		undo("busy", "an operation runs on its connection")
		f.leave()
		f.carry(func(o *Order) Outcome { f.next(rows); return f.drive(o) })
		undo("moves", "nothing was undone: it moved meanwhile")
		f.carry(nil)
		id = whatHeld(t, f, KindStatement)
		undo("statement", "it is a statement")
		id = 99
		undo("unknown", "nothing is held there any more")
		id = rows.ID()
		f.do(f.HandedOut)
		undo("raw", "the raw connection is in use")
		f.Lost()
		undo("lost", "only a restart frees it")
		if err := l.Undo(l.t.Context(), "db#9", 1); err == nil || !strings.Contains(err.Error(), "db#9: nothing is held") {
			t.Errorf("no such connection: %v", err)
		}
		l.Tracker.mu.Lock()
		if f.undoing {
			t.Error("still claimed")
		}
		l.Tracker.mu.Unlock()
	})
}

// Whoever asks for it may give up waiting; a second one is told, and it is finished.
func TestUndoTakesLong(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, leakAfter(5*mins)), true)
		id := f.query("SELECT 1", "").ID()
		entered, goOn := make(chan struct{}), make(chan struct{})
		var inside atomic.Int32
		var once sync.Once
		f.carry(func(o *Order) Outcome {
			if inside.Add(1) > 1 {
				t.Error("two orders are carried out at once")
			}
			defer inside.Add(-1)
			once.Do(func() { close(entered); <-goOn })
			return f.drive(o)
		})
		ctx, cancel := context.WithCancel(l.t.Context())
		var got error
		var wg sync.WaitGroup
		wg.Go(func() { got = l.Undo(ctx, f.ID(), id) })
		<-entered
		if err := l.Undo(l.t.Context(), f.ID(), id); !errors.Is(err, errUndoing) {
			t.Error(err)
		}
		if err := l.Spare(f.ID(), id, ""); !errors.Is(err, errUndoing) {
			t.Error(err)
		}
		f.Pending() // the reaper has an order, which waits for this one
		l.sleep(time.Minute)
		cancel()
		wg.Wait()
		if !errors.Is(got, context.Canceled) {
			t.Error(got)
		}
		close(goOn)
		synctest.Wait()
		if s := l.Stats(); s.Reaped != 1 {
			t.Errorf("%d reaped", s.Reaped)
		}
	})
}

// Undo beside the reaper, owners and other undoings: each leak ends once.
func TestUndoRace(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Policy: limits(func(p *Policy) {
		p.LeakAfter, p.CheckInterval = time.Millisecond, time.Millisecond
	}), Logger: quiet})
	l := &lab{t: t, Tracker: tr, start: time.Now()}
	var owners, operators sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		operators.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for i, h := range tr.Held() {
					if i%3 == 0 {
						tr.Spare(h.ConnectionID, h.Resource, "")
					} else {
						tr.Undo(context.Background(), h.ConnectionID, h.Resource)
					}
				}
			}
		})
	}
	for range 3 {
		owners.Go(func() {
			for range 300 {
				f := newFake(l, p, false)
				f.out("")
				f.query("SELECT 1", "")
				f.touch()
				f.in()
				f.Close()
			}
		})
	}
	owners.Wait()
	close(stop)
	operators.Wait()
	p.Close()
	tr.Close()
	checkBalance(t, tr.Stats(), 0)
}

// What is spared is reported with the reason, and no limit undoes it.
func TestSpare(t *testing.T) {
	for _, c := range []struct {
		name string
		kind Kind
		hold func(f *fake)
	}{
		{"rows", KindRows, func(f *fake) { f.query("SELECT 1", "") }},
		{"transaction", KindTransaction, func(f *fake) { f.begin("BEGIN", "") }},
		{"lease", KindConnection, func(f *fake) { f.query("SELECT 1", "") }},
		{"lease with a transaction", KindConnection, func(f *fake) { f.begin("BEGIN", "") }},
	} {
		for _, late := range []bool{false, true} { // a suspect by then
			inBubble(t, func(l *lab) {
				p := l.pool(Observe, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout = 5*mins, 10*mins }))
				f := l.open(p, true)
				c.hold(f)
				if late {
					l.sleep(11 * time.Minute)
				}
				if err := l.Spare(f.ID(), whatHeld(t, f, c.kind), "asked the owner"); err != nil {
					t.Fatal(err)
				}
				setMode(t, p, Enforce)
				l.sleep(24 * time.Hour)
				f.expectOrders()
				found := false
				for _, h := range l.Held() {
					found = found || h.Suspect != nil && h.Suspect.Exempt == "asked the owner" && h.Exempt == "asked the owner"
				}
				if !found {
					t.Errorf("%s, late %v: %+v", c.name, late, l.Held())
				}
				if got := changesTold(l.Tracker); len(got) < 1 || !strings.Contains(got[0], " is spared: asked the owner") {
					t.Errorf("%q", got)
				}
				// What is opened after it is no concern of it.
				f.in()
				f.dead = false
			})
		}
	}
	tr := New(Options{})
	if err := tr.Spare("db#1", 1, ""); err == nil || err.Error() != "tracker: Spare: db#1: nothing is held there any more" {
		t.Error(err)
	}
}
