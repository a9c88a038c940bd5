package leakguard

import (
	"database/sql"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 7: old is not idle.

// Nothing that works for an hour, in steps shorter than leak_after, is a leak.
func TestActivityKeepsALeaseAlive(t *testing.T) {
	for name, use := range map[string]func(t *testing.T, g *guarded) (step func() error){
		"iteration": func(t *testing.T, g *guarded) func() error {
			rows := query(t, g, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 1000) SELECT i FROM n")
			return func() error { rows.Next(); return rows.Err() }
		},
		"iteration beside work": func(t *testing.T, g *guarded) func() error {
			c := g.conn(t)
			rows := query(t, c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 1000) SELECT i FROM n")
			return func() error {
				if err := try(c, "SELECT 1"); err != nil {
					return err
				}
				rows.Next()
				return rows.Err()
			}
		},
		"exec": func(t *testing.T, g *guarded) func() error {
			tx := g.begin(t)
			return func() error { return try(tx, "INSERT INTO t VALUES(1)") }
		},
		"statement": func(t *testing.T, g *guarded) func() error {
			s := prepare(t, g.begin(t), "INSERT INTO t VALUES(1)")
			return func() error { _, err := s.Exec(); return err }
		},
		"prepare": func(t *testing.T, g *guarded) func() error {
			tx := g.begin(t)
			return func() error { s, err := tx.Prepare("SELECT 1"); s.Close(); return err }
		},
		"ping": func(t *testing.T, g *guarded) func() error {
			c := g.conn(t)
			run(t, c, "BEGIN")
			return func() error { return c.PingContext(background) }
		},
		"text transaction in the pool": func(t *testing.T, g *guarded) func() error {
			g.SetMaxOpenConns(1)
			run(t, g, "BEGIN")
			return func() error { return try(g, "INSERT INTO t VALUES(1)") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: leakAfter(time.Minute)})
				run(t, g, "CREATE TABLE t(a)")
				step := use(t, g)
				for range 80 {
					sleep(45 * time.Second)
					if err := step(); err != nil {
						t.Fatal(err)
					}
				}
				if name == "text transaction in the pool" { // told after a second, and taken back
					g.expect(t, []tracker.EventType{tracker.EventReaped})
					return
				}
				g.expect(t, leakEvents)
				if g.opened() != 1 {
					t.Errorf("%d connections were opened, want 1", g.opened())
				}
			})
		})
	}
}

// A statement that runs is not idle, however long.
func TestRunningIsNotIdle(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, g *guarded) execer{
		"autocommit":  func(t *testing.T, g *guarded) execer { return g },
		"transaction": func(t *testing.T, g *guarded) execer { return g.begin(t) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{Policy: leakAfter(time.Minute), SQLite: pausing()})
				run(t, g, createT)
				on := begin(t, g)
				run(t, on, "INSERT INTO t SELECT i+pause(3600) FROM "+three)
				if tx, ok := on.(*sql.Tx); ok {
					wantErr(t, "Commit", tx.Commit(), nil)
				}
				g.expect(t, leakEvents)
				if n := g.rows(t); n != 3 {
					t.Errorf("%d rows, want 3", n)
				}
			})
		})
	}
}

// tx_limit is the one absolute age: neither work nor activity puts it off.
func TestTxLimitIsAbsolute(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txLimit(10 * time.Minute)})
		run(t, g, "CREATE TABLE t(a)")
		tx := g.begin(t)
		begin := time.Now()
		var err error
		for err == nil && time.Since(begin) < time.Hour {
			sleep(time.Second)
			err = try(tx, "INSERT INTO t VALUES(1)")
		}
		wantErr(t, "INSERT", err, ErrReaped)
		if d := time.Since(begin); d < 10*time.Minute || d > 13*time.Minute {
			t.Errorf("reaped after %v", d)
		}
	})
}

// A lease without anything in it is reported, and left alone; what it does
// next takes the report back.
func TestEmptyLeaseIsLeftAlone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g, createT)
		c := g.conn(t)
		prepare(t, c, insertT)
		sleep(time.Hour)
		g.expect(t, leakEvents, "suspect connection leak_after")
		run(t, c, "INSERT INTO t VALUES(1)")
		sleep(30 * time.Second)
		g.expect(t, leakEvents, "suspect connection leak_after", "recovered connection leak_after")
		c.Close()
		if n := g.rows(t); n != 1 || g.opened() != 1 {
			t.Errorf("%d rows, %d connections, want 1 and 1", n, g.opened())
		}
	})
}

// Suspects that come back in time are recovered, each reported once.
func TestSuspectRecovers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		rows := query(t, g, "SELECT i FROM "+eleven)
		for g.connector.Stats().LeakedDetected == 0 {
			sleep(time.Second)
		}
		if !rows.Next() {
			t.Fatalf("a suspect was reaped at once: %v", rows.Err())
		}
		sleep(20 * time.Second)
		g.expect(t, leakEvents, "suspect rows leak_after", "recovered rows leak_after")
		rows.Close()
	})
}
