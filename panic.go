package leakguard

import (
	"context"
	"database/sql/driver"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// The calls into SQLite that may run a Go function of the program: all that prepare,
// step, reset or finalize a statement, or close the connection, for authorizers, hooks
// and virtual tables are such functions, too. If one panics or ends its goroutine,
// SQLite never gets to unlock the connection: the gate stays busy, and the connection
// is given up. database/sql does not always come back with it (it has no defer around a
// query), so it is noticed here. A gate that is busy without that belongs to an
// operation in flight.

// returned is deferred around such a call.
func (c *conn) returned(ok *bool) {
	if !*ok {
		c.lose()
	}
}

// lose gives up a connection that SQLite never came back from. Nobody touches
// it again, go-sqlite3's finalizers included.
func (c *conn) lose() {
	c.rec.Lost()
	theWatchdog.remove(&c.watch) // and nobody begins to attend to it
	if c.gate.Has(gate.Attended) {
		c.gate.Clear(gate.Attended)
		c.watch.dismiss()
	}
	c.forgetConn()
	c.sqlite.Forget()
	// Now, for who reads it (see IsValid and Close) takes it that all this is done.
	// Close marks the gate first and reads then: one of the two sees the other.
	c.lost.Store(true)
	if c.gate.Has(gate.Closing) {
		c.rec.Close()
	}
}

func (c *conn) innerExec(ctx context.Context, query string, args []driver.NamedValue) (res driver.Result, err error) {
	ok := false
	defer c.returned(&ok)
	res, err = c.inner.ExecContext(ctx, query, args)
	ok = true
	return res, err
}

func (c *conn) innerQuery(ctx context.Context, query string, args []driver.NamedValue) (rows sqliteRows, err error) {
	ok := false
	defer c.returned(&ok)
	opened, err := c.inner.QueryContext(ctx, query, args)
	ok = true
	return asRows(opened, err)
}

func (c *conn) rowsNext(inner sqliteRows, dest []driver.Value) (err error) {
	ok := false
	defer c.returned(&ok)
	err = inner.Next(dest)
	ok = true
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

// asRows takes go-sqlite3's rows. With an error there are none, whatever it
// returns.
func asRows(opened driver.Rows, err error) (sqliteRows, error) {
	if err != nil {
		return nil, err
	}
	rows, ok := opened.(sqliteRows)
	if !ok {
		opened.Close()
		return nil, lacking(opened)
	}
	return rows, nil
}

func (c *conn) innerPrepare(ctx context.Context, query string) (prepared driver.Stmt, err error) {
	ok := false
	defer c.returned(&ok)
	prepared, err = c.inner.PrepareContext(ctx, query)
	ok = true
	return prepared, err
}

// innerBegin begins a transaction as go-sqlite3 does it.
func (c *conn) innerBegin(ctx context.Context, opts driver.TxOptions) (err error) {
	ok := false
	defer c.returned(&ok)
	_, err = c.inner.BeginTx(ctx, opts)
	ok = true
	return err
}

// stmtClose closes a statement, which may be the last to use a virtual table.
func (c *conn) stmtClose(inner sqliteStmt) (err error) {
	ok := false
	defer c.returned(&ok)
	err = inner.Close()
	ok = true
	return err
}

// innerShut closes the handle, which rolls back.
func (c *conn) innerShut() (err error) {
	ok := false
	defer c.returned(&ok)
	h := c.takeHandle()
	err = h.close()
	ok = true
	return err
}

// statementEnd is capi.StatementEnd, which prepares the statement.
func (c *conn) statementEnd(query string) (end, params int, ok bool) {
	back := false
	defer c.returned(&back)
	end, params, ok = capi.StatementEnd(c.db(), query)
	back = true
	return end, params, ok
}

// stmtExec resets a statement that returns columns behind its run: go-sqlite3
// leaves INSERT … RETURNING at its first row, and with it an idle connection
// that holds the write lock.
func (c *conn) stmtExec(ctx context.Context, st *stmtState, args []driver.NamedValue) (res driver.Result, err error) {
	ok := false
	defer c.returned(&ok)
	if !st.columns {
		if k := c.direct(ctx, &st.prepared, st.open > 0, args); k != nil {
			if res, err, ok = k.exec(&c.args); ok {
				return res, err
			}
		}
	}
	res, err = st.inner.ExecContext(ctx, args)
	if err == nil && st.columns && st.open == 0 { // open rows would begin again
		// An autocommit statement commits here, and may fail to.
		if code := st.handle.ResetCode(); code != 0 {
			err = codeError(code)
		}
	}
	ok = true
	return res, err
}

func (c *conn) textExec(ctx context.Context, t *text, args []driver.NamedValue) (res driver.Result, err error) {
	ok := false
	defer c.returned(&ok)
	if k := c.direct(ctx, &t.prepared, false, args); k != nil {
		if res, err, ok = k.exec(&c.args); ok {
			return res, err
		}
	}
	res, err = t.inner.ExecContext(ctx, args)
	ok = true
	return res, err
}

// txRun and txExec run one of the prepared BEGIN, COMMIT and ROLLBACK.
func (c *conn) txRun(run *capi.Cursor, timed bool) (code int) {
	ok := false
	defer c.returned(&ok)
	code = run.Run(timed)
	ok = true
	return code
}

func (c *conn) txExec(ctx context.Context, s sqliteStmt) (err error) {
	ok := false
	defer c.returned(&ok)
	_, err = s.ExecContext(ctx, nil)
	ok = true
	return err
}
