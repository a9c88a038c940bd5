package main

import (
	"database/sql"
	"fmt"
	"io"
	"runtime"
	"sync"
	"time"
)

// Crowd is what it costs when many connections of one process wait for a lock.
type Crowd struct {
	Waiters int     `json:"waiters"`
	HeldMs  float64 `json:"held_ms"`
	Rounds  int     `json:"rounds"`

	// Medians. The process's CPU time while the lock is held, of the candidate and
	// of raw in the same rounds, and the first divided by the second; 0 where the
	// system does not tell. Then how long it took, from when the lock was given back,
	// until the last of them was done.
	CPUMs    float64 `json:"cpu_median_ms"`
	RawCPUMs float64 `json:"raw_cpu_median_ms"`
	Ratio    float64 `json:"cpu_ratio_median"`
	DrainMs  float64 `json:"drain_median_ms"`
}

const crowdSize = 40

// crowd compares the candidate with raw.
func (h *harness) crowd(e *entry) (c Crowd, err error) {
	rounds, hold := 5, 2*time.Second
	if h.opts.quick {
		rounds, hold = 1, 300*time.Millisecond
	}
	c = Crowd{Waiters: crowdSize, HeldMs: ms(hold), Rounds: rounds}
	var cpus, rawCPUs, ratios, drains []float64
	own, err := h.openCrowd(e.open)
	if err != nil {
		return c, err
	}
	defer own.close()
	raw, err := h.openCrowd(openRaw)
	if err != nil {
		return c, err
	}
	defer raw.close()
	for range rounds {
		cpu, drain, err := own.wait(hold)
		if err != nil {
			return c, err
		}
		rawCPU, _, err := raw.wait(hold)
		if err != nil {
			return c, err
		}
		cpus, rawCPUs, drains = append(cpus, ms(cpu)), append(rawCPUs, ms(rawCPU)), append(drains, ms(drain))
		if rawCPU > 0 {
			ratios = append(ratios, float64(cpu)/float64(rawCPU))
		}
	}
	c.CPUMs, c.RawCPUMs, c.DrainMs = median(cpus), median(rawCPUs), median(drains)
	if len(ratios) > 0 {
		c.Ratio = median(ratios)
	}
	return c, nil
}

// waitingCrowd is a pool of many connections, and raw's connection that holds the
// lock.
type waitingCrowd struct {
	file            string
	holder, waiters *sql.DB
}

func openRaw(dsn string) (*sql.DB, error) { return sql.Open("sqlite3", dsn) }

func (h *harness) openCrowd(open opener) (c *waitingCrowd, err error) {
	c = &waitingCrowd{}
	if c.file, err = h.newFile(); err != nil {
		return nil, err
	}
	if c.holder, err = openRaw(dsnFor(c.file) + "&_txlock=immediate"); err == nil {
		c.waiters, err = open(dsnFor(c.file))
	}
	if err == nil {
		err = openAll(c.waiters, crowdSize)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// openAll opens n connections: opening is not what is measured.
func openAll(db *sql.DB, n int) error {
	db.SetMaxOpenConns(n)
	db.SetMaxIdleConns(n)
	var open []*sql.Tx
	defer func() {
		for _, tx := range open {
			tx.Rollback()
		}
	}()
	for range n {
		tx, err := db.Begin()
		if err != nil {
			return fmt.Errorf("opening %d connections: %w", n, err)
		}
		open = append(open, tx)
	}
	return nil
}

func (c *waitingCrowd) close() {
	for _, db := range []*sql.DB{c.waiters, c.holder} {
		if db != nil {
			db.Close()
		}
	}
	removeDatabase(c.file)
}

// wait has all of them wait for as long as the lock is held.
func (c *waitingCrowd) wait(hold time.Duration) (cpu, drain time.Duration, err error) {
	tx, err := c.holder.Begin()
	if err != nil {
		return 0, 0, err
	}
	runtime.GC() // not while it is measured
	errs := make([]error, crowdSize)
	var all sync.WaitGroup
	before := cpuTime()
	for i := range errs {
		all.Go(func() { _, errs[i] = c.waiters.Exec(updateByKey, i+1) })
	}
	time.Sleep(hold)
	cpu = cpuTime() - before
	released := time.Now()
	err = tx.Rollback()
	all.Wait()
	drain = time.Since(released)
	for _, waiterErr := range errs {
		if err == nil {
			err = waiterErr
		}
	}
	return cpu, drain, err
}

// writeCrowds prints what many that wait cost.
func writeCrowds(w io.Writer, waits []LockWait) {
	g := newGrid("candidate", "CPU", "raw", "ratio", "all done after", "n")
	for _, l := range waits {
		c := l.Crowd
		g.row(l.Candidate, fmt.Sprintf("%.1f ms", c.CPUMs), fmt.Sprintf("%.1f ms", c.RawCPUMs), fmt.Sprintf("%.2f", c.Ratio),
			fmt.Sprintf("%.0f ms", c.DrainMs), fmt.Sprint(c.Rounds))
	}
	fmt.Fprintf(w, "\n%d connections wait while raw holds the lock for %.0f ms. CPU: of the process meanwhile, and of raw in the same rounds. Done: after the lock was given back. Medians.\n\n",
		waits[0].Crowd.Waiters, waits[0].Crowd.HeldMs)
	g.write(w)
}
