//go:build cgo

package capi_test

import (
	"database/sql/driver"
	"path/filepath"
	"slices"
	"testing"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

func TestDatabases(t *testing.T) {
	file, other := tempFile(t), tempFile(t)
	c := open(t, file)
	d := capi.Of(c)
	want := func(want ...capi.Database) {
		t.Helper()
		for i := range want {
			if dir, err := filepath.EvalSymlinks(filepath.Dir(want[i].Path)); err == nil && want[i].Path != "" {
				want[i].Path = filepath.Join(dir, filepath.Base(want[i].Path))
			}
		}
		if got, ok := d.Databases(); !slices.Equal(got, want) || !ok {
			t.Errorf("Databases() = %q, %v, want %q, true", got, ok, want)
		}
	}
	want(capi.Database{"main", file})
	exec(t, c, "ATTACH '"+other+`' AS "b.""c"; ATTACH ':memory:' AS m`)
	want(capi.Database{"main", file}, capi.Database{`b."c`, other}, capi.Database{"m", ""})
	exec(t, c, "CREATE TEMP TABLE x(a)")
	want(capi.Database{"main", file}, capi.Database{"temp", ""}, capi.Database{`b."c`, other}, capi.Database{"m", ""})
	exec(t, c, `DETACH "b.""c"`)
	want(capi.Database{"main", file}, capi.Database{"temp", ""}, capi.Database{"m", ""})
}

func TestTryTxnState(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	exec(t, c, "ATTACH '"+tempFile(t)+"' AS b; CREATE TABLE t(a); CREATE TABLE b.t(a)")
	want := func(all, main, b capi.TxnState) {
		t.Helper()
		for schema, want := range map[string]capi.TxnState{"": all, "main": main, "b": b, "temp": capi.TxnNone} {
			if got, ok := d.TryTxnState(schema); got != want || !ok {
				t.Errorf("TryTxnState(%q) = %v, %v, want %v, true", schema, got, ok, want)
			}
		}
	}
	want(capi.TxnNone, capi.TxnNone, capi.TxnNone)
	exec(t, c, "BEGIN; SELECT * FROM t")
	want(capi.TxnRead, capi.TxnRead, capi.TxnNone)
	exec(t, c, "INSERT INTO b.t VALUES(1)")
	want(capi.TxnWrite, capi.TxnRead, capi.TxnWrite)
	exec(t, c, "COMMIT")
	want(capi.TxnNone, capi.TxnNone, capi.TxnNone)
	if s, ok := d.TryTxnState("nothing"); ok {
		t.Errorf("a schema that there is not has state %v", s)
	}
}

// What begins with Try does not wait for a statement of somebody else's.
func TestTryDoesNotWait(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	inside, release, done := make(chan bool), make(chan bool), make(chan bool)
	register(t, c, "block", func() int { close(inside); <-release; return 0 })
	go func() {
		defer close(done)
		exec(t, c, "SELECT block()")
	}()
	<-inside
	if s, ok := d.TryTxnState(""); ok { // for ever, if it waits
		t.Errorf("state %v", s)
	}
	if n, ok := d.TryCacheSize(); ok {
		t.Errorf("cache size %d", n)
	}
	if n, ok := d.TryMemory(false); ok {
		t.Errorf("%d bytes", n)
	}
	if d.TryReleaseMemory() {
		t.Error("memory is released")
	}
	close(release)
	<-done
	_, state := d.TryTxnState("")
	_, size := d.TryCacheSize()
	_, bytes := d.TryMemory(false)
	released := d.TryReleaseMemory()
	if !state || !size || !bytes || !released {
		t.Errorf("behind it, a state: %v, a cache size: %v, memory: %v, released: %v", state, size, bytes, released)
	}
}

// dataVersion is PRAGMA data_version.
func dataVersion(t testing.TB, c *sqlite3.SQLiteConn, schema string) int64 {
	t.Helper()
	rows := query(t, c, "PRAGMA "+schema+".data_version")
	defer rows.Close()
	row := make([]driver.Value, 1)
	if err := rows.Next(row); err != nil {
		t.Fatal(err)
	}
	return row[0].(int64)
}

// Commits of the connection itself are what is in DataVersion and not in PRAGMA
// data_version, wherever the database is. A rollback moves neither, but without a
// journal, where it moves both.
func TestDataVersion(t *testing.T) {
	for _, name := range []string{"WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY", "OFF", ":memory:", "memdb", "shared", "exclusive"} {
		t.Run(name, func(t *testing.T) {
			dsn := "file:" + tempFile(t) + "?_journal_mode=" + name
			switch name {
			case ":memory:":
				dsn = name
			case "memdb":
				dsn = "file:/" + filepath.Base(t.TempDir()) + t.Name() + "?vfs=memdb"
			case "shared":
				dsn = "file:" + tempFile(t) + "?cache=shared"
			case "exclusive":
				dsn = "file:" + tempFile(t) + "?_locking_mode=EXCLUSIVE"
			}
			opened, err := new(sqlite3.SQLiteDriver).Open(dsn)
			if err != nil {
				t.Fatal(err)
			}
			c := opened.(*sqlite3.SQLiteConn)
			defer c.Close()
			d := capi.Of(c)
			exec(t, c, "ATTACH '"+tempFile(t)+"' AS b; CREATE TEMP TABLE x(a); CREATE TABLE b.t(a); CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1)")
			own := func(schema string) int64 {
				others := dataVersion(t, c, schema)
				v, ok := d.DataVersion(schema)
				if !ok {
					t.Fatalf("DataVersion(%q) is not known", schema)
				}
				return int64(v) - others
			}
			for _, test := range []struct {
				text          string
				main, temp, b int64
			}{
				{"BEGIN; INSERT INTO t VALUES(2); COMMIT", 1, 0, 0},
				{"BEGIN; INSERT INTO b.t VALUES(2); COMMIT", 0, 0, 1},
				{"BEGIN; INSERT INTO x VALUES(2); COMMIT", 0, 1, 0},
				{"BEGIN; INSERT INTO t VALUES(3); INSERT INTO b.t VALUES(3); COMMIT", 1, 0, 1},
				{"BEGIN; SELECT * FROM t; COMMIT", 0, 0, 0},
				{"BEGIN; COMMIT", 0, 0, 0},
				{"BEGIN; INSERT INTO t VALUES(4); ROLLBACK", 0, 0, 0},
				{"BEGIN; CREATE TABLE y(a); INSERT INTO b.t VALUES(4); INSERT INTO x VALUES(4); ROLLBACK", 0, 0, 0},
				{"BEGIN; INSERT INTO b.t VALUES(4); INSERT OR ROLLBACK INTO t VALUES(1)", 0, 0, 0},
				{"SAVEPOINT s; INSERT INTO t VALUES(5); RELEASE s", 1, 0, 0},
				{"SAVEPOINT s; INSERT INTO t VALUES(6); ROLLBACK TO s; RELEASE s", 1, 0, 0}, // it has held the write lock
				{"BEGIN; INSERT INTO t VALUES(7); SAVEPOINT s; INSERT INTO b.t VALUES(7); ROLLBACK TO s; ROLLBACK", 0, 0, 0},
			} {
				if name == "OFF" {
					exec(t, c, "DELETE FROM t WHERE a > 1; DELETE FROM b.t") // a rollback does not
				}
				main, temp, b := own("main"), own("temp"), own("b")
				before := map[string]uint32{}
				for _, schema := range []string{"main", "temp", "b"} {
					before[schema], _ = d.DataVersion(schema)
				}
				c.Exec(test.text, nil)
				if on, _ := d.Autocommit(); !on {
					t.Fatalf("%s: a transaction is open", test.text)
				}
				if main, temp, b := own("main")-main, own("temp")-temp, own("b")-b; main != test.main || temp != test.temp || b != test.b {
					t.Errorf("%s: %d commits in main, %d in temp, %d in b", test.text, main, temp, b)
				}
				for schema, n := range map[string]int64{"main": test.main, "temp": test.temp, "b": test.b} {
					if now, _ := d.DataVersion(schema); n == 0 && now != before[schema] && name != "OFF" {
						t.Errorf("%s: the version of %s moved by %d", test.text, schema, now-before[schema])
					}
				}
			}
		})
	}
}

// A commit of somebody else's moves both, when the connection finds it.
func TestDataVersionOfOthers(t *testing.T) {
	file := tempFile(t)
	c, other := open(t, file), open(t, file)
	d := capi.Of(c)
	exec(t, c, "CREATE TABLE t(a)")
	v, _ := d.DataVersion("main")
	p := dataVersion(t, c, "main")
	exec(t, other, "INSERT INTO t VALUES(1)")
	if now, _ := d.DataVersion("main"); now != v {
		t.Errorf("it moved by %d before it was read", now-v)
	}
	if now := dataVersion(t, c, "main"); now != p+1 {
		t.Errorf("PRAGMA data_version moved by %d", now-p)
	}
	if now, _ := d.DataVersion("main"); now != v+1 {
		t.Errorf("it moved by %d", now-v)
	}
	if _, ok := d.DataVersion("nothing"); ok {
		t.Error("a schema that there is not has a version")
	}
}

func TestLastError(t *testing.T) {
	c := open(t, tempFile(t))
	d := capi.Of(c)
	want := func(want sqlite3.ErrNoExtended) {
		t.Helper()
		if got := d.LastError(); got != int(want) {
			t.Errorf("LastError() = %d, want %d", got, want)
		}
	}
	want(0)
	exec(t, c, "CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES(1)")
	want(0)
	s := prepare(t, c, "INSERT INTO t VALUES(1)")
	s.(*sqlite3.SQLiteStmt).Exec(nil)
	want(sqlite3.ErrConstraintUnique)
	s.Close() // tidying up does not take it away
	want(sqlite3.ErrConstraintUnique)
	exec(t, c, "SELECT 1")
	want(0)
}

func TestTryCacheSize(t *testing.T) {
	file, other := tempFile(t), tempFile(t)
	c := open(t, file)
	d := capi.Of(c)
	const standard = 2000 << 10
	want := func(want int64) {
		t.Helper()
		if got, ok := d.TryCacheSize(); got != want || !ok {
			t.Errorf("TryCacheSize() = %d, %v, want %d, true", got, ok, want)
		}
	}
	want(0)
	exec(t, c, "CREATE TABLE t(a)")
	want(0)
	exec(t, c, "PRAGMA cache_size = -200000")
	want(200000 << 10)
	exec(t, c, "PRAGMA cache_size = 1000") // pages, with what SQLite keeps beside each
	want(1000 * (4096 + 300))
	exec(t, c, "PRAGMA cache_size = 0")
	want(0)
	exec(t, c, "PRAGMA cache_size = -10; ATTACH '"+other+`' AS "b""c"`)
	want(10<<10 + standard)
	exec(t, c, `PRAGMA "b""c".page_size = 512; CREATE TABLE "b""c".t(a); PRAGMA "b""c".cache_size = 100`)
	want(10<<10 + 100*(512+300))
	if all, _ := d.Databases(); len(all) != 2 { // asking opens no temp
		t.Errorf("%q", all)
	}
	exec(t, c, "CREATE TEMP TABLE x(a); PRAGMA temp.cache_size = -30")
	want(10<<10 + 100*(512+300) + 30<<10)

	// Others hold the files as firmly as they can, and in a transaction nothing is
	// locked.
	for _, f := range []string{file, other} {
		o := open(t, f)
		exec(t, o, "BEGIN EXCLUSIVE")
		defer exec(t, o, "ROLLBACK")
	}
	exec(t, c, "BEGIN")
	want(10<<10 + 100*(512+300) + 30<<10)
	if s, ok := d.TryTxnState(""); s != capi.TxnNone || !ok {
		t.Errorf("the transaction has state %v", s)
	}
	exec(t, c, "ROLLBACK")

	c.RegisterAuthorizer(func(op int, _, _, _ string) int {
		if op == sqlite3.SQLITE_PRAGMA {
			return sqlite3.SQLITE_DENY
		}
		return sqlite3.SQLITE_OK
	})
	if n, ok := d.TryCacheSize(); ok {
		t.Errorf("against the authorizer, it is %d", n)
	}
	c.RegisterAuthorizer(nil)
	want(10<<10 + 100*(512+300) + 30<<10)
}
