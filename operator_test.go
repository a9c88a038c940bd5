package leakguard

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// undoHeld undoes the first thing of a kind that is held.
func undoHeld(t *testing.T, tr *tracker.Tracker, k tracker.Kind) error {
	t.Helper()
	for _, h := range tr.Held() {
		if h.Kind == k {
			return tr.Undo(t.Context(), h.ConnectionID, h.Resource)
		}
	}
	t.Fatalf("no %v is held", k)
	return nil
}

// What an operator undoes answers as what a limit undoes, exempt or not, in every mode.
func TestOperatorUndoes(t *testing.T) {
	for _, mode := range []tracker.Mode{tracker.Enforce, tracker.Observe, tracker.Basic} {
		t.Run(mode.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tr := tracker.New(tracker.Options{})
				g := open(t, Config{Mode: mode, Tracker: tr})
				if _, err := g.Exec("CREATE TABLE t (a); INSERT INTO t VALUES (1), (2), (3)"); err != nil {
					t.Fatal(err)
				}
				rows, err := g.QueryContext(Exempt(background, "import"), "SELECT a FROM t")
				if err != nil || !rows.Next() {
					t.Fatal(err)
				}
				if err := undoHeld(t, tr, tracker.KindRows); err != nil {
					t.Fatal(err)
				}
				if rows.Next() || !errors.Is(rows.Err(), ErrReaped) || !strings.Contains(rows.Err().Error(), "rows closed") || !strings.Contains(rows.Err().Error(), "(operator)") {
					t.Errorf("rows: %v", rows.Err())
				}
				rows.Close()

				tx, err := g.Begin()
				if err != nil {
					t.Fatal(err)
				}
				if _, err := tx.Exec("DELETE FROM t"); err != nil {
					t.Fatal(err)
				}
				if err := undoHeld(t, tr, tracker.KindTransaction); err != nil {
					t.Fatal(err)
				}
				wantErr(t, "in it", try(tx, "INSERT INTO t VALUES (4)"), ErrReaped)
				wantErr(t, "Commit", tx.Commit(), ErrReaped)
				var n int
				if err := g.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil || n != 3 {
					t.Errorf("%d rows, %v", n, err)
				}

				c, err := g.Conn(background)
				if err != nil {
					t.Fatal(err)
				}
				if err := undoHeld(t, tr, tracker.KindConnection); err != nil {
					t.Fatal(err)
				}
				wantErr(t, "on the connection", try(c, "SELECT 1"), ErrReaped)
				c.Close()
				synctest.Wait() // its handle is closed beside
				if err := g.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil || n != 3 {
					t.Errorf("%d rows, %v", n, err)
				}
			})
		})
	}
}

// No operator's word closes a connection that must not be closed.
func TestOperatorKeepsData(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		g := open(t, Config{DSN: ":memory:", Tracker: tr})
		g.SetMaxOpenConns(1)
		c, err := g.Conn(background)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := try(c, "CREATE TABLE t (a)"); err != nil {
			t.Fatal(err)
		}
		if err := undoHeld(t, tr, tracker.KindConnection); err == nil || !strings.Contains(err.Error(), "nothing was undone") {
			t.Error(err)
		}
		if err := try(c, "INSERT INTO t VALUES (1)"); err != nil {
			t.Error(err)
		}
		if err := try(c, "BEGIN"); err != nil {
			t.Error(err)
		}
		if err := undoHeld(t, tr, tracker.KindConnection); err != nil { // its transaction is what is undone
			t.Error(err)
		}
		wantErr(t, "in the transaction", try(c, "INSERT INTO t VALUES (2)"), ErrReaped)
		if err := try(c, "ROLLBACK"); err != nil {
			t.Error(err)
		}
		var n int
		if err := c.QueryRowContext(background, "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1 {
			t.Errorf("%d rows, %v", n, err)
		}
		if s := tr.Stats(); s.ForceClosed != 0 || s.Reaped != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// In observe a transaction lives on that enforce would have rolled back, and back in
// enforce it does not.
func TestModeOfOpenPool(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		g := open(t, Config{Tracker: tr, Policy: leakAfter(time.Minute)})
		tx, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		p := tr.Pools()[0]
		if err := p.SetMode(tracker.Observe); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if err := try(tx, "CREATE TABLE t (a)"); err != nil {
			t.Errorf("in observe: %v", err)
		}
		if err := p.SetMode(tracker.Enforce); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		wantErr(t, "in enforce", try(tx, "CREATE TABLE u (a)"), ErrReaped)
		tx.Rollback()
	})
}

// Programs at work, their leaks, and a mode that changes all the time: what a correct
// one did is there in the end.
func TestModeChangesUnderWork(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{DSN: fileDSN(t, "_busy_timeout=20000", "_txlock=immediate"), Tracker: tr, Policy: limits(func(p *tracker.Policy) {
		p.MaxIdle, p.MaxLifetime, p.CheckInterval, p.ConnMemory = time.Millisecond, time.Millisecond, time.Millisecond, 1
	})})
	if _, err := g.Exec("CREATE TABLE t (a)"); err != nil {
		t.Fatal(err)
	}
	p := tr.Pools()[0]
	stop := make(chan struct{})
	var operator, workers sync.WaitGroup
	operator.Go(func() {
		for m := tracker.Enforce; ; m = (m + 1) % tracker.Off {
			select {
			case <-stop:
				return
			default:
				if err := p.SetMode(m); err != nil {
					t.Error(err)
				}
			}
		}
	})
	const each = 60
	for range 3 {
		workers.Go(func() {
			for range each {
				tx, err := g.Begin()
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := tx.Exec("INSERT INTO t VALUES (1)"); err != nil {
					t.Error(err)
				}
				if err := tx.Commit(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	workers.Wait()
	close(stop)
	operator.Wait()
	var n int
	if err := g.QueryRow("SELECT count(*) FROM t").Scan(&n); err != nil || n != 3*each {
		t.Errorf("%d rows, want %d: %v", n, 3*each, err)
	}
}
