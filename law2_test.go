package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 2: reaped rows return an error, never a clean end. Rows of a transaction
// that was rolled back are in law 1.

var (
	rowsOver = map[string]func(t *testing.T, g *guarded) *sql.Rows{
		"db": func(t *testing.T, g *guarded) *sql.Rows { return unread(t, g) },
		"db stmt": func(t *testing.T, g *guarded) *sql.Rows {
			return stmtRows(t, prepare(t, g, "SELECT i FROM "+eleven))
		},
		"conn": func(t *testing.T, g *guarded) *sql.Rows { return unread(t, g.conn(t)) },
		"conn stmt": func(t *testing.T, g *guarded) *sql.Rows {
			return stmtRows(t, prepare(t, g.conn(t), "SELECT i FROM "+eleven))
		},
		"tx": func(t *testing.T, g *guarded) *sql.Rows { return unread(t, g.begin(t)) },
		"tx stmt": func(t *testing.T, g *guarded) *sql.Rows {
			return stmtRows(t, prepare(t, g.begin(t), "SELECT i FROM "+eleven))
		},
		"ctx": func(t *testing.T, g *guarded) *sql.Rows {
			ctx, cancel := context.WithCancel(background)
			t.Cleanup(cancel)
			rows, err := g.QueryContext(ctx, "SELECT i FROM "+eleven)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { rows.Close() })
			return rows
		},
		"write": func(t *testing.T, g *guarded) *sql.Rows {
			rows, err := g.Query("INSERT INTO t SELECT i FROM " + eleven + " RETURNING a")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { rows.Close() })
			return rows
		},
	}
)

// unread opens rows and reads none of them.
func unread(t *testing.T, on execer) *sql.Rows {
	t.Helper()
	rows, err := on.QueryContext(background, "SELECT i FROM "+eleven)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rows.Close() })
	return rows
}

func stmtRows(t *testing.T, s *sql.Stmt) *sql.Rows {
	t.Helper()
	rows, err := s.Query()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rows.Close() })
	return rows
}

func TestReapedRows(t *testing.T) {
	for name, open1 := range rowsOver {
		for _, read := range []int{0, 1, 5} {
			t.Run(name+"/"+string(rune('0'+read))+" read", func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					g := open(t, Config{Policy: leakAfter(time.Minute)})
					run(t, g, createT)
					rows := open1(t, g)
					for range read {
						if !rows.Next() {
							t.Fatal(rows.Err())
						}
					}
					sleep(3 * time.Minute)
					cut(t, rows, ErrReaped)
					var reaped *ReapedError
					if !errors.As(rows.Err(), &reaped) || reaped.Leak.Kind != tracker.KindRows ||
						!strings.HasPrefix(reaped.Error(), "leakguard: rows closed after 1m") ||
						!strings.Contains(reaped.Error(), "without activity (leak_after 1m)") {
						t.Errorf("rows.Err: %v", rows.Err())
					}
					if err := rows.Scan(new(int)); err == nil {
						t.Error("Scan of reaped rows succeeds")
					}
					wantErr(t, "rows.Close", rows.Close(), nil)
					// The first one may still be held.
					run(t, g, "INSERT INTO t VALUES(1000)")
				})
			})
		}
	}
}

func TestReapedRow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		row := g.QueryRow("SELECT 1")
		sleep(3 * time.Minute)
		wantErr(t, "Scan", row.Scan(new(int)), ErrReaped)
	})
}

// Rows that rest on a connection that moves are reaped alone.
func TestReapedRowsOfAMovingConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g, createT)
		c := g.conn(t)
		stmt := prepare(t, c, "SELECT i FROM "+eleven)
		forgotten := []*sql.Rows{query(t, c, "SELECT i FROM "+eleven), stmtRows(t, stmt), unread(t, c)}
		used := query(t, c, "SELECT i FROM "+eleven)
		for range 8 {
			sleep(20 * time.Second)
			if !used.Next() {
				t.Fatalf("rows in use: %v", used.Err())
			}
			run(t, c, "INSERT INTO t VALUES(1)", "DELETE FROM t")
		}
		for _, rows := range forgotten {
			cut(t, rows, ErrReaped)
		}
		g.expect(t, []tracker.EventType{tracker.EventReaped},
			"reaped rows leak_after", "reaped rows leak_after", "reaped rows leak_after")
		if again := stmtRows(t, stmt); !again.Next() {
			t.Errorf("the statement of reaped rows, run again: %v", again.Err())
		}
		if g.opened() != 1 {
			t.Errorf("%d connections were opened, want 1", g.opened())
		}
	})
}

// The resources of a lease answer each with its own leak.
func TestReapedLeaseNamesEach(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		tx := g.begin(t)
		first := query(t, tx, "SELECT i FROM "+eleven)
		second := query(t, tx, "SELECT i+1 FROM "+eleven)
		sleep(3 * time.Minute)
		first.Next()
		second.Next()
		for _, e := range []struct {
			err   error
			kind  tracker.Kind
			query string
		}{
			{first.Err(), tracker.KindRows, "SELECT i FROM "},
			{second.Err(), tracker.KindRows, "SELECT i+1 FROM "},
			{try(tx, "SELECT 1"), tracker.KindTransaction, "SELECT i+1 FROM "}, // the last that ran in it
		} {
			var reaped *ReapedError
			if !errors.As(e.err, &reaped) || reaped.Leak.Kind != e.kind || !strings.HasPrefix(reaped.Leak.Query, e.query) {
				t.Errorf("%v, want a %v of %q", e.err, e.kind, e.query)
			}
		}
	})
}

// Closing the statement under its rows ends them; go-sqlite3 makes that look
// complete.
func TestRowsOfAClosedStatement(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	c := g.conn(t)
	s := prepare(t, c, "SELECT i FROM "+eleven)
	rows := started(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	cut(t, rows, errStmtClosed)
	run(t, c, "SELECT 1")
}

func started(t *testing.T, s *sql.Stmt) *sql.Rows {
	t.Helper()
	rows := stmtRows(t, s)
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	return rows
}

// Reaped, and then the statement is closed.
func TestReapedRowsOfAClosedStatement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute)})
		tx := g.begin(t)
		s := prepare(t, tx, "SELECT i FROM "+eleven)
		rows := started(t, s)
		sleep(2 * time.Minute)
		wantErr(t, "Close", s.Close(), nil)
		cut(t, rows, ErrReaped)
		_, err := s.Query()
		if err == nil {
			t.Error("a closed statement runs")
		}
	})
}

// Two rows of one statement share its cursor: reaping must tell both.
func TestReapedRowsOfOneStatement(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: txTimeout(time.Minute)})
		tx := g.begin(t)
		s := prepare(t, tx, "SELECT i FROM "+eleven)
		older, newer := started(t, s), started(t, s)
		sleep(2 * time.Minute)
		cut(t, older, ErrReaped)
		cut(t, newer, ErrReaped)
	})
}

// On a driver's connection, without database/sql between.
func TestRowsOfAClosedConnection(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	prepared, err := c.Prepare("SELECT i, NULL FROM " + eleven)
	if err != nil {
		t.Fatal(err)
	}
	texts, err1 := c.Query("SELECT i, NULL FROM "+eleven, nil)
	stmts, err2 := prepared.Query(nil)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []driver.Rows{texts, stmts} {
		row := make([]driver.Value, 2)
		if err := r.Next(row); err == nil || err == io.EOF || errors.Is(err, driver.ErrBadConn) {
			t.Errorf("Next behind Close of the connection: %v", err)
		}
		// What describes the columns does not reach SQLite any more.
		own := r.(*rows)
		if n := own.ColumnTypeDatabaseTypeName(0); n != "" {
			t.Errorf("ColumnTypeDatabaseTypeName: %q", n)
		}
		if _, ok := own.ColumnTypeNullable(0); ok {
			t.Error("ColumnTypeNullable is known")
		}
		if typ := own.ColumnTypeScanType(0); typ != reflect.TypeFor[any]() {
			t.Errorf("ColumnTypeScanType: %v", typ)
		}
		if columns := own.Columns(); len(columns) > 0 && len(columns) != 2 {
			t.Errorf("Columns: %v", columns)
		}
		wantErr(t, "Close", r.Close(), nil)
		if columns := own.Columns(); columns != nil {
			t.Errorf("Columns of closed rows: %v", columns)
		}
	}
	if err := prepared.Close(); err != nil {
		t.Errorf("Close of the statement: %v", err)
	}
	if _, err := prepared.Exec(nil); err == nil {
		t.Error("Exec behind Close")
	}
	if n := prepared.NumInput(); n > 0 {
		t.Errorf("NumInput behind Close: %d", n)
	}
}

// Finished rows end as always, with and without the guard's work behind them.
func TestCompleteRowsEndClean(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		c := drive(t, Config{})
		r, err := c.Query("SELECT i FROM "+eleven, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := drain(r); err != nil {
			t.Error(err)
		}
		r.Close()
		rows := unread(t, g)
		for range 11 {
			if !rows.Next() {
				t.Fatal(rows.Err())
			}
		}
		if rows.Next() || rows.Err() != nil {
			t.Errorf("the end: %v", rows.Err())
		}
	})
}
