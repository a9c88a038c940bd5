package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A configuration that cannot be used is refused by name, before anything is
// opened or registered.
func TestNewConnectorErrors(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	for want, cfg := range map[string]Config{
		"_leakguard_tx_timeout": {DSN: "file:x?_leakguard_tx_timeout=1m"},
		"Config.Mode":           {Mode: 9},
		"leak_after":            {Policy: limits(func(p *tracker.Policy) { p.LeakAfter = -1 })},
		"DefaultPolicy":         {Policy: tracker.Policy{TxTimeout: time.Minute}},
	} {
		cfg.Tracker = tr
		if c, err := NewConnector(cfg); err == nil || c != nil || !strings.HasPrefix(err.Error(), "leakguard: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want an error that names %s", cfg, err, want)
		}
	}
	if _, err := new(Driver).OpenConnector("file:x?_leakguard_tx_timeout=soon"); err == nil || !strings.Contains(err.Error(), "soon") {
		t.Errorf("OpenConnector: %v", err)
	}
	if _, err := sql.Open("sqlite-leakguard", "file:x?_leakguard_typo=1"); err == nil || !strings.Contains(err.Error(), "_leakguard_typo") {
		t.Errorf("sql.Open: %v", err)
	}
}

// Pools are named after their file, with a number, or as they are told.
func TestPoolNames(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	for _, test := range []struct {
		cfg  Config
		want string
	}{
		{Config{DSN: "file:/data/shop.db?cache=private"}, "shop.db-1"},
		{Config{DSN: "/other/shop.db"}, "shop.db-2"},
		{Config{DSN: ":memory:"}, ":memory:-1"},
		{Config{DSN: ""}, "temp-1"},
		{Config{DSN: "shop.db", Name: "shop"}, "shop"},
	} {
		test.cfg.Tracker = tr
		c, err := NewConnector(test.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if name := c.pool.Name(); name != test.want {
			t.Errorf("%q: %q, want %q", test.cfg.DSN, name, test.want)
		}
		if _, ok := c.Driver().(*Driver); !ok {
			t.Errorf("the driver is a %T", c.Driver())
		}
		defer c.Close()
	}
}

// What go-sqlite3 cannot open leaves nothing behind.
func TestConnectErrors(t *testing.T) {
	t.Parallel()
	for _, mode := range []tracker.Mode{tracker.Enforce, tracker.Off} {
		g := open(t, Config{DSN: "file:" + t.TempDir() + "/missing/test.db?mode=ro", Mode: mode})
		var cause sqlite3.Error
		if err := try(g, "SELECT 1"); !errors.As(err, &cause) || cause.Code != sqlite3.ErrCantOpen {
			t.Errorf("%v: %v", mode, err)
		}
		if s := g.connector.Stats(); s.Created != 0 || s.TotalConnections != 0 {
			t.Errorf("%v: %d connections registered", mode, s.Created)
		}
	}
}

// Driver.Open is for callers without connectors: a pool of one connection.
func TestDriverOpen(t *testing.T) {
	t.Parallel()
	name := t.Name()
	dsn := fileDSN(t, "_leakguard_name="+name)
	c, err := new(Driver).Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	inPool := func() (n int) {
		for _, r := range tracker.Default().Records() {
			if r.Pool == name {
				n++
			}
		}
		return n
	}
	if n := inPool(); n != 1 {
		t.Errorf("%d connections are watched, want 1", n)
	}
	s, err := c.Prepare("SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Close(), c.Close()); err != nil {
		t.Error(err)
	}
	if n := inPool(); n != 0 {
		t.Errorf("%d connections are watched behind Close", n)
	}
	for _, dsn := range []string{"file:x?_leakguard=sometimes", "file:" + t.TempDir() + "/missing/x.db"} {
		if c, err := new(Driver).Open(dsn); err == nil || c != nil {
			t.Errorf("Open(%s): %v", dsn, err)
		}
	}
	off, err := new(Driver).Open("file::memory:?_leakguard=off")
	if err != nil {
		t.Fatal(err)
	}
	defer off.Close()
	if _, ok := off.(*sqlite3.SQLiteConn); !ok {
		t.Errorf("mode off: %T", off)
	}
}

// The methods without a context that old callers use.
func TestWithoutContext(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	if _, err := c.Exec(createT, nil); err != nil {
		t.Fatal(err)
	}
	tx, err := c.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if res, err := c.Exec("INSERT INTO t VALUES(?), (?)", []driver.Value{int64(1), "two"}); err != nil {
		t.Error(err)
	} else if n, _ := res.RowsAffected(); n != 2 {
		t.Errorf("%d rows", n)
	}
	s, err := c.Prepare("INSERT INTO t VALUES(?)")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.NumInput(); n != 1 {
		t.Errorf("NumInput: %d", n)
	}
	if _, err := s.Exec([]driver.Value{int64(3)}); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	rows, err := c.Query("SELECT a FROM t WHERE a=?", []driver.Value{"two"})
	if err != nil {
		t.Fatal(err)
	}
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil || row[0] != "two" {
		t.Errorf("%v, %v", row[0], err)
	}
	rows.Close()
	if r, err := s.Query([]driver.Value{int64(4)}); err != nil {
		t.Error(err)
	} else if err := errors.Join(drain(r), r.Close()); err != nil {
		t.Error(err)
	}
}

// foreign is a go-sqlite3 whose statements and rows lack methods.
type foreign struct{ sqliteConn }

func (f foreign) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return foreignStmt{}, nil
}

func (f foreign) QueryContext(context.Context, string, []driver.NamedValue) (driver.Rows, error) {
	return noRows{}, nil
}

type foreignStmt struct{ driver.Stmt }

func (foreignStmt) Close() error { return nil }

// Another version of go-sqlite3 may lack what the guard needs: an error, not a
// panic.
func TestForeignTypes(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	real := c.inner
	c.inner = foreign{real}
	_, err := c.Prepare("SELECT 1")
	if err == nil || !strings.Contains(err.Error(), "foreignStmt") {
		t.Errorf("Prepare: %v", err)
	}
	_, err = c.Query("SELECT 1", nil)
	if err == nil || !strings.Contains(err.Error(), "noRows") {
		t.Errorf("Query: %v", err)
	}
	c.inner = real
	if _, err := c.Exec("SELECT 1", nil); err != nil {
		t.Errorf("Exec behind it: %v", err)
	}
}

// The texts of the errors, for each kind and reason.
func TestReapedErrorTexts(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]ReapedError{
		"leakguard: transaction rolled back after 10m0s (tx_timeout 10m)": {
			Leak: tracker.Leak{Kind: tracker.KindTransaction, Reason: tracker.ReasonTxTimeout, Limit: 10 * time.Minute}, After: 10 * time.Minute},
		"leakguard: rows closed after 5.12s, 5.1s without activity (leak_after 5s)": {
			Leak:  tracker.Leak{Kind: tracker.KindRows, Reason: tracker.ReasonLeakAfter, Limit: 5 * time.Second, Idle: 5*time.Second + 101*time.Millisecond},
			After: 5*time.Second + 123*time.Millisecond},
		"leakguard: statement closed after 1.23ms (proven)": {
			Leak: tracker.Leak{Kind: tracker.KindStatement, Reason: tracker.ReasonProven}, After: 1234 * time.Microsecond},
		"leakguard: connection closed after 1h2m3s (custom)": {
			Leak: tracker.Leak{Kind: tracker.KindConnection, Reason: "custom"}, After: time.Hour + 2*time.Minute + 3*time.Second + 400*time.Millisecond},
		"leakguard: transaction rolled back after 2s, left open in the pool": {
			Leak: tracker.Leak{Kind: tracker.KindTransaction, Reason: tracker.ReasonInPool}, After: 2 * time.Second},
	} {
		if got := e.Error(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		if !errors.Is(&e, ErrReaped) || errors.Is(&e, ErrTxAborted) {
			t.Error("Is")
		}
	}
	e := &TxAbortedError{Cause: io.ErrUnexpectedEOF}
	if !errors.Is(e, ErrTxAborted) || !errors.Is(e, io.ErrUnexpectedEOF) || errors.Is(e, ErrReaped) ||
		e.Error() != "leakguard: transaction was aborted by SQLite, roll it back: unexpected EOF" {
		t.Errorf("%v", e)
	}
	// What SQLite repeats of a text stays in its own error.
	cause := errors.New(`near "4111222233334444": syntax error`)
	e = &TxAbortedError{Cause: cause}
	if got := e.Error(); strings.Contains(got, "4111") || !strings.Contains(got, "syntax error") || errors.Unwrap(e) != cause {
		t.Errorf("%s of %v", got, errors.Unwrap(e))
	}
}

// A database that is opened by database/sql's background opener is idle until
// it is used.
func TestOpenedForTheStock(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	g.SetMaxOpenConns(1)
	c := g.conn(t)
	waiting := make(chan error, 1)
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	go func() { waiting <- func() error { _, err := g.ExecContext(ctx, "SELECT 1"); return err }() }()
	for g.Stats().WaitCount == 0 {
		runtime.Gosched()
	}
	// A connection that is thrown away makes the opener open another one.
	c.Raw(func(any) error { return driver.ErrBadConn })
	if err := <-waiting; err != nil {
		t.Fatal(err)
	}
	if n := g.opened(); n != 2 {
		t.Errorf("%d connections were opened, want 2", n)
	}
	if s := g.connector.Stats(); s.ActiveConnections != 0 || s.PoolSize != 1 {
		t.Errorf("%d active, %d idle, want 0 and 1", s.ActiveConnections, s.PoolSize)
	}
	g.mu.Lock()
	second := g.conns[1]
	g.mu.Unlock()
	if second.rec == nil || second.leased {
		t.Error("the second connection is leased")
	}
}
