package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"time"
)

// profile runs one candidate in one workload and nothing else, so that every
// sample is its.
func (h *harness) profile(stdout io.Writer) error {
	w, e, err := h.only()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	j, err := h.newJob(ctx, w, e)
	if err != nil {
		return err
	}
	defer j.close()
	n, err := calibrate(j, h.opts.batch())
	if err != nil {
		return err
	}
	f, err := os.Create(h.opts.cpuProfile)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		f.Close()
		return err
	}
	var took time.Duration
	for i := 0; i < h.opts.rounds && err == nil; i++ {
		var t time.Duration
		t, err = j.batch(n)
		took += t
	}
	pprof.StopCPUProfile()
	ops := h.opts.rounds * n
	fmt.Fprintf(stdout, "%s on %s: %d ops, %.0f ns/op while profiled\n",
		w.name, e.name, ops, float64(took.Nanoseconds())/float64(ops))
	return errors.Join(err, f.Close())
}

// only returns the one workload and the one candidate that the flags select.
func (h *harness) only() (w workload, e *entry, err error) {
	var ws, es int
	for _, one := range workloads() {
		if selected(h.opts.workloads, one.name) {
			w, ws = one, ws+1
		}
	}
	for _, one := range h.entries {
		if selected(h.opts.candidates, one.name) {
			e, es = one, es+1
		}
	}
	if ws != 1 || es != 1 {
		err = fmt.Errorf("-cpuprofile wants one workload and one candidate, -workloads selects %d and -candidates %d", ws, es)
	}
	return w, e, err
}
