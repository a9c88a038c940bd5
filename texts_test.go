//go:build cgo

package leakguard

import (
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// keptTexts returns a connection with texts that it keeps.
func keptTexts(t *testing.T, cfg Config, texts ...string) *conn {
	t.Helper()
	c := drive(t, cfg)
	second(c.ExecContext(background, "CREATE TABLE IF NOT EXISTS t (a INTEGER PRIMARY KEY, b)", nil))
	for _, text := range texts {
		often(t, c, text)
	}
	return c
}

// often reads a text until it is kept if it may be: the place of its hash may be
// another text's, which gives way at random.
func often(t *testing.T, c *conn, text string, args ...driver.NamedValue) {
	t.Helper()
	for range 30 {
		readText(t, c, text, args...)
	}
}

func readText(t *testing.T, c *conn, text string, args ...driver.NamedValue) {
	t.Helper()
	r, err := c.QueryContext(background, text, args)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	for err == nil {
		err = r.Next(make([]driver.Value, len(r.Columns())))
	}
	if err != io.EOF {
		t.Fatalf("%s: %v", text, err)
	}
	if err := r.Close(); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
}

func openInSQLite(t *testing.T, c *conn) int {
	t.Helper()
	open, _, ok := c.db().OpenStatements()
	if !ok {
		t.Skip("the binary cannot tell")
	}
	return open
}

// TestTextsAreKept: a text is parsed twice at most, and what is kept is bounded
// and goes with the connection.
func TestTextsAreKept(t *testing.T) {
	t.Parallel()
	c := keptTexts(t, Config{}, "SELECT a FROM t", "\n\t-- first\n\tSELECT b FROM t;\n")
	if n := len(c.texts.list); n != 2 {
		t.Fatalf("%d texts kept, want 2", n)
	}
	statement := func() sqliteStmt {
		for _, kept := range c.texts.list {
			if kept.query == "SELECT a FROM t" {
				return kept.inner
			}
		}
		return nil
	}
	kept := statement()
	for range 5 {
		readText(t, c, "SELECT a FROM t")
	}
	if statement() != kept {
		t.Error("prepared again")
	}
	for i := range 10 * maxTexts {
		for range 3 + textCredit/maxTexts {
			readText(t, c, fmt.Sprintf("SELECT a + %d FROM t", i))
		}
	}
	if n := len(c.texts.list); n > maxTexts {
		t.Errorf("%d texts kept, want at most %d", n, maxTexts)
	}
	if n := openInSQLite(t, c); n > maxTexts+3 {
		t.Errorf("%d statements in SQLite, want at most %d", n, maxTexts+3)
	}
	for i := range 10 * maxTexts { // each once: nobody's place is taken
		readText(t, c, fmt.Sprintf("SELECT a - %d FROM t", i))
	}
	if c.texts.list[0].query == "" || strings.Contains(c.texts.list[0].query, "-") {
		t.Errorf("a text that came once is kept: %q", c.texts.list[0].query)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if len(c.texts.list) != 0 {
		t.Error("texts left behind Close")
	}
}

// TestTextsInUse: rows of a kept text hold it until they are closed, killed or
// reaped, and texts dropped meanwhile go then.
func TestTextsInUse(t *testing.T) {
	t.Parallel()
	const text = "SELECT 1 UNION SELECT 2"
	c := keptTexts(t, Config{}, text)
	kept := c.texts.list[0]
	r, err := c.QueryContext(background, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !kept.busy {
		t.Fatal("the text is not in use")
	}
	readText(t, c, text) // beside it
	before := openInSQLite(t, c)
	c.ExecContext(background, "PRAGMA cache_size = 100", nil)
	if len(c.texts.list) != 0 || !kept.dropped {
		t.Error("a PRAGMA leaves the texts")
	}
	row := make([]driver.Value, 1)
	for want := int64(1); want <= 2; want++ {
		if err := r.Next(row); err != nil || row[0] != want {
			t.Errorf("rows behind the drop: %v, %v", row[0], err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n := openInSQLite(t, c); n != before-1 {
		t.Errorf("%d statements in SQLite behind Close, %d before", n, before)
	}

	often(t, c, text)
	if r, err = c.QueryContext(background, text, nil); err != nil {
		t.Fatal(err)
	}
	c.gate.Enter()
	c.killRows(ErrReaped)
	c.leave(nil)
	if c.texts.list[0].busy {
		t.Error("killed rows hold the text")
	}
	wantErr(t, "Next", r.Next(row), ErrReaped)
	readText(t, c, text)
	r.Close()
	readText(t, c, text)
}

// TestTextsNotKept: nothing is kept where somebody could tell.
func TestTextsNotKept(t *testing.T) {
	t.Parallel()
	const text = "SELECT a FROM t"
	for name, cfg := range map[string]Config{
		"go-sqlite3's own cache": {DSN: fileDSN(t) + "&_stmt_cache_size=0"},
		"shared cache":           {DSN: "file:texts?mode=memory&cache=shared"},
		"ConnectHook":            {SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(*sqlite3.SQLiteConn) error { return nil }}},
	} {
		if c := keptTexts(t, cfg, text, text); len(c.texts.list) != 0 {
			t.Errorf("%s: kept", name)
		}
	}
	c := keptTexts(t, Config{}, text)
	raw, ok := SQLiteConn(c)
	if !ok {
		t.Fatal("no raw connection")
	}
	asked := 0
	raw.RegisterAuthorizer(func(int, string, string, string) int { asked++; return sqlite3.SQLITE_OK })
	for range 3 {
		asked = 0
		readText(t, c, text)
		if asked == 0 {
			t.Error("the authorizer was not asked")
		}
	}
	c.IsValid()
	c.ResetSession(background)
	often(t, c, text)
	if len(c.texts.list) != 0 {
		t.Error("kept after the raw connection was handed out")
	}

	c = keptTexts(t, Config{}, "SELECT 1 WHERE 'busy_timeout' > ''", "EXPLAIN SELECT 1", "VALUES (1)", "PRAGMA page_size",
		"SELECT '"+strings.Repeat("x", maxTextLen)+"'")
	if n := len(c.texts.list); n != 0 {
		t.Errorf("%d texts kept, want none: %q", n, c.texts.list[0].query)
	}
}

// TestTextsAndContexts: a kept text ends with its context and works again.
func TestTextsAndContexts(t *testing.T) {
	t.Parallel()
	const long = "SELECT count(*) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT ?)"
	c := keptTexts(t, Config{})
	limit := func(n int64) []driver.NamedValue { return []driver.NamedValue{{Ordinal: 1, Value: n}} }
	often(t, c, long, limit(1)...)
	if len(c.texts.list) != 1 {
		t.Fatal("not kept")
	}
	over, cancel := context.WithCancel(background)
	cancel()
	if _, err := c.QueryContext(over, long, limit(1)); err != context.Canceled {
		t.Errorf("with an ended context: %v", err)
	}
	if _, err := c.ExecContext(over, "DELETE FROM t WHERE a = ?", limit(1)); err != context.Canceled {
		t.Errorf("Exec with an ended context: %v", err)
	}
	ctx, cancel := context.WithTimeout(background, 20e6)
	defer cancel()
	if _, err := c.QueryContext(ctx, long, limit(1<<40)); err != context.DeadlineExceeded {
		t.Errorf("long query: %v", err)
	}
	readText(t, c, long, limit(5)...)
	if len(c.texts.list) != 1 || c.texts.list[0].busy {
		t.Error("the text is in use or gone")
	}
}

// TestTextsReleased: memory pressure and reaping take what is kept.
func TestTextsReleased(t *testing.T) {
	t.Parallel()
	c := keptTexts(t, Config{}, "SELECT a FROM t")
	if out := c.carry(&tracker.Order{Scope: tracker.ScopeRelease}); out != tracker.Done || len(c.texts.list) != 0 {
		t.Errorf("release: %v, %d texts kept", out, len(c.texts.list))
	}
}
