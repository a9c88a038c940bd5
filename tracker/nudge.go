package tracker

import "time"

const (
	// nudgeInterval is how soon a condemned operation is interrupted again:
	// SQLite forgets an interrupt that comes before the statement's first step.
	nudgeInterval = 2 * time.Millisecond
	// nudgeSlowly is how soon one is that has not ended for long. It is stuck in
	// a Go function of the program, or in one long step of SQLite, which has
	// the interrupt already.
	nudgeSlowly = 250 * time.Millisecond
)

// nudged is a condemned operation that is interrupted until it ends. Times are
// the reaper's.
type nudged struct {
	conn        *Conn
	known       bool // the rest is set
	first, last time.Duration
	pause       time.Duration // until the next one
}

// nudge interrupts what is still condemned and due, and returns when to come
// back; false if nothing is condemned. An operation that goes on to its next
// statement is hit within a quarter of the time that it has been condemned.
func (r *reaper) nudge(now time.Duration) (wait time.Duration, any bool) {
	r.t.mu.Lock()
	for _, c := range r.struck {
		r.condemn(c)
	}
	clear(r.struck)
	r.struck = r.struck[:0]
	r.t.mu.Unlock()
	wait = nudgeSlowly
	left := r.condemned[:0]
	for _, n := range r.condemned {
		if !n.known {
			n.known, n.first = true, now
		}
		if now-n.last >= n.pause/2 { // half the time has passed, and the reaper is here already
			if !n.conn.control.Nudge() {
				continue
			}
			n.last, n.pause = now, min(max((now-n.first)/4, nudgeInterval), nudgeSlowly)
		}
		wait = min(wait, n.last+n.pause-now)
		left = append(left, n)
	}
	clear(r.condemned[len(left):])
	r.condemned = left
	return wait, len(left) > 0
}

// condemn notes an operation to interrupt.
func (r *reaper) condemn(c *Conn) {
	for i := range r.condemned {
		if n := &r.condemned[i]; n.conn == c {
			*n = nudged{conn: c} // another operation by now
			return
		}
	}
	r.condemned = append(r.condemned, nudged{conn: c})
}

// alone reports whether condemned operations are all that there is to look at. Then
// the reaper comes for them only, however short check_interval is; who ends one of
// them, or opens a connection, wakes it.
func (r *reaper) alone(wait time.Duration) bool {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if r.onlyNudges = r.t.watched == len(r.condemned); r.onlyNudges {
		r.wait = wait
	}
	return r.onlyNudges
}

// settled wakes the reaper when a condemned operation is over.
func (r *reaper) settled() {
	r.t.mu.Lock()
	defer r.t.mu.Unlock()
	if r.onlyNudges {
		r.wakeLocked()
	}
}
