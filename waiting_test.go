//go:build unix

package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// waitersOf opens a pool of n connections over a file with a table, whose
// transactions take the write lock at once.
func waitersOf(t *testing.T, driver string, n int) (db *sql.DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "a.db")
	db, err := sql.Open(driver, path+"?_journal_mode=WAL&_synchronous=OFF&_busy_timeout=60000&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	if _, err := db.Exec("CREATE TABLE t (a)"); err != nil {
		t.Fatal(err)
	}
	var open []*sql.Conn
	for range n {
		c, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	for _, c := range open {
		c.Close()
	}
	return db, path
}

// lockFile takes the write lock as another program would: the guard does not see
// it, nor that it is given back.
func lockFile(t *testing.T, path string) (unlock func()) {
	t.Helper()
	db, err := sql.Open("sqlite3", path+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() {
		tx.Rollback()
		db.Close()
	})
}

// sleeps returns how often a thread of the process has gone to sleep.
func sleeps(t *testing.T) int64 {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return int64(r.Nvcsw)
}

// Forty that wait for one lock wake about as often as they do over go-sqlite3, and
// not forty times as often as one.
func TestWaitersTakeTurns(t *testing.T) {
	const n = 40
	woke := make(map[string]int64)
	for _, driver := range []string{"sqlite3", "sqlite-leakguard"} {
		db, path := waitersOf(t, driver, n)
		unlock := lockFile(t, path)
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				if _, err := db.Exec("INSERT INTO t VALUES (1)"); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(500 * time.Millisecond) // SQLite's own sleep their longest now
		before := sleeps(t)
		time.Sleep(time.Second)
		woke[driver] = sleeps(t) - before
		unlock()
		all.Wait()
	}
	t.Logf("%d over go-sqlite3, %d over the guard", woke["sqlite3"], woke["sqlite-leakguard"])
	if woke["sqlite-leakguard"] > 4*woke["sqlite3"] {
		t.Errorf("the threads woke %d times, over go-sqlite3 %d times", woke["sqlite-leakguard"], woke["sqlite3"])
	}
}

// A deadline ends a wait at once, however many others wait for the same lock, and
// leaves them waiting.
func TestCancelAmongWaiters(t *testing.T) {
	const n = 40
	db, path := waitersOf(t, "sqlite-leakguard", n+1)
	unlock := lockFile(t, path)
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var cancelled, patient sync.WaitGroup
	for range n / 2 {
		cancelled.Go(func() {
			if _, err := db.ExecContext(ctx, "INSERT INTO t VALUES (1)"); err != context.Canceled {
				t.Errorf("%v, want that it was cancelled", err)
			}
		})
		patient.Go(func() {
			if _, err := db.Exec("INSERT INTO t VALUES (1)"); err != nil {
				t.Error(err)
			}
		})
	}
	time.Sleep(time.Second) // they sleep for a tenth of a second each
	var took time.Duration
	for range 5 { // the machine may be busy
		hurry, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		began := time.Now()
		_, err := db.ExecContext(hurry, "INSERT INTO t VALUES (1)")
		took = time.Since(began)
		cancel()
		if err != context.DeadlineExceeded {
			t.Fatal(err)
		}
		if took < 70*time.Millisecond {
			break
		}
	}
	if took >= 70*time.Millisecond {
		t.Errorf("50 ms took %v, five times", took)
	}
	cancel()
	cancelled.Wait()
	unlock()
	patient.Wait()
	if got := countOf(t, db, "SELECT count(*) FROM t"); got != n/2 {
		t.Errorf("%d rows, want those of the %d that were not cancelled", got, n/2)
	}
}

// Many writers that hold the lock for some time: all get it, and who waits longest
// waits no longer than over go-sqlite3, where it is left to chance.
func TestWritersDoNotStarve(t *testing.T) {
	const n, each = 64, 4
	longest := make(map[string]time.Duration)
	for _, driver := range []string{"sqlite3", "sqlite-leakguard"} {
		db, _ := waitersOf(t, driver, n)
		var mu sync.Mutex
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				for range each {
					began := time.Now()
					tx, err := db.Begin()
					if err != nil {
						t.Error(err)
						return
					}
					took := time.Since(began)
					mu.Lock()
					longest[driver] = max(longest[driver], took)
					mu.Unlock()
					if _, err := tx.Exec("INSERT INTO t VALUES (1)"); err != nil {
						t.Error(err)
					}
					time.Sleep(time.Millisecond)
					if err := tx.Commit(); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got := countOf(t, db, "SELECT count(*) FROM t"); got != n*each {
			t.Errorf("%s: %d rows, want %d", driver, got, n*each)
		}
	}
	t.Logf("the longest wait: %v over go-sqlite3, %v over the guard", longest["sqlite3"], longest["sqlite-leakguard"])
	if longest["sqlite-leakguard"] > 2*longest["sqlite3"] {
		t.Errorf("somebody waited %v, over go-sqlite3 %v", longest["sqlite-leakguard"], longest["sqlite3"])
	}
}

// Whatever a connection writes with, it passes the lock on to the next one in the
// process: all have had it before most would have looked again by themselves.
func TestLockIsPassedOn(t *testing.T) {
	const n = 30
	for name, write := range map[string]func(db *sql.DB, s *sql.Stmt, i int) error{
		"text": func(db *sql.DB, _ *sql.Stmt, i int) error {
			return execAll(db, fmt.Sprintf("INSERT INTO t VALUES (%d)", i))
		},
		"kept text": func(db *sql.DB, _ *sql.Stmt, i int) error { return execAll(db, "INSERT INTO t VALUES (?)", i) },
		"statement": func(db *sql.DB, s *sql.Stmt, i int) error { _, err := s.Exec(i); return err },
		"commit": func(db *sql.DB, _ *sql.Stmt, i int) error {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			return tx.Commit()
		},
		"rollback": func(db *sql.DB, _ *sql.Stmt, i int) error {
			tx, err := db.Begin()
			if err != nil {
				return err
			}
			return tx.Rollback()
		},
	} {
		t.Run(name, func(t *testing.T) {
			db, path := waitersOf(t, "sqlite-leakguard", n)
			s, err := db.Prepare("INSERT INTO t VALUES (?)")
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			var took time.Duration
			for i := range 8 { // a machine may be busy
				hold := time.Second // they sleep for a tenth of a second each
				if i < 3 {
					hold = 20 * time.Millisecond // each comes to know the text
				}
				unlock := lockFile(t, path)
				var all sync.WaitGroup
				for i := range n {
					all.Go(func() {
						if err := write(db, s, i); err != nil {
							t.Error(err)
						}
					})
				}
				time.Sleep(hold)
				began := time.Now()
				unlock()
				all.Wait()
				if took = time.Since(began); i >= 3 && took < 40*time.Millisecond {
					return
				}
			}
			t.Errorf("%d had the lock after %v, five times", n, took)
		})
	}
}

func execAll(db *sql.DB, query string, args ...any) error {
	_, err := db.Exec(query, args...)
	return err
}

// An operation that was told to stop and is stuck in a function of the program
// costs next to nothing, and is stopped when it goes on to another statement: SQLite
// has forgotten by then.
func TestStuckStatements(t *testing.T) {
	for name, c := range map[string]struct {
		policy tracker.Policy
		cancel func(cancel func(), g *guarded)
		want   func(err error) bool
	}{
		"cancelled at once": {
			policy: limits(nil),
			cancel: func(cancel func(), _ *guarded) { cancel() },
			want:   func(err error) bool { return err == context.Canceled },
		},
		"cancelled when attended": {
			policy: limits(nil),
			cancel: func(cancel func(), g *guarded) {
				for !g.last().gate.Has(gate.Attended) {
					time.Sleep(time.Millisecond)
				}
				cancel()
			},
			want: func(err error) bool { return err == context.Canceled },
		},
		"condemned": {
			policy: limits(func(p *tracker.Policy) { p.TxLimit = 400 * time.Millisecond }),
			cancel: func(_ func(), g *guarded) {
				for !g.last().gate.Has(gate.Condemned) {
					time.Sleep(time.Millisecond)
				}
			},
			want: func(err error) bool { _, ok := errors.AsType[*ReapedError](err); return ok },
		},
	} {
		t.Run(name, func(t *testing.T) {
			d, inside, release := blocking()
			g := open(t, Config{Policy: c.policy, SQLite: d})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tx, err := g.Begin()
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback()
			done := make(chan error)
			go func() {
				_, err := tx.ExecContext(ctx, "SELECT block(); "+endlessCount)
				done <- err
			}()
			<-inside
			c.cancel(cancel, g)
			time.Sleep(1200 * time.Millisecond)
			before := sleeps(t)
			time.Sleep(time.Second)
			if n := sleeps(t) - before; n > 600 {
				t.Errorf("the process woke %d times in the second after", n)
			}
			close(release)
			if err := <-done; !c.want(err) {
				t.Errorf("%v", err)
			}
		})
	}
}
