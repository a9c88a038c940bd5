package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var (
	stormTime = flag.Duration("storm", 2*time.Second, "how long TestStorm runs")
	seedFlag  = flag.Uint64("seed", 0, "seed of TestStorm and TestChaos, 0 for a new one")
)

// testSeed returns the seed of this run and prints it if the test fails.
func testSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("rerun with -seed=%d", seed)
		}
	})
	return seed
}

// orderFor is what the reaper makes of a transaction beyond tx_timeout.
func orderFor(id uint64) *tracker.Order {
	return &tracker.Order{
		Scope:    tracker.ScopeTransaction,
		Reason:   tracker.ReasonTxTimeout,
		Resource: id,
		Absolute: true,
		Leaks: []*tracker.Leak{{
			Kind: tracker.KindTransaction, Reason: tracker.ReasonTxTimeout, Resource: id,
			OpenedAt: time.Now(), Limit: time.Millisecond,
		}},
	}
}

// count500 returns 500 rows and reads no table, hence holds no snapshot.
const count500 = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 500) SELECT i FROM n"

// struck is one connection of a pool without limits, with hooks into the
// middle of its statements.
type struck struct {
	t         *testing.T
	connector *Connector
	db        *sql.DB
	sc        *sql.Conn
	c         *conn
	// at is called by the SQL function at(n), the others are SQLite's hooks:
	// all run in the middle of a statement, on the owner's goroutine.
	at       func(n int)
	commit   func()
	rollback func()
}

func newStruck(t *testing.T) *struck {
	s := &struck{t: t}
	sqlite := &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		c.RegisterCommitHook(func() int {
			if s.commit != nil {
				s.commit()
			}
			return 0
		})
		c.RegisterRollbackHook(func() {
			if s.rollback != nil {
				s.rollback()
			}
		})
		return c.RegisterFunc("at", func(n int64) int64 {
			if s.at != nil {
				s.at(int(n))
			}
			return 0
		}, false)
	}}
	var err error
	s.connector, err = NewConnector(Config{
		DSN:     "file:" + filepath.Join(t.TempDir(), "struck.db") + "?_journal_mode=WAL&_busy_timeout=1000",
		Tracker: tracker.New(tracker.Options{}),
		SQLite:  sqlite,
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.db = sql.OpenDB(s.connector)
	t.Cleanup(func() {
		if err := s.db.Close(); err != nil {
			t.Error(err)
		}
	})
	s.exec("CREATE TABLE t(a)")
	s.sc, err = s.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.sc.Close() })
	s.c = connUnder(s.sc)
	return s
}

// connUnder returns the guarded connection of a lease.
func connUnder(sc *sql.Conn) *conn {
	var c *conn
	sc.Raw(func(dc any) error {
		c = dc.(*conn)
		return nil
	})
	return c
}

func (s *struck) control() control { return control{weak.Make(s.c)} }

// exec runs a text on the connection, which must succeed.
func (s *struck) exec(query string) {
	s.t.Helper()
	var err error
	if s.sc == nil {
		_, err = s.db.Exec(query)
	} else {
		_, err = s.sc.ExecContext(context.Background(), query)
	}
	if err != nil {
		s.t.Errorf("%s: %v", query, err)
	}
}

// refused runs a text on the connection, which must fail with ErrReaped.
func (s *struck) refused(query string) {
	s.t.Helper()
	if _, err := s.sc.ExecContext(context.Background(), query); !errors.Is(err, ErrReaped) {
		s.t.Errorf("%s: %v, want ErrReaped", query, err)
	}
}

// content fails the test if the table does not hold n rows.
func (s *struck) content(n int) {
	s.t.Helper()
	var got int
	if err := s.db.QueryRow("SELECT count(*) FROM t").Scan(&got); err != nil || got != n {
		s.t.Errorf("the table has %d rows (%v), want %d", got, err, n)
	}
}

// strike carries an order for transaction id while a statement runs.
func (s *struck) strike(id uint64) {
	s.t.Helper()
	if out := s.control().Carry(orderFor(id)); out != tracker.Condemned {
		s.t.Errorf("Carry beside a statement: %v, want condemned", out)
	}
}

// nudge is a strike whose first interrupt was lost: SQLite forgets one that
// comes before the statement's first step.
func (s *struck) nudge(id uint64) {
	s.t.Helper()
	if !s.c.condemn(orderFor(id)) || !s.control().Nudge() {
		s.t.Error("Nudge took the statement for over")
	}
}

func TestCondemnedStatement(t *testing.T) {
	for _, query := range []string{
		"SELECT sum(at(1)) FROM (" + count500 + ")",
		"INSERT INTO t SELECT at(1) FROM (" + count500 + ")",
		"INSERT INTO t VALUES(2); SELECT sum(at(1)) FROM (" + count500 + "); COMMIT",
	} {
		for way, strike := range map[string]func(*struck, uint64){"carry": (*struck).strike, "nudge": (*struck).nudge} {
			t.Run(way+"/"+query, func(t *testing.T) {
				s := newStruck(t)
				s.exec("BEGIN; INSERT INTO t VALUES(1)")
				calls := 0
				s.at = func(int) {
					if calls++; calls == 3 {
						strike(s, s.c.txn.id)
					}
				}
				s.refused(query)
				if calls > 200 { // a progress handler looks every thousand instructions
					t.Errorf("the interrupted statement went on for %d rows", calls-3)
				}
				// Its locks are gone before its owner knows.
				if _, err := s.db.Exec("BEGIN IMMEDIATE; COMMIT"); err != nil {
					t.Errorf("another writer: %v", err)
				}
				s.refused("INSERT INTO t VALUES(3)")
				s.refused("COMMIT")
				s.exec("ROLLBACK")
				s.exec("INSERT INTO t VALUES(4)")
				s.content(1)
			})
		}
	}
}

func TestCondemnedNext(t *testing.T) {
	s := newStruck(t)
	s.exec("BEGIN; INSERT INTO t VALUES(1)")
	rows, err := s.sc.QueryContext(context.Background(), "SELECT at(i) FROM ("+count500+")")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	n := 0
	s.at = func(int) {
		if n == 100 {
			s.strike(s.c.txn.id)
		}
	}
	for rows.Next() {
		n++
	}
	if n > 101 || !errors.Is(rows.Err(), ErrReaped) {
		t.Errorf("%d rows and %v, want 100 and ErrReaped", n, rows.Err())
	}
	rows.Close()
	s.refused("COMMIT")
	s.exec("ROLLBACK")
	s.content(0)
}

// A COMMIT that succeeds while it is condemned has committed.
func TestCondemnedCommit(t *testing.T) {
	s := newStruck(t)
	s.commit = func() {
		s.commit = nil
		s.strike(s.c.txn.id)
	}
	s.exec("BEGIN; INSERT INTO t VALUES(1); COMMIT")
	s.content(1)

	tx, err := s.sc.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES(2)"); err != nil {
		t.Error(err)
	}
	s.commit = func() {
		s.commit = nil
		s.strike(s.c.txn.id)
	}
	if err := tx.Commit(); err != nil {
		t.Errorf("Commit: %v", err)
	}
	s.content(2)
}

// So has one whose context is cancelled meanwhile, also if it came as a query.
func TestCancelledCommit(t *testing.T) {
	for _, way := range []string{"exec", "query", "prepared exec", "prepared query"} {
		t.Run(way, func(t *testing.T) {
			s := newStruck(t)
			s.exec("BEGIN; INSERT INTO t VALUES(1)")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			s.commit = cancel
			read := func(rows *sql.Rows, err error) error {
				if err != nil {
					return err
				}
				for rows.Next() {
				}
				rows.Close()
				return nil // whatever the rows say: it had no result to read
			}
			stmt, err := s.sc.PrepareContext(context.Background(), "COMMIT")
			if err != nil {
				t.Fatal(err)
			}
			defer stmt.Close()
			switch way {
			case "exec":
				_, err = s.sc.ExecContext(ctx, "COMMIT")
			case "query":
				err = read(s.sc.QueryContext(ctx, "COMMIT"))
			case "prepared exec":
				_, err = stmt.ExecContext(ctx)
			case "prepared query":
				err = read(stmt.QueryContext(ctx))
			}
			if err != nil {
				t.Errorf("COMMIT: %v", err)
			}
			s.commit = nil
			s.content(1)
			s.exec("INSERT INTO t VALUES(2)")
		})
	}
}

// The interrupt of a condemned COMMIT that succeeded must not stick to the
// connection because other rows are suspended on it.
func TestInterruptDoesNotStick(t *testing.T) {
	s := newStruck(t)
	rows, err := s.sc.QueryContext(context.Background(), count500)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	rows.Next()
	s.exec("BEGIN; INSERT INTO t VALUES(1)")
	s.commit = func() {
		s.commit = nil
		s.strike(s.c.txn.id)
	}
	s.exec("COMMIT")
	s.exec("INSERT INTO t VALUES(2)")
	n := 1
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err == nil && n != 500 || err != nil && !errors.Is(err, ErrReaped) {
		t.Errorf("the rows from before: %d, %v", n, err)
	}
	rows.Close()
	s.content(2)
}

// A COMMIT that is interrupted leaves the transaction open, and if the flag
// sticks, the ROLLBACK behind it fails as well. What the program then does on
// the connection must not run inside what it was told has ended.
func TestInterruptedCommitIsUndone(t *testing.T) {
	s := newStruck(t)
	rows, err := s.sc.QueryContext(context.Background(), count500)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	rows.Next()
	tx, err := s.sc.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	s.c.db().Interrupt() // as one does that is sent just before the COMMIT begins
	if err := tx.Commit(); err == nil {
		t.Fatal("the COMMIT was not interrupted")
	}
	rows.Close()
	want := 0
	if _, err := s.sc.ExecContext(context.Background(), "INSERT INTO t VALUES(2)"); err == nil {
		want = 1
	}
	if err := s.sc.Close(); err != nil && want > 0 {
		t.Error(err)
	}
	s.content(want)
}

// The reaper decides and acts later. Its order may arrive when the transaction
// is over and the connection is in another operation.
func TestStaleOrder(t *testing.T) {
	for name, before := range map[string]string{
		"outside a transaction":   "",
		"in the next transaction": "BEGIN",
	} {
		for _, query := range []string{
			"SELECT sum(at(1)) FROM (" + count500 + ")",
			"INSERT INTO t SELECT at(1) FROM (" + count500 + ") LIMIT 1",
		} {
			t.Run(name+"/"+query, func(t *testing.T) {
				s := newStruck(t)
				s.exec("BEGIN; INSERT INTO t VALUES(1)")
				stale := s.c.txn.id
				s.exec("COMMIT")
				if before != "" {
					s.exec(before)
				}
				s.at = func(int) {
					s.at = nil
					s.control().Carry(orderFor(stale))
					s.control().Nudge()
				}
				s.exec(query)
				s.exec("INSERT INTO t VALUES(2)")
				if before != "" {
					s.exec("COMMIT")
				}
			})
		}
	}
}

// The same, with the connection between two operations of the next transaction.
func TestStaleOrderBetweenOperations(t *testing.T) {
	s := newStruck(t)
	s.exec("BEGIN; INSERT INTO t VALUES(1)")
	stale := s.c.txn.id
	s.exec("COMMIT")
	s.exec("BEGIN; INSERT INTO t VALUES(2)")
	if out := s.control().Carry(orderFor(stale)); out != tracker.Void {
		t.Errorf("Carry of an order whose transaction is over: %v, want void", out)
	}
	s.exec("COMMIT")
	s.content(2)
	if out := s.control().Carry(orderFor(s.c.txn.id)); out != tracker.Void {
		t.Errorf("Carry of an order whose transaction is over, outside of one: %v, want void", out)
	}
	s.exec("INSERT INTO t VALUES(3)")
	s.content(3)
}

// One text can end the condemned transaction and go on: what comes behind its
// COMMIT is not meant, and must not make the COMMIT look failed.
func TestCondemnedTextGoesOn(t *testing.T) {
	for _, rest := range []string{
		"SELECT sum(at(2)) FROM (" + count500 + ")",
		"BEGIN; INSERT INTO t SELECT at(2) FROM (" + count500 + ") LIMIT 1; COMMIT",
	} {
		for _, way := range []string{"exec", "query", "named argument"} {
			t.Run(way+"/"+rest, func(t *testing.T) {
				s := newStruck(t)
				s.exec("BEGIN; INSERT INTO t VALUES(1)")
				id := s.c.txn.id
				s.at = func(n int) {
					switch n {
					case 1: // with an interrupt that was lost, see nudge
						s.c.condemn(orderFor(id))
					case 2:
						s.control().Nudge()
					}
				}
				var err error
				switch text := "SELECT at(1); COMMIT; " + rest; way {
				case "exec":
					_, err = s.sc.ExecContext(context.Background(), text)
				case "query":
					var rows *sql.Rows
					if rows, err = s.sc.QueryContext(context.Background(), text); err == nil {
						for rows.Next() {
						}
						err = rows.Err()
						rows.Close()
					}
				case "named argument":
					_, err = s.sc.ExecContext(context.Background(), text+"; SELECT :x", sql.Named("x", 1))
				}
				if err != nil {
					t.Errorf("a text whose COMMIT succeeded: %v", err)
				}
				var n int
				if err := s.db.QueryRow("SELECT count(*) FROM t WHERE a = 1").Scan(&n); err != nil || n != 1 {
					t.Errorf("%d rows of the committed transaction, %v", n, err)
				}
			})
		}
	}
}

// The interrupt is for the condemned statement, or for one whose context has
// ended, not for the ROLLBACK by which its owner carries the order out: that
// one has to succeed, or the transaction keeps its locks.
func TestCarryUninterrupted(t *testing.T) {
	for way, hit := range map[string]func(g *gate.Gate, send func()){
		"nudge":   func(g *gate.Gate, send func()) { g.Hit(send) },
		"context": func(g *gate.Gate, send func()) { g.Stop(g.Load(), send) },
	} {
		t.Run(way, func(t *testing.T) {
			s := newStruck(t)
			var sending, stop atomic.Bool
			var sent, overlaps atomic.Int64
			s.rollback = func() {
				for range 3 { // give it the time to come
					if sending.Load() {
						overlaps.Add(1)
						return
					}
					runtime.Gosched()
				}
			}
			var nudger sync.WaitGroup
			nudger.Go(func() {
				for !stop.Load() {
					hit(&s.c.gate, func() {
						sending.Store(true)
						sent.Add(1)
						for range 20 { // long enough for the ROLLBACK to begin
							runtime.Gosched()
						}
						sending.Store(false)
					})
					if runtime.GOMAXPROCS(0) == 1 { // nobody else would get in between
						runtime.Gosched()
					}
				}
			})
			for range 150 {
				s.exec("BEGIN")
				if f := s.c.gate.Enter(); f != 0 {
					t.Fatalf("enter: %#x", f)
				}
				s.c.gate.Set(gate.Watched)
				s.c.condemn(orderFor(s.c.txn.id))
				for before := sent.Load(); sent.Load() == before; { // it will come
					runtime.Gosched()
				}
				if err := s.c.leave(nil); !errors.Is(err, ErrReaped) {
					t.Errorf("leave: %v, want ErrReaped", err)
				}
				s.exec("ROLLBACK")
				if overlaps.Load() > 0 {
					break
				}
			}
			stop.Store(true)
			nudger.Wait()
			if n := overlaps.Load(); n > 0 || sent.Load() == 0 {
				t.Errorf("%d interrupts, %d of them while the order was carried out", sent.Load(), n)
			}
		})
	}
}

// The watchdog sends a goroutine to attend an operation while its owner is on
// the way out: each of them is dismissed, and dismissed once.
func TestAttendBesideLeave(t *testing.T) {
	s := newStruck(t)
	s.exec("SELECT 1")
	w := &s.c.watch
	done := make(chan struct{})
	w.mu.Lock()
	w.done, w.announced = done, done
	w.mu.Unlock()
	before := runtime.NumGoroutine()
	var stop atomic.Bool
	var watchdog sync.WaitGroup
	watchdog.Go(func() {
		for !stop.Load() {
			if word := s.c.gate.Load(); word&(gate.Busy|gate.Watched|gate.Attended) == gate.Busy|gate.Watched {
				w.attend(word)
			}
		}
	})
	met := 0
	for start := time.Now(); time.Since(start) < *stormTime/2 || met < 10 && time.Since(start) < time.Minute; {
		if f := s.c.gate.Enter(); f != 0 {
			t.Fatalf("enter: %#x", f)
		}
		s.c.gate.Set(gate.Watched)
		linger()
		if s.c.gate.Has(gate.Attended) {
			met++
		}
		s.c.gate.Condemn() // with no order: leave has to go round once more
		if err := s.c.leave(nil); err != nil {
			t.Errorf("leave: %v", err)
		}
	}
	stop.Store(true)
	watchdog.Wait()
	for start := time.Now(); runtime.NumGoroutine() > before && time.Since(start) < 20*time.Second; {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine() - before; n > 0 {
		t.Errorf("%d goroutines still attend operations that are over", n)
	}
	close(done)
	if met < 10 {
		t.Errorf("%d operations were attended", met)
	}
}

// A connection may be condemned while it is being closed. What the interrupt
// would have written to is freed by then: malloc aborts the process soon after,
// or AddressSanitizer at once (go test -asan).
func TestCondemnedClose(t *testing.T) {
	s := newStruck(t)
	hits := 0
	for range 300 {
		opened, err := s.connector.Connect(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		c := opened.(*conn)
		if _, err := c.Exec("BEGIN IMMEDIATE", nil); err != nil {
			t.Fatal(err)
		}
		c.handOver(func() { // the first thing that Close does, unless the reaper comes by
			if (control{weak.Make(c)}).Carry(orderFor(c.txn.id)) == tracker.Condemned {
				hits++
			}
		})
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if hits == 0 {
		t.Error("Close was never condemned")
	}
	s.exec("INSERT INTO t VALUES(1)") // no lock is left
	s.content(1)
}

// The reaper may look at a connection as soon as it is registered.
func TestConnectBesideReaper(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	connector, err := NewConnector(Config{
		DSN:     "file:" + filepath.Join(t.TempDir(), "new.db") + "?cache=shared",
		Tracker: tr,
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxIdleConns(0) // a new connection for each ping
	var stop atomic.Bool
	var looks atomic.Int64 // at a lease
	detector := func(tracker.Record) tracker.Reason {
		looks.Add(1)
		return "test"
	}
	var reaper sync.WaitGroup
	reaper.Go(func() {
		for !stop.Load() {
			tr.AddDetector(detector)() // wakes the reaper
			cancel := tr.AddDetector(detector)
			linger()
			cancel()
		}
	})
	for n, start := 0, time.Now(); n < 300 || looks.Load() < 10 && time.Since(start) < time.Minute; n++ {
		if err := db.Ping(); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	reaper.Wait()
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if n := looks.Load(); n < 10 {
		t.Errorf("the reaper looked at %d of them", n)
	}
}

// stormTx is one transaction of the storm.
type stormTx struct {
	conn *conn
	id   uint64
	over atomic.Bool
	// condemned is set before an order is carried.
	condemned atomic.Bool
}

// storm is a pool whose transactions are condemned at random moments.
type storm struct {
	t    *testing.T
	db   *sql.DB
	stop atomic.Bool
	next atomic.Int64
	// write is held by the one that writes: SQLite's busy handler would sleep.
	// Whoever takes it has a connection.
	write sync.Mutex

	mu    sync.Mutex
	conns map[*conn]*atomic.Pointer[stormTx] // the latest transaction of each

	committed, failed, innocents, struckRows atomic.Int64
	done, condemned                          atomic.Int64 // orders, see verdicts
	ids                                      sync.Map     // committed → true, failed → false
}

// blows reports whether all that it is about has happened.
func (s *storm) blows() bool {
	for _, n := range []*atomic.Int64{&s.committed, &s.failed, &s.done, &s.condemned} {
		if n.Load() < 10 {
			return false
		}
	}
	return true
}

// TestStorm condemns transactions at random moments, by the reaper's own way,
// while others go about their business on the same four connections. Nothing
// outside of a condemned transaction may notice.
func TestStorm(t *testing.T) {
	seed := testSeed(t)
	connector, err := NewConnector(Config{
		DSN: "file:" + filepath.Join(t.TempDir(), "storm.db") +
			"?_journal_mode=WAL&_synchronous=OFF&_busy_timeout=60000&_txlock=immediate",
		Policy:  tracker.Policy{CheckInterval: time.Minute, MemoryInterval: time.Minute}, // no limits
		Tracker: tracker.New(tracker.Options{}),
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &storm{t: t, db: sql.OpenDB(connector), conns: make(map[*conn]*atomic.Pointer[stormTx])}
	s.db.SetMaxOpenConns(4)
	s.db.SetMaxIdleConns(4)
	if _, err := s.db.Exec("CREATE TABLE t(id INTEGER, part INTEGER); CREATE TABLE many(a); INSERT INTO many " + count500); err != nil {
		t.Fatal(err)
	}

	var workers, condemner sync.WaitGroup
	for i := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, i))
		workers.Go(func() {
			for !s.stop.Load() && !t.Failed() {
				s.work(r)
			}
		})
	}
	var found verdicts
	condemner.Go(func() { found = s.condemn(rand.New(rand.NewPCG(seed, 100))) })
	over, patience := time.After(*stormTime), time.Now().Add(time.Minute)
	for <-over; !s.blows() && !t.Failed() && time.Now().Before(patience); {
		time.Sleep(10 * time.Millisecond) // the storm decides
	}
	s.stop.Store(true)
	workers.Wait()
	condemner.Wait()

	s.verify()
	t.Logf("%d transactions committed, %d failed, %d operations outside of them, %d rows from before closed",
		s.committed.Load(), s.failed.Load(), s.innocents.Load(), s.struckRows.Load())
	t.Logf("%v", found)
	if !s.blows() {
		t.Error("the storm did not blow")
	}
	if err := s.db.Close(); err != nil {
		t.Error(err)
	}
	if st := connector.Stats(); st.TotalConnections != 0 || st.Created > 4 {
		t.Errorf("%d connections opened and %d left, want at most 4 and 0", st.Created, st.TotalConnections)
	}
}

// verdicts counts what became of orders.
type verdicts struct {
	done, condemned, void, stale int
	nudges                       int
	total, worst                 time.Duration // from the order to the end of the operation
}

func (v verdicts) String() string {
	mean := time.Duration(0)
	if v.condemned > 0 {
		mean = v.total / time.Duration(v.condemned)
	}
	return fmt.Sprintf("orders: %d done at once, %d condemned, %d void (%d of all for a transaction that was over); %d nudges; condemned operations ended after %v on average, %v at worst",
		v.done, v.condemned, v.void, v.stale, v.nudges, mean, v.worst)
}

// condemn plays the reaper.
func (s *storm) condemn(r *rand.Rand) (v verdicts) {
	for !s.stop.Load() {
		var latest []*atomic.Pointer[stormTx]
		s.mu.Lock()
		for _, p := range s.conns {
			latest = append(latest, p)
		}
		s.mu.Unlock()
		if len(latest) == 0 {
			runtime.Gosched()
			continue
		}
		p := latest[r.IntN(len(latest))]
		x := p.Load()
		if x == nil || x.over.Load() {
			runtime.Gosched()
			continue
		}
		for range r.IntN(20) { // the reaper acts some time after it decided
			runtime.Gosched()
		}
		k := control{weak.Make(x.conn)}
		x.condemned.Store(true)
		if x.over.Load() {
			v.stale++
		}
		sent := time.Now()
		switch k.Carry(orderFor(x.id)) {
		case tracker.Done:
			v.done++
			s.done.Add(1)
		case tracker.Condemned:
			v.condemned++
			s.condemned.Add(1)
			for n := 0; k.Nudge(); n++ {
				v.nudges++
				if runtime.Gosched(); n > 20 {
					time.Sleep(50 * time.Microsecond) // a chaos pause: leaves the cores to the others
				}
			}
			d := time.Since(sent)
			v.total += d
			v.worst = max(v.worst, d)
		default:
			v.void++
		}
		if r.IntN(4) > 0 { // leave some transactions alone
			time.Sleep(time.Duration(r.IntN(800)) * time.Microsecond) // a chaos pause
		}
	}
	return v
}

// fine checks a statement that nobody condemned.
func (s *storm) fine(what string, err error) {
	s.t.Helper()
	s.innocents.Add(1)
	if err != nil {
		s.t.Errorf("%s, which nobody condemned: %v", what, err)
	}
}

// work does one random thing.
func (s *storm) work(r *rand.Rand) {
	ctx := context.Background()
	switch r.IntN(10) {
	case 0:
		_, err := s.db.Exec("SELECT a FROM many")
		s.fine("an exec over the pool", err)
		return
	case 1:
		var n int
		err := s.db.QueryRow("SELECT count(*) FROM many").Scan(&n)
		s.fine("a query over the pool", err)
		return
	}
	sc, err := s.db.Conn(ctx)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer func() { s.fine("check-in", sc.Close()) }()
	c := connUnder(sc)
	s.mu.Lock()
	latest := s.conns[c]
	if latest == nil {
		latest = new(atomic.Pointer[stormTx])
		s.conns[c] = latest
		// A ConnectHook would keep the guard from keeping texts.
		if err := c.inner.(*sqlite3.SQLiteConn).RegisterFunc("yields", yields, false); err != nil {
			s.t.Error(err)
		}
	}
	s.mu.Unlock()
	for range 1 + r.IntN(4) {
		switch r.IntN(6) {
		case 5:
			s.unknown(sc)
		case 0, 1:
			s.transaction(r, sc, c, latest)
		case 2:
			s.open(r, sc, "SELECT a FROM many")
		case 3:
			rows, err := sc.QueryContext(ctx, count500)
			s.fine("a query", err)
			if err != nil {
				return
			}
			n := 0
			for range r.IntN(20) {
				if rows.Next() {
					n++
				}
			}
			s.insert(sc, "beside open rows")
			condemned := false
			if r.IntN(2) == 0 {
				condemned = s.transaction(r, sc, c, latest)
			}
			for rows.Next() {
				n++
			}
			switch err := rows.Err(); {
			case condemned && errors.Is(err, ErrReaped):
				s.struckRows.Add(1)
			case err != nil:
				s.t.Errorf("rows from before the transaction (condemned: %v): %v", condemned, err)
			case n != 500:
				s.t.Errorf("rows from before the transaction (condemned: %v) ended after %d of 500", condemned, n)
			}
			s.fine("closing rows", rows.Close())
		case 4:
			s.insert(sc, "by itself")
		}
	}
}

// yields is the SQL function yields(x): in the middle of a statement others get
// to run, on one processor too.
func yields(x int64) int64 {
	if x%50 == 0 {
		runtime.Gosched()
	}
	return x
}

// insert writes outside a transaction.
func (s *storm) insert(sc *sql.Conn, where string) {
	s.write.Lock()
	_, err := sc.ExecContext(context.Background(), "INSERT INTO many SELECT 1 WHERE 0")
	s.write.Unlock()
	s.fine("an insert "+where, err)
}

// open reads rows to the end, with others doing things in between.
func (s *storm) open(r *rand.Rand, sc *sql.Conn, query string) {
	rows, err := sc.QueryContext(context.Background(), query)
	s.fine("a query", err)
	if err != nil {
		return
	}
	n := 0
	for rows.Next() {
		if n++; r.IntN(50) == 0 {
			runtime.Gosched()
		}
	}
	s.fine("rows", rows.Err())
	if n != 500 {
		s.t.Errorf("%d rows, want 500", n)
	}
	s.fine("closing rows", rows.Close())
}

// unknown runs a transaction that the condemner never hears of.
func (s *storm) unknown(sc *sql.Conn) {
	id := s.next.Add(1)
	s.write.Lock()
	defer s.write.Unlock()
	tx, err := sc.BeginTx(context.Background(), nil)
	s.fine("begin", err)
	if err != nil {
		return
	}
	for part := range 2 {
		_, err = tx.Exec("INSERT INTO t VALUES(?, ?)", id, part)
		s.fine("an insert in a transaction", err)
	}
	err = tx.Commit()
	s.fine("commit", err)
	s.ids.Store(id, err == nil)
}

// transaction runs one that may be condemned, and reports whether it was.
func (s *storm) transaction(r *rand.Rand, sc *sql.Conn, c *conn, latest *atomic.Pointer[stormTx]) bool {
	ctx := context.Background()
	id := s.next.Add(1)
	text, write := r.IntN(2) == 0, r.IntN(3) == 0
	begin := "BEGIN"
	if write || !text {
		begin = "BEGIN IMMEDIATE"
		s.write.Lock()
		defer s.write.Unlock()
	}
	var tx *sql.Tx
	var err error
	if text {
		_, err = sc.ExecContext(ctx, begin)
	} else {
		tx, err = sc.BeginTx(ctx, nil)
	}
	s.fine("begin", err)
	if err != nil {
		return false
	}
	x := &stormTx{conn: c, id: c.txn.id}
	latest.Store(x)

	var first error
	check := func(what string, err error) {
		switch {
		case err == nil && first != nil:
			s.t.Errorf("%s after %v succeeded", what, first)
		case err == nil:
		case !x.condemned.Load():
			s.t.Errorf("%s in a transaction that nobody condemned: %v", what, err)
		case !errors.Is(err, ErrReaped) && !errors.Is(err, sql.ErrTxDone):
			s.t.Errorf("%s in a condemned transaction: %v, want ErrReaped", what, err)
		}
		if first == nil {
			first = err
		}
	}
	exec := func(query string, args ...any) {
		if r.IntN(4) == 0 {
			runtime.Gosched() // between two statements
		}
		var err error
		if text {
			_, err = sc.ExecContext(ctx, query, args...)
		} else {
			_, err = tx.Exec(query, args...)
		}
		check(query, err)
	}
	if write {
		exec("INSERT INTO t VALUES(?, 0)", id)
	}
	if r.IntN(2) == 0 {
		var rows *sql.Rows
		if text {
			rows, err = sc.QueryContext(ctx, "SELECT a FROM many")
		} else {
			rows, err = tx.Query("SELECT a FROM many")
		}
		check("a query", err)
		if err == nil {
			n := 0
			for rows.Next() {
				if n++; n == 50 && r.IntN(2) == 0 {
					exec("SELECT 1") // beside the open rows
				}
			}
			if err := rows.Err(); err != nil || first != nil {
				check("rows", err)
			} else if n != 500 {
				s.t.Errorf("rows in a transaction ended after %d of 500", n)
			}
			rows.Close()
		}
	}
	for range r.IntN(3) {
		exec([]string{"SELECT count(*) FROM many", "SELECT count(yields(a)) FROM many"}[r.IntN(2)])
	}
	if write {
		exec("INSERT INTO t VALUES(?, 1)", id)
	}
	if text {
		exec("COMMIT")
		if first != nil {
			if _, err := sc.ExecContext(ctx, "ROLLBACK"); err != nil {
				s.t.Errorf("ROLLBACK after %v: %v", first, err)
			}
		}
	} else {
		check("Commit", tx.Commit())
	}
	x.over.Store(true)
	condemned := x.condemned.Load()
	if write {
		s.ids.Store(id, first == nil)
	}
	if first == nil {
		s.committed.Add(1)
	} else {
		s.failed.Add(1)
	}
	// What follows is another's business, and orders for x are stale.
	var one int
	s.fine("the query behind the transaction", sc.QueryRowContext(ctx, "SELECT 1").Scan(&one))
	return condemned
}

// verify compares the table with what was reported.
func (s *storm) verify() {
	rows, err := s.db.Query("SELECT id, count(*) FROM t GROUP BY id")
	if err != nil {
		s.t.Error(err)
		return
	}
	defer rows.Close()
	there := make(map[int64]int)
	for rows.Next() {
		var id int64
		var n int
		if err := rows.Scan(&id, &n); err != nil {
			s.t.Error(err)
		}
		there[id] = n
	}
	if err := rows.Err(); err != nil {
		s.t.Error(err)
	}
	s.ids.Range(func(id, committed any) bool {
		n := there[id.(int64)]
		delete(there, id.(int64))
		if committed.(bool) && n != 2 || !committed.(bool) && n != 0 {
			s.t.Errorf("transaction %d (committed: %v) has %d rows of 2", id, committed, n)
		}
		return true
	})
	for id, n := range there {
		s.t.Errorf("transaction %d, reported by nobody, has %d rows", id, n)
	}
}
