package leakguard

import (
	"database/sql"
	"database/sql/driver"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// rawOf returns go-sqlite3's connection, for use behind Raw.
func rawOf(t testing.TB, c *sql.Conn) (raw *sqlite3.SQLiteConn) {
	t.Helper()
	check(c.Raw(func(dc any) error { raw, _ = SQLiteConn(dc); return nil }))
	return raw
}

// Rows that were opened on the raw connection stay open when it is back in the pool:
// the lease is named, and what ran.
func TestBlameRowsOfRaw(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, rollbackDSN(t), Config{})
	writer := b.conn(t)
	run(t, writer, "BEGIN", "INSERT INTO t VALUES(9)")
	c, err := a.Conn(background) // here:lease of raw rows
	check(err)
	rows, err := rawOf(t, c).Query("SELECT a FROM t", nil)
	check(err)
	check(rows.Next(make([]driver.Value, 1)))
	c.Close()
	innocent, err := a.Conn(background) // has the connection now, and nothing open
	check(err)
	blame := busyFor(t, b, try(writer, "COMMIT"), "COMMIT", "connection read "+markedLine(t, "lease of raw rows"))
	h := blame.Holders[0]
	if h.Through != tracker.ThroughRaw || h.Maybe || h.Query != "SELECT a FROM t" || h.Age <= 0 {
		t.Errorf("%+v", h)
	}
	if s := blame.String(); !strings.Contains(s, "held by what was left open on the raw connection of "+h.ConnectionID+" (read), taken ") || !strings.HasSuffix(s, ": SELECT a FROM t") {
		t.Error(s)
	}
	if n := a.tracker.Blamed(); len(n) != 1 || siteText(n[0].Site()) != markedLine(t, "lease of raw rows") {
		t.Errorf("%+v", n)
	}
	innocent.Close()
	check(rows.Close())
	run(t, writer, "COMMIT")
}

// The transaction of whoever has the connection now is named beside what was left:
// SQLite does not say which of them it is.
func TestBlameRowsOfRawBesideATransaction(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, rollbackDSN(t), Config{})
	a.SetMaxOpenConns(1)
	writer := b.conn(t)
	run(t, writer, "BEGIN", "INSERT INTO t VALUES(9)")
	c, err := a.Conn(background) // here:raw rows beside
	check(err)
	rows, err := rawOf(t, c).Query("SELECT a FROM t", nil)
	check(err)
	defer rows.Close()
	c.Close()
	tx, err := a.BeginTx(background, nil) // here:beside raw rows
	begun(t, tx, err)
	wantCode(t, "COMMIT", try(writer, "COMMIT"), sqlite3.ErrBusy)
	var got []string
	for _, h := range b.wait(t, tracker.EventBlocked).Blame.Holders {
		got = append(got, holderText(h))
	}
	slices.Sort(got) // their ages are a few milliseconds off
	if want := []string{"connection read " + markedLine(t, "raw rows beside"), "transaction read " + markedLine(t, "beside raw rows")}; !slices.Equal(got, want) {
		t.Errorf("by %q, want %q", got, want)
	}
	run(t, writer, "ROLLBACK")
	runtime.KeepAlive(rows)
}

// A backup that is not finished holds its destination.
func TestBlameBackupOfRaw(t *testing.T) {
	t.Parallel()
	from := open(t, Config{})
	fill(t, from, 1)
	a, b := rivals(t, rollbackDSN(t), Config{})
	b.conn(t).Close()
	source := from.conn(t)
	c, err := a.Conn(background) // here:backup
	check(err)
	backup, err := rawOf(t, c).Backup("main", rawOf(t, source), "main")
	check(err)
	ok(backup.Step(1))
	c.Close()
	busyFor(t, b, try(b, "INSERT INTO t VALUES(9)"), "INSERT INTO t VALUES(9)", "connection write "+markedLine(t, "backup"))
	check(backup.Close())
}

// A transaction that was begun there is named by the lease, too.
func TestBlameTransactionOfRaw(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, fileDSN(t), Config{})
	a.SetMaxOpenConns(1)
	c, err := a.Conn(background) // here:lease of raw BEGIN
	check(err)
	check(inRaw(t, c, "BEGIN IMMEDIATE"))
	c.Close()
	busyFor(t, b, try(b, "INSERT INTO t VALUES(9)"), "INSERT INTO t VALUES(9)", "transaction write "+markedLine(t, "lease of raw BEGIN"))
	run(t, a, "ROLLBACK")
}

// What begins behind the lease, on a connection that the program kept, is laid at the
// door of the last lease that had it; one from a ConnectHook has none.
func TestBlameKeptRawConnection(t *testing.T) {
	t.Parallel()
	t.Run("raw", func(t *testing.T) {
		a, b := rivals(t, fileDSN(t), Config{})
		c, err := a.Conn(background) // here:kept
		check(err)
		raw := rawOf(t, c)
		c.Close()
		ok(raw.Exec("BEGIN IMMEDIATE", nil))
		busyFor(t, b, try(b, "INSERT INTO t VALUES(9)"), "INSERT INTO t VALUES(9)", "connection write "+markedLine(t, "kept"))
		ok(raw.Exec("ROLLBACK", nil))
	})
	t.Run("hook", func(t *testing.T) {
		var kept []*sqlite3.SQLiteConn
		d := &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error { kept = append(kept, c); return nil }}
		a, b := rivals(t, fileDSN(t), Config{SQLite: d})
		b.conn(t).Close()
		ok(kept[0].Exec("BEGIN IMMEDIATE", nil))
		blame := busyFor(t, b, try(b, "INSERT INTO t VALUES(9)"), "INSERT INTO t VALUES(9)", "connection write .:0")
		if s := blame.String(); !strings.Contains(s, "held by what was left open on the raw connection of "+a.connector.pool.Name()+"#1 (write), which no lease has taken: did a ConnectHook keep it?") {
			t.Error(s)
		}
		ok(kept[0].Exec("ROLLBACK", nil))
	})
}

// While the raw connection is out it may have attached any file: it is named where
// nobody else is, and nowhere else.
func TestBlameRawConnectionThatIsOut(t *testing.T) {
	t.Parallel()
	a, b := strangers(t, "WAL", Config{})
	rival := open(t, Config{DSN: b.dsn, Tracker: b.tracker})
	rival.conn(t).Close()
	c, err := a.Conn(background) // here:out
	check(err)
	defer c.Close()
	number(t, c, "SELECT count(*) FROM t") // no part of what runs there
	check(inRaw(t, c, attach(b, "b"), "BEGIN", "INSERT INTO b.t VALUES(9)"))
	blame := busyFor(t, b, try(b, "INSERT INTO t VALUES(9)"), "INSERT INTO t VALUES(9)", "connection unknown "+markedLine(t, "out"))
	h := blame.Holders[0]
	if h.Through != tracker.ThroughRaw || !h.Maybe || h.Query != "" || blame.File != fileOf(b.dsn) {
		t.Errorf("%+v", blame)
	}
	if s := blame.String(); !strings.Contains(s, ": a raw connection may hold it: "+h.ConnectionID+", taken ") || !strings.Contains(s, " ago at ") {
		t.Error(s)
	}
	if n := a.tracker.Blamed(); len(n) != 0 {
		t.Errorf("a guess was counted: %+v", n)
	}
	check(inRaw(t, c, "ROLLBACK"))
	tx, err := b.BeginTx(background, nil) // here:not out
	run(t, begun(t, tx, err), "INSERT INTO t VALUES(9)")
	wantCode(t, "INSERT", try(rival, "INSERT INTO t VALUES(9)"), sqlite3.ErrBusy)
	for _, e := range b.events(tracker.EventBlocked)[1:] {
		if len(e.Blame.Holders) != 1 || holderText(e.Blame.Holders[0]) != "transaction write "+markedLine(t, "not out") {
			t.Errorf("%v", e.Blame)
		}
	}
}

// What was attached there is known when it is back.
func TestBlameAttachedInRaw(t *testing.T) {
	t.Parallel()
	a, b := strangers(t, "WAL", Config{})
	a.SetMaxOpenConns(1)
	c, err := a.Conn(background) // here:attaches in Raw
	check(err)
	check(inRaw(t, c, attach(b, "b")))
	c.Close()
	tx, err := a.BeginTx(background, nil) // here:attached in Raw
	run(t, begun(t, tx, err), "INSERT INTO b.t VALUES(9)")
	blame := busyFor(t, b, try(b, "INSERT INTO t VALUES(9)"), "INSERT INTO t VALUES(9)", "transaction write "+markedLine(t, "attached in Raw"))
	if got := siteText(blame.Holders[0].AttachedAt()); got != markedLine(t, "attaches in Raw") {
		t.Errorf("attached at %s", got)
	}
}

// Its own rows, opened on the raw connection, keep a connection from dropping a table.
func TestBlameLockedByOwnRowsOfRaw(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		g := open(t, Config{})
		g.SetMaxOpenConns(1)
		run(t, g, createT, "INSERT INTO t VALUES(1), (2)")
		c, err := g.Conn(background) // here:own raw rows
		check(err)
		rows, err := rawOf(t, c).Query("SELECT a FROM t", nil)
		check(err)
		check(rows.Next(make([]driver.Value, 1)))
		if back {
			c.Close()
			c = g.conn(t)
		}
		wantCode(t, "DROP", try(c, "DROP TABLE t"), sqlite3.ErrLocked)
		state := map[bool]string{false: "unknown", true: "read"}[back]
		e := blamedFor(t, g, tracker.ReasonLocked, "DROP TABLE t", "own connection "+state+" "+markedLine(t, "own raw rows"))
		if s := e.Blame.String(); !strings.Contains(s, "its own raw connection ") {
			t.Error(s)
		}
		rows.Close()
		c.Close()
	}
}

// Nobody waits for a program that is inside SQLite on a connection that it kept.
func TestBlameDoesNotWaitForAKeptConnection(t *testing.T) {
	t.Parallel()
	var kept []*sqlite3.SQLiteConn
	inside, release := make(chan struct{}), make(chan struct{})
	d := &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		kept = append(kept, c)
		return c.RegisterFunc("block", func() int64 { close(inside); <-release; return 1 }, false)
	}}
	a, b := rivals(t, fileDSN(t), Config{SQLite: d})
	writer := b.conn(t)
	var done sync.WaitGroup
	done.Go(func() { kept[0].Exec("BEGIN IMMEDIATE; SELECT block(); ROLLBACK", nil) })
	<-inside
	defer done.Wait()
	defer close(release)
	k := control{weak.Make(a.last())}
	if s := k.TxState(); s != tracker.TxUnknown { // waits for ever if it asks
		t.Error(s)
	}
	wantCode(t, "INSERT", try(writer, "INSERT INTO t VALUES(9)"), sqlite3.ErrBusy)
	b.wait(t, tracker.EventBlocked)
}

// What keeps the WAL was opened on the raw connection: back in the pool, under another
// lease, out, begun behind the lease.
func TestWALPinOfRaw(t *testing.T) {
	for _, name := range []string{"in the pool", "under another lease", "out", "behind the lease"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a := open(t, Config{Policy: walLimit(1 << 18)})
				a.SetMaxOpenConns(1)
				run(t, a, "CREATE TABLE big(b)", "INSERT INTO big VALUES(1), (2)")
				writer := open(t, Config{DSN: a.dsn, Tracker: a.tracker, Policy: walLimit(1 << 18)})
				c, err := a.Conn(background) // here:raw reader
				check(err)
				raw := rawOf(t, c)
				var rows driver.Rows
				read := func() {
					rows = ok(raw.Query("SELECT b FROM big", nil))
					check(rows.Next(make([]driver.Value, 1)))
				}
				if name != "behind the lease" {
					read()
				}
				if name != "out" {
					c.Close()
				}
				switch name {
				case "behind the lease":
					read()
				case "under another lease":
					c = a.conn(t)
				}
				sleep(time.Second)
				fillWAL(t, writer, 1<<18)
				sleep(time.Minute)
				a.expect(t, leakEvents, "suspect connection wal_limit")
				l := a.events(tracker.EventSuspect)[0].Leak
				if got := siteText(l.Site()); got != markedLine(t, "raw reader") {
					t.Errorf("opened at %s", got)
				}
				want := "connection keeps a WAL of "
				kept, text := "it was opened on the raw connection, so only the program can close it", "SELECT b FROM big"
				switch name {
				case "out":
					want, kept, text = "connection may keep a WAL of ", "a raw connection may hold it, and the guard cannot look while it is out", ""
				case "behind the lease":
					text = ""
				}
				if s := l.String(); !strings.HasPrefix(s, want) || l.Kept != kept || l.Query != text {
					t.Errorf("%q, kept %q, %q", s, l.Kept, l.Query)
				}
				sleep(3 * time.Minute)
				if name == "out" || name == "under another lease" {
					number(t, c, "SELECT 1")
				} else {
					number(t, a, "SELECT 1")
				}
				sleep(time.Minute)
				a.expect(t, leakEvents, "suspect connection wal_limit")
				var report strings.Builder
				ok(a.tracker.WriteTo(&report))
				if !strings.Contains(report.String(), "1 x connection at "+l.Site().String()+": wal_limit") {
					t.Error(&report)
				}
				check(rows.Close())
				if name == "out" {
					writer.checkpoint(t) // nobody may ask SQLite
				}
				sleep(time.Minute)
				a.expect(t, leakEvents, "suspect connection wal_limit", "recovered connection wal_limit")
				c.Close()
				a.expect(t, leakEvents, "suspect connection wal_limit", "recovered connection wal_limit")
			})
		})
	}
}
