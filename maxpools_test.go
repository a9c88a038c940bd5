package leakguard

import (
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// poolOf opens a pool as a program does that forgets to close it.
func poolOf(t testing.TB, cfg Config) *sql.DB {
	t.Helper()
	connector, err := NewConnector(cfg)
	check(err)
	db := sql.OpenDB(connector)
	t.Cleanup(func() { db.Close() })
	return db
}

// Twenty pools of one file, most of them from one line.
func TestMaxPools(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := record(t, tracker.New(tracker.Options{}))
		path := filepath.Join(t.TempDir(), "app.db")
		policy := tracker.DefaultPolicy()
		policy.LeakAfter = 0 // those of other files are not counted for the line
		cfg := Config{DSN: "file:" + path, Tracker: r.tracker, Policy: policy}
		var dbs []*sql.DB
		add := func(cfg Config) *sql.DB {
			connector, err := NewConnector(cfg) // here:most pools
			check(err)
			db := sql.OpenDB(connector)
			t.Cleanup(func() { db.Close() })
			return db
		}
		for range 7 {
			dbs = append(dbs, poolOf(t, cfg))
		}
		for i := range 40 { // none of them is of this file
			other := cfg
			other.DSN = []string{"file:" + path + "2", ":memory:", "file::memory:?cache=shared", "file:app.db?mode=memory", "file:" + path + "?vfs=memdb", ""}[i%6]
			if i%6 == 0 {
				other.DSN += fmt.Sprint(i)
			}
			add(other)
		}
		for range 12 {
			dbs = append(dbs, add(cfg))
		}
		r.expect(t, leakEvents)
		cfg.DSN = path + "?_busy_timeout=7" // the same file in other words
		dbs = append(dbs, add(cfg))
		r.expect(t, leakEvents, "suspect pool max_pools")
		l := r.events(tracker.EventSuspect)[0].Leak
		if l.Count != 20 || siteText(l.Site()) != markedLine(t, "most pools") || l.Kind != tracker.KindPool || l.Kept == "" {
			t.Errorf("%v", l)
		}
		dbs = append(dbs, add(cfg))
		time.Sleep(time.Hour)
		check(dbs[0].Close())
		r.expect(t, leakEvents, "suspect pool max_pools")
		if s := r.tracker.Stats(); s.LeakedDetected != 1 || s.Recovered != 0 {
			t.Errorf("%+v", s)
		}
		check(dbs[1].Close())
		check(dbs[2].Close())
		r.expect(t, leakEvents, "suspect pool max_pools", "recovered pool max_pools")
		if again := r.events(tracker.EventRecovered)[0].Leak; again.ID != l.ID {
			t.Errorf("leak %d recovered, %d was told", again.ID, l.ID)
		}
		add(cfg)
		add(cfg)
		r.expect(t, leakEvents[:1], "suspect pool max_pools", "suspect pool max_pools")
		if s := r.tracker.Stats(); s.LeakedDetected != 2 || s.Recovered != 1 || s.Reaped != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// Pools in memory and of many files, from one line: a leak if nobody uses them, and
// none as long as each is used now and then.
func TestMaxPoolsUnused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := record(t, tracker.New(tracker.Options{}))
		dir := t.TempDir()
		var dbs []*sql.DB
		for i := range 30 {
			dsn := ":memory:"
			if i%2 == 0 {
				dsn = filepath.Join(dir, fmt.Sprint(i, ".db"))
			}
			connector, err := NewConnector(Config{DSN: dsn, Tracker: r.tracker}) // here:tenant
			check(err)
			db := sql.OpenDB(connector)
			t.Cleanup(func() { db.Close() })
			run(t, db, createT)
			dbs = append(dbs, db)
		}
		for range 20 {
			sleep(3 * time.Minute)
			for _, db := range dbs {
				run(t, db, "DELETE FROM t WHERE a = -1")
			}
		}
		r.expect(t, leakEvents)
		sleep(10 * time.Minute)
		r.expect(t, leakEvents, "suspect pool max_pools")
		l := r.events(tracker.EventSuspect)[0].Leak
		if l.Count != 30 || !l.OnePlace || siteText(l.Site()) != markedLine(t, "tenant") {
			t.Errorf("%v", l)
		}
		for _, db := range dbs {
			number(t, db, "SELECT count(*) FROM t") // nothing was undone
		}
		sleep(2 * time.Minute)
		r.expect(t, leakEvents, "suspect pool max_pools", "recovered pool max_pools")
	})
}

// A relative path is one with the absolute one.
func TestMaxPoolsOfRelativePath(t *testing.T) {
	r := record(t, tracker.New(tracker.Options{}))
	wd, err := os.Getwd()
	check(err)
	p := limits(func(p *tracker.Policy) { p.MaxPools = 2 })
	poolOf(t, Config{DSN: "file:nowhere/../app.db", Tracker: r.tracker, Policy: p})
	poolOf(t, Config{DSN: filepath.Join(wd, "app.db"), Tracker: r.tracker, Policy: p})
	if s := r.tracker.Stats(); s.LeakedDetected != 1 {
		t.Errorf("%+v", s)
	}
}

// The last activity names the call of the last text, not of the lease.
func TestLastActivity(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(5 * time.Minute)})
		run(t, g, createT)
		tx, err := g.BeginTx(background, nil) // here:begins
		begun(t, tx, err)
		run(t, tx, "INSERT INTO t VALUES(1)")
		sleep(time.Second)
		ok(tx.ExecContext(background, "INSERT INTO t VALUES(2)")) // here:last text
		d := g.tracker.Stats().ActiveConnectionDetails
		want := markedLine(t, "last text")
		if len(d) != 1 || filepath.Base(d[0].LastActivityAt) != want || filepath.Base(d[0].OpenedAt) != markedLine(t, "begins") {
			t.Errorf("%+v, want the last activity at %s", d, want)
		}
		sleep(6 * time.Minute)
		l := g.events(tracker.EventSuspect)[0].Leak
		if siteText(l.LastSite()) != want || siteText(l.Site()) != markedLine(t, "begins") || l.Query != "INSERT INTO t VALUES(2)" {
			t.Errorf("%v, last at %v, %q", l, l.LastSite(), l.Query)
		}
	})
}

// Prepared statements and rows count as well.
func TestLastActivityOfEachKind(t *testing.T) {
	t.Parallel()
	g := open(t, Config{})
	run(t, g, createT)
	c := g.conn(t)
	s := prepare(t, c, "INSERT INTO t VALUES(?)")
	last := func(mark string) {
		t.Helper()
		if r := g.connector.pool.Records(); siteText(r[0].Last.Site()) != mark {
			t.Errorf("the last activity was at %v, want %s", r[0].Last.Site(), mark)
		}
	}
	ok(s.Exec(1)) // here:prepared
	last(markedLine(t, "prepared"))
	rows := ok(c.QueryContext(background, "SELECT a FROM t")) // here:queried
	rows.Close()
	last(markedLine(t, "queried"))
	ok(c.ExecContext(background, "DELETE FROM t WHERE a = ?", 1)) // here:deleted
	last(markedLine(t, "deleted"))
	tx := ok(c.BeginTx(background, nil)) // here:begun
	last(markedLine(t, "begun"))
	tx.Rollback()
}

// A hundred statements of one text on one connection.
func TestMaxStatementsDefault(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{})
		c := g.conn(t)
		var all []*sql.Stmt
		for range 99 {
			all = append(all, ok(c.PrepareContext(background, "SELECT 1"))) // here:prepares
		}
		for i := range 99 {
			prepare(t, c, fmt.Sprintf("SELECT %d", i+2))
		}
		sleep(2 * time.Minute)
		g.expect(t, leakEvents)
		all = append(all, ok(c.PrepareContext(background, "SELECT 1")))
		sleep(2 * time.Minute)
		number(t, c, "SELECT 1")
		sleep(2 * time.Minute)
		number(t, c, "SELECT 1")
		g.expect(t, leakEvents, "suspect statement max_statements")
		l := g.events(tracker.EventSuspect)[0].Leak
		if l.Count != 100 || l.Query != "SELECT 1" || siteText(l.Site()) != markedLine(t, "prepares") {
			t.Errorf("%v", l)
		}
		for _, s := range all {
			s.Close()
		}
		sleep(2 * time.Minute)
		g.expect(t, leakEvents, "suspect statement max_statements", "recovered statement max_statements")
	})
}

// Statements of one line whose texts differ, on one connection.
func TestMaxStatementsOfOneLine(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{})
		g.SetMaxOpenConns(1)
		run(t, g, createT)
		for i := range 500 {
			ok(g.Prepare(fmt.Sprintf("SELECT a FROM t WHERE a = %d", i))) // here:forgets
		}
		sleep(2 * time.Minute)
		g.expect(t, leakEvents, "suspect statement max_statements")
		if l := g.events(tracker.EventSuspect)[0].Leak; l.Count != 500 || !l.OnePlace || siteText(l.Site()) != markedLine(t, "forgets") {
			t.Errorf("%v", l)
		}
	})
}
