//go:build cgo

package leakguard

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Rows of a statement that was closed under them, the newest ones or older ones,
// end with an error and step nothing: the statement's memory may be another's.
func TestRowsBehindAClosedStatement(t *testing.T) {
	for _, closed := range []int{0, 1, 2} { // of the rows, before the statement
		g := open(t, Config{})
		c := g.conn(t)
		run(t, c, "CREATE TABLE t (a)", "INSERT INTO t VALUES (1), (2), (3), (4), (5)")
		s, err := c.PrepareContext(background, "SELECT a FROM t ORDER BY a")
		if err != nil {
			t.Fatal(err)
		}
		var all []*sql.Rows
		for range 3 {
			rows, err := s.QueryContext(background)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			all = append(all, rows)
		}
		for i := range closed {
			all[2-i].Close()
		}
		all[0].Next()
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		for range 3 {
			other, err := c.PrepareContext(background, "SELECT a * 1000 FROM t")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
		}
		for all[0].Next() {
			t.Fatal("a row of a closed statement")
		}
		if err := all[0].Err(); !errors.Is(err, errStmtClosed) {
			t.Errorf("%d rows closed before: %v", closed, err)
		}
	}
}

// A statement whose older rows are open still has open rows: a run of its own
// would share its cursor with them, and the first Next of one take the other's
// first step.
func TestOlderRowsOfAStatement(t *testing.T) {
	g := open(t, Config{})
	c := g.conn(t)
	run(t, c, "CREATE TABLE t (a, b)")
	insert, err := c.PrepareContext(background, "INSERT INTO t VALUES (?, 0)")
	if err != nil {
		t.Fatal(err)
	}
	defer insert.Close()
	query := func(s *sql.Stmt, args ...any) *sql.Rows {
		rows, err := s.QueryContext(background, args...)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	one, two := query(insert, 1), query(insert, 2)
	two.Close()
	three := query(insert, 3)
	for _, rows := range []*sql.Rows{one, three} {
		if rows.Next() || rows.Err() != nil {
			t.Errorf("a row, or %v", rows.Err())
		}
		rows.Close()
	}
	if n := number(t, c, "SELECT count(*) FROM t"); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
	all, err := c.PrepareContext(background, "SELECT * FROM t")
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	one, two = query(all), query(all)
	two.Close()
	run(t, c, "ALTER TABLE t DROP COLUMN b")
	three = query(all)
	for one.Next() {
		var a, b any
		if err := one.Scan(&a, &b); err != nil || b != int64(0) && b != nil {
			t.Errorf("%v %v, %v", a, b, err)
		}
	}
	three.Close()
	one.Close()
	again := query(all)
	if names, _ := again.Columns(); len(names) != 1 {
		t.Errorf("columns %q", names)
	}
	again.Close()
	if k := g.last().stmts[1].runner; alike() && (k == nil || len(k.names) != 1) {
		t.Error("the statement is not run directly again")
	}
}

// A program that knows no times has no use for go-sqlite3's formats.
func TestNoTimeFormats(t *testing.T) {
	if !alone(t) {
		return
	}
	sqlite3.SQLiteTimestampFormats = nil
	c := drive(t, Config{})
	execOn(t, c, "CREATE TABLE t (a, d DATETIME)")
	execOn(t, c, "INSERT INTO t VALUES (1, '2020-01-02')")
	s := prepareOn(t, c, "SELECT a, d FROM t WHERE a = ?")
	rows, err := s.QueryContext(background, named([]driver.Value{int64(1)}))
	if err != nil {
		t.Fatal(err)
	}
	var dest [2]driver.Value
	if err := rows.Next(dest[:]); err != nil || dest[0] != int64(1) || dest[1] != (time.Time{}) {
		t.Errorf("%v, %v", dest, err)
	}
	rows.Close()
}

// Times of opening come from two clocks, and do not contradict each other.
func TestTimesAgree(t *testing.T) {
	for range 5 {
		g := open(t, Config{})
		tx, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range g.connector.pool.Records() {
			if r.LeasedAt.Before(r.Opened) || r.TxOpened.Before(r.Opened) {
				t.Errorf("opened at %v, leased at %v, transaction at %v", r.Opened, r.LeasedAt, r.TxOpened)
			}
		}
		tx.Rollback()
	}
}

// An Exec that returns columns is reset behind its run, but not under older rows:
// their next step would run it again.
func TestReturningUnderOlderRows(t *testing.T) {
	g := open(t, Config{})
	c := g.conn(t)
	run(t, c, "CREATE TABLE t (a)")
	s, err := c.PrepareContext(background, "INSERT INTO t VALUES (1) RETURNING a")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	one, err := s.QueryContext(background)
	if err != nil {
		t.Fatal(err)
	}
	two, err := s.QueryContext(background)
	if err != nil {
		t.Fatal(err)
	}
	two.Close()
	if _, err := s.ExecContext(background); err != nil {
		t.Fatal(err)
	}
	for one.Next() {
	}
	one.Close()
	if n := number(t, c, "SELECT count(*) FROM t"); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}

// Older rows that step a statement hold its lock; killed, they let go of it, also
// if the newer ones are closed.
func TestOlderRowsLetGo(t *testing.T) {
	c := drive(t, Config{})
	execOn(t, c, "CREATE TABLE t (a)")
	execOn(t, c, "INSERT INTO t VALUES (1), (2), (3), (4)")
	s := prepareOn(t, c, "SELECT a FROM t")
	query := func() driver.Rows {
		rows, err := s.QueryContext(background, nil)
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	one, two := query(), query()
	two.Close()
	var dest [1]driver.Value
	for range 2 {
		if err := one.Next(dest[:]); err != nil {
			t.Fatal(err)
		}
	}
	if _, busy, ok := c.db().OpenStatements(); !ok || busy != 1 {
		t.Fatalf("%d statements at work, %v", busy, ok)
	}
	c.gate.Enter()
	c.killRows(ErrReaped)
	c.leave(nil)
	if _, busy, _ := c.db().OpenStatements(); busy != 0 {
		t.Errorf("%d statements at work behind their rows", busy)
	}
	if err := one.Next(dest[:]); !errors.Is(err, ErrReaped) {
		t.Errorf("Next: %v", err)
	}
	one.Close()
}

// The clocks are compared outside of bubbles, whose time is another.
func TestClockComparedInBubble(t *testing.T) {
	c := drive(t, Config{})
	for from := time.Now(); time.Since(from) < 30*time.Millisecond; { // no time is before the connection's
	}
	begin := func() (early time.Duration) {
		before := time.Now()
		tx, err := c.BeginTx(background, driver.TxOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Commit()
		if gate.InBubble() {
			return 0
		}
		for _, r := range c.rec.Pool().Records() {
			if after := time.Now(); r.TxOpened.After(after) {
				t.Errorf("opened at %v, want before %v", r.TxOpened, after)
			}
			early = before.Sub(r.TxOpened)
		}
		return early
	}
	compare := func() {
		t.Helper()
		least := time.Hour
		for range 10 { // a tick of a virtual machine may be late
			if least = min(least, begin()); least <= 11*time.Millisecond {
				return
			}
		}
		t.Errorf("opened %v before it was begun", least)
	}
	synctest.Test(t, func(*testing.T) { begin() })
	compare()
	execOn(t, c, "ATTACH ':memory:' AS more") // BEGIN is prepared again
	compare()
}
