//go:build cgo

package leakguardtest_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The same with the real driver. Mode basic has no reaper: the leases that
// these tests cannot give back would keep it.

var background = context.Background()

func database(t testing.TB, tr *tracker.Tracker) *sql.DB {
	t.Helper()
	connector, err := leakguard.NewConnector(leakguard.Config{
		DSN:     "file:" + filepath.Join(t.TempDir(), "shop.db") + "?_journal_mode=WAL",
		Mode:    tracker.Basic,
		Tracker: tr,
		Logger:  quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec("CREATE TABLE orders(id); INSERT INTO orders VALUES(1), (2)"); err != nil {
		t.Fatal(err)
	}
	return db
}

// A pool that is open, its idle connections and what was closed are no leak.
func TestDriverWithoutLeak(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	db := database(t, tr)
	rows, err := db.Query("SELECT id FROM orders")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	tx.Commit()
	if tr.Stats().PoolSize == 0 {
		t.Fatal("no idle connection: not the case that was meant")
	}
	leakguardtest.VerifyNone(t, leakguardtest.Tracker(tr))
}

// A cancelled transaction is rolled back on a goroutine of database/sql.
func TestDriverGivesBackLate(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	db := database(t, tr)
	ctx, cancel := context.WithCancel(background)
	if _, err := db.BeginTx(ctx, nil); err != nil {
		t.Fatal(err)
	}
	wants(t, text(now(tr)), "1 × transaction", "driver_test.go:")
	cancel()
	leakguardtest.VerifyNone(t, leakguardtest.Tracker(tr), leakguardtest.Wait(time.Minute))
}

func TestDriverEachKind(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	db := database(t, tr)
	rows, err := db.Query("SELECT id FROM orders") // rows
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(background) // connection
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := conn.PrepareContext(background, "SELECT 7") // statement
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin() // transaction
	if err != nil {
		t.Fatal(err)
	}
	got := text(now(tr))
	wants(t, got, "found 4 leaks, opened at 4 sites",
		"1 × rows not closed: opened at leakguardtest/driver_test.go:",
		"1 × connection not given back: opened at leakguardtest/driver_test.go:",
		"1 × statement not closed: opened at leakguardtest/driver_test.go:",
		"1 × transaction neither committed nor rolled back: opened at leakguardtest/driver_test.go:",
		" in leakguardtest_test.TestDriverEachKind\n", "SELECT id FROM orders", "SELECT ?")
	rows.Close()
	stmt.Close()
	conn.Close()
	tx.Rollback()
	leakguardtest.VerifyNone(t, leakguardtest.Tracker(tr))
}

//go:noinline
func abandon(t *testing.T, db *sql.DB) {
	rows, err := db.Query("SELECT id FROM orders")
	if err != nil {
		t.Fatal(err)
	}
	rows.Next()
}

// Rows that nobody can close any more are proven while the check waits, and
// told although the guard has closed them by then.
func TestDriverAbandonedRows(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	db := database(t, tr)
	abandon(t, db)
	err := leakguardtest.Find(leakguardtest.Tracker(tr), leakguardtest.Wait(time.Minute))
	wants(t, text(err), "found 1 leak,", "1 × rows proven to be lost", " in leakguardtest_test.abandon\n", "SELECT id FROM orders")
	if tr.Stats().OpenRows != 0 {
		t.Error("the rows are open")
	}
	leakguardtest.VerifyNone(t, leakguardtest.Tracker(tr))
}

// In a synctest bubble time passes at once, and the check leaves nothing
// behind that would keep the bubble.
func TestDriverInBubble(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		db := database(t, tr)
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		wants(t, text(leakguardtest.Find(leakguardtest.Tracker(tr), leakguardtest.Wait(time.Hour))), "1 × transaction", "open for 1h0m0s")
		time.AfterFunc(time.Minute, func() { tx.Rollback() })
		leakguardtest.VerifyNone(t, leakguardtest.Tracker(tr), leakguardtest.Wait(time.Hour))
		db.Close()
		tr.Close()
	})
}

// Tests in parallel do not see each other.
func TestDriverParallel(t *testing.T) {
	for name, leaks := range map[string]bool{"leaks": true, "leaks too": true, "fine": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := tracker.New(tracker.Options{})
			db := database(t, tr)
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if leaks {
				wants(t, text(now(tr)), "found 1 leak,")
			}
			tx.Rollback()
			leakguardtest.VerifyNone(t, leakguardtest.Tracker(tr))
		})
	}
}
