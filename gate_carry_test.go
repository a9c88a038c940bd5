package leakguard

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Orders that take long, and what is handed over meanwhile.

// onRollback returns a driver whose connections call hook under each ROLLBACK.
func onRollback(hook func()) *sqlite3.SQLiteDriver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		c.RegisterRollbackHook(hook)
		return nil
	}}
}

// A hook of the program blocks under the reaper's ROLLBACK. Another pool's leak
// is found and undone at its time, that pool closes, and an operation on the
// blocked connection itself ends with its context.
func TestBlockedHookDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		entered, goOn := make(chan struct{}), make(chan struct{})
		blocked := open(t, Config{Policy: leakAfter(time.Minute), SQLite: onRollback(func() {
			close(entered)
			<-goOn
		})})
		run(t, blocked, createT)
		tx := blocked.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		sleep(5 * time.Minute)
		<-entered

		other := open(t, Config{Tracker: blocked.tracker, Policy: leakAfter(10 * time.Minute)})
		run(t, other, createT)
		forgotten := other.begin(t)
		run(t, forgotten, "INSERT INTO t VALUES(1)")
		began := time.Now()
		reaped := make(chan time.Duration, 4)
		defer other.tracker.Subscribe(func(e tracker.Event) {
			if e.Type == tracker.EventReaped {
				reaped <- time.Since(began)
			}
		})()
		sleep(13 * time.Minute)
		select {
		case d := <-reaped: // suspect, and undone at the next check
			if limit := 10*time.Minute + 2*time.Minute; d > limit {
				t.Errorf("the other pool's leak was undone after %v, want at most %v", d, limit)
			}
		default:
			t.Error("the other pool's leak was not undone")
		}
		wantErr(t, "INSERT", try(forgotten, "INSERT INTO t VALUES(2)"), ErrReaped)
		forgotten.Rollback()
		closed := make(chan error, 1)
		go func() { closed <- other.Close() }()
		synctest.Wait()
		select {
		case err := <-closed:
			wantErr(t, "Close of the other pool", err, nil)
		default:
			t.Error("Close of the other pool hangs")
		}

		ctx, cancel := context.WithTimeout(background, time.Second)
		defer cancel()
		at := time.Now()
		if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES(2)"); err != context.DeadlineExceeded {
			t.Errorf("INSERT on the blocked connection: %v, want context.DeadlineExceeded itself", err)
		}
		if d := time.Since(at); d != time.Second {
			t.Errorf("it took %v, want a second", d)
		}
		close(goOn)
		synctest.Wait()
		wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(2)"), ErrReaped)
		wantErr(t, "Rollback", tx.Rollback(), nil)
	})
}

// The monitor waits while memory is released, so that does not see to what was
// handed over, for that may commit. It comes by an order of its own, on a goroutine
// of its own.
func TestHandedOverIsLeftToItsOrder(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{Mode: tracker.Basic}) // no reaper that comes
	if !c.IsValid() {
		t.Fatal("not valid")
	}
	done := 0
	c.handOver(func() { done++ })
	k := control{weakOf(c)}
	for _, step := range []struct {
		scope tracker.Scope
		done  int
	}{
		{tracker.ScopeRelease, 0},
		{tracker.ScopeProven, 1},
	} {
		if out := k.Carry(order(step.scope, 0)); out != tracker.Done || done != step.done {
			t.Errorf("scope %d: %v and done %d times, want done and %d", step.scope, out, done, step.done)
		}
	}
}

// What is handed over while an order is carried out is done before the gate is
// free again: nobody else need come for it.
func TestHandedOverDuringAnOrder(t *testing.T) {
	t.Parallel()
	var hook func()
	c := drive(t, Config{Mode: tracker.Basic, SQLite: onRollback(func() {
		if hook != nil {
			hook()
		}
	})})
	inTx(t, c)
	s, err := c.Prepare("SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	hook = func() {
		if err := s.Close(); err != nil { // does not wait
			t.Errorf("Close: %v", err)
		}
	}
	if out := (control{weakOf(c)}).Carry(order(tracker.ScopeTransaction, c.txn.id)); out != tracker.Done {
		t.Fatalf("Carry: %v, want Done", out)
	}
	hook = nil
	if c.waiting.Load() || len(c.stmts) != 0 {
		t.Errorf("%d statements are open", len(c.stmts))
	}
}
