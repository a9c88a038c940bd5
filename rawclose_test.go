//go:build cgo

package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

// Programs that close the real connection, inside sql.Conn.Raw: SQLite's memory is gone
// from then on, and the guard must not look at it. What touches freed memory mostly works
// by luck, so glibc is told to overwrite it (a variable that only a new process reads,
// see https://man7.org/linux/man-pages/man3/mallopt.3.html), and .ci/run has the address
// sanitizer run these tests as well.

// freedIsOverwritten reports whether the test runs in a process in which freed memory is
// overwritten. If not, it starts one for it.
func freedIsOverwritten(t *testing.T) bool {
	t.Helper()
	t.Setenv("MALLOC_PERTURB_", "165")
	return alone(t)
}

// realConn returns go-sqlite3's connection.
func realConn(driverConn any) *sqlite3.SQLiteConn {
	c, _ := SQLiteConn(driverConn)
	return c
}

// closesItself is a program that closes the real connection, and goes on. It tells what
// it was answered.
type closesItself struct {
	t    *testing.T
	db   *sql.DB
	conn *sql.Conn
	told []string
}

func (p *closesItself) tell(what string, err error) {
	p.told = append(p.told, fmt.Sprintf("%s: %T %v", what, err, err))
}

func (p *closesItself) closeReal() {
	p.t.Helper()
	mustDo(p.t, p.conn.Raw(func(dc any) error { return realConn(dc).Close() }))
}

// use does on what there is to be done, but for what only one of *sql.Conn, *sql.Tx and
// *sql.DB has.
func (p *closesItself) use(on execer) {
	cancellable, cancel := context.WithCancel(background)
	defer cancel()
	for _, ctx := range []context.Context{background, cancellable} {
		for _, q := range []string{
			"INSERT INTO t VALUES(random())", "BEGIN; INSERT INTO t VALUES(random()); COMMIT", "PRAGMA busy_timeout",
			"PRAGMA busy_timeout=7", "ATTACH ':memory:' AS x", "SELECT 1", "BEGIN", "ROLLBACK", "-- nothing", "NONSENSE",
		} {
			_, err := on.ExecContext(ctx, q)
			p.tell(q, err)
			rows, err := on.QueryContext(ctx, q)
			p.tell("query "+q, err)
			if err == nil {
				rows.Next()
				p.tell("its rows", errors.Join(rows.Err(), rows.Close()))
			}
			s, err := on.PrepareContext(ctx, q)
			p.tell("prepare "+q, err)
			if err == nil {
				p.tell("close it", s.Close())
			}
		}
		_, err := on.ExecContext(ctx, "INSERT INTO t VALUES(?)", 3)
		p.tell("INSERT with an argument", err)
	}
}

// useRows reads rows to their end.
func (p *closesItself) useRows(rows *sql.Rows) {
	n := 0
	for rows.Next() {
		n++
	}
	p.tell(fmt.Sprint(n, " rows"), rows.Err())
	_, err := rows.ColumnTypes()
	p.tell("their types", err)
	p.tell("close rows", rows.Close())
}

var closingPrograms = map[string]func(p *closesItself){
	"nothing open": func(p *closesItself) {
		p.closeReal()
		p.use(p.conn)
	},
	"a transaction": func(p *closesItself) {
		tx, err := p.conn.BeginTx(background, nil)
		p.tell("begin", err)
		run(p.t, tx, "INSERT INTO t VALUES(2)")
		p.closeReal()
		p.use(tx)
		p.tell("commit", tx.Commit())
		_, err = p.conn.BeginTx(background, nil)
		p.tell("begin", err)
		_, err = p.conn.BeginTx(background, &sql.TxOptions{ReadOnly: true})
		p.tell("begin", err)
	},
	"a transaction, rolled back at once": func(p *closesItself) {
		tx, err := p.conn.BeginTx(background, nil)
		p.tell("begin", err)
		p.closeReal()
		p.tell("rollback", tx.Rollback())
	},
	"a transaction by text": func(p *closesItself) {
		run(p.t, p.conn, "BEGIN", "INSERT INTO t VALUES(2)")
		p.closeReal()
		p.use(p.conn)
	},
	"rows in a transaction, closed first": func(p *closesItself) {
		tx, err := p.conn.BeginTx(background, nil)
		p.tell("begin", err)
		rows, err := tx.QueryContext(background, "SELECT i FROM "+eleven)
		p.tell("rows", err)
		p.closeReal()
		p.useRows(rows)
		p.use(tx)
		p.tell("rollback", tx.Rollback())
	},
	"rows in a transaction, closed at once": func(p *closesItself) {
		tx, err := p.conn.BeginTx(background, nil)
		p.tell("begin", err)
		rows, err := tx.QueryContext(background, "SELECT i FROM "+eleven)
		p.tell("rows", err)
		p.closeReal()
		p.tell("close", rows.Close())
		p.use(tx)
		p.tell("commit", tx.Commit())
	},
	"rows and statements": func(p *closesItself) {
		insert, get := prepare(p.t, p.conn, "INSERT INTO t VALUES(?)"), prepare(p.t, p.conn, "SELECT a FROM t WHERE a > ?")
		never := prepare(p.t, p.conn, "SELECT 1")
		for i := range 3 { // texts that come again are kept
			run(p.t, p.conn, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
			rows, err := p.conn.QueryContext(background, "SELECT a FROM t WHERE a >= ?", 0)
			mustDo(p.t, err)
			mustDo(p.t, rows.Close())
		}
		_, err := insert.Exec(100)
		p.tell("INSERT", err)
		cancellable, cancel := context.WithCancel(background)
		defer cancel()
		var open []*sql.Rows
		for _, ctx := range []context.Context{background, cancellable} {
			for _, q := range []func() (*sql.Rows, error){
				func() (*sql.Rows, error) { return p.conn.QueryContext(ctx, "SELECT a FROM t WHERE a >= ?", 0) },
				func() (*sql.Rows, error) { return p.conn.QueryContext(ctx, "SELECT i FROM "+eleven) },
				func() (*sql.Rows, error) { return get.QueryContext(ctx, -1) },
			} {
				rows, err := q()
				mustDo(p.t, err)
				open = append(open, rows)
			}
		}
		open[0].Next()
		p.closeReal()
		for i := range 3 { // 100 is there
			_, err := insert.Exec(100 + i)
			p.tell("INSERT", err)
		}
		_, err = insert.Exec([]byte("x")) // what go-sqlite3 runs, and what it does not bind
		p.tell("INSERT", err)
		_, err = insert.Exec(sql.Named("x", 1))
		p.tell("INSERT", err)
		_, err = insert.Exec(1, 2)
		p.tell("INSERT", err)
		for _, rows := range open {
			p.useRows(rows)
		}
		var a int
		p.tell("SELECT", get.QueryRow(-1).Scan(&a))
		p.use(p.conn)
		p.tell("close", insert.Close())
		p.tell("close", get.Close())
		p.tell("close", never.Close())
		_, err = insert.Exec(200)
		p.tell("INSERT", err)
	},
	"the schema changes": func(p *closesItself) {
		get := prepare(p.t, p.conn, "SELECT * FROM t")
		p.closeReal()
		run(p.t, p.db, "ALTER TABLE t ADD COLUMN b") // over the other connection
		rows, err := get.Query()
		p.tell("SELECT", err)
		if err == nil {
			p.useRows(rows)
		}
		p.tell("close", get.Close())
	},
	"twice": func(p *closesItself) {
		p.closeReal()
		p.closeReal()
		p.tell("exec", try(p.conn, "SELECT 1"))
	},
	"ping": func(p *closesItself) {
		p.closeReal()
		p.tell("ping", p.conn.PingContext(background))
		p.tell("exec", try(p.conn, "SELECT 1"))
	},
	"within the call": func(p *closesItself) {
		p.tell("raw", p.conn.Raw(func(dc any) error {
			mustDo(p.t, realConn(dc).Close())
			c := dc.(bareConn)
			_, err := c.ExecContext(background, "SELECT 1", nil)
			p.tell("exec", err)
			_, err = c.QueryContext(background, "SELECT 1", nil)
			p.tell("query", err)
			p.tell("auto-commit", fmt.Errorf("%v", realConn(dc).AutoCommit()))
			return nil
		}))
	},
}

// run runs a program over a driver, and what comes behind it: the connection is checked
// in, used by others, and the pool closed.
func runClosing(t *testing.T, driverName, dsn string, program func(p *closesItself)) []string {
	db, err := sql.Open(driverName, dsn)
	mustDo(t, err)
	defer db.Close()
	p := &closesItself{t: t, db: db}
	run(t, db, createT)
	p.conn, err = db.Conn(background)
	mustDo(t, err)
	program(p)
	p.tell("check-in", p.conn.Close())
	for range 2 {
		p.use(db)
		Stats()
	}
	tx, err := db.Begin()
	p.tell("begin", err)
	if err == nil {
		p.tell("rollback", tx.Rollback())
	}
	p.tell("ping", db.Ping())
	p.tell("exec", try(db, "SELECT 1"))
	p.tell("close the pool", db.Close())
	return p.told
}

// A program that closes the real connection is answered as by go-sqlite3, and nothing
// touches what SQLite has freed: not the reaper and the monitor either, which look each
// millisecond.
func TestRealConnectionClosed(t *testing.T) {
	if !freedIsOverwritten(t) {
		return
	}
	const guards = "&_leakguard_check_interval=1ms&_leakguard_memory_interval=1ms&_leakguard_max_idle=1ms&_leakguard_max_lifetime=1ms" +
		"&_leakguard_conn_memory=1&_leakguard_wal_limit=1&_leakguard_leak_after=0&_leakguard_tx_timeout=0"
	for _, param := range []string{"_journal_mode=WAL", "_journal_mode=DELETE", "_stmt_cache_size=8", "_txlock=immediate"} {
		for name, program := range closingPrograms {
			t.Run(param+"/"+name, func(t *testing.T) {
				// The pool's connections come and go, and wait for each other.
				param := param + "&_busy_timeout=5000"
				want := runClosing(t, "sqlite3", fileDSN(t, param), program)
				for range 2 {
					got := runClosing(t, "sqlite-leakguard", fileDSN(t, param)+guards, program)
					if !slices.Equal(got, want) {
						for i := range max(len(got), len(want)) {
							if i >= len(got) || i >= len(want) || got[i] != want[i] {
								t.Fatalf("answer %d: %q, want %q", i, at(got, i), at(want, i))
							}
						}
					}
				}
			})
		}
	}
}

func at(s []string, i int) string {
	if i < len(s) {
		return s[i]
	}
	return ""
}

// What the program has prepared with the real connection outlives it, whoever closes
// that, and looks at no memory of the guard's: it waits for locks, and runs for long.
func TestStatementsOutliveTheRealConnection(t *testing.T) {
	if !freedIsOverwritten(t) {
		return
	}
	const wait = 200 * time.Millisecond
	for _, driverName := range []string{"sqlite3", "sqlite-leakguard"} {
		for _, closer := range []string{"the pool", "the program"} {
			t.Run(driverName+"/"+closer, func(t *testing.T) {
				dsn := fileDSN(t, fmt.Sprintf("_busy_timeout=%d", wait.Milliseconds()))
				db, err := sql.Open(driverName, strings.Replace(dsn, "&_busy_timeout=0", "", 1))
				mustDo(t, err)
				run(t, db, createT)
				c, err := db.Conn(background)
				mustDo(t, err)
				// From here on the guard has a progress handler installed.
				run(t, c, "BEGIN; INSERT INTO t VALUES(1); COMMIT")
				var insert, long driver.Stmt
				mustDo(t, c.Raw(func(dc any) error {
					insert = must(realConn(dc).Prepare("INSERT INTO t VALUES(2)"))(t)
					long = must(realConn(dc).Prepare("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 10000) SELECT count(*) FROM n"))(t)
					if closer == "the program" {
						return realConn(dc).Close()
					}
					return nil
				}))
				mustDo(t, c.Close(), db.Close())

				if n := numbers(t, must(long.(*sqlite3.SQLiteStmt).Query(nil))(t)); !slices.Equal(n, []int64{10000}) {
					t.Errorf("the long query: %v", n)
				}
				holder := must(new(sqlite3.SQLiteDriver).Open(dsn))(t).(bareConn)
				defer holder.Close()
				must(holder.ExecContext(background, "BEGIN IMMEDIATE", nil))(t)
				began := time.Now()
				_, err = insert.(*sqlite3.SQLiteStmt).Exec(nil)
				if took := time.Since(began); err == nil || took < wait/2 {
					t.Errorf("INSERT beside a lock: %v after %v, want an error after %v", err, took, wait)
				}
				must(holder.ExecContext(background, "ROLLBACK", nil))(t)
				must(insert.(*sqlite3.SQLiteStmt).Exec(nil))(t)
			})
		}
	}
}
