package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A lease that was undone gives everything back, whichever limit came first: its
// handle is closed once it has rested for leak_after.

// forgotten is something that a program leaves lying about: what ends it, as its
// holder would who comes back.
type forgotten struct {
	use    func() error // on the lease
	commit func() error // nil where there is nothing to commit
	end    func() error
}

// forgettings leave a lease behind that holds something. A busy one goes on with
// its connection for a while; its rows rest meanwhile.
var forgettings = map[string]func(t *testing.T, g *guarded) forgotten{
	"rows": func(t *testing.T, g *guarded) forgotten {
		rows := unreadRows(t, g, "SELECT a, i FROM t, "+eleven)
		rows.Next()
		return forgotten{use: func() error { rows.Next(); return rows.Err() }, end: rows.Close}
	},
	"rows not read": func(t *testing.T, g *guarded) forgotten {
		rows := unreadRows(t, g, "SELECT a, i FROM t, "+eleven)
		return forgotten{use: func() error { rows.Next(); return rows.Err() }, end: rows.Close}
	},
	"rows with a ctx": func(t *testing.T, g *guarded) forgotten {
		ctx, cancel := context.WithCancel(background)
		t.Cleanup(cancel)
		rows, err := g.QueryContext(ctx, "SELECT a, i FROM t, "+eleven)
		if err != nil {
			t.Fatal(err)
		}
		return forgotten{use: func() error { rows.Next(); return rows.Err() }, end: rows.Close}
	},
	"returning": func(t *testing.T, g *guarded) forgotten {
		rows := unreadRows(t, g, "INSERT INTO t VALUES('r1'), ('r2') RETURNING a")
		return forgotten{use: func() error { rows.Next(); return rows.Err() }, end: rows.Close}
	},
	"row": func(t *testing.T, g *guarded) forgotten {
		row := g.QueryRow("SELECT a, i FROM t, " + eleven)
		return forgotten{use: func() error { return row.Scan(new(any), new(any)) }, end: func() error { return nil }}
	},
	"transaction": func(t *testing.T, g *guarded) forgotten {
		tx, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO t VALUES('half')")
		return forgotten{use: func() error { return try(tx, "SELECT 1") }, commit: tx.Commit, end: tx.Rollback}
	},
	"transaction with all in it": func(t *testing.T, g *guarded) forgotten {
		tx, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO t VALUES('half')", "SAVEPOINT s")
		unreadRows(t, tx, "SELECT a, i FROM t, "+eleven)
		s, err := tx.Prepare("SELECT a FROM t")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Query(); err != nil {
			t.Fatal(err)
		}
		return forgotten{use: func() error { _, err := s.Query(); return errors.Join(err, try(tx, "SELECT 1")) }, commit: tx.Commit, end: tx.Rollback}
	},
	"sql.Conn with a transaction": func(t *testing.T, g *guarded) forgotten {
		c := unheld(t, g)
		tx, err := c.BeginTx(background, nil)
		if err != nil {
			t.Fatal(err)
		}
		run(t, tx, "INSERT INTO t VALUES('half')")
		return forgotten{
			use: func() error { return try(tx, "SELECT 1") }, commit: tx.Commit,
			end: func() error { return errors.Join(tx.Rollback(), c.Close()) },
		}
	},
	"sql.Conn with a text transaction": func(t *testing.T, g *guarded) forgotten {
		c := unheld(t, g)
		run(t, c, "BEGIN IMMEDIATE", "INSERT INTO t VALUES('half')")
		return forgotten{
			use: func() error { return try(c, "SELECT 1") }, commit: func() error { return try(c, "COMMIT") },
			end: func() error { return errors.Join(try(c, "ROLLBACK"), c.Close()) },
		}
	},
	"rows of a busy lease": func(t *testing.T, g *guarded) forgotten {
		c := unheld(t, g)
		rows := unreadRows(t, c, "SELECT a, i FROM t, "+eleven)
		for range 20 { // ten minutes
			sleep(30 * time.Second)
			run(t, c, "SELECT 1")
		}
		return forgotten{
			use: func() error { return try(c, "SELECT 1") },
			end: func() error { return errors.Join(rows.Close(), c.Close()) },
		}
	},
}

func unreadRows(t *testing.T, on execer, q string) *sql.Rows {
	t.Helper()
	rows, err := on.QueryContext(background, q)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// unheld is conn for a lease that the test ends itself.
func unheld(t *testing.T, g *guarded) *sql.Conn {
	t.Helper()
	c, err := g.Conn(background)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// whicheverFirst are limits of which one or the other comes first.
var whicheverFirst = map[string]func(p *tracker.Policy){
	"leak_after":       func(p *tracker.Policy) { p.LeakAfter = 5 * time.Minute },
	"leak_after first": func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = 2*time.Minute, 20*time.Minute },
	"tx_timeout first": func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = 20*time.Minute, 2*time.Minute },
	"tx_limit first":   func(p *tracker.Policy) { p.LeakAfter, p.TxLimit = 20*time.Minute, 2*time.Minute },
	"both at once":     func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = 5*time.Minute, 5*time.Minute },
	"tx_timeout and limit": func(p *tracker.Policy) {
		p.LeakAfter, p.TxTimeout, p.TxLimit = 15*time.Minute, 5*time.Minute, 6*time.Minute
	},
}

func TestReapedLeaseGivesEverythingBack(t *testing.T) {
	for order, set := range whicheverFirst {
		for what, forget := range forgettings {
			for _, closed := range []bool{false, true} {
				name := order + "/" + what
				if closed {
					name += "/database closed"
				}
				t.Run(name, func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: limits(set)})
						g.SetMaxIdleConns(-1)
						run(t, g, createT, "INSERT INTO t VALUES(1), (2), (3)")
						f := forget(t, g)
						if n := len(descriptors(t, fileOf(g.dsn))); n == 0 {
							t.Fatal("no descriptor is open: not the case that was meant")
						}
						if closed {
							wantErr(t, "Close", g.DB.Close(), nil)
						}
						sleep(2 * time.Hour)
						if left := descriptors(t, fileOf(g.dsn)); len(left) > 0 {
							t.Errorf("still open: %v", left)
						}
						if n := len(g.events(tracker.EventReaped)); n == 0 {
							t.Error("nothing was told to be undone")
						}
						g.expect(t, []tracker.EventType{tracker.EventKept})
						for _, d := range g.connector.Stats().ActiveConnectionDetails {
							if !d.Reaped || d.MemoryBytes != 0 || d.OpenRows+d.OpenStatements+d.TransactionLevel != 0 {
								t.Errorf("%+v", d)
							}
						}
						wantErr(t, "the holder", f.use(), ErrReaped)
						wantErr(t, "the holder again", f.use(), ErrReaped)
						wantErr(t, "the end", f.end(), nil)
						sleep(time.Second)
						if n := g.connector.Stats().TotalConnections; n != 0 {
							t.Errorf("%d connections are left", n)
						}
						// Nothing of it is in the file but what was committed.
						if n := g.outside(t, "SELECT count(*) FROM t WHERE a='half'"); n != 0 {
							t.Errorf("%d rows of half a transaction", n)
						}
						g.checkpoint(t)
					})
				})
			}
		}
	}
}

// Commit of what was undone fails, then and later.
func TestReapedLeaseDoesNotCommit(t *testing.T) {
	for order, set := range whicheverFirst {
		for _, what := range []string{"transaction", "transaction with all in it", "sql.Conn with a transaction", "sql.Conn with a text transaction"} {
			t.Run(order+"/"+what, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: limits(set)})
					g.SetMaxIdleConns(-1)
					run(t, g, createT, "INSERT INTO t VALUES(1), (2), (3)")
					f := forgettings[what](t, g)
					sleep(2 * time.Hour)
					wantErr(t, "Commit", f.commit(), ErrReaped)
					f.end()
					if n := g.outside(t, "SELECT count(*) FROM t WHERE a='half'"); n != 0 {
						t.Errorf("%d rows of half a transaction", n)
					}
				})
			})
		}
	}
}

// Not before it has rested for leak_after: until then the holder may come back,
// end what was undone, and go on with its connection. From there on the lease
// holds nothing, and is left alone as any other.
func TestUndoneLeaseMayGoOn(t *testing.T) {
	for name, test := range map[string]struct {
		undo  func(t *testing.T, c *sql.Conn) (end func() error)
		event string
	}{
		"text": {func(t *testing.T, c *sql.Conn) func() error {
			run(t, c, "BEGIN", "INSERT INTO t VALUES('half')")
			sleep(15 * time.Minute)
			wantErr(t, "INSERT", try(c, "INSERT INTO t VALUES('half')"), ErrReaped)
			return func() error { return try(c, "ROLLBACK") }
		}, "reaped transaction tx_timeout"},
		"tx": {func(t *testing.T, c *sql.Conn) func() error {
			tx, err := c.BeginTx(background, nil)
			if err != nil {
				t.Fatal(err)
			}
			run(t, tx, "INSERT INTO t VALUES('half')")
			sleep(15 * time.Minute)
			return tx.Rollback
		}, "reaped transaction tx_timeout"},
		"rows": {func(t *testing.T, c *sql.Conn) func() error {
			rows := unreadRows(t, c, "SELECT i FROM "+eleven)
			for range 10 {
				sleep(5 * time.Minute)
				run(t, c, "INSERT INTO u VALUES(0)")
			}
			return rows.Close
		}, "reaped rows leak_after"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = 20*time.Minute, 2*time.Minute })})
				run(t, g, createT, "CREATE TABLE u(a)")
				c := g.conn(t)
				end := test.undo(t, c)
				g.expect(t, []tracker.EventType{tracker.EventReaped}, test.event)
				if len(descriptors(t, fileOf(g.dsn))) == 0 {
					t.Fatal("closed before leak_after")
				}
				wantErr(t, "the end", end(), nil)
				for range 10 { // with pauses
					sleep(15 * time.Minute)
					run(t, c, "INSERT INTO u VALUES(1)")
				}
				sleep(24 * time.Hour)
				wantErr(t, "much later", try(c, "INSERT INTO u VALUES(2)"), nil)
				if n := g.outside(t, "SELECT count(*) FROM u WHERE a > 0"); n != 11 || g.opened() != 1 {
					t.Errorf("%d rows, %d connections, want 11 and 1", n, g.opened())
				}
			})
		})
	}
}

// The next lease of the connection is not the one that was undone.
func TestUndoneLeaseEndsWithCheckIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = 20*time.Minute, 2*time.Minute })})
		g.SetMaxOpenConns(1)
		run(t, g, createT)
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		sleep(10 * time.Minute)
		wantErr(t, "Rollback", tx.Rollback(), nil)
		c := g.conn(t)
		sleep(24 * time.Hour) // on purpose, say
		run(t, c, "INSERT INTO t VALUES(1)")
		if g.opened() != 1 {
			t.Errorf("%d connections were opened, want 1", g.opened())
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped}, "reaped transaction tx_timeout")
	})
}

// Where a new connection could not stand for it, the handle stays, its memory is
// released, and that is told.
func TestKeptHandleOfAReapedLease(t *testing.T) {
	for order, set := range whicheverFirst {
		for name, kept := range map[string]struct {
			cfg func(t *testing.T) Config
			do  func(t *testing.T, c *sql.Conn)
			why string
		}{
			"pragma":       {do: func(t *testing.T, c *sql.Conn) { run(t, c, "PRAGMA cache_size=100") }, why: "PRAGMA cache_size was set by the program"},
			"temp objects": {do: func(t *testing.T, c *sql.Conn) { run(t, c, "CREATE TEMP TABLE x(a)") }, why: "it has temporary objects"},
			"attached":     {do: func(t *testing.T, c *sql.Conn) { run(t, c, "ATTACH ':memory:' AS other") }, why: "a database is attached"},
			"hook": {
				cfg: func(*testing.T) Config { return Config{SQLite: funcs(nil)} },
				why: "its handle was given to a ConnectHook or an extension",
			},
			"memory": {
				cfg: func(t *testing.T) Config { return Config{DSN: "file:/" + t.Name() + "?vfs=memdb"} },
				why: "in-memory or temporary database: closing it would destroy the data",
			},
		} {
			for what, forget := range forgettings {
				if what == "returning" && name == "memory" {
					continue // what it wrote counts there
				}
				t.Run(order+"/"+name+"/"+what, func(t *testing.T) {
					bubble(t, func(t *testing.T) {
						var cfg Config
						if kept.cfg != nil {
							cfg = kept.cfg(t)
						}
						if cfg.DSN == "" {
							cfg.DSN = fileDSN(t, "_synchronous=OFF")
						}
						cfg.Policy = limits(set)
						g := open(t, cfg)
						g.SetMaxOpenConns(1)
						run(t, g, createT, "INSERT INTO t VALUES(1), (2), (3)")
						if kept.do != nil {
							c := unheld(t, g)
							kept.do(t, c)
							c.Close()
						}
						f := forget(t, g)
						sleep(2 * time.Hour)
						g.expect(t, []tracker.EventType{tracker.EventKept, tracker.EventClosed}, "kept "+kept.why)
						if n := g.connector.Stats().ForceClosed; n != 0 {
							t.Errorf("%d handles were closed", n)
						}
						if name != "memory" {
							if left := descriptors(t, fileOf(g.dsn)); len(left) == 0 {
								t.Error("nothing is open")
							}
						}
						if what != "rows of a busy lease" { // it holds nothing any more
							wantErr(t, "the holder", f.use(), ErrReaped)
						}
						wantErr(t, "the end", f.end(), nil)
						if n := number(t, g, "SELECT count(*) FROM t WHERE a='half'"); n != 0 {
							t.Errorf("%d rows of half a transaction", n)
						}
						if g.opened() != 1 {
							t.Errorf("%d connections were opened, want 1", g.opened())
						}
					})
				})
			}
		}
	}
}

// A handle that was handed out raw in an earlier lease stays, and that is told.
// In the lease itself nothing is undone, and the report says why.
func TestKeptHandleOfARawLease(t *testing.T) {
	for order, set := range whicheverFirst {
		t.Run(order, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: limits(set)})
				g.SetMaxOpenConns(1)
				run(t, g, createT)
				out := func(c *sql.Conn) {
					t.Helper()
					wantErr(t, "Raw", c.Raw(func(dc any) error { _, _ = SQLiteConn(dc); return nil }), nil)
				}
				c := unheld(t, g)
				out(c)
				c.Close()
				tx := g.begin(t)
				run(t, tx, "INSERT INTO t VALUES(1)")
				sleep(2 * time.Hour)
				wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(2)"), ErrReaped)
				wantErr(t, "Rollback", tx.Rollback(), nil)
				g.expect(t, []tracker.EventType{tracker.EventKept}, "kept the raw connection was handed out")

				c = g.conn(t)
				out(c)
				run(t, c, "BEGIN", "INSERT INTO t VALUES(3)")
				sleep(2 * time.Hour)
				if told := g.events(tracker.EventSuspect); told[len(told)-1].Leak.Kept == "" {
					t.Errorf("the report does not say that it stays: %v", told[len(told)-1].Leak)
				}
				run(t, c, "INSERT INTO t VALUES(4)", "COMMIT")
				if n := g.rows(t); n != 2 || g.opened() != 1 || g.connector.Stats().ForceClosed != 0 {
					t.Errorf("%d rows, %d connections opened, %d closed; want 2, 1 and none", n, g.opened(), g.connector.Stats().ForceClosed)
				}
			})
		})
	}
}

// A lease that never held anything is left alone, its database closed or not: a
// sql.Conn may be held on purpose, and works on behind Close.
func TestEmptyLeaseBehindClose(t *testing.T) {
	for order, set := range whicheverFirst {
		t.Run(order, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: limits(set)})
				run(t, g, createT)
				c := g.conn(t)
				wantErr(t, "Ping", c.PingContext(background), nil)
				wantErr(t, "Close", g.DB.Close(), nil)
				for range 3 {
					sleep(24 * time.Hour)
					run(t, c, "INSERT INTO t VALUES(NULL)")
				}
				g.expect(t, []tracker.EventType{tracker.EventReaped})
				if !slices.ContainsFunc(g.events(tracker.EventSuspect), func(e tracker.Event) bool { return e.Leak.Kind == tracker.KindConnection }) {
					t.Error("not reported")
				}
				if n := g.rows(t); n != 3 {
					t.Errorf("%d rows, want 3", n)
				}
				wantErr(t, "Close of the sql.Conn", c.Close(), nil)
				if left := descriptors(t, fileOf(g.dsn)); len(left) > 0 {
					t.Errorf("still open: %v", left)
				}
			})
		})
	}
}

// The same in real time, with what a program has at once when it ends.
func TestNothingIsOpenBehindClose(t *testing.T) {
	t.Parallel()
	for order, policy := range map[string]tracker.Policy{
		"leak_after first": limits(func(p *tracker.Policy) {
			p.LeakAfter, p.TxTimeout, p.CheckInterval = 60*time.Millisecond, 10*time.Second, 10*time.Millisecond
		}),
		"tx_timeout first": limits(func(p *tracker.Policy) {
			p.LeakAfter, p.TxTimeout, p.CheckInterval = 300*time.Millisecond, 60*time.Millisecond, 10*time.Millisecond
		}),
		"both at once": limits(func(p *tracker.Policy) {
			p.LeakAfter, p.TxTimeout, p.CheckInterval = 60*time.Millisecond, 60*time.Millisecond, 10*time.Millisecond
		}),
	} {
		t.Run(order, func(t *testing.T) {
			t.Parallel()
			g := open(t, Config{Policy: limits(nil)})
			g.SetMaxIdleConns(-1)
			run(t, g, createT, "INSERT INTO t SELECT i FROM "+eleven)
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			var all []*sql.Rows
			for range 3 {
				rows, err := g.QueryContext(ctx, "SELECT a FROM t")
				if err != nil {
					t.Fatal(err)
				}
				rows.Next()
				all = append(all, rows)
			}
			tx := g.begin(t)
			run(t, tx, "INSERT INTO t VALUES(100)")
			g.limit(t, policy)
			wantErr(t, "Close", g.DB.Close(), nil)
			open := descriptors(t, fileOf(g.dsn))
			for deadline := time.Now().Add(20 * time.Second); len(open) > 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
				open = descriptors(t, fileOf(g.dsn))
			}
			if len(open) > 0 {
				t.Errorf("still open: %v", open)
			}
			for _, rows := range all {
				cut(t, rows, ErrReaped)
			}
			wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(101)"), ErrReaped)
			wantErr(t, "Rollback", tx.Rollback(), nil)
			runtime.KeepAlive(all)
		})
	}
}
