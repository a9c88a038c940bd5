package tracker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Tracker watches the pools of a process, or of one test. Make it with New.
//
// A Tracker made inside a testing/synctest bubble stays in it: it must not be
// used from outside.
type Tracker struct {
	clock  clock
	bubble bool // made in a synctest bubble

	// leaseEvents says that somebody wants check-outs and check-ins: leaseTold,
	// as events, or leaseTimes.
	leaseEvents atomic.Bool
	leaseTold   atomic.Bool
	traceHook   atomic.Pointer[TraceHook] // see SetTraceHook
	leaseTimes  batches[leaseTime]

	// Where a pool, and a connection's first lease, was opened last: the next one
	// often has the same callers, which are then known by one comparison.
	poolPlace, leasePlace atomic.Pointer[callstack.Stack]

	losing  atomic.Bool // something was undone of a lease since the last look, see tellLost
	lossy   atomic.Bool // at the last look a place was lost
	leakID  atomic.Uint64
	connSeq atomic.Uint64
	history history
	leaks   history // of leaks alone, for LeakHistory
	queue   queue
	logs    logLines
	waits   longWaits
	// collector is nil in a synctest bubble: collecting takes the machine's time.
	collector *collector

	// asking is held while a driver is asked for a connection's state, which crosses its
	// gate: who is blocked does not take the question of another one for an operation
	// that is running. A driver does not wait then. No other lock is held with it.
	asking sync.Mutex

	// mu guards the rest. It is never held while a driver, a callback or a
	// logger runs. Order: Tracker.mu, then Conn.mu.
	mu         sync.Mutex
	pools      map[string]*Pool
	lastNumber map[string]int
	conns      []*Conn
	pulses     []*pulse // theirs, in the same order
	wals       walLogs
	detectors  []*detector
	epoch      uint64 // counts changes of policy and detectors
	heard      bool   // what the pools were told, see Pool.heard
	reaper     reaper
	monitor    monitor
	watched    int // connections of pools that need the reaper

	blamed  map[blamed]*BlameCount
	tooMany map[string]crowd // by path: more pools than max_pools
	// fewest is the lowest max_pools that any pool was ever given, 0 if none was.
	fewest  int64
	places  map[place]*poolPlace
	crowded bool // the reaper is needed for them

	n counters // of all pools, those that are gone included

	environment  []EnvironmentItem // what SetEnvironment was given
	guarded, off atomic.Uint64     // see Opened; not guarded

	// Closings and orders on goroutines of their own. Not a WaitGroup: they begin while
	// others wait.
	closing int
	closed  chan struct{} // closed with the last one; made by the first, never in a foreign bubble
}

// Options are for New.
type Options struct {
	// History is how many events are kept, and beside them how many of leaks
	// alone, 256 if zero.
	History int
}

// New returns a tracker without pools. It has no goroutine until a connection
// is registered that can expire or leak.
func New(o Options) *Tracker {
	if o.History <= 0 {
		o.History = 256
	}
	t := &Tracker{
		clock:      newClock(),
		bubble:     gate.InBubble(),
		pools:      make(map[string]*Pool),
		lastNumber: make(map[string]int),
	}
	if !t.bubble {
		t.collector = theCollector
	}
	t.history.events = make([]Event, 0, o.History)
	t.leaks.events = make([]Event, 0, o.History)
	t.queue.tracker, t.logs.tracker = t, t
	t.reaper.pacer = pacer{t: t, step: t.reaper.look, patience: patience, needed: func() bool { return t.watched > 0 || t.crowded }}
	t.monitor.pacer = pacer{t: t, step: t.monitor.look, patience: patience, needed: func() bool { return t.watched > 0 }}
	return t
}

var defaultTracker = New(Options{})

// Default returns the tracker of pools that name no other.
func Default() *Tracker { return defaultTracker }

// Go runs f on a goroutine of its own, for closings and orders, which can take
// long. Close waits for it. In a synctest bubble that is not the tracker's own, f
// runs on the caller's goroutine: another one would keep the bubble from ending.
// It panics if f is nil.
func (t *Tracker) Go(f func()) {
	if f == nil {
		panic("tracker: Go: f is nil")
	}
	if !t.bubble && gate.InBubble() {
		f()
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.goLocked(f)
}

func (t *Tracker) goLocked(f func()) {
	if t.closing++; t.closing == 1 {
		t.closed = make(chan struct{})
	}
	go func() {
		defer func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.closing--; t.closing == 0 {
				close(t.closed)
			}
		}()
		f()
	}()
}

// awaitClosings waits until no closing and no order is under way.
func (t *Tracker) awaitClosings() {
	t.mu.Lock()
	closed, none := t.closed, t.closing == 0
	t.mu.Unlock()
	if !none {
		<-closed
	}
}

// Detector judges a connection beside the built-in criteria and returns why it
// is a suspect, "" if it is not. It runs on the reaper's goroutine outside all
// locks at every check of a leased connection; while it runs, nothing else is
// checked, and it must not close a pool, which waits for the reaper. A panic in
// it is contained and counted.
//
// A lease it names is reported, and reaped at the next check if it is still
// named without activity in between.
type Detector func(Record) Reason

type detector struct{ f Detector }

// AddDetector registers d; cancel removes it. It panics if d is nil.
func (t *Tracker) AddDetector(d Detector) (cancel func()) {
	if d == nil {
		panic("tracker: AddDetector: d is nil")
	}
	entry := &detector{d}
	t.mu.Lock()
	t.detectors = append(t.detectors[:len(t.detectors):len(t.detectors)], entry)
	t.epoch++
	t.reaper.wakeLocked()
	t.mu.Unlock()
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		for i, e := range t.detectors {
			if e == entry {
				t.detectors = append(t.detectors[:i:i], t.detectors[i+1:]...)
				t.epoch++
				t.reaper.wakeLocked()
				return
			}
		}
	}
}

func (t *Tracker) add(c *Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.slot = int32(len(t.conns))
	t.conns = append(t.conns, c)
	t.pulses = append(t.pulses, c.pulse)
	if c.pool.heard.Load() != t.heard { // closed meanwhile
		c.pool.heard.Store(t.heard)
	}
	c.pool.open++
	if c.unwatched = !c.pool.watched(); !c.unwatched {
		t.watched++
	}
	t.wals.join(c)
	t.wals.attach(c)
	c.pool.n.created++
	t.n.created++
	t.startLocked(c.pool)
	c.pool.attached.startLocked()
}

// remove takes c, which had so many accesses, out. It reports whether c was still
// registered, and what it leaves open.
func (t *Tracker) remove(c *Conn, accesses int64) (removed bool, most *Leak) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.slot < 0 {
		return false, nil
	}
	last := len(t.conns) - 1
	t.conns[c.slot] = t.conns[last]
	t.conns[c.slot].slot = c.slot
	t.pulses[c.slot] = t.pulses[last]
	t.conns[last], t.pulses[last] = nil, nil
	t.conns, t.pulses = t.conns[:last], t.pulses[:last]
	c.slot = -1
	c.pool.open--
	t.wals.detach(c)
	t.wals.leave(c)
	if c.fresh || c.word.Load()&^gate.Flags != c.was {
		c.pool.use.moved = true
	}
	c.goneLocked()
	again := reused(accesses)
	c.pool.n.reused += again
	t.n.reused += again
	most, c.seen.most = c.seen.most, nil
	c.filledLocked()
	t.dropPoolLocked(c.pool)
	t.unwatchLocked(c)
	return true, most
}

// unwatchLocked lets the reaper end with the last connection that it can do
// anything for.
func (t *Tracker) unwatchLocked(c *Conn) {
	if c.unwatched {
		return
	}
	c.unwatched = true
	if c.pool.watched() { // else it counts as such anyhow
		c.logs(func(w *walLog) { w.blind++ })
	}
	if t.watched--; t.watched == 0 {
		t.reaper.restLocked()
		t.monitor.restLocked()
	}
}

// reused counts the leases of a connection that had one before.
func reused(accesses int64) uint64 { return uint64(max(accesses-1, 0)) }

// dropPoolLocked forgets a closed pool without connections.
func (t *Tracker) dropPoolLocked(p *Pool) {
	if !p.closed || p.open > 0 || t.pools[p.name] != p {
		return
	}
	delete(t.pools, p.name)
	if p.debug { // else nothing changes
		t.countListenersLocked()
	}
}

// countListenersLocked decides whether check-outs and check-ins are worth
// an event, and tells the pools whether there is anything to tell.
func (t *Tracker) countListenersLocked() {
	want := t.queue.subscribed()
	for _, p := range t.pools {
		want = want || p.debug
	}
	t.leaseTold.Store(want)
	t.leaseEvents.Store(want || t.leaseTimes.on.Load())
	if heard := t.leaseEvents.Load() || t.traceHook.Load() != nil; heard != t.heard {
		t.heard = heard
		for _, p := range t.pools {
			p.heard.Store(heard)
		}
		for _, c := range t.conns { // maybe of a pool that was closed before they came
			c.pool.heard.Store(heard)
		}
	}
}

// poke wakes the reaper early.
func (t *Tracker) poke() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reaper.wakeLocked()
}

// Close waits until the reaper is at rest and all orders and closings are done,
// for a tracker whose pools are closed. Connections that are still leased keep the
// reaper at work; Close then returns without waiting.
func (t *Tracker) Close() {
	t.mu.Lock()
	idle := len(t.conns) == 0
	t.mu.Unlock()
	if !idle {
		return
	}
	t.reaper.await()
	t.monitor.await()
	t.awaitClosings()
}

// Now returns the time since the tracker was made. machine says that it goes by the
// machine's monotonic clock, not by that of a synctest bubble.
func (t *Tracker) Now() (since time.Duration, machine bool) { return t.clock.now(), !t.bubble }

// now is the tracker's time, for reports.
func (t *Tracker) now() time.Duration { return t.clock.now() }
