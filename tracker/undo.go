package tracker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// What an operator does by hand, for one thing that a program holds.

var (
	errLetGo     = errors.New("nothing is held there any more")
	errUndoing   = errors.New("it is being undone at this moment, or was")
	errBusy      = errors.New("an operation runs on its connection at this moment: want one that rests")
	errLost      = errors.New("a call on its connection never came back from SQLite: only a restart frees it")
	errStatement = errors.New("it is a statement, which is never undone by itself: want its lease")
	errSurvived  = errors.New("nothing was undone: it moved meanwhile, or its connection must not be closed")
)

// Undo undoes one thing that a program holds, as Held names it: rows, a transaction,
// or a lease with all that it holds. It does so in every mode, before any limit is
// broken, and what is exempt too. What is at work it does not stop (tx_limit does),
// nor does it touch a lease that has the real connection. A connection that must not
// be closed stays open, as when a limit is broken: its rows and its transaction are
// undone, or else that is an error. A statement is closed with its lease.
//
// Undo waits until it is done, or for the end of ctx: then it is finished all the
// same. It may be called by several goroutines at once.
func (t *Tracker) Undo(ctx context.Context, connectionID string, resource uint64) error {
	if ctx == nil {
		return errors.New("tracker: Undo: ctx is nil")
	}
	c, at, err := t.claim(connectionID)
	if err != nil {
		return fmt.Errorf("tracker: Undo: %s: %w", connectionID, err)
	}
	var f findings
	err = errBusy
	c.control.Look(func() { // what the order goes by is read inside the gate
		c.lock()
		defer c.unlock()
		err = c.orderUndo(&f, resource, at)
	})
	if err != nil {
		t.reaper.undone(c)
		return fmt.Errorf("tracker: Undo: %s: %w", connectionID, err)
	}
	for _, n := range f.news {
		c.settle(n.typ, n.leak)
	}
	done := make(chan Outcome, 1)
	t.Go(func() {
		o := f.orders[0]
		t.reaper.carryOut(batch{c, f.orders})
		if o.Bare() && o.became == Done {
			c.leaseUndone(resource)
		}
		done <- o.became
	})
	select {
	case became := <-done:
		if became == Void {
			return fmt.Errorf("tracker: Undo: %s: %w", connectionID, errSurvived)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("tracker: Undo: %s: %w: it is still being undone", connectionID, ctx.Err())
	}
}

// moment is what Undo reads under Tracker.mu before it has the gate.
type moment struct {
	now    time.Duration // the tracker's time
	reaper time.Duration // the reaper's, at its last look
	idle   time.Duration
}

// claim returns the connection; nobody else has orders for it carried out until
// reaper.undone.
func (t *Tracker) claim(connectionID string) (*Conn, moment, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.connLocked(connectionID)
	switch {
	case c == nil:
		return nil, moment{}, errLetGo
	case c.lost.Load():
		return nil, moment{}, errLost
	case c.undoing:
		return nil, moment{}, errUndoing
	}
	c.undoing = true
	at := moment{now: t.now(), reaper: t.reaper.now}
	if c.seen.looked {
		at.idle = at.now - c.seen.at
	}
	return c, at, nil
}

func (t *Tracker) connLocked(id string) *Conn {
	for _, c := range t.conns {
		if c.id == id {
			return c
		}
	}
	return nil
}

// resource returns what is held under that id, nil if nothing is. Conn.mu is held.
func (c *Conn) resource(id uint64) *Resource {
	switch {
	case id == 0:
		return nil
	case c.leased && c.lease.id == id:
		return &c.lease
	case c.tx.id == id:
		return &c.tx
	}
	for _, l := range []*list{&c.rows, &c.stmts} {
		for r := l.head; r != nil; r = r.next {
			if r.id == id {
				return r
			}
		}
	}
	return nil
}

// orderUndo makes the order. The caller is inside the gate, and Conn.mu is held.
func (c *Conn) orderUndo(f *findings, resource uint64, at moment) error {
	r := c.resource(resource)
	switch {
	case r == nil:
		return errLetGo
	case r.kind == KindStatement:
		return errStatement
	case c.raw:
		return errors.New(c.notUndone())
	case c.reaped:
		return errors.New("it is undone, and only its holder can let go of its place")
	}
	o := &Order{Reason: ReasonOperator, Word: c.word.Load() &^ gate.Flags}
	meant := []*Resource{r}
	switch r.kind {
	case KindRows:
		o.Scope, o.Resource, o.Absolute = ScopeRows, r.id, true
		r.see(at.reaper)
		r.watch.uses = r.uses
	case KindTransaction:
		o.Scope, o.Resource = ScopeTransaction, r.id
	default:
		o.Scope = ScopeLease
		if all := c.contents(); len(all) > 0 {
			meant = all
		}
		c.stampLease(at.now)
	}
	for _, r := range meant {
		if r.see(at.reaper); r.watch.taken && r.suspect() {
			return errUndoing
		}
	}
	for _, r := range meant {
		c.suspect(f, r, ReasonOperator, 0, at.reaper, at.idle)
	}
	c.order(f, o, meant...)
	for i, l := range o.Leaks { // a suspect was found for another reason
		own := *l
		own.Reason, own.Limit, own.Age, own.Idle = ReasonOperator, 0, at.now-meant[i].opened, at.idle
		o.Leaks[i] = &own
	}
	return nil
}

// contents returns the rows and the transaction of the connection. Conn.mu is held.
func (c *Conn) contents() (all []*Resource) {
	for r := c.rows.head; r != nil; r = r.next {
		all = append(all, r)
	}
	if c.tx.id != 0 {
		all = append(all, &c.tx)
	}
	return all
}

// leaseUndone takes the suspicion off a lease whose handle was closed.
func (c *Conn) leaseUndone(id uint64) {
	c.lock()
	defer c.unlock()
	if c.lease.id == id {
		c.lease.watch.leak = nil
	}
}

// Spare makes one thing that a program holds exempt, as if it had been opened with
// Exempt: it is reported with the reason, and no limit undoes it. A lease spares all
// that it holds. An empty reason is "spared". What is undone at that moment is an
// error. It may be called by several goroutines at once.
func (t *Tracker) Spare(connectionID string, resource uint64, reason string) error {
	what, p, err := t.spare(connectionID, resource, cmp.Or(reason, "spared"))
	if err != nil {
		return fmt.Errorf("tracker: Spare: %s: %w", connectionID, err)
	}
	p.changed(what)
	return nil
}

func (t *Tracker) spare(connectionID string, resource uint64, reason string) (what string, p *Pool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.connLocked(connectionID)
	if c == nil {
		return "", nil, errLetGo
	}
	c.lock()
	defer c.unlock()
	r := c.resource(resource)
	switch {
	case r == nil:
		return "", nil, errLetGo
	case r.kind == KindStatement:
		return "", nil, errStatement
	case c.undoing || c.reaped || r.watch.taken && r.suspect():
		return "", nil, errUndoing
	}
	spared := []*Resource{r}
	if r == &c.lease {
		spared = append(spared, c.contents()...)
	}
	for _, r := range spared {
		r.exempt = reason
		if r.suspect() { // what was told of it before stays as it was
			l := *r.watch.leak
			l.Exempt = reason
			r.watch.leak = &l
		}
	}
	return fmt.Sprintf("%s on %s is spared: %s", r.kind, c.id, reason), c.pool, nil
}
