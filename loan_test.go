package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

// inRaw runs texts on the raw connection, one after the other, and returns the last
// one's error.
func inRaw(t testing.TB, c *sql.Conn, texts ...string) (err error) {
	t.Helper()
	check(c.Raw(func(dc any) error {
		raw, ok := SQLiteConn(dc)
		if !ok {
			t.Fatal("no raw connection")
		}
		for _, text := range texts {
			_, err = raw.Exec(text, nil)
		}
		return nil
	}))
	return err
}

// owner is a transaction that a test began in one of the ways there are.
type owner struct {
	execer
	t  testing.TB
	tx *sql.Tx // nil: by text
}

func beginBy(t testing.TB, c *sql.Conn, way string) *owner {
	t.Helper()
	o := &owner{execer: c, t: t}
	if way == "tx" {
		tx, err := c.BeginTx(background, nil)
		o.tx = begun(t, tx, err)
		o.execer = o.tx
		return o
	}
	run(t, c, "BEGIN")
	return o
}

func (o *owner) rollback() error {
	if o.tx != nil {
		return o.tx.Rollback()
	}
	return try(o.execer, "ROLLBACK")
}

func (o *owner) commit() error {
	if o.tx != nil {
		return o.tx.Commit()
	}
	return try(o.execer, "COMMIT")
}

// SQLite rolls the open transaction back while the program has the raw connection:
// nothing of the rest runs, until its owner has rolled back.
func TestRolledBackInRaw(t *testing.T) {
	t.Parallel()
	for name, abort := range map[string]struct {
		code   sqlite3.ErrNo
		before string
		texts  []string
	}{
		"conflict":  {sqlite3.ErrConstraint, "", []string{"INSERT OR ROLLBACK INTO t VALUES(1)"}},
		"trigger":   {sqlite3.ErrConstraint, "CREATE TRIGGER r BEFORE INSERT ON t WHEN new.a < 0 BEGIN SELECT RAISE(ROLLBACK, 'no'); END", []string{"INSERT INTO t VALUES(-1)"}},
		"full":      {sqlite3.ErrFull, "", []string{"PRAGMA max_page_count = 1", "INSERT INTO t VALUES(zeroblob(100000))"}},
		"commit":    {sqlite3.ErrConstraint, "", []string{"INSERT INTO t VALUES(50)", "COMMIT"}}, // a hook refuses it
		"temp":      {sqlite3.ErrConstraint, "", []string{"CREATE TEMP TABLE x AS SELECT 1", "INSERT OR ROLLBACK INTO t VALUES(1)"}},
		"much more": {sqlite3.ErrFull, "", []string{"INSERT INTO t VALUES(50)", "SAVEPOINT s", "PRAGMA max_page_count = 1", "INSERT INTO t VALUES(zeroblob(100000))"}},
	} {
		for _, way := range []string{"tx", "text"} {
			for _, dsn := range []string{"WAL", "DELETE", "MEMORY", ":memory:", "shared"} {
				for _, wrote := range []bool{true, false} {
					if !wrote && abort.code == sqlite3.ErrConstraint && way == "text" {
						continue // in doubt: see loan.go
					}
					t.Run(strings.Join([]string{name, way, dsn, map[bool]string{true: "written", false: "read"}[wrote]}, "/"), func(t *testing.T) {
						d := dsn
						switch dsn {
						case "shared":
							d = fileDSN(t, "cache=shared")
						case ":memory:":
						default:
							d = fileDSN(t, "_journal_mode="+dsn)
						}
						g := open(t, Config{DSN: d})
						g.SetMaxOpenConns(1)
						run(t, g, createT, "INSERT INTO t VALUES(1)")
						if abort.before != "" {
							run(t, g, abort.before)
						}
						c := g.conn(t)
						o := beginBy(t, c, way)
						if wrote {
							run(t, o, "INSERT INTO t VALUES('first half')")
						}
						number(t, o, "SELECT count(*) FROM t")
						s := prepare(t, o, "INSERT INTO t VALUES('second half')")
						rows := query(t, o, "SELECT i FROM "+three)
						if name == "commit" {
							check(c.Raw(func(dc any) error {
								raw, _ := SQLiteConn(dc)
								raw.RegisterCommitHook(func() int { return 1 })
								return nil
							}))
						}
						wantCode(t, "in Raw", inRaw(t, c, abort.texts...), abort.code)

						err := try(o, "INSERT INTO t VALUES('second half')")
						wantErr(t, "a text", err, ErrTxAborted)
						var cause sqlite3.Error
						if !errors.As(err, &cause) || cause.Code != abort.code || !strings.Contains(err.Error(), "rolled back while the raw connection was out") {
							t.Errorf("the cause is %v", err)
						}
						_, err = s.Exec()
						wantErr(t, "a prepared statement", err, ErrTxAborted)
						_, err = o.PrepareContext(background, "INSERT INTO t VALUES('second half')")
						wantErr(t, "preparing", err, ErrTxAborted)
						_, err = o.QueryContext(background, "INSERT INTO t VALUES('second half') RETURNING a")
						wantErr(t, "a query", err, ErrTxAborted)
						wantErr(t, "in Raw again", inRaw(t, c, "SELECT 1"), nil)
						cut(t, rows, ErrTxAborted)
						rows.Close()
						err = o.rollback()
						wantCode(t, "ROLLBACK", err, sqlite3.ErrError) // as over go-sqlite3
						if err.Error() != "cannot rollback - no transaction is active" {
							t.Error(err)
						}
						if n := number(t, c, "SELECT count(*) FROM t"); n != 1 {
							t.Errorf("%d rows, want 1: half of the transaction is committed", n)
						}
						check(c.Raw(func(dc any) error {
							raw, _ := SQLiteConn(dc)
							raw.RegisterCommitHook(nil)
							return nil
						}))
						run(t, c, "PRAGMA max_page_count = 1000000", "INSERT INTO t VALUES('after')")
						if n := number(t, c, "SELECT count(*) FROM t"); n != 2 {
							t.Errorf("%d rows, want 2", n)
						}
					})
				}
			}
		}
	}
}

// An interrupt of the program's own, on the raw connection.
func TestInterruptedInRaw(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	c := g.conn(t)
	o := beginBy(t, c, "tx")
	run(t, o, "INSERT INTO t VALUES('first half')")
	check(c.Raw(func(dc any) error {
		raw, _ := SQLiteConn(dc)
		ctx, cancel := context.WithCancel(background)
		check(raw.RegisterFunc("cancel", func() int { cancel(); return 1 }, false))
		_, err := raw.ExecContext(ctx, "INSERT INTO t SELECT cancel() UNION ALL SELECT * FROM ("+endless+")", nil)
		if err == nil {
			t.Error("it was not interrupted")
		}
		return nil
	}))
	wantErr(t, "Commit", o.commit(), ErrTxAborted)
	run(t, c, "INSERT INTO t VALUES('after')")
	if n := g.rows(t); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// Whoever had the raw connection goes on there behind the abort. A sql.Tx that has
// lost what it wrote is told all the same.
func TestRolledBackInRawAndOn(t *testing.T) {
	t.Parallel()
	for _, texts := range [][]string{{"SELECT 1"}, {"ROLLBACK"}, {"ROLLBACK", "SELECT 1"}, {"SELECT nothing"}, {"PRAGMA user_version"}} {
		t.Run(strings.Join(texts, "; "), func(t *testing.T) {
			g := open(t, Config{})
			run(t, g, createT, "INSERT INTO t VALUES(1)")
			c := g.conn(t)
			o := beginBy(t, c, "tx")
			run(t, o, "INSERT INTO t VALUES('first half')")
			inRaw(t, c, append([]string{"INSERT OR ROLLBACK INTO t VALUES(1)"}, texts...)...)
			err := try(o, "INSERT INTO t VALUES('second half')")
			wantErr(t, "a text", err, ErrTxAborted)
			if err.Error() != "leakguard: transaction was aborted by SQLite, roll it back: it was rolled back while the raw connection was out" {
				t.Error(err)
			}
			wantErr(t, "Commit", o.commit(), ErrTxAborted)
			run(t, c, "INSERT INTO t VALUES('after')")
			if n := g.rows(t); n != 2 {
				t.Errorf("%d rows, want 2", n)
			}
		})
	}
}

// What others commit meanwhile is no COMMIT of this connection's, though it has
// SQLite throw the page cache away.
func TestRolledBackInRawBesideOthers(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{fileDSN(t), fileDSN(t, "_journal_mode=DELETE"), fileDSN(t, "cache=shared")} {
		a, b := rivals(t, dsn, Config{})
		c := a.conn(t)
		o := beginBy(t, c, "tx")
		run(t, o, "INSERT INTO t VALUES('first half')")
		abort := "INSERT OR ROLLBACK INTO t VALUES(1)"
		inRaw(t, c, abort)
		run(t, b, "INSERT INTO t VALUES(10)")
		inRaw(t, c, "SELECT count(*) FROM t") // tells the guard as well
		wantErr(t, "a text", try(o, "INSERT INTO t VALUES('second half')"), ErrTxAborted)

		o.rollback()
		o = beginBy(t, c, "tx")
		run(t, o, "INSERT INTO t VALUES('first half')")
		check(c.Raw(func(dc any) error {
			raw, _ := SQLiteConn(dc)
			raw.Exec(abort, nil)
			run(t, b, "INSERT INTO t VALUES(11)")
			ok(raw.Exec("SELECT count(*) FROM t", nil))
			raw.Exec(abort, nil)
			return nil
		}))
		wantErr(t, "a text", try(o, "INSERT INTO t VALUES('second half')"), ErrTxAborted)
		o.rollback()
		if n := number(t, b, "SELECT count(*) FROM t"); n != 5 {
			t.Errorf("%d rows, want 5", n)
		}
	}
}

// A COMMIT counts in whichever database it was, whatever fails behind it.
func TestCommittedInRaw(t *testing.T) {
	t.Parallel()
	dup := "INSERT INTO t VALUES(1)"
	for name, test := range map[string]struct{ before, raw, after string }{
		"main":               {"INSERT INTO t VALUES(2)", "", ""},
		"attached":           {"INSERT INTO b.t VALUES(2)", "", ""},
		"temp":               {"INSERT INTO x VALUES(2)", "", ""},
		"name in quotes":     {`INSERT INTO "c""d".t VALUES(2)`, "", ""},
		"written in Raw":     {"SELECT 1", "INSERT INTO t VALUES(2)", ""},
		"attached, in Raw":   {"SELECT * FROM t", "INSERT INTO b.t VALUES(2)", ""},
		"temp, in Raw":       {"SELECT * FROM t", "INSERT INTO x VALUES(2)", ""},
		"attached there":     {"SELECT * FROM t", "ATTACH ':memory:' AS e; CREATE TABLE e.t(a)", ""},
		"detached there":     {"INSERT INTO b.t VALUES(2)", "", "DETACH b"},
		"IMMEDIATE, nothing": {"SELECT 1", "SELECT 1", ""},
	} {
		for _, way := range []string{"tx", "text"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				g := open(t, Config{DSN: fileDSN(t, "_txlock="+map[bool]string{true: "immediate", false: "deferred"}[strings.HasPrefix(name, "IMM")])})
				other := func() string { return fileOf(fileDSN(t)) }
				c := g.conn(t)
				run(t, c, createT, "ATTACH '"+other()+"' AS b", "ATTACH '"+other()+`' AS "c""d"`, "CREATE TEMP TABLE x(a)",
					"CREATE TABLE b.t(a)", `CREATE TABLE "c""d".t(a)`, dup)
				o := beginBy(t, c, way)
				if strings.HasPrefix(name, "IMM") && way == "text" {
					run(t, c, "ROLLBACK", "BEGIN IMMEDIATE")
				}
				run(t, o, test.before)
				wantCode(t, "in Raw", inRaw(t, c, test.raw, "COMMIT", test.after, dup), sqlite3.ErrConstraint)
				run(t, o, "INSERT INTO t VALUES('in autocommit')")
				if n := g.rows(t); n < 2 {
					t.Errorf("%d rows", n)
				}
			})
		}
	}
}

// The raw connection is used behind Raw, as long as the lease lasts.
func TestRolledBackBehindRaw(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"tx", "text"} {
		g := open(t, Config{})
		run(t, g, createT, "INSERT INTO t VALUES(1)")
		c := g.conn(t)
		var raw *sqlite3.SQLiteConn
		check(c.Raw(func(dc any) error { raw, _ = SQLiteConn(dc); return nil }))
		o := beginBy(t, c, way)
		run(t, o, "INSERT INTO t VALUES('first half')")
		_, err := raw.Exec("PRAGMA max_page_count = 1; INSERT INTO t VALUES(zeroblob(100000))", nil)
		wantCode(t, "raw", err, sqlite3.ErrFull)
		wantErr(t, "a text", try(o, "INSERT INTO t VALUES('second half')"), ErrTxAborted)
	}
}

// The rows of the transaction are the first to come back.
func TestRowsRolledBackInRaw(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT, "INSERT INTO t VALUES(1)")
	c := g.conn(t)
	o := beginBy(t, c, "tx")
	run(t, o, "INSERT INTO t VALUES('first half')")
	rows := query(t, o, "SELECT i FROM "+three)
	inRaw(t, c, "INSERT OR ROLLBACK INTO t VALUES(1)")
	cut(t, rows, ErrTxAborted)
}

// To hand the connection out takes no snapshot that the transaction has not.
func TestLendingTakesNoSnapshot(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, fileDSN(t), Config{})
	c := a.conn(t)
	o := beginBy(t, c, "tx")
	inRaw(t, c)
	if s, _ := a.last().db().TxnState(); s != capi.TxnNone {
		t.Errorf("a transaction that nothing ran in has state %v", s)
	}
	run(t, b, "INSERT INTO t VALUES(10)")
	if n := number(t, o, "SELECT count(*) FROM t"); n != 4 {
		t.Errorf("it sees %d rows, want 4", n)
	}
	check(o.commit())
}

// At check-in, a transaction of the lease is its owner's, who will not come back.
// One by text that came from the pool may have an owner who does.
func TestRolledBackInRawThenCheckedIn(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	g.SetMaxOpenConns(1)
	run(t, g, createT, "INSERT INTO t VALUES(1)")
	abort := func(before ...string) {
		c := g.conn(t)
		defer c.Close()
		run(t, c, before...)
		inRaw(t, c, "INSERT INTO t VALUES('raw half')", "INSERT OR ROLLBACK INTO t VALUES(1)")
	}
	abort("BEGIN IMMEDIATE")
	run(t, g, "INSERT INTO t VALUES(2)")

	run(t, g, "BEGIN", "INSERT INTO t VALUES('first half')")
	abort()
	for range 2 {
		wantErr(t, "in the pool", try(g, "INSERT INTO t VALUES('second half')"), ErrTxAborted)
	}
	wantCode(t, "ROLLBACK", try(g, "ROLLBACK"), sqlite3.ErrError)
	run(t, g, "INSERT INTO t VALUES(3)")
	if n := g.rows(t); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}

// A transaction begun on the raw connection has the line of who took it.
func TestTransactionOfRawIsTheLeases(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	g.SetMaxOpenConns(1)
	run(t, g, createT)
	c, err := g.Conn(background) // here:lease of a raw transaction
	check(err)
	inRaw(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
	c.Close()
	for _, h := range g.tracker.Held() {
		if siteText(h.Site()) != markedLine(t, "lease of a raw transaction") {
			t.Errorf("%v at %v", h.Kind, h.Site())
		}
	}
	run(t, g, "ROLLBACK")
}

// Asking what was committed waits for nobody's lock.
func TestRolledBackInRawWaitsForNobody(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, "file:"+fileOf(fileDSN(t))+"?_journal_mode=DELETE&_busy_timeout=20000", Config{})
	c := a.conn(t)
	run(t, c, "BEGIN", "INSERT INTO t VALUES('first half')")
	other := b.conn(t)
	abort := "INSERT OR ROLLBACK INTO t VALUES(1)"
	check(c.Raw(func(dc any) error {
		raw, _ := SQLiteConn(dc)
		raw.Exec(abort, nil)
		run(t, other, "INSERT INTO t VALUES(10)")
		ok(raw.Exec("SELECT count(*) FROM t", nil)) // the page cache goes
		raw.Exec(abort, nil)
		run(t, other, "BEGIN EXCLUSIVE")
		return nil
	}))
	began := time.Now()
	c.Close()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("check-in took %v", took)
	}
	run(t, other, "ROLLBACK")
}
