//go:build cgo

package leakguard_test

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"time"
)

// diffKinds declares a column of each type that go-sqlite3 or database/sql makes
// something of, and some that nobody does.
const diffKinds = `CREATE TABLE k (id INTEGER PRIMARY KEY, i INT, t TEXT, b BLOB, r REAL, n NUMERIC, de DECIMAL(9,2),
	ts TIMESTAMP, tl timestamp, dt DATETIME, d Date, ti TIME, bo BOOLEAN, bl Boolean, c VARCHAR(9), x, a ANY)`

func diffValues() []any {
	zone := time.FixedZone("east", 3*60*60)
	return []any{
		nil, 0, 1, -1, 255, 256, int64(1e12), int64(1e12 + 1), int64(-1e12 - 1), int64(1767323045678), int64(math.MaxInt64), int64(math.MinInt64),
		0.0, 1.5, math.Copysign(0, -1), 1e300, math.NaN(), math.Inf(1), math.Inf(-1), true, false,
		"", "text", "nul\x00inside", "bad\xffutf", "12", "1.50", "2026-01-02", "2026-01-02 03:04", "2026-01-02 03:04:05",
		"2026-01-02T03:04:05Z", "2026-01-02 03:04:05.123456789+02:00", "2026-01-02T03:04:05.5-07:00", "2026-13-02", "now", "ZZ", "äöü€",
		strings.Repeat("x", 1023), strings.Repeat("y", 1024), strings.Repeat("z", 1025),
		[]byte{}, []byte{0}, []byte{255, 0, 1}, []byte(nil), []byte(strings.Repeat("b", 2000)),
		time.Date(2026, 1, 2, 3, 4, 5, 678901234, zone), time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), time.Time{},
	}
}

// What a prepared statement comes to when it is run again and again: the guard
// runs it past go-sqlite3, and nobody can tell.
var diffDirect = []diffScenario{
	{name: "values of all kinds by prepared statements", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		r.must(db, diffKinds)
		insert := r.prepare(db, "INSERT INTO k VALUES (?1, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2, ?2)")
		for i, v := range diffValues() {
			r.stmtExec(insert, i, v)
			r.stmtExec(insert, i, v) // the key is there
		}
		all := r.prepare(db, "SELECT *, t || 'x', i + 1, r * 2, NULL, CAST(t AS BLOB) FROM k")
		some := r.prepare(db, "SELECT ts, bo, x FROM k WHERE x = ? OR ts = ? ORDER BY id")
		for range 2 {
			r.stmtQuery(all)
			for _, v := range diffValues() {
				r.stmtQuery(some, v, v)
				r.query(db, "SELECT ?1, typeof(?1), quote(?1)", v)
			}
			r.scan(db, "SELECT * FROM k WHERE id < ?", 9)
		}
	}, sees: []string{"UNIQUE constraint failed", "0001-01-01"}},

	{name: "times in a zone by prepared statements", on: "file", run: func(r *diffRec, db *sql.DB) {
		for _, loc := range []string{"auto", "UTC", "America/New_York"} {
			other := r.open("_loc=" + loc)
			r.must(other, "DROP TABLE IF EXISTS k", diffKinds)
			insert := r.prepare(other, "INSERT INTO k (ts, d, x) VALUES (?1, ?1, ?1)")
			for _, v := range diffValues() {
				r.stmtExec(insert, v)
			}
			s := r.prepare(other, "SELECT ts, d, x FROM k")
			r.stmtQuery(s)
			r.stmtQuery(s)
		}
	}, sees: []string{"America/New_York"}},

	{name: "a database in UTF-16 by prepared statements", on: "memory file", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		r.must(db, "PRAGMA encoding = 'UTF-16le'", diffKinds)
		insert := r.prepare(db, "INSERT INTO k (t, b, x) VALUES (?1, ?1, ?1)")
		s := r.prepare(db, "SELECT t, b, x, t || x FROM k")
		for _, v := range diffValues() {
			r.stmtExec(insert, v)
			r.stmtQuery(s)
		}
	}},

	{name: "errors of prepared statements", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		r.must(db, "PRAGMA foreign_keys = 1",
			"CREATE TABLE p (id INTEGER PRIMARY KEY, n INT NOT NULL CHECK (n < 100), u TEXT UNIQUE)",
			"CREATE TABLE c (p INT REFERENCES p DEFERRABLE INITIALLY DEFERRED)",
			"CREATE TRIGGER tr BEFORE INSERT ON p WHEN new.n = 13 BEGIN SELECT RAISE(ABORT, 'unlucky'); END",
			"CREATE TRIGGER rb BEFORE INSERT ON p WHEN new.n = 14 BEGIN SELECT RAISE(ROLLBACK, 'all gone'); END",
			"INSERT INTO p VALUES (1, 1, 'a'), (2, 2, 'b')")
		insert := r.prepare(db, "INSERT INTO p VALUES (?, ?, ?)")
		child := r.prepare(db, "INSERT INTO c VALUES (?)")
		for range 2 {
			for _, args := range [][]any{
				{3, 3, "a"}, {1, 1, "z"}, {4, nil, "y"}, {5, 100, "x"}, {6, 13, "w"}, {7, 14, "v"}, {"no number", 1, "u"},
				{8, 8, strings.Repeat("long", 300)}, {8}, {9, 9, "t", "too many"}, {sql.Named("a", 1), 1, "s"}, {10, 10, struct{}{}},
			} {
				r.stmtExec(insert, args...)
			}
			r.stmtExec(child, 77)
			r.stmtExec(child, 1)
		}
		for _, end := range []func(*sql.Tx) error{(*sql.Tx).Commit, (*sql.Tx).Rollback} {
			tx := r.tx(db)
			in := tx.StmtContext(bg, insert)
			r.stmtExec(in, 20, 20, "in")
			r.stmtExec(in, 20, 20, "in") // fails, the transaction goes on
			r.stmtExec(tx.StmtContext(bg, child), 99)
			r.err("end", end(tx))
		}
		r.query(db, "SELECT * FROM p")
		r.query(db, "SELECT * FROM c")
	}, sees: []string{"unlucky", "all gone", "FOREIGN KEY constraint failed", "CHECK constraint failed", "datatype mismatch"}},

	{name: "errors in the middle of prepared rows", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		r.must(db, "CREATE TABLE n (v)", "INSERT INTO n VALUES (1), (2), (-9223372036854775808), (4)")
		s := r.prepare(db, "SELECT v, abs(v) FROM n")
		first := r.prepare(db, "SELECT abs(v) FROM n WHERE v < ?")
		for range 3 {
			r.stmtQuery(s)
			r.stmtQuery(first, 0)
			r.stmtQuery(first, 2)
			r.stmtQuery(first, -9e18)
		}
		tx := r.tx(db)
		in := tx.StmtContext(bg, s)
		r.stmtQuery(in)
		r.exec(tx, "INSERT INTO n VALUES (5)")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT count(*) FROM n")
	}, sees: []string{"integer overflow"}},

	{name: "a full disk under prepared statements", on: "file wal", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		r.must(db, "CREATE TABLE f (v)", "PRAGMA max_page_count = 6")
		insert := r.prepare(db, "INSERT INTO f VALUES (?)")
		for range 40 {
			r.stmtExec(insert, strings.Repeat("x", 1000))
			r.stmtExec(insert, 1)
		}
		r.query(db, "SELECT count(*) FROM f")
	}, sees: []string{"full"}},

	{name: "locks under prepared statements", on: "file wal", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		one, two := r.open("_busy_timeout=0"), r.open("_busy_timeout=0")
		update := r.prepare(two, "UPDATE t SET b = ? WHERE a = ?")
		read := r.prepare(two, "SELECT * FROM t")
		r.stmtExec(update, "before", 1)
		r.stmtQuery(read)
		tx := r.tx(one)
		r.exec(tx, "UPDATE t SET b = 'held' WHERE a = 2")
		for range 2 {
			r.stmtExec(update, "locked", 1)
			r.stmtQuery(read)
		}
		r.err("commit", tx.Commit())
		r.stmtExec(update, "after", 1)
		r.stmtQuery(read)
	}, sees: []string{"database is locked"}},

	{name: "a prepared statement run again over its rows", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		tx := r.tx(db)
		read, write := r.prepare(tx, "SELECT a, b FROM t"), r.prepare(tx, "UPDATE t SET b = b || ? WHERE a <= ?")
		both := r.prepare(tx, "UPDATE t SET b = ? RETURNING a, b")
		for range 3 {
			outer, err := read.QueryContext(bg)
			r.check(err)
			r.next(outer)
			r.stmtExec(write, "!", 2)
			r.next(outer)
			inner, err := read.QueryContext(bg)
			r.check(err)
			r.next(inner)
			r.next(outer)
			r.over(inner)
			r.next(outer)
			r.over(outer)
			r.stmtQuery(read)
			r.stmtQuery(write, "?", 1)
			r.stmtQuery(both, "x")
			rows, err := both.QueryContext(bg, "y")
			r.check(err)
			r.next(rows)
			r.stmtExec(write, "+", 3)
			r.over(rows)
			r.stmtQuery(read)
			one, err := write.QueryContext(bg, "1", 1)
			r.check(err)
			two, err := write.QueryContext(bg, "2", 1)
			r.check(err)
			r.next(two)
			r.next(one)
			r.over(one)
			r.over(two)
			r.stmtQuery(read)
		}
		r.err("commit", tx.Commit())
	}},

	{name: "schema between runs of a prepared statement", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		read := r.prepare(db, "SELECT * FROM t WHERE a < ?")
		write := r.prepare(db, "UPDATE t SET a = a WHERE a = ?")
		again := func() {
			for range 2 {
				r.stmtQuery(read, 3)
				r.stmtExec(write, 1)
			}
		}
		again()
		for _, change := range []string{
			"ALTER TABLE t ADD COLUMN c TIMESTAMP DEFAULT '2026-01-02 03:04:05'", "ALTER TABLE t ADD COLUMN d BOOLEAN DEFAULT 2",
			"ALTER TABLE t RENAME COLUMN d TO e", "ALTER TABLE t DROP COLUMN c", "DROP TABLE t",
			"CREATE TABLE t (a INTEGER, b DATE, c, d, e, f, g)", "INSERT INTO t VALUES (1, 5, 1, 2, 3, 4, 5)", "DROP TABLE t",
			"CREATE TABLE t (a TIMESTAMP)", "INSERT INTO t VALUES (1)", "CREATE TRIGGER i BEFORE UPDATE ON t BEGIN SELECT RAISE(FAIL, 'no more'); END",
		} {
			r.must(db, change)
			again()
		}
	}, sees: []string{"2026-01-02", "no such table", "no more", "1970-01-01"}},

	{name: "contexts over prepared statements", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		read, write := r.prepare(db, "SELECT * FROM t"), r.prepare(db, "UPDATE t SET b = ? WHERE a = 1")
		gone, cancel := context.WithCancel(bg)
		cancel()
		live, stop := context.WithCancel(bg)
		defer stop()
		for _, ctx := range []context.Context{bg, live, gone, live, bg, gone, gone, bg} {
			res, err := write.ExecContext(ctx, fmt.Sprint(ctx.Err()))
			r.result("exec", res, err)
			rows, err := read.QueryContext(ctx)
			r.err("query", err)
			if err == nil {
				r.all(rows)
			}
		}
	}, sees: []string{"context canceled"}},

	{name: "types of columns of prepared rows", on: "memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		r.must(db, diffKinds, "INSERT INTO k (id, ts, bo) VALUES (1, 5, 1)")
		s := r.prepare(db, "SELECT *, 1 + 1 AS e FROM k")
		for range 2 {
			rows, err := s.QueryContext(bg)
			r.check(err)
			r.columns(rows)
			r.next(rows)
			r.columns(rows)
			r.next(rows)
			r.columns(rows)
			r.over(rows)
			r.columns(rows)
		}
	}},
}
