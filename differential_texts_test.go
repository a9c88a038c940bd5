//go:build cgo

package leakguard_test

import (
	"database/sql"
	"fmt"
	"strings"
)

// What changes between two runs of one text, each text often enough to be kept:
// nobody can tell that it is.
var diffRepeated = []diffScenario{
	{name: "schema between runs", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		again := func() {
			for range 3 {
				r.query(db, "SELECT * FROM t WHERE a < ?", 3)
				r.exec(db, "UPDATE t SET b = ? WHERE a = ?", "new", 1)
				r.query(db, "SELECT max(b) FROM t")
			}
		}
		again()
		r.must(db, "ALTER TABLE t ADD COLUMN c DEFAULT 'more'")
		again()
		r.must(db, "ALTER TABLE t RENAME COLUMN b TO d")
		again()
		r.must(db, "ALTER TABLE t RENAME COLUMN d TO b")
		again()
		r.must(db, "DROP TABLE t")
		again()
		r.must(db, "CREATE TABLE t (b BLOB, a TEXT)", "INSERT INTO t VALUES (1, 2)")
		again()
		r.must(db, "DROP TABLE t", "CREATE VIEW t AS SELECT 1 AS a, 2 AS b")
		again()
		r.must(db, "CREATE TRIGGER i INSTEAD OF UPDATE ON t BEGIN SELECT RAISE(ABORT, 'by the trigger'); END")
		again()
	}, sees: []string{"more", "no such table", "by the trigger"}},

	{name: "schema by another pool between runs", on: "file wal", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		other := r.open("")
		for _, change := range []string{
			"ALTER TABLE t ADD COLUMN c DEFAULT 'more'", "CREATE INDEX i ON t (b)", "ANALYZE",
			"DELETE FROM t WHERE a = 1", "DROP INDEX i", "ALTER TABLE t RENAME TO u", "CREATE TABLE t (z)",
		} {
			for range 3 {
				r.query(db, "SELECT * FROM t")
				r.query(db, "SELECT b FROM t WHERE b > ? ORDER BY b", "a")
				r.exec(db, "DELETE FROM t WHERE b = ?", "nothing")
			}
			r.must(other, change)
		}
		r.query(db, "SELECT * FROM t")
		r.query(db, "SELECT b FROM t WHERE b > ? ORDER BY b", "a")
	}, sees: []string{"more", "no such column"}},

	{name: "names between runs", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		again := func() {
			for range 3 {
				r.query(db, "SELECT * FROM t")
				r.query(db, "SELECT 'A' LIKE 'a', count(*) FROM t")
				r.query(db, "SELECT * FROM other.o")
				r.exec(db, "INSERT INTO other.o VALUES (?)", 7)
			}
		}
		again()
		r.must(db, "CREATE TEMP TABLE t (mine)", "INSERT INTO temp.t VALUES ('mine')")
		again()
		r.must(db, "DROP TABLE temp.t")
		again()
		r.must(db, "PRAGMA case_sensitive_like = 1")
		again()
		for _, file := range []string{"one.db", "two.db"} {
			r.must(db, "ATTACH '"+r.path(file)+"' AS other", "CREATE TABLE IF NOT EXISTS other.o ("+file[:3]+")")
			again()
			r.must(db, "DETACH other")
			again()
		}
		r.must(db, "PRAGMA query_only = 1")
		r.exec(db, "UPDATE t SET b = ? WHERE a = ?", "no", 1)
		r.must(db, "PRAGMA query_only = 0", "PRAGMA journal_mode", "VACUUM")
		again()
	}, sees: []string{`"mine"`, "no such table: other.o", "readonly"}},

	{name: "arguments between runs", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		long := strings.Repeat("long", 3000)
		for range 3 {
			r.query(db, "SELECT ?, typeof(?)", 1, "x")
			r.query(db, "SELECT ?, typeof(?)", nil, []byte{})
			r.query(db, "SELECT ?, typeof(?)", long, 1.5)
			r.query(db, "SELECT ?, typeof(?)", 1)
			r.query(db, "SELECT ?, typeof(?)", 1, 2, 3)
			r.query(db, "SELECT ?, typeof(?)", sql.Named("x", 1), 2)
			r.query(db, "SELECT :x, @y, $z", sql.Named("x", 1), sql.Named("y", 2), sql.Named("z", 3))
			r.query(db, "SELECT ?2, ?1", 1, 2)
			r.query(db, "SELECT ?")
			r.query(db, "SELECT 1", 1)
			r.exec(db, "INSERT INTO t (b) VALUES (?)", long)
			r.exec(db, "INSERT INTO t (b) VALUES (?)", "short")
			r.exec(db, "INSERT INTO t (b) VALUES (?)")
			r.exec(db, "INSERT INTO t (b) VALUES (?)", nil)
			r.exec(db, "INSERT INTO t VALUES (1, 'dup')")
			r.exec(db, "INSERT INTO t VALUES (?, 'dup')", 1)
			r.exec(db, "DELETE FROM t WHERE b IS NULL")
		}
		r.query(db, "SELECT a, length(b) FROM t")
	}, sees: []string{"not enough args", "UNIQUE constraint failed"}},

	{name: "forms of a text", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for range 3 {
			for _, text := range []string{
				"SELECT 1;", "SELECT 1 ; ", "SELECT 1 -- over", "SELECT 1; -- over", "/* first */ SELECT 1", " SELECT 1",
				"SELECT 1\x00SELECT 2", "SELECT", "SELECT * FROM missing", "select 1", "WITH x AS (SELECT 1) SELECT * FROM x",
				"VALUES (1), (2)", "EXPLAIN SELECT 1", "", ";", "--", "REPLACE INTO t VALUES (1, 'again') RETURNING *",
				"WITH x AS (SELECT 9) INSERT INTO t (b) SELECT * FROM x", "SELECT raise_an_error()", "SELECT abs(-9223372036854775808)",
			} {
				r.query(db, text)
				r.exec(db, text)
				r.scan(db, text)
			}
		}
		r.query(db, "SELECT count(*) FROM t")
	}},

	{name: "cursors on one text", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		tx := r.tx(db)
		for range 3 {
			outer := r.rows(tx, "SELECT a FROM t")
			for r.next(outer) {
				inner := r.rows(tx, "SELECT a FROM t")
				r.next(inner)
				r.query(tx, "SELECT a FROM t")
				r.exec(tx, "UPDATE t SET b = ? WHERE a = ?", "in", 2)
				r.over(inner)
			}
			r.over(outer)
		}
		open := r.rows(tx, "SELECT a FROM t")
		r.next(open)
		r.exec(tx, "CREATE TABLE more (x)")
		r.exec(tx, "DROP TABLE t")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}},

	{name: "more texts than are kept", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for range 4 {
			for i := range 3 * 16 {
				r.query(db, fmt.Sprintf("SELECT %d, b FROM t WHERE a = ?", i), i%3)
				r.exec(db, fmt.Sprintf("UPDATE t SET b = b || '%d' WHERE a = ?", i), i%3)
			}
		}
		r.query(db, "SELECT * FROM t")
	}},
}
