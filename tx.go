package leakguard

import (
	"context"
	"database/sql/driver"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// tx is the transaction that BeginTx returned. It lives in its connection,
// which has one at a time.
type tx struct {
	c *conn
}

var _ driver.Tx = (*tx)(nil)

// BeginTx begins a transaction. opts go to go-sqlite3, which ignores them.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if err := c.enter(ctx); err != nil {
		return nil, err
	}
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		return nil, c.leave(err)
	}
	if opts == (driver.TxOptions{}) {
		err = c.begins.begin(c, inner)
	} else {
		err = c.innerBegin(inner, opts)
	}
	if err != nil {
		c.rec.Executing(c.begins.text())
		if guarded {
			err = ended(ctx, err)
		}
	}
	switch {
	case err == nil:
		c.rec.At(c.at)
		c.beganTx(ctx, c.begins.text())
		c.txn.ofTx = true
	case c.txn.open:
		c.after(ctx, 0, "BEGIN", err) // inside a transaction begun by text
	case !c.autocommit():
		// BEGIN succeeded and was then found to be cancelled: database/sql will
		// not end it (go-sqlite3 issue 764).
		c.innerExec(context.Background(), "ROLLBACK", nil)
		c.discard = !c.autocommit()
	}
	if over := c.leave(err); over != nil {
		if err == nil {
			c.tx.Rollback() // reaped already, and nobody else will
		}
		return nil, over
	}
	return &c.tx, nil
}

// Commit commits. When it fails, go-sqlite3 has rolled back.
func (t *tx) Commit() error {
	c := t.c
	f := c.met(c.gate.EnterEnding())
	if f&(gate.Busy|gate.Dead) != 0 {
		return c.refuse(context.Background(), f)
	}
	if f&gate.Tombed != 0 {
		err := c.txn.tomb.err
		if !c.autocommit() { // the guard's ROLLBACK failed
			c.innerExec(context.Background(), "ROLLBACK", nil)
		}
		if c.autocommit() {
			c.exhume() // database/sql lets nothing more of this transaction through
			c.rec.Acknowledged()
		} else {
			c.discard = true
		}
		return c.leave(err)
	}
	err := c.begins.commit(c)
	if err != nil {
		c.rec.Executing("COMMIT")
	}
	return c.leave(t.end(err))
}

// Rollback rolls back; nil if the guard has done so already.
func (t *tx) Rollback() error {
	c := t.c
	f := c.met(c.gate.EnterEnding())
	if f&gate.Busy != 0 {
		return errBusy
	}
	if f&gate.Dead != 0 {
		if c.rolledBack {
			c.rolledBack = false
			return c.leave(nil)
		}
		return c.leave(c.gone)
	}
	if f&gate.Tombed != 0 {
		byGuard := c.txn.tomb.byGuard
		c.exhume() // end buries it again if the transaction cannot be ended
		c.rec.Acknowledged()
		if byGuard && c.autocommit() {
			return c.leave(nil)
		}
	}
	return c.leave(t.end(c.begins.rollback(c)))
}

// end takes the result of COMMIT or ROLLBACK.
func (t *tx) end(err error) error {
	c := t.c
	if err != nil {
		c.txn.failed = c.gate.Generation()
	}
	if err != nil && !c.autocommit() {
		// database/sql takes the transaction for ended, so it must be. An
		// interrupt may stick until the last active statement is reset.
		c.killRows(err)
		c.innerExec(context.Background(), "ROLLBACK", nil)
		if !c.autocommit() {
			c.discard = true
			c.bury(&tomb{id: c.txn.id, err: err, byGuard: true})
			return err
		}
	}
	if c.txn.open {
		c.endedTx()
	}
	return err
}
