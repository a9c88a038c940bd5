//go:build cgo

package leakguard

import (
	"database/sql/driver"
	"path/filepath"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestKeptTextsInNobodysWay: statements that are kept stand in the way of nothing
// that needs the file or a table for itself.
func TestKeptTextsInNobodysWay(t *testing.T) {
	g := open(t, Config{})
	c := g.conn(t)
	run(t, c, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)", "CREATE VIRTUAL TABLE f USING fts4(x)", "CREATE VIRTUAL TABLE r USING rtree(id, a, b)")
	keep := func() {
		for i := range 40 { // until all are kept, whatever places their hashes have
			run(t, c, "INSERT INTO t(b) VALUES (1)", "INSERT INTO f VALUES ('one two')", "UPDATE t SET b = b + 1")
			try(c, "INSERT INTO r VALUES (?, 1, 2)", i)
			number(t, c, "SELECT count(*) FROM f WHERE f MATCH 'one'")
			number(t, c, "SELECT count(*) FROM r WHERE a > 0")
			number(t, c, "SELECT count(*) FROM t")
			for range 2 { // left open half way, then closed
				rows := query(t, c, "SELECT a FROM t UNION ALL SELECT a FROM t")
				rows.Close()
			}
		}
		if len(g.last().texts.list) < 7 {
			t.Fatalf("%d kept", len(g.last().texts.list))
		}
	}
	for _, q := range []string{"PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA journal_mode=DELETE", "PRAGMA journal_mode=WAL", "VACUUM",
		"PRAGMA locking_mode=EXCLUSIVE", "PRAGMA locking_mode=NORMAL", "ANALYZE", "REINDEX", "ALTER TABLE t RENAME TO t2", "ALTER TABLE t2 RENAME TO t",
		"ALTER TABLE t ADD COLUMN z", "VACUUM INTO '" + filepath.Join(t.TempDir(), "x.db") + "'", "DROP TABLE f", "DROP TABLE r", "DROP TABLE t"} {
		if q[0] != 'A' || q == "ANALYZE" {
			if q != "DROP TABLE r" && q != "DROP TABLE t" {
				keep()
			}
		}
		run(t, c, q)
	}
	if err := try(c, "INSERT INTO t(b) VALUES (1)"); err == nil || err.Error() != "no such table: t" {
		t.Error(err)
	}
}

// TestAbortWithBufferedRow: the buffered first row of an aborted transaction's
// rows is not handed out.
func TestAbortWithBufferedRow(t *testing.T) {
	c := keptTexts(t, Config{}, "SELECT a FROM t")
	second(c.ExecContext(background, "INSERT INTO t VALUES (1, 2), (2, 3)", nil))
	readText(t, c, "SELECT a FROM t")
	tx, _ := c.Begin()
	r, err := c.QueryContext(background, "SELECT a FROM t", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ExecContext(background, "INSERT OR ROLLBACK INTO t VALUES (1, 2)", nil); err == nil {
		t.Fatal("no error")
	}
	var aborted *TxAbortedError
	if err := r.Next(make([]driver.Value, 1)); err == nil {
		t.Errorf("the buffered row of an aborted transaction: %v %v", err, aborted)
	}
	r.Close()
	tx.Rollback()
	if n := c.texts.list[0]; n.busy {
		t.Error("busy")
	}
	readText(t, c, "SELECT a FROM t")
}

var _ = tracker.Enforce
