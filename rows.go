package leakguard

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"runtime"
	"sync/atomic"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// rows is what database/sql holds of one result. Close takes the handle away from
// it, for the connection's next result uses that again: who comes back with closed
// rows, for a second Close by a defer, must not reach its successor.
type rows struct {
	h   atomic.Pointer[rowsHandle] // nil once they are closed
	ctx context.Context            // the query's, if the guard watches it; immutable
}

// rowsHandle is what garbage collection is asked about: it comes from its
// connection's free list, with a cleanup that was attached once, when it was made.
// While it is handed out nothing points to it but its rows, so it is collected when
// nobody can close them any more. What it stands for lives in the connection.
type rowsHandle struct {
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
	slot   int             // in conn.rows, -1 if closed
	moved  bool            // the first row was read: from now on it steps
	failed bool            // a step failed, and closing will say so again
	first  firstRow
	res    tracker.Resource
}

// firstRow is the first row. go-sqlite3 has stepped to it when a query returns, so
// it is read in the same crossing of the gate, and handed out by the first Next.
type firstRow struct {
	row []driver.Value  // used again
	few [4]driver.Value // row, if it has room
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

// Columns returns the column names, also of reaped rows.
func (r *rows) Columns() []string {
	if h := r.h.Load(); h != nil {
		return h.st.cols
	}
	return nil
}

// Next reads the next row.
func (r *rows) Next(dest []driver.Value) error {
	h := r.h.Load()
	if h == nil {
		return io.EOF
	}
	c, st := h.c, h.st
	if st.first.has && st.first.err == nil && !st.res.Noticed() {
		return st.first.take(dest)
	}
	if err := r.enter(h); err != nil {
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

// Close closes the rows. Reaped rows are closed already. database/sql calls it
// where Next fails: if the reaper is inside and the query's context over, the
// closing is left to whoever is inside next.
func (r *rows) Close() error {
	h := r.h.Load()
	if h == nil {
		return nil
	}
	c, st := h.c, h.st
	f := r.enterGate(c)
	if f&gate.Busy != 0 {
		return errBusy
	}
	if f&gate.Reaping != 0 {
		r.h.Store(nil)
		c.handOver(func() {
			c.closeRows(st)
			c.rec.Recorded()
			runtime.KeepAlive(h) // until here, or it would be proven to be forgotten
		})
		return nil
	}
	if r.h.Load() == nil { // closed meanwhile: the handle may be another result's
		return c.leave(nil)
	}
	r.h.Store(nil)
	failed := st.failed
	err := c.closeRows(st)
	if len(c.freeRows) < maxFree {
		c.freeRows = grow(c.freeRows, h)
	}
	if failed {
		return c.leaveQuietly(err) // told when it failed
	}
	return c.leave(err)
}

// closeRows closes rows for the program. The record stays open.
func (c *conn) closeRows(st *rowsState) (err error) {
	if st.err != nil && errors.Is(st.err, ErrReaped) {
		c.rec.Acknowledged()
	}
	if st.slot >= 0 {
		if err = c.rowsClose(st.inner); err != nil {
			c.after(context.Background(), 0, "", err)
		}
		if st.slot >= 0 { // not killed by an abort just now
			if over := c.forgetRows(st); err == nil {
				err = over
			}
		}
	}
	st.inner, st.ctx, st.cols, st.err = nil, nil, nil, nil
	if st.first.has {
		st.first.has = false
		clear(st.first.row)
	}
	return err
}

// forgetRows takes rows out of the connection's list. It returns the error of closing the
// statement that they are the last of, if they are. The record stays open.
func (c *conn) forgetRows(st *rowsState) (err error) {
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
		err = st.text.free()
		st.text = nil
	}
	c.rec.Record()
	c.rec.CloseResource(&st.res)
	return err
}

// openRows registers what a query opened, by a statement, by a text that is kept, or
// by neither. The connection is inside the gate and leaves it at once: the record
// stays open.
func (c *conn) openRows(ctx context.Context, guarded bool, inner sqliteRows, stmt *stmtState, text *text, query string) *rows {
	h := c.takeRows()
	r := new(rows)
	r.h.Store(h)
	if guarded {
		r.ctx = ctx
	}
	st := h.st
	st.inner, st.stmt, st.text, st.err, st.tx, st.moved, st.failed = inner, stmt, text, nil, 0, false, false
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
	if text != nil {
		text.busy = true
	}
	st.cols = inner.Columns() // needed for the first row
	st.slot = len(c.rows)
	c.rows = grow(c.rows, st)
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

// grow appends v. The array that the slice has outgrown is maybe the connection's own
// first one, and would keep alive what it had.
func grow[T any](s []T, v T) []T {
	grown := append(s, v)
	if len(s) == cap(s) {
		clear(s)
	}
	return grown
}

func (c *conn) takeRows() *rowsHandle {
	if n := len(c.freeRows); n > 0 {
		h := c.freeRows[n-1]
		c.freeRows[n-1] = nil
		c.freeRows = c.freeRows[:n-1]
		return h
	}
	h := &rowsHandle{c: c, st: &rowsState{slot: -1}}
	runtime.AddCleanup(h, provenRows, rowsRef{weak.Make(c), h.st})
	return h
}

func (c *conn) readFirst(st *rowsState) {
	n := len(st.cols)
	if cap(st.first.row) < n {
		st.first.row = st.first.few[:]
		if n > len(st.first.few) {
			st.first.row = make([]driver.Value, n)
		}
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

// enter begins an operation on the rows, whose handle is h, nil if they are closed.
// Rows of their connection's tomb have its error already; others, opened before the
// transaction, go on.
func (r *rows) enter(h *rowsHandle) error {
	if h == nil {
		return io.EOF // as go-sqlite3's closed rows
	}
	c := h.c
	f := c.met(r.enterGate(c))
	if f&gate.Busy != 0 {
		return errBusy
	}
	if f&gate.Reaping != 0 {
		return r.ctx.Err()
	}
	if r.h.Load() == nil { // closed meanwhile: the handle may be another result's
		return c.leave(io.EOF)
	}
	if err := h.st.err; err != nil {
		return c.leaveQuietly(err) // told when it was killed
	}
	if f&gate.Dead != 0 {
		return c.leave(c.gone)
	}
	return nil
}

// enterGate enters for as long as the query's context allows.
func (r *rows) enterGate(c *conn) uint64 {
	if r.ctx != nil {
		return c.gate.EnterUntil(r.ctx)
	}
	return c.gate.Enter()
}

// kill closes rows against the program's will; they answer with err from now
// on, never with io.EOF, which would make a cut result look complete.
func (c *conn) kill(st *rowsState, err error) {
	// A statement that runs again has taken its cursor with it: closing the
	// older rows would reset the newer ones.
	if st.stmt == nil || st.stmt.last == st || st.stmt.last == nil {
		c.rowsClose(st.inner)
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

// ColumnTypeDatabaseTypeName returns the declared type.
func (r *rows) ColumnTypeDatabaseTypeName(i int) string {
	h := r.h.Load()
	if r.enter(h) != nil {
		return ""
	}
	name := h.st.inner.ColumnTypeDatabaseTypeName(i)
	h.c.leave(nil)
	return name
}

// ColumnTypeNullable does what go-sqlite3's does.
func (r *rows) ColumnTypeNullable(i int) (nullable, ok bool) {
	h := r.h.Load()
	if r.enter(h) != nil {
		return false, false
	}
	nullable, ok = h.st.inner.ColumnTypeNullable(i)
	h.c.leave(nil)
	return nullable, ok
}

// ColumnTypeScanType returns the Go type to scan into.
func (r *rows) ColumnTypeScanType(i int) reflect.Type {
	h := r.h.Load()
	if r.enter(h) != nil {
		return reflect.TypeFor[any]()
	}
	t := h.st.inner.ColumnTypeScanType(i)
	h.c.leave(nil)
	return t
}

// noRows is the empty result of a statement that returns none.
type noRows struct{}

func (noRows) Columns() []string         { return nil }
func (noRows) Close() error              { return nil }
func (noRows) Next([]driver.Value) error { return io.EOF }
