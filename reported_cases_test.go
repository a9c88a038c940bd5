package leakguard

import (
	"context"
	"database/sql"
	"fmt"
	"iter"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// What people reported of their programs: each is found, named by its function,
// and undone. Mode observe shows that without that the file stays locked.

// writable reports whether another connection, which waits for nobody, can write
// the file.
func (g *guarded) writable(t *testing.T) bool {
	t.Helper()
	c, err := new(sqlite3.SQLiteDriver).Open(strings.ReplaceAll(g.dsn, "&cache=shared", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.(*sqlite3.SQLiteConn).Exec("DELETE FROM t WHERE a = 'nothing'", nil)
	return err == nil
}

// locking runs a program that leaves a lock behind, in a bubble, and expects that
// one leak of a kind, opened in the function of that name, is found, and in mode
// enforce undone. It returns the pool for more.
func locking(t *testing.T, cfg func(t *testing.T) Config, kind tracker.Kind, in string, forget func(t *testing.T, ctx context.Context, g *guarded), later func(t *testing.T, g *guarded)) {
	for _, mode := range []tracker.Mode{tracker.Enforce, tracker.Observe} {
		t.Run(mode.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				c := Config{Policy: leakAfter(5 * time.Minute)}
				if cfg != nil {
					c = cfg(t)
				}
				c.Mode = mode
				g := open(t, c)
				g.giveUp(t)
				run(t, g, createT, "INSERT INTO t VALUES('there')")
				ctx, cancel := context.WithCancel(background)
				t.Cleanup(cancel) // database/sql watches a transaction for as long
				forget(t, ctx, g)
				if g.writable(t) {
					t.Fatal("the file is not locked: not the case that was meant")
				}
				sleep(time.Hour)
				var found []tracker.Event
				for _, e := range g.events(tracker.EventSuspect) {
					if e.Leak.Kind == kind {
						found = append(found, e)
					}
				}
				if len(found) == 0 || !strings.HasSuffix(found[0].Leak.Site().Function, "."+in) {
					t.Errorf("found: %v, want a %v of %s", g.events(leakEvents...), kind, in)
				}
				if mode == tracker.Observe {
					if g.writable(t) {
						t.Error("undone")
					}
					return
				}
				if len(g.events(tracker.EventReaped)) == 0 || !g.writable(t) {
					t.Error("the file is locked still")
				}
				later(t, g)
			})
		})
	}
}

// A handler gives up between Begin and Commit, by an error or by a panic that
// its server recovers.
func givesUpInside(ctx context.Context, db *sql.DB, panics bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if _, err := tx.Exec("INSERT INTO t VALUES('half')"); err != nil {
		return err
	}
	if _, err := tx.Exec("INSERT INTO t VALUES('there')"); err != nil {
		if panics {
			panic(err)
		}
		return err
	}
	return tx.Commit()
}

func TestTransactionDroppedOnError(t *testing.T) {
	for _, panics := range []bool{false, true} {
		t.Run(fmt.Sprint("panics ", panics), func(t *testing.T) {
			locking(t, nil, tracker.KindTransaction, "givesUpInside", func(t *testing.T, ctx context.Context, g *guarded) {
				if err := givesUpInside(ctx, g.DB, panics); err == nil {
					t.Fatal("it did not give up")
				}
			}, func(t *testing.T, g *guarded) {
				if n := g.rows(t); n != 1 {
					t.Errorf("%d rows, want 1", n)
				}
			})
		})
	}
}

// A shared cache with _txlock=immediate, as programs on Kubernetes have it, whose
// other connections are in use.
func losesTx(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	_, err = tx.Exec("INSERT INTO t VALUES('half')")
	return err
}

func TestTransactionLostInASharedCache(t *testing.T) {
	locking(t, func(t *testing.T) Config {
		return Config{DSN: fileDSN(t, "_txlock=immediate") + "&cache=shared", Policy: leakAfter(5 * time.Minute)}
	}, tracker.KindTransaction, "losesTx", func(t *testing.T, ctx context.Context, g *guarded) {
		wantErr(t, "the transaction", losesTx(ctx, g.DB), nil)
		for range 3 { // others of the same cache
			run(t, g, "SELECT 1")
		}
	}, func(t *testing.T, g *guarded) {
		run(t, g, "INSERT INTO t VALUES('behind')")
		if n := number(t, g, "SELECT count(*) FROM t WHERE a='half'"); n != 0 {
			t.Errorf("%d rows of half a transaction", n)
		}
	})
}

// INSERT … RETURNING by Query, and nobody reads or closes it: it is not
// committed before that.
func returningUnread(db *sql.DB) (*sql.Rows, error) {
	return db.Query("INSERT INTO t VALUES('a'), ('b') RETURNING a")
}

func TestReturningUnread(t *testing.T) {
	locking(t, nil, tracker.KindRows, "returningUnread", func(t *testing.T, _ context.Context, g *guarded) {
		rows, err := returningUnread(g.DB)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { runtime.KeepAlive(rows) })
	}, func(t *testing.T, g *guarded) {})
}

//go:noinline
func returningDropped(db *sql.DB) { db.QueryRow("INSERT INTO t VALUES('a'), ('b') RETURNING a") }

// Dropped, it is proven by the next garbage collection.
func TestReturningDropped(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Policy: leakAfter(time.Hour)})
	g.giveUp(t)
	run(t, g, createT)
	returningDropped(g.DB)
	if g.writable(t) {
		t.Fatal("the file is not locked: not the case that was meant")
	}
	collect(t, "proof", func() bool { return len(g.events(tracker.EventReaped)) > 0 })
	l := g.events(tracker.EventProven)[0].Leak
	if l.Kind != tracker.KindRows || !strings.HasSuffix(l.Site().Function, ".returningDropped") {
		t.Errorf("%v", l)
	}
	if !g.writable(t) {
		t.Error("the file is locked still")
	}
}

// A savepoint in the pool that stays open, for RELEASE took the inner one of the
// same name: what is written behind it is lost.
func releasesTheInner(db *sql.DB) error {
	for _, text := range []string{"SAVEPOINT s", "SAVEPOINT S", "INSERT INTO t VALUES('undone')", "ROLLBACK TO s", "RELEASE s", "INSERT INTO t VALUES('lost')"} {
		if _, err := db.Exec(text); err != nil {
			return err
		}
	}
	return nil
}

func TestSavepointStaysOpen(t *testing.T) {
	locking(t, nil, tracker.KindTransaction, "releasesTheInner", func(t *testing.T, _ context.Context, g *guarded) {
		g.SetMaxOpenConns(1)
		wantErr(t, "the program", releasesTheInner(g.DB), nil)
	}, told)
}

// told expects that the pool's next user is told once that a transaction was
// undone, and then goes on.
func told(t *testing.T, g *guarded) {
	t.Helper()
	wantErr(t, "the next operation", try(g, "INSERT INTO t VALUES('x')"), ErrReaped)
	wantErr(t, "the one behind it", try(g, "INSERT INTO t VALUES('y')"), nil)
	if n := g.rows(t); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// A script fails in its middle and leaves its BEGIN in the pool; what others
// write there is acknowledged, and never committed.
func migrates(db *sql.DB) error {
	_, err := db.Exec("BEGIN IMMEDIATE; CREATE TABLE a(x); CREATE TABLE a(x); COMMIT")
	return err
}

func TestScriptLeavesItsBegin(t *testing.T) {
	locking(t, nil, tracker.KindTransaction, "migrates", func(t *testing.T, _ context.Context, g *guarded) {
		g.SetMaxOpenConns(1)
		wantCode(t, "the script", migrates(g.DB), sqlite3.ErrError)
		run(t, g, "INSERT INTO t VALUES('acknowledged')")
	}, told)
}

// Rows behind an iterator that is pulled and never stopped.
func all(db *sql.DB) iter.Seq[int] {
	return func(yield func(int) bool) {
		rows, err := db.Query("SELECT i FROM " + eleven)
		if err != nil {
			return
		}
		defer rows.Close()
		for i := 0; rows.Next(); {
			if rows.Scan(&i) != nil || !yield(i) {
				return
			}
		}
	}
}

func TestIteratorNeverStopped(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(5 * time.Minute)})
		next, stop := iter.Pull(all(g.DB))
		defer stop()
		if i, ok := next(); i != 1 || !ok {
			t.Fatalf("%d, %v", i, ok)
		}
		sleep(time.Hour)
		g.expect(t, leakEvents, "suspect rows leak_after", "reaped rows leak_after")
		if site := g.events(tracker.EventReaped)[0].Leak.Site(); !strings.Contains(site.Function, ".all.") {
			t.Errorf("opened in %s at %v", site.Function, site)
		}
		if i, ok := next(); ok {
			t.Errorf("it goes on with %d", i)
		}
	})
}

// A statement prepared in each call and never closed.
func preparesEachTime(db *sql.DB) error {
	s, err := db.Prepare("SELECT i FROM " + eleven + " WHERE i = ?")
	if err != nil {
		return err
	}
	return s.QueryRow(7).Scan(new(int))
}

func TestStatementPreparedEachTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.MaxStatements = 50 })})
		for range 200 {
			if err := preparesEachTime(g.DB); err != nil {
				t.Fatal(err)
			}
			sleep(time.Second)
		}
		g.expect(t, leakEvents, "suspect statement max_statements")
		l := g.events(tracker.EventSuspect)[0].Leak
		if l.Count < 50 || !strings.HasSuffix(l.Site().Function, ".preparesEachTime") {
			t.Errorf("%v", l)
		}
	})
}

// dropsRows forgets the rows of a query.
//
//go:noinline
func dropsRows(db *sql.DB) { db.QueryRow("SELECT a FROM t WHERE a = 1") }

// One place forgets rows again and again, as fast as it can: each is counted, and
// what is kept and logged of that is bounded by it.
func TestHotLeak(t *testing.T) {
	t.Parallel()
	var lines atomic.Int64
	logger := slog.New(logFunc(func(slog.Record) { lines.Add(1) }))
	g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: leakAfter(time.Hour), Logger: logger})
	g.giveUp(t)
	run(t, g, createT, "INSERT INTO t VALUES(1)")
	const leaks = 400
	for i := range leaks {
		dropsRows(g.DB)
		if i%50 == 0 {
			runtime.GC()
		}
	}
	collect(t, "proof of each", func() bool { return g.connector.Stats().Reaped == leaks })
	s := g.connector.Stats()
	if s.Proven != leaks || s.LeakedDetected != leaks || s.OpenRows != 0 {
		t.Errorf("%d detected, %d proven, %d rows open; want %d, %d, none", s.LeakedDetected, s.Proven, s.OpenRows, leaks, leaks)
	}
	if n := len(g.tracker.History()); n > 256 {
		t.Errorf("%d events are kept", n)
	}
	warned := int64(0)
	for _, e := range g.events(tracker.EventSuspect, tracker.EventProven, tracker.EventReaped) {
		if e.Leak != nil {
			warned++
		}
	}
	if warned > 2*leaks {
		t.Errorf("%d warnings about %d leaks", warned, leaks)
	}
}

// logFunc is a logger that takes everything.
type logFunc func(slog.Record)

func (logFunc) Enabled(context.Context, slog.Level) bool        { return true }
func (f logFunc) Handle(_ context.Context, r slog.Record) error { f(r); return nil }
func (f logFunc) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f logFunc) WithGroup(string) slog.Handler                 { return f }

// A logger that writes its lines into the guarded database, where it may have to
// wait for the leak that it tells of, does not feed itself.
func TestLoggerIntoTheSamePool(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var db atomic.Pointer[sql.DB]
		var lines atomic.Int64
		logger := slog.New(logFunc(func(r slog.Record) {
			lines.Add(1)
			if db := db.Load(); db != nil {
				ctx, cancel := context.WithTimeout(background, time.Second)
				defer cancel()
				_, _ = db.ExecContext(ctx, "INSERT INTO log VALUES(?)", r.Message)
			}
		}))
		g := open(t, Config{Policy: leakAfter(time.Minute), Logger: logger})
		run(t, g, "CREATE TABLE log(a)")
		db.Store(g.DB)
		tx := g.begin(t)
		run(t, tx, "INSERT INTO log VALUES('half')")
		sleep(10 * time.Minute)
		settled := lines.Load()
		sleep(10 * time.Hour)
		if n := lines.Load() - settled; n > 20 {
			t.Errorf("%d lines while nothing happened", n)
		}
		if n := g.outside(t, "SELECT count(*) FROM log WHERE a = 'leak undone'"); n != 1 {
			t.Errorf("%d lines about the leak are in the database, want 1", n)
		}
		db.Store(nil)
		wantErr(t, "Rollback", tx.Rollback(), nil)
	})
}
