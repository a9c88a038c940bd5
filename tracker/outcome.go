package tracker

import (
	"cmp"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Settle tells what became of an order. Done and Refreshed: its leaks are reaped.
// Void: those that are closed by now recovered, the others stay suspects.
func (c *Conn) Settle(o *Order, out Outcome) {
	defer c.pool.tracker.reaper.settled()
	if out != Void {
		c.lock()
		// A lease that began since has nothing to do with it, and one whose
		// connection was only refreshed is what it was.
		if len(o.Leaks) > 0 && c.leased && c.lease.id == o.lease {
			c.cover()
			c.lose(o.Leaks[0].Kind)
			if c.loss.undone == nil && o.Scope != ScopeLease { // which leaves nothing to undo
				c.loss.undone = o.Leaks[0]
			}
		}
		c.unlock()
		for _, l := range o.Leaks {
			c.settle(EventReaped, l)
		}
		return
	}
	var closed []*Leak
	c.lock()
	for i, target := range o.targets {
		if target.r.id == target.id {
			target.r.watch.taken = false
		} else {
			closed = append(closed, o.Leaks[i])
		}
	}
	c.unlock()
	for _, l := range closed {
		c.settle(EventRecovered, l)
	}
}

// Acknowledged says that the holder of the lease knows what was undone of it: it is a
// lease like any other again. The caller is inside the driver's gate.
func (c *Conn) Acknowledged() {
	c.lock()
	c.loss = nil
	c.unlock()
}

// Proven reports a resource whose handle was collected. undone says whether it
// was closed just now.
func (c *Conn) Proven(r *Resource, undone bool) {
	c.lock()
	if r.id == 0 {
		c.unlock()
		return
	}
	leak := r.watch.leak
	known := r.suspect()
	if !known {
		leak = c.leakLocked(r, ReasonProven, 0, c.pool.tracker.clock.now(), 0)
	} else {
		l := *leak
		l.Reason = ReasonProven
		leak = &l
	}
	r.watch.id, r.watch.leak, r.watch.taken = r.id, leak, true
	c.cover()
	if r.kind == KindRows && c.tx.id == 0 && c.lease.stack.InOperation() {
		c.lose(KindRows) // who ran the query has nothing else to let go by
	}
	c.unlock()
	if !known {
		c.pool.count(func(n *counters) { n.leaked.Add(1) })
	}
	c.pool.count(func(n *counters) { n.proven.Add(1) })
	c.tell(EventProven, leak, !known)
	if undone {
		c.settle(EventReaped, leak)
	}
}

// Lost records that a call never came back from SQLite, because a Go function
// called by SQL panicked or exited: SQLite's mutex may be held for ever, so
// nobody may touch the connection again.
func (c *Conn) Lost() {
	if c.lost.Swap(true) {
		return
	}
	t := c.pool.tracker
	c.lock()
	c.stampLease(t.clock.now())
	leak := c.leakLocked(&c.lease, ReasonPanic, 0, t.clock.now(), 0)
	leak.Kept = "a call never came back from SQLite"
	c.unlock()
	t.mu.Lock()
	t.unwatchLocked(c) // there is nothing that the reaper could do
	t.mu.Unlock()
	c.pool.count(func(n *counters) { n.leaked.Add(1) })
	c.settle(EventSuspect, leak)
}

// cover notes that what was found covers the lease as well: it is not reported
// on top unless it moves again. Conn.mu is held.
func (c *Conn) cover() {
	if c.lease.suspect() {
		return
	}
	c.lease.watch = watch{id: c.lease.id, taken: true}
	c.covered = c.word.Load() &^ gate.Flags
}

// settle counts and emits an event of a leak. It ends once: as reaped or as
// recovered, whatever is told first.
func (c *Conn) settle(typ EventType, l *Leak) {
	switch typ {
	case EventReaped, EventRecovered:
		if l.fate != nil && l.fate.sealed.Swap(true) {
			return
		}
		if typ == EventReaped {
			c.pool.count(func(n *counters) { n.reaped.Add(1) })
		} else {
			c.pool.count(func(n *counters) { n.recovered.Add(1) })
		}
	}
	c.tell(typ, l, typ == EventSuspect)
}

// retell tells of a suspect once more, unless it is over by now. It is counted, and
// goes to OnLeak, the first time only.
func (c *Conn) retell(l *Leak) {
	if !l.fate.sealed.Load() {
		c.tell(EventSuspect, l, false)
	}
}

func (c *Conn) tell(typ EventType, l *Leak, news bool) {
	c.pool.tally.leak(typ, l, news)
	c.pool.tracker.emit(Event{Type: typ, ConnectionID: c.id, Reason: l.Reason, Leak: l, pool: c.pool, news: news})
}

// leakLocked describes r, which is a leak. idle is how long it was seen not to move.
func (c *Conn) leakLocked(r *Resource, reason Reason, limit, now, idle time.Duration) *Leak {
	l := c.describeLocked(r, reason, limit, now, idle)
	l.ID = c.pool.tracker.leakID.Add(1)
	return l
}

// describeLocked is leakLocked for what is none.
func (c *Conn) describeLocked(r *Resource, reason Reason, limit, now, idle time.Duration) *Leak {
	t := c.pool.tracker
	l := &Leak{
		Kind:         r.kind,
		Reason:       reason,
		Pool:         c.pool.name,
		ConnectionID: c.id,
		Resource:     r.id,
		OpenedAt:     t.clock.at(r.opened),
		Age:          now - r.opened,
		AgeAtLeast:   c.atLeast(r),
		Idle:         idle,
		Limit:        limit,
		Level:        int(r.level),
		Query:        r.query,
		Exempt:       r.exempt,
		Stack:        r.stack.PCs(),
		Last:         c.last.PCs(),
		Trace:        cmp.Or(r.trace(), c.lease.trace()),
		fate:         new(fate),
	}
	if r.kind == KindConnection || r.kind == KindTransaction {
		l.Query = c.query
	}
	l.Query = c.told(l.Query)
	if l.Exempt == "" {
		l.Exempt = c.lease.exempt
	}
	l.Kept = c.notUndone()
	return l
}

// notUndone says why nothing of the lease is undone now, "" if it may be.
func (c *Conn) notUndone() string {
	if c.raw {
		return "the raw connection is in use"
	}
	return ""
}
