package tracker

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Conn is the record of one connection. The driver calls its methods from the
// connection's owner; everybody else reads.
type Conn struct {
	// What each lease and each result set touches comes first, see the driver's
	// connection. Unless said otherwise it is guarded by mu with the word's bits,
	// see lock and Record; nothing waits while mu is held.
	*pulse          // immutable pointer
	pool      *Pool // immutable
	leased    bool
	raw       bool          // the lease handed out the real connection
	reaped    bool          // its handle is closed, and its holder has not let go
	anew      bool          // refreshed since the guard looked last
	first     bool          // nothing has happened in this lease; guarded by the driver's gate
	at        time.Duration // see At; guarded by the driver's gate
	said      string        // query, for the owner; guarded by the driver's gate
	seq       uint64        // numbers the resources of this connection
	accesses  int64
	renewed   int64  // accesses when it was refreshed last
	query     string // the last one
	last      *callstack.Stack
	opened    time.Duration // immutable
	rows      list
	lease     Resource
	tx        Resource
	stmts     list
	kept      string        // why policy must not close it
	covered   uint64        // the generation at which what was found covered the lease
	loss      *loss         // what the guard undid of the present lease, nil if nothing
	renewedAt time.Duration // when it was refreshed last, 0 never
	mu        sync.Mutex

	// Unless said otherwise, what follows does not change once it is registered.
	id       string
	file     File
	control  Control
	openedIn time.Duration // see OpenedIn
	timed    *leaseTimed   // nil unless leases are timed; the owner's alone
	traced   *Trace        // for the trace hook; the owner's alone
	jitter   float64       // share of MaxLifetime taken off
	lost     atomic.Bool   // a call never came back from SQLite: hands off

	wrapped   bool    // see Wrapped
	undoing   bool    // orders are carried out, guarded by Tracker.mu
	unwatched bool    // does not count for Tracker.watched, guarded by Tracker.mu
	vacant    bool    // counts for Pool.vacant, guarded by Tracker.mu
	slot      int32   // in Tracker.conns, guarded by Tracker.mu
	walSlot   int32   // in walLog.conns, guarded by Tracker.mu
	wal       *walLog // nil in memory; guarded by Tracker.mu
	more      *more   // nil for most; set with Tracker.mu and Conn.mu held, read with either

	seen   seen
	memory memory // guarded by Tracker.mu
}

// pulse is what the reaper's look at a connection at rest needs. The pulses of
// many connections lie side by side in memory: the look costs a quarter of what
// it does in their records.
type pulse struct {
	// word changes with every operation; the driver's gate owns its bits.
	word    gate.Word
	pending atomic.Bool // proven resources wait for a free gate

	// Guarded by Tracker.mu.
	fresh bool          // Stats saw a change that the reaper has not
	was   uint64        // word when the guard looked last, without gate.Flags
	next  time.Duration // nothing is due before, if the word stays

	_ [32]byte // a cache line of its own
}

// seen is the guard's last view of a connection, guarded by Tracker.mu. Times
// are the reaper's, except at.
type seen struct {
	known  bool
	looked bool    // at is set
	rested bool    // what idleness asks for was done
	rests  resting // what was told of a lease that rests
	// collected: garbage was collected for its rows, which rest.
	collected bool
	pins      bool          // something is open that can keep the WAL from being reset
	leased    bool          // at the last look
	at        time.Duration // the last change on the tracker's clock
	active    time.Duration // the last change
	first     time.Duration // first seen
	// renewed is when it was seen to have been refreshed.
	renewed time.Duration
	late    *late // of the open transaction, once it was told for its age
	// finished is the lease whose handle was ordered to be closed, see finish.
	finished uint64
	// forgotten is when the lease was first found without activity.
	forgotten time.Duration
	most      *Leak    // reported: too many statements
	counted   *counted // nil as long as there are few statements
}

// late is a transaction beyond tx_timeout: when it was told last, the generation at
// the first time, and when the generation was seen to have moved last.
type late struct {
	at    time.Duration
	word  uint64
	moved time.Duration
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
	if !p.tracker.bubble && gate.InBubble() {
		p.foreign.Store(true)
	}
	c := &Conn{
		pulse:  new(pulse),
		pool:   p,
		id:     numberedName(p.name, '#', p.tracker.connSeq.Add(1)),
		opened: p.tracker.clock.now(),
		jitter: 0.025 * rand.Float64(),
	}
	c.lease.kind, c.tx.kind = KindConnection, KindTransaction
	switch {
	case leased && p.stacks:
		last := p.tracker.leasePlace.Load()
		c.lease.stack = last
		if c.beginLease(exempt); c.lease.stack != last {
			p.tracker.leasePlace.Store(c.lease.stack)
		}
	case leased:
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

// Wrapped says, before Register, that a wrapper around the driver stands between
// database/sql and this connection. It may hide IsValid: then nobody says when a
// lease ends, and a connection that rests may sit in the pool.
func (c *Conn) Wrapped() { c.wrapped = true }

// SawCheckIn says that database/sql calls IsValid on a wrapped connection, hence on
// those of its pool, as far as leases are judged.
func (c *Conn) SawCheckIn() { c.pool.checkIns.Store(true) }

// maybePooled reports whether what seems to be a lease may be a connection that sits
// in the pool, because nobody says so, and notes that: nothing can be said against
// it. Tracker.mu and Conn.mu are held.
func (c *Conn) maybePooled() bool {
	if !c.wrapped || c.pool.checkIns.Load() || c.tx.id != 0 || c.rows.n > 0 {
		return false
	}
	c.pool.lacksLocked("check-ins, which a wrapper around the driver hides: leases that hold nothing are not judged")
	return true
}

// ID names the connection, unique in the tracker.
func (c *Conn) ID() string { return c.id }

// Pool returns the connection's pool.
func (c *Conn) Pool() *Pool { return c.pool }

// Word is the connection's activity word: the driver's gate keeps its state in
// it, and any change of it is activity.
func (c *Conn) Word() *gate.Word { return &c.word }

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

// CheckOut begins a lease. It comes between Record and Recorded.
func (c *Conn) CheckOut(exempt string) {
	c.beginLease(exempt)
	if c.pool.heard.Load() && c.pool.tracker.leaseEvents.Load() {
		c.leaseBegan()
	}
}

func (c *Conn) beginLease(exempt string) {
	c.leased = true
	c.accesses++
	if c.loss != nil {
		c.loss = nil
	}
	c.first = false
	c.open(&c.lease, "", exempt)
	c.first = true
	c.lease.opened, c.lease.dated = unknown, false
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

// CheckIn ends the lease and returns why the connection is to be refreshed, ""
// if it is not. It comes between Record and Recorded.
func (c *Conn) CheckIn() Reason {
	if !c.leased {
		return ""
	}
	c.leased = false
	c.raw = false
	leak := c.closeLocked(&c.lease)
	accesses := c.accesses - c.renewed
	if leak != nil {
		c.settle(EventRecovered, leak)
	}
	if c.pool.heard.Load() && c.pool.tracker.leaseEvents.Load() {
		c.leaseEnded()
	}
	p := c.pool
	mode := p.Mode()
	if mode == Observe {
		return ""
	}
	if limit := p.maxAccess.Load(); limit > 0 && accesses >= limit {
		return ReasonMaxAccess
	}
	if mode == Basic { // nobody else looks
		if l := p.policy.Load(); l.MaxLifetime > 0 && p.tracker.clock.now()-max(c.opened, c.renewedAt) >= c.lifetime(l) {
			return ReasonMaxLifetime
		}
	}
	return ""
}

// unknown is the opening time of a lease that nobody has asked for yet.
const unknown = time.Duration(-1)

// stampLease gives a lease without a time the present one: it began before that.
func (c *Conn) stampLease(now time.Duration) {
	if c.lease.opened == unknown {
		c.lease.opened, c.lease.dated = now, true
	}
}

// atLeast reports whether it is only known that r is at least as old as its time says:
// a lease whose time is that of a look, or of the first thing that was opened in it,
// and that was not taken for that alone. Conn.mu is held.
func (c *Conn) atLeast(r *Resource) bool {
	return r.dated || r == &c.lease && !c.lease.stack.InOperation()
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

// ForceClosed counts a connection closed by the guard and not by its pool.
func (c *Conn) ForceClosed() {
	c.lock()
	if c.reaped = c.leased; c.reaped {
		c.lose(KindConnection)
	}
	c.unlock()
	t := c.pool.tracker
	t.mu.Lock()
	c.goneLocked()
	t.mu.Unlock()
	c.pool.count(func(n *counters) { n.forceClosed.Add(1) })
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
func (c *Conn) OutOfBubble() bool { return c.pool.tracker.bubble && !gate.InBubble() }

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
	if r := c.left(); r != nil {
		gone(r)
	}
	c.leased = false
	accesses := c.accesses
	c.unlock()
	c.waited()
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

func (c *Conn) emit(typ EventType) {
	c.pool.tracker.emit(Event{Type: typ, ConnectionID: c.id, pool: c.pool})
}

// At says when what is recorded next came about, on the tracker's clock (see
// Tracker.Now): rows, a statement or a transaction. Without it the clock is read.
// It may be a little early. 0 is no time. The caller holds the driver's gate.
func (c *Conn) At(d time.Duration) { c.at = d }

// OpenedIn records how long it took to open the connection, for the event that
// Register tells. The driver calls it before Register.
func (c *Conn) OpenedIn(d time.Duration) { c.openedIn = d }

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
