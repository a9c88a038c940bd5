package leakguard

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A transaction that was left rests, and somebody waits for its lock: it is told of,
// with both lines, while the waiter still waits, and nothing is undone.
func TestRestingNamesWhoWaits(t *testing.T) {
	t.Parallel()
	policy := tracker.DefaultPolicy()
	policy.ReportAfter = 200 * time.Millisecond
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{DSN: "file:" + filepath.Join(t.TempDir(), "a.db") + "?_journal_mode=WAL&_busy_timeout=60000", Policy: policy, Tracker: tr})
	run(t, g, createT)
	told := make(chan tracker.Event, 16)
	defer tr.Subscribe(func(e tracker.Event) {
		if e.Type == tracker.EventResting && len(e.Waiters) > 0 {
			told <- e
		}
	})()
	tx := g.begin(t) // here:rests
	run(t, tx, "INSERT INTO t VALUES(1)")
	ctx, cancel := context.WithCancel(background)
	done := make(chan error, 1)
	go func() {
		_, err := g.ExecContext(ctx, "INSERT INTO t VALUES(2)") // here:waits
		done <- err
	}()
	select {
	case e := <-told:
		if l := e.Leak; l.Kind != tracker.KindTransaction || !strings.Contains(l.Site().Function, "begin") || l.Reason != tracker.ReasonReportAfter {
			t.Errorf("rests: %v", l)
		}
		if w := e.Waiters[0]; len(e.Waiters) != 1 || w.Query != "INSERT INTO t VALUES(2)" || !strings.Contains(w.Site().Function, "TestRestingNamesWhoWaits") {
			t.Errorf("waits: %+v at %v", e.Waiters, w.Site())
		}
	case err := <-done:
		t.Errorf("the waiter is back: %v", err)
	case <-time.After(30 * time.Second):
		t.Error("nothing is told")
	}
	cancel()
	<-done
	wantErr(t, "Commit", tx.Commit(), nil)
	if s := tr.Stats(); s.Reaped != 0 || s.LeakedDetected != 0 {
		t.Errorf("%d leaks, %d undone", s.LeakedDetected, s.Reaped)
	}
}

// The look at who waits crosses operations that begin and end, and connections that are
// closed.
func TestWaitingBesideOperations(t *testing.T) {
	t.Parallel()
	g := open(t, Config{Mode: tracker.Basic})
	run(t, g, createT)
	for range 20 {
		c := drive(t, Config{DSN: g.dsn, Mode: tracker.Basic})
		k := control{weakOf(c)}
		stop, over := make(chan bool), make(chan bool)
		go func() {
			defer close(over)
			for {
				select {
				case <-stop:
					return
				default:
					k.AwaitsLock()
				}
			}
		}()
		for range 200 {
			if _, err := c.ExecContext(background, "INSERT OR REPLACE INTO t VALUES(1)", nil); err != nil {
				t.Error(err)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		k.AwaitsLock()
		close(stop)
		<-over
	}
}
