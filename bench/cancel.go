package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"
)

// CancelLatency is the time from cancel() to the return of a long statement.
type CancelLatency struct {
	Candidate  string  `json:"candidate"`
	Statement  string  `json:"statement"`
	N          int     `json:"n"`
	WrongError int     `json:"wrong_error"` // neither ctx.Err() nor a wrapper of it
	MedianMs   float64 `json:"median_ms"`
	P90Ms      float64 `json:"p90_ms"`
	MaxMs      float64 `json:"max_ms"`
	Buckets    []int   `json:"buckets"` // see bucketEnds
}

// LostCancels counts cancels right after the start that did not reach the
// statement: it ran on for more than lostAfter.
type LostCancels struct {
	Candidate string  `json:"candidate"`
	Statement string  `json:"statement"`
	N         int     `json:"n"`
	Lost      int     `json:"lost"`
	WorstMs   float64 `json:"worst_ms"`
}

const lostAfter = 100 * time.Millisecond

// countToN is one statement of many opcodes; how many decides how long it runs.
const countToN = "WITH RECURSIVE k(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM k WHERE x < ?) SELECT count(*) FROM k"

// longStatement is something to cancel.
type longStatement struct {
	name string
	run  func(ctx context.Context, db *sql.DB) error
}

func execOf(n int64) longStatement {
	return longStatement{"exec", func(ctx context.Context, db *sql.DB) error {
		_, err := db.ExecContext(ctx, countToN, n)
		return err
	}}
}

func queryOf(n int64) longStatement {
	return longStatement{"query", func(ctx context.Context, db *sql.DB) error {
		return db.QueryRowContext(ctx, countToN, n).Scan(new(int64))
	}}
}

// countBig is a single opcode, which no progress handler can stop.
var countBig = longStatement{"count", func(ctx context.Context, db *sql.DB) error {
	return db.QueryRowContext(ctx, "SELECT count(*) FROM big").Scan(new(int64))
}}

// cancelPlan is how much there is to do.
type cancelPlan struct {
	latency, count, lost int
	rows                 int           // of the table that is counted
	long, short          time.Duration // statements that are cancelled, and that may be lost
}

func (o options) cancelPlan() cancelPlan {
	if o.quick {
		return cancelPlan{6, 3, 12, 2_000_000, 400 * time.Millisecond, 200 * time.Millisecond}
	}
	return cancelPlan{60, 30, 180, 4_000_000, 2 * time.Second, 400 * time.Millisecond}
}

// cancels measures every statement on every candidate that takes part.
func (h *harness) cancels() (latencies []CancelLatency, lost []LostCancels, err error) {
	plan := h.opts.cancelPlan()
	file := filepath.Join(h.dir, "big.db")
	perMs, err := h.writeBig(file, plan.rows)
	if err != nil {
		return nil, nil, err
	}
	defer removeDatabase(file)
	for _, e := range h.waiting() {
		began := time.Now()
		db, err := e.open(dsnFor(file))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", e.name, err)
		}
		l, o, err := h.cancelsOn(db, e.name, plan, perMs)
		db.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("cancellation on %s: %w", e.name, err)
		}
		latencies, lost = append(latencies, l...), append(lost, o...)
		fmt.Fprintf(h.log, "%-20s %s, %.1fs\n", "cancellation", e.name, time.Since(began).Seconds())
	}
	return latencies, lost, nil
}

// writeBig makes the database and returns how far countToN counts in a
// millisecond.
func (h *harness) writeBig(file string, rows int) (perMs float64, err error) {
	if err := copyFile(file, h.template); err != nil {
		return 0, err
	}
	db, err := sql.Open("sqlite3", dsnFor(file))
	if err != nil {
		return 0, err
	}
	defer db.Close()
	_, err = db.Exec("CREATE TABLE big AS WITH RECURSIVE k(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM k WHERE x < ?) SELECT x FROM k", rows)
	if err != nil {
		return 0, err
	}
	const n = 200_000
	took, err := fastest(db, queryOf(n))
	return n / ms(took), err
}

// fastest runs a statement to its end. The first time may read from the disk.
func fastest(db *sql.DB, s longStatement) (took time.Duration, err error) {
	for i := range 3 {
		start := time.Now()
		if err := s.run(context.Background(), db); err != nil {
			return 0, err
		}
		if t := time.Since(start); i == 0 || t < took {
			took = t
		}
	}
	return took, nil
}

func (h *harness) cancelsOn(db *sql.DB, name string, plan cancelPlan, perMs float64) (latencies []CancelLatency, lost []LostCancels, err error) {
	countTook, err := fastest(db, countBig)
	if err != nil {
		return nil, nil, err
	}

	long, short := int64(perMs*ms(plan.long)), int64(perMs*ms(plan.short))
	for _, t := range []struct {
		statement longStatement
		n         int
		within    time.Duration // the cancel comes in the second half of this
	}{
		{execOf(long), plan.latency, 20 * time.Millisecond},
		{queryOf(long), plan.latency, 20 * time.Millisecond},
		{countBig, plan.count, countTook / 3},
	} {
		l, err := h.cancelLatency(db, t.statement, t.n, t.within)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", t.statement.name, err)
		}
		l.Candidate = name
		latencies = append(latencies, l)
	}
	for _, s := range []longStatement{execOf(short), queryOf(short)} {
		l, err := h.lostCancels(db, s, plan.lost)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", s.name, err)
		}
		l.Candidate = name
		lost = append(lost, l)
	}
	return latencies, lost, nil
}

// cancelLatency cancels n times while the statement runs.
func (h *harness) cancelLatency(db *sql.DB, s longStatement, n int, within time.Duration) (CancelLatency, error) {
	r := CancelLatency{Statement: s.name}
	var took []time.Duration
	for tries := 0; len(took) < n; tries++ {
		if tries == 3*n {
			return r, errors.New("the statement is over before it can be cancelled")
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancelled := make(chan time.Time, 1)
		after := within/2 + time.Duration(h.rng.Int64N(int64(within/2)+1))
		timer := time.AfterFunc(after, func() {
			cancelled <- time.Now()
			cancel()
		})
		err := s.run(ctx, db)
		returned := time.Now()
		if timer.Stop() {
			cancel()
			if err != nil {
				return r, err
			}
			continue // over before it could be cancelled
		}
		latency := returned.Sub(<-cancelled)
		<-ctx.Done()
		if err == nil && latency < 0 {
			continue // over at the same moment
		}
		if !errors.Is(err, context.Canceled) {
			r.WrongError++
		}
		took = append(took, max(0, latency))
	}
	r.N = len(took)
	r.Buckets = histogram(took)
	r.MedianMs, r.P90Ms, r.MaxMs = median(millis(took)), quantile(millis(took), 0.9), quantile(millis(took), 1)
	return r, nil
}

// lostCancels cancels n times within 30 µs after the start.
func (h *harness) lostCancels(db *sql.DB, s longStatement, n int) (LostCancels, error) {
	r := LostCancels{Statement: s.name, N: n}
	for range n {
		ctx, cancel := context.WithCancel(context.Background())
		after := time.Duration(h.rng.Int64N(int64(30*time.Microsecond) + 1))
		var ready, started atomic.Bool
		var at time.Time
		done := make(chan struct{})
		go func() {
			defer close(done)
			ready.Store(true)
			for !started.Load() { // no channel: waking up takes longer than the delay
			}
			for start := time.Now(); time.Since(start) < after; {
			}
			at = time.Now()
			cancel()
		}()
		for !ready.Load() {
			time.Sleep(10 * time.Microsecond)
		}
		started.Store(true)
		err := s.run(ctx, db)
		returned := time.Now()
		<-done
		if err != nil && !errors.Is(err, context.Canceled) {
			return r, err
		}
		ranOn := returned.Sub(at)
		if ranOn > lostAfter {
			r.Lost++
		}
		r.WorstMs = max(r.WorstMs, ms(ranOn))
	}
	return r, nil
}

func millis(durations []time.Duration) []float64 {
	values := make([]float64, len(durations))
	for i, d := range durations {
		values[i] = ms(d)
	}
	return values
}
