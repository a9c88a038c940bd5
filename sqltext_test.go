package leakguard

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

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

func sqlTextSteps(kinds ...any) []txStep {
	var steps []txStep
	for _, k := range kinds {
		switch k := k.(type) {
		case stepKind:
			steps = append(steps, txStep{kind: k})
		case string:
			steps[len(steps)-1].name = k
		}
	}
	return steps
}

var sqlTextTests = []struct {
	sql    string
	class  textClass
	steps  []txStep
	pragma string
}{
	// Ordinary statements.
	{sql: ""},
	{sql: " \t\r\n\f"},
	{sql: ";;;"},
	{sql: "SELECT 1"},
	{sql: "select 1;"},
	{sql: "SELECT 1; \r\n\t"},
	{sql: "SELECT 1 -- ; BEGIN"},
	{sql: "SELECT 1; -- BEGIN"},
	{sql: "SELECT 1 /* ; BEGIN */ ;;"},
	{sql: "SELECT ';BEGIN'"},
	{sql: "SELECT 'it''s; BEGIN'"},
	{sql: `SELECT ";BEGIN"`},
	{sql: `SELECT 1 AS "a"";BEGIN"`},
	{sql: "SELECT 1 AS `;BEGIN`"},
	{sql: "SELECT 1 AS [;BEGIN]"},
	{sql: "SELECT x'00'';BEGIN'"},
	{sql: "SELECT $a(;BEGIN), 1"},
	{sql: "INSERT INTO t VALUES (7, ';'); "},
	{sql: "INSERT OR REPLACE INTO t VALUES (1, 2)"},
	{sql: "REPLACE INTO t VALUES (1, 2)"},
	{sql: "replace INTO t VALUES (1, 2)"},
	{sql: "UPDATE t SET b = 2 WHERE a = 1 RETURNING b"},
	{sql: "DELETE FROM t"},
	{sql: "VALUES (1), (2)"},
	{sql: "WITH x AS (SELECT 1) SELECT * FROM x"},
	{sql: "\n\tWITH x AS (SELECT 1)\n\tINSERT INTO t SELECT 9, 9 FROM x;\n"},
	{sql: "-- name: GetT :one\nSELECT * FROM t;\n"},
	{sql: "\xEF\xBB\xBFSELECT 1"},
	{sql: "REINDEX"},
	{sql: "ANALYZE"},
	{sql: "ANALYZE t"},
	{sql: "VACUUM"},
	{sql: "ALTER TABLE t ADD COLUMN c"},
	{sql: "CREATE TABLE x (begin, temp)"},
	{sql: "CREATE TABLE main.x (a)"},
	{sql: "CREATE TABLE temp (a)"},
	{sql: "CREATE VIEW y AS SELECT temp.a FROM t AS temp"},
	{sql: "CREATE UNIQUE INDEX IF NOT EXISTS i ON t (b)"},
	{sql: "SEL\x00ECT 1; BEGIN"},
	{sql: "SELECT 1\x00; BEGIN"},
	{sql: "SELECT 1;\x00BEGIN"},
	{sql: "/* BEGIN"},
	{sql: "/*/ BEGIN"},
	{sql: "-- BEGIN"},
	{sql: "--\x00\nBEGIN"},
	{sql: "BEGINS"},
	{sql: "BEGIN_"},
	{sql: "BEGIN$"},
	{sql: "BEGIN1"},
	{sql: "BEGIN\u00A0"},
	{sql: "\u017FAVEPOINT x"}, // a letter that Unicode folds to S
	{sql: `"BEGIN"`},
	{sql: "'"},
	{sql: "["},
	{sql: "SELECT 1; '", class: textMulti},

	// Transactions.
	{sql: "BEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "begin;", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "BeGiN IMMEDIATE", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "BEGIN EXCLUSIVE TRANSACTION", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "BEGIN DEFERRED TRANSACTION commit_me", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: ";;BEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: " ; /**/ ; BEGIN ; ; ", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "BEGIN--x", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "BEGIN/*x", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "/*;*/BEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "/***/BEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "/*/*/BEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "-- SELECT\nBEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "--\r\nBEGIN\r\n", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "\xEF\xBB\xBFBEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: " \vBEGIN", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "BEGIN\x00x", class: textTx, steps: sqlTextSteps(stepBegin)},
	{sql: "COMMIT", class: textTx | textCommit | textEndsTx, steps: sqlTextSteps(stepCommit)},
	{sql: "commit transaction;", class: textTx | textCommit | textEndsTx, steps: sqlTextSteps(stepCommit)},
	{sql: "end", class: textTx | textCommit | textEndsTx, steps: sqlTextSteps(stepCommit)},
	{sql: "End Transaction 'x'", class: textTx | textCommit | textEndsTx, steps: sqlTextSteps(stepCommit)},
	{sql: "ROLLBACK", class: textTx | textRollback | textEndsTx, steps: sqlTextSteps(stepRollback)},
	{sql: "rollback transaction", class: textTx | textRollback | textEndsTx, steps: sqlTextSteps(stepRollback)},
	{sql: `ROLLBACK TRANSACTION "to";`, class: textTx | textRollback | textEndsTx, steps: sqlTextSteps(stepRollback)},

	// Savepoints.
	{sql: "SAVEPOINT Abc", class: textTx, steps: sqlTextSteps(stepSavepoint, "abc")},
	{sql: `SAVEPOINT "A""; COMMIT"`, class: textTx, steps: sqlTextSteps(stepSavepoint, `a"; commit`)},
	{sql: "SAVEPOINT 'it''s'", class: textTx, steps: sqlTextSteps(stepSavepoint, "it's")},
	{sql: "SAVEPOINT[a;b]", class: textTx, steps: sqlTextSteps(stepSavepoint, "a;b")},
	{sql: "SAVEPOINT`a``b`", class: textTx, steps: sqlTextSteps(stepSavepoint, "a`b")},
	{sql: `savepoint ""`, class: textTx, steps: sqlTextSteps(stepSavepoint, "")},
	{sql: "SAVEPOINT savepoint", class: textTx, steps: sqlTextSteps(stepSavepoint, "savepoint")},
	{sql: "SAVEPOINT \u00C4B", class: textTx, steps: sqlTextSteps(stepSavepoint, "\u00C4b")},
	{sql: "RELEASE s", class: textTx, steps: sqlTextSteps(stepRelease, "s")},
	{sql: "release savepoint [S]", class: textTx, steps: sqlTextSteps(stepRelease, "s")},
	{sql: "ROLLBACK TO s", class: textTx, steps: sqlTextSteps(stepRollbackTo, "s")},
	{sql: "ROLLBACK/**/TRANSACTION TO SAVEPOINT 'S'", class: textTx, steps: sqlTextSteps(stepRollbackTo, "s")},
	{sql: "ROLLBACK TRANSACTION x TO s", class: textTx, steps: sqlTextSteps(stepRollbackTo, "s")},

	// More than one statement.
	{sql: "SELECT 1; SELECT 2", class: textMulti},
	{sql: "SELECT 1;SELECT 2;", class: textMulti},
	{sql: "BEGIN; COMMIT", class: textTx | textMulti | textEndsTx, steps: sqlTextSteps(stepBegin, stepCommit)},
	{sql: "COMMIT; BEGIN", class: textTx | textMulti | textCommit | textEndsTx, steps: sqlTextSteps(stepCommit, stepBegin)},
	{sql: "SELECT ';'; BEGIN", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT ''';'; BEGIN --'", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT ';--'; BEGIN", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT ';/*'; BEGIN", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT x'27';BEGIN--'", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT $a('); BEGIN --'", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT :a::b(/*); BEGIN --*/", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT ?1, @a, #1; BEGIN", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT 1;/*;*/BEGIN", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT 1;\vBEGIN", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT 1;\u2003BEGIN\u00A0", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "SELECT 1; SAVEPOINT \u00A0x\u00A0", class: textTx | textMulti, steps: sqlTextSteps(stepSavepoint, "\u00A0x")},
	{sql: "INSERT INTO t VALUES (3, 3); SAVEPOINT a; ROLLBACK TO a; RELEASE a", class: textTx | textMulti,
		steps: sqlTextSteps(stepSavepoint, "a", stepRollbackTo, "a", stepRelease, "a")},
	{sql: "SAVEPOINT a; ROLLBACK;", class: textTx | textMulti | textEndsTx, steps: sqlTextSteps(stepSavepoint, "a", stepRollback)},

	// Triggers.
	{sql: "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END"},
	{sql: "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; DELETE FROM t; END;"},
	{sql: "create trigger if not exists main.r delete on t begin select 1;end/**/; COMMIT",
		class: textTx | textMulti | textEndsTx, steps: sqlTextSteps(stepCommit)},
	{sql: "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END; BEGIN",
		class: textTx | textMulti | textTemp, steps: sqlTextSteps(stepBegin)},
	{sql: "EXPLAIN CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END; BEGIN",
		class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "CREATE TABLE trigger_ (a); BEGIN; SELECT 1; END",
		class: textTx | textMulti | textEndsTx, steps: sqlTextSteps(stepBegin, stepCommit)},

	// EXPLAIN.
	{sql: "EXPLAIN BEGIN"},
	{sql: "EXPLAIN QUERY PLAN SELECT 1"},
	{sql: "explain query plan ROLLBACK; BEGIN", class: textTx | textMulti, steps: sqlTextSteps(stepBegin)},
	{sql: "EXPLAIN ATTACH ':memory:' AS m"},
	{sql: "EXPLAIN PRAGMA foreign_keys = ON", class: textPragma, pragma: "foreign_keys"},

	// Attached databases.
	{sql: "ATTACH ':memory:' AS m", class: textAttach},
	{sql: "attach database ':memory:' as m; DETACH m", class: textAttach | textMulti},
	{sql: "DETACH DATABASE m", class: textAttach},

	// The temp schema.
	{sql: "CREATE TEMP TABLE x (a)", class: textTemp},
	{sql: "create temporary view if not exists y as select 1", class: textTemp},
	{sql: "CREATE TABLE temp.x (a)", class: textTemp},
	{sql: `CREATE TABLE IF NOT EXISTS "TEMP" . x (a)`, class: textTemp},
	{sql: "CREATE/**/VIEW[temp].y AS SELECT 1", class: textTemp},
	{sql: "CREATE VIRTUAL TABLE 'temp'.x USING fts4(a)", class: textTemp},
	{sql: "CREATE TRIGGER `Temp`.r AFTER INSERT ON t BEGIN SELECT 1; END", class: textTemp},
	{sql: "CREATE INDEX temp.i ON x (a)", class: textTemp},
	{sql: "DROP TABLE temp.x", class: textTemp},
	{sql: "drop view y", class: textTemp},
	{sql: "ANALYZE temp", class: textTemp},
	{sql: "ANALYZE sqlite_temp_schema", class: textTemp},

	// Pragmas.
	{sql: "PRAGMA foreign_keys"},
	{sql: "PRAGMA main.foreign_keys;"},
	{sql: "PRAGMA table_info(t)"},
	{sql: "PRAGMA main.index_list = 't'"},
	{sql: "PRAGMA optimize(0x10002)"},
	{sql: "PRAGMA wal_checkpoint(TRUNCATE)"},
	{sql: "PRAGMA user_version = 3"},
	{sql: "PRAGMA journal_mode = WAL"},
	{sql: "pragma main.journal_mode('wal')"},
	{sql: "PRAGMA temp.user_version = 3", class: textPragma, pragma: "user_version"},
	{sql: "PRAGMA journal_mode = MEMORY", class: textPragma, pragma: "journal_mode"},
	{sql: "PRAGMA Foreign_Keys = ON", class: textPragma, pragma: "foreign_keys"},
	{sql: `PRAGMA "cache_size"(-2000)`, class: textPragma, pragma: "cache_size"},
	{sql: "PRAGMA/**/main . synchronous == OFF", class: textPragma, pragma: "synchronous"},
	{sql: "PRAGMA busy_timeout; PRAGMA busy_timeout = 5", class: textMulti | textPragma, pragma: "busy_timeout"},
	{sql: "PRAGMA wal_autocheckpoint=0", class: textPragma, pragma: "wal_autocheckpoint"},
	{sql: "PRAGMA temp_store = MEMORY", class: textPragma | textTemp, pragma: "temp_store"},
	{sql: "PRAGMA unknown = 1; BEGIN", class: textTx | textMulti | textPragma, steps: sqlTextSteps(stepBegin), pragma: "unknown"},
}

func TestSQLTextClassify(t *testing.T) {
	for _, tt := range sqlTextTests {
		if got := classify(tt.sql); got != tt.class {
			t.Errorf("classify(%q) = %09b, want %09b", tt.sql, got, tt.class)
		}
		if got := txSteps(tt.sql); !slices.Equal(got, tt.steps) {
			t.Errorf("txSteps(%q) = %v, want %v", tt.sql, got, tt.steps)
		}
		if got := pragmaName(tt.sql); got != tt.pragma {
			t.Errorf("pragmaName(%q) = %q, want %q", tt.sql, got, tt.pragma)
		}
	}
}

func TestSQLTextNoAllocs(t *testing.T) {
	for _, tt := range sqlTextTests {
		if n := testing.AllocsPerRun(20, func() { classify(tt.sql) }); n != 0 {
			t.Errorf("classify(%q) allocates %v times", tt.sql, n)
		}
	}
}

// TestSQLTextPlainVerbs pins what harmlessVerb takes for granted.
func TestSQLTextPlainVerbs(t *testing.T) {
	for _, verb := range []string{
		"ALTER", "ANALYZE", "ATTACH", "BEGIN", "COMMIT", "CREATE", "DETACH", "DROP",
		"END", "EXPLAIN", "PRAGMA", "REINDEX", "RELEASE", "ROLLBACK", "SAVEPOINT",
	} {
		if harmlessVerb(verb) || harmlessVerb(strings.ToLower(verb)) {
			t.Errorf("%s counts as harmless", verb)
		}
	}
	for _, verb := range []string{"DELETE", "INSERT", "REPLACE", "SELECT", "UPDATE", "VACUUM", "VALUES", "WITH"} {
		if !harmlessVerb(verb) || !harmlessVerb(strings.ToLower(verb)) {
			t.Errorf("%s takes the slow path", verb)
		}
	}
}

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
	if got, want := classify(sql), classifyStmts(sql); got != want {
		t.Fatalf("classify(%q) = %09b without, %09b with the lexer", sql, got, want)
	}
	if got, want := classify(sql)&textTx != 0, len(txSteps(sql)) > 0; got != want {
		t.Fatalf("%q: textTx is %v, but steps are %v", sql, got, txSteps(sql))
	}
	if name := pragmaName(sql); name != "" && classify(sql)&textPragma == 0 {
		t.Fatalf("%q: textPragma is not set, but the pragma is %q", sql, name)
	}
	for _, before := range []string{"", "BEGIN", "SAVEPOINT a"} {
		runSQLText(t, before, sql)
	}
}

// sqlTextSeen is what SQLite's authorizer was asked about while a text was
// compiled, see https://www.sqlite.org/c3ref/c_alter_table.html.
type sqlTextSeen struct {
	steps   []txStep
	attach  bool
	pragmas []string // those with an argument
}

func (seen *sqlTextSeen) authorize(op int, arg1, arg2, schema string) int {
	switch op {
	case sqlite3.SQLITE_TRANSACTION:
		kinds := map[string]stepKind{"BEGIN": stepBegin, "COMMIT": stepCommit, "ROLLBACK": stepRollback}
		seen.steps = append(seen.steps, txStep{kind: kinds[arg1]})
	case sqlite3.SQLITE_SAVEPOINT:
		kinds := map[string]stepKind{"BEGIN": stepSavepoint, "RELEASE": stepRelease, "ROLLBACK": stepRollbackTo}
		seen.steps = append(seen.steps, txStep{kinds[arg1], sqltext.Name("[" + arg2 + "]")})
	case sqlite3.SQLITE_ATTACH:
		if arg1 != ":memory:" {
			return sqlite3.SQLITE_DENY // stay off the disk
		}
		seen.attach = true
	case sqlite3.SQLITE_DETACH:
		seen.attach = true
	case sqlite3.SQLITE_PRAGMA:
		name := sqltext.Name(arg1)
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

	class := classify(sql)
	// SQLite itself may end the transaction on an error, it begins none.
	if wasAuto != isAuto && (execErr == nil || wasAuto) && class&textTx == 0 {
		t.Fatalf("%q after %q: autocommit went from %v to %v (error: %v), textTx is not set", sql, before, wasAuto, isAuto, execErr)
	}
	if n, err := countSQLText(c, "SELECT count(*) FROM temp.sqlite_schema"); err == nil && n > 0 && class&textTemp == 0 {
		t.Fatalf("%q after %q: made %d temp objects, textTemp is not set", sql, before, n)
	}
	if n, err := countSQLText(c, "SELECT count(*) FROM pragma_database_list WHERE name NOT IN ('main', 'temp')"); err == nil && n > 0 && class&textAttach == 0 {
		t.Fatalf("%q after %q: attached %d databases, textAttach is not set", sql, before, n)
	}

	// The authorizer is asked about EXPLAINed statements too, and about those
	// that VACUUM runs on its own.
	lower := strings.ToLower(sql)
	more := strings.Contains(lower, "explain") || strings.Contains(lower, "vacuum")
	if seen.attach && !more && class&textAttach == 0 {
		t.Fatalf("%q after %q: textAttach is not set", sql, before)
	}
	if len(seen.pragmas) > 0 {
		if class&textPragma == 0 {
			t.Fatalf("%q after %q: textPragma is not set for %q", sql, before, seen.pragmas)
		}
		if got := pragmaName(sql); got != seen.pragmas[0] && execErr == nil {
			t.Fatalf("%q after %q: first pragma is %q, want %q", sql, before, got, seen.pragmas[0])
		}
	}
	steps := txSteps(sql)
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

func BenchmarkSQLTextClassify(b *testing.B) {
	for _, bb := range []struct{ name, sql string }{
		{"select", "SELECT a FROM t WHERE a = ?"},
		{"select300", "SELECT a, b FROM t WHERE " + strings.Repeat("a = ? AND ", 27) + "b = 1"},
		{"insert;", "INSERT INTO t (a, b) VALUES (?, ?);"},
		{"indented", "\n\t\tSELECT a\n\t\tFROM t\n\t\tWHERE a = ?\n\t"},
		{"comment", "-- name: GetT :one\nSELECT a FROM t WHERE a = ?"},
		{"begin", "BEGIN"},
		{"commit", "COMMIT"},
		{"savepoint", "SAVEPOINT sp1"},
		{"semicolon in string", "INSERT INTO t VALUES (1, 'a;b')"},
		{"multi", "INSERT INTO t VALUES (1, 'a;b'); INSERT INTO t VALUES (2, 'c')"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				classify(bb.sql)
			}
		})
	}
}
