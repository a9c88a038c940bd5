package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s (go test -update rewrites it):\n%s", file, got)
	}
}

// sample is a run that nobody measured, with a candidate of each sort: every
// guard figure keeps its bound.
func sample() *Results {
	r := &Results{Run: Run{
		Date: "2030-01-02", Command: "go -C bench run .", CPU: "Example <CPU> & more", Procs: 2,
		Platform: "linux/amd64", Go: "go1.26", SQLite: "3.54.1", Rounds: 300, BatchMs: 4, Seed: 1,
		Candidates: []CandidateResult{
			{Name: rawName, What: "itself", Version: "v1.2.3"},
			{Name: noiseName, What: "noise", Version: "v1.2.3"},
			{Name: guardName, What: "guard", WrapsAll: true},
			{Name: "sqlmw", What: "wraps all", Version: "v0.1.0", WrapsAll: true},
			{Name: "sqlhooks", What: "wraps less", Version: "v0.2.0"},
		},
	}}
	around := func(m float64) *Interval { return &Interval{m, m - 0.01, m + 0.01} }
	for i, w := range workloads() {
		raw := 1000 * float64(i+1)
		guard := 0.99
		if limit := ratioLimit(w); limit > 0 {
			guard = min(guard, limit-0.01)
		}
		if w.kind.group() == "ctx" {
			guard = min(guard, 0.6)
		}
		r.Workloads = append(r.Workloads, WorkloadResult{
			Name: w.name, Context: string(w.kind), Group: w.kind.group(), Extra: w.extra, Ops: 100,
			Cells: []Cell{
				{Candidate: rawName, NsMedian: raw, NsMin: raw / 2, BytesPerOp: 100, AllocsPerOp: 10, GuardTo: around(guard)},
				{Candidate: noiseName, NsMedian: raw, NsMin: raw / 2, BytesPerOp: 100, AllocsPerOp: 10, Ratio: around(1.005), GuardTo: around(guard)},
				{Candidate: guardName, NsMedian: raw * guard, NsMin: raw / 2, BytesPerOp: 100, AllocsPerOp: 10, Ratio: around(guard)},
				{Candidate: "sqlmw", NsMedian: raw * 1.1, NsMin: raw / 2, BytesPerOp: 132, AllocsPerOp: 12, Ratio: around(1.1), GuardTo: around(guard / 1.1)},
				{Candidate: "sqlhooks", NsMedian: raw, NsMin: raw / 2, BytesPerOp: 116, AllocsPerOp: 11, Ratio: around(1), GuardTo: around(guard)},
			},
		})
	}
	r.LockWaits = []LockWait{
		{Candidate: rawName, Handovers: 40, HandoverMedianMs: 39, HandoverMaxMs: 100, UntoldMedianMs: 38, UntoldMaxMs: 99, DeadlineMs: 50, BusyTimeoutMs: 1500,
			DeadlineTries: 5, ReturnMs: 1503, ReturnMaxMs: 1504, Error: "database is locked",
			Crowd: Crowd{Waiters: 40, HeldMs: 2000, Rounds: 5, CPUMs: 28, RawCPUMs: 27, Ratio: 1.02, DrainMs: 110}},
		{Candidate: guardName, Handovers: 40, HandoverMedianMs: 0.1, HandoverMaxMs: 2, UntoldMedianMs: 1.1, UntoldMaxMs: 2, DeadlineMs: 50, BusyTimeoutMs: 1500,
			DeadlineTries: 5, ReturnMs: 53, ReturnMaxMs: 54, Error: "context deadline exceeded",
			Crowd: Crowd{Waiters: 40, HeldMs: 2000, Rounds: 5, CPUMs: 35, RawCPUMs: 28, Ratio: 1.25, DrainMs: 5}},
	}
	r.Cancels = []CancelLatency{
		{Candidate: guardName, Statement: "exec", N: 3, MedianMs: 1, P90Ms: 2, MaxMs: 2.2, Buckets: []int{1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0}},
	}
	r.Lost = []LostCancels{
		{Candidate: rawName, Statement: "exec", N: 180, Lost: 23, WorstMs: 420},
		{Candidate: guardName, Statement: "exec", N: 180, WorstMs: 2.5},
	}
	return r
}
