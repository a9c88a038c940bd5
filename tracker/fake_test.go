package tracker

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// lab is a tracker in a synctest bubble, with everything it tells written down
// against the bubble's clock.
type lab struct {
	*Tracker
	t     *testing.T
	start time.Time

	mu     sync.Mutex
	events []Event
	fakes  []*fake
}

// inBubble runs f in a bubble with a tracker of its own. Connections that are
// still open at the end are closed; the bubble then ends only if the tracker
// left no goroutine behind.
func inBubble(t *testing.T, f func(l *lab)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := &lab{t: t, Tracker: New(Options{History: 4096}), start: time.Now()}
		l.reaper.patience, l.monitor.patience = 0, 0
		cancel := l.Subscribe(func(e Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, e)
		})
		defer func() {
			cancel()
			for _, f := range l.fakes {
				f.Close()
			}
			l.Close()
		}()
		f(l)
	})
}

// limits returns a policy with all limits off and a check each minute.
func limits(change func(p *Policy)) Policy {
	p := Policy{CheckInterval: time.Minute, MemoryInterval: 30 * time.Second}
	if change != nil {
		change(&p)
	}
	return p
}

// unreported is the default policy, but for what is told of those that rest: the
// reaper looks less often then.
func unreported() Policy {
	p := DefaultPolicy()
	p.ReportAfter = 0
	return p
}

// pool registers a pool that tells its own log nothing.
func (l *lab) pool(mode Mode, p Policy) *Pool {
	l.t.Helper()
	return newPool(l.t, l.Tracker, PoolConfig{Name: "db", Mode: mode, Policy: p, Logger: quiet})
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))

func newPool(t testing.TB, tr *Tracker, cfg PoolConfig) *Pool {
	t.Helper()
	cfg.SQL = SQLFull // the tests tell texts apart by their values
	p, err := tr.NewPool(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// open registers a connection and lets the reaper see it as it is. The lease
// begins after that, so that every run is the same.
func (l *lab) open(p *Pool, leased bool) *fake {
	f := newFake(l, p, false)
	l.fakes = append(l.fakes, f)
	synctest.Wait()
	if leased {
		f.Record()
		f.Conn.CheckOut("")
		f.Recorded()
		l.Tracker.mu.Lock()
		l.epoch++ // look at all again
		l.Tracker.mu.Unlock()
		l.poke()
		synctest.Wait()
	}
	return f
}

// sleep lets the bubble's time pass and everything in it come to rest.
func (l *lab) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// until sleeps until that much time has passed since the bubble began.
func (l *lab) until(d time.Duration) { l.sleep(time.Until(l.start.Add(d))) }

func (l *lab) since() time.Duration { return time.Since(l.start) }

// told returns the events of leaks and of policy so far, one a line, and
// forgets them: "6m0s reaped rows leak_after #1".
func (l *lab) told() []string {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for _, e := range l.events {
		line := fmt.Sprintf("%v %v", e.Time.Sub(l.start), e.Type)
		switch {
		case e.Leak != nil:
			line += fmt.Sprintf(" %v %s #%d", e.Leak.Kind, e.Leak.Reason, e.Leak.ID)
		case e.Type == EventRecycled || e.Type == EventRefreshed || e.Type == EventKept:
			line += " " + string(e.Reason)
		default:
			continue
		}
		lines = append(lines, line)
	}
	l.events = nil
	return lines
}

// expect compares what was told since the last call.
func (l *lab) expect(want ...string) {
	l.t.Helper()
	if got := l.told(); !slices.Equal(got, want) {
		l.t.Errorf("at %v told\n\t%s\nwant\n\t%s", l.since(), strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// running reports whether the tracker has a reaper.
func (l *lab) running() bool {
	l.Tracker.mu.Lock()
	defer l.Tracker.mu.Unlock()
	return l.watched > 0 && (l.reaper.armed || l.reaper.running)
}

// carried is an order as the reaper gave it.
type carried struct {
	at  time.Duration
	o   Order
	out Outcome
}

func (c carried) String() string {
	s := fmt.Sprintf("%v %s %s", c.at, scopeNames[c.o.Scope], c.o.Reason)
	for _, l := range c.o.Leaks {
		s += fmt.Sprintf(" #%d", l.ID)
	}
	return s + " " + outcomeNames[c.out]
}

var (
	scopeNames   = [...]string{"rows", "transaction", "lease", "give up", "release", "proven"}
	outcomeNames = [...]string{"void", "done", "condemned", "refreshed"}
)

// owned is a connection as its owner uses it: what it writes comes between
// Record and Recorded.
type owned struct{ *Conn }

func (c owned) CheckOut(exempt string) {
	c.Record()
	c.Conn.CheckOut(exempt)
	c.Recorded()
}

func (c owned) CheckIn() Reason {
	c.Record()
	defer c.Recorded()
	return c.Conn.CheckIn()
}

func (c owned) OpenRows(r *Resource, query, exempt string) {
	c.Record()
	c.Conn.OpenRows(r, query, exempt)
	c.Recorded()
}

func (c owned) CloseResource(r *Resource) {
	c.Record()
	c.Conn.CloseResource(r)
	c.Recorded()
}

// fake is a driver's connection without SQLite: a gate over the activity word,
// and the resources a lease may hold. Carry does what a driver does, unless the
// test says otherwise.
type fake struct {
	asleep atomic.Bool // see waits
	owned
	l *lab

	mu     sync.Mutex             // the gate, for a moment at a time
	inside bool                   // an operation is in SQLite
	shut   bool                   // somebody else holds the gate
	answer func(o *Order) Outcome // instead of what a driver does
	tx     uint64
	rows   []*Resource
	stmts  []*Resource
	order  *Order // what the operation inside carries out on its way back
	dead   bool
	missed bool // a program can miss it: given up in the pool it is refreshed, not closed
	state  TxState
	bytes  int64 // what SQLite would hold
	orders []carried
	nudges []time.Duration
}

func newFake(l *lab, p *Pool, leased bool) *fake {
	f := &fake{l: l}
	f.mu.Lock() // the reaper may come before Open is back
	defer f.mu.Unlock()
	f.Conn = p.Open(f, leased, "")
	return f
}

// live sets what share of max_lifetime is taken off.
func (f *fake) live(jitter float64) {
	f.Conn.mu.Lock()
	defer f.Conn.mu.Unlock()
	f.jitter = jitter
}

func (f *fake) enter() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inside = true
	f.Word().Or(gate.Busy)
}

// leave ends an operation, and carries an order out that came meanwhile.
func (f *fake) leave() {
	f.mu.Lock()
	o := f.order
	f.order = nil
	if o != nil {
		f.rollback()
	}
	f.inside = false
	word := f.Word()
	for {
		w := word.Load()
		if word.CompareAndSwap(w, w&^gate.Busy+gate.Flags+1) {
			break
		}
	}
	f.mu.Unlock()
	if o != nil {
		f.Settle(o, Done)
	}
}

// The methods that come between Record and Recorded.

func (f *fake) CheckOut(exempt string) {
	f.Record()
	f.Conn.CheckOut(exempt)
	f.Recorded()
}

func (f *fake) CheckIn() Reason {
	f.Record()
	defer f.Recorded()
	return f.Conn.CheckIn()
}

func (f *fake) OpenRows(r *Resource, query, exempt string) {
	f.Record()
	f.Conn.OpenRows(r, query, exempt)
	f.Recorded()
}

func (f *fake) CloseResource(r *Resource) {
	f.Record()
	f.Conn.CloseResource(r)
	f.Recorded()
}

// do is one short operation.
func (f *fake) do(what func()) {
	f.enter()
	if what != nil {
		what()
	}
	f.leave()
}

func (f *fake) touch()                  { f.do(nil) }
func (f *fake) out(exempt string)       { f.do(func() { f.CheckOut(exempt) }) }
func (f *fake) in() (r Reason)          { f.do(func() { r = f.CheckIn() }); return r }
func (f *fake) begin(query, ex string)  { f.do(func() { f.tx = f.BeginTx(query, ex) }) }
func (f *fake) commit()                 { f.do(func() { f.tx = 0; f.EndTx() }) }
func (f *fake) next(r *Resource)        { f.do(r.Use) }
func (f *fake) closed(r *Resource) bool { return r.ID() == 0 }

func (f *fake) query(text, exempt string) *Resource {
	r := &Resource{}
	f.do(func() {
		f.OpenRows(r, text, exempt)
		f.rows = append(f.rows, r)
	})
	return r
}

func (f *fake) prepare(text string) *Resource {
	r := &Resource{}
	f.do(func() {
		f.OpenStatement(r, text, "")
		f.stmts = append(f.stmts, r)
	})
	return r
}

func (f *fake) finish(r *Resource) { f.do(func() { f.CloseResource(r) }) }

// Look is the reaper's way to the rows.
func (f *fake) Look(look func()) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inside || f.shut {
		return false
	}
	look()
	return true
}

func (f *fake) Memory() (int64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes, !f.inside && !f.shut
}

func (f *fake) TxState() TxState {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inside || f.shut {
		return TxUnknown
	}
	return f.state
}

func (f *fake) Nudge() bool {
	f.mu.Lock()
	f.nudges = append(f.nudges, f.l.since())
	condemned := f.order != nil
	f.mu.Unlock()
	return condemned
}

// carry has the test say what becomes of orders.
func (f *fake) carry(answer func(o *Order) Outcome) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

// shutGate says whether somebody else holds the gate.
func (f *fake) shutGate(shut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut = shut
}

func (f *fake) Carry(o *Order) (out Outcome) {
	f.mu.Lock()
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		out = answer(o)
	} else {
		out = f.drive(o)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.orders = append(f.orders, carried{f.l.since(), *o, out})
	return out
}

// drive does what a driver does.
func (f *fake) drive(o *Order) Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := f.Word().Load()
	switch {
	case f.inside && o.Scope == ScopeTransaction && o.Absolute:
		f.order = o
		return Condemned
	case f.inside || f.shut || f.dead || !o.Absolute && o.Word != w&^gate.Flags:
		return Void
	}
	switch o.Scope {
	case ScopeRows:
		for _, r := range f.rows {
			if r.ID() == o.Resource && o.Rested(r) {
				f.CloseResource(r)
				return Done
			}
		}
		return Void
	case ScopeTransaction:
		if f.tx != o.Resource {
			return Void
		}
		f.rollback()
	case ScopeLease:
		f.rollback()
		f.dead = true
		f.ForceClosed()
	case ScopeGiveUp:
		if f.missed || !f.idle() {
			f.Renewed(o.Reason)
			return Refreshed
		}
		f.dead = true
		f.Recycled(o.Reason)
		f.ForceClosed()
	}
	return Done
}

// idle reports whether the connection sits in the pool without a transaction.
func (f *fake) idle() bool {
	f.Conn.lock()
	defer f.Conn.unlock()
	return !f.leased && f.Conn.tx.id == 0
}

// keep says whether a program can miss the connection, so that it is refreshed
// where it is when it is given up. As it begins, nobody can.
func (f *fake) keep(missed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missed = missed
}

// rollback closes rows and the transaction.
func (f *fake) rollback() {
	for _, r := range f.rows {
		f.CloseResource(r)
	}
	f.rows = nil
	if f.tx != 0 {
		f.tx = 0
		f.EndTx()
	}
}

// given returns the orders so far and forgets them.
func (f *fake) given() []carried {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	orders := f.orders
	f.orders = nil
	return orders
}

// expectOrders compares the orders given since the last call.
func (f *fake) expectOrders(want ...string) {
	f.l.t.Helper()
	var got []string
	for _, c := range f.given() {
		got = append(got, c.String())
	}
	if !slices.Equal(got, want) {
		f.l.t.Errorf("at %v ordered\n\t%s\nwant\n\t%s", f.l.since(), strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// still is a Control for tests that have no reaper: it refuses everything.
type still struct{}

func (still) Look(func()) bool      { return false }
func (still) Carry(*Order) Outcome  { return Void }
func (still) Nudge() bool           { return false }
func (still) Memory() (int64, bool) { return 0, false }
func (still) TxState() TxState      { return TxUnknown }

// noReaper verifies that no reaper's goroutine is left in the process. The last
// one has said that it ends before it is gone.
func noReaper(t *testing.T) {
	t.Helper()
	buf := make([]byte, 1<<20)
	for range 1000 {
		if !strings.Contains(string(buf[:runtime.Stack(buf, true)]), ".(*pacer).fire(") {
			return
		}
		runtime.Gosched()
	}
	t.Error("a reaper is left")
}

// checkBalance verifies that each leak found has at most one outcome and that
// those without one are open.
func checkBalance(t *testing.T, s Stats, open int) {
	t.Helper()
	if s.LeakedDetected != s.Recovered+s.Reaped+uint64(open) {
		t.Errorf("%d leaks found, but %d recovered, %d reaped and %d are open", s.LeakedDetected, s.Recovered, s.Reaped, open)
	}
}

// box is a value that a test changes while others read it.
type box[T any] struct {
	mu sync.Mutex
	v  T
}

func (b *box[T]) set(v T) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.v = v
}

// swap returns what was there.
func (b *box[T]) swap(v T) T {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, b.v = b.v, v
	return v
}

func (b *box[T]) get() T {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.v
}

// inChild runs the test in a process of its own, for what may end the process:
// it returns true in the child, and in the parent fails the test if the child
// did.
func inChild(t *testing.T) bool {
	t.Helper()
	if os.Getenv("TRACKER_TEST_CHILD") == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=20s")
	cmd.Env = append(os.Environ(), "TRACKER_TEST_CHILD="+t.Name())
	if out, err := cmd.CombinedOutput(); err != nil {
		if len(out) > 2000 {
			out = out[:2000]
		}
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// waits says whether the operation in flight sleeps for a lock.
func (f *fake) waits(on bool) { f.asleep.Store(on) }

// AwaitsLock is that of LockControl.
func (f *fake) AwaitsLock() bool { return f.asleep.Load() }
