package leakguard

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 12: degrade, don't fail.

// blind opens a pool whose connections do not find SQLite's own handle.
func blind(t *testing.T, cfg Config) *guarded {
	g := open(t, cfg)
	g.opening = func(c *conn) { c.sqlite, c.wait, c.busyHandler = capi.Conn{}, capi.Wait{}, false }
	return g
}

// Without SQLite's functions everything works.
func TestWithoutCapabilities(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := blind(t, Config{Policy: limits(func(p *tracker.Policy) { p.MaxIdle = time.Hour })})
		useEverything(t, g.DB)
		g.SetMaxOpenConns(1)
		run(t, g, "DROP TABLE t", createT, "BEGIN; INSERT INTO t VALUES(1); COMMIT", "BEGIN", "INSERT INTO t VALUES(2)", "ROLLBACK",
			"SAVEPOINT s; INSERT INTO t VALUES(3); RELEASE s")
		tx := g.begin(t)
		wantErr(t, "ROLLBACK; BEGIN", try(tx, "ROLLBACK; BEGIN IMMEDIATE"), nil)
		wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(4)"), nil)
		wantErr(t, "Commit", tx.Commit(), nil)
		if n := g.rows(t); n != 3 {
			t.Errorf("%d rows, want 3", n)
		}
		tx = g.begin(t)
		wantCode(t, "INSERT", try(tx, "INSERT OR ROLLBACK INTO t VALUES(1)"), sqlite3.ErrConstraint)
		wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(5)"), ErrTxAborted)
		tx.Rollback()
		sleep(2 * time.Hour)
		// What its history is cannot be asked, so it is not closed.
		g.expect(t, []tracker.EventType{tracker.EventRecycled, tracker.EventRefreshed}, "refreshed max_idle")
		run(t, g, "SELECT 1")
	})
}

// A statement still ends with its ctx: go-sqlite3 sees to it.
func TestCancellationWithoutCapabilities(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := blind(t, Config{SQLite: pausing()})
		ctx, cancel := context.WithTimeout(background, time.Minute)
		defer cancel()
		_, err := g.ExecContext(ctx, "SELECT sum(pause(60)) FROM "+eleven)
		wantErr(t, "Exec", err, context.DeadlineExceeded)
		run(t, g, "SELECT 1")
	})
}

// What is forgotten is undone all the same.
func TestReapingWithoutCapabilities(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := blind(t, Config{Policy: limits(func(p *tracker.Policy) { p.LeakAfter, p.TxTimeout = time.Minute, time.Hour })})
		run(t, g, createT)
		w := newWork(t, g)
		sleep(3 * time.Minute)
		w.over(t, isReaped)
		wantErr(t, "Rollback", w.tx.Rollback(), nil)
		rows := query(t, g, "SELECT i FROM "+eleven)
		sleep(3 * time.Minute)
		cut(t, rows, ErrReaped)
		rows.Close()
		g.SetMaxOpenConns(1)
		run(t, g, "BEGIN", "INSERT INTO t VALUES(100)")
		sleep(3 * time.Minute)
		// Where the first statement ends is not known: the whole text runs.
		wantCode(t, "ROLLBACK and more", try(g, "ROLLBACK; INSERT INTO t VALUES(101)"), sqlite3.ErrError)
		if n := g.rows(t); n != 0 {
			t.Errorf("%d rows, want 0", n)
		}
	})
}

// Nothing can be interrupted: a verdict on a running statement is carried out
// when it returns.
func TestTxLimitWithoutInterrupt(t *testing.T) {
	for _, text := range []string{
		"INSERT INTO t SELECT i+pause(15) FROM " + three,
		"SELECT sum(pause(15)) FROM " + three,
	} {
		t.Run(text[:6], func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := blind(t, Config{Policy: txLimit(10 * time.Second), SQLite: pausing()})
				run(t, g, createT)
				w := newWork(t, g)
				begin := time.Now()
				err := try(w.tx, text)
				if !isReaped(err) {
					t.Errorf("the statement: %v", err)
				}
				if d := time.Since(begin); d != 45*time.Second {
					t.Errorf("it ran for %v, not to its end", d)
				}
				w.over(t, isReaped)
				wantErr(t, "Commit", w.tx.Commit(), ErrReaped)
				g.untouched(t)
			})
		})
	}
}

// A statement without its handle: RETURNING keeps the lock as without the guard
// until it is closed.
func TestStatementWithoutHandle(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	if _, err := c.Exec(createT, nil); err != nil {
		t.Fatal(err)
	}
	prepared, err := c.Prepare("INSERT INTO t VALUES(1) RETURNING a")
	if err != nil {
		t.Fatal(err)
	}
	st := prepared.(*stmt).h.Load().st
	st.handle, st.columns = capi.Stmt{}, capi.Stmt{}.Columns() > 0
	if _, err := prepared.Exec(nil); err != nil {
		t.Error(err)
	}
	if err := prepared.Close(); err != nil {
		t.Error(err)
	}
	if n := rawNumber(t, c.connector.dsn, "SELECT count(*) FROM t"); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}

// Stats says what is missing.
func TestStatsSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, "SELECT 1")
	if s := g.connector.Stats(); !slices.Equal(s.Missing, capi.Missing()) {
		t.Errorf("missing: %q, want %q", s.Missing, capi.Missing())
	}
}
