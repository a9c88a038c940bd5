package tracker

import (
	"cmp"
	"database/sql"
	"runtime"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// starvation is what was seen of a pool that may starve.
type starvation struct {
	// Guarded by attachment.mu.
	present *Starved
	times   uint64

	profile func() ([]runtime.StackRecord, bool)

	// Of one look at a time. Times are the tracker's.
	full     bool
	looks    int           // since then: a process that was stopped was not starved
	since    time.Duration // full, and nobody got a place
	waited   time.Duration // and somebody waits; 0: nobody does
	leases   uint64        // at since
	waits    int64         // database/sql's count when the pool was last seen not to be full, or nobody to wait
	served   int64         // its count at the look before since
	last     int64         // its count at the last look
	profiled time.Duration // 0: never
	told     time.Duration // 0: never
}

// tellAgain is how long a pool may starve before it is told again. It also bounds
// profiles and events.
const tellAgain = time.Minute

// watch looks whether the pool starves and returns when to look again.
func (a *attachment) watch(s sql.DBStats) (wait time.Duration) {
	after, w := a.o.StarvedAfter, &a.starvation
	last := w.last
	w.last = s.WaitCount
	switch {
	case after == 0:
		return rests
	case s.MaxOpenConnections == 0:
		w.full = false
		a.fed()
		return lookForLimit
	}
	if s.InUse < s.MaxOpenConnections {
		w.full, w.waits = false, s.WaitCount
		a.fed()
		return max(after/2, time.Millisecond)
	}
	soon := max(after/4, time.Millisecond)
	now, leases := a.pool.tracker.now(), a.leases()
	if !w.full || leases != w.leases {
		w.full, w.looks, w.since, w.waited, w.leases, w.served = true, 0, now, 0, leases, last
		a.fed()
	}
	w.looks++
	if s.WaitCount == w.waits { // nobody has waited since the pool became full
		return soon
	}
	if w.waited == 0 {
		w.waited = now
	}
	if d := now - w.waited; d < after {
		return min(soon, after-d)
	}
	if w.looks > 2 && (a.present == nil || now-w.told >= tellAgain) {
		a.starve(s, now)
	}
	return soon
}

// fed ends a starvation.
func (a *attachment) fed() {
	a.mu.Lock()
	a.present = nil
	a.mu.Unlock()
}

// starve finds out who has the places and who waits, and tells it.
func (a *attachment) starve(s sql.DBStats, now time.Duration) {
	w, t := &a.starvation, a.pool.tracker
	var waiters []Waiter
	total, known := 0, false
	if w.profiled == 0 || now-w.profiled >= tellAgain {
		w.profiled = now
		var all []runtime.StackRecord
		if all, known = w.profile(); known {
			waiters, total = waitersOf(all)
		}
	}
	switch {
	case known && total == 0: // who waited was served, or gave up
		w.waits, w.waited = s.WaitCount, 0
		a.fed()
		return
	case !known && s.WaitCount == w.served && a.present == nil:
		return // whoever waited may have been served
	}
	lent := int(a.lent.Load())
	r := &Starved{
		Pool: a.pool.name, Since: t.clock.at(w.since), For: now - w.since,
		Max: s.MaxOpenConnections - lent, InUse: s.InUse, Lent: lent,
		Waiting: total, WaitersUnknown: !known, Waiters: waiters[:min(len(waiters), maxWaiters)],
	}
	r.Places = a.holders(waiters, now)
	for _, h := range r.Places {
		if h.Doing == DoingLost {
			r.Lost++
		}
	}
	r.sort()
	a.mu.Lock()
	if a.present == nil {
		a.times++
	}
	a.present = r
	a.mu.Unlock()
	if w.told == 0 || now-w.told >= tellAgain {
		w.told = now
		t.emit(Event{Type: EventStarved, Starved: r, pool: a.pool})
	}
}

// leases counts what was leased so far, and looks at who has something, so that what
// is at rest is known to be.
func (a *attachment) leases() (n uint64) {
	t, p := a.pool.tracker, a.pool
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	n = p.n.reused + p.n.created
	for _, c := range t.conns {
		if c.pool != p {
			continue
		}
		c.lock()
		c.lookLocked(c.word.Load(), now)
		if c.leased {
			c.stampLease(now)
		}
		n += reused(c.accesses)
		c.unlock()
	}
	return n
}

// seat is a taken place while it is found out what its holder does.
type seat struct {
	PlaceHolder
	conn  *Conn
	lease *callstack.Stack
	query string
	busy  bool
}

// holders returns who has the pool's places.
func (a *attachment) holders(waiters []Waiter, now time.Duration) []PlaceHolder {
	seats := a.seats(now)
	waiting := slices.Clone(waiters)
	inTheWay := make(map[string]int)
	for i := range seats {
		s := &seats[i]
		switch {
		case s.Doing == DoingLost:
		case s.busy:
			s.Doing = DoingRunning
			if s.conn.awaitsLock() {
				s.Doing = DoingAwaitsLock
				if h := s.conn.holders(s.conn.inQuestion(ReasonBusy, s.query), ReasonBusy, false); len(h) > 0 {
					s.Lock, s.LockSite = h[0].ConnectionID, h[0].Site()
					inTheWay[s.Lock]++
				}
			}
		default:
			s.Doing = DoingNothing
			at := slices.IndexFunc(waiting, func(w Waiter) bool {
				return w.Count > 0 && cameBy(userFrames(s.lease.PCs()), w.frames)
			})
			if at >= 0 {
				s.Doing = DoingAwaitsPlace
				waiting[at].Count-- // one goroutine is the holder of one
			}
		}
	}
	out := make([]PlaceHolder, 0, len(seats))
	for _, s := range seats {
		s.InTheWay = inTheWay[s.ConnectionID]
		out = append(out, s.PlaceHolder)
	}
	return out
}

// seats returns the pool's leases with the most that each holds.
func (a *attachment) seats(now time.Duration) (out []seat) {
	t := a.pool.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.conns {
		if c.pool != a.pool {
			continue
		}
		c.lock()
		if !c.leased {
			c.unlock()
			continue
		}
		word := c.word.Load()
		c.lookLocked(word, now)
		c.stampLease(now)
		r := &c.lease
		switch {
		case c.tx.id != 0:
			r = &c.tx
		case c.rows.head != nil:
			for r = c.rows.head; r.next != nil; r = r.next { // the first that was opened
			}
		}
		s := seat{conn: c, lease: c.lease.stack, query: c.query, busy: word&gate.Busy != 0}
		s.PlaceHolder = PlaceHolder{
			ConnectionID: c.id, Kind: r.kind, OpenedAt: t.clock.at(r.opened), Age: now - r.opened, AgeAtLeast: c.atLeast(r),
			Exempt: cmp.Or(r.exempt, c.lease.exempt), Stack: r.stack.PCs(),
		}
		if !s.busy {
			s.Idle = now - c.seen.at
		}
		if c.lostLocked() {
			s.Doing = DoingLost
		}
		c.unlock()
		out = append(out, s)
	}
	return out
}

// LockControl is a Control that knows whether the operation in flight waits for a lock.
type LockControl interface {
	Control
	// AwaitsLock reports whether an operation is in flight and waits inside SQLite for
	// a lock at this moment. It does not wait either.
	AwaitsLock() bool
}

// awaitsLock asks a few times: between two sleeps the operation tries, which takes
// microseconds.
func (c *Conn) awaitsLock() bool {
	k, ok := c.control.(LockControl)
	if !ok {
		return false
	}
	for range 8 {
		if k.AwaitsLock() {
			return true
		}
		runtime.Gosched()
	}
	return false
}
