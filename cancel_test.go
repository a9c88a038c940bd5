package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// endlessCount is a statement that ends by itself long after any test.
const endlessCount = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000000000) SELECT count(*) FROM c"

// openBoth opens the same kind of database through go-sqlite3 and the guard.
func openBoth(t *testing.T, params string) map[string]*sql.DB {
	t.Helper()
	dbs := map[string]*sql.DB{}
	for _, name := range []string{"sqlite3", "sqlite-leakguard"} {
		db, err := sql.Open(name, filepath.Join(t.TempDir(), "a.db")+"?_journal_mode=WAL"+params)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { db.Close() })
		if _, err := db.Exec("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2), (3)"); err != nil {
			t.Fatal(err)
		}
		dbs[name] = db
	}
	return dbs
}

// cancelAfterStart cancels when SQLite is inside the statement: a Go function
// that the statement calls says so.
func cancelAfterStart(t *testing.T) (db *sql.DB, started chan struct{}) {
	t.Helper()
	started = make(chan struct{}, 1)
	connector, err := NewConnector(Config{
		DSN:     filepath.Join(t.TempDir(), "a.db") + "?_journal_mode=WAL",
		Tracker: tracker.New(tracker.Options{}),
		SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
			return c.RegisterFunc("started", func() int {
				select {
				case started <- struct{}{}:
				default:
				}
				return 1
			}, false)
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	db = sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec("CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (1), (2), (3)"); err != nil {
		t.Fatal(err)
	}
	return db, started
}

const endlessInsert = "INSERT INTO t WITH RECURSIVE c(x) AS (SELECT started() UNION ALL SELECT x+1 FROM c LIMIT 1000000000) SELECT x FROM c"

func TestCancelDuringExec(t *testing.T) {
	db, started := cancelAfterStart(t)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := db.ExecContext(ctx, endlessInsert); err != context.Canceled {
		t.Errorf("ExecContext = %v, want context.Canceled itself", err)
	}
	if n := countOf(t, db, "SELECT count(*) FROM t"); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}

func TestCancelDuringPreparedExec(t *testing.T) {
	db, started := cancelAfterStart(t)
	stmt, err := db.Prepare(endlessInsert)
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := stmt.ExecContext(ctx); err != context.Canceled {
		t.Errorf("ExecContext = %v, want context.Canceled itself", err)
	}
}

func TestCancelDeadline(t *testing.T) {
	db, _ := cancelAfterStart(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := db.QueryRowContext(ctx, endlessCount).Scan(new(int)); err != context.DeadlineExceeded {
		t.Errorf("QueryRowContext = %v, want context.DeadlineExceeded itself", err)
	}
}

func TestCancelParent(t *testing.T) {
	db, started := cancelAfterStart(t)
	parent, cancel := context.WithCancel(t.Context())
	ctx, stop := context.WithTimeout(context.WithValue(parent, exemptKey{}, "x"), time.Hour)
	defer stop()
	go func() { <-started; cancel() }()
	if _, err := db.ExecContext(ctx, endlessInsert); err != context.Canceled {
		t.Errorf("ExecContext = %v, want context.Canceled itself", err)
	}
}

func TestCancelBefore(t *testing.T) {
	db, _ := cancelAfterStart(t)
	held, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	err = held.Raw(func(dc any) error {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		// Below database/sql, which would look at the context itself.
		if _, err := dc.(*conn).ExecContext(ctx, "INSERT INTO t VALUES (4)", nil); err != context.Canceled {
			t.Errorf("ExecContext = %v, want context.Canceled", err)
		}
		if _, err := dc.(*conn).QueryContext(ctx, "SELECT 1", nil); err != context.Canceled {
			t.Errorf("QueryContext = %v, want context.Canceled", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := countOf(t, db, "SELECT count(*) FROM t"); n != 3 {
		t.Errorf("%d rows, want 3: the cancelled statement ran", n)
	}
}

func TestCancelInTransaction(t *testing.T) {
	db, started := cancelAfterStart(t)
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec("INSERT INTO t VALUES (4)"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	if _, err := tx.ExecContext(ctx, endlessInsert); err != context.Canceled {
		t.Errorf("ExecContext = %v, want context.Canceled", err)
	}
	_, err = tx.Exec("INSERT INTO t VALUES (5)")
	if !errors.Is(err, ErrTxAborted) || !errors.Is(err, context.Canceled) {
		t.Errorf("Exec after the interrupt = %v, want ErrTxAborted because of context.Canceled", err)
	}
	if err := tx.Commit(); !errors.Is(err, ErrTxAborted) {
		t.Errorf("Commit = %v, want ErrTxAborted", err)
	}
	if n := countOf(t, db, "SELECT count(*) FROM t"); n != 3 {
		t.Errorf("%d rows, want 3", n)
	}
}

// A cancelled statement must not take open rows of the same connection with it.
func TestCancelSparesOpenRows(t *testing.T) {
	db, started := cancelAfterStart(t)
	if _, err := db.Exec("CREATE TABLE u (a)"); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	rows, err := tx.Query("SELECT a FROM t ORDER BY rowid")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; cancel() }()
	err = tx.QueryRowContext(ctx, "WITH RECURSIVE c(x) AS (SELECT started() UNION ALL SELECT x+1 FROM c LIMIT 1000000000) SELECT count(*) FROM c").Scan(new(int))
	if err != context.Canceled {
		t.Errorf("QueryRowContext = %v, want context.Canceled", err)
	}
	n := 1
	for rows.Next() {
		n++
	}
	if err := rows.Err(); err != nil || n != 3 {
		t.Errorf("the other rows: %d of 3, %v", n, err)
	}
}

func TestCancelBetweenAndDuringRows(t *testing.T) {
	for _, name := range []string{"sqlite3", "sqlite-leakguard"} {
		t.Run(name, func(t *testing.T) {
			db := openBoth(t, "")[name]
			ctx, cancel := context.WithCancel(t.Context())
			rows, err := db.QueryContext(ctx, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c LIMIT 1000000000) SELECT x FROM c WHERE x < 10 OR x > 900000000")
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for range 9 {
				if !rows.Next() {
					t.Fatal(rows.Err())
				}
			}
			time.AfterFunc(5*time.Millisecond, cancel)
			if rows.Next() {
				t.Error("a row after the context ended")
			}
			if err := rows.Err(); err != context.Canceled {
				t.Errorf("rows.Err() = %v, want context.Canceled", err)
			}
		})
	}
}

// A deadline ends the wait for a lock, and the timeout is kept in total. The
// deadline's wait would last for an hour; of the timeout's the shortest counts,
// for the machine may have other things to do.
func TestCancelWhileWaitingForLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.db") + "?_journal_mode=WAL&_busy_timeout=3600000"
	holder, err := sql.Open("sqlite-leakguard", path)
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.Exec("CREATE TABLE t (a)"); err != nil {
		t.Fatal(err)
	}
	held, err := holder.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	if _, err := held.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	waiter, err := sql.Open("sqlite-leakguard", path)
	if err != nil {
		t.Fatal(err)
	}
	defer waiter.Close()

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err = waiter.ExecContext(ctx, "INSERT INTO t VALUES (1)"); err != context.DeadlineExceeded {
		t.Errorf("a 50ms deadline: %v", err)
	}
	if _, err := waiter.Exec("PRAGMA busy_timeout = 700"); err != nil {
		t.Fatal(err)
	}
	shortest := time.Hour
	for range 10 {
		start := time.Now()
		_, err = waiter.Exec("INSERT INTO t VALUES (1)")
		shortest = min(shortest, time.Since(start))
		if e, ok := err.(sqlite3.Error); !ok || e.Code != sqlite3.ErrBusy {
			t.Errorf("without a deadline: %v, want SQLITE_BUSY", err)
		}
		if shortest <= 1500*time.Millisecond {
			break
		}
	}
	if shortest < 690*time.Millisecond || shortest > 1500*time.Millisecond {
		t.Errorf("a busy_timeout of 700 ms waited for %v", shortest)
	}
	if _, err := held.ExecContext(t.Context(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	if _, err := waiter.Exec("INSERT INTO t VALUES (1)"); err != nil {
		t.Errorf("after the lock is free: %v", err)
	}
}

func TestBusyTimeoutPragma(t *testing.T) {
	for _, name := range []string{"sqlite3", "sqlite-leakguard"} {
		t.Run(name, func(t *testing.T) {
			db := openBoth(t, "&_busy_timeout=1234")[name]
			db.SetMaxOpenConns(1)
			read := func() int64 { t.Helper(); return countOf(t, db, "PRAGMA busy_timeout") }
			if n := read(); n != 1234 {
				t.Errorf("from the DSN: %d", n)
			}
			if _, err := db.Exec("PRAGMA busy_timeout = 4321"); err != nil {
				t.Fatal(err)
			}
			if n := read(); n != 4321 {
				t.Errorf("after Exec: %d", n)
			}
			if n := countOf(t, db, "PRAGMA main.busy_timeout(77)"); n != 77 {
				t.Errorf("by Query: %d", n)
			}
			if _, err := db.Exec("SELECT 1; PRAGMA Busy_Timeout=0"); err != nil {
				t.Fatal(err)
			}
			if n := read(); n != 0 {
				t.Errorf("after 0: %d", n)
			}
			stmt, err := db.Prepare("PRAGMA busy_timeout=99")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := stmt.Exec(); err != nil {
				t.Fatal(err)
			}
			stmt.Close()
			if n := read(); n != 99 {
				t.Errorf("prepared: %d", n)
			}
		})
	}
}

// Ten thousand cancellations at random moments: a cancelled operation returns
// its context's error, and no other operation is ever hit.
func TestCancelStorm(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	connector, err := NewConnector(Config{
		DSN:     filepath.Join(t.TempDir(), "a.db") + "?_journal_mode=WAL&_synchronous=OFF&_busy_timeout=10000&_txlock=immediate",
		Tracker: tracker.New(tracker.Options{}),
	})
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	db.SetMaxOpenConns(4)
	if _, err := db.Exec("CREATE TABLE t (a INTEGER PRIMARY KEY, b)"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var cancelled sync.Map
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 7))
			for i := range n / 4 {
				key := int64(g)<<32 | int64(i)
				ctx, cancel := context.WithCancel(context.Background())
				stop := make(chan struct{})
				wait := time.Duration(r.IntN(40)) * time.Microsecond
				go func() { // a random moment is the point here
					for start := time.Now(); time.Since(start) < wait; {
					}
					cancel()
					close(stop)
				}()
				_, err := db.ExecContext(ctx, "INSERT INTO t VALUES (?, ?)", key, "x")
				<-stop
				switch err {
				case nil:
				case context.Canceled:
					cancelled.Store(key, true)
				default:
					t.Errorf("cancelled Exec = %v (%T)", err, err)
				}
				var got int64
				if err := db.QueryRow("SELECT count(*) FROM t WHERE a = ?", key).Scan(&got); err != nil {
					t.Errorf("a later query was hit: %v", err)
				}
				if _, gone := cancelled.Load(key); gone && got != 0 || !gone && got != 1 {
					t.Errorf("row %d: cancelled %v, found %d", key, gone, got)
				}
			}
		})
	}
	wg.Wait()
}

// The latency from cancel to return, printed; the bound is generous here and for
// the best half, the benchmark module measures it on a quiet machine.
func TestCancelLatency(t *testing.T) {
	db, started := cancelAfterStart(t)
	var all []time.Duration
	for range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		var at time.Time
		go func() { <-started; at = time.Now(); cancel() }()
		if _, err := db.ExecContext(ctx, endlessInsert); err != context.Canceled {
			t.Fatal(err)
		}
		all = append(all, time.Since(at))
	}
	slices.Sort(all)
	t.Logf("cancel to return: median %v, p90 %v, max %v", all[15], all[27], all[29])
	if all[15] > 500*time.Millisecond {
		t.Errorf("the median is %v", all[15])
	}
}

// The watchdog ends by itself when nothing was cancellable for a while, and at
// once with the last pool.
func TestWatchdogEnds(t *testing.T) {
	db, _ := cancelAfterStart(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	run := func() chan struct{} {
		t.Helper()
		if err := db.QueryRowContext(ctx, "SELECT 1").Scan(new(int)); err != nil {
			t.Fatal(err)
		}
		theWatchdog.mu.Lock()
		defer theWatchdog.mu.Unlock()
		return theWatchdog.ended
	}
	await := func(what string, ended chan struct{}) {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("the watchdog still runs %s", what)
		}
	}
	await("without anything to watch", run())
	ended := run()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	await("after Close", ended)
}

func countOf(t *testing.T, db *sql.DB, query string, args ...any) (n int64) {
	t.Helper()
	if err := db.QueryRow(query, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}
