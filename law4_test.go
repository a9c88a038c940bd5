package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 4: no waiting on SQLite in the reaper.

// order is what the reaper would want done to a connection.
func order(scope tracker.Scope, resource uint64) *tracker.Order {
	return &tracker.Order{
		Scope: scope, Resource: resource, Reason: tracker.ReasonTxTimeout, Absolute: true,
		Leaks: []*tracker.Leak{{Kind: tracker.KindTransaction, Reason: tracker.ReasonTxTimeout, Limit: time.Minute}},
	}
}

// A pass of the reaper over a connection that runs a query for ever is short,
// and the query ends when its transaction has timed out.
func TestReaperDoesNotWaitForAQuery(t *testing.T) {
	t.Parallel()
	started := make(chan struct{})
	g := open(t, Config{SQLite: funcs(map[string]any{"started": func() int { close(started); return 0 }})})
	run(t, g, createT)
	tx := g.begin(t)
	failed := make(chan error, 1)
	go func() {
		failed <- tx.QueryRow(strings.Replace(endless, "SELECT 1", "SELECT started()", 1)).Scan(new(int))
	}()
	<-started
	c := g.last()
	k := control{weak.Make(c)}
	for name, pass := range map[string]func(){
		"Look": func() {
			if k.Look(func() { t.Error("the gate is free") }) {
				t.Error("Look: true")
			}
		},
		"rows":    func() { k.Carry(order(tracker.ScopeRows, 1)) },
		"lease":   func() { k.Carry(order(tracker.ScopeLease, 0)) },
		"give up": func() { k.Carry(order(tracker.ScopeGiveUp, 0)) },
		"release": func() { k.Carry(order(tracker.ScopeRelease, 0)) },
		"proven":  func() { k.Carry(order(tracker.ScopeProven, 0)) },
		"stats":   func() { g.connector.Stats(); g.connector.tracker.Records() },
	} {
		best := time.Hour // the machine may have other things to do
		for range 5 {
			begin := time.Now()
			over := make(chan struct{})
			go func() {
				defer close(over)
				pass()
			}()
			select {
			case <-over:
			case <-time.After(10 * time.Second):
				c.db().Interrupt() // it waits for the query: have an end
				<-over
			}
			best = min(best, time.Since(begin))
		}
		if best > time.Second {
			t.Errorf("%s took %v", name, best)
		}
	}
	select {
	case err := <-failed:
		t.Fatalf("the query ended: %v", err)
	default:
	}
	// Nor does condemning wait: the query may go on until it is nudged.
	if out := k.Carry(order(tracker.ScopeTransaction, c.txn.id)); out != tracker.Condemned {
		t.Errorf("Carry: %v, want Condemned", out)
	}
	for k.Nudge() {
		runtime.Gosched()
	}
	wantErr(t, "the query", <-failed, ErrReaped)
	wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(1)"), ErrReaped)
	wantErr(t, "Rollback", tx.Rollback(), nil)
}

// The whole of it in real time: nothing but limits.
func TestQueryForEverIsReaped(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Policy: txLimit(50 * time.Millisecond)})
	run(t, g, createT)
	for _, text := range []string{endless, "INSERT INTO t " + endless + " -- a write"} {
		tx := g.begin(t)
		wantErr(t, text, try(tx, text), ErrReaped)
		wantErr(t, "Commit", tx.Commit(), ErrReaped)
	}
	g.untouched(t)
}

// While a statement sits in a Go function and cannot be interrupted, the reaper
// goes on with the others.
func TestReaperGoesOnBesideAStuckStatement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) {
			p.TxLimit, p.LeakAfter = 5*time.Second, 5*time.Second
		}), SQLite: pausing()})
		run(t, g, createT)
		tx := g.begin(t)
		failed := make(chan error, 1)
		go func() { failed <- try(tx, "SELECT pause(60) FROM "+three) }()
		sleep(time.Second)
		rows := query(t, g, "SELECT i FROM "+eleven)
		sleep(20 * time.Second)
		cut(t, rows, ErrReaped)
		if s := g.connector.Stats(); !slices.ContainsFunc(s.ActiveConnectionDetails, func(d tracker.ConnectionDetail) bool { return d.State == "busy" }) {
			t.Error("the statement is over: not the case that was meant")
		}
		wantErr(t, "the statement", <-failed, ErrReaped)
	})
}

// Connections that share a cache share its mutex too: while one of them is
// inside SQLite, none of them is touched.
func TestSharedCacheIsOneGate(t *testing.T) {
	t.Parallel()
	g := open(t, Config{DSN: "file:law4a?mode=memory&cache=shared"})
	run(t, g, createT)
	a, b := g.conn(t), g.conn(t)
	run(t, b, "BEGIN")
	var inner []*conn
	for _, c := range []*sql.Conn{a, b} {
		c.Raw(func(dc any) error { inner = append(inner, dc.(*conn)); return nil })
	}
	first, second := inner[0], inner[1]
	if first.gate.Shared() == nil || first.gate.Shared() != second.gate.Shared() {
		t.Fatal("they have no gate in common")
	}
	if f := first.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	k := control{weak.Make(second)}
	if out := k.Carry(order(tracker.ScopeTransaction, second.txn.id)); out != tracker.Void {
		t.Errorf("Carry beside a busy neighbour: %v, want Void", out)
	}
	if k.Look(func() {}) {
		t.Error("Look beside a busy neighbour: true")
	}
	if !first.gate.Leave() {
		t.Fatal("condemned")
	}
	if out := k.Carry(order(tracker.ScopeTransaction, second.txn.id)); out != tracker.Done {
		t.Errorf("Carry later: %v, want Done", out)
	}
	wantErr(t, "SELECT", try(b, "SELECT 1"), ErrReaped)
	wantErr(t, "ROLLBACK", try(b, "ROLLBACK"), nil)
}

// The same from outside: the neighbour's leak is undone when the statement is
// over, and not before.
func TestSharedCacheIsUndoneLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{
			DSN: "file:law4b?mode=memory&cache=shared", Policy: leakAfter(time.Minute), SQLite: pausing(),
		})
		run(t, g, createT)
		tx := g.begin(t)
		run(t, tx, "SELECT 1")
		done := make(chan error, 1)
		go func() { done <- try(g, "SELECT pause(600)") }()
		sleep(5 * time.Minute)
		g.expect(t, leakEvents, "suspect transaction leak_after")
		wantErr(t, "the statement", <-done, nil)
		sleep(2 * time.Minute)
		g.expect(t, []tracker.EventType{tracker.EventReaped}, "reaped transaction leak_after")
		wantErr(t, "SELECT", try(tx, "SELECT 1"), ErrReaped)
	})
}

// A Go function that panics leaves SQLite's mutex locked. The panic reaches the
// caller; nobody touches the connection again, the finalizers of go-sqlite3
// included, which would hang all finalizers of the process.
func TestPanicInsideSQLite(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	var armed, ready atomic.Bool
	hard := limits(func(p *tracker.Policy) {
		p.LeakAfter, p.TxTimeout, p.MaxIdle = time.Millisecond, time.Millisecond, time.Millisecond
	})
	g := open(t, Config{
		Policy: limits(nil),
		SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
			c.RegisterCommitHook(func() int {
				if armed.Swap(false) {
					panic("boom")
				}
				return 0
			})
			_, err := c.Exec("CREATE TEMP TABLE x AS SELECT 1 AS i", nil) // writing it locks no file
			return errors.Join(err,
				c.RegisterFunc("boom", func(...int) int { panic("boom") }, false),
				c.RegisterFunc("ready", func() int {
					if ready.Swap(false) {
						panic("boom")
					}
					return 1
				}, false),
				c.RegisterFunc("exit", func() int { runtime.Goexit(); return 0 }, false))
		}},
	})
	g.giveUp(t)
	run(t, g, createT)
	g.limit(t, hard)
	panics := func(f func()) (recovered any) {
		defer func() { recovered = recover() }()
		f()
		return nil
	}
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	ways := map[string]func(){
		"exec":  func() { try(g, "SELECT boom()") },
		"query": func() { g.QueryRow("SELECT boom()").Scan(new(int)) },
		"stmt": func() {
			s := prepare(t, g, "SELECT boom()")
			s.Exec()
		},
		"stmt query": func() {
			s := prepare(t, g, "SELECT boom()")
			s.Query()
		},
		"stmt exec": func() {
			s := prepare(t, g, "DELETE FROM x WHERE boom()")
			s.Exec()
		},
		"kept text": func() {
			const update = "UPDATE x SET i = i+1 WHERE ready()"
			g.limit(t, limits(nil)) // the work before the panic may take its time
			defer g.limit(t, hard)
			sc := g.conn(t)          // idle ones are closed at once
			g.last().texts.on = true // the function could come by sqlite3_auto_extension
			for range 3 {
				run(t, sc, update)
			}
			if !slices.ContainsFunc(g.conns, func(c *conn) bool {
				return slices.ContainsFunc(c.texts.list, func(kept *text) bool { return kept.query == update })
			}) {
				t.Error("the text is not kept: not the case that was meant")
			}
			ready.Store(true)
			try(sc, update)
		},
		"stmt next": func() {
			s := prepare(t, g, "SELECT CASE i WHEN 2 THEN boom() END FROM "+three)
			rows, _ := s.Query()
			for rows.Next() {
			}
		},
		"next": func() {
			rows, _ := g.Query("SELECT CASE i WHEN 2 THEN boom() END FROM " + three)
			for rows.Next() {
			}
		},
		"tx": func() {
			try(g.begin(t), "SELECT boom()")
		},
		"watched": func() { // for so long that somebody attends to its ctx
			g.QueryRowContext(ctx, "SELECT boom(i) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 1000000) SELECT count(*) AS i FROM n)").Scan(new(int))
		},
	}
	want := len(ways) + 2
	for name, f := range ways {
		if r := panics(f); r != "boom" {
			t.Errorf("%s: recovered %v, want the function's own panic", name, r)
		}
	}
	commit := func() { // the last one: it leaves the write lock behind
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		armed.Store(true)
		tx.Commit()
	}
	if r := panics(commit); r != "boom" {
		t.Errorf("commit: recovered %v, want the hook's own panic", r)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		try(g, "SELECT exit()")
	}()
	<-ended
	reports := func() (n int) {
		for _, e := range g.events(tracker.EventSuspect) {
			if e.Reason == tracker.ReasonPanic {
				n++
				if !strings.Contains(e.Leak.String(), "never came back from SQLite") {
					t.Errorf("the report: %v", e.Leak)
				}
			}
		}
		return n
	}
	for deadline := time.Now().Add(20 * time.Second); reports() < want && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if n := reports(); n != want {
		t.Errorf("%d connections reported as lost, want %d", n, want)
	}
	run(t, g, "SELECT 1")
	wantErr(t, "Close", g.Close(), nil)

	finalized := make(chan struct{})
	runtime.SetFinalizer(&struct{ p *int }{new(int)}, func(any) { close(finalized) })
	deadline := time.After(20 * time.Second)
	for round := 0; ; round++ {
		runtime.GC()
		select {
		case <-finalized:
			if round < 20 { // the lost ones' turn has come by then
				finalized = make(chan struct{})
				now := finalized
				runtime.SetFinalizer(&struct{ p *int }{new(int)}, func(any) { close(now) })
				continue
			}
			return
		case <-time.After(10 * time.Millisecond):
		case <-deadline:
			stacks := make([]byte, 1<<20)
			t.Fatalf("finalizers do not run any more\n%s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// On a connection that two goroutines use, or that is lost, nothing waits.
func TestBusyConnectionAnswersAtOnce(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	s, err := c.Prepare("SELECT ?")
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Query("SELECT i FROM "+eleven, nil)
	if err != nil {
		t.Fatal(err)
	}
	own := r.(*rows)
	if err := r.Next(make([]driver.Value, 1)); err != nil {
		t.Fatal(err)
	}
	tx, err := c.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if f := c.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	for name, err := range map[string]error{
		"Exec":      second(c.Exec("SELECT 1", nil)),
		"Query":     second(c.Query("SELECT 1", nil)),
		"Prepare":   second(c.Prepare("SELECT 1")),
		"Begin":     second(c.Begin()),
		"Ping":      c.Ping(background),
		"Commit":    tx.Commit(),
		"Rollback":  tx.Rollback(),
		"StmtExec":  second(s.Exec([]driver.Value{int64(1)})),
		"StmtQuery": second(s.Query([]driver.Value{int64(1)})),
		"StmtClose": s.Close(),
		"Next":      r.Next(make([]driver.Value, 1)),
		"RowsClose": r.Close(),
	} {
		if err != errBusy {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.ResetSession(background); err != driver.ErrBadConn {
		t.Errorf("ResetSession: %v", err)
	}
	if own.ColumnTypeDatabaseTypeName(0) != "" {
		t.Error("the rows describe themselves")
	}
	if inner, ok := SQLiteConn(c); !ok || inner == nil {
		t.Error("SQLiteConn") // the program's own business
	}
	if c.IsValid() {
		t.Error("IsValid")
	}
	if !c.gate.Leave() {
		t.Error("condemned")
	}
}

// A lost connection is given up, not closed: that would wait for ever.
func TestLostConnectionIsNotClosed(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	inner := &failing{sqliteConn: c.inner}
	c.inner = inner
	if f := c.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	c.lose()
	wantErr(t, "Close", c.Close(), nil)
	if inner.closed.Load() {
		t.Error("the handle was closed")
	}
	if n := c.connector.Stats().TotalConnections; n != 0 {
		t.Errorf("%d connections are watched", n)
	}
	wantErr(t, "the real Close", inner.sqliteConn.Close(), nil)
}

func second[T any](_ T, err error) error { return err }

// database/sql closes statements with the lock of the whole sql.DB held: that
// does not wait for a reaper that is inside.
func TestStmtCloseDoesNotWait(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	sc := g.conn(t)
	s := prepare(t, sc, "SELECT 1")
	c := g.last()
	if !c.gate.Try() {
		t.Fatal("the gate is taken")
	}
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		wantErr(t, "Close", err, nil)
	case <-time.After(20 * time.Second):
		t.Error("Close waits for the reaper")
		c.gate.Release()
		<-closed
		return
	}
	if open, _, _ := c.db().OpenStatements(); open != 1 {
		t.Errorf("%d statements open, want 1: the reaper is inside", open)
	}
	c.gate.Release()
	sc.Close() // check-in is the next to be inside
	if open, _, _ := c.db().OpenStatements(); open != 0 || len(c.stmts) != 0 {
		t.Errorf("%d statements open, want 0", open)
	}
}

// The reaper takes what was handed over, if nobody else comes by.
func TestHandedOverIsClosedByTheReaper(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Hour)})
		sc := g.conn(t)
		s := prepare(t, sc, "SELECT 1")
		c := g.last()
		if !c.gate.Try() {
			t.Fatal("the gate is taken")
		}
		wantErr(t, "Close", s.Close(), nil)
		c.gate.Release()
		sleep(time.Minute)
		if open, _, _ := c.db().OpenStatements(); open != 0 {
			t.Errorf("%d statements open, want 0", open)
		}
	})
}

// Closing can take half a second; the reaper does not wait for it, and whoever
// gets the connection meanwhile takes another.
func TestClosingDoesNotHoldUpTheReaper(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) {
			p.MaxIdle, p.LeakAfter, p.Expire = time.Minute, time.Minute, tracker.Close
		})})
		run(t, g, createT)
		c := g.last()
		closing := make(chan struct{})
		if !c.gate.Try() {
			t.Fatal("the gate is taken")
		}
		c.inner = &failing{sqliteConn: c.inner, closing: closing}
		c.gate.Release()
		sleep(3 * time.Minute)
		g.expect(t, []tracker.EventType{tracker.EventRecycled}, "recycled max_idle")
		if err := c.ResetSession(background); err != driver.ErrBadConn {
			t.Errorf("ResetSession meanwhile: %v", err)
		}
		rows := query(t, g, "SELECT i FROM "+eleven)
		sleep(3 * time.Minute)
		cut(t, rows, ErrReaped)
		if n := g.opened(); n != 2 {
			t.Errorf("%d connections were opened, want a second one", n)
		}
		close(closing)
	})
}

// A Go hook of the program runs under the reaper's ROLLBACK. Its panic ends
// neither the process nor the reaper.
func TestHookPanicsUnderTheReaper(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	var armed atomic.Bool
	g := open(t, Config{
		Policy: limits(nil),
		SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
			c.RegisterRollbackHook(func() {
				if armed.Swap(false) {
					panic("hook")
				}
			})
			return nil
		}},
	})
	run(t, g, createT)
	tx := g.begin(t)
	run(t, tx, "INSERT INTO t VALUES(1)")
	armed.Store(true)
	g.limit(t, txTimeout(20*time.Millisecond))
	for g.wait(t, tracker.EventSuspect); !slices.ContainsFunc(g.events(tracker.EventSuspect), func(e tracker.Event) bool {
		return e.Reason == tracker.ReasonPanic
	}); {
		runtime.Gosched()
	}
	if err := try(tx, "INSERT INTO t VALUES(2)"); err != errBusy {
		t.Errorf("INSERT: %v", err)
	}
	if err := tx.Commit(); err != errBusy {
		t.Errorf("Commit: %v", err)
	}
	other := g.begin(t) // the reaper lives on
	g.wait(t, tracker.EventReaped)
	wantErr(t, "SELECT", try(other, "SELECT 1"), ErrReaped)
}
