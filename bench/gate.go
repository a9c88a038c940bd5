package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"time"
)

// gateExec is the one workload with a cancellable context that the gate
// checks: it shows at once whether the guard still cancels by itself.
const gateExec = "ExecTx/ctx"

// gateKnown are the workloads that cost more than the general limit as they are:
// what a pool and a connection need, once. They have limits of their own, as shares
// of the general one.
var gateKnown = map[string]float64{
	"OpenPingClose/bg": 1.15,
}

// gateLimit returns the limit for a workload, or 0 if it is not checked.
func (o options) gateLimit(w workload) float64 {
	switch {
	case w.name == gateExec:
		return o.gateCtxExec
	case w.kind == ctxBackground:
		return o.gateBG * max(1, gateKnown[w.name])
	}
	return 0
}

// gate compares the guard with raw and reports whether it is fast enough.
func (h *harness) gate(stdout io.Writer) (held bool, err error) {
	began := time.Now()
	compare := func(w workload) (Interval, error) {
		s, err := h.measure(w, h.entries)
		if err != nil {
			return Interval{}, err
		}
		c := h.summarise(w, s)
		return *c.cell(guardName).Ratio, nil
	}
	if !slices.ContainsFunc(h.entries, func(e *entry) bool { return e.name == guardName }) {
		return false, fmt.Errorf("-gate needs the candidate %s", guardName)
	}
	checked := 0
	held = true
	for _, w := range workloads() {
		limit := h.opts.gateLimit(w)
		if limit <= 0 || !selected(h.opts.workloads, w.name) {
			continue
		}
		ok, err := gateOne(w, limit, compare, stdout)
		if err != nil {
			return false, err
		}
		checked++
		held = held && ok
	}
	if checked == 0 {
		return false, fmt.Errorf("-gate: no workload is checked")
	}
	took := time.Since(began).Seconds()
	if held {
		fmt.Fprintf(stdout, "gate: passed, %d workloads in %.0fs\n", checked, took)
	} else {
		fmt.Fprintf(stdout, "gate: FAILED, %d workloads in %.0fs. Measured twice: this is hardly noise. See bench/doc.go for a profile of one workload.\n", checked, took)
	}
	return held, nil
}

// gateOne fails a workload only if even the lower end of the interval is above
// the limit, and only if it is so twice: noise on a shared machine must not
// break a build, a mistake must.
func gateOne(w workload, limit float64, compare func(workload) (Interval, error), stdout io.Writer) (held bool, err error) {
	for _, last := range []bool{false, true} {
		ratio, err := compare(w)
		if err != nil {
			return false, err
		}
		held, verdict := !tooSlow(ratio, limit), "ok"
		if !held {
			verdict = "too slow, measuring again"
			if last {
				verdict = "FAIL: the guard became slower than allowed"
			}
		}
		fmt.Fprintf(stdout, "gate: %-20s %s of raw, limit %.2f: %s\n", w.name, formatInterval(ratio), limit, verdict)
		if held || last {
			return held, nil
		}
	}
	panic("unreachable")
}

// tooSlow is true for what cannot be compared as well.
func tooSlow(ratio Interval, limit float64) bool {
	return math.IsNaN(ratio.Low) || ratio.Low > limit
}
