package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// verdict is one acceptance bound, applied to a run.
type verdict struct {
	what     string
	limit    string
	measured string
	status   string
}

const (
	pass    = "pass"
	fail    = "FAIL"
	missing = "not measured"
)

// Bounds on the guard's ratio to raw, by workload. Background workloads that
// are not listed have bgLimit.
const bgLimit = 1.03

var ratioLimits = map[string]float64{
	"BeginCommit/bg":   0.65,
	"OpenPingClose/bg": 1.05,

	"ExecTx/ctx":      0.65,
	"StmtExecTx/ctx":  0.50,
	"Insert100/ctx":   0.66,
	"QueryRow/ctx":    0.98,
	"QueryRow/newctx": 0.98,
	"Scan1000x2/ctx":  1.06,
	"BeginCommit/ctx": 0.40,
}

// meanLimits are bounds on the geometric means.
var meanLimits = []struct {
	group string
	limit float64
}{{"bg", 1.00}, {"ctx", 0.70}}

const (
	returnLimitMs  = 60   // of a 50 ms deadline while waiting for a lock
	handoverShare  = 0.10 // of raw's median
	crowdShare     = 2.0  // of raw's CPU time
	cancelP90Ms    = 2.5  // from cancel() to return
	allocTolerance = 0.1  // per operation: what the runtime allocates by itself
)

// judge applies every bound that a run can decide.
func judge(r *Results) []verdict {
	var v []verdict
	for _, w := range workloads() {
		if limit := ratioLimit(w); limit > 0 {
			v = append(v, judgeRatio(r, w.name, limit))
		}
	}
	for _, m := range meanLimits {
		v = append(v, judgeMean(r, m.group, m.limit))
	}
	v = append(v, judgeLockWaits(r)...)
	v = append(v, judgeAllocs(r))
	for _, c := range r.Run.Candidates {
		if c.WrapsAll && !strings.HasPrefix(c.Name, guardName) {
			v = append(v, judgePeer(r, c.Name))
		}
	}
	return append(v, judgeCancels(r)...)
}

func ratioLimit(w workload) float64 {
	if limit, ok := ratioLimits[w.name]; ok {
		return limit
	}
	if w.kind == ctxBackground {
		return bgLimit
	}
	return 0
}

// guardCell returns the guard's figures, or nil if it was not measured.
func guardCell(r *Results, workload string) *Cell {
	if w := r.workload(workload); w != nil {
		if c := w.cell(guardName); c != nil && c.Ratio != nil {
			return c
		}
	}
	return nil
}

func judgeRatio(r *Results, workload string, limit float64) verdict {
	v := verdict{what: workload, limit: fmt.Sprintf("<= %.2f", limit), status: missing}
	if c := guardCell(r, workload); c != nil {
		v.measured = formatInterval(*c.Ratio)
		v.status = passIf(c.Ratio.Median <= limit)
	}
	return v
}

// judgeMean wants the whole group: the mean of a part may be anything.
func judgeMean(r *Results, group string, limit float64) verdict {
	v := verdict{what: "geometric mean " + group, limit: fmt.Sprintf("<= %.2f", limit), status: missing}
	want := 0
	for _, w := range workloads() {
		if w.kind.group() == group && !w.extra {
			want++
		}
	}
	mean, n := r.mean(group, guardName, false)
	if n == 0 {
		return v
	}
	v.measured = fmt.Sprintf("%.3f of %d workloads", mean, n)
	if all, m := r.mean(group, guardName, true); m > n {
		v.measured += fmt.Sprintf(" (%.3f of all %d)", all, m)
	}
	if n == want {
		v.status = passIf(mean <= limit)
	}
	return v
}

func judgeLockWaits(r *Results) []verdict {
	returned := verdict{what: "50 ms deadline in a lock wait returns", limit: fmt.Sprintf("<= %d ms", returnLimitMs), status: missing}
	handover := verdict{what: "lock hand-over, median", limit: fmt.Sprintf("< %.2f of raw", handoverShare), status: missing}
	untold := verdict{what: "lock hand-over by a stranger, median", limit: fmt.Sprintf("< %.2f of raw", handoverShare), status: missing}
	crowd := verdict{what: fmt.Sprintf("CPU of %d waiters", crowdSize), limit: fmt.Sprintf("<= %.1f of raw", crowdShare), status: missing}
	var raw, guard *LockWait
	for i, l := range r.LockWaits {
		switch l.Candidate {
		case rawName:
			raw = &r.LockWaits[i]
		case guardName:
			guard = &r.LockWaits[i]
		}
	}
	if guard != nil {
		returned.measured = fmt.Sprintf("%.1f ms, max %.1f ms", guard.ReturnMs, guard.ReturnMaxMs)
		returned.status = passIf(guard.ReturnMs <= returnLimitMs)
	}
	if guard != nil && raw != nil {
		handover.measured = fmt.Sprintf("%.2f ms, raw %.2f ms", guard.HandoverMedianMs, raw.HandoverMedianMs)
		handover.status = passIf(guard.HandoverMedianMs < handoverShare*raw.HandoverMedianMs)
	}
	// An earlier run may lack these.
	if guard != nil && raw != nil && raw.UntoldMedianMs > 0 {
		untold.measured = fmt.Sprintf("%.2f ms, raw %.2f ms", guard.UntoldMedianMs, raw.UntoldMedianMs)
		untold.status = passIf(guard.UntoldMedianMs < handoverShare*raw.UntoldMedianMs)
	}
	if guard != nil && guard.Crowd.Ratio > 0 {
		crowd.measured = fmt.Sprintf("%.2f: %.1f ms, raw %.1f ms", guard.Crowd.Ratio, guard.Crowd.CPUMs, guard.Crowd.RawCPUMs)
		crowd.status = passIf(guard.Crowd.Ratio <= crowdShare)
	}
	return []verdict{returned, handover, untold, crowd}
}

// judgeAllocs covers every workload but opening, where the guard has a
// connection of its own to allocate.
func judgeAllocs(r *Results) verdict {
	v := verdict{what: "allocs/op, but for opening", limit: "<= raw", status: missing}
	var more []string
	measured := 0
	for i := range r.Workloads {
		w := &r.Workloads[i]
		guard, raw := w.cell(guardName), w.cell(rawName)
		if strings.HasPrefix(w.Name, "OpenPingClose/") || guard == nil || raw == nil {
			continue
		}
		measured++
		if guard.AllocsPerOp > raw.AllocsPerOp+allocTolerance {
			more = append(more, fmt.Sprintf("%s %.1f, raw %.1f", w.Name, guard.AllocsPerOp, raw.AllocsPerOp))
		}
	}
	if measured > 0 {
		v.measured = fmt.Sprintf("%d of %d workloads", measured-len(more), measured)
		v.add(more)
	}
	return v
}

// judgePeer wants the guard ahead of the peer in every workload by more than
// raw is ahead of itself: even the high end of the interval has to be.
func judgePeer(r *Results, peer string) verdict {
	v := verdict{what: "ahead of " + peer, limit: "outside the noise", status: missing}
	var behind []string
	measured := 0
	for i := range r.Workloads {
		w := &r.Workloads[i]
		c, noise := w.cell(peer), w.cell(noiseName)
		if c == nil || c.GuardTo == nil || noise == nil || noise.Ratio == nil {
			continue
		}
		measured++
		if c.GuardTo.High >= 1-math.Abs(noise.Ratio.Median-1) {
			behind = append(behind, fmt.Sprintf("%s %s, noise %.3f", w.Name, formatInterval(*c.GuardTo), noise.Ratio.Median))
		}
	}
	if measured > 0 {
		v.measured = fmt.Sprintf("%d of %d workloads", measured-len(behind), measured)
		v.add(behind)
	}
	return v
}

func judgeCancels(r *Results) []verdict {
	latency := verdict{what: "cancel() to return, p90", limit: fmt.Sprintf("<= %.1f ms", cancelP90Ms), status: missing}
	wrong := verdict{what: "cancelled statements return ctx.Err()", limit: "all", status: missing}
	lost := verdict{what: "lost cancels", limit: "0", status: missing}
	var all, slow, other, ran []string
	cancelled := 0
	for _, c := range r.Cancels {
		if c.Candidate != guardName {
			continue
		}
		cancelled += c.N
		text := fmt.Sprintf("%s %.2f ms", c.Statement, c.P90Ms)
		all = append(all, text)
		if c.P90Ms > cancelP90Ms {
			slow = append(slow, text)
		}
		if c.WrongError > 0 {
			other = append(other, fmt.Sprintf("%s: %d of %d not", c.Statement, c.WrongError, c.N))
		}
	}
	if len(all) > 0 {
		latency.measured, latency.status = strings.Join(all, ", "), passIf(len(slow) == 0)
		wrong.measured = fmt.Sprintf("%d cancels", cancelled)
		wrong.add(other)
	}
	measured := 0
	for _, l := range r.Lost {
		if l.Candidate != guardName {
			continue
		}
		measured += l.N
		if l.Lost > 0 {
			ran = append(ran, fmt.Sprintf("%s %d of %d", l.Statement, l.Lost, l.N))
		}
	}
	if measured > 0 {
		lost.measured = fmt.Sprintf("%d cancels", measured)
		lost.add(ran)
	}
	return []verdict{latency, wrong, lost}
}

// add decides the verdict by what was found against it.
func (v *verdict) add(against []string) {
	v.status = passIf(len(against) == 0)
	if len(against) > 0 {
		v.measured = strings.TrimPrefix(v.measured+"; "+strings.Join(against, "; "), "; ")
	}
}

func passIf(ok bool) string {
	if ok {
		return pass
	}
	return fail
}

func anyFailed(verdicts []verdict) bool {
	for _, v := range verdicts {
		if v.status == fail {
			return true
		}
	}
	return false
}

func writeVerdicts(w io.Writer, verdicts []verdict) {
	count := map[string]int{}
	g := newGrid("bound on "+guardName, "limit", "measured", "status")
	for _, v := range verdicts {
		g.row(v.what, v.limit, v.measured, v.status)
		count[v.status]++
	}
	fmt.Fprint(w, "\n### Acceptance\n\n")
	g.write(w)
	fmt.Fprintf(w, "\n%d pass, %d fail, %d not measured. Medians decide; read them from a quiet machine.\n",
		count[pass], count[fail], count[missing])
}
