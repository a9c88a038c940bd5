package tracker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// AttachOptions are for Pool.Attach. The zero value only counts.
type AttachOptions struct {
	// StarvedAfter is how long a pool has to be full, with somebody waiting and
	// nobody served, to be told of (see Starved): 1 ms at the least, 0 never.
	StarvedAfter time.Duration
	// Lend bounds the places lent for those that are lost, beside the pool's own
	// limit, which bounds them too: 0 none, below 0 as many as the limit.
	Lend int
	// LendSingle lends to a pool with a limit of 1 as well, which many programs use
	// as a lock.
	LendSingle bool
}

// Attach makes the pool's sql.DB known: from then on Stats, Figures and reports say how
// many places it has, how many are taken and how often somebody waited; a pool that
// starves is told of (EventStarved); and while a lease whose SQLite handle was closed is
// out, the limit of db is one higher (EventLent), so that a leak does not stop the
// service. database/sql tells a driver none of this.
//
// It looks at db at least twice in StarvedAfter while the pool has open connections and
// a limit, on a goroutine that exists during the look only. In mode Basic, and for a
// pool that is used inside a synctest bubble that is not the tracker's own, there is no
// look: it only counts.
//
// The program's own sql.DB.SetMaxOpenConns wins: at the next look it is the limit that
// places are lent on top of. One in the microseconds in which the limit is being
// changed is overwritten, and one that equals limit and lent places together is taken
// for no change. When a holder lets go while others wait, database/sql may hand its
// place on before it is taken back: one handle more than the limit may then be open
// until the next one comes back to the pool.
//
// The limit is the program's own again when detach returns; calling it twice is
// allowed. sql.DB.Close detaches as well. db is held weakly. An error says why db cannot
// be attached: it is nil, an option cannot be used, the pool is closed, or has a sql.DB
// attached already. Stats, Figures and WriteTo ask db from then on, so they must not be
// called by a driver's hook.
func (p *Pool) Attach(db *sql.DB, o AttachOptions) (detach func(), err error) {
	if db == nil {
		return nil, errors.New("tracker: Attach: db is nil")
	}
	w := weak.Make(db)
	return p.attach(func() database {
		if db := w.Value(); db != nil {
			return sqlDB{db}
		}
		return nil
	}, o)
}

// ErrAttached is the error of Pool.Attach for a pool that has a sql.DB attached.
var ErrAttached = errors.New("tracker: Attach: the pool has a sql.DB attached already: detach that first")

func (p *Pool) attach(db func() database, o AttachOptions) (detach func(), err error) {
	if o.StarvedAfter != 0 && o.StarvedAfter < time.Millisecond {
		return nil, fmt.Errorf("tracker: Attach: StarvedAfter is %v: want 1ms or more, or 0 for never", o.StarvedAfter)
	}
	t := p.tracker
	a := &attachment{pool: p, db: db, o: o, foreign: !t.bubble && gate.InBubble()}
	a.profile = profileGoroutines
	a.pacer = pacer{t: t, step: a.look, patience: patience, needed: a.neededLocked}
	a.base = db().Stats().MaxOpenConnections
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case p.closed:
		return nil, errors.New("tracker: Attach: the pool is closed")
	case p.attached != nil:
		return nil, ErrAttached
	}
	p.attached = a
	a.rouseLocked()
	return a.detach, nil
}

// database is what is asked of a sql.DB.
type database interface {
	Stats() sql.DBStats
	SetMaxOpenConns(n int)
	serve(ctx context.Context) error
}

type sqlDB struct{ *sql.DB }

// serve takes a place and gives it back: that wakes who waits for one, which a higher
// limit does not.
func (db sqlDB) serve(ctx context.Context) error {
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// attachment is a pool's sql.DB.
type attachment struct {
	pool    *Pool
	db      func() database // nil once it was collected
	o       AttachOptions
	foreign bool // made inside a bubble that is not the tracker's: it only counts

	pacer

	// mu is held while the limit is read or set, so that what was lent is known to
	// whoever reads it. Order: mu, then database/sql's locks and Tracker.mu; it is
	// never taken under one of those.
	mu    sync.Mutex
	base  int // the program's own limit, 0: none
	total uint64
	// lent is written under mu. Read without, it says whether there is something to
	// take back.
	lent atomic.Int64

	starvation

	missing bool        // some place is to be lent for; of one look at a time, as is owed
	owed    int         // places lent that nobody was woken for
	serving atomic.Bool // somebody is being woken
}

// neededLocked reports whether there is anything to look at.
func (a *attachment) neededLocked() bool {
	p := a.pool
	return p.attached == a && p.watched() && !a.foreign && !p.foreign.Load() && (p.open > 0 || a.lent.Load() > 0)
}

// rouseLocked has it look at once, or as soon as it may.
func (a *attachment) rouseLocked() {
	switch {
	case a == nil:
	case !a.atRestLocked():
		a.wakeLocked()
	case a.neededLocked() && a.mayStart():
		a.armLocked(a.patience)
	}
}

// startLocked follows a new connection of the pool.
func (a *attachment) startLocked() {
	if a != nil && a.atRestLocked() && a.neededLocked() && a.mayStart() {
		a.armLocked(a.patience)
	}
}

// goneLocked takes it off its pool and reports whether it was there.
func (a *attachment) goneLocked() bool {
	if a == nil || a.pool.attached != a {
		return false
	}
	a.pool.attached = nil
	if a.armed {
		a.armed = false
		a.timer.Stop()
	}
	return true
}

// detach ends it and gives the program its limit back.
func (a *attachment) detach() {
	t := a.pool.tracker
	t.mu.Lock()
	gone := a.goneLocked()
	t.mu.Unlock()
	a.await()
	if !gone {
		return
	}
	if db := a.db(); db != nil {
		a.takeBack(db)
	}
}

func (a *attachment) takeBack(db database) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := a.lent.Load(); n > 0 {
		if db.Stats().MaxOpenConnections == a.base+int(n) { // else the program has set its own
			db.SetMaxOpenConns(a.base)
		}
		a.lent.Store(0)
	}
}

// places reads what database/sql says; false once db was collected.
func (a *attachment) places() (n Places, ok bool) {
	db := a.db()
	if db == nil {
		return n, false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s, lent := db.Stats(), int(a.lent.Load())
	n = Places{
		Pool: a.pool.name, Max: a.base, InUse: s.InUse, Idle: s.Idle, Lent: lent, LentTotal: a.total,
		Waits: s.WaitCount, WaitDuration: seconds(s.WaitDuration),
		StarvedTotal: a.times, Starved: a.present,
	}
	if s.MaxOpenConnections != a.base+lent { // the program's own word, not seen yet
		n.Max, n.Lent = s.MaxOpenConnections, 0
	}
	return n, true
}

const (
	// lookForLimit is how often it looks whether the program has set a limit.
	lookForLimit = 5 * time.Second
	// lookWhileMissing is how often it does while places are lent or could be.
	lookWhileMissing = time.Second
	// serveFor is how long it waits for a place that was there a moment ago: if
	// somebody took it, that one is served.
	serveFor = 100 * time.Millisecond
)

// look is one step.
func (a *attachment) look() (wait time.Duration) {
	db := a.db()
	if db == nil {
		return rests
	}
	s, raised := a.lend(db)
	a.serve(db, raised)
	wait = a.watch(s)
	if a.missing && (wait == rests || wait > lookWhileMissing) {
		wait = lookWhileMissing
	}
	return wait
}

// lend sets the limit to what it should be, and returns what database/sql said, with
// the limit as it is now, and by how much that was raised.
func (a *attachment) lend(db database) (s sql.DBStats, raised int) {
	a.mu.Lock()
	s = db.Stats()
	lent := int(a.lent.Load())
	on := lent // of these the limit has so many on top
	if s.MaxOpenConnections != a.base+lent {
		a.base, on = s.MaxOpenConnections, 0 // the program's own word
	}
	want := a.vacant()
	if want != on {
		db.SetMaxOpenConns(a.base + want)
		s.MaxOpenConnections = a.base + want
	}
	a.total += uint64(max(want-lent, 0))
	a.lent.Store(int64(want))
	a.mu.Unlock()
	if want != lent {
		a.tellLent(want > lent)
	}
	return s, want - on
}

func (a *attachment) tellLent(more bool) {
	t := a.pool.tracker
	n, ok := a.places()
	if !ok {
		return
	}
	t.mu.Lock()
	for _, c := range t.conns {
		c.lock()
		if c.pool == a.pool && c.lostLocked() {
			n.Lost++
		}
		c.unlock()
	}
	t.mu.Unlock()
	t.emit(Event{Type: EventLent, Places: &n, pool: a.pool, news: more})
}

// vacant returns how many places are to be lent on top of base. mu is held.
func (a *attachment) vacant() int {
	p := a.pool
	most := a.base
	if a.o.Lend >= 0 {
		most = min(most, a.o.Lend)
	}
	if a.base == 1 && !a.o.LendSingle {
		most = 0
	}
	t := p.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	a.missing = p.vacant > 0
	return min(p.vacant, most)
}

// serve has those served who waited before the limit was raised.
func (a *attachment) serve(db database, raised int) {
	if a.owed = max(a.owed+raised, 0); a.owed == 0 {
		return
	}
	// Not what was read before the limit was raised: who has begun to wait since then
	// would be overlooked. Who comes now finds room.
	s := db.Stats()
	room := s.MaxOpenConnections - s.OpenConnections
	if s.Idle > 0 || room <= 0 {
		a.owed = 0 // nobody waits, or the places are taken
	}
	n := min(a.owed, room)
	if n == 0 || !a.serving.CompareAndSwap(false, true) {
		return
	}
	a.owed -= n
	t := a.pool.tracker
	t.Go(func() { // opening may wait for a lock, and runs the program's ConnectHook
		defer func() {
			a.serving.Store(false)
			t.mu.Lock()
			a.rouseLocked() // more may have been lent meanwhile
			t.mu.Unlock()
		}()
		for range n {
			t.queue.contain(func() {
				ctx, cancel := context.WithTimeout(context.Background(), serveFor)
				defer cancel()
				db.serve(ctx) // if nothing can be opened, database/sql tells those who wait
			})
		}
	})
}
