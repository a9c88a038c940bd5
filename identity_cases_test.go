package leakguard

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Law 3: what a connection did before is its own. Programs that people wrote,
// and rightly so; TestIdentity has those that nobody thought of.

// limited is a policy of one limit that passes all the time, and a tracker whose
// machine goes with it.
func limited(name string) (tracker.Policy, *tracker.Tracker) {
	tr := tracker.New(tracker.Options{})
	shortOfMemory(tr)
	return limits(func(p *tracker.Policy) {
		p.CheckInterval, p.MemoryInterval = time.Millisecond, time.Millisecond
		identityLimits[name](p)
	}), tr
}

// askings are ways to ask a connection for a number.
var askings = map[string]func(t *testing.T, on execer, q string) int64{
	"text": func(t *testing.T, on execer, q string) int64 { return number(t, on, q) },
	"several": func(t *testing.T, on execer, q string) int64 {
		return number(t, on, "SELECT 'before'; "+q+" -- the last one counts")
	},
	"prepared": func(t *testing.T, on execer, q string) (n int64) {
		s, err := on.PrepareContext(background, q)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.QueryRow().Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	},
}

const (
	createTC = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE c(parent, v)"
	insertV  = "INSERT INTO t(v) VALUES('x')"
)

// everyLimitAndMode runs f in a bubble for each limit, in each mode that has
// any.
func everyLimitAndMode(t *testing.T, f func(t *testing.T, limit string, mode tracker.Mode)) {
	for limit := range identityLimits {
		for _, mode := range []tracker.Mode{tracker.Enforce, tracker.Observe, tracker.Basic} {
			t.Run(fmt.Sprintf("%s, %v", limit, mode), func(t *testing.T) {
				bubble(t, func(t *testing.T) { f(t, limit, mode) })
			})
		}
	}
}

// The row that was inserted, what was changed, and what the connection changed
// at all: asked by statements of their own, over a pool of one.
func TestHistoryIsKept(t *testing.T) {
	everyLimitAndMode(t, func(t *testing.T, limit string, mode tracker.Mode) {
		for way, ask := range askings {
			policy, tr := limited(limit)
			g := open(t, Config{Policy: policy, Tracker: tr, Mode: mode})
			run(t, g, createTC)
			g.SetMaxOpenConns(1)
			total := int64(0)
			for i := range int64(10) {
				changed := min(i+1, 3)
				run(t, g, insertV, "UPDATE t SET v='y' WHERE id > (SELECT max(id) FROM t) - 3")
				total += 1 + changed
				for q, want := range map[string]int64{
					"SELECT last_insert_rowid()": i + 1, "SELECT changes()": changed, "SELECT total_changes()": total,
				} {
					sleep(20 * time.Millisecond)
					if n := ask(t, g, q); n != want {
						t.Fatalf("%s, round %d: %s is %d, want %d", way, i, q, n, want)
					}
				}
			}
			if mode == tracker.Enforce && g.connector.Stats().Refreshed == 0 {
				t.Error("no limit passed: not the case that was meant")
			}
		}
	})
}

// Beside open rows: one goroutine knows that it gets the connection below the
// top of database/sql's stack.
func TestHistoryIsKeptBesideRows(t *testing.T) {
	everyLimitAndMode(t, func(t *testing.T, limit string, mode tracker.Mode) {
		policy, tr := limited(limit)
		g := open(t, Config{Policy: policy, Tracker: tr, Mode: mode})
		run(t, g, createTC, "INSERT INTO t(v) SELECT i FROM "+eleven)
		for i := range int64(8) {
			rows := query(t, g, "SELECT id FROM t ORDER BY id")
			id := int64(100) + i
			run(t, g, fmt.Sprintf("INSERT INTO t(id, v) VALUES(%d, 'nested')", id))
			sleep(20 * time.Millisecond)
			if n := number(t, g, "SELECT last_insert_rowid()"); n != id {
				t.Fatalf("round %d, nested: last_insert_rowid() is %d, want %d", i, n, id)
			}
			if n := number(t, g, "SELECT total_changes()"); n != i+1 {
				t.Fatalf("round %d, nested: total_changes() is %d, want %d", i, n, i+1)
			}
			wantErr(t, "rows", rows.Close(), nil)
			sleep(20 * time.Millisecond)
			if n := number(t, g, "SELECT total_changes()"); n != 11 {
				t.Fatalf("round %d: the first connection's total_changes() is %d, want 11", i, n)
			}
		}
	})
}

// With the default limits: a parent, then a child that names it.
func TestForeignKeysByLastInsertRowid(t *testing.T) {
	for name, size := range map[string]func(db *sql.DB){"one": func(db *sql.DB) { db.SetMaxOpenConns(1) }, "default": func(*sql.DB) {}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				tr := tracker.New(tracker.Options{})
				machineAt(tr, percent(95))
				g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Tracker: tr})
				size(g.DB)
				run(t, g, createTC)
				child := prepare(t, g, "INSERT INTO c VALUES(last_insert_rowid(), ?)")
				for i := range 2500 {
					run(t, g, "INSERT INTO t(v) VALUES('parent')")
					if i%500 == 499 {
						sleep(40 * time.Minute) // beyond max_idle and max_lifetime
					}
					if _, err := child.Exec(i); err != nil {
						t.Fatal(err)
					}
				}
				if n := g.outside(t, "SELECT count(*) FROM c WHERE parent <> v+1"); n != 0 {
					t.Errorf("%d of 2500 children have another parent", n)
				}
			})
		})
	}
}

// PRAGMA data_version, polled to learn that others wrote: each change is seen,
// and no other.
func TestDataVersionSeesEachChange(t *testing.T) {
	everyLimitAndMode(t, func(t *testing.T, limit string, mode tracker.Mode) {
		for way, ask := range askings {
			for _, q := range []string{"PRAGMA data_version", "SELECT data_version FROM pragma_data_version", "pragma main.Data_Version"} {
				policy, tr := limited(limit)
				g := open(t, Config{Policy: policy, Tracker: tr, Mode: mode})
				run(t, g, "CREATE TABLE t(a)")
				for _, pool := range []int{1, 0} {
					g.SetMaxOpenConns(pool)
					last := ask(t, g, q)
					for i := range 4 {
						if i%2 == 0 {
							byOthers(t, g.dsn, "INSERT INTO t VALUES(1)")
						}
						sleep(20 * time.Millisecond)
						now := ask(t, g, q)
						if (now != last) != (i%2 == 0) {
							t.Fatalf("%s, %s, round %d: %d behind %d", way, q, i, now, last)
						}
						last = now
					}
				}
			}
		}
	})
}

// Of two connections that read alone, each has seen other changes: what the one
// on top says is compared with what it said, not with the other's.
func TestDataVersionOfTheOneOnTop(t *testing.T) {
	for way, ask := range askings {
		t.Run(way, func(t *testing.T) {
			overBoth(t, func(t *testing.T) string {
				dsn := fileDSN(t)
				byOthers(t, dsn, "CREATE TABLE t(a)") // so that the pool has no history
				return dsn
			}, func(t *testing.T, db *sql.DB, dsn string, idle func()) (told []string) {
				// The reaper comes to the one that was opened first before the other.
				top, below := unheld(t, &guarded{DB: db}), unheld(t, &guarded{DB: db})
				for range 5 {
					byOthers(t, dsn, "INSERT INTO t VALUES(1)")
					number(t, below, "SELECT count(*) FROM t")
				}
				was := ask(t, top, "PRAGMA data_version")
				below.Close()
				top.Close()
				for i := range 4 {
					if i == 2 {
						byOthers(t, dsn, "INSERT INTO t VALUES(1)")
					}
					idle()
					now := ask(t, db, "PRAGMA data_version")
					told = append(told, fmt.Sprint("changed: ", now != was))
					was = now
				}
				return told
			})
		})
	}
}

// overBoth runs a program over go-sqlite3 and, in a bubble, over the guard with
// all limits passing whenever it idles, and expects the same answers.
func overBoth(t *testing.T, dsn func(t *testing.T) string, f func(t *testing.T, db *sql.DB, dsn string, idle func()) []string) {
	t.Helper()
	file := dsn(t)
	raw := sql.OpenDB(&plainConnector{dsn: file, used: new(atomic.Int64)})
	want := f(t, raw, file, func() {})
	if err := raw.Close(); err != nil {
		t.Error(err)
	}
	bubble(t, func(t *testing.T) {
		policy, tr := limited("all")
		file := dsn(t)
		connector, err := NewConnector(Config{DSN: file, Policy: policy, Tracker: tr, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		guard := sql.OpenDB(driver.Connector(connector))
		got := f(t, guard, file, func() { sleep(50 * time.Millisecond) })
		if err := guard.Close(); err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, want) {
			t.Errorf("go-sqlite3:\n\t%s\nthe guard:\n\t%s", strings.Join(want, "\n\t"), strings.Join(got, "\n\t"))
		}
	})
}

// A connection without any history lies on one that has one. Were it closed,
// database/sql would not open another: it would go on to the one below.
func TestConnectionOnTopIsMissed(t *testing.T) {
	for name, ask := range map[string]string{
		"history":      "SELECT last_insert_rowid(), changes(), total_changes()",
		"temp objects": "SELECT count(*) FROM temp.x",
		"pragma":       "PRAGMA cache_size",
		"attached":     "SELECT count(*) FROM pragma_database_list",
	} {
		for _, below := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, %d below", name, below), func(t *testing.T) {
				overBoth(t, func(t *testing.T) string { return fileDSN(t) }, func(t *testing.T, db *sql.DB, _ string, idle func()) (told []string) {
					db.SetMaxIdleConns(5)
					run(t, db, "CREATE TABLE t(a)")
					var conns []*sql.Conn
					for range below + 1 {
						c, err := db.Conn(background)
						if err != nil {
							t.Fatal(err)
						}
						number(t, c, "SELECT count(*) FROM t")
						conns = append(conns, c)
					}
					for _, c := range conns[:below] {
						run(t, c, "INSERT INTO t VALUES(1)", "CREATE TEMP TABLE x(a)", "PRAGMA cache_size=-123", "ATTACH ':memory:' AS other")
					}
					for _, c := range conns {
						c.Close()
					}
					for range 2 {
						idle()
						rows, err := db.Query(ask)
						if err != nil {
							told = append(told, err.Error())
							continue
						}
						for rows.Next() {
							told = append(told, scanned(rows))
						}
						rows.Close()
					}
					return told
				})
			})
		}
	}
}

// A connection without a history that carries something else is not closed in
// favour of one that does not.
func TestStateWithoutHistoryIsKept(t *testing.T) {
	for text, ask := range map[string]string{
		"CREATE TEMP TABLE x(a)":     "SELECT count(*) FROM temp.x",
		"ATTACH ':memory:' AS other": "SELECT count(*) FROM pragma_database_list",
		"PRAGMA cache_size=-123":     "PRAGMA cache_size",
		"PRAGMA foreign_keys=1":      "PRAGMA foreign_keys",
	} {
		t.Run(text, func(t *testing.T) {
			overBoth(t, func(t *testing.T) string {
				dsn := fileDSN(t)
				byOthers(t, dsn, "CREATE TABLE t(a)")
				return dsn
			}, func(t *testing.T, db *sql.DB, _ string, idle func()) (told []string) {
				top, below := unheld(t, &guarded{DB: db}), unheld(t, &guarded{DB: db})
				number(t, below, "SELECT count(*) FROM t")
				run(t, top, text)
				below.Close()
				top.Close()
				for range 2 {
					idle()
					told = append(told, fmt.Sprint(number(t, db, ask)))
				}
				return told
			})
		})
	}
}

// Temporary objects and attached files in all spellings stay with their
// connection, also where whatever can be is closed.
func TestSessionStateInAllSpellings(t *testing.T) {
	temp := []string{
		"CREATE TEMP TABLE x(a)", "CREATE TEMPORARY TABLE x AS SELECT 1 AS a", "create table temp.x(a)", "CREATE TABLE [temp] . x(a)",
		`CREATE /*c*/ TABLE IF NOT EXISTS "TEMP".x(a)`, "SELECT 1; CREATE TEMP TABLE x(a)", "CREATE VIRTUAL TABLE temp.x USING rtree(a, b, c)",
		"CREATE TEMP VIEW x AS SELECT 1 AS a", "BEGIN; CREATE TEMP TABLE x(a); COMMIT", "CREATE TABLE temp.x AS SELECT 1 AS a",
	}
	attach := []string{
		"ATTACH 'FILE' AS o", "SELECT 1; ATTACH 'FILE' AS o", "/* x */ ATTACH DATABASE 'FILE' AS o", "-- c\n;;attach 'FILE' as \"o\"",
	}
	ways := map[string]func(t *testing.T, on execer, text string){
		"exec": func(t *testing.T, on execer, text string) { run(t, on, text) },
		"query": func(t *testing.T, on execer, text string) {
			rows, err := on.QueryContext(background, text)
			if err != nil {
				t.Fatal(err)
			}
			if err := readAll(rows); err != nil {
				t.Fatal(err)
			}
		},
		"prepared": func(t *testing.T, on execer, text string) {
			s, err := on.PrepareContext(background, text)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if _, err := s.Exec(); err != nil {
				t.Fatal(err)
			}
		},
	}
	for _, expire := range []tracker.Expiry{tracker.Refresh, tracker.Close} {
		for way, do := range ways {
			if expire == tracker.Refresh && way != "exec" {
				continue
			}
			t.Run(expire.String()+", "+way, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					other := t.TempDir() + "/other.db"
					byOthers(t, "file:"+other, "CREATE TABLE x(a); INSERT INTO x VALUES(7)")
					for _, text := range slices.Concat(temp, attach) {
						if way == "prepared" && strings.Contains(text, ";") {
							continue // only its first statement would be
						}
						policy, tr := limited("all")
						policy.Expire = expire
						g := open(t, Config{Policy: policy, Tracker: tr})
						g.SetMaxOpenConns(1)
						do(t, g, strings.ReplaceAll(text, "FILE", other))
						ask := "SELECT count(*) FROM temp.x"
						if slices.Contains(attach, text) {
							ask = "SELECT a FROM o.x"
						}
						for range 5 {
							rows, err := g.Query(ask)
							if err != nil {
								t.Errorf("%s: %v", text, err)
								break
							}
							rows.Close()
							sleep(20 * time.Millisecond)
						}
					}
				})
			})
		}
	}
}

// PRAGMA encoding counts for its connection until the file has a page.
func TestEncodingIsKept(t *testing.T) {
	for _, expire := range []tracker.Expiry{tracker.Refresh, tracker.Close} {
		for _, set := range []string{"PRAGMA encoding='UTF-16le'", "SELECT 1; pragma ENCODING = \"UTF-16le\"", "PRAGMA main.encoding('UTF-16le')"} {
			bubbled := func(t *testing.T) {
				policy, tr := limited("all")
				policy.Expire = expire
				g := open(t, Config{DSN: "file:" + t.TempDir() + "/test.db", Policy: policy, Tracker: tr})
				g.SetMaxOpenConns(1)
				run(t, g, set)
				sleep(50 * time.Millisecond)
				run(t, g, "CREATE TABLE t(a)")
				if n := g.outside(t, "SELECT encoding = 'UTF-16le' FROM pragma_encoding"); n != 1 {
					t.Errorf("%s: the file has another encoding", set)
				}
			}
			t.Run(expire.String()+", "+set, func(t *testing.T) { bubble(t, bubbled) })
		}
	}
}
