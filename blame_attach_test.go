package leakguard

import (
	"database/sql"
	"database/sql/driver"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// strangers returns two pools of two files, each with a table t, and a tracker's
// event stream of both.
func strangers(t testing.TB, journal string, cfg Config) (a, b *guarded) {
	t.Helper()
	cfg.Tracker = tracker.New(tracker.Options{})
	cfg.DSN = fileDSN(t, "_journal_mode="+journal)
	a = open(t, cfg)
	cfg.DSN = fileDSN(t, "_journal_mode="+journal)
	b = open(t, cfg)
	for _, g := range []*guarded{a, b} {
		run(t, g, createT, "INSERT INTO t VALUES(1), (2), (3)")
	}
	return a, b
}

func attach(g *guarded, name string) string { return "ATTACH '" + fileOf(g.dsn) + "' AS " + name }

// busy expects that the operation finds a lock taken, and that this is told once, of
// these holders.
func busyFor(t testing.TB, g *guarded, err error, query string, holders ...string) *tracker.Blame {
	t.Helper()
	wantCode(t, query, err, sqlite3.ErrBusy)
	return blamedFor(t, g, tracker.ReasonBusy, query, holders...).Blame
}

// A lock is taken through ATTACH, in whatever way that was done.
func TestBlameThroughAttach(t *testing.T) {
	t.Parallel()
	for _, mode := range []tracker.Mode{tracker.Enforce, tracker.Observe, tracker.Basic} {
		for name, attached := range map[string]func(t *testing.T, c *sql.Conn, text string){
			"text":     func(t *testing.T, c *sql.Conn, text string) { run(t, c, text) },
			"several":  func(t *testing.T, c *sql.Conn, text string) { run(t, c, "SELECT 1; "+text+"; BEGIN; COMMIT") },
			"query":    func(t *testing.T, c *sql.Conn, text string) { check(ok(c.QueryContext(background, text)).Close()) },
			"prepared": func(t *testing.T, c *sql.Conn, text string) { ok(prepare(t, c, text).Exec()) },
		} {
			t.Run(mode.String()+"/"+name, func(t *testing.T) {
				a, b := strangers(t, "WAL", Config{Mode: mode})
				c := a.conn(t)
				attached(t, c, attach(b, "b"))
				tx, err := c.BeginTx(background, nil) // here:through attach
				run(t, begun(t, tx, err), "INSERT INTO b.t VALUES(4)")
				blame := busyFor(t, b, try(b, "INSERT INTO t VALUES(5)"), "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "through attach"))
				h := blame.Holders[0]
				if h.Through != "ATTACH AS b" || h.Maybe || h.AttachedAt().File == "" || h.File != "" || blame.Files != nil || blame.File != fileOf(b.dsn) {
					t.Errorf("%+v", blame)
				}
				if s := blame.String(); !strings.Contains(s, "(write through ATTACH AS b at ") {
					t.Error(s)
				}
			})
		}
	}
}

// A file is the same by whatever name it was attached.
func TestBlameAttachedByAnyName(t *testing.T) {
	t.Parallel()
	here, err := os.Getwd()
	check(err)
	link := filepath.Join(t.TempDir(), "link.db")
	for name, path := range map[string]func(file string) string{
		"relative":     func(file string) string { return ok(filepath.Rel(here, file)) },
		"URI":          func(file string) string { return "file:" + file + "?mode=rw" },
		"relative URI": func(file string) string { return "file:" + ok(filepath.Rel(here, file)) },
		"shared cache": func(file string) string { return "file://" + file + "?cache=shared" },
		"link":         func(file string) string { check(os.Symlink(file, link)); return link },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := strangers(t, "WAL", Config{})
			c := a.conn(t)
			run(t, c, "ATTACH '"+path(fileOf(b.dsn))+"' AS [other name]")
			tx, err := c.BeginTx(background, nil) // here:by any name
			run(t, begun(t, tx, err), "INSERT INTO [other name].t VALUES(4)")
			blame := busyFor(t, b, try(b, "INSERT INTO t VALUES(5)"), "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "by any name"))
			if h := blame.Holders[0]; h.Through != "ATTACH AS other name" {
				t.Errorf("%+v", h)
			}
		})
	}
}

// One that is attached can have a shared cache where the main one has none.
func TestBlameLockedInAnAttachedCache(t *testing.T) {
	t.Parallel()
	a, b := strangers(t, "WAL", Config{})
	text := "ATTACH 'file:" + fileOf(b.dsn) + "?cache=shared' AS b"
	c, d := a.conn(t), a.conn(t)
	run(t, c, text)
	run(t, d, text)
	tx, err := c.BeginTx(background, nil) // here:in the attached cache
	run(t, begun(t, tx, err), "INSERT INTO b.t VALUES(4)")
	wantCode(t, "INSERT", try(d, "INSERT INTO b.t VALUES(5)"), sqlite3.ErrLocked)
	blamedFor(t, a, tracker.ReasonLocked, "INSERT INTO b.t VALUES(5)", "transaction write "+markedLine(t, "in the attached cache"))
}

// The line of the ATTACH is told as well.
func TestBlameAttachedAt(t *testing.T) {
	t.Parallel()
	a, b := strangers(t, "WAL", Config{})
	c := a.conn(t)
	_, err := c.ExecContext(background, attach(b, "b")) // here:attach
	check(err)
	run(t, c, "ATTACH ':memory:' AS m")
	_, err = c.ExecContext(background, "BEGIN IMMEDIATE") // here:of all that is attached
	check(err)
	blame := busyFor(t, b, try(b, "INSERT INTO t VALUES(5)"), "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "of all that is attached"))
	if got := siteText(blame.Holders[0].AttachedAt()); got != markedLine(t, "attach") {
		t.Errorf("attached at %s", got)
	}
}

// Who has the file attached and does nothing there is in nobody's way; neither is who
// has detached it.
func TestBlameSparesWhoOnlyAttached(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"WAL", "DELETE"} {
		a, b := strangers(t, journal, Config{})
		c, gone, reads := a.conn(t), a.conn(t), a.conn(t)
		run(t, c, attach(b, "b"))
		run(t, gone, attach(b, "b"), "DETACH b")
		run(t, reads, attach(b, "b"), "BEGIN", "SELECT * FROM main.t")
		run(t, c, "BEGIN", "SELECT * FROM main.t", "INSERT INTO main.t VALUES(4)")
		outside := ok(new(sqlite3.SQLiteDriver).Open(b.dsn)) // stands for another process
		defer outside.Close()
		ok(outside.(driver.ExecerContext).ExecContext(background, "BEGIN EXCLUSIVE", nil))
		run(t, gone, "BEGIN", "SELECT 1")
		blame := busyFor(t, b, try(b, "INSERT INTO t VALUES(5)"), "INSERT INTO t VALUES(5)")
		if s := blame.String(); !strings.Contains(s, "no guarded connection of this process: by an unguarded one, by another process") {
			t.Error(s)
		}
	}
}

// The blocked connection itself has several files, and the one in question is named
// where it is known.
func TestBlameOfAnAttachedFile(t *testing.T) {
	t.Parallel()
	type try_ struct {
		before []string
		text   string
		files  []string // in question, the likeliest first
		line   bool     // somebody of this process is named
	}
	for name, test := range map[string]try_{
		"named":            {nil, "INSERT INTO b.t VALUES(5)", []string{"b"}, true},
		"quoted":           {nil, `UPDATE OR IGNORE "b".t SET a = 1`, []string{"b"}, true},
		"the likeliest":    {nil, "INSERT INTO only VALUES(5)", []string{"b", "a", "c"}, true},
		"written already":  {[]string{"BEGIN", "INSERT INTO main.t VALUES(4)", "INSERT INTO c.t VALUES(4)"}, "INSERT INTO only VALUES(5)", []string{"b"}, true},
		"by nobody":        {nil, "INSERT INTO only VALUES(5)", []string{"a", "b", "c"}, false},
		"by nobody, known": {nil, "DELETE FROM b.t", []string{"b"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := strangers(t, "WAL", Config{})
			other := open(t, Config{Tracker: a.tracker})
			run(t, other, createT)
			run(t, b, "CREATE TABLE only(a)")
			c := a.conn(t)
			run(t, c, attach(b, "b"), attach(other, "c"))
			run(t, c, test.before...)
			want := []string{}
			if test.line {
				tx, err := b.BeginTx(background, nil) // here:attached by the other
				run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
				want = append(want, "transaction write "+markedLine(t, "attached by the other"))
			} else {
				outside := ok(new(sqlite3.SQLiteDriver).Open(b.dsn)) // stands for another process
				defer outside.Close()
				ok(outside.(driver.ExecerContext).ExecContext(background, "BEGIN IMMEDIATE", nil))
			}
			blame := busyFor(t, a, try(c, test.text), test.text, want...)
			paths := map[string]string{"a": fileOf(a.dsn), "b": fileOf(b.dsn), "c": fileOf(other.dsn)}
			var files []string
			for _, f := range test.files {
				files = append(files, paths[f])
			}
			if blame.File != files[0] || len(files) == 1 && blame.Files != nil || len(files) > 1 && (len(blame.Files) != len(files) || blame.Files[0] != files[0]) {
				t.Errorf("in question: %q, %q, want %q", blame.File, blame.Files, files)
			}
			slices.Sort(files)
			if got := slices.Clone(blame.Files); len(files) > 1 {
				if slices.Sort(got); !slices.Equal(got, files) {
					t.Errorf("in question: %q, want %q", got, files)
				}
				if s := blame.String(); !strings.Contains(s, " (or ") || test.line && !strings.Contains(s, "(write on "+paths["b"]+", open for ") {
					t.Error(s)
				}
			}
		})
	}
}

// A connection that has one file under two names may be in its own way.
func TestBlameOneFileTwice(t *testing.T) {
	t.Parallel()
	a, _ := rivals(t, fileDSN(t), Config{})
	query(t, a.begin(t), "SELECT a FROM t")
	c := a.conn(t)
	run(t, c, attach(a, "again"))
	_, err := c.ExecContext(background, "BEGIN") // here:twice
	check(err)
	run(t, c, "INSERT INTO main.t VALUES(4)")
	busyFor(t, a, try(c, "INSERT INTO again.t VALUES(5)"), "INSERT INTO again.t VALUES(5)", "own transaction write "+markedLine(t, "twice"))
}

// Of several files, the snapshot that is too old is of one that was read.
func TestBlameSnapshotOfAnAttachedFile(t *testing.T) {
	t.Parallel()
	a, b := strangers(t, "WAL", Config{})
	run(t, b, "CREATE TABLE only(a)")
	c := a.conn(t)
	run(t, c, attach(b, "b"))
	_, err := c.ExecContext(background, "BEGIN") // here:old snapshot of b
	check(err)
	number(t, c, "SELECT count(*) FROM b.t")
	run(t, b, "INSERT INTO t VALUES(4)")
	wantCode(t, "INSERT", try(c, "INSERT INTO only VALUES(5)"), sqlite3.ErrBusy)
	blame := blamedFor(t, a, tracker.ReasonBusySnapshot, "INSERT INTO only VALUES(5)", "own transaction read "+markedLine(t, "old snapshot of b")).Blame
	if blame.File != fileOf(b.dsn) || blame.Files != nil {
		t.Errorf("%q, %q", blame.File, blame.Files)
	}
}

// The reader of a WAL has the file attached.
func TestWALPinThroughAttach(t *testing.T) {
	for name, pool := range map[string]bool{"with a pool": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a := open(t, Config{Policy: walLimit(1 << 18)})
				file := fileDSN(t)
				outside := open(t, Config{DSN: file, Mode: tracker.Off}) // writes, and nobody knows
				run(t, outside, "CREATE TABLE big(b)", "INSERT INTO big VALUES(1), (2)")
				if pool {
					b := open(t, Config{DSN: file, Tracker: a.tracker, Policy: walLimit(1 << 18)})
					number(t, b.conn(t), "SELECT count(*) FROM big")
				}
				c, idle := a.held(t), a.conn(t)
				run(t, idle, attach(outside, "b"))
				query(t, idle, "SELECT name FROM sqlite_schema UNION ALL SELECT 1") // of another file
				run(t, c, attach(outside, "b"))
				rows, err := c.QueryContext(background, "SELECT b FROM b.big") // here:pins through attach
				check(err)
				rows.Next()
				sleep(time.Second)
				fillWAL(t, outside, 1<<18)
				sleep(time.Minute)
				a.expect(t, leakEvents, "suspect rows wal_limit")
				if l := a.events(tracker.EventSuspect)[0].Leak; siteText(l.Site()) != markedLine(t, "pins through attach") || l.Bytes != walSize(outside) {
					t.Errorf("%v", l)
				}
				sleep(2 * time.Minute)
				a.expect(t, leakEvents, "suspect rows wal_limit")
				rows.Close()
				a.expect(t, leakEvents, "suspect rows wal_limit", "recovered rows wal_limit")
			})
		})
	}
}

// What a ConnectHook attached counts as well, and links are followed.
func TestBlameAttachedByAHook(t *testing.T) {
	t.Parallel()
	b := open(t, Config{})
	run(t, b, createT)
	link := filepath.Join(t.TempDir(), "link.db")
	check(os.Symlink(fileOf(b.dsn), link))
	a := open(t, Config{Tracker: b.tracker, SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		_, err := c.Exec("ATTACH '"+link+"' AS b", nil)
		return err
	}}})
	tx, err := a.BeginTx(background, nil) // here:attached by a hook
	run(t, begun(t, tx, err), "INSERT INTO b.t VALUES(4)")
	busyFor(t, b, try(b, "INSERT INTO t VALUES(5)"), "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "attached by a hook"))
}

// Locks that stay when their transaction is over.
func TestBlameLockingMode(t *testing.T) {
	t.Parallel()
	b := open(t, Config{DSN: rollbackDSN(t)})
	c := b.conn(t)
	run(t, c, createT)
	a := open(t, Config{DSN: b.dsn + "&_locking_mode=EXCLUSIVE", Tracker: b.tracker})
	run(t, a, "INSERT INTO t VALUES(4)")
	wantCode(t, "INSERT", try(c, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
	blame := b.wait(t, tracker.EventBlocked).Blame
	if len(blame.Holders) != 1 {
		t.Fatalf("%v", blame)
	}
	if h := blame.Holders[0]; h.Through != tracker.ThroughLockingMode || !h.Maybe || h.Pool != a.connector.pool.Name() || h.Site().File == "" {
		t.Errorf("%+v", h)
	}
	if s := blame.String(); !strings.Contains(s, " may still hold it: locking_mode=EXCLUSIVE, set at ") {
		t.Error(s)
	}
	a, b = rivals(t, rollbackDSN(t), Config{})
	b.conn(t).Close()
	c = a.conn(t)
	_, err := c.ExecContext(background, "PRAGMA locking_mode=EXCLUSIVE") // here:locking mode
	check(err)
	run(t, c, "INSERT INTO t VALUES(4)")
	busyFor(t, b, try(b, "INSERT INTO t VALUES(5)"), "INSERT INTO t VALUES(5)", "connection none "+markedLine(t, "locking mode"))
	run(t, c, "PRAGMA locking_mode=NORMAL", "SELECT 1 FROM t")
	run(t, b, "INSERT INTO t VALUES(5)")
}
