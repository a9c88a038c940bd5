package tracker

import (
	"context"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// queueSize bounds the events that wait for slow subscribers.
const queueSize = 1024

var logContext = context.Background()

// queue hands events to subscribers and loggers on a goroutine that exists
// only while there are events. Nobody's code runs on the goroutine that emits.
type queue struct {
	tracker *Tracker

	mu       sync.Mutex // guards the rest; a leaf: nothing is locked under it
	waiting  []Event
	running  bool
	present  Event         // being told
	told     []*subscriber // who is still to be told of it
	subs     []*subscriber
	dropped  uint64 // events lost to a full queue
	panicked uint64 // callbacks that panicked
	// A panic is logged: now, and until when no other one is, on the tracker's clock.
	logging  bool
	quietFor time.Duration
}

type subscriber struct {
	f      func(Event)
	leases bool        // wants check-outs and check-ins
	gone   atomic.Bool // cancelled: what waits is not for it any more
}

// Subscribe calls f for every event, in order, on the tracker's dispatcher:
// one goroutine for all, outside every lock. f may call anything, sql.DB.Close
// included; while it runs, later events wait, and beyond 1024 of them events
// are dropped and counted. Of the connections that f itself opens, takes, gives back
// and closes nothing is told. A panic
// in f is contained and counted. cancel ends it; a call of f that is under way may
// still finish. It panics if f is nil.
func (t *Tracker) Subscribe(f func(Event)) (cancel func()) {
	if f == nil {
		panic("tracker: Subscribe: f is nil")
	}
	return t.subscribe(&subscriber{f: f, leases: true})
}

func (t *Tracker) subscribe(s *subscriber) (cancel func()) {
	q := &t.queue
	q.mu.Lock()
	q.subs = append(q.subs[:len(q.subs):len(q.subs)], s)
	q.mu.Unlock()
	t.mu.Lock()
	t.countListenersLocked()
	t.mu.Unlock()
	return func() {
		s.gone.Store(true)
		q.mu.Lock()
		for i, e := range q.subs {
			if e == s {
				q.subs = append(q.subs[:i:i], q.subs[i+1:]...)
				break
			}
		}
		q.mu.Unlock()
		t.mu.Lock()
		t.countListenersLocked()
		t.mu.Unlock()
	}
}

// OnLeak calls f once for each leak, when it is found: as a suspect or by
// proof. It runs as Subscribe's callbacks do, and panics if f is nil.
func (t *Tracker) OnLeak(f func(Leak)) (cancel func()) {
	if f == nil {
		panic("tracker: OnLeak: f is nil")
	}
	return t.SubscribeLifecycle(func(e Event) {
		if e.news {
			f(*e.Leak)
		}
	})
}

// subscribed reports whether somebody wants check-outs and check-ins.
func (q *queue) subscribed() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.ContainsFunc(q.subs, func(s *subscriber) bool { return s.leases })
}

// emit stamps an event and hands it on.
func (t *Tracker) emit(e Event) {
	if e.pool != nil {
		e.Pool = e.pool.name
	}
	q := &t.queue
	own := e.level() == slog.LevelDebug && q.tells()
	q.mu.Lock()
	defer q.mu.Unlock()
	e.Time = t.clock.at(t.clock.now()) // under the lock: in the order of the history
	if e.Type != EventCheckOut && e.Type != EventCheckIn {
		t.history.add(e)
	}
	if e.leak() {
		t.leaks.add(e)
	}
	if own || len(q.subs) == 0 && !e.logged() {
		return
	}
	if len(q.waiting) >= queueSize {
		q.dropped++
		return
	}
	q.waiting = append(q.waiting, e)
	// In a bubble that is not the tracker's own, the events wait for the next
	// one from outside.
	if !q.running && (t.bubble || !gate.InBubble()) {
		q.running = true
		go q.dispatch()
	}
}

// logged reports whether some logger may want the event.
func (e Event) logged() bool {
	return e.level() >= slog.LevelWarn || e.Type == EventChanged || e.pool.logger != nil
}

func (e Event) level() slog.Level {
	switch e.Type {
	case EventSuspect, EventProven, EventReaped, EventKept, EventBlocked, EventPressure, EventDegraded, EventStarved:
		return slog.LevelWarn
	case EventResting:
		if len(e.Waiters) > 0 && e.Leak.Exempt == "" {
			return slog.LevelWarn
		}
		return slog.LevelInfo
	case EventLent, EventLost:
		if e.news {
			return slog.LevelWarn
		}
		return slog.LevelInfo
	case EventRecovered:
		return slog.LevelInfo
	case EventChanged:
		if e.bad {
			return slog.LevelError
		}
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// dispatch delivers until nothing waits.
func (q *queue) dispatch() {
	over := false
	defer func() {
		if !over {
			go q.dispatch() // a callback ended the goroutine; the others go on
		}
	}()
	for {
		e, f := q.next()
		if f == nil {
			over = true
			return
		}
		q.contain(func() { f(e) })
	}
}

// next returns the next event and who is to be told of it, nil if nothing
// waits: then the dispatcher is over.
func (q *queue) next() (Event, func(Event)) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for {
		for len(q.told) > 0 {
			s := q.told[0]
			q.told = q.told[1:]
			if !s.gone.Load() {
				return q.present, s.f
			}
		}
		if len(q.waiting) == 0 {
			q.waiting, q.told, q.present = nil, nil, Event{}
			q.running = false
			return Event{}, nil
		}
		q.present, q.told = q.waiting[0], q.subs
		q.waiting[0] = Event{}
		q.waiting = q.waiting[1:]
		if q.present.logged() {
			return q.present, Event.log
		}
	}
}

// tells reports whether the caller runs below a callback or logger, on the
// dispatcher. A logger that writes into a guarded database takes leases itself: told
// of those it would never come to an end.
func (q *queue) tells() bool {
	q.mu.Lock()
	running := q.running
	q.mu.Unlock()
	if !running {
		return false
	}
	const contain = "github.com/sqlite-leakguard/sqlite-leakguard/tracker.(*queue).contain"
	s := callstack.Capture(nil)
	if s.Calls(contain) {
		return true
	}
	return s.Partial() && calls(contain)
}

// calls is Stack.Calls for a stack that is deeper than those are, and slow.
func calls(function string) bool {
	pcs := make([]uintptr, 1024)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if f.Function == function {
			return true
		}
		if !more {
			return false
		}
	}
}

// contain runs somebody else's code. A panic ends here, and is logged with its stack;
// runtime.Goexit cannot be stopped, but is counted as well.
func (q *queue) contain(f func()) {
	returned := false
	defer func() {
		if !returned {
			value := recover()
			q.mu.Lock()
			q.panicked++
			q.mu.Unlock()
			if value != nil {
				q.logPanic(value)
			}
		}
	}()
	f()
	returned = true
}

// history is a ring of the last events.
type history struct {
	mu     sync.Mutex
	events []Event // capacity is the bound
	next   int
}

func (h *history) add(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.events) < cap(h.events) {
		h.events = append(h.events, e)
		return
	}
	h.events[h.next] = e
	h.next = (h.next + 1) % len(h.events)
}

// History returns the last lifecycle events, oldest first: bounded by
// Options.History, without check-outs and check-ins.
func (t *Tracker) History() []Event {
	h := &t.history
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(append(make([]Event, 0, len(h.events)), h.events[h.next:]...), h.events[:h.next]...)
}

// SubscribeLifecycle is Subscribe for the events that History keeps: without
// check-outs and check-ins, so that leases cost no more than before. It panics
// if f is nil.
func (t *Tracker) SubscribeLifecycle(f func(Event)) (cancel func()) {
	if f == nil {
		panic("tracker: SubscribeLifecycle: f is nil")
	}
	return t.subscribe(&subscriber{f: func(e Event) {
		if e.Type != EventCheckOut && e.Type != EventCheckIn { // told for others
			f(e)
		}
	}})
}
