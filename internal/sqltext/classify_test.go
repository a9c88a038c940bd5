package sqltext

import (
	"slices"
	"strings"
	"testing"
)

func sqlTextSteps(kinds ...any) []Step {
	var steps []Step
	for _, k := range kinds {
		switch k := k.(type) {
		case stepKind:
			steps = append(steps, Step{Kind: k})
		case string:
			steps[len(steps)-1].Name = k
		}
	}
	return steps
}

var sqlTextTests = []struct {
	sql    string
	class  Class
	steps  []Step
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
	{sql: "SELECT 1; '", class: Multi},

	// Transactions.
	{sql: "BEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "begin;", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "BeGiN IMMEDIATE", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "BEGIN EXCLUSIVE TRANSACTION", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "BEGIN DEFERRED TRANSACTION commit_me", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: ";;BEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: " ; /**/ ; BEGIN ; ; ", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "BEGIN--x", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "BEGIN/*x", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "/*;*/BEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "/***/BEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "/*/*/BEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "-- SELECT\nBEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "--\r\nBEGIN\r\n", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "\xEF\xBB\xBFBEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: " \vBEGIN", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "BEGIN\x00x", class: Tx, steps: sqlTextSteps(StepBegin)},
	{sql: "COMMIT", class: Tx | Commit | EndsTx, steps: sqlTextSteps(StepCommit)},
	{sql: "commit transaction;", class: Tx | Commit | EndsTx, steps: sqlTextSteps(StepCommit)},
	{sql: "end", class: Tx | Commit | EndsTx, steps: sqlTextSteps(StepCommit)},
	{sql: "End Transaction 'x'", class: Tx | Commit | EndsTx, steps: sqlTextSteps(StepCommit)},
	{sql: "ROLLBACK", class: Tx | Rollback | EndsTx, steps: sqlTextSteps(StepRollback)},
	{sql: "rollback transaction", class: Tx | Rollback | EndsTx, steps: sqlTextSteps(StepRollback)},
	{sql: `ROLLBACK TRANSACTION "to";`, class: Tx | Rollback | EndsTx, steps: sqlTextSteps(StepRollback)},

	// Savepoints.
	{sql: "SAVEPOINT Abc", class: Tx, steps: sqlTextSteps(StepSavepoint, "abc")},
	{sql: `SAVEPOINT "A""; COMMIT"`, class: Tx, steps: sqlTextSteps(StepSavepoint, `a"; commit`)},
	{sql: "SAVEPOINT 'it''s'", class: Tx, steps: sqlTextSteps(StepSavepoint, "it's")},
	{sql: "SAVEPOINT[a;b]", class: Tx, steps: sqlTextSteps(StepSavepoint, "a;b")},
	{sql: "SAVEPOINT`a``b`", class: Tx, steps: sqlTextSteps(StepSavepoint, "a`b")},
	{sql: `savepoint ""`, class: Tx, steps: sqlTextSteps(StepSavepoint, "")},
	{sql: "SAVEPOINT savepoint", class: Tx, steps: sqlTextSteps(StepSavepoint, "savepoint")},
	{sql: "SAVEPOINT \u00C4B", class: Tx, steps: sqlTextSteps(StepSavepoint, "\u00C4b")},
	{sql: "RELEASE s", class: Tx, steps: sqlTextSteps(StepRelease, "s")},
	{sql: "release savepoint [S]", class: Tx, steps: sqlTextSteps(StepRelease, "s")},
	{sql: "ROLLBACK TO s", class: Tx, steps: sqlTextSteps(StepRollbackTo, "s")},
	{sql: "ROLLBACK/**/TRANSACTION TO SAVEPOINT 'S'", class: Tx, steps: sqlTextSteps(StepRollbackTo, "s")},
	{sql: "ROLLBACK TRANSACTION x TO s", class: Tx, steps: sqlTextSteps(StepRollbackTo, "s")},

	// More than one statement.
	{sql: "SELECT 1; SELECT 2", class: Multi},
	{sql: "SELECT 1;SELECT 2;", class: Multi},
	{sql: "BEGIN; COMMIT", class: Tx | Multi | EndsTx, steps: sqlTextSteps(StepBegin, StepCommit)},
	{sql: "COMMIT; BEGIN", class: Tx | Multi | Commit | EndsTx, steps: sqlTextSteps(StepCommit, StepBegin)},
	{sql: "SELECT ';'; BEGIN", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT ''';'; BEGIN --'", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT ';--'; BEGIN", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT ';/*'; BEGIN", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT x'27';BEGIN--'", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT $a('); BEGIN --'", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT :a::b(/*); BEGIN --*/", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT ?1, @a, #1; BEGIN", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT 1;/*;*/BEGIN", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT 1;\vBEGIN", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT 1;\u2003BEGIN\u00A0", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "SELECT 1; SAVEPOINT \u00A0x\u00A0", class: Tx | Multi, steps: sqlTextSteps(StepSavepoint, "\u00A0x")},
	{sql: "INSERT INTO t VALUES (3, 3); SAVEPOINT a; ROLLBACK TO a; RELEASE a", class: Tx | Multi,
		steps: sqlTextSteps(StepSavepoint, "a", StepRollbackTo, "a", StepRelease, "a")},
	{sql: "SAVEPOINT a; ROLLBACK;", class: Tx | Multi | EndsTx, steps: sqlTextSteps(StepSavepoint, "a", StepRollback)},

	// Triggers.
	{sql: "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END"},
	{sql: "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT CASE 1 WHEN 1 THEN 2 END; DELETE FROM t; END;"},
	{sql: "create trigger if not exists main.r delete on t begin select 1;end/**/; COMMIT",
		class: Tx | Multi | EndsTx, steps: sqlTextSteps(StepCommit)},
	{sql: "CREATE TEMP TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END; BEGIN",
		class: Tx | Multi | Temp, steps: sqlTextSteps(StepBegin)},
	{sql: "EXPLAIN CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END; BEGIN",
		class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "CREATE TABLE trigger_ (a); BEGIN; SELECT 1; END",
		class: Tx | Multi | EndsTx, steps: sqlTextSteps(StepBegin, StepCommit)},

	// EXPLAIN.
	{sql: "EXPLAIN BEGIN"},
	{sql: "EXPLAIN QUERY PLAN SELECT 1"},
	{sql: "explain query plan ROLLBACK; BEGIN", class: Tx | Multi, steps: sqlTextSteps(StepBegin)},
	{sql: "EXPLAIN ATTACH ':memory:' AS m"},
	{sql: "EXPLAIN PRAGMA foreign_keys = ON", class: Pragma, pragma: "foreign_keys"},

	// Attached databases.
	{sql: "ATTACH ':memory:' AS m", class: Attach},
	{sql: "attach database ':memory:' as m; DETACH m", class: Attach | Multi},
	{sql: "DETACH DATABASE m", class: Attach},

	// The temp schema.
	{sql: "CREATE TEMP TABLE x (a)", class: Temp},
	{sql: "create temporary view if not exists y as select 1", class: Temp},
	{sql: "CREATE TABLE temp.x (a)", class: Temp},
	{sql: `CREATE TABLE IF NOT EXISTS "TEMP" . x (a)`, class: Temp},
	{sql: "CREATE/**/VIEW[temp].y AS SELECT 1", class: Temp},
	{sql: "CREATE VIRTUAL TABLE 'temp'.x USING fts4(a)", class: Temp},
	{sql: "CREATE TRIGGER `Temp`.r AFTER INSERT ON t BEGIN SELECT 1; END", class: Temp},
	{sql: "CREATE INDEX temp.i ON x (a)", class: Temp},
	{sql: "DROP TABLE temp.x", class: Temp},
	{sql: "drop view y", class: Temp},
	{sql: "ANALYZE temp", class: Temp},
	{sql: "ANALYZE sqlite_temp_schema", class: Temp},

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
	{sql: "PRAGMA temp.user_version = 3", class: Pragma, pragma: "user_version"},
	{sql: "PRAGMA journal_mode = MEMORY", class: Pragma, pragma: "journal_mode"},
	{sql: "PRAGMA Foreign_Keys = ON", class: Pragma, pragma: "foreign_keys"},
	{sql: `PRAGMA "cache_size"(-2000)`, class: Pragma, pragma: "cache_size"},
	{sql: "PRAGMA/**/main . synchronous == OFF", class: Pragma, pragma: "synchronous"},
	{sql: "PRAGMA busy_timeout; PRAGMA busy_timeout = 5", class: Multi | Pragma, pragma: "busy_timeout"},
	{sql: "PRAGMA wal_autocheckpoint=0", class: Pragma, pragma: "wal_autocheckpoint"},
	{sql: "PRAGMA temp_store = MEMORY", class: Pragma | Temp, pragma: "temp_store"},
	{sql: "PRAGMA unknown = 1; BEGIN", class: Tx | Multi | Pragma, steps: sqlTextSteps(StepBegin), pragma: "unknown"},
}

func TestSQLTextClassify(t *testing.T) {
	for _, tt := range sqlTextTests {
		if got := Classify(tt.sql); got != tt.class {
			t.Errorf("classify(%q) = %09b, want %09b", tt.sql, got, tt.class)
		}
		if got := Steps(tt.sql); !slices.Equal(got, tt.steps) {
			t.Errorf("Steps(%q) = %v, want %v", tt.sql, got, tt.steps)
		}
		if got := PragmaName(tt.sql); got != tt.pragma {
			t.Errorf("PragmaName(%q) = %q, want %q", tt.sql, got, tt.pragma)
		}
	}
}

func TestSQLTextNoAllocs(t *testing.T) {
	for _, tt := range sqlTextTests {
		if n := testing.AllocsPerRun(20, func() { Classify(tt.sql) }); n != 0 {
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
		if Harmless(verb) || Harmless(strings.ToLower(verb)) {
			t.Errorf("%s counts as harmless", verb)
		}
	}
	for _, verb := range []string{"DELETE", "INSERT", "REPLACE", "SELECT", "UPDATE", "VACUUM", "VALUES", "WITH"} {
		if !Harmless(verb) || !Harmless(strings.ToLower(verb)) {
			t.Errorf("%s takes the slow path", verb)
		}
	}
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
				Classify(bb.sql)
			}
		})
	}
}
