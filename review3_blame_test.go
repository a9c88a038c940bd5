package leakguard

import (
	"database/sql/driver"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// What a text changes is in one file, and what it reads in another: without a WAL that
// one can be in the way as well.
func TestReviewBlameOfAFileThatIsOnlyRead(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"INSERT INTO b.t SELECT * FROM c.t",
		"INSERT INTO b.t SELECT a FROM only",
		"DELETE FROM b.t WHERE a IN c.t",
		"UPDATE b.t SET a = o.a FROM c.only AS o",
	} {
		t.Run(text, func(t *testing.T) {
			a, b := strangers(t, "DELETE", Config{})
			other := open(t, Config{Tracker: a.tracker, DSN: rollbackDSN(t)})
			run(t, other, createT, "CREATE TABLE only(a)")
			c := a.conn(t)
			run(t, c, attach(b, "b"), attach(other, "c"))
			_, err := other.conn(t).ExecContext(background, "BEGIN EXCLUSIVE") // here:has what is only read
			check(err)
			busyFor(t, a, try(c, text), text, "transaction write "+markedLine(t, "has what is only read"))
		})
	}
}

// A ConnectHook, or the raw connection, can set the locking mode.
func TestReviewBlameLockingModeOfAHook(t *testing.T) {
	t.Parallel()
	b := open(t, Config{DSN: rollbackDSN(t)})
	c := b.conn(t)
	run(t, c, createT)
	a := open(t, Config{DSN: b.dsn, Tracker: b.tracker, SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		_, err := c.Exec("PRAGMA locking_mode=EXCLUSIVE", nil)
		return err
	}}})
	run(t, a, "INSERT INTO t VALUES(4)")
	wantCode(t, "INSERT", try(c, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
	if blame := b.wait(t, tracker.EventBlocked).Blame; len(blame.Holders) != 1 || strings.Contains(blame.String(), "no guarded") {
		t.Errorf("%v", blame)
	}
}

func TestReviewBlameLockingModeOfRaw(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, rollbackDSN(t), Config{})
	b.conn(t).Close()
	c := a.conn(t)
	check(c.Raw(func(dc any) error {
		raw, _ := SQLiteConn(dc)
		_, err := raw.Exec("PRAGMA locking_mode=EXCLUSIVE", nil)
		return err
	}))
	run(t, c, "INSERT INTO t VALUES(4)")
	c.Close()
	wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
	if blame := b.wait(t, tracker.EventBlocked).Blame; len(blame.Holders) != 1 || strings.Contains(blame.String(), "no guarded") {
		t.Errorf("%v", blame)
	}
}

// Reading the locking mode changes nothing; and one that is normal again keeps the
// lock until the file is read or written next.
func TestReviewBlameLockingModeUntilTheNextAccess(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"PRAGMA locking_mode", "PRAGMA locking_mode=NORMAL", "SELECT * FROM pragma_locking_mode"} {
		a, b := rivals(t, rollbackDSN(t), Config{})
		b.conn(t).Close()
		c := a.conn(t)
		run(t, c, "PRAGMA locking_mode=EXCLUSIVE", "INSERT INTO t VALUES(4)")
		if try(c, text) != nil {
			continue
		}
		wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
		if blame := b.wait(t, tracker.EventBlocked).Blame; len(blame.Holders) != 1 || strings.Contains(blame.String(), "no guarded") {
			t.Errorf("%s: %v", text, blame)
		}
	}
}

// What was left on a raw connection is over: whoever has the connection now is in the
// way alone.
func TestReviewBlameNotWhatWasLeftAndIsOver(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, rollbackDSN(t), Config{})
	a.SetMaxOpenConns(1)
	c, err := a.Conn(background) // here:over
	check(err)
	rows, err := rawOf(t, c).Query("SELECT a FROM t", nil)
	check(err)
	check(rows.Next(make([]driver.Value, 1)))
	c.Close()
	check(rows.Close())
	number(t, a, "SELECT count(*) FROM t") // some lease
	tx, err := a.BeginTx(background, nil)  // here:alone in the way
	run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
	busyFor(t, b, try(b, "INSERT INTO t VALUES(5)"), "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "alone in the way"))
}
