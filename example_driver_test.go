//go:build cgo

package leakguard_test

import (
	"database/sql"
	"fmt"
	"log"
	"strings"

	"github.com/mattn/go-sqlite3"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
)

// A program that registers go-sqlite3 with hooks of its own changes one line:
// before, &sqlite3.SQLiteDriver{…} stood here by itself.
func init() {
	sql.Register("sqlite3_with_initials", &leakguard.Driver{SQLite: &sqlite3.SQLiteDriver{
		ConnectHook: func(c *sqlite3.SQLiteConn) error {
			return c.RegisterFunc("initials", initials, true)
		},
	}})
}

func initials(name string) (s string) {
	for _, part := range strings.Fields(name) {
		s += part[:1]
	}
	return s
}

// A driver with hooks of its own, under a name of its own.
func ExampleDriver() {
	db, err := sql.Open("sqlite3_with_initials", ":memory:?_leakguard_tx_timeout=1m")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	var s string
	if err := db.QueryRow("SELECT initials('Ada Lovelace')").Scan(&s); err != nil {
		log.Fatal(err)
	}
	fmt.Println(s)
	// Output: AL
}
