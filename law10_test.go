package leakguard

import (
	"context"
	"database/sql"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 10: the guard leaks nothing itself, and bubbles keep working. That no
// goroutine is left when all tests are over, TestMain looks after. A bubble in
// which a goroutine is left does not end.

// A connector without connections has no goroutine, also after its last one.
func TestNoGoroutineWithoutConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		connector, err := NewConnector(Config{DSN: fileDSN(t), Tracker: tracker.New(tracker.Options{}), Policy: leakAfter(time.Minute), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			c, err := connector.Connect(background)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Minute)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// Mode basic has none at all.
func TestNoGoroutineInModeBasic(t *testing.T) {
	t.Parallel()
	var opened interface{ Close() error }
	synctest.Test(t, func(t *testing.T) {
		connector, err := NewConnector(Config{DSN: "file:law10a?mode=memory", Tracker: tracker.New(tracker.Options{}), Mode: tracker.Basic})
		if err != nil {
			t.Fatal(err)
		}
		if opened, err = connector.Connect(background); err != nil {
			t.Fatal(err)
		}
	})
	if err := opened.Close(); err != nil {
		t.Error(err)
	}
}

// Close waits for the reaper and for closings on goroutines of their own.
func TestCloseWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: idleCloses(time.Minute)})
		closing := make(chan struct{})
		g.opening = func(c *conn) { c.inner = &failing{sqliteConn: c.inner, closing: closing} }
		run(t, g, createT)
		sleep(3 * time.Minute)
		g.expect(t, []tracker.EventType{tracker.EventRecycled}, "recycled max_idle")
		closed := make(chan error, 1)
		go func() { closed <- g.Close() }()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait")
		default:
		}
		close(closing)
		wantErr(t, "Close", <-closed, nil)
		if open := descriptors(t, fileOf(g.dsn)); len(open) > 0 {
			t.Errorf("open behind Close: %v", open)
		}
		if n := g.connector.Stats().TotalConnections; n != 0 {
			t.Errorf("%d connections behind Close", n)
		}
	})
}

// useEverything does a bit of all, with and without contexts that can end.
func useEverything(t *testing.T, db *sql.DB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	for _, ctx := range []context.Context{background, ctx} {
		if _, err := db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS t(a)"); err != nil {
			t.Fatal(err)
		}
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := tx.ExecContext(ctx, "INSERT INTO t VALUES(?)", 1); err != nil {
				t.Fatal(err)
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		rows, err := db.QueryContext(ctx, "SELECT a FROM t")
		if err != nil {
			t.Fatal(err)
		}
		if err := readAll(rows); err != nil {
			t.Fatal(err)
		}
		s, err := db.PrepareContext(ctx, "SELECT count(*) FROM t")
		if err != nil {
			t.Fatal(err)
		}
		var n int
		if err := s.QueryRowContext(ctx).Scan(&n); err != nil || n == 0 {
			t.Fatal(n, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := db.PingContext(ctx); err != nil {
			t.Error(err)
		}
	}
	// One that has ended ends what uses it.
	ended, cancel := context.WithCancel(background)
	cancel()
	if _, err := db.ExecContext(ended, "SELECT 1"); err != context.Canceled {
		t.Errorf("a context that has ended: %v", err)
	}
}

// A program under test that opens its database inside a bubble, with the
// process's own tracker.
func TestDefaultTrackerInABubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, err := sql.Open("sqlite-leakguard", fileDSN(t, "_leakguard_leak_after=50ms", "_leakguard_check_interval=10ms"))
		if err != nil {
			t.Fatal(err)
		}
		useEverything(t, db)
		time.Sleep(time.Hour)
		useEverything(t, db)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Recycling closes a handle beside the program, but not in its bubble.
func TestRecyclingInABubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		db, err := sql.Open("sqlite-leakguard", fileDSN(t, "_leakguard_max_access=3", "_leakguard_check_interval=10ms"))
		if err != nil {
			t.Fatal(err)
		}
		db.SetMaxOpenConns(1)
		for range 20 {
			if _, err := db.Exec("SELECT 1"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Contexts of a bubble are not looked at from outside, where the watchdog runs
// while there is work.
func TestWatchdogBesideABubble(t *testing.T) {
	t.Parallel()
	outside := open(t, Config{})
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	enough := make(chan struct{}) // for the watchdog to have looked many times
	over := make(chan struct{})
	go func() {
		defer close(over)
		for begin := time.Now(); time.Since(begin) < 50*time.Millisecond; {
			if _, err := outside.ExecContext(ctx, "SELECT 1"); err != nil {
				t.Error(err)
			}
		}
		close(enough)
	}()
	synctest.Test(t, func(t *testing.T) {
		g := open(t, Config{SQLite: funcs(map[string]any{"sit": func() int { <-enough; return 1 }})})
		ctx, cancel := context.WithTimeout(background, time.Minute)
		defer cancel()
		_, err := g.ExecContext(ctx, "SELECT sit()")
		wantErr(t, "Exec", err, nil)
		useEverything(t, g.DB)
	})
	<-over
}

// Its ctx reaches SQLite there too.
func TestContextEndsAQueryInABubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		connector, err := NewConnector(Config{DSN: fileDSN(t), SQLite: pausing(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(connector)
		defer db.Close()
		ctx, cancel := context.WithTimeout(background, time.Minute)
		defer cancel()
		_, err = db.ExecContext(ctx, "SELECT sum(pause(60)) FROM "+eleven)
		wantErr(t, "Exec", err, context.DeadlineExceeded)
		useEverything(t, db)
	})
}

// The reaper of the process's tracker runs outside, on real time, and undoes
// what was forgotten in the bubble.
func TestOutsideReaperAndABubble(t *testing.T) {
	t.Parallel()
	cfg := Config{
		DSN:     fileDSN(t, "_busy_timeout=10000"), // the reaped handle closes beside the test
		Tracker: tracker.Default(), Policy: limits(nil), Name: t.Name(),
	}
	outsideCfg := cfg
	outsideCfg.Policy = leakAfter(20 * time.Millisecond)
	outside := open(t, outsideCfg)
	outside.conn(t) // keeps the reaper running
	reaped := make(chan struct{})
	inside := t.Name() + "-inside"
	defer tracker.Default().Subscribe(func(e tracker.Event) {
		if e.Type == tracker.EventReaped && e.Pool == inside {
			close(reaped)
		}
	})()
	synctest.Test(t, func(t *testing.T) {
		cfg := cfg
		cfg.Name = inside
		g := open(t, cfg)
		run(t, g, createT)
		rows := query(t, g, "SELECT i FROM "+eleven)
		g.limit(t, leakAfter(20*time.Millisecond))
		<-reaped
		g.limit(t, limits(nil))
		cut(t, rows, ErrReaped)
		rows.Close()
		run(t, g, "INSERT INTO t VALUES(1)")
	})
}

// A tracker of the bubble's own lives on its time: an hour passes at once, and
// every run is the same.
func TestBubbleIsDeterministic(t *testing.T) {
	t.Parallel()
	var first []string
	for _, name := range []string{"first", "second", "third"} {
		var got []string
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := open(t, Config{Policy: limits(func(p *tracker.Policy) {
					p.LeakAfter, p.TxTimeout, p.MaxIdle = 10*time.Minute, 30*time.Minute, 20*time.Minute
				})})
				begin := time.Now()
				run(t, g, createT)
				synctest.Wait() // the reaper's first look, which else may come before or after the rest
				c := g.conn(t)
				rows := query(t, g, "SELECT i FROM "+eleven)
				tx := g.begin(t)
				run(t, tx, "SELECT 1")
				for range 40 {
					sleep(time.Minute)
					c.PingContext(background)
				}
				rows.Close()
				tx.Rollback()
				sleep(2 * time.Hour)
				for _, e := range g.events(append(slices.Clone(leakEvents), tracker.EventRecycled, tracker.EventClosed)...) {
					got = append(got, e.Time.Sub(begin).String()+" "+eventText(e))
				}
			})
		})
		if first == nil {
			first = got
		}
		if len(got) < 6 || !slices.Equal(got, first) {
			t.Errorf("this time:\n\t%s\nthe first time:\n\t%s", strings.Join(got, "\n\t"), strings.Join(first, "\n\t"))
		}
	}
}
