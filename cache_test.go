package leakguard

import (
	"database/sql"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A cache that the program asked for is left to it, however it asked: it is neither
// released nor a leak.
func TestProgramsOwnCache(t *testing.T) {
	const set = "PRAGMA cache_size = -16384"
	for name, way := range map[string]struct {
		dsn  string
		hook bool
		do   func(t *testing.T, c *sql.Conn)
	}{
		"DSN":     {dsn: "_cache_size=-16384"},
		"pages":   {dsn: "_cache_size=4096"},
		"hook":    {hook: true},
		"text":    {do: func(t *testing.T, c *sql.Conn) { run(t, c, set) }},
		"several": {do: func(t *testing.T, c *sql.Conn) { run(t, c, "SELECT 1; "+set+"; SELECT 2") }},
		"query":   {do: func(t *testing.T, c *sql.Conn) { check(ok(c.QueryContext(background, set)).Close()) }},
		"prepared": {do: func(t *testing.T, c *sql.Conn) {
			ok(prepare(t, c, set).Exec())
		}},
		"raw": {do: func(t *testing.T, c *sql.Conn) { check(inRaw(t, c, set)) }},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				cfg := Config{DSN: fileDSN(t, "_synchronous=OFF", way.dsn), Policy: limits(func(p *tracker.Policy) { p.ConnMemory, p.LeakMemory = 1<<20, 1<<20 })}
				if way.hook {
					cfg.SQLite = &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error { _, err := c.Exec(set, nil); return err }}
				}
				g := open(t, cfg)
				g.SetMaxOpenConns(1)
				fill(t, g, 8)
				if way.do != nil {
					c := g.conn(t)
					way.do(t, c)
					c.Close()
				}
				c := g.conn(t)
				number(t, c, scan)
				for range 3 {
					sleep(time.Minute)
					if n := holds(t, g.last()); n < 8<<20 {
						t.Fatalf("%d bytes are left", n)
					}
					number(t, c, "SELECT 1") // it moves, and is asked again
				}
				c.Close()
				if number(t, g, "SELECT 1"); holds(t, g.last()) < 8<<20 || g.opened() != 1 {
					t.Errorf("behind check-in, %d bytes, %d connections", holds(t, g.last()), g.opened())
				}
				g.expect(t, append(leakEvents, tracker.EventRecycled))

				// Given back by the program, the limits are the policy's again.
				c = g.conn(t)
				run(t, c, "PRAGMA cache_size = -2000")
				number(t, c, scan)
				sleep(time.Minute)
				if n := holds(t, g.last()); n > 1<<20 {
					t.Errorf("%d bytes", n)
				}
			})
		})
	}
}

// The limit that counts is what reports show, over all databases together.
func TestLimitWithProgramsOwnCache(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: limits(func(p *tracker.Policy) { p.LeakMemory = 1 << 20 })})
		c := g.conn(t)
		fill(t, c, 8)
		run(t, c, "ATTACH ':memory:' AS b", "PRAGMA cache_size = -1024", "PRAGMA b.cache_size = -3072", "PRAGMA cache_spill = OFF",
			"BEGIN", "UPDATE big SET b = randomblob(3000)")
		sleep(time.Minute)
		g.expect(t, leakEvents, "suspect connection leak_memory")
		if l := g.events(tracker.EventSuspect)[0].Leak; l.LimitBytes != 5<<20 || l.Bytes < 8<<20 || !strings.Contains(l.String(), "leak_memory 5.0 MiB") {
			t.Errorf("%v", l)
		}
		run(t, c, "ROLLBACK")
	})
}

// Asking locks nothing and reads nothing, in a transaction either.
func TestAskingForTheCacheTakesNoLock(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, rollbackDSN(t, "_cache_size=-4096"), Config{})
	c := a.conn(t)
	run(t, c, "BEGIN")
	run(t, b, "BEGIN EXCLUSIVE")
	k := control{weak.Make(a.last())}
	if n, ok := k.CacheSize(); n != 4<<20 || !ok {
		t.Errorf("CacheSize() = %d, %v", n, ok)
	}
	if s := k.TxState(); s != tracker.TxNone {
		t.Errorf("the transaction has state %v", s)
	}
	run(t, b, "ROLLBACK")
}

// Where a schema has to be read first, a lock on the file is not waited for.
func TestAskingForTheCacheDoesNotWait(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, "file:"+fileOf(fileDSN(t))+"?_journal_mode=DELETE&_busy_timeout=20000", Config{})
	other := b.conn(t)
	run(t, other, "SELECT 1 FROM t")
	c := a.conn(t)
	run(t, c, "BEGIN", "CREATE TABLE y(a)", "ROLLBACK") // forgets all schemas
	run(t, other, "BEGIN EXCLUSIVE")
	began := time.Now()
	if n, ok := (control{weak.Make(a.last())}).CacheSize(); ok {
		t.Errorf("CacheSize() = %d", n)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
	run(t, other, "ROLLBACK")
}

// The program's authorizer is asked. If it refuses, the connection is left alone; if
// it panics, SQLite's mutex may be locked for ever.
func TestAuthorizerOfTheCache(t *testing.T) {
	t.Parallel()
	answer := func() int { return sqlite3.SQLITE_DENY }
	d := &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		c.RegisterAuthorizer(func(op int, name, _, _ string) int {
			if op == sqlite3.SQLITE_PRAGMA && name == "cache_size" {
				return answer()
			}
			return sqlite3.SQLITE_OK
		})
		return nil
	}}
	g := open(t, Config{SQLite: d})
	run(t, g.conn(t), createT)
	k := control{weak.Make(g.last())}
	if n, ok := k.CacheSize(); ok {
		t.Errorf("CacheSize() = %d", n)
	}
	panics := 0
	answer = func() int { panics++; panic("on purpose") }
	for range 2 {
		if n, ok := k.CacheSize(); ok {
			t.Errorf("CacheSize() = %d", n)
		}
	}
	if panics != 1 {
		t.Errorf("it was touched %d times", panics)
	}
	g.wait(t, tracker.EventSuspect)
	if l := g.events(tracker.EventSuspect)[0].Leak; l.Reason != tracker.ReasonPanic {
		t.Errorf("%v", l)
	}
}
