package leakguard

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 5: an interrupt hits only the operation it was meant for. The gate alone
// is tested in gate_test.go.

// counting is a statement whose end is in the test's hands: it sits in a Go
// function until told to go on, and ends well unless it was interrupted.
type counting struct {
	inside, goOn chan struct{}
}

func newCounting() *counting { return &counting{make(chan struct{}), make(chan struct{})} }

func (c *counting) driver() *sqlite3.SQLiteDriver {
	return funcs(map[string]any{"sit": func() int {
		c.inside <- struct{}{}
		<-c.goOn
		return 1
	}})
}

const sitting = "SELECT sum(sit()+i) FROM (SELECT 1 AS i UNION ALL SELECT 2)"

// A decision about one operation arrives when another one is running.
func TestLateOrderHitsNobody(t *testing.T) {
	for name, test := range map[string]struct {
		end, begin []string // of the transaction meant, and before the operation
		raw        bool     // the transaction goes on, on a connection that is the program's now
	}{
		"autocommit":          {[]string{"COMMIT"}, nil, false},
		"another transaction": {[]string{"ROLLBACK"}, []string{"BEGIN"}, false},
		"raw":                 {nil, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sit := newCounting()
			g := open(t, Config{SQLite: sit.driver()})
			run(t, g, createT)
			c := g.conn(t)
			run(t, c, "BEGIN")
			own := g.last()
			late := order(tracker.ScopeTransaction, own.txn.id)
			run(t, c, test.end...)
			run(t, c, test.begin...)
			if test.raw {
				own.Raw()
			}
			done := make(chan error, 1)
			go func() { done <- try(c, "INSERT INTO t "+sitting) }()
			<-sit.inside
			k := control{weak.Make(own)}
			if out := k.Carry(late); out != tracker.Void {
				t.Errorf("Carry: %v, want Void", out)
			}
			if k.Nudge() {
				t.Error("Nudge: true")
			}
			// The other one was running still when Carry looked, and no more when it
			// condemned what runs. The order is taken back: were it left to this
			// operation, one that gave up by itself would be called undone (see
			// TestOrderAfterCommit). What the raw connection is in is not known, so
			// there it is left, and void.
			if own.condemn(late) != test.raw {
				t.Errorf("condemned: %v, want %v", !test.raw, test.raw)
			}
			if !k.Nudge() {
				t.Error("no mark: not the case that was meant")
			}
			sit.goOn <- struct{}{}
			select { // the second row
			case <-sit.inside:
				sit.goOn <- struct{}{}
				wantErr(t, "the operation that nobody meant", <-done, nil)
			case err := <-done:
				t.Errorf("the operation that nobody meant: %v", err)
			}
			if test.begin != nil || test.raw {
				run(t, c, "COMMIT")
			}
			if n := g.rows(t); n != 1 {
				t.Errorf("%d rows, want 1", n)
			}
		})
	}
}

// Condemned, over, and the next one runs: a late nudge does nothing to it.
func TestLateNudgeHitsNobody(t *testing.T) {
	t.Parallel()
	sit := newCounting()
	g := open(t, Config{SQLite: sit.driver()})
	run(t, g, createT)
	c := g.conn(t)
	run(t, c, "BEGIN")
	own := g.last()
	k := control{weak.Make(own)}
	done := make(chan error, 1)
	go func() { done <- try(c, sitting) }()
	<-sit.inside
	if out := k.Carry(order(tracker.ScopeTransaction, own.txn.id)); out != tracker.Condemned {
		t.Fatalf("Carry: %v, want Condemned", out)
	}
	if !k.Nudge() {
		t.Error("Nudge of the condemned: false")
	}
	// A second order finds it condemned.
	if out := k.Carry(order(tracker.ScopeTransaction, own.txn.id)); out != tracker.Void {
		t.Errorf("Carry again: %v, want Void", out)
	}
	sit.goOn <- struct{}{}
	wantErr(t, "the condemned operation", <-done, ErrReaped)
	if k.Nudge() {
		t.Error("Nudge of what is over: true")
	}
	run(t, c, "ROLLBACK")
	go func() { done <- try(c, sitting) }()
	for range 2 {
		<-sit.inside
		if k.Nudge() {
			t.Error("Nudge of the next one: true")
		}
		sit.goOn <- struct{}{}
	}
	wantErr(t, "the next one", <-done, nil)
}

// Interrupted in a transaction with open rows: the same connection works again
// at once, though every statement that was active keeps an interrupt alive.
func TestNoInterruptSticks(t *testing.T) {
	for name, test := range map[string]struct{ text string }{
		"read":  {"SELECT pause(15) FROM " + three},
		"write": {"INSERT INTO t SELECT pause(15) FROM " + three},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: txLimit(10 * time.Second), SQLite: pausing()})
				run(t, g, createT)
				c := g.conn(t)
				stmt := prepare(t, c, "SELECT i FROM "+eleven)
				before := query(t, c, "SELECT i FROM "+eleven)
				run(t, c, "BEGIN")
				inside, prepared := query(t, c, "SELECT i FROM "+eleven), started(t, stmt)
				wantErr(t, test.text, try(c, test.text), ErrReaped)
				wantErr(t, "ROLLBACK", try(c, "ROLLBACK"), nil)
				run(t, c, "SELECT 1", "BEGIN", "INSERT INTO t VALUES(1)", "COMMIT")
				cut(t, inside, ErrReaped)
				cut(t, prepared, ErrReaped)
				if before.Next() { // either way, but not a clean end
					t.Log("the rows from before go on")
				} else if before.Err() == nil {
					t.Error("the rows from before look complete")
				}
				started(t, stmt)
				if g.opened() != 1 {
					t.Errorf("%d connections were opened, want 1", g.opened())
				}
			})
		})
	}
}

// The COMMIT of a condemned transaction succeeds beside open rows.
func TestNoInterruptSticksBehindCommit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var h committing
		g := open(t, Config{Policy: txLimit(time.Minute), SQLite: h.driver()})
		run(t, g, createT)
		c := g.conn(t)
		rows := query(t, c, "SELECT i FROM "+eleven)
		run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
		h.arm(g.last())
		wantErr(t, "COMMIT", try(c, "COMMIT"), nil)
		run(t, c, "SELECT 1", "INSERT INTO t VALUES(2)")
		if err := readAll(rows); err != nil {
			wantErr(t, "the rows", err, ErrReaped)
		}
		if n := g.rows(t); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
	})
}

// Other connections' suspended rows and running statements do not notice.
func TestInterruptStaysOnItsConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txLimit(10 * time.Second), SQLite: pausing()})
		run(t, g, createT)
		suspended := query(t, g, "SELECT i FROM "+eleven)
		running := make(chan error, 1)
		go func() { running <- try(g, "SELECT sum(pause(10)+i) FROM "+three) }()
		sleep(time.Second)
		tx := g.begin(t)
		wantErr(t, "the condemned", try(tx, "INSERT INTO t SELECT pause(15) FROM "+three), ErrReaped)
		wantErr(t, "the running one", <-running, nil)
		n := 1
		for suspended.Next() {
			n++
		}
		if suspended.Err() != nil || n != 11 {
			t.Errorf("the suspended rows: %d, %v", n, suspended.Err())
		}
	})
}

// An idle transaction with suspended rows is undone without any interrupt.
func TestSuspendedRowsAreReset(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute)})
		run(t, g, createT)
		c := g.conn(t)
		run(t, c, "BEGIN")
		rows := query(t, c, "SELECT i FROM "+eleven)
		sleep(2 * time.Minute)
		if _, active, _ := g.last().db().OpenStatements(); active != 0 {
			t.Errorf("%d statements are active behind the reaper", active)
		}
		wantErr(t, "ROLLBACK", try(c, "ROLLBACK"), nil)
		run(t, c, "SELECT 1", "INSERT INTO t VALUES(1)")
		cut(t, rows, ErrReaped)
	})
}

// An interrupt that is on its way when the owner begins to carry the order out
// must not hit the owner's ROLLBACK.
func TestRollbackWaitsForTheInterrupt(t *testing.T) {
	t.Parallel()
	var rolledBack atomic.Bool
	g := open(t, Config{SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		c.RegisterRollbackHook(func() { rolledBack.Store(true) })
		return nil
	}}})
	run(t, g, createT)
	sc := g.conn(t)
	run(t, sc, "BEGIN", "INSERT INTO t VALUES(1)")
	c := g.last()
	if f := c.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	if !c.condemn(order(tracker.ScopeTransaction, c.txn.id)) {
		t.Fatal("not condemned")
	}
	if c.gate.Leave() {
		t.Fatal("left")
	}
	c.gate.Set(gate.Interrupt) // a nudge begins here, between leave and what leave asks for
	done := make(chan error, 1)
	go func() {
		c.gate.Take(gate.Condemned | gate.Stopped | gate.Attended)
		err := c.carryCondemned(nil)
		c.gate.Leave()
		done <- err
	}()
	for begin := time.Now(); time.Since(begin) < 50*time.Millisecond && !rolledBack.Load(); {
		runtime.Gosched()
	}
	if rolledBack.Load() {
		t.Error("ROLLBACK ran while an interrupt was being sent")
	}
	c.gate.Clear(gate.Interrupt)
	wantErr(t, "carryCondemned", <-done, ErrReaped)
	wantErr(t, "ROLLBACK", try(sc, "ROLLBACK"), nil)
}

// The program's own cancellation is no reaping.
func TestCancelledIsNotReaped(t *testing.T) {
	t.Parallel()
	var stop atomic.Pointer[context.CancelFunc]
	g := open(t, Config{SQLite: stopping(&stop)})
	for range 3 {
		ctx, cancel := context.WithCancel(background)
		stop.Store(&cancel)
		rows, err := g.QueryContext(ctx, "WITH RECURSIVE n(i) AS (SELECT stop(1) UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n")
		if err == nil {
			err = readAll(rows)
		}
		if err != context.Canceled {
			t.Errorf("%v (%T), want context.Canceled itself", err, err)
		}
		run(t, g, "SELECT 1")
	}
	if n := g.opened(); n != 1 {
		t.Errorf("%d connections were opened, want 1", n)
	}
}
