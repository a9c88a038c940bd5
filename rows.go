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
	inner  sqliteRows
	stmt   *stmtState      // nil for a query by text
	text   *text           // of a text that is kept
	tx     uint64          // the transaction it was opened in, 0 if none
	err    error           // what reaped or aborted rows answer
	ctx    context.Context // the query's, if the guard watches it
	cols   []string        // asked for once, as database/sql does for every row
	moved  bool            // the first row was read: from now on it steps
	failed bool            // a step failed, and closing will say so again
	first  firstRow
	slot   int  // in conn.rows, -1 if closed
	out    bool // the handle is handed out
	res    tracker.Resource
}

// firstRow is the first row. go-sqlite3 has stepped to it when a query returns, so
// it is read in the same crossing of the gate, and handed out by the first Next.
type firstRow struct {
	row []driver.Value // used again
	err error
	has bool
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

// openRows registers what a query opened. The connection is inside the gate and
// leaves it at once: the record stays open.
func (c *conn) openRows(ctx context.Context, guarded bool, inner sqliteRows, stmt *stmtState, query string) *rows {
	r := c.takeRows()
	st := r.st
	st.inner, st.stmt, st.err, st.tx, st.moved, st.failed, st.out = inner, stmt, nil, 0, false, false, true
	if guarded {
		st.ctx = ctx
	}
	if c.txn.open {
		st.tx = c.txn.id
	}
	if stmt != nil {
		stmt.last = st
		stmt.open++
	}
	st.cols = inner.Columns() // needed for the first row
	st.slot = len(c.rows)
	c.rows = append(c.rows, st)
	if len(st.cols) > 0 {
		st.moved = true
		c.readFirst(st)
	}
	exempt := exemption(ctx)
	c.rec.Record()
	c.rec.At(c.at)
	c.rec.OpenRows(&st.res, query, exempt)
	c.rec.TraceResource(ctx, &st.res)
	return r
}

func (c *conn) readFirst(st *rowsState) {
	n := len(st.cols)
	if cap(st.first.row) < n {
		st.first.row = make([]driver.Value, n)
	}
	st.first.row = st.first.row[:n]
	st.first.has = true
	if k, ok := st.inner.(*runner); ok {
		st.first.err = k.first(st.first.row) // SQLite has no part in it
		return
	}
	st.first.err = c.rowsNext(st.inner, st.first.row) // taken up when it is handed out
}

// take hands the first row out.
func (f *firstRow) take(dest []driver.Value) error {
	f.has = false
	copy(dest, f.row)
	clear(f.row)
	return f.err
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

// forgetRows takes rows out of the connection's list. The record stays open.
func (c *conn) forgetRows(st *rowsState) {
	last := len(c.rows) - 1
	c.rows[st.slot] = c.rows[last]
	c.rows[st.slot].slot = st.slot
	c.rows[last] = nil
	c.rows = c.rows[:last]
	st.slot = -1
	if st.stmt != nil {
		st.stmt.open--
		if st.stmt.last == st {
			st.stmt.last = nil
		}
	}
	st.stmt = nil
	if st.text != nil {
		st.text.free()
		st.text = nil
	}
	c.rec.Record()
	c.rec.CloseResource(&st.res)
}

// kill closes rows against the program's will; they answer with err from now
// on, never with io.EOF, which would make a cut result look complete.
func (c *conn) kill(st *rowsState, err error) {
	// A statement that runs again has taken its cursor with it: closing the
	// older rows would reset the newer ones.
	if st.stmt == nil || st.stmt.last == st || st.stmt.last == nil {
		st.inner.Close()
	}
	st.err = err
	st.res.Notice()
	c.forgetRows(st)
	c.rec.Recorded()
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
		return r.c.leaveQuietly(r.st.err) // told when it was killed
	}
	if f&dead != 0 {
		return r.c.leave(r.c.gone)
	}
	return nil
}

// Next reads the next row.
func (r *rows) Next(dest []driver.Value) error {
	c, st := r.c, r.st
	if st.first.has && st.first.err == nil && !st.res.Noticed() {
		return st.first.take(dest)
	}
	if err := r.enter(); err != nil {
		return err
	}
	st.res.Use()
	if st.first.has {
		err := st.first.take(dest)
		if err != nil && err != io.EOF {
			c.after(context.Background(), 0, "", err)
		}
		return st.leave(c, err)
	}
	if c.raw.Load() {
		c.sync()
	}
	if st.ctx != nil && st.moved {
		return st.leave(c, c.nextWatched(st, dest))
	}
	st.moved = true
	err := c.rowsNext(st.inner, dest)
	if err != nil && err != io.EOF {
		c.after(context.Background(), 0, "", err)
	}
	return st.leave(c, err)
}

// leave ends a step. What failed is the rows' own text, whatever ran since.
func (st *rowsState) leave(c *conn, err error) error {
	if err != nil && err != io.EOF {
		st.failed = true
		if st.slot >= 0 {
			c.rec.Executing(st.res.Query())
		}
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
	failed := st.failed
	var err error
	if st.slot >= 0 {
		if err = st.inner.Close(); err != nil {
			c.after(context.Background(), 0, "", err)
		}
		if st.slot >= 0 { // not killed by an abort just now
			c.forgetRows(st)
		}
	}
	st.inner, st.ctx, st.cols, st.err = nil, nil, nil, io.EOF // what closed rows answer
	if st.first.has {
		st.first.has = false
		clear(st.first.row)
	}
	if len(c.freeRows) < maxFree {
		c.freeRows = append(c.freeRows, r)
	}
	if failed {
		return c.leaveQuietly(err) // told when it failed
	}
	return c.leave(err)
}

// Columns returns the column names, also of reaped rows.
func (r *rows) Columns() []string { return r.st.cols }

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
