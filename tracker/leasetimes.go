package tracker

import (
	"sync"
	"sync/atomic"
	"time"
)

// leaseBatch is how many lease times wait before somebody is told of them.
const leaseBatch = 1024

// leaseTimes gathers how long leases took. They do not go through the queue of
// events: there would be so many that leaks were dropped.
type leaseTimes struct {
	on atomic.Bool // f is not nil

	mu       sync.Mutex // guards the rest; a leaf
	f        func(pool string, took time.Duration)
	id       uint64 // of the one who asked
	waiting  []leaseTime
	spare    []leaseTime
	draining bool
	dropped  uint64
}

type leaseTime struct {
	pool *Pool
	took time.Duration
}

// leaseTimed is when a connection's lease began, if that was noted.
type leaseTimed struct {
	access int64 // the lease that the rest is about
	began  time.Duration
}

// TimeLeases has f told how long each lease took that begins and ends from now
// on: from its check-out to its check-in. It costs a lease two readings of the
// clock and a short lock. There is one f; the last one holds.
//
// f is called for what has gathered by flush, and by a goroutine of its own
// whenever 1024 have: outside every lock, maybe by both at once. If it is
// slower than leases end, lease times are dropped and counted in
// Figures.EventsDropped. A panic in f is contained and counted. cancel ends it
// without telling the rest; a call under way may still finish.
func (t *Tracker) TimeLeases(f func(pool string, took time.Duration)) (flush, cancel func()) {
	l := &t.leaseTimes
	l.mu.Lock()
	l.id++
	id := l.id
	l.f, l.waiting = f, nil
	l.mu.Unlock()
	l.on.Store(true)
	t.recountLeaseListeners()
	return func() { l.flush(t, id) }, func() {
		l.mu.Lock()
		mine := l.id == id
		if mine {
			l.f, l.waiting, l.spare = nil, nil, nil
			l.on.Store(false)
		}
		l.mu.Unlock()
		if mine {
			t.recountLeaseListeners()
		}
	}
}

func (t *Tracker) recountLeaseListeners() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countLeaseListenersLocked()
}

// leaseBegan tells of a check-out those who want to know. The owner calls it.
func (c *Conn) leaseBegan() {
	t := c.pool.tracker
	if t.leaseTimes.on.Load() {
		c.timed = leaseTimed{c.accesses, t.clock.now()}
	}
	if t.leaseTold.Load() {
		c.emit(EventCheckOut)
	}
}

// leaseEnded tells of a check-in. The owner calls it.
func (c *Conn) leaseEnded() {
	t := c.pool.tracker
	if t.leaseTimes.on.Load() && c.timed.access == c.accesses {
		t.leaseTimes.add(t, leaseTime{c.pool, t.clock.now() - c.timed.began})
	}
	if t.leaseTold.Load() {
		c.emit(EventCheckIn)
	}
}

func (l *leaseTimes) add(t *Tracker, one leaseTime) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return
	}
	if len(l.waiting) >= leaseBatch {
		// A goroutine is at work, or cannot be: in a bubble that is not the
		// tracker's own.
		l.dropped++
		return
	}
	if l.waiting == nil {
		l.waiting, l.spare = l.spare[:0], nil
		if l.waiting == nil {
			l.waiting = make([]leaseTime, 0, leaseBatch)
		}
	}
	l.waiting = append(l.waiting, one)
	if len(l.waiting) == leaseBatch && !l.draining && (t.bubble || !InBubble()) {
		l.draining = true
		go l.drain(t, l.id)
	}
}

// drain tells of what has gathered until there is less than a batch.
func (l *leaseTimes) drain(t *Tracker, id uint64) {
	for more := true; more; {
		l.flush(t, id)
		l.mu.Lock()
		if more = len(l.waiting) >= leaseBatch && l.id == id; !more {
			l.draining = false
		}
		l.mu.Unlock()
	}
}

// flush tells of what has gathered for the one who asked as number id.
func (l *leaseTimes) flush(t *Tracker, id uint64) {
	l.mu.Lock()
	if l.id != id {
		l.mu.Unlock()
		return
	}
	batch, f := l.waiting, l.f
	l.waiting = nil
	l.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	t.queue.contain(func() {
		for _, one := range batch {
			f(one.pool.name, one.took)
		}
	})
	clear(batch) // it holds no pool that is gone
	l.mu.Lock()
	l.spare = batch
	l.mu.Unlock()
}
