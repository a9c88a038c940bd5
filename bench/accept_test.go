package main

import (
	"strings"
	"testing"
)

func find(t *testing.T, verdicts []verdict, what string) verdict {
	t.Helper()
	for _, v := range verdicts {
		if v.what == what {
			return v
		}
	}
	t.Fatalf("no verdict on %q", what)
	return verdict{}
}

func TestJudgePassesWhatKeepsItsBounds(t *testing.T) {
	for _, v := range judge(sample()) {
		if v.status != pass {
			t.Errorf("%+v", v)
		}
	}
}

func TestJudgeSaysWhatWasNotMeasured(t *testing.T) {
	verdicts := judge(&Results{})
	for _, v := range verdicts {
		if v.status != missing {
			t.Errorf("%+v", v)
		}
	}
	if anyFailed(verdicts) {
		t.Error("an empty run fails")
	}
}

// Every bound has to be able to fail.
func TestJudgeFails(t *testing.T) {
	guard := func(r *Results, workload string) *Cell { return r.workload(workload).cell(guardName) }
	for what, breakIt := range map[string]func(*Results){
		"QueryRow/bg":      func(r *Results) { guard(r, "QueryRow/bg").Ratio.Median = 1.031 },
		"BeginCommit/bg":   func(r *Results) { guard(r, "BeginCommit/bg").Ratio.Median = 0.66 },
		"OpenPingClose/bg": func(r *Results) { guard(r, "OpenPingClose/bg").Ratio.Median = 1.06 },
		"StmtExecTx/ctx":   func(r *Results) { guard(r, "StmtExecTx/ctx").Ratio.Median = 0.51 },
		"geometric mean bg": func(r *Results) {
			for _, w := range r.Workloads {
				w.cell(guardName).Ratio.Median = 1.001
			}
		},
		"geometric mean ctx": func(r *Results) {
			for _, w := range r.Workloads {
				w.cell(guardName).Ratio.Median = 0.701
			}
		},
		"50 ms deadline in a lock wait returns": func(r *Results) { r.LockWaits[1].ReturnMs = 61 },
		"lock hand-over, median":                func(r *Results) { r.LockWaits[1].HandoverMedianMs = 4 },
		"lock hand-over by a stranger, median":  func(r *Results) { r.LockWaits[1].UntoldMedianMs = 4 },
		"CPU of 40 waiters":                     func(r *Results) { r.LockWaits[1].Crowd.Ratio = 2.01 },
		"allocs/op, but for opening":            func(r *Results) { guard(r, "Scan1000x2/bg").AllocsPerOp = 11 },
		"ahead of sqlmw":                        func(r *Results) { r.workload("ExecTx/bg").cell("sqlmw").GuardTo.High = 0.996 },
		"cancel() to return, p90":               func(r *Results) { r.Cancels[0].P90Ms = 2.6 },
		"cancelled statements return ctx.Err()": func(r *Results) { r.Cancels[0].WrongError = 1 },
		"lost cancels":                          func(r *Results) { r.Lost[1].Lost = 1 },
	} {
		t.Run(what, func(t *testing.T) {
			r := sample()
			breakIt(r)
			verdicts := judge(r)
			if v := find(t, verdicts, what); v.status != fail {
				t.Errorf("%+v", v)
			}
			if !anyFailed(verdicts) {
				t.Error("the run passes as a whole")
			}
		})
	}
}

func TestJudgeNamesTheWorkload(t *testing.T) {
	r := sample()
	r.workload("ExecTx/bg").cell("sqlmw").GuardTo.High = 1.2
	r.workload("Scan1000x2/bg").cell(guardName).AllocsPerOp = 12
	for what, name := range map[string]string{"ahead of sqlmw": "ExecTx/bg", "allocs/op, but for opening": "Scan1000x2/bg"} {
		if v := find(t, judge(r), what); !strings.Contains(v.measured, name) {
			t.Errorf("%+v does not name %s", v, name)
		}
	}
}

func TestJudgeLeavesOpeningOutOfAllocs(t *testing.T) {
	r := sample()
	r.workload("OpenPingClose/bg").cell(guardName).AllocsPerOp = 1000
	if v := find(t, judge(r), "allocs/op, but for opening"); v.status != pass {
		t.Errorf("%+v", v)
	}
}

// The mean of some workloads says nothing about the bound on all of them.
func TestJudgeMeanNeedsTheWholeGroup(t *testing.T) {
	r := sample()
	r.Workloads = r.Workloads[1:]
	if v := find(t, judge(r), "geometric mean bg"); v.status != missing || v.measured == "" {
		t.Errorf("%+v", v)
	}
}

func TestEveryLimitIsOfAWorkload(t *testing.T) {
	names := map[string]bool{}
	for _, w := range workloads() {
		names[w.name] = true
	}
	for name := range ratioLimits {
		if !names[name] {
			t.Errorf("no workload %q", name)
		}
	}
	if !names[gateExec] {
		t.Errorf("no workload %q", gateExec)
	}
}
