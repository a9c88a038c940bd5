package tracker

import (
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// A lease whose content was undone keeps its place in the pool until its holder lets
// go: the place is lost. Where its SQLite handle is closed as well it is vacant, and
// Pool.Attach can lend another one for it.

// loss says what the guard undid of the present lease. Guarded as Conn.lease is.
type loss struct {
	since time.Duration // on the tracker's clock
	kind  Kind          // what was undone first
	word  uint64        // the generation at that time
	// undone is the first leak that was undone while more of the lease was left: that
	// is undone as well once it rests.
	undone *Leak
}

// lose notes that what the lease held was undone. The handle, which is closed last, is
// not told beside what was open on it. Conn.mu is held.
func (c *Conn) lose(kind Kind) {
	if c.loss == nil {
		c.loss = new(loss)
	}
	l := c.loss
	if !c.lostLocked() {
		l.since, l.kind = max(c.pool.tracker.clock.now(), 1), kind
	} else if l.kind == KindConnection {
		l.kind = kind
	}
	l.word = c.word.Load() &^ gate.Flags
	c.pool.tracker.losing.Store(true)
}

// tellLost tells of pools whose number of lost places has changed. A look at all
// connections is worth it only where something was undone, and until all of that has
// come back.
func (t *Tracker) tellLost() {
	if !t.losing.Swap(false) && !t.lossy.Load() {
		return
	}
	t.lossy.Store(false)
	type change struct {
		pool   *Pool
		more   bool
		stacks map[*callstack.Stack]int
	}
	var changed []change
	t.mu.Lock()
	now := make(map[*Pool]map[*callstack.Stack]int)
	for _, c := range t.conns {
		c.lock()
		if c.lostLocked() {
			t.lossy.Store(true) // it is to be seen coming back
			stacks := now[c.pool]
			if stacks == nil {
				stacks = make(map[*callstack.Stack]int)
				now[c.pool] = stacks
			}
			stacks[c.lease.stack]++
		}
		c.unlock()
	}
	for _, p := range t.pools {
		if n := total(now[p]); n != p.lostTold {
			changed = append(changed, change{p, n > p.lostTold, now[p]})
			p.lostTold = n
		}
	}
	t.mu.Unlock()
	for _, one := range changed {
		sites := make(map[string]int)
		for s, n := range one.stacks { // resolved outside the locks: the owners wait for them
			sites[Stack(s.PCs()).Site().String()] += n
		}
		n := Places{Pool: one.pool.name}
		if known := t.capacities(one.pool)[one.pool]; known != nil {
			n = *known
		}
		t.mu.Lock()
		n.Lost = one.pool.lostTold
		t.mu.Unlock()
		t.emit(Event{Type: EventLost, Places: &n, pool: one.pool, news: one.more, sites: sitesText(sites)})
	}
}

// lostLocked reports whether the place is lost: not as long as the holder still does
// something with it. Conn.mu is held.
func (c *Conn) lostLocked() bool {
	l := c.loss
	return c.leased && l != nil && (c.reaped || c.word.Load()&^gate.Flags == l.word) && l.since != 0
}

// HandleClosed says, some time behind ForceClosed, that the SQLite handle is closed and
// holds neither file nor lock any more. The driver calls it outside every gate.
func (c *Conn) HandleClosed() {
	t := c.pool.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	c.lock()
	out := c.leased && c.reaped
	c.unlock()
	if out && c.slot >= 0 && !c.vacant {
		c.vacant = true
		c.pool.vacant++
		c.pool.attached.rouseLocked()
	}
}

// filledLocked follows the end of a connection: its holder has let go. Tracker.mu is
// held.
func (c *Conn) filledLocked() {
	if c.vacant {
		c.vacant = false
		c.pool.vacant--
		c.pool.attached.rouseLocked()
	}
}
