package tracker

import (
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// Resource is the record of one open transaction, statement or rows. A driver
// embeds it where it keeps the state of the thing itself and uses it again for
// the next one, so that opening allocates nothing.
type Resource struct {
	kind  Kind
	dated bool   // opened is the time of a look: of a lease, or of what one left behind
	uses  uint32 // guarded by the driver's gate
	// noticed says that the reaper has looked at it, or that it is over: what
	// its owner does is activity, or fails, from now on.
	noticed atomic.Bool
	level   int32
	id      uint64 // 0: closed
	opened  time.Duration
	query   string
	exempt  string
	stack   *callstack.Stack

	next, prev *Resource // in its connection's list, guarded by Conn.mu

	watch watch // guarded by Conn.mu
	span  *span // of whose opening the hook knew one; guarded by Conn.mu
}

// watch is what the reaper made of a resource. Times are the reaper's.
type watch struct {
	id     uint64        // the resource's id that the rest is about
	leak   *Leak         // not nil: a suspect
	first  time.Duration // first seen
	active time.Duration // last seen to have moved
	since  time.Duration // suspect since
	uses   uint32
	taken  bool // an order is under way: its closing is no recovery
}

// Use notes activity. The caller holds the driver's gate.
func (r *Resource) Use() { r.uses++ }

// Notice says that the resource is not what its owner left any more.
func (r *Resource) Notice() { r.noticed.Store(true) }

// Noticed reports whether the reaper has looked at the resource since it was
// opened, or Notice was called. Until then it is too young for its use to
// count as activity. It may be called outside the driver's gate.
func (r *Resource) Noticed() bool { return r.noticed.Load() }

// Query returns the text it was opened with. The caller holds the driver's gate.
func (r *Resource) Query() string { return r.query }

// ID returns the resource's id, unique in its connection; 0 if it is closed.
func (r *Resource) ID() uint64 { return r.id }

// suspect reports whether it was reported and has neither recovered nor been
// reaped.
func (r *Resource) suspect() bool { return r.watch.id == r.id && r.watch.leak != nil }

// see brings the watch up to date with the resource as it is now.
func (r *Resource) see(now time.Duration) {
	if r.watch.id != r.id {
		r.noticed.Store(true)
		r.watch = watch{id: r.id, first: now, active: now}
	}
}

// list is an intrusive list of resources.
type list struct {
	head *Resource
	n    int
}

func (l *list) add(r *Resource) {
	r.next, r.prev = l.head, nil
	if l.head != nil {
		l.head.prev = r
	}
	l.head = r
	l.n++
}

func (l *list) remove(r *Resource) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		l.head = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.next, r.prev = nil, nil
	l.n--
}
