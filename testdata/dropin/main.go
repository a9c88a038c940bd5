// Command dropin is a program that forgets a transaction and knows nothing of
// leakguard: only guard.go does. It prints what it finds as JSON.
package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"log"
	"os"

	_ "github.com/mattn/go-sqlite3"
)

func main() {
	db, err := sql.Open("sqlite3", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE t (a)"); err != nil {
		log.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES ('forgotten')"); err != nil {
		log.Fatal(err)
	}

	// Another connection waits for the lock, as long as _busy_timeout says.
	_, insert := db.Exec("INSERT INTO t VALUES ('in time')")
	commit := tx.Commit()

	var rows string
	if err := db.QueryRow("SELECT group_concat(a) FROM t").Scan(&rows); err != nil {
		log.Fatal(err)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{
		"drivers": sql.Drivers(),
		"driver":  fmt.Sprintf("%T", db.Driver()),
		"insert":  fmt.Sprint(insert),
		"commit":  fmt.Sprint(commit),
		"rows":    rows,
	})
}
