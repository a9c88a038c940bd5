package leakguard

import (
	"time"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// control is the reaper's way to a connection. It holds it weakly, so that a
// connection that is dropped without Close can be collected.
type control struct{ conn weak.Pointer[conn] }

var _ tracker.DatabaseControl = control{}

// Look calls f inside the gate if it is free.
func (k control) Look(f func()) bool {
	c := k.conn.Value()
	if c == nil || !c.gate.Try() {
		return false
	}
	f()
	c.gate.Release()
	return true
}

// Nudge interrupts the condemned operation again.
func (k control) Nudge() bool {
	c := k.conn.Value()
	return c != nil && c.stopCondemned()
}

// Carry carries an order out, or condemns the operation in flight to do so.
func (k control) Carry(o *tracker.Order) tracker.Outcome {
	c := k.conn.Value()
	if c == nil {
		return tracker.Void
	}
	if o.Scope == tracker.ScopeGiveUp {
		return c.giveUp(o)
	}
	if o.Absolute && c.gate.Try() || !o.Absolute && c.gate.TryAt(o.Word) {
		return c.inside(o, func() tracker.Outcome { return c.carry(o) })
	}
	if o.Scope != tracker.ScopeTransaction || !o.Absolute {
		return tracker.Void // it moves: no leak any more, or the next check sees it
	}
	// The operation in flight may belong to another transaction by now; within
	// one operation only a text can end one and go on (see between).
	if c.raw.Load() || c.rec.Transaction() != o.Resource || !c.condemn(o) {
		return tracker.Void // the next check looks again
	}
	c.stopCondemned()
	return tracker.Condemned
}

// condemn leaves the order to the operation in flight. Its place holds one
// order, and who takes one from there settles it: the operation that carries it
// out, or who finds here that it came too late. The operation that was looked at
// may be over by now, or may have ended the transaction, so that is looked at
// again behind the mark: what begins from there on finds the mark gone. Only then
// may the order stop the operation; a nudge may come in between, for an earlier
// order on this connection.
func (c *conn) condemn(o *tracker.Order) bool {
	if !c.order.CompareAndSwap(nil, o) {
		return false // another one is under way
	}
	if c.gate.Condemn() && c.rec.Transaction() == o.Resource {
		c.meant.Store(o)
		return true
	}
	return !c.order.CompareAndSwap(o, nil)
}

// stopCondemned tells the condemned operation to stop, and returns false if it
// is over. An operation that has another transaction than the order means goes
// on: who begins or ends one waits for the interrupt bit behind it, maybe with its
// record open, so nobody waits for that here. One that may end the transaction is
// not interrupted: if it does, the order is void, and the interrupt would stick to
// what else is open. Nor does one stop for an order that is still looked at: it
// could lose its transaction by that, and the order would be taken back.
func (c *conn) stopCondemned() bool {
	return c.gate.Hit(func() {
		o := c.order.Load()
		if o == nil || c.meant.Load() != o || c.shielded.Load() || c.raw.Load() {
			return
		}
		if id, ok := c.rec.TryTransaction(); !ok || id != o.Resource {
			return
		}
		c.wait.Stop(true)
		if !c.gate.Has(gate.Ending) {
			c.db().Interrupt()
		}
	})
}

// inside calls f for an order with the gate held, and gives it back. A Go hook of
// the program may run under ROLLBACK; if it panics, SQLite's mutex may be locked for
// ever, so nobody may touch the connection any more.
func (c *conn) inside(o *tracker.Order, f func() tracker.Outcome) (out tracker.Outcome) {
	returned := false
	defer func() {
		if !returned {
			recover()
			c.gate.Set(gate.Busy)
			c.lose()
			out = tracker.Void
		}
		c.gate.Release()
	}()
	// Closing rows may commit, and closing must not wait for a lock here.
	c.wait.Stop(true)
	if o.Scope == tracker.ScopeRelease {
		// The monitor waits for it, and what was handed over may commit, with hooks of
		// the program. It has an order of its own, see handOver.
		out = f()
	} else {
		c.drain()
		out = f()
		c.drain() // what was handed over meanwhile
	}
	c.wait.Stop(false)
	returned = true
	return out
}

func (c *conn) carry(o *tracker.Order) tracker.Outcome {
	if c.raw.Load() || c.gate.Has(gate.Dead) {
		return tracker.Void
	}
	switch o.Scope {
	case tracker.ScopeRows:
		for _, st := range c.rows {
			if st.res.ID() == o.Resource && o.Rested(&st.res) {
				c.kill(st, reaped(o.Leaks[0]))
				return tracker.Done
			}
		}
	case tracker.ScopeTransaction:
		if c.txn.open && c.txn.id == o.Resource {
			c.rollbackBy(reaped(o.Leaks[0]))
			c.txn.tomb.pooled = !c.leased
			return tracker.Done
		}
	case tracker.ScopeLease:
		return c.reapLease(o)
	case tracker.ScopeRelease:
		c.releaseMemory()
		return tracker.Done
	case tracker.ScopeProven:
		return tracker.Done // drained
	}
	return tracker.Void
}

// reapLease undoes all that the lease holds, in this order: rows, statements,
// transaction, handle. Over a live statement, closing would leave a zombie
// that keeps its locks. See https://www.sqlite.org/c3ref/close.html.
func (c *conn) reapLease(o *tracker.Order) tracker.Outcome {
	why := c.session.verify(c)
	if why == "" && c.wrapped && !c.sawCheckIn {
		why = "a wrapper around the driver hides check-ins: who has the connection is not known"
	}
	var err error = reaped(o.Leaks[0])
	if t := c.txn.tomb; t != nil { // its owner has been told, and maybe not rolled back
		err = t.err
		c.rolledBack = t.byGuard
	}
	for i := len(c.rows) - 1; i >= 0; i-- {
		own := err
		for _, l := range o.Leaks {
			if l.Kind == tracker.KindRows && c.rows[i].res.ID() == l.Resource {
				own = reaped(l)
			}
		}
		c.kill(c.rows[i], own)
	}
	if why == "" {
		c.finalizeAll()
	}
	if c.txn.open {
		for _, l := range o.Leaks {
			if l.Kind == tracker.KindTransaction {
				err = reaped(l)
			}
		}
		c.rollbackBy(err)
		c.rolledBack = true
	}
	if why != "" {
		c.rec.ReportKept(why)
		c.releaseMemory()
		c.rolledBack = false
		if o.Bare() {
			return tracker.Void
		}
		return tracker.Done
	}
	c.die(err)
	return tracker.Done
}

// releaseMemory gives back what the connection can do without. The program may be
// inside SQLite beside the gate, through a handle that it has seen, and the monitor
// waits for this: then nothing is finalized, for that would wait for it.
func (c *conn) releaseMemory() {
	if c.db().TryReleaseMemory() {
		c.texts.drop()
	}
}

// closers bounds the handles that are being closed at the same time, for each may keep
// a thread: hundreds of leases may be reaped at one look.
var closers = make(chan struct{}, 64)

// die marks the connection dead and closes its handle on a goroutine of its
// own: the last close of a file checkpoints its WAL, half a second for 200 MB.
func (c *conn) die(err error) {
	c.gone = err
	c.exhume()
	c.gate.Set(gate.Dead)
	c.forgetConn()
	c.rec.ForceClosed()
	theWatchdog.remove(&c.watch)
	h, rec := c.takeHandle(), c.rec
	rec.Pool().Tracker().Go(func() {
		closers <- struct{}{}
		defer func() { <-closers }()
		h.close()
		rec.HandleClosed()
	})
}

// carryCondemned carries out, on the owner's way back from SQLite, what came
// while it was inside. Autocommit has decided by now: a COMMIT that succeeded
// makes the order void, and an INSERT that was interrupted took its
// transaction with it.
func (c *conn) carryCondemned(err error) error {
	o := c.order.Swap(nil)
	if o == nil {
		return err
	}
	// The ROLLBACK below is nobody's to interrupt: behind a shield none is sent,
	// and behind take none is on its way.
	c.shielded.Store(true)
	c.gate.Take(0)
	defer c.shielded.Store(false)
	t := c.txn.tomb
	switch {
	case c.raw.Load():
		c.rec.Settle(o, tracker.Void)
		return err
	case c.txn.open && c.txn.id == o.Resource:
		verdict := reaped(o.Leaks[0])
		c.rollbackBy(verdict)
		c.rec.Settle(o, tracker.Done)
		return verdict
	case t != nil && t.id == o.Resource && !t.byGuard && err != nil:
		verdict := reaped(o.Leaks[0])
		t.reapedBy(c, verdict)
		c.rec.Settle(o, tracker.Done)
		return verdict
	case !c.txn.open && t == nil && c.txn.id == o.Resource && c.txn.failed == c.gate.Generation() && gaveUp(err):
		// The COMMIT itself, and it did not commit. An operation that began behind
		// a COMMIT that did may give up for reasons of its own.
		c.rec.Settle(o, tracker.Done)
		return reaped(o.Leaks[0])
	}
	c.rec.Settle(o, tracker.Void)
	return err
}

func reaped(l *tracker.Leak) *ReapedError {
	return &ReapedError{Leak: *l, After: time.Since(l.OpenedAt)}
}
