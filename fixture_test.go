package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The fixtures of the law tests. Most tests run in a synctest bubble with a
// tracker made there: the reaper's time is then the bubble's, which stands
// still while any goroutine works, inside SQLite too. A Go function called by
// SQL that sleeps or waits for a channel is idle to the bubble, so a statement
// that runs for an hour takes no time.

var background = context.Background()

// bubble runs f in a synctest bubble, beside other tests.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// limits returns a policy in which nothing is limited but what set sets.
func limits(set func(p *tracker.Policy)) tracker.Policy {
	p := tracker.Policy{CheckInterval: time.Minute, MemoryInterval: time.Minute}
	if set != nil {
		set(&p)
	}
	return p
}

func leakAfter(d time.Duration) tracker.Policy {
	return limits(func(p *tracker.Policy) { p.LeakAfter = d })
}

func txTimeout(d time.Duration) tracker.Policy {
	return limits(func(p *tracker.Policy) { p.TxTimeout = d })
}

func txLimit(d time.Duration) tracker.Policy {
	return limits(func(p *tracker.Policy) { p.TxLimit = d })
}

// idleCloses is a policy that closes what sat in the pool for d, a pool's only
// connection and those with a history included.
func idleCloses(d time.Duration) tracker.Policy {
	return limits(func(p *tracker.Policy) { p.MaxIdle, p.Expire = d, tracker.Close })
}

// guarded is a pool, its connections as far as they were opened, and what the
// tracker said.
type guarded struct {
	*sql.DB
	*recorder
	connector *Connector
	dsn       string
	prepared  *sql.Stmt // for tests that need one

	opening func(*conn) // is shown each connection before anybody uses it

	mu    sync.Mutex
	conns []*conn
}

// open opens a pool with a tracker of its own (if the Config has none), which
// ends with the test.
func open(t testing.TB, cfg Config) *guarded {
	t.Helper()
	if cfg.DSN == "" {
		cfg.DSN = fileDSN(t)
	}
	cfg.SQL = tracker.SQLFull // the tests tell texts apart by their values
	return openExactly(t, cfg)
}

// openExactly is open for the DSN "".
func openExactly(t testing.TB, cfg Config) *guarded {
	t.Helper()
	if cfg.Tracker == nil {
		cfg.Tracker = tracker.New(tracker.Options{})
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	connector, err := NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{connector: connector, dsn: cfg.DSN, recorder: record(t, cfg.Tracker)}
	g.DB = sql.OpenDB(spy{connector, g})
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return g
}

// spy notes the connections that a connector opens.
type spy struct {
	*Connector
	g *guarded
}

func (s spy) Connect(ctx context.Context) (driver.Conn, error) {
	opened, err := s.connect(ctx)
	if c, ok := opened.(*conn); ok {
		if s.g.opening != nil {
			s.g.opening(c)
		}
		s.g.mu.Lock()
		s.g.conns = append(s.g.conns, c)
		s.g.mu.Unlock()
	}
	return opened, err
}

// connect is Connect, but that database/sql sees the guard's own connections
// through the spy.
func (s spy) connect(ctx context.Context) (driver.Conn, error) {
	if s.pool == nil {
		return s.Connector.Connect(ctx)
	}
	return s.Connector.connect(ctx, fromOpener(callstack.Capture(nil)), false)
}

// limit changes the limits: what has to be there before they are broken takes
// its time on a busy machine.
func (g *guarded) limit(t testing.TB, p tracker.Policy) {
	t.Helper()
	if err := g.connector.SetPolicy(p); err != nil {
		t.Fatal(err)
	}
}

// opened returns how many connections there have been.
func (g *guarded) opened() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.conns)
}

// last returns the connection that was opened last.
func (g *guarded) last() *conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.conns[len(g.conns)-1]
}

// conn checks a connection out until the test ends.
func (g *guarded) conn(t testing.TB) *sql.Conn {
	t.Helper()
	c, err := g.Conn(background)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// held checks a connection out for good: over abandoned rows, sql.Conn.Close
// waits for ever. When the test ends, its driver connections are closed in
// database/sql's place, and with them the reaper ends.
func (g *guarded) held(t testing.TB) *sql.Conn {
	t.Helper()
	c, err := g.Conn(background)
	if err != nil {
		t.Fatal(err)
	}
	g.giveUp(t)
	return c
}

// giveUp closes the driver's connections when the test ends, for slots that
// nobody gives back.
func (g *guarded) giveUp(t testing.TB) {
	t.Cleanup(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, c := range g.conns {
			c.Close()
		}
	})
}

// begin begins a transaction that is rolled back at the latest when the test
// ends: one that never ends would keep its bubble from ending.
func (g *guarded) begin(t testing.TB) *sql.Tx {
	t.Helper()
	tx, err := g.BeginTx(background, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

// outside runs a query that returns one number over a connection of its own
// that is not guarded.
func (g *guarded) outside(t testing.TB, query string) int64 {
	t.Helper()
	return rawNumber(t, g.dsn, query)
}

// rows returns how many rows of t another connection sees.
func (g *guarded) rows(t testing.TB) int64 {
	t.Helper()
	return g.outside(t, "SELECT count(*) FROM t")
}

// checkpoint expects that nobody is in the way of a full WAL checkpoint.
func (g *guarded) checkpoint(t testing.TB) {
	t.Helper()
	if busy := g.outside(t, "PRAGMA wal_checkpoint(TRUNCATE)"); busy != 0 {
		t.Error("wal_checkpoint(TRUNCATE): busy")
	}
}

func rawNumber(t testing.TB, dsn, query string) int64 {
	t.Helper()
	c, err := new(sqlite3.SQLiteDriver).Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rows, err := c.(driver.QueryerContext).QueryContext(background, query, nil)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	row := make([]driver.Value, len(rows.Columns()))
	if err := rows.Next(row); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return row[0].(int64)
}

// fileDSN names a database in a folder of the test's own, in WAL mode, whose
// connections do not wait for each other.
func fileDSN(t testing.TB, params ...string) string {
	t.Helper()
	params = append(params, "_journal_mode=WAL", "_busy_timeout=0") // the first of a kind counts
	return "file:" + filepath.Join(t.TempDir(), "test.db") + "?" + strings.Join(params, "&")
}

// fileOf returns the path in a DSN of fileDSN.
func fileOf(dsn string) string {
	path, _, _ := strings.Cut(strings.TrimPrefix(dsn, "file:"), "?")
	return path
}

// funcs returns a driver whose connections have Go functions for SQL.
func funcs(functions map[string]any) *sqlite3.SQLiteDriver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		for name, f := range functions {
			if err := c.RegisterFunc(name, f, false); err != nil {
				return err
			}
		}
		return nil
	}}
}

// pausing is a driver with the SQL function pause(seconds). In a bubble the
// seconds pass at once.
func pausing() *sqlite3.SQLiteDriver {
	return funcs(map[string]any{"pause": func(seconds int64) int64 {
		time.Sleep(time.Duration(seconds) * time.Second)
		return seconds
	}})
}

const (
	createT = "CREATE TABLE t(a UNIQUE)"
	// three and eleven return so many rows; a statement over them looks at
	// SQLite's interrupt flag at each.
	three  = "(SELECT 1 AS i UNION ALL SELECT 2 UNION ALL SELECT 3)"
	eleven = "(SELECT value AS i FROM json_each('[1,2,3,4,5,6,7,8,9,10,11]'))"
	// endless ends by an interrupt only.
	endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n) SELECT count(*) FROM n"
)

// execer is a *sql.DB, *sql.Conn, *sql.Tx or *guarded.
type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

func run(t testing.TB, on execer, queries ...string) {
	t.Helper()
	for _, q := range queries {
		if _, err := on.ExecContext(background, q); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
}

// try returns the error of one statement.
func try(on execer, query string, args ...any) error {
	_, err := on.ExecContext(background, query, args...)
	return err
}

// number runs a query that returns one number.
func number(t testing.TB, on execer, query string) (n int64) {
	t.Helper()
	rows, err := on.QueryContext(background, query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	rows.Next()
	if err := errors.Join(rows.Scan(&n), rows.Err()); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// query opens rows, which are closed at the latest when the test ends, and
// reads the first one.
func query(t testing.TB, on execer, q string) *sql.Rows {
	t.Helper()
	rows, err := on.QueryContext(background, q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	t.Cleanup(func() { rows.Close() })
	if !rows.Next() {
		t.Fatalf("%s: no row: %v", q, rows.Err())
	}
	return rows
}

func prepare(t testing.TB, on execer, q string) *sql.Stmt {
	t.Helper()
	s, err := on.PrepareContext(background, q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// cut expects that rows have no further row and do not look complete.
func cut(t testing.TB, rows *sql.Rows, target error) {
	t.Helper()
	if rows.Next() {
		t.Error("rows: another row")
	}
	wantErr(t, "rows.Err()", rows.Err(), target)
}

// wantErr expects an error that errors.Is finds target in, or nil.
func wantErr(t testing.TB, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: %v, want %v", what, err, target)
	}
}

// wantCode expects go-sqlite3's own error, not wrapped.
func wantCode(t testing.TB, what string, err error, code sqlite3.ErrNo) {
	t.Helper()
	if e, ok := err.(sqlite3.Error); !ok || e.Code != code {
		t.Errorf("%s: %v (%T), want a sqlite3.Error with code %d", what, err, err, code)
	}
}

// recorder keeps the events of a tracker.
type recorder struct {
	tracker *tracker.Tracker

	mu      sync.Mutex
	seen    []tracker.Event
	waiting chan struct{} // closed by the next event, nil if nobody waits
}

func record(t testing.TB, tr *tracker.Tracker) *recorder {
	r := &recorder{tracker: tr}
	t.Cleanup(tr.Subscribe(func(e tracker.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen = append(r.seen, e)
		if r.waiting != nil {
			close(r.waiting)
			r.waiting = nil
		}
	}))
	return r
}

// events returns the events of these types, in order.
func (r *recorder) events(types ...tracker.EventType) []tracker.Event {
	if gate.InBubble() {
		synctest.Wait() // for the dispatcher
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []tracker.Event
	for _, e := range r.seen {
		if slices.Contains(types, e.Type) {
			out = append(out, e)
		}
	}
	return out
}

// wait waits, in real time, for the first event of a type.
func (r *recorder) wait(t testing.TB, typ tracker.EventType) tracker.Event {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		for _, e := range r.seen {
			if e.Type == typ {
				r.mu.Unlock()
				return e
			}
		}
		if r.waiting == nil {
			r.waiting = make(chan struct{})
		}
		changed := r.waiting
		r.mu.Unlock()
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("no event %q within 20 seconds", typ)
		}
	}
}

// expect compares the events of some types with what is wanted, each written
// as "type kind reason", without kind where there is no leak.
func (r *recorder) expect(t testing.TB, types []tracker.EventType, want ...string) {
	t.Helper()
	var got []string
	for _, e := range r.events(types...) {
		got = append(got, eventText(e))
	}
	if !slices.Equal(got, want) {
		t.Errorf("events:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func eventText(e tracker.Event) string {
	if e.Leak == nil {
		return fmt.Sprintf("%v %s", e.Type, e.Reason)
	}
	return fmt.Sprintf("%v %v %s", e.Type, e.Leak.Kind, e.Reason)
}

// leakEvents are the types that tell of leaks.
var leakEvents = []tracker.EventType{tracker.EventSuspect, tracker.EventProven, tracker.EventRecovered, tracker.EventReaped}

// sleep lets the bubble's time pass and everything that is due be done.
func sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// descriptors returns the process's open descriptors on a database file and
// what belongs to it.
func descriptors(t testing.TB, file string) []string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the open descriptors of a process are looked up in /proc")
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", e.Name()))
		if err == nil && strings.HasPrefix(target, file) {
			open = append(open, target)
		}
	}
	return open
}

// collect runs garbage collections until done says so.
func collect(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 seconds: %s", what)
		}
		runtime.GC()
		runtime.Gosched()
	}
}

// alone reports whether the test runs in a process of its own. If it does not,
// it starts one for it and waits: for what cannot be undone in a process.
func alone(t *testing.T) bool {
	t.Helper()
	const key = "LEAKGUARD_TEST_ALONE"
	if os.Getenv(key) == t.Name() {
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(background, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), key+"="+t.Name())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	}
	return false
}

// drive opens one connection without database/sql.
func drive(t testing.TB, cfg Config) *conn {
	t.Helper()
	g := open(t, cfg)
	opened, err := g.connector.connect(background, false, false)
	if err != nil {
		t.Fatal(err)
	}
	c := opened.(*conn)
	t.Cleanup(func() { c.Close() })
	return c
}

// drain reads driver rows to their end.
func drain(rows driver.Rows) error {
	row := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(row); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// failing is a connection of go-sqlite3 that fails where told to.
type failing struct {
	sqliteConn
	query, exec, begin error
	closing            chan struct{} // Close waits for it
	closed             atomic.Bool   // Close was called
}

func (f *failing) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if f.query != nil {
		return nil, f.query
	}
	return f.sqliteConn.QueryContext(ctx, query, args)
}

func (f *failing) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if f.exec != nil {
		return nil, f.exec
	}
	return f.sqliteConn.ExecContext(ctx, query, args)
}

// BeginTx begins, and says that it failed.
func (f *failing) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	tx, err := f.sqliteConn.BeginTx(ctx, opts)
	if err == nil && f.begin != nil {
		return nil, f.begin
	}
	return tx, err
}

func (f *failing) Close() error {
	f.closed.Store(true)
	if f.closing != nil {
		<-f.closing
	}
	return f.sqliteConn.Close()
}

// linger widens the window that it is called in: other goroutines get to run
// while the caller is in the middle of something.
func linger() {
	for range rand.IntN(4) {
		runtime.Gosched()
	}
}
