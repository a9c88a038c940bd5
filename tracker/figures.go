package tracker

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Figures are numbers for exporters: what Stats counts, by pool, kind and
// reason, and without a word on single connections, so that reading them is
// cheap. Counters only grow.
type Figures struct {
	// Pools are those registered, closed ones with open connections included,
	// by name.
	Pools []PoolFigures
	// EventsDropped counts events, lease times and operations that full queues
	// lost.
	EventsDropped uint64
	// SQLiteMemory is what all of SQLite had allocated in this process when the
	// memory monitor last looked, in bytes; 0 before that.
	SQLiteMemory uint64
	// MemoryPressure says that memory is short now, as far as there are
	// connections for which the monitor looks; PressureEvents counts how often
	// that has begun.
	MemoryPressure bool
	PressureEvents uint64
}

// PoolFigures are the numbers of one pool.
type PoolFigures struct {
	Pool string
	// Idle connections are in the pool, Leased ones checked out.
	Idle, Leased int
	// What is open now.
	Transactions, Rows, Statements Openings
	// Leaks counts leaks, by kind, then reason.
	Leaks []LeakCount
	// Recycled counts connections closed for a limit, Refreshed those that were
	// refreshed instead, by reason.
	Recycled, Refreshed []ReasonCount
	// Blocked counts operations that failed because somebody else held a lock,
	// by reason.
	Blocked []ReasonCount
	// LockWaits counts the waits for locks that took 100 ms or longer and are over,
	// LockWaitDuration is what they took together; see Stats.LockWaitCount.
	LockWaits        uint64
	LockWaitDuration time.Duration
	// ForceClosed counts SQLite handles closed by the guard.
	ForceClosed uint64
	// Memory is what SQLite held for the open connections when the memory
	// monitor last looked, in bytes.
	Memory int64
	// Lost counts leases whose content was undone and whose holder has not let go.
	Lost int
	// Resting counts leases that have done nothing for Policy.ReportAfter and are not
	// lost.
	Resting int
	// Places is nil unless the pool's sql.DB is attached (see Pool.Attach).
	Places *Places
	// WAL is the size of the database's write-ahead log, in bytes, as it was
	// measured last (see Stats.WALBytes). Of several pools of one file the oldest
	// has it, the others 0.
	WAL int64
}

// Openings are open resources of one kind.
type Openings struct {
	Count int
	// Oldest is the age of the one that was opened first, 0 if there is none.
	Oldest time.Duration
}

// LeakCount counts the leaks of one kind and reason; beyond 64 pairs of them in
// a pool, which only detectors can make, the reason is "other". A leak that was found by
// age and then proven counts as Found for the one reason, and as Reaped or
// Recovered for the other.
type LeakCount struct {
	Kind                     Kind
	Reason                   Reason
	Found, Reaped, Recovered uint64
}

// ReasonCount counts what happened for one reason.
type ReasonCount struct {
	Reason Reason
	Count  uint64
}

// Figures returns a snapshot. It takes about 100 ns for each connection, and a
// connection's own lock for that long.
func (t *Tracker) Figures() Figures {
	var f Figures
	capacities := t.capacities(nil)
	t.goingOn()
	t.mu.Lock()
	now := t.now()
	at := make(map[*Pool]int, len(t.pools))
	f.Pools = make([]PoolFigures, 0, len(t.pools))
	for _, p := range t.pools {
		at[p] = len(f.Pools)
		n := PoolFigures{Pool: p.name, ForceClosed: p.n.forceClosed.Load(), Places: capacities[p]}
		p.tally.figures(&n)
		t.waits.mu.Lock()
		n.LockWaits, n.LockWaitDuration = p.waits.count, p.waits.total
		t.waits.mu.Unlock()
		f.Pools = append(f.Pools, n)
	}
	for _, p := range t.walPoolsLocked() {
		f.Pools[at[p]].WAL = p.wal.size
	}
	for _, c := range t.conns {
		if i, ok := at[c.pool]; ok {
			c.figures(&f.Pools[i], now)
		}
	}
	for i := range f.Pools {
		if n := f.Pools[i].Places; n != nil {
			n.Lost = f.Pools[i].Lost
		}
	}
	f.SQLiteMemory = t.monitor.last.SQLite
	f.MemoryPressure, f.PressureEvents = t.monitor.pressedLocked(), t.monitor.under.events
	t.mu.Unlock()
	slices.SortFunc(f.Pools, func(a, b PoolFigures) int { return strings.Compare(a.Pool, b.Pool) })

	t.queue.mu.Lock()
	f.EventsDropped = t.queue.dropped
	t.queue.mu.Unlock()
	f.EventsDropped += t.leaseTimes.lost()
	return f
}

// figures adds one connection to its pool's. Tracker.mu is held.
func (c *Conn) figures(n *PoolFigures, now time.Duration) {
	c.lock()
	defer c.unlock()
	if c.leased {
		n.Leased++
		p := c.pool.policy.Load()
		switch {
		case c.lostLocked():
			n.Lost++
		case p.ReportAfter > 0 && c.word.Load()&gate.Busy == 0 && now-c.seen.at >= p.ReportAfter:
			n.Resting++
		}
	} else {
		n.Idle++
	}
	if !c.reaped { // whose handle is closed
		n.Memory += c.memory.bytes
	}
	if c.tx.id != 0 {
		n.Transactions.add(&c.tx, now)
	}
	for r := c.rows.head; r != nil; r = r.next {
		n.Rows.add(r, now)
	}
	for r := c.stmts.head; r != nil; r = r.next {
		n.Statements.add(r, now)
	}
}

func (o *Openings) add(r *Resource, now time.Duration) {
	o.Count++
	o.Oldest = max(o.Oldest, now-r.opened)
}

// figures copies the counts.
func (y *tally) figures(n *PoolFigures) {
	y.mu.Lock()
	defer y.mu.Unlock()
	for _, l := range y.leaks {
		n.Leaks = append(n.Leaks, *l)
	}
	n.Recycled, n.Refreshed, n.Blocked = byReason(y.recycled), byReason(y.refreshed), byReason(y.blocked)
	slices.SortFunc(n.Leaks, func(a, b LeakCount) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Reason, b.Reason))
	})
}

func byReason(counts map[Reason]uint64) (out []ReasonCount) {
	for r, n := range counts {
		out = append(out, ReasonCount{r, n})
	}
	slices.SortFunc(out, func(a, b ReasonCount) int { return cmp.Compare(a.Reason, b.Reason) })
	return out
}
