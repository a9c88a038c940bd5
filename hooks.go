package leakguard

import "github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"

// The hooks that database/sql calls with its own locks held, ResetSession and
// IsValid (conn.go) with what they lead to, and Close: nothing here waits
// for a statement, and nobody's code is called.

// takeBack follows a lease that handed the real connection out.
func (c *conn) takeBack(f uint64) {
	if !c.raw.Load() {
		return
	}
	c.session.keep(c, "the raw connection was handed out")
	if f&gate.Dead == 0 {
		c.sync()
		c.leftBehind()
		c.listAttached()
		c.begins.drop() // it may have attached a file
		c.begins.once = true
		c.texts.stop()  // and set an authorizer
		c.installBusy() // and set a timeout
	}
	// Only now: until here no order stops what asks SQLite about the transaction.
	c.raw.Store(false)
}

// Close closes the connection. It does not wait for an operation that another goroutine
// has in flight: that closes the connection on its way out, and an error of doing so is
// not told.
func (c *conn) Close() error {
	for c.gate.Enter()&gate.Busy != 0 {
		if !c.gate.Close() {
			continue // it is over
		}
		c.forgetConn() // who is in flight holds the connection
		if c.lost.Load() {
			c.rec.Close() // nobody is going to leave, see lose
		}
		return nil
	}
	err := c.shut()
	c.leave(nil)
	return err
}

// shut closes the connection from inside the gate. Statements and rows that are still
// open go first: over them, SQLite would keep file and locks for good. See
// https://www.sqlite.org/c3ref/close.html on zombies.
func (c *conn) shut() (err error) {
	if !c.gate.Has(gate.Dead) {
		c.drain()
		c.killRows(errConnClosed)
		c.finalizeAll()
		if c.txn.open {
			c.endTx()
		}
		c.gone = errConnClosed
		c.gate.Set(gate.Dead)
		c.forgetConn()
		theWatchdog.remove(&c.watch)
		// An interrupt must not reach a handle that is closed: without a
		// transaction none is sent, and behind take none is on its way.
		c.gate.Take(0)
		err = c.innerShut()
	}
	c.rec.Close()
	c.dropped.Stop()
	if !c.closed {
		c.closed = true
		c.gate.Drop()
	}
	return err
}

func (c *conn) finalizeAll() {
	c.begins.drop()
	c.texts.drop()
	for len(c.stmts) > 0 {
		c.finalize(c.stmts[len(c.stmts)-1])
	}
}

// handOver leaves work to whoever is inside the gate next.
func (c *conn) handOver(f func()) {
	c.handMu.Lock()
	c.handed = append(c.handed, f)
	c.waiting.Store(true)
	c.handMu.Unlock()
	c.rec.Pending()
}

// drain does what was handed over. The caller is inside the gate.
func (c *conn) drain() {
	if !c.waiting.Load() {
		return
	}
	c.handMu.Lock()
	handed := c.handed
	c.handed = nil
	c.waiting.Store(false)
	c.handMu.Unlock()
	for _, f := range handed {
		f()
	}
}

// prove runs undo, which closes what garbage collection proved to be out of
// reach, now or as soon as the gate is free.
func (c *conn) prove(undo func()) {
	if c.rec.OutOfBubble() || !c.gate.Try() {
		c.handOver(undo)
		return
	}
	c.wait.Stop(true) // closing must not wait for a lock here
	c.drain()         // what the program has closed is no leak
	undo()
	c.wait.Stop(false)
	c.gate.Release()
}
