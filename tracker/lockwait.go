package tracker

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Long waits for locks, those that end well too. The driver's busy handler tells of one
// when it has taken 100 ms, and then it is looked who holds the lock: when the wait is
// over nobody may. Nobody tells that it is over. It is counted when its connection
// waits long again or is closed, and when somebody reads the counts and the operation
// is over; what it took the driver knows until then.

// LockWaitAfter is how long a wait for a lock takes to count.
const LockWaitAfter = 100 * time.Millisecond

// LockWait is a wait for a lock as the driver knows it.
type LockWait interface {
	// Took returns what the wait has taken, so far or in all. It waits for nothing and
	// may be called for as long as somebody likes.
	Took() time.Duration
}

// longWait is one that was told.
type longWait struct {
	conn  *Conn
	word  uint64 // the generation of its operation
	wait  LockWait
	at    *callstack.Stack // who waits
	query string           // as it may be told
	file  string           // the first of those in question
	by    lockHolder
}

// over reports whether the operation that waits has ended.
func (w *longWait) over() bool {
	word := w.conn.word.Load()
	return word&^gate.Flags != w.word || word&gate.Busy == 0
}

// longWaits are those that go on, and those of which nobody has seen yet that they are
// over: at most one for each connection.
type longWaits struct {
	mu  sync.Mutex // a leaf; it guards Pool.waits as well
	now map[*Conn]*longWait
	// Of all pools, those that are gone included.
	count uint64
	total time.Duration
}

// WaitsLong records that an operation has waited 100 ms for a lock and goes on to wait.
// The driver calls it once for each such wait, inside SQLite, and on the goroutine of
// the operation: it calls nobody else's code and waits for nothing of SQLite's.
func (c *Conn) WaitsLong(wait LockWait) {
	if c.control == nil {
		return // it is being opened
	}
	t := c.pool.tracker
	w := &longWait{conn: c, word: c.word.Load() &^ gate.Flags, wait: wait}
	if c.pool.stacks {
		w.at = callstack.CaptureAcross()
	}
	c.lock()
	query := c.query
	c.unlock()
	w.query = c.told(query)
	var files []openFile
	w.by, files = c.whoHolds(query)
	w.file = files[0].File.Path
	t.waits.mu.Lock()
	old := t.waits.now[c]
	if t.waits.now == nil {
		t.waits.now = make(map[*Conn]*longWait)
	}
	t.waits.now[c] = w
	t.waits.mu.Unlock()
	if old != nil {
		old.count()
	}
}

// waited counts the connection's last long wait, if nobody has.
func (c *Conn) waited() {
	t := c.pool.tracker
	t.waits.mu.Lock()
	w := t.waits.now[c]
	delete(t.waits.now, c)
	t.waits.mu.Unlock()
	if w != nil {
		w.count()
	}
}

// goingOn counts the long waits that are over and returns the others, the longest
// first.
func (t *Tracker) goingOn() (all []*longWait) {
	var over []*longWait
	t.waits.mu.Lock()
	for c, w := range t.waits.now {
		if w.over() {
			delete(t.waits.now, c)
			over = append(over, w)
		} else {
			all = append(all, w)
		}
	}
	t.waits.mu.Unlock()
	for _, w := range over {
		w.count()
	}
	slices.SortFunc(all, func(a, b *longWait) int { return cmp.Compare(b.wait.Took(), a.wait.Took()) })
	return all
}

// maxLockWaits bounds the pairs of sites that are counted apart in a pool, and those in
// a Stats. What comes after counts as other.
const maxLockWaits = 64

const otherWaits = "other"

// LockWaits counts the waits of 100 ms and more, by who waited and who held the lock.
type LockWaits struct {
	Pool string `json:"pool"`
	// WaiterSite is the call that waited, as "dir/file.go:line".
	WaiterSite string `json:"waiter_site"`
	// Holder is who held the lock when the wait had taken 100 ms: "transaction", "rows"
	// or "connection" of a guarded connection of this process, of which HolderSite is
	// the call that opened it; else "process 4711 (sqlite3)", of several the last, on
	// Linux where it can be seen, "another process", "this process, past the guard", or
	// "not known": nobody was found, or he had let go by then. Beyond 64 pairs in a
	// pool, both are "other".
	Holder     string `json:"holder"`
	HolderSite string `json:"holder_site,omitempty"`
	// Count is how often, Total how long in all and Longest at most, in seconds; Last
	// is when one was over, as far as that is known.
	Count   uint64    `json:"count"`
	Total   float64   `json:"total"`
	Longest float64   `json:"longest"`
	Last    time.Time `json:"last"`
	// Query is the last SQL text that waited and HolderQuery the last one that held the
	// lock, as the pool's SQLText tells them.
	Query       string `json:"query,omitempty"`
	HolderQuery string `json:"holder_query,omitempty"`
}

// waitKey is a pair.
type waitKey struct{ waiter, holder, site string }

// poolWaits counts the long waits of a pool. Guarded by longWaits.mu.
type poolWaits struct {
	pairs map[waitKey]*LockWaits
	count uint64
	total time.Duration
}

// count counts a wait that is over.
func (w *longWait) count() {
	p, t := w.conn.pool, w.conn.pool.tracker
	took, last := w.wait.Took(), t.clock.at(t.now())
	key := waitKey{Stack(w.at.PCs()).Site().String(), w.by.group(), w.by.site()}
	t.waits.mu.Lock()
	defer t.waits.mu.Unlock()
	t.waits.count++
	t.waits.total += took
	all := &p.waits
	all.count++
	all.total += took
	n := all.pairs[key]
	if n == nil && len(all.pairs) >= maxLockWaits {
		key = waitKey{waiter: otherWaits, holder: otherWaits}
		n = all.pairs[key]
	}
	if n == nil {
		if all.pairs == nil {
			all.pairs = make(map[waitKey]*LockWaits)
		}
		n = &LockWaits{Pool: p.name, WaiterSite: key.waiter, Holder: key.holder, HolderSite: key.site}
		all.pairs[key] = n
	}
	n.Count++
	n.Total += took.Seconds()
	n.Longest = max(n.Longest, took.Seconds())
	n.Last, n.Query, n.HolderQuery = last, w.query, w.by.query
	if key.holder != otherWaits {
		n.Holder = w.by.String()
	}
}

// countLockWaits fills in the long waits of a pool, or of all that are open. Tracker.mu is
// not held.
func (s *Stats) countLockWaits(t *Tracker, only *Pool) (going []*longWait) {
	going = t.goingOn()
	if only != nil {
		going = slices.DeleteFunc(going, func(w *longWait) bool { return w.conn.pool != only })
	}
	pools := []*Pool{only}
	if only == nil {
		pools = t.allPools()
	}
	t.waits.mu.Lock()
	count, total := t.waits.count, t.waits.total
	if only != nil {
		count, total = only.waits.count, only.waits.total
	}
	s.LockWaitCount, s.LockWaitSeconds = count, seconds(total)
	for _, p := range pools {
		for _, n := range p.waits.pairs {
			s.LockWaits = append(s.LockWaits, *n)
		}
	}
	t.waits.mu.Unlock()
	slices.SortFunc(s.LockWaits, func(a, b LockWaits) int {
		return cmp.Or(cmp.Compare(b.Total, a.Total), cmp.Compare(a.WaiterSite, b.WaiterSite), cmp.Compare(a.Holder, b.Holder))
	})
	s.LockWaits = s.LockWaits[:min(len(s.LockWaits), maxLockWaits)]
	return going
}

func (t *Tracker) allPools() []*Pool {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Pool, 0, len(t.pools))
	for _, p := range t.pools {
		all = append(all, p)
	}
	return all
}
