package leakguard

import (
	"context"
	"database/sql/driver"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// conn is one guarded connection. Everything but what is marked otherwise is
// guarded by the gate.
type conn struct {
	// What each operation touches comes first, in as few cache lines as it takes:
	// behind SQLite's system calls they are cold.
	gate   gate.Gate
	rec    *tracker.Conn // immutable
	inner  sqliteConn    // immutable
	leased bool
	// wrapped: database/sql reaches it through somebody else's driver, which may
	// hide ResetSession and IsValid. Immutable.
	wrapped bool
	// sawReset and sawCheckIn: ResetSession and IsValid were called.
	sawReset, sawCheckIn bool
	// unbegun: ResetSession gave up waiting for the reaper, so no lease was begun. It
	// is read outside the gate.
	unbegun atomic.Bool
	// discard: not fit for the pool; IsValid says so at check-in.
	discard bool
	// busyHandler: the guard's own is installed; progress: so is its progress
	// handler.
	busyHandler, progress bool
	// raw: the real connection was handed out in this lease.
	raw atomic.Bool
	// remains: a lease that had the real connection left something open on it.
	remains bool
	// waiting says that something is handed, so that nobody has to lock to know
	// that there is nothing.
	waiting  atomic.Bool
	lease    uint64        // counts leases
	ops      int           // operations of this lease, as far as arm sees them
	at       time.Duration // when the last one was over, see happened
	skew     time.Duration // from the system's clock to the tracker's, 0 if not known
	txn      txn
	rows     openRows
	freeRows []*rowsHandle
	oneRows  [1]*rowsState  // rows, as long as it has room
	oneFree  [1]*rowsHandle // freeRows, too
	args     capi.Args      // of the run that begins
	watch    watch
	texts    texts

	connector *Connector // immutable
	sqlite    capi.Conn  // immutable
	wait      capi.Wait  // immutable; freed with the handle
	dropped   runtime.Cleanup
	tx        tx
	begins    txStmts
	session   session
	loan      loan
	stmts     openStmts
	freeStmts []*stmtHandle
	// closed: Close was called.
	closed bool
	// lost: a call never came back, see lose.
	lost atomic.Bool
	// forgotten: see forgetConn. Guarded by Connector.mu.
	forgotten bool
	// gone is what a dead connection answers; rolledBack says that its owner
	// has not rolled back yet what died with it.
	gone       error
	rolledBack bool

	// order is what a condemned operation carries out, placed before the gate's
	// condemned bit and taken behind it: see condemn.
	order atomic.Pointer[tracker.Order]
	// meant is the order that may stop the condemned operation.
	meant atomic.Pointer[tracker.Order]
	// shielded: an order is carried out, and no other one stops that.
	shielded atomic.Bool

	// What was left to whoever is inside the gate next.
	handMu sync.Mutex
	handed []func()
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

// db returns SQLite's handle, none once it is closed. It is asked for each time, for a
// program that has the real connection may close that.
func (c *conn) db() capi.DB { return c.sqlite.DB() }

// closedByProgram reports whether the program closed the real connection. The caller is
// inside the gate, and the guard has not closed it.
func (c *conn) closedByProgram() bool { return isClosed(c.inner) }

// isClosed is what go-sqlite3's Ping tells.
func isClosed(inner sqliteConn) bool { return inner.Ping(context.Background()) != nil }

// autocommit reports whether no transaction is open. A connection that the program
// closed has none; go-sqlite3 says false then.
func (c *conn) autocommit() bool { return c.inner.AutoCommit() || c.closedByProgram() }

// ResetSession begins a lease. It answers driver.ErrBadConn if the connection
// was closed while it sat in the pool; database/sql then takes another one. It
// calls this and IsValid with its own locks held, see hooks.go.
func (c *conn) ResetSession(ctx context.Context) error {
	exempt := exemption(ctx) // asks the context, so nothing is held yet
	f := c.gate.EnterAs(ctx, gate.Busy|gate.Recording)
	if f&gate.Reaping != 0 {
		c.unbegun.Store(true)
		return nil // ctx is over: the operation that follows begins the lease, and says so
	}
	if f&gate.Busy != 0 {
		return driver.ErrBadConn
	}
	if f&gate.Dead != 0 {
		c.leave(nil)
		return driver.ErrBadConn
	}
	if c.waiting.Load() || c.wrapped || c.remains {
		c.rec.Recorded()
		c.drain()
		if c.remains {
			c.stillLeft()
		}
		if c.wrapped && !c.shownReset(f) {
			c.leave(nil)
			return driver.ErrBadConn
		}
		c.rec.Record()
	}
	c.checkOut(ctx, exempt)
	c.leave(nil)
	return nil
}

// IsValid ends a lease and says whether the connection may go into the pool.
// A transaction begun by SQL text stays: it may legally go on in the next
// lease, and rolling back here would commit half of it.
func (c *conn) IsValid() bool {
	wait := context.Background()
	if c.unbegun.Load() {
		wait = gate.NotAtAll
	}
	f := c.gate.EnterAs(wait, gate.Busy|gate.Recording)
	if f&gate.Reaping != 0 {
		return true // no lease to end: see ResetSession
	}
	if f&gate.Busy != 0 {
		// An operation in flight has the record to itself. Nobody comes back to that
		// of a lost connection.
		if c.lost.Load() {
			c.rec.Record()
			c.rec.CheckIn()
			c.rec.Recorded()
		}
		return false
	}
	if c.waiting.Load() || c.raw.Load() || c.wrapped {
		c.rec.Recorded()
		c.drain()
		c.takeBack(f)
		if c.wrapped && !c.sawCheckIn {
			c.sawCheckIn = true
			c.rec.SawCheckIn()
		}
		c.rec.Record()
	}
	reason := c.rec.CheckIn()
	if reason != "" || c.txn.tomb != nil {
		c.rec.Recorded() // SQLite may be asked
	}
	c.leased = false
	valid := f&gate.Dead == 0 && !c.discard
	if t := c.txn.tomb; t != nil {
		t.pooled = true
		// Begun in this lease, which did more than that: it was a sql.Conn's,
		// and its owner will not come back.
		if t.lease == c.lease && c.ops > 1 {
			if c.session.forever != "" && c.autocommit() {
				c.exhume()
			} else {
				valid = false
			}
		}
	} else if valid && reason != "" && !c.txn.open {
		valid = c.expire(reason)
	}
	c.leave(nil)
	return valid
}

// checkOut begins a lease. The record is open; what the context is asked for is
// asked before, for its Value may be anybody's code.
func (c *conn) checkOut(ctx context.Context, exempt string) {
	if c.unbegun.Load() {
		c.unbegun.Store(false)
	}
	c.leased = true
	c.lease++
	c.ops = 0
	c.rec.CheckOut(exempt)
	c.rec.TraceLease(ctx)
}

// checkOutNow is checkOut for an operation that goes on.
func (c *conn) checkOutNow(ctx context.Context) {
	exempt := exemption(ctx)
	c.rec.Record()
	c.checkOut(ctx, exempt)
	c.rec.Recorded()
}

// enter begins an operation of the owner. On an error nothing has begun.
func (c *conn) enter(ctx context.Context) error {
	if f := c.met(c.gate.EnterUntil(ctx)); f != 0 {
		if err := c.refuse(ctx, f); err != nil {
			return err
		}
	}
	if !c.leased {
		c.checkOutNow(ctx)
	}
	return nil
}

// enterFor enters the gate for a text.
func (c *conn) enterFor(ctx context.Context, class sqltext.Class) uint64 {
	if class&sqltext.Tx == 0 {
		return c.met(c.gate.EnterUntil(ctx))
	}
	return c.met(c.insist(c.gate.EnterAs(ctx, gate.Busy|gate.Ending), class))
}

// refuse answers an operation that found flags at the gate: with an error the
// operation is over.
func (c *conn) refuse(ctx context.Context, f uint64) error {
	var err error
	switch {
	case f&gate.Busy != 0:
		return errBusy
	case f&gate.Reaping != 0:
		return ctx.Err()
	case f&gate.Dead != 0:
		err = c.gone
		if over := ctx.Err(); over != nil && !c.leased {
			err = over // see ResetSession, which gave up: the pool had it, not this operation
		}
	case f&gate.Tombed != 0:
		err = c.txn.tomb.refuse(c)
	}
	if err != nil {
		return c.leave(err)
	}
	return nil
}

// insistence is how long the end of a transaction waits for the reaper beyond
// its context: what the reaper does between undoing is over by then.
const insistence = 25 * time.Millisecond

// insist enters for a text that ends the transaction and found the reaper inside
// and its context over: for that alone, such a text is not refused.
func (c *conn) insist(f uint64, class sqltext.Class) uint64 {
	if f&gate.Reaping == 0 || class&sqltext.EndsTx == 0 {
		return f
	}
	ctx, cancel := context.WithTimeout(context.Background(), insistence)
	defer cancel()
	return c.gate.EnterAs(ctx, gate.Busy|gate.Ending)
}

// mayEnd says, right behind enter, that the text may end the transaction.
func (c *conn) mayEnd(f uint64, class sqltext.Class) {
	if class&sqltext.Tx != 0 && f&(gate.Busy|gate.Reaping) == 0 {
		c.gate.Set(gate.Ending)
		c.gate.Take(0) // an interrupt may be on its way
	}
}

// enterText is refuse for a text, which may be the owner's rollback of what
// the guard undid: then it is over (done), or what is left of it runs.
func (c *conn) enterText(ctx context.Context, f uint64, class sqltext.Class, query string) (rest string, done bool, err error) {
	switch {
	case c.ownRollback(f, class):
		return "", true, c.leave(nil)
	case f == gate.Tombed && class&sqltext.Rollback != 0:
		rest, done, err = c.rollbackText(class, query)
		if done {
			err = c.leave(err)
		}
		return rest, done, err
	}
	return query, false, c.refuse(ctx, f)
}

// leave ends an operation and returns what it returns: err, or what an order
// that came meanwhile made of it.
func (c *conn) leave(err error) error {
	if !c.gate.Left() {
		err = c.leaveBusy(err)
	}
	if err != nil {
		c.blame(err)
	}
	return err
}

// leaveQuietly is leave for an error that was told before.
func (c *conn) leaveQuietly(err error) error {
	if !c.gate.Left() {
		err = c.leaveBusy(err)
	}
	return err
}

func (c *conn) leaveBusy(err error) error {
	for !c.gate.Leave() {
		err = c.seeTo(err)
	}
	return err
}

// seeTo sees to what keeps an operation from leaving.
func (c *conn) seeTo(err error) error {
	c.gate.Clear(gate.Watched | gate.Recording) // SQLite is done: the context has nothing left to stop
	bits := c.gate.Take(gate.Condemned | gate.Stopped | gate.Attended | gate.Closing)
	c.unwatch(bits)
	if bits&gate.Condemned != 0 {
		c.wait.Stop(false)
		err = c.carryCondemned(err)
	}
	if bits&gate.Closing != 0 {
		c.shut()
	}
	return err
}

// Raw returns go-sqlite3's connection; see SQLiteConn. It is the way down that
// wrappers share.
func (c *conn) Raw() driver.Conn {
	c.handOut(c.met(c.enterRaw()))
	return c.inner
}

// enterRaw waits for a reaper that is inside. An order that condemns this
// operation comes to nothing, like one that ends the transaction: it must not be
// interrupted, for that would stick to open rows.
func (c *conn) enterRaw() uint64 { return c.gate.EnterEnding() }

func (c *conn) handOut(f uint64) {
	c.raw.Store(true)
	c.rec.StampLease()
	c.rec.HandedOut()
	if f&gate.Busy == 0 {
		c.texts.stop()
		c.begins.drop()
		c.begins.once = true
		c.ops++
		if f&gate.Dead == 0 {
			c.lend()
		}
		c.leave(nil)
	}
}

// Ping does what go-sqlite3's does.
func (c *conn) Ping(ctx context.Context) error {
	if f := c.gate.EnterUntil(ctx); f&(gate.Busy|gate.Reaping|gate.Dead) != 0 {
		return c.refuse(ctx, f)
	}
	return c.leave(c.inner.Ping(ctx))
}

// ExecContext runs one or more statements.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	f, again := c.met(c.gate.EnterUntil(ctx)), false
	if f == 0 {
		var t *text
		if t, again = c.findText(query, args); t != nil && !t.columns {
			return c.execText(ctx, t, args)
		}
	}
	class := sqltext.Classify(query)
	f = c.insist(f, class)
	c.mayEnd(f, class)
	if f != 0 {
		rest, done, err := c.enterText(ctx, f, class, query)
		if err != nil {
			return nil, err
		}
		if done {
			return textResult(), nil
		}
		if rest != query {
			query, class = rest, sqltext.Classify(rest)
		}
	}
	if !c.leased {
		c.checkOutNow(ctx)
	}
	c.rec.Executing(query)
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil && (class&sqltext.Tx == 0 || !c.txn.open) {
		return c.execOver(ctx, class, query, args)
	}
	if err != nil {
		inner = context.Background() // the end of a transaction is not refused
	}
	restore := c.busyHandler && namesBusyTimeout(class, query)
	if restore {
		c.wait.Default(c.db())
	}
	var res driver.Result
	if class&(sqltext.Multi|sqltext.Tx) == sqltext.Multi|sqltext.Tx && c.db().OK() {
		c.spare()
		res, err = c.execEach(ctx, inner, guarded, query, args)
	} else {
		res, err = c.innerExec(inner, query, args)
		if err != nil && guarded {
			err = ended(ctx, err)
		}
		if class != 0 || err != nil {
			c.after(ctx, class, query, err)
		} else if again {
			c.keepText(inner, query)
		}
	}
	if restore || class&sqltext.Pragma != 0 {
		c.takeBusyTimeout(restore, class, query)
	}
	c.wrote(class)
	if err = c.leave(err); err != nil {
		return nil, err
	}
	return res, nil
}

// execOver answers a text whose context is over before it begins. go-sqlite3
// prepares it first and may find another error; by its Query nothing runs.
func (c *conn) execOver(ctx context.Context, class sqltext.Class, query string, args []driver.NamedValue) (driver.Result, error) {
	opened, err := c.innerQuery(ctx, query, args)
	if err == nil { // an empty text
		opened.Close()
	} else {
		c.after(ctx, class, query, err)
	}
	if err = c.leave(err); err != nil {
		return nil, err
	}
	return textResult(), nil
}

// QueryContext runs statements and returns the rows of the last one.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	f, again := c.met(c.gate.EnterUntil(ctx)), false
	if f == 0 {
		var t *text
		if t, again = c.findText(query, args); t != nil {
			return c.queryText(ctx, t, args)
		}
	}
	class := sqltext.Classify(query)
	f = c.insist(f, class)
	c.mayEnd(f, class)
	if f != 0 {
		rest, done, err := c.enterText(ctx, f, class, query)
		if err != nil {
			return nil, err
		}
		if done {
			return noRows{}, nil
		}
		if rest != query {
			query, class = rest, sqltext.Classify(rest)
		}
	}
	if !c.leased {
		c.checkOutNow(ctx)
	}
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		inner, guarded = ctx, false // go-sqlite3 prepares, and finds the same
	}
	restore := c.busyHandler && namesBusyTimeout(class, query)
	if restore {
		c.wait.Default(c.db())
	}
	var opened sqliteRows
	if class&(sqltext.Multi|sqltext.Tx) == sqltext.Multi|sqltext.Tx && c.db().OK() {
		c.spare()
		opened, err = c.queryEach(ctx, inner, guarded, query, args)
	} else {
		opened, err = c.innerQuery(inner, query, args)
		opened, err = c.begun(ctx, guarded, class, query, opened, err)
		if again && class == 0 && err == nil {
			c.keepText(inner, query)
		}
	}
	if restore || class&sqltext.Pragma != 0 {
		c.takeBusyTimeout(restore, class, query)
	}
	if err != nil {
		c.rec.Executing(query)
		return nil, c.leave(err)
	}
	r := c.openRows(ctx, guarded, opened, nil, nil, query)
	if err = c.leave(nil); err != nil {
		return nil, err
	}
	return r, nil
}

// PrepareContext prepares the first statement of the text.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	class := sqltext.Classify(query)
	restore := c.busyHandler && namesBusyTimeout(class, query)
	if restore {
		c.wait.Default(c.db())
	}
	prepared, err := c.innerPrepare(ctx, query)
	if restore || class&sqltext.Pragma != 0 {
		c.takeBusyTimeout(restore, class, query)
	}
	if err != nil {
		c.rec.Executing(query)
		c.after(ctx, 0, query, err)
		return nil, c.leave(err)
	}
	s, err := c.openStmt(ctx, prepared, query)
	if err = c.leave(err); err != nil {
		if s != nil {
			s.Close() // nobody else can
		}
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
