//go:build unix

package leakguard

import (
	"context"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// dropRows opens rows that nobody can ever close.
//
//go:noinline
func dropRows(t *testing.T, db *guarded, ctx context.Context) {
	rows, err := db.QueryContext(ctx, "SELECT a FROM t")
	check(err)
	if !rows.Next() {
		t.Fatal(rows.Err())
	}
}

// Who waits behind dropped rows goes on as soon as they have rested for long enough to
// be told of, for the garbage is collected then: long before leak_after, and before the
// program would do so by itself.
func TestCollectForWaiter(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(1 << 20)) // nobody else does, but the runtime each two minutes
	policy := tracker.DefaultPolicy()
	policy.ReportAfter = 400 * time.Millisecond
	cfg := Config{DSN: fileDSN(t, "_journal_mode=DELETE", "_busy_timeout=30000"), Tracker: tracker.New(tracker.Options{}), Policy: policy}
	a, b := open(t, cfg), open(t, cfg)
	run(t, a, createT, "INSERT INTO t VALUES(1), (2), (3)")
	number(t, b, "SELECT count(*) FROM t")
	dropRows(t, a, background)
	began := time.Now()
	run(t, b, "INSERT INTO t VALUES(4)")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("waited for %v", took)
	}
	if s := a.tracker.Stats(); s.Proven != 1 {
		t.Errorf("%d proven", s.Proven)
	}
}

// Which rows a collection could prove: not those that database/sql holds for their
// context's sake or for a sql.Tx.
func TestProvable(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	a := open(t, Config{})
	run(t, a, createT, "INSERT INTO t VALUES(1), (2), (3)")
	provable := func() (n int) {
		for _, k := range a.connector.pool.Controls() {
			if k.(tracker.ProofControl).Provable() {
				n++
			}
		}
		return n
	}
	rows, err := a.QueryContext(ctx, "SELECT a FROM t")
	check(err)
	defer rows.Close()
	tx := a.begin(t)
	inTx, err := tx.Query("SELECT a FROM t")
	check(err)
	defer inTx.Close()
	if n := provable(); n != 0 {
		t.Errorf("%d, want none: a context that can be cancelled, and a transaction", n)
	}
	plain, err := a.Query("SELECT a FROM t")
	check(err)
	if n := provable(); n != 1 {
		t.Errorf("%d, want one", n)
	}
	check(plain.Close())
	if n := provable(); n != 0 {
		t.Errorf("%d, want none: they are closed", n)
	}
}

// In somebody's bubble nothing is asked for that would keep it: rows that rest before a
// waiter there are left to leak_after, and the bubble ends.
func TestCollectInSomebodysBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := tracker.DefaultPolicy()
		policy.ReportAfter = time.Second
		cfg := Config{DSN: fileDSN(t, "_journal_mode=DELETE", "_busy_timeout=300"), Tracker: tracker.New(tracker.Options{}), Policy: policy}
		a, b := open(t, cfg), open(t, cfg)
		run(t, a, createT, "INSERT INTO t VALUES(1), (2), (3)")
		dropRows(t, a, background)
		done := make(chan error)
		go func() { done <- try(b, "INSERT INTO t VALUES(4)") }()
		if err := <-done; err == nil {
			t.Error("the rows were in nobody's way")
		}
		if n := b.tracker.Stats(); n.LockWaitCount != 1 {
			t.Errorf("%d waits", n.LockWaitCount)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
	})
}
