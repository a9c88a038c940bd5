package main

import (
	"context"
	"io"
	"testing"
)

// BenchmarkOverhead has a benchmark for every workload and candidate:
//
//	go -C bench test -bench 'Overhead/ExecTx/ctx' -count 10 | benchstat -col /driver -
//
// The paired rounds of go run tell smaller differences apart.
func BenchmarkOverhead(b *testing.B) {
	h := testHarness(b)
	for _, w := range workloads() {
		b.Run(w.name, func(b *testing.B) {
			for _, e := range h.entries {
				b.Run("driver="+e.name, func(b *testing.B) { benchmark(b, h, w, e) })
			}
		})
	}
}

func benchmark(b *testing.B, h *harness, w workload, e *entry) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	j, err := h.newJob(ctx, w, e)
	if err != nil {
		b.Fatal(err)
	}
	defer j.close()
	b.ReportAllocs()
	err = j.bracket(func() error {
		b.ResetTimer()
		err := j.run(b.N)
		b.StopTimer()
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}

func testHarness(tb testing.TB, args ...string) *harness {
	tb.Helper()
	o, err := parseFlags(append(args, "-quick", "-dir", tb.TempDir()), io.Discard)
	if err != nil {
		tb.Fatal(err)
	}
	h, err := newHarness(o, io.Discard)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(h.close)
	return h
}
