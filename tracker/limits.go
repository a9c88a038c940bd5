package tracker

import (
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// What the reaper does about a connection that breaks a limit: who is told, and which
// order is given. Tracker.mu and Conn.mu are held.

// timeOut handles a transaction beyond TxTimeout or TxLimit. For the latter it is
// undone at once. For the former it is reported, again each TxTimeout as long as
// it works, and undone as soon as it rests: an order for that holds only while
// nothing moves.
func (c *Conn) timeOut(f *findings, p *Policy, rec *Record, now time.Duration, word uint64, reason Reason) {
	if c.tx.watch.taken {
		return
	}
	limit := p.TxTimeout
	if reason == ReasonTxLimit {
		limit = p.TxLimit
	}
	s, w, age := &c.seen, &c.tx.watch, c.pool.tracker.now()-c.tx.opened
	stronger := c.tx.suspect() && w.leak.Reason != reason
	if l := w.leak; stronger {
		copied := *l
		copied.Reason, copied.Limit, copied.named = reason, limit, false
		copied.Age, copied.Idle = age, rec.Idle
		w.leak = &copied // the same leak, by now for a stronger reason
	}
	l, fresh := c.suspect(f, &c.tx, reason, limit, now, rec.Idle)
	switch {
	case fresh || stronger:
		s.late = &late{now, word, now}
	case reason == ReasonTxTimeout && s.late != nil && now-s.late.at >= limit && s.active > s.late.at && l.Exempt == "":
		copied := *l
		copied.Age, copied.Idle, copied.Limit = age, rec.Idle, limit
		copied.Operations = (word - s.late.word) / (gate.Flags + 1)
		copied.Level, copied.Query, copied.Last, copied.Kept = int(c.tx.level), c.told(c.query), c.last.PCs(), c.notUndone()
		w.leak, l, s.late.at = &copied, &copied, now
		f.news = append(f.news, news{conn: c, typ: EventSuspect, leak: l, again: true})
	}
	if reason == ReasonTxTimeout && !txRests(p, rec) || !c.mayUndo(l) || c.exemptRows() {
		return
	}
	undone := []*Resource{&c.tx} // and with it all rows, suspects or not
	for r := c.rows.head; r != nil; r = r.next {
		if r.suspect() && !r.watch.taken {
			undone = append(undone, r)
		}
	}
	// What rests is undone only while it rests.
	o := &Order{Scope: ScopeTransaction, Reason: reason, Resource: c.tx.id, Word: word, Absolute: reason == ReasonTxLimit}
	c.order(f, o, undone...)
}

// pooled handles a transaction whose connection sits in the pool.
func (c *Conn) pooled(f *findings, p *Policy, rec *Record, now time.Duration, word uint64) {
	if c.tx.watch.taken {
		return
	}
	l, _ := c.suspect(f, &c.tx, ReasonInPool, inPoolAfter, now, rec.Idle)
	if txInPoolForgotten(p, rec) && c.mayUndo(l) && !c.exemptRows() {
		c.order(f, &Order{Scope: ScopeTransaction, Reason: ReasonLeakAfter, Resource: c.tx.id, Word: word}, &c.tx)
	}
}

// forgotten handles a lease without activity: first its resources become
// suspects, at the next check they are reaped. limit is 0 for a detector.
func (c *Conn) forgotten(f *findings, limit time.Duration, reason Reason, now time.Duration, word uint64) {
	idle := now - c.seen.active
	all := c.contents()
	if len(all) == 0 && c.loss != nil && c.loss.undone != nil && limit > 0 { // a detector's word is not leak_after
		c.finish(f, word)
		return
	}
	if c.maybePooled() {
		return
	}
	if len(all) == 0 {
		// Nothing is held but the connection itself: it may be held on
		// purpose, so it is reported, its memory released, and left alone.
		if c.lease.watch.taken {
			return
		}
		c.lease.forgottenToo(reason, limit, idle)
		if _, fresh := c.suspect(f, &c.lease, reason, limit, now, idle); fresh && c.pool.Mode() == Enforce && !c.raw {
			f.orders = append(f.orders, &Order{Scope: ScopeRelease, Reason: reason, Word: word, conn: c})
		}
		return
	}
	// Confirmed by a second check without activity in between.
	confirmed := c.seen.forgotten > c.seen.active
	if !confirmed {
		c.seen.forgotten = now + 1 // later than the activity, even at the same check
	}
	leaks := make([]*Leak, 0, len(all))
	for _, r := range all {
		if r.watch.taken {
			return
		}
		r.forgottenToo(reason, limit, idle)
		l, fresh := c.suspect(f, r, reason, limit, now, idle)
		confirmed = confirmed && !fresh && now > r.watch.since && now-r.watch.since >= c.confirmAfter()
		leaks = append(leaks, l)
	}
	if confirmed && c.mayUndo(leaks...) && c.lease.exempt == "" {
		c.order(f, &Order{Scope: ScopeLease, Reason: reason, Word: word}, all...)
	}
}

// confirmAfter is how long a suspect rests on before it is undone, where the guard
// looks oftener than that; else it is the next look.
func (c *Conn) confirmAfter() time.Duration {
	p := c.pool.policy.Load()
	if p.ReportAfter == 0 {
		return 0
	}
	return p.confirm()
}

// finish undoes the rest of a lease whose rows or transaction the guard undid, for
// whichever limit: its holder does not come back, so its handle is closed.
func (c *Conn) finish(f *findings, word uint64) {
	if c.reaped || c.seen.finished == c.lease.id || !c.mayUndo(c.loss.undone) {
		return
	}
	c.seen.finished = c.lease.id
	l := c.loss.undone
	f.orders = append(f.orders, &Order{Scope: ScopeLease, Reason: l.Reason, Word: word, Leaks: []*Leak{l}, conn: c, lease: c.lease.id})
}

// forgottenToo turns the suspicion of keeping the WAL into that of being
// forgotten: the same leak, by now for a stronger reason.
func (r *Resource) forgottenToo(reason Reason, limit, idle time.Duration) {
	if !r.suspect() || r.watch.leak.Reason != ReasonWALLimit {
		return
	}
	copied := *r.watch.leak
	copied.Reason, copied.Limit, copied.Idle = reason, limit, idle
	r.watch.leak = &copied
}

// giveUp gives the connection up for a limit: it is closed if no program can miss
// it, else refreshed where it is.
func (c *Conn) giveUp(f *findings, word uint64, reason Reason) {
	if c.seen.rested || c.pool.Mode() != Enforce || c.memory.gone { // its handle is closed
		return
	}
	if c.leased && c.pool.policy.Load().Expire == Close {
		return // it is closed when it is back in the pool
	}
	c.seen.rested = true
	f.orders = append(f.orders, &Order{Scope: ScopeGiveUp, Reason: reason, Word: word, conn: c})
}
