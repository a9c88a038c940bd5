package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Something happens to a program's files or to its process while its
// connections sit in the pool, and then every limit passes. What go-sqlite3 can
// go on with, the guard can: a connection that is open is worth more than one
// that could be opened. What go-sqlite3 fails with, the guard fails with, too.

// fault is what happens. Where it needs a process of its own, the test that
// runs it sees to that.
type fault struct {
	name     string
	dsn      string // path in the DSN from the folder data, "app.db" if empty
	relative bool   // and as it is, from the working directory
	// prepare runs before the pool opens, strike while its connections are
	// idle, goOn when limits have passed, mend before the last part of the
	// program.
	prepare, strike, goOn, mend func(r *faultRun)
	// Over go-sqlite3 nothing fails with a WAL, with a rollback journal.
	wal, journal bool
}

// faultRun is one run of the program.
type faultRun struct {
	t       *testing.T
	dir     string // absolute; the database is in its folder data
	dsn     string
	db      *sql.DB
	told    []string
	idle    int        // connections that sit in the pool
	written bool       // each of them has written
	pass    func()     // lets every limit pass
	ballast []*os.File // descriptors that are in use
}

func (r *faultRun) path(name string) string { return filepath.Join(r.dir, name) }

// ok stops the test if preparing a fault fails.
func (r *faultRun) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

var faults = []fault{
	{
		name: "link pointed elsewhere", dsn: "link.db", wal: true, journal: true,
		prepare: func(r *faultRun) { r.ok(os.Symlink("app.db", r.path("data/link.db"))) },
		strike: func(r *faultRun) {
			r.other("data/other.db")
			r.ok(os.Remove(r.path("data/link.db")))
			r.ok(os.Symlink("other.db", r.path("data/link.db")))
		},
	},
	{
		name: "folder behind a link pointed elsewhere", dsn: "../current/app.db", wal: true, journal: true,
		prepare: func(r *faultRun) { r.ok(os.Symlink("data", r.path("current"))) },
		strike: func(r *faultRun) {
			r.ok(os.Mkdir(r.path("next"), 0o700))
			r.other("next/app.db")
			r.ok(os.Remove(r.path("current")))
			r.ok(os.Symlink("next", r.path("current")))
		},
	},
	{
		name: "removed", wal: true, // SQLite looks for the file before it makes a journal
		strike: func(r *faultRun) { r.ok(os.Remove(r.path("data/app.db"))) },
	},
	{
		name: "replaced", wal: true, // with a rollback journal SQLite sees it
		strike: func(r *faultRun) {
			r.other("data/other.db")
			r.ok(os.Rename(r.path("data/other.db"), r.path("data/app.db")))
		},
	},
	{
		name: "moved with its folder", wal: true,
		strike: func(r *faultRun) { r.ok(os.Rename(r.path("data"), r.path("moved"))) },
	},
	{
		name: "moved with its folder, and another one there", wal: true,
		strike: func(r *faultRun) {
			r.ok(os.Rename(r.path("data"), r.path("moved")))
			r.ok(os.Mkdir(r.path("data"), 0o700))
			r.other("data/app.db")
		},
	},
}

// other makes a database that looks as the program's own does.
func (r *faultRun) other(name string) {
	r.t.Helper()
	db, err := sql.Open("sqlite3", r.path(name))
	r.ok(err)
	_, err = db.Exec("CREATE TABLE t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v) VALUES('not this one')")
	r.ok(errors.Join(err, db.Close()))
}

// faultPools are the pools that a program may have, by how many connections sit
// in them.
var faultPools = map[int]func(db *sql.DB){
	1: func(db *sql.DB) { db.SetMaxOpenConns(1) },
	2: func(*sql.DB) {}, // as it comes
	4: func(db *sql.DB) { db.SetMaxIdleConns(4) },
}

func TestFaults(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			f.run(t, t.TempDir())
		})
	}
}

// The working directory is the process's.
func TestFaultChdir(t *testing.T) {
	dir, ok := apart(t, nil)
	if !ok {
		return
	}
	f := fault{
		relative: true, wal: true, journal: true,
		prepare: func(r *faultRun) {
			r.ok(os.Mkdir(r.path("elsewhere"), 0o700))
			r.ok(os.Chdir(r.path("data")))
		},
		strike: func(r *faultRun) { r.ok(os.Chdir(r.path("elsewhere"))) },
	}
	f.run(t, filepath.Join(dir, "empty"))
	f.strike = func(r *faultRun) {
		r.other("elsewhere/app.db")
		r.ok(os.Chdir(r.path("elsewhere")))
	}
	f.run(t, filepath.Join(dir, "alike"))
}

// play is the program. It relies on nothing but its connections.
func (f fault) play(r *faultRun) {
	idle, first := r.idle, "SELECT count(*) FROM t"
	if r.written {
		first = "INSERT INTO t(v) VALUES('before')"
	}
	var conns []*sql.Conn
	for range idle {
		c, err := r.db.Conn(background)
		r.ok(err)
		run(r.t, c, first)
		conns = append(conns, c)
	}
	for _, c := range conns {
		r.ok(c.Close())
	}
	stmt, err := r.db.Prepare("INSERT INTO t(v) VALUES('prepared')")
	r.ok(err)
	f.strike(r)
	for _, when := range []string{"struck", "later", "mended"} {
		if when == "mended" && f.mend != nil {
			f.mend(r)
		}
		r.pass()
		if when != "mended" && f.goOn != nil {
			f.goOn(r)
		}
		r.work(when, stmt, idle)
	}
	r.note("end", "closing the statement", stmt.Close())
	r.note("end", "closing the database", r.db.Close())
	r.files()
}

// work is what the program does all the time.
func (r *faultRun) work(when string, stmt *sql.Stmt, idle int) {
	const write = "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v); INSERT INTO t(v) VALUES('text')"
	for range 3 {
		r.exec(when, write)
		r.history(when, r.db)
	}
	_, err := stmt.Exec()
	r.note(when, "prepared", err)
	tx, err := r.db.Begin()
	r.note(when, "begin", err)
	if err == nil {
		_, err = tx.Exec("INSERT INTO t(v) VALUES('in a transaction')")
		r.note(when, "insert", err)
		if err == nil {
			r.note(when, "commit", tx.Commit())
		} else {
			r.note(when, "rollback", tx.Rollback())
		}
	}
	var conns []*sql.Conn // all that are idle, each in its turn
	for range idle {
		c, err := r.db.Conn(background)
		if r.note(when, "Conn", err); err != nil {
			break
		}
		conns = append(conns, c)
		r.history(when, c)
		_, err = c.ExecContext(background, write)
		r.note(when, "insert", err)
		r.history(when, c)
	}
	for _, c := range conns {
		r.note(when, "closing a sql.Conn", c.Close())
	}
	r.history(when, r.db)
}

func (r *faultRun) exec(when, text string) {
	_, err := r.db.Exec(text)
	r.note(when, text, err)
}

// history tells what the connection knows, and what is in its file.
func (r *faultRun) history(when string, on execer) {
	r.note(when, "history", func() error {
		rows, err := on.QueryContext(background, "SELECT last_insert_rowid(), total_changes(), (SELECT count(*) FROM t), (SELECT count(*) FROM t WHERE v='not this one')")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r.told = append(r.told, fmt.Sprintf("%s: %s", when, scanned(rows)))
		}
		return rows.Err()
	}())
}

func (r *faultRun) note(when, what string, err error) {
	if err != nil {
		r.told = append(r.told, fmt.Sprintf("%s: %s failed: %v", when, what, err))
	}
}

// files tells what is left in the files.
func (r *faultRun) files() {
	r.t.Helper()
	var databases []string
	r.ok(filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		name, err := filepath.Rel(r.dir, path)
		r.told = append(r.told, "left: "+name)
		if strings.HasSuffix(name, ".db") {
			databases = append(databases, name)
		}
		return err
	}))
	for _, name := range databases {
		db, err := sql.Open("sqlite3", r.path(name))
		r.ok(err)
		var rows string
		err = db.QueryRow("SELECT group_concat(v || ' ' || n, ', ') FROM (SELECT v, count(*) AS n FROM t GROUP BY v)").Scan(&rows)
		r.told = append(r.told, fmt.Sprintf("%s holds %s %v", name, rows, err))
		r.ok(db.Close())
	}
}

// run runs the program over go-sqlite3 and over the guard.
func (f fault) run(t *testing.T, dir string) {
	t.Helper()
	if f.dsn == "" {
		f.dsn = "app.db"
	}
	n := 0
	for idle, size := range faultPools {
		for _, mode := range []struct {
			journal           string
			survives, written bool
		}{{"WAL", f.wal, true}, {"WAL", f.wal, false}, {"DELETE", f.journal, true}, {"DELETE", f.journal, false}} {
			journal, survives := mode.journal, mode.survives
			what := fmt.Sprintf("%s, %d idle, written %v", journal, idle, mode.written)
			program := func(connect func(dsn string) driver.Connector, pass func()) []string {
				n++
				r := &faultRun{t: t, idle: idle, written: mode.written, dir: filepath.Join(dir, fmt.Sprint(n)), pass: pass}
				r.ok(os.MkdirAll(r.path("data"), 0o755))
				r.dsn = f.dsn
				if f.prepare != nil {
					f.prepare(r)
				}
				if !f.relative {
					r.dsn = r.path("data/" + f.dsn)
				}
				r.dsn = "file:" + r.dsn + "?_busy_timeout=0&_synchronous=OFF&_journal_mode=" + journal
				byOthers(t, r.dsn, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)") // so that the pool has no history
				r.db = sql.OpenDB(connect(r.dsn))
				size(r.db)
				f.play(r)
				return r.told
			}
			raw := program(func(dsn string) driver.Connector {
				return &plainConnector{dsn: dsn, used: new(atomic.Int64)}
			}, func() {})
			for _, line := range raw {
				if survives && strings.Contains(line, "failed:") {
					t.Errorf("%s: go-sqlite3 does not get through: %s", what, line)
					break
				}
			}
			var guard []string
			synctest.Test(t, func(*testing.T) {
				tr := tracker.New(tracker.Options{})
				shortOfMemory(tr)
				kept := record(t, tr)
				guard = program(func(dsn string) driver.Connector {
					c, err := NewConnector(Config{DSN: dsn, Policy: everyLimit(), Tracker: tr, Logger: slog.New(slog.DiscardHandler)})
					if err != nil {
						t.Fatal(err)
					}
					return c
				}, func() { sleep(100 * time.Millisecond) })
				if s := tr.Stats(); s.Refreshed+s.Recycled+uint64(len(kept.events(tracker.EventKept))) == 0 {
					t.Errorf("%s: no limit passed: not the case that was meant", what)
				}
			})
			if diff := faultDiff(raw, guard); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
	}
}

// faultDiff returns how two runs differ: where first, and in the files.
func faultDiff(raw, guard []string) string {
	if slices.Equal(raw, guard) {
		return ""
	}
	n := 0
	for n < len(raw) && n < len(guard) && raw[n] == guard[n] {
		n++
	}
	var b strings.Builder
	for i, told := range [][]string{raw, guard} {
		name, failed := []string{"go-sqlite3", "the guard"}[i], 0
		for _, line := range told {
			if strings.Contains(line, "failed:") {
				failed++
			}
		}
		fmt.Fprintf(&b, "\n%s (%d calls fail):", name, failed)
		if n < len(told) {
			fmt.Fprintf(&b, "\n\t%s", told[n])
		}
		for _, line := range told[min(n+1, len(told)):] {
			if strings.HasPrefix(line, "left: ") || strings.Contains(line, " holds ") {
				fmt.Fprintf(&b, "\n\t%s", line)
			}
		}
	}
	return b.String()
}

// everyLimit is a policy of which every connection breaks each limit that means
// giving it up, all the time.
func everyLimit() tracker.Policy {
	return limits(func(p *tracker.Policy) {
		p.LeakAfter, p.TxTimeout = time.Hour, time.Hour
		p.CheckInterval, p.MemoryInterval = time.Millisecond, time.Millisecond
		identityLimits["all"](p)
	})
}

// shortOfMemory gives the tracker a machine that is short of memory at two of
// four readings.
func shortOfMemory(tr *tracker.Tracker) {
	var readings atomic.Int64
	tr.SetMemorySource(func() tracker.Memory {
		m := tracker.Memory{Total: 100, Used: 10, UsedPercent: 10}
		if readings.Add(1)%4 < 2 {
			m.Used, m.UsedPercent = 95, 95
		}
		return m
	})
}

const (
	apartKey = "LEAKGUARD_TEST_APART"
	apartDir = "LEAKGUARD_TEST_DIR"
)

// apart is alone with a folder in which everybody may write. prepare, if not
// nil, changes how the process is started.
func apart(t *testing.T, prepare func(cmd *exec.Cmd)) (dir string, ok bool) {
	t.Helper()
	if os.Getenv(apartKey) == t.Name() {
		return os.Getenv(apartDir), true
	}
	dir = t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(background, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.count=1", "-test.v")
	cmd.Env = append(os.Environ(), apartKey+"="+t.Name(), apartDir+"="+dir)
	if prepare != nil {
		prepare(cmd)
	}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Errorf("in a process of its own: %v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP: "):
		t.Skipf("in a process of its own: %s", out)
	}
	return "", false
}
