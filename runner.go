package leakguard

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// prepared is a statement that go-sqlite3 prepared, and closes.
type prepared struct {
	inner  sqliteStmt
	handle capi.Stmt
	runner *runner // nil: not asked for yet, or go-sqlite3 runs it
	asked  bool
}

// runner runs a prepared statement in place of go-sqlite3, which enters C once
// for each argument, and takes SQLite's mutex for each column. What it returns is
// what go-sqlite3 returns: alike checks that. Errors are made by go-sqlite3
// itself. A runner is the rows of its statement as well, of one run at a time.
type runner struct {
	run   *capi.Cursor
	inner sqliteStmt
	// code is that of the query's step until it is taken, then OK.
	code      int
	described bool // names and becomes are those of the columns
	names     []string
	becomes   []becomes
	loc       *time.Location // of times, nil for UTC
	types     sqliteRows     // go-sqlite3's, for the types of the columns
}

var _ sqliteRows = (*runner)(nil)

// maxDirectArgs bounds how many arguments are passed on directly, and maxDirectBytes
// those of texts and blobs together: they are copied into memory that the connection
// keeps.
const (
	maxDirectArgs  = 128
	maxDirectBytes = 1024
)

// direct returns the runner for a run with these arguments, which it takes into
// c.args; nil where go-sqlite3 has to run the statement: when it is to watch the
// context, or finds arguments that only it knows. open: there are rows of an
// earlier run.
func (c *conn) direct(ctx context.Context, p *prepared, open bool, args []driver.NamedValue) *runner {
	if open || ctx.Done() != nil {
		return nil
	}
	if p.runner == nil {
		if p.asked {
			return nil
		}
		p.asked = true
		if p.runner = c.newRunner(p.inner, p.handle); p.runner == nil {
			return nil
		}
	}
	if !bind(&c.args, args) {
		return nil
	}
	return p.runner
}

// newRunner returns nil where it could not do what go-sqlite3 does. With a shared
// cache go-sqlite3 may be built to wait for the others, see
// https://www.sqlite.org/unlock_notify.html.
func (c *conn) newRunner(inner sqliteStmt, handle capi.Stmt) *runner {
	if c.gate.shared != nil {
		return nil
	}
	if !alike() {
		c.rec.Pool().Lacks("running statements directly")
		return nil
	}
	return runnerOf(c.inner, inner, c.newCursor(handle))
}

// runnerOf returns nil if something is missing.
func runnerOf(conn sqliteConn, inner sqliteStmt, run *capi.Cursor) *runner {
	loc, ok := capi.Location(conn)
	if !ok || run == nil {
		return nil
	}
	return &runner{run: run, inner: inner, loc: loc}
}

// newCursor returns a cursor, nil without SQLite's symbols, and compares the
// system's clock with the tracker's before the first one is used.
func (c *conn) newCursor(handle capi.Stmt) *capi.Cursor {
	run := capi.NewCursor(handle)
	if run == nil || c.skew != 0 || tracker.InBubble() { // whose clock is another one
		return run
	}
	t := c.rec.Pool().Tracker()
	now, machine := t.Now()
	ns, ok := capi.Monotonic()
	if after, _ := t.Now(); machine && ok && after-now < time.Millisecond { // else the next one tries
		c.skew = now - time.Duration(ns)
	}
	return run
}

// happened takes the time of what was run and is going to be recorded: that costs
// less than to read the clock.
func (c *conn) happened(run *capi.Cursor) {
	if c.skew == 0 {
		return
	}
	if ns := run.At(); ns != 0 {
		c.at = time.Duration(ns) + c.skew
	}
}

// exec runs the statement, which has no columns. done is false if nothing ran.
func (k *runner) exec(args *capi.Args) (res driver.Result, err error, done bool) {
	switch code := k.run.Exec(args); code {
	case capi.Unbound:
		return nil, nil, false // go-sqlite3 finds the same, and says it
	case capi.Row, capi.Done:
		return &result{k.run.RowID(), k.run.Changes()}, nil, true
	default:
		return nil, k.failed(code), true
	}
}

// query runs the statement to its first row, and is its rows then. done is false
// if nothing ran.
func (k *runner) query(args *capi.Args) (err error, done bool) {
	code, fresh := k.run.Query(args)
	if fresh {
		k.described = false // also when it failed
	}
	switch code {
	case capi.Unbound:
		return nil, false
	case capi.Row, capi.Done:
	default:
		return k.failed(code), true
	}
	if !k.described {
		k.describe()
	}
	k.code = code
	return nil, true
}

// describe asks for the columns. What was handed out stays as it is.
func (k *runner) describe() {
	k.described = true
	n := len(k.run.Row())
	k.names, k.becomes = make([]string, n), make([]becomes, n)
	for i := range n {
		k.names[i], k.becomes[i] = k.run.Name(i), becomesOf(k.run.Type(i))
	}
}

// unbindable is an argument that go-sqlite3 refuses.
var unbindable = []driver.NamedValue{{Ordinal: 1, Value: struct{}{}}}

// failed returns go-sqlite3's error for a step or reset that failed. It begins a
// run with a reset, which tells the error of the run before, and asks the
// connection for its last error in any case: this run ends there.
func (k *runner) failed(code int) error {
	if _, err := k.inner.ExecContext(context.Background(), unbindable); isCode(err, code) {
		return err
	}
	return codeError(code)
}

// Columns returns the names of the columns.
func (k *runner) Columns() []string { return k.names }

// first reads the row that the query has stepped to.
func (k *runner) first(dest []driver.Value) error {
	code := k.code
	k.code = capi.OK
	if code == capi.Done {
		return io.EOF
	}
	k.values(dest)
	return nil
}

// Next reads the next row.
func (k *runner) Next(dest []driver.Value) error {
	if k.code != capi.OK {
		return k.first(dest)
	}
	switch code := k.run.Step(); code {
	case capi.Row:
		k.values(dest)
		return nil
	case capi.Done:
		return io.EOF
	default:
		return k.failed(code)
	}
}

// Close ends the run.
func (k *runner) Close() error {
	if code := k.run.Reset(); code != capi.OK {
		return k.failed(code)
	}
	return nil
}

// What the columns are is asked seldom, and of go-sqlite3.

func (k *runner) columnTypes() sqliteRows {
	if k.types == nil {
		k.types = rowsOf(k.inner)
	}
	return k.types
}

// ColumnTypeDatabaseTypeName returns the declared type.
func (k *runner) ColumnTypeDatabaseTypeName(i int) string {
	return k.columnTypes().ColumnTypeDatabaseTypeName(i)
}

// ColumnTypeNullable does what go-sqlite3's does.
func (k *runner) ColumnTypeNullable(i int) (nullable, ok bool) {
	return k.columnTypes().ColumnTypeNullable(i)
}

// ColumnTypeScanType returns the Go type to scan into.
func (k *runner) ColumnTypeScanType(i int) reflect.Type {
	return k.columnTypes().ColumnTypeScanType(i)
}

// result is what an Exec that ran directly returns.
type result struct{ id, changes int64 }

// LastInsertId returns the rowid of the last INSERT of the connection.
func (r *result) LastInsertId() (int64, error) { return r.id, nil }

// RowsAffected returns how many rows the last statement that changes any changed.
func (r *result) RowsAffected() (int64, error) { return r.changes, nil }
