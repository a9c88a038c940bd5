package tracker

import "time"

// lifetime is the policy's, less the connection's share at random.
func (c *Conn) lifetime(p *Policy) time.Duration {
	return p.MaxLifetime - time.Duration(c.jitter*float64(p.MaxLifetime))
}

// Keep records why policy must never close this connection: what it carries
// and a new one would lack. The first reason stays.
func (c *Conn) Keep(why string) {
	c.lock()
	if c.kept == "" {
		c.kept = why
	}
	c.unlock()
}

// KeptBecause returns what Keep recorded.
func (c *Conn) KeptBecause() string {
	c.lock()
	defer c.unlock()
	return c.kept
}

// ReportKept tells, once per pool and reason, that the guard spared a connection.
func (c *Conn) ReportKept(why string) {
	if c.pool.firstKept(why) {
		c.pool.tracker.emit(Event{Type: EventKept, ConnectionID: c.id, Reason: Reason(why), pool: c.pool})
	}
}

// idleBeside reports whether o could stay in the pool in c's place. Tracker.mu is
// held.
func (o *Conn) idleBeside(c *Conn) bool {
	if o == c || o.pool != c.pool || o.memory.gone || o.lost.Load() {
		return false
	}
	o.lock()
	defer o.unlock()
	return !o.leased && o.accesses > 0
}

// Leave says that the guard is about to close this connection, which sits in its
// pool, if another one stays there; of two that leave at the same time one stays.
func (c *Conn) Leave() bool {
	t := c.pool.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range t.conns {
		if o.idleBeside(c) {
			c.goneLocked()
			return true
		}
	}
	return false
}

// Recycled counts and tells that policy closes the connection.
func (c *Conn) Recycled(r Reason) {
	c.pool.count(func(n *counters) {
		n.recycled.Add(1) // first: no snapshot shows more expired than recycled
		if r == ReasonMaxLifetime || r == ReasonMaxIdle {
			n.expired.Add(1)
		}
	})
	c.pool.tally.recycle(r)
	c.pool.tracker.emit(Event{Type: EventRecycled, ConnectionID: c.id, Reason: r, pool: c.pool})
}

// Renewed counts and tells that the connection was refreshed for a limit: its
// accesses and its lifetime begin anew. The caller is inside the driver's gate.
func (c *Conn) Renewed(r Reason) {
	now := c.pool.tracker.clock.now()
	c.lock()
	c.renewed, c.renewedAt, c.anew = c.accesses, now, true
	c.unlock()
	c.pool.count(func(n *counters) { n.refreshed.Add(1) })
	c.pool.tally.refresh(r)
	c.pool.tracker.emit(Event{Type: EventRefreshed, ConnectionID: c.id, Reason: r, pool: c.pool})
}
