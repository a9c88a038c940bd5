package leakguard

import (
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A process that closes any descriptor of a file loses all its POSIX locks on
// it, those of other descriptors too; see
// https://www.sqlite.org/howtocorrupt.html#_posix_advisory_locks_canceled_by_a_separate_thread_doing_close_.
// So only SQLite may open a database, its -wal, -shm and -journal, and whether
// the locks are there only another process can see.

const (
	processDSN  = "LEAKGUARD_TEST_PROCESS_DSN"
	processText = "LEAKGUARD_TEST_PROCESS_TEXT"
)

// inAnotherProcess runs a query over go-sqlite3, in a process of its own that
// waits for no lock, and returns its first row or the error.
func inAnotherProcess(t *testing.T, dsn, text string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestInAnotherProcess$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), processDSN+"="+dsn, processText+"="+text)
	out, err := cmd.CombinedOutput()
	_, answer, ok := strings.Cut(string(out), "answer: ")
	if !ok {
		t.Fatalf("another process: %v\n%s", err, out)
	}
	answer, _, _ = strings.Cut(answer, "\n")
	return answer
}

// TestInAnotherProcess is the other process.
func TestInAnotherProcess(t *testing.T) {
	dsn := os.Getenv(processDSN)
	if dsn == "" {
		return // not meant
	}
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	rows, err := db.Query(os.Getenv(processText))
	if err == nil && rows.Next() {
		fmt.Printf("answer: %s\n", scanned(rows))
	} else {
		if err == nil {
			err = rows.Err()
		}
		fmt.Printf("answer: %v\n", err)
	}
	if rows != nil {
		rows.Close()
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// crowded is a pool with three idle connections beside what hold takes, and a
// second pool of the same file with two.
func crowded(t *testing.T, journal string, hold func(t *testing.T, g *guarded)) *guarded {
	t.Helper()
	tr := tracker.New(tracker.Options{})
	shortOfMemory(tr)
	cfg := Config{DSN: "file:" + t.TempDir() + "/test.db?_busy_timeout=0&_journal_mode=" + journal, Policy: everyLimit(), Tracker: tr}
	g, second := open(t, cfg), open(t, cfg)
	g.SetMaxIdleConns(4)
	run(t, g, "CREATE TABLE t(a)", "INSERT INTO t VALUES(1)")
	var all []*sql.Conn
	for range 4 {
		all = append(all, g.conn(t))
	}
	for range 2 {
		all = append(all, second.conn(t))
	}
	for i, c := range all {
		if number(t, c, "SELECT count(*) FROM t"); i%2 == 0 {
			run(t, c, "UPDATE t SET a=a+1")
		}
	}
	for _, c := range all {
		c.Close()
	}
	hold(t, g)
	return g
}

// What the program's connections have locked stays locked for others, whatever
// the guard does to those that are idle.
func TestLocksStay(t *testing.T) {
	const write, locked = "BEGIN IMMEDIATE; SELECT 'wrote'", "database is locked"
	for name, test := range map[string]struct {
		journal    string
		hold       func(t *testing.T, g *guarded)
		text, want string // of another process
	}{
		"write transaction, WAL": {
			"WAL", func(t *testing.T, g *guarded) { run(t, g.begin(t), "INSERT INTO t VALUES(2)") }, write, locked,
		},
		"write transaction, rollback journal": {
			"DELETE", func(t *testing.T, g *guarded) { run(t, g.begin(t), "INSERT INTO t VALUES(2)") }, write, locked,
		},
		"text transaction in the pool, WAL": {
			"WAL", func(t *testing.T, g *guarded) { run(t, g, "BEGIN IMMEDIATE") }, write, locked,
		},
		"exclusive transaction, rollback journal": {
			"DELETE", func(t *testing.T, g *guarded) { run(t, g.conn(t), "BEGIN EXCLUSIVE") }, "SELECT count(*) FROM t", locked,
		},
		"rows, rollback journal": {
			"DELETE", func(t *testing.T, g *guarded) { query(t, g, "SELECT a, i FROM t, "+eleven) },
			"BEGIN EXCLUSIVE; SELECT 'wrote'", locked,
		},
		"rows, WAL": {
			"WAL", func(t *testing.T, g *guarded) {
				query(t, g, "SELECT a, i FROM t, "+eleven)
				run(t, g, "INSERT INTO t VALUES(2)")
			},
			"PRAGMA wal_checkpoint(TRUNCATE)", "1 ", // busy
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := crowded(t, test.journal, test.hold)
				for _, when := range []string{"to begin with", "when limits have passed", "when they have passed again"} {
					if got := inAnotherProcess(t, g.dsn, test.text); !strings.HasPrefix(got, test.want) {
						t.Fatalf("%s, another process: %s, want %s…", when, got, test.want)
					}
					sleep(100e6)
				}
				passed(t, g)
			})
		})
	}
}

// passed expects that a limit has passed on some connection.
func passed(t *testing.T, g *guarded) {
	t.Helper()
	if s := g.tracker.Stats(); s.Refreshed+s.Recycled+uint64(len(g.events(tracker.EventKept))) == 0 {
		t.Error("no limit passed: not the case that was meant")
	}
}

// Another process that comes and goes takes itself for the last one, and
// removes the WAL, if nobody else holds the lock that says otherwise.
func TestWALStaysBesideAnotherProcess(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := crowded(t, "WAL", func(*testing.T, *guarded) {})
		file := fileOf(g.dsn)
		before := stat(t, file+"-wal")
		for range 2 {
			sleep(100e6)
			if got := inAnotherProcess(t, g.dsn, "SELECT count(*) FROM t"); got != "1" {
				t.Errorf("another process: %s, want one row", got)
			}
			if !os.SameFile(before, stat(t, file+"-wal")) {
				t.Error("another WAL")
			}
		}
		passed(t, g)
		run(t, g, "INSERT INTO t VALUES(2)")
		if n := g.rows(t); n != 2 {
			t.Errorf("%d rows, want 2", n)
		}
	})
}

// -wal and -shm stay while a pool of the file is open: its last connection is
// not closed, and those of others are not in the way.
func TestWALStays(t *testing.T) {
	for idle, size := range faultPools {
		for name, write := range map[string]string{"written": "INSERT INTO t VALUES(2)", "read": "SELECT count(*) FROM t"} {
			t.Run(fmt.Sprintf("%d idle, %s", idle, name), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					tr := tracker.New(tracker.Options{})
					shortOfMemory(tr)
					g := open(t, Config{DSN: fileDSN(t), Policy: everyLimit(), Tracker: tr})
					byOthers(t, g.dsn, "CREATE TABLE t(a)") // so that the pool's have no history
					size(g.DB)
					var all []*sql.Conn
					for range idle {
						c := g.conn(t)
						run(t, c, write)
						all = append(all, c)
					}
					file := fileOf(g.dsn)
					wal, shm := stat(t, file+"-wal"), stat(t, file+"-shm")
					for _, c := range all {
						c.Close()
					}
					for range 5 {
						sleep(100e6)
						if !os.SameFile(wal, stat(t, file+"-wal")) || !os.SameFile(shm, stat(t, file+"-shm")) {
							t.Fatal("-wal or -shm is another one")
						}
						run(t, g, write)
					}
					passed(t, g)
				})
			})
		}
	}
}

// byOthers runs texts over go-sqlite3.
func byOthers(t testing.TB, dsn string, texts ...string) {
	t.Helper()
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		t.Fatal(err)
	}
	run(t, db, texts...)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

func stat(t *testing.T, file string) os.FileInfo {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
