package tracker

import "time"

type leaseTime struct {
	pool *Pool
	took time.Duration
}

// leaseTimed is when a connection's lease began, if that was noted.
type leaseTimed struct {
	access int64 // the lease that the rest is about
	began  time.Duration
}

// TimeLeases has f told how long each lease took that begins and ends from now
// on: from its check-out to its check-in. It costs a lease two readings of the
// clock and a short lock. There is one f; the last one holds.
//
// f is called for what has gathered by flush, and by a goroutine of its own
// whenever 1024 have: outside every lock, maybe by both at once. If it is
// slower than leases end, lease times are dropped and counted in
// Figures.EventsDropped. A panic in f is contained and counted. cancel ends it
// without telling the rest; a call under way may still finish. It panics if f is
// nil.
func (t *Tracker) TimeLeases(f func(pool string, took time.Duration)) (flush, cancel func()) {
	if f == nil {
		panic("tracker: TimeLeases: f is nil")
	}
	return t.leaseTimes.gather(t, func(l leaseTime) { f(l.pool.name, l.took) })
}

// leaseBegan tells of a check-out those who want to know. The owner calls it.
func (c *Conn) leaseBegan() {
	t := c.pool.tracker
	if t.leaseTimes.on.Load() {
		if c.timed == nil {
			c.timed = new(leaseTimed)
		}
		*c.timed = leaseTimed{c.accesses, t.clock.now()}
	}
	if t.leaseTold.Load() {
		c.emit(EventCheckOut)
	}
}

// leaseEnded tells of a check-in. The owner calls it.
func (c *Conn) leaseEnded() {
	t := c.pool.tracker
	if t.leaseTimes.on.Load() && c.timed != nil && c.timed.access == c.accesses {
		t.leaseTimes.add(t, leaseTime{c.pool, t.clock.now() - c.timed.began})
	}
	if t.leaseTold.Load() {
		c.emit(EventCheckIn)
	}
}
