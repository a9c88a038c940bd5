package leakguard_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/mattn/go-sqlite3"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// exampleFile returns the path of a database in a new folder.
func exampleFile() (file string, remove func()) {
	dir, err := os.MkdirTemp("", "leakguard-example-")
	if err != nil {
		log.Fatal(err)
	}
	return filepath.Join(dir, "app.db"), func() { os.RemoveAll(dir) }
}

// The driver name is all that changes. Limits of the guard stand in the DSN.
func Example() {
	file, remove := exampleFile()
	defer remove()

	db, err := sql.Open("sqlite-leakguard", "file:"+file+"?_journal_mode=WAL&_leakguard_tx_timeout=1m")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	if _, err := db.Exec("CREATE TABLE notes (text TEXT); INSERT INTO notes VALUES ('hello')"); err != nil {
		log.Fatal(err)
	}
	var text string
	if err := db.QueryRow("SELECT text FROM notes").Scan(&text); err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)
	// Output: hello
}

// A mistake in a key of the guard's is an error, not a limit that does not hold.
func Example_mistake() {
	_, err := sql.Open("sqlite-leakguard", "app.db?_leakguard_tx_timeout=soon")
	fmt.Println(err)
	// Output: leakguard: _leakguard_tx_timeout="soon": want a duration of 1ms or more such as 90s, 10m or 24h (units ms, s, m and h), or 0 to switch it off
}

// OnLeak tells of each leak once, when it is found. What became of it is told
// by tracker.Default().Subscribe.
func ExampleOnLeak() {
	file, remove := exampleFile()
	defer remove()

	found := make(chan tracker.Leak, 1)
	cancel := leakguard.OnLeak(func(l tracker.Leak) {
		if l.Pool == "orders" {
			found <- l
		}
	})
	defer cancel()

	db, err := sql.Open("sqlite-leakguard", "file:"+file+"?_leakguard_name=orders&_leakguard_leak_after=50ms")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin() // and then nothing
	if err != nil {
		log.Fatal(err)
	}

	leak := <-found
	fmt.Println(leak.Kind, leak.Reason, leak.Limit)
	fmt.Println(filepath.Base(leak.Site().File)) // and leak.Site().Line
	tx.Rollback()
	// Output:
	// transaction leak_after 50ms
	// example_test.go
}

// What was rolled back says so, and never commits.
func ExampleReapedError() {
	file, remove := exampleFile()
	defer remove()
	done := make(chan struct{})
	own := tracker.New(tracker.Options{})
	own.Subscribe(func(e tracker.Event) {
		if e.Type == tracker.EventReaped {
			close(done)
		}
	})
	policy := tracker.DefaultPolicy()
	policy.TxTimeout = 50 * time.Millisecond
	connector, err := leakguard.NewConnector(leakguard.Config{DSN: file, Policy: policy, Tracker: own, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()

	tx, err := db.Begin()
	if err != nil {
		log.Fatal(err)
	}
	<-done
	_, err = tx.Exec("CREATE TABLE late (id INTEGER)")
	var reaped *leakguard.ReapedError
	if errors.As(err, &reaped) {
		fmt.Println(reaped.Leak.Kind, reaped.Leak.Reason)
	}
	fmt.Println("commit:", errors.Is(tx.Commit(), leakguard.ErrReaped))
	// Output:
	// transaction tx_timeout
	// commit: true
}

// Inside another InTx, InTx is a savepoint: an error undoes its own level.
func ExampleInTx() {
	file, remove := exampleFile()
	defer remove()
	db, err := sql.Open("sqlite-leakguard", file)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE log (text TEXT)"); err != nil {
		log.Fatal(err)
	}

	write := func(ctx context.Context, text string, fail error) error {
		return leakguard.InTx(ctx, db, nil, func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO log VALUES (?)", text); err != nil {
				return err
			}
			return fail
		})
	}
	err = leakguard.InTx(context.Background(), db, nil, func(ctx context.Context, tx *sql.Tx) error {
		if err := write(ctx, "first", nil); err != nil {
			return err
		}
		if err := write(ctx, "second", errors.New("no second")); err != nil {
			fmt.Println("inner:", err)
		}
		return nil // commits what is left
	})
	fmt.Println("outer:", err)

	var text string
	if err := db.QueryRow("SELECT group_concat(text) FROM log").Scan(&text); err != nil {
		log.Fatal(err)
	}
	fmt.Println("log:", text)
	// Output:
	// inner: no second
	// outer: <nil>
	// log: first
}

// A job that is known to take long is reported and left alone.
func ExampleExempt() {
	file, remove := exampleFile()
	defer remove()
	found := make(chan tracker.Leak, 1)
	cancel := leakguard.OnLeak(func(l tracker.Leak) {
		if l.Pool == "nightly" {
			found <- l
		}
	})
	defer cancel()
	db, err := sql.Open("sqlite-leakguard", "file:"+file+"?_leakguard_name=nightly&_leakguard_tx_timeout=50ms")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()

	ctx := leakguard.Exempt(context.Background(), "nightly import")
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tx.ExecContext(ctx, "CREATE TABLE imported (id INTEGER)"); err != nil {
		log.Fatal(err)
	}
	leak := <-found
	fmt.Println(leak.Reason, leak.Exempt)
	fmt.Println("commit:", tx.Commit())
	// Output:
	// tx_timeout nightly import
	// commit: <nil>
}

// A Config says in Go what a DSN says in text, and takes what has no spelling:
// a logger, a tracker, go-sqlite3's ConnectHook.
func ExampleNewConnector() {
	file, remove := exampleFile()
	defer remove()
	policy := tracker.DefaultPolicy()
	policy.TxTimeout = time.Minute
	connector, err := leakguard.NewConnector(leakguard.Config{
		DSN:    "file:" + file + "?_journal_mode=WAL",
		Name:   "orders",
		Mode:   tracker.Observe,
		Policy: policy,
		SQLite: &sqlite3.SQLiteDriver{
			ConnectHook: func(c *sqlite3.SQLiteConn) error {
				return c.RegisterFunc("shout", func(s string) string { return s + "!" }, true)
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()

	var text string
	if err := db.QueryRow("SELECT shout('hello')").Scan(&text); err != nil {
		log.Fatal(err)
	}
	fmt.Println(text)

	policy.TxTimeout = 2 * time.Minute // at run time
	if err := connector.SetPolicy(policy); err != nil {
		log.Fatal(err)
	}
	fmt.Println(connector.Stats().TotalConnections, "connection")
	// Output:
	// hello!
	// 1 connection
}

// SQLiteConn is the way to what only go-sqlite3's own connection can do.
func ExampleSQLiteConn() {
	db, err := sql.Open("sqlite-leakguard", ":memory:")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	conn, err := db.Conn(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	err = conn.Raw(func(driverConn any) error {
		c, ok := leakguard.SQLiteConn(driverConn)
		if !ok {
			return errors.New("another driver")
		}
		fmt.Println("variables:", c.GetLimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output: variables: 32766
}

// Stats counts; its JSON form is for dashboards. Sub gives what happened since.
func ExampleStats() {
	file, remove := exampleFile()
	defer remove()
	before := leakguard.Stats()

	db, err := sql.Open("sqlite-leakguard", file)
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		if _, err := db.Exec("SELECT 1"); err != nil {
			log.Fatal(err)
		}
	}
	s := leakguard.Stats().Sub(before)
	fmt.Println("created", s.Created, "reused", s.Reused, "leaks", s.LeakedDetected)
	db.Close()
	// Output: created 1 reused 2 leaks 0
}
