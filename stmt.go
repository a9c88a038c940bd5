package leakguard

import (
	"context"
	"database/sql/driver"
	"runtime"
	"sync/atomic"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// stmt is what database/sql holds of a prepared statement, and stmtHandle what is
// used again, see rows.
type stmt struct {
	h      atomic.Pointer[stmtHandle] // nil once it is closed
	inputs int                        // parameters
}

type stmtHandle struct {
	c  *conn
	st *stmtState
}

// stmtState is one prepared statement.
type stmtState struct {
	prepared
	query   string
	class   sqltext.Class
	columns bool       // it returns columns
	timeout bool       // namesBusyTimeout: SQLite compiles it again for each run
	last    *rowsState // its newest rows, if they are open
	open    int        // rows that are open: all of them run one cursor of SQLite's
	slot    int        // in conn.stmts, -1 if closed
	res     tracker.Resource
}

// openStmts are the open statements of a connection.
type openStmts []*stmtState

var (
	_ driver.Stmt             = (*stmt)(nil)
	_ driver.StmtExecContext  = (*stmt)(nil)
	_ driver.StmtQueryContext = (*stmt)(nil)
)

// openStmt registers a prepared statement. The connection is inside the gate.
func (c *conn) openStmt(ctx context.Context, opened driver.Stmt, query string) (*stmt, error) {
	inner, ok := opened.(sqliteStmt)
	if !ok {
		opened.Close()
		return nil, lacking(opened)
	}
	class := sqltext.Classify(query)
	if class&sqltext.Multi != 0 { // only the first statement is prepared
		if end, _, ok := c.statementEnd(query); ok {
			query = query[:end]
			class = sqltext.Classify(query)
		}
	}
	h := c.takeStmt()
	s := &stmt{inputs: inner.NumInput()}
	s.h.Store(h)
	st := h.st
	st.prepared = prepared{inner: inner, handle: capi.OfStmt(opened)}
	st.query, st.class, st.last, st.open = query, class, nil, 0
	st.timeout = namesBusyTimeout(class, query)
	if st.class&(sqltext.Attach|sqltext.Temp|sqltext.Pragma|sqltext.History) != 0 {
		c.session.note(c, st.class, query) // a PRAGMA acts when it is prepared
	}
	st.columns = st.handle.Columns() > 0
	st.slot = len(c.stmts)
	c.stmts = append(c.stmts, st)
	c.rec.OpenStatement(&st.res, query, exemption(ctx))
	c.rec.TraceResource(ctx, &st.res)
	return s, nil
}

func (c *conn) takeStmt() *stmtHandle {
	if n := len(c.freeStmts); n > 0 {
		h := c.freeStmts[n-1]
		c.freeStmts[n-1] = nil
		c.freeStmts = c.freeStmts[:n-1]
		return h
	}
	h := &stmtHandle{c: c, st: &stmtState{slot: -1}}
	runtime.AddCleanup(h, provenStmt, stmtRef{weak.Make(c), h.st})
	return h
}

type stmtRef struct {
	conn weak.Pointer[conn]
	st   *stmtState
}

// provenStmt runs when a handle was collected.
func provenStmt(ref stmtRef) {
	c := ref.conn.Value()
	if c == nil {
		return
	}
	st := ref.st
	c.prove(func() {
		if st.slot >= 0 {
			c.rec.Proven(&st.res, true)
			c.finalize(st)
		}
	})
}

// finalize closes a statement. The connection is inside the gate.
func (c *conn) finalize(st *stmtState) error {
	// Finalizing under open rows would cut them short, and a runner must not step
	// what is gone.
	for i := len(c.rows) - 1; i >= 0 && st.open > 0; i-- {
		if c.rows[i].stmt == st {
			c.kill(c.rows[i], errStmtClosed)
		}
	}
	err := c.stmtClose(st.inner)
	last := len(c.stmts) - 1
	c.stmts[st.slot] = c.stmts[last]
	c.stmts[st.slot].slot = st.slot
	c.stmts[last] = nil
	c.stmts = c.stmts[:last]
	st.slot = -1
	st.prepared = prepared{}
	c.rec.Record()
	c.rec.CloseResource(&st.res)
	c.rec.Recorded()
	return err
}

// NumInput returns the number of parameters. It does not reach SQLite.
func (s *stmt) NumInput() int { return s.inputs }

// enter begins an operation on the statement, whose handle is h. done: it was the
// rollback of a transaction that the guard had rolled back, and the operation is over.
func (s *stmt) enter(ctx context.Context, h *stmtHandle) (done bool, err error) {
	c, st := h.c, h.st
	f := c.enterFor(ctx, st.class)
	if s.h.Load() == nil && f&(gate.Busy|gate.Reaping) == 0 { // closed meanwhile: the handle may be another's
		return false, c.leave(errStmtClosed)
	}
	if f != 0 {
		// Only the first statement of a text is prepared.
		_, done, err := c.enterText(ctx, f, st.class&^sqltext.Multi, st.query)
		if done || err != nil {
			return done, err
		}
	}
	if st.slot < 0 {
		return false, c.leave(errStmtClosed)
	}
	if !c.leased {
		c.checkOutNow(ctx)
	}
	return false, nil
}

// ExecContext runs the statement.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	h := s.h.Load()
	if h == nil {
		return nil, errStmtClosed
	}
	c, st := h.c, h.st
	if done, err := s.enter(ctx, h); done || err != nil {
		if err != nil {
			return nil, err
		}
		return textResult(), nil
	}
	c.rec.Executing(st.query)
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil && (st.class&sqltext.Tx == 0 || !c.txn.open) {
		_, err = c.stmtQuery(ctx, &st.prepared, true, args) // binds, and finds the same
		return nil, c.leave(err)
	}
	if err != nil {
		inner = context.Background() // the end of a transaction is not refused
	}
	if st.timeout {
		c.leaveBusyTimeout()
	}
	res, err := c.stmtExec(inner, st, args)
	if err != nil && guarded {
		err = ended(ctx, err)
	}
	if st.class != 0 || err != nil {
		c.after(ctx, st.class, st.query, err)
	}
	if st.timeout {
		c.takeBusyTimeout(true, st.class, st.query)
	}
	c.wrote(st.class)
	if err = c.leave(err); err != nil {
		return nil, err
	}
	return res, nil
}

// QueryContext runs the statement and returns its rows.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	h := s.h.Load()
	if h == nil {
		return nil, errStmtClosed
	}
	c, st := h.c, h.st
	if done, err := s.enter(ctx, h); err != nil {
		return nil, err
	} else if done {
		return noRows{}, nil
	}
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		inner, guarded = ctx, false // go-sqlite3 binds, and finds the same
	}
	if st.timeout {
		c.leaveBusyTimeout()
	}
	opened, err := c.stmtQuery(inner, &st.prepared, st.open > 0, args)
	if guarded || st.class != 0 || err != nil {
		opened, err = c.begun(ctx, guarded, st.class, st.query, opened, err)
	}
	if st.timeout {
		c.takeBusyTimeout(true, st.class, st.query)
	}
	if err != nil {
		c.rec.Executing(st.query)
		return nil, c.leave(err)
	}
	r := c.openRows(ctx, guarded, opened, st, nil, st.query)
	if err = c.leave(nil); err != nil {
		return nil, err
	}
	return r, nil
}

// Exec is ExecContext for callers without a context.
func (s *stmt) Exec(args []driver.Value) (driver.Result, error) {
	return s.ExecContext(context.Background(), named(args))
}

// Query is QueryContext for callers without a context.
func (s *stmt) Query(args []driver.Value) (driver.Rows, error) {
	return s.QueryContext(context.Background(), named(args))
}

// Close closes the statement. database/sql may hold the lock of the whole
// sql.DB, so it does not wait for the reaper: that finds the statement handed
// over.
func (s *stmt) Close() error {
	h := s.h.Load()
	if h == nil {
		return nil
	}
	c := h.c
	f, inside := c.gate.EnterNow()
	if !inside {
		// What is handed over holds the handle: collected before its turn comes, it
		// would look abandoned.
		if s.h.CompareAndSwap(h, nil) {
			c.handOver(func() { c.closeStmt(h) })
		}
		return nil
	}
	if f&gate.Busy != 0 {
		return errBusy
	}
	if !s.h.CompareAndSwap(h, nil) { // closed meanwhile: the handle may be another's
		return c.leave(nil)
	}
	return c.leave(c.closeStmt(h))
}

// closeStmt closes the statement of a handle, if the guard has not done so, and keeps
// the handle for the next one. The connection is inside the gate.
func (c *conn) closeStmt(h *stmtHandle) (err error) {
	if h.st.slot >= 0 {
		err = c.finalize(h.st)
	}
	if len(c.freeStmts) < maxFree {
		c.freeStmts = append(c.freeStmts, h)
	}
	return err
}
