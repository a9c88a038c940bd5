package leakguard

import (
	"context"
	"database/sql/driver"
	"io"
	"runtime"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Interrupts for operations whose context ends at the wrong moment: while the
// owner looks at it, or right behind its last look.

// lookedAt is a context that says when the owner looks whether it is over.
type lookedAt struct {
	context.Context
	done chan struct{}
	n    int
	// before comes before the look n is answered, behind comes after it.
	before, behind func(n int)
}

func newLookedAt() *lookedAt {
	return &lookedAt{Context: background, done: make(chan struct{})}
}

func (l *lookedAt) Done() <-chan struct{} { return l.done }

func (l *lookedAt) Err() (err error) {
	l.n++
	if l.before != nil {
		l.before(l.n)
	}
	select {
	case <-l.done:
		err = context.Canceled
	default:
	}
	if l.behind != nil {
		l.behind(l.n)
	}
	return err
}

// inTx begins a transaction with a row on a connection without database/sql.
func inTx(t *testing.T, c *conn) {
	t.Helper()
	for _, text := range []string{createT, "BEGIN", "INSERT INTO t VALUES(1)"} {
		if _, err := c.Exec(text, nil); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
}

// stillCommits expects that the connection's transaction is untouched.
func stillCommits(t *testing.T, c *conn) {
	t.Helper()
	for _, text := range []string{"INSERT INTO t VALUES(2)", "COMMIT"} {
		if _, err := c.Exec(text, nil); err != nil {
			t.Errorf("%s behind an operation that was stopped: %v", text, err)
		}
	}
	if !c.inner.AutoCommit() {
		t.Error("the transaction is open")
	}
}

// The context ends behind the owner's last look and the watchdog interrupts:
// SQLite has nothing left to do, and keeps the interrupt for what comes next as
// long as the rows are open. They end with their context, and nothing else does.
func TestInterruptDoesNotStickToRows(t *testing.T) {
	const text = "SELECT i FROM " + eleven
	query := map[string]func(c *conn, ctx context.Context) (driver.Rows, error){
		"text": func(c *conn, ctx context.Context) (driver.Rows, error) {
			return c.QueryContext(ctx, text, nil)
		},
		"kept text": func(c *conn, ctx context.Context) (driver.Rows, error) {
			for range 3 {
				rows, err := c.QueryContext(background, text, nil)
				if err != nil {
					return nil, err
				}
				rows.Close()
			}
			return c.QueryContext(ctx, text, nil)
		},
		"prepared": func(c *conn, ctx context.Context) (driver.Rows, error) {
			s, err := c.Prepare(text)
			if err != nil {
				return nil, err
			}
			return s.(*stmt).QueryContext(ctx, nil)
		},
	}
	for name, open := range query {
		t.Run("query by "+name, func(t *testing.T) {
			t.Parallel()
			c := drive(t, Config{})
			inTx(t, c)
			ctx := newLookedAt()
			ctx.behind = func(n int) {
				if n == 2 { // arm's look, and begun's
					close(ctx.done)
					c.watch.stop(c.gate.Load())
				}
			}
			rows, err := open(c, ctx)
			if err != nil || ctx.n < 2 {
				t.Fatalf("%v after %d looks: not the case that was meant", err, ctx.n)
			}
			stillCommits(t, c)
			if err := rows.Next(make([]driver.Value, 1)); err != context.Canceled {
				t.Errorf("Next: %v, want context.Canceled itself", err)
			}
			if err := rows.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
		t.Run("row of "+name, func(t *testing.T) {
			t.Parallel()
			c := drive(t, Config{})
			inTx(t, c)
			ctx := newLookedAt()
			rows, err := open(c, ctx)
			if err != nil {
				t.Fatal(err)
			}
			row := make([]driver.Value, 1)
			first := ctx.n
			ctx.behind = func(n int) {
				if n == first+2 { // arm's look, and the one behind the step
					close(ctx.done)
					c.watch.stop(c.gate.Load())
				}
			}
			for range 2 { // the first one was read with the query
				if err := rows.Next(row); err != nil {
					t.Fatalf("Next: %v", err)
				}
			}
			if ctx.n < first+2 {
				t.Fatalf("%d looks: not the case that was meant", ctx.n-first)
			}
			stillCommits(t, c)
			if err := rows.Next(row); err != context.Canceled {
				t.Errorf("Next: %v, want context.Canceled itself", err)
			}
			rows.Close()
		})
		t.Run("row of "+name+", over before", func(t *testing.T) {
			t.Parallel()
			c := drive(t, Config{})
			inTx(t, c)
			ctx := newLookedAt()
			rows, err := open(c, ctx)
			if err != nil {
				t.Fatal(err)
			}
			row := make([]driver.Value, 1)
			if err := rows.Next(row); err != nil {
				t.Fatalf("Next: %v", err)
			}
			close(ctx.done)
			ctx.before = func(int) { c.watch.stop(c.gate.Load()) } // before the owner sees it
			for range 2 {
				if err := rows.Next(row); err != context.Canceled {
					t.Errorf("Next: %v, want context.Canceled itself", err)
				}
			}
			ctx.before = nil
			stillCommits(t, c)
			rows.Close()
		})
	}
}

// Other rows are open beside the operation: what stops it must not reach them,
// also when the owner is done with it and the watchdog not yet.
func TestInterruptSparesRowsBeside(t *testing.T) {
	// late has the watchdog set its bit on the operation, and look at the
	// beside bit once the owner has taken the watch off.
	late := func(c *conn) (over chan struct{}) {
		over = make(chan struct{})
		begun := make(chan struct{})
		word := c.gate.Load()
		go func() {
			defer close(over)
			c.gate.Stop(word, func() {
				close(begun)
				for c.gate.Has(gate.Watched) {
					runtime.Gosched()
				}
				c.interrupt()
			})
		}()
		<-begun
		return over
	}
	t.Run("over before it begins", func(t *testing.T) {
		t.Parallel()
		c := drive(t, Config{})
		inTx(t, c)
		rows, err := c.Query("SELECT i FROM "+eleven, nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx := newLookedAt()
		close(ctx.done)
		var over chan struct{}
		ctx.before = func(n int) {
			if n == 1 {
				over = late(c)
			}
		}
		if _, err := c.ExecContext(ctx, "INSERT INTO t VALUES(3)", nil); err != context.Canceled {
			t.Errorf("INSERT: %v, want context.Canceled itself", err)
		}
		<-over
		stillCommits(t, c)
		if err := drain(rows); err != nil {
			t.Errorf("the rows beside: %v", err)
		}
		rows.Close()
	})
	t.Run("on its way out", func(t *testing.T) {
		t.Parallel()
		c := drive(t, Config{})
		inTx(t, c)
		rows, err := c.Query("SELECT i FROM "+eleven, nil)
		if err != nil {
			t.Fatal(err)
		}
		if f := c.gate.Enter(); f != 0 {
			t.Fatalf("flags %#x", f)
		}
		ctx := newLookedAt()
		if _, _, err := c.arm(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if !c.watch.stop(c.gate.Load()) || c.gate.Leave() {
			t.Fatal("not stopped")
		}
		over := late(c) // once more, between leave and what it asks for
		if err := c.seeTo(nil); err != nil {
			t.Error(err)
		}
		if !c.gate.Leave() {
			t.Error("the operation did not end")
		}
		<-over
		stillCommits(t, c)
		if err := drain(rows); err != nil && err != io.EOF {
			t.Errorf("the rows beside: %v", err)
		}
		rows.Close()
	})
}
