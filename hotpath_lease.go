package leakguard

import (
	"context"
	"database/sql/driver"
)

// The hot path: what every query runs through, in three files and in the order in
// which it is run. Behind a system call the processor's caches have SQLite and the
// kernel in them, and a virtual machine may have lost its translations of addresses
// too, so each page of code or data costs; Go's linker keeps the order of files and
// functions (TestHotPathLiesTogether). What is seldom run is in conn.go, gate.go,
// rows.go and so on, with the types.
//
// This file is the lease: check-out, the gate's two sides, check-in.

// exemption returns the reason that the context carries, "" if none.
func exemption(ctx context.Context) string {
	if !exempted.Load() {
		return ""
	}
	reason, _ := ctx.Value(exemptKey{}).(string)
	return reason
}

// ResetSession begins a lease. It answers driver.ErrBadConn if the connection
// was closed while it sat in the pool; database/sql then takes another one. It
// calls this and IsValid with its own locks held, see hooks.go.
func (c *conn) ResetSession(ctx context.Context) error {
	exempt := exemption(ctx) // asks the context, so nothing is held yet
	f := c.gate.enterAs(ctx, busy|recording)
	if f&reaping != 0 {
		c.unbegun.Store(true)
		return nil // ctx is over: the operation that follows begins the lease, and says so
	}
	if f&busy != 0 {
		return driver.ErrBadConn
	}
	if f&dead != 0 {
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

// enter begins an operation and returns the tombed and dead bits. It returns
// the busy bit, and has begun nothing, if an operation is in flight: then a
// call never came back from SQLite (a Go function called by SQL panicked), or
// two goroutines use one driver connection.
func (g *gate) enter() uint64 {
	if w := g.word.Load(); w&flags == 0 && g.word.CompareAndSwap(w, w|busy) {
		return 0
	}
	return g.enterSlow(nil, busy)
}

// enterUntil is enter for an operation that ends with ctx. It returns the
// reaping bit, and has begun nothing, if ctx is over while the reaper is inside.
func (g *gate) enterUntil(ctx context.Context) uint64 {
	if w := g.word.Load(); w&flags == 0 && g.word.CompareAndSwap(w, w|busy) {
		return 0
	}
	return g.enterSlow(ctx.Done(), busy)
}

// enterAs is enterUntil with further bits: ending for an operation that may end
// the transaction, recording for one that begins with writing the record (see
// tracker.Conn.Record).
func (g *gate) enterAs(ctx context.Context, bits uint64) uint64 {
	if w := g.word.Load(); w&flags == 0 && g.word.CompareAndSwap(w, w|bits) {
		return 0
	}
	return g.enterSlow(ctx.Done(), bits)
}

// left is leave where nothing stands in the way.
func (g *gate) left() bool {
	w := g.word.Load()
	return w&(interrupt|condemned|stopped|attended|closing|sharing) == 0 && g.word.CompareAndSwap(w, w&^ofOne+operation)
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

// leave ends an operation and returns what it returns: err, or what an order
// that came meanwhile made of it.
func (c *conn) leave(err error) error {
	if !c.gate.left() {
		err = c.leaveBusy(err)
	}
	if err != nil {
		c.blame(err)
	}
	return err
}

// IsValid ends a lease and says whether the connection may go into the pool.
// A transaction begun by SQL text stays: it may legally go on in the next
// lease, and rolling back here would commit half of it.
func (c *conn) IsValid() bool {
	wait := context.Background()
	if c.unbegun.Load() {
		wait = notAtAll
	}
	f := c.gate.enterAs(wait, busy|recording)
	if f&reaping != 0 {
		return true // no lease to end: see ResetSession
	}
	if f&busy != 0 {
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
	valid := f&dead == 0 && !c.discard
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
