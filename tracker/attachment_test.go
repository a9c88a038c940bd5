package tracker

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// stub is a driver without a database whose connections have records, for tests of
// what sql.DB does with its places.
type stub struct {
	pool *Pool
	live atomic.Int64 // handles that are open
	most atomic.Int64

	mu    sync.Mutex
	conns map[*stubConn]struct{}
}

type stubConn struct {
	s      *stub
	rec    *Conn
	leased bool
	dead   atomic.Bool
}

func (s *stub) Driver() driver.Driver { return nil }

func (s *stub) Close() error {
	s.pool.Close()
	return nil
}

func (s *stub) Connect(context.Context) (driver.Conn, error) {
	c := &stubConn{s: s}
	c.rec = s.pool.Open(still{}, false, "")
	n := s.live.Add(1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	c.begin()
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	return c, nil
}

func (c *stubConn) begin() {
	if !c.leased {
		c.leased = true
		owned{c.rec}.CheckOut("")
	}
}

func (c *stubConn) ResetSession(context.Context) error {
	c.begin()
	return nil
}

func (c *stubConn) IsValid() bool {
	c.leased = false
	owned{c.rec}.CheckIn()
	return !c.dead.Load()
}

func (c *stubConn) Close() error {
	c.s.mu.Lock()
	delete(c.s.conns, c)
	c.s.mu.Unlock()
	if !c.dead.Load() {
		c.s.live.Add(-1)
	}
	c.rec.Close()
	return nil
}

// reap does what the guard does to a lease: its handle is closed, it is still out.
func (c *stubConn) reap() {
	c.dead.Store(true)
	c.rec.ForceClosed()
	c.s.live.Add(-1)
	c.rec.HandleClosed()
}

func (c *stubConn) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (c *stubConn) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }

// stubDB opens a sql.DB over stubs and attaches it.
func stubDB(t *testing.T, tr *Tracker, places int, o AttachOptions) (*sql.DB, *stub, func()) {
	t.Helper()
	s := &stub{pool: newPool(t, tr, PoolConfig{Name: "db", Logger: quiet}), conns: make(map[*stubConn]struct{})}
	db := sql.OpenDB(s)
	t.Cleanup(func() { db.Close() })
	db.SetMaxOpenConns(places)
	detach, err := s.pool.Attach(db, o)
	if err != nil {
		t.Fatal(err)
	}
	return db, s, detach
}

// take takes a place and returns the connection that has it.
func take(t *testing.T, db *sql.DB) (*sql.Conn, *stubConn) {
	t.Helper()
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var s *stubConn
	c.Raw(func(dc any) error { s = dc.(*stubConn); return nil })
	return c, s
}

// TestAttachRounds leaks all places of a pool again and again while somebody waits for
// one, who is served only by what is lent. Behind each round the limit is the program's
// again.
func TestAttachRounds(t *testing.T) {
	const places, rounds = 2, 10000
	tr := New(Options{})
	db, s, _ := stubDB(t, tr, places, AttachOptions{StarvedAfter: time.Millisecond, Lend: -1})
	limitIs := func(want int) {
		spin(t, func() bool { return db.Stats().MaxOpenConnections == want })
	}
	for round := range int64(rounds) {
		var out [places]*sql.Conn
		var got [places]*stubConn
		for i := range out {
			out[i], got[i] = take(t, db)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, _ := take(t, db)
			c.Close()
		}()
		spin(t, func() bool { return db.Stats().WaitCount > round })
		for _, c := range got {
			c.reap()
		}
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("round %d: nobody is served: %+v", round, tr.Stats().Places)
		}
		limitIs(2 * places)
		for _, c := range out {
			c.Close()
		}
		limitIs(places)
	}
	if st := tr.Stats(); st.Lost != 0 || st.Places[0].Lent != 0 || st.Places[0].LentTotal != rounds*places {
		t.Errorf("lost %d, %+v", st.Lost, st.Places)
	}
	if most := s.most.Load(); most > places {
		t.Errorf("%d handles were open at once", most)
	}
}

// spin waits for what takes microseconds on another goroutine.
func spin(tb testing.TB, f func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); runtime.Gosched() {
		if time.Now().After(deadline) {
			tb.Fatal("it does not happen")
		}
	}
}

// TestAttachHandles: as long as nobody lets go, there are never more open handles than
// the program's limit: a place is lent when the handle is closed, not before.
func TestAttachHandles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s, _ := stubDB(t, New(Options{}), 3, AttachOptions{Lend: -1})
		for range 3 {
			_, c := take(t, db)
			c.dead.Store(true)
			c.rec.ForceClosed()
			time.Sleep(time.Minute)
			if n := db.Stats().MaxOpenConnections; n > 3+int(3-s.live.Load()) {
				t.Errorf("the limit is %d with %d handles open", n, s.live.Load())
			}
			s.live.Add(-1)
			c.rec.HandleClosed()
			time.Sleep(time.Minute)
		}
		if n, most := db.Stats().MaxOpenConnections, s.most.Load(); n != 6 || most > 3 {
			t.Errorf("limit %d, %d handles at once", n, most)
		}
		for c := range s.conns {
			c.rec.Close()
		}
	})
}

// TestAttachCloseAtAnyMoment closes the sql.DB, or detaches, while places are leaked,
// lent, served and let go. Nothing hangs, and the tracker comes to rest.
func TestAttachCloseAtAnyMoment(t *testing.T) {
	tr := New(Options{})
	for i := range 300 {
		db, s, detach := stubDB(t, tr, 2, AttachOptions{StarvedAfter: time.Millisecond, Lend: -1})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
					c, err := db.Conn(ctx)
					cancel()
					if errors.Is(err, context.DeadlineExceeded) {
						continue
					}
					if err != nil {
						return // closed
					}
					c.Raw(func(dc any) error { dc.(*stubConn).reap(); return nil })
					tr.Stats()
					c.Close()
				}
			})
		}
		time.Sleep(time.Duration(i%20) * 50 * time.Microsecond)
		if i%3 == 0 {
			detach()
			if n := db.Stats().MaxOpenConnections; n != 2 {
				t.Errorf("limit %d after detach", n)
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		spin(t, func() bool { // the background opener may be at it
			s.mu.Lock()
			defer s.mu.Unlock()
			return len(s.conns) == 0
		})
	}
	tr.Close()
	spin(t, func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		return len(tr.pools) == 0 && tr.closing == 0
	})
}

// between is a sql.DB to which something happens between the guard's look at it and
// what it does then.
type between struct {
	sqlDB
	once atomic.Pointer[func()]
}

func (b *between) Stats() sql.DBStats {
	s := b.sqlDB.Stats()
	if f := b.once.Swap(nil); f != nil {
		(*f)()
	}
	return s
}

func attachBetween(t *testing.T, db *sql.DB, s *stub) *between {
	t.Helper()
	b := &between{sqlDB: sqlDB{db}}
	if _, err := s.pool.attach(func() database { return b }, AttachOptions{Lend: -1, LendSingle: true}); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestAttachOverwrites: what the program sets in the microseconds in which the limit
// is being changed is lost, as documented, and nothing else goes wrong by that.
func TestAttachOverwrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s, detach := stubDB(t, New(Options{}), 2, AttachOptions{})
		detach()
		b := attachBetween(t, db, s)
		out, c := take(t, db)
		time.Sleep(time.Second)
		set := func() { db.SetMaxOpenConns(7) }
		b.once.Store(&set)
		c.reap()
		time.Sleep(2 * time.Second)
		if n := db.Stats().MaxOpenConnections; n != 3 {
			t.Errorf("limit %d, want 3", n)
		}
		out.Close()
		time.Sleep(time.Second)
		if n := db.Stats().MaxOpenConnections; n != 2 {
			t.Errorf("limit %d, want 2", n)
		}
	})
}

// TestAttachServesWhoCameMeanwhile: the pool had an idle connection when the guard
// looked, and when it raises the limit somebody waits.
func TestAttachServesWhoCameMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s, detach := stubDB(t, New(Options{}), 1, AttachOptions{})
		detach()
		first, _ := take(t, db)
		first.Close() // idle by now
		b := attachBetween(t, db, s)
		var served atomic.Bool
		var out *sql.Conn
		happens := func() {
			var c *stubConn
			out, c = take(t, db)
			go func() {
				c, _ := take(t, db)
				c.Close()
				served.Store(true)
			}()
			synctest.Wait()
			c.reap()
		}
		b.once.Store(&happens)
		time.Sleep(time.Minute)
		if !served.Load() {
			t.Error("not served")
		}
		out.Close()
	})
}

// TestAttachIdle: nothing looks at a pool without connections, behind sql.DB.Close, or
// in mode basic.
func TestAttachIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		o := AttachOptions{StarvedAfter: time.Second, Lend: -1}
		db, s, _ := stubDB(t, tr, 2, o)
		a := s.pool.attached
		armed := func() bool {
			time.Sleep(time.Minute)
			tr.mu.Lock()
			defer tr.mu.Unlock()
			return a.armed
		}
		if armed() {
			t.Error("before the first connection")
		}
		c, _ := take(t, db)
		if !armed() {
			t.Error("while a connection is open")
		}
		c.Close()
		db.SetMaxIdleConns(-1)
		if armed() {
			t.Error("behind the last connection")
		}
		c, _ = take(t, db)
		if !armed() {
			t.Error("while another one is open")
		}
		db.Close()
		if armed() {
			t.Error("behind Close, with a lease out")
		}
		c.Close()

		db, s, _ = stubDB(t, tr, 2, o)
		a = s.pool.attached
		s.pool.mode.Store(uint32(Basic))
		c, _ = take(t, db)
		if armed() {
			t.Error("in mode basic")
		}
		c.Close()
	})
}

// TestAttachCloseWaits: sql.DB.Close and detach wait for the look under way.
func TestAttachCloseWaits(t *testing.T) {
	for _, name := range []string{"Close", "detach"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db, s, detach := stubDB(t, New(Options{}), 2, AttachOptions{})
				detach()
				b := &between{sqlDB: sqlDB{db}}
				detach, err := s.pool.attach(func() database { return b }, AttachOptions{Lend: -1})
				if err != nil {
					t.Fatal(err)
				}
				looks := make(chan struct{})
				look := func() {
					close(looks)
					time.Sleep(time.Hour)
				}
				b.once.Store(&look)
				c, _ := take(t, db)
				<-looks
				began := time.Now()
				if name == "Close" {
					db.Close()
				} else {
					detach()
				}
				if d := time.Since(began); d < time.Hour {
					t.Errorf("it waited %v", d)
				}
				c.Close()
			})
		})
	}
}

// TestAttachNotForIdle: a handle that was closed in the pool is nobody's place.
func TestAttachNotForIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, s, _ := stubDB(t, New(Options{}), 2, AttachOptions{Lend: -1})
		out, c := take(t, db)
		out.Close()
		c.rec.ForceClosed()
		c.rec.HandleClosed()
		time.Sleep(time.Minute)
		if n := db.Stats().MaxOpenConnections; n != 2 || s.pool.Stats().Lost != 0 {
			t.Errorf("limit %d", n)
		}
	})
}

// TestAttachServesNoForeignBubble: the pool is used inside a bubble that is not the
// tracker's. Who waits there must not be served from outside: that is a fatal error.
func TestAttachServesNoForeignBubble(t *testing.T) {
	tr := New(Options{})
	db, _, _ := stubDB(t, tr, 2, AttachOptions{StarvedAfter: time.Millisecond, Lend: -1})
	outside, _ := take(t, db) // it looks, from now on
	synctest.Test(t, func(t *testing.T) {
		inside, c := take(t, db)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			if _, err := db.Conn(ctx); err == nil {
				t.Error("served")
			}
		}()
		synctest.Wait()
		c.reap()
		for range 500000 { // time outside
			runtime.Gosched()
		}
		if n := db.Stats().MaxOpenConnections; n != 2 {
			t.Errorf("limit %d", n)
		}
		cancel() // database/sql's own opener would serve him from outside
		synctest.Wait()
		inside.Close()
	})
	outside.Close()
}
