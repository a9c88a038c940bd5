package main

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"
)

func TestHandover(t *testing.T) {
	h := testHarness(t, "-lockwait")
	for _, e := range h.entries {
		t.Run(e.name, func(t *testing.T) {
			p, err := h.openPair(e)
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			for range 3 {
				if wait, err := p.handover(p.holder, 10*time.Millisecond); err != nil || wait < 0 {
					t.Errorf("waited %v, error %v", wait, err)
				}
			}
			var n int
			if err := p.patient.QueryRow("SELECT sum(n) FROM counter").Scan(&n); err != nil || n != 6 {
				t.Errorf("%d updates, error %v, want those of 3 holders and 3 waiters", n, err)
			}
		})
	}
}

func TestDeadlineInALockWait(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a busy timeout")
	}
	h := testHarness(t, "-lockwait")
	for _, e := range h.entries {
		t.Run(e.name, func(t *testing.T) {
			p, err := h.openPair(e)
			if err != nil {
				t.Fatal(err)
			}
			defer p.close()
			took, waiterErr, err := p.deadline()
			if err != nil || waiterErr == nil || took < lockDeadline {
				t.Errorf("returned %v after %v, error %v", waiterErr, took, err)
			}
		})
	}
}

func TestCancels(t *testing.T) {
	if testing.Short() {
		t.Skip("cancels statements of 200 ms")
	}
	h := testHarness(t, "-cancel")
	latencies, lost, err := h.cancels()
	if err != nil {
		t.Fatal(err)
	}
	if len(latencies) != 3*len(h.entries) || len(lost) != 2*len(h.entries) {
		t.Fatalf("%d latencies and %d counts of lost ones", len(latencies), len(lost))
	}
	for _, l := range latencies {
		counted := 0
		for _, n := range l.Buckets {
			counted += n
		}
		if l.N == 0 || counted != l.N || l.MedianMs > l.P90Ms || l.P90Ms > l.MaxMs {
			t.Errorf("%+v", l)
		}
	}
}

// A statement that is over too soon is no measurement and no endless loop.
func TestCancelLatencyOfAShortStatement(t *testing.T) {
	h := testHarness(t, "-cancel")
	short := longStatement{"short", queryOf(1).run}
	db, err := h.entries[0].open(dsnFor(h.template))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if l, err := h.cancelLatency(db, short, 2, time.Minute); err == nil {
		t.Errorf("no error: %+v", l)
	}
	broken := errors.New("broken")
	fails := longStatement{"fails", func(context.Context, *sql.DB) error { return broken }}
	if _, err := h.cancelLatency(db, fails, 2, time.Minute); !errors.Is(err, broken) {
		t.Errorf("error = %v", err)
	}
}

func TestCrowd(t *testing.T) {
	h := testHarness(t, "-lockwait")
	for _, e := range h.entries {
		t.Run(e.name, func(t *testing.T) {
			c, err := h.crowd(e)
			if err != nil {
				t.Fatal(err)
			}
			if c.Waiters != crowdSize || c.Rounds != 1 || cpuTime() > 0 && min(c.CPUMs, c.RawCPUMs, c.Ratio) <= 0 || c.DrainMs <= 0 {
				t.Errorf("%+v", c)
			}
		})
	}
}
