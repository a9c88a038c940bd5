package leakguard

import "github.com/sqlite-leakguard/sqlite-leakguard/tracker"

// AwaitsLock reports whether the operation in flight sleeps for a lock at this moment.
func (k control) AwaitsLock() bool {
	c := k.conn.Value()
	return c != nil && c.gate.peek(func() bool { return c.wait.Asleep() })
}

var _ tracker.LockControl = control{}

// peek calls look while an operation is in flight, and returns what it says; false if
// none is. The operation cannot leave before the interrupt bit is cleared, so the
// handle and what belongs to it stay. One that is closing the handle has set the dead
// bit, and waits behind that for the interrupt bit.
func (g *gate) peek(look func() bool) (yes bool) {
	w := g.word.Load()
	if w&busy == 0 || w&(interrupt|dead) != 0 || !g.word.CompareAndSwap(w, w|interrupt) {
		return false
	}
	yes = look()
	g.clear(interrupt)
	return yes
}
