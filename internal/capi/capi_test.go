//go:build cgo

package capi_test

import (
	"database/sql/driver"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

func TestMissing(t *testing.T) {
	if m := capi.Missing(); len(m) != 0 {
		t.Errorf("Missing() = %q, want none", m)
	}
}

// SQLiteConn and SQLiteStmt have the driver's names but not its fields' meaning.
type SQLiteConn struct{ db *int }
type SQLiteStmt struct{ s *int }

func TestOfWrongValues(t *testing.T) {
	closed := open(t, tempFile(t))
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	empty := new(sqlite3.SQLiteConn)
	for name, v := range map[string]any{
		"nil":               nil,
		"int":               1,
		"string":            "db",
		"func":              func() {},
		"pointer to int":    new(int),
		"struct":            struct{ db *int }{new(int)},
		"other struct":      &struct{ db *int }{new(int)},
		"same name":         &SQLiteConn{new(int)},
		"same name, stmt":   &SQLiteStmt{new(int)},
		"nil conn":          (*sqlite3.SQLiteConn)(nil),
		"conn never opened": empty,
		"closed conn":       closed,
		"pointer to ptr":    &empty,
		"nil stmt":          (*sqlite3.SQLiteStmt)(nil),
		"empty stmt":        new(sqlite3.SQLiteStmt),
	} {
		if capi.Of(v).OK() {
			t.Errorf("%s: Of is OK", name)
		}
		if capi.OfStmt(v).OK() {
			t.Errorf("%s: OfStmt is OK", name)
		}
	}

	c := open(t, tempFile(t))
	if !capi.Of(c).OK() || capi.Of(c) != capi.Of(c) {
		t.Error("Of an open connection is not OK, or not equal to itself")
	}
	if capi.OfStmt(c).OK() {
		t.Error("OfStmt takes a connection")
	}
	if capi.OfStmt(prepare(t, c, "-- nothing")).OK() {
		t.Error("OfStmt of a comment is OK")
	}
}

// A Conn knows the handle as it is, of a connection that is closed by somebody else too.
func TestConn(t *testing.T) {
	c := open(t, tempFile(t))
	k := capi.ConnOf(c)
	if k.DB() != capi.Of(c) || !k.DB().OK() {
		t.Fatal("the handle is not found")
	}
	w := capi.NewWait(k.DB(), capi.FileID{}, time.Minute)
	if !w.OK() {
		t.Fatal("no Wait")
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if k.DB().OK() {
		t.Error("the handle of a closed connection")
	}
	k.DB().Interrupt()
	w.Busy(k.DB(), time.Second)
	w.Default(k.DB())
	w.Progress(k.DB(), true)
	w.Retire(k.DB())
	w.Free()

	c = open(t, tempFile(t))
	k = capi.ConnOf(c)
	db := k.DB()
	k.Forget()
	if k.DB().OK() || c.Ping(t.Context()) != driver.ErrBadConn {
		t.Error("the driver does not take the connection for closed")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, ok := db.Autocommit(); !ok { // else the sanitizer says so
		t.Error("the connection was closed")
	}
	var zero capi.Conn
	zero.Forget()
	if zero.DB().OK() {
		t.Error("the zero Conn has a handle")
	}
}

// Behind Retire, SQLite does not look at the flag any more: its own busy handler is back
// with the timeout, and nothing stops a statement.
func TestRetire(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	w := capi.NewWait(d, capi.FileID{}, 123*time.Millisecond)
	w.Progress(d, true)
	if n := number(t, c, "PRAGMA busy_timeout"); n != 0 {
		t.Errorf("busy_timeout is %d behind Busy", n)
	}
	const long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 10000) SELECT count(*) FROM n"
	w.Stop(true)
	if rows, err := c.Query(long, nil); code(err) != sqlite3.ErrInterrupt {
		t.Errorf("stopped: %v", err)
		if err == nil {
			rows.Close()
		}
	}
	w.Retire(d)
	if n := number(t, c, long); n != 10000 {
		t.Errorf("count %d", n)
	}
	if n := number(t, c, "PRAGMA busy_timeout"); n != 123 {
		t.Errorf("busy_timeout is %d behind Retire", n)
	}

	// A handler that somebody else has set in its place stays.
	w.Busy(d, 123*time.Millisecond)
	w.Default(d)
	exec(t, c, "PRAGMA busy_timeout=7")
	w.Retire(d)
	if n := number(t, c, "PRAGMA busy_timeout"); n != 7 {
		t.Errorf("busy_timeout is %d, want the program's", n)
	}
	w.Free()
}

func TestZeroValues(t *testing.T) {
	var d capi.DB
	var s capi.Stmt
	d.Interrupt()
	d.TryReleaseMemory()
	s.Reset()
	if d.LastError() != 0 || s.ResetCode() != 0 || s.Columns() != 0 {
		t.Error("zero Stmt: ResetCode or Columns is not 0")
	}
	oks := map[string]bool{"DB.OK": d.OK(), "Stmt.OK": s.OK()}
	_, oks["Autocommit"] = d.Autocommit()
	_, oks["TxnState"] = d.TxnState()
	_, _, oks["OpenStatements"] = d.OpenStatements()
	_, oks["BusySQL"] = d.BusySQL()
	_, oks["TryMemory"] = d.TryMemory(false)
	_, oks["ReadOnly"] = s.ReadOnly()
	_, oks["Databases"] = d.Databases()
	_, oks["TryTxnState"] = d.TryTxnState("")
	_, oks["DataVersion"] = d.DataVersion("main")
	_, oks["TryCacheSize"] = d.TryCacheSize()
	_, _, oks["StatementEnd"] = capi.StatementEnd(d, "SELECT 1")
	for name, ok := range oks {
		if ok {
			t.Errorf("%s of the zero value is ok", name)
		}
	}
}

func TestAutocommit(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	want := func(want bool) {
		t.Helper()
		if on, ok := d.Autocommit(); on != want || !ok {
			t.Errorf("Autocommit() = %v, %v, want %v, true", on, ok, want)
		}
	}
	want(true)
	exec(t, c, "BEGIN")
	want(false)
	exec(t, c, "COMMIT")
	want(true)
}

func TestTxnState(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t(a)")
	d := capi.Of(c)
	want := func(want capi.TxnState) {
		t.Helper()
		if got, ok := d.TxnState(); got != want || !ok {
			t.Errorf("TxnState() = %v, %v, want %v, true", got, ok, want)
		}
	}
	want(capi.TxnNone)
	exec(t, c, "BEGIN")
	want(capi.TxnNone) // BEGIN is deferred
	exec(t, c, "SELECT * FROM t")
	want(capi.TxnRead)
	exec(t, c, "INSERT INTO t VALUES(1)")
	want(capi.TxnWrite)
	exec(t, c, "ROLLBACK")
	want(capi.TxnNone)

	// Autocommit does not see this one.
	rows := query(t, c, "SELECT * FROM sqlite_schema")
	want(capi.TxnRead)
	if on, _ := d.Autocommit(); !on {
		t.Error("an unfinished SELECT turned autocommit off")
	}
	rows.Close()
	want(capi.TxnNone)

	for s, want := range map[capi.TxnState]string{capi.TxnNone: "none", capi.TxnRead: "read", capi.TxnWrite: "write", 9: "unknown"} {
		if s.String() != want {
			t.Errorf("TxnState(%d).String() = %q, want %q", int(s), s, want)
		}
	}
}

func TestOpenStatements(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	want := func(wantOpen, wantBusy int, wantSQL string) {
		t.Helper()
		if open, busy, ok := d.OpenStatements(); open != wantOpen || busy != wantBusy || !ok {
			t.Errorf("OpenStatements() = %d, %d, %v, want %d, %d, true", open, busy, ok, wantOpen, wantBusy)
		}
		if sql, ok := d.BusySQL(); sql != wantSQL || !ok {
			t.Errorf("BusySQL() = %q, %v, want %q, true", sql, ok, wantSQL)
		}
	}
	const two = "SELECT 1 UNION ALL SELECT 2"
	want(0, 0, "")
	s := prepare(t, c, "SELECT 0")
	want(1, 0, "")
	rows := query(t, c, two)
	if err := rows.Next(make([]driver.Value, 1)); err != nil {
		t.Fatal(err)
	}
	want(2, 1, two)
	rows.Close()
	want(1, 0, "")
	s.Close()
	want(0, 0, "")
}

// FTS keeps statements of its own that nobody prepared through the driver.
func TestOpenStatementsOfFTS(t *testing.T) {
	c := open(t, tempFile(t))
	if _, err := c.Exec("CREATE VIRTUAL TABLE f USING fts3(a)", nil); err != nil {
		t.Skip(err)
	}
	exec(t, c, "INSERT INTO f VALUES('word')")
	if open, busy, ok := capi.Of(c).OpenStatements(); open == 0 || busy != 0 || !ok {
		t.Errorf("OpenStatements() = %d, %d, %v, want FTS's own, none busy", open, busy, ok)
	}
}

// The mutex is recursive, so a Go function that a statement calls may ask.
func TestAskInsideStatement(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	var busy int
	var sql string
	var state capi.TxnState
	register(t, c, "ask", func() int {
		_, busy, _ = d.OpenStatements()
		sql, _ = d.BusySQL()
		state, _ = d.TxnState()
		return 0
	})
	const q = "SELECT ask()"
	drain(t, query(t, c, q))
	if busy != 1 || sql != q || state != capi.TxnNone {
		t.Errorf("inside %q: busy %d, SQL %q, state %v", q, busy, sql, state)
	}
}

const endless = "WITH RECURSIVE n(i) AS (SELECT started() UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"

func TestInterrupt(t *testing.T) {
	c := open(t, tempFile(t))
	started := make(chan struct{})
	register(t, c, "started", sync.OnceValue(func() int { close(started); return 0 }))
	failed := make(chan error, 1)
	go func() {
		rows, err := c.Query(endless, nil)
		if err == nil {
			err = rows.Next(make([]driver.Value, 1))
			rows.Close()
		}
		failed <- err
	}()
	select {
	case <-started:
	case err := <-failed:
		t.Fatalf("the query ended early: %v", err)
	}
	capi.Of(c).Interrupt()
	if err := <-failed; code(err) != sqlite3.ErrInterrupt {
		t.Errorf("the interrupted query: %v, want code %d", err, sqlite3.ErrInterrupt)
	}
	drain(t, query(t, c, "SELECT 1")) // the flag is gone
}

func TestInterruptIdle(t *testing.T) {
	c := open(t, tempFile(t))
	s := prepare(t, c, "SELECT 1")
	capi.Of(c).Interrupt()
	rows, err := s.(*sqlite3.SQLiteStmt).Query(nil)
	if err != nil {
		t.Fatalf("the statement after an interrupt of nothing: %v", err)
	}
	drain(t, rows)
}

// As long as one statement is active, the flag also hits those that start later.
func TestInterruptSticks(t *testing.T) {
	c := open(t, tempFile(t))
	active := query(t, c, "SELECT 1 UNION ALL SELECT 2")
	capi.Of(c).Interrupt()
	if _, err := c.Exec("SELECT 1", nil); code(err) != sqlite3.ErrInterrupt {
		t.Errorf("a statement beside an interrupted one: %v, want code %d", err, sqlite3.ErrInterrupt)
	}
	active.Close()
	exec(t, c, "SELECT 1")
}

func TestReleaseMemory(t *testing.T) {
	c := open(t, tempFile(t))
	fill(t, c)
	d := capi.Of(c)
	full, ok := d.TryMemory(false)
	if !ok || full < 500<<10 {
		t.Fatalf("Memory() = %d, %v, want the table's 500 KiB at least", full, ok)
	}
	d.TryReleaseMemory()
	if left, ok := d.TryMemory(false); !ok || left > full/10 {
		t.Errorf("Memory() = %d, %v after ReleaseMemory, %d before", left, ok, full)
	}
}

func TestStmt(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t(a, b)")
	for sql, want := range map[string]struct {
		columns  int
		readOnly bool
	}{
		"SELECT a, b, 3 FROM t":                     {3, true},
		"INSERT INTO t VALUES(1, 2)":                {0, false},
		"INSERT INTO t VALUES(1, 2) RETURNING a, b": {2, false},
		"BEGIN":           {0, true},
		"BEGIN IMMEDIATE": {0, false},
	} {
		s := capi.OfStmt(prepare(t, c, sql))
		if n := s.Columns(); n != want.columns {
			t.Errorf("%s: Columns() = %d, want %d", sql, n, want.columns)
		}
		if ro, ok := s.ReadOnly(); ro != want.readOnly || !ok {
			t.Errorf("%s: ReadOnly() = %v, %v, want %v, true", sql, ro, ok, want.readOnly)
		}
	}
}

// The driver's Exec steps once. With RETURNING that is the first row, and the
// statement keeps its implicit transaction.
func TestResetReleasesWriteLock(t *testing.T) {
	file := tempFile(t)
	c, other := open(t, file), open(t, file)
	exec(t, c, "CREATE TABLE t(a)")
	s := prepare(t, c, "INSERT INTO t VALUES(1) RETURNING a")
	run(t, s)

	const insert = "INSERT INTO t VALUES(2)"
	if _, err := other.Exec(insert, nil); code(err) != sqlite3.ErrBusy {
		t.Fatalf("a second writer before Reset: %v, want code %d", err, sqlite3.ErrBusy)
	}
	d := capi.Of(c)
	if state, _ := d.TxnState(); state != capi.TxnWrite {
		t.Errorf("state before Reset: %v", state)
	}
	capi.OfStmt(s).Reset()
	if state, _ := d.TxnState(); state != capi.TxnNone {
		t.Errorf("state after Reset: %v", state)
	}
	exec(t, other, insert)
	if n := count(t, other); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

// Exec has reported success, the commit in Reset fails.
func TestResetCode(t *testing.T) {
	file := tempFile(t)
	t.Run("deferred foreign key", func(t *testing.T) {
		c := open(t, file)
		exec(t, c, "PRAGMA foreign_keys=ON; CREATE TABLE p(id INTEGER PRIMARY KEY); CREATE TABLE t(p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
		s := prepare(t, c, "INSERT INTO t VALUES(7) RETURNING p")
		run(t, s)
		if rc := capi.OfStmt(s).ResetCode(); rc&0xff != int(sqlite3.ErrConstraint) {
			t.Errorf("ResetCode() = %d, want %d", rc, sqlite3.ErrConstraint)
		}
		if n := count(t, c); n != 0 {
			t.Errorf("%d rows, want 0", n)
		}
		if err := s.Close(); err != nil {
			t.Errorf("Close after ResetCode: %v", err)
		}

		s = prepare(t, c, "INSERT INTO t VALUES(7) RETURNING p")
		run(t, s)
		if err := s.Close(); code(err) != sqlite3.ErrConstraint {
			t.Errorf("Close without a reset: %v, want code %d", err, sqlite3.ErrConstraint)
		}
	})
	t.Run("reader in the way", func(t *testing.T) {
		c, reader := open(t, file), open(t, file)
		rows := query(t, reader, "SELECT * FROM sqlite_schema")
		defer rows.Close()
		s := prepare(t, c, "INSERT INTO t VALUES(NULL) RETURNING p")
		run(t, s)
		if rc := capi.OfStmt(s).ResetCode(); rc&0xff != int(sqlite3.ErrBusy) {
			t.Errorf("ResetCode() = %d, want %d", rc, sqlite3.ErrBusy)
		}
	})
	t.Run("success", func(t *testing.T) {
		c := open(t, file)
		s := prepare(t, c, "INSERT INTO t VALUES(NULL) RETURNING p")
		run(t, s)
		if rc := capi.OfStmt(s).ResetCode(); rc != 0 {
			t.Errorf("ResetCode() = %d, want 0", rc)
		}
		if n := count(t, c); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

// Reset commits, and the commit calls back into Go.
func TestResetRunsCommitHook(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t(a)")
	commits := 0
	c.RegisterCommitHook(func() int { commits++; return 0 })
	s := prepare(t, c, "INSERT INTO t VALUES(1) RETURNING a")
	run(t, s)
	if commits != 0 {
		t.Fatal("committed before Reset")
	}
	capi.OfStmt(s).Reset()
	if commits != 1 {
		t.Errorf("%d commits in Reset, want 1", commits)
	}
}

func TestStatementEnd(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t(a)")
	d := capi.Of(c)
	const trigger = "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t WHERE a=';'; SELECT 1; END;"
	for _, test := range []struct {
		first, rest string
		params      int
	}{
		{"SELECT 1", "", 0},
		{"SELECT 1;", "", 0},
		{"SELECT 1;", " SELECT 2", 0},
		{"SELECT ';', \";\" FROM (SELECT 1 AS \";\");", "SELECT 2;", 0},
		{"-- one; two\nSELECT /* ; */ 1;", " -- three", 0},
		{";; SELECT 1;", ";", 0},
		{"-- only; a comment", "", 0},
		{" \n", "", 0},
		{trigger, " SELECT 2", 0},
		{"INSERT INTO t VALUES(?);", "SELECT ?, ?", 1},
		{"SELECT ?, :a, @b, $c, :a;", "", 4},
		{"SELECT ?5", "", 5},              // the highest number, not how many
		{"SELECT 'ä€';", "SELECT 2", 0},   // bytes, not runes
		{"SELECT 1", "\x00; SELECT 2", 0}, // SQLite stops at a NUL
		{"SELECT 1;", strings.Repeat("x", 1<<20), 0},
	} {
		sql := test.first + test.rest
		end, params, ok := capi.StatementEnd(d, sql)
		if end != len(test.first) || params != test.params || !ok {
			t.Errorf("StatementEnd(%.60q) = %d, %d, %v, want %d, %d, true", sql, end, params, ok, len(test.first), test.params)
		}
	}
	for _, sql := range []string{"", "SELEC 1", "SELECT 1 FROM", "SELECT * FROM missing; SELECT 1", "SELECT 'open", "\x00", "\x00SELECT 1"} {
		if end, params, ok := capi.StatementEnd(d, sql); end != 0 || params != 0 || ok {
			t.Errorf("StatementEnd(%q) = %d, %d, %v, want not ok", sql, end, params, ok)
		}
	}
	if open, _, _ := d.OpenStatements(); open != 0 {
		t.Errorf("%d statements left open", open)
	}
	exec(t, c, trigger) // not run yet: only compiled
}

// Compiling runs a Go authorizer, which may grow the goroutine's stack.
func TestStatementEndCallsAuthorizer(t *testing.T) {
	c := open(t, tempFile(t))
	depth := 0
	c.RegisterAuthorizer(func(int, string, string, string) int {
		depth += grow(2000)
		return sqlite3.SQLITE_OK
	})
	sql := strings.Repeat(" ", len(t.Name())) + "SELECT 1;" // not a constant
	if end, _, ok := capi.StatementEnd(capi.Of(c), sql+" SELECT 2"); end != len(sql) || !ok {
		t.Errorf("StatementEnd() = %d, %v, want %d, true", end, ok, len(sql))
	}
	if depth == 0 {
		t.Error("the authorizer was not called")
	}
}

func grow(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + grow(n-1)
}

// Many pragmas act when they are compiled.
func TestStatementEndRunsPragma(t *testing.T) {
	c := open(t, tempFile(t))
	if _, _, ok := capi.StatementEnd(capi.Of(c), "PRAGMA cache_size=77"); !ok {
		t.Fatal("not ok")
	}
	if n := number(t, c, "PRAGMA cache_size"); n != 77 {
		t.Errorf("cache_size = %d, want 77", n)
	}
}

func TestAllocs(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	s := capi.OfStmt(prepare(t, c, "SELECT 1"))
	for name, f := range map[string]func(){
		"Interrupt":        func() { d.Interrupt() },
		"Autocommit":       func() { d.Autocommit() },
		"TxnState":         func() { d.TxnState() },
		"OpenStatements":   func() { d.OpenStatements() },
		"BusySQL":          func() { d.BusySQL() },
		"TryMemory":        func() { d.TryMemory(false) },
		"TryReleaseMemory": func() { d.TryReleaseMemory() },
		"Columns":          func() { s.Columns() },
		"ReadOnly":         func() { s.ReadOnly() },
		"Reset":            func() { s.Reset() },
		"StatementEnd":     func() { capi.StatementEnd(d, "SELECT 1") },
	} {
		if n := testing.AllocsPerRun(10, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// Other goroutines ask while statements come and go.
func TestConcurrent(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	done := make(chan struct{})
	var askers sync.WaitGroup
	for range 2 {
		askers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				d.OpenStatements()
				d.BusySQL()
				d.TxnState()
				d.Autocommit()
			}
		})
	}
	for range 500 {
		s := prepare(t, c, "SELECT 1 UNION ALL SELECT 2")
		drain(t, query(t, c, "SELECT 1"))
		s.Close()
	}
	close(done)
	askers.Wait()
}

func BenchmarkInterrupt(b *testing.B) {
	d := capi.Of(open(b, tempFile(b)))
	b.ReportAllocs()
	for b.Loop() {
		d.Interrupt()
	}
}

func BenchmarkAutocommit(b *testing.B) {
	d := capi.Of(open(b, tempFile(b)))
	b.ReportAllocs()
	for b.Loop() {
		d.Autocommit()
	}
}

func BenchmarkTxnState(b *testing.B) {
	d := capi.Of(open(b, tempFile(b)))
	b.ReportAllocs()
	for b.Loop() {
		d.TxnState()
	}
}

func BenchmarkOpenStatements(b *testing.B) {
	c := open(b, tempFile(b))
	for range 10 {
		prepare(b, c, "SELECT 1")
	}
	d := capi.Of(c)
	b.ReportAllocs()
	for b.Loop() {
		d.OpenStatements()
	}
}

func BenchmarkOf(b *testing.B) {
	c := open(b, tempFile(b))
	b.ReportAllocs()
	for b.Loop() {
		capi.Of(c)
	}
}

func tempFile(t testing.TB) string { return filepath.Join(t.TempDir(), "test.db") }

func open(t testing.TB, file string) *sqlite3.SQLiteConn {
	t.Helper()
	c, err := new(sqlite3.SQLiteDriver).Open("file:" + file + "?_busy_timeout=0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*sqlite3.SQLiteConn)
}

func register(t testing.TB, c *sqlite3.SQLiteConn, name string, f func() int) {
	t.Helper()
	if err := c.RegisterFunc(name, f, false); err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, c *sqlite3.SQLiteConn, sql string) {
	t.Helper()
	if _, err := c.Exec(sql, nil); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func prepare(t testing.TB, c *sqlite3.SQLiteConn, sql string) driver.Stmt {
	t.Helper()
	s, err := c.Prepare(sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func run(t testing.TB, s driver.Stmt) {
	t.Helper()
	if _, err := s.(*sqlite3.SQLiteStmt).Exec(nil); err != nil {
		t.Fatal(err)
	}
}

func query(t testing.TB, c *sqlite3.SQLiteConn, sql string) driver.Rows {
	t.Helper()
	rows, err := c.Query(sql, nil)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	t.Cleanup(func() { rows.Close() })
	return rows
}

func drain(t testing.TB, rows driver.Rows) {
	t.Helper()
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(row); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func number(t testing.TB, c *sqlite3.SQLiteConn, sql string) int64 {
	t.Helper()
	rows := query(t, c, sql)
	defer rows.Close()
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return row[0].(int64)
}

func count(t testing.TB, c *sqlite3.SQLiteConn) int64 {
	t.Helper()
	return number(t, c, "SELECT count(*) FROM t")
}

// fill writes a table of 1 MB, whose pages stay in the cache.
func fill(t testing.TB, c *sqlite3.SQLiteConn) {
	t.Helper()
	exec(t, c, "CREATE TABLE t(a)")
	exec(t, c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 1000) INSERT INTO t SELECT randomblob(1000) FROM n")
}

func code(err error) sqlite3.ErrNo {
	var e sqlite3.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}
