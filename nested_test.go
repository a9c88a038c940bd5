package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"
)

// levels runs f inside nested InTx: f(1) in the outermost, f(2) in a savepoint,
// and so on. Each level inserts its number before it goes down, and its number
// plus ten when it is back. What f returns or does ends its level.
func levels(ctx context.Context, db *sql.DB, depth int, f func(level int) error) error {
	var down func(ctx context.Context, level int) error
	down = func(ctx context.Context, level int) error {
		return InTx(ctx, db, nil, func(ctx context.Context, tx *sql.Tx) error {
			if err := try(tx, insertT, level); err != nil {
				return err
			}
			if level < depth {
				// The level outside goes on whatever became of the one inside.
				err := down(ctx, level+1)
				if err := try(tx, insertT, level+10); err != nil {
					return err
				}
				if err != nil && !errors.Is(err, errInside) {
					return fmt.Errorf("level %d: %w", level+1, err)
				}
			}
			return f(level)
		})
	}
	return down(ctx, 1)
}

var errInside = errors.New("on purpose")

func (g *guarded) numbers(t *testing.T) (out []int) {
	t.Helper()
	rows, err := g.Query("SELECT a FROM t ORDER BY a")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// An error undoes exactly its own level.
func TestInTxErrorAtEachLevel(t *testing.T) {
	t.Parallel()
	for failing, want := range map[int][]int{
		0: {1, 2, 3, 11, 12},
		1: nil,
		2: {1, 11},
		3: {1, 2, 11, 12},
	} {
		g := open(t, Config{})
		run(t, g, createT)
		err := levels(background, g.DB, 3, func(level int) error {
			if level == failing {
				return errInside
			}
			return nil
		})
		if failing == 1 != errors.Is(err, errInside) || failing != 1 && err != nil {
			t.Errorf("failing at %d: %v", failing, err)
		}
		if got := g.numbers(t); !slices.Equal(got, want) {
			t.Errorf("failing at %d: %v, want %v", failing, got, want)
		}
		if g.opened() != 1 || g.Stats().InUse != 0 {
			t.Errorf("failing at %d: %d connections, %d in use", failing, g.opened(), g.Stats().InUse)
		}
	}
}

// So does a panic, which goes on, and runtime.Goexit.
func TestInTxPanicAtEachLevel(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(){"panic": func() { panic(errInside) }, "Goexit": runtime.Goexit} {
		for leaving, want := range map[int][]int{1: nil, 2: {1, 11}, 3: {1, 2, 11, 12}} {
			g := open(t, Config{})
			run(t, g, createT)
			var recovered any
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				defer func() { recovered = recover() }()
				if name == "Goexit" || leaving == 1 {
					levels(background, g.DB, leaving, func(level int) error {
						if level == leaving {
							leave()
						}
						return nil
					})
					return
				}
				// The level outside the one that panics recovers, and commits.
				want := leaving
				var down func(ctx context.Context, level int) error
				down = func(ctx context.Context, level int) error {
					return InTx(ctx, g.DB, nil, func(ctx context.Context, tx *sql.Tx) (err error) {
						run(t, tx, fmt.Sprintf("INSERT INTO t VALUES(%d)", level))
						if level == want {
							leave()
						}
						func() {
							defer func() {
								if r := recover(); r != nil && r != errInside {
									panic(r)
								}
							}()
							err = down(ctx, level+1)
						}()
						run(t, tx, fmt.Sprintf("INSERT INTO t VALUES(%d)", level+10))
						return err
					})
				}
				if err := down(background, 1); err != nil {
					t.Errorf("%v", err)
				}
			}()
			<-ended
			if name == "Goexit" {
				want = nil // nobody stops it on its way out
			}
			if name == "panic" && leaving == 1 && recovered != errInside {
				t.Errorf("recovered %v, want the panic's own value", recovered)
			}
			if got := g.numbers(t); !slices.Equal(got, want) {
				t.Errorf("%s at %d: %v, want %v", name, leaving, got, want)
			}
			if g.opened() != 1 || g.Stats().InUse != 0 {
				t.Errorf("%s at %d: %d connections, %d in use", name, leaving, g.opened(), g.Stats().InUse)
			}
		}
	}
}

// level is what Stats says of the one connection that is in use.
func (g *guarded) level(t *testing.T) int {
	t.Helper()
	details := g.connector.Stats().ActiveConnectionDetails
	if len(details) == 0 {
		t.Fatal("no connection")
	}
	return details[0].TransactionLevel
}

func TestInTxLevelIsVisible(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	var inside []int
	err := levels(background, g.DB, 4, func(int) error { inside = append(inside, g.level(t)); return nil })
	if err != nil || !slices.Equal(inside, []int{4, 3, 2, 1}) {
		t.Errorf("levels %v on the way out, %v", inside, err)
	}
	if l := g.level(t); l != 0 {
		t.Errorf("level %d behind it", l)
	}
	// Savepoints by text count too, however they are nested and ended.
	c := g.conn(t)
	for i, step := range []struct {
		text  string
		level int
	}{
		{"BEGIN", 1}, {"SAVEPOINT a", 2}, {"SAVEPOINT b", 3}, {"SAVEPOINT \"A\"", 4}, {"ROLLBACK TO b", 3}, {"RELEASE a", 1},
		{"SAVEPOINT a; SAVEPOINT b", 3}, {"ROLLBACK TO SAVEPOINT a", 2}, {"ROLLBACK; BEGIN", 1}, {"COMMIT", 0},
		{"SAVEPOINT a", 1}, {"SAVEPOINT b", 2}, {"BEGIN", 2}, {"RELEASE missing", 2}, {"RELEASE a", 0},
		{"SAVEPOINT a; RELEASE a; BEGIN; SAVEPOINT b", 2}, {"RELEASE b; COMMIT; SAVEPOINT c", 1}, {"RELEASE c; BEGIN", 1}, {"END", 0},
	} {
		err := try(c, step.text)
		if l := g.level(t); l != step.level {
			t.Errorf("step %d, %s: level %d, want %d (%v)", i, step.text, l, step.level, err)
		}
	}
	rows, err := c.QueryContext(background, "BEGIN; SAVEPOINT a; SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	if l := g.level(t); l != 2 {
		t.Errorf("begun by a query: level %d, want 2", l)
	}
	if rows, err = c.QueryContext(background, "COMMIT; SAVEPOINT a; SELECT 1"); err != nil {
		t.Fatal(err)
	}
	rows.Close()
	if l := g.level(t); l != 1 {
		t.Errorf("begun again by a query: level %d, want 1", l)
	}
	if _, err = c.QueryContext(background, "SAVEPOINT b; SELECT * FROM missing"); err == nil {
		t.Error("no error")
	}
	run(t, c, "ROLLBACK")
	if _, err = c.QueryContext(background, "SAVEPOINT b; SELECT * FROM missing"); err == nil {
		t.Error("no error")
	}
	if l := g.level(t); l != 1 {
		t.Errorf("begun by a text that failed: level %d, want 1", l)
	}
	run(t, c, "RELEASE b")
}

// Another database's transaction in the same ctx is one of its own.
func TestInTxOfTwoDatabases(t *testing.T) {
	t.Parallel()
	a, b := open(t, Config{}), open(t, Config{})
	run(t, a, createT)
	run(t, b, createT)
	err := InTx(background, a.DB, nil, func(ctx context.Context, txA *sql.Tx) error {
		run(t, txA, "INSERT INTO t VALUES(1)")
		err := InTx(ctx, b.DB, nil, func(ctx context.Context, txB *sql.Tx) error {
			if txA == txB {
				t.Error("one transaction for two databases")
			}
			run(t, txB, "INSERT INTO t VALUES(2)")
			return InTx(ctx, a.DB, nil, func(_ context.Context, again *sql.Tx) error {
				if again != txA {
					t.Error("the outer transaction was not found through the inner")
				}
				run(t, again, "INSERT INTO t VALUES(3)")
				return nil
			})
		})
		if err != nil {
			t.Error(err)
		}
		if n := b.rows(t); n != 1 {
			t.Errorf("the inner database has %d rows, want 1: it is committed", n)
		}
		return errInside
	})
	wantErr(t, "InTx", err, errInside)
	if n, m := a.rows(t), b.rows(t); n != 0 || m != 1 {
		t.Errorf("%d and %d rows, want 0 and 1", n, m)
	}
}

// A level whose ctx has ended is rolled back all the same; the one outside goes
// on.
func TestInTxCancelledLevel(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	err := InTx(background, g.DB, nil, func(outer context.Context, tx *sql.Tx) error {
		run(t, tx, "INSERT INTO t VALUES(1)")
		ctx, cancel := context.WithCancel(outer)
		defer cancel()
		err := InTx(ctx, g.DB, nil, func(ctx context.Context, tx *sql.Tx) error {
			run(t, tx, "INSERT INTO t VALUES(2)")
			cancel()
			return ctx.Err()
		})
		if err != context.Canceled {
			t.Errorf("the level: %v, want its own error", err)
		}
		if l := g.level(t); l != 1 {
			t.Errorf("level %d behind it", l)
		}
		err = InTx(ctx, g.DB, nil, func(context.Context, *sql.Tx) error { t.Error("called"); return nil })
		wantErr(t, "a level with a ctx that has ended", err, context.Canceled)
		run(t, tx, "INSERT INTO t VALUES(3)")
		return nil
	})
	if got := g.numbers(t); err != nil || !slices.Equal(got, []int{1, 3}) {
		t.Errorf("%v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(background)
	cancel()
	err = InTx(ctx, g.DB, nil, func(context.Context, *sql.Tx) error { t.Error("called"); return nil })
	wantErr(t, "InTx with a ctx that has ended", err, context.Canceled)
}

// The outermost level's ctx ends: everything goes.
func TestInTxCancelled(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{})
		run(t, g, createT)
		ctx, cancel := context.WithCancel(background)
		err := levels(ctx, g.DB, 3, func(level int) error {
			if level == 3 {
				cancel()
				sleep(time.Second)
			}
			return nil
		})
		if err == nil {
			t.Error("no error")
		}
		g.untouched(t)
		if n := g.rows(t); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

// Goroutines that share a level's ctx take turns: savepoints nest.
func TestInTxSiblingsTakeTurns(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	var inside atomic.Int32
	err := InTx(background, g.DB, nil, func(ctx context.Context, _ *sql.Tx) error {
		var siblings sync.WaitGroup
		for i := range 20 {
			siblings.Go(func() {
				InTx(ctx, g.DB, nil, func(ctx context.Context, tx *sql.Tx) error {
					if inside.Add(1) > 1 {
						t.Error("two siblings at once")
					}
					defer inside.Add(-1)
					run(t, tx, fmt.Sprintf("INSERT INTO t VALUES(%d)", i))
					runtime.Gosched()
					if i%2 == 0 {
						return errInside
					}
					return nil
				})
			})
		}
		siblings.Wait()
		return nil
	})
	if got := g.numbers(t); err != nil || len(got) != 10 || got[0] != 1 {
		t.Errorf("%v, %v, want the odd ones", got, err)
	}
}

// One that waits for its turn gives up when its ctx ends.
func TestInTxWaitingSiblingGivesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{})
		run(t, g, createT)
		err := InTx(background, g.DB, nil, func(ctx context.Context, _ *sql.Tx) error {
			return InTx(ctx, g.DB, nil, func(context.Context, *sql.Tx) error {
				short, cancel := context.WithTimeout(ctx, time.Minute)
				defer cancel()
				waiting := make(chan error, 1)
				go func() {
					waiting <- InTx(short, g.DB, nil, func(context.Context, *sql.Tx) error { return nil })
				}()
				synctest.Wait()
				wantErr(t, "the sibling", <-waiting, context.DeadlineExceeded)
				return nil
			})
		})
		wantErr(t, "InTx", err, nil)
	})
}

// RELEASE fails: the level's work must not stay, and as nobody knows what is
// left of the savepoint, the connection goes when the transaction is over.
func TestInTxReleaseFails(t *testing.T) {
	for _, operation := range []string{"RELEASE", "ROLLBACK"} {
		t.Run(operation, func(t *testing.T) {
			t.Parallel()
			var deny atomic.Bool
			g := open(t, Config{SQLite: denying(func(op string) bool { return op == operation && deny.Load() })})
			run(t, g, createT)
			err := InTx(background, g.DB, nil, func(ctx context.Context, tx *sql.Tx) error {
				run(t, tx, "INSERT INTO t VALUES(1)")
				err := InTx(ctx, g.DB, nil, func(_ context.Context, tx *sql.Tx) error {
					run(t, tx, "INSERT INTO t VALUES(2)")
					deny.Store(true)
					if operation == "ROLLBACK" {
						return errInside
					}
					return nil
				})
				deny.Store(false)
				var cause sqlite3.Error
				if !errors.As(err, &cause) || cause.Code != sqlite3.ErrAuth || operation == "ROLLBACK" && !errors.Is(err, errInside) {
					t.Errorf("the level: %v", err)
				}
				if operation == "ROLLBACK" {
					return err
				}
				return nil
			})
			want := []int{1}
			if operation == "ROLLBACK" {
				want = nil
				wantErr(t, "InTx", err, errInside)
			} else {
				wantErr(t, "InTx", err, nil)
			}
			if got := g.numbers(t); !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			if n := g.opened(); n != 2 {
				t.Errorf("%d connections were opened, want a second one", n)
			}
		})
	}
}

// Each of its own statements can fail.
func TestInTxStatementFails(t *testing.T) {
	insert := func(_ context.Context, tx *sql.Tx) error { return try(tx, "INSERT INTO t VALUES(1)") }
	for name, test := range map[string]struct {
		deny string // the operation, as the authorizer calls it
		f    func(ctx context.Context, db *sql.DB, deny func()) error
	}{
		"begin": {"BEGIN", func(ctx context.Context, db *sql.DB, deny func()) error {
			deny()
			return InTx(ctx, db, nil, insert)
		}},
		"commit": {"COMMIT", func(ctx context.Context, db *sql.DB, deny func()) error {
			deny()
			return InTx(ctx, db, nil, insert)
		}},
		"rollback": {"ROLLBACK", func(ctx context.Context, db *sql.DB, deny func()) error {
			deny()
			return InTx(ctx, db, nil, func(ctx context.Context, tx *sql.Tx) error {
				return errors.Join(insert(ctx, tx), io.ErrUnexpectedEOF)
			})
		}},
		"savepoint": {"BEGIN", func(ctx context.Context, db *sql.DB, deny func()) error {
			return InTx(ctx, db, nil, func(ctx context.Context, _ *sql.Tx) error {
				deny()
				return InTx(ctx, db, nil, insert)
			})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var denied atomic.Bool
			g := open(t, Config{SQLite: denying(func(op string) bool { return op == test.deny && denied.Load() })})
			run(t, g, createT)
			err := test.f(background, g.DB, func() { denied.Store(true) })
			var cause sqlite3.Error
			if !errors.As(err, &cause) || cause.Code != sqlite3.ErrAuth {
				t.Errorf("%v, want the driver's error in it", err)
			}
			if name == "rollback" {
				wantErr(t, "InTx", err, io.ErrUnexpectedEOF)
			}
			denied.Store(false)
			if n := g.rows(t); n != 0 {
				t.Errorf("%d rows, want 0", n)
			}
			wantErr(t, "InTx", InTx(background, g.DB, nil, insert), nil)
			if n := g.rows(t); n != 1 {
				t.Errorf("%d rows, want 1", n)
			}
		})
	}
}

// What the guard or SQLite undoes under an InTx ends all its levels.
func TestInTxReapedAndAborted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute)})
		run(t, g, createT)
		err := levels(background, g.DB, 3, func(level int) error {
			if level == 3 {
				sleep(2 * time.Minute)
			}
			return nil
		})
		wantErr(t, "reaped", err, ErrReaped)
		g.untouched(t)
		err = InTx(background, g.DB, nil, func(ctx context.Context, tx *sql.Tx) error {
			return InTx(ctx, g.DB, nil, func(_ context.Context, tx *sql.Tx) error {
				return errors.Join(try(tx, "INSERT OR ROLLBACK INTO t VALUES(1000)"), try(tx, "INSERT INTO t VALUES(1)"))
			})
		})
		wantErr(t, "aborted", err, ErrTxAborted)
		if n := g.rows(t); n != 1 || g.opened() != 1 {
			t.Errorf("%d rows, %d connections, want 1 and 1", n, g.opened())
		}
		// The program ends the transaction itself.
		err = InTx(background, g.DB, nil, func(_ context.Context, tx *sql.Tx) error { tx.Rollback(); return errInside })
		if err != errInside {
			t.Errorf("rolled back inside: %v, want the function's own error", err)
		}
	})
}
