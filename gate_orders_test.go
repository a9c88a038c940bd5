package leakguard

import (
	"context"
	"database/sql/driver"
	"runtime"
	"testing"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Orders that come at the wrong moment. Their steps are those of the reaper
// (Carry: it looks which transaction is open, places the order, marks the
// operation, looks again) and of the owner (leave, take, carryCondemned), called
// one by one in the order in which the scheduler could run them.

// stepping is go-sqlite3's connection with steps of others in the middle of its
// calls.
type stepping struct {
	sqliteConn
	// exec comes before each text; an error stands for the text's own.
	exec func(query string) error
	// next comes before each row that is read, with the rows' own.
	next func()
}

func (s *stepping) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if s.exec != nil {
		if err := s.exec(query); err != nil {
			return nil, err
		}
	}
	return s.sqliteConn.ExecContext(ctx, query, args)
}

func (s *stepping) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	opened, err := s.sqliteConn.QueryContext(ctx, query, args)
	if err != nil {
		return nil, err
	}
	return steppingRows{opened.(sqliteRows), s}, nil
}

type steppingRows struct {
	sqliteRows
	s *stepping
}

func (r steppingRows) Next(dest []driver.Value) error {
	if r.s.next != nil {
		r.s.next()
	}
	return r.sqliteRows.Next(dest)
}

// stepped opens a pool whose connections call the steps.
func stepped(t *testing.T, cfg Config) (*guarded, *stepping) {
	g := open(t, cfg)
	s := new(stepping)
	g.opening = func(c *conn) {
		s.sqliteConn = c.inner
		c.inner = s
	}
	return g, s
}

var errSteppedBusy = sqlite3.Error{Code: sqlite3.ErrBusy}

// lateOrder is an order for a transaction, with a leak whose end is counted.
func lateOrder(c *conn) *tracker.Order { return orderFor(c.txn.id) }

// wantReaped expects that so many leaks are called undone.
func wantReaped(t *testing.T, g *guarded, want uint64) {
	t.Helper()
	if n := g.connector.Stats().Reaped; n != want {
		t.Errorf("%d leaks are called reaped, want %d", n, want)
	}
}

// A transaction is found to be too old and is committed before its operation is
// marked: the mark meets one that has no part in it and gives up for a reason of
// its own, a lock. It says so; what was committed is not called undone.
func TestOrderAfterCommit(t *testing.T) {
	for name, test := range map[string]struct {
		begin, text string // how the transaction begins, and the operation
		commit      bool   // comes before the operation, not in it
		meets       string // the statement that is marked
	}{
		"the next statement":    {"BEGIN", "INSERT INTO t VALUES(2)", true, "INSERT INTO t VALUES(2)"},
		"the rest of the text":  {"BEGIN", "COMMIT; INSERT INTO t VALUES(2)", false, "INSERT INTO t VALUES(2)"},
		"the next transaction":  {"BEGIN", "BEGIN IMMEDIATE", true, "BEGIN IMMEDIATE"},
		"a savepoint's release": {"SAVEPOINT a", "RELEASE a; INSERT INTO t VALUES(2)", false, "INSERT INTO t VALUES(2)"},
	} {
		for _, again := range []bool{true, false} {
			if !again {
				name += ", before the second look"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				g, s := stepped(t, Config{})
				run(t, g, createT)
				sc := g.conn(t)
				run(t, sc, test.begin, "INSERT INTO t VALUES(1)")
				c := g.last()
				o := lateOrder(c)
				if c.rec.Transaction() != o.Resource { // the reaper's first look
					t.Fatal("not the open transaction")
				}
				if test.commit {
					run(t, sc, "COMMIT")
				}
				met := false
				s.exec = func(query string) error {
					if query != test.meets {
						return nil
					}
					met = true
					if !again { // the operation is over before the reaper looks again
						c.order.Store(o)
						c.gate.Condemn()
					} else if c.condemn(o) {
						t.Error("condemned for a transaction that is over")
					}
					return errSteppedBusy
				}
				if err := try(sc, test.text); err != errSteppedBusy {
					t.Errorf("%s: %v, want the statement's own error", test.text, err)
				}
				s.exec = nil
				if !met {
					t.Error("not the case that was meant")
				}
				if c.order.Load() != nil {
					t.Error("the order is still in its place")
				}
				wantReaped(t, g, 0)
				run(t, sc, "BEGIN IMMEDIATE", "INSERT INTO t VALUES(3)", "COMMIT")
				if n := g.rows(t); n != 2 {
					t.Errorf("%d rows, want 2", n)
				}
			})
		}
	}
}

// What the third case of carryCondemned is for: the COMMIT itself gives up for
// the order, and its transaction is gone.
func TestOrderStopsCommit(t *testing.T) {
	t.Parallel()
	g := open(t, Config{DSN: fileDSN(t, "_journal_mode=DELETE", "_busy_timeout=20000")})
	run(t, g, createT)
	tx := g.begin(t)
	run(t, tx, "INSERT INTO t VALUES(1)")
	c := g.last()
	reader := g.conn(t) // its shared lock keeps the COMMIT waiting
	rows := query(t, reader, "SELECT 1 FROM sqlite_schema")
	o := lateOrder(c)
	done := make(chan error, 1)
	go func() { done <- tx.Commit() }()
	for !c.gate.Has(gate.Busy) {
		runtime.Gosched() // it has not begun
	}
	if out := (control{weakOf(c)}).Carry(o); out != tracker.Condemned {
		t.Errorf("Carry: %v, want Condemned", out)
	}
	wantErr(t, "Commit", <-done, ErrReaped)
	wantReaped(t, g, 1)
	rows.Close()
	if n := g.rows(t); n != 0 {
		t.Errorf("%d rows, want none", n)
	}
}

// An order that was taken back leaves its mark on the operation in flight. That
// one can be condemned all the same, by an order that means it.
func TestOrderBehindAStaleMark(t *testing.T) {
	t.Parallel()
	g, s := stepped(t, Config{})
	run(t, g, createT)
	sc := g.conn(t)
	run(t, sc, "BEGIN")
	c := g.last()
	stale := lateOrder(c)
	run(t, sc, "COMMIT", "BEGIN", "INSERT INTO t VALUES(1)")
	s.exec = func(string) error {
		if c.condemn(stale) {
			t.Error("condemned for a transaction that is over")
		}
		if !c.gate.Has(gate.Condemned) {
			t.Error("no mark: not the case that was meant")
		}
		if out := (control{weakOf(c)}).Carry(lateOrder(c)); out != tracker.Condemned {
			t.Errorf("Carry of the order that means it: %v, want Condemned", out)
		}
		return nil
	}
	wantErr(t, "INSERT", try(sc, "INSERT INTO t VALUES(2)"), ErrReaped)
	s.exec = nil
	wantReaped(t, g, 1)
	wantErr(t, "ROLLBACK", try(sc, "ROLLBACK"), nil)
}

// While the reaper looks again, a nudge for an earlier order on the connection
// does not stop the operation for this one: it could end the transaction by that,
// and the order would be taken back.
func TestNudgeBeforeTheSecondLook(t *testing.T) {
	t.Parallel()
	sit := newCounting()
	g := open(t, Config{SQLite: sit.driver()})
	run(t, g, createT)
	sc := g.conn(t)
	run(t, sc, "BEGIN")
	c := g.last()
	o := lateOrder(c)
	done := make(chan error, 1)
	go func() { done <- try(sc, "INSERT INTO t "+sitting) }()
	<-sit.inside
	if !c.order.CompareAndSwap(nil, o) || !c.gate.Condemn() {
		t.Error("not condemned")
	}
	if !(control{weakOf(c)}).Nudge() {
		t.Error("Nudge: false: not the case that was meant")
	}
	if !c.order.CompareAndSwap(o, nil) { // the reaper finds another transaction, say
		t.Error("the order is gone")
	}
	sit.goOn <- struct{}{}
	select { // the second row
	case <-sit.inside:
		sit.goOn <- struct{}{}
		wantErr(t, "INSERT", <-done, nil)
	case err := <-done:
		t.Errorf("INSERT: %v", err)
	}
	run(t, sc, "COMMIT")
	if n := g.rows(t); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// The owner takes the order while the reaper looks again, and finds it void: the
// reaper does not settle it a second time.
func TestOrderTakenMeanwhile(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	sc := g.conn(t)
	run(t, sc, "BEGIN")
	c := g.last()
	o := lateOrder(c)
	run(t, sc, "COMMIT")
	if f := c.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	c.rec.Record() // while the owner writes, nobody looks
	left := make(chan bool)
	go func() { left <- c.condemn(o) }()
	for !c.gate.Has(gate.Condemned) {
		runtime.Gosched()
	}
	c.gate.Clear(gate.Condemned)
	if c.order.Swap(nil) != o {
		t.Error("no order behind the mark")
	}
	c.rec.Recorded()
	if !<-left {
		t.Error("the reaper says that the order is void, and the owner has it")
	}
	c.gate.Leave()
}

// The owner has taken the mark and not yet the order when a second order comes:
// neither pushes the other out, and each is settled once.
func TestOrderBehindTheMark(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	sc := g.conn(t)
	run(t, sc, "BEGIN", "INSERT INTO t VALUES(1)")
	c := g.last()
	first, second := lateOrder(c), lateOrder(c)
	if f := c.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	if !c.condemn(first) {
		t.Fatal("not condemned")
	}
	if c.gate.Leave() || c.gate.Take(gate.Condemned) != gate.Condemned {
		t.Fatal("not marked")
	}
	if c.condemn(second) {
		t.Error("a second order took the place of the first")
	}
	wantErr(t, "the operation", c.carryCondemned(nil), ErrReaped)
	if !c.gate.Leave() { // no mark is left behind
		c.gate.Take(gate.Condemned)
		c.carryCondemned(nil)
		c.gate.Leave()
	}
	wantReaped(t, g, 1) // the first one's
	wantErr(t, "ROLLBACK", try(sc, "ROLLBACK"), nil)
}

// The connection is handed out raw while an order condemns that very operation:
// the order is void, and nothing of it sticks to the rows that are open.
func TestOrderBesideRaw(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	inTx(t, c)
	rows, err := c.Query("SELECT i FROM "+eleven, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := c.enterRaw()
	k := control{weakOf(c)}
	if out := k.Carry(lateOrder(c)); out != tracker.Condemned {
		t.Errorf("Carry: %v: not the case that was meant", out)
	}
	k.Nudge()
	c.handOut(f)
	if c.order.Load() != nil {
		t.Error("the order is still in its place")
	}
	stillCommits(t, c)
	if err := drain(rows); err != nil {
		t.Errorf("the rows: %v", err)
	}
	rows.Close()
}

// The raw connection comes back from a program that met an error there which rolled
// its transaction back. What asks SQLite whether it did is not stopped by an order for
// that transaction: without an answer the guard would take it for committed.
func TestOrderAtTheEndOfRaw(t *testing.T) {
	t.Parallel()
	g, s := stepped(t, Config{})
	run(t, g, createT, "INSERT INTO t VALUES(1)", "BEGIN", "INSERT INTO t VALUES('first half')")
	sc := g.conn(t)
	c := g.last()
	o := lateOrder(c)
	c.Raw()
	g.opening = nil
	abort := func() {
		_, err := s.sqliteConn.ExecContext(background, "INSERT OR ROLLBACK INTO t VALUES(1)", nil)
		wantCode(t, "in Raw", err, sqlite3.ErrConstraint)
	}
	abort()
	run(t, g.conn(t), "INSERT INTO t VALUES(10)") // the page cache of the other goes
	ok(s.sqliteConn.ExecContext(background, "SELECT count(*) FROM t", nil))
	abort()
	asked := false
	s.next = func() {
		asked = true
		if out := (control{weak.Make(c)}).Carry(o); out != tracker.Void {
			t.Errorf("the order's outcome is %v, want %v", out, tracker.Void)
		}
	}
	check(sc.Close())
	s.next = nil
	if !asked {
		t.Error("SQLite was not asked")
	}
	wantErr(t, "the second half", try(g, "INSERT INTO t VALUES('second half')"), ErrTxAborted)
}
