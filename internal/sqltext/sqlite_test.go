//go:build cgo

package sqltext

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

// TestSQLTextRandom puts texts together from those above and from pieces that
// matter to the lexer, which finds more than random bytes do.
func TestSQLTextRandom(t *testing.T) {
	pieces := []string{
		"BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO A", "SAVEPOINT 'b;'",
		"begin immediate", "end transaction x", "ROLLBACK TRANSACTION", "TO", "SAVEPOINT", "x", "\"a\"", "[a]", "`a`",
		"SELECT 1", "SELECT ", "VALUES (1)", "INSERT INTO t(b) VALUES ('x')", "DELETE FROM t", "UPDATE t SET b = 1", "WITH q AS (SELECT 1) ",
		"CREATE TRIGGER r AFTER INSERT ON t BEGIN ", "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN ", "SELECT 2;END", "EXPLAIN ", "EXPLAIN QUERY PLAN ",
		"CREATE TABLE temp.x(a)", "CREATE TABLE ", "\"temp\".", "temp", ".", "y(a)", "CREATE VIEW ", " AS SELECT 1", "DROP TABLE t", "IF NOT EXISTS ",
		"ANALYZE ", "ATTACH ':memory:' AS m", "DETACH m", "PRAGMA ", "foreign_keys", "=", "==1", "(", ")", "ON", "main.", "table_info(t)", "journal_mode=WAL", "cache_size=-5",
		";", ";", " ", " ", "\n", "\t", "\v", "\f", "\r", "\u00A0", "\u2003", "\x00", "\xEF\xBB\xBF", "\xEF", "\x80", "é",
		"--", "-", "/*", "*/", "/", "*", "/*;*/", "-- ;\n", "'", "''", "\"", "\"\"", "`", "[", "]", "x'", "x'27'", "';'", "\";\"", "[;]",
		"$", "$a(", "$a(')", ":a::b(", "@a", "#1", "?", "?1", "$a(;)", "1", "1e+", ".5", "0x1F", ",", "'a'", "_", "A$", "\\",
	}
	between := []string{";", ";", "; ", ";\n", ";;", ";--;\n", ";/*;*/", ";\u00A0", "\n", ""}
	n := 2000
	if testing.Short() {
		n = 200
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range n {
		var b strings.Builder
		for range 1 + rnd.IntN(4) {
			if rnd.IntN(4) > 0 {
				b.WriteString(sqlTextTests[rnd.IntN(len(sqlTextTests))].sql)
			} else {
				for range 1 + rnd.IntN(8) {
					b.WriteString(pieces[rnd.IntN(len(pieces))])
				}
			}
			b.WriteString(between[rnd.IntN(len(between))])
		}
		checkSQLText(t, b.String())
	}
}

// The seeds check the table above with the real thing in every test run.
func FuzzSQLTextAgainstAutocommit(f *testing.F) {
	for _, tt := range sqlTextTests {
		f.Add(tt.sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if len(sql) > 200 {
			t.Skip("long")
		}
		checkSQLText(t, sql)
	})
}

// checkSQLText runs sql on a connection outside a transaction, in one and in a
// savepoint, and compares what happened with what is said about the text.
func checkSQLText(t *testing.T, sql string) {
	t.Helper()
	if got, want := Classify(sql), classifyStmts(sql); got != want {
		t.Fatalf("classify(%q) = %09b without, %09b with the lexer", sql, got, want)
	}
	if got, want := Classify(sql)&Tx != 0, len(Steps(sql)) > 0; got != want {
		t.Fatalf("%q: Tx is %v, but steps are %v", sql, got, Steps(sql))
	}
	if name := PragmaName(sql); name != "" && Classify(sql)&Pragma == 0 {
		t.Fatalf("%q: Pragma is not set, but the pragma is %q", sql, name)
	}
	for _, before := range []string{"", "BEGIN", "SAVEPOINT a"} {
		runSQLText(t, before, sql)
	}
}

// sqlTextSeen is what SQLite's authorizer was asked about while a text was
// compiled, see https://www.sqlite.org/c3ref/c_alter_table.html.
type sqlTextSeen struct {
	steps   []Step
	attach  bool
	pragmas []string // those with an argument
}

func (seen *sqlTextSeen) authorize(op int, arg1, arg2, schema string) int {
	switch op {
	case sqlite3.SQLITE_TRANSACTION:
		kinds := map[string]stepKind{"BEGIN": StepBegin, "COMMIT": StepCommit, "ROLLBACK": StepRollback}
		seen.steps = append(seen.steps, Step{Kind: kinds[arg1]})
	case sqlite3.SQLITE_SAVEPOINT:
		kinds := map[string]stepKind{"BEGIN": StepSavepoint, "RELEASE": StepRelease, "ROLLBACK": StepRollbackTo}
		seen.steps = append(seen.steps, Step{kinds[arg1], Name("[" + arg2 + "]")})
	case sqlite3.SQLITE_ATTACH:
		if arg1 != ":memory:" {
			return sqlite3.SQLITE_DENY // stay off the disk
		}
		seen.attach = true
	case sqlite3.SQLITE_DETACH:
		seen.attach = true
	case sqlite3.SQLITE_PRAGMA:
		name := Name(arg1)
		switch name {
		case "hard_heap_limit", "soft_heap_limit", "temp_store_directory", "data_store_directory":
			return sqlite3.SQLITE_DENY // settings of the process
		}
		neutral := slices.Contains(sessionNeutralPragmas[:], name) ||
			slices.Contains(filePragmas[:], name) && !strings.EqualFold(schema, "temp") ||
			name == "journal_mode" && strings.EqualFold(arg2, "wal")
		if arg2 != "" && !neutral {
			seen.pragmas = append(seen.pragmas, name)
		}
	}
	return sqlite3.SQLITE_OK
}

func runSQLText(t *testing.T, before, sql string) {
	t.Helper()
	dc, err := (&sqlite3.SQLiteDriver{}).Open(":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer dc.Close()
	c := dc.(*sqlite3.SQLiteConn)
	c.SetLimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
	if _, err := c.Exec("PRAGMA temp_store = MEMORY; CREATE TABLE t (a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 1);"+before, nil); err != nil {
		t.Fatal(err)
	}

	var args []driver.NamedValue
	for i := range 10 { // more than there are parameters does not matter
		args = append(args, driver.NamedValue{Ordinal: i + 1, Value: int64(1)})
	}
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	var seen sqlTextSeen
	wasAuto := c.AutoCommit()
	c.RegisterAuthorizer(seen.authorize)
	_, execErr := c.ExecContext(ctx, sql, args)
	c.RegisterAuthorizer(nil)
	isAuto := c.AutoCommit()

	class := Classify(sql)
	// SQLite itself may end the transaction on an error, it begins none.
	if wasAuto != isAuto && (execErr == nil || wasAuto) && class&Tx == 0 {
		t.Fatalf("%q after %q: autocommit went from %v to %v (error: %v), Tx is not set", sql, before, wasAuto, isAuto, execErr)
	}
	if n, err := countSQLText(c, "SELECT count(*) FROM temp.sqlite_schema"); err == nil && n > 0 && class&Temp == 0 {
		t.Fatalf("%q after %q: made %d temp objects, Temp is not set", sql, before, n)
	}
	if n, err := countSQLText(c, "SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')"); err == nil && n > 0 && class&Attach == 0 {
		t.Fatalf("%q after %q: attached %d databases, textAttach is not set", sql, before, n)
	}

	// The authorizer is asked about EXPLAINed statements too, and about those
	// that VACUUM runs on its own.
	lower := strings.ToLower(sql)
	more := strings.Contains(lower, "explain") || strings.Contains(lower, "vacuum")
	if seen.attach && !more && class&Attach == 0 {
		t.Fatalf("%q after %q: textAttach is not set", sql, before)
	}
	if len(seen.pragmas) > 0 {
		if class&Pragma == 0 {
			t.Fatalf("%q after %q: Pragma is not set for %q", sql, before, seen.pragmas)
		}
		if got := PragmaName(sql); got != seen.pragmas[0] && execErr == nil {
			t.Fatalf("%q after %q: first pragma is %q, want %q", sql, before, got, seen.pragmas[0])
		}
	}
	steps := Steps(sql)
	switch {
	case more:
		i := 0
		for _, s := range seen.steps {
			if i < len(steps) && steps[i] == s {
				i++
			}
		}
		if execErr == nil && i < len(steps) {
			t.Fatalf("%q after %q: steps are %v, SQLite saw only %v", sql, before, steps, seen.steps)
		}
	case execErr == nil:
		if !slices.Equal(steps, seen.steps) {
			t.Fatalf("%q after %q: steps are %v, SQLite saw %v", sql, before, steps, seen.steps)
		}
	default: // the rest did not run
		if len(steps) < len(seen.steps) || !slices.Equal(steps[:len(seen.steps)], seen.steps) {
			t.Fatalf("%q after %q: steps are %v, SQLite saw %v before %v", sql, before, steps, seen.steps, execErr)
		}
	}
}

func countSQLText(c *sqlite3.SQLiteConn, query string) (int64, error) {
	rows, err := c.Query(query, nil)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	dest := make([]driver.Value, 1)
	if err := rows.Next(dest); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("no row")
		}
		return 0, err
	}
	return dest[0].(int64), nil
}
