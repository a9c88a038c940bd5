package capi

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// LongWaitAfter is how long a connection waits for a lock until that is told.
const LongWaitAfter = 100 * time.Millisecond

// LongWait is one wait of a connection for a lock that took LongWaitAfter or longer.
type LongWait struct {
	// Guarded by longWaits.mu.
	p    unsafe.Pointer // the connection's capi_wait, nil once it is another wait's or freed
	took int32          // ms, at that time
}

// Took returns how long the wait has taken, or has taken so far: it is brought up to
// date at each look that the connection takes, at least ten times a second. It may be
// called from any goroutine at any time.
func (l *LongWait) Took() time.Duration {
	longWaits.mu.Lock()
	defer longWaits.mu.Unlock()
	return time.Duration(l.tookLocked()) * time.Millisecond
}

func (l *LongWait) tookLocked() int32 {
	if l.p == nil {
		return l.took
	}
	return atomic.LoadInt32(&(*[4]int32)(l.p)[3])
}

// listener is who is told of the long waits of a connection.
type listener struct {
	tell func(*LongWait)
	last *LongWait
}

// longWaits has the listeners by the connection's capi_wait: C can hold no pointer of
// Go's. What has no listener is told to nobody.
var longWaits struct {
	mu sync.Mutex // a leaf
	of map[unsafe.Pointer]*listener
}

// Tell has tell called for each wait of Busy that has taken LongWaitAfter: once, while it
// goes on, on the goroutine of the operation, inside SQLite with the connection's mutex
// taken. It must not panic, nor call SQLite for this connection.
func (w Wait) Tell(tell func(*LongWait)) {
	if w.p == nil {
		return
	}
	longWaits.mu.Lock()
	defer longWaits.mu.Unlock()
	if longWaits.of == nil {
		longWaits.of = make(map[unsafe.Pointer]*listener)
	}
	longWaits.of[w.p] = &listener{tell: tell}
}

// Quiet ends Tell. The last LongWait keeps what it took.
func (w Wait) Quiet() {
	if w.p == nil {
		return
	}
	longWaits.mu.Lock()
	defer longWaits.mu.Unlock()
	if l := longWaits.of[w.p]; l != nil {
		l.over()
		delete(longWaits.of, w.p)
	}
}

// over ends the last wait. longWaits.mu is held.
func (l *listener) over() {
	if l.last != nil {
		l.last.took = l.last.tookLocked()
		l.last.p, l.last = nil, nil
	}
}

// longWait is called by the busy handler.
func longWait(p unsafe.Pointer) {
	longWaits.mu.Lock()
	l := longWaits.of[p]
	if l == nil {
		longWaits.mu.Unlock()
		return
	}
	l.over()
	l.last = &LongWait{p: p}
	now := l.last
	longWaits.mu.Unlock()
	l.tell(now)
}
