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

// ReportKept tells, once per pool and reason, that policy spared a connection.
func (c *Conn) ReportKept(why string) {
	if c.pool.firstKept(why) {
		c.pool.tracker.emit(Event{Type: EventKept, ConnectionID: c.id, Reason: Reason(why), pool: c.pool})
	}
}

// refusedFor is for how many leases a connection that is due does not ask again
// whether the pool may lose it: asking reads the clock. The reaper's next look
// ends it sooner.
const refusedFor = 64

// MayRecycle reports whether AllowRecycle would allow it now.
func (c *Conn) MayRecycle(reason Reason) bool {
	if reason == ReasonPressure && c.pool.mayDiscard() || reason != ReasonPressure && c.pool.mayRecycle() {
		return true
	}
	c.lock()
	c.refused = c.accesses
	c.unlock()
	return false
}

// AllowRecycle reports whether the pool may lose this connection now: at most
// one in each CheckInterval, and this is the one; for ReasonPressure at most one
// in each MemoryInterval, and never the last.
func (c *Conn) AllowRecycle(reason Reason) bool {
	if reason == ReasonPressure {
		return c.pool.allowDiscard()
	}
	return c.pool.allowRecycle()
}

// Recycled counts and tells that policy replaces the connection.
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
