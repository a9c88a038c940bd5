package tracker

import (
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// What a lease that had the real connection may have left behind: rows, blobs,
// backups that the guard did not hand out and does not know. SQLite says that
// something holds a lock or a snapshot, and the best that can be named is the lease.

// StampLease gives the lease a time, if nothing that was opened in it has: what the
// program opens on the real connection has none.
func (c *Conn) StampLease() {
	now := c.pool.tracker.clock.now()
	c.lock()
	c.stampLease(now)
	c.unlock()
}

// TakenBack records, before the check-in of a lease that had the real connection, what
// SQLite holds for it that nobody opened through the guard: TxNone if nothing, and
// TxUnknown if that cannot be told, because something that is known is open as well.
// query is the text of a statement among that, if there is one.
func (c *Conn) TakenBack(state TxState, query string) {
	t := c.pool.tracker
	t.mu.Lock()
	c.lock()
	r := c.leavingLocked()
	t.mu.Unlock()
	if state != TxNone && r.id != 0 {
		c.unlock()
		return // most likely still that of the lease before
	}
	leak := c.closeLocked(r)
	c.stampLease(t.clock.now())
	r.stack, r.opened, r.dated = c.lease.stack, c.lease.opened, c.atLeast(&c.lease)
	if state != TxNone && state != TxUnknown {
		c.seq++
		r.id, r.query, r.exempt = c.seq, query, c.lease.exempt
		r.span = &span{c.seq, c.lease.trace()}
	}
	c.unlock()
	if leak != nil {
		c.settle(EventRecovered, leak)
	}
}

// NothingLeft records that what a lease with the real connection left behind is over.
func (c *Conn) NothingLeft() {
	var leak *Leak
	c.lock()
	if r := c.left(); r != nil {
		leak = c.closeLocked(r)
	}
	c.unlock()
	if leak != nil {
		c.settle(EventRecovered, leak)
	}
}

// leavingLocked returns what was left, to be changed. Tracker.mu and Conn.mu are held.
func (c *Conn) leavingLocked() *Resource {
	m := c.moreLocked()
	if m.left == nil {
		m.left = &Resource{kind: KindConnection}
	}
	return m.left
}

// left returns what was left, nil if nothing can have been. Conn.mu is held.
func (c *Conn) left() *Resource {
	if c.more == nil {
		return nil
	}
	return c.more.left
}

// leaves reports whether something is known to be left. A lease that had the real
// connection and left nothing makes no file one that is looked at each time. Conn.mu is
// held.
func (c *Conn) leaves() bool {
	r := c.left()
	return r != nil && r.id != 0
}

// generation counts the operations on the connection. What was seen of it and what
// SQLite says of it belong together if it is the same before and behind.
func (c *Conn) generation() uint64 { return c.word.Load() &^ gate.Flags }

// leftLocked describes what was left, also where only SQLite says that there is
// something: then the last lease that had the real connection is named, if there was
// one. Tracker.mu is held.
func (c *Conn) leftLocked(now time.Duration) Held {
	c.lock()
	defer c.unlock()
	h := Held{Kind: KindConnection, Pool: c.pool.name, ConnectionID: c.id, Idle: now - c.seen.at}
	r := c.left()
	if r == nil {
		return h
	}
	h.Resource, h.Query, h.Exempt, h.Trace = r.id, c.told(r.query), r.exempt, r.trace()
	h.Stack, h.stack = r.stack.PCs(), r.stack
	h.OpenedAt, h.Age = c.pool.tracker.clock.at(r.opened), max(now-r.opened, 1)
	h.AgeAtLeast = r.dated
	if r.suspect() {
		h.Suspect = r.watch.leak
	}
	return h
}
