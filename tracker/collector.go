package tracker

import (
	"math"
	"runtime"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// collectInterval is how often a collection is asked for, at the most.
	collectInterval = time.Minute
	// maxCollectHeap is the live heap above which none is: it would cost too much.
	maxCollectHeap = 1 << 30
)

// collector asks the runtime for garbage collections. There is one for the process,
// whatever trackers and pools it has.
type collector struct {
	mu      sync.Mutex // a leaf
	running bool
	last    time.Time // when one was asked for, zero: never

	collect func()
	heap    func() (percent, live uint64)
}

var theCollector = &collector{collect: runtime.GC, heap: heapNow}

// heapNow returns GOGC, more than an int32 if that is off, and the live heap in bytes.
func heapNow() (percent, live uint64) {
	sample := []metrics.Sample{{Name: "/gc/gogc:percent"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	percent = math.MaxUint64 // not known: leave it alone
	if sample[0].Value.Kind() == metrics.KindUint64 && sample[1].Value.Kind() == metrics.KindUint64 {
		percent, live = sample[0].Value.Uint64(), sample[1].Value.Uint64()
	}
	return percent, live
}

// ask has the garbage collected by a goroutine that start begins, and reports whether
// it was: not while one is under way, nor within a minute of the last one, nor if the
// program has switched its collector off or has a large heap.
func (k *collector) ask(start func(func())) bool {
	if percent, live := k.heap(); percent > math.MaxInt32 || live > maxCollectHeap {
		return false
	}
	k.mu.Lock()
	now := time.Now()
	free := !k.running && (k.last.IsZero() || now.Sub(k.last) >= collectInterval)
	if free {
		k.running, k.last = true, now
	}
	k.mu.Unlock()
	if !free {
		return false
	}
	start(func() {
		defer func() {
			k.mu.Lock()
			k.running = false
			k.mu.Unlock()
		}()
		k.collect()
	})
	return true
}

// ProofControl is a Control that knows what garbage collection could prove.
type ProofControl interface {
	Control
	// Provable reports whether rows of the connection would be proven to be out of
	// reach as soon as garbage is collected if nobody has them any more: nothing but the
	// program holds them. It is false while the gate is taken.
	Provable() bool
}

// collect has the garbage collected if that can prove something of these connections,
// whose rows rest while somebody waits behind them. No lock is held.
func (t *Tracker) collect(resting []*Conn) {
	if t.collector == nil {
		return
	}
	for _, c := range resting {
		k, ok := c.control.(ProofControl)
		if !ok || !k.Provable() {
			continue
		}
		if t.collector.ask(t.Go) {
			t.mu.Lock()
			for _, c := range resting { // once for all of them
				c.seen.collected = true
			}
			t.mu.Unlock()
		}
		return
	}
}
