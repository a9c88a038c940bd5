package leakguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 8: the tracker pins nothing, so that garbage collection can prove what
// nobody can close any more.

//go:noinline
func abandonRows(t *testing.T, on execer, q string) {
	rows, err := on.QueryContext(background, q)
	if err != nil {
		t.Fatal(err)
	}
	rows.Next()
}

//go:noinline
func abandonUnread(t *testing.T, on execer, q string) {
	if _, err := on.QueryContext(background, q); err != nil {
		t.Fatal(err)
	}
}

//go:noinline
func abandonStmt(t *testing.T, on execer, q string) {
	if _, err := on.PrepareContext(background, q); err != nil {
		t.Fatal(err)
	}
}

func (g *guarded) proven() bool { return len(g.events(tracker.EventProven)) > 0 }

// Rows that were dropped end at the next collection, whatever the limits. Those
// of a sql.Stmt stay in reach of the sql.DB, so for them age rules.
func TestAbandonedRowsAreProven(t *testing.T) {
	for name, open1 := range map[string]func(t *testing.T, g *guarded){
		"db":   func(t *testing.T, g *guarded) { abandonRows(t, g, "SELECT a FROM t") },
		"conn": func(t *testing.T, g *guarded) { abandonRows(t, g.held(t), "SELECT a FROM t") },
		"row":  func(t *testing.T, g *guarded) { g.QueryRow("SELECT a FROM t").Err() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := open(t, Config{Policy: leakAfter(time.Hour)})
			run(t, g, createT, "INSERT INTO t SELECT i FROM "+eleven)
			g.giveUp(t)
			open1(t, g)
			run(t, g, "INSERT INTO t VALUES(100)") // behind their snapshot
			if g.outside(t, "PRAGMA wal_checkpoint(TRUNCATE)") != 1 {
				t.Fatal("the abandoned rows are in nobody's way: not the case that was meant")
			}
			collect(t, "proof", g.proven)
			g.expect(t, leakEvents, "proven rows proven", "reaped rows proven")
			leak := g.events(tracker.EventProven)[0].Leak
			if site := leak.Site().String(); !strings.Contains(site, "_test.go:") || leak.Query != "SELECT a FROM t" {
				t.Errorf("the report: %v", leak)
			}
			g.checkpoint(t)
			if n := g.Stats().InUse; n != 1 {
				t.Errorf("%d connections in use, want 1: nobody can give the slot back", n)
			}
			if s := g.connector.Stats(); s.Proven != 1 || s.Reaped != 1 || s.LeakedDetected != 1 || s.OpenRows != 0 {
				t.Errorf("proven %d, reaped %d, detected %d, open %d", s.Proven, s.Reaped, s.LeakedDetected, s.OpenRows)
			}
		})
	}
}

// twoAtOnce leaves no sql.Rows to anybody: closed ones lead to the handle, too.
//
//go:noinline
func twoAtOnce(t *testing.T, on execer) {
	a, err := on.QueryContext(background, "SELECT a FROM t")
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := on.QueryContext(background, "SELECT a FROM t")
	if err != nil {
		t.Fatal(err)
	}
	b.Close()
}

// The same on a connection that had two result sets at once before: nothing of that
// leads to the handles of later ones, nor to what dead ones have read.
func TestAbandonedRowsBehindTwoAtOnce(t *testing.T) {
	if !alone(t) { // it weighs the heap
		return
	}
	g := open(t, Config{Policy: limits(func(p *tracker.Policy) {
		p.LeakAfter, p.CheckInterval = time.Hour, 20*time.Millisecond // for proofs that meet each other
	})})
	run(t, g, createT, "INSERT INTO t SELECT i FROM "+eleven)
	used, fresh := g.held(t), g.held(t)
	twoAtOnce(t, used)
	const size = 50 << 20
	for range 2 {
		abandonRows(t, used, "SELECT a FROM t")
		abandonUnread(t, fresh, fmt.Sprint("SELECT zeroblob(", size, ")"))
	}
	collect(t, "proof of all", func() bool { return len(g.events(tracker.EventReaped)) == 4 })
	collect(t, "what they have read", func() bool {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc < size
	})
	runtime.KeepAlive(g)
}

// A statement that was dropped is finalized.
func TestAbandonedStatementIsProven(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	c := g.conn(t)
	abandonStmt(t, c, "SELECT a FROM t")
	collect(t, "proof", g.proven)
	g.expect(t, leakEvents, "proven statement proven", "reaped statement proven")
	own := g.last()
	if !own.gate.Try() {
		t.Fatal("the gate is taken")
	}
	if left, _, _ := own.db().OpenStatements(); left != 0 || len(own.stmts) != 0 {
		t.Errorf("%d statements are open", left)
	}
	own.gate.Release()
	run(t, c, "SELECT 1")
}

// The gate is taken when the proof comes: whoever is next inside does it.
func TestProofWaitsForTheGate(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Policy: limits(func(p *tracker.Policy) {
		p.LeakAfter, p.CheckInterval = time.Hour, 20*time.Millisecond
	})})
	run(t, g, createT, "INSERT INTO t VALUES(1)")
	c := g.held(t)
	abandonRows(t, c, "SELECT a FROM t")
	abandonStmt(t, c, "SELECT a FROM t")
	own := g.last()
	if !own.gate.Try() {
		t.Fatal("the gate is taken")
	}
	collect(t, "hand over", func() bool {
		own.handMu.Lock()
		defer own.handMu.Unlock()
		return len(own.handed) == 2
	})
	if g.proven() {
		t.Error("undone beside somebody inside")
	}
	own.gate.Release()
	g.wait(t, tracker.EventProven) // the reaper comes back; check-in would do as well
	collect(t, "both", func() bool { return len(g.events(tracker.EventProven)) == 2 })
	if s := g.connector.Stats(); s.Proven != 2 || s.OpenRows != 0 || s.OpenStatements != 0 {
		t.Errorf("proven %d, open %d rows and %d statements", s.Proven, s.OpenRows, s.OpenStatements)
	}
}

// In a bubble the cleanup runs outside, where nothing of the tracker's may be
// touched: the reaper inside does the work.
func TestProofInABubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Hour)})
		run(t, g, createT, "INSERT INTO t VALUES(1)")
		c := g.held(t)
		abandonRows(t, c, "SELECT a FROM t")
		own := g.last()
		collect(t, "hand over", func() bool {
			own.handMu.Lock()
			defer own.handMu.Unlock()
			return len(own.handed) == 1
		})
		g.expect(t, leakEvents)
		sleep(time.Minute)
		g.expect(t, leakEvents, "proven rows proven", "reaped rows proven")
		g.checkpoint(t)
	})
}

// What is closed is never reported, however often there is a collection.
func TestClosedIsNeverProven(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Policy: leakAfter(time.Hour)})
	run(t, g, createT, "INSERT INTO t SELECT i FROM "+eleven)
	stmt := prepare(t, g, "SELECT a FROM t WHERE a=?")
	for i := range 2500 {
		if i%250 == 0 {
			runtime.GC()
		}
		rows, err := g.Query("SELECT a FROM t")
		if err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			readAll(rows)
		}
		rows.Close()
		var n int
		if err := stmt.QueryRow(1).Scan(&n); err != nil {
			t.Fatal(err)
		}
		number(t, g, "SELECT count(*) FROM t")
		ctx, cancel := context.WithCancel(background)
		if err := g.QueryRowContext(ctx, "SELECT 1").Scan(&n); err != nil {
			t.Fatal(err)
		}
		cancel()
		once, err := g.Prepare("SELECT 1")
		if err != nil {
			t.Fatal(err)
		}
		once.Close()
	}
	// More than are kept for the next: the others are collected, closed.
	c := g.conn(t)
	for range 3 {
		var many []io.Closer // not by query and prepare, which hold on to them
		for range 2 * maxFree {
			rows, err1 := c.QueryContext(background, "SELECT a FROM t")
			s, err2 := c.PrepareContext(background, "SELECT 1")
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			many = append(many, rows, s)
		}
		for _, c := range many {
			c.Close()
		}
		for range 5 {
			runtime.GC()
		}
	}
	run(t, c, "SELECT 1")
	g.expect(t, leakEvents)
	if s := g.connector.Stats(); s.LeakedDetected != 0 || s.OpenRows != 0 {
		t.Errorf("%d leaks, %d rows open", s.LeakedDetected, s.OpenRows)
	}
}

//go:noinline
func dropConn(t *testing.T, g *guarded) (weak.Pointer[conn], *tracker.Conn) {
	opened, err := g.connector.Connect(background)
	if err != nil {
		t.Fatal(err)
	}
	c := opened.(*conn)
	if _, err := c.Exec("CREATE TABLE IF NOT EXISTS x(a)", nil); err != nil {
		t.Fatal(err)
	}
	return weak.Make(c), c.rec
}

// A driver connection that is dropped without Close is collected, although the
// tracker has its record. (Its file stays open: go-sqlite3 keeps its own part
// for ever.) Then the record goes too, and the reaper with it.
func TestDroppedConnectionIsCollected(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Policy: leakAfter(time.Hour)})
	ref, rec := dropConn(t, g)
	defer rec.Close() // in case that it stays
	if n := g.connector.Stats().TotalConnections; n != 1 {
		t.Fatalf("%d connections, want 1", n)
	}
	collect(t, "the connection", func() bool { return ref.Value() == nil })
	k := control{ref}
	if k.Look(func() {}) || k.Nudge() || k.Carry(order(tracker.ScopeLease, 0)) != tracker.Void {
		t.Error("the reaper reaches what is gone")
	}
	gone := false
	for range 100 {
		runtime.GC()
		if gone = g.connector.Stats().TotalConnections == 0; gone {
			break
		}
	}
	if !gone {
		t.Error("the record of a connection that is gone stays, and keeps the reaper alive")
	}
}

// A handle whose operation was condemned is closed, not left to the collector,
// who would report it as the program's leak.
func TestCondemnedPrepareLeavesNothing(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	if _, err := c.Begin(); err != nil {
		t.Fatal(err)
	}
	if f := c.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	c.order.Store(order(tracker.ScopeTransaction, c.txn.id))
	c.gate.Condemn() // whoever leaves next carries the order out
	c.gate.Clear(gate.Busy)
	s, err := c.Prepare("SELECT 1")
	if s != nil {
		t.Error("a statement beside an error")
	}
	wantErr(t, "Prepare", err, ErrReaped)
	if n := len(c.stmts); n != 0 {
		t.Errorf("%d statements are open that nobody can close", n)
	}
}

// Rows of a connection are handles from a free list; a closed one is used again.
func TestHandlesAreUsedAgain(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	seen := make(map[*rowsHandle]bool)
	for range 100 {
		r, err := c.Query("SELECT 1", nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[r.(*rows).h.Load()] = true
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := c.Prepare("SELECT 1")
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	if len(seen) != 1 {
		t.Errorf("%d handles for one at a time", len(seen))
	}
	var many []*rows
	for range 20 {
		r, err := c.Query("SELECT 1", nil)
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, r.(*rows))
	}
	for _, r := range many {
		r.Close()
	}
	if n := len(c.freeRows); n != maxFree {
		t.Errorf("%d handles are kept, want %d", n, maxFree)
	}
}
