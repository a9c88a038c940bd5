package integration

import (
	"context"
	"database/sql"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// block has a writer in the way of another.
func block(t *testing.T, db *sql.DB) {
	tx, err := db.BeginTx(in(10), nil) // forgotten: holder
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	if _, err := tx.Exec("INSERT INTO notes VALUES ('mine')"); err != nil {
		t.Fatal(err)
	}
	_, err = db.ExecContext(in(9), "INSERT INTO notes VALUES ('blocked')") // forgotten: blocked
	if err == nil || !strings.Contains(err.Error(), "locked") {
		t.Fatalf("two writers: %v", err)
	}
}

// pin reads an old snapshot, so that the log grows.
func pin(t *testing.T, db *sql.DB) {
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	var n int
	if err := tx.QueryRow("SELECT count(*) FROM notes").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(context.Background(), "INSERT INTO notes VALUES (3)"); err != nil {
		t.Fatal(err)
	}
}

// openAgain opens one more pool of the same file.
func openAgain(t *testing.T, dir string) *sql.DB {
	db, err := sql.Open("sqlite-leakguard", "file:"+filepath.Join(dir, "again.db")+"?_leakguard_name=again&_leakguard_max_pools=2")
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// checkBlocked: the event names both lines of code, each with its span.
func checkBlocked(t *testing.T, records []record) {
	t.Helper()
	source, err := filepath.Abs("locks_test.go")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"sqlite_leakguard.reason":                      "busy",
		"code.file.path":                               source,
		"code.line.number":                             strconv.Itoa(lineOf(t, "locks_test.go", "blocked")),
		"db.query.text":                                "INSERT INTO notes VALUES (?)",
		"sqlite_leakguard.holder.count":                "1",
		"sqlite_leakguard.holder.kind":                 "transaction",
		"sqlite_leakguard.holder.state":                "write",
		"sqlite_leakguard.holder.own":                  "false",
		"sqlite_leakguard.holder.connection.pool.name": "blocked",
		"sqlite_leakguard.holder.code.file.path":       source,
		"sqlite_leakguard.holder.code.line.number":     strconv.Itoa(lineOf(t, "locks_test.go", "holder")),
		"sqlite_leakguard.holder.query.text":           "INSERT INTO notes VALUES (?)",
		"sqlite_leakguard.holder.trace_id":             traceID(10),
		"sqlite_leakguard.holder.span_id":              spanID(10),
	}
	found := slices.ContainsFunc(records, func(r record) bool { return r.TraceID == traceID(9) && r.SpanID == spanID(9) })
	if !found {
		t.Errorf("no blocked operation in trace %s", traceID(9))
	}
	for _, r := range records {
		for key, value := range want {
			if got := r.Attributes.get(key); got != value {
				t.Errorf("blocked: %s is %q, want %q", key, got, value)
			}
		}
	}
}
