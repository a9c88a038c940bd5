package leakguard

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"
	"runtime"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// rows is the handle that database/sql holds. It comes from its connection's
// free list; while it is handed out nothing of ours points to it, so that
// garbage collection proves it when nobody can close it any more. What it
// stands for lives in the connection.
type rows struct {
	c  *conn
	st *rowsState
}

// rowsState is one result set. It must not lead to the handle or, as the
// cleanup holds it, to the connection.
type rowsState struct {
	inner sqliteRows
	stmt  *stmtState      // nil for a query by text
	tx    uint64          // the transaction it was opened in, 0 if none
	err   error           // what reaped or aborted rows answer
	ctx   context.Context // the query's, if the guard watches it
	moved bool            // Next was called: from now on it steps
	slot  int             // in conn.rows, -1 if closed
	out   bool            // the handle is handed out
	res   tracker.Resource
}

// openRows are the open rows of a connection.
type openRows []*rowsState

var (
	_ driver.Rows                           = (*rows)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*rows)(nil)
	_ driver.RowsColumnTypeNullable         = (*rows)(nil)
	_ driver.RowsColumnTypeScanType         = (*rows)(nil)
)

// maxFree bounds the handles that a connection keeps for its next queries.
const maxFree = 8

// openRows registers what a query opened. The connection is inside the gate.
func (c *conn) openRows(ctx context.Context, guarded bool, opened driver.Rows, stmt *stmtState, query string) (*rows, error) {
	inner, ok := opened.(sqliteRows)
	if !ok {
		opened.Close()
		return nil, lacking(opened)
	}
	r := c.takeRows()
	st := r.st
	st.inner, st.stmt, st.err, st.tx, st.moved, st.out = inner, stmt, nil, 0, false, true
	if guarded {
		st.ctx = ctx
	}
	if c.txn.open {
		st.tx = c.txn.id
	}
	if stmt != nil {
		stmt.last = st
	}
	st.slot = len(c.rows)
	c.rows = append(c.rows, st)
	c.rec.OpenRows(&st.res, query, exemption(ctx))
	c.rec.TraceResource(ctx, &st.res)
	return r, nil
}

func (c *conn) takeRows() *rows {
	if n := len(c.freeRows); n > 0 {
		r := c.freeRows[n-1]
		c.freeRows[n-1] = nil
		c.freeRows = c.freeRows[:n-1]
		return r
	}
	r := &rows{c: c, st: &rowsState{slot: -1}}
	runtime.AddCleanup(r, provenRows, rowsRef{weak.Make(c), r.st})
	return r
}

type rowsRef struct {
	conn weak.Pointer[conn]
	st   *rowsState
}

// provenRows runs when a handle was collected.
func provenRows(ref rowsRef) {
	c := ref.conn.Value()
	if c == nil {
		return
	}
	st := ref.st
	c.prove(func() {
		if st.slot >= 0 {
			c.rec.Proven(&st.res, true)
			c.kill(st, ErrReaped)
		}
	})
}

// forgetRows takes rows out of the connection's list.
func (c *conn) forgetRows(st *rowsState) {
	last := len(c.rows) - 1
	c.rows[st.slot] = c.rows[last]
	c.rows[st.slot].slot = st.slot
	c.rows[last] = nil
	c.rows = c.rows[:last]
	st.slot = -1
	if st.stmt != nil && st.stmt.last == st {
		st.stmt.last = nil
	}
	st.stmt = nil
	c.rec.CloseResource(&st.res)
}

// kill closes rows against the program's will; they answer with err from now
// on, never with io.EOF, which would make a cut result look complete.
func (c *conn) kill(st *rowsState, err error) {
	// A statement that runs again has taken its cursor with it: closing the
	// older rows would reset the newer ones.
	if st.stmt == nil || st.stmt.last == st {
		st.inner.Close()
	}
	st.err = err
	c.forgetRows(st)
}

// killRows kills all rows of the connection.
func (c *conn) killRows(err error) {
	for len(c.rows) > 0 {
		c.kill(c.rows[len(c.rows)-1], err)
	}
}

// enter begins an operation on the rows. Rows of their connection's tomb have
// its error already; others, opened before the transaction, go on.
func (r *rows) enter() error {
	f := r.c.gate.enter()
	if f&busy != 0 {
		return errBusy
	}
	if r.st.err != nil {
		return r.c.leave(r.st.err)
	}
	if f&dead != 0 {
		return r.c.leave(r.c.gone)
	}
	return nil
}

// Next reads the next row.
func (r *rows) Next(dest []driver.Value) error {
	if err := r.enter(); err != nil {
		return err
	}
	c, st := r.c, r.st
	st.res.Use()
	if c.raw.Load() {
		c.sync()
	}
	if st.ctx != nil && st.moved {
		return c.leave(c.nextWatched(st, dest))
	}
	st.moved = true // the first row came with the query
	err := c.rowsNext(st.inner, dest)
	if err != nil && err != io.EOF {
		c.after(context.Background(), 0, "", err)
	}
	return c.leave(err)
}

// nextWatched steps rows that end with their query's context: as go-sqlite3
// does, a row that was read when the context ended is not handed out.
func (c *conn) nextWatched(st *rowsState, dest []driver.Value) error {
	if _, _, err := c.arm(st.ctx, 1); err != nil {
		return err
	}
	err := c.rowsNext(st.inner, dest)
	if over := st.ctx.Err(); over != nil {
		err = over
	}
	if err != nil && err != io.EOF {
		c.after(context.Background(), 0, "", err)
	}
	return err
}

// Close closes the rows. Reaped rows are closed already.
func (r *rows) Close() error {
	c, st := r.c, r.st
	if c.gate.enter()&busy != 0 {
		return errBusy
	}
	if !st.out { // closed before; the handle may be somebody else's
		return c.leave(nil)
	}
	st.out = false
	var err error
	if st.slot >= 0 {
		if err = st.inner.Close(); err != nil {
			c.after(context.Background(), 0, "", err)
		}
		if st.slot >= 0 { // not killed by an abort just now
			c.forgetRows(st)
		}
	}
	st.inner, st.ctx, st.err = nil, nil, io.EOF // what closed rows answer
	if len(c.freeRows) < maxFree {
		c.freeRows = append(c.freeRows, r)
	}
	return c.leave(err)
}

// Columns returns the column names.
func (r *rows) Columns() []string {
	f := r.c.gate.enter()
	if f&busy != 0 {
		return nil
	}
	var columns []string
	if r.st.inner != nil {
		columns = r.st.inner.Columns() // also of closed rows
	}
	r.c.leave(nil)
	return columns
}

// ColumnTypeDatabaseTypeName returns the declared type.
func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	if r.enter() != nil {
		return ""
	}
	name := r.st.inner.ColumnTypeDatabaseTypeName(i)
	r.c.leave(nil)
	return name
}

// ColumnTypeNullable does what go-sqlite3's does.
func (r *rows) ColumnTypeNullable(i int) (nullable, ok bool) {
	if r.enter() != nil {
		return false, false
	}
	nullable, ok = r.st.inner.ColumnTypeNullable(i)
	r.c.leave(nil)
	return nullable, ok
}

// ColumnTypeScanType returns the Go type to scan into.
func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	if r.enter() != nil {
		return reflect.TypeFor[any]()
	}
	t := r.st.inner.ColumnTypeScanType(i)
	r.c.leave(nil)
	return t
}

// noRows is the empty result of a statement that returns none.
type noRows struct{}

func (noRows) Columns() []string         { return nil }
func (noRows) Close() error              { return nil }
func (noRows) Next([]driver.Value) error { return io.EOF }
