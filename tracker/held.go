package tracker

import (
	"cmp"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Held is one thing that a program holds at this moment: a lease (of
// KindConnection), a transaction, a statement or rows.
type Held struct {
	Kind Kind   `json:"kind"`
	Pool string `json:"pool"`
	// ConnectionID names the connection, unique in the tracker, and Resource
	// the thing itself, unique in its connection.
	ConnectionID string `json:"connection_id"`
	Resource     uint64 `json:"resource"`
	// OpenedAt is the wall clock time of opening, Age the time since, true to 10 ms.
	// AgeAtLeast says of a lease that nobody saw it begin: it may be older.
	OpenedAt   time.Time     `json:"opened_at"`
	Age        time.Duration `json:"age"`
	AgeAtLeast bool          `json:"age_at_least,omitempty"`
	// Idle is the time since the guard last saw its connection move, short by
	// up to one check_interval; 0 while Busy: an operation is inside SQLite.
	Idle time.Duration `json:"idle"`
	Busy bool          `json:"busy"`
	// Level is a transaction's depth: 1, and 1 more for each savepoint.
	Level int `json:"level,omitempty"`
	// Query is the SQL text it was opened with, for a lease or a transaction the
	// last one that ran on its connection, as the pool's SQLText tells it.
	Query string `json:"query,omitempty"`
	// Exempt is the reason given to Exempt.
	Exempt string `json:"exempt,omitempty"`
	// Stack is the call stack that opened it, empty if call sites are off.
	Stack Stack `json:"-"`
	// Trace is the span that opened it, or that took its lease; zero if none was
	// known (see SetTraceHook).
	Trace Trace `json:"trace,omitzero"`
	// Suspect is its open leak, nil if it is none. It is shared: read it, do
	// not change it.
	Suspect *Leak `json:"suspect,omitempty"`

	stack *callstack.Stack
}

// Site returns the call that opened it.
func (h Held) Site() Frame { return h.Stack.Site() }

// Held returns everything that programs hold of the tracker's pools, closed
// pools included, the longest held first.
func (t *Tracker) Held() []Held {
	t.mu.Lock()
	now := t.now()
	var out []Held
	for _, c := range t.conns {
		out = c.heldLocked(out, now)
	}
	t.mu.Unlock()
	slices.SortStableFunc(out, func(a, b Held) int { return cmp.Compare(b.Age, a.Age) })
	return out
}

// heldLocked appends what is held of one connection. Tracker.mu is held.
func (c *Conn) heldLocked(out []Held, now time.Duration) []Held {
	c.lock()
	defer c.unlock()
	word := c.word.Load()
	c.lookLocked(word, now)
	c.stampLease(now)
	busy := word&gate.Busy != 0
	add := func(r *Resource) {
		h := Held{
			Kind:         r.kind,
			Pool:         c.pool.name,
			ConnectionID: c.id,
			Resource:     r.id,
			OpenedAt:     c.pool.tracker.clock.at(r.opened),
			Age:          now - r.opened,
			AgeAtLeast:   c.atLeast(r),
			Idle:         now - c.seen.at,
			Busy:         busy,
			Level:        int(r.level),
			Query:        r.query,
			Exempt:       cmp.Or(r.exempt, c.lease.exempt),
			Stack:        r.stack.PCs(),
			stack:        r.stack,
			Trace:        cmp.Or(r.trace(), c.lease.trace()),
		}
		if busy {
			h.Idle = 0
		}
		if r.kind == KindConnection || r.kind == KindTransaction {
			h.Query = c.query
		}
		h.Query = c.told(h.Query)
		if r.suspect() {
			h.Suspect = r.watch.leak
		}
		if most := c.seen.most; most != nil && most.Kind == r.kind && most.Resource == r.id {
			h.Suspect = most
		}
		out = append(out, h)
	}
	if c.leased {
		add(&c.lease)
	}
	if c.tx.id != 0 {
		add(&c.tx)
	}
	for r := c.rows.head; r != nil; r = r.next {
		add(r)
	}
	for r := c.stmts.head; r != nil; r = r.next {
		add(r)
	}
	return out
}
