package tracker

import (
	"errors"
	"fmt"
)

// SetMode changes how far the guard goes with the pool, from the next check on, also
// while connections are open, and may be called by several goroutines at once.
//
// Enforce, Observe and Basic can be set. What is being undone at that moment is
// finished; orders that nobody has begun to carry out are void when the new mode does
// not undo. Back in Enforce, what was forgotten meanwhile is found, with the ages
// that the reaper has known all the time. In Basic what is a suspect stays one until
// it is closed: nobody looks at it. Off cannot be set, nor left: connections that
// were opened under the guard stay under it, and those that were not are not known.
//
// A mode that the operator has set, by the environment variable LEAKGUARD or on the
// page, stays as it is. That is no error, for a program must not fail over it: an
// EventChanged tells, and Mode returns what holds.
func (p *Pool) SetMode(m Mode) error {
	if err := p.mayTurn(m); err != nil {
		return err
	}
	t := p.tracker
	t.mu.Lock()
	was := p.Mode()
	pinned := p.pinned[KeyMode]
	if !pinned {
		p.setModeLocked(m)
	}
	t.mu.Unlock()
	switch {
	case was == m:
	case pinned:
		p.toldPinned(was.String())
	default:
		p.changed(fmt.Sprintf("mode %v, it was %v", m, was))
	}
	return nil
}

// mayTurn returns an error if the pool cannot have that mode from now on.
func (p *Pool) mayTurn(m Mode) error {
	switch {
	case m > Off:
		return fmt.Errorf("tracker: mode is %v: want enforce, observe or basic", m)
	case m == Off:
		return errors.New("tracker: mode off cannot be set while the program runs, for what is open stays under the guard: " +
			"want observe, which undoes nothing, enforce or basic")
	case p.Mode() == Off:
		return errors.New("tracker: mode off cannot be left while the program runs, for nothing of what is open is known")
	}
	return nil
}

// setModeLocked puts a mode into force. Tracker.mu is held.
//
// Connections that the reaper has looked at keep it at work in mode basic too, though
// it passes them by: its time begins anew when it has come to rest, and what it knows
// of them would be of another time when the mode is changed back.
func (p *Pool) setModeLocked(m Mode) {
	if m == p.Mode() {
		return
	}
	t := p.tracker
	var own []*Conn
	for _, c := range t.conns {
		if c.pool == p {
			own = append(own, c)
			c.logs(func(w *walLog) { w.exit(c) }) // counted as the old mode says
		}
	}
	was := p.watched()
	p.mode.Store(uint32(m))
	is := p.watched()
	for _, c := range own {
		if is && c.unwatched && !c.lost.Load() {
			c.unwatched = false
			t.watched++
		}
		c.logs(func(w *walLog) { w.enter(c) })
	}
	switch {
	case was && !is:
		t.closedAtPlaceLocked(p)
	case is && !was && !p.closed:
		t.openedAtPlaceLocked(p, placeOf(p.stack))
	}
	t.epoch++
	t.startLocked(p)
	t.reaper.wakeLocked()
	p.attached.rouseLocked() // whether it may lend has changed
}
