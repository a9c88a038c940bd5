package leakguard

import (
	"database/sql/driver"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 3: a guard never destroys data.

// strict is a policy that every connection breaks all the time.
var strict = limits(func(p *tracker.Policy) {
	p.MaxLifetime, p.MaxIdle, p.LeakAfter, p.CheckInterval = time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond
	p.MaxAccess = 1
})

func TestMemoryDatabasesAreNeverClosed(t *testing.T) {
	for _, dsn := range []string{
		":memory:", "file::memory:", ":memory:?_foreign_keys=1",
		"file:law3a?mode=memory", "file:law3b?mode=memory&cache=shared", "file:law3c?cache=shared&mode=memory&_busy_timeout=0",
		"file:/law3d?vfs=memdb", "file:law3e?vfs=memdb",
		"",
	} {
		t.Run(dsn, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := openExactly(t, Config{DSN: dsn, Policy: strict})
				g.SetMaxOpenConns(1)
				run(t, g, createT)
				for i := range int64(10) {
					run(t, g, "INSERT INTO t VALUES(NULL)")
					sleep(10 * time.Millisecond)
					if n := number(t, g, "SELECT count(*) FROM t"); n != i+1 {
						t.Fatalf("%d rows, want %d", n, i+1)
					}
				}
				// What is forgotten in it is undone all the same.
				tx := g.begin(t)
				rows := query(t, tx, "SELECT * FROM t")
				run(t, tx, "INSERT INTO t VALUES(NULL)")
				sleep(20 * time.Millisecond)
				cut(t, rows, ErrReaped)
				wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(NULL)"), ErrReaped)
				wantErr(t, "Rollback", tx.Rollback(), nil)
				rows = query(t, g, "SELECT * FROM t")
				sleep(20 * time.Millisecond)
				cut(t, rows, ErrReaped)
				rows.Close()
				if n := number(t, g, "SELECT count(*) FROM t"); n != 10 {
					t.Errorf("%d rows, want 10", n)
				}
				if g.opened() != 1 {
					t.Errorf("%d connections were opened", g.opened())
				}
				g.expect(t, []tracker.EventType{tracker.EventKept, tracker.EventRecycled},
					"kept in-memory or temporary database: closing it would destroy the data")
			})
		})
	}
}

// keeping is something that may make a connection irreplaceable.
type keeping struct {
	dsn  []string // parameters
	text []string
	do   func(t *testing.T, g *guarded)
	why  string // "": it may go
}

var keepings = map[string]keeping{
	"nothing":         {},
	"plain use":       {text: []string{"BEGIN", "INSERT INTO t VALUES(1)", "COMMIT", "CREATE INDEX i ON t(a)", "PRAGMA user_version=3"}},
	"attach":          {text: []string{"ATTACH ':memory:' AS other"}, why: "a database is attached"},
	"attach detach":   {text: []string{"ATTACH ':memory:' AS other", "DETACH other"}},
	"temp table":      {text: []string{"CREATE TEMP TABLE x(a)"}, why: "it has temporary objects"},
	"temp view":       {text: []string{"CREATE VIEW temp.v AS SELECT 1"}, why: "it has temporary objects"},
	"temp drop":       {text: []string{"CREATE TEMPORARY TABLE x(a)", "DROP TABLE x"}},
	"pragma":          {text: []string{"PRAGMA cache_size=-4000"}, why: "PRAGMA cache_size was set by the program"},
	"pragma in tail":  {text: []string{"SELECT 1; PRAGMA recursive_triggers(1)"}, why: "PRAGMA recursive_triggers was set by the program"},
	"pragma asked":    {text: []string{"PRAGMA cache_size", "PRAGMA table_info(t)", "PRAGMA wal_checkpoint(PASSIVE)"}},
	"exclusive":       {text: []string{"PRAGMA locking_mode=EXCLUSIVE"}, why: "PRAGMA locking_mode was set by the program"},
	"exclusive dsn":   {dsn: []string{"_locking_mode=EXCLUSIVE"}, why: "locking_mode=EXCLUSIVE: a new connection would lack the lock"},
	"vfs":             {dsn: []string{"vfs=unix-none"}, why: "vfs=unix-none: what closing means there is not known"},
	"vfs default":     {dsn: []string{"vfs=unix"}},
	"pragma prepared": {do: func(t *testing.T, g *guarded) { prepare(t, g, "PRAGMA cache_size=-4000").Close() }, why: "PRAGMA cache_size was set by the program"},
	"pragma queried":  {do: func(t *testing.T, g *guarded) { number(t, g, "PRAGMA busy_timeout=100") }, why: "PRAGMA busy_timeout was set by the program"},
	"raw": {do: func(t *testing.T, g *guarded) {
		c := g.conn(t)
		defer c.Close()
		if err := c.Raw(func(dc any) error { _, _ = SQLiteConn(dc); return nil }); err != nil {
			t.Error(err)
		}
	}, why: "the raw connection was handed out"},
	"replaced": {do: func(t *testing.T, g *guarded) {
		file := fileOf(g.dsn)
		if err := os.WriteFile(file+".new", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}, why: "its DSN names another file by now"},
	"removed": {do: func(t *testing.T, g *guarded) {
		if err := os.Remove(fileOf(g.dsn)); err != nil {
			t.Fatal(err)
		}
	}, why: "its DSN names another file by now"},
}

// givingUp are limits that give a connection up.
var givingUp = map[tracker.Reason]func(p *tracker.Policy){
	tracker.ReasonMaxAccess:   func(p *tracker.Policy) { p.MaxAccess = 1 },
	tracker.ReasonMaxLifetime: func(p *tracker.Policy) { p.MaxLifetime = 10 * time.Minute },
	tracker.ReasonMaxIdle:     func(p *tracker.Policy) { p.MaxIdle = 10 * time.Minute },
}

// givenUp uses a pool of one with a MiB in its cache until a limit gave its
// connection up three times, and returns what the cache held before.
func givenUp(t *testing.T, expire tracker.Expiry, reason tracker.Reason, k keeping) (g *guarded, full int64) {
	t.Helper()
	params := slices.Concat([]string{"_busy_timeout=0"}, k.dsn)
	g = open(t, Config{
		DSN:    "file:" + t.TempDir() + "/test.db?" + strings.Join(params, "&"),
		Policy: limits(nil),
	})
	g.SetMaxOpenConns(1)
	run(t, g, createT, "INSERT INTO t SELECT randomblob(100000) FROM "+eleven)
	run(t, g, k.text...)
	if k.do != nil {
		k.do(t, g)
	}
	number(t, g, "SELECT sum(length(a)) FROM t")
	full, _ = g.last().db().TryMemory(false)
	if full < 500_000 {
		t.Fatalf("the cache holds %d bytes", full)
	}
	g.limit(t, limits(func(p *tracker.Policy) {
		p.Expire = expire
		givingUp[reason](p)
	}))
	for range 3 {
		sleep(time.Hour)
		if len(g.events(tracker.EventRecycled)) > 0 {
			break
		}
		run(t, g, "SELECT 1")
	}
	sleep(time.Hour)
	return g, full
}

// A connection that carries what a new one would lack is not closed where the
// others are. It is reported once per pool, and its memory is released.
func TestSessionStateIsKept(t *testing.T) {
	for name, k := range keepings {
		for reason := range givingUp {
			t.Run(name+"/"+string(reason), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					g, full := givenUp(t, tracker.Close, reason, k)
					types := []tracker.EventType{tracker.EventKept, tracker.EventRecycled}
					if k.why == "" {
						g.expect(t, types, "recycled "+string(reason))
						run(t, g, "SELECT 1")
						if g.opened() != 2 {
							t.Errorf("%d connections were opened, want a second one", g.opened())
						}
						return
					}
					g.expect(t, types, "kept "+k.why)
					if left, _ := g.last().db().TryMemory(false); left > full/5 && reason != tracker.ReasonMaxAccess {
						t.Errorf("the cache still holds %d of %d bytes", left, full)
					}
					run(t, g, "SELECT 1")
					if g.opened() != 1 {
						t.Errorf("%d connections were opened, want 1", g.opened())
					}
				})
			})
		}
	}
}

// By default a connection with a history is refreshed where it is, with state
// or without, and what can never be closed is reported once per pool.
func TestGivenUpIsRefreshed(t *testing.T) {
	for name, k := range keepings {
		for reason := range givingUp {
			t.Run(name+"/"+string(reason), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					g, full := givenUp(t, tracker.Refresh, reason, k)
					var told []string
					for _, e := range g.events(tracker.EventRefreshed, tracker.EventRecycled) {
						if text := eventText(e); !slices.Contains(told, text) {
							told = append(told, text)
						}
					}
					if want := []string{"refreshed " + string(reason)}; !slices.Equal(told, want) {
						t.Errorf("told %q, want %q", told, want)
					}
					left, _ := g.last().db().TryMemory(false)
					switch keeps := reason == tracker.ReasonMaxAccess; {
					case keeps && left < full/2:
						t.Errorf("%d of %d bytes are left: readers lose their pages", left, full)
					case !keeps && left > full/5:
						t.Errorf("the cache still holds %d of %d bytes", left, full)
					}
					if s := g.connector.Stats(); s.Refreshed != uint64(len(g.events(tracker.EventRefreshed))) || s.Recycled+s.ForceClosed != 0 {
						t.Errorf("%d refreshed, %d recycled, %d closed", s.Refreshed, s.Recycled, s.ForceClosed)
					}
					if g.opened() != 1 {
						t.Errorf("%d connections were opened, want 1", g.opened())
					}
				})
			})
		}
	}
}

// What is forgotten on such a connection is undone, the connection stays.
func TestReapedLeaseKeepsSessionState(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g, createT)
		c := g.conn(t)
		run(t, c, "CREATE TEMP TABLE x(a)", "INSERT INTO x VALUES(7)")
		stmt := prepare(t, c, "SELECT a FROM x")
		rows := query(t, c, "SELECT i FROM "+eleven)
		run(t, c, "BEGIN", "INSERT INTO t VALUES(1)")
		sleep(3 * time.Minute)
		cut(t, rows, ErrReaped)
		wantErr(t, "INSERT", try(c, "INSERT INTO t VALUES(2)"), ErrReaped)
		wantErr(t, "ROLLBACK", try(c, "ROLLBACK"), nil)
		if n := number(t, c, "SELECT a FROM x"); n != 7 {
			t.Errorf("the temp table holds %d", n)
		}
		var n int
		if err := stmt.QueryRow().Scan(&n); err != nil || n != 7 {
			t.Errorf("its statement: %d, %v", n, err)
		}
		g.expect(t, []tracker.EventType{tracker.EventKept}, "kept it has temporary objects")
		if n := g.rows(t); n != 0 || g.opened() != 1 {
			t.Errorf("%d rows, %d connections, want 0 and 1", n, g.opened())
		}
	})
}

// SQLite forgets what it cannot ask: a connection whose state is not known is
// kept.
func TestUnknownStateIsKept(t *testing.T) {
	t.Parallel()
	c := drive(t, Config{})
	if why := c.session.verify(c); why != "" {
		t.Fatalf("a fresh connection: %s", why)
	}
	c.session.attach = true
	c.inner = &failing{sqliteConn: c.inner, query: driver.ErrSkip}
	if why := c.session.verify(c); why != "a database is attached" {
		t.Errorf("the question failed: %q", why)
	}
	c.session.attach, c.session.file = false, fileID{}
	if why := c.session.verify(c); why != "its file could not be examined" {
		t.Errorf("no file: %q", why)
	}
	for _, q := range []string{"SELECT 1 WHERE 0", "SELECT 'text'"} {
		c.inner = c.inner.(*failing).sqliteConn
		if n := c.count(q); n != -1 {
			t.Errorf("count(%q) = %d", q, n)
		}
		c.inner = &failing{sqliteConn: c.inner}
	}
}
