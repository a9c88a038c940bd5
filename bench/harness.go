package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// harness is what one run of the program has: the candidates that take part
// and a folder for their databases.
type harness struct {
	opts     options
	log      io.Writer // progress
	rng      *rand.Rand
	dir      string
	template string
	entries  []*entry
	files    int
}

// entry is a candidate that takes part.
type entry struct {
	candidate
	open opener
	stop func()
}

func newHarness(o options, log io.Writer) (*harness, error) {
	h := &harness{opts: o, log: log, rng: rand.New(rand.NewPCG(o.seed, 0))}
	var err error
	if h.dir, err = os.MkdirTemp(o.dir, "leakguard-bench-"); err != nil {
		return nil, err
	}
	h.template = filepath.Join(h.dir, "template.db")
	if err = writeTemplate(h.template); err == nil {
		err = h.start()
	}
	if err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// takesPart says whether the flags select the candidate. Raw always runs, and
// the modes that compare nothing else have raw and the guard.
func takesPart(o options, name string) bool {
	waits := !o.accept && (o.lockWait || o.cancel)
	switch {
	case name == rawName:
		return true
	case o.gate || waits && o.candidates == nil:
		return name == guardName
	}
	return selected(o.candidates, name)
}

func (h *harness) start() error {
	for _, c := range candidates() {
		if !takesPart(h.opts, c.name) {
			continue
		}
		open, stop, err := c.start()
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		h.entries = append(h.entries, &entry{c, open, stop})
	}
	return nil
}

func (h *harness) close() {
	for _, e := range h.entries {
		if e.stop != nil {
			e.stop()
		}
	}
	os.RemoveAll(h.dir)
}

// newFile returns a fresh copy of the template.
func (h *harness) newFile() (string, error) {
	h.files++
	file := filepath.Join(h.dir, fmt.Sprintf("%d.db", h.files))
	return file, copyFile(file, h.template)
}

func removeDatabase(file string) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		os.Remove(file + suffix)
	}
}

// newJob makes the workload ready on a fresh database of its own.
func (h *harness) newJob(ctx context.Context, w workload, e *entry) (*job, error) {
	file, err := h.newFile()
	if err != nil {
		return nil, err
	}
	j, err := w.make(env{open: e.open, dsn: dsnFor(file), kind: w.kind, long: ctx})
	if err != nil {
		removeDatabase(file)
		return nil, fmt.Errorf("%s on %s: %w", w.name, e.name, err)
	}
	inner := j.close
	j.close = func() error {
		defer removeDatabase(file)
		if inner == nil {
			return nil
		}
		return inner()
	}
	return j, nil
}

// run measures every selected workload.
func (h *harness) run() (*Results, error) {
	r := &Results{Run: h.describe()}
	for _, w := range workloads() {
		if !selected(h.opts.workloads, w.name) {
			continue
		}
		s, err := h.measure(w, h.entries)
		if err != nil {
			return nil, err
		}
		r.Workloads = append(r.Workloads, h.summarise(w, s))
	}
	if len(r.Workloads) == 0 {
		return nil, fmt.Errorf("no workload matches %q", h.opts.workloads)
	}
	return r, nil
}
