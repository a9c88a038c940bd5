package leakguard

import (
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 6: undo only what the guard itself handed out, rows before statements
// before ROLLBACK before close. What is closed in another order stays open
// inside SQLite, with its locks and its file.

// A lease with everything open in it is undone without a trace.
func TestReapedLeaseLeavesNoZombie(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g, createT, "INSERT INTO t SELECT i FROM "+eleven)
		c := g.conn(t)
		insert, read := prepare(t, c, insertT), prepare(t, c, "SELECT a FROM t")
		started(t, read)
		started(t, read) // its cursor once more
		query(t, c, "SELECT a FROM t")
		run(t, c, "BEGIN IMMEDIATE", "INSERT INTO t VALUES(100)")
		if _, err := insert.Exec(101); err != nil {
			t.Fatal(err)
		}
		query(t, c, "INSERT INTO t VALUES(102), (103) RETURNING a")
		file := fileOf(g.dsn)
		if len(descriptors(t, file)) == 0 {
			t.Fatal("no descriptor found")
		}
		sleep(3 * time.Minute)
		g.expect(t, []tracker.EventType{tracker.EventReaped}, "reaped rows leak_after", "reaped rows leak_after",
			"reaped rows leak_after", "reaped rows leak_after", "reaped transaction leak_after")
		if open := descriptors(t, file); len(open) > 0 {
			t.Errorf("still open: %v", open)
		}
		g.checkpoint(t)
		g.outside(t, "BEGIN IMMEDIATE; SELECT 1")
		if n := g.rows(t); n != 11 {
			t.Errorf("%d rows, want 11", n)
		}
	})
}

// With the connection kept, what it had open is closed all the same.
func TestReapedTransactionLeavesNoLock(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute)})
		run(t, g, createT, "INSERT INTO t SELECT i FROM "+eleven)
		tx := g.begin(t)
		read := prepare(t, tx, "SELECT a FROM t")
		started(t, read)
		query(t, tx, "INSERT INTO t VALUES(102), (103) RETURNING a")
		sleep(2 * time.Minute)
		g.checkpoint(t)
		if n := g.outside(t, "SELECT count(*) FROM t"); n != 11 {
			t.Errorf("%d rows, want 11", n)
		}
		g.outside(t, "BEGIN IMMEDIATE; SELECT 1")
	})
}

// database/sql closes connections over statements that were never closed.
func TestClosedConnectionLeavesNoZombie(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, g *guarded){
		"statements": func(t *testing.T, g *guarded) {
			c, err := g.Conn(background)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := c.PrepareContext(background, "SELECT a FROM t"); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
		},
		"returning": func(t *testing.T, g *guarded) { // go-sqlite3 leaves it at its first row
			s, err := g.Prepare("INSERT INTO t VALUES(5), (6) RETURNING a")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Exec(); err != nil {
				t.Fatal(err)
			}
			if n := g.rows(t); n != 2 {
				t.Errorf("%d rows behind Exec, want 2", n)
			}
			g.outside(t, "BEGIN IMMEDIATE; SELECT 1") // the write lock is free
		},
		"text": func(t *testing.T, g *guarded) { run(t, g, "BEGIN", "INSERT INTO t VALUES(5)") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := open(t, Config{})
			g.SetMaxOpenConns(1)
			run(t, g, createT)
			leave(t, g)
			if err := g.Close(); err != nil {
				t.Error(err)
			}
			if open := descriptors(t, fileOf(g.dsn)); len(open) > 0 {
				t.Errorf("still open: %v", open)
			}
			g.checkpoint(t)
		})
	}
}

// The same without database/sql, with rows open and everything closed late.
func TestClosedDriverConnectionLeavesNoZombie(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	dsn := c.connector.dsn
	for _, text := range []string{createT, "INSERT INTO t SELECT i FROM " + eleven} {
		if _, err := c.Exec(text, nil); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Prepare("SELECT a FROM t")
	if err != nil {
		t.Fatal(err)
	}
	byStmt, err := s.Query(nil)
	if err != nil {
		t.Fatal(err)
	}
	byText, err := c.Query("SELECT a FROM t", nil)
	if err != nil {
		t.Fatal(err)
	}
	tx, err := c.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec("INSERT INTO t VALUES(100)", nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if open := descriptors(t, fileOf(dsn)); len(open) > 0 {
		t.Errorf("still open: %v", open)
	}
	if n := rawNumber(t, dsn, "SELECT count(*) FROM t"); n != 11 {
		t.Errorf("%d rows, want 11", n)
	}
	for _, err := range []error{byStmt.Close(), byText.Close(), s.Close(), c.Close()} {
		if err != nil {
			t.Errorf("a late Close: %v", err)
		}
	}
	if err := tx.Commit(); err == nil {
		t.Error("Commit behind Close")
	}
}

// Closing twice gives the shared cache's gate back once.
func TestClosedTwice(t *testing.T) {
	t.Parallel()
	const dsn = "file:law6a?mode=memory&cache=shared"
	first, second := drive(t, Config{DSN: dsn}), drive(t, Config{DSN: dsn})
	for range 2 {
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	}
	third := drive(t, Config{DSN: dsn})
	if second.gate.Shared() != third.gate.Shared() {
		t.Error("two gates for one shared cache")
	}
}

// FTS and RTREE keep statements of their own on the connection.
func TestReapedBesideVirtualTables(t *testing.T) {
	for name, policy := range map[string]tracker.Policy{"lease": leakAfter(time.Minute), "transaction": txTimeout(time.Minute)} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: policy})
				run(t, g, "CREATE VIRTUAL TABLE f USING fts3(a)", "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)",
					"INSERT INTO f SELECT 'word'||i FROM "+eleven, "INSERT INTO r SELECT i, i, i+1 FROM "+eleven)
				for range 3 {
					tx := g.begin(t)
					run(t, tx, "INSERT INTO f VALUES('more')", "INSERT INTO r VALUES(100, 1, 2)")
					query(t, tx, "SELECT a FROM f WHERE f MATCH 'word*'")
					query(t, tx, "SELECT id FROM r WHERE x0>1")
					started(t, prepare(t, tx, "SELECT snippet(f) FROM f WHERE a MATCH 'word3'"))
					sleep(3 * time.Minute)
					wantErr(t, "INSERT", try(tx, "INSERT INTO f VALUES('more')"), ErrReaped)
					wantErr(t, "Rollback", tx.Rollback(), nil)
					run(t, g, "INSERT INTO f(f) VALUES('optimize')")
					if n := number(t, g, "SELECT count(*) FROM f, r"); n != 121 {
						t.Errorf("%d rows, want 121", n)
					}
				}
				g.checkpoint(t)
			})
		})
	}
}

// Idle connections that the guard closed leave no descriptor either.
func TestIdleClosedLeavesNoDescriptor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: idleCloses(time.Minute)})
		run(t, g, createT)
		s := prepare(t, g, "SELECT count(*) FROM t") // open on the idle connection
		var n int
		if err := s.QueryRow().Scan(&n); err != nil {
			t.Fatal(err)
		}
		sleep(3 * time.Minute)
		if open := descriptors(t, fileOf(g.dsn)); len(open) > 0 {
			t.Errorf("still open: %v", open)
		}
		if err := s.QueryRow().Scan(&n); err != nil {
			t.Errorf("the statement on a new connection: %v", err)
		}
		if n := g.opened(); n != 2 {
			t.Errorf("%d connections were opened, want a second one", n)
		}
	})
}

// The commit of INSERT … RETURNING comes with the reset, and may fail there.
func TestReturningThatFailsToCommit(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	g.SetMaxOpenConns(1)
	run(t, g, "PRAGMA foreign_keys=ON",
		"CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE t(a REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
	s := prepare(t, g, "INSERT INTO t VALUES(7) RETURNING a")
	_, err := s.Exec()
	wantCode(t, "Exec", err, sqlite3.ErrConstraint)
	if n := g.rows(t); n != 0 {
		t.Errorf("%d rows, want 0", n)
	}
	tx := g.begin(t)
	if _, err := tx.Stmt(s).Exec(); err != nil { // in a transaction the reset commits nothing
		t.Error(err)
	}
	wantCode(t, "Commit", tx.Commit(), sqlite3.ErrConstraint)
}
