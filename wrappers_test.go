package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Drivers around the guard, as tracing ones are: they pass the operations on,
// but not each of the hooks by which database/sql tells what it does with a
// connection.

// operating is what such a wrapper knows of a connection.
type operating interface {
	driver.Conn
	driver.ExecerContext
	driver.QueryerContext
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.Pinger
}

// hidings are wrappers by what they hide.
var hidings = map[string]func(c driver.Conn) driver.Conn{
	"both": func(c driver.Conn) driver.Conn { return struct{ operating }{c.(operating)} },
	"IsValid": func(c driver.Conn) driver.Conn {
		return struct {
			operating
			driver.SessionResetter
		}{c.(operating), c.(driver.SessionResetter)}
	},
	"ResetSession": func(c driver.Conn) driver.Conn {
		return struct {
			operating
			driver.Validator
		}{c.(operating), c.(driver.Validator)}
	},
	"nothing": func(c driver.Conn) driver.Conn {
		return struct {
			operating
			driver.SessionResetter
			driver.Validator
		}{c.(operating), c.(driver.SessionResetter), c.(driver.Validator)}
	},
}

// hiding is a connector whose connections are wrapped.
type hiding struct {
	*Connector
	wrap func(c driver.Conn) driver.Conn
}

func (h hiding) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := h.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return h.wrap(c), nil
}

// openHiding is open behind a wrapper.
func openHiding(t *testing.T, what string, cfg Config) *guarded {
	t.Helper()
	if cfg.Tracker == nil {
		cfg.Tracker = tracker.New(tracker.Options{})
	}
	cfg.DSN, cfg.Logger = fileDSN(t, "_synchronous=OFF"), slog.New(slog.DiscardHandler)
	connector, err := NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{connector: connector, dsn: cfg.DSN, recorder: record(t, cfg.Tracker)}
	g.DB = sql.OpenDB(hiding{connector, hidings[what]})
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return g
}

// hidesCheckIns reports whether the end of a lease is not seen.
func hidesCheckIns(what string) bool { return what == "both" || what == "IsValid" }

// everything is a policy of which each limit is broken after some minutes.
var everything = limits(func(p *tracker.Policy) {
	p.LeakAfter, p.TxTimeout, p.MaxIdle, p.MaxLifetime, p.MaxAccess = 5*time.Minute, time.Hour, 8*time.Minute, 15*time.Minute, 20
	p.Pressure, p.ConnMemory = 0.5, 1
})

// A correct program is as correct behind a wrapper, whatever that hides: nothing
// of it is a suspect, nothing fails because a limit passed, and what its
// connections know they go on to know.
func TestCorrectBehindWrappers(t *testing.T) {
	for what := range hidings {
		for name, use := range map[string]func(t *testing.T, db *sql.DB) error{
			"statements": func(t *testing.T, db *sql.DB) error {
				_, err := db.Exec("INSERT INTO t(v) VALUES('a')")
				return err
			},
			"query": func(t *testing.T, db *sql.DB) error {
				return db.QueryRow("SELECT count(*) FROM t").Scan(new(int))
			},
			"transaction": func(t *testing.T, db *sql.DB) error {
				tx, err := db.Begin()
				if err != nil {
					return err
				}
				_, err = tx.Exec("INSERT INTO t(v) VALUES('b')")
				return errors.Join(err, tx.Commit())
			},
			"rollback": func(t *testing.T, db *sql.DB) error {
				tx, err := db.Begin()
				if err != nil {
					return err
				}
				_, err = tx.Exec("INSERT INTO t(v) VALUES('no')")
				return errors.Join(err, tx.Rollback())
			},
			"prepared": func(t *testing.T, db *sql.DB) error {
				s, err := db.Prepare("INSERT INTO t(v) VALUES(?)")
				if err != nil {
					return err
				}
				_, err = s.Exec("c")
				return errors.Join(err, s.Close())
			},
			"conn": func(t *testing.T, db *sql.DB) error {
				c, err := db.Conn(background)
				if err != nil {
					return err
				}
				err = c.PingContext(background)
				_, err2 := c.ExecContext(background, "INSERT INTO t(v) VALUES('d')")
				return errors.Join(err, err2, c.Close())
			},
			"text transaction": func(t *testing.T, db *sql.DB) error {
				db.SetMaxOpenConns(1)
				for _, text := range []string{"BEGIN", "INSERT INTO t(v) VALUES('e')", "COMMIT"} {
					if _, err := db.Exec(text); err != nil {
						return err
					}
				}
				return nil
			},
			"nested": func(t *testing.T, db *sql.DB) error {
				rows, err := db.Query("SELECT 1 UNION ALL SELECT 2")
				if err != nil {
					return err
				}
				defer rows.Close()
				for rows.Next() {
					if _, err := db.Exec("INSERT INTO t(v) VALUES('f')"); err != nil {
						return err
					}
				}
				return rows.Err()
			},
			"history": func(t *testing.T, db *sql.DB) error {
				if _, err := db.Exec("INSERT INTO t(v) VALUES('g')"); err != nil {
					return err
				}
				sleep(10 * time.Minute)
				var wrong bool
				err := db.QueryRow("SELECT last_insert_rowid() <> (SELECT max(id) FROM t)").Scan(&wrong)
				if wrong {
					err = errors.Join(err, errors.New("last_insert_rowid() is another connection's"))
				}
				return err
			},
		} {
			t.Run("hides "+what+"/"+name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					tr := tracker.New(tracker.Options{})
					machineAt(tr, percent(95))
					g := openHiding(t, what, Config{Tracker: tr, Policy: everything})
					run(t, g, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
					for round := range 12 {
						for range 15 {
							if err := use(t, g.DB); err != nil {
								t.Fatalf("round %d: %v", round, err)
							}
						}
						sleep(time.Duration(round) * 3 * time.Minute)
					}
					g.expect(t, leakEvents)
					if missing := g.connector.Stats().Missing; hidesCheckIns(what) != slices.ContainsFunc(missing, func(m string) bool { return strings.Contains(m, "check-in") }) {
						t.Errorf("missing: %q", missing)
					}
					s := g.connector.Stats()
					if what != "nothing" && s.Recycled+s.ForceClosed != 0 {
						t.Errorf("%d connections were closed, and nobody would have said so", s.Recycled+s.ForceClosed)
					}
					if s.Refreshed == 0 {
						t.Error("no limit passed: not the case that was meant")
					}
				})
			})
		}
	}
}

// What is forgotten is found and undone all the same, with its line.
func TestLeaksBehindWrappers(t *testing.T) {
	for what := range hidings {
		for name, forget := range map[string]struct {
			kind tracker.Kind
			do   func(t *testing.T, db *sql.DB) (use, end func() error)
		}{
			"transaction": {tracker.KindTransaction, func(t *testing.T, db *sql.DB) (use, end func() error) {
				tx, err := db.Begin()
				if err != nil {
					t.Fatal(err)
				}
				run(t, tx, "INSERT INTO t(v) VALUES('half')")
				return func() error { return try(tx, "SELECT 1") }, tx.Rollback
			}},
			"rows": {tracker.KindRows, func(t *testing.T, db *sql.DB) (use, end func() error) {
				rows := unreadRows(t, db, "INSERT INTO t(v) VALUES('r') RETURNING id")
				return func() error { rows.Next(); return rows.Err() }, rows.Close
			}},
			"text transaction": {tracker.KindTransaction, func(t *testing.T, db *sql.DB) (use, end func() error) {
				c, err := db.Conn(background)
				if err != nil {
					t.Fatal(err)
				}
				run(t, c, "BEGIN IMMEDIATE", "INSERT INTO t(v) VALUES('half')")
				return func() error { return try(c, "SELECT 1") }, func() error { return errors.Join(try(c, "ROLLBACK"), c.Close()) }
			}},
		} {
			t.Run("hides "+what+"/"+name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					g := openHiding(t, what, Config{Policy: leakAfter(5 * time.Minute)})
					run(t, g, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
					for range 3 {
						run(t, g, "INSERT INTO t(v) VALUES('x')")
						sleep(10 * time.Minute)
					}
					use, end := forget.do(t, g.DB)
					sleep(20 * time.Minute)
					told := g.events(tracker.EventReaped)
					if len(told) != 1 || told[0].Leak.Kind != forget.kind || !strings.Contains(told[0].Leak.Stack.String(), "wrappers_test.go") {
						t.Fatalf("undone: %v", told)
					}
					byOthers(t, g.dsn, "INSERT INTO t(v) VALUES('another')") // nothing is locked
					wantErr(t, "the holder", use(), ErrReaped)
					// Where nobody says whose the connection is, the verdict is told
					// once, and then SQLite itself knows of no transaction.
					if err := end(); err != nil && !(what == "both" && name == "text transaction") {
						t.Errorf("the end: %v", err)
					}
					run(t, g, "INSERT INTO t(v) VALUES('y')")
					if n := g.outside(t, "SELECT count(*) FROM t WHERE v='half'"); n != 0 {
						t.Errorf("%d rows of half a transaction", n)
					}
				})
			})
		}
	}
}

// No operation ever answers driver.ErrBadConn, whatever closed the connection:
// database/sql would run it again.
func TestNoErrBadConnBehindWrappers(t *testing.T) {
	for what := range hidings {
		t.Run("hides "+what, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				policy := everything
				policy.Expire = tracker.Close
				g := openHiding(t, what, Config{Policy: policy})
				run(t, g, createT)
				seen := func(err error) {
					t.Helper()
					if err != nil {
						t.Errorf("a correct statement: %v", err)
					}
				}
				for range 30 {
					sleep(10 * time.Minute)
					seen(try(g, "SELECT 1"))
					seen(g.Ping())
					tx, err := g.Begin()
					seen(err)
					if err == nil {
						seen(tx.Commit())
					}
				}
			})
		})
	}
}
