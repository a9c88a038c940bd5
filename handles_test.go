//go:build cgo

package leakguard

import (
	"bytes"
	"database/sql/driver"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Handles of rows and statements are used again; whoever still has a closed one does
// not reach what has its handle now.

// bareConn is a connection of either driver without database/sql.
type bareConn interface {
	driver.Conn
	driver.QueryerContext
	driver.ExecerContext
}

// eachDriver opens a connection of each driver.
func eachDriver(t *testing.T, f func(t *testing.T, c bareConn)) {
	t.Helper()
	for name, d := range map[string]driver.Driver{"go-sqlite3": new(sqlite3.SQLiteDriver), "guard": new(Driver)} {
		t.Run(name, func(t *testing.T) {
			c, err := d.Open(fileDSN(t))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			f(t, c.(bareConn))
		})
	}
}

func mustDo(t testing.TB, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// must returns v.
func must[T any](v T, err error) func(t testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		mustDo(t, err)
		return v
	}
}

// readOne reads one row of one column.
func readOne(t testing.TB, rows driver.Rows) driver.Value {
	t.Helper()
	row := make([]driver.Value, 1)
	mustDo(t, rows.Next(row))
	return row[0]
}

// numbers reads what is left of rows of one column.
func numbers(t testing.TB, rows driver.Rows) (all []int64) {
	t.Helper()
	row := make([]driver.Value, 1)
	for {
		switch err := rows.Next(row); err {
		case nil:
			all = append(all, row[0].(int64))
		case io.EOF:
			return all
		default:
			t.Fatal(err)
		}
	}
}

// closedRows expects that closed rows answer as such.
func closedRows(t testing.TB, r driver.Rows) {
	t.Helper()
	row := []driver.Value{"untouched"}
	if err := r.Next(row); err != io.EOF || row[0] != "untouched" {
		t.Errorf("Next of closed rows: %v, %v", row[0], err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close of closed rows: %v", err)
	}
	if own, ok := r.(*rows); ok {
		if n := len(own.Columns()); n != 0 {
			t.Errorf("%d columns of closed rows", n)
		}
		if own.ColumnTypeDatabaseTypeName(0) != "" {
			t.Error("closed rows describe themselves")
		}
	}
}

// Rows of a text, of a text that is kept, and of a statement are closed, and closed
// again by a defer while the next ones are read.
func TestClosedRowsDoNotReachTheirSuccessor(t *testing.T) {
	const numbered = "SELECT i FROM " + three
	ways := map[string]func(t *testing.T, c bareConn) func() driver.Rows{
		"text": func(t *testing.T, c bareConn) func() driver.Rows {
			n := 0
			return func() driver.Rows {
				n++ // none comes twice, so none is kept
				return must(c.QueryContext(background, fmt.Sprintf("%s -- %d", numbered, n), nil))(t)
			}
		},
		"kept text": func(t *testing.T, c bareConn) func() driver.Rows {
			query := func() driver.Rows { return must(c.QueryContext(background, numbered, nil))(t) }
			for range 3 {
				mustDo(t, query().Close())
			}
			return query
		},
		"statement": func(t *testing.T, c bareConn) func() driver.Rows {
			s := must(c.Prepare(numbered))(t).(driver.StmtQueryContext)
			return func() driver.Rows { return must(s.QueryContext(background, nil))(t) }
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, c bareConn) {
				query := way(t, c)
				old := query()
				var h *rowsHandle
				if own, ok := old.(*rows); ok {
					h = own.h.Load()
				}
				readOne(t, old)
				mustDo(t, old.Close())
				closedRows(t, old)
				for range 2 { // before and behind the first row
					next := query()
					if own, ok := next.(*rows); ok && own.h.Load() != h {
						t.Fatal("the handle is not used again: not the case that was meant")
					}
					closedRows(t, old)
					if own, ok := old.(*rows); ok { // found open just before it was closed
						wantErr(t, "enter", own.enter(h), io.EOF)
					}
					if n := readOne(t, next); n != int64(1) {
						t.Errorf("the first row is %v", n)
					}
					closedRows(t, old)
					if all := numbers(t, next); !slices.Equal(all, []int64{2, 3}) {
						t.Errorf("then come %v", all)
					}
					mustDo(t, next.Close())
					closedRows(t, old)
					closedRows(t, next)
				}
			})
		})
	}
}

// The same for statements. Of go-sqlite3, a closed one that is used panics.
func TestClosedStatementsDoNotReachTheirSuccessor(t *testing.T) {
	eachDriver(t, func(t *testing.T, c bareConn) {
		must(c.ExecContext(background, createT, nil))(t)
		old := must(c.Prepare("INSERT INTO t VALUES(?)"))(t)
		var h *stmtHandle
		if own, ok := old.(*stmt); ok {
			h = own.h.Load()
		}
		must(old.(driver.StmtExecContext).ExecContext(background, named([]driver.Value{int64(1)})))(t)
		mustDo(t, old.Close())
		next := must(c.Prepare("SELECT a FROM t WHERE a < ?1 OR a > ?2"))(t)
		if own, ok := next.(*stmt); ok {
			if own.h.Load() != h {
				t.Fatal("the handle is not used again: not the case that was meant")
			}
			for what, err := range map[string]error{
				"Exec":                  second(old.Exec([]driver.Value{int64(7)})),
				"Query":                 second(old.Query([]driver.Value{int64(7)})),
				"entered just as it is": second(old.(*stmt).enter(background, h)),
			} {
				if err != errStmtClosed {
					t.Errorf("%s of a closed statement: %v", what, err)
				}
			}
		}
		if n := old.NumInput(); n != 1 {
			t.Errorf("NumInput of a closed statement: %d", n)
		}
		wantErr(t, "Close of a closed statement", old.Close(), nil)
		rows := must(next.Query([]driver.Value{int64(5), int64(9)}))(t)
		wantErr(t, "Close of a closed statement", old.Close(), nil)
		if all := numbers(t, rows); !slices.Equal(all, []int64{1}) {
			t.Errorf("the successor finds %v", all)
		}
		mustDo(t, rows.Close(), next.Close(), next.Close())
	})
}

// What was given up by the guard is closed once more by its owner, and again.
func TestClosedHandlesOfWhatWasReaped(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	old := must(c.Query("SELECT i FROM "+three, nil))(t)
	oldStmt := must(c.Prepare("SELECT i FROM " + three))(t)
	oldRows := must(oldStmt.Query(nil))(t)
	if f := c.gate.Enter(); f != 0 {
		t.Fatalf("flags %#x", f)
	}
	c.killRows(ErrReaped)
	c.finalize(oldStmt.(*stmt).h.Load().st)
	c.leave(nil)
	for _, r := range []driver.Rows{old, oldRows} {
		wantErr(t, "Next", r.Next(make([]driver.Value, 1)), ErrReaped)
		wantErr(t, "Close", r.Close(), nil)
	}
	wantErr(t, "Exec", second(oldStmt.Exec(nil)), errStmtClosed)
	wantErr(t, "Close", oldStmt.Close(), nil)
	next, other := must(c.Query("SELECT i FROM "+three, nil))(t), must(c.Query("SELECT i FROM "+eleven, nil))(t)
	stmt := must(c.Prepare("SELECT i FROM " + three))(t)
	for range 2 {
		closedRows(t, old)
		closedRows(t, oldRows)
		wantErr(t, "Close", oldStmt.Close(), nil)
	}
	if n := len(numbers(t, next)) + len(numbers(t, other)) + len(numbers(t, must(stmt.Query(nil))(t))); n != 17 {
		t.Errorf("%d rows, want 17", n)
	}
}

// More handles than are kept: those beyond go to the collector, and one that is closed
// again is not kept twice.
func TestClosedHandlesBeyondTheFreeList(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	var old []driver.Rows
	var stmts []driver.Stmt
	for range maxFree + 3 {
		old = append(old, must(c.Query("SELECT i FROM "+three, nil))(t))
		stmts = append(stmts, must(c.Prepare("SELECT 1"))(t))
	}
	for range 2 {
		for i := range old {
			mustDo(t, old[i].Close(), stmts[i].Close())
		}
		if n, m := len(c.freeRows), len(c.freeStmts); n != maxFree || m != maxFree {
			t.Fatalf("%d and %d handles are kept, want %d", n, m, maxFree)
		}
	}
	seen := make(map[any]bool)
	for range old {
		r, s := must(c.Query("SELECT i FROM "+three, nil))(t).(*rows), must(c.Prepare("SELECT 1"))(t).(*stmt)
		if seen[r.h.Load()] || seen[s.h.Load()] {
			t.Fatal("one handle was handed out twice")
		}
		seen[r.h.Load()], seen[s.h.Load()] = true, true
		closedRows(t, old[0])
		mustDo(t, stmts[0].Close())
		if all := numbers(t, r); len(all) != 3 {
			t.Errorf("rows %v", all)
		}
		wantErr(t, "Exec", second(s.Exec(nil)), nil)
	}
}

// Closed rows and statements that somebody keeps do not keep their successors from
// being proven.
func TestClosedHandlesDoNotHinderTheProof(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	g.giveUp(t)
	c := must(g.connector.Connect(background))(t).(*conn)
	t.Cleanup(func() { c.Close() })
	old, oldStmt := must(c.Query("SELECT i FROM "+three, nil))(t), must(c.Prepare("SELECT 1"))(t)
	h, hs := weak.Make(old.(*rows).h.Load()), weak.Make(oldStmt.(*stmt).h.Load())
	mustDo(t, old.Close(), oldStmt.Close())
	func() {
		r, s := must(c.Query("SELECT i FROM "+eleven, nil))(t), must(c.Prepare("SELECT 2"))(t)
		if h.Value() != r.(*rows).h.Load() || hs.Value() != s.(*stmt).h.Load() {
			t.Fatal("the handles are not used again: not the case that was meant")
		}
	}()
	collect(t, "rows and statement proven", func() bool { return len(g.events(tracker.EventProven)) == 2 })
	closedRows(t, old)
	wantErr(t, "Close", oldStmt.Close(), nil)
	next := must(c.Query("SELECT i FROM "+three, nil))(t)
	closedRows(t, old)
	if all := numbers(t, next); len(all) != 3 {
		t.Errorf("rows %v", all)
	}
	mustDo(t, next.Close())
}

// A statement that is closed while the reaper is inside is handed over. It is closed
// from then on, and no leak, though nothing but what was handed over leads to it.
func TestHandedOverStatementIsClosed(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Mode: tracker.Basic}) // no reaper takes it
	c := must(g.connector.Connect(background))(t).(*conn)
	t.Cleanup(func() { c.Close() })
	h := func() weak.Pointer[stmtHandle] {
		s := must(c.Prepare("SELECT 1"))(t)
		h := s.(*stmt).h.Load()
		if !c.gate.Try() {
			t.Fatal("the gate is taken")
		}
		wantErr(t, "Close", s.Close(), nil)
		wantErr(t, "Close again", s.Close(), nil)
		wantErr(t, "Exec", second(s.Exec(nil)), errStmtClosed)
		c.gate.Release()
		return weak.Make(h)
	}()
	for range 3 {
		runtime.GC()
	}
	if h.Value() == nil {
		t.Error("what was handed over does not hold the handle")
	}
	if n := len(c.handed); n != 1 {
		t.Errorf("%d things were handed over, want 1", n)
	}
	mustDo(t, c.ResetSession(background))
	if n, m := len(c.stmts), len(c.freeStmts); n != 0 || m != 1 {
		t.Errorf("%d statements are open and %d handles kept, want 0 and 1", n, m)
	}
	g.expect(t, leakEvents)
}

// A second Close from another goroutine does not get in the way of the successor, nor
// the successor in its.
func TestSecondCloseBesideTheSuccessor(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, c bareConn) {
		old, oldStmt := must(c.QueryContext(background, "SELECT 1", nil))(t), must(c.Prepare("SELECT 1"))(t)
		mustDo(t, old.Close(), oldStmt.Close())
		var closers sync.WaitGroup
		over := make(chan struct{})
		for range 2 {
			closers.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						if err := old.Close(); err != nil {
							t.Errorf("Close: %v", err)
						}
						if err := oldStmt.Close(); err != nil {
							t.Errorf("Close of the statement: %v", err)
						}
					}
				}
			})
		}
		for range 300 {
			s := must(c.Prepare("SELECT i FROM " + eleven))(t)
			r := must(s.Query(nil))(t)
			if all := numbers(t, r); len(all) != 11 {
				t.Errorf("rows %v", all)
			}
			mustDo(t, r.Close(), s.Close())
		}
		close(over)
		closers.Wait()
	})
}

// Several close the same rows at once, all of them held up at the gate behind the
// moment at which they found the rows open. One closes, and the handle is kept once.
func TestRowsClosedAtOnce(t *testing.T) {
	t.Parallel()
	for range 50 {
		c := drive(t, Config{Mode: tracker.Basic}) // no reaper comes by
		r, s := must(c.Query("SELECT 1", nil))(t), must(c.Prepare("SELECT 1"))(t)
		if !c.gate.Try() {
			t.Fatal("the gate is taken")
		}
		var closers sync.WaitGroup
		for range 3 {
			closers.Go(func() {
				if err := r.Close(); err != nil && err != errBusy {
					t.Errorf("Close: %v", err)
				}
			})
			closers.Go(func() { s.Close() })
		}
		waitFor(t, "all wait at the gate", func() bool { return waitingAtGate(c) >= 3 })
		c.gate.Release()
		closers.Wait()
		mustDo(t, c.ResetSession(background), r.Close(), s.Close())
		if n, m := len(c.freeRows), len(c.freeStmts); n != 1 || m != 1 {
			t.Fatalf("%d and %d handles are kept, want one each", n, m)
		}
		if n := len(c.rows) + len(c.stmts); n != 0 {
			t.Fatalf("%d are open", n)
		}
		mustDo(t, c.Close())
	}
}

// waitFor waits for a state that nobody tells of.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
	}
}

// waitingAtGate returns how many goroutines wait in enterSlow of the connection's gate.
func waitingAtGate(c *conn) int {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	return bytes.Count(stacks, fmt.Appendf(nil, "(*Gate).enterSlow(%p", &c.gate))
}
