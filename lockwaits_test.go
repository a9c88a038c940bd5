//go:build unix

package leakguard

import (
	"bufio"
	"context"
	"database/sql/driver"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// eventually polls what only another thread inside SQLite can bring about.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// waitRivals are two pools of one file with a table, whose texts are told as by default.
func waitRivals(t *testing.T, params ...string) (a, b *guarded) {
	t.Helper()
	cfg := Config{DSN: fileDSN(t, params...), Tracker: tracker.New(tracker.Options{})}
	a, b = openExactly(t, cfg), openExactly(t, cfg)
	run(t, a, createT, "INSERT INTO t VALUES(1), (2), (3)")
	number(t, b, "SELECT count(*) FROM t") // opening, too, can wait, as go-sqlite3 does
	return a, b
}

// waitingFor returns who waits, by whatever the tracker of a guarded database knows.
func waitingFor(p *guarded, atLeast time.Duration) (w tracker.LockWaiting) {
	for _, w := range p.tracker.Stats().LockWaiting {
		if w.For >= atLeast.Seconds() {
			return w
		}
	}
	return w
}

// siteOf is a marked line as a Site is told.
func siteOf(t *testing.T, mark string) string {
	t.Helper()
	dir, err := os.Getwd()
	check(err)
	return filepath.Base(dir) + "/" + markedLine(t, mark)
}

// onlyWaits returns the one pair that was counted.
func onlyWaits(t *testing.T, s tracker.Stats) tracker.LockWaits {
	t.Helper()
	if len(s.LockWaits) != 1 {
		t.Fatalf("%d pairs, want one: %+v", len(s.LockWaits), s.LockWaits)
	}
	return s.LockWaits[0]
}

// A wait that ends well is counted, by the calls of both, for as long as it took, and
// its texts are told as all are; while it goes on it is told who waits for whom.
func TestLockWaitCounted(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"WAL", "DELETE"} {
		t.Run(mode, func(t *testing.T) {
			a, b := waitRivals(t, "_busy_timeout=60000", "_journal_mode="+mode)
			tx, err := a.BeginTx(background, nil) // here:long
			run(t, begun(t, tx, err), "INSERT INTO t VALUES(4711)")
			began, done := time.Now(), make(chan error)
			go func() {
				_, err := b.Exec("INSERT INTO t VALUES(4712)") // here:waits
				done <- err
			}()
			eventually(t, "waits for 300 ms", func() bool { return waitingFor(b, 300*time.Millisecond).ConnectionID != "" })
			w := waitingFor(b, 300*time.Millisecond)
			site, holder := siteOf(t, "waits"), siteOf(t, "long")
			if w.Site != site || w.HolderSite != holder || w.Holder != "transaction" || w.Query != "INSERT INTO t VALUES(?)" || w.HolderConnection == "" {
				t.Errorf("waits: %+v", w)
			}
			if s := b.tracker.Stats(); s.LockWaitCount != 0 || s.Verdict != tracker.Good {
				t.Errorf("while it waits for less than 1 s: %d are over, %v %q", s.LockWaitCount, s.Verdict, s.Findings)
			}
			check(tx.Rollback())
			check(<-done)
			took := time.Since(began)
			s := b.tracker.Stats()
			n := onlyWaits(t, s)
			if s.LockWaitCount != 1 || n.Count != 1 || n.WaiterSite != site || n.Holder != "transaction" || n.HolderSite != holder {
				t.Errorf("counted %d: %+v", s.LockWaitCount, n)
			}
			if least := 0.3; n.Total < least || n.Total > took.Seconds() || n.Longest != n.Total || s.LockWaitSeconds != n.Total {
				t.Errorf("took %v of %v, want %v or more: %+v", n.Total, took, least, n)
			}
			if n.Query != "INSERT INTO t VALUES(?)" || n.HolderQuery != "INSERT INTO t VALUES(?)" || time.Since(n.Last) > time.Minute {
				t.Errorf("%+v", n)
			}
			if len(s.LockWaiting) != 0 {
				t.Errorf("who waits no more: %+v", s.LockWaiting)
			}
			var report strings.Builder
			b.tracker.WriteTo(&report)
			if want := "1 x at " + site + "  for transaction opened at " + holder; !strings.Contains(report.String(), want) {
				t.Errorf("no %q in the report:\n%s", want, report.String())
			}
		})
	}
}

// One that fails counts too; a short one does not, and one that follows a long one on
// the same connection is a wait of its own.
func TestLockWaitsApart(t *testing.T) {
	t.Parallel()
	a, b := waitRivals(t, "_busy_timeout=150")
	c := b.conn(t)
	for i := range 3 {
		tx, err := a.BeginTx(background, nil)
		run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
		wantCode(t, "INSERT", try(c, "INSERT INTO t VALUES(5)"), sqlite3.ErrBusy)
		check(tx.Rollback())
		run(t, c, "DELETE FROM t WHERE a = 5") // waits for nobody
		s := b.tracker.Stats()
		if n := onlyWaits(t, s); s.LockWaitCount != uint64(i+1) || n.Longest < 0.1 || n.Longest > 10 || n.Total < float64(i+1)*0.1 {
			t.Errorf("after %d: %d, %+v", i+1, s.LockWaitCount, n)
		}
	}
	f := b.tracker.Figures().Pools
	for _, p := range f {
		if p.Pool == b.connector.pool.Name() && (p.LockWaits != 3 || p.LockWaitDuration < 300*time.Millisecond) {
			t.Errorf("%d, %v", p.LockWaits, p.LockWaitDuration)
		}
	}
}

// Without a report in between, what a wait took is not taken for what the next one did,
// and what is over when its connection is closed is counted.
func TestLockWaitsUnread(t *testing.T) {
	t.Parallel()
	a, b := waitRivals(t, "_busy_timeout=60000")
	c := b.conn(t)
	for _, hold := range []time.Duration{time.Second, 200 * time.Millisecond} {
		tx, err := a.BeginTx(background, nil)
		run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
		timer := time.AfterFunc(hold, func() { tx.Rollback() })
		run(t, c, "DELETE FROM t WHERE a = 5")
		timer.Stop()
	}
	check(c.Close())
	check(b.Close())
	s := a.tracker.Stats() // the pool is gone
	if s.LockWaitCount != 2 || s.LockWaitSeconds < 1 || s.LockWaitSeconds > 10 || len(s.LockWaits) != 0 {
		t.Errorf("%d, %v s, %+v", s.LockWaitCount, s.LockWaitSeconds, s.LockWaits)
	}
}

// Whoever waits for a second makes the verdict red, and the finding says for whom; for
// an exempt one it is amber. It is over with the wait.
func TestVerdictOfLockWaits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ctx  context.Context
		want tracker.Verdict
		says string
	}{
		"held":   {background, tracker.Bad, "held by a transaction of %s, opened at %s"},
		"exempt": {Exempt(background, "nightly import"), tracker.Attention, "held by a transaction of %s, opened at %s, which is exempt: nightly import"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := waitRivals(t, "_busy_timeout=60000")
			tx, err := a.BeginTx(c.ctx, nil) // here:verdict
			run(t, begun(t, tx, err), "INSERT INTO t VALUES(4)")
			done := make(chan error)
			go func() {
				_, err := b.Exec("INSERT INTO t VALUES(5)") // here:verdict waits
				done <- err
			}()
			var s tracker.Stats
			eventually(t, "waits for a second", func() bool {
				s = b.tracker.Stats()
				return len(s.LockWaiting) == 1 && s.LockWaiting[0].For >= 1
			})
			want := "an operation at " + siteOf(t, "verdict waits") + " has waited "
			says := fmt.Sprintf(c.says, s.LockWaiting[0].HolderConnection, siteOf(t, "verdict"))
			if s.Verdict != c.want || len(s.Findings) != 1 || !strings.HasPrefix(s.Findings[0], want) || !strings.HasSuffix(s.Findings[0], says) {
				t.Errorf("%v: %q, want %v: %s… %s", s.Verdict, s.Findings, c.want, want, says)
			}
			check(tx.Rollback())
			check(<-done)
			if s := b.tracker.Stats(); s.Verdict != tracker.Good {
				t.Errorf("afterwards %v: %q", s.Verdict, s.Findings)
			}
		})
	}
}

// A process of its own that holds a lock is named.
func TestLockWaitForAnotherProcess(t *testing.T) {
	const key, text = "LEAKGUARD_TEST_HOLD", "LEAKGUARD_TEST_HOLD_BY"
	if dsn := os.Getenv(key); dsn != "" {
		c, err := new(sqlite3.SQLiteDriver).Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.(driver.ExecerContext).ExecContext(background, os.Getenv(text), nil); err != nil {
			t.Fatal(err)
		}
		fmt.Println("holding")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	t.Parallel()
	for name, c := range map[string]struct{ journal, holds string }{
		"WAL":    {"WAL", "BEGIN IMMEDIATE"},
		"writer": {"DELETE", "BEGIN IMMEDIATE"},
		"locked": {"DELETE", "BEGIN EXCLUSIVE"},
		"reader": {"DELETE", "BEGIN; SELECT a FROM t"},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := waitRivals(t, "_busy_timeout=60000", "_journal_mode="+c.journal)
			if c.journal == "WAL" {
				query(t, a.begin(t), "SELECT a FROM t") // a reader, who is in nobody's way
			}
			ctx, cancel := context.WithTimeout(background, time.Minute)
			defer cancel()
			exe, err := os.Executable()
			check(err)
			cmd := exec.CommandContext(ctx, exe, "-test.run=^TestLockWaitForAnotherProcess$", "-test.count=1")
			cmd.Env = append(os.Environ(), key+"="+a.dsn, text+"="+c.holds)
			in := ok(cmd.StdinPipe())
			out := bufio.NewScanner(ok(cmd.StdoutPipe()))
			check(cmd.Start())
			defer cmd.Wait()
			defer in.Close()
			for out.Scan() && out.Text() != "holding" {
			}
			done := make(chan error)
			go func() { done <- try(b, "INSERT INTO t VALUES(5)") }()
			eventually(t, "waits for a second", func() bool { return waitingFor(b, time.Second).ConnectionID != "" })
			command := regexp.MustCompile(`^process \d+ \(.+\)$`)
			pid := fmt.Sprintf("process %d ", cmd.Process.Pid)
			named := func(holder string) bool {
				if runtime.GOOS != "linux" {
					return holder == "not known"
				}
				return command.MatchString(holder) && strings.HasPrefix(holder, pid)
			}
			s := b.tracker.Stats()
			if w := s.LockWaiting[0]; !named(w.Holder) || w.HolderSite != "" || s.Verdict != tracker.Attention {
				t.Errorf("%v %q: waits for %+v", s.Verdict, s.Findings, w)
			}
			in.Close()
			check(<-done)
			if n := onlyWaits(t, b.tracker.Stats()); !named(n.Holder) || n.HolderSite != "" || n.Count != 1 {
				t.Errorf("%+v", n)
			}
			if got := inAnotherProcess(t, a.dsn, "SELECT count(*) FROM t"); !strings.Contains(got, "4") {
				t.Error(got)
			}
		})
	}
}

// A connection of this process that is not guarded is not taken for another process.
func TestLockWaitPastGuard(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no list of locks here")
	}
	t.Parallel()
	_, b := waitRivals(t, "_busy_timeout=60000")
	unlock := lockFile(t, fileOf(b.dsn))
	done := make(chan error)
	go func() { done <- try(b, "INSERT INTO t VALUES(5)") }()
	eventually(t, "waits", func() bool { return waitingFor(b, 0).ConnectionID != "" })
	if w := waitingFor(b, 0); w.Holder != "this process, past the guard" {
		t.Errorf("%+v", w)
	}
	unlock()
	check(<-done)
}

// Many that wait, at whatever moment somebody reads the counts or closes connections:
// each wait counts once, and what the calls have together is what the pool has.
func TestLockWaitsUnderReport(t *testing.T) {
	t.Parallel()
	a, b := waitRivals(t, "_busy_timeout=60000", "_txlock=immediate")
	b.SetMaxIdleConns(1)
	stop := make(chan struct{})
	var readers, writers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				b.tracker.Stats()
				b.tracker.Figures()
				b.tracker.WriteTo(io.Discard)
			}
		})
	}
	const n = 12
	for i := range n {
		db := a
		if i%2 == 0 {
			db = b
		}
		writers.Go(func() {
			tx, err := db.BeginTx(background, nil)
			if err != nil {
				t.Error(err)
				return
			}
			time.Sleep(60 * time.Millisecond) // holds the lock
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	s := b.tracker.Stats()
	var pairs uint64
	for _, p := range s.LockWaits {
		pairs += p.Count
	}
	if s.LockWaitCount < n/2 || s.LockWaitCount > n || pairs != s.LockWaitCount || len(s.LockWaiting) != 0 {
		t.Errorf("%d waits, %d by their calls, %d wait", s.LockWaitCount, pairs, len(s.LockWaiting))
	}
}
