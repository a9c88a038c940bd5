package tracker

import (
	"slices"
	"time"
)

// Carrying orders out. A ROLLBACK of a large transaction takes seconds, closing
// rows may commit, and both call hooks of the program, which may do anything. So
// the reaper only looks, and a goroutine beside it carries the orders out, one
// after the other. Another one helps out when the first is stuck.

const (
	// maxCarriers bounds those goroutines. Each may keep a thread inside SQLite.
	// A handful is enough for a disk; the others are for hooks that never return,
	// so that a few of those do not hold up the rest.
	maxCarriers = 16
	// stuckAfter is how long an order takes until the next one is not left to
	// its carrier: most take microseconds.
	stuckAfter = 10 * time.Millisecond
)

// carrying is what is being carried out. Guarded by Tracker.mu.
type carrying struct {
	queue     []batch // of connections that are marked undoing
	carriers  []*carrier
	relief    *time.Timer // fires while orders are queued; nil until first needed
	relieving bool        // the timer is armed
	crowded   bool        // orders were void, as all carriers were stuck
	missed    bool        // a connection was to be looked at while its orders were carried out
	struck    []*Conn     // condemned since the last nudge
}

// batch is what one look orders for one connection.
type batch struct {
	conn   *Conn
	orders []*Order
}

type carrier struct {
	since time.Duration // when it took its present order, on the tracker's clock
}

// carry tells the news and has the orders carried out.
func (r *reaper) carry(f *findings) {
	for _, n := range f.news {
		switch {
		case n.typ == EventResting:
			n.conn.tellResting(n.leak, n.waiters)
		case n.again:
			n.conn.retell(n.leak)
		default:
			n.conn.settle(n.typ, n.leak)
		}
	}
	if len(f.orders) == 0 {
		return
	}
	var batches []batch
	at := make(map[*Conn]int)
	for _, o := range f.orders {
		i, known := at[o.conn]
		if !known {
			i = len(batches)
			at[o.conn] = i
			batches = append(batches, batch{conn: o.conn})
		}
		batches[i].orders = append(batches[i].orders, o)
	}
	for _, b := range batches {
		if !r.enqueue(b) {
			b.void()
		}
	}
}

// enqueue leaves orders to the carriers. It returns false if earlier ones for
// the connection are being carried out.
func (r *reaper) enqueue(b batch) bool {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if b.conn.undoing {
		return false
	}
	b.conn.undoing = true
	r.queue = append(r.queue, b)
	r.relieveLocked()
	return true
}

// movesLocked reports whether there is a carrier that is not stuck.
func (r *reaper) movesLocked() bool {
	now := r.t.now()
	return slices.ContainsFunc(r.carriers, func(c *carrier) bool { return now-c.since < stuckAfter })
}

// relieveLocked sees to it that what is queued is carried out: by who is at work,
// or by one more.
func (r *reaper) relieveLocked() {
	if len(r.carriers) < maxCarriers && !r.movesLocked() {
		c := &carrier{since: r.t.now()}
		r.carriers = append(r.carriers, c)
		r.t.goLocked(func() { r.work(c) })
	}
	switch {
	case r.relieving:
	case r.relief == nil:
		r.relieving, r.relief = true, time.AfterFunc(stuckAfter, r.relieve)
	default:
		r.relieving = true
		r.relief.Reset(stuckAfter)
	}
}

// relieve is what the timer runs. If all carriers are stuck, what is queued is
// void: it comes again at the next look, or as soon as one is through.
func (r *reaper) relieve() {
	var void []batch
	r.t.mu.Lock()
	r.relieving = false
	switch {
	case len(r.queue) == 0:
	case len(r.carriers) == maxCarriers && !r.movesLocked():
		void, r.queue = r.queue, nil
		r.crowded = true
		for _, b := range void {
			b.conn.undoing = false
			b.conn.next = 0
		}
	default:
		r.relieveLocked()
	}
	r.t.mu.Unlock()
	for _, b := range void {
		b.void()
	}
}

// void settles orders that were not carried out.
func (b batch) void() {
	for _, o := range b.orders {
		b.conn.again(o)
		b.conn.Settle(o, Void)
	}
}

// work carries out what is queued.
func (r *reaper) work(me *carrier) {
	t := r.t
	defer func() { // also if somebody's code ends the goroutine
		t.mu.Lock()
		defer t.mu.Unlock()
		r.carriers = slices.DeleteFunc(r.carriers, func(c *carrier) bool { return c == me })
		if len(r.queue) == 0 && r.relieving {
			r.relieving = false
			r.relief.Stop()
		}
	}()
	for {
		t.mu.Lock()
		if len(r.queue) == 0 {
			t.mu.Unlock()
			return
		}
		b := r.queue[0]
		r.queue[0] = batch{}
		r.queue = r.queue[1:]
		me.since = t.now()
		t.mu.Unlock()
		r.carryOut(b)
	}
}

// carryOut carries out the orders for one connection.
func (r *reaper) carryOut(b batch) {
	c := b.conn
	defer r.undone(c)
	for _, o := range b.orders {
		out := Void
		if o.holds() {
			out = c.control.Carry(o)
		}
		o.became = out
		if out == Condemned {
			r.t.mu.Lock()
			r.struck = append(r.struck, c)
			r.pacer.wakeLocked() // to interrupt it again and again
			r.t.mu.Unlock()
			continue
		}
		if out == Void {
			c.again(o)
		}
		c.Settle(o, out)
	}
}

// undone says that no order for the connection is carried out any more.
func (r *reaper) undone(c *Conn) {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	c.undoing = false
	// What is lost is told at a look, too. A look for each of thousands of orders would look at thousands each time.
	if r.crowded || (r.missed || r.t.losing.Load()) && len(r.queue) == 0 {
		r.crowded, r.missed = false, false
		r.wakeLocked()
	}
}
