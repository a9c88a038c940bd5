//go:build cgo

package leakguard

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/mattn/go-sqlite3"
)

// TestAuthorizerIsAskedEachTime: BEGIN and COMMIT are parsed each time where the
// program may have set an authorizer, as go-sqlite3 does.
func TestAuthorizerIsAskedEachTime(t *testing.T) {
	t.Parallel()
	var asked []string
	authorize := func(c *sqlite3.SQLiteConn) error {
		c.RegisterAuthorizer(func(op int, what, _, _ string) int {
			if op == sqlite3.SQLITE_TRANSACTION {
				asked = append(asked, what)
			}
			return sqlite3.SQLITE_OK
		})
		return nil
	}
	twice := func(t *testing.T, db *sql.DB) {
		t.Helper()
		asked = nil
		for range 2 {
			tx, err := db.Begin()
			if err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
		if want := []string{"BEGIN", "COMMIT", "BEGIN", "COMMIT"}; !slices.Equal(asked, want) {
			t.Errorf("asked for %q, want %q", asked, want)
		}
	}

	hooked := open(t, Config{SQLite: &sqlite3.SQLiteDriver{ConnectHook: authorize}})
	twice(t, hooked.DB)

	g := open(t, Config{})
	g.SetMaxOpenConns(1)
	if tx, err := g.Begin(); err != nil || tx.Commit() != nil {
		t.Fatal("an ordinary transaction failed")
	}
	c := g.conn(t)
	err := c.Raw(func(driverConn any) error {
		raw, _ := SQLiteConn(driverConn)
		return authorize(raw)
	})
	c.Close()
	if err != nil {
		t.Fatal(err)
	}
	twice(t, g.DB)
}
