package leakguard

import (
	"context"
	"database/sql/driver"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Owners that wait for a reaper which is inside, and give up with their context.

// awaitedBy waits until somebody waits for the gate.
func awaitedBy(t *testing.T, g *gate.Gate) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !g.Awaited(); {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits for the gate")
		}
		runtime.Gosched()
	}
}

// answer waits for what an operation returns.
func answer[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
	}
	return v
}

// insideGate holds the gate as the reaper does; with a shared cache that of
// another connection of it.
func insideGate(t *testing.T, c *conn) (release func()) {
	t.Helper()
	g := &c.gate
	if c.gate.Shared() != nil {
		g = new(gate.Gate)
		g.Init(new(gate.Word), false)
		g.Share(c.gate.Shared())
	}
	if !g.Try() {
		t.Fatal("the gate is taken")
	}
	return g.Release
}

// Every operation with a context returns with its error while the reaper is
// inside, has done nothing, and can be repeated.
func TestOperationsGiveUp(t *testing.T) {
	type work struct {
		c    *conn
		stmt *stmt
		rows driver.Rows // of a query with the operation's context
	}
	operations := map[string]func(w *work, ctx context.Context) error{
		"Exec": func(w *work, ctx context.Context) error {
			_, err := w.c.ExecContext(ctx, "INSERT INTO t VALUES(7)", nil)
			return err
		},
		"Query": func(w *work, ctx context.Context) error {
			rows, err := w.c.QueryContext(ctx, "SELECT a FROM t", nil)
			if err == nil {
				err = rows.Close()
			}
			return err
		},
		"Prepare": func(w *work, ctx context.Context) error {
			s, err := w.c.PrepareContext(ctx, "SELECT a FROM t")
			if err == nil {
				err = s.Close()
			}
			return err
		},
		"Begin": func(w *work, ctx context.Context) error {
			tx, err := w.c.BeginTx(ctx, driver.TxOptions{})
			if err == nil {
				err = tx.Rollback()
			}
			return err
		},
		"Ping": func(w *work, ctx context.Context) error { return w.c.Ping(ctx) },
		"Stmt.Exec": func(w *work, ctx context.Context) error {
			_, err := w.stmt.ExecContext(ctx, nil)
			return err
		},
		"Stmt.Query": func(w *work, ctx context.Context) error {
			rows, err := w.stmt.QueryContext(ctx, nil)
			if err == nil {
				err = rows.Close()
			}
			return err
		},
		"COMMIT without a transaction": func(w *work, ctx context.Context) error {
			_, err := w.c.ExecContext(ctx, "COMMIT", nil)
			if e, ok := err.(sqlite3.Error); ok && e.Code == sqlite3.ErrError {
				err = nil // SQLite's own
			}
			return err
		},
		"Rows.Next": func(w *work, ctx context.Context) error {
			return w.rows.Next(make([]driver.Value, 1))
		},
	}
	for kind, params := range map[string]string{"own cache": "_txlock=deferred", "shared cache": "cache=shared"} {
		for name, operation := range operations {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := &work{c: drive(t, Config{DSN: fileDSN(t, params)})}
				for _, text := range []string{createT, "INSERT INTO t VALUES(1), (2), (3)"} {
					if _, err := w.c.Exec(text, nil); err != nil {
						t.Fatal(err)
					}
				}
				s, err := w.c.Prepare("DELETE FROM t WHERE a = 100")
				if err != nil {
					t.Fatal(err)
				}
				w.stmt = s.(*stmt)
				ctx, cancel := context.WithCancel(background)
				defer cancel()
				if name == "Rows.Next" {
					if w.rows, err = w.c.QueryContext(ctx, "SELECT a FROM t", nil); err != nil {
						t.Fatal(err)
					}
					if err := w.rows.Next(make([]driver.Value, 1)); err != nil { // read with the query
						t.Fatal(err)
					}
				}
				before := w.c.gate.Generation()
				release := insideGate(t, w.c)
				done := make(chan error, 1)
				go func() { done <- operation(w, ctx) }()
				awaitedBy(t, &w.c.gate)
				cancel()
				if err := answer(t, name, done); err != context.Canceled {
					t.Errorf("%v, want context.Canceled itself", err)
				}
				if now := w.c.gate.Generation(); now != before {
					t.Errorf("the generation went from %#x to %#x", before, now)
				}
				if name == "Rows.Next" { // as database/sql does
					go func() { done <- w.rows.Close() }()
					if err := answer(t, "Rows.Close", done); err != nil {
						t.Errorf("Rows.Close: %v", err)
					}
					if err := w.rows.Close(); err != nil {
						t.Errorf("Rows.Close once more: %v", err)
					}
				}
				// It waits for as long as its context allows.
				if name != "Rows.Next" {
					go func() { done <- operation(w, background) }()
					awaitedBy(t, &w.c.gate)
				}
				release()
				if name == "Rows.Next" {
					c := w.c
					if !c.gate.Try() {
						t.Fatal("the gate is taken")
					}
					c.drain()
					c.gate.Release()
					if len(c.rows) != 0 {
						t.Errorf("%d rows are open", len(c.rows))
					}
					if open := c.rec.Pool().Stats().OpenRows; open != 0 {
						t.Errorf("%d rows are open in the record", open)
					}
				} else if err := answer(t, name, done); err != nil {
					t.Errorf("once the reaper is gone: %v", err)
				}
			})
		}
	}
}

// The same through database/sql, which closes rows whose Next failed, gives
// connections back and takes them again: none of it waits for the reaper.
func TestDatabaseSQLGivesUp(t *testing.T) {
	for name, operation := range map[string]func(t *testing.T, g *guarded, ctx context.Context) func() error{
		"connection in the pool": func(t *testing.T, g *guarded, ctx context.Context) func() error {
			return func() error {
				_, err := g.ExecContext(ctx, "INSERT INTO t VALUES(7)")
				return err
			}
		},
		"query in the pool": func(t *testing.T, g *guarded, ctx context.Context) func() error {
			return func() error { return g.QueryRowContext(ctx, "SELECT a FROM t").Scan(new(int)) }
		},
		"begin in the pool": func(t *testing.T, g *guarded, ctx context.Context) func() error {
			return func() error { _, err := g.BeginTx(ctx, nil); return err }
		},
		"conn": func(t *testing.T, g *guarded, ctx context.Context) func() error {
			c := g.conn(t)
			return func() error {
				_, err := c.ExecContext(ctx, "INSERT INTO t VALUES(7)")
				return err
			}
		},
		"tx": func(t *testing.T, g *guarded, ctx context.Context) func() error {
			tx := g.begin(t)
			return func() error {
				_, err := tx.ExecContext(ctx, "INSERT INTO t VALUES(7)")
				return err
			}
		},
		"rows in a tx": func(t *testing.T, g *guarded, ctx context.Context) func() error {
			rows, err := g.begin(t).QueryContext(ctx, "SELECT i FROM "+eleven)
			if err != nil {
				t.Fatal(err)
			}
			rows.Next()
			return func() error {
				for rows.Next() {
				}
				return rows.Err()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := open(t, Config{})
			g.SetMaxOpenConns(1)
			run(t, g, createT, "INSERT INTO t VALUES(1)")
			c := g.last()
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			do := operation(t, g, ctx)
			release := insideGate(t, c)
			done := make(chan error, 1)
			go func() { done <- do() }()
			awaitedBy(t, &c.gate)
			cancel()
			if err := answer(t, "the operation", done); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
			release()
			if n := g.opened(); n != 1 {
				t.Errorf("%d connections were opened: the first one was given up", n)
			}
		})
	}
}

// A check-out that gives up begins no lease and does not give the connection up:
// the operation that follows says why, and the check-in behind it ends nothing.
func TestCheckOutGivesUp(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	if !c.IsValid() {
		t.Fatal("not valid")
	}
	release := insideGate(t, c)
	ctx, cancel := context.WithCancel(background)
	done := make(chan error, 1)
	go func() { done <- c.ResetSession(ctx) }()
	awaitedBy(t, &c.gate)
	cancel()
	if err := answer(t, "ResetSession", done); err != nil {
		t.Errorf("ResetSession: %v, want nil", err)
	}
	if _, err := c.ExecContext(ctx, "CREATE TABLE x(a)", nil); err != context.Canceled {
		t.Errorf("the operation that follows: %v, want context.Canceled itself", err)
	}
	valid := make(chan bool, 1)
	go func() { valid <- c.IsValid() }()
	if !answer(t, "IsValid", valid) {
		t.Error("IsValid: false")
	}
	if s := c.rec.Pool().Stats(); s.ActiveConnections != 0 {
		t.Errorf("%d leases", s.ActiveConnections)
	}

	// The reaper may close it, and the operation's own error counts all the same.
	c.gate.Set(gate.Dead)
	c.gone = errConnClosed
	release()
	if _, err := c.ExecContext(ctx, "CREATE TABLE x(a)", nil); err != context.Canceled {
		t.Errorf("the operation that follows, on a connection that was closed: %v, want context.Canceled itself", err)
	}
	if c.IsValid() {
		t.Error("IsValid of a closed connection: true")
	}
	c.gate.Clear(gate.Dead)
	c.gone = nil

	// And it begins the lease where the reaper is gone by then.
	release = insideGate(t, c)
	over, cancelled := context.WithCancel(background)
	cancelled()
	if err := c.ResetSession(over); err != nil {
		t.Errorf("ResetSession: %v, want nil", err)
	}
	release()
	if _, err := c.ExecContext(over, "CREATE TABLE x(a)", nil); err != context.Canceled {
		t.Errorf("the operation that follows: %v, want context.Canceled itself", err)
	}
	if s := c.rec.Pool().Stats(); s.ActiveConnections != 1 {
		t.Errorf("%d leases, want 1", s.ActiveConnections)
	}
	if !c.IsValid() {
		t.Error("IsValid: false")
	}
}

// A text that ends the transaction is not refused because its context is over,
// nor because the reaper has just come for something short. Behind that it gives
// up as well.
func TestEndOfTransactionInsists(t *testing.T) {
	for _, text := range []string{"COMMIT", "ROLLBACK"} {
		for _, prepared := range []bool{false, true} {
			name := text
			if prepared {
				name += ", prepared"
			}
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					c := drive(t, Config{})
					inTx(t, c)
					end := func(ctx context.Context) error {
						_, err := c.ExecContext(ctx, text, nil)
						return err
					}
					if prepared {
						s, err := c.Prepare(text)
						if err != nil {
							t.Fatal(err)
						}
						end = func(ctx context.Context) error {
							_, err := s.(*stmt).ExecContext(ctx, nil)
							return err
						}
					}
					over, cancel := context.WithCancel(background)
					cancel()
					done := make(chan error, 1)

					release := insideGate(t, c)
					go func() { done <- end(over) }()
					sleep(time.Minute)
					if err := answer(t, text, done); err != context.Canceled {
						t.Errorf("%v, want context.Canceled itself", err)
					}
					go func() { done <- end(over) }()
					synctest.Wait()
					release()
					if err := answer(t, text, done); err != nil {
						t.Errorf("once the reaper is gone: %v", err)
					}
					if !c.inner.AutoCommit() {
						t.Error("the transaction is open")
					}
				})
			})
		}
	}
}

// Rows that were closed while the reaper was inside are the program's no more:
// they are no leak when their handle is collected before anybody else has come.
func TestRowsClosedLateAreNotProven(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{Mode: tracker.Basic}) // no reaper that comes
	ctx, cancel := context.WithCancel(background)
	opened, err := c.QueryContext(ctx, "SELECT i FROM "+eleven, nil)
	if err != nil {
		t.Fatal(err)
	}
	st := opened.(*rows).h.Load().st
	release := insideGate(t, c)
	cancel()
	if err := opened.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	release()
	if len(c.rows) != 1 {
		t.Fatalf("%d rows are open: not the case that was meant", len(c.rows))
	}
	provenRows(rowsRef{weakOf(c), st}) // as when the handle is collected
	if len(c.rows) != 0 {
		t.Errorf("%d rows are open", len(c.rows))
	}
	if s := c.rec.Pool().Stats(); s.Proven != 0 || s.LeakedDetected != 0 {
		t.Errorf("%d leaks, %d proven", s.LeakedDetected, s.Proven)
	}
}

// Rows that were closed while the reaper was inside, and once more: what was left
// to whoever is inside next does not close the rows that come after them.
func TestRowsClosedLateOnce(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	query := func(ctx context.Context) driver.Rows {
		rows, err := c.QueryContext(ctx, "SELECT i FROM "+eleven, nil)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	ctx, cancel := context.WithCancel(background)
	rows := query(ctx)
	release := insideGate(t, c)
	cancel()
	for range 2 {
		if err := rows.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	release()
	if err := rows.Close(); err != nil {
		t.Errorf("Close once more: %v", err)
	}
	next := query(background)
	c.gate.Enter()
	c.drain()
	c.gate.Leave()
	read, row := 0, make([]driver.Value, 1)
	for next.Next(row) == nil {
		read++
	}
	if read != 11 {
		t.Errorf("%d rows of the query that came after them, want 11", read)
	}
	next.Close()
	if len(c.rows) != 0 {
		t.Errorf("%d rows are open", len(c.rows))
	}
}

// The reaper is outside, the owner inside a synctest bubble, and the other way
// round where an operation that is blocked looks who is in its way: the channels
// that they wait for are nobody's bubble's.
func TestOwnersWaitAcrossBubbles(t *testing.T) {
	for kind, params := range map[string]string{"own cache": "_txlock=deferred", "shared cache": "cache=shared"} {
		t.Run(kind, func(t *testing.T) {
			g := open(t, Config{DSN: fileDSN(t, params)}) // its tracker is outside
			opened, err := g.connector.Connect(background)
			if err != nil {
				t.Fatal(err)
			}
			c := opened.(*conn)
			defer c.Close()
			for range 3 { // the first one makes the channel
				release := insideGate(t, c)
				released := make(chan struct{})
				go func() {
					awaitedBy(t, &c.gate)
					release()
					close(released)
				}()
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithTimeout(background, time.Hour)
					defer cancel()
					if err := c.Ping(ctx); err != nil {
						t.Errorf("Ping: %v", err)
					}
				})
				<-released

				release = insideGate(t, c)
				synctest.Test(t, func(t *testing.T) {
					ctx, cancel := context.WithCancel(background)
					done := make(chan error)
					go func() { done <- c.Ping(ctx) }()
					awaitedBy(t, &c.gate)
					cancel()
					if err := <-done; err != context.Canceled {
						t.Errorf("Ping: %v, want context.Canceled itself", err)
					}
				})
				release()

				// Somebody's bubble takes the gate, and lets it go while an owner
				// outside waits.
				done := make(chan error, 1)
				synctest.Test(t, func(t *testing.T) {
					if !c.gate.Try() {
						t.Fatal("the gate is taken")
					}
				})
				go func() { done <- c.Ping(background) }()
				awaitedBy(t, &c.gate)
				synctest.Test(t, func(*testing.T) { c.gate.Release() })
				if err := answer(t, "Ping", done); err != nil {
					t.Errorf("Ping: %v", err)
				}
			}
		})
	}
}

// A tracker that lives in a bubble: its reaper sits in a hook of the program for
// an hour of the bubble's time, and an owner with a deadline does not.
func TestOwnerGivesUpInBubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute), SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
			c.RegisterRollbackHook(func() { time.Sleep(time.Hour) })
			return nil
		}}})
		run(t, g, createT)
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		sleep(2 * time.Minute) // the reaper rolls back
		began := time.Now()
		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES(2)"); err != context.DeadlineExceeded {
			t.Errorf("%v, want context.DeadlineExceeded itself", err)
		}
		if d := time.Since(began); d != time.Second {
			t.Errorf("it took %v, want a second", d)
		}
		wantErr(t, "Rollback", tx.Rollback(), nil) // waits
		if d := time.Since(began); d < 50*time.Minute {
			t.Errorf("Rollback came back after %v", d)
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped}, "reaped transaction tx_timeout")
	})
}
