package tracker

import (
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// reaper looks at all connections again and again: it decides under
// Tracker.mu and acts after it.
type reaper struct {
	pacer

	// Guarded by Tracker.mu.
	wait   time.Duration // how long it waits after a scan
	now    time.Duration // its time at the last look
	run    uint64        // counts the times that its time has begun
	epoch  uint64
	atOnce bool // scan at the next step, whenever it comes
	// onlyNudges: it waits longer than it does after a scan, see alone.
	onlyNudges bool

	carrying // also guarded by Tracker.mu

	clock reaperClock // written by the one look at a time, under Tracker.mu

	// Of one look at a time.
	nextScan  time.Duration
	condemned []nudged  // operations to interrupt until they end
	due       []walFile // of the last look, for its memory
}

// startLocked arms reaper and monitor if the pool can need them and they are at
// rest, and wakes them if they wait longer than this pool's limits allow.
func (t *Tracker) startLocked(p *Pool) {
	if t.watched == 0 || p.open == 0 || !p.watched() {
		return // nothing that they could do anything for
	}
	r := &t.reaper
	switch {
	case !r.atRestLocked():
		if p.policy.Load().period() < r.wait {
			r.wakeLocked()
		}
	case r.mayStart():
		r.beginLocked()
	}
	t.monitor.startLocked(p)
}

// beginLocked arms the reaper, whose time begins anew.
func (r *reaper) beginLocked() {
	r.clock, r.now, r.atOnce, r.condemned = reaperClock{last: r.t.now()}, 0, true, nil
	r.run++
	r.armLocked(r.patience)
}

// watched reports whether the reaper has anything to do for the pool.
func (p *Pool) watched() bool { m := p.Mode(); return m == Enforce || m == Observe }

// wakeLocked has it look at all at once.
func (r *reaper) wakeLocked() {
	r.atOnce = true
	r.pacer.wakeLocked()
}

// look is one step.
func (r *reaper) look() (wait time.Duration) {
	r.t.mu.Lock()
	r.clock.planned = r.planned
	atOnce := r.atOnce
	r.atOnce, r.onlyNudges = false, false
	now := r.clock.tick(r.t.now())
	r.now = now
	r.t.mu.Unlock()
	if atOnce || now >= r.nextScan || r.changed() {
		f, next := r.scan(now)
		r.nextScan = now + min(next, r.t.countPlaces(now))
		r.act(&f, now)
		r.walSizes(now)
		r.t.tellLost()
	}
	wait = r.nextScan - now
	if soon, any := r.nudge(now); any && (soon < wait || r.alone(soon)) {
		wait = soon
	}
	return wait
}

// changed reports whether limits or detectors changed since the last scan.
func (r *reaper) changed() bool {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	return r.epoch != r.t.epoch
}

// findings is what a scan wants done, collected under the lock.
type findings struct {
	orders []*Order
	news   []news
	looks  []*Conn // moving connections whose rows may not be
	// collect are those whose rows rest before somebody, for which no garbage was
	// collected yet.
	collect []*Conn
	judge   []judged
}

type news struct {
	conn  *Conn
	typ   EventType
	leak  *Leak
	again bool // a suspect that was told before
	// waiters are for EventResting.
	waiters []LockWaiter
}

// judged is a leased connection for the detectors.
type judged struct {
	conn   *Conn
	record Record
	word   uint64
}

// scan looks at every connection and returns what to do and when to come back.
func (r *reaper) scan(now time.Duration) (f findings, wait time.Duration) {
	t := r.t
	t.mu.Lock()
	defer t.mu.Unlock()
	all := r.epoch != t.epoch
	r.epoch = t.epoch
	wait = time.Minute
	var waiters []LockWaiter
	reports := false
	for _, p := range t.pools {
		if p.watched() && p.open > 0 {
			policy := p.policy.Load()
			wait = min(wait, policy.period())
			reports = reports || policy.ReportAfter > 0
		}
	}
	if reports {
		waiters = t.waitersLocked()
	}
	for i, p := range t.pulses {
		word := p.word.Load()
		if word&^gate.Flags == p.was && now < p.next && !p.fresh && !all && word&gate.Busy == 0 && !p.pending.Load() &&
			(len(waiters) == 0 || !t.conns[i].seen.leased) { // else it may be what they wait for
			wait = min(wait, p.next-now)
			continue
		}
		c := t.conns[i]
		if !c.pool.watched() || c.lost.Load() {
			continue
		}
		if c.undoing {
			r.missed = true
			continue
		}
		c.examine(&f, now, word, waiters)
		wait = min(wait, p.next-now)
	}
	wait = max(wait, time.Millisecond)
	r.wait = wait
	return f, wait
}

// examine judges one connection. Tracker.mu is held.
func (c *Conn) examine(f *findings, now time.Duration, word uint64, waiters []LockWaiter) {
	c.lock()
	defer c.unlock()
	t, p, s := c.pool.tracker, c.pool.policy.Load(), &c.seen
	busy := word&gate.Busy != 0
	word &^= gate.Flags
	moved := !s.known || c.fresh || word != c.was
	if !s.known {
		s.known, s.first = true, now
	}
	if c.anew {
		s.renewed, c.anew = now, false
	}
	if moved || busy {
		if word != c.was || !s.looked || busy {
			s.at, s.looked = t.now(), true
		}
		if moved && s.late != nil {
			s.late.moved = now
		}
		c.was, s.active, c.fresh, s.rested, s.rests, s.collected = word, now, false, false, 0, false
	}
	c.movedWAL(moved || busy, c.tx.id != 0 || c.rows.n > 0 || c.raw || c.leaves())
	if s.leased = c.leased; c.leased {
		c.lease.see(now)
		c.stampLease(t.now())
	}
	if c.tx.id != 0 {
		c.tx.see(now)
	}
	for r := c.rows.head; r != nil; r = r.next {
		r.see(now)
	}
	if moved || busy {
		if l := c.lease.watch.leak; l != nil && l.Reason != ReasonLeakMemory && l.Reason != ReasonWALLimit {
			c.recover(f, &c.lease)
		}
		if word != c.covered {
			c.lease.watch.taken = false
		}
		if l := c.tx.watch.leak; l != nil && l.Reason != ReasonTxTimeout && l.Reason != ReasonTxLimit && l.Reason != ReasonWALLimit {
			c.recover(f, &c.tx)
		}
		if c.rows.n > 0 && c.leased && !busy {
			f.looks = append(f.looks, c)
		}
	}
	if c.pending.Swap(false) {
		f.orders = append(f.orders, &Order{Scope: ScopeProven, Reason: ReasonProven, Absolute: true, conn: c})
	}

	rec := c.recordLocked(now, p, busy)
	c.countStatements(f, p, &rec, word)
	if l := c.tx.watch.leak; l != nil && (l.Reason == ReasonTxTimeout || l.Reason == ReasonTxLimit) &&
		!txTimedOut(p, &rec) && !txOverLimit(p, &rec) { // the limit was raised: work does not end such a suspicion
		c.recover(f, &c.tx)
	}
	switch {
	case txOverLimit(p, &rec):
		c.timeOut(f, p, &rec, now, word, ReasonTxLimit)
	case txTimedOut(p, &rec) && (txRests(p, &rec) || !leaseForgotten(p, &rec) && !txInPoolForgotten(p, &rec)):
		c.timeOut(f, p, &rec, now, word, ReasonTxTimeout)
		if !txRests(p, &rec) {
			c.judge(f, &rec, word)
		}
	case txInPool(&rec):
		c.pooled(f, p, &rec, now, word)
	case leaseForgotten(p, &rec):
		c.forgotten(f, p.LeakAfter, ReasonLeakAfter, now, word)
	default:
		switch {
		case idleTooLong(p, &rec):
			c.giveUp(f, word, ReasonMaxIdle)
		case expired(p, &rec):
			c.giveUp(f, word, ReasonMaxLifetime)
		case tooManyAccesses(p, &rec):
			c.giveUp(f, word, ReasonMaxAccess)
		}
		c.judge(f, &rec, word)
	}
	c.rest(f, p, &rec, waiters)
	if len(t.detectors) == 0 {
		c.unnamed(f)
	}

	c.next = now + nextDue(p, &rec)
	if c.suspectLocked() || len(t.detectors) > 0 {
		c.next = now + min(p.period(), c.next-now)
	}
}

// judge has the detectors asked about a lease.
func (c *Conn) judge(f *findings, rec *Record, word uint64) {
	if rec.Leased && len(c.pool.tracker.detectors) > 0 {
		rec.Stack, rec.Query = c.lease.stack.PCs(), c.told(rec.Query)
		f.judge = append(f.judge, judged{c, *rec, word})
	}
}

// suspect reports r once and returns its leak, and whether it is news.
func (c *Conn) suspect(f *findings, r *Resource, reason Reason, limit, now, idle time.Duration) (*Leak, bool) {
	if r.suspect() {
		return r.watch.leak, false
	}
	l := c.leakLocked(r, reason, limit, c.pool.tracker.now(), idle)
	r.watch.leak, r.watch.since = l, now
	c.pool.count(func(n *counters) { n.leaked.Add(1) })
	f.news = append(f.news, news{conn: c, typ: EventSuspect, leak: l})
	return l, true
}

// recover takes a suspicion back.
func (c *Conn) recover(f *findings, r *Resource) {
	if r.id != 0 && r.suspect() && !r.watch.taken {
		f.news = append(f.news, news{conn: c, typ: EventRecovered, leak: r.watch.leak})
		r.watch.leak = nil
	}
}

// mayUndo reports whether the guard may undo what these leaks are about.
func (c *Conn) mayUndo(leaks ...*Leak) bool {
	if c.pool.Mode() != Enforce || c.raw {
		return false
	}
	for _, l := range leaks {
		if l.Exempt != "" {
			return false
		}
	}
	return true
}

// exemptRows reports whether rows are open that are not to be undone: with
// their transaction they would be.
func (c *Conn) exemptRows() bool {
	for r := c.rows.head; r != nil; r = r.next {
		if r.exempt != "" {
			return true
		}
	}
	return false
}

// order marks the resources as taken and queues the order.
func (c *Conn) order(f *findings, o *Order, resources ...*Resource) {
	o.conn, o.lease = c, c.lease.id
	for _, r := range resources {
		r.watch.taken = true
		o.targets = append(o.targets, target{r, r.id, r.watch.uses})
		o.Leaks = append(o.Leaks, r.watch.leak)
	}
	f.orders = append(f.orders, o)
}

// act has the findings carried out, without any lock. The detectors come last:
// they are somebody else's code.
func (r *reaper) act(f *findings, now time.Duration) {
	for _, c := range f.looks {
		c.lookAtRows(f, now)
	}
	r.carry(f)
	r.t.collect(f.collect)
	for _, j := range f.judge {
		var named findings
		r.detect(&named, j, now)
		r.carry(&named)
	}
}

// again sees to it that a void order comes again if its cause stays.
func (c *Conn) again(o *Order) {
	switch o.Scope {
	case ScopeProven:
		c.pending.Store(true)
	case ScopeGiveUp:
		t := c.pool.tracker
		t.mu.Lock()
		c.seen.rested = false
		c.next = 0
		t.mu.Unlock()
	case ScopeLease:
		t := c.pool.tracker
		t.mu.Lock()
		c.seen.finished = 0
		c.next = 0
		t.mu.Unlock()
	}
}

// lookAtRows finds rows that rest while their connection moves. Their use is
// counted under the gate, so it is read under the gate.
func (c *Conn) lookAtRows(f *findings, now time.Duration) {
	p := c.pool.policy.Load()
	c.control.Look(func() {
		c.lock()
		defer c.unlock()
		for r := c.rows.head; r != nil; r = r.next {
			r.see(now)
			w := &r.watch
			if r.uses != w.uses {
				w.uses, w.active = r.uses, now
				if w.leak == nil || w.leak.Reason != ReasonWALLimit {
					c.recover(f, r)
				}
				continue
			}
			idle := now - w.active
			if w.taken || !rowsForgotten(p, idle) || c.tx.watch.taken && c.tx.id != 0 {
				continue // or undone with their transaction now
			}
			r.forgottenToo(ReasonLeakAfter, p.LeakAfter, idle)
			l, fresh := c.suspect(f, r, ReasonLeakAfter, p.LeakAfter, now, idle)
			if !fresh && now > w.since && now-w.since >= c.confirmAfter() && c.mayUndo(l) && c.lease.exempt == "" {
				c.order(f, &Order{Scope: ScopeRows, Reason: ReasonLeakAfter, Resource: r.id, Absolute: true}, r)
			}
		}
	})
}

// detect asks the detectors about one connection.
func (r *reaper) detect(f *findings, j judged, now time.Duration) {
	t, c := r.t, j.conn
	t.mu.Lock()
	detectors := t.detectors
	t.mu.Unlock()
	for _, d := range detectors {
		var reason Reason
		t.queue.contain(func() { reason = d.f(j.record) })
		if reason == "" {
			continue
		}
		t.mu.Lock()
		c.lock()
		if c.word.Load()&^gate.Flags == j.word && c.leased {
			c.forgotten(f, 0, reason, now, j.word)
			for _, n := range f.news {
				n.leak.named = true
			}
		}
		c.unlock()
		t.mu.Unlock()
		return
	}
	c.lock()
	defer c.unlock()
	c.unnamed(f)
}

// unnamed takes back what only a detector had said.
func (c *Conn) unnamed(f *findings) {
	take := func(r *Resource) {
		if r.suspect() && r.watch.leak.named {
			c.recover(f, r)
		}
	}
	take(&c.lease)
	take(&c.tx)
	for r := c.rows.head; r != nil; r = r.next {
		take(r)
	}
}
