//go:build cgo && !sqlite_unlock_notify

package capi_test

import (
	"database/sql/driver"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

func cursor(t testing.TB, c *sqlite3.SQLiteConn, sql string) (*capi.Cursor, driver.Stmt) {
	s := prepare(t, c, sql)
	k := capi.NewCursor(capi.OfStmt(s))
	if k == nil {
		t.Fatal("no cursor")
	}
	return k, s
}

func TestCursor(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, b BLOB, r Real)")
	insert, s := cursor(t, c, "INSERT INTO t (v, b, r) VALUES (?, ?, ?)")
	defer s.Close()
	var args capi.Args
	for i := range 3 {
		args.Clear()
		args.Text(strings.Repeat("v", i))
		args.Blob(make([]byte, i))
		args.Float(float64(i) + 0.5)
		if code := insert.Exec(&args); code != capi.Done {
			t.Fatalf("code %d", code)
		}
		if insert.RowID() != int64(i+1) || insert.Changes() != 1 {
			t.Errorf("rowid %d, changes %d", insert.RowID(), insert.Changes())
		}
	}
	read, s := cursor(t, c, "SELECT * FROM t WHERE id > ?")
	defer s.Close()
	for round := range 2 {
		args.Clear()
		args.Int(1)
		code, fresh := read.Query(&args)
		if code != capi.Row || fresh != (round == 0) {
			t.Fatalf("code %d, fresh %v", code, fresh)
		}
		if read.Name(1) != "v" || read.Type(3) != "REAL" || len(read.Row()) != 4 {
			t.Errorf("%s %s %d", read.Name(1), read.Type(3), len(read.Row()))
		}
		for i := int64(1); i < 3; i++ {
			row := read.Row()
			if row[0].Kind() != capi.Integer || row[0].Int() != i+1 || row[1].Kind() != capi.Text || row[1].Text() != strings.Repeat("v", int(i)) ||
				row[2].Kind() != capi.Blob || len(row[2].Blob()) != int(i) || row[3].Kind() != capi.Float || row[3].Float() != float64(i)+0.5 {
				t.Errorf("row %d: %v", i, row)
			}
			code = read.Step()
		}
		if code != capi.Done {
			t.Errorf("at the end: code %d", code)
		}
		if code := read.Reset(); code != capi.OK {
			t.Errorf("reset: code %d", code)
		}
	}
	exec(t, c, "ALTER TABLE t ADD COLUMN more DEFAULT NULL")
	if code, fresh := read.Query(&args); code != capi.Row || !fresh || len(read.Row()) != 5 || read.Row()[4].Kind() != capi.Null {
		t.Errorf("code %d, fresh %v, %d columns", code, fresh, len(read.Row()))
	}
	read.Reset()
}

// The argument that cannot be bound is told, and nothing runs.
func TestCursorUnbound(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t (v)")
	k, s := cursor(t, c, "INSERT INTO t VALUES (?)")
	defer s.Close()
	var args capi.Args
	args.Int(1)
	args.Int(2)
	if code := k.Exec(&args); code != capi.Unbound {
		t.Errorf("Exec: code %d", code)
	}
	if code, _ := k.Query(&args); code != capi.Unbound {
		t.Errorf("Query: code %d", code)
	}
	if n := number(t, c, "SELECT count(*) FROM t"); n != 0 {
		t.Errorf("%d rows", n)
	}
}

// Bytes are bound where they lie for the time of an Exec only.
func TestCursorForgets(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t (v)")
	k, s := cursor(t, c, "INSERT INTO t VALUES (?)")
	defer s.Close()
	for range 20 {
		var args capi.Args
		args.Text(strings.Repeat("a", 600))
		if code := k.Exec(&args); code != capi.Done {
			t.Fatalf("code %d", code)
		}
		args.Clear()
		args.Text(strings.Repeat("z", 600)) // in the same place
		runtime.GC()
		if code := k.Run(true); code != capi.OK {
			t.Fatalf("code %d", code)
		}
	}
	if n := number(t, c, "SELECT count(*) FROM t WHERE v IS NULL"); n != 20 {
		t.Errorf("%d rows without a value, want 20: %d with the bytes of another", n, number(t, c, "SELECT count(*) FROM t WHERE v LIKE 'z%'"))
	}
}

// A Query copies them: its rows may be read for long.
func TestCursorKeepsCopies(t *testing.T) {
	c := open(t, tempFile(t))
	k, s := cursor(t, c, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT ?1 || i FROM n")
	defer s.Close()
	var args capi.Args
	args.Text("first")
	code, _ := k.Query(&args)
	args.Clear()
	args.Text("other")
	for i := range 3 {
		if want := "first" + string(rune('1'+i)); code != capi.Row || k.Row()[0].Text() != want {
			t.Errorf("code %d, %q, want %q", code, k.Row()[0].Text(), want)
		}
		code = k.Step()
	}
	k.Reset()
}

func TestCursorErrors(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t (v UNIQUE)")
	exec(t, c, "INSERT INTO t VALUES (1)")
	k, s := cursor(t, c, "INSERT INTO t VALUES (1)")
	defer s.Close()
	for range 2 {
		if code := k.Exec(nil); code != int(sqlite3.ErrConstraintUnique) {
			t.Errorf("code %d, want %d", code, sqlite3.ErrConstraintUnique)
		}
		// The driver finds the message: the next bind resets.
		if _, err := s.Exec([]driver.Value{struct{}{}}); err == nil || err.Error() != "UNIQUE constraint failed: t.v" {
			t.Errorf("the driver says %v", err)
		}
	}
	abs, s2 := cursor(t, c, "SELECT abs(?)")
	defer s2.Close()
	var args capi.Args
	args.Int(math.MinInt64)
	if code, _ := abs.Query(&args); code != int(sqlite3.ErrError) {
		t.Errorf("code %d", code)
	}
	s2.Exec([]driver.Value{struct{}{}})
	args.Clear()
	args.Int(-5)
	if code, fresh := abs.Query(&args); code != capi.Row || fresh || abs.Row()[0].Int() != 5 {
		t.Errorf("code %d, fresh %v", code, fresh)
	}
}

func TestCursorTime(t *testing.T) {
	if _, ok := capi.Monotonic(); !ok {
		t.Skip("no coarse clock here")
	}
	c := open(t, tempFile(t))
	k, s := cursor(t, c, "SELECT 1")
	defer s.Close()
	begin, s2 := cursor(t, c, "BEGIN")
	defer s2.Close()
	end, s3 := cursor(t, c, "COMMIT")
	defer s3.Close()
	var now, after int64
	for range 10 { // a tick of a virtual machine may be late
		now, _ = capi.Monotonic()
		k.Query(nil)
		begin.Run(true)
		after, _ = capi.Monotonic()
		end.Run(true)
		if k.At() > after || begin.At() > after {
			t.Fatalf("%d or %d is ahead of %d", k.At(), begin.At(), after)
		}
		if min(k.At(), begin.At()) >= now-int64(11*time.Millisecond) {
			return
		}
	}
	t.Errorf("%d or %d is more than a tick before %d", k.At(), begin.At(), now)
}

func TestNoCursor(t *testing.T) {
	if capi.NewCursor(capi.Stmt{}) != nil {
		t.Error("a cursor without a statement")
	}
	if capi.SetStmt(&sqlite3.SQLiteRows{}, 1) || capi.SetStmt(1, &sqlite3.SQLiteStmt{}) || capi.SetStmt(&SQLiteStmt{}, &SQLiteStmt{}) {
		t.Error("SetStmt takes anything")
	}
	if _, ok := capi.Location(1); ok {
		t.Error("the location of anything")
	}
	c, err := (&sqlite3.SQLiteDriver{}).Open("file:" + tempFile(t) + "?_loc=UTC")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if loc, ok := capi.Location(c); !ok || loc != time.UTC {
		t.Errorf("location %v, %v", loc, ok)
	}
	if path, ok := capi.Of(c).Filename(); !ok || !strings.HasSuffix(path, "/test.db") {
		t.Errorf("file %q, %v", path, ok)
	}
	if path, ok := (capi.DB{}).Filename(); ok {
		t.Errorf("file %q of no connection", path)
	}
}

// Every array of columns is as large as the row, also while others are read.
func TestCursorAllocs(t *testing.T) {
	c := open(t, tempFile(t))
	exec(t, c, "CREATE TABLE t (v)")
	k, s := cursor(t, c, "SELECT ?, ?, ?")
	defer s.Close()
	w, s2 := cursor(t, c, "INSERT INTO t VALUES (?)")
	defer s2.Close()
	var args capi.Args
	once := func() {
		args.Clear()
		args.Text("text")
		w.Exec(&args)
		args.Int(1)
		args.Null()
		k.Query(&args)
		k.Step()
		k.Reset()
	}
	once()
	if n := testing.AllocsPerRun(100, once); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
