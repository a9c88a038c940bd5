package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 1: a half transaction never commits, and a committed one is never called
// failed.

// work is a transaction with everything that can be open in it.
type work struct {
	g      *guarded
	tx     *sql.Tx
	inTx   *sql.Stmt // prepared in the transaction
	before *sql.Stmt // prepared before it
	rows   *sql.Rows
}

const insertT = "INSERT INTO t VALUES(?)"

// newWork begins a transaction that has inserted 100.
func newWork(t *testing.T, g *guarded) *work {
	t.Helper()
	return newWorkContext(t, g, background)
}

func newWorkContext(t *testing.T, g *guarded, ctx context.Context) *work {
	t.Helper()
	before := prepare(t, g, insertT)
	tx, err := g.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	w := &work{g: g, tx: tx, before: tx.Stmt(before), inTx: prepare(t, tx, insertT)}
	if _, err := w.inTx.Exec(100); err != nil {
		t.Fatal(err)
	}
	w.rows = query(t, tx, "SELECT i FROM "+three)
	return w
}

// over expects that nothing of the transaction works any more, and that each
// answer passes is.
func (w *work) over(t *testing.T, is func(error) bool) {
	t.Helper()
	check := func(what string, err error) {
		t.Helper()
		if !is(err) {
			t.Errorf("%s: %v (%T)", what, err, err)
		}
	}
	if w.rows.Next() {
		t.Error("the rows go on")
	}
	check("rows.Err", w.rows.Err())
	check("tx.Exec", try(w.tx, insertT, 101))
	_, err := w.tx.Query("SELECT * FROM t")
	check("tx.Query", err)
	_, err = w.tx.Query("INSERT INTO t VALUES(102) RETURNING a")
	check("tx.Query of a write", err)
	check("tx.QueryRow", w.tx.QueryRow("SELECT 1").Scan(new(int)))
	_, err = w.tx.Prepare(insertT)
	check("tx.Prepare", err)
	_, err = w.inTx.Exec(103)
	check("Exec of a statement prepared in it", err)
	_, err = w.inTx.Query(104)
	check("Query of a statement prepared in it", err)
	_, err = w.before.Exec(105)
	check("Exec of a statement prepared before it", err)
	_, err = w.before.Query(106)
	check("Query of a statement prepared before it", err)
	for _, text := range []string{
		"COMMIT", "/* the */ END TRANSACTION;", "BEGIN", "BEGIN; INSERT INTO t VALUES(107); COMMIT",
		"SAVEPOINT s", "RELEASE s", "ROLLBACK TO s", "INSERT INTO t VALUES(108); ROLLBACK",
		"PRAGMA user_version=9", "CREATE TABLE half(a)", "SELECT 1; INSERT INTO t VALUES(109)", "",
	} {
		check(text, try(w.tx, text))
	}
}

func isReaped(err error) bool {
	var e *ReapedError
	return errors.Is(err, ErrReaped) && errors.As(err, &e) && !errors.Is(err, ErrTxAborted)
}

// untouched expects that nothing of newWork and over reached the database, that
// the pool still has its first connection, and that it works.
func (g *guarded) untouched(t *testing.T) {
	t.Helper()
	if n := g.outside(t, "SELECT count(*) FROM t WHERE a >= 100"); n != 0 {
		t.Errorf("%d rows of the transaction are in the database", n)
	}
	if n := g.outside(t, "PRAGMA user_version"); n != 0 {
		t.Errorf("user_version is %d", n)
	}
	if n := g.outside(t, "SELECT count(*) FROM sqlite_schema WHERE name='half'"); n != 0 {
		t.Error("a table of the transaction is in the database")
	}
	run(t, g, "INSERT INTO t VALUES(1000)")
	if n := g.outside(t, "SELECT count(*) FROM t WHERE a=1000"); n != 1 {
		t.Errorf("the next insert: %d rows, want 1", n)
	}
	if n := g.opened(); n != 1 {
		t.Errorf("%d connections were opened, want 1", n)
	}
	if n := g.Stats().InUse; n != 0 {
		t.Errorf("%d connections in use, want 0", n)
	}
}

// An idle transaction is rolled back by tx_timeout.
func TestReapedTransaction(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, tx *sql.Tx, cancel func()){
		"commit": func(t *testing.T, tx *sql.Tx, _ func()) {
			wantErr(t, "Commit", tx.Commit(), ErrReaped)
			wantErr(t, "Commit again", tx.Commit(), sql.ErrTxDone)
		},
		"rollback": func(t *testing.T, tx *sql.Tx, _ func()) {
			wantErr(t, "Rollback", tx.Rollback(), nil)
			wantErr(t, "Rollback again", tx.Rollback(), sql.ErrTxDone)
		},
		"text": func(t *testing.T, tx *sql.Tx, _ func()) {
			wantErr(t, "ROLLBACK", try(tx, " rollback transaction ;"), nil)
			if err := tx.Rollback(); err == nil || !strings.Contains(err.Error(), "no transaction is active") {
				t.Errorf("Rollback behind the program's own ROLLBACK: %v", err)
			}
		},
		"cancel": func(t *testing.T, tx *sql.Tx, cancel func()) {
			cancel()
			sleep(time.Second)
			wantErr(t, "Commit", tx.Commit(), sql.ErrTxDone)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: txTimeout(time.Minute)})
				run(t, g, createT)
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				w := newWorkContext(t, g, ctx)
				sleep(2 * time.Minute)
				g.expect(t, leakEvents, "suspect transaction tx_timeout", "reaped transaction tx_timeout")
				w.over(t, isReaped)
				end(t, w.tx, cancel)
				g.untouched(t)
			})
		})
	}
}

// The error tells a person what was undone, when, why and where it was opened.
func TestReapedErrorNamesTheHolder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(10 * time.Minute)})
		tx := g.begin(t) // the line that the error names
		sleep(20 * time.Minute)
		err := try(tx, "SELECT 1")
		var reaped *ReapedError
		if !errors.As(err, &reaped) {
			t.Fatalf("%v (%T)", err, err)
		}
		frames := reaped.Leak.Stack.Frames()
		if len(frames) == 0 || !strings.Contains(err.Error(), reaped.Leak.Site().String()) ||
			!strings.Contains(err.Error(), "/fixture_test.go:") || // begin there
			!strings.HasPrefix(err.Error(), "leakguard: transaction rolled back after 1") ||
			!strings.Contains(err.Error(), "(tx_timeout 10m): opened at ") {
			t.Errorf("the error says: %v", err)
		}
		if reaped.Leak.Limit != 10*time.Minute || reaped.After < 10*time.Minute || reaped.After > 15*time.Minute {
			t.Errorf("limit %v, after %v", reaped.Leak.Limit, reaped.After)
		}
	})
}

// A lease that is forgotten with its transaction goes as a whole, and its file
// with it; the transaction still ends as one that the guard rolled back.
func TestReapedLease(t *testing.T) {
	for name, end := range map[string]func(*sql.Tx) error{
		"commit":   (*sql.Tx).Commit,
		"rollback": (*sql.Tx).Rollback,
		"text":     func(tx *sql.Tx) error { return errors.Join(try(tx, "ROLLBACK"), try(tx, "SELECT 1"), tx.Rollback()) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: leakAfter(time.Minute)})
				run(t, g, createT)
				w := newWork(t, g)
				sleep(3 * time.Minute)
				w.over(t, isReaped)
				var want error
				if name != "rollback" {
					want = ErrReaped
				}
				wantErr(t, "the end", end(w.tx), want)
				if n := g.rows(t); n != 0 {
					t.Errorf("%d rows in the database", n)
				}
				run(t, g, "INSERT INTO t VALUES(1)")
				if n := g.opened(); n != 2 {
					t.Errorf("%d connections were opened, want a second one", n)
				}
			})
		})
	}
}

// committing is a driver whose commits wait until the reaper has condemned the
// operation, once arm was called, and are vetoed if veto is set.
type committing struct {
	word atomic.Pointer[gate.Word]
	veto bool
}

func (h *committing) driver() *sqlite3.SQLiteDriver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		c.RegisterCommitHook(func() int {
			word := h.word.Swap(nil)
			if word == nil {
				return 0
			}
			for word.Load()&gate.Condemned == 0 {
				time.Sleep(time.Second)
			}
			if h.veto {
				return 1
			}
			return 0
		})
		return nil
	}}
}

func (h *committing) arm(c *conn) { h.word.Store(c.rec.Word()) }

// The transaction is beyond its limit, and its COMMIT succeeded all the same.
func TestCommitVoidsTheVerdict(t *testing.T) {
	for name, test := range map[string]struct {
		begin, commit func(t *testing.T, g *guarded, c *sql.Conn) error
	}{
		"tx": {
			commit: func(t *testing.T, g *guarded, c *sql.Conn) error {
				tx, err := c.BeginTx(background, nil)
				if err != nil {
					return err
				}
				run(t, tx, "INSERT INTO t VALUES(1)")
				return tx.Commit()
			},
		},
		"text": {
			commit: func(t *testing.T, g *guarded, c *sql.Conn) error {
				run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
				return try(c, "COMMIT")
			},
		},
		"text that goes on": { // with what nobody meant
			commit: func(t *testing.T, g *guarded, c *sql.Conn) error {
				run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
				return try(c, "COMMIT; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 100000) SELECT count(*) FROM n")
			},
		},
		"prepared": {
			commit: func(t *testing.T, g *guarded, c *sql.Conn) error {
				commit := prepare(t, c, "COMMIT")
				run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
				_, err := commit.Exec()
				return err
			},
		},
		"savepoint": {
			commit: func(t *testing.T, g *guarded, c *sql.Conn) error {
				run(t, c, "SAVEPOINT s", "INSERT INTO t VALUES(1)")
				return try(c, "RELEASE s")
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var h committing
				g := open(t, Config{Policy: txLimit(time.Minute), SQLite: h.driver()})
				run(t, g, createT)
				c := g.conn(t)
				h.arm(g.last())
				wantErr(t, "COMMIT", test.commit(t, g, c), nil)
				sleep(5 * time.Minute)
				if n := g.rows(t); n != 1 {
					t.Errorf("%d rows in the database, want 1", n)
				}
				g.expect(t, leakEvents, "suspect transaction tx_limit", "recovered transaction tx_limit")
				if w := g.last().gate.Load(); w&gate.Flags != 0 {
					t.Errorf("flags %#x stay behind", w&gate.Flags)
				}
				run(t, c, "BEGIN", "INSERT INTO t VALUES(2)", "COMMIT")
				if n := g.opened(); n != 1 {
					t.Errorf("%d connections were opened, want 1", n)
				}
			})
		})
	}
}

// A condemned COMMIT that fails for a reason of its own says so.
func TestCondemnedCommitFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		h := committing{veto: true}
		g := open(t, Config{Policy: txLimit(time.Minute), SQLite: h.driver()})
		run(t, g, createT)
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		h.arm(g.last())
		wantCode(t, "Commit", tx.Commit(), sqlite3.ErrConstraint)
		g.untouched(t)
	})
}

// The reaper interrupts what runs in a transaction beyond tx_limit.
func TestRunningWorkIsReaped(t *testing.T) {
	const long = "SELECT pause(15) FROM " + three
	for name, op := range map[string]func(w *work) error{
		"exec":      func(w *work) error { return try(w.tx, "INSERT INTO t "+long) },
		"exec args": func(w *work) error { return try(w.tx, "INSERT INTO t SELECT pause(?) FROM "+three, 15) },
		"exec ctx":  func(w *work) error { return w.execCtx("INSERT INTO t " + long) },
		"update":    func(w *work) error { return try(w.tx, "UPDATE t SET a=pause(15) FROM "+three) },
		"several": func(w *work) error {
			return try(w.tx, "INSERT INTO t VALUES(1); INSERT INTO t "+long+"; INSERT INTO t VALUES(2)")
		},
		"stmt exec":  func(w *work) error { return w.execPrepared("INSERT INTO t " + long) },
		"returning":  func(w *work) error { return w.execPrepared("INSERT INTO t " + long + " RETURNING a") },
		"query":      func(w *work) error { return w.query(long) },
		"second row": func(w *work) error { return w.query("SELECT pause((i>1)*15) FROM " + three) },
		"second write": func(w *work) error {
			return w.query("INSERT INTO t SELECT pause((i>1)*15) FROM " + three + " RETURNING a")
		},
		"stmt query":    func(w *work) error { return w.queryPrepared(long) },
		"in a subquery": func(w *work) error { return try(w.tx, "DELETE FROM t WHERE a IN ("+long+")") },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: txLimit(10 * time.Second), SQLite: pausing()})
				run(t, g, createT)
				w := newWork(t, g)
				begin := time.Now()
				if err := op(w); !isReaped(err) {
					t.Errorf("the operation that was interrupted: %v (%T)", err, err)
				}
				// SQLite looks at its flag between two rows.
				if d := time.Since(begin); d != 15*time.Second {
					t.Errorf("it ran for %v", d)
				}
				sleep(time.Second)
				g.expect(t, leakEvents, "suspect transaction tx_limit", "reaped transaction tx_limit")
				w.over(t, isReaped)
				wantErr(t, "Rollback", w.tx.Rollback(), nil)
				g.untouched(t)
			})
		})
	}
}

func (w *work) execCtx(text string) error {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	_, err := w.tx.ExecContext(ctx, text)
	return err
}

func (w *work) execPrepared(text string) error {
	s, err := w.tx.Prepare(text)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.Exec()
	return err
}

func (w *work) query(text string) error {
	rows, err := w.tx.Query(text)
	if err != nil {
		return err
	}
	return readAll(rows)
}

func (w *work) queryPrepared(text string) error {
	s, err := w.tx.Prepare(text)
	if err != nil {
		return err
	}
	defer s.Close()
	rows, err := s.Query()
	if err != nil {
		return err
	}
	return readAll(rows)
}

func readAll(rows *sql.Rows) error {
	defer rows.Close()
	for rows.Next() {
	}
	return rows.Err()
}

// stopping is a driver with the SQL function stop, which calls what was stored.
func stopping(f *atomic.Pointer[context.CancelFunc]) *sqlite3.SQLiteDriver {
	return funcs(map[string]any{"stop": func(i int64) int64 {
		if cancel := f.Load(); cancel != nil {
			(*cancel)()
		}
		return i
	}})
}

// failure is a statement that fails inside a transaction.
type failure struct {
	setup  string // on the connection, before the transaction
	text   string
	code   sqlite3.ErrNo
	aborts bool // SQLite rolls the transaction back
}

const (
	trigger = "CREATE TRIGGER g BEFORE INSERT ON t WHEN new.a<0 BEGIN SELECT CASE new.a WHEN -1 THEN RAISE(ROLLBACK, 'no') " +
		"WHEN -2 THEN RAISE(ABORT, 'no') ELSE RAISE(FAIL, 'no') END; END"
	pageLimit = "PRAGMA max_page_count=40"
)

var failures = map[string]failure{
	"or rollback":            {"", "INSERT OR ROLLBACK INTO t VALUES(1)", sqlite3.ErrConstraint, true},
	"or rollback of many":    {"", "INSERT INTO t VALUES(5); UPDATE OR ROLLBACK t SET a=1", sqlite3.ErrConstraint, true},
	"raise rollback":         {trigger, "INSERT INTO t VALUES(-1)", sqlite3.ErrConstraint, true},
	"page limit, one row":    {pageLimit, "INSERT INTO t VALUES(randomblob(1000000))", sqlite3.ErrFull, true},
	"page limit, returning":  {pageLimit, "INSERT INTO t VALUES(randomblob(1000000)) RETURNING 1", sqlite3.ErrFull, false},
	"page limit, many rows":  {pageLimit, "INSERT INTO t SELECT randomblob(100000) FROM " + eleven, sqlite3.ErrFull, false},
	"constraint":             {"", "INSERT INTO t VALUES(1)", sqlite3.ErrConstraint, false},
	"or fail":                {"", "INSERT OR FAIL INTO t VALUES(5), (1), (6)", sqlite3.ErrConstraint, false},
	"raise abort":            {trigger, "INSERT INTO t VALUES(-2)", sqlite3.ErrConstraint, false},
	"raise fail":             {trigger, "INSERT INTO t VALUES(-3)", sqlite3.ErrConstraint, false},
	"syntax":                 {"", "INSERT INT t VALUES(5)", sqlite3.ErrError, false},
	"no table":               {"", "INSERT INTO missing VALUES(5)", sqlite3.ErrError, false},
	"begin inside":           {"", "BEGIN", sqlite3.ErrError, false},
	"no savepoint":           {"", "ROLLBACK TO missing", sqlite3.ErrError, false},
	"a function's error":     {"", "SELECT json('{')", sqlite3.ErrError, false},
	"several, the last":      {"", "INSERT INTO t VALUES(5); INSERT INTO t VALUES(6); INSERT INTO t VALUES(1)", sqlite3.ErrConstraint, false},
	"several, with a BEGIN":  {"", "INSERT INTO t VALUES(5); BEGIN", sqlite3.ErrError, false},
	"not enough arguments":   {"", "INSERT INTO t VALUES(?)", 0, false},
	"savepoint and rollback": {"", "SAVEPOINT s; INSERT OR ROLLBACK INTO t VALUES(1)", sqlite3.ErrConstraint, true},
}

// startFailing begins a transaction that has inserted 100 on a connection with
// the failure's setup, over a table that holds 1.
func startFailing(t *testing.T, f failure) (*guarded, *work) {
	t.Helper()
	g := open(t, Config{})
	g.SetMaxOpenConns(1)
	run(t, g, createT, "INSERT INTO t VALUES(1)")
	if f.setup != "" {
		run(t, g, f.setup)
	}
	return g, newWork(t, g)
}

func wantFailure(t *testing.T, f failure, err error) {
	t.Helper()
	if f.code != 0 {
		wantCode(t, f.text, err, f.code)
	} else if err == nil || errors.Is(err, ErrTxAborted) {
		t.Errorf("%s: %v", f.text, err)
	}
}

// abortedBy accepts what a transaction answers that SQLite rolled back.
func abortedBy(code sqlite3.ErrNo) func(error) bool {
	return func(err error) bool {
		var cause sqlite3.Error
		return errors.Is(err, ErrTxAborted) && !errors.Is(err, ErrReaped) && errors.As(err, &cause) && cause.Code == code
	}
}

// SQLite rolls a transaction back on some errors, on others only the statement
// fails. ErrTxAborted exactly where autocommit says so.
func TestFailuresInTransactions(t *testing.T) {
	for name, f := range failures {
		for _, prepared := range []bool{false, true} {
			if prepared && (strings.Contains(f.text, ";") || f.text == "" || strings.Contains(name, "syntax") ||
				strings.Contains(name, "no table") || f.code == 0) {
				continue // fails when it is prepared, or is not one statement
			}
			for _, commit := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/prepared %v/commit %v", name, prepared, commit), func(t *testing.T) {
					t.Parallel()
					g, w := startFailing(t, f)
					var err error
					if prepared {
						err = w.execPrepared(f.text)
					} else {
						err = try(w.tx, f.text)
					}
					wantFailure(t, f, err)
					if auto := g.last().inner.AutoCommit(); auto != f.aborts {
						t.Fatalf("autocommit is %v: not the case that was meant", auto)
					}
					if !f.aborts {
						goesOn(t, g, w)
						return
					}
					w.over(t, abortedBy(f.code))
					if commit {
						if err := w.tx.Commit(); !abortedBy(f.code)(err) {
							t.Errorf("Commit: %v", err)
						}
					} else if err := w.tx.Rollback(); err == nil || err.Error() != "cannot rollback - no transaction is active" {
						t.Errorf("Rollback: %v, want the raw driver's error", err)
					} else {
						wantCode(t, "Rollback", err, sqlite3.ErrError)
					}
					g.untouched(t)
				})
			}
		}
	}
}

// goesOn expects that a transaction with a failed statement still commits.
func goesOn(t *testing.T, g *guarded, w *work) {
	t.Helper()
	if !w.rows.Next() {
		t.Errorf("the rows ended: %v", w.rows.Err())
	}
	run(t, w.tx, "INSERT INTO t VALUES(200)")
	if _, err := w.inTx.Exec(201); err != nil {
		t.Error(err)
	}
	if _, err := w.before.Exec(202); err != nil {
		t.Error(err)
	}
	if n := g.outside(t, "SELECT count(*) FROM t WHERE a>=100 AND typeof(a)='integer'"); n != 0 {
		t.Errorf("%d rows are visible before COMMIT", n)
	}
	wantErr(t, "Commit", w.tx.Commit(), nil)
	if n := g.outside(t, "SELECT count(*) FROM t WHERE a>=100 AND typeof(a)='integer'"); n != 4 {
		t.Errorf("%d rows were committed, want 4", n)
	}
}

// The interrupt of a write takes the transaction with it, that of a read does
// not.
func TestCancelledInTransaction(t *testing.T) {
	const forever = "WITH RECURSIVE n(i) AS (SELECT stop(1) UNION ALL SELECT i+1 FROM n) SELECT "
	for name, test := range map[string]struct {
		text   string
		query  bool
		aborts bool
	}{
		"insert":       {"INSERT INTO t " + forever + "i+1000 FROM n", false, true},
		"insert query": {"INSERT INTO t " + forever + "i+1000 FROM n RETURNING a", true, true},
		"select":       {forever + "count(*) FROM n", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stop atomic.Pointer[context.CancelFunc]
			g := open(t, Config{SQLite: stopping(&stop)})
			run(t, g, createT, "INSERT INTO t VALUES(1)")
			w := newWork(t, g)
			ctx, cancel := context.WithCancel(background)
			stop.Store(&cancel)
			var err error
			if test.query {
				var rows *sql.Rows
				if rows, err = w.tx.QueryContext(ctx, test.text); err == nil {
					err = readAll(rows)
				}
			} else {
				_, err = w.tx.ExecContext(ctx, test.text)
			}
			if err != context.Canceled {
				t.Errorf("the statement: %v (%T), want context.Canceled itself", err, err)
			}
			if auto := g.last().inner.AutoCommit(); auto != test.aborts {
				t.Fatalf("autocommit is %v: not the case that was meant", auto)
			}
			if !test.aborts {
				w.rows.Close() // an interrupt hits every statement of a connection
				w.rows = query(t, w.tx, "SELECT i FROM "+three)
				goesOn(t, g, w)
				return
			}
			w.over(t, func(err error) bool {
				return errors.Is(err, ErrTxAborted) && errors.Is(err, context.Canceled)
			})
			wantErr(t, "Commit", w.tx.Commit(), ErrTxAborted)
			g.untouched(t)
		})
	}
}

// The heap limit is the process's, and PRAGMA can only lower it.
func TestHeapLimitInTransaction(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	for _, commit := range []bool{false, true} {
		g := open(t, Config{})
		run(t, g, createT, "INSERT INTO t VALUES(1)", "PRAGMA hard_heap_limit=20000000")
		w := newWork(t, g)
		err := try(w.tx, "INSERT INTO t VALUES(randomblob(50000000))")
		wantCode(t, "INSERT", err, sqlite3.ErrNomem)
		if !g.last().inner.AutoCommit() {
			t.Fatal("the transaction is open: not the case that was meant")
		}
		w.over(t, abortedBy(sqlite3.ErrNomem))
		if commit {
			wantErr(t, "Commit", w.tx.Commit(), ErrTxAborted)
		} else if err := w.tx.Rollback(); err == nil || errors.Is(err, ErrTxAborted) {
			t.Errorf("Rollback: %v, want the raw driver's error", err)
		}
		g.untouched(t)
	}
}

// Commit fails and ends the tomb; Rollback behind it is the raw driver's.
func TestCommitThenRollbackOfAborted(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	exec := func(text string) error { _, err := c.ExecContext(background, text, nil); return err }
	if err := errors.Join(exec(createT), exec("INSERT INTO t VALUES(1)")); err != nil {
		t.Fatal(err)
	}
	tx, err := c.BeginTx(background, driver.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "INSERT", exec("INSERT OR ROLLBACK INTO t VALUES(1)"), sqlite3.ErrConstraint)
	wantErr(t, "INSERT", exec("INSERT INTO t VALUES(2)"), ErrTxAborted)
	wantErr(t, "Commit", tx.Commit(), ErrTxAborted)
	wantCode(t, "Rollback", tx.Rollback(), sqlite3.ErrError)
	wantErr(t, "INSERT behind it", exec("INSERT INTO t VALUES(3)"), nil)
}

// Rows that were open before the transaction are none of its business.
func TestRowsFromBeforeTheTransactionGoOn(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT, "INSERT INTO t VALUES(1)")
	c := g.conn(t)
	before := query(t, c, "SELECT i FROM "+three)
	run(t, c, "BEGIN")
	inside := query(t, c, "SELECT i FROM "+three)
	wantCode(t, "INSERT", try(c, "INSERT OR ROLLBACK INTO t VALUES(1)"), sqlite3.ErrConstraint)
	cut(t, inside, ErrTxAborted)
	if !before.Next() || !before.Next() || before.Next() || before.Err() != nil {
		t.Errorf("the rows from before: %v", before.Err())
	}
	wantErr(t, "SELECT", try(c, "SELECT 1"), ErrTxAborted)
}

// A transaction that the program itself ends by text, alone or among others,
// leaves no tomb: what comes behind runs, as without the guard.
func TestOwnEndByTextLeavesNoTomb(t *testing.T) {
	type texts struct {
		text string
		args []any
		kept int64 // rows of the transaction that are in the database
		open bool  // a transaction is open behind it
		fail bool
	}
	for name, test := range map[string]texts{
		"again":              {"ROLLBACK; BEGIN IMMEDIATE", nil, 0, true, false},
		"again, committed":   {"COMMIT; BEGIN IMMEDIATE", nil, 1, true, false},
		"again, with a row":  {"ROLLBACK; BEGIN; INSERT INTO t VALUES(?)", []any{300}, 0, true, false},
		"again, named":       {"ROLLBACK; BEGIN; INSERT INTO t VALUES(:a)", []any{sql.Named("a", 300)}, 0, true, false},
		"rollback":           {"ROLLBACK", nil, 0, false, false},
		"commit":             {"COMMIT", nil, 1, false, false},
		"rollback, then bad": {"ROLLBACK; INSERT INTO missing VALUES(1)", nil, 0, false, true},
		"commit, then bad":   {"COMMIT; INSERT INTO missing VALUES(1)", nil, 1, false, true},
		"commit, then bad, named": {"COMMIT; INSERT INTO missing VALUES(:a)",
			[]any{sql.Named("a", 1)}, 1, false, true},
	} {
		for _, how := range []string{"exec", "query"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				g := open(t, Config{})
				run(t, g, createT)
				tx := g.begin(t)
				run(t, tx, "INSERT INTO t VALUES(100)")
				var err error
				if how == "exec" {
					err = try(tx, test.text, test.args...)
				} else {
					var rows *sql.Rows
					if rows, err = tx.Query(test.text, test.args...); err == nil {
						err = readAll(rows)
					}
				}
				if test.fail {
					wantCode(t, test.text, err, sqlite3.ErrError)
				} else {
					wantErr(t, test.text, err, nil)
				}
				if n := g.outside(t, "SELECT count(*) FROM t WHERE a=100"); n != test.kept {
					t.Errorf("%d rows of the transaction, want %d", n, test.kept)
				}
				if auto := g.last().inner.AutoCommit(); auto == test.open {
					t.Errorf("autocommit is %v", auto)
				}
				wantErr(t, "INSERT behind it", try(tx, "INSERT INTO t VALUES(400)"), nil)
				err = tx.Commit()
				if test.open {
					wantErr(t, "Commit", err, nil)
				} else {
					wantCode(t, "Commit", err, sqlite3.ErrError)
				}
				if n := g.outside(t, "SELECT count(*) FROM t WHERE a=400"); n != 1 {
					t.Errorf("%d rows from behind it, want 1", n)
				}
			})
		}
	}
}

// A transaction begun by text may span leases. Forgotten in the pool it is
// rolled back; the next operation is told, once, and the connection replaced.
func TestTextTransactionInThePool(t *testing.T) {
	for name, op := range map[string]func(g *guarded) error{
		"exec":   func(g *guarded) error { return try(g, "INSERT INTO t VALUES(1)") },
		"commit": func(g *guarded) error { return try(g, "COMMIT") },
		"query":  func(g *guarded) error { return g.QueryRow("SELECT 1").Scan(new(int)) },
		"prepare": func(g *guarded) error {
			s, err := g.Prepare("SELECT 1")
			if err == nil {
				s.Close()
			}
			return err
		},
		"begin": func(g *guarded) error {
			tx, err := g.Begin()
			if err == nil {
				tx.Rollback()
			}
			return err
		},
		"stmt exec": func(g *guarded) error { _, err := g.prepared.Exec(1); return err },
		"stmt query": func(g *guarded) error {
			rows, err := g.prepared.Query(1)
			if err != nil {
				return err
			}
			return readAll(rows)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: leakAfter(time.Minute)})
				g.SetMaxOpenConns(1)
				run(t, g, createT)
				g.prepared = prepare(t, g, insertT)
				run(t, g, "BEGIN", "INSERT INTO t VALUES(100)")
				sleep(30 * time.Second)
				run(t, g, "INSERT INTO t VALUES(101)") // in time: the same transaction
				if n := g.rows(t); n != 0 {
					t.Fatalf("%d rows before COMMIT", n)
				}
				sleep(3 * time.Minute)
				g.expect(t, leakEvents,
					"suspect transaction in_pool", "recovered transaction in_pool", // the 30 seconds
					"suspect transaction in_pool", "reaped transaction in_pool")
				wantErr(t, "Ping", g.Ping(), nil) // as without the guard
				err := op(g)
				if !isReaped(err) || !strings.Contains(err.Error(), "left open in the pool") {
					t.Errorf("the next operation: %v", err)
				}
				if name == "commit" {
					wantCode(t, "COMMIT again", op(g), sqlite3.ErrError)
				} else {
					wantErr(t, "the one behind it", op(g), nil)
				}
				if n := g.opened(); n != 2 {
					t.Errorf("%d connections were opened, want a second one", n)
				}
				if n := g.outside(t, "SELECT count(*) FROM t WHERE a>=100"); n != 0 {
					t.Errorf("%d rows of the transaction are in the database", n)
				}
			})
		})
	}
}

// Its owner comes back with ROLLBACK: done already.
func TestTextRollbackEndsTheTomb(t *testing.T) {
	for name, policy := range map[string]tracker.Policy{"leak_after": leakAfter(time.Minute), "tx_timeout": txTimeout(time.Minute)} {
		for _, begin := range []string{"BEGIN", "-- a\n/* b */ begin immediate", "SAVEPOINT s", "SELECT 1; BEGIN"} {
			for how, rollback := range map[string]func(g *guarded) error{
				"exec":     func(g *guarded) error { return try(g, "ROLLBACK") },
				"query":    func(g *guarded) error { return g.QueryRow("ROLLBACK").Scan() },
				"new one":  func(g *guarded) error { return try(g, "ROLLBACK; BEGIN; INSERT INTO t VALUES(7); COMMIT") },
				"by query": func(g *guarded) error { return g.QueryRow("ROLLBACK; SELECT 1").Scan(new(int)) },
				"trailing": func(g *guarded) error { return try(g, "ROLLBACK; -- done") },
				"prepared": func(g *guarded) error { _, err := g.prepared.Exec(); return err },
				"stmt query": func(g *guarded) error {
					rows, err := g.prepared.Query()
					if err != nil {
						return err
					}
					return readAll(rows)
				},
			} {
				t.Run(name+"/"+begin+"/"+how, func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						g := open(t, Config{Policy: policy})
						g.SetMaxOpenConns(1)
						g.prepared = prepare(t, g, "ROLLBACK")
						run(t, g, createT, begin, "INSERT INTO t VALUES(100)")
						sleep(3 * time.Minute)
						err := rollback(g)
						if how == "query" && err == sql.ErrNoRows {
							err = nil
						}
						wantErr(t, "ROLLBACK", err, nil)
						g.untouched(t)
					})
				})
			}
		}
	}
}

// A script that begins and rolls back by text leaves nothing, as without the
// guard.
func TestTextScriptLeavesNothing(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	g.SetMaxOpenConns(1)
	run(t, g, createT)
	run(t, g, "BEGIN", "INSERT INTO t VALUES(100)", "INSERT INTO t VALUES(101)", "ROLLBACK")
	run(t, g, "BEGIN; INSERT INTO t VALUES(100); INSERT INTO t VALUES(101); ROLLBACK")
	run(t, g, "SAVEPOINT s", "INSERT INTO t VALUES(100)", "ROLLBACK TO s", "RELEASE s")
	g.untouched(t)
	run(t, g, "BEGIN; INSERT INTO t VALUES(102); COMMIT", "SAVEPOINT s; INSERT INTO t VALUES(103); RELEASE s")
	if n := g.rows(t); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
	if s := g.connector.Stats(); s.OpenTransactions != 0 || s.LeakedDetected != 0 {
		t.Errorf("%d transactions open, %d leaks", s.OpenTransactions, s.LeakedDetected)
	}
}

// On a sql.Conn, reaped while it is checked out: the tomb stays until ROLLBACK.
func TestTextTransactionOfALease(t *testing.T) {
	for _, begin := range []string{"BEGIN", "SAVEPOINT a"} {
		t.Run(begin, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: txTimeout(time.Minute)})
				run(t, g, createT)
				c := g.conn(t)
				run(t, c, begin, "INSERT INTO t VALUES(100)", "SAVEPOINT b", "INSERT INTO t VALUES(101)")
				if l := g.connector.Stats().ActiveConnectionDetails[0].TransactionLevel; l != 2 {
					t.Errorf("level %d, want 2", l)
				}
				sleep(2 * time.Minute)
				for _, text := range []string{"RELEASE b", "ROLLBACK TO b", "RELEASE a", "COMMIT", "INSERT INTO t VALUES(102)", "BEGIN"} {
					wantErr(t, text, try(c, text), ErrReaped)
				}
				_, err := c.BeginTx(background, nil)
				wantErr(t, "BeginTx", err, ErrReaped)
				wantErr(t, "ROLLBACK", try(c, "ROLLBACK"), nil)
				run(t, c, "BEGIN", "INSERT INTO t VALUES(1)", "COMMIT")
				c.Close()
				g.untouched(t)
			})
		})
	}
}

// The owner lets go of a sql.Conn without ROLLBACK. He will not come back, so
// the connection is replaced and nobody else is told.
func TestTombThatGoesIntoThePool(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute)})
		g.SetMaxOpenConns(1)
		run(t, g, createT)
		c := g.conn(t)
		run(t, c, "BEGIN", "INSERT INTO t VALUES(100)")
		sleep(2 * time.Minute)
		wantErr(t, "INSERT", try(c, "INSERT INTO t VALUES(101)"), ErrReaped)
		c.Close()
		wantErr(t, "INSERT", try(g, "INSERT INTO t VALUES(1)"), nil)
		if n := g.rows(t); n != 1 || g.opened() != 2 {
			t.Errorf("%d rows, %d connections, want 1 and 2", n, g.opened())
		}
	})
}

// A lease with a transaction by text is closed as a whole. ROLLBACK ends the
// transaction, and nothing brings the connection back.
func TestTextTransactionOfAReapedLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g, createT)
		c := g.conn(t)
		rollback := prepare(t, c, "ROLLBACK")
		run(t, c, "BEGIN", "INSERT INTO t VALUES(100)")
		sleep(3 * time.Minute)
		wantErr(t, "INSERT", try(c, "INSERT INTO t VALUES(101)"), ErrReaped)
		wantErr(t, "COMMIT", try(c, "COMMIT"), ErrReaped)
		wantErr(t, "ROLLBACK and more", try(c, "ROLLBACK; INSERT INTO t VALUES(102)"), ErrReaped)
		wantErr(t, "ROLLBACK", try(c, "ROLLBACK"), nil)
		wantErr(t, "ROLLBACK again", try(c, "ROLLBACK"), ErrReaped)
		_, err := rollback.Exec()
		wantErr(t, "ROLLBACK prepared", err, ErrReaped)
		wantErr(t, "Ping", c.PingContext(background), ErrReaped)
		c.Close()
		run(t, g, "INSERT INTO t VALUES(1)")
		if n := g.rows(t); n != 1 || g.opened() != 2 {
			t.Errorf("%d rows, %d connections, want 1 and 2", n, g.opened())
		}
	})
}

// What SQLite aborted fails until ROLLBACK, which is the raw driver's.
func TestAbortedTextTransaction(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT, "INSERT INTO t VALUES(1)")
	c := g.conn(t)
	for _, begin := range []string{"BEGIN", "SAVEPOINT s"} {
		run(t, c, begin, "INSERT INTO t VALUES(100)")
		wantCode(t, "INSERT", try(c, "INSERT OR ROLLBACK INTO t VALUES(1)"), sqlite3.ErrConstraint)
		for _, text := range []string{"INSERT INTO t VALUES(101)", "COMMIT", "BEGIN", "RELEASE s", "SELECT 1"} {
			wantErr(t, text, try(c, text), ErrTxAborted)
		}
		err := try(c, "ROLLBACK")
		wantCode(t, "ROLLBACK", err, sqlite3.ErrError)
		if err == nil || err.Error() != "cannot rollback - no transaction is active" {
			t.Errorf("ROLLBACK: %v", err)
		}
		run(t, c, "INSERT INTO t VALUES(2)", "DELETE FROM t WHERE a=2")
	}
	c.Close()
	g.untouched(t)
}

// Over a pool: whoever comes is likely to be the owner, so he is told for as
// long as leak_after; then the connection is replaced.
func TestAbortedTextTransactionInThePool(t *testing.T) {
	for name, policy := range map[string]tracker.Policy{
		"leak_after":    leakAfter(time.Minute),
		"no leak_after": txTimeout(time.Minute), // switched off: told for ever
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: policy})
				g.SetMaxOpenConns(1)
				run(t, g, createT, "INSERT INTO t VALUES(1)")
				abort := func() {
					t.Helper()
					run(t, g, "BEGIN", "INSERT INTO t VALUES(100)")
					wantCode(t, "INSERT", try(g, "INSERT OR ROLLBACK INTO t VALUES(1)"), sqlite3.ErrConstraint)
					for range 3 {
						wantErr(t, "INSERT", try(g, "INSERT INTO t VALUES(101)"), ErrTxAborted)
					}
				}
				abort()
				wantCode(t, "ROLLBACK", try(g, "ROLLBACK"), sqlite3.ErrError)
				run(t, g, "INSERT INTO t VALUES(2)")
				if n := g.opened(); n != 1 {
					t.Errorf("%d connections were opened, want 1", n)
				}
				abort()
				sleep(10 * time.Minute)
				wantErr(t, "INSERT", try(g, "INSERT INTO t VALUES(102)"), ErrTxAborted)
				err := try(g, "INSERT INTO t VALUES(3)")
				if name == "leak_after" {
					wantErr(t, "INSERT behind it", err, nil)
				} else {
					wantErr(t, "INSERT behind it", err, ErrTxAborted)
				}
				if n := g.outside(t, "SELECT count(*) FROM t WHERE a>=100"); n != 0 {
					t.Errorf("%d rows of the transaction are in the database", n)
				}
			})
		})
	}
}

// denying is a driver whose connections refuse some transaction statements
// while told to.
func denying(deny func(operation string) bool) *sqlite3.SQLiteDriver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		c.RegisterAuthorizer(func(action int, operation, _, _ string) int {
			if (action == sqlite3.SQLITE_TRANSACTION || action == sqlite3.SQLITE_SAVEPOINT) && deny(operation) {
				return sqlite3.SQLITE_DENY
			}
			return sqlite3.SQLITE_OK
		})
		return nil
	}}
}

// Even ROLLBACK can fail. The transaction stays behind its tomb until its
// connection is closed.
func TestRollbackThatFails(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, tx *sql.Tx){
		"commit":   func(t *testing.T, tx *sql.Tx) { wantErr(t, "Commit", tx.Commit(), ErrReaped) },
		"rollback": func(t *testing.T, tx *sql.Tx) { wantCode(t, "Rollback", tx.Rollback(), sqlite3.ErrAuth) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var deny atomic.Bool
				g := open(t, Config{
					Policy: txTimeout(time.Minute),
					SQLite: denying(func(op string) bool { return op == "ROLLBACK" && deny.Load() }),
				})
				run(t, g, createT)
				w := newWork(t, g)
				deny.Store(true)
				sleep(2 * time.Minute)
				w.over(t, isReaped)
				end(t, w.tx)
				if n := g.rows(t); n != 0 {
					t.Errorf("%d rows in the database", n)
				}
				run(t, g, "INSERT INTO t VALUES(1)")
				if n := g.opened(); n != 2 {
					t.Errorf("%d connections were opened, want a second one", n)
				}
			})
		})
	}
}

// The end of a savepoint is not the end of the transaction around it: its age
// goes on, and so does what belongs to it.
func TestReleaseIsNotTheEnd(t *testing.T) {
	t.Run("age", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			g := open(t, Config{Policy: txLimit(10 * time.Minute)})
			run(t, g, createT)
			begin := time.Now()
			err := InTx(background, g.DB, nil, func(ctx context.Context, tx *sql.Tx) error {
				for time.Since(begin) < time.Hour {
					err := InTx(ctx, g.DB, nil, func(context.Context, *sql.Tx) error { sleep(time.Minute); return nil })
					if err != nil {
						return err
					}
				}
				return nil
			})
			wantErr(t, "InTx", err, ErrReaped)
			if d := time.Since(begin); d < 10*time.Minute || d > 15*time.Minute {
				t.Errorf("reaped after %v", d)
			}
			g.expect(t, leakEvents, "suspect transaction tx_limit", "reaped transaction tx_limit")
		})
	})
	t.Run("rows", func(t *testing.T) {
		t.Parallel()
		g := open(t, Config{})
		run(t, g, createT, "INSERT INTO t VALUES(1)")
		tx := g.begin(t)
		rows := query(t, tx, "SELECT i FROM "+eleven)
		run(t, tx, "SAVEPOINT s", "INSERT INTO t VALUES(100)", "RELEASE s")
		wantCode(t, "INSERT", try(tx, "INSERT OR ROLLBACK INTO t VALUES(1)"), sqlite3.ErrConstraint)
		cut(t, rows, ErrTxAborted)
		if s := g.connector.Stats(); s.OpenTransactions != 0 {
			t.Errorf("%d transactions open", s.OpenTransactions)
		}
	})
}

// By text: a ROLLBACK of the owner that fails as well does not let the rest of
// the transaction through.
func TestTextRollbackThatFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var deny atomic.Bool
		g := open(t, Config{
			Policy: txTimeout(time.Minute),
			SQLite: denying(func(op string) bool { return op == "ROLLBACK" && deny.Load() }),
		})
		run(t, g, createT)
		c := g.conn(t)
		run(t, c, "BEGIN", "INSERT INTO t VALUES(100)")
		deny.Store(true)
		sleep(2 * time.Minute)
		wantErr(t, "INSERT", try(c, "INSERT INTO t VALUES(101)"), ErrReaped)
		wantCode(t, "ROLLBACK", try(c, "ROLLBACK"), sqlite3.ErrAuth)
		wantErr(t, "COMMIT", try(c, "COMMIT"), ErrReaped)
		deny.Store(false)
		wantErr(t, "ROLLBACK that works", try(c, "ROLLBACK"), nil)
		run(t, c, "INSERT INTO t VALUES(1)")
		c.Close()
		if n := g.rows(t); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

// COMMIT and ROLLBACK both fail: database/sql takes the transaction for ended,
// so its connection must not go back into the pool.
func TestEndThatFails(t *testing.T) {
	t.Parallel()
	var deny atomic.Bool
	g := open(t, Config{SQLite: denying(func(op string) bool { return op != "BEGIN" && deny.Load() })})
	run(t, g, createT)
	tx := g.begin(t)
	run(t, tx, "INSERT INTO t VALUES(100)")
	deny.Store(true)
	wantCode(t, "Commit", tx.Commit(), sqlite3.ErrAuth)
	deny.Store(false)
	run(t, g, "INSERT INTO t VALUES(1)")
	if n := g.rows(t); n != 1 || g.opened() != 2 {
		t.Errorf("%d rows, %d connections, want 1 and 2", n, g.opened())
	}
}
