package leakguard

import (
	"bytes"
	"context"
	"database/sql/driver"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// hourly breaks after an hour whatever there is to break.
var hourly = limits(func(p *tracker.Policy) {
	p.LeakAfter, p.TxTimeout, p.MaxLifetime, p.MaxIdle, p.MaxAccess = time.Hour, 2*time.Hour, time.Hour, time.Hour, 3
	p.CheckInterval = 10 * time.Minute
})

// forgetAll leaves one of each kind lying about, and returns how to end them.
func forgetAll(t *testing.T, g *guarded, ctx context.Context) (end func() []error) {
	t.Helper()
	c, err := g.Conn(ctx)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := g.QueryContext(ctx, "SELECT i FROM "+eleven)
	if err != nil {
		t.Fatal(err)
	}
	rows.Next()
	tx, err := g.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	run(t, tx, "INSERT INTO t VALUES(1)")
	return func() []error {
		n := 1
		for rows.Next() {
			n++
		}
		if n != 11 {
			t.Errorf("%d rows: %v", n, rows.Err())
		}
		return []error{try(c, "SELECT 1"), c.Close(), rows.Err(), rows.Close(), try(tx, "INSERT INTO t VALUES(2)"), tx.Commit()}
	}
}

// Exempt: reported with the reason, never undone.
func TestExempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: hourly})
		run(t, g, createT)
		end := forgetAll(t, g, Exempt(background, "nightly import"))
		var told []string
		defer g.tracker.OnLeak(func(l tracker.Leak) { told = append(told, l.String()) })()
		sleep(24 * time.Hour)
		for _, err := range end() {
			wantErr(t, "exempt", err, nil)
		}
		if n := g.rows(t); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped})
		if len(told) < 3 {
			t.Errorf("%d leaks reported, want one of each kind: %q", len(told), told)
		}
		for _, text := range told {
			if !strings.Contains(text, "exempt: nightly import") {
				t.Errorf("the report: %s", text)
			}
		}
		// An empty reason is one too; without the ctx nothing is exempt.
		tx, err := g.BeginTx(Exempt(background, ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		other := g.begin(t)
		sleep(24 * time.Hour)
		wantErr(t, "exempt without a reason", try(tx, "SELECT 1"), nil)
		wantErr(t, "Commit", tx.Commit(), nil)
		wantErr(t, "not exempt", try(other, "SELECT 1"), ErrReaped)
		if leak := g.events(tracker.EventSuspect); !slices.ContainsFunc(leak, func(e tracker.Event) bool { return e.Leak.Exempt == "exempt" }) {
			t.Error("not reported as exempt")
		}
	})
}

// Rows that are exempt on a lease that is not.
func TestExemptRows(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		c := g.conn(t)
		run(t, c, "SELECT 1")
		exempt, err := c.QueryContext(Exempt(background, "export"), "SELECT i FROM "+eleven)
		if err != nil {
			t.Fatal(err)
		}
		defer exempt.Close()
		plain := query(t, c, "SELECT i FROM "+eleven)
		for range 10 {
			sleep(30 * time.Second)
			run(t, c, "SELECT 1")
		}
		if !exempt.Next() {
			t.Errorf("exempt rows: %v", exempt.Err())
		}
		cut(t, plain, ErrReaped)
	})
}

// What is opened on an exempt lease is exempt with it.
func TestExemptLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = 10*time.Minute, time.Minute })})
		run(t, g, createT)
		c, err := g.Conn(Exempt(background, "migration"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
		rows := query(t, c, "SELECT i FROM "+eleven)
		sleep(time.Hour)
		if !rows.Next() {
			t.Errorf("the rows: %v", rows.Err())
		}
		rows.Close()
		wantErr(t, "COMMIT", try(c, "COMMIT"), nil)
		for _, e := range g.events(tracker.EventSuspect) {
			if e.Leak.Exempt != "migration" {
				t.Errorf("%v", e.Leak)
			}
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped})
	})
}

// Mode observe: everything is reported, nothing undone or recycled.
func TestModeObserve(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: hourly, Mode: tracker.Observe})
		run(t, g, createT)
		end := forgetAll(t, g, background)
		sleep(24 * time.Hour)
		for _, err := range end() {
			wantErr(t, "observed", err, nil)
		}
		run(t, g, "BEGIN", "INSERT INTO t VALUES(3)")
		sleep(24 * time.Hour)
		run(t, g, "INSERT INTO t VALUES(4)", "COMMIT")
		for range 10 {
			run(t, g, "SELECT 1")
		}
		sleep(24 * time.Hour)
		if n := g.rows(t); n != 4 {
			t.Errorf("%d rows, want 4", n)
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped, tracker.EventRecycled})
		var kinds []string
		for _, e := range g.events(tracker.EventSuspect) {
			kinds = append(kinds, eventText(e))
		}
		for _, want := range []string{"suspect connection leak_after", "suspect rows leak_after", "suspect transaction leak_after", "suspect transaction in_pool"} {
			if !slices.Contains(kinds, want) {
				t.Errorf("not reported: %s; but %q", want, kinds)
			}
		}
	})
}

// Mode basic: what a limit asks for is done at check-in, and nothing else.
func TestModeBasic(t *testing.T) {
	types := []tracker.EventType{tracker.EventRefreshed, tracker.EventRecycled}
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: hourly, Mode: tracker.Basic})
		run(t, g, createT)
		end := forgetAll(t, g, background)
		sleep(24 * time.Hour)
		for _, err := range end() {
			wantErr(t, "basic", err, nil)
		}
		g.expect(t, leakEvents)
		// Three leases ended after a day: of each of them the connection is refreshed.
		g.expect(t, types, "refreshed max_lifetime", "refreshed max_lifetime", "refreshed max_lifetime")
	})
	for expire, want := range map[tracker.Expiry]struct {
		event  string
		opened int
	}{tracker.Refresh: {"refreshed max_access", 1}, tracker.Close: {"recycled max_access", 2}} {
		t.Run("max_access, "+expire.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				policy := hourly
				policy.Expire = expire
				g := open(t, Config{Policy: policy, Mode: tracker.Basic})
				for range 3 {
					run(t, g, "SELECT 1")
				}
				g.expect(t, types, want.event)
				run(t, g, "SELECT 1")
				if n := g.opened(); n != want.opened {
					t.Errorf("%d connections were opened, want %d", n, want.opened)
				}
			})
		})
	}
}

// Mode off: go-sqlite3's own connections, nothing registered.
func TestModeOff(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{Mode: tracker.Off, Tracker: tr})
	run(t, g, createT)
	c := g.conn(t)
	err := c.Raw(func(dc any) error {
		inner, ok := dc.(*sqlite3.SQLiteConn)
		if own, found := SQLiteConn(dc); !ok || !found || own != inner {
			t.Errorf("the connection is a %T", dc)
		}
		return nil
	})
	wantErr(t, "Raw", err, nil)
	if s := g.connector.Stats(); s.TotalConnections != 0 || tr.Stats().Created != 0 {
		t.Errorf("something is tracked: %+v", s)
	}
	for _, test := range []struct {
		policy tracker.Policy
		ok     bool
	}{{tracker.Policy{}, true}, {tracker.DefaultPolicy(), true}, {tracker.Policy{LeakAfter: -1}, false}} {
		if err := g.connector.SetPolicy(test.policy); (err == nil) != test.ok {
			t.Errorf("SetPolicy(%+v): %v", test.policy, err)
		}
	}
}

// wrapping is a connection of a driver around the guard's.
type wrapping struct{ driver.Conn }

func (w wrapping) Raw() driver.Conn { return w.Conn }

// circular wraps itself.
type circular struct{ driver.Conn }

func (c circular) Raw() driver.Conn { return c }

func TestSQLiteConn(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	inner := c.inner.(*sqlite3.SQLiteConn)
	for name, test := range map[string]struct {
		conn any
		ok   bool
	}{
		"guarded": {c, true},
		"raw":     {inner, true},
		"wrapped": {wrapping{wrapping{c}}, true},
		"nil":     {(*sqlite3.SQLiteConn)(nil), false},
		"other":   {42, false},
		"nothing": {nil, false},
		"circle":  {circular{}, false},
	} {
		got, ok := SQLiteConn(test.conn)
		if ok != test.ok || ok && got != inner {
			t.Errorf("%s: %p, %v", name, got, ok)
		}
	}
}

// The real connection is out: the lease is reported and not touched until it is
// checked in; then what was begun on it counts as a transaction by text.
func TestRawIsOnlyReported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = time.Minute, time.Hour })})
		g.SetMaxOpenConns(1)
		run(t, g, createT)
		c := g.conn(t)
		run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
		rows := query(t, c, "SELECT i FROM "+eleven)
		err := c.Raw(func(dc any) error {
			raw, _ := SQLiteConn(dc)
			sleep(10 * time.Minute)
			_, err := raw.Exec("INSERT INTO t VALUES(2)", nil)
			return err
		})
		wantErr(t, "Raw", err, nil)
		sleep(10 * time.Hour)
		if !rows.Next() {
			t.Errorf("the rows: %v", rows.Err())
		}
		rows.Close()
		run(t, c, "INSERT INTO t VALUES(3)")
		err = c.Raw(func(dc any) error { // ends behind the guard's back, and begins again
			raw, _ := SQLiteConn(dc)
			_, err := raw.Exec("COMMIT; BEGIN; INSERT INTO t VALUES(100)", nil)
			return err
		})
		wantErr(t, "Raw", err, nil)
		if e := g.events(tracker.EventSuspect); len(e) == 0 || e[0].Leak.Kept == "" && e[len(e)-1].Leak.Kept == "" {
			t.Errorf("not reported as kept: %v", e)
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped})
		c.Close()
		sleep(2 * time.Hour)
		wantErr(t, "the next operation", try(g, "SELECT 1"), ErrReaped)
		if n := g.rows(t); n != 3 {
			t.Errorf("%d rows, want 3", n)
		}
	})
}

// A transaction begun through the real connection alone, and one ended there.
func TestRawTransactionIsNoticedAtCheckIn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		g.SetMaxOpenConns(1)
		run(t, g, createT)
		raw := func(text string) {
			t.Helper()
			c := g.conn(t)
			defer c.Close()
			err := c.Raw(func(dc any) error { inner, _ := SQLiteConn(dc); _, err := inner.Exec(text, nil); return err })
			wantErr(t, text, err, nil)
		}
		raw("BEGIN; INSERT INTO t VALUES(1)")
		if l := g.level(t); l != 1 {
			t.Errorf("level %d, want 1", l)
		}
		raw("COMMIT")
		if l := g.level(t); l != 0 {
			t.Errorf("level %d, want 0", l)
		}
		raw("BEGIN; INSERT INTO t VALUES(2)")
		sleep(10 * time.Minute)
		g.expect(t, []tracker.EventType{tracker.EventReaped}, "reaped transaction in_pool")
		wantErr(t, "the next operation", try(g, "SELECT 1"), ErrReaped)
		if n := g.rows(t); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

// Limits change at run time.
func TestSetPolicy(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(nil)})
		run(t, g, createT)
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		sleep(24 * time.Hour)
		wantErr(t, "no limits", try(tx, "SELECT 1"), nil)
		if err := g.connector.SetPolicy(txTimeout(time.Second)); err != nil {
			t.Fatal(err)
		}
		sleep(2 * time.Second)
		wantErr(t, "one second", try(tx, "SELECT 1"), ErrReaped)
		bad := tracker.DefaultPolicy()
		bad.TxTimeout = -time.Second
		if err := g.connector.SetPolicy(bad); err == nil || !strings.Contains(err.Error(), "leakguard: ") || !strings.Contains(err.Error(), "tx_timeout") {
			t.Errorf("a bad policy: %v", err)
		}
		if err := g.connector.SetPolicy(tracker.Policy{}); err != nil || g.connector.pool.Policy() != tracker.DefaultPolicy() {
			t.Errorf("the zero policy: %v, %+v", err, g.connector.pool.Policy())
		}
	})
}

// A callback may close the database.
func TestOnLeakMayCloseTheDatabase(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g, createT)
		closed := make(chan error, 1)
		var once sync.Once
		defer g.tracker.OnLeak(func(tracker.Leak) { once.Do(func() { closed <- g.DB.Close() }) })()
		rows := query(t, g, "SELECT i FROM "+eleven)
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		sleep(10 * time.Minute)
		select {
		case err := <-closed:
			wantErr(t, "Close", err, nil)
		default:
			t.Fatal("Close did not return")
		}
		cut(t, rows, ErrReaped) // leases that are out stay watched
		wantErr(t, "SELECT", try(tx, "SELECT 1"), ErrReaped)
		rows.Close()
		wantErr(t, "Rollback", tx.Rollback(), nil)
		if n := g.tracker.Stats().TotalConnections; n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// The package's functions are about the process's tracker.
func TestDefaultTrackerFunctions(t *testing.T) {
	t.Parallel()
	name := t.Name()
	leaks := make(chan tracker.Leak, 16)
	cancel := OnLeak(func(l tracker.Leak) {
		if l.Pool == name {
			leaks <- l
		}
	})
	defer cancel()
	g := open(t, Config{Tracker: tracker.Default(), Name: name, Policy: limits(nil)})
	rows := query(t, g, "SELECT i FROM "+eleven) // the line that is named
	g.limit(t, leakAfter(20*time.Millisecond))
	leak := <-leaks
	if leak.Kind != tracker.KindRows || !strings.Contains(leak.String(), "/fixture_test.go:") {
		t.Errorf("the leak: %v", leak)
	}
	s := Stats()
	if !slices.ContainsFunc(s.ActiveConnectionDetails, func(d tracker.ConnectionDetail) bool { return d.Pool == name }) || s.LeakedDetected == 0 {
		t.Errorf("Stats knows nothing of the pool %s", name)
	}
	for rows.Next() { // until it is reaped, or all is read
	}
	rows.Close()
}

// first returns a channel that is closed by the first event of a type. To wait
// for it tells the race detector nothing, unlike wait's lock.
func first(t *testing.T, tr *tracker.Tracker, typ tracker.EventType) <-chan struct{} {
	seen := make(chan struct{})
	var once sync.Once
	t.Cleanup(tr.Subscribe(func(e tracker.Event) {
		if e.Type == typ {
			once.Do(func() { close(seen) })
		}
	}))
	return seen
}

// A lease that nobody touches after it was opened is found too.
func TestFreshLeaseIsFound(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Mode: tracker.Observe, Policy: leakAfter(10 * time.Millisecond)}) // reaping may be faster
	suspect := first(t, g.tracker, tracker.EventSuspect)
	c := g.conn(t)
	<-suspect
	run(t, c, "SELECT 1")
}

// database/sql asks a statement for its parameters while the reaper may be
// closing it.
func TestNumInputBesideTheReaper(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Policy: limits(nil)})
	reaped := first(t, g.tracker, tracker.EventReaped)
	tx := g.begin(t)
	s := prepare(t, tx, "SELECT ?")
	g.limit(t, leakAfter(20*time.Millisecond))
	if _, err := s.Exec(); err == nil || err.Error() != "sql: expected 1 arguments, got 0" {
		t.Errorf("%v", err)
	}
	<-reaped
	if _, err := s.Exec(1); err == nil {
		t.Error("a reaped statement runs")
	}
}

// Logger: leaks at warn, the rest at debug.
func TestLogger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer // written by the dispatcher only
		g := open(t, Config{Policy: leakAfter(time.Minute), Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		rows := query(t, g, "SELECT i FROM "+eleven)
		sleep(10 * time.Minute)
		rows.Close()
		g.Close()
		synctest.Wait()
		for _, want := range []string{
			`level=DEBUG msg="connection opened" component=leakguard pool=`, `level=WARN msg="leak found" component=leakguard pool=`,
			`level=WARN msg="leak undone" component=leakguard pool=`, `level=DEBUG msg="connection closed" component=leakguard pool=`,
		} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("no line with %s in\n%s", want, log.String())
			}
		}
	})
}

// Every kind of leak names the line that opened it, and what was run.
func TestLeaksNameTheirLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g, createT)
		c, err := g.Conn(background)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rows, err := g.Query("SELECT i FROM " + eleven)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		tx, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		sleep(10 * time.Minute)
		found := make(map[tracker.Kind]tracker.Frame)
		for _, e := range g.events(tracker.EventSuspect) {
			found[e.Leak.Kind] = e.Leak.Site()
		}
		last := 0
		for _, kind := range []tracker.Kind{tracker.KindConnection, tracker.KindRows, tracker.KindTransaction} {
			f := found[kind]
			if !strings.HasSuffix(f.File, "/modes_test.go") || !strings.Contains(f.Function, "TestLeaksNameTheirLine") || f.Line <= last {
				t.Errorf("the %v was opened at %v in %s", kind, f, f.Function)
			}
			last = f.Line
		}
	})
}

// The statistics have the origin's names.
func TestStatsJSON(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute), Name: "shop"})
		begin := time.Now()
		run(t, g, createT)
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)", "SAVEPOINT s")
		for g.connector.Stats().LeakedDetected == 0 {
			sleep(time.Second)
		}
		text, err := json.Marshal(g.connector.Stats())
		if err != nil {
			t.Fatal(err)
		}
		var s map[string]any
		if err := json.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]any{
			"total_connections": 1.0, "active_connections": 1.0, "pool_size": 0.0, "max_connections": 0.0,
			"created": 1.0, "reused": 1.0, "expired": 0.0, "leaked_detected": 1.0, "force_closed": 0.0, "aggressive_cleanups": 0.0,
		} {
			if s[name] != want {
				t.Errorf("%s: %v, want %v", name, s[name], want)
			}
		}
		detection, _ := s["leak_detection"].(map[string]any)
		if detection["potentially_leaked_count"] != 1.0 || detection["recent_leak_alerts"] != 1.0 || detection["connection_history_size"] != 2.0 {
			t.Errorf("leak_detection: %v", detection)
		}
		details, _ := s["active_connection_details"].([]any)
		if len(details) != 1 {
			t.Fatalf("active_connection_details: %v", details)
		}
		d, _ := details[0].(map[string]any)
		for name, want := range map[string]any{
			"connection_id": "shop#1", "age": time.Since(begin).Seconds(), "transaction_level": 2.0, "access_count": 2.0, "potentially_leaked": true,
			"query": "SAVEPOINT s", "state": "leased",
		} {
			if d[name] != want {
				t.Errorf("%s: %v, want %v", name, d[name], want)
			}
		}
		if at, _ := d["opened_at"].(string); !strings.Contains(at, "/fixture_test.go:") {
			t.Errorf("opened_at: %v", d["opened_at"])
		}
	})
}

// Without stacks the errors say less, and nothing else changes.
func TestNoStacks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute), NoStacks: true})
		tx := g.begin(t)
		sleep(10 * time.Minute)
		err := try(tx, "SELECT 1")
		wantErr(t, "SELECT", err, ErrReaped)
		if strings.Contains(err.Error(), "opened at") {
			t.Errorf("%v", err)
		}
	})
}

// _leakguard_log=off: nothing is written, also not to the program's own logger.
func TestNoLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var log bytes.Buffer
		g := open(t, Config{Policy: leakAfter(time.Minute), NoLog: true, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		rows := query(t, g, "SELECT i FROM "+eleven)
		sleep(10 * time.Minute)
		rows.Close()
		g.Close()
		synctest.Wait()
		if log.Len() > 0 {
			t.Errorf("logged %s", log.String())
		}
		if n := len(g.events(tracker.EventReaped)); n != 1 {
			t.Errorf("%d events, want the leak's", n)
		}
	})
}
