package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// LockWait is how long a candidate waits for another pool's write lock.
type LockWait struct {
	Candidate string `json:"candidate"`

	// From the return of the holder's COMMIT to the success of the waiter.
	Handovers        int     `json:"handovers"`
	HandoverMedianMs float64 `json:"handover_median_ms"`
	HandoverMaxMs    float64 `json:"handover_max_ms"`

	// The same where the holder is raw's: nobody tells the waiter, as nobody
	// would if it were another process.
	UntoldMedianMs float64 `json:"untold_median_ms"`
	UntoldMaxMs    float64 `json:"untold_max_ms"`

	// How long a waiter with this deadline waited, inside this busy timeout.
	DeadlineMs    float64 `json:"deadline_ms"`
	BusyTimeoutMs float64 `json:"busy_timeout_ms"`
	DeadlineTries int     `json:"deadline_tries"`
	ReturnMs      float64 `json:"return_median_ms"`
	ReturnMaxMs   float64 `json:"return_max_ms"`
	Error         string  `json:"error"`

	Crowd Crowd `json:"crowd"`
}

const (
	lockDeadline = 50 * time.Millisecond
	lockBusy     = 1500 * time.Millisecond

	// SQLite's own busy handler sleeps longer and longer, so what it costs
	// depends on how long the lock was held: some short, some long.
	holdMin = 20 * time.Millisecond
	holdMax = 300 * time.Millisecond
)

// lockWait measures two pools on one file, and many connections.
func (h *harness) lockWait(e *entry) (LockWait, error) {
	handovers, tries := 40, 5
	if h.opts.quick {
		handovers, tries = 5, 1
	}
	r := LockWait{
		Candidate: e.name, Handovers: handovers, DeadlineTries: tries,
		DeadlineMs: ms(lockDeadline), BusyTimeoutMs: ms(lockBusy),
	}
	p, err := h.openPair(e)
	if err != nil {
		return r, fmt.Errorf("lock wait on %s: %w", e.name, err)
	}
	defer p.close()

	for _, from := range []struct {
		holder           *sql.DB
		median, maxValue *float64
	}{{p.holder, &r.HandoverMedianMs, &r.HandoverMaxMs}, {p.stranger, &r.UntoldMedianMs, &r.UntoldMaxMs}} {
		var waits []float64
		for range handovers {
			hold := holdMin + time.Duration(h.rng.Int64N(int64(holdMax-holdMin)))
			wait, err := p.handover(from.holder, hold)
			if err != nil {
				return r, fmt.Errorf("lock hand-over on %s: %w", e.name, err)
			}
			waits = append(waits, ms(wait))
		}
		*from.median, *from.maxValue = median(waits), quantile(waits, 1)
	}

	var returns []float64
	said := map[string]bool{}
	for range tries {
		took, waiterErr, err := p.deadline()
		if err != nil {
			return r, fmt.Errorf("deadline in a lock wait on %s: %w", e.name, err)
		}
		returns = append(returns, ms(took))
		if text := waiterErr.Error(); !said[text] {
			said[text] = true
			r.Error = strings.TrimPrefix(r.Error+"; "+text, "; ")
		}
	}
	r.ReturnMs, r.ReturnMaxMs = median(returns), quantile(returns, 1)
	if r.Crowd, err = h.crowd(e); err != nil {
		return r, fmt.Errorf("many that wait on %s: %w", e.name, err)
	}
	return r, nil
}

// pair is two pools of one connection each on the same file. Hand-overs use
// the patient waiter.
type pair struct {
	file              string
	holder, stranger  *sql.DB // their transactions take the write lock at once; the stranger is raw's
	patient, hurrying *sql.DB
}

func (h *harness) openPair(e *entry) (p *pair, err error) {
	p = &pair{}
	if p.file, err = h.newFile(); err != nil {
		return nil, err
	}
	hurry := strings.Replace(dsnFor(p.file), "_busy_timeout=5000", fmt.Sprintf("_busy_timeout=%d", lockBusy.Milliseconds()), 1)
	for _, o := range []struct {
		db   **sql.DB
		open opener
		dsn  string
	}{
		{&p.holder, e.open, dsnFor(p.file) + "&_txlock=immediate"},
		{&p.stranger, openRaw, dsnFor(p.file) + "&_txlock=immediate"},
		{&p.patient, e.open, dsnFor(p.file)},
		{&p.hurrying, e.open, hurry},
	} {
		db, err := o.open(o.dsn)
		if err == nil {
			*o.db = db
			db.SetMaxOpenConns(1)
			err = db.Ping() // opening is not what is measured
		}
		if err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

func (p *pair) close() {
	for _, db := range []*sql.DB{p.hurrying, p.patient, p.stranger, p.holder} {
		if db != nil {
			db.Close()
		}
	}
	removeDatabase(p.file)
}

// locked runs f while the holder has the write lock.
func (p *pair) locked(holder *sql.DB, f func()) (commit func() error, err error) {
	tx, err := holder.Begin()
	if err != nil {
		return nil, err
	}
	if _, err := tx.Exec(updateByKey, 1); err != nil {
		tx.Rollback()
		return nil, err
	}
	f()
	return tx.Commit, nil
}

// handover returns how long after the commit the waiter succeeded.
func (p *pair) handover(holder *sql.DB, hold time.Duration) (time.Duration, error) {
	type result struct {
		at  time.Time
		err error
	}
	done := make(chan result, 1)
	commit, err := p.locked(holder, func() {
		go func() {
			_, err := p.patient.Exec(updateByKey, 2)
			done <- result{time.Now(), err}
		}()
		time.Sleep(hold)
	})
	if err != nil {
		return 0, err
	}
	err = commit()
	released := time.Now()
	waiter := <-done
	if err == nil {
		err = waiter.err
	}
	// The waiter may get the lock while the COMMIT is on its way back.
	return max(0, waiter.at.Sub(released)), err
}

// deadline returns how long a waiter took to give up, and with which error.
func (p *pair) deadline() (took time.Duration, waiterErr, err error) {
	commit, err := p.locked(p.holder, func() {
		ctx, cancel := context.WithTimeout(context.Background(), lockDeadline)
		defer cancel()
		start := time.Now()
		_, waiterErr = p.hurrying.ExecContext(ctx, updateByKey, 2)
		took = time.Since(start)
	})
	if err != nil {
		return 0, nil, err
	}
	if err := commit(); err != nil {
		return 0, nil, err
	}
	if waiterErr == nil {
		return 0, nil, errors.New("the waiter wrote while another pool held the write lock")
	}
	return took, waiterErr, nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
