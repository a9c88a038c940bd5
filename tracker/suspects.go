package tracker

import (
	"cmp"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Suspect is a leak that is open, or a lease that rests, and the harm that it does at
// this moment.
type Suspect struct {
	// Leak has Age, Idle and Last as they are now. Reason is ReasonReportAfter for a
	// lease that only rests.
	Leak
	// Waiting are the operations that wait for a lock that it may hold: none is known to
	// wait without a LockControl.
	Waiting []LockWaiter `json:"-"`
	// Starves says that it has a place of a pool that is starved.
	Starves bool `json:"starves,omitempty"`
	// Lock is what SQLite says of the connection's transaction, TxUnknown while an
	// operation runs. With TxWrite nobody else can write.
	Lock TxState `json:"lock"`
	// PinsWAL says that it keeps a write-ahead log larger than Policy.WALLimit from being
	// reset.
	PinsWAL bool `json:"pins_wal,omitempty"`

	pool *Pool
	conn *Conn
}

// Blocks reports whether somebody waits for what it holds.
func (s *Suspect) Blocks() bool { return len(s.Waiting) > 0 || s.Starves }

// compareHarm puts first what has to be looked at first: who is blocked, the write lock,
// the WAL, then age. What is exempt comes last: somebody wants it so.
func compareHarm(a, b Suspect) int {
	first := func(a, b bool) int {
		switch {
		case a == b:
			return 0
		case a:
			return -1
		}
		return 1
	}
	return cmp.Or(
		first(a.Exempt == "", b.Exempt == ""),
		cmp.Compare(len(b.Waiting), len(a.Waiting)),
		first(a.Starves, b.Starves),
		first(a.Lock == TxWrite, b.Lock == TxWrite),
		first(a.PinsWAL, b.PinsWAL),
		cmp.Compare(b.Age, a.Age),
		cmp.Compare(a.ID, b.ID),
		cmp.Compare(a.ConnectionID, b.ConnectionID),
		cmp.Compare(a.Resource, b.Resource),
	)
}

// Suspects returns the leaks that are neither undone nor recovered, those that do most
// harm first: who keeps others waiting, then who holds a write lock, then who keeps a
// large write-ahead log, then the oldest; behind all others those that are exempt.
//
// SQLite is asked about connections whose gate is free; nobody waits for it.
func (t *Tracker) Suspects() []Suspect {
	all, _ := t.suspects()
	return all
}

// Resting returns the leases that rest for Policy.ReportAfter and are neither suspects
// nor exempt nor lost, each as the most that it holds, in the order of Suspects.
func (t *Tracker) Resting() []Suspect {
	return t.harmful(func(c *Conn, now time.Duration) (out []Suspect) {
		if rec := c.report(now); !rec.Resting || rec.Suspect {
			return nil
		}
		c.lock()
		defer c.unlock()
		if !c.leased {
			return nil
		}
		r := c.most()
		l := c.describeLocked(r, ReasonReportAfter, c.pool.policy.Load().ReportAfter, now, now-c.seen.at)
		if l.Exempt != "" {
			return nil
		}
		return []Suspect{{Leak: *l}}
	}, nil)
}

// most is the most that the lease holds: its transaction, else the rows that were opened
// last, else the lease itself. Conn.mu is held.
func (c *Conn) most() *Resource {
	switch {
	case c.tx.id != 0:
		return &c.tx
	case c.rows.head != nil:
		return c.rows.head
	}
	return &c.lease
}

// Waiting returns the operations that wait for a lock at this moment, as far as drivers
// tell (see LockControl).
func (t *Tracker) Waiting() []LockWaiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.waitersLocked()
}

// suspects also names the connections that nobody may touch any more. The suspicion of
// one of these is not kept with its record, so it comes from the history.
func (t *Tracker) suspects() (all []Suspect, lost []string) {
	panics := make(map[string]*Leak)
	for _, e := range t.LeakHistory() {
		if e.Type == EventSuspect && e.Leak.Reason == ReasonPanic {
			panics[e.ConnectionID] = e.Leak
		}
	}
	all = t.harmful(func(c *Conn, now time.Duration) (out []Suspect) {
		if c.lost.Load() {
			lost = append(lost, c.id)
			if l := panics[c.id]; l != nil {
				s := Suspect{Leak: *l}
				s.Age = t.clock.at(now).Sub(l.OpenedAt)
				return []Suspect{s}
			}
		}
		return c.suspectsOf(now)
	}, t.tooManyPoolsLocked)
	return all, lost
}

// suspectsOf returns those of one connection. Tracker.mu is held.
func (c *Conn) suspectsOf(now time.Duration) (out []Suspect) {
	c.lock()
	defer c.unlock()
	word := c.word.Load()
	c.lookLocked(word, now)
	add := func(l *Leak, opened time.Duration) {
		if l == nil || slices.ContainsFunc(out, func(s Suspect) bool { return s.ID == l.ID }) {
			return
		}
		s := Suspect{Leak: *l}
		s.Age, s.Idle = now-opened, now-c.seen.at
		if word&gate.Busy != 0 {
			s.Idle = 0
		}
		if c.last != nil {
			s.Last = c.last.PCs()
		}
		out = append(out, s)
	}
	one := func(r *Resource) {
		if r.id != 0 && r.suspect() {
			add(r.watch.leak, r.opened)
		}
	}
	if c.leased {
		one(&c.lease)
	}
	one(&c.tx)
	if r := c.left(); r != nil {
		one(r)
	}
	for r := c.rows.head; r != nil; r = r.next {
		one(r)
	}
	most := c.seen.most
	for r := c.stmts.head; r != nil; r = r.next {
		one(r)
		if most != nil && most.Kind == r.kind && most.Resource == r.id {
			add(most, r.opened)
		}
	}
	return out
}

// tooManyPoolsLocked returns the leaks of pools. Tracker.mu is held.
func (t *Tracker) tooManyPoolsLocked(now time.Duration) (out []Suspect) {
	add := func(c crowd) {
		s := Suspect{Leak: *c.leak, pool: c.pool}
		s.Age = now - c.pool.opened
		out = append(out, s)
	}
	for _, c := range t.tooMany {
		add(c)
	}
	for _, at := range t.places {
		if at.told.leak != nil {
			add(at.told)
		}
	}
	return out
}

// harmful looks at the harm that what of returns for each connection, and others beside
// them, does. Both are called with Tracker.mu held.
func (t *Tracker) harmful(of func(*Conn, time.Duration) []Suspect, others func(time.Duration) []Suspect) (all []Suspect) {
	starved := make(map[*Pool]bool)
	for _, a := range t.attachments(nil) {
		if n, ok := a.places(); ok && n.Starved != nil { // database/sql has locks of its own
			starved[a.pool] = true
		}
	}
	type place struct {
		behind []LockWaiter
		path   string // of the main file
		over   bool   // a file has a large log
	}
	places := make(map[*Conn]place)
	t.mu.Lock()
	now := t.now()
	var waiters []LockWaiter
	looked := false
	for _, c := range t.conns {
		found := of(c, now)
		if len(found) == 0 {
			continue
		}
		if !looked {
			waiters, looked = t.waitersLocked(), true
		}
		places[c] = place{c.behindLocked(waiters), c.file.Path, c.overWALLimitLocked()}
		c.lock()
		has := c.leased // a place
		c.unlock()
		for i := range found {
			found[i].conn, found[i].pool = c, c.pool
			found[i].Starves = starved[c.pool] && has
		}
		all = append(all, found...)
	}
	if others != nil {
		all = append(all, others(now)...)
	}
	t.mu.Unlock()

	states := make(map[*Conn]TxState)
	for i := range all {
		s := &all[i]
		c := s.conn
		s.Lock = TxUnknown
		if c == nil || c.control == nil || c.lost.Load() || s.Kind == KindStatement {
			continue
		}
		state, asked := states[c]
		if !asked {
			state = c.txState()
			states[c] = state
		}
		s.Lock = state
		at := places[c]
		s.PinsWAL = s.wal != (File{}) || at.over && (state == TxRead || state == TxWrite)
		// Who only reads keeps no writer out of a file with a WAL.
		if len(at.behind) > 0 && s.holds() && state != TxNone && (state != TxRead || !hasWAL(at.path)) {
			s.Waiting = at.behind
		}
	}
	slices.SortStableFunc(all, compareHarm)
	return all
}

// holds reports whether it may hold a lock: a lease alone holds none, unless the
// program works past the guard.
func (s *Suspect) holds() bool { return s.Kind != KindConnection || s.Kept != "" }

// overWALLimitLocked reports whether a file of the connection has a write-ahead log
// above the pool's limit, as it was measured last. Tracker.mu is held.
func (c *Conn) overWALLimitLocked() bool {
	limit := c.pool.policy.Load().WALLimit
	if limit <= 0 {
		return false
	}
	return slices.ContainsFunc(c.filesLocked(), func(f openFile) bool {
		w := c.pool.tracker.wals.find(f.File)
		return w != nil && w.size > limit
	})
}

// outcome says what will become of it.
func (s *Suspect) outcome() string {
	typ := EventSuspect
	if s.Reason == ReasonReportAfter {
		typ = EventResting
	}
	return Event{Type: typ, Leak: &s.Leak, pool: s.pool}.outcome()
}
