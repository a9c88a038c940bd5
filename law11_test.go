package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

// Law 11: transparent. Scenario by scenario that is in differential_test.go,
// interface by interface in parity_test.go.

// Errors are go-sqlite3's own values, not wrapped.
func TestErrorsAreTheDriversOwn(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT, "INSERT INTO t VALUES(1)", "CREATE TABLE c(a CHECK(a>0))")
	locked := open(t, Config{DSN: g.dsn})
	writer := locked.conn(t)
	run(t, writer, "BEGIN IMMEDIATE")
	insert := prepare(t, g, insertT)
	for what, test := range map[string]struct {
		f    func() error
		code sqlite3.ErrNo
	}{
		"busy":        {func() error { return try(g, "INSERT INTO t VALUES(2)") }, sqlite3.ErrBusy},
		"begin":       {func() error { return try(g, "BEGIN IMMEDIATE") }, sqlite3.ErrBusy},
		"syntax":      {func() error { return try(g, "SELEC") }, sqlite3.ErrError},
		"query":       {func() error { _, err := g.Query("SELECT * FROM missing"); return err }, sqlite3.ErrError},
		"prepare":     {func() error { _, err := g.Prepare("SELECT * FROM missing"); return err }, sqlite3.ErrError},
		"stmt":        {func() error { _, err := insert.Exec(3); return err }, sqlite3.ErrBusy},
		"stmt query":  {func() error { _, err := insert.Query(3); return err }, sqlite3.ErrBusy},
		"row":         {func() error { return g.QueryRow("SELECT json('{')").Scan(new(string)) }, sqlite3.ErrError},
		"second row":  {func() error { return readAllOf(g, "SELECT json(CASE i WHEN 2 THEN '{' ELSE '1' END) FROM "+three) }, sqlite3.ErrError},
		"in a script": {func() error { return try(g, "SELECT 1; BEGIN; SELECT * FROM missing") }, sqlite3.ErrError},
		"savepoint":   {func() error { return try(g, "RELEASE missing") }, sqlite3.ErrError},
	} {
		err := test.f()
		wantCode(t, what, err, test.code)
		try(g, "ROLLBACK")
	}
	run(t, writer, "ROLLBACK")
	err := try(g, "INSERT INTO t VALUES(1)")
	if e, ok := err.(sqlite3.Error); !ok || e.ExtendedCode != sqlite3.ErrConstraintUnique || e.Error() != "UNIQUE constraint failed: t.a" {
		t.Errorf("constraint: %v (%T)", err, err)
	}
}

func readAllOf(on execer, q string) error {
	rows, err := on.QueryContext(background, q)
	if err != nil {
		return err
	}
	return readAll(rows)
}

// What database/sql compares with == comes through as it is.
func TestSentinelsAreNotWrapped(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	real := c.inner
	for _, want := range []error{driver.ErrSkip, driver.ErrRemoveArgument, io.EOF, context.Canceled} {
		c.inner = &failing{sqliteConn: real, query: want, exec: want}
		if _, err := c.ExecContext(background, "SELECT 1", nil); err != want {
			t.Errorf("Exec: %v, want %v itself", err, want)
		}
		if _, err := c.QueryContext(background, "SELECT 1 -- "+want.Error(), nil); err != want {
			t.Errorf("Query: %v, want %v itself", err, want)
		}
	}
	c.inner = real
	r, err := c.QueryContext(background, "SELECT 1", nil)
	if err != nil {
		t.Fatal(err)
	}
	row := make([]driver.Value, 1)
	if err := errors.Join(r.Next(row)); err != nil || row[0] != int64(1) {
		t.Errorf("Next: %v, %v", row[0], err)
	}
	if err := r.Next(row); err != io.EOF {
		t.Errorf("Next at the end: %v, want io.EOF itself", err)
	}
}

// watching notes what reaches go-sqlite3.
type watching struct {
	sqliteConn
	ctx  context.Context
	opts driver.TxOptions
}

func (w *watching) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	w.ctx = ctx
	return w.sqliteConn.ExecContext(ctx, q, args)
}

func (w *watching) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	w.ctx = ctx
	return w.sqliteConn.QueryContext(ctx, q, args)
}

func (w *watching) PrepareContext(ctx context.Context, q string) (driver.Stmt, error) {
	w.ctx = ctx
	return w.sqliteConn.PrepareContext(ctx, q)
}

func (w *watching) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	w.ctx, w.opts = ctx, opts
	return w.sqliteConn.BeginTx(ctx, opts)
}

func (w *watching) Ping(ctx context.Context) error {
	w.ctx = ctx
	return w.sqliteConn.Ping(ctx)
}

// The caller's ctx reaches go-sqlite3 if it cannot be cancelled, and in a
// bubble; outside the guard watches it, see cancel_test.go. So do TxOptions,
// which today's go-sqlite3 ignores.
func TestContextAndOptionsArePassedOn(t *testing.T) {
	type key struct{}
	check := func(t *testing.T, ctx context.Context) {
		c := drive(t, Config{})
		w := &watching{sqliteConn: c.inner}
		c.inner = w
		opts := driver.TxOptions{Isolation: driver.IsolationLevel(sql.LevelSerializable), ReadOnly: true}
		for name, f := range map[string]func() error{
			"Exec":    func() error { return second(c.ExecContext(ctx, "SELECT 1", nil)) },
			"Query":   func() error { return second(c.QueryContext(ctx, "SELECT 1", nil)) },
			"Prepare": func() error { return second(c.PrepareContext(ctx, "SELECT 1")) },
			"Ping":    func() error { return c.Ping(ctx) },
			"BeginTx": func() error { return second(c.BeginTx(ctx, opts)) },
		} {
			w.ctx = nil
			if err := f(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if w.ctx != ctx {
				t.Errorf("%s: another context", name)
			}
		}
		if w.opts != opts {
			t.Errorf("options %+v, want %+v", w.opts, opts)
		}
	}
	t.Run("for ever", func(t *testing.T) {
		t.Parallel()
		check(t, context.WithValue(background, key{}, "mine"))
	})
	t.Run("bubble", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			check(t, ctx)
		})
	})
}

// An idle connection that the guard closed answers driver.ErrBadConn to
// ResetSession, and to nothing else: database/sql would run the operation again.
func TestErrBadConnOnlyFromResetSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		cfg := Config{Policy: idleCloses(time.Minute)}
		for name, end := range map[string]func(c *conn){
			"idle":   func(c *conn) { c.IsValid(); sleep(3 * time.Minute) },
			"closed": func(c *conn) { c.Close() },
		} {
			c := drive(t, cfg)
			s, err := c.Prepare("SELECT 1")
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Query("SELECT 1", nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
			tx, err := c.Begin()
			if err != nil {
				t.Fatal(err)
			}
			tx.Rollback()
			end(c)
			for what, err := range map[string]error{
				"Exec":      second(c.Exec("SELECT 1", nil)),
				"Query":     second(c.Query("SELECT 1", nil)),
				"Prepare":   second(c.Prepare("SELECT 1")),
				"Begin":     second(c.Begin()),
				"StmtExec":  second(s.Exec(nil)),
				"StmtQuery": second(s.Query(nil)),
				"Commit":    tx.Commit(),
				"Rollback":  tx.Rollback(),
			} {
				if err == nil || errors.Is(err, driver.ErrBadConn) {
					t.Errorf("%s, %s: %v", name, what, err)
				}
				if name == "idle" && !errors.Is(err, ErrReaped) {
					t.Errorf("%s, %s: %v, want ErrReaped", name, what, err)
				}
			}
			if err := c.ResetSession(background); err != driver.ErrBadConn {
				t.Errorf("%s: ResetSession: %v", name, err)
			}
			if c.IsValid() {
				t.Errorf("%s: IsValid", name)
			}
		}
	})
}

// Having both hooks, a connection survives a transaction whose ctx ended, and
// must be clean then.
func TestConnectionIsKeptBehindACancelledTransaction(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{})
		run(t, g, createT)
		for range 5 {
			ctx, cancel := context.WithCancel(background)
			tx, err := g.BeginTx(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			run(t, tx, "INSERT INTO t VALUES(100)")
			query(t, tx, "SELECT * FROM t")
			cancel()
			sleep(time.Second)
		}
		g.untouched(t)
	})
}

// A BEGIN that succeeded and was then called failed is taken back.
func TestBeginThatIsCalledFailed(t *testing.T) {
	t.Parallel()
	for _, rollback := range []error{nil, io.ErrUnexpectedEOF} {
		g := open(t, Config{})
		run(t, g, createT)
		c := g.last()
		real := c.inner
		if !c.gate.Try() {
			t.Fatal("the gate is taken")
		}
		c.inner = &failing{sqliteConn: real, begin: context.Canceled, exec: rollback}
		c.gate.Release()
		if _, err := g.Begin(); err != context.Canceled {
			t.Errorf("Begin: %v", err)
		}
		run(t, g, "INSERT INTO t VALUES(1)")
		if n := g.rows(t); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
		want := 1
		if rollback != nil {
			want = 2 // it could not be taken back: the connection goes
		}
		if g.opened() != want {
			t.Errorf("%d connections were opened, want %d", g.opened(), want)
		}
	}
}

// A transaction inside one that was begun by text fails as without the guard,
// and the one outside goes on.
func TestBeginInsideATextTransaction(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	c := g.conn(t)
	run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
	_, err := c.BeginTx(background, nil)
	wantCode(t, "BeginTx", err, sqlite3.ErrError)
	run(t, c, "INSERT INTO t VALUES(2)", "COMMIT")
	if n := g.rows(t); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}
