package leakguard

import (
	"context"
	"database/sql/driver"
	"io"
	"reflect"
	"sync/atomic"
	"weak"

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
