//go:build cgo && !sqlite_unlock_notify

package leakguard

import (
	"context"
	"database/sql/driver"
	"testing"
)

// What the differential tests compare is of no use if go-sqlite3 runs it all.
func TestRunsDirectly(t *testing.T) {
	if !alike() {
		t.Fatal("this version of go-sqlite3 does not do what a runner does")
	}
	c := drive(t, Config{})
	execOn(t, c, "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)")
	insert := prepareOn(t, c, "INSERT INTO t (v) VALUES (?)")
	read := prepareOn(t, c, "SELECT v FROM t WHERE id = ?")
	for i := range 3 {
		res, err := insert.ExecContext(context.Background(), named([]driver.Value{"v"}))
		if _, direct := res.(*result); err != nil || !direct {
			t.Fatalf("Exec: %T, %v", res, err)
		}
		if id, _ := res.LastInsertId(); id != int64(i+1) {
			t.Errorf("id %d, want %d", id, i+1)
		}
		opened, err := read.QueryContext(context.Background(), named([]driver.Value{int64(i + 1)}))
		if err != nil {
			t.Fatal(err)
		}
		if _, direct := opened.(*rows).h.Load().st.inner.(*runner); !direct {
			t.Fatal("Query: by go-sqlite3")
		}
		var dest [1]driver.Value
		if err := opened.Next(dest[:]); err != nil || dest[0] != "v" {
			t.Errorf("%v, %v", dest, err)
		}
		opened.Close()
	}
	for range 3 { // a text: first by go-sqlite3, then kept
		execOn(t, c, "UPDATE t SET v = 'w' WHERE id = 1")
	}
	if k := c.texts.list[0].runner; k == nil {
		t.Error("a kept text is run by go-sqlite3")
	}
}
