//go:build cgo

package leakguard

import (
	"context"
	"database/sql/driver"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Close, IsValid and ResetSession beside an operation that another goroutine has in
// flight.

// stall holds operations up inside SQLite, at a step by the SQL function stall(), where
// a statement is prepared, and at the ends of transactions.
type stall struct {
	entered chan struct{} // one is there
	leave   chan func()   // how it goes on
	// atRollback: it can be held up there, too.
	atRollback bool
	mu         sync.Mutex
	armed      string // where the next one is held up
}

func newStall() *stall {
	return &stall{entered: make(chan struct{}, 1), leave: make(chan func(), 1)}
}

func (s *stall) arm(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = what
}

func (s *stall) at(what string) {
	s.mu.Lock()
	armed := s.armed == what
	if armed {
		s.armed = ""
	}
	s.mu.Unlock()
	if armed {
		s.entered <- struct{}{}
		(<-s.leave)()
	}
}

func (s *stall) driver() *sqlite3.SQLiteDriver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		c.RegisterCommitHook(func() int { s.at("commit"); return 0 })
		if s.atRollback { // go-sqlite3 forgets its hooks when it closes, and SQLite may roll back later
			c.RegisterRollbackHook(func() { s.at("rollback") })
		}
		c.RegisterAuthorizer(func(int, string, string, string) int { s.at("prepare"); return sqlite3.SQLITE_OK })
		return c.RegisterFunc("stall", func(i int64) int64 { s.at("step"); return i }, false)
	}}
}

// connect opens a guarded connection to the file of a DSN.
func (s *stall) connect(t testing.TB, cfg Config) (*guarded, *conn) {
	t.Helper()
	cfg.SQLite = s.driver()
	g := open(t, cfg)
	c := must(g.connector.Connect(background))(t).(*conn)
	must(c.ExecContext(background, createT, nil))(t)
	return g, c
}

// operations are ways to be inside SQLite. begin is what comes before, at where it is
// held up, and run returns what it opened. The context can be cancelled.
var operations = map[string]struct {
	at    string
	begin string
	run   func(ctx context.Context, c *conn, s driver.Stmt) (any, error)
}{
	"exec": {"step", "BEGIN IMMEDIATE", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		_, err := c.ExecContext(background, "INSERT INTO t SELECT stall(7)", nil)
		return nil, err
	}},
	"query": {"step", "", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		return c.QueryContext(background, "SELECT stall(i) FROM "+three, nil)
	}},
	"watched query": {"step", "", func(ctx context.Context, c *conn, _ driver.Stmt) (any, error) {
		return c.QueryContext(ctx, "SELECT stall(i) FROM "+three, nil)
	}},
	"prepare": {"prepare", "BEGIN IMMEDIATE", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		return c.PrepareContext(background, "SELECT a FROM t")
	}},
	"statement exec": {"step", "BEGIN IMMEDIATE", func(_ context.Context, c *conn, s driver.Stmt) (any, error) {
		return nil, second(s.Exec([]driver.Value{int64(7)}))
	}},
	"begin": {"prepare", "", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		return c.BeginTx(background, driver.TxOptions{})
	}},
	"begin with options": {"prepare", "", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		return c.BeginTx(background, driver.TxOptions{ReadOnly: true})
	}},
	"commit": {"commit", "BEGIN; INSERT INTO t VALUES(7)", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		return nil, c.tx.Commit()
	}},
	"statement by statement": {"step", "", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		return nil, second(c.ExecContext(background, "BEGIN IMMEDIATE; INSERT INTO t SELECT stall(7)", nil))
	}},
	"where a text ends": {"prepare", "BEGIN", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		return nil, second(c.ExecContext(background, "COMMIT; BEGIN IMMEDIATE", nil))
	}},
	"rows that commit at their end": {"commit", "", func(_ context.Context, c *conn, _ driver.Stmt) (any, error) {
		r, err := c.QueryContext(background, "INSERT INTO t VALUES(7),(8) RETURNING a", nil)
		if err == nil {
			err = r.Close()
		}
		return nil, err
	}},
}

// Close returns at once, and when the operation ends nothing is left: no lock, no
// descriptor, no record, and nothing that can be used.
func TestCloseBesideAnOperation(t *testing.T) {
	t.Parallel()
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			s := newStall()
			g, c := s.connect(t, Config{Policy: txLimit(time.Hour)})
			stmt := must(c.Prepare("INSERT INTO t SELECT stall(?)"))(t)
			older := must(c.Query("SELECT i FROM "+three, nil))(t)
			if op.begin != "" {
				must(c.ExecContext(background, op.begin, nil))(t)
			}
			s.arm(op.at)
			type result struct {
				opened any
				err    error
			}
			over := make(chan result, 1)
			go func() {
				opened, err := op.run(t.Context(), c, stmt)
				over <- result{opened, err}
			}()
			<-s.entered
			wantErr(t, "Close", c.Close(), nil)
			wantErr(t, "Close again", c.Close(), nil)
			if n := len(descriptors(t, fileOf(g.dsn))); n == 0 {
				t.Error("the handle is closed under the operation")
			}
			s.leave <- func() {}
			r := <-over
			wantErr(t, "the operation", r.err, nil)
			if open := descriptors(t, fileOf(g.dsn)); len(open) != 0 {
				t.Errorf("descriptors are left: %q", open)
			}
			if n := g.connector.Stats().TotalConnections; n != 0 {
				t.Errorf("%d connections are watched", n)
			}
			if _, orphan := orphans.Load(c); orphan || !c.forgotten {
				t.Error("the connection is not forgotten")
			}
			if n := g.outside(t, "INSERT INTO t VALUES(100) RETURNING a"); n != 100 {
				t.Error("nobody can write")
			}
			row := make([]driver.Value, 1)
			wantErr(t, "older rows", older.Next(row), errConnClosed)
			wantErr(t, "Close of older rows", older.Close(), nil)
			wantErr(t, "Exec", second(c.ExecContext(background, "SELECT 1", nil)), errConnClosed)
			wantErr(t, "the older statement", second(stmt.Exec([]driver.Value{int64(1)})), errConnClosed)
			wantErr(t, "Close of the older statement", stmt.Close(), nil)
			switch opened := r.opened.(type) {
			case driver.Rows:
				wantErr(t, "rows", opened.Next(row), errConnClosed)
				wantErr(t, "Close of rows", opened.Close(), nil)
			case driver.Stmt:
				wantErr(t, "statement", second(opened.Query(nil)), errConnClosed)
				wantErr(t, "Close of a statement", opened.Close(), nil)
			case driver.Tx:
				wantErr(t, "Commit", opened.Commit(), errConnClosed)
			}
			wantErr(t, "Close behind it all", c.Close(), nil)
			if c.IsValid() {
				t.Error("the connection is valid")
			}
			g.expect(t, leakEvents)
		})
	}
}

// What is to be left is as go-sqlite3 leaves it.
func TestCloseBesideAStatementLeavesNothing(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T, s *stall, dsn string) bareConn{
		"go-sqlite3": func(t *testing.T, s *stall, dsn string) bareConn {
			return must(s.driver().Open(dsn))(t).(bareConn)
		},
		"guard": func(t *testing.T, s *stall, dsn string) bareConn {
			connector := must(NewConnector(Config{DSN: dsn, SQLite: s.driver()}))(t)
			t.Cleanup(func() { connector.Close() })
			return must(connector.Connect(background))(t).(bareConn)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dsn := newStall(), fileDSN(t)
			c := open(t, s, dsn)
			for _, q := range []string{createT, "BEGIN IMMEDIATE"} {
				must(c.ExecContext(background, q, nil))(t)
			}
			s.arm("step")
			over := make(chan error, 1)
			go func() {
				_, err := c.ExecContext(background, "INSERT INTO t SELECT stall(7)", nil)
				over <- err
			}()
			<-s.entered
			closed := make(chan error, 1)
			go func() { closed <- c.Close() }()
			if name == "guard" { // go-sqlite3's Close waits for the statement
				wantErr(t, "Close", <-closed, nil)
				closed <- nil
			}
			s.leave <- func() {}
			wantErr(t, "the statement", <-over, nil)
			wantErr(t, "Close", <-closed, nil)
			if open := descriptors(t, fileOf(dsn)); len(open) != 0 {
				t.Errorf("descriptors are left: %q", open)
			}
			if n := rawNumber(t, dsn, "INSERT INTO t VALUES(100) RETURNING (SELECT count(*) FROM t)"); n != 0 && n != 1 {
				t.Errorf("%d rows: the transaction was not rolled back", n)
			}
		})
	}
}

// An order that came as well is carried out first, and settled.
func TestCloseBesideACondemnedOperation(t *testing.T) {
	t.Parallel()
	s := newStall()
	g, c := s.connect(t, Config{Policy: txLimit(10 * time.Millisecond)})
	must(c.BeginTx(background, driver.TxOptions{}))(t)
	s.arm("step")
	over := make(chan error, 1)
	go func() {
		_, err := c.ExecContext(background, "INSERT INTO t SELECT stall(7)", nil)
		over <- err
	}()
	<-s.entered
	waitFor(t, "the operation is condemned", func() bool { return c.gate.Has(gate.Condemned) })
	wantErr(t, "Close", c.Close(), nil)
	s.leave <- func() {}
	wantErr(t, "the statement", <-over, ErrReaped)
	if open := descriptors(t, fileOf(g.dsn)); len(open) != 0 {
		t.Errorf("descriptors are left: %q", open)
	}
	g.wait(t, tracker.EventReaped)
	g.wait(t, tracker.EventClosed)
	if w := c.gate.Load() & gate.Flags; w&^(gate.Dead|gate.Tombed) != 0 {
		t.Errorf("flags %#x are left", w)
	}
}

// In a shared cache the others go on.
func TestCloseBesideAnOperationInASharedCache(t *testing.T) {
	t.Parallel()
	s := newStall()
	g, c := s.connect(t, Config{DSN: strings.Replace(fileDSN(t), "?", "?cache=shared&", 1)})
	other := must(g.connector.Connect(background))(t).(*conn)
	defer other.Close()
	s.arm("step")
	over := make(chan error, 1)
	go func() {
		_, err := c.ExecContext(background, "SELECT stall(7)", nil)
		over <- err
	}()
	<-s.entered
	wantErr(t, "Close", c.Close(), nil)
	s.leave <- func() {}
	wantErr(t, "the statement", <-over, nil)
	must(other.ExecContext(background, "INSERT INTO t VALUES(1)", nil))(t)
	if !other.gate.Try() {
		t.Fatal("the gate of the other connection is held")
	}
	other.gate.Release()
	before := other.gate.Shared()
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	next := gate.SharedOf(other.gate.Cache())
	defer next.Drop()
	if next == before {
		t.Error("the closed connection still has a part in the shared cache's gate")
	}
}

// If the operation never comes back, the handle is lost and stays so: Close does not
// crash, waits for nothing, and no finalizer waits for SQLite's mutex.
func TestCloseBesideAPanic(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	ends := map[string]func(){
		"panic":  func() { panic("boom") },
		"Goexit": runtime.Goexit,
	}
	for name, op := range operations {
		for how, end := range ends {
			for when, early := range map[string]bool{"before": true, "behind": false} { // what Close comes
				t.Run(name+"/"+how+"/"+when, func(t *testing.T) {
					s := newStall()
					g, c := s.connect(t, Config{})
					stmt := must(c.Prepare("INSERT INTO t SELECT stall(?)"))(t)
					if op.begin != "" {
						must(c.ExecContext(background, op.begin, nil))(t)
					}
					s.arm(op.at)
					over := make(chan any)
					go func() {
						defer func() { over <- recover() }()
						op.run(t.Context(), c, stmt)
					}()
					<-s.entered
					if early {
						wantErr(t, "Close", c.Close(), nil)
					}
					s.leave <- end
					if r := <-over; how == "panic" && r != "boom" {
						t.Errorf("recovered %v", r)
					}
					if !early {
						if c.IsValid() {
							t.Error("the connection is valid")
						}
						if n := g.connector.Stats().ActiveConnections; n != 0 {
							t.Errorf("%d connections are in use behind the check-in", n)
						}
						wantErr(t, "Close", c.Close(), nil)
					}
					if n := g.connector.Stats().TotalConnections; n != 0 {
						t.Errorf("%d connections are watched", n)
					}
					wantErr(t, "Close again", c.Close(), nil)
					if capiOpen := c.db().OK(); capiOpen {
						t.Error("go-sqlite3 does not take the connection for closed")
					}
					if n := len(g.events(tracker.EventSuspect)); n != 1 {
						waitFor(t, "one report", func() bool { return len(g.events(tracker.EventSuspect)) == 1 })
					}
					if c.IsValid() || c.ResetSession(background) != driver.ErrBadConn {
						t.Error("the connection is good for the pool")
					}
				})
			}
		}
	}
	t.Run("under Close itself", func(t *testing.T) {
		for what, begin := range map[string]string{
			"commit":   "INSERT INTO t VALUES(7),(8) RETURNING a", // its rows are closed first
			"rollback": "BEGIN; INSERT INTO t VALUES(7) RETURNING a",
		} {
			s := newStall()
			s.atRollback = true
			g, c := s.connect(t, Config{})
			must(c.QueryContext(background, begin, nil))(t)
			s.arm(what)
			s.leave <- func() { panic("boom") }
			func() {
				defer func() {
					if r := recover(); r != "boom" {
						t.Errorf("recovered %v", r)
					}
				}()
				c.Close()
			}()
			if c.db().OK() || g.wait(t, tracker.EventSuspect).Reason != tracker.ReasonPanic {
				t.Error("the connection is not given up")
			}
			wantErr(t, "Close again", c.Close(), nil)
		}
	})
	finalized := make(chan struct{})
	runtime.SetFinalizer(&struct{ p *int }{new(int)}, func(any) { close(finalized) })
	collect(t, "finalizers still run", func() bool {
		select {
		case <-finalized:
			return true
		default:
			return false
		}
	})
}

// IsValid and ResetSession beside an operation say that the connection is not fit, and
// do nothing to it: the operation is what it was, and so is the connection.
func TestHooksBesideAnOperation(t *testing.T) {
	t.Parallel()
	for name, op := range operations {
		t.Run(name, func(t *testing.T) {
			s := newStall()
			g, c := s.connect(t, Config{})
			defer c.Close()
			stmt := must(c.Prepare("INSERT INTO t SELECT stall(?)"))(t)
			if op.begin != "" {
				must(c.ExecContext(background, op.begin, nil))(t)
			}
			hooks := func() {
				if c.IsValid() {
					t.Error("IsValid beside an operation")
				}
				if err := c.ResetSession(background); err != driver.ErrBadConn {
					t.Errorf("ResetSession beside an operation: %v", err)
				}
			}
			s.arm(op.at)
			over := make(chan error, 1)
			opened := make(chan any, 1)
			go func() {
				what, err := op.run(t.Context(), c, stmt)
				over <- err
				opened <- what
			}()
			<-s.entered
			hooks()
			if n := g.connector.Stats().ActiveConnections; n != 1 || !c.leased {
				t.Error("the lease is over")
			}
			s.leave <- func() {}
			wantErr(t, "the operation", <-over, nil)
			switch what := (<-opened).(type) {
			case driver.Rows:
				if all := numbers(t, what); !slices.Equal(all, []int64{1, 2, 3}) {
					t.Errorf("rows %v", all)
				}
				mustDo(t, what.Close())
			case driver.Stmt:
				mustDo(t, what.Close())
			case driver.Tx:
				mustDo(t, what.Rollback())
			}
			if c.txn.open {
				must(c.ExecContext(background, "COMMIT", nil))(t)
			}
			must(c.ExecContext(background, "INSERT INTO t VALUES(100)", nil))(t)
			if !c.IsValid() || c.ResetSession(background) != nil {
				t.Error("the connection is not fit any more")
			}
			if n := g.outside(t, "SELECT count(*) FROM t WHERE a = 100"); n != 1 {
				t.Error("the last INSERT is lost")
			}
			g.expect(t, leakEvents)
		})
	}
}

// Everything beside everything: at the end nothing is left. It is for the race detector.
func TestEverythingBesideEverything(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Policy: limits(func(p *tracker.Policy) {
		p.TxTimeout, p.CheckInterval = time.Millisecond, time.Millisecond
		p.MemoryInterval, p.LeakMemory = time.Millisecond, 1<<40
	})})
	run(t, g, createT)
	row := func(r driver.Rows, err error) {
		if err == nil {
			r.Next(make([]driver.Value, 1))
			r.Next(make([]driver.Value, 1))
			r.Close()
		}
	}
	for range 60 {
		c := must(g.connector.Connect(background))(t).(*conn)
		s := must(c.Prepare("SELECT i FROM " + eleven))(t)
		over := make(chan struct{})
		var all sync.WaitGroup
		beside := func(f func()) {
			all.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						f()
						runtime.Gosched()
					}
				}
			})
		}
		ctx, cancel := context.WithCancel(background)
		for _, f := range []func(){
			func() { c.ExecContext(ctx, "INSERT INTO t VALUES(random())", nil) },
			func() { row(c.QueryContext(background, "SELECT i FROM "+eleven, nil)) },
			func() { row(s.Query(nil)) },
			func() {
				if tx, err := c.Begin(); err == nil {
					tx.Commit()
				}
			},
			func() { c.IsValid() },
			func() { c.ResetSession(background) },
		} {
			beside(f)
		}
		for c.gate.Load()>>16 < 50 {
			runtime.Gosched()
		}
		mustDo(t, c.Close())
		close(over)
		all.Wait()
		cancel()
		mustDo(t, c.Close())
		if err := second(c.ExecContext(background, "SELECT 1", nil)); !errors.Is(err, errConnClosed) && !errors.Is(err, ErrReaped) {
			t.Fatalf("Exec behind Close: %v", err)
		}
		if w := c.gate.Load() & gate.Flags; w&^(gate.Dead|gate.Tombed) != 0 {
			t.Fatalf("flags %#x are left", w)
		}
	}
}

// An operation can also end without SQLite having been in it: the program's context
// panics. Nothing of ours holds the connection then, and its record goes with it.
func TestCloseBesideAContextThatPanics(t *testing.T) {
	Exempt(background, "from now on contexts are asked")
	tr := tracker.New(tracker.Options{})
	func() {
		connector := must(NewConnector(Config{DSN: fileDSN(t), Tracker: tr}))(t)
		c := must(connector.Connect(background))(t).(*conn)
		mustDo(t, connector.Close()) // it is an orphan
		func() {
			defer func() { recover() }()
			c.QueryContext(rudeContext{background, func() { panic("no value") }}, "SELECT 1", nil)
		}()
		wantErr(t, "Close", c.Close(), nil)
	}()
	collect(t, "the record is gone", func() bool { return len(tr.Records()) == 0 })
}
