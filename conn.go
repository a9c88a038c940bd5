package leakguard

import (
	"context"
	"database/sql/driver"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// conn is one guarded connection. Everything but what is marked otherwise is
// guarded by the gate.
type conn struct {
	gate      gate
	connector *Connector    // immutable
	rec       *tracker.Conn // immutable
	inner     sqliteConn    // immutable
	db        capi.DB       // immutable
	wait      capi.Wait     // immutable; freed with the handle

	watch   watch
	leased  bool
	tx      tx
	txn     txn
	session session
	begins  txStmts
	// busyHandler: the guard's own is installed; progress: so is its progress
	// handler.
	busyHandler, progress bool
	// discard: not fit for the pool; IsValid says so at check-in.
	discard bool
	// recycled: IsValid gave it up for a limit, Close is next.
	recycled bool
	// raw: the real connection was handed out in this lease.
	raw atomic.Bool
	// gone is what a dead connection answers; rolledBack says that its owner
	// has not rolled back yet what died with it.
	gone       error
	rolledBack bool

	rows      openRows
	stmts     openStmts
	freeRows  []*rows
	freeStmts []*stmt

	// order is what a condemned operation carries out, written before the
	// gate's condemned bit and read behind it.
	order atomic.Pointer[tracker.Order]

	// What was left to whoever is inside the gate next. waiting says that there
	// is some, so that nobody has to lock to know that there is none.
	waiting atomic.Bool
	handMu  sync.Mutex
	handed  []func()
}

var (
	_ driver.Conn               = (*conn)(nil)
	_ driver.Pinger             = (*conn)(nil)
	_ driver.Execer             = (*conn)(nil)
	_ driver.ExecerContext      = (*conn)(nil)
	_ driver.Queryer            = (*conn)(nil)
	_ driver.QueryerContext     = (*conn)(nil)
	_ driver.ConnPrepareContext = (*conn)(nil)
	_ driver.ConnBeginTx        = (*conn)(nil)
	_ driver.SessionResetter    = (*conn)(nil)
	_ driver.Validator          = (*conn)(nil)
)

// enter begins an operation of the owner. On an error nothing has begun.
func (c *conn) enter(ctx context.Context) error {
	if f := c.gate.enter(); f != 0 {
		if err := c.refuse(f); err != nil {
			return err
		}
	}
	if !c.leased {
		c.checkOut(ctx)
	}
	return nil
}

// refuse answers an operation that found flags at the gate: with an error the
// operation is over.
func (c *conn) refuse(f uint64) error {
	var err error
	switch {
	case f&busy != 0:
		return errBusy
	case f&dead != 0:
		err = c.gone
	case f&tombed != 0:
		err = c.txn.tomb.refuse(c)
	}
	if err != nil {
		return c.leave(err)
	}
	return nil
}

// enterText is refuse for a text, which may be the owner's rollback of what
// the guard undid: then it is over (done), or what is left of it runs.
func (c *conn) enterText(f uint64, class textClass, query string) (rest string, done bool, err error) {
	switch {
	case c.ownRollback(f, class):
		return "", true, c.leave(nil)
	case f == tombed && class&textRollback != 0:
		rest, done = c.rollbackText(class, query)
		if done {
			err = c.leave(nil)
		}
		return rest, done, err
	}
	return query, false, c.refuse(f)
}

// leave ends an operation and returns what it returns: err, or what an order
// that came meanwhile made of it.
func (c *conn) leave(err error) error {
	for {
		bits := c.gate.leave()
		if bits == 0 {
			return err
		}
		// The bits first: who tells the operation to stop again meanwhile sets
		// them again.
		c.gate.clear(bits & (attended | stopped))
		if bits&attended != 0 {
			c.watch.dismiss()
		}
		if bits&stopped != 0 {
			c.wait.Stop(false)
		}
		if bits&condemned != 0 {
			err = c.carryCondemned(err)
		}
	}
}

// checkOut begins a lease.
func (c *conn) checkOut(ctx context.Context) {
	c.leased = true
	c.rec.CheckOut(exemption(ctx))
}

// Raw returns go-sqlite3's connection; see SQLiteConn. It is the way down that
// wrappers share.
func (c *conn) Raw() driver.Conn {
	f := c.gate.enter() // waits for a reaper that is inside
	c.raw.Store(true)
	c.rec.HandedOut()
	if f&busy == 0 {
		c.leave(nil)
	}
	return c.inner
}

// Ping does what go-sqlite3's does.
func (c *conn) Ping(ctx context.Context) error {
	if f := c.gate.enter(); f&(busy|dead) != 0 {
		return c.refuse(f)
	}
	return c.leave(c.inner.Ping(ctx))
}

// ExecContext runs one or more statements.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	class := classify(query)
	if f := c.gate.enter(); f != 0 {
		rest, done, err := c.enterText(f, class, query)
		if err != nil {
			return nil, err
		}
		if done {
			return textResult(), nil
		}
		if rest != query {
			query, class = rest, classify(rest)
		}
	}
	if !c.leased {
		c.checkOut(ctx)
	}
	c.rec.Executing(query)
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		return nil, c.leave(err)
	}
	restore := c.busyHandler && namesBusyTimeout(class, query)
	if restore {
		c.wait.Default()
	}
	var res driver.Result
	if class&(textMulti|textTx) == textMulti|textTx && c.db.OK() {
		res, err = c.execEach(ctx, inner, query, args)
	} else {
		res, err = c.inner.ExecContext(inner, query, args)
		if err != nil && guarded {
			err = ended(ctx, err)
		}
		if class != 0 || err != nil {
			c.after(ctx, class, query, err)
		}
	}
	if restore || class&textPragma != 0 {
		c.takeBusyTimeout(restore, class, query)
	}
	if err = c.leave(err); err != nil {
		return nil, err
	}
	return res, nil
}

// execEach runs the statements of a text one by one, so that it is known which
// of them ended or began a transaction, and whether that was the program's own
// statement or SQLite's answer to an error.
func (c *conn) execEach(ctx, inner context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	for _, a := range args {
		if a.Name != "" { // may belong to any of the statements
			res, err := c.inner.ExecContext(inner, query, args)
			err = ended(ctx, err)
			c.after(ctx, classify(query), query, err)
			return res, err
		}
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		end, params, ok := capi.StatementEnd(c.db, query)
		if !ok || len(args) < params {
			end, params = len(query), len(args) // the rest fails as it does without us
		}
		part, own := query[:end], args[:params:params]
		for i := range own {
			own[i].Ordinal = i + 1
		}
		query, args = strings.TrimSpace(query[end:]), args[params:]
		res, err := c.inner.ExecContext(inner, part, own)
		err = ended(ctx, err)
		if class := classify(part); class != 0 || err != nil {
			c.after(ctx, class, part, err)
		}
		if err != nil || query == "" {
			return res, err
		}
	}
}

// QueryContext runs statements and returns the rows of the last one.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	class := classify(query)
	if f := c.gate.enter(); f != 0 {
		rest, done, err := c.enterText(f, class, query)
		if err != nil {
			return nil, err
		}
		if done {
			return noRows{}, nil
		}
		if rest != query {
			query, class = rest, classify(rest)
		}
	}
	if !c.leased {
		c.checkOut(ctx)
	}
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		return nil, c.leave(err)
	}
	restore := c.busyHandler && namesBusyTimeout(class, query)
	if restore {
		c.wait.Default()
	}
	opened, err := c.inner.QueryContext(inner, query, args)
	if guarded {
		opened, err = c.begun(ctx, opened, err)
	}
	if class != 0 || err != nil {
		c.after(ctx, class, query, err)
	}
	if restore || class&textPragma != 0 {
		c.takeBusyTimeout(restore, class, query)
	}
	if err != nil {
		c.rec.Executing(query)
		return nil, c.leave(err)
	}
	r, err := c.openRows(ctx, guarded, opened, nil, query)
	if err = c.leave(err); err != nil {
		return nil, err
	}
	return r, nil
}

// PrepareContext prepares the first statement of the text.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	class := classify(query)
	restore := c.busyHandler && namesBusyTimeout(class, query)
	if restore {
		c.wait.Default()
	}
	prepared, err := c.inner.PrepareContext(ctx, query)
	if restore || class&textPragma != 0 {
		c.takeBusyTimeout(restore, class, query)
	}
	if err != nil {
		c.after(ctx, 0, query, err)
		return nil, c.leave(err)
	}
	s, err := c.openStmt(ctx, prepared, query)
	if err = c.leave(err); err != nil {
		return nil, err
	}
	return s, nil
}

// Prepare is PrepareContext for callers without a context.
func (c *conn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// Exec is ExecContext for callers without a context.
func (c *conn) Exec(query string, args []driver.Value) (driver.Result, error) {
	return c.ExecContext(context.Background(), query, named(args))
}

// Query is QueryContext for callers without a context.
func (c *conn) Query(query string, args []driver.Value) (driver.Rows, error) {
	return c.QueryContext(context.Background(), query, named(args))
}

// Begin is BeginTx for callers without a context.
func (c *conn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

func named(args []driver.Value) []driver.NamedValue {
	out := make([]driver.NamedValue, len(args))
	for i, v := range args {
		out[i] = driver.NamedValue{Ordinal: i + 1, Value: v}
	}
	return out
}
