package integration

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
)

// The mistakes, each in a function of its own and in a span of its own. The
// line that an event has to name ends in "forgotten: " and the leak's name.

// plant is one planted leak.
type plant struct {
	// events have its site and its span.
	events []string
	mark   string // of its line
	span   byte
}

var plants = []plant{
	{[]string{"transaction.suspect", "transaction.reaped"}, "transaction", 1},
	{[]string{"rows.suspect", "rows.reaped"}, "rows", 2},
	{[]string{"connection.suspect", "connection.recovered"}, "connection", 3},
	{[]string{"transaction.recovered"}, "late transaction", 4},
	{[]string{"rows.recovered"}, "late rows", 5},
	{[]string{"statement.suspect", "statement.recovered"}, "statements", 6},
	{[]string{"rows.proven"}, "proven rows", 7},
	{[]string{"statement.proven", "statement.reaped"}, "proven statement", 8},
}

// in is a context in the span n.
func in(n byte) context.Context {
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{0: 0xaa, 15: n}, SpanID: trace.SpanID{7: n}, TraceFlags: trace.FlagsSampled,
	}))
}

func traceID(n byte) string { return fmt.Sprintf("aa%028d%02x", 0, n) }
func spanID(n byte) string  { return fmt.Sprintf("%014d%02x", 0, n) }

// program leaks each kind, and returns when everything was told of it. told
// waits for an event, named by pool, kind and type.
func program(t *testing.T, told func(name string)) {
	dir := t.TempDir()
	open := func(name, limits string) *sql.DB {
		t.Helper()
		db, err := sql.Open("sqlite-leakguard", "file:"+filepath.Join(dir, name+".db")+
			"?_journal_mode=WAL&_leakguard_name="+name+limits)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		if _, err := db.Exec("CREATE TABLE notes (text)"); err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("INSERT INTO notes VALUES (1), (2)"); err != nil {
			t.Fatal(err)
		}
		return db
	}
	pressure(t, open("heavy", "&_leakguard_memory_interval=20ms&_leakguard_expire=close"), told)
	const soon = "&_leakguard_check_interval=20ms&_leakguard_leak_after=50ms"
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	// Undone by the guard.
	enforced := open("enforced", soon)
	forgetTransaction(t, enforced)
	told("enforced transaction.reaped")
	forgetRows(t, enforced)
	told("enforced rows.reaped")
	conn := forgetConn(t, enforced)
	told("enforced connection.suspect")
	check(conn.Close())
	told("enforced connection.recovered")

	// Reported, and then closed by the program.
	observed := open("observed", soon+"&_leakguard=observe&_leakguard_max_statements=3")
	tx := lateTransaction(t, observed)
	told("observed transaction.suspect")
	check(tx.Rollback())
	told("observed transaction.recovered")
	rows := lateRows(t, observed)
	told("observed rows.suspect")
	check(rows.Close())
	told("observed rows.recovered")
	conn, statements := prepareAgain(t, observed)
	told("observed statement.suspect")
	for _, s := range statements {
		check(s.Close())
	}
	told("observed statement.recovered")
	check(conn.Close())

	// Out of reach.
	proof := open("proof", "")
	loseRows(t, proof)
	conn, err := proof.Conn(context.Background())
	check(err)
	loseStatement(t, conn)
	told("proof rows.proven")
	told("proof statement.reaped")
	check(conn.Close())

	// Given up for a limit, and spared by one.
	open("recycled", "&_leakguard_max_idle=20ms&_leakguard_check_interval=20ms&_leakguard_expire=close")
	told("recycled connection.recycled")
	refreshed := open("refreshed", "&_leakguard_max_access=1")
	_, err = refreshed.Exec("SELECT 1")
	check(err)
	told("refreshed connection.refreshed")
	kept := open("kept", "&mode=memory&_leakguard_max_idle=50ms&_leakguard_check_interval=20ms")
	told("kept connection.kept")
	check(kept.Ping())
	holdAll(t, open("held", ""))

	// In the way of others.
	block(t, open("blocked", "&_busy_timeout=150"))
	told("blocked connection.blocked")
	pin(t, open("logged", "&_leakguard_check_interval=20ms&_leakguard_wal_limit=1&_leakguard=observe"))
	told("logged transaction.suspect")

	// At rest, and too young for a leak.
	const rests = "&_leakguard_report_after=20ms"
	resting := open("resting", rests)
	tx = lateTransaction(t, resting)
	told("resting transaction.resting")
	check(tx.Rollback())
	rows = lateRows(t, resting)
	told("resting rows.resting")
	check(rows.Close())
	conn = forgetConn(t, resting)
	told("resting connection.resting")
	check(conn.Close())

	// Without a place.
	attached := open("attached", soon)
	attached.SetMaxOpenConns(2)
	_, err = leakguard.Attach(attached)
	check(err)
	forgetTransaction(t, attached)
	told("attached pool.lost")
	told("attached pool.lent")
	starved := open("starved", "")
	starved.SetMaxOpenConns(1)
	_, err = leakguard.Attach(starved, leakguard.StarvedAfter(10*time.Millisecond))
	check(err)
	conn, err = starved.Conn(context.Background())
	check(err)
	waiting := make(chan error, 1)
	go func() { waiting <- starved.Ping() }()
	told("starved pool.starved")
	check(conn.Close())
	check(<-waiting)

	// Too many pools of one file.
	first, second := openAgain(t, dir), openAgain(t, dir)
	told("again pool.suspect")
	check(second.Close())
	told("again pool.recovered")
	t.Cleanup(func() { check(first.Close()) })
}

func forgetTransaction(t *testing.T, db *sql.DB) {
	_, err := db.BeginTx(in(1), nil) // forgotten: transaction
	if err != nil {
		t.Fatal(err)
	}
}

func forgetRows(t *testing.T, db *sql.DB) {
	rows, err := db.QueryContext(in(2), "SELECT text FROM notes -- secret") // forgotten: rows
	if err != nil {
		t.Fatal(err)
	}
	hold(t, rows)
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
}

func forgetConn(t *testing.T, db *sql.DB) *sql.Conn {
	conn, err := db.Conn(in(3)) // forgotten: connection
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.PingContext(context.Background()); err != nil {
		t.Fatal(err)
	}
	return conn
}

func lateTransaction(t *testing.T, db *sql.DB) *sql.Tx {
	tx, err := db.BeginTx(in(4), nil) // forgotten: late transaction
	if err != nil {
		t.Fatal(err)
	}
	return tx
}

func lateRows(t *testing.T, db *sql.DB) *sql.Rows {
	rows, err := db.QueryContext(in(5), "SELECT text FROM notes") // forgotten: late rows
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	return rows
}

func prepareAgain(t *testing.T, db *sql.DB) (*sql.Conn, []*sql.Stmt) {
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var statements []*sql.Stmt
	for range 3 {
		s, err := conn.PrepareContext(in(6), "SELECT text FROM notes") // forgotten: statements
		if err != nil {
			t.Fatal(err)
		}
		statements = append(statements, s)
	}
	return conn, statements
}

//go:noinline
func loseRows(t *testing.T, db *sql.DB) {
	rows, err := db.QueryContext(in(7), "SELECT text FROM notes") // forgotten: proven rows
	if err != nil {
		t.Fatal(err)
	}
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
}

//go:noinline
func loseStatement(t *testing.T, conn *sql.Conn) {
	_, err := conn.PrepareContext(in(8), "SELECT text FROM notes") // forgotten: proven statement
	if err != nil {
		t.Fatal(err)
	}
}

// hold keeps what would otherwise be proven.
func hold(t *testing.T, v any) { t.Cleanup(func() { runtime.KeepAlive(v) }) }

// holdAll leaves one of each kind open, for the metrics of what is open now.
func holdAll(t *testing.T, db *sql.DB) {
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	stmt, err := tx.Prepare("SELECT text FROM notes")
	if err != nil {
		t.Fatal(err)
	}
	rows, err := stmt.Query()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Err(); err != nil {
			t.Error(err)
		}
		rows.Close()
		stmt.Close()
		tx.Rollback()
	})
}

// lineOf returns the line of a file that a plant is marked at.
func lineOf(t *testing.T, file, mark string) int {
	t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(source)) {
		n++
		if strings.HasSuffix(line, "// forgotten: "+mark+"\n") {
			return n
		}
	}
	t.Fatalf("no line is marked %q", mark)
	return 0
}
