package tracker

import "sync"

// tallied bounds the pairs of kind and reason that are counted apart: a
// Detector may make reasons up. What comes after counts as reasonOther.
const tallied = 64

const reasonOther Reason = "other"

// tally counts by kind and reason what became of a pool's leaks, and why its
// connections were given up and its operations blocked. All that is rare: a
// lock will do.
type tally struct {
	mu        sync.Mutex
	leaks     map[leakKey]*LeakCount
	recycled  map[Reason]uint64
	refreshed map[Reason]uint64
	blocked   map[Reason]uint64
}

type leakKey struct {
	kind   Kind
	reason Reason
}

// leak counts an event of a leak.
func (y *tally) leak(typ EventType, l *Leak, news bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := y.countLocked(leakKey{l.Kind, l.Reason})
	if news {
		n.Found++
	}
	switch typ {
	case EventReaped:
		n.Reaped++
	case EventRecovered:
		n.Recovered++
	}
}

func (y *tally) countLocked(k leakKey) *LeakCount {
	if n, ok := y.leaks[k]; ok {
		return n
	}
	if len(y.leaks) >= tallied && k.reason != reasonOther {
		return y.countLocked(leakKey{k.kind, reasonOther})
	}
	if y.leaks == nil {
		y.leaks = make(map[leakKey]*LeakCount)
	}
	n := &LeakCount{Kind: k.kind, Reason: k.reason}
	y.leaks[k] = n
	return n
}

// recycle counts a connection closed for a limit. The reasons are the guard's
// own limits.
func (y *tally) recycle(r Reason) { y.reason(&y.recycled, r) }

// refresh counts a connection that was refreshed for a limit.
func (y *tally) refresh(r Reason) { y.reason(&y.refreshed, r) }

func (y *tally) reason(counts *map[Reason]uint64, r Reason) {
	y.mu.Lock()
	defer y.mu.Unlock()
	if *counts == nil {
		*counts = make(map[Reason]uint64)
	}
	(*counts)[r]++
}

// block counts an operation that could not go on. There are three reasons.
func (y *tally) block(r Reason) { y.reason(&y.blocked, r) }
