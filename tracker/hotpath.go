package tracker

import (
	"context"
	"runtime"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// The hot path: what the driver calls for each lease and each result set, in one
// file and in the order in which it is called, so that it lies in few pages of the
// binary (see hotpath_lease.go of the driver). Functions and methods of the types
// that are called seldom are in conn.go, resource.go and so on.

// Record begins writing: CheckOut, CheckIn, OpenRows and CloseResource come
// between it and Recorded. The caller is inside the driver's gate. BeganTx and
// EndedTx begin by themselves.
func (c *Conn) Record() {
	for {
		w := c.word.Load()
		if w&(RecordingBit|readingBit) == 0 && c.word.CompareAndSwap(w, w|RecordingBit) {
			return
		}
		runtime.Gosched() // a reader takes microseconds
	}
}

// Recorded ends writing. Leaving the gate with the bit cleared does so as well.
func (c *Conn) Recorded() { c.word.And(^uint64(RecordingBit)) }

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
	c.lease.opened = unknown
}

// TraceLease notes whose span the present lease belongs to. Like TraceTx and
// TraceResource it follows the call that opened it, and does nothing unless
// there is a hook.
func (c *Conn) TraceLease(ctx context.Context) {
	if hook := c.pool.traceHook(); hook != nil {
		c.noteTrace(ctx, *hook, &c.lease)
	}
}

// TraceResource notes whose span rows or a statement belong to.
func (c *Conn) TraceResource(ctx context.Context, r *Resource) {
	if hook := c.pool.traceHook(); hook != nil {
		c.noteTrace(ctx, *hook, r)
	}
}

// traceHook returns the hook, nil without one.
func (p *Pool) traceHook() *TraceHook {
	if !p.heard.Load() {
		return nil
	}
	return p.tracker.traceHook.Load()
}

// At says when what is recorded next came about, on the tracker's clock (see
// Tracker.Now): rows, a statement or a transaction. Without it the clock is read.
// It may be a little early. 0 is no time. The caller holds the driver's gate.
func (c *Conn) At(d time.Duration) { c.at = d }

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

func (l *list) add(r *Resource) {
	r.next, r.prev = l.head, nil
	if l.head != nil {
		l.head.prev = r
	}
	l.head = r
	l.n++
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

func (l *list) remove(r *Resource) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		l.head = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.next, r.prev = nil, nil
	l.n--
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

// suspect reports whether it was reported and has neither recovered nor been
// reaped.
func (r *Resource) suspect() bool { return r.watch.id == r.id && r.watch.leak != nil }

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
