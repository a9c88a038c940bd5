package leakguard

import (
	"context"
	"database/sql/driver"
	"runtime"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// stmt is the handle of a prepared statement, see rows.
type stmt struct {
	c  *conn
	st *stmtState
}

// stmtState is one prepared statement.
type stmtState struct {
	prepared
	query   string
	class   textClass
	columns bool       // it returns columns
	timeout bool       // namesBusyTimeout: SQLite compiles it again for each run
	inputs  int        // parameters
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
	class := classify(query)
	if class&textMulti != 0 { // only the first statement is prepared
		if end, _, ok := capi.StatementEnd(c.db, query); ok {
			query = query[:end]
			class = classify(query)
		}
	}
	s := c.takeStmt()
	st := s.st
	st.prepared = prepared{inner: inner, handle: capi.OfStmt(opened)}
	st.query, st.class, st.last, st.open = query, class, nil, 0
	st.timeout = namesBusyTimeout(class, query)
	if st.class&(textAttach|textTemp|textPragma|textHistory) != 0 {
		c.session.note(c, st.class, query) // a PRAGMA acts when it is prepared
	}
	st.inputs = inner.NumInput()
	st.columns = st.handle.Columns() > 0
	st.slot = len(c.stmts)
	c.stmts = append(c.stmts, st)
	c.rec.OpenStatement(&st.res, query, exemption(ctx))
	c.rec.TraceResource(ctx, &st.res)
	return s, nil
}

func (c *conn) takeStmt() *stmt {
	if n := len(c.freeStmts); n > 0 {
		s := c.freeStmts[n-1]
		c.freeStmts[n-1] = nil
		c.freeStmts = c.freeStmts[:n-1]
		return s
	}
	s := &stmt{c: c, st: &stmtState{slot: -1}}
	runtime.AddCleanup(s, provenStmt, stmtRef{weak.Make(c), s.st})
	return s
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
	err := st.inner.Close()
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

// ExecContext runs the statement.
func (s *stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	c, st := s.c, s.st
	if done, err := s.enter(ctx); done || err != nil {
		if err != nil {
			return nil, err
		}
		return textResult(), nil
	}
	c.rec.Executing(st.query)
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil && (st.class&textTx == 0 || !c.txn.open) {
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
	c, st := s.c, s.st
	f, inside := c.gate.enterNow()
	if !inside {
		c.handOver(func() {
			if st.slot >= 0 {
				c.finalize(st)
			}
		})
		return nil
	}
	if f&busy != 0 {
		return errBusy
	}
	var err error
	if st.slot >= 0 {
		err = c.finalize(st)
		if len(c.freeStmts) < maxFree {
			c.freeStmts = append(c.freeStmts, s)
		}
	}
	return c.leave(err)
}
