package tracker

import (
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Record is what is known of one open connection at one moment. The ages that
// criteria judge are on the reaper's clock (see Policy).
type Record struct {
	Pool         string
	ConnectionID string
	Mode         Mode
	// Leased says that the connection is checked out, Busy that an operation
	// is inside SQLite.
	Leased, Busy bool
	// Opened is the wall clock time at which the connection was opened,
	// LeasedAt the time of the check-out, TxOpened that of the transaction;
	// zero if there is none.
	Opened, LeasedAt, TxOpened time.Time
	// Age is the connection's, Idle the time since its last activity, TxAge
	// the transaction's.
	Age, Idle, TxAge time.Duration
	// Accesses counts leases.
	Accesses int64
	// TransactionLevel is 0 without a transaction, 1 in one, and 1 more for
	// each savepoint.
	TransactionLevel int
	OpenRows         int
	OpenStatements   int
	// Query is the last SQL text, as the pool's SQLText tells it: a Detector, too,
	// sees the values that are written in it only with SQLFull.
	Query string
	// Exempt is the reason given to Exempt for the lease or the transaction.
	Exempt string
	// Kept says why policy must not close the connection.
	Kept string
	// Reaped says that the guard has closed the SQLite handle: the holder of the
	// lease has not let go yet, and until then the pool's place is taken.
	Reaped bool
	// Lost says that what the lease held was undone, since LostSince, and that its
	// holder has not let go: Reaped ones, and those of which the handle is kept.
	Lost      bool
	LostSince time.Time
	// Undone is what was undone first.
	Undone Kind
	// Resting says that the lease has done nothing for Policy.ReportAfter, and is not
	// lost.
	Resting bool
	// Memory is what SQLite held for it, in bytes, when the memory monitor
	// looked, MemoryAge ago; MemoryPeak is the most it saw.
	Memory, MemoryPeak int64
	MemoryAge          time.Duration
	// Suspect says that a leak of this connection was reported and is open.
	Suspect bool
	// Stack is the holder of the lease, empty if idle or not recorded, Last that
	// of the last activity (see Leak.Last).
	Stack, Last Stack

	lifetime   time.Duration // MaxLifetime less jitter
	running    time.Duration // how long the operation in flight has been, beyond TxTimeout
	expiring   time.Duration // the age that counts for it: since it was opened or refreshed
	renewed    int64         // accesses when it was refreshed
	statements int           // open ones of the same text, the most
	leaseAge   time.Duration
	atLeast    bool // is the lease that old
	lostFor    time.Duration
	accused    bool  // a suspect that is not exempt
	forgot     Stack // who opened that
}

// recordLocked fills a record. now is the reaper's time; Tracker.mu and Conn.mu
// are held.
func (c *Conn) recordLocked(now time.Duration, p *Policy, busy bool) Record {
	t := c.pool.tracker
	r := Record{
		Pool:           c.pool.name,
		ConnectionID:   c.id,
		Mode:           c.pool.Mode(),
		Leased:         c.leased,
		Busy:           busy,
		Opened:         t.clock.at(c.opened),
		Age:            now - c.seen.first,
		Idle:           now - c.seen.active,
		Accesses:       c.accesses,
		OpenRows:       c.rows.n,
		OpenStatements: c.stmts.n,
		Query:          c.query,
		Exempt:         c.lease.exempt,
		Kept:           c.kept,
		Reaped:         c.reaped,
		Memory:         c.memory.bytes,
		MemoryPeak:     c.memory.peak,
		lifetime:       c.lifetime(p),
		expiring:       now - max(c.seen.first, c.seen.renewed),
		renewed:        c.renewed,
	}
	if busy && c.seen.late != nil {
		r.running = now - c.seen.late.moved
	}
	if c.leased {
		r.LeasedAt = t.clock.at(c.lease.opened)
	}
	if c.tx.id != 0 {
		r.TransactionLevel = int(c.tx.level)
		r.TxOpened = t.clock.at(c.tx.opened)
		if c.tx.watch.id == c.tx.id {
			r.TxAge = now - c.tx.watch.first
		}
		if r.Exempt == "" {
			r.Exempt = c.tx.exempt
		}
	}
	r.Suspect, r.accused, r.forgot = c.accusedLocked()
	if r.Lost = c.lostLocked(); r.Lost {
		r.LostSince, r.Undone = t.clock.at(c.loss.since), c.loss.kind
	}
	return r
}

// suspectLocked reports whether a leak of this connection is open.
func (c *Conn) suspectLocked() bool {
	suspect, _, _ := c.accusedLocked()
	return suspect
}

// accusedLocked reports whether a leak of this connection is open, and whether one of
// them is not exempt, and who opened that.
func (c *Conn) accusedLocked() (suspect, accused bool, by Stack) {
	leak := func(l *Leak) {
		suspect = true
		if l.Exempt == "" && !accused {
			accused, by = true, l.Stack
		}
	}
	one := func(r *Resource) {
		if r != nil && r.id != 0 && r.suspect() {
			leak(r.watch.leak)
		}
	}
	one(&c.tx)
	if c.leased {
		one(&c.lease)
	}
	one(c.left())
	for r := c.rows.head; r != nil; r = r.next {
		one(r)
	}
	if most := c.seen.most; most != nil {
		leak(most)
	}
	if c.lost.Load() && !accused {
		return true, true, c.lease.stack.PCs()
	}
	return suspect, accused, by
}

// Records returns what is known of every open connection, in no order.
func (t *Tracker) Records() []Record { return t.records(nil) }

func (t *Tracker) records(only *Pool) []Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	out := make([]Record, 0, len(t.conns))
	for _, c := range t.conns {
		if only != nil && c.pool != only {
			continue
		}
		out = append(out, c.report(now))
	}
	return out
}

// report returns the record with ages on the tracker's clock, for people.
// Idle counts from the guard's last look at the connection, so it is short by
// up to one check.
func (c *Conn) report(now time.Duration) Record {
	c.lock()
	defer c.unlock()
	word := c.word.Load()
	c.lookLocked(word, now)
	c.stampLease(now)
	r := c.recordLocked(0, c.pool.policy.Load(), word&gate.Busy != 0)
	r.Query = c.told(r.Query)
	r.Age = now - c.opened
	r.Idle = now - c.seen.at
	if c.tx.id != 0 {
		r.TxAge = now - c.tx.opened
	}
	if r.Busy {
		r.Idle = 0
	}
	if c.memory.known {
		r.MemoryAge = now - c.memory.at
	}
	if r.Lost {
		r.lostFor = now - c.loss.since
	}
	r.Resting = !r.Lost && restsLong(c.pool.policy.Load(), &r, false)
	r.Last = c.last.PCs()
	if c.leased {
		r.leaseAge, r.atLeast = now-c.lease.opened, c.atLeast(&c.lease)
		r.Stack = c.lease.stack.PCs()
		if c.tx.id != 0 && len(r.Stack) == 0 {
			r.Stack = c.tx.stack.PCs()
		}
	}
	return r
}

// lookLocked notes a change of the activity word on the tracker's clock.
func (c *Conn) lookLocked(word uint64, now time.Duration) {
	if word &^= gate.Flags; word != c.was || !c.seen.looked {
		c.was, c.seen.at, c.fresh, c.seen.looked = word, now, true, true
	}
}
