//go:build cgo

package leakguard

import (
	"context"
	"database/sql/driver"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

func prepareOn(t *testing.T, c *conn, query string) *stmt {
	t.Helper()
	s, err := c.PrepareContext(context.Background(), query)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*stmt)
}

func execOn(t *testing.T, c *conn, query string) {
	t.Helper()
	if _, err := c.ExecContext(context.Background(), query, nil); err != nil {
		t.Fatal(err)
	}
}

// Where a runner would not do what go-sqlite3 does, go-sqlite3 runs everything,
// and Stats says so.
func TestUnlike(t *testing.T) {
	defer func(before func() bool) { alike = before }(alike)
	alike = func() bool { return false }
	g := open(t, Config{})
	run(t, g.DB, "CREATE TABLE t (v)")
	s, err := g.Prepare("INSERT INTO t VALUES (?) RETURNING v")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range 3 {
		var v int
		if err := s.QueryRow(i).Scan(&v); err != nil || v != i {
			t.Errorf("%d, %v", v, err)
		}
	}
	if n := number(t, g.DB, "SELECT count(*) FROM t"); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
	if missing := g.connector.Stats().Missing; !slices.Contains(missing, "running statements directly") {
		t.Errorf("missing: %q", missing)
	}
}

// A run that fails must leave the columns to be asked for by the next one.
func TestFirstRunFails(t *testing.T) {
	c := drive(t, Config{})
	s := prepareOn(t, c, "SELECT abs(?) AS a")
	least := named([]driver.Value{int64(-1 << 63)})
	if rows, err := s.QueryContext(context.Background(), least); err == nil {
		t.Fatalf("no error: %v", rows)
	} else if e, ok := err.(sqlite3.Error); !ok || e.Error() != "integer overflow" {
		t.Errorf("%#v", err)
	}
	for _, v := range []int64{-2, 3} {
		rows, err := s.QueryContext(context.Background(), named([]driver.Value{v}))
		if err != nil {
			t.Fatal(err)
		}
		if names := rows.Columns(); !slices.Equal(names, []string{"a"}) {
			t.Errorf("columns %q", names)
		}
		var dest [1]driver.Value
		if err := rows.Next(dest[:]); err != nil || dest[0] != max(v, -v) {
			t.Errorf("%v, %v", dest[0], err)
		}
		if err := rows.Next(dest[:]); err != io.EOF {
			t.Errorf("then %v", err)
		}
		rows.Close()
	}
}

// A Go function that SQL calls moves the goroutine's stack while C holds the
// addresses of arguments and row, and uses the connection's own memory again.
func TestStackMovesDuringRun(t *testing.T) {
	var grow func(n int) int64
	grow = func(n int) int64 {
		var room [256]byte
		if n == 0 {
			runtime.GC()
			return int64(room[0])
		}
		return grow(n-1) + int64(room[n%256])
	}
	g := open(t, Config{SQLite: funcs(map[string]any{"grow": func(s string) string { grow(200); return s + "!" }})})
	s, err := g.Prepare("SELECT grow(?), grow(?), ?")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 20 {
		done := make(chan struct{})
		go func() { // with a small stack
			defer close(done)
			var a, b, c string
			if err := s.QueryRow("first", strings.Repeat("x", 300), "third").Scan(&a, &b, &c); err != nil || a != "first!" || len(b) != 301 || c != "third" {
				t.Errorf("%q, %q, %q, %v", a, b, c, err)
			}
		}()
		<-done
	}
}

// The time of opening comes from the call of C, on another clock.
func TestOpeningTimes(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{Tracker: tr})
	s, err := g.Prepare("SELECT 1 UNION ALL SELECT 2")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const rounds = 10
	early := 0 // a tick of a virtual machine may be late now and then
	for i := range rounds {
		before := time.Now()
		rows, err := s.Query()
		if err != nil {
			t.Fatal(err)
		}
		tx, err := g.Begin()
		if err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		n := 0
		for _, h := range tr.Held() {
			if h.Kind != tracker.KindRows && h.Kind != tracker.KindTransaction {
				continue
			}
			n++
			// The coarse clock is up to a tick of 10 ms behind, never ahead.
			if h.OpenedAt.Before(before.Add(-11 * time.Millisecond)) {
				t.Logf("%v opened at %v, %v too early", h.Kind, h.OpenedAt, before.Sub(h.OpenedAt))
				early++
			}
			if h.OpenedAt.After(after) || h.Age < 0 {
				t.Errorf("%v opened at %v, age %v: want between %v and %v", h.Kind, h.OpenedAt, h.Age, before, after)
			}
		}
		if n != 2 {
			t.Errorf("%d held, want rows and transaction", n)
		}
		rows.Close()
		tx.Rollback()
		// What go-sqlite3 runs has no such time, and must not take the last one.
		for time.Since(after) < 30*time.Millisecond {
		}
		before = time.Now()
		rows, err = g.Query("SELECT 3 AS " + strings.Repeat("x", i+1))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range tr.Held() {
			if h.Kind == tracker.KindRows && h.OpenedAt.Before(before.Add(-11*time.Millisecond)) {
				t.Logf("opened at %v, %v too early", h.OpenedAt, before.Sub(h.OpenedAt))
				early++
			}
		}
		rows.Close()
	}
	if early >= rounds/2 {
		t.Errorf("%d times of opening in %d rounds are too early", early, rounds)
	}
}

// In a bubble go-sqlite3 watches the context, so it has to run the statement.
func TestDirectContextInBubble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nap := func() int64 { time.Sleep(time.Minute); return 1 }
		g := open(t, Config{SQLite: funcs(map[string]any{"nap": nap}), Policy: limits(nil)})
		s, err := g.Prepare("WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + nap() FROM c LIMIT ?) SELECT count(*) FROM c")
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var n int
		if err := s.QueryRow(3).Scan(&n); err != nil || n != 3 {
			t.Errorf("%d, %v", n, err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(background, 5*time.Minute+time.Second)
		defer cancel()
		if err := s.QueryRowContext(ctx, 100).Scan(&n); err != context.DeadlineExceeded {
			t.Errorf("%d, %v", n, err)
		}
		if took := time.Since(began); took > 10*time.Minute {
			t.Errorf("it went on for %v", took)
		}
	})
}

// Large arguments are go-sqlite3's to bind: the connection keeps the room.
func TestArgumentsKept(t *testing.T) {
	c := drive(t, Config{})
	s := prepareOn(t, c, "SELECT length(?)")
	for _, n := range []int{10, maxDirectBytes, maxDirectBytes + 1, 1 << 20} {
		for _, v := range []driver.Value{strings.Repeat("x", n), make([]byte, n)} {
			rows, err := s.QueryContext(background, named([]driver.Value{v}))
			if err != nil {
				t.Fatal(err)
			}
			var dest [1]driver.Value
			if err := rows.Next(dest[:]); err != nil || dest[0] != int64(n) {
				t.Errorf("%v, %v", dest[0], err)
			}
			rows.Close()
			if size := c.args.Size(); size > maxDirectBytes {
				t.Errorf("%d bytes kept of %d", size, n)
			}
		}
	}
	many := make([]driver.Value, 2000)
	for i := range many {
		many[i] = time.Now()
	}
	rows, err := prepareOn(t, c, "SELECT 1 WHERE ? IN (?"+strings.Repeat(", ?", len(many)-2)+")").QueryContext(background, named(many))
	if err != nil {
		t.Fatal(err)
	}
	rows.Close()
	if size := c.args.Size(); size > maxDirectBytes {
		t.Errorf("%d bytes kept of %d times", size, len(many))
	}
}

// BenchmarkAlike is what the comparison costs a process, once.
func BenchmarkAlike(b *testing.B) {
	for b.Loop() {
		opened, err := (&sqlite3.SQLiteDriver{}).Open(":memory:")
		if err != nil {
			b.Fatal(err)
		}
		if err := compareIn(opened); err != nil {
			b.Fatal(err)
		}
		opened.Close()
	}
}
