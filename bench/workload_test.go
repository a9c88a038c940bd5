package main

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Every candidate does every workload, twice in a row.
func TestWorkloadsOnCandidates(t *testing.T) {
	h := testHarness(t)
	for _, w := range workloads() {
		for _, e := range h.entries {
			t.Run(w.name+"/"+e.name, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				j, err := h.newJob(ctx, w, e)
				if err != nil {
					t.Fatal(err)
				}
				for range 2 {
					if _, err := j.batch(3); err != nil {
						t.Error(err)
					}
				}
				if err := j.close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

func TestNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, w := range workloads() {
		if seen[w.name] {
			t.Errorf("workload %s twice", w.name)
		}
		seen[w.name] = true
	}
	for _, c := range candidates() {
		if seen[c.name] {
			t.Errorf("candidate %s twice", c.name)
		}
		seen[c.name] = true
	}
	if first := candidates()[0].name; first != rawName {
		t.Errorf("the first candidate is %s", first)
	}
}

func TestContexts(t *testing.T) {
	long, cancel := context.WithCancel(t.Context())
	defer cancel()
	next := func(k ctxKind) (a, b context.Context) {
		contexts := env{kind: k, long: long}.contexts()
		a, doneA := contexts()
		defer doneA()
		b, doneB := contexts()
		defer doneB()
		return a, b
	}
	if a, _ := next(ctxBackground); a.Done() != nil {
		t.Error("bg can be cancelled")
	}
	if a, b := next(ctxLong); a.Done() == nil || a != b {
		t.Error("ctx is not one cancellable context")
	}
	if a, b := next(ctxNew); a == b || a.Err() == nil || long.Err() != nil {
		t.Error("newctx is not a context for each operation")
	}
}

func TestKeysAreSpreadOverTheTable(t *testing.T) {
	seen := map[int64]bool{}
	for i := range keys {
		seen[key(i)] = true
	}
	if len(seen) != keys || seen[0] || !seen[1] || !seen[keys] {
		t.Errorf("%d different keys", len(seen))
	}
}

func TestCalibrate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its time is what the operations take
		const op = 100 * time.Microsecond
		j := &job{run: func(n int) error {
			time.Sleep(time.Duration(n) * op)
			return nil
		}}
		n, err := calibrate(j, 4*time.Millisecond)
		if err != nil || n != 40 {
			t.Errorf("%d operations, error %v, want 40", n, err)
		}
	})
}

var sink []byte

func TestAllocations(t *testing.T) {
	j := &job{run: func(n int) error {
		for range n {
			sink = make([]byte, 1024)
		}
		return nil
	}}
	bytes, allocs, err := j.allocations(1000)
	if err != nil || allocs < 1 || allocs > 1.1 || bytes < 1024 || bytes > 1100 {
		t.Errorf("%v bytes in %v allocations, error %v", bytes, allocs, err)
	}
}

// The candidates that the figures are about take part unless the tag says no.
func TestCandidates(t *testing.T) {
	var names []string
	for _, c := range candidates() {
		names = append(names, c.name)
	}
	want := []string{"raw", "raw2", "leakguard", "leakguard-observe", "leakguard-off", "leakguard-nostacks"}
	if len(peers) > 0 {
		want = append(want, "leakguard-otel", "otelsql", "otelsql-sdk", "nhat", "nhat-sdk", "sqlmw", "sqlhooks", "sqldb-logger", "dd-trace")
	}
	if !slices.Equal(names, want) {
		t.Errorf("candidates = %v, want %v", names, want)
	}
}
