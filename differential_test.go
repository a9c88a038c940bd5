//go:build cgo

package leakguard_test

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestDifferential runs programs over go-sqlite3 and over the guard with its
// default limits, and compares everything that a program can observe: values,
// errors down to their dynamic type, column facts, results, the pool's counts,
// the files that are left and what is in them.
//
// Where the two are meant to differ, see TestDifferentialDeliberate.
func TestDifferential(t *testing.T) {
	waits := diffWaitsForUnlock(t)
	leaks := diffLeaks(t)
	t.Run("scenarios", func(t *testing.T) { // returns when the parallel ones are over
		names := make(map[string]bool)
		for _, s := range diffScenarios {
			if names[s.name] {
				t.Errorf("two scenarios are called %q", s.name)
			}
			names[s.name] = true
			for _, storage := range s.storages() {
				if s.refused && waits {
					continue
				}
				t.Run(s.name+"/"+storage, func(t *testing.T) {
					t.Parallel()
					raw, ours := diffRun(t, diffRaw, &s, storage), diffRun(t, diffOurs, &s, storage)
					for _, want := range s.sees {
						if all := strings.Join(raw, "\n"); !strings.Contains(all, want) {
							t.Errorf("the scenario does not get to see %q:\n%s", want, all)
						}
					}
					if d := diffOf(raw, ours); d != "" {
						t.Errorf("the transcripts differ:\n%s", d)
					}
				})
			}
		}
		if n := len(diffScenarios); n < 60 {
			t.Errorf("%d scenarios, want 60 or more", n)
		}
	})
	leaks()
}

// diffWaitsForUnlock reports whether SQLite is built for
// https://www.sqlite.org/unlock_notify.html.
func diffWaitsForUnlock(t *testing.T) (waits bool) {
	db, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow("SELECT sqlite_compileoption_used('ENABLE_UNLOCK_NOTIFY')").Scan(&waits); err != nil {
		t.Fatal(err)
	}
	return waits
}

// TestDifferentialRecorder makes sure that the recorder does not see equal
// where there is a difference.
func TestDifferentialRecorder(t *testing.T) {
	base := diffScenario{name: "base", on: "file", run: func(r *diffRec, db *sql.DB) {
		r.exec(db, "CREATE TABLE t (a INTEGER)")
		r.query(db, "SELECT a FROM t")
	}}
	want := diffRun(t, diffRaw, &base, "file")
	if d := diffOf(want, diffRun(t, diffRaw, &base, "file")); d != "" {
		t.Fatalf("one scenario, one driver, two transcripts:\n%s", d)
	}
	for name, run := range map[string]func(r *diffRec, db *sql.DB){
		"value": func(r *diffRec, db *sql.DB) {
			r.exec(db, "CREATE TABLE t (a INTEGER)")
			r.must(db, "INSERT INTO t VALUES (1)")
			r.query(db, "SELECT a FROM t")
		},
		"column name": func(r *diffRec, db *sql.DB) {
			r.exec(db, "CREATE TABLE t (a INTEGER)")
			r.must(db, "ALTER TABLE t RENAME COLUMN a TO b")
			r.query(db, "SELECT * FROM t")
		},
		"column type": func(r *diffRec, db *sql.DB) {
			r.must(db, "CREATE TABLE t (a TEXT)")
			r.exec(db, "CREATE TABLE IF NOT EXISTS t (a INTEGER)")
			r.query(db, "SELECT a FROM t")
		},
		"result": func(r *diffRec, db *sql.DB) {
			r.must(db, "CREATE TABLE x (a)", "INSERT INTO x VALUES (1)", "DROP TABLE x")
			r.exec(db, "CREATE TABLE t (a INTEGER)")
			r.query(db, "SELECT a FROM t")
		},
		"file": func(r *diffRec, db *sql.DB) {
			base.run(r, db)
			r.must(db, "INSERT INTO t VALUES (1)")
		},
		"pool": func(r *diffRec, db *sql.DB) {
			base.run(r, db)
			db.SetMaxIdleConns(-1)
		},
		"error": func(r *diffRec, db *sql.DB) {
			r.must(db, "CREATE TABLE t (b INTEGER)")
			base.run(r, db)
		},
	} {
		changed := diffScenario{name: "changed", on: "file", run: run}
		if diffOf(want, diffRun(t, diffRaw, &changed, "file")) == "" {
			t.Errorf("%s: not seen", name)
		}
	}
	const text = "same text"
	seen := make(map[string]bool)
	for _, err := range []error{
		errors.New(text), fmt.Errorf("%w", errors.New(text)), diffError(text),
		sqlite3.Error{Code: 5}, sqlite3.Error{Code: 5, ExtendedCode: 517}, &sqlite3.Error{Code: 5},
		fmt.Errorf("%w", sqlite3.Error{Code: 5}), context.Canceled, fmt.Errorf("context canceled"),
	} {
		if s := diffErr(err); seen[s] {
			t.Errorf("%#v looks like another error: %s", err, s)
		} else {
			seen[s] = true
		}
	}
}

type diffError string

func (e diffError) Error() string { return string(e) }

// diffScenario is one program.
type diffScenario struct {
	name string
	// on lists where its database is: file (rollback journal), wal, memory (one
	// connection) and shared (a shared cache in memory). Empty: file and wal.
	on   string
	dsn  string // more parameters
	one  bool   // one connection at most
	hook func(r *diffRec, c *sqlite3.SQLiteConn) error
	run  func(r *diffRec, db *sql.DB)
	// sees is part of go-sqlite3's transcript, so that the scenario does get to
	// where its name says.
	sees []string
	// refused: it meets SQLITE_LOCKED from its own goroutine. With the build tag
	// sqlite_unlock_notify go-sqlite3 waits there for ever.
	refused bool
	// brief leaves the end of all pools out of the transcript.
	brief bool
}

func (s *diffScenario) storages() []string {
	if s.on == "" {
		return []string{"file", "wal"}
	}
	return strings.Fields(s.on)
}

// diffSide is one of the drivers.
type diffSide struct {
	name string
	conn func(driverConn any) *sqlite3.SQLiteConn
	// hooked opens a pool with a ConnectHook.
	hooked func(dsn string, hook func(*sqlite3.SQLiteConn) error) (*sql.DB, error)
}

var diffRaw = &diffSide{
	name: "sqlite3",
	conn: func(driverConn any) *sqlite3.SQLiteConn { return driverConn.(*sqlite3.SQLiteConn) },
	hooked: func(dsn string, hook func(*sqlite3.SQLiteConn) error) (*sql.DB, error) {
		return sql.OpenDB(diffConnector{dsn, &sqlite3.SQLiteDriver{ConnectHook: hook}}), nil
	},
}

var diffOurs = &diffSide{
	name: "sqlite-leakguard",
	conn: func(driverConn any) *sqlite3.SQLiteConn {
		c, ok := leakguard.SQLiteConn(driverConn)
		if !ok {
			panic(fmt.Sprintf("no go-sqlite3 behind %T", driverConn))
		}
		return c
	},
	hooked: func(dsn string, hook func(*sqlite3.SQLiteConn) error) (*sql.DB, error) {
		cfg, err := leakguard.ParseDSN(dsn)
		if err != nil {
			return nil, err
		}
		cfg.SQLite = &sqlite3.SQLiteDriver{ConnectHook: hook}
		c, err := leakguard.NewConnector(cfg)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(c), nil
	},
}

// diffConnector is what database/sql makes of a driver without connectors.
type diffConnector struct {
	dsn    string
	driver driver.Driver
}

func (c diffConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c diffConnector) Driver() driver.Driver                        { return c.driver }

// diffRun returns the transcript of a scenario over one driver.
func diffRun(t *testing.T, side *diffSide, s *diffScenario, storage string) []string {
	t.Helper()
	r := &diffRec{t: t, side: side, dir: t.TempDir()}
	switch storage {
	case "file":
		r.dsn = "file:" + filepath.Join(r.dir, "differential.db") + "?_sync=OFF"
	case "wal":
		r.dsn = "file:" + filepath.Join(r.dir, "differential.db") + "?_sync=OFF&_journal_mode=WAL"
	case "memory":
		r.dsn = "file::memory:?_sync=OFF"
	case "shared":
		r.dsn = fmt.Sprintf("file:differential-%d?mode=memory&cache=shared", diffShared.Add(1))
	default:
		t.Fatalf("no storage %q", storage)
	}
	if s.dsn != "" {
		r.dsn += "&" + s.dsn
	}
	if s.hook != nil {
		r.hook = func(c *sqlite3.SQLiteConn) error { return s.hook(r, c) }
	}
	db, err := r.sqlOpen(r.dsn)
	if err != nil {
		t.Fatalf("%s: %v", side.name, err)
	}
	if s.one || storage == "memory" {
		db.SetMaxOpenConns(1)
	}
	defer db.Close()
	over := false
	defer func() {
		if !over { // a Fatal, which is about this side alone
			t.Logf("%s: the transcript up to here:\n%s", side.name, strings.Join(r.log, "\n"))
		}
	}()
	s.run(r, db)
	over = true
	if s.brief {
		for _, also := range r.opened {
			also.Close()
		}
		return r.log
	}
	for _, also := range slices.Backward(r.opened) {
		r.err("close another DB", also.Close())
	}
	r.stats(db)
	r.err("close the DB", db.Close())
	r.stats(db)
	r.files()
	return r.log
}

var diffShared atomic.Int64

// diffOf returns the first difference of two transcripts, "" if there is none.
func diffOf(raw, ours []string) string {
	for i := range max(len(raw), len(ours)) {
		line := func(s []string) string {
			if i < len(s) {
				return s[i]
			}
			return "(nothing more)"
		}
		if line(raw) != line(ours) {
			var b strings.Builder
			for _, same := range raw[max(0, i-12):min(i, len(raw))] {
				fmt.Fprintf(&b, "            %s\n", same)
			}
			fmt.Fprintf(&b, "go-sqlite3: %s\nguard:      %s", line(raw), line(ours))
			return b.String()
		}
	}
	return ""
}

// diffLeaks watches the guard. What it returns fails the test if the guard
// found a leak in a scenario's pool or still has something of one.
func diffLeaks(t *testing.T) (check func()) {
	var mu sync.Mutex
	var found []string
	cancel := leakguard.OnLeak(func(l tracker.Leak) {
		if strings.HasPrefix(l.Pool, "differential") {
			mu.Lock()
			defer mu.Unlock()
			found = append(found, l.String())
		}
	})
	before := make(map[string]bool) // of a test that ended early
	for _, c := range leakguard.Stats().ActiveConnectionDetails {
		before[c.ConnectionID] = true
	}
	return func() {
		cancel()
		if t.Failed() {
			return // and so may have ended early
		}
		mu.Lock()
		defer mu.Unlock()
		for _, l := range found {
			t.Errorf("the guard took this for a leak: %s", l)
		}
		for _, c := range leakguard.Stats().ActiveConnectionDetails {
			if strings.HasPrefix(c.Pool, "differential") && !before[c.ConnectionID] {
				t.Errorf("the guard still has a connection of a closed pool: %+v", c)
			}
		}
	}
}

// diffRec runs statements and takes down what it sees.
type diffRec struct {
	t      *testing.T
	side   *diffSide
	dir    string
	dsn    string // of the scenario's database
	hook   func(*sqlite3.SQLiteConn) error
	opened []*sql.DB
	log    []string

	// stop is what the SQL function stop() calls, see diffStop.
	stop func()
}

// diffQuerier is a DB, a Conn or a Tx.
type diffQuerier interface {
	ExecContext(context.Context, string, ...any) (sql.Result, error)
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
	QueryRowContext(context.Context, string, ...any) *sql.Row
	PrepareContext(context.Context, string) (*sql.Stmt, error)
}

var (
	_ diffQuerier = (*sql.DB)(nil)
	_ diffQuerier = (*sql.Conn)(nil)
	_ diffQuerier = (*sql.Tx)(nil)
)

var bg = context.Background()

func (r *diffRec) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	line = strings.ReplaceAll(line, r.dir, "DIR")
	r.log = append(r.log, diffLine.Replace(line))
}

var diffLine = strings.NewReplacer("\n", `\n`, "\x00", `\0`)

func (r *diffRec) err(what string, err error) { r.note("%s: %s", what, diffErr(err)) }

// diffErr tells all that a program can find out about an error.
func diffErr(err error) string {
	if err == nil {
		return "ok"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "error %T %q", err, err)
	for _, s := range diffSentinels {
		if errors.Is(err, s.err) {
			fmt.Fprintf(&b, " is %s", s.name)
			if err == s.err {
				b.WriteString(" itself")
			}
		}
	}
	direct, ok := err.(sqlite3.Error)
	if ok {
		fmt.Fprintf(&b, " code %d/%d/%d", direct.Code, direct.ExtendedCode, direct.SystemErrno)
	}
	var as sqlite3.Error
	if errors.As(err, &as) && (!ok || as != direct) {
		fmt.Fprintf(&b, " as code %d/%d/%d", as.Code, as.ExtendedCode, as.SystemErrno)
	}
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		fmt.Fprintf(&b, " wraps %T", inner)
	}
	return b.String()
}

var diffSentinels = []struct {
	name string
	err  error
}{
	{"context.Canceled", context.Canceled},
	{"context.DeadlineExceeded", context.DeadlineExceeded},
	{"driver.ErrBadConn", driver.ErrBadConn},
	{"driver.ErrSkip", driver.ErrSkip},
	{"driver.ErrRemoveArgument", driver.ErrRemoveArgument},
	{"sql.ErrNoRows", sql.ErrNoRows},
	{"sql.ErrTxDone", sql.ErrTxDone},
	{"sql.ErrConnDone", sql.ErrConnDone},
	{"io.EOF", io.EOF},
	{"leakguard.ErrReaped", leakguard.ErrReaped},
	{"leakguard.ErrTxAborted", leakguard.ErrTxAborted},
	{"errDiff", errDiff},
}

// errDiff is what scenarios make fail with.
var errDiff = errors.New("on purpose")

func diffArgs(args []any) string {
	if len(args) == 0 {
		return ""
	}
	s := make([]string, len(args))
	for i, a := range args {
		if n, ok := a.(sql.NamedArg); ok {
			s[i] = n.Name + "=" + diffValue(n.Value)
		} else {
			s[i] = diffValue(a)
		}
	}
	return " [" + strings.Join(s, ", ") + "]"
}

func diffValue(v any) string {
	switch v := v.(type) {
	case nil:
		return "NULL"
	case []byte:
		if v == nil {
			return "[]byte(nil)"
		}
		if len(v) > 256 {
			return fmt.Sprintf("blob of %d bytes, hash %x", len(v), sha256.Sum256(v))
		}
		return fmt.Sprintf("blob %x", v)
	case string:
		if len(v) > 256 {
			return fmt.Sprintf("text of %d bytes, hash %x", len(v), sha256.Sum256([]byte(v)))
		}
		return fmt.Sprintf("text %q", v)
	case time.Time:
		return fmt.Sprintf("time %s in %s", v.Format(time.RFC3339Nano), v.Location())
	}
	if reflect.TypeOf(v).Kind() == reflect.Chan || reflect.TypeOf(v).Kind() == reflect.Pointer {
		return fmt.Sprintf("%T", v)
	}
	return fmt.Sprintf("%T %+v", v, v)
}

// must runs texts that the scenario needs; they are not in the transcript.
func (r *diffRec) must(q diffQuerier, texts ...string) {
	r.t.Helper()
	for _, text := range texts {
		if _, err := q.ExecContext(bg, text); err != nil {
			r.t.Fatalf("%s: %s: %v", r.side.name, text, err)
		}
	}
}

func (r *diffRec) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%s: %v", r.side.name, err)
	}
}

func (r *diffRec) result(what string, res sql.Result, err error) {
	if err != nil {
		r.err(what, err)
		if res != nil {
			r.note("  and a result %T", res)
		}
		return
	}
	id, idErr := res.LastInsertId()
	n, nErr := res.RowsAffected()
	r.note("%s: id %d (%s), %d affected (%s)", what, id, diffErr(idErr), n, diffErr(nErr))
}

func (r *diffRec) exec(q diffQuerier, text string, args ...any) {
	r.execCtx(bg, q, text, args...)
}

func (r *diffRec) execCtx(ctx context.Context, q diffQuerier, text string, args ...any) {
	res, err := q.ExecContext(ctx, text, args...)
	r.result("exec "+text+diffArgs(args), res, err)
}

// query takes all rows of a query down, and the facts about its columns.
func (r *diffRec) query(q diffQuerier, text string, args ...any) {
	r.queryCtx(bg, q, text, args...)
}

func (r *diffRec) queryCtx(ctx context.Context, q diffQuerier, text string, args ...any) {
	rows, err := q.QueryContext(ctx, text, args...)
	r.err("query "+text+diffArgs(args), err)
	if err == nil {
		r.all(rows)
	}
}

// rows opens rows, which the scenario needs.
func (r *diffRec) rows(q diffQuerier, text string, args ...any) *sql.Rows {
	r.t.Helper()
	rows, err := q.QueryContext(bg, text, args...)
	if err != nil {
		r.t.Fatalf("%s: %s: %v", r.side.name, text, err)
	}
	return rows
}

func (r *diffRec) all(rows *sql.Rows) {
	r.columns(rows)
	for n := 1; r.next(rows); n++ {
		if n == 1 { // asked again now that there is a row
			again := len(r.log)
			r.columns(rows)
			if before := r.log[:again-1]; slices.Equal(r.log[again:], before[max(0, len(before)-len(r.log)+again):]) {
				r.log = r.log[:again]
			}
		}
	}
	r.over(rows)
}

// over takes down how rows end.
func (r *diffRec) over(rows *sql.Rows) {
	r.err("  rows end", rows.Err())
	r.note("  another result set: %t", rows.NextResultSet())
	r.err("  rows close", rows.Close())
	r.err("  and then", rows.Err())
}

// next reads one row.
func (r *diffRec) next(rows *sql.Rows) bool {
	if !rows.Next() {
		return false
	}
	columns, err := rows.Columns()
	if err != nil {
		r.err("  columns", err)
		return false
	}
	values := make([]any, len(columns))
	dest := make([]any, len(columns))
	for i := range values {
		dest[i] = &values[i]
	}
	if err := rows.Scan(dest...); err != nil {
		r.err("  scan", err)
		return true
	}
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = diffValue(v)
	}
	r.note("  row %s", strings.Join(s, ", "))
	return true
}

func (r *diffRec) columns(rows *sql.Rows) {
	columns, err := rows.Columns()
	r.note("  columns %q (%s)", columns, diffErr(err))
	types, err := rows.ColumnTypes()
	if err != nil {
		r.err("  types", err)
		return
	}
	for _, c := range types {
		length, hasLength := c.Length()
		precision, scale, hasDecimal := c.DecimalSize()
		nullable, hasNullable := c.Nullable()
		r.note("  %s: %q, length %d %t, decimal %d,%d %t, nullable %t %t, scan %v", c.Name(), c.DatabaseTypeName(),
			length, hasLength, precision, scale, hasDecimal, nullable, hasNullable, c.ScanType())
	}
}

// scan reads one value with QueryRow.
func (r *diffRec) scan(q diffQuerier, text string, args ...any) {
	r.scanCtx(bg, q, text, args...)
}

func (r *diffRec) scanCtx(ctx context.Context, q diffQuerier, text string, args ...any) {
	row := q.QueryRowContext(ctx, text, args...)
	first := row.Err()
	var v any
	if err := row.Scan(&v); err != nil || first != nil {
		r.note("row %s: %s, then %s", text+diffArgs(args), diffErr(first), diffErr(err))
		return
	}
	r.note("row %s: %s", text+diffArgs(args), diffValue(v))
}

// prepare prepares a statement that the scenario needs.
func (r *diffRec) prepare(q diffQuerier, text string) *sql.Stmt {
	r.t.Helper()
	s, err := q.PrepareContext(bg, text)
	if err != nil {
		r.t.Fatalf("%s: prepare %s: %v", r.side.name, text, err)
	}
	return s
}

func (r *diffRec) prepareFails(q diffQuerier, text string) {
	s, err := q.PrepareContext(bg, text)
	r.err("prepare "+text, err)
	if err == nil {
		s.Close()
	}
}

func (r *diffRec) stmtExec(s *sql.Stmt, args ...any) {
	res, err := s.ExecContext(bg, args...)
	r.result("exec prepared"+diffArgs(args), res, err)
}

func (r *diffRec) stmtQuery(s *sql.Stmt, args ...any) {
	rows, err := s.QueryContext(bg, args...)
	r.err("query prepared"+diffArgs(args), err)
	if err == nil {
		r.all(rows)
	}
}

// tx begins a transaction that the scenario needs.
func (r *diffRec) tx(b interface {
	BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
}) *sql.Tx {
	r.t.Helper()
	tx, err := b.BeginTx(bg, nil)
	r.check(err)
	return tx
}

// begin begins a transaction that need not come about.
func (r *diffRec) begin(ctx context.Context, b interface {
	BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
}) {
	tx, err := b.BeginTx(ctx, nil)
	r.err("begin", err)
	if err == nil {
		r.err("rollback", tx.Rollback())
	}
}

// connection takes a connection that the scenario needs.
func (r *diffRec) connection(db *sql.DB) *sql.Conn {
	r.t.Helper()
	c, err := db.Conn(bg)
	r.check(err)
	return c
}

// raw calls f with go-sqlite3's connection.
func (r *diffRec) raw(c *sql.Conn, f func(*sqlite3.SQLiteConn) error) error {
	return c.Raw(func(driverConn any) error { return f(r.side.conn(driverConn)) })
}

func (r *diffRec) stats(db *sql.DB) {
	s := db.Stats()
	r.note("pool: %d of %d open, %d in use, %d idle, %d waited, closed: %d idle, %d idle time, %d lifetime",
		s.OpenConnections, s.MaxOpenConnections, s.InUse, s.Idle, s.WaitCount, s.MaxIdleClosed, s.MaxIdleTimeClosed, s.MaxLifetimeClosed)
}

// sqlOpen opens a pool of the driver that is under test.
func (r *diffRec) sqlOpen(dsn string) (*sql.DB, error) {
	if r.hook != nil {
		return r.side.hooked(dsn, r.hook)
	}
	return sql.Open(r.side.name, dsn)
}

// open opens another pool of the scenario's database.
func (r *diffRec) open(params string) *sql.DB {
	r.t.Helper()
	dsn := r.dsn
	if params != "" {
		dsn += "&" + params
	}
	db, err := r.sqlOpen(dsn)
	r.check(err)
	r.t.Cleanup(func() { db.Close() })
	r.opened = append(r.opened, db)
	return db
}

// path is a file in the scenario's directory.
func (r *diffRec) path(name string) string { return filepath.Join(r.dir, name) }

// until waits for what happens on another goroutine.
func (r *diffRec) until(what string, ok func() bool) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: in vain waited until %s", r.side.name, what)
		}
	}
}

// files lists what the pools left behind and dumps the databases.
func (r *diffRec) files() {
	entries, err := os.ReadDir(r.dir)
	r.check(err)
	for _, e := range entries {
		r.note("left: %s", e.Name())
		if filepath.Ext(e.Name()) != ".db" || e.IsDir() {
			continue
		}
		db, err := sql.Open(diffRaw.name, "file:"+r.path(e.Name())+"?mode=ro")
		r.check(err)
		rows, err := db.Query("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
		if err != nil {
			r.err("  dump", err)
			db.Close()
			continue
		}
		var tables []string
		for rows.Next() {
			var name string
			r.check(rows.Scan(&name))
			tables = append(tables, name)
		}
		r.check(rows.Err())
		r.query(db, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name, type")
		for _, name := range tables {
			r.query(db, fmt.Sprintf("SELECT * FROM %q ORDER BY 1", name))
		}
		r.check(db.Close())
	}
}

// diffStop is a hook that registers the SQL function stop(x): it calls r.stop
// and returns x. It fails in the end, so that a test that is in vain does, too.
func diffStop(r *diffRec, c *sqlite3.SQLiteConn) error {
	deadline := time.Now().Add(20 * time.Second)
	return c.RegisterFunc("stop", func(x int64) (int64, error) {
		if r.stop != nil {
			r.stop()
		}
		if time.Now().After(deadline) {
			return 0, errors.New("nobody stops this")
		}
		return x, nil
	}, false)
}

// diffDeadline is a context whose deadline comes when the program says so.
type diffDeadline struct {
	context.Context
	over  chan struct{}
	reach func()
}

func newDiffDeadline() *diffDeadline {
	over := make(chan struct{})
	return &diffDeadline{bg, over, sync.OnceFunc(func() { close(over) })}
}

func (d *diffDeadline) Done() <-chan struct{} { return d.over }

func (d *diffDeadline) Err() error {
	select {
	case <-d.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// diffFail is a hook that registers the SQL function fail(x, at): it fails at at
// and returns x elsewhere.
func diffFail(_ *diffRec, c *sqlite3.SQLiteConn) error {
	return c.RegisterFunc("fail", func(x, at int64) (int64, error) {
		if x == at {
			return 0, errDiff
		}
		return x, nil
	}, true)
}

// diffForever is a query that runs until it is interrupted, and calls stop().
const diffForever = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + stop(1) FROM c) SELECT count(*) FROM c"

// diffEndless returns rows until it is interrupted, or nearly so.
const diffEndless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 20000000) SELECT x FROM c"

// diffScenarios are the programs. What they share: a table t (a INTEGER PRIMARY
// KEY, b TEXT) where they need one.
var diffScenarios = slices.Concat(
	diffStatements, diffTexts, diffRepeated, diffDirect, diffErrors, diffLocks, diffContexts, diffRows,
	diffTransactions, diffTextTransactions, diffSchema, diffConns, diffDSNs, diffPools,
)

const diffTable = "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)"

// diffFilled is t with three rows.
func diffFilled(r *diffRec, q diffQuerier) {
	r.t.Helper()
	r.must(q, diffTable, "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, NULL)")
}

type (
	diffScanner struct{ got string }
	diffValuer  struct{ v driver.Value }
	diffPtr     struct{ n int64 }
)

func (s *diffScanner) Scan(v any) error {
	if v == nil {
		return errDiff
	}
	s.got = "scanned " + diffValue(v)
	return nil
}

func (v diffValuer) Value() (driver.Value, error) {
	if v.v == nil {
		return nil, errDiff
	}
	return v.v, nil
}

func (p *diffPtr) Value() (driver.Value, error) { return p.n, nil }

var diffStatements = []diffScenario{
	{name: "exec results", on: "file wal memory shared", run: func(r *diffRec, db *sql.DB) {
		r.exec(db, diffTable)
		r.exec(db, "INSERT INTO t VALUES (7, 'seven')")
		r.exec(db, "INSERT INTO t (b) VALUES ('x'), ('y'), ('z')")
		r.exec(db, "UPDATE t SET b = 'w' WHERE a > ?", 7)
		r.exec(db, "UPDATE t SET b = 'w' WHERE a > 100")
		r.exec(db, "DELETE FROM t WHERE a = 8")
		r.exec(db, "SELECT * FROM t")
		r.exec(db, "DELETE FROM t")
		r.exec(db, "DROP TABLE t")
	}, sees: []string{"id 10 (ok), 3 affected"}},

	{name: "methods without a context", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		res, err := db.Exec(diffTable)
		r.result("DB.Exec", res, err)
		s, err := db.Prepare("INSERT INTO t VALUES (?, ?)")
		r.err("DB.Prepare", err)
		res, err = s.Exec(1, "one")
		r.result("Stmt.Exec", res, err)
		r.err("Stmt.Close", s.Close())
		tx, err := db.Begin()
		r.err("DB.Begin", err)
		res, err = tx.Exec("INSERT INTO t VALUES (?, ?)", 2, "two")
		r.result("Tx.Exec", res, err)
		s, err = tx.Prepare("SELECT b FROM t WHERE a = ?")
		r.err("Tx.Prepare", err)
		var b string
		r.err("Stmt.QueryRow", s.QueryRow(2).Scan(&b))
		r.note("%s", b)
		rows, err := s.Query(1)
		r.err("Stmt.Query", err)
		r.all(rows)
		rows, err = tx.Query("SELECT * FROM t")
		r.err("Tx.Query", err)
		r.all(rows)
		r.err("Tx.QueryRow", tx.QueryRow("SELECT b FROM t WHERE a = 9").Scan(&b))
		r.err("Commit", tx.Commit())
		rows, err = db.Query("SELECT * FROM t ORDER BY a DESC")
		r.err("DB.Query", err)
		r.all(rows)
		r.err("DB.QueryRow", db.QueryRow("SELECT b FROM t LIMIT 1").Scan(&b))
		r.err("Ping", db.Ping())
	}, sees: []string{`row int64 2, text "two"`, "is sql.ErrNoRows"}},

	{name: "prepared statements", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		insert := r.prepare(db, "INSERT INTO t (b) VALUES (?)")
		for _, v := range []any{"x", nil, 5, []byte("blob")} {
			r.stmtExec(insert, v)
		}
		get := r.prepare(db, "SELECT a, b FROM t WHERE a BETWEEN ? AND ?")
		r.stmtQuery(get, 1, 3)
		r.stmtQuery(get, 6, 7)
		r.stmtQuery(get, 100, 200)
		var n int
		r.err("scan two into one", get.QueryRow(1, 1).Scan(&n))
		r.err("close", get.Close())
		r.err("close again", get.Close())
		r.stmtQuery(get, 1, 3)
		r.stats(db)
		r.stmtExec(insert, "last")
		r.err("close", insert.Close())
		r.stmtExec(insert, "never")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"sql: statement is closed", "id 8 (ok)"}},

	{name: "prepare with more than one statement", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "SELECT b FROM t WHERE a = ?; DELETE FROM t; SELECT 'never'")
		r.stmtQuery(s, 1)
		r.stmtQuery(s, 2)
		r.check(s.Close())
		s = r.prepare(db, "  ; INSERT INTO t VALUES (9, 'nine'); BEGIN")
		r.check(s.Close())
		r.scan(db, "SELECT count(*) FROM t")
	}, sees: []string{"int64 3"}},

	{name: "column types", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, `CREATE TABLE k (i INTEGER NOT NULL, n INT, big BIGINT, s TEXT, c CHARACTER(20), v VARCHAR(255) NOT NULL,
			b BLOB, f REAL, d DOUBLE PRECISION, m NUMERIC, dec DECIMAL(10,5), o BOOLEAN, day DATE, at DATETIME,
			ts TIMESTAMP, x, odd "WHAT EVER")`)
		r.query(db, "SELECT * FROM k")
		at := time.Date(2024, 2, 29, 12, 34, 56, 789123456, time.FixedZone("X", 3600))
		r.exec(db, "INSERT INTO k VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			1, int64(-1)<<62, 2, "text", "chars", "vars", []byte{0, 1, 255}, 1.5, -2.25, 3, "1.50", true, at, at, at, "x", 0.1)
		r.exec(db, "INSERT INTO k VALUES (0, NULL, NULL, NULL, NULL, '', x'', NULL, NULL, NULL, NULL, 0, NULL, 1709210096, 1709210096789, NULL, NULL)")
		r.exec(db, "INSERT INTO k VALUES ('t', 'u', 1.5, 1, 2, 3, 'text', 'y', 4, 'z', 5, 2, '2024-02-29', '2024-02-29T12:34:56Z', 'nonsense', x'00', 1e300)")
		r.query(db, "SELECT * FROM k")
		s := r.prepare(db, "SELECT * FROM k WHERE i = ?")
		r.stmtQuery(s, 0)
		r.check(s.Close())
	}, sees: []string{`"DECIMAL(10,5)"`, "scan sql.NullTime", "789", `"WHAT EVER"`}},

	{name: "columns of expressions", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "SELECT a, a + 1, count(*), 'x' AS named, NULL, a AS a FROM t GROUP BY a")
		r.query(db, "SELECT t.b, u.b FROM t JOIN t AS u ON u.a = t.a + 1")
		r.query(db, "VALUES (1, 'x'), (2.5, x'00')")
		r.query(db, "PRAGMA table_info(t)")
		r.query(db, "SELECT * FROM t WHERE 0")
	}, sees: []string{`"count(*)"`}},

	{name: "query that returns no columns", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.query(db, diffTable)
		r.query(db, "INSERT INTO t VALUES (?, ?)", 1, "one")
		r.query(db, "UPDATE t SET b = 'x'")
		r.scan(db, "DELETE FROM t")
		s := r.prepare(db, "INSERT INTO t VALUES (2, 'two')")
		r.stmtQuery(s)
		r.check(s.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"columns []"}},

	{name: "values", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		text, number := "pointed to", 3
		var none *string
		at := time.Date(1999, 12, 31, 23, 59, 59, 999999999, time.UTC)
		for _, v := range []any{
			nil, 1, int8(-8), int16(16), int32(-32), int64(1) << 62, uint(1), uint8(255), uint16(65535), uint32(1) << 31, uint64(1) << 62,
			1.5, float32(0.25), math.Copysign(0, -1), 1e308, "", "text", "nul\x00inside", "ünï", string([]byte{0xff, 0xfe}),
			[]byte(nil), []byte{}, []byte{0, 1, 2}, true, false, at, at.In(time.FixedZone("Y", -7200)), time.Time{},
			&text, &number, none, diffValuer{int64(42)}, diffValuer{"valued"}, diffValuer{[]byte("bytes")}, &diffPtr{5}, (*diffValuer)(nil),
			sql.NullString{String: "s", Valid: true}, sql.NullString{}, sql.NullInt64{Int64: 1, Valid: true}, sql.NullTime{Time: at, Valid: true},
			sql.Null[float64]{V: 2.5, Valid: true}, sql.RawBytes("raw"), time.Second,
		} {
			r.query(db, "SELECT ?, typeof(?1), length(?1)", v)
			r.query(db, "SELECT :v, typeof(:v), length(:v)", sql.Named("v", v))
		}
	}, sees: []string{`text "real"`, `text "null"`, `text "blob"`}},

	{name: "arguments that cannot be", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "SELECT ?")
		var out string
		for _, v := range []any{
			make(chan int), func() {}, struct{ A int }{1}, complex(1, 2), uint64(1) << 63, []int{1}, map[string]int{},
			sql.Out{Dest: &out}, diffValuer{}, diffValuer{struct{}{}},
		} {
			_, err := db.Exec("UPDATE t SET b = ?", v)
			r.err("exec", err)
			_, err = db.Query("SELECT ?", v)
			r.err("query", err)
			_, err = s.Exec(v)
			r.err("exec prepared", err)
			_, err = s.Query(v)
			r.err("query prepared", err)
			r.stats(db)
		}
		r.check(s.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"unsupported type chan int", "high bit set", "sql.Out", "is errDiff"}},

	{name: "named arguments", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "SELECT :a, @b, $c, :a", sql.Named("a", 1), sql.Named("b", "two"), sql.Named("c", nil))
		r.query(db, "SELECT :a, @b, $c", sql.Named("c", 3), sql.Named("b", 2), sql.Named("a", 1))
		r.query(db, "SELECT :a, :b", sql.Named("a", 1))
		r.query(db, "SELECT :a", sql.Named("a", 1), sql.Named("b", 2))
		r.query(db, "SELECT :a, :nobody", sql.Named("a", 1), sql.Named("b", 2))
		r.query(db, "SELECT ?, :b", 1, sql.Named("b", 2))
		r.query(db, "SELECT ?2, ?1, ?2", "first", "second")
		r.query(db, "SELECT ?3, ?1", 1, 2, 3)
		r.exec(db, "UPDATE t SET b = :b WHERE a = :a", sql.Named("b", "named"), sql.Named("a", 1))
		r.query(db, "SELECT :a", sql.Named("", 1))
		r.query(db, "SELECT :a", sql.Named(":a", 1))
		s := r.prepare(db, "SELECT a, b FROM t WHERE a = :a OR b = :b")
		r.stmtQuery(s, sql.Named("b", "two"), sql.Named("a", 1))
		r.stmtQuery(s, sql.Named("a", 1))
		r.stmtQuery(s, sql.Named("a", 1), sql.Named("c", "two"))
		r.check(s.Close())
	}, sees: []string{`row int64 1, text "named"`}},

	{name: "wrong number of arguments", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, args := range [][]any{{}, {7}, {7, "x"}, {8, "x", "more"}} {
			r.exec(db, "INSERT INTO t VALUES (?, ?)", args...)
			r.query(db, "SELECT ?, ?", args...)
			for _, text := range []string{"SELECT ?, ?", "INSERT INTO t (b) VALUES (? || ?)"} {
				s := r.prepare(db, text)
				r.stmtExec(s, args...)
				r.stmtQuery(s, args...)
				r.check(s.Close())
			}
		}
		r.exec(db, "DELETE FROM t WHERE a = 1", 1, 2, 3)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"not enough args to execute query: want 2 got 1", "sql: expected 2 arguments, got 3"}},

	{name: "too many variables", run: func(r *diffRec, db *sql.DB) {
		args := make([]any, 33000)
		for i := range args {
			args[i] = i
		}
		marks := func(n int) string { return "SELECT 1 WHERE 5 IN (?" + strings.Repeat(",?", n-1) + ")" }
		for _, n := range []int{32766, 32767} {
			var v any
			r.err("scan", db.QueryRow(marks(n), args[:n]...).Scan(&v))
			r.note("%d: %v", n, v)
		}
	}, sees: []string{"too many SQL variables", "32766: 1"}},

	{name: "scan into what does not fit", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		var s string
		var n int
		var n8 int8
		var f float64
		var b bool
		var at time.Time
		var custom diffScanner
		for _, dest := range []any{&s, &n, &n8, &f, &b, &at, &custom, s, nil, new(chan int)} {
			for _, text := range []string{"SELECT NULL", "SELECT 'text'", "SELECT 1000", "SELECT 1.5", "SELECT x'31'"} {
				r.err(fmt.Sprintf("%s into %T", text, dest), db.QueryRow(text).Scan(dest))
			}
		}
		r.err("too few", db.QueryRow("SELECT 1, 2").Scan(&n))
		r.err("too many", db.QueryRow("SELECT 1").Scan(&n, &s))
		rows := r.rows(db, "SELECT a, b FROM t")
		r.err("before Next", rows.Scan(&n, &s))
		for rows.Next() {
			r.err("scan", rows.Scan(&n, &s))
		}
		r.over(rows)
		r.err("after Close", rows.Scan(&n, &s))
		r.stats(db)
	}, sees: []string{"converting NULL to string is unsupported", "value out of range", "is errDiff", "without calling Next"}},

	{name: "scan destinations", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE s (i INTEGER, f REAL, s TEXT, b BLOB, o BOOLEAN, at TIMESTAMP)")
		r.must(db, "INSERT INTO s VALUES (1, 2.5, 'text', x'0102', 1, '2024-02-29 01:02:03.5+02:00')", "INSERT INTO s VALUES (NULL, NULL, NULL, NULL, NULL, NULL)")
		rows := r.rows(db, "SELECT * FROM s")
		for rows.Next() {
			var i sql.NullInt64
			var f sql.Null[float64]
			var s *string
			var b []byte
			var o sql.NullBool
			var at sql.NullTime
			r.err("scan", rows.Scan(&i, &f, &s, &b, &o, &at))
			r.note("%v %v %t %x %v %v", i, f, s != nil && *s == "text", b, o, at)
		}
		r.over(rows)
		rows = r.rows(db, "SELECT s, b, i, at, CAST(s AS BLOB), CAST(b AS TEXT) FROM s")
		for rows.Next() {
			dest := make([]sql.RawBytes, 6)
			r.err("scan", rows.Scan(&dest[0], &dest[1], &dest[2], &dest[3], &dest[4], &dest[5]))
			r.note("%q", dest)
		}
		r.over(rows)
		var custom diffScanner
		r.err("custom", db.QueryRow("SELECT at FROM s").Scan(&custom))
		r.note("%s", custom.got)
	}, sees: []string{"scanned time 2024"}},

	{name: "QueryRow", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.scan(db, "SELECT b FROM t WHERE a = ?", 1)
		r.scan(db, "SELECT b FROM t WHERE a = ?", 99)
		r.scan(db, "SELECT b FROM t ORDER BY a DESC")
		r.scan(db, "SELECT * FROM t")
		r.scan(db, "SELECT nosuch FROM t")
		row := db.QueryRow("SELECT b FROM t")
		r.err("Err", row.Err())
		r.stats(db) // it holds its connection until Scan
		var b string
		r.err("Scan", row.Scan(&b))
		r.stats(db)
		r.err("Scan again", row.Scan(&b))
	}, sees: []string{"1 in use", "sql: no rows in result set", "no such column: nosuch"}},

	{name: "RETURNING", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "INSERT INTO t (b) VALUES ('x'), ('y') RETURNING a, b, a * 2 AS twice")
		r.scan(db, "INSERT INTO t (b) VALUES (?) RETURNING a", "z")
		r.query(db, "UPDATE t SET b = b || '!' WHERE a > ? RETURNING *", 3)
		r.query(db, "DELETE FROM t WHERE a > 100 RETURNING a")
		r.exec(db, "DELETE FROM t WHERE a > 5 RETURNING a")
		r.exec(db, "INSERT INTO t (b) VALUES (?) RETURNING a", "exec")
		tx := r.tx(db)
		r.query(tx, "INSERT INTO t (b) VALUES ('tx') RETURNING a")
		s := r.prepare(tx, "INSERT INTO t (b) VALUES (?) RETURNING a, b")
		r.stmtQuery(s, "p")
		r.stmtQuery(s, "q")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{`"twice"`, `text "q"`}},

	{name: "RETURNING closed early", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		rows := r.rows(db, "INSERT INTO t (b) VALUES ('x'), ('y'), ('z') RETURNING a")
		r.next(rows)
		r.over(rows)
		rows = r.rows(db, "DELETE FROM t WHERE a < 3 RETURNING a")
		r.over(rows)
		r.scan(db, "UPDATE t SET b = 'w' RETURNING a")
		r.query(db, "SELECT * FROM t")
	}},

	{name: "RETURNING that fails to commit", dsn: "_foreign_keys=1", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE p (id INTEGER PRIMARY KEY)", "CREATE TABLE c (id INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
		r.query(db, "INSERT INTO c VALUES (1) RETURNING id")
		rows := r.rows(db, "INSERT INTO c VALUES (2), (3) RETURNING id")
		r.next(rows)
		r.over(rows)
		r.scan(db, "INSERT INTO c VALUES (4) RETURNING id")
		r.exec(db, "INSERT INTO c VALUES (5) RETURNING id")
		s := r.prepare(db, "INSERT INTO c VALUES (?) RETURNING id")
		r.stmtQuery(s, 6)
		r.check(s.Close())
		r.query(db, "SELECT * FROM c")
	}, sees: []string{"FOREIGN KEY constraint failed"}},

	{name: "conflict clauses", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "INSERT OR IGNORE INTO t VALUES (1, 'no'), (4, 'yes')")
		r.exec(db, "INSERT OR REPLACE INTO t VALUES (1, 'replaced')")
		r.exec(db, "REPLACE INTO t VALUES (2, 'also')")
		r.exec(db, "INSERT INTO t VALUES (3, 'x') ON CONFLICT (a) DO UPDATE SET b = excluded.b")
		r.exec(db, "INSERT INTO t VALUES (3, 'y') ON CONFLICT DO NOTHING")
		r.exec(db, "INSERT OR FAIL INTO t VALUES (5, 'in'), (1, 'fails'), (6, 'never')")
		r.exec(db, "INSERT OR ABORT INTO t VALUES (7, 'out'), (1, 'fails')")
		r.exec(db, "INSERT OR ROLLBACK INTO t VALUES (8, 'out'), (1, 'fails')") // no transaction
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"UNIQUE constraint failed"}},

	{name: "statement cache", dsn: "_stmt_cache_size=8", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for range 3 {
			for i := range 10 {
				r.query(db, fmt.Sprintf("SELECT %d, b FROM t WHERE a = ?", i), i%3+1)
			}
			r.exec(db, "UPDATE t SET b = b || ? WHERE a = ?", "!", 1)
			r.exec(db, "INSERT INTO t (b) VALUES (?) RETURNING a", "x")
			r.scan(db, "SELECT count(*) FROM t")
			r.exec(db, "INSERT INTO t VALUES (1, 'dup')")
		}
		rows := r.rows(db, "SELECT * FROM t")
		r.next(rows)
		r.over(rows)
		r.query(db, "SELECT * FROM t")
		r.must(db, "ALTER TABLE t ADD COLUMN c DEFAULT 'new'")
		r.query(db, "SELECT * FROM t")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t (b) VALUES (?)", "rolled back")
		r.query(tx, "SELECT * FROM t")
		r.err("rollback", tx.Rollback())
		r.query(db, "SELECT * FROM t")
	}},
}

var diffTexts = []diffScenario{
	{name: "several statements", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.exec(db, diffTable+"; INSERT INTO t VALUES (1, 'one'); INSERT INTO t VALUES (2, 'two'), (3, 'three')")
		r.exec(db, "INSERT INTO t VALUES (4, 'four'); DELETE FROM t WHERE a = 1;")
		r.exec(db, "DELETE FROM t WHERE a = 2; SELECT * FROM t")
		r.exec(db, "SELECT 1; CREATE TABLE u (x)")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"id 3 (ok), 2 affected"}},

	{name: "several statements with arguments", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, diffTable)
		r.exec(db, "INSERT INTO t VALUES (?, ?); INSERT INTO t VALUES (?, ?); UPDATE t SET b = ? WHERE a = ?", 1, "one", 2, "two", "TWO", 2)
		r.exec(db, "INSERT INTO t VALUES (3, 'three'); DELETE FROM t WHERE a = ?", 1)
		r.exec(db, "INSERT INTO t VALUES (?, 'x'); INSERT INTO t VALUES (?, 'y')", 10)
		r.exec(db, "INSERT INTO t VALUES (?, 'x'); INSERT INTO t VALUES (?, 'y')", 11, 12, 13)
		r.exec(db, "INSERT INTO t VALUES (:a, :b); UPDATE t SET b = :b || '!' WHERE a = :a", sql.Named("a", 20), sql.Named("b", "named"))
		r.exec(db, "INSERT INTO t VALUES (:a, :b); UPDATE t SET b = :c WHERE a = :a", sql.Named("a", 21), sql.Named("b", "b"), sql.Named("c", "c"))
		r.exec(db, "INSERT INTO t VALUES (?, ?); INSERT INTO t VALUES (?2, ?1)", 30, "x", "y", 31)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"want 1 got 0", "int64 31"}},

	{name: "comments and empty texts", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, diffTable)
		for i, text := range []string{
			"", " ", ";", ";;;", " ; ; ", "-- comment", "-- comment\n", "/* comment */", "/* open", "--", "\n\t", "\x00", "\xEF\xBB\xBF",
		} {
			r.exec(db, text)
			r.exec(db, text, 1)
			r.query(db, text)
			r.query(db, text, 1)
			r.scan(db, text)
			for _, tail := range []string{"; ", "", "\n"} {
				a := 10*i + len(tail)
				r.exec(db, fmt.Sprintf("INSERT INTO t VALUES (%d, 'x')%s%s", a, tail, text))
				r.exec(db, fmt.Sprintf("UPDATE t SET b = ? WHERE a = ?%s%s", tail, text), "y", a)
				r.query(db, fmt.Sprintf("SELECT b FROM t WHERE a = %d%s%s", a, tail, text))
				r.query(db, fmt.Sprintf("SELECT b FROM t WHERE a = ?%s%s", tail, text), a)
				r.exec(db, fmt.Sprintf("%s%sDELETE FROM t WHERE a = %d", text, tail, a))
			}
		}
		r.query(db, "SELECT * FROM t")
	}},

	{name: "several statements in a query", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "INSERT INTO t VALUES (4, 'four'); SELECT * FROM t WHERE a > 2; ")
		r.query(db, "SELECT 1; SELECT 2, 3")
		r.query(db, "SELECT 1; -- comment")
		r.query(db, "SELECT * FROM t WHERE a = ?; SELECT * FROM t WHERE a = ? OR a = ?", 1, 2, 3)
		r.query(db, "SELECT ?; SELECT ?", 1)
		r.query(db, "INSERT INTO t VALUES (5, 'five'); SELECT nosuch; SELECT 3")
		r.query(db, "INSERT INTO t VALUES (6, 'six') RETURNING a; SELECT 'after'")
		r.query(db, "INSERT INTO t VALUES (7, 'seven'), (8, 'eight') RETURNING a; SELECT count(*) FROM t")
		r.query(db, "SELECT a FROM t; DELETE FROM t WHERE a > 3")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no such column: nosuch"}},

	{name: "failure in the middle of a text", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "INSERT INTO t VALUES (4, 'in'); INSERT INTO nosuch VALUES (1); INSERT INTO t VALUES (5, 'never')")
		r.exec(db, "INSERT INTO t VALUES (6, 'in'); INSERT INTO t VALUES (1, 'dup'); INSERT INTO t VALUES (7, 'never')")
		r.exec(db, "INSERT INTO t VALUES (8, 'in'); SYNTAX ERROR; INSERT INTO t VALUES (9, 'never')")
		r.exec(db, "INSERT INTO t VALUES (?, 'in'); INSERT INTO t VALUES (?, 'dup'); INSERT INTO t VALUES (?, 'never')", 10, 1, 11)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no such table: nosuch", `near \"SYNTAX\": syntax error`}},

	{name: "failure in the middle of a text in a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'in'); INSERT INTO nosuch VALUES (1); INSERT INTO t VALUES (5, 'never')")
		r.exec(tx, "INSERT INTO t VALUES (6, 'in'); INSERT INTO t VALUES (1, 'dup'); INSERT INTO t VALUES (7, 'never')")
		r.exec(tx, "SAVEPOINT s; INSERT INTO t VALUES (8, 'in'); SYNTAX ERROR; INSERT INTO t VALUES (9, 'never')")
		r.exec(tx, "ROLLBACK TO s; RELEASE s; RELEASE s; INSERT INTO t VALUES (12, 'never')")
		r.exec(tx, "INSERT INTO t VALUES (?, 'in'); INSERT INTO t VALUES (?, 'dup')", 10, 1)
		r.query(tx, "INSERT INTO t VALUES (11, 'in'); SELECT nosuch")
		r.query(tx, "SELECT * FROM t")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no such savepoint: s"}},

	{name: "a text that uses what it creates", run: func(r *diffRec, db *sql.DB) {
		r.exec(db, "CREATE TABLE x (a); INSERT INTO x VALUES (1); CREATE INDEX i ON x (a); ALTER TABLE x ADD COLUMN b; UPDATE x SET b = 2; SELECT * FROM x")
		r.exec(db, "BEGIN; CREATE TABLE y (a); INSERT INTO y VALUES (1), (2); COMMIT; DROP TABLE x")
		r.query(db, "CREATE TABLE z (a); INSERT INTO z VALUES (3); SELECT * FROM z")
	}, sees: []string{"row int64 3"}},

	{name: "NUL in a text", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "INSERT INTO t VALUES (4, 'in');\x00 INSERT INTO t VALUES (5, 'never')")
		r.exec(db, "INSERT INTO t VALUES (6, 'x\x00'); INSERT INTO t VALUES (7, 'never')")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (8, 'in'); COMMIT;\x00 garbage")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (9, 'in'); COMMIT\x00; garbage")
		r.query(db, "SELECT * FROM t\x00 garbage")
	}},

	{name: "semicolons in strings, names and comments", run: func(r *diffRec, db *sql.DB) {
		r.exec(db, "CREATE TABLE \"a;b\" (\"c;\" TEXT); INSERT INTO [a;b] VALUES (';COMMIT;'); /* ;BEGIN; */ INSERT INTO `a;b` VALUES ('it''s;') -- ;ROLLBACK")
		r.query(db, "SELECT * FROM \"a;b\"")
		r.exec(db, "BEGIN; INSERT INTO \"a;b\" VALUES ('--;'); /* ; */ COMMIT -- ; BEGIN")
		r.query(db, "SELECT * FROM \"a;b\"; -- ; BEGIN")
		r.exec(db, "BEGIN")
		r.exec(db, "COMMIT")
	}, one: true},
}

var diffErrors = []diffScenario{
	{name: "texts that do not parse", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, text := range []string{
			"SELEC 1", "SELECT", "SELECT * FROM", "SELECT 'open", "SELECT (1", "INSERT INTO t VALUES", "CREATE TABLE", "SELECT 1 1",
			"SELECT * FROM nosuch", "SELECT nosuch FROM t", "SELECT nosuch(1)", "INSERT INTO t VALUES (1)", "INSERT INTO t (nosuch) VALUES (1)",
			"DROP TABLE nosuch", "DROP INDEX nosuch", "CREATE TABLE t (a)", "ALTER TABLE nosuch ADD COLUMN c", "SELECT count(*, *) FROM t",
			"SELECT max(1, 2) OVER ()", "SELECT a FROM t UNION SELECT 1, 2", "SELECT * FROM nosuch.t", "@", "\v", "SELECT #1", "BEGIN; SELEC",
		} {
			r.exec(db, text)
			r.exec(db, text, 1)
			r.query(db, text)
			r.scan(db, text)
			r.prepareFails(db, text)
		}
		r.exec(db, "ROLLBACK")
		tx := r.tx(db)
		r.exec(tx, "SELEC")
		r.query(tx, "SELECT * FROM nosuch")
		r.prepareFails(tx, "SELECT nosuch FROM t")
		r.exec(tx, "INSERT INTO t VALUES (4, 'still there')")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
		r.exec(db, "ROLLBACK")
	}, one: true, sees: []string{"incomplete input", "code 1/1/0", "still there"}},

	{name: "constraints", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, `CREATE TABLE k (a INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL DEFAULT 0, c CHECK (c < 10), g AS (a * 2) STORED)`,
			"CREATE TABLE st (i INT, t TEXT) STRICT", "CREATE TABLE w (k TEXT PRIMARY KEY, v) WITHOUT ROWID", "CREATE UNIQUE INDEX ku ON k (c, n)")
		failing := []string{
			"INSERT INTO k (a, u) VALUES (1, 1), (1, 2)", "INSERT INTO k (u) VALUES (1), (1)", "INSERT INTO k (n) VALUES (NULL)",
			"INSERT INTO k (c) VALUES (11)", "INSERT INTO k (g) VALUES (1)", "INSERT INTO k (a) VALUES ('text')",
			"INSERT INTO st VALUES ('x', 'y')", "INSERT INTO w VALUES ('k', 1), ('k', 2)", "INSERT INTO w VALUES (NULL, 1)",
			"INSERT INTO k (c, n) VALUES (1, 1), (1, 1)",
		}
		for _, text := range failing {
			r.exec(db, text)
			r.query(db, text)
			r.query(db, text+" RETURNING 1")
			if s, err := db.Prepare(text); err == nil {
				r.stmtExec(s)
				r.stmtQuery(s)
				r.check(s.Close())
			}
		}
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO k (a) VALUES (1)")
		for _, text := range failing {
			r.exec(tx, text)
			r.query(tx, text)
		}
		r.exec(tx, "INSERT INTO k (a) VALUES (5)") // a failed statement is all that was undone
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM k")
	}, sees: []string{"code 19/2067/0", "code 19/1299/0", "code 19/275/0", "code 19/1555/0", "code 20/20/0", "row int64 5"}},

	{name: "foreign keys", dsn: "_foreign_keys=1", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE p (id INTEGER PRIMARY KEY)", "CREATE TABLE c (id INTEGER REFERENCES p ON DELETE CASCADE)",
			"CREATE TABLE d (id INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
		r.exec(db, "INSERT INTO c VALUES (1)")
		r.exec(db, "INSERT INTO d VALUES (1)") // autocommit
		r.exec(db, "INSERT INTO p VALUES (1); INSERT INTO c VALUES (1); INSERT INTO d VALUES (1); DELETE FROM p")
		r.query(db, "SELECT count(*) FROM c")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO c VALUES (2)")
		r.exec(tx, "INSERT INTO d VALUES (2)")
		r.exec(tx, "INSERT INTO p VALUES (2)")
		r.err("commit", tx.Commit())
		r.query(db, "PRAGMA foreign_key_check")
	}, sees: []string{"code 19/787/0"}},

	{name: "deferred foreign key fails Commit", dsn: "_foreign_keys=1", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE p (id INTEGER PRIMARY KEY)", "CREATE TABLE d (id INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO d VALUES (1)")
		r.err("commit", tx.Commit())
		r.err("rollback", tx.Rollback())
		r.err("commit again", tx.Commit())
		r.stats(db)
		r.exec(db, "ROLLBACK")
		r.query(db, "SELECT * FROM d")
		tx = r.tx(db)
		r.exec(tx, "INSERT INTO d VALUES (2)")
		r.exec(tx, "INSERT INTO p VALUES (2)")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM d")
	}, one: true, sees: []string{"commit: error sqlite3.Error", "is sql.ErrTxDone itself", "row int64 2"}},

	{name: "deferred foreign key fails the text COMMIT", dsn: "_foreign_keys=1", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE p (id INTEGER PRIMARY KEY)", "CREATE TABLE d (id INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
		r.exec(db, "BEGIN; INSERT INTO d VALUES (1); COMMIT; INSERT INTO p VALUES (100)")
		r.exec(db, "INSERT INTO d VALUES (2)") // the transaction goes on
		r.exec(db, "COMMIT")
		r.exec(db, "INSERT INTO p VALUES (1), (2)")
		r.exec(db, "COMMIT")
		r.query(db, "SELECT * FROM d")
		commit := r.prepare(db, "COMMIT")
		r.exec(db, "BEGIN")
		r.exec(db, "INSERT INTO d VALUES (3)")
		r.stmtExec(commit)
		r.stmtQuery(commit)
		r.query(db, "COMMIT")
		r.exec(db, "ROLLBACK")
		r.check(commit.Close())
		r.query(db, "SELECT * FROM d")
		r.exec(db, "ROLLBACK")
	}, sees: []string{"FOREIGN KEY constraint failed", "no transaction is active"}},

	{name: "RAISE", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, how := range []string{"ABORT", "FAIL", "ROLLBACK"} {
			r.must(db, fmt.Sprintf("CREATE TABLE x_%s (a)", how), fmt.Sprintf(
				"CREATE TRIGGER tr_%s BEFORE INSERT ON x_%s WHEN new.a > 2 BEGIN SELECT raise(%s, 'too big: %s'); END", how, how, how, how))
			r.exec(db, fmt.Sprintf("INSERT INTO x_%s VALUES (1), (2), (3)", how))
			r.query(db, "SELECT * FROM x_"+how)
		}
		r.must(db, "CREATE TRIGGER ig BEFORE INSERT ON t WHEN new.a > 5 BEGIN SELECT raise(IGNORE); END")
		r.exec(db, "INSERT INTO t VALUES (4, 'x'), (6, 'y')")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO x_ABORT VALUES (2), (3)")
		r.exec(tx, "INSERT INTO x_FAIL VALUES (2), (3)")
		r.exec(tx, "INSERT INTO t VALUES (5, 'z')")
		r.err("commit", tx.Commit())
	}, sees: []string{"too big: ROLLBACK", "code 19/1811/0"}},

	{name: "Go function that fails", hook: diffFail, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "SELECT fail(a, 3) FROM t")
		r.query(db, "SELECT fail(a, 1) FROM t")
		r.query(db, "SELECT fail('text', 1)")
		r.query(db, "SELECT fail(1)")
		r.scan(db, "SELECT fail(1, 1)")
		r.exec(db, "UPDATE t SET b = fail(a, 2)")
		s := r.prepare(db, "SELECT fail(a, ?) FROM t")
		for _, at := range []int{3, 4, 1, 2} {
			r.stmtQuery(s, at)
			r.stmtExec(s, at)
		}
		r.check(s.Close())
		tx := r.tx(db)
		r.exec(tx, "UPDATE t SET b = 'changed'")
		r.exec(tx, "UPDATE t SET b = fail(a, 2)")
		rows := r.rows(tx, "SELECT a, fail(a, 2) FROM t")
		r.all(rows)
		r.query(tx, "SELECT * FROM t")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
		r.stats(db)
	}, sees: []string{"on purpose", "row int64 2\n  rows end: error"}},

	{name: "hooks of go-sqlite3", hook: func(r *diffRec, c *sqlite3.SQLiteConn) error {
		c.RegisterUpdateHook(func(op int, db, table string, row int64) { r.note("  update hook: %d %s.%s %d", op, db, table, row) })
		c.RegisterCommitHook(func() int { r.note("  commit hook"); return 0 })
		c.RegisterRollbackHook(func() { r.note("  rollback hook") })
		return nil
	}, on: "file memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (4, 'four'); UPDATE t SET b = 'x' WHERE a > 2; COMMIT; DELETE FROM t WHERE a = 1")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, ?); ROLLBACK", 9, "nine")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (5, 'five')")
		r.exec(tx, "INSERT INTO t VALUES (5, 'dup')")
		r.err("commit", tx.Commit())
		tx = r.tx(db)
		r.exec(tx, "DELETE FROM t WHERE a = 2")
		r.err("rollback", tx.Rollback())
		r.exec(db, "INSERT INTO t VALUES (3, 'dup')")
	}, sees: []string{"update hook: 18 main.t 4", "rollback hook"}},

	{name: "commit hook that refuses", hook: func(r *diffRec, c *sqlite3.SQLiteConn) error {
		c.RegisterCommitHook(func() int {
			if r.stop != nil {
				return 1
			}
			return 0
		})
		return nil
	}, one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.stop = func() {}
		r.exec(db, "INSERT INTO t VALUES (4, 'autocommit')")
		r.query(db, "INSERT INTO t VALUES (5, 'autocommit') RETURNING a")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (6, 'tx')")
		r.err("commit", tx.Commit())
		r.err("rollback", tx.Rollback())
		r.stop = nil
		r.query(db, "SELECT * FROM t")
		r.exec(db, "INSERT INTO t VALUES (7, 'in')")
	}, sees: []string{"code 19/531/0"}},

	{name: "authorizer that denies", hook: func(r *diffRec, c *sqlite3.SQLiteConn) error {
		c.RegisterAuthorizer(func(op int, a, b, db string) int {
			switch {
			case op == sqlite3.SQLITE_DELETE && a == "t", op == sqlite3.SQLITE_TRANSACTION && a == "ROLLBACK":
				return sqlite3.SQLITE_DENY
			case op == sqlite3.SQLITE_READ && a == "t" && b == "b":
				return sqlite3.SQLITE_IGNORE
			}
			return sqlite3.SQLITE_OK
		})
		return nil
	}, one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "SELECT * FROM t")
		r.exec(db, "DELETE FROM t")
		r.prepareFails(db, "DELETE FROM t")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (4, 'x'); DELETE FROM t; COMMIT")
		r.exec(db, "ROLLBACK")
		r.exec(db, "COMMIT")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"not authorized", "row int64 4, NULL"}},

	{name: "hook that fails", hook: func(r *diffRec, c *sqlite3.SQLiteConn) error { return errDiff }, on: "file", run: func(r *diffRec, db *sql.DB) {
		r.err("ping", db.Ping())
		r.exec(db, diffTable)
		r.begin(bg, db)
		_, err := db.Conn(bg)
		r.err("conn", err)
		r.prepareFails(db, "SELECT 1")
		r.stats(db)
	}, sees: []string{"is errDiff itself"}},

	{name: "query_only and mode=ro", on: "file wal", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, params := range []string{"_query_only=1", "mode=ro"} {
			ro := r.open(params)
			ro.SetMaxOpenConns(1)
			r.exec(ro, "INSERT INTO t VALUES (4, 'x')")
			r.query(ro, "INSERT INTO t VALUES (4, 'x') RETURNING a")
			r.exec(ro, "BEGIN; INSERT INTO t VALUES (4, 'x'); COMMIT")
			r.exec(ro, "COMMIT")
			tx := r.tx(ro)
			r.exec(tx, "DELETE FROM t")
			r.query(tx, "SELECT * FROM t")
			r.err("commit", tx.Commit())
			r.exec(ro, "PRAGMA user_version = 5")
		}
	}, sees: []string{"attempt to write a readonly database", "code 8/8/0"}},

	{name: "files that cannot be opened", on: "file", run: func(r *diffRec, db *sql.DB) {
		r.check(os.WriteFile(r.path("text"), []byte(strings.Repeat("this is no database. ", 100)), 0o600))
		r.check(os.Mkdir(r.path("directory"), 0o700))
		for _, dsn := range []string{
			r.path("text"), "file:" + r.path("text"), r.path("directory"), "file:" + r.path("nosuch/file"), "file:" + r.path("new") + "?mode=rw",
			"file:" + r.path("new") + "?mode=rx", "file:" + r.path("new") + "?cache=odd", "file:" + r.path("new") + "?vfs=odd", "file://host" + r.path("new"),
		} {
			other, err := r.sqlOpen(dsn)
			r.err("open "+dsn, err)
			if err != nil {
				continue
			}
			r.err("ping", other.Ping())
			r.exec(other, "CREATE TABLE x (a)")
			r.query(other, "SELECT * FROM sqlite_schema")
			tx, err := other.Begin()
			r.err("begin", err)
			if err == nil {
				r.exec(tx, "CREATE TABLE y (a)")
				r.err("rollback", tx.Rollback())
			}
			r.stats(other)
			r.err("close", other.Close())
		}
	}, sees: []string{"file is not a database", "unable to open database file", "code 14/"}},
}

var diffLocks = []diffScenario{
	{name: "busy", dsn: "_busy_timeout=0", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		other := r.open("")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'first')")
		r.exec(other, "INSERT INTO t VALUES (5, 'second')")
		r.query(other, "INSERT INTO t VALUES (5, 'second') RETURNING a")
		r.exec(other, "BEGIN IMMEDIATE")
		r.exec(other, "BEGIN IMMEDIATE; INSERT INTO t VALUES (5, 'second'); COMMIT")
		r.query(other, "SELECT * FROM t")
		tx2 := r.tx(other)
		r.query(tx2, "SELECT count(*) FROM t")
		r.exec(tx2, "INSERT INTO t VALUES (6, 'third')")
		r.exec(tx2, "INSERT INTO t VALUES (6, 'third')")
		r.err("rollback", tx2.Rollback())
		s := r.prepare(other, "INSERT INTO t VALUES (7, 'prepared')")
		r.stmtExec(s)
		r.stmtQuery(s)
		r.err("commit", tx.Commit())
		r.stmtExec(s)
		r.check(s.Close())
		r.query(other, "SELECT * FROM t")
	}, sees: []string{"database is locked", "code 5/5/0", "prepared"}},

	{name: "busy for a while", dsn: "_busy_timeout=30", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		other := r.open("_txlock=immediate")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'first')")
		r.exec(other, "INSERT INTO t VALUES (5, 'second')")
		r.query(other, "INSERT INTO t VALUES (5, 'second') RETURNING a")
		r.begin(bg, other)
		ctx, cancel := context.WithCancel(bg)
		defer cancel()
		r.execCtx(ctx, other, "INSERT INTO t VALUES (5, 'second')")
		r.scan(other, "PRAGMA busy_timeout")
		r.exec(other, "PRAGMA busy_timeout = 20000")
		r.scan(other, "PRAGMA busy_timeout")
		other.SetMaxOpenConns(1)
		done := make(chan error)
		go func() {
			_, err := other.Exec("INSERT INTO t VALUES (6, 'waits')")
			done <- err
		}()
		r.until("it waits", func() bool { return other.Stats().InUse == 1 })
		r.err("commit", tx.Commit())
		r.err("waited", <-done)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"database is locked", "busy_timeout: int64 30", "busy_timeout: int64 20000", "waited: ok"}},

	{name: "busy begin", dsn: "_busy_timeout=0&_txlock=immediate", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		other := r.open("")
		tx := r.tx(db)
		r.begin(bg, other)
		r.stats(other)
		c := r.connection(other)
		r.begin(bg, c)
		r.query(c, "SELECT * FROM t")
		r.exec(tx, "INSERT INTO t VALUES (4, 'in')")
		r.err("rollback", tx.Rollback())
		tx2 := r.tx(c)
		r.exec(tx2, "INSERT INTO t VALUES (5, 'in')")
		r.err("commit", tx2.Commit())
		r.err("close", c.Close())
		r.stats(other)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"code 5/5/0"}},

	{name: "txlock", dsn: "_busy_timeout=0", on: "file", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, lock := range []string{"deferred", "immediate", "exclusive"} {
			other := r.open("_txlock=" + lock)
			tx := r.tx(other)
			r.query(db, "SELECT count(*) FROM t")
			r.exec(db, "UPDATE t SET b = 'x' WHERE a = 1")
			r.exec(tx, "UPDATE t SET b = ? WHERE a = 2", lock)
			r.err("commit", tx.Commit())
		}
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"database is locked"}},

	{name: "busy commit", dsn: "_busy_timeout=0", on: "file", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		reader := r.open("")
		rows := r.rows(reader, "SELECT * FROM t")
		r.next(rows)
		r.exec(db, "INSERT INTO t VALUES (4, 'autocommit')")
		r.query(db, "INSERT INTO t VALUES (4, 'autocommit') RETURNING a")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'tx')")
		r.err("commit", tx.Commit())
		r.err("rollback", tx.Rollback())
		r.stats(db)
		r.exec(db, "ROLLBACK")
		r.next(rows)
		r.over(rows)
		r.query(db, "SELECT * FROM t")
		r.exec(db, "INSERT INTO t VALUES (4, 'now')")
	}, one: true, sees: []string{"commit: error sqlite3.Error", "no transaction is active"}},

	{name: "busy text COMMIT", dsn: "_busy_timeout=0", on: "file", one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		reader := r.open("")
		rows := r.rows(reader, "SELECT * FROM t")
		r.next(rows)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (4, 'text'); COMMIT")
		r.exec(db, "COMMIT")
		r.exec(db, "INSERT INTO t VALUES (5, 'goes on')")
		r.query(db, "COMMIT")
		commit := r.prepare(db, "END TRANSACTION")
		r.stmtExec(commit)
		r.over(rows)
		r.stmtExec(commit)
		r.check(commit.Close())
		r.query(db, "SELECT * FROM t")
		r.exec(db, "COMMIT")
	}, sees: []string{"database is locked", "no transaction is active", "goes on"}},

	{name: "busy snapshot", dsn: "_busy_timeout=0", on: "wal", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		other := r.open("")
		tx := r.tx(other)
		r.query(tx, "SELECT count(*) FROM t")
		r.exec(db, "INSERT INTO t VALUES (4, 'meanwhile')")
		r.query(tx, "SELECT count(*) FROM t")
		r.exec(tx, "INSERT INTO t VALUES (5, 'too late')")
		r.exec(tx, "INSERT INTO t VALUES (5, 'too late')")
		r.query(tx, "SELECT count(*) FROM t")
		r.err("commit", tx.Commit())
		r.query(other, "SELECT * FROM t")
		r.query(db, "PRAGMA wal_checkpoint(TRUNCATE)")
	}, sees: []string{"code 5/517/0"}},

	{name: "locked in a shared cache", on: "shared", refused: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		a, b := r.connection(db), r.connection(db)
		tx := r.tx(a)
		r.exec(tx, "INSERT INTO t VALUES (4, 'first')")
		r.query(b, "SELECT * FROM t")
		r.exec(b, "INSERT INTO t VALUES (5, 'second')")
		r.exec(b, "CREATE TABLE u (x)")
		r.prepareFails(b, "SELECT * FROM t")
		r.exec(b, "BEGIN IMMEDIATE")
		r.exec(b, "BEGIN; INSERT INTO t VALUES (5, 'second'); COMMIT")
		r.exec(b, "ROLLBACK")
		r.err("commit", tx.Commit())
		rows := r.rows(b, "SELECT * FROM t")
		r.next(rows)
		r.exec(a, "INSERT INTO t VALUES (6, 'third')")
		r.exec(a, "DROP TABLE t")
		r.over(rows)
		r.exec(a, "INSERT INTO t VALUES (6, 'third')")
		r.query(b, "SELECT * FROM t")
		r.err("close", a.Close())
		r.err("close", b.Close())
		r.stats(db)
	}, sees: []string{"database table is locked: t", "code 6/262/0"}},

	{name: "shared cache in several pools", on: "shared", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		other := r.open("")
		r.exec(other, "INSERT INTO t VALUES (4, 'other')")
		r.query(db, "SELECT * FROM t")
		r.err("close", db.Close())
		r.query(other, "SELECT * FROM t")
		r.exec(other, "BEGIN; DELETE FROM t; COMMIT")
		r.err("close", other.Close())
		r.query(r.open(""), "SELECT * FROM t") // gone with the last connection
	}, sees: []string{"no such table: t"}},

	{name: "open rows in the way", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		rows := r.rows(c, "SELECT * FROM t")
		r.next(rows)
		r.exec(c, "DROP TABLE t")
		r.exec(c, "VACUUM")
		r.exec(c, "INSERT INTO t VALUES (0, 'behind')")
		r.exec(c, "BEGIN; INSERT INTO t VALUES (10, 'ten'); COMMIT")
		r.next(rows)
		r.over(rows)
		rows = r.rows(c, "INSERT INTO t VALUES (20, 'x'), (21, 'y') RETURNING a")
		r.exec(c, "BEGIN")
		r.exec(c, "COMMIT")
		r.over(rows)
		r.exec(c, "COMMIT")
		r.exec(c, "BEGIN")
		rows = r.rows(c, "INSERT INTO t VALUES (30, 'x'), (31, 'y') RETURNING a")
		r.next(rows)
		r.exec(c, "COMMIT")
		r.over(rows)
		r.exec(c, "COMMIT")
		r.query(c, "SELECT * FROM t")
		r.err("close", c.Close())
	}, sees: []string{"database table is locked", "SQL statements in progress"}},

	{name: "text ROLLBACK under open rows", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		r.exec(c, "BEGIN")
		r.exec(c, "INSERT INTO t VALUES (4, 'four')")
		reading := r.rows(c, "SELECT a FROM t")
		r.next(reading)
		writing := r.rows(c, "INSERT INTO t VALUES (5, 'five'), (6, 'six') RETURNING a")
		r.next(writing)
		r.exec(c, "ROLLBACK")
		r.next(writing)
		r.over(writing)
		r.next(reading)
		r.over(reading)
		r.exec(c, "BEGIN; CREATE TABLE u (x)")
		reading = r.rows(c, "SELECT a FROM t")
		r.next(reading)
		r.exec(c, "ROLLBACK") // the schema changes back
		r.next(reading)
		r.over(reading)
		r.query(c, "SELECT * FROM t")
		r.exec(c, "INSERT INTO t VALUES (7, 'seven')")
		r.err("close", c.Close())
	}, sees: []string{"code 4/516/0"}},

	{name: "locking_mode=EXCLUSIVE", dsn: "_locking_mode=EXCLUSIVE&_busy_timeout=0", one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "PRAGMA locking_mode")
		other := r.open("")
		r.query(other, "SELECT * FROM t")
		r.err("ping", other.Ping())
		r.query(db, "PRAGMA locking_mode=NORMAL")
		r.query(db, "SELECT count(*) FROM t")
		r.query(other, "SELECT * FROM t")
	}, sees: []string{"database is locked", "exclusive"}},
}

var diffContexts = []diffScenario{
	{name: "context that is over", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "SELECT * FROM t")
		tx := r.tx(db)
		inTx := r.prepare(tx, "SELECT * FROM t")
		cancelled, cancel := context.WithCancel(bg)
		cancel()
		late, stop := context.WithDeadline(bg, time.Now().Add(-time.Second))
		defer stop()
		caused, because := context.WithCancelCause(bg)
		because(errDiff)
		for _, ctx := range []context.Context{cancelled, late, caused} {
			r.execCtx(ctx, tx, "DELETE FROM t")
			r.queryCtx(ctx, tx, "SELECT * FROM t")
			r.scanCtx(ctx, tx, "SELECT * FROM t")
			_, err := tx.PrepareContext(ctx, "SELECT 1")
			r.err("prepare", err)
			_, err = inTx.ExecContext(ctx)
			r.err("exec prepared", err)
			_, err = inTx.QueryContext(ctx)
			r.err("query prepared", err)
		}
		r.query(tx, "SELECT * FROM t")
		r.err("commit", tx.Commit())
		for _, ctx := range []context.Context{cancelled, late, caused} {
			r.execCtx(ctx, db, "DELETE FROM t")
			r.queryCtx(ctx, db, "SELECT * FROM t")
			r.scanCtx(ctx, db, "SELECT * FROM t")
			_, err := db.PrepareContext(ctx, "SELECT 1")
			r.err("prepare", err)
			r.begin(ctx, db)
			_, err = db.Conn(ctx)
			r.err("conn", err)
			r.err("ping", db.PingContext(ctx))
			_, err = s.ExecContext(ctx)
			r.err("exec prepared", err)
			_, err = s.QueryContext(ctx)
			r.err("query prepared", err)
			r.stats(db)
		}
		r.check(s.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"is context.Canceled itself", "is context.DeadlineExceeded itself", "row int64 3, NULL"}},

	{name: "context that is over on a Conn", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		s := r.prepare(c, "SELECT * FROM t")
		r.exec(c, "BEGIN")
		r.exec(c, "INSERT INTO t VALUES (4, 'four')")
		ctx, cancel := context.WithCancel(bg)
		cancel()
		// Exec over go-sqlite3 is a race with the context here, Query is not.
		r.queryCtx(ctx, c, "SELECT * FROM t")
		r.queryCtx(ctx, c, "INSERT INTO t VALUES (5, 'never')")
		r.queryCtx(ctx, c, "INSERT INTO t VALUES (5, 'never'); SELECT 1")
		r.queryCtx(ctx, c, "COMMIT; SELECT 1")
		r.queryCtx(ctx, c, "SELECT * FROM nosuch")
		r.queryCtx(ctx, c, "SELECT ?")
		r.queryCtx(ctx, c, "-- nothing\n; SELEC")
		for range 3 { // long enough for whoever watches contexts
			rows, err := c.QueryContext(ctx, "SELECT 1 WHERE 5 IN (0"+strings.Repeat(",1", 300_000)+")")
			r.err("a long text", err)
			if err == nil {
				rows.Close()
			}
		}
		r.queryCtx(ctx, c, "INSERT INTO t VALUES (?, 'never') RETURNING a", 6)
		r.scanCtx(ctx, c, "SELECT count(*) FROM t")
		_, err := s.QueryContext(ctx)
		r.err("query prepared", err)
		late, err := c.PrepareContext(ctx, "SELECT count(*) FROM t")
		r.err("prepare", err)
		if err == nil {
			r.stmtQuery(late)
			r.check(late.Close())
		}
		r.err("ping", c.PingContext(ctx))
		r.query(c, "SELECT * FROM t")
		r.exec(c, "COMMIT")
		r.check(s.Close())
		r.err("close", c.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"is context.Canceled itself", "row int64 4"}},

	{name: "cancelled in the middle of a query", hook: diffStop, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, q := range []struct {
			what string
			run  func(ctx context.Context)
		}{
			{"query", func(ctx context.Context) { r.queryCtx(ctx, db, diffForever) }},
			{"query row", func(ctx context.Context) { r.scanCtx(ctx, db, diffForever) }},
			{"exec", func(ctx context.Context) { r.execCtx(ctx, db, diffForever) }},
			{"insert", func(ctx context.Context) { r.execCtx(ctx, db, "INSERT INTO t (b) "+diffForever) }},
			{"several", func(ctx context.Context) {
				r.execCtx(ctx, db, "INSERT INTO t VALUES (?, 'in'); INSERT INTO t (b) "+diffForever+"; INSERT INTO t VALUES (99, 'never')", 7)
			}},
			{"several in a query", func(ctx context.Context) { r.queryCtx(ctx, db, "SELECT 1; "+diffForever+"; SELECT 2") }},
			{"prepared", func(ctx context.Context) {
				s := r.prepare(db, diffForever)
				_, err := s.QueryContext(ctx)
				r.err("query prepared", err)
				r.check(s.Close())
			}},
			{"prepared exec", func(ctx context.Context) {
				s := r.prepare(db, "INSERT INTO t (b) "+diffForever)
				_, err := s.ExecContext(ctx)
				r.err("exec prepared", err)
				r.check(s.Close())
			}},
		} {
			ctx, cancel := context.WithCancel(bg)
			r.note("%s", q.what)
			r.stop = cancel
			q.run(ctx)
			r.stop = nil
			r.stats(db)
			r.query(db, "SELECT * FROM t")
		}
	}, sees: []string{"is context.Canceled itself"}},

	{name: "deadline in the middle of a query", hook: diffStop, on: "file memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		// The deadline comes when the statement is running. Before its first
		// step go-sqlite3's Exec loses it: SQLite forgets such an interrupt.
		ctx := newDiffDeadline()
		r.stop = ctx.reach
		r.queryCtx(ctx, db, diffForever)
		ctx = newDiffDeadline()
		r.stop = ctx.reach
		r.execCtx(ctx, db, "INSERT INTO t (b) "+diffForever)
		r.stop = nil
		r.query(db, "SELECT * FROM t")
		r.stats(db)
	}, sees: []string{"is context.DeadlineExceeded itself"}},

	{name: "query of a transaction cancelled", hook: diffStop, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'four')")
		ctx, cancel := context.WithCancel(bg)
		r.stop = cancel
		r.queryCtx(ctx, tx, diffForever) // reads only: the transaction goes on
		r.stop = nil
		r.exec(tx, "INSERT INTO t VALUES (5, 'five')")
		s := r.prepare(tx, diffForever)
		ctx, cancel = context.WithCancel(bg)
		r.stop = cancel
		_, err := s.QueryContext(ctx)
		r.err("query prepared", err)
		r.stop = nil
		r.query(tx, "SELECT * FROM t")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"is context.Canceled itself", `row int64 5, text "five"`}},

	{name: "cancelled between rows", on: "file memory", run: func(r *diffRec, db *sql.DB) {
		ctx, cancel := context.WithCancel(bg)
		rows, err := db.QueryContext(ctx, diffEndless)
		r.check(err)
		for range 10 {
			r.next(rows)
		}
		cancel()
		for rows.Next() {
		}
		r.over(rows)
		r.stats(db)
		tx := r.tx(db)
		for d := 20 * time.Millisecond; ; d *= 2 { // until it is in time
			ctx, cancel = context.WithTimeout(bg, d)
			defer cancel()
			if rows, err = tx.QueryContext(ctx, diffEndless); err == nil {
				break
			}
		}
		for rows.Next() {
		}
		r.over(rows)
		r.query(tx, "SELECT 1")
		r.err("rollback", tx.Rollback())
		r.stats(db)
	}, sees: []string{"rows end: error *errors.errorString \"context canceled\"", "DeadlineExceeded itself"}},

	{name: "cancelled when all is read", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		ctx, cancel := context.WithCancel(bg)
		r.queryCtx(ctx, db, "SELECT * FROM t")
		r.execCtx(ctx, db, "INSERT INTO t VALUES (4, 'four')")
		r.execCtx(ctx, db, "INSERT INTO t VALUES (?, ?); UPDATE t SET b = ?", 5, "five", "x")
		tx, err := db.BeginTx(ctx, nil)
		r.check(err)
		r.execCtx(ctx, tx, "INSERT INTO t VALUES (6, 'six')")
		r.queryCtx(ctx, tx, "INSERT INTO t VALUES (7, 'seven') RETURNING *")
		r.err("commit", tx.Commit())
		cancel()
		r.stats(db)
		r.query(db, "SELECT * FROM t")
	}},

	{name: "waiting for a connection", one: true, on: "file memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		for db.Stats().WaitCount == 0 { // until it is in time to wait
			ctx, cancel := context.WithTimeout(bg, 10*time.Millisecond)
			defer cancel()
			if _, err := db.QueryContext(ctx, "SELECT * FROM t"); err != context.DeadlineExceeded {
				r.err("query", err)
			}
		}
		r.stats(db)
		done := make(chan error)
		go func() {
			var n int
			done <- db.QueryRow("SELECT count(*) FROM t").Scan(&n)
		}()
		r.until("somebody waits", func() bool { return db.Stats().WaitCount == 2 })
		r.err("close", c.Close())
		r.err("waited", <-done)
		r.stats(db)
	}, sees: []string{"2 waited", "waited: ok"}},
}

var diffRows = []diffScenario{
	{name: "rows closed early and twice", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		rows := r.rows(db, "SELECT * FROM t")
		r.stats(db)
		r.next(rows)
		r.err("close", rows.Close())
		r.err("close", rows.Close())
		r.note("next: %t", rows.Next())
		r.columns(rows)
		r.err("scan", rows.Scan())
		r.over(rows)
		r.stats(db)
		rows = r.rows(db, "SELECT * FROM t")
		r.err("close at once", rows.Close())
		r.over(rows)
		r.stats(db)
	}, sees: []string{"sql: Rows are closed", "1 in use"}},

	{name: "rows after DB.Close", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		rows := r.rows(db, "SELECT * FROM t")
		r.next(rows)
		r.err("close the DB", db.Close())
		r.stats(db)
		r.all(rows)
		r.stats(db)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"row int64 3, NULL", "sql: database is closed"}},

	{name: "everything after DB.Close", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "SELECT * FROM t")
		c := r.connection(db)
		onConn := r.prepare(c, "SELECT * FROM t")
		tx := r.tx(db)
		inTx := r.prepare(tx, "INSERT INTO t VALUES (?, 'tx')")
		r.exec(tx, "INSERT INTO t VALUES (4, 'four')")
		r.stats(db)
		r.err("close the DB", db.Close())
		r.stats(db)
		r.stmtQuery(s)
		r.stmtQuery(onConn)
		r.query(c, "SELECT * FROM t")
		r.stmtExec(inTx, 5)
		r.exec(tx, "INSERT INTO t VALUES (6, 'six')")
		r.err("commit", tx.Commit())
		r.query(c, "SELECT * FROM t")
		r.err("close a statement", onConn.Close())
		r.err("close a connection", c.Close())
		r.err("close a statement", s.Close())
		r.stats(db)
		r.exec(db, "SELECT 1")
		r.scan(db, "SELECT 1")
		r.prepareFails(db, "SELECT 1")
		r.begin(bg, db)
		_, err := db.Conn(bg)
		r.err("conn", err)
		r.err("ping", db.Ping())
		r.err("close", db.Close())
	}, on: "wal", sees: []string{"sql: database is closed", `row int64 6, text "six"`}},

	{name: "rows in one transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		outer := r.rows(tx, "SELECT a FROM t ORDER BY a")
		for r.next(outer) {
			inner := r.rows(tx, "SELECT b FROM t WHERE a <> ? ORDER BY a", 2)
			r.next(inner)
			r.query(tx, "SELECT count(*) FROM t")
			r.exec(tx, "UPDATE t SET b = coalesce(b, '') || '.'")
			r.over(inner)
		}
		r.over(outer)
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{`text "one..."`}},

	{name: "two cursors of one prepared statement", on: "file memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		s := r.prepare(tx, "SELECT a FROM t WHERE a >= ? ORDER BY a")
		first, err := s.Query(1)
		r.check(err)
		r.next(first)
		second, err := s.Query(2) // takes the cursor over
		r.check(err)
		r.next(second)
		r.next(first)
		r.next(second)
		r.over(second)
		r.over(first)
		first, err = s.Query(1)
		r.check(err)
		r.next(first)
		second, err = s.Query(2)
		r.check(err)
		r.next(second)
		r.over(first) // resets the cursor of the second
		r.next(second)
		r.next(second)
		r.over(second)
		r.stmtQuery(s, 1)
		r.err("commit", tx.Commit())
	}},

	{name: "Commit and Rollback under open rows", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, commit := range []bool{true, false} {
			tx := r.tx(db)
			r.exec(tx, "INSERT INTO t (b) VALUES ('tx')")
			rows := r.rows(tx, "SELECT * FROM t")
			prepared, err := r.prepare(tx, "SELECT * FROM t").Query()
			r.check(err)
			r.next(rows)
			r.next(prepared)
			if commit {
				r.err("commit", tx.Commit())
			} else {
				r.err("rollback", tx.Rollback())
			}
			r.note("next: %t %t", rows.Next(), prepared.Next())
			r.over(rows)
			r.over(prepared)
			r.stats(db)
		}
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"is context.Canceled itself"}},

	{name: "many rows", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE m (a INTEGER PRIMARY KEY, b TEXT, c REAL, d BLOB)")
		tx := r.tx(db)
		s := r.prepare(tx, "INSERT INTO m VALUES (?, ?, ?, ?)")
		for i := range 5000 {
			if _, err := s.Exec(i, fmt.Sprint("row ", i), float64(i)/3, []byte{byte(i), byte(i >> 8)}); err != nil {
				r.t.Fatal(err)
			}
		}
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM m")
		r.query(db, "SELECT a, count(*) OVER (PARTITION BY a % 7) FROM m ORDER BY b DESC LIMIT 100")
	}, sees: []string{"row int64 4999"}},

	{name: "big values", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE g (a INTEGER PRIMARY KEY, b BLOB, s TEXT)")
		big := make([]byte, 3<<20)
		for i := range big {
			big[i] = byte(i * i >> 7)
		}
		r.exec(db, "INSERT INTO g VALUES (1, ?, ?)", big, strings.Repeat("text ", 1<<18))
		r.exec(db, "INSERT INTO g VALUES (2, zeroblob(1000000), hex(zeroblob(100000)))")
		r.query(db, "SELECT a, b, s, length(b), length(s) FROM g")
		s := r.prepare(db, "SELECT b || s FROM g WHERE a = ?")
		r.stmtQuery(s, 1)
		r.check(s.Close())
		r.exec(db, "INSERT INTO g VALUES (3, zeroblob(2000000000), NULL)")
		r.query(db, "SELECT length(zeroblob(2000000000))")
	}, sees: []string{"string or blob too big", "code 18/18/0"}},

	{name: "rows over several connections", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		var open []*sql.Rows
		for range 4 {
			rows := r.rows(db, "SELECT * FROM t")
			r.next(rows)
			open = append(open, rows)
			r.stats(db)
		}
		for _, rows := range open {
			r.all(rows)
			r.stats(db)
		}
	}, sees: []string{"4 in use", "2 idle, 0 waited, closed: 2 idle"}},

	{name: "range over a cursor that grows", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		rows := r.rows(c, "SELECT a FROM t WHERE a < 8")
		for n := 4; r.next(rows); n++ {
			r.exec(c, "INSERT INTO t VALUES (?, 'behind')", n)
		}
		r.over(rows)
		r.query(c, "SELECT * FROM t")
		r.err("close", c.Close())
	}, on: "memory", sees: []string{"row int64 7"}},

	{name: "prepared statement run under its own rows", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		insert := r.prepare(tx, "INSERT INTO t (b) VALUES (?) RETURNING a")
		rows, err := insert.Query("by query")
		r.check(err)
		r.next(rows)
		r.stmtExec(insert, "by exec") // takes the cursor over
		r.all(rows)
		r.query(tx, "SELECT * FROM t")
		rows, err = insert.Query("by query")
		r.check(err)
		r.next(rows) // before that, see TestDifferentialDeliberate
		r.stmtQuery(insert, "by another")
		r.all(rows)
		read := r.prepare(tx, "SELECT a FROM t WHERE a > ? ORDER BY a")
		rows, err = read.Query(1)
		r.check(err)
		r.next(rows)
		r.stmtExec(read, 2)
		r.next(rows)
		r.over(rows)
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"by exec"}},

	{name: "statement closed under its rows", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "SELECT * FROM t") // of the DB: it waits for its rows
		rows, err := s.Query()
		r.check(err)
		r.next(rows)
		r.err("close", s.Close())
		r.all(rows)
		r.stats(db)
	}, sees: []string{"row int64 3, NULL"}},
}

var diffTransactions = []diffScenario{
	{name: "commit and rollback", on: "file wal memory shared", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.stats(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'four')")
		r.query(tx, "SELECT * FROM t")
		r.err("commit", tx.Commit())
		r.err("commit", tx.Commit())
		r.err("rollback", tx.Rollback())
		r.stats(db)
		tx = r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (5, 'five')")
		r.exec(tx, "DELETE FROM t WHERE a < 3")
		r.err("rollback", tx.Rollback())
		r.err("rollback", tx.Rollback())
		r.err("commit", tx.Commit())
		r.stats(db)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"is sql.ErrTxDone itself"}},

	{name: "use of a transaction that is over", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		global := r.prepare(db, "SELECT b FROM t WHERE a = ?")
		tx := r.tx(db)
		s := r.prepare(tx, "INSERT INTO t VALUES (?, 's')")
		bound := tx.Stmt(global)
		r.stmtExec(s, 4)
		r.stmtQuery(bound, 4)
		r.err("commit", tx.Commit())
		r.exec(tx, "DELETE FROM t")
		r.query(tx, "SELECT * FROM t")
		r.scan(tx, "SELECT * FROM t")
		r.prepareFails(tx, "SELECT 1")
		r.stmtExec(s, 5)
		r.stmtQuery(bound, 4)
		r.stmtQuery(tx.Stmt(global), 4)
		r.err("close", s.Close())
		r.err("close", bound.Close())
		r.stmtQuery(global, 4)
		r.err("close", global.Close())
		r.stats(db)
	}, sees: []string{"already been committed or rolled back"}},

	{name: "statements of a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		global := r.prepare(db, "UPDATE t SET b = ? WHERE a = ?")
		read := r.prepare(db, "SELECT * FROM t WHERE a = ?")
		for _, commit := range []bool{false, true} {
			tx := r.tx(db)
			r.stmtExec(tx.Stmt(global), "tx", 1)
			r.stmtExec(tx.Stmt(global), "tx", 2)
			r.stmtExec(tx.Stmt(global), "wrong number")
			r.stmtQuery(tx.Stmt(read), 1)
			s := r.prepare(tx, "INSERT INTO t VALUES (?, ?)")
			r.stmtExec(s, 4, "four")
			r.stmtExec(s, 4, "dup")
			r.stmtExec(s, 5, "five")
			r.err("close", s.Close())
			r.stmtExec(s, 6, "never")
			if commit {
				r.err("commit", tx.Commit())
			} else {
				r.err("rollback", tx.Rollback())
			}
		}
		r.stmtQuery(read, 1)
		r.check(global.Close())
		r.check(read.Close())
		r.query(db, "SELECT * FROM t")
		r.stats(db)
	}},

	{name: "options", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, opts := range []*sql.TxOptions{
			nil, {}, {ReadOnly: true}, {Isolation: sql.LevelSerializable}, {Isolation: sql.LevelReadUncommitted, ReadOnly: true},
			{Isolation: sql.LevelLinearizable}, {Isolation: sql.IsolationLevel(99)},
		} {
			tx, err := db.BeginTx(bg, opts)
			r.err(fmt.Sprintf("begin %+v", opts), err)
			if err == nil {
				r.exec(tx, "INSERT INTO t (b) VALUES ('x')") // whatever was asked for
				r.err("commit", tx.Commit())
			}
		}
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"row int64 10"}},

	{name: "BEGIN in a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'four')")
		r.exec(tx, "BEGIN")
		r.exec(tx, "BEGIN IMMEDIATE; INSERT INTO t VALUES (99, 'never')")
		r.query(tx, "BEGIN")
		r.exec(tx, "INSERT INTO t VALUES (5, 'five'); BEGIN; INSERT INTO t VALUES (99, 'never')")
		s := r.prepare(tx, "BEGIN")
		r.stmtExec(s)
		r.exec(tx, "INSERT INTO t VALUES (6, 'six')")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"cannot start a transaction within a transaction", "row int64 6"}},

	{name: "text COMMIT in a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'four')")
		r.exec(tx, "COMMIT")
		r.exec(tx, "INSERT INTO t VALUES (5, 'autocommit')")
		r.exec(tx, "INSERT INTO t VALUES (5, 'dup')")
		r.exec(tx, "INSERT INTO t VALUES (6, 'autocommit')")
		r.exec(tx, "COMMIT")
		r.err("commit", tx.Commit())
		r.stats(db)
		tx = r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (7, 'seven')")
		s := r.prepare(tx, "END")
		r.stmtExec(s)
		r.stmtExec(s)
		r.err("rollback", tx.Rollback())
		r.stats(db)
		tx = r.tx(db)
		r.query(tx, "COMMIT")
		r.exec(tx, "BEGIN")
		r.exec(tx, "INSERT INTO t VALUES (8, 'eight')")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"cannot commit - no transaction is active", "cannot rollback - no transaction is active"}},

	{name: "text ROLLBACK in a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'lost')")
		r.exec(tx, "ROLLBACK")
		r.exec(tx, "INSERT INTO t VALUES (5, 'autocommit')")
		r.exec(tx, "INSERT INTO t VALUES (5, 'dup')")
		r.exec(tx, "INSERT INTO t VALUES (6, 'autocommit')")
		r.err("commit", tx.Commit())
		tx = r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (7, 'lost')")
		r.exec(tx, "ROLLBACK; BEGIN IMMEDIATE")
		r.exec(tx, "INSERT INTO t VALUES (8, 'eight')")
		r.exec(tx, "INSERT INTO t VALUES (8, 'dup')")
		r.query(tx, "SELECT * FROM t")
		r.err("commit", tx.Commit())
		tx = r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (?, 'lost'); ROLLBACK; BEGIN; INSERT INTO t VALUES (?, 'ten')", 9, 10)
		r.err("commit", tx.Commit())
		tx = r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (11, 'lost')")
		r.query(tx, "ROLLBACK; SELECT count(*) FROM t")
		r.err("rollback", tx.Rollback())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"row int64 8", "row int64 10", "no transaction is active"}},

	{name: "failure behind a text COMMIT in a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for i, args := range [][]any{{}, {"in"}} {
			tx := r.tx(db)
			text := "INSERT INTO t VALUES (%d, 'in'); COMMIT; INSERT INTO nosuch VALUES (1)"
			if len(args) > 0 {
				text = "INSERT INTO t VALUES (%d, ?); COMMIT; INSERT INTO nosuch VALUES (1)"
			}
			r.exec(tx, fmt.Sprintf(text, 10+i), args...)
			r.exec(tx, "INSERT INTO t VALUES (?, 'autocommit')", 20+i)
			r.err("commit", tx.Commit())
		}
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (30, 'in'); COMMIT; BEGIN; INSERT INTO t VALUES (31, 'lost'); INSERT INTO nosuch VALUES (1)")
		r.exec(tx, "INSERT INTO t VALUES (32, 'lost')")
		r.err("rollback", tx.Rollback())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no such table: nosuch", "no transaction is active", "row int64 20", "row int64 30"}},

	{name: "failure behind a text COMMIT with named arguments", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (:a, 'in'); COMMIT; INSERT INTO nosuch VALUES (:a)", sql.Named("a", 10))
		r.exec(tx, "INSERT INTO t VALUES (20, 'autocommit')")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no such table: nosuch", "no transaction is active", "row int64 20"}},

	{name: "failure behind a text COMMIT in a query", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.query(tx, "INSERT INTO t VALUES (10, 'in'); COMMIT; SELECT * FROM nosuch")
		r.exec(tx, "INSERT INTO t VALUES (20, 'autocommit')")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no such table: nosuch", "no transaction is active", "row int64 20"}},

	{name: "savepoints in a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "SAVEPOINT a")
		r.exec(tx, "INSERT INTO t VALUES (4, 'kept')")
		r.exec(tx, `SAVEPOINT "B x"`)
		r.exec(tx, "INSERT INTO t VALUES (5, 'undone')")
		r.exec(tx, "ROLLBACK TRANSACTION TO SAVEPOINT 'b X'")
		r.exec(tx, "INSERT INTO t VALUES (6, 'kept')")
		r.exec(tx, "RELEASE SAVEPOINT [b x]")
		r.exec(tx, "RELEASE nosuch")
		r.exec(tx, "ROLLBACK TO nosuch")
		r.exec(tx, "RELEASE a")
		r.exec(tx, "SAVEPOINT a; SAVEPOINT a; INSERT INTO t VALUES (7, 'undone'); ROLLBACK TO a; RELEASE a; RELEASE a")
		r.exec(tx, "RELEASE a")
		rows := r.rows(tx, "SELECT a FROM t")
		r.next(rows)
		r.exec(tx, "SAVEPOINT s; INSERT INTO t VALUES (8, 'undone'); ROLLBACK TO s; RELEASE s")
		r.next(rows)
		r.over(rows)
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no such savepoint: nosuch", "row int64 6"}},

	{name: "failed statements do not end a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'in')")
		r.exec(tx, "INSERT OR FAIL INTO t VALUES (5, 'in'), (1, 'dup'), (6, 'never')")
		r.exec(tx, "INSERT OR ABORT INTO t VALUES (7, 'out'), (1, 'dup')")
		r.exec(tx, "INSERT OR IGNORE INTO t VALUES (1, 'dup')")
		r.query(tx, "INSERT INTO t VALUES (1, 'dup') RETURNING a")
		r.scan(tx, "SELECT nosuch")
		r.exec(tx, "VACUUM")
		r.exec(tx, "UPDATE t SET b = ?")
		r.exec(tx, "PRAGMA journal_mode = WAL")
		s := r.prepare(tx, "INSERT INTO t VALUES (?, 'p')")
		r.stmtExec(s, 1)
		r.stmtExec(s, 8)
		r.stmtExec(s, "text")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"cannot VACUUM from within a transaction", "row int64 8"}},

	{name: "transaction of a Conn", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		tx := r.tx(c)
		r.exec(c, "INSERT INTO t VALUES (4, 'beside')") // the same connection
		r.exec(tx, "INSERT INTO t VALUES (5, 'in')")
		r.begin(bg, c)
		r.exec(c, "BEGIN")
		r.query(c, "SELECT * FROM t")
		r.err("rollback", tx.Rollback())
		r.query(c, "SELECT * FROM t")
		tx = r.tx(c)
		r.exec(tx, "INSERT INTO t VALUES (6, 'in')")
		r.exec(c, "COMMIT")
		r.err("commit", tx.Commit())
		r.err("close", c.Close())
		r.query(db, "SELECT * FROM t")
		r.stats(db)
	}, sees: []string{"within a transaction", "row int64 6"}},
}

var diffTextTransactions = []diffScenario{
	{name: "text transactions over the pool", one: true, on: "file wal memory shared", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, texts := range [][]string{
			{"BEGIN", "INSERT INTO t VALUES (4, 'in')", "COMMIT"},
			{"BEGIN IMMEDIATE TRANSACTION", "INSERT INTO t VALUES (5, 'out')", "ROLLBACK"},
			{"/* c */ begin exclusive; -- x", "INSERT INTO t VALUES (6, 'in')", "end transaction;"},
			{"BEGIN DEFERRED", "INSERT INTO t VALUES (1, 'dup')", "INSERT INTO t VALUES (7, 'in')", "COMMIT TRANSACTION"},
			{"BEGIN", "BEGIN", "ROLLBACK TRANSACTION", "ROLLBACK", "COMMIT"},
			{"SAVEPOINT a", "INSERT INTO t VALUES (8, 'in')", "RELEASE a"},
			{"SAVEPOINT a", "INSERT INTO t VALUES (9, 'out')", "ROLLBACK TO a", "INSERT INTO t VALUES (10, 'in')", "RELEASE a"},
			{"SAVEPOINT a", "SAVEPOINT b", "INSERT INTO t VALUES (11, 'in')", "RELEASE a", "RELEASE b"},
			{"SAVEPOINT a", "INSERT INTO t VALUES (12, 'in')", "BEGIN", "COMMIT", "RELEASE a"},
			{"SAVEPOINT a", "INSERT INTO t VALUES (13, 'out')", "ROLLBACK", "RELEASE a"},
			{"BEGIN", "SAVEPOINT a", "INSERT INTO t VALUES (14, 'in')", "COMMIT", "ROLLBACK TO a"},
		} {
			for _, text := range texts {
				r.exec(db, text)
				r.stats(db)
			}
			r.query(db, "SELECT * FROM t")
		}
	}, sees: []string{"within a transaction", "no transaction is active", "no such savepoint", "row int64 14"}},

	{name: "whole transactions in one text", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (4, 'in'); COMMIT")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (5, 'in'), (6, 'in'); COMMIT; -- over")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (7, 'out'); ROLLBACK;")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, ?); UPDATE t SET b = ? WHERE a = ?; COMMIT", 8, "in", "changed", 4)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, ?); SELECT * FROM t WHERE a = ?; COMMIT; DELETE FROM t WHERE a = ?", 9, "in", 1, 1)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?2, ?1); COMMIT; UPDATE t SET b = ?2 || ?1 WHERE a = 10", "x", 10, "y", "z")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (:a, :b); COMMIT; UPDATE t SET b = :b || '!' WHERE a = :a", sql.Named("b", "named"), sql.Named("a", 11))
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, 'more'); COMMIT", 12, "unused")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (:a, :b); COMMIT; UPDATE t SET b = :c || :b WHERE a = :a",
			sql.Named("a", 17), sql.Named("b", "b"), sql.Named("c", "c"), sql.Named("d", "d"), sql.Named("e", "e"))
		r.query(db, "BEGIN; INSERT INTO t VALUES (:a, :b); COMMIT; SELECT b || :c FROM t WHERE a = :a",
			sql.Named("a", 18), sql.Named("b", "b"), sql.Named("c", "c"), sql.Named("d", "d"))
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, :b); COMMIT; UPDATE t SET b = :b || ? WHERE a = ?", 19, sql.Named("b", "b"), "x", "y", 19)
		r.exec(db, "SAVEPOINT s; INSERT INTO t VALUES (13, 'in'); SAVEPOINT s; INSERT INTO t VALUES (14, 'out'); ROLLBACK TO s; RELEASE s; RELEASE s")
		r.query(db, "BEGIN; INSERT INTO t VALUES (15, 'in'); COMMIT; SELECT count(*) FROM t")
		r.query(db, "BEGIN; INSERT INTO t VALUES (?, 'in'); COMMIT; SELECT * FROM t WHERE a = ?", 16, 16)
		r.query(db, "SELECT * FROM t")
		r.exec(db, "COMMIT")
		r.exec(db, "BEGIN")
		r.exec(db, "ROLLBACK")
	}, sees: []string{"row int64 16", "no transaction is active", `text "zy"`, `row int64 17, text "cb"`, `row text "bc"`}},

	{name: "whole transactions with too few arguments", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, ?); COMMIT", 4)
		r.exec(db, "INSERT INTO t VALUES (5, 'in')")
		r.exec(db, "COMMIT")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, ?); INSERT INTO t VALUES (?, ?); COMMIT", 6, "in", 7)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, ?); COMMIT")
		r.exec(db, "ROLLBACK")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, ?); COMMIT")
		r.query(db, "INSERT INTO t VALUES (?, ?); COMMIT; SELECT ?", 8, "in")
		r.exec(db, "ROLLBACK")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"want 2 got 1", "want 2 got 0", "within a transaction"}},

	{name: "failure in a text transaction leaves it open", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "BEGIN; INSERT INTO t VALUES (4, 'out'); INSERT INTO nosuch VALUES (1); COMMIT")
		r.query(db, "SELECT count(*) FROM t")
		r.exec(db, "BEGIN")
		r.begin(bg, db)
		r.stats(db)
		r.exec(db, "ROLLBACK")
		r.query(db, "SELECT count(*) FROM t")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (5, 'in'); INSERT INTO t VALUES (1, 'dup'); COMMIT")
		r.exec(db, "INSERT INTO t VALUES (6, 'in')")
		r.exec(db, "COMMIT")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (?, 'in'); INSERT INTO t VALUES (?, 'dup'); COMMIT", 7, 1)
		r.exec(db, "COMMIT; INSERT INTO t VALUES (8, 'in'); BEGIN; INSERT INTO t VALUES (9, 'out')")
		r.exec(db, "ROLLBACK; INSERT INTO t VALUES (10, 'in')")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (11, 'in'); COMMIT; INSERT INTO nosuch VALUES (1)")
		r.exec(db, "INSERT INTO t VALUES (12, 'in')")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"within a transaction", "row int64 12"}},

	{name: "text transaction and database/sql's own", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "BEGIN")
		r.exec(db, "INSERT INTO t VALUES (4, 'in')")
		r.begin(bg, db)
		ctx, cancel := context.WithCancel(bg)
		r.begin(ctx, db)
		cancel()
		r.exec(db, "INSERT INTO t VALUES (5, 'in')")
		r.exec(db, "COMMIT")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (6, 'in')")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"within a transaction", "row int64 6"}},

	{name: "transactions by Query and by prepared statements", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "BEGIN")
		r.exec(db, "INSERT INTO t VALUES (4, 'in')")
		r.scan(db, "COMMIT")
		begin, commit, rollback := r.prepare(db, "BEGIN"), r.prepare(db, "COMMIT"), r.prepare(db, "ROLLBACK")
		insert := r.prepare(db, "INSERT INTO t VALUES (?, ?)")
		for i, end := range []*sql.Stmt{commit, rollback} {
			r.stmtExec(begin)
			r.stmtExec(begin)
			r.stmtExec(insert, 10+i, "by exec")
			r.stmtExec(end)
			r.stmtExec(end)
			r.stmtQuery(begin)
			r.stmtExec(insert, 20+i, "by query")
			r.stmtQuery(end)
			r.stmtQuery(end)
			r.query(db, "SELECT * FROM t")
		}
		save, to, release := r.prepare(db, "SAVEPOINT s"), r.prepare(db, "ROLLBACK TO s"), r.prepare(db, "RELEASE s")
		r.stmtExec(save)
		r.stmtExec(insert, 30, "undone")
		r.stmtExec(to)
		r.stmtExec(insert, 31, "in")
		r.stmtExec(release)
		r.stmtExec(release)
		for _, s := range []*sql.Stmt{begin, commit, rollback, insert, save, to, release} {
			r.err("close", s.Close())
		}
		r.query(db, "SELECT * FROM t")
		r.exec(db, "ROLLBACK")
	}, sees: []string{"row int64 10", "row int64 20", "row int64 31", "no such savepoint: s"}},

	{name: "failure behind a text COMMIT in a query over the pool", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "BEGIN")
		r.exec(db, "INSERT INTO t VALUES (4, 'in')")
		r.query(db, "COMMIT; SELECT * FROM nosuch")
		r.exec(db, "INSERT INTO t VALUES (5, 'autocommit')")
		r.exec(db, "BEGIN")
		r.exec(db, "INSERT INTO t VALUES (6, 'out')")
		r.query(db, "ROLLBACK; SELECT ?")
		r.exec(db, "INSERT INTO t VALUES (7, 'autocommit')")
		r.query(db, "BEGIN; INSERT INTO t VALUES (8, 'in'); COMMIT; SELECT nosuch")
		r.exec(db, "INSERT INTO t VALUES (9, 'autocommit')")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"row int64 5", "row int64 7", "row int64 9"}},

	{name: "failure behind a text COMMIT with named arguments over the pool", one: true, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "BEGIN")
		r.exec(db, "INSERT INTO t VALUES (:a, 'in'); COMMIT; INSERT INTO t VALUES (:a, 'never')", sql.Named("a", 4))
		r.exec(db, "INSERT INTO t VALUES (5, 'autocommit')")
		r.exec(db, "BEGIN; INSERT INTO t VALUES (:a, 'in'); COMMIT; INSERT INTO t VALUES (:b, 'dup')", sql.Named("a", 6), sql.Named("b", 1))
		r.exec(db, "INSERT INTO t VALUES (7, 'autocommit')")
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"want 1 got 0", "UNIQUE constraint failed", "row int64 5", "row int64 7"}},

	{name: "text transaction of a Conn left open", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		db.SetMaxOpenConns(1)
		diffFilled(r, db)
		c := r.connection(db)
		r.exec(c, "BEGIN")
		r.exec(c, "INSERT INTO t VALUES (4, 'in')")
		r.err("close", c.Close())
		r.stats(db)
		r.query(db, "SELECT * FROM t")
		c = r.connection(db)
		s := r.prepare(c, "INSERT INTO t VALUES (5, 'in')")
		r.stmtExec(s)
		r.check(s.Close())
		r.exec(c, "COMMIT")
		r.err("close", c.Close())
		r.exec(db, "BEGIN")
		r.exec(db, "INSERT INTO t VALUES (6, 'lost with the connection')")
	}, sees: []string{"row int64 4"}},
}

var diffSchema = []diffScenario{
	{name: "ATTACH", on: "file wal memory", one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "ATTACH ? AS other", r.path("attached.db"))
		r.exec(db, "ATTACH ':memory:' AS mem")
		r.exec(db, "ATTACH ':memory:' AS mem")
		r.exec(db, "CREATE TABLE other.o (a, b)")
		r.exec(db, "CREATE TABLE mem.m AS SELECT * FROM t")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO other.o SELECT * FROM t")
		r.exec(tx, "DELETE FROM mem.m WHERE a = 2")
		r.exec(tx, "DETACH mem")
		r.err("commit", tx.Commit())
		r.query(db, "SELECT * FROM o JOIN m USING (a)")
		r.query(db, "SELECT name, file FROM pragma_database_list")
		r.exec(db, "DETACH other")
		r.exec(db, "DETACH nosuch")
		r.query(db, "SELECT * FROM o")
		r.exec(db, "DETACH mem; ATTACH ':memory:' AS mem; CREATE TABLE mem.n (x)")
		r.query(db, "SELECT * FROM mem.n")
		r.exec(db, "BEGIN; ATTACH ':memory:' AS late; COMMIT")
	}, sees: []string{"is already in use", "no such table: o", "DIR/attached.db"}},

	{name: "temporary tables", on: "file wal memory", one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "CREATE TEMP TABLE tmp AS SELECT * FROM t")
		r.exec(db, "CREATE TEMPORARY VIEW v AS SELECT a FROM tmp")
		r.exec(db, "CREATE TABLE temp.t (a)") // hides the other t
		r.query(db, "SELECT * FROM t")
		r.query(db, "SELECT * FROM v")
		r.query(db, "SELECT name FROM sqlite_temp_schema ORDER BY 1")
		tx := r.tx(db)
		r.exec(tx, "DELETE FROM tmp")
		r.err("rollback", tx.Rollback())
		r.query(db, "SELECT count(*) FROM tmp")
		r.exec(db, "DROP TABLE t")
		r.query(db, "SELECT * FROM t")
		db.SetMaxIdleConns(0)
		r.query(db, "SELECT 1")
		r.query(db, "SELECT * FROM tmp")
	}, sees: []string{"no such table: tmp"}},

	{name: "PRAGMA", on: "file wal memory", one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, text := range []string{
			"PRAGMA foreign_keys", "PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", "PRAGMA busy_timeout", "PRAGMA busy_timeout = 1234",
			"PRAGMA busy_timeout", "PRAGMA cache_size", "PRAGMA cache_size = -4000", "PRAGMA cache_size", "PRAGMA journal_mode",
			"PRAGMA main.journal_mode", "PRAGMA synchronous", "PRAGMA user_version", "PRAGMA user_version = 7", "PRAGMA user_version",
			"PRAGMA application_id(99)", "PRAGMA application_id", "PRAGMA table_info('t')", "PRAGMA index_list(t)", "PRAGMA integrity_check",
			"PRAGMA quick_check", "PRAGMA page_size", "PRAGMA encoding", "PRAGMA nosuch", "PRAGMA nosuch = 1", "PRAGMA recursive_triggers = 1",
			"PRAGMA recursive_triggers", "PRAGMA temp_store = MEMORY", "PRAGMA temp_store", "PRAGMA optimize", "PRAGMA shrink_memory",
			"PRAGMA case_sensitive_like = 1", "SELECT 'A' LIKE 'a'", "PRAGMA query_only = 1", "DELETE FROM t", "PRAGMA query_only = 0",
			"PRAGMA synchronous = bad", "PRAGMA foreign_keys = OFF; PRAGMA foreign_keys", "PRAGMA foreign_keys", "PRAGMA wal_checkpoint", "PRAGMA incremental_vacuum(1)", "PRAGMA foreign_key_check", "PRAGMA writable_schema",
		} {
			r.exec(db, text)
			r.query(db, text)
			if s, err := db.Prepare(text); err == nil {
				r.stmtQuery(s)
				r.stmtExec(s)
				r.check(s.Close())
			}
		}
		r.exec(db, "BEGIN; PRAGMA foreign_keys = ON; COMMIT") // has no effect there
		r.query(db, "PRAGMA foreign_keys")
		r.query(db, "BEGIN; PRAGMA cache_size = -999; COMMIT; PRAGMA foreign_keys = ON; PRAGMA foreign_keys")
		tx := r.tx(db)
		r.exec(tx, "PRAGMA foreign_keys = OFF")
		r.query(tx, "PRAGMA foreign_keys")
		r.exec(tx, "PRAGMA user_version = 8")
		r.err("rollback", tx.Rollback())
		r.query(db, "PRAGMA user_version")
	}, sees: []string{"row int64 1234", "row int64 -4000"}},

	{name: "triggers", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "CREATE TABLE log (x)")
		r.exec(db, "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('; a'); UPDATE t SET b = 'by trigger' WHERE a = new.a; END")
		r.exec(db, "INSERT INTO t VALUES (4, 'four')")
		r.query(db, "SELECT * FROM t")
		r.exec(db, "DROP TRIGGER tr; CREATE TRIGGER tr2 AFTER DELETE ON t BEGIN SELECT CASE WHEN old.a = 3 THEN raise(ABORT, 'not three') END; "+
			"INSERT INTO log VALUES (old.a); END; DELETE FROM t WHERE a = 1")
		r.exec(db, "DELETE FROM t")
		r.exec(db, "BEGIN; CREATE TRIGGER tr3 BEFORE UPDATE ON t BEGIN INSERT INTO log VALUES ('upd'); END; UPDATE t SET b = 'x'; COMMIT; DROP TRIGGER tr3")
		r.exec(db, "CREATE TEMP TRIGGER tmp AFTER INSERT ON t BEGIN INSERT INTO log VALUES ('temp'); END; INSERT INTO t VALUES (9, 'nine')")
		r.query(db, "SELECT * FROM log")
		r.query(db, "SELECT * FROM t")
	}, one: true, sees: []string{"not three", `text "upd"`, `text "by trigger"`}},

	{name: "EXPLAIN", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "EXPLAIN SELECT b FROM t WHERE a = 1")
		r.query(db, "EXPLAIN QUERY PLAN SELECT b FROM t WHERE a = ?", 1)
		r.exec(db, "EXPLAIN DELETE FROM t")
		r.exec(db, "EXPLAIN BEGIN")
		r.query(db, "EXPLAIN COMMIT")
		r.exec(db, "EXPLAIN BEGIN; INSERT INTO t VALUES (4, 'in')")
		r.exec(db, "ROLLBACK")
		r.query(db, "SELECT count(*) FROM t")
	}, one: true, sees: []string{"SEARCH t USING INTEGER PRIMARY KEY", "no transaction is active"}},

	{name: "VACUUM", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.exec(db, "VACUUM")
		r.exec(db, "VACUUM INTO ?", r.path("copy.db"))
		r.exec(db, "VACUUM INTO ?", r.path("copy.db"))
		r.exec(db, "BEGIN; VACUUM; COMMIT")
		r.exec(db, "ROLLBACK; VACUUM")
		r.exec(db, "REINDEX; ANALYZE")
		r.query(db, "SELECT * FROM t")
	}, one: true, sees: []string{"output file already exists", "left: copy.db"}},

	{name: "FTS3 and RTREE", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		r.exec(db, "CREATE VIRTUAL TABLE f USING fts3(title, body)")
		r.exec(db, "INSERT INTO f VALUES ('first', 'the quick brown fox'), ('second', 'the lazy dog')")
		r.query(db, "SELECT rowid, *, snippet(f) FROM f WHERE f MATCH 'quick OR lazy'")
		r.query(db, "SELECT * FROM f WHERE body MATCH '\"open'")
		r.exec(db, "CREATE VIRTUAL TABLE rt USING rtree(id, x0, x1)")
		tx := r.tx(db)
		for i := range 20 {
			r.exec(tx, "INSERT INTO rt VALUES (?, ?, ?)", i, i, i+2)
		}
		r.exec(tx, "INSERT INTO rt VALUES (99, 2, 1)")
		r.exec(tx, "INSERT INTO f (f) VALUES ('optimize')")
		r.query(tx, "SELECT id FROM rt WHERE x0 <= 5 AND x1 >= 5")
		r.err("commit", tx.Commit())
		s := r.prepare(db, "SELECT title FROM f WHERE f MATCH ?")
		r.stmtQuery(s, "dog")
		r.check(s.Close())
		r.exec(db, "CREATE VIRTUAL TABLE no USING nosuch(x)")
		rows := r.rows(db, "SELECT * FROM f WHERE f MATCH 'the'")
		r.next(rows)
		r.over(rows)
		r.exec(db, "DROP TABLE rt")
	}, sees: []string{"<b>quick</b>", "no such module: nosuch", "rtree constraint failed: rt.(x0<=x1)"}},

	{name: "JSON, CTE and windows", on: "memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.query(db, "SELECT json_object('a', a, 'b', b), json_group_array(b) OVER (ORDER BY a) FROM t")
		r.query(db, "SELECT key, value, type FROM json_each(?)", `{"x": [1, 2.5, null], "y": true}`)
		r.query(db, "SELECT ? ->> '$.x[1]'", `{"x": [1, 2]}`)
		r.query(db, "SELECT json('{')")
		r.query(db, "WITH RECURSIVE f(n, a, b) AS (SELECT 1, 0, 1 UNION ALL SELECT n + 1, b, a + b FROM f WHERE n < 20) SELECT n, a FROM f")
		r.exec(db, "WITH d AS (SELECT a FROM t WHERE a > 1) DELETE FROM t WHERE a IN d")
		r.query(db, "SELECT a, row_number() OVER (), lag(b, 1, 'none') OVER (ORDER BY a) FROM t")
		r.query(db, "SELECT * FROM t, generate_series(1, 2)")
	}, sees: []string{"malformed JSON", "int64 4181"}},

	{name: "schema changes under prepared statements", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		all := r.prepare(db, "SELECT * FROM t")
		insert := r.prepare(db, "INSERT INTO t (b) VALUES (?)")
		one := r.prepare(db, "SELECT b FROM t WHERE a = ?")
		r.stmtQuery(all)
		for _, text := range []string{
			"ALTER TABLE t ADD COLUMN c INTEGER DEFAULT 5", "CREATE INDEX i ON t (b)", "ALTER TABLE t RENAME COLUMN c TO d", "VACUUM",
			"ALTER TABLE t RENAME TO u", "ALTER TABLE u RENAME TO t", "DROP TABLE t", diffTable, "CREATE VIEW w AS SELECT * FROM t",
		} {
			r.exec(db, text)
			r.stmtQuery(all)
			r.stmtExec(insert, text)
			r.stmtQuery(one, 1)
		}
		for _, s := range []*sql.Stmt{all, insert, one} {
			r.err("close", s.Close())
		}
		c := r.connection(db)
		bound := r.prepare(c, "SELECT * FROM t")
		r.exec(c, "ALTER TABLE t ADD COLUMN e")
		r.stmtExec(bound)
		r.stmtQuery(bound)
		r.check(bound.Close())
		r.err("close", c.Close())
	}, sees: []string{"no such table: t", "d: \"INTEGER\""}},

	{name: "schema changed by another connection", on: "file wal", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "SELECT * FROM t")
		r.stmtQuery(s)
		other := r.open("")
		r.exec(other, "ALTER TABLE t ADD COLUMN c DEFAULT 'new'")
		r.stmtQuery(s)
		r.query(db, "SELECT * FROM t")
		r.exec(other, "DROP TABLE t")
		r.stmtQuery(s)
		r.check(s.Close())
	}, sees: []string{`text "new"`, "no such table: t"}},
}

var diffConns = []diffScenario{
	{name: "Conn", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		r.stats(db)
		r.exec(c, "CREATE TEMP TABLE mine AS SELECT * FROM t")
		r.query(c, "SELECT * FROM mine")
		s := r.prepare(c, "INSERT INTO mine VALUES (?, ?)")
		r.stmtExec(s, 4, "four")
		r.scan(c, "SELECT count(*) FROM mine")
		r.err("ping", c.PingContext(bg))
		r.err("close", c.Close())
		r.err("close", c.Close())
		r.stats(db)
		r.exec(c, "SELECT 1")
		r.query(c, "SELECT 1")
		r.scan(c, "SELECT 1")
		r.prepareFails(c, "SELECT 1")
		r.begin(bg, c)
		r.err("ping", c.PingContext(bg))
		r.err("raw", r.raw(c, func(*sqlite3.SQLiteConn) error { return nil }))
		r.stmtExec(s, 5, "five")
		r.err("close", s.Close())
		r.stats(db)
	}, sees: []string{"is sql.ErrConnDone itself"}},

	{name: "Raw: backup", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		target, err := r.sqlOpen("file:" + r.path("backup.db"))
		r.check(err)
		defer target.Close()
		from, to := r.connection(db), r.connection(target)
		r.err("raw", r.raw(from, func(src *sqlite3.SQLiteConn) error {
			return r.raw(to, func(dest *sqlite3.SQLiteConn) error {
				b, err := dest.Backup("main", src, "main")
				if err != nil {
					return err
				}
				for done := false; !done; {
					done, err = b.Step(1)
					r.note("step: %t, %d of %d left, %s", done, b.Remaining(), b.PageCount(), diffErr(err))
					if err != nil {
						break
					}
				}
				return b.Finish()
			})
		}))
		r.err("raw", r.raw(from, func(src *sqlite3.SQLiteConn) error {
			_, err := src.Backup("main", src, "main")
			return err
		}))
		r.query(to, "SELECT * FROM t")
		r.err("close", from.Close())
		r.err("close", to.Close())
		r.stats(target)
		r.query(target, "SELECT * FROM t")
		r.err("close", target.Close())
	}, sees: []string{"step: true", "source and destination must be distinct"}},

	{name: "Raw: functions and facts", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		r.err("raw", r.raw(c, func(sc *sqlite3.SQLiteConn) error {
			r.note("autocommit %t, file %s, limit %d", sc.AutoCommit(), sc.GetFilename("main"), sc.GetLimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
			return errors.Join(
				sc.RegisterFunc("twice", func(x int64) int64 { return 2 * x }, true),
				sc.RegisterCollation("backwards", func(a, b string) int { return strings.Compare(b, a) }),
				sc.RegisterAggregator("product", func() *diffProduct { return &diffProduct{1} }, true),
			)
		}))
		r.query(c, "SELECT twice(a), b FROM t ORDER BY b COLLATE backwards")
		r.query(c, "SELECT product(a + 1) FROM t")
		r.err("raw", r.raw(c, func(sc *sqlite3.SQLiteConn) error { sc.SetLimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 2); return nil }))
		r.query(c, "SELECT ?, ?, ?", 1, 2, 3)
		r.err("raw", r.raw(c, func(sc *sqlite3.SQLiteConn) error {
			res, err := sc.Exec("INSERT INTO t VALUES (?, 'raw')", []driver.Value{int64(4)})
			r.result("exec", res, err)
			rows, err := sc.Query("SELECT b FROM t WHERE a > 2", nil)
			if err != nil {
				return err
			}
			defer rows.Close()
			row := make([]driver.Value, 1)
			for err = rows.Next(row); err == nil; err = rows.Next(row) {
				r.note("%s", diffValue(row[0]))
			}
			r.err("next", err)
			return errDiff
		}))
		r.query(c, "SELECT * FROM t")
		r.err("close", c.Close())
		r.stats(db)
	}, sees: []string{"row int64 24", "too many SQL variables", "is errDiff itself"}},

	{name: "Raw: bad connections and panics", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		r.err("raw", r.raw(c, func(*sqlite3.SQLiteConn) error { return driver.ErrBadConn }))
		r.stats(db)
		r.query(c, "SELECT 1")
		r.err("close", c.Close())
		c = r.connection(db)
		func() {
			defer func() { r.note("panic: %v", recover()) }()
			r.raw(c, func(*sqlite3.SQLiteConn) error { panic("on purpose") })
		}()
		r.stats(db)
		r.err("close", c.Close())
		r.stats(db)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"panic: on purpose", "is driver.ErrBadConn", "pool: 0 of 0 open"}},

	{name: "Raw: transaction begun and ended outside", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		raw := func(c *sql.Conn, text string) {
			r.err("raw "+text, r.raw(c, func(sc *sqlite3.SQLiteConn) error {
				_, err := sc.Exec(text, nil)
				return err
			}))
		}
		c := r.connection(db)
		raw(c, "BEGIN")
		r.exec(c, "INSERT INTO t VALUES (4, 'in')")
		r.exec(c, "INSERT INTO t VALUES (4, 'dup')")
		r.exec(c, "COMMIT")
		raw(c, "BEGIN")
		r.exec(c, "INSERT INTO t VALUES (5, 'out')")
		raw(c, "ROLLBACK")
		r.exec(c, "INSERT INTO t VALUES (6, 'autocommit')")
		tx := r.tx(c)
		r.exec(tx, "INSERT INTO t VALUES (7, 'in')")
		raw(c, "COMMIT")
		r.err("commit", tx.Commit())
		r.err("close", c.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"no transaction is active", "row int64 7"}},

	{name: "Raw: text transaction ended outside, then a failure", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		r.exec(c, "BEGIN")
		r.exec(c, "INSERT INTO t VALUES (4, 'in')")
		r.err("raw", r.raw(c, func(sc *sqlite3.SQLiteConn) error {
			_, err := sc.Exec("COMMIT", nil)
			return err
		}))
		r.exec(c, "INSERT INTO t VALUES (4, 'dup')") // fails, and rolls nothing back
		r.exec(c, "INSERT INTO t VALUES (5, 'autocommit')")
		r.query(c, "SELECT * FROM t")
		r.err("close", c.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"row int64 5"}},

	{name: "Raw: text transaction ended outside, then Prepare or rows fail", on: "file wal memory", hook: diffFail, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		end := func(c *sql.Conn) {
			r.err("raw", r.raw(c, func(sc *sqlite3.SQLiteConn) error {
				_, err := sc.Exec("COMMIT", nil)
				return err
			}))
		}
		c := r.connection(db)
		r.exec(c, "BEGIN; INSERT INTO t VALUES (4, 'in')")
		end(c)
		r.prepareFails(c, "SELECT * FROM nosuch")
		r.exec(c, "INSERT INTO t VALUES (5, 'autocommit')")
		r.err("close", c.Close())

		c = r.connection(db)
		r.exec(c, "BEGIN; INSERT INTO t VALUES (6, 'in')")
		rows := r.rows(c, "SELECT fail(a, 2) FROM t ORDER BY a")
		r.next(rows)
		end(c)
		r.next(rows)
		r.over(rows)
		r.exec(c, "INSERT INTO t VALUES (7, 'autocommit')")
		r.err("close", c.Close())

		c = r.connection(db)
		r.exec(c, "BEGIN; INSERT INTO t VALUES (8, 'in')")
		s := r.prepare(c, "SELECT fail(a, ?) FROM t ORDER BY a")
		rows, err := s.Query(2)
		r.check(err)
		end(c)
		r.next(rows)
		r.next(rows)
		r.over(rows)
		r.stmtQuery(s, 1)
		r.stmtExec(s, 1)
		r.check(s.Close())
		r.exec(c, "INSERT INTO t VALUES (9, 'autocommit')")
		r.err("close", c.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"on purpose", "no such table: nosuch", "row int64 5", "row int64 7", "row int64 9"}},

	{name: "Raw: transaction begun outside, then Begin", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		raw := func(text string) {
			r.err("raw "+text, r.raw(c, func(sc *sqlite3.SQLiteConn) error {
				_, err := sc.Exec(text, nil)
				return err
			}))
		}
		raw("BEGIN")
		raw("INSERT INTO t VALUES (4, 'in')")
		r.begin(bg, c)
		raw("COMMIT")
		r.err("close", c.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"within a transaction", "row int64 4"}},

	{name: "transaction begun by ConnectHook", on: "file memory", one: true, hook: func(r *diffRec, c *sqlite3.SQLiteConn) error {
		_, err := c.Exec("CREATE TABLE IF NOT EXISTS h (x); BEGIN", nil)
		return err
	}, run: func(r *diffRec, db *sql.DB) {
		r.exec(db, "INSERT INTO h VALUES (1)")
		r.begin(bg, db)
		r.exec(db, "INSERT INTO h VALUES (2)")
		r.exec(db, "COMMIT")
		r.query(db, "SELECT * FROM h")
	}, sees: []string{"within a transaction", "row int64 2"}},
}

type diffProduct struct{ n int64 }

func (p *diffProduct) Step(x int64) { p.n *= x }
func (p *diffProduct) Done() int64  { return p.n }

var diffDSNs = []diffScenario{
	{name: "_loc", on: "memory", run: func(r *diffRec, db *sql.DB) {
		for _, loc := range []string{"UTC", "auto", "Europe/Berlin", "No/Where"} {
			other, err := r.sqlOpen("file::memory:?_loc=" + loc)
			r.check(err)
			other.SetMaxOpenConns(1)
			r.err(loc, other.Ping())
			r.exec(other, "CREATE TABLE l (at TIMESTAMP, day DATE)")
			r.exec(other, "INSERT INTO l VALUES (?, ?)", time.Date(2024, 7, 1, 12, 0, 0, 0, time.UTC), "2024-07-01")
			r.exec(other, "INSERT INTO l VALUES (1709210096, 1709210096789)")
			r.query(other, "SELECT * FROM l")
			r.err("close", other.Close())
		}
	}, sees: []string{"Invalid _loc: No/Where"}},

	{name: "parameters that hold", dsn: "_leakguard_max_pools=100", on: "file", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, params := range []string{
			"_foreign_keys=1", "_fk=true", "_query_only=true", "_mutex=no", "_mutex=full", "_busy_timeout=77", "_timeout=78", "_cache_size=-123",
			"_recursive_triggers=1", "_rt=1", "_secure_delete=FAST", "_cslike=1", "_defer_fk=1", "_ignore_check_constraints=1", "_sync=EXTRA",
			"_auto_vacuum=full", "_journal=TRUNCATE", "_locking=NORMAL", "_writable_schema=1", "mode=rwc", "cache=private", "unknown=1", "_unknown=1",
			"_stmt_cache_size=2&_foreign_keys=1", "_busy_timeout=5&_busy_timeout=6", "immutable=1&mode=ro",
		} {
			other := r.open(params)
			other.SetMaxOpenConns(1)
			r.err(params, other.Ping())
			for _, name := range []string{
				"foreign_keys", "query_only", "busy_timeout", "cache_size", "recursive_triggers", "secure_delete", "defer_foreign_keys",
				"ignore_check_constraints", "synchronous", "auto_vacuum", "journal_mode", "locking_mode", "writable_schema",
			} {
				r.scan(other, "PRAGMA "+name)
			}
			r.scan(other, "SELECT 'A' LIKE 'a'")
			r.exec(other, "UPDATE t SET b = b")
			tx := r.tx(other)
			r.exec(tx, "UPDATE t SET b = ?", params)
			r.err("commit", tx.Commit())
		}
	}, sees: []string{"PRAGMA busy_timeout: int64 77", "PRAGMA cache_size: int64 -123"}},

	{name: "parameters that are wrong", on: "file", run: func(r *diffRec, db *sql.DB) {
		for _, params := range []string{
			"_journal_mode=BAD", "_journal=BAD", "_loc=Bad", "_mutex=bad", "_txlock=bad", "_auto_vacuum=9", "_busy_timeout=soon",
			"_case_sensitive_like=maybe", "_defer_foreign_keys=maybe", "_foreign_keys=maybe", "_ignore_check_constraints=maybe",
			"_locking_mode=maybe", "_query_only=maybe", "_recursive_triggers=maybe", "_secure_delete=maybe", "_synchronous=maybe",
			"_writable_schema=maybe", "_cache_size=big", "_stmt_cache_size=-1", "_stmt_cache_size=x", "mode=bad", "cache=bad", "vfs=bad",
			"a=%zz", "a;b", "%", "_busy_timeout=%35", "&&", "=", "_txlock=", "_auth&_auth_user=u", "_journal_mode=WAL#_txlock=bad",
		} {
			dsn := r.dsn + "&" + params
			other, err := r.sqlOpen(dsn)
			r.err("open "+params, err)
			if err != nil {
				continue
			}
			r.err("ping", other.Ping())
			r.exec(other, "SELECT 1")
			r.begin(bg, other)
			r.stats(other)
			r.err("close", other.Close())
		}
	}, sees: []string{"Invalid _journal: BAD, expecting value of", "invalid URL escape", "Invalid _txlock: bad"}},

	{name: "kinds of database", on: "file", run: func(r *diffRec, db *sql.DB) {
		for _, dsn := range []string{
			":memory:", "file::memory:", "", "file:", "file:?_foreign_keys=1", ":memory:?_foreign_keys=1",
			"file:some?mode=memory", "file:/differential?vfs=memdb", r.path("bare.db"), r.path("bare.db") + "?_foreign_keys=1",
			"file:" + r.path("sp%20ace.db"), "file:" + r.path("fragment.db") + "#here", "file://" + r.path("authority.db"),
			"file://localhost" + r.path("host.db") + "?cache=private", r.path("hash#.db"),
		} {
			other, err := r.sqlOpen(dsn)
			r.err("open "+dsn, err)
			if err != nil {
				continue
			}
			other.SetMaxOpenConns(1)
			r.exec(other, "CREATE TABLE IF NOT EXISTS x (a)")
			r.exec(other, "BEGIN; INSERT INTO x VALUES (?); COMMIT", dsn)
			r.query(other, "SELECT count(*) FROM x")
			r.scan(other, "PRAGMA foreign_keys")
			r.query(other, "SELECT file FROM pragma_database_list")
			r.err("close", other.Close())
		}
	}, sees: []string{"left: sp ace.db", "left: fragment.db"}},

	{name: "_mutex=no", dsn: "_mutex=no", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'four')")
		r.query(tx, "SELECT * FROM t")
		r.err("commit", tx.Commit())
		s := r.prepare(db, "SELECT b FROM t WHERE a = ?")
		r.stmtQuery(s, 4)
		r.check(s.Close())
		r.exec(db, "BEGIN; DELETE FROM t WHERE a = ?; COMMIT", 1)
		r.stats(db)
	}},
}

var diffPools = []diffScenario{
	{name: "no idle connections", on: "file wal shared", run: func(r *diffRec, db *sql.DB) {
		keep := r.open("") // a shared cache lives as long as a connection
		r.err("ping", keep.Ping())
		db.SetMaxIdleConns(0)
		diffFilled(r, db)
		r.stats(db)
		r.query(db, "SELECT * FROM t")
		r.stats(db)
		s := r.prepare(db, "SELECT b FROM t WHERE a = ?")
		r.stmtQuery(s, 1)
		r.stmtQuery(s, 2)
		r.stats(db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (4, 'four')")
		r.stats(db)
		r.err("commit", tx.Commit())
		r.stats(db)
		r.err("close", s.Close())
		db.SetMaxIdleConns(2)
		r.query(db, "SELECT * FROM t")
		r.stats(db)
		db.SetMaxIdleConns(0)
		r.stats(db)
	}, sees: []string{"pool: 0 of 0 open", "closed: 7 idle"}},

	{name: "short lifetime", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		db.SetConnMaxLifetime(1)
		r.query(db, "SELECT * FROM t")
		r.stats(db)
		r.exec(db, "INSERT INTO t VALUES (4, 'four')")
		r.stats(db)
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (5, 'five')")
		r.err("commit", tx.Commit())
		r.stats(db)
		db.SetConnMaxLifetime(0)
		r.query(db, "SELECT * FROM t")
		r.stats(db)
	}, sees: []string{"4 lifetime"}},

	{name: "short idle time", on: "file", run: func(r *diffRec, db *sql.DB) {
		db.SetConnMaxIdleTime(1)
		diffFilled(r, db)
		r.until("the idle connection is closed", func() bool { return db.Stats().OpenConnections == 0 })
		r.note("%d closed", db.Stats().MaxIdleTimeClosed)
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"1 closed"}},

	{name: "several connections", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		db.SetMaxOpenConns(3)
		db.SetMaxIdleConns(1)
		s := r.prepare(db, "SELECT count(*) FROM t")
		var open []*sql.Conn
		for range 3 {
			if len(open) < 2 {
				r.stmtQuery(s)
			}
			open = append(open, r.connection(db))
			r.stats(db)
		}
		for i, c := range open {
			r.exec(c, "INSERT INTO t (b) VALUES (?)", i)
			r.err("close", c.Close())
			r.stats(db)
			r.stmtQuery(s)
		}
		r.err("close", s.Close())
		db.SetMaxOpenConns(1)
		r.stats(db)
	}, sees: []string{"3 of 3 open", "closed: 2 idle"}},

	{name: "waiters get a new connection", on: "file", one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		r.exec(c, "BEGIN")
		r.exec(c, "INSERT INTO t VALUES (4, 'out')")
		done := make(chan error)
		go func() {
			_, err := db.Exec("INSERT INTO t VALUES (5, 'in')")
			done <- err
		}()
		r.until("somebody waits", func() bool { return db.Stats().WaitCount == 1 })
		r.err("raw", r.raw(c, func(*sqlite3.SQLiteConn) error { return driver.ErrBadConn }))
		r.err("waited", <-done)
		r.stats(db)
		r.query(db, "SELECT * FROM t")
		tx := r.tx(db)
		r.exec(tx, "INSERT INTO t VALUES (6, 'in')")
		r.err("commit", tx.Commit())
	}, sees: []string{"waited: ok", "row int64 5"}},

	{name: "Ping", on: "file memory", run: func(r *diffRec, db *sql.DB) {
		r.stats(db)
		r.err("ping", db.Ping())
		r.stats(db)
		r.err("ping", db.PingContext(bg))
		r.err("close", db.Close())
		r.err("ping", db.Ping())
		r.err("close", db.Close())
		r.stats(db)
	}, sees: []string{"sql: database is closed"}},

	{name: "pool that is never used", on: "file", run: func(r *diffRec, db *sql.DB) {
		r.stats(db)
	}},

	{name: "many goroutines", dsn: "_txlock=immediate", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		busy, err := r.sqlOpen(r.dsn) // its counts are a matter of luck
		r.check(err)
		busy.SetMaxOpenConns(2)
		var wg sync.WaitGroup
		errs := make(chan error, 80)
		for i := range 8 {
			wg.Go(func() {
				for j := range 10 {
					tx, err := busy.Begin()
					if err == nil {
						_, err = tx.Exec("INSERT INTO t VALUES (?, ?)", 100+i*10+j, "x")
						err = errors.Join(err, tx.Commit())
					}
					errs <- err
				}
			})
		}
		wg.Wait()
		close(errs)
		for err := range errs {
			r.err("insert", err)
		}
		r.err("close", busy.Close())
		r.query(db, "SELECT * FROM t")
	}, sees: []string{"row int64 179"}},
}

// TestDifferentialRandom makes programs up, from the statements that matter to
// whoever follows transactions, and compares as TestDifferential does.
func TestDifferentialRandom(t *testing.T) {
	leaks := diffLeaks(t)
	t.Run("programs", func(t *testing.T) {
		for seed := range uint64(60) {
			for _, storage := range []string{"wal", "memory"} {
				t.Run(fmt.Sprintf("%d/%s", seed, storage), func(t *testing.T) {
					t.Parallel()
					s := diffScenario{run: func(r *diffRec, db *sql.DB) { diffRandom(r, db, rand.New(rand.NewPCG(seed, 1))) }}
					if seed%4 == 0 {
						s.dsn = "_stmt_cache_size=4"
					}
					if d := diffOf(diffRun(t, diffRaw, &s, storage), diffRun(t, diffOurs, &s, storage)); d != "" {
						t.Errorf("the transcripts differ:\n%s", d)
					}
				})
			}
		}
	})
	leaks()
}

var diffPieces = []string{
	"BEGIN", "BEGIN IMMEDIATE", "COMMIT", "COMMIT", "END", "ROLLBACK", "ROLLBACK", "SAVEPOINT s", "SAVEPOINT u", "RELEASE s", "RELEASE u", "ROLLBACK TO s",
	"INSERT INTO t (b) VALUES ('x')", "INSERT INTO t (b) VALUES (?)", "INSERT INTO t VALUES (1, 'dup')", "INSERT INTO t (b) VALUES (?), (?) RETURNING a",
	"UPDATE t SET b = b || 'y' WHERE a % 3 = 0", "DELETE FROM t WHERE a = (SELECT max(a) FROM t)", "SELECT count(*), max(a) FROM t",
	"SELECT a FROM t ORDER BY a", "SELECT ?", "SELECT * FROM nosuch", "SELEC", "-- nothing", "", "PRAGMA user_version = 3", "PRAGMA user_version",
	"CREATE TEMP TABLE IF NOT EXISTS tmp (x)", "CREATE TRIGGER IF NOT EXISTS tr AFTER UPDATE ON t BEGIN SELECT 1; SELECT 2; END", "DROP TABLE IF EXISTS tmp",
}

// diffRandom runs a program of one connection. It leaves out what is meant to
// differ: see diffDeliberate.
func diffRandom(r *diffRec, db *sql.DB, rnd *rand.Rand) {
	diffFilled(r, db)
	c := r.connection(db)
	live, cancel := context.WithCancel(bg)
	defer cancel()
	over, cancelOver := context.WithCancel(bg)
	cancelOver()
	ctx := func() context.Context { return []context.Context{bg, bg, live}[rnd.IntN(3)] }
	var tx *sql.Tx
	var rows []*sql.Rows
	var stmts []*sql.Stmt
	text := func() (string, []any) {
		n := 1
		if rnd.IntN(3) == 0 {
			n += 1 + rnd.IntN(3)
		}
		var parts []string
		for range n {
			parts = append(parts, diffPieces[rnd.IntN(len(diffPieces))])
		}
		text := strings.Join(parts, []string{"; ", ";", ";\n"}[rnd.IntN(3)])
		var args []any
		for i := range strings.Count(text, "?") {
			args = append(args, fmt.Sprint("arg ", i))
		}
		if rnd.IntN(12) == 0 {
			args = append(args, "more")
		} else if rnd.IntN(12) == 0 && len(args) > 0 {
			args = args[1:]
		} else if rnd.IntN(6) == 0 && len(args) > 0 {
			for i := range args {
				text = strings.Replace(text, "?", fmt.Sprintf(":n%d", i), 1)
				args[i] = sql.Named(fmt.Sprint("n", i), i)
			}
		}
		return text, args
	}
	target := func() diffQuerier {
		if tx != nil && rnd.IntN(3) > 0 {
			return tx
		}
		return c
	}
	for range 60 {
		switch rnd.IntN(13) {
		case 0, 1, 2:
			text, args := text()
			r.execCtx(ctx(), target(), text, args...)
		case 3, 4:
			text, args := text()
			if rnd.IntN(10) == 0 { // with Exec, go-sqlite3 may run it all the same
				opened, err := target().QueryContext(over, text, args...)
				r.err("query "+text, err)
				if err == nil { // an empty text; database/sql closes the rows when it likes
					opened.Close()
				}
			} else {
				r.queryCtx(ctx(), target(), text, args...)
			}
		case 5:
			if len(rows) < 3 {
				text, args := text()
				opened, err := target().QueryContext(ctx(), text, args...)
				r.err("rows "+text, err)
				if err == nil {
					rows = append(rows, opened)
				}
			}
		case 6:
			for _, some := range rows {
				r.note("of open rows: %t, %s", r.next(some), diffErr(some.Err()))
			}
		case 7:
			if len(rows) > 0 {
				i := rnd.IntN(len(rows))
				r.over(rows[i])
				rows = slices.Delete(rows, i, i+1)
			}
		case 8:
			if tx == nil {
				var err error
				tx, err = c.BeginTx(ctx(), nil)
				r.err("begin", err)
				if err != nil {
					tx = nil
				}
			} else if rnd.IntN(3) == 0 {
				r.err("rollback", tx.Rollback())
				tx = nil
			} else {
				r.err("commit", tx.Commit())
				tx = nil
			}
		case 9:
			if len(stmts) < 4 {
				text, _ := text()
				s, err := c.PrepareContext(ctx(), text)
				r.err("prepare "+text, err)
				if err == nil && text != "" && 'A' <= text[0] && text[0] <= 'Z' {
					stmts = append(stmts, s)
				} else if err == nil {
					r.check(s.Close()) // go-sqlite3 crashes when an empty statement is run
				}
			}
		case 10:
			if len(stmts) > 0 {
				opened, err := stmts[rnd.IntN(len(stmts))].QueryContext(ctx(), make([]any, rnd.IntN(3))...)
				r.err("query prepared", err)
				if err == nil {
					r.all(opened)
				}
			}
		case 11:
			r.err("raw", r.raw(c, func(sc *sqlite3.SQLiteConn) error {
				r.note("autocommit %t", sc.AutoCommit())
				if rnd.IntN(4) == 0 {
					_, err := sc.Exec([]string{"BEGIN", "COMMIT", "INSERT INTO t (b) VALUES ('raw')"}[rnd.IntN(3)], nil)
					return err
				}
				return nil
			}))
		case 12:
			if tx == nil && len(rows) == 0 { // over the pool, whatever is open
				for _, s := range stmts {
					r.err("close", s.Close())
				}
				stmts = stmts[:0]
				r.err("close", c.Close())
				r.stats(db)
				c = r.connection(db)
			}
		}
	}
	for _, s := range stmts {
		r.err("close", s.Close())
	}
	for _, some := range rows {
		r.over(some)
	}
	if tx != nil {
		r.err("commit", tx.Commit())
	}
	r.exec(c, "ROLLBACK")
	r.err("close", c.Close())
	r.query(db, "SELECT * FROM t")
}

// diffDifference is where the guard means to differ.
type diffDifference struct {
	diffScenario
	why       string
	raw, ours []string // the whole transcripts
}

// TestDifferentialDeliberate pins down both behaviours of every difference that
// is meant.
func TestDifferentialDeliberate(t *testing.T) {
	for _, d := range diffDeliberate {
		d.brief = true
		for _, storage := range d.storages() {
			t.Run(d.name+"/"+storage, func(t *testing.T) {
				t.Parallel()
				for _, side := range []*diffSide{diffRaw, diffOurs} {
					want := d.raw
					if side == diffOurs {
						want = d.ours
					}
					if got := diffRun(t, side, &d.diffScenario, storage); !slices.Equal(got, want) {
						t.Errorf("%s (why they differ: %s)\ngot:\n%s\nwant:\n%s", side.name, d.why, strings.Join(got, "\n"), strings.Join(want, "\n"))
					}
				}
			})
		}
	}
}

const (
	whyKept  = "a connection that is proven clean need not be thrown away; it may hold the only copy of the data"
	whyReset = "a statement that was only executed must not hold locks behind the program's back"
	whyAbort = "nothing of a half transaction may run in autocommit"
	whyCut   = "a short result must not look complete"
	whyAimed = "a cancellation hits only the operation that it was meant for"
	whyOver  = "what is cancelled before it begins does not begin"
	whyWait  = "a cancelled operation ends, also while it waits for a lock"
	whyOwn   = "the guard has to see what passes"
	whyFirst = "the first row is read when the query returns, and is the query's own"
)

func diffCount(r *diffRec, q diffQuerier) {
	var n int
	err := q.QueryRowContext(bg, "SELECT count(*) FROM t").Scan(&n)
	r.note("count: %d, %s", n, diffErr(err))
}

var diffDeliberate = []diffDifference{
	{diffScenario: diffScenario{name: "prepared statement run again before its first row was read", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		insert := r.prepare(tx, "INSERT INTO t (b) VALUES (?) RETURNING a")
		rows, err := insert.Query("first")
		r.check(err)
		again, err := insert.Query("second")
		r.check(err)
		var n int
		r.note("%v", again.Next() && again.Scan(&n) == nil)
		r.note("the second: %d", n)
		r.note("%v", rows.Next() && rows.Scan(&n) == nil)
		r.note("the first: %d", n)
		r.check(again.Close())
		r.check(rows.Close())
		r.err("commit", tx.Commit())
	}}, why: whyFirst,
		raw:  []string{"true", "the second: 5", "true", "the first: 5", "commit: ok"},
		ours: []string{"true", "the second: 5", "true", "the first: 4", "commit: ok"},
	},
	{diffScenario: diffScenario{name: "cancelled transaction", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		ctx, cancel := context.WithCancel(bg)
		tx, err := db.BeginTx(ctx, nil)
		r.check(err)
		r.must(tx, "INSERT INTO t VALUES (4, 'four')")
		rows := r.rows(tx, "SELECT * FROM t")
		cancel()
		r.until("the transaction is undone", func() bool { return db.Stats().InUse == 0 })
		s := db.Stats()
		r.note("%d open, %d idle", s.OpenConnections, s.Idle)
		r.note("next: %t", rows.Next())
		r.err("rows", rows.Err())
		r.err("commit", tx.Commit())
		r.err("rollback", tx.Rollback())
		diffCount(r, db)
	}}, why: whyKept, raw: []string{
		"0 open, 0 idle",
		"next: false",
		`rows: error *errors.errorString "context canceled" is context.Canceled itself`,
		`commit: error *errors.errorString "sql: transaction has already been committed or rolled back" is sql.ErrTxDone itself`,
		`rollback: error *errors.errorString "sql: transaction has already been committed or rolled back" is sql.ErrTxDone itself`,
		"count: 3, ok",
	}, ours: []string{
		"1 open, 1 idle",
		"next: false",
		`rows: error *errors.errorString "context canceled" is context.Canceled itself`,
		`commit: error *errors.errorString "sql: transaction has already been committed or rolled back" is sql.ErrTxDone itself`,
		`rollback: error *errors.errorString "sql: transaction has already been committed or rolled back" is sql.ErrTxDone itself`,
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "cancelled transaction in memory", on: "memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		ctx, cancel := context.WithCancel(bg)
		_, err := db.BeginTx(ctx, nil)
		r.check(err)
		cancel()
		r.until("the transaction is undone", func() bool { return db.Stats().InUse == 0 })
		diffCount(r, db)
	}}, why: whyKept, raw: []string{
		`count: 0, error sqlite3.Error "no such table: t" code 1/1/0`,
	}, ours: []string{
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "cancelled transaction of a Conn", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		ctx, cancel := context.WithCancel(bg)
		tx, err := c.BeginTx(ctx, nil)
		r.check(err)
		r.must(tx, "DELETE FROM t")
		cancel()
		r.until("the transaction is undone", func() bool {
			var n int
			return c.QueryRowContext(bg, "SELECT count(*) FROM t").Scan(&n) != nil || n == 3
		})
		diffCount(r, c)
		r.err("close", c.Close())
	}}, why: whyKept, raw: []string{
		`count: 0, error *errors.errorString "sql: connection is already closed" is sql.ErrConnDone itself`,
		`close: error *errors.errorString "sql: connection is already closed" is sql.ErrConnDone itself`,
	}, ours: []string{
		"count: 3, ok",
		"close: ok",
	}},

	{diffScenario: diffScenario{name: "prepared INSERT RETURNING by Exec", dsn: "_busy_timeout=0", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "INSERT INTO t VALUES (?, 'x') RETURNING a")
		r.stmtExec(s, 4)
		other := r.open("")
		r.exec(other, "INSERT INTO t VALUES (5, 'y')")
		diffCount(r, other)
		r.check(s.Close())
		diffCount(r, other)
	}}, why: whyReset, raw: []string{
		"exec prepared [int 4]: id 4 (ok), 3 affected (ok)",
		`exec INSERT INTO t VALUES (5, 'y'): error sqlite3.Error "database is locked" code 5/5/0`,
		"count: 3, ok",
		"count: 4, ok",
	}, ours: []string{
		"exec prepared [int 4]: id 4 (ok), 3 affected (ok)",
		"exec INSERT INTO t VALUES (5, 'y'): id 5 (ok), 1 affected (ok)",
		"count: 5, ok",
		"count: 5, ok",
	}},

	{diffScenario: diffScenario{name: "prepared INSERT RETURNING by Exec in a transaction", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.stmtExec(r.prepare(tx, "INSERT INTO t VALUES (?, 'x') RETURNING a"), 4)
		r.err("commit", tx.Commit())
		diffCount(r, db)
	}}, why: whyReset, raw: []string{
		"exec prepared [int 4]: id 4 (ok), 3 affected (ok)",
		`commit: error sqlite3.Error "cannot commit transaction - SQL statements in progress" code 5/5/0`,
		"count: 3, ok",
	}, ours: []string{
		"exec prepared [int 4]: id 4 (ok), 3 affected (ok)",
		"commit: ok",
		"count: 4, ok",
	}},

	{diffScenario: diffScenario{name: "prepared SELECT by Exec", on: "file", dsn: "_busy_timeout=0", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		s := r.prepare(db, "SELECT * FROM t")
		r.stmtExec(s)
		other := r.open("")
		r.exec(other, "INSERT INTO t VALUES (4, 'x')")
		r.check(s.Close())
		diffCount(r, db)
	}}, why: whyReset, raw: []string{
		"exec prepared: id 3 (ok), 3 affected (ok)",
		`exec INSERT INTO t VALUES (4, 'x'): error sqlite3.Error "database is locked" code 5/5/0`,
		"count: 3, ok",
	}, ours: []string{
		"exec prepared: id 3 (ok), 3 affected (ok)",
		"exec INSERT INTO t VALUES (4, 'x'): id 4 (ok), 1 affected (ok)",
		"count: 4, ok",
	}},

	{diffScenario: diffScenario{name: "prepared INSERT RETURNING by Exec that fails to commit", dsn: "_foreign_keys=1", run: func(r *diffRec, db *sql.DB) {
		r.must(db, "CREATE TABLE t (id INTEGER PRIMARY KEY, up INTEGER REFERENCES t DEFERRABLE INITIALLY DEFERRED)")
		s := r.prepare(db, "INSERT INTO t VALUES (?, 99) RETURNING id")
		r.stmtExec(s, 1)
		s.Close()
		diffCount(r, db)
	}}, why: whyReset, raw: []string{
		"exec prepared [int 1]: id 1 (ok), 0 affected (ok)", // the change is lost all the same
		"count: 0, ok",
	}, ours: []string{
		`exec prepared [int 1]: error sqlite3.Error "constraint failed" code 19/787/0`,
		"count: 0, ok",
	}},

	{diffScenario: diffScenario{name: "transaction that OR ROLLBACK aborted", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		for _, commit := range []bool{true, false} {
			tx := r.tx(db)
			s := r.prepare(tx, "INSERT INTO t VALUES (?, 'prepared')")
			r.exec(tx, "INSERT INTO t VALUES (4, 'half')")
			r.exec(tx, "INSERT OR ROLLBACK INTO t VALUES (1, 'dup')")
			r.exec(tx, "DELETE FROM t WHERE a = 3")
			r.stmtExec(s, 5)
			if commit {
				r.err("commit", tx.Commit())
			} else {
				r.err("rollback", tx.Rollback())
			}
			diffCount(r, db)
			r.must(db, "DELETE FROM t WHERE a > 3")
		}
	}}, why: whyAbort, raw: []string{
		"exec INSERT INTO t VALUES (4, 'half'): id 4 (ok), 1 affected (ok)",
		`exec INSERT OR ROLLBACK INTO t VALUES (1, 'dup'): error sqlite3.Error "UNIQUE constraint failed: t.a" code 19/1555/0`,
		"exec DELETE FROM t WHERE a = 3: id 4 (ok), 1 affected (ok)",
		"exec prepared [int 5]: id 5 (ok), 1 affected (ok)",
		`commit: error sqlite3.Error "cannot commit - no transaction is active" code 1/1/0`,
		"count: 3, ok",
		"exec INSERT INTO t VALUES (4, 'half'): id 4 (ok), 1 affected (ok)",
		`exec INSERT OR ROLLBACK INTO t VALUES (1, 'dup'): error sqlite3.Error "UNIQUE constraint failed: t.a" code 19/1555/0`,
		"exec DELETE FROM t WHERE a = 3: id 4 (ok), 0 affected (ok)",
		"exec prepared [int 5]: id 5 (ok), 1 affected (ok)",
		`rollback: error sqlite3.Error "cannot rollback - no transaction is active" code 1/1/0`,
		"count: 3, ok",
	}, ours: []string{
		"exec INSERT INTO t VALUES (4, 'half'): id 4 (ok), 1 affected (ok)",
		`exec INSERT OR ROLLBACK INTO t VALUES (1, 'dup'): error sqlite3.Error "UNIQUE constraint failed: t.a" code 19/1555/0`,
		"exec DELETE FROM t WHERE a = 3: " + diffAborted,
		"exec prepared [int 5]: " + diffAborted,
		"commit: " + diffAborted,
		"count: 3, ok",
		"exec INSERT INTO t VALUES (4, 'half'): id 4 (ok), 1 affected (ok)",
		`exec INSERT OR ROLLBACK INTO t VALUES (1, 'dup'): error sqlite3.Error "UNIQUE constraint failed: t.a" code 19/1555/0`,
		"exec DELETE FROM t WHERE a = 3: " + diffAborted,
		"exec prepared [int 5]: " + diffAborted,
		`rollback: error sqlite3.Error "cannot rollback - no transaction is active" code 1/1/0`,
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "text transaction that OR ROLLBACK aborted", on: "file wal memory", one: true, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		r.exec(c, "BEGIN; INSERT INTO t VALUES (4, 'half')")
		rows := r.rows(c, "SELECT a FROM t")
		r.exec(c, "INSERT OR ROLLBACK INTO t VALUES (1, 'dup')")
		r.next(rows)
		r.note("next: %t", rows.Next())
		r.err("rows", rows.Err())
		r.check(rows.Close())
		r.exec(c, "DELETE FROM t WHERE a = 3")
		r.err("close", c.Close())
		diffCount(r, db)
	}}, why: whyAbort, raw: []string{
		"exec BEGIN; INSERT INTO t VALUES (4, 'half'): id 4 (ok), 1 affected (ok)",
		`exec INSERT OR ROLLBACK INTO t VALUES (1, 'dup'): error sqlite3.Error "UNIQUE constraint failed: t.a" code 19/1555/0`,
		"  row int64 1",
		"next: true",
		"rows: ok",
		"exec DELETE FROM t WHERE a = 3: id 4 (ok), 1 affected (ok)",
		"close: ok",
		"count: 2, ok",
	}, ours: []string{
		"exec BEGIN; INSERT INTO t VALUES (4, 'half'): id 4 (ok), 1 affected (ok)",
		`exec INSERT OR ROLLBACK INTO t VALUES (1, 'dup'): error sqlite3.Error "UNIQUE constraint failed: t.a" code 19/1555/0`,
		"next: false",
		"rows: " + diffAborted,
		"exec DELETE FROM t WHERE a = 3: " + diffAborted,
		"close: ok",
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "transaction whose INSERT was interrupted", hook: diffStop, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.must(tx, "INSERT INTO t VALUES (4, 'half')")
		ctx, cancel := context.WithCancel(bg)
		r.stop = cancel
		r.execCtx(ctx, tx, "INSERT INTO t (b) "+diffForever)
		r.exec(tx, "DELETE FROM t WHERE a = 3")
		r.err("commit", tx.Commit())
		diffCount(r, db)
	}}, why: whyAbort, raw: []string{
		"exec INSERT INTO t (b) " + diffForever + `: error *errors.errorString "context canceled" is context.Canceled itself`,
		"exec DELETE FROM t WHERE a = 3: id 4 (ok), 1 affected (ok)",
		`commit: error sqlite3.Error "cannot commit - no transaction is active" code 1/1/0`,
		"count: 2, ok",
	}, ours: []string{
		"exec INSERT INTO t (b) " + diffForever + `: error *errors.errorString "context canceled" is context.Canceled itself`,
		`exec DELETE FROM t WHERE a = 3: error *leakguard.TxAbortedError "leakguard: transaction was aborted by SQLite, roll it back: context canceled" is context.Canceled is leakguard.ErrTxAborted wraps *errors.errorString`,
		`commit: error *leakguard.TxAbortedError "leakguard: transaction was aborted by SQLite, roll it back: context canceled" is context.Canceled is leakguard.ErrTxAborted wraps *errors.errorString`,
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "text COMMIT that a commit hook refused", one: true, hook: func(r *diffRec, c *sqlite3.SQLiteConn) error {
		c.RegisterCommitHook(func() int {
			if r.stop != nil {
				return 1
			}
			return 0
		})
		return nil
	}, run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		r.must(db, "BEGIN", "INSERT INTO t VALUES (4, 'half')")
		r.stop = func() {}
		r.exec(db, "COMMIT")
		r.stop = nil
		r.exec(db, "DELETE FROM t WHERE a = 3")
		r.exec(db, "ROLLBACK")
		diffCount(r, db)
	}}, why: whyAbort, raw: []string{
		`exec COMMIT: error sqlite3.Error "constraint failed" code 19/531/0`,
		"exec DELETE FROM t WHERE a = 3: id 4 (ok), 1 affected (ok)",
		`exec ROLLBACK: error sqlite3.Error "cannot rollback - no transaction is active" code 1/1/0`,
		"count: 2, ok",
	}, ours: []string{
		`exec COMMIT: error sqlite3.Error "constraint failed" code 19/531/0`,
		`exec DELETE FROM t WHERE a = 3: error *leakguard.TxAbortedError "leakguard: transaction was aborted by SQLite, roll it back: constraint failed" is leakguard.ErrTxAborted as code 19/531/0 wraps sqlite3.Error`,
		`exec ROLLBACK: error sqlite3.Error "cannot rollback - no transaction is active" code 1/1/0`,
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "context of a Conn that is over before Exec", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		s := r.prepare(c, "DELETE FROM t")
		ctx, cancel := context.WithCancel(bg)
		cancel()
		_, direct := c.ExecContext(ctx, "DELETE FROM t")
		_, prepared := s.ExecContext(ctx)
		r.check(s.Close())
		tx, begin := c.BeginTx(ctx, nil)
		if tx != nil {
			tx.Rollback()
		}
		for _, err := range []error{direct, prepared, begin} {
			if r.side == diffRaw {
				r.note("done or cancelled: %t", err == nil || err == context.Canceled)
			} else {
				r.err("not begun", err)
			}
		}
		if r.side == diffOurs {
			diffCount(r, c)
		}
		c.Close() // go-sqlite3's is closed already if it did begin
	}}, why: whyOver, raw: []string{
		"done or cancelled: true", // by chance
		"done or cancelled: true",
		"done or cancelled: true",
	}, ours: []string{
		`not begun: error *errors.errorString "context canceled" is context.Canceled itself`,
		`not begun: error *errors.errorString "context canceled" is context.Canceled itself`,
		`not begun: error *errors.errorString "context canceled" is context.Canceled itself`,
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "cancelled beside open rows", hook: diffStop, on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		c := r.connection(db)
		rows := r.rows(c, "SELECT a FROM t")
		r.next(rows)
		for _, exec := range []bool{false, true} {
			ctx, cancel := context.WithCancel(bg)
			r.stop = cancel
			if exec {
				r.execCtx(ctx, c, "INSERT INTO t (b) "+diffForever)
			} else {
				r.queryCtx(ctx, c, diffForever)
			}
			r.stop = nil
		}
		r.next(rows)
		r.err("rows", rows.Err())
		r.check(rows.Close())
		diffCount(r, c)
		r.err("close", c.Close())
	}}, why: whyAimed, raw: []string{
		"  row int64 1",
		"query " + diffForever + `: error *errors.errorString "context canceled" is context.Canceled itself`,
		"exec INSERT INTO t (b) " + diffForever + `: error sqlite3.Error "interrupted" code 9/9/0`, // by the cancellation before
		`rows: error sqlite3.Error "interrupted" code 9/9/0`,
		"count: 3, ok",
		"close: ok",
	}, ours: []string{
		"  row int64 1",
		"query " + diffForever + `: error *errors.errorString "context canceled" is context.Canceled itself`,
		"exec INSERT INTO t (b) " + diffForever + `: error *errors.errorString "context canceled" is context.Canceled itself`,
		"  row int64 2",
		"rows: ok",
		"count: 3, ok",
		"close: ok",
	}},

	{diffScenario: diffScenario{name: "cancelled while it waits for a lock", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		r.must(tx, "INSERT INTO t VALUES (4, 'in the way')")
		// go-sqlite3 waits to the end, so it gets a short wait; the guard gets
		// one that would be too long.
		params := "_txlock=immediate&_busy_timeout=150"
		if r.side == diffOurs {
			params = "_txlock=immediate&_busy_timeout=600000"
		}
		other := r.open(params)
		soon := func(f func(ctx context.Context)) {
			for d, from := 50*time.Millisecond, len(r.log); ; d *= 2 {
				ctx, cancel := context.WithTimeout(bg, d)
				f(ctx)
				cancel()
				if r.side == diffOurs || !strings.HasSuffix(r.log[from], diffLate) {
					return
				}
				r.log = r.log[:from] // over before go-sqlite3 began to wait
			}
		}
		soon(func(ctx context.Context) { r.execCtx(ctx, other, "INSERT INTO t VALUES (5, 'waits')") })
		soon(func(ctx context.Context) {
			r.execCtx(ctx, other, "BEGIN IMMEDIATE; INSERT INTO t VALUES (5, 'waits'); COMMIT")
		})
		soon(func(ctx context.Context) { r.begin(ctx, other) })
		if r.side == diffOurs { // with Query, go-sqlite3 returns what the context says by then
			soon(func(ctx context.Context) { r.queryCtx(ctx, other, "INSERT INTO t VALUES (5, 'waits') RETURNING a") })
		}
		r.err("rollback", tx.Rollback())
		diffCount(r, other)
	}}, why: whyWait, raw: []string{
		`exec INSERT INTO t VALUES (5, 'waits'): error sqlite3.Error "database is locked" code 5/5/0`,
		`exec BEGIN IMMEDIATE; INSERT INTO t VALUES (5, 'waits'); COMMIT: error sqlite3.Error "database is locked" code 5/5/0`,
		`begin: error sqlite3.Error "database is locked" code 5/5/0`,
		"rollback: ok",
		"count: 3, ok",
	}, ours: []string{
		"exec INSERT INTO t VALUES (5, 'waits'): " + diffLate,
		"exec BEGIN IMMEDIATE; INSERT INTO t VALUES (5, 'waits'); COMMIT: " + diffLate,
		"begin: " + diffLate,
		"query INSERT INTO t VALUES (5, 'waits') RETURNING a: " + diffLate,
		"rollback: ok",
		"count: 3, ok",
	}},

	{diffScenario: diffScenario{name: "statement of a transaction closed under its rows", on: "file wal memory", run: func(r *diffRec, db *sql.DB) {
		diffFilled(r, db)
		tx := r.tx(db)
		s := r.prepare(tx, "SELECT a FROM t")
		rows, err := s.Query()
		r.check(err)
		r.next(rows)
		r.err("close", s.Close())
		r.note("next: %t", rows.Next())
		r.err("rows", rows.Err())
		r.err("close", rows.Close())
		r.err("commit", tx.Commit())
	}}, why: whyCut, raw: []string{
		"  row int64 1",
		"close: ok",
		"next: false",
		"rows: ok", // two rows are missing
		"close: ok",
		"commit: ok",
	}, ours: []string{
		"  row int64 1",
		"close: ok",
		"next: false",
		`rows: error *errors.errorString "leakguard: statement is closed"`,
		"close: ok",
		"commit: ok",
	}},

	{diffScenario: diffScenario{name: "Raw and Driver", on: "memory", run: func(r *diffRec, db *sql.DB) {
		c := r.connection(db)
		r.err("raw", c.Raw(func(driverConn any) error {
			_, direct := driverConn.(*sqlite3.SQLiteConn)
			_, autocommit := driverConn.(interface{ AutoCommit() bool })
			r.note("%T %t %t", driverConn, direct, autocommit)
			sc, ok := leakguard.SQLiteConn(driverConn)
			r.note("%t %t", ok, sc.AutoCommit())
			return nil
		}))
		r.err("close", c.Close())
		r.note("%T", db.Driver())
	}}, why: whyOwn, raw: []string{
		"*sqlite3.SQLiteConn true true",
		"true true",
		"raw: ok",
		"close: ok",
		"*sqlite3.SQLiteDriver",
	}, ours: []string{
		"*leakguard.conn false false",
		"true true",
		"raw: ok",
		"close: ok",
		"*leakguard.Driver",
	}},
}

const diffLate = `error context.deadlineExceededError "context deadline exceeded" is context.DeadlineExceeded itself`

const diffAborted = `error *leakguard.TxAbortedError "leakguard: transaction was aborted by SQLite, roll it back: UNIQUE constraint failed: t.a" ` +
	"is leakguard.ErrTxAborted as code 19/1555/0 wraps sqlite3.Error"
