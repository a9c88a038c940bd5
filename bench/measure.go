package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"
)

// samples is one workload, measured. The first index is the entry.
type samples struct {
	entries []*entry
	ops     int         // in each batch
	ns      [][]float64 // per operation, in each round
	bytes   []float64   // per operation
	allocs  []float64   // per operation
}

// measure runs the rounds of one workload. The first entry, raw, sets how many
// operations a batch has.
func (h *harness) measure(w workload, entries []*entry) (samples, error) {
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := samples{entries: entries}
	jobs := make([]*job, len(entries))
	for i, e := range entries {
		j, err := h.newJob(ctx, w, e)
		if err != nil {
			return s, err
		}
		defer j.close()
		jobs[i] = j
	}
	failed := func(i int, err error) (samples, error) {
		return s, fmt.Errorf("%s on %s: %w", w.name, entries[i].name, err)
	}
	var err error
	if s.ops, err = calibrate(jobs[0], h.opts.batch()); err != nil {
		return failed(0, err)
	}
	for i, j := range jobs { // caches, pools, lazily made state
		if _, err := j.batch(s.ops); err != nil {
			return failed(i, err)
		}
	}

	// No collection while a round runs: it would hit whoever is at work then,
	// mostly with the garbage of others.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	s.ns = make([][]float64, len(entries))
	for range h.opts.rounds {
		runtime.GC()
		for _, i := range h.rng.Perm(len(jobs)) {
			took, err := jobs[i].batch(s.ops)
			if err != nil {
				return failed(i, err)
			}
			s.ns[i] = append(s.ns[i], float64(took.Nanoseconds())/float64(s.ops))
		}
	}
	for i, j := range jobs {
		bytes, allocs, err := j.allocations(s.ops)
		if err != nil {
			return failed(i, err)
		}
		s.bytes, s.allocs = append(s.bytes, bytes), append(s.allocs, allocs)
	}
	fmt.Fprintf(h.log, "%-20s %2d candidates, %d rounds of %d ops, %.1fs\n",
		w.name, len(entries), h.opts.rounds, s.ops, time.Since(began).Seconds())
	return s, nil
}

// batch runs n operations and returns their time.
func (j *job) batch(n int) (took time.Duration, err error) {
	err = j.bracket(func() error {
		start := time.Now()
		err := j.run(n)
		took = time.Since(start)
		return err
	})
	return took, err
}

// bracket runs f between begin and end.
func (j *job) bracket(f func() error) error {
	if j.begin != nil {
		if err := j.begin(); err != nil {
			return err
		}
	}
	if err := f(); err != nil {
		return err
	}
	if j.end != nil {
		return j.end()
	}
	return nil
}

// calibrate returns how many operations take about as long as a batch should.
func calibrate(j *job, target time.Duration) (int, error) {
	for n := 1; ; n *= 2 {
		fastest := time.Duration(0)
		for range 3 {
			took, err := j.batch(n)
			if err != nil {
				return 0, err
			}
			if fastest == 0 || took < fastest {
				fastest = took
			}
		}
		if fastest > target/4 || n > 1e8 {
			return max(1, int(float64(n)*float64(target)/float64(fastest))), nil
		}
	}
}

// allocBatches is odd, so that the median is one of them.
const allocBatches = 5

// allocations counts in batches of its own: reading the counters stops the
// world. The median drops what somebody else allocated meanwhile.
func (j *job) allocations(n int) (bytes, allocs float64, err error) {
	var b, a []float64
	for range allocBatches {
		err := j.bracket(func() error {
			var before, after runtime.MemStats
			runtime.GC()
			if err := j.run(1); err != nil { // refills what the collection emptied
				return err
			}
			runtime.ReadMemStats(&before)
			err := j.run(n)
			runtime.ReadMemStats(&after)
			b = append(b, float64(after.TotalAlloc-before.TotalAlloc)/float64(n))
			a = append(a, float64(after.Mallocs-before.Mallocs)/float64(n))
			return err
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return median(b), median(a), nil
}
