package leakguard

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"runtime"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

// The third part of the hot path (see hotpath_lease.go): rows, to their end.

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

func (c *conn) rowsNext(inner sqliteRows, dest []driver.Value) (err error) {
	ok := false
	defer c.returned(&ok)
	err = inner.Next(dest)
	ok = true
	return err
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
	if f&busy != 0 {
		return errBusy
	}
	if f&reaping != 0 {
		return r.ctx.Err()
	}
	if r.h.Load() == nil { // closed meanwhile: the handle may be another result's
		return c.leave(io.EOF)
	}
	if err := h.st.err; err != nil {
		return c.leaveQuietly(err) // told when it was killed
	}
	if f&dead != 0 {
		return c.leave(c.gone)
	}
	return nil
}

// enterGate enters for as long as the query's context allows.
func (r *rows) enterGate(c *conn) uint64 {
	if r.ctx != nil {
		return c.gate.enterUntil(r.ctx)
	}
	return c.gate.enter()
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
	if f&busy != 0 {
		return errBusy
	}
	if f&reaping != 0 {
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

// rowsClose closes rows, which may commit.
func (c *conn) rowsClose(inner sqliteRows) (err error) {
	ok := false
	defer c.returned(&ok)
	err = inner.Close()
	ok = true
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

// Close ends the run.
func (k *runner) Close() error {
	if code := k.run.Reset(); code != capi.OK {
		return k.failed(code)
	}
	return nil
}
