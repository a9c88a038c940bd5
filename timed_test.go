package leakguard

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestTimedOperations: what a program does is told by name and error, on
// connections opened while somebody asks, and works as without.
func TestTimedOperations(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	var mu sync.Mutex
	var told []string
	flush, cancel := tr.TimeOperations(func(o tracker.Operation) {
		mu.Lock()
		defer mu.Unlock()
		if o.Took <= 0 || o.Took > time.Minute || o.Pool == "" {
			t.Errorf("%+v", o)
		}
		told = append(told, o.Name+" "+o.Error)
	})
	g := open(t, Config{Tracker: tr})
	g.SetMaxOpenConns(1)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	exec := func(query string) error { _, err := g.Exec(query); return err }
	must(exec(" /* new */ create table t (a UNIQUE)"))
	must(exec("INSERT INTO t VALUES (1)"))
	if err := exec("INSERT INTO t VALUES (1)"); err == nil {
		t.Error("1 was inserted twice")
	}
	if err := exec("NONSENSE"); err == nil {
		t.Error("nonsense was executed")
	}
	rows, err := g.Query("SELECT a FROM t")
	must(err)
	must(rows.Close())
	tx, err := g.Begin()
	must(err)
	stmt, err := tx.Prepare("UPDATE t SET a = ?")
	must(err)
	_, err = stmt.Exec(2)
	must(err)
	read, err := tx.Prepare("SELECT a FROM t")
	must(err)
	rows, err = read.Query()
	must(err)
	must(rows.Close())
	must(tx.Commit())
	tx, err = g.Begin()
	must(err)
	must(tx.Rollback())
	over, end := context.WithCancel(background)
	end()
	if _, err := tx.ExecContext(over, "SELECT 1"); err == nil {
		t.Error("executed after the end")
	}
	held, err := g.Conn(background)
	must(err)
	must(held.Raw(func(c any) error {
		if _, ok := SQLiteConn(c); !ok {
			return fmt.Errorf("no connection in %T", c)
		}
		if _, ok := c.(driver.Validator); !ok {
			return fmt.Errorf("%T is no Validator", c)
		}
		return nil
	}))
	must(held.Close())
	flush()
	want := []string{
		"CREATE ", "INSERT ", "INSERT 2067", " 1", "SELECT ",
		"BEGIN ", "UPDATE ", "SELECT ", "COMMIT ", "BEGIN ", "ROLLBACK ",
	}
	if !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}

	cancel()
	told = nil
	must(exec("SELECT 1"))
	flush()
	if len(told) != 0 {
		t.Errorf("told %q after the end", told)
	}
	if c, err := g.connector.Connect(background); err != nil {
		t.Error(err)
	} else {
		if _, ok := c.(*conn); !ok {
			t.Errorf("nobody asks, and the connection is a %T", c)
		}
		must(c.Close())
	}
}

// TestOperationName knows SQLite's words and nothing else.
func TestOperationName(t *testing.T) {
	for query, want := range map[string]string{
		"select 1":                 "SELECT",
		"\n-- why\n/**/ Vacuum;":   "VACUUM",
		"":                         "",
		"SELECTED":                 "",
		"'; DROP TABLE t":          "",
		"(select 1)":               "",
		"WITH x AS (SELECT 1) ...": "WITH",
	} {
		if got := operationName(query); got != want {
			t.Errorf("operationName(%q) = %q, want %q", query, got, want)
		}
	}
}
