package leakguard

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// What PRAGMA busy_timeout reads and sets is the same over both drivers, in prepared
// statements too, which SQLite compiles again for each run, and whatever happens to
// the schema in between.
func TestBusyTimeoutAsGoSQLite(t *testing.T) {
	t.Parallel()
	answers := make(map[string][]int64)
	for _, name := range []string{"sqlite3", "sqlite-leakguard"} {
		db := ok(sql.Open(name, "file:"+filepath.Join(t.TempDir(), "a.db")+"?_busy_timeout=1234"))
		defer db.Close()
		db.SetMaxOpenConns(1)
		says := func(rows *sql.Rows, err error) {
			t.Helper()
			check(err)
			n := int64(-1)
			if rows.Next() {
				check(rows.Scan(&n))
			}
			check(rows.Close())
			answers[name] = append(answers[name], n)
		}
		read := []*sql.Stmt{
			prepare(t, db, "PRAGMA busy_timeout"),
			prepare(t, db, "pragma MAIN.Busy_Timeout;"),
			prepare(t, db, "SELECT timeout FROM pragma_busy_timeout"),
			prepare(t, db, "/* c */ SELECT max(timeout) FROM PRAGMA_BUSY_TIMEOUT()"),
			prepare(t, db, "PRAGMA busy_timeout; SELECT 1"),
		}
		set := prepare(t, db, "PRAGMA busy_timeout = 77")
		setByQuery := prepare(t, db, "PRAGMA main.busy_timeout(78)")
		all := func() {
			t.Helper()
			for range 2 {
				for _, s := range read {
					says(s.Query())
				}
				says(db.Query("PRAGMA busy_timeout"))
				says(db.Query("SELECT timeout FROM pragma_busy_timeout"))
			}
		}
		all()
		run(t, db, "CREATE TABLE t(x)")
		all()
		ok(set.Exec())
		all()
		run(t, db, "PRAGMA busy_timeout = 500")
		all()
		ok(set.Exec())
		run(t, db, "CREATE INDEX i ON t(x)")
		all()
		says(setByQuery.Query())
		all()
		says(setByQuery.Query())
		ok(set.Exec())
		says(set.Query())
		all()
		run(t, db, "PRAGMA busy_timeout = 0")
		all()
		ok(set.Exec())
		all()
		tx := ok(db.Begin())
		says(tx.Stmt(read[0]).Query())
		ok(tx.Stmt(setByQuery).Exec())
		says(tx.Stmt(read[0]).Query())
		check(tx.Rollback())
		all()
	}
	want, got := answers["sqlite3"], answers["sqlite-leakguard"]
	for i := range want {
		if i >= len(got) || want[i] != got[i] {
			t.Fatalf("answer %d differs:\n%d\nwant\n%d", i, got, want)
		}
	}
}

// Behind such a statement the guard's own handler is back: a wait ends with its
// context.
func TestWaitingBehindPreparedBusyTimeout(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, "file:"+fileOf(fileDSN(t))+"?_journal_mode=WAL&_busy_timeout=20000", Config{})
	run(t, a.begin(t), "INSERT INTO t VALUES(10)")
	c := b.conn(t)
	for _, text := range []string{"PRAGMA busy_timeout", "PRAGMA busy_timeout = 30000", "SELECT timeout FROM pragma_busy_timeout"} {
		s := prepare(t, c, text)
		for range 2 {
			ok(s.Exec())
			check(ok(s.Query()).Close())
			ctx, cancel := context.WithTimeout(background, 20*time.Millisecond)
			began := time.Now()
			_, err := c.ExecContext(ctx, "INSERT INTO t VALUES(11)")
			cancel()
			if took := time.Since(began); err != context.DeadlineExceeded || took > 10*time.Second {
				t.Errorf("behind %s: %v after %v", text, err, took)
			}
		}
	}
}

// Texts that only speak of it are run as any other.
func TestNamesBusyTimeout(t *testing.T) {
	for text, want := range map[string]bool{
		"":                                  false,
		"PRAGMA busy_timeout":               true,
		"pragma main.BUSY_timeout=1":        true,
		"/* c */ PRAGMA busy_timeout":       true,
		"-- busy_timeout\nSELECT 1":         true, // may be anything
		"SELECT 1; PRAGMA busy_timeout":     true,
		"SELECT * FROM pragma_busy_timeout": true,
		"WITH x AS (SELECT * FROM Pragma_Busy_Timeout(5))":   true,
		"INSERT INTO log VALUES('busy_timeout is too long')": false,
		"SELECT busy_timeout, pragma_x FROM settings":        false,
		"SELECT a_b FROM busy_ timeout_":                     false,
		"PRAGMA user_version":                                false,
		"PRAGMA busytimeout":                                 false,
	} {
		if got := namesBusyTimeout(sqltext.Classify(text), text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if n := testing.AllocsPerRun(100, func() { namesBusyTimeout(0, "INSERT INTO A_B_C(X_Y) VALUES('busy_timeout')") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
