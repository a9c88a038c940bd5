package tracker

import (
	"slices"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Resting leases. What merely takes long is common and no leak, so nothing is undone
// and nobody is accused; but who is on call wants to know within seconds which line
// holds what others wait for.

// resting is what was told of a lease that rests.
type resting uint8

const (
	restsQuietly resting = iota + 1
	restsInTheWay
)

// LockWaiter is an operation that waits for a lock.
type LockWaiter struct {
	Pool         string `json:"pool"`
	ConnectionID string `json:"connection_id"`
	// Query is what it runs, Stack where that was called.
	Query string `json:"query,omitempty"`
	Stack Stack  `json:"-"`

	files []openFile
}

// Site returns the call that waits.
func (w LockWaiter) Site() Frame { return w.Stack.Site() }

// waitersLocked returns who waits for a lock at this moment. Tracker.mu is held.
func (t *Tracker) waitersLocked() (all []LockWaiter) {
	for i, p := range t.pulses {
		if p.word.Load()&gate.Busy == 0 {
			continue
		}
		c := t.conns[i]
		k, can := c.control.(LockControl)
		if !can || !k.AwaitsLock() {
			continue
		}
		c.lock()
		w := LockWaiter{Pool: c.pool.name, ConnectionID: c.id, Query: c.told(c.query), Stack: c.last.PCs()}
		c.unlock()
		w.files = c.filesLocked()
		all = append(all, w)
	}
	return all
}

// behindLocked returns those of the waiters who wait for one of the connection's files.
func (c *Conn) behindLocked(all []LockWaiter) (behind []LockWaiter) {
	if len(all) == 0 {
		return nil
	}
	mine := c.filesLocked()
	for _, w := range all {
		if w.ConnectionID == c.id {
			continue
		}
		if slices.ContainsFunc(w.files, func(f openFile) bool {
			return slices.ContainsFunc(mine, func(g openFile) bool { return f.File.Same(g.File) })
		}) {
			behind = append(behind, w)
		}
	}
	return behind
}

// rest tells of a lease that rests. Tracker.mu and Conn.mu are held.
func (c *Conn) rest(f *findings, p *Policy, rec *Record, waiters []LockWaiter) {
	r := c.most()
	holds := r != &c.lease
	var behind []LockWaiter
	if holds {
		behind = c.behindLocked(waiters)
	}
	if !restsLong(p, rec, len(behind) > 0) || c.reaped || r.suspect() {
		return
	}
	told := restsQuietly
	if len(behind) > 0 {
		told = restsInTheWay
	}
	if p.Collect && told == restsInTheWay && r.kind == KindRows && !c.seen.collected {
		f.collect = append(f.collect, c)
	}
	if c.seen.rests >= told {
		return
	}
	c.seen.rests = told
	l := c.describeLocked(r, ReasonReportAfter, p.ReportAfter, c.pool.tracker.now(), rec.Idle)
	f.news = append(f.news, news{conn: c, typ: EventResting, leak: l, waiters: behind})
}

func (c *Conn) tellResting(l *Leak, waiters []LockWaiter) {
	c.pool.tracker.emit(Event{Type: EventResting, ConnectionID: c.id, Reason: l.Reason, Leak: l, Waiters: waiters, pool: c.pool})
}
