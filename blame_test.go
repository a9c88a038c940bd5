package leakguard

import (
	"bufio"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// markedLine returns file.go:line of the comment "// here:name" in the caller's
// file.
func markedLine(t testing.TB, name string) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(1)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	at := ""
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasSuffix(line, "// here:"+name) {
			if at != "" {
				t.Fatalf("%q is marked twice", name)
			}
			at = fmt.Sprintf("%s:%d", filepath.Base(file), i+1)
		}
	}
	if at == "" {
		t.Fatalf("nothing is marked %q", name)
	}
	return at
}

func siteText(f tracker.Frame) string { return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line) }

// holderText is "kind state site", with "own" before it.
func holderText(h tracker.Holder) string {
	s := fmt.Sprintf("%v %v %s", h.Kind, h.State, siteText(h.Site()))
	if h.Own {
		s = "own " + s
	}
	return s
}

// blamedFor expects that the pool was blocked so often in all and told of it
// once, and returns that event.
func blamedFor(t testing.TB, g *guarded, reason tracker.Reason, query string, holders ...string) tracker.Event {
	t.Helper()
	e := g.wait(t, tracker.EventBlocked)
	var got []string
	for _, h := range e.Blame.Holders {
		got = append(got, holderText(h))
	}
	if e.Reason != reason || e.Blame.Query != query || !slices.Equal(got, holders) {
		t.Errorf("%s of %q by %q, want %s of %q by %q\n%v", e.Reason, e.Blame.Query, got, reason, query, holders, e.Blame)
	}
	if n := g.connector.Stats().Blocked; n != 1 {
		t.Errorf("blocked %d times, want 1", n)
	}
	return e
}

// rivals returns a pool and another one of the same file, which has a table t.
// The other one has a tracker's event stream of both.
func rivals(t testing.TB, dsn string, cfg Config) (a, b *guarded) {
	t.Helper()
	cfg.Tracker = tracker.New(tracker.Options{})
	cfg.DSN = dsn
	a, b = open(t, cfg), open(t, cfg)
	run(t, a, createT, "INSERT INTO t VALUES(1), (2), (3)")
	return a, b
}

// rollbackDSN is fileDSN without WAL.
func rollbackDSN(t testing.TB, params ...string) string {
	return fileDSN(t, append(params, "_journal_mode=DELETE")...)
}

func begun(t testing.TB, tx *sql.Tx, err error) *sql.Tx {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

func TestBlameNamesTheWriter(t *testing.T) {
	t.Parallel()
	for _, mode := range []tracker.Mode{tracker.Enforce, tracker.Observe, tracker.Basic} {
		t.Run(mode.String(), func(t *testing.T) {
			a, b := rivals(t, fileDSN(t), Config{Mode: mode})
			b.conn(t)                             // opened before
			tx, err := a.BeginTx(background, nil) // here:writer
			begun(t, tx, err)
			run(t, tx, "INSERT INTO t VALUES(4)")
			_, err = b.ExecContext(background, "INSERT INTO t VALUES(5)") // here:waits
			wantCode(t, "INSERT", err, sqlite3.ErrBusy)
			if want := (sqlite3.Error{Code: sqlite3.ErrBusy, ExtendedCode: sqlite3.ErrNoExtended(sqlite3.ErrBusy)}); err.(sqlite3.Error).ExtendedCode != want.ExtendedCode || err.Error() != "database is locked" {
				t.Errorf("the error became %#v", err)
			}
			// Told by the operation: no check comes for a minute.
			e := blamedFor(t, b, tracker.ReasonBusy, "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "writer"))
			h := e.Blame.Holders[0]
			if h.Query != "INSERT INTO t VALUES(4)" || h.Pool != a.connector.pool.Name() || h.Age <= 0 || h.Age > time.Minute {
				t.Errorf("%+v", h)
			}
			if got := siteText(e.Blame.Site()); got != markedLine(t, "waits") {
				t.Errorf("it waited at %s", got)
			}
			if e.Pool != b.connector.pool.Name() || filepath.Base(e.Blame.File) != "test.db" {
				t.Errorf("%+v", e)
			}
			n := a.tracker.Blamed()
			if len(n) != 1 || n[0].Count != 1 || n[0].Kind != tracker.KindTransaction || siteText(n[0].Site()) != markedLine(t, "writer") || n[0].Query != h.Query || n[0].Last.IsZero() {
				t.Errorf("%+v", n)
			}
			var report strings.Builder
			a.tracker.WriteTo(&report)
			if !strings.Contains(report.String(), "who kept others waiting: 1 time, at 1 site") || !strings.Contains(report.String(), markedLine(t, "writer")) {
				t.Error(report.String())
			}
		})
	}
	t.Run("off", func(t *testing.T) {
		a, b := rivals(t, fileDSN(t), Config{Mode: tracker.Off})
		tx := a.begin(t)
		run(t, tx, "INSERT INTO t VALUES(4)")
		wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
		if n := len(b.events(tracker.EventBlocked)) + len(b.tracker.Blamed()); n != 0 {
			t.Errorf("%d of mode off", n)
		}
	})
}

// A file is one by whatever path it was opened.
func TestBlameBySymlinkAndHardLink(t *testing.T) {
	t.Parallel()
	for name, link := range map[string]func(string, string) error{"symlink": os.Symlink, "hard link": os.Link} {
		t.Run(name, func(t *testing.T) {
			a := open(t, Config{DSN: rollbackDSN(t)})
			run(t, a, createT)
			path := filepath.Join(t.TempDir(), "other.db")
			if err := link(fileOf(a.dsn), path); err != nil {
				t.Skip(err)
			}
			b := open(t, Config{DSN: "file:" + path + "?_busy_timeout=0", Tracker: a.tracker})
			elsewhere := open(t, Config{Tracker: a.tracker})
			run(t, elsewhere.begin(t), createT)
			tx, err := a.BeginTx(background, nil) // here:linked
			run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
			wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
			blamedFor(t, b, tracker.ReasonBusy, "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "linked"))
		})
	}
}

// A process of its own that holds BEGIN IMMEDIATE.
func TestBlameAnotherProcess(t *testing.T) {
	const key = "LEAKGUARD_TEST_HOLD"
	if dsn := os.Getenv(key); dsn != "" {
		c, err := new(sqlite3.SQLiteDriver).Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.(driver.ExecerContext).ExecContext(background, "BEGIN IMMEDIATE", nil); err != nil {
			t.Fatal(err)
		}
		fmt.Println("holding")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	t.Parallel()
	a, b := rivals(t, fileDSN(t), Config{})
	query(t, a, "SELECT a FROM t") // a reader, who is in nobody's way
	exe, err := os.Executable()
	check(err)
	ctx, cancel := context.WithTimeout(background, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, exe, "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), key+"="+a.dsn)
	in := ok(cmd.StdinPipe())
	out := bufio.NewScanner(ok(cmd.StdoutPipe()))
	check(cmd.Start())
	defer cmd.Wait()
	defer in.Close()
	for out.Scan() && out.Text() != "holding" {
	}
	wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
	e := blamedFor(t, b, tracker.ReasonBusy, "INSERT INTO t VALUES(5)")
	if !strings.Contains(e.Blame.String(), "another process") {
		t.Error(e.Blame)
	}
}

// Its own snapshot is too old; a reader beside it has no part in that.
func TestBlameSnapshot(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, fileDSN(t), Config{})
	query(t, a.begin(t), "SELECT a FROM t")
	tx, err := b.BeginTx(background, nil) // here:snapshot
	begun(t, tx, err)
	number(t, tx, "SELECT count(*) FROM t")
	run(t, a, "INSERT INTO t VALUES(4)")
	err = try(tx, "INSERT INTO t VALUES(5)")
	if e, ok := err.(sqlite3.Error); !ok || e.ExtendedCode != sqlite3.ErrBusySnapshot {
		t.Fatal(err)
	}
	blamedFor(t, b, tracker.ReasonBusySnapshot, "INSERT INTO t VALUES(5)", "own transaction read "+markedLine(t, "snapshot"))
}

// The snapshot of open rows, without a transaction.
func TestBlameSnapshotOfRows(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, fileDSN(t), Config{})
	c := b.conn(t)
	rows, err := c.QueryContext(background, "SELECT a FROM t") // here:rows snapshot
	check(err)
	defer rows.Close()
	rows.Next()
	run(t, a, "INSERT INTO t VALUES(4)")
	wantCode(t, "INSERT", try(c, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
	blamedFor(t, b, tracker.ReasonBusySnapshot, "INSERT INTO t VALUES(5)", "own rows read "+markedLine(t, "rows snapshot"))
}

// Open rows keep their own connection from dropping the table, and those of
// others do not.
func TestBlameLockedByOwnRows(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, fileDSN(t), Config{})
	query(t, b.begin(t), "SELECT a FROM t") // in the same pool
	query(t, a.begin(t), "SELECT a FROM t")
	c := b.conn(t)
	rows, err := c.QueryContext(background, "SELECT a FROM t") // here:own rows
	check(err)
	defer rows.Close()
	rows.Next()
	wantCode(t, "DROP", try(c, "DROP TABLE t"), sqlite3.ErrLocked)
	blamedFor(t, b, tracker.ReasonLocked, "DROP TABLE t", "own rows read "+markedLine(t, "own rows"))
}

// So do rows of a temporary table, with other files at hand.
func TestBlameLockedByOwnTempRows(t *testing.T) {
	t.Parallel()
	a, b := strangers(t, "WAL", Config{})
	c := a.conn(t)
	run(t, c, attach(b, "b"), "CREATE TEMP TABLE x(a)", "INSERT INTO x VALUES(1), (2)")
	rows, err := c.QueryContext(background, "SELECT a FROM x") // here:own temp rows
	check(err)
	defer rows.Close()
	rows.Next()
	wantCode(t, "DROP", try(c, "DROP TABLE x"), sqlite3.ErrLocked)
	blamedFor(t, a, tracker.ReasonLocked, "DROP TABLE x", "own rows read "+markedLine(t, "own temp rows"))
}

// A COMMIT over statements that still write is refused as busy, and nobody else
// is in the way.
func TestBlameCommitOverOwnStatements(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, fileDSN(t), Config{})
	query(t, a.begin(t), "SELECT a FROM t")
	c := b.conn(t)
	run(t, c, "BEGIN")
	rows, err := c.QueryContext(background, "INSERT INTO t VALUES(7), (8) RETURNING a") // here:writing rows
	check(err)
	defer rows.Close()
	rows.Next()
	wantCode(t, "COMMIT", try(c, "COMMIT"), sqlite3.ErrBusy)
	blamedFor(t, b, tracker.ReasonBusy, "COMMIT", "own rows write "+markedLine(t, "writing rows"))
}

var sharedNames atomic.Int64

// Connections that share a cache lock each other's tables, and those of another
// cache do not.
func TestBlameLockedBySharedCache(t *testing.T) {
	t.Parallel()
	dsn := fmt.Sprintf("file:blame-%d?mode=memory&cache=shared&_busy_timeout=0", sharedNames.Add(1))
	a, b := rivals(t, dsn, Config{})
	elsewhere := open(t, Config{Tracker: a.tracker, DSN: strings.Replace(dsn, "file:", "file:other-", 1)})
	run(t, elsewhere.begin(t), createT)
	run(t, a, "CREATE TABLE u(a)", "INSERT INTO u VALUES(1), (2)")
	c := b.conn(t)
	query(t, c, "SELECT a FROM u")        // its own, and in nobody's way
	tx, err := a.BeginTx(background, nil) // here:sharing
	run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
	_, err = c.QueryContext(background, "SELECT a FROM t")
	if err == nil {
		t.Fatal("no lock")
	}
	wantCode(t, "SELECT", err, sqlite3.ErrLocked)
	blamedFor(t, b, tracker.ReasonLocked, "SELECT a FROM t", "transaction write "+markedLine(t, "sharing"))
}

// Readers are in the way only where there is no WAL.
func TestBlameReaders(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"DELETE", "WAL"} {
		t.Run(journal, func(t *testing.T) {
			a, b := rivals(t, fileDSN(t, "_journal_mode="+journal), Config{})
			rows, err := a.QueryContext(background, "SELECT a FROM t") // here:reads
			check(err)
			defer rows.Close()
			rows.Next()
			if journal == "DELETE" {
				tx := b.begin(t)
				run(t, tx, "INSERT INTO t VALUES(5)")
				wantCode(t, "COMMIT", tx.Commit(), sqlite3.ErrBusy)
				blamedFor(t, b, tracker.ReasonBusy, "COMMIT", "rows read "+markedLine(t, "reads"))
				return
			}
			c, err := new(sqlite3.SQLiteDriver).Open(a.dsn) // stands for another process
			check(err)
			defer c.Close()
			ok(c.(driver.ExecerContext).ExecContext(background, "BEGIN IMMEDIATE", nil))
			wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
			blamedFor(t, b, tracker.ReasonBusy, "INSERT INTO t VALUES(5)")
		})
	}
}

// The writer comes first, and readers are not named beside it.
func TestBlameWriterAmongReaders(t *testing.T) {
	t.Parallel()
	a, b := rivals(t, rollbackDSN(t), Config{})
	query(t, a, "SELECT a FROM t")
	tx, err := a.BeginTx(background, nil) // here:among
	run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
	wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
	blamedFor(t, b, tracker.ReasonBusy, "INSERT INTO t VALUES(5)", "transaction write "+markedLine(t, "among"))
}

// blocking is a driver with the SQL function block(), which says that it is
// inside and waits to be let go.
func blocking() (d *sqlite3.SQLiteDriver, inside, release chan struct{}) {
	inside, release = make(chan struct{}), make(chan struct{})
	return funcs(map[string]any{"block": func() int64 {
		close(inside)
		<-release
		return 1
	}}), inside, release
}

// A holder inside a long statement is named at once: nobody asks SQLite.
func TestBlameBusyHolder(t *testing.T) {
	t.Parallel()
	d, inside, release := blocking()
	a, b := rivals(t, fileDSN(t), Config{SQLite: d})
	b.conn(t).Close()                     // open
	tx, err := a.BeginTx(background, nil) // here:long
	begun(t, tx, err)
	run(t, tx, "INSERT INTO t VALUES(4)")
	var done sync.WaitGroup
	done.Go(func() { try(tx, "INSERT INTO t SELECT 10 + block()") })
	<-inside
	defer done.Wait()
	defer close(release)
	wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy) // waits for ever if it asks
	e := blamedFor(t, b, tracker.ReasonBusy, "INSERT INTO t VALUES(5)", "transaction unknown "+markedLine(t, "long"))
	if h := e.Blame.Holders[0]; !h.Busy || h.Query != "INSERT INTO t SELECT 10 + block()" {
		t.Errorf("%+v", h)
	}
}

// So is one that the program itself has taken out of the guard's hands: it may
// be inside SQLite beside the gate.
func TestBlameRawHolder(t *testing.T) {
	t.Parallel()
	d, inside, release := blocking()
	a, b := rivals(t, fileDSN(t), Config{SQLite: d})
	b.conn(t).Close()
	c, err := a.Conn(background) // here:raw
	check(err)
	defer c.Close()
	var done sync.WaitGroup
	done.Go(func() {
		c.Raw(func(dc any) error {
			raw, _ := SQLiteConn(dc)
			raw.Exec("BEGIN IMMEDIATE", nil)
			raw.Exec("SELECT block()", nil)
			raw.Exec("ROLLBACK", nil)
			return nil
		})
	})
	<-inside
	wantCode(t, "INSERT", try(b, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
	blamedFor(t, b, tracker.ReasonBusy, "INSERT INTO t VALUES(5)", "connection unknown "+markedLine(t, "raw"))
	close(release)
	done.Wait()
}

// What could not go on is named as it was written, and counted once however
// often go-sqlite3 says it again.
func TestBlameNamesTheQuery(t *testing.T) {
	t.Parallel()
	sink := func(rows *sql.Rows, err error) error {
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
		}
		if err := rows.Err(); err != nil {
			rows.Close()
			return err
		}
		return rows.Close()
	}
	prepared := func(c *sql.Conn, q string) *sql.Stmt { return ok(c.PrepareContext(background, q)) }
	for _, e := range []struct {
		name, query string
		before      func(c *sql.Conn) func() error // returns what fails
	}{
		{"text", "UPDATE t SET a = 9", func(c *sql.Conn) func() error {
			return func() error { return try(c, "UPDATE t SET a = 9") }
		}},
		{"text with arguments", "UPDATE t SET a = ?", func(c *sql.Conn) func() error {
			return func() error { return try(c, "UPDATE t SET a = ?", 9) }
		}},
		{"kept text", "SELECT a FROM t", func(c *sql.Conn) func() error {
			f := func() error { return sink(c.QueryContext(background, "SELECT a FROM t")) }
			for range 3 {
				check(f())
			}
			return f
		}},
		{"several", "SELECT 1; UPDATE t SET a = 9", func(c *sql.Conn) func() error {
			return func() error { return try(c, "SELECT 1; UPDATE t SET a = 9") }
		}},
		{"query", "SELECT a FROM t", func(c *sql.Conn) func() error {
			check(sink(c.QueryContext(background, "SELECT 1 FROM t"))) // the schema is known
			return func() error { return sink(c.QueryContext(background, "SELECT a FROM t")) }
		}},
		{"query with a context", "SELECT a FROM t", func(c *sql.Conn) func() error {
			ctx, cancel := context.WithCancel(background)
			t.Cleanup(cancel)
			check(sink(c.QueryContext(background, "SELECT 1 FROM t")))
			return func() error { return sink(c.QueryContext(ctx, "SELECT a FROM t")) }
		}},
		{"unknown schema", "SELECT a FROM t", func(c *sql.Conn) func() error {
			return func() error { return sink(c.QueryContext(background, "SELECT a FROM t")) }
		}},
		{"prepared", "UPDATE t SET a = 8", func(c *sql.Conn) func() error {
			s := prepared(c, "UPDATE t SET a = 8")
			return func() error { _, err := s.Exec(); s.Close(); return err }
		}},
		{"prepared query", "SELECT a+2 FROM t", func(c *sql.Conn) func() error {
			s := prepared(c, "SELECT a+2 FROM t")
			return func() error { err := sink(s.Query()); s.Close(); return err }
		}},
		{"BEGIN IMMEDIATE by text", "BEGIN IMMEDIATE", func(c *sql.Conn) func() error {
			return func() error { return try(c, "BEGIN IMMEDIATE") }
		}},
		{"in a transaction", "INSERT INTO t VALUES(77)", func(c *sql.Conn) func() error {
			tx := ok(c.BeginTx(background, nil))
			return func() error { defer tx.Rollback(); return try(tx, "INSERT INTO t VALUES(77)") }
		}},
	} {
		t.Run(e.name, func(t *testing.T) {
			a, b := rivals(t, rollbackDSN(t), Config{})
			c := b.conn(t)
			f := e.before(c)
			other := a.conn(t)
			_, err := other.ExecContext(background, "BEGIN EXCLUSIVE") // here:exclusive
			check(err)
			defer other.ExecContext(background, "ROLLBACK")
			if err := f(); err == nil {
				t.Fatal("it was not locked")
			} else {
				wantCode(t, e.name, err, sqlite3.ErrBusy)
			}
			blamedFor(t, b, tracker.ReasonBusy, e.query, "transaction write "+markedLine(t, "exclusive"))
		})
	}
	t.Run("BEGIN IMMEDIATE by BeginTx", func(t *testing.T) {
		a, b := rivals(t, fileDSN(t, "_txlock=immediate"), Config{})
		b.conn(t).Close()
		tx, err := a.BeginTx(background, nil) // here:immediate
		begun(t, tx, err)
		_, err = b.BeginTx(background, nil)
		wantCode(t, "BeginTx", err, sqlite3.ErrBusy)
		e := blamedFor(t, b, tracker.ReasonBusy, "BEGIN IMMEDIATE", "transaction write "+markedLine(t, "immediate"))
		if q := e.Blame.Holders[0].Query; q != "BEGIN IMMEDIATE" {
			t.Errorf("held with %q", q)
		}
	})
	t.Run("prepare", func(t *testing.T) {
		_, b := rivals(t, fileDSN(t), Config{})
		c := b.conn(t)
		dc := b.last()
		dc.inner = unprepared{dc.inner}
		_, err := c.PrepareContext(background, "SELECT a+1 FROM t")
		wantCode(t, "prepare", err, sqlite3.ErrBusy)
		blamedFor(t, b, tracker.ReasonBusy, "SELECT a+1 FROM t")
	})
	t.Run("first row", func(t *testing.T) {
		// When Next says so, and not again when the rows are closed.
		_, b := rivals(t, fileDSN(t), Config{})
		opened, err := b.connector.Connect(background)
		check(err)
		c := opened.(*conn)
		defer c.Close()
		rows, err := c.QueryContext(background, "SELECT a FROM t", nil)
		check(err)
		c.rows[0].first.err = sqlite3.Error{Code: sqlite3.ErrBusy}
		c.rows[0].inner = busyRows{c.rows[0].inner}
		for _, f := range []func() error{func() error { return rows.Next(make([]driver.Value, 1)) }, rows.Close} {
			wantCode(t, "rows", f(), sqlite3.ErrBusy)
			if n := b.connector.Stats().Blocked; n != 1 {
				t.Errorf("blocked %d times, want 1", n)
			}
		}
	})
	t.Run("rows that fail later", func(t *testing.T) {
		// The rows' own text, not what ran since on their connection.
		_, b := rivals(t, fileDSN(t), Config{})
		c := b.conn(t)
		rows := query(t, c, "SELECT a FROM t")
		run(t, c, "CREATE TEMP TABLE x(a)")
		dc := b.last()
		st := dc.rows[0]
		dc.gate.Enter()
		err := st.leave(dc, sqlite3.Error{Code: sqlite3.ErrBusy})
		wantCode(t, "step", err, sqlite3.ErrBusy)
		blamedFor(t, b, tracker.ReasonBusy, "SELECT a FROM t")
		rows.Close()
	})
	t.Run("COMMIT by text", func(t *testing.T) {
		a, b := rivals(t, rollbackDSN(t), Config{})
		c := b.conn(t)
		run(t, c, "BEGIN", "INSERT INTO t VALUES(9)")
		rows, err := a.QueryContext(background, "SELECT a FROM t") // here:before commit
		check(err)
		defer rows.Close()
		rows.Next()
		wantCode(t, "COMMIT", try(c, "COMMIT"), sqlite3.ErrBusy)
		blamedFor(t, b, tracker.ReasonBusy, "COMMIT", "rows read "+markedLine(t, "before commit"))
		run(t, c, "ROLLBACK")
	})
}

// busyRows says when it is closed what its last step said.
type busyRows struct{ sqliteRows }

func (r busyRows) Close() error {
	r.sqliteRows.Close()
	return sqlite3.Error{Code: sqlite3.ErrBusy}
}

// unprepared cannot read the schema.
type unprepared struct{ sqliteConn }

func (unprepared) PrepareContext(context.Context, string) (driver.Stmt, error) {
	return nil, sqlite3.Error{Code: sqlite3.ErrBusy}
}

// One event a second and pool; all are counted.
func TestBlameIsLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := rivals(t, fileDSN(t), Config{})
		third := open(t, Config{DSN: a.dsn, Tracker: a.tracker})
		run(t, a.begin(t), "INSERT INTO t VALUES(4)")
		fail := func(g *guarded, n int) {
			for range n {
				wantCode(t, "INSERT", try(g, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
			}
		}
		told := func(want int) {
			t.Helper()
			if n := len(b.events(tracker.EventBlocked)); n != want {
				t.Errorf("told %d times, want %d", n, want)
			}
		}
		fail(b, 100)
		told(1)
		time.Sleep(time.Second - time.Nanosecond)
		fail(b, 100)
		told(1)
		fail(third, 2) // another pool
		told(2)
		time.Sleep(time.Nanosecond)
		fail(b, 100)
		told(3)
		if n := b.connector.Stats().Blocked; n != 300 {
			t.Errorf("%d counted, want 300", n)
		}
		if n := b.tracker.Stats().Blocked; n != 302 {
			t.Errorf("%d counted in all, want 302", n)
		}
		if n := b.tracker.Blamed(); len(n) != 1 || n[0].Count != 3 {
			t.Errorf("%+v", n)
		}
	})
}

// What goes well, what ends and what fails for another reason costs nothing.
func TestBlameOfNothing(t *testing.T) {
	a, _ := rivals(t, fileDSN(t), Config{})
	for range 100 {
		run(t, a, "INSERT INTO t(a) SELECT max(a) + 1 FROM t")
		number(t, a, "SELECT count(*) FROM t")
		tx := a.begin(t)
		run(t, tx, "DELETE FROM t WHERE a = 2")
		check(tx.Commit())
		wantCode(t, "INSERT", try(a, "INSERT INTO t VALUES(1)"), sqlite3.ErrConstraint)
		if _, err := a.Query("SELECT nothing"); err == nil {
			t.Error("no error")
		}
	}
	if s := a.tracker.Stats(); s.Blocked != 0 || len(a.events(tracker.EventBlocked)) != 0 {
		t.Errorf("blocked %d times", s.Blocked)
	}
	c := drive(t, Config{})
	unique := error(sqlite3.Error{Code: sqlite3.ErrConstraint})
	if n := testing.AllocsPerRun(100, func() {
		c.gate.Enter()
		c.leave(nil)
		c.blame(io.EOF)
		c.blame(unique)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Everybody in everybody's way: each error is counted, and nothing deadlocks.
func TestBlameUnderLoad(t *testing.T) {
	t.Parallel()
	tr := tracker.New(tracker.Options{})
	dsn := fileDSN(t)
	var pools []*guarded
	for range 4 {
		pools = append(pools, open(t, Config{DSN: dsn, Tracker: tr}))
	}
	run(t, pools[0], createT, "INSERT INTO t VALUES(1)")
	var failed atomic.Uint64
	count := func(err error) bool {
		if e, ok := err.(sqlite3.Error); ok && (e.Code == sqlite3.ErrBusy || e.Code == sqlite3.ErrLocked) {
			failed.Add(1)
		}
		return err != nil
	}
	var wg, tried sync.WaitGroup
	tried.Add(16)
	first := pools[0].begin(t) // in everybody's way at first
	run(t, first, "INSERT INTO t VALUES(2)")
	for i := range 16 {
		g := pools[i%len(pools)]
		wg.Go(func() {
			if !count(try(g, "INSERT INTO t VALUES(3)")) {
				t.Error("it was not locked")
			}
			tried.Done()
			for j := range 60 {
				tx, err := g.BeginTx(background, nil)
				if count(err) {
					continue
				}
				var n int
				if !count(tx.QueryRow("SELECT count(*) FROM t").Scan(&n)) {
					_, err = tx.Exec("INSERT INTO t VALUES(?)", i*1000+j+2)
					if !count(err) {
						count(tx.Commit())
					}
				}
				tx.Rollback()
				g.connector.pool.Tracker().Blamed()
			}
		})
	}
	tried.Wait()
	check(first.Rollback())
	wg.Wait()
	if n := tr.Stats().Blocked; n != failed.Load() || n < 16 {
		t.Errorf("%d counted, %d failed", n, failed.Load())
	}
}

// A handle that is dead holds nothing.
func TestBlameNobodyDead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{Policy: leakAfter(time.Minute)})
		run(t, g.begin(t), createT)
		c := g.last()
		if s := (control{weak.Make(c)}).TxState(); s != tracker.TxWrite {
			t.Error(s)
		}
		sleep(10 * time.Minute)
		if !c.gate.Has(gate.Dead) {
			t.Error("it is not dead")
		}
		other := open(t, Config{})
		run(t, other.begin(t), createT)
		c.sqlite = other.last().sqlite // what is in its memory by now
		if s := (control{weak.Make(c)}).TxState(); s != tracker.TxNone {
			t.Error(s)
		}
	})
}
