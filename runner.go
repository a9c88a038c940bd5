package leakguard

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
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
	run   capi.Cursor
	conn  sqliteConn
	inner sqliteStmt
	// code is that of the query's step until it is taken, then OK.
	code      int
	described bool // names and becomes are those of the columns
	names     []string
	becomes   []becomes
	few       [8]becomes     // becomes, if it has room
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

// newRunner returns nil where it could not do what go-sqlite3 does. With a shared
// cache go-sqlite3 may be built to wait for the others, see
// https://www.sqlite.org/unlock_notify.html.
func (c *conn) newRunner(inner sqliteStmt, handle capi.Stmt) *runner {
	if c.gate.Shared() != nil {
		return nil
	}
	if !alike() {
		c.rec.Pool().Lacks("running statements directly")
		return nil
	}
	c.compareClocks()
	return runnerOf(c.inner, inner, handle)
}

// stmtQuery runs a statement to its first row. open: there are rows of an earlier
// run.
func (c *conn) stmtQuery(ctx context.Context, p *prepared, open bool, args []driver.NamedValue) (rows sqliteRows, err error) {
	ok := false
	defer c.returned(&ok)
	if k := c.direct(ctx, p, open, args); k != nil {
		if err, ok = k.query(&c.args); ok {
			if err != nil {
				return nil, err
			}
			c.happened(&k.run)
			return k, nil
		}
	}
	opened, err := p.inner.QueryContext(ctx, args)
	ok = true
	return asRows(opened, err)
}

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

// bind takes arguments by position. It returns false for those that go-sqlite3 is
// to bind, or to refuse.
func bind(to *capi.Args, args []driver.NamedValue) bool {
	to.Clear()
	if len(args) > maxDirectArgs {
		return false
	}
	size := 0
	for i := range args {
		a := &args[i]
		if a.Name != "" || a.Ordinal != i+1 {
			return false
		}
		switch v := a.Value.(type) {
		case int64:
			to.Int(v)
		case string:
			if size += len(v); size > maxDirectBytes {
				return false
			}
			to.Text(v)
		case nil:
			to.Null()
		case float64:
			to.Float(v)
		case bool:
			if v {
				to.Int(1)
			} else {
				to.Int(0)
			}
		case []byte:
			if size += len(v); size > maxDirectBytes {
				return false
			}
			if v == nil {
				to.Null()
			} else {
				to.Blob(v)
			}
		case time.Time:
			to.Time(v, timeLayouts()[0])
		default:
			return false
		}
	}
	return true
}

// runnerOf returns nil if something is missing.
func runnerOf(conn sqliteConn, inner sqliteStmt, handle capi.Stmt) *runner {
	loc, ok := capi.Location(conn)
	k := &runner{conn: conn, inner: inner, loc: loc}
	if !k.run.Init(handle) || !ok {
		return nil
	}
	return k
}

// compareClocks compares the system's clock with the tracker's, before the first
// cursor is used.
func (c *conn) compareClocks() {
	if c.skew != 0 || gate.InBubble() { // whose clock is another one
		return
	}
	t := c.rec.Pool().Tracker()
	now, machine := t.Now()
	ns, ok := capi.Monotonic()
	if after, _ := t.Now(); machine && ok && after-now < time.Millisecond { // else the next one tries
		c.skew = now - time.Duration(ns)
	}
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
	k.names, k.becomes = make([]string, n), k.few[:]
	if n > len(k.few) {
		k.becomes = make([]becomes, n)
	}
	for i := range n {
		k.names[i], k.becomes[i] = k.run.Name(i), becomesOf(k.run.Type(i))
	}
}

// unbindable is an argument that go-sqlite3 refuses.
var unbindable = []driver.NamedValue{{Ordinal: 1, Value: struct{}{}}}

// failed returns go-sqlite3's error for a step or reset that failed. It begins a
// run with a reset, which tells the error of the run before, and asks the
// connection for its last error in any case: this run ends there. Of a connection that
// the program closed it knows no error but one.
func (k *runner) failed(code int) error {
	if _, err := k.inner.ExecContext(context.Background(), unbindable); isCode(err, code) || err != nil && isClosed(k.conn) {
		return err
	}
	return codeError(code)
}

// What the columns are is asked seldom, and of go-sqlite3.

func (k *runner) columnTypes() sqliteRows {
	if k.types == nil {
		k.types = rowsOf(k.inner)
	}
	return k.types
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

// values hands the present row out.
func (k *runner) values(dest []driver.Value) {
	row := k.run.Row()
	for i := range dest {
		v := &row[i]
		switch v.Kind() {
		case capi.Integer:
			switch n := v.Int(); k.becomes[i] {
			case itself:
				dest[i] = n
			case aTime:
				dest[i] = k.in(unixTime(n))
			case aBool:
				dest[i] = n > 0
			}
		case capi.Text:
			s := v.Text()
			if k.becomes[i] == aTime {
				dest[i] = k.in(parseTime(s))
			} else {
				dest[i] = s
			}
		case capi.Float:
			dest[i] = v.Float()
		case capi.Blob:
			dest[i] = v.Blob()
		default:
			dest[i] = nil
		}
	}
}

// Close ends the run.
func (k *runner) Close() error {
	if code := k.run.Reset(); code != capi.OK {
		return k.failed(code)
	}
	return nil
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
