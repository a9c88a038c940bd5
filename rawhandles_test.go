package leakguard

import (
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A handle that the program has seen is its own: it may be in use where the
// guard cannot look.

// handles are what a ConnectHook keeps for backups, and for functions that
// ask the connection they run on.
type handles struct {
	mu  sync.Mutex
	all []*sqlite3.SQLiteConn
}

func (h *handles) driver() *sqlite3.SQLiteDriver {
	return &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.all = append(h.all, c)
		return nil
	}}
}

// works expects that a handle can be used.
func works(t *testing.T, c *sqlite3.SQLiteConn) {
	t.Helper()
	rows, err := c.Query("SELECT 1", nil)
	if err != nil {
		t.Errorf("a handle that the program keeps: %v", err)
		return
	}
	rows.Close()
}

// A backup from one pool's connection to another's, as go-sqlite3's own example
// has it, after all limits have passed. If the guard has closed a handle this
// ends the process.
func TestBackupByHooks(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
	for limit := range identityLimits {
		for _, expire := range []tracker.Expiry{tracker.Refresh, tracker.Close} {
			policy, tr := limited(limit)
			policy.Expire = expire
			var h handles
			from := open(t, Config{DSN: fileDSN(t), Policy: policy, Tracker: tr, SQLite: h.driver()})
			run(t, from, "CREATE TABLE t(a)", "INSERT INTO t VALUES(7)")
			to := open(t, Config{DSN: fileDSN(t), Policy: policy, Tracker: tr, SQLite: h.driver()})
			run(t, to, "CREATE TABLE other(a)")
			for deadline := time.Now().Add(20 * time.Second); tr.Stats().Refreshed < 2 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				run(t, from, "SELECT 1") // for max_access
				run(t, to, "SELECT 1")
			}
			if tr.Stats().Refreshed < 2 {
				t.Errorf("%s: no limit passed: not the case that was meant", limit)
			}
			b, err := h.all[1].Backup("main", h.all[0], "main")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Step(-1); err != nil {
				t.Error(err)
			}
			if err := b.Finish(); err != nil {
				t.Error(err)
			}
			if n := number(t, to, "SELECT a FROM t"); n != 7 {
				t.Errorf("%d, want 7", n)
			}
			if len(h.all) != 2 {
				t.Errorf("%d connections were opened, want 2", len(h.all))
			}
		}
	}
}

// A hook's handles go on to work whatever passes, in the pool and out of it, and
// end when the program closes its pool.
func TestHookHandlesStay(t *testing.T) {
	for _, expire := range []tracker.Expiry{tracker.Refresh, tracker.Close} {
		t.Run(expire.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				policy, tr := limited("all")
				policy.Expire, policy.LeakAfter, policy.TxTimeout = expire, time.Second, time.Second
				var h handles
				g := open(t, Config{Policy: policy, Tracker: tr, SQLite: h.driver()})
				g.SetMaxIdleConns(4)
				run(t, g, createT)
				var conns []*sql.Conn
				for range 3 {
					c := unheld(t, g)
					number(t, c, "SELECT count(*) FROM t")
					conns = append(conns, c)
				}
				for _, c := range conns {
					c.Close()
				}
				sleep(5 * time.Second) // in the pool
				if kept := len(g.events(tracker.EventKept)); kept != 1 {
					t.Errorf("told %d times that a connection stays open, want once", kept)
				}
				tx := g.begin(t)
				run(t, tx, "INSERT INTO t VALUES(1)")
				sleep(5 * time.Second) // and a leak
				wantErr(t, "INSERT", try(tx, "INSERT INTO t VALUES(2)"), ErrReaped)
				for _, c := range h.all {
					works(t, c)
				}
				wantErr(t, "Rollback", tx.Rollback(), nil)
				if len(h.all) != 3 || g.connector.Stats().ForceClosed != 0 {
					t.Errorf("%d connections were opened, %d closed by the guard; want 3 and none", len(h.all), g.connector.Stats().ForceClosed)
				}
				wantErr(t, "Close", g.Close(), nil)
				if left := descriptors(t, fileOf(g.dsn)); len(left) > 0 {
					t.Errorf("still open: %v", left)
				}
			})
		})
	}
}

// One that Raw showed, too, long after Raw returned.
func TestRawHandleStays(t *testing.T) {
	for _, expire := range []tracker.Expiry{tracker.Refresh, tracker.Close} {
		for name, forget := range forgettings {
			t.Run(fmt.Sprintf("%v, %s", expire, name), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					policy, tr := limited("all")
					policy.Expire, policy.LeakAfter = expire, time.Minute
					policy.MaxIdle, policy.MaxLifetime = time.Second, time.Second
					policy.CheckInterval, policy.MemoryInterval = time.Second, time.Second
					g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF"), Policy: policy, Tracker: tr})
					g.SetMaxOpenConns(1)
					run(t, g, createT, "INSERT INTO t VALUES(1), (2), (3)")
					var kept *sqlite3.SQLiteConn
					c := unheld(t, g)
					wantErr(t, "Raw", c.Raw(func(dc any) error { kept, _ = SQLiteConn(dc); return nil }), nil)
					c.Close()
					sleep(5 * time.Minute)
					works(t, kept)
					f := forget(t, g)
					sleep(5 * time.Minute)
					works(t, kept)
					wantErr(t, "the end", f.end(), nil)
					sleep(5 * time.Minute)
					works(t, kept)
					if g.opened() != 1 {
						t.Errorf("%d connections were opened, want 1", g.opened())
					}
				})
			})
		}
	}
}
