package leakguard

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// txn is what the guard knows of the connection's transaction, begun by
// BeginTx or by SQL text. sqlite3_get_autocommit decides, and is asked only
// after what can have changed it: a text that controls transactions, and any
// error inside one.
type txn struct {
	open       bool
	outer      bool // the outermost savepoint is the transaction itself
	ofTx       bool // begun by BeginTx
	tomb       *tomb
	id         uint64   // the tracker's, stays behind in a tomb
	lease      uint64   // in which it began
	savepoints []string // as SQLite compares them, the outermost first
	// failed is the generation of the operation in which tx.Commit or tx.Rollback
	// failed.
	failed uint64
}

// tomb stands where a transaction was that is over while its owner does not
// know: it answers everything with the reason until the owner rolls back.
// Without it the rest of the transaction would run in autocommit.
type tomb struct {
	id      uint64
	err     error
	byGuard bool
	since   time.Time
	pooled  bool         // the connection has been in the pool since
	killed  []*rowsState // that answer with err
	lease   uint64       // in which the transaction began
}

// refuse returns the tomb's error. A transaction by SQL text may go on in a
// later lease, so its tomb stays when the connection goes into the pool; who
// meets it there may be somebody else, so it is met once, and then the
// connection is replaced. What SQLite aborted was no leak: its owner is likely
// to be the one who comes back, and is told until leak_after has passed.
//
// Where a wrapper hides the pool's hooks nobody says that the connection is in the
// pool, nor can it be replaced: there the tomb of a transaction by SQL text ends with
// who meets it after leak_after, or the connection would be of no use to anybody for
// good.
func (t *tomb) refuse(c *conn) error {
	shown := !c.wrapped || c.sawReset || c.sawCheckIn
	if t.pooled || !shown && !c.txn.ofTx {
		limit := c.connector.pool.Policy().LeakAfter
		waited := limit > 0 && time.Since(t.since) >= limit
		switch {
		case shown && (t.byGuard || waited):
			c.discard = true
		case !shown && waited:
			c.exhume()
		}
	}
	return t.err
}

// after brings txn and session up to date when a text has run. The connection
// is inside the gate.
func (c *conn) after(ctx context.Context, class sqltext.Class, query string, err error) {
	if class&(sqltext.Attach|sqltext.Temp|sqltext.Pragma|sqltext.History) != 0 {
		c.session.note(c, class, query)
	}
	if class&sqltext.Tx == 0 && (err == nil || !c.txn.open) {
		return
	}
	auto := c.autocommit()
	switch {
	case c.txn.open && auto && (err == nil || c.closedByProgram()):
		c.endTx() // the program's own COMMIT or ROLLBACK, or its Close
	case c.txn.open && auto:
		c.abort(err)
	case !auto && class&sqltext.Tx != 0:
		c.steps(ctx, query, err)
	}
}

// steps follows the transaction statements of a text whose transaction is open
// after it.
func (c *conn) steps(ctx context.Context, query string, err error) {
	steps := sqltext.Steps(query)
	if err != nil {
		// An InTx level that could not be undone leaves the transaction in a
		// state that nobody asked for: the connection goes.
		for _, s := range steps {
			if (s.Kind == sqltext.StepRollbackTo || s.Kind == sqltext.StepRelease) && strings.HasPrefix(s.Name, savepointPrefix) {
				c.discard = true
			}
		}
		if !c.txn.open {
			c.beginTx(ctx, query)
		}
		return
	}
	began := !c.txn.open
	if c.txn.open {
		for _, s := range steps {
			if s.Kind == sqltext.StepCommit || s.Kind == sqltext.StepRollback || s.Kind == sqltext.StepRelease && c.txn.outer && c.txn.depth(s.Name) == 0 {
				c.endTx()
				began = true
				break
			}
		}
	}
	if began {
		c.beginTx(ctx, query)
	}
	for _, s := range steps {
		switch s.Kind {
		case sqltext.StepBegin, sqltext.StepCommit, sqltext.StepRollback:
			c.txn.savepoints = c.txn.savepoints[:0]
		case sqltext.StepSavepoint:
			c.txn.savepoints = append(c.txn.savepoints, s.Name)
		case sqltext.StepRelease:
			if i := c.txn.depth(s.Name); i >= 0 {
				c.txn.savepoints = c.txn.savepoints[:i]
			}
		case sqltext.StepRollbackTo:
			if i := c.txn.depth(s.Name); i >= 0 {
				c.txn.savepoints = c.txn.savepoints[:i+1]
			}
		}
	}
	if began {
		c.txn.outer = !slices.ContainsFunc(steps, func(s sqltext.Step) bool { return s.Kind == sqltext.StepBegin })
	}
	c.rec.SetLevel(c.txn.level())
}

// level is the transaction's depth: 1, and 1 more for each savepoint.
func (t *txn) level() int {
	n := 1 + len(t.savepoints)
	if t.outer {
		n--
	}
	return max(n, 1)
}

// depth returns the index of the innermost savepoint of that name, -1 if there
// is none.
func (t *txn) depth(name string) int {
	for i := len(t.savepoints) - 1; i >= 0; i-- {
		if t.savepoints[i] == name {
			return i
		}
	}
	return -1
}

func (c *conn) beginTx(ctx context.Context, query string) {
	c.beganTx(ctx, query)
	c.rec.Recorded()
}

// beganTx is beginTx for an operation that leaves the gate at once: the record
// stays open.
func (c *conn) beganTx(ctx context.Context, query string) {
	c.txn.open, c.txn.outer, c.txn.ofTx = true, false, false
	c.txn.savepoints = c.txn.savepoints[:0]
	c.txn.id = c.rec.BeganTx(query, exemption(ctx))
	c.rec.TraceTx(ctx)
	c.txn.lease = c.lease
}

func (c *conn) endTx() {
	c.endedTx()
	c.rec.Recorded()
}

// endedTx is endTx for an operation that leaves the gate at once: the record stays
// open.
func (c *conn) endedTx() {
	c.txn.open = false
	c.txn.savepoints = c.txn.savepoints[:0]
	c.wait.Released()
	c.rec.EndedTx()
}

// abort sets the tomb of a transaction that SQLite rolled back, with the error
// that the statement failed with.
func (c *conn) abort(cause error) {
	t := &tomb{id: c.txn.id, err: &TxAbortedError{Cause: cause}}
	for i := len(c.rows) - 1; i >= 0; i-- {
		if st := c.rows[i]; st.tx == c.txn.id {
			c.kill(st, t.err)
			t.killed = append(t.killed, st)
		}
	}
	c.bury(t)
}

// rollbackBy undoes the open transaction for the guard. All rows of the
// connection go: the statement in flight may have been interrupted, and that
// sticks to every statement that is still active. Rows that are leaks of their
// own answer with their own error.
func (c *conn) rollbackBy(err error) {
	c.killRows(err)
	// If even ROLLBACK fails the transaction stays open behind its tomb: no
	// statement reaches it, COMMIT included, and closing the connection ends it.
	c.innerExec(context.Background(), "ROLLBACK", nil)
	if !c.autocommit() {
		c.discard = true
	}
	c.bury(&tomb{id: c.txn.id, err: err, byGuard: true})
}

func (c *conn) bury(t *tomb) {
	t.since, t.lease = time.Now(), c.txn.lease
	c.txn.tomb = t
	c.gate.Set(gate.Tombed)
	c.endTx()
}

func (c *conn) exhume() {
	c.txn.tomb = nil
	c.gate.Clear(gate.Tombed)
}

// reapedBy makes the tomb the guard's: SQLite rolled back because the guard
// interrupted. The interrupt sticks while any statement is active, so the other
// rows of the connection go as well.
func (t *tomb) reapedBy(c *conn, verdict error) {
	for _, st := range t.killed {
		if st.err == t.err { // not reused since
			st.err = verdict
		}
	}
	c.killRows(verdict)
	t.err, t.byGuard, t.killed = verdict, true, nil
}

// rollbackText answers a text that begins with ROLLBACK while there is a tomb:
// it is the owner's own rollback and ends it. It returns what is left to run,
// with done if nothing is. The connection is inside the gate.
func (c *conn) rollbackText(class sqltext.Class, query string) (rest string, done bool, err error) {
	t := c.txn.tomb
	if !t.byGuard {
		c.exhume()
		return query, false, nil // SQLite has rolled back: its own error says so
	}
	if !c.autocommit() {
		// The guard's ROLLBACK failed. If this one does as well, the
		// transaction stays open behind its tomb.
		if _, err := c.innerExec(context.Background(), "ROLLBACK", nil); err != nil {
			return "", true, err
		}
	}
	c.exhume()
	c.rec.Acknowledged()
	if class&sqltext.Multi == 0 {
		return "", true, nil
	}
	end, _, ok := c.statementEnd(query)
	if !ok {
		return query, false, nil
	}
	rest = strings.TrimSpace(query[end:])
	return rest, rest == "", nil
}

// ownRollback reports whether a text is the rollback of a transaction that was
// undone together with its connection, and returns true once.
func (c *conn) ownRollback(f uint64, class sqltext.Class) bool {
	if f&gate.Dead == 0 || class&(sqltext.Rollback|sqltext.Multi) != sqltext.Rollback || !c.rolledBack {
		return false
	}
	c.rolledBack = false
	return true
}
