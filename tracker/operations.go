package tracker

import "time"

// Operation is one call of a program that went to SQLite.
type Operation struct {
	Pool string
	// Name is the first word of its text, if it is one that SQLite knows.
	Name string
	Took time.Duration
	// Error is what kind of error it returned, of a bounded set: SQLite's
	// extended result code, or a Go type. Empty if none.
	Error string
}

// TimeOperations has f told of operations on connections that are opened from
// now on: an operation costs two readings of the clock and a short lock. f and
// what it returns are as for TimeLeases. It panics if f is nil.
func (t *Tracker) TimeOperations(f func(Operation)) (flush, cancel func()) {
	if f == nil {
		panic("tracker: TimeOperations: f is nil")
	}
	return t.operations.gather(t, f)
}

// TimesOperations reports whether somebody asked for operations.
func (t *Tracker) TimesOperations() bool { return t.operations.on.Load() }

// Operated tells of an operation that is over, if somebody asked.
func (c *Conn) Operated(name string, took time.Duration, err string) {
	t := c.pool.tracker
	if t.operations.on.Load() {
		t.operations.add(t, Operation{c.pool.name, name, took, err})
	}
}
