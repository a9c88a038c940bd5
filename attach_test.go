package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// attached opens a pool with a limit and attaches its sql.DB.
func attached(t *testing.T, places int, cfg Config, options ...AttachOption) (g *guarded, detach func()) {
	t.Helper()
	g = open(t, cfg)
	g.SetMaxOpenConns(places)
	detach, err := Attach(g.DB, options...)
	if err != nil {
		t.Fatal(err)
	}
	return g, detach
}

// limitIs compares the limit of the sql.DB, and what Stats says of the places.
func (g *guarded) limitIs(t testing.TB, limit, own, lost int) {
	t.Helper()
	synctest.Wait()
	if got := g.DB.Stats().MaxOpenConnections; got != limit {
		t.Errorf("the limit is %d, want %d", got, limit)
	}
	s := g.connector.Stats()
	n := s.Places[0]
	if s.MaxConnections != own || n.Max != own || n.Lent != limit-own || n.Lost != lost || s.Lost != lost {
		t.Errorf("max_connections %d, lost %d, %+v; want %d and %d", s.MaxConnections, s.Lost, n, own, lost)
	}
}

// handles counts the SQLite handles that are open.
func (g *guarded) handles() (n int) {
	for _, d := range g.connector.Stats().ActiveConnectionDetails {
		if !d.Reaped {
			n++
		}
	}
	return n
}

// waiter waits for a place in the background and gives it back.
func (g *guarded) waiter(t *testing.T) *atomic.Bool {
	served := new(atomic.Bool)
	go func() {
		if err := try(g, "SELECT 1"); err != nil {
			t.Error(err)
		}
		served.Store(true)
	}()
	synctest.Wait()
	return served
}

// TestAttachLends: both places of a pool are leaked. Who waits is served when the
// guard undoes them, and the limit is the old one again when their holders let go.
func TestAttachLends(t *testing.T) {
	bubble(t, func(t *testing.T) {
		// As in any pool, who opens a connection while another one closes has to wait
		// for its lock: the waiter is served when the first of the two is closed.
		g, _ := attached(t, 2, Config{DSN: fileDSN(t, "_busy_timeout=5000"), Policy: leakAfter(time.Minute)})
		run(t, g, createT)
		a, b := g.begin(t), g.begin(t)
		run(t, a, "INSERT INTO t VALUES(1)")
		served := g.waiter(t)
		g.limitIs(t, 2, 2, 0)
		if served.Load() {
			t.Fatal("a third lease in a pool of 2")
		}
		time.Sleep(5 * time.Minute)
		g.limitIs(t, 4, 2, 2)
		if !served.Load() {
			t.Fatal("nobody was served")
		}
		if n := g.handles(); n > 2 {
			t.Errorf("%d handles are open, want 2 at most", n)
		}
		if n := g.connector.Stats().Places[0]; n.LentTotal != 2 || n.Waits == 0 || n.WaitDuration == 0 {
			t.Errorf("%+v", n)
		}
		if err := a.Commit(); !errors.Is(err, ErrReaped) {
			t.Errorf("Commit: %v", err)
		}
		g.limitIs(t, 3, 2, 1)
		b.Rollback()
		g.limitIs(t, 2, 2, 0)
		if n := g.DB.Stats(); n.Idle > 2 || n.InUse != 0 || n.OpenConnections > 2 {
			t.Errorf("%+v", n)
		}
		g.begin(t)
		g.begin(t)
		if served = g.waiter(t); served.Load() {
			t.Error("the limit is not what it was")
		}
	})
}

// TestAttachTells: each change of what is lent is an event, at warn when more is.
func TestAttachTells(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, _ := attached(t, 2, Config{Policy: leakAfter(time.Minute)})
		var told []string
		defer g.connector.tracker.Subscribe(func(e tracker.Event) {
			if e.Type == tracker.EventLent {
				told = append(told, fmt.Sprint(e.Places.Max, "+", e.Places.Lent))
			}
		})()
		tx := g.begin(t)
		time.Sleep(5 * time.Minute)
		tx.Rollback()
		synctest.Wait()
		if got := strings.Join(told, " "); got != "2+1 2+0" {
			t.Error(got)
		}
	})
}

// TestAttachLimits: what is lent, and to whom not.
func TestAttachLimits(t *testing.T) {
	for _, c := range []struct {
		name    string
		places  int
		dsn     string
		raw     bool
		mode    tracker.Mode
		options []AttachOption
		want    int
	}{
		{name: "all of 3", places: 3, want: 6},
		{name: "one at most", places: 3, options: []AttachOption{LendPlaces(1)}, want: 4},
		{name: "below 0", places: 3, options: []AttachOption{LendPlaces(-1)}, want: 6},
		{name: "none", places: 3, options: []AttachOption{LendPlaces(0)}, want: 3},
		{name: "a limit of 1", places: 1, want: 1},
		{name: "a limit of 1, by an option", places: 1, options: []AttachOption{LendTheOnlyPlace()}, want: 2},
		{name: "no limit", places: 0, want: 0},
		{name: "in memory", places: 2, dsn: "file:lends?mode=memory", want: 2},
		{name: "temporary", places: 2, dsn: "file:?_busy_timeout=0", want: 2},
		{name: "exclusive", places: 2, dsn: "_locking_mode=EXCLUSIVE", want: 2},
		{name: "raw", places: 2, raw: true, want: 2},
		{name: "observe", places: 2, mode: tracker.Observe, want: 2},
		{name: "basic", places: 2, mode: tracker.Basic, want: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				if strings.HasPrefix(c.dsn, "_") {
					c.dsn = fileDSN(t, c.dsn)
				}
				g, _ := attached(t, c.places, Config{DSN: c.dsn, Mode: c.mode, Policy: leakAfter(time.Minute)}, c.options...)
				for range max(c.places, 1) {
					conn := g.conn(t)
					if c.raw {
						conn.Raw(func(dc any) error { SQLiteConn(dc); return nil })
					}
					run(t, conn, "BEGIN")
				}
				time.Sleep(10 * time.Minute)
				if got := g.DB.Stats().MaxOpenConnections; got != c.want {
					t.Errorf("the limit is %d, want %d: %+v", got, c.want, g.connector.Stats().Places)
				}
			})
		})
	}
}

// TestAttachOwnLimit: what the program sets meanwhile is what is lent on top of, and
// what remains.
func TestAttachOwnLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, _ := attached(t, 2, Config{Policy: leakAfter(time.Minute)}, StarvedAfter(0))
		tx := g.begin(t)
		time.Sleep(5 * time.Minute)
		g.limitIs(t, 3, 2, 1)
		set := func(n, limit, own int) {
			t.Helper()
			g.SetMaxOpenConns(n)
			if s := g.connector.Stats(); s.MaxConnections != own { // at once
				t.Errorf("max_connections %d, want %d", s.MaxConnections, own)
			}
			time.Sleep(time.Minute)
			g.limitIs(t, limit, own, 1)
		}
		set(5, 6, 5)
		set(1, 1, 1) // a lock
		set(0, 0, 0) // none
		set(4, 5, 4)
		set(2, 3, 2)
		g.SetMaxOpenConns(7)
		tx.Rollback()
		g.limitIs(t, 7, 7, 0)
	})
}

// TestAttachDetach: detach gives the program its limit back, at once and for good.
func TestAttachDetach(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, detach := attached(t, 2, Config{Policy: leakAfter(time.Minute)})
		tx := g.begin(t)
		time.Sleep(5 * time.Minute)
		g.limitIs(t, 3, 2, 1)
		if _, err := Attach(g.DB); !errors.Is(err, tracker.ErrAttached) {
			t.Errorf("a second Attach: %v", err)
		}
		detach()
		if got := g.DB.Stats().MaxOpenConnections; got != 2 {
			t.Errorf("the limit is %d, want 2", got)
		}
		if s := g.connector.Stats(); s.MaxConnections != 0 || s.Places != nil || s.Lost != 1 {
			t.Errorf("%+v", s)
		}
		detach()
		again, err := Attach(g.DB)
		if err != nil {
			t.Fatal(err)
		}
		detach() // not the new one
		time.Sleep(time.Second)
		g.limitIs(t, 3, 2, 1)
		g.SetMaxOpenConns(9)
		again()
		tx.Rollback()
		time.Sleep(time.Minute)
		if got := g.DB.Stats().MaxOpenConnections; got != 9 {
			t.Errorf("the limit is %d, want 9", got)
		}
	})
}

// TestAttachErrors: an error names what is wrong, and what is allowed.
func TestAttachErrors(t *testing.T) {
	plainDB, err := sql.Open("sqlite3", ":memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer plainDB.Close()
	off := open(t, Config{Mode: tracker.Off})
	g := open(t, Config{})
	closed := open(t, Config{})
	closed.Close()
	hidden := sql.OpenDB(other{g.connector})
	defer hidden.Close()
	for _, c := range []struct {
		db      *sql.DB
		options []AttachOption
		want    string
	}{
		{nil, nil, "leakguard: Attach: db is nil"},
		{plainDB, nil, "leakguard: Attach: db was opened with the driver *sqlite3.SQLiteDriver, not with the guard's"},
		{hidden, nil, "leakguard: Attach: db was opened with the driver <nil>, not with the guard's"},
		{off.DB, nil, "leakguard: Attach: the pool's mode is off"},
		{closed.DB, nil, "leakguard: tracker: Attach: the pool is closed"},
		{g.DB, []AttachOption{nil}, "leakguard: Attach: an option is nil"},
		{g.DB, []AttachOption{StarvedAfter(time.Microsecond)}, "leakguard: tracker: Attach: StarvedAfter is 1µs: want 1ms or more, or 0 for never"},
		{g.DB, []AttachOption{StarvedAfter(-time.Second)}, "leakguard: tracker: Attach: StarvedAfter is -1s"},
	} {
		if _, err := Attach(c.db, c.options...); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	if _, err := g.connector.Attach(nil); err == nil {
		t.Error("Connector.Attach(nil)")
	}
	if _, err := (*Connector)(nil).Attach(g.DB); err != errNilConnector {
		t.Error(err)
	}
	if _, err := g.connector.Attach(hidden); err != nil {
		t.Error(err)
	}
}

// asked is a connector beside which another goroutine asks another connector for its
// driver.
type asked struct{ *Connector }

func (a asked) Driver() driver.Driver {
	d := a.Connector.Driver()
	done := make(chan struct{})
	go func() {
		defer close(done)
		askedBeside().Driver()
	}()
	<-done
	return d
}

var askedBeside = sync.OnceValue(func() *Connector {
	c, err := NewConnector(Config{Tracker: tracker.New(tracker.Options{})})
	if err != nil {
		panic(err)
	}
	return c
})

// TestAttachFindsItsPool: others ask other pools for their drivers at the same moment.
func TestAttachFindsItsPool(t *testing.T) {
	g := open(t, Config{})
	db := sql.OpenDB(asked{g.connector})
	defer db.Close()
	if c, _ := theProbe.connectorOf(db); c != g.connector {
		t.Error("another pool's connector")
	}
}

// other is a driver around the guard's that hides it.
type other struct{ *Connector }

func (other) Driver() driver.Driver { return nil }

// TestAttachInForeignBubble: where the tracker was made outside, a bubble ends, and
// nothing of it is touched from outside: figures are all there is.
func TestAttachInForeignBubble(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	synctest.Test(t, func(t *testing.T) {
		g, _ := attached(t, 1, Config{Tracker: tr, Policy: leakAfter(time.Millisecond)}, LendTheOnlyPlace(), StarvedAfter(time.Millisecond))
		tx := g.begin(t)
		ctx, cancel := context.WithTimeout(background, time.Hour)
		defer cancel()
		if _, err := g.ExecContext(ctx, "SELECT 1"); err == nil {
			t.Error("served")
		}
		if n := g.connector.Stats().Places[0]; n.Max != 1 || n.InUse != 1 || n.Waits != 1 || n.Lent != 0 || n.Starved != nil {
			t.Errorf("%+v", n)
		}
		tx.Rollback()
	})
	tr.Close()
}

// TestOpenDB: one call for all three.
func TestOpenDB(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	db, err := OpenDB(Config{DSN: fileDSN(t), Tracker: tr})
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(3)
	if s := tr.Stats(); s.MaxConnections != 3 {
		t.Errorf("%+v", s.Places)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if s := tr.Stats(); s.Places != nil {
		t.Errorf("after Close: %+v", s.Places)
	}
	if db, err = OpenDB(Config{Mode: tracker.Off}); err != nil || db.Close() != nil {
		t.Error(err)
	}
	if _, err = OpenDB(Config{Tracker: tr}, StarvedAfter(1)); err == nil {
		t.Error("a bad option")
	}
	if _, err = OpenDB(Config{Mode: 99}); err == nil {
		t.Error("a bad mode")
	}
}

// starved is what a pool that starves told first.
func starved(t *testing.T, g *guarded) func() *tracker.Starved {
	told := make(chan *tracker.Starved, 16)
	t.Cleanup(g.connector.tracker.Subscribe(func(e tracker.Event) {
		if e.Type == tracker.EventStarved {
			told <- e.Starved
		}
	}))
	return func() *tracker.Starved {
		t.Helper()
		select {
		case s := <-told:
			return s
		case <-time.After(10 * time.Second):
			t.Fatalf("nothing is told: %+v", g.connector.Stats().Places)
			return nil
		}
	}
}

// warm opens n connections, so that leases begin without a Connect, whose call stack
// has the test's own connector in it.
func (g *guarded) warm(t *testing.T, n int) {
	t.Helper()
	var all []*sql.Conn
	for range n {
		c, err := g.Conn(background)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		c.Close()
	}
}

// doings says what each holder of a place does, and where it began.
func doings(s *tracker.Starved) (all []string) {
	for _, p := range s.Places {
		_, function, _ := strings.Cut(p.Site().Function, "leakguard.")
		all = append(all, fmt.Sprintf("%s %s at %s", p.Kind, p.Doing, function))
	}
	return all
}

// beginInside and nestedInside are calls with names.
//
//go:noinline
func beginInside(g *guarded) (*sql.Tx, error) { return g.BeginTx(background, nil) }

//go:noinline
func nestedInside(g *guarded, wait <-chan struct{}) error {
	tx, err := g.BeginTx(background, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	<-wait
	return try(g, "SELECT 1") // while it has a place
}

// TestStarvedBySelf: one who has a place waits for another one of the same pool. One who
// came by the same calls and rests is not taken for him, nor is one who waits for his
// first place.
func TestStarvedBySelf(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, _ := attached(t, 2, Config{})
		g.warm(t, 2)
		told := starved(t, g)
		var wg sync.WaitGroup
		var waits [3]chan struct{}
		for i := range waits {
			waits[i] = make(chan struct{})
			wg.Go(func() { nestedInside(g, waits[i]) })
			synctest.Wait()
		}
		close(waits[0])
		s := told()
		got := doings(s)
		if len(got) != 2 || got[0] != "transaction idle at nestedInside" || got[1] != "transaction waiting for another place at nestedInside" {
			t.Errorf("%q", got)
		}
		close(waits[1])
		close(waits[2])
		g.SetMaxOpenConns(4)
		for range 2 {
			g.conn(t).Close()
		}
		wg.Wait()
	})
}

// TestStarvedByLock: one has the write lock and rests, the other one waits for it, and
// a third for a place: who has the lock is told first, and which it is.
func TestStarvedByLock(t *testing.T) {
	g, _ := attached(t, 2, Config{DSN: fileDSN(t, "_busy_timeout=20000")}, StarvedAfter(20*time.Millisecond))
	run(t, g, createT)
	g.warm(t, 2)
	told := starved(t, g)
	tx, err := beginInside(g)
	if err != nil {
		t.Fatal(err)
	}
	run(t, tx, "INSERT INTO t VALUES(1)")
	var wg sync.WaitGroup
	wg.Go(func() { run(t, g, "INSERT INTO t VALUES(2)") })
	for g.DB.Stats().InUse < 2 {
		time.Sleep(time.Millisecond)
	}
	wg.Go(func() { number(t, g, "SELECT count(*) FROM t") })
	s := told()
	if len(s.Places) != 2 {
		t.Fatalf("%+v", s)
	}
	a, b := s.Places[0], s.Places[1]
	if a.Doing != tracker.DoingNothing || a.InTheWay != 1 || !strings.HasSuffix(a.Site().Function, "beginInside") ||
		b.Doing != tracker.DoingAwaitsLock || b.Lock != a.ConnectionID || b.LockSite != a.Site() {
		t.Errorf("%q: %+v", doings(s), s.Places)
	}
	for _, w := range s.Waiters {
		if strings.Contains(w.Site().Function, "TestStarvedByLock") && w.Count != 1 {
			t.Errorf("%+v", w)
		}
	}
	if text := s.String(); !strings.Contains(text, "with a lock that 1 of them wait for; 1 waiting for a lock, for ") {
		t.Error(text)
	}
	tx.Rollback()
	wg.Wait()
}

// TestStarvedRunning: a statement that works is no cause, and is told so; it holds up
// neither the look nor anybody else's report.
func TestStarvedRunning(t *testing.T) {
	g, _ := attached(t, 1, Config{}, StarvedAfter(20*time.Millisecond))
	g.warm(t, 1)
	told := starved(t, g)
	ctx, cancel := context.WithCancel(background)
	var wg sync.WaitGroup
	wg.Go(func() { g.ExecContext(ctx, endless) })
	for g.DB.Stats().InUse < 1 {
		time.Sleep(time.Millisecond)
	}
	wg.Go(func() { number(t, g, "SELECT 1") })
	if got := doings(told()); len(got) != 1 || !strings.HasPrefix(got[0], "connection running at TestStarvedRunning") {
		t.Errorf("%q", got)
	}
	cancel()
	wg.Wait()
}

// TestAttachStorm: several goroutines share a pool of two on a real file; each forgets
// a transaction now and then, until the guard undoes it, and lets go later. Meanwhile
// the program sets its limit, or closes the sql.DB in the middle of it.
func TestAttachStorm(t *testing.T) {
	var lent uint64
	for round := range 12 {
		policy := tracker.Policy{CheckInterval: time.Millisecond, MemoryInterval: time.Minute, LeakAfter: 2 * time.Millisecond}
		g := open(t, Config{DSN: fileDSN(t, "_busy_timeout=5000"), Policy: policy})
		run(t, g, createT)
		g.SetMaxOpenConns(2)
		detach, err := Attach(g.DB, StarvedAfter(time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var leaks atomic.Int64
		for w := range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					tx, err := g.BeginTx(background, nil)
					if err != nil {
						return // closed
					}
					if (i+w)%3 == 0 {
						leaks.Add(1)
						time.Sleep(15 * time.Millisecond) // forgotten
					} else {
						try(tx, "INSERT INTO t VALUES(random())")
					}
					tx.Rollback()
				}
			})
		}
		for leaks.Load() < 8 { // the storm blows
			time.Sleep(time.Millisecond)
		}
		g.connector.tracker.WriteTo(io.Discard)
		switch round % 4 {
		case 0:
			g.Close()
		case 1:
			detach()
		case 2:
			g.SetMaxOpenConns(7)
		case 3:
			lent += g.connector.Stats().Places[0].LentTotal
		}
		for before := leaks.Load(); round%4 != 0 && leaks.Load() < before+2; { // and goes on
			time.Sleep(time.Millisecond)
		}
		close(stop)
		wg.Wait()
		if want := map[int]int{1: 2, 2: 7, 3: 2}[round%4]; want != 0 {
			for deadline := time.Now().Add(10 * time.Second); g.DB.Stats().MaxOpenConnections != want; time.Sleep(time.Millisecond) {
				if want == 7 {
					g.SetMaxOpenConns(want) // it was overwritten
				}
				if time.Now().After(deadline) {
					t.Fatalf("round %d: %+v, %+v", round, g.DB.Stats(), g.connector.Stats().Places)
				}
			}
		}
	}
	if lent == 0 {
		t.Error("nothing was lent")
	}
}
