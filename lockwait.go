package leakguard

import "github.com/sqlite-leakguard/sqlite-leakguard/tracker"

// AwaitsLock reports whether the operation in flight sleeps for a lock at this moment.
func (k control) AwaitsLock() bool {
	c := k.conn.Value()
	return c != nil && c.gate.Peek(func() bool { return c.wait.Asleep() })
}

var _ tracker.LockControl = control{}
