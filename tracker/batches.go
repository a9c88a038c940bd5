package tracker

import (
	"sync"
	"sync/atomic"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// batchSize is how many times wait before somebody is told of them.
const batchSize = 1024

// batches gathers what is timed by the thousands: leases, operations. It does
// not go through the queue of events: there would be so many that leaks were
// dropped.
type batches[T any] struct {
	on atomic.Bool // f is not nil

	mu       sync.Mutex // guards the rest; a leaf
	f        func(T)
	id       uint64 // of the one who asked
	waiting  []T
	spare    []T
	draining bool
	dropped  uint64
}

// gather begins for one who asks.
func (b *batches[T]) gather(t *Tracker, f func(T)) (flush, cancel func()) {
	b.mu.Lock()
	b.id++
	id := b.id
	b.f, b.waiting = f, nil
	b.mu.Unlock()
	b.on.Store(true)
	t.recountLeaseListeners()
	return func() { b.flush(t, id) }, func() {
		b.mu.Lock()
		mine := b.id == id
		if mine {
			b.f, b.waiting, b.spare = nil, nil, nil
			b.on.Store(false)
		}
		b.mu.Unlock()
		if mine {
			t.recountLeaseListeners()
		}
	}
}

func (t *Tracker) recountLeaseListeners() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.countListenersLocked()
}

func (b *batches[T]) add(t *Tracker, one T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.f == nil {
		return
	}
	if len(b.waiting) >= batchSize {
		// A goroutine is at work, or cannot be: in a bubble that is not the
		// tracker's own.
		b.dropped++
		return
	}
	if b.waiting == nil {
		b.waiting, b.spare = b.spare[:0], nil
		if b.waiting == nil {
			b.waiting = make([]T, 0, batchSize)
		}
	}
	b.waiting = append(b.waiting, one)
	if len(b.waiting) == batchSize && !b.draining && (t.bubble || !gate.InBubble()) {
		b.draining = true
		go b.drain(t, b.id)
	}
}

// drain tells of what has gathered until there is less than a batch.
func (b *batches[T]) drain(t *Tracker, id uint64) {
	for more := true; more; {
		b.flush(t, id)
		b.mu.Lock()
		if more = len(b.waiting) >= batchSize && b.id == id; !more {
			b.draining = false
		}
		b.mu.Unlock()
	}
}

// flush tells of what has gathered for the one who asked as number id.
func (b *batches[T]) flush(t *Tracker, id uint64) {
	b.mu.Lock()
	if b.id != id {
		b.mu.Unlock()
		return
	}
	batch, f := b.waiting, b.f
	b.waiting = nil
	b.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	t.queue.contain(func() {
		for _, one := range batch {
			f(one)
		}
	})
	clear(batch) // it holds no pool that is gone
	b.mu.Lock()
	b.spare = batch
	b.mu.Unlock()
}

func (b *batches[T]) lost() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}
