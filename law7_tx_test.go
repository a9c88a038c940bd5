package leakguard

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 7, for transactions: tx_timeout is about those that rest. One that works is
// left to work.

const (
	timeout = 10 * time.Minute
	rest    = timeout / 10 // after which it is undone once it is older
	// late is how much later than that a look may come: a quarter, and what it
	// takes to see that nothing moved.
	late = rest / 2
)

// working are ways to work in a transaction; each step is activity.
var working = map[string]func(t *testing.T, tx *sql.Tx) (step func() error){
	"exec": func(t *testing.T, tx *sql.Tx) func() error {
		return func() error { return try(tx, "INSERT INTO t VALUES(1)") }
	},
	"statement": func(t *testing.T, tx *sql.Tx) func() error {
		s := prepare(t, tx, "INSERT INTO t VALUES(1)")
		return func() error { _, err := s.Exec(); return err }
	},
	"query": func(t *testing.T, tx *sql.Tx) func() error {
		return func() error {
			rows, err := tx.Query("SELECT count(*) FROM t")
			if err != nil {
				return err
			}
			return readAll(rows)
		}
	},
	"rows": func(t *testing.T, tx *sql.Tx) func() error {
		rows := query(t, tx, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 10000) SELECT i FROM n")
		t.Cleanup(func() { rows.Close() })
		return func() error { rows.Next(); return rows.Err() }
	},
	"savepoints": func(t *testing.T, tx *sql.Tx) func() error {
		return func() error { return try(tx, "SAVEPOINT s; INSERT INTO t VALUES(1); RELEASE s") }
	},
	"one long statement": func(t *testing.T, tx *sql.Tx) func() error {
		return func() error { return try(tx, "INSERT INTO t SELECT pause(600)") }
	},
}

// A migration that works for three times tx_timeout, with pauses shorter than a
// tenth of it, commits. It is reported, again each tx_timeout, and recovers.
func TestMigrationBeyondTxTimeout(t *testing.T) {
	for name, work := range working {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: txTimeout(timeout), SQLite: pausing()})
				run(t, g, "CREATE TABLE t(a)")
				tx := g.begin(t)
				begin := time.Now()
				run(t, tx, "INSERT INTO t VALUES('first')")
				step := work(t, tx)
				for time.Since(begin) < 3*timeout+timeout/2 {
					sleep(rest * 3 / 4)
					if err := step(); err != nil {
						t.Fatalf("after %v: %v", time.Since(begin), err)
					}
				}
				worked := time.Since(begin)
				wantErr(t, "Commit", tx.Commit(), nil)
				if n := g.outside(t, "SELECT count(*) FROM t WHERE a='first'"); n != 1 {
					t.Errorf("%d rows, want 1", n)
				}
				sleep(time.Minute)
				g.oneLeak(t)
				want := slices.Repeat([]string{"suspect transaction tx_timeout"}, int(worked/timeout))
				g.expect(t, leakEvents, append(want, "recovered transaction tx_timeout")...)
				if s := g.connector.Stats(); s.LeakedDetected != 1 || s.Recovered != 1 || s.Reaped != 0 {
					t.Errorf("%d detected, %d recovered, %d reaped; it is one leak", s.LeakedDetected, s.Recovered, s.Reaped)
				}
				if g.opened() != 1 {
					t.Errorf("%d connections were opened, want 1", g.opened())
				}
			})
		})
	}
}

// oneLeak expects that all that was told is about one leak.
func (g *guarded) oneLeak(t *testing.T) {
	t.Helper()
	told := g.events(leakEvents...)
	for _, e := range told {
		if e.Leak.ID != told[0].Leak.ID {
			t.Errorf("%s is another leak than %s", eventText(e), eventText(told[0]))
		}
	}
}

// Its reports tell the progress: what ran since the first one, and how old it is
// by now.
func TestTxTimeoutTellsTheProgress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(timeout)})
		run(t, g, "CREATE TABLE t(a)")
		tx := g.begin(t)
		ran := 0
		at := make(map[uint64]int) // operations, by the number of reports
		for len(g.events(tracker.EventSuspect)) < 4 {
			sleep(10 * time.Second)
			run(t, tx, "INSERT INTO t VALUES(1)")
			ran++
			if n := uint64(len(g.events(tracker.EventSuspect))); at[n] == 0 {
				at[n] = ran
			}
		}
		for i, e := range g.events(tracker.EventSuspect) {
			l := e.Leak
			if want := time.Duration(i+1) * timeout; l.Age < want || l.Age > want+late {
				t.Errorf("report %d: age %v, want about %v", i, l.Age, want)
			}
			// The reaper may have looked right before or behind an operation.
			since := at[uint64(i+1)] - at[1]
			if n := int(l.Operations); i == 0 && n != 0 || n < since-2 || n > since+2 {
				t.Errorf("report %d: %d operations since the first, want about %d", i, n, since)
			}
			if l.Limit != timeout || l.Query != "INSERT INTO t VALUES(1)" {
				t.Errorf("report %d: %v", i, l)
			}
		}
	})
}

// Beyond tx_timeout it is undone once it did nothing for a tenth of that, and
// not earlier, whenever it came to rest.
func TestTxTimeoutWaitsForRest(t *testing.T) {
	for _, works := range []time.Duration{0, timeout / 2, timeout - rest/2, timeout + rest/2, timeout + 5*rest, 2*timeout + rest} {
		t.Run(works.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: txTimeout(timeout)})
				run(t, g, createT)
				w := newWork(t, g)
				begin := time.Now()
				for time.Since(begin) < works {
					sleep(10 * time.Second)
					run(t, w.tx, "SELECT 1")
				}
				rested := time.Now()
				due, late := rested.Add(rest), late
				if old := begin.Add(timeout); rested.Before(old) {
					late = time.Minute + rest/4 // until then the reaper comes each check_interval
					if due.Before(old) {
						due = old
					}
				}
				sleep(time.Until(due) - time.Second)
				g.expect(t, []tracker.EventType{tracker.EventReaped})
				sleep(late + time.Second)
				g.expect(t, []tracker.EventType{tracker.EventReaped}, "reaped transaction tx_timeout")
				w.over(t, isReaped)
				wantErr(t, "Rollback", w.tx.Rollback(), nil)
				g.untouched(t)
			})
		})
	}
}

// One operation in time puts it off by another tenth.
func TestRestBeginsAnew(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(timeout)})
		run(t, g, "CREATE TABLE t(a)")
		tx := g.begin(t)
		for range 30 { // half an hour
			sleep(rest - time.Second)
			if err := try(tx, "INSERT INTO t VALUES(1)"); err != nil {
				t.Fatal(err)
			}
		}
		wantErr(t, "Commit", tx.Commit(), nil)
		g.expect(t, []tracker.EventType{tracker.EventReaped})
	})
}

// What runs does not rest, however long; what it leaves behind does.
func TestRunningBeyondTxTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.TxTimeout, p.LeakAfter = timeout, timeout }), SQLite: pausing()})
		run(t, g, "CREATE TABLE t(a)")
		tx := g.begin(t)
		ctx, cancel := context.WithCancel(background)
		defer cancel()
		if _, err := tx.ExecContext(ctx, fmt.Sprintf("INSERT INTO t SELECT pause(%d)", int(5*timeout/time.Second))); err != nil {
			t.Fatalf("a statement of 50 minutes: %v", err)
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped})
		sleep(rest + late)
		g.expect(t, []tracker.EventType{tracker.EventReaped}, "reaped transaction tx_timeout")
		wantErr(t, "SELECT", try(tx, "SELECT 1"), ErrReaped)
		wantErr(t, "Rollback", tx.Rollback(), nil)
		if n := g.outside(t, "SELECT count(*) FROM t"); n != 0 {
			t.Errorf("%d rows, want none", n)
		}
	})
}

// A transaction by SQL text that goes from lease to lease works, too.
func TestTextTransactionBeyondTxTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(timeout)})
		g.SetMaxOpenConns(1)
		run(t, g, "CREATE TABLE t(a)", "BEGIN")
		for range 60 {
			sleep(rest / 2)
			run(t, g, "INSERT INTO t VALUES(1)")
		}
		run(t, g, "COMMIT", "BEGIN", "INSERT INTO t VALUES(2)")
		if n := g.outside(t, "SELECT count(*) FROM t"); n != 60 {
			t.Errorf("%d rows, want 60", n)
		}
		sleep(timeout + late)
		wantErr(t, "the next operation", try(g, "INSERT INTO t VALUES(3)"), ErrReaped)
		run(t, g, "INSERT INTO t VALUES(4)")
		if n := g.outside(t, "SELECT count(*) FROM t"); n != 61 {
			t.Errorf("%d rows, want 61", n)
		}
	})
}

// In autocommit there is no transaction to be old, and tx_limit is off by
// default: nobody stops what works.
func TestDefaultsStopNothingThatWorks(t *testing.T) {
	if tracker.DefaultPolicy().TxLimit != 0 {
		t.Errorf("tx_limit is %v by default", tracker.DefaultPolicy().TxLimit)
	}
	bubble(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		machineAt(tr, percent(10))
		g := open(t, Config{Tracker: tr, SQLite: pausing()})
		run(t, g, "CREATE TABLE t(a)", "INSERT INTO t SELECT pause(86400)")
		run(t, g, "VACUUM INTO '"+fileOf(g.dsn)+".copy'")
		tx := g.begin(t)
		for range 24 * 60 * 2 {
			run(t, tx, "INSERT INTO t VALUES(1)")
			sleep(30 * time.Second)
		}
		wantErr(t, "Commit", tx.Commit(), nil)
		if n := g.outside(t, "SELECT count(*) FROM t"); n != 24*60*2+1 {
			t.Errorf("%d rows", n)
		}
	})
}

// tx_limit comes beside tx_timeout: what works beyond the one is stopped by the
// other, and it is one leak.
func TestTxLimitBehindTxTimeout(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: limits(func(p *tracker.Policy) { p.TxTimeout, p.TxLimit = timeout, 3*timeout }), SQLite: pausing()})
		run(t, g, createT)
		w := newWork(t, g)
		begin := time.Now()
		err := try(w.tx, "SELECT sum(pause(60)) FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 100) SELECT i FROM n)")
		wantErr(t, "the statement", err, ErrReaped)
		if d := time.Since(begin); d < 3*timeout || d > 3*timeout+timeout {
			t.Errorf("stopped after %v", d)
		}
		w.over(t, isReaped)
		wantErr(t, "Rollback", w.tx.Rollback(), nil)
		g.untouched(t)
		g.oneLeak(t)
		g.expect(t, []tracker.EventType{tracker.EventReaped, tracker.EventRecovered}, "reaped transaction tx_limit")
	})
}

// Mode observe reports the same and undoes nothing.
func TestTxTimeoutObserved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Mode: tracker.Observe, Policy: limits(func(p *tracker.Policy) { p.TxTimeout, p.TxLimit = timeout, 2*timeout })})
		run(t, g, "CREATE TABLE t(a)")
		tx := g.begin(t)
		run(t, tx, "INSERT INTO t VALUES(1)")
		sleep(10 * timeout)
		wantErr(t, "Commit", tx.Commit(), nil)
		g.expect(t, []tracker.EventType{tracker.EventReaped})
		if g.events(tracker.EventSuspect) == nil {
			t.Error("not reported")
		}
	})
}
