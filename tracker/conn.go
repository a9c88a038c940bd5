package tracker

import (
	"cmp"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// Conn is the record of one connection. The driver calls its methods from the
// connection's owner; everybody else reads.
type Conn struct {
	*pulse   // immutable pointer
	pool     *Pool
	id       string
	file     File
	control  Control
	opened   time.Duration
	openedIn time.Duration // see OpenedIn
	timed    leaseTimed
	traced   *Trace  // for the trace hook; the owner's alone
	jitter   float64 // share of MaxLifetime taken off

	slot      int  // in Tracker.conns, guarded by Tracker.mu
	unwatched bool // does not count for Tracker.watched, guarded by Tracker.mu

	seen   seen
	memory memory // guarded by Tracker.mu
	// tooHeavy: above conn_memory after a release; heavy: above a megabyte
	// under pressure. Both are recycled at check-in.
	tooHeavy, heavy atomic.Bool
	lost            atomic.Bool            // a call never came back from SQLite: hands off
	due             atomic.Pointer[Reason] // recycle at check-in
	at              time.Duration          // see At; guarded by the driver's gate
	said            string                 // query, for the owner; guarded by the driver's gate
	first           bool                   // nothing has happened in this lease; guarded by the driver's gate

	mu sync.Mutex // guards the rest, with the word's bits; nothing waits while it is held. See lock and Record
	// seq numbers the resources of this connection.
	seq      uint64
	leased   bool
	accesses int64
	lease    Resource
	tx       Resource
	rows     list
	stmts    list
	query    string // the last one
	last     *callstack.Stack
	kept     string // why policy must not close it
	reaped   bool   // its handle is closed, and its holder has not let go
	raw      bool   // the lease handed out the real connection
	covered  uint64 // the generation at which what was found covered the lease
	refused  int64  // accesses when a recycle was not allowed, 0 since the reaper looked
}

// pulse is what the reaper's look at a connection at rest needs. The pulses of
// many connections lie side by side in memory: the look costs a quarter of what
// it does in their records.
type pulse struct {
	// word changes with every operation; the driver's gate owns its bits.
	word    atomic.Uint64
	pending atomic.Bool // proven resources wait for a free gate

	// Guarded by Tracker.mu.
	fresh bool          // Stats saw a change that the reaper has not
	was   uint64        // word when the guard looked last, without FlagBits
	next  time.Duration // nothing is due before, if the word stays

	_ [32]byte // a cache line of its own
}

// The activity word: BusyBit is set while an operation is inside SQLite, the
// other bits of FlagBits are the gate's own, and above them a generation counts
// the operations that are over.
const (
	BusyBit  = 1
	FlagBits = 1<<16 - 1
)

// seen is the guard's last view of a connection, guarded by Tracker.mu. Times
// are the reaper's, except at.
type seen struct {
	known  bool
	looked bool          // at is set
	rested bool          // what idleness asks for was done
	at     time.Duration // the last change on the tracker's clock
	active time.Duration // the last change
	first  time.Duration // first seen
	// forgotten is when the lease was first found without activity.
	forgotten time.Duration
	most      *Leak // reported: too many statements
}

// Open registers a connection. leased says whether it is checked out at once;
// a connection opened for the pool's stock is not.
func (p *Pool) Open(control Control, leased bool, exempt string) *Conn {
	c := p.New(leased, exempt)
	c.Register(control)
	return c
}

// New makes the record of a connection that nobody sees yet.
func (p *Pool) New(leased bool, exempt string) *Conn {
	c := &Conn{
		pulse:  new(pulse),
		pool:   p,
		id:     p.name + "#" + strconv.FormatUint(p.tracker.connSeq.Add(1), 10),
		opened: p.tracker.clock.now(),
		jitter: 0.025 * rand.Float64(),
	}
	c.lease.kind, c.tx.kind = KindConnection, KindTransaction
	if leased {
		c.beginLease(exempt)
	}
	return c
}

// Register makes the connection known: from here on the reaper may come.
func (c *Conn) Register(control Control) {
	t := c.pool.tracker
	c.control = control
	leased := c.leased
	t.add(c)
	c.pool.tracker.emit(Event{Type: EventOpened, ConnectionID: c.id, Duration: c.openedIn, pool: c.pool})
	if leased && t.leaseEvents.Load() {
		c.leaseBegan()
	}
}

// ID names the connection, unique in the tracker.
func (c *Conn) ID() string { return c.id }

// Pool returns the connection's pool.
func (c *Conn) Pool() *Pool { return c.pool }

// Word is the connection's activity word: the driver's gate keeps its state in
// it, and any change of it is activity.
func (c *Conn) Word() *atomic.Uint64 { return &c.word }

// CheckOut begins a lease. It comes between Record and Recorded.
func (c *Conn) CheckOut(exempt string) {
	c.beginLease(exempt)
	if c.pool.tracker.leaseEvents.Load() {
		c.leaseBegan()
	}
}

func (c *Conn) beginLease(exempt string) {
	c.leased = true
	c.accesses++
	c.first = false
	c.open(&c.lease, "", exempt)
	c.first = true
	c.lease.opened = unknown
}

// CheckIn ends the lease and returns why the connection should be recycled,
// "" if it should not. It comes between Record and Recorded.
func (c *Conn) CheckIn() Reason {
	if !c.leased {
		return ""
	}
	c.leased = false
	c.raw = false
	leak := c.closeLocked(&c.lease)
	accesses, kept := c.accesses, c.kept
	patient := c.refused != 0 && accesses < c.refused+refusedFor
	if leak != nil {
		c.settle(EventRecovered, leak)
	}
	if c.pool.tracker.leaseEvents.Load() {
		c.leaseEnded()
	}
	p := c.pool.policy.Load()
	mode := c.pool.mode
	if mode == Observe || patient {
		return ""
	}
	if p.MaxAccess > 0 && accesses >= p.MaxAccess {
		return ReasonMaxAccess
	}
	if c.tooHeavy.Load() {
		return ReasonConnMemory
	}
	if c.heavy.Load() {
		return ReasonPressure
	}
	if r := c.due.Load(); r != nil && p.MaxLifetime > 0 {
		return *r
	}
	if mode == Basic && kept == "" && p.MaxLifetime > 0 &&
		c.pool.tracker.clock.now()-c.opened >= c.lifetime(p) {
		return ReasonMaxLifetime
	}
	return ""
}

// lifetime is the policy's, less the connection's share at random.
func (c *Conn) lifetime(p *Policy) time.Duration {
	return p.MaxLifetime - time.Duration(c.jitter*float64(p.MaxLifetime))
}

// Executing notes the SQL text that runs. The same one again costs no lock.
func (c *Conn) Executing(query string) {
	if query == c.said {
		return
	}
	c.said = query
	c.Record()
	c.query = query
	if c.pool.stacks {
		c.last = c.here(c.last)
	}
	c.Recorded()
}

// BeginTx records that a transaction began and returns its id; level 1 is the
// transaction itself.
func (c *Conn) BeginTx(query, exempt string) uint64 {
	id := c.BeganTx(query, exempt)
	c.Recorded()
	return id
}

// BeganTx is BeginTx, and leaves the record open.
func (c *Conn) BeganTx(query, exempt string) uint64 {
	c.said = query
	c.Record()
	c.query = query
	c.open(&c.tx, query, exempt)
	c.stamp(&c.tx)
	c.tx.level = 1
	return c.tx.id
}

// SetLevel records the transaction's depth: 1 more for each savepoint.
func (c *Conn) SetLevel(level int) {
	c.Record()
	c.tx.level = level
	c.Recorded()
}

// EndTx records that the transaction is over.
func (c *Conn) EndTx() {
	c.EndedTx()
	c.Recorded()
}

// EndedTx is EndTx, and leaves the record open.
func (c *Conn) EndedTx() {
	c.Record()
	if leak := c.closeLocked(&c.tx); leak != nil {
		c.settle(EventRecovered, leak)
	}
}

// OpenRows records rows that a query opened. It comes between Record and
// Recorded.
func (c *Conn) OpenRows(r *Resource, query, exempt string) {
	r.kind = KindRows
	r.uses = 0
	if r.noticed.Load() {
		r.noticed.Store(false)
	}
	c.said, c.query = query, query
	c.open(r, query, exempt)
	c.stamp(r)
	c.rows.add(r)
}

// OpenStatement records a prepared statement.
func (c *Conn) OpenStatement(r *Resource, query, exempt string) {
	r.kind = KindStatement
	c.Record()
	c.open(r, query, exempt)
	c.stamp(r)
	c.stmts.add(r)
	c.Recorded()
}

// CloseResource records that rows or a statement were closed. Closing twice is
// allowed. It comes between Record and Recorded.
func (c *Conn) CloseResource(r *Resource) {
	if r.id == 0 {
		return
	}
	if r.kind == KindRows {
		c.rows.remove(r)
	} else {
		c.stmts.remove(r)
	}
	leak := c.closeLocked(r)
	if leak != nil {
		c.settle(EventRecovered, leak)
	}
}

// open records that r was opened, but for the time.
func (c *Conn) open(r *Resource, query, exempt string) {
	c.seq++
	r.id = c.seq
	r.query = query
	r.exempt = exempt
	if c.pool.stacks {
		r.stack = c.here(r.stack)
		c.last = r.stack
	}
}

// here returns the present call stack, which is likely to be last. The first thing
// that happens in a lease has the callers that the lease has, if one operation
// takes the connection and uses it.
func (c *Conn) here(last *callstack.Stack) *callstack.Stack {
	if c.first {
		c.first = false
		if c.lease.stack.InOperation() {
			return c.lease.stack
		}
	}
	return callstack.Capture(last)
}

// unknown is the opening time of a lease that nobody has asked for yet.
const unknown = time.Duration(-1)

// At says when what is recorded next came about, on the tracker's clock (see
// Tracker.Now): rows, a statement or a transaction. Without it the clock is read.
// It may be a little early. 0 is no time. The caller holds the driver's gate.
func (c *Conn) At(d time.Duration) { c.at = d }

// stamp reads the clock for r, if it must. Most leases begin with opening something, and
// the reading does for both; one that opens nothing is stamped by the first
// who looks at it.
func (c *Conn) stamp(r *Resource) {
	if c.at != 0 {
		r.opened = max(c.at, c.opened) // no earlier than its connection
		c.at = 0
	} else {
		r.opened = c.pool.tracker.clock.now()
	}
	if c.lease.opened == unknown {
		c.lease.opened = r.opened
	}
}

// stampLease gives a lease without a time the present one.
func (c *Conn) stampLease(now time.Duration) {
	if c.lease.opened == unknown {
		c.lease.opened = now
	}
}

// closeLocked marks r closed and returns its leak if that is a recovery.
func (c *Conn) closeLocked(r *Resource) *Leak {
	var leak *Leak
	if r.suspect() && !r.watch.taken {
		leak = r.watch.leak
	}
	r.id, r.query, r.exempt, r.level = 0, "", "", 0
	r.watch.leak = nil
	return leak
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

// HandedOut records that the real connection was handed to the program: until
// check-in the guard cannot know what runs on it.
func (c *Conn) HandedOut() {
	c.lock()
	c.raw = true
	if c.kept == "" {
		c.kept = "the raw connection was handed out"
	}
	c.unlock()
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

// ForceClosed counts a connection closed by the guard and not by its pool.
func (c *Conn) ForceClosed() {
	c.lock()
	c.reaped = c.leased
	c.unlock()
	t := c.pool.tracker
	t.mu.Lock()
	c.goneLocked()
	t.mu.Unlock()
	c.pool.count(func(n *counters) { n.forceClosed.Add(1) })
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

// Pending asks the reaper to come back for what waits for a free gate.
func (c *Conn) Pending() {
	c.pending.Store(true)
	if !c.OutOfBubble() {
		c.pool.tracker.poke()
	}
}

// OutOfBubble reports whether the tracker lives in a synctest bubble that the
// caller is not in, as a cleanup never is: then nothing may be woken or told
// from here, and the reaper inside finds it at its next check.
func (c *Conn) OutOfBubble() bool { return c.pool.tracker.bubble && !InBubble() }

// Close removes the connection's record, and with it whatever it still held.
func (c *Conn) Close() {
	var leaks []*Leak
	gone := func(r *Resource) {
		if l := c.closeLocked(r); l != nil {
			leaks = append(leaks, l)
		}
	}
	c.lock()
	for c.rows.head != nil {
		r := c.rows.head
		c.rows.remove(r)
		gone(r)
	}
	for c.stmts.head != nil {
		r := c.stmts.head
		c.stmts.remove(r)
		gone(r)
	}
	gone(&c.tx)
	gone(&c.lease)
	c.leased = false
	accesses := c.accesses
	c.unlock()
	removed, most := c.pool.tracker.remove(c, accesses)
	if most != nil {
		leaks = append(leaks, most)
	}
	for _, l := range leaks {
		c.settle(EventRecovered, l)
	}
	if removed {
		c.emit(EventClosed)
	}
}

// Dropped removes the record of a connection that was collected without having
// been closed.
func (c *Conn) Dropped() {
	if !c.OutOfBubble() {
		c.Close()
	}
}

// Settle tells what became of an order. Done and Kept: its leaks are reaped.
// Void: those that are closed by now recovered, the others stay suspects.
func (c *Conn) Settle(o *Order, out Outcome) {
	if out != Void {
		c.lock()
		c.cover()
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

// cover notes that what was found covers the lease as well: it is not reported
// on top unless it moves again. Conn.mu is held.
func (c *Conn) cover() {
	if c.lease.suspect() {
		return
	}
	c.lease.watch = watch{id: c.lease.id, taken: true}
	c.covered = c.word.Load() &^ FlagBits
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

func (c *Conn) tell(typ EventType, l *Leak, news bool) {
	c.pool.tally.leak(typ, l, news)
	c.pool.tracker.emit(Event{Type: typ, ConnectionID: c.id, Reason: l.Reason, Leak: l, pool: c.pool, news: news})
}

func (c *Conn) emit(typ EventType) {
	c.pool.tracker.emit(Event{Type: typ, ConnectionID: c.id, pool: c.pool})
}

// leakLocked describes r. idle is how long it was seen not to move.
func (c *Conn) leakLocked(r *Resource, reason Reason, limit, now, idle time.Duration) *Leak {
	t := c.pool.tracker
	l := &Leak{
		ID:           t.leakID.Add(1),
		Kind:         r.kind,
		Reason:       reason,
		Pool:         c.pool.name,
		ConnectionID: c.id,
		Resource:     r.id,
		OpenedAt:     t.clock.at(r.opened),
		Age:          now - r.opened,
		Idle:         idle,
		Limit:        limit,
		Level:        r.level,
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
	if l.Exempt == "" {
		l.Exempt = c.lease.exempt
	}
	if c.raw {
		l.Kept = "the raw connection is in use"
	}
	return l
}
