package main

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestResultsRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not there yet")
	want := sample()
	if err := want.save(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readResults(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read back:\n%+v\nwant\n%+v", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "overhead.svg")); err != nil {
		t.Error(err)
	}
}

func TestReadResultsNamesTheFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "results.json")
	os.WriteFile(file, []byte("{"), 0o600)
	if _, err := readResults(file); err == nil {
		t.Error("no error for half a file")
	}
}

// The ratio is that of the rounds, not of the medians: a round in which the
// whole machine was slow says as much as any other.
func TestSummarisePairsTheRounds(t *testing.T) {
	h := &harness{rng: rand.New(rand.NewPCG(1, 0))}
	s := samples{
		entries: []*entry{
			{candidate: candidate{name: rawName}},
			{candidate: candidate{name: guardName}},
			{candidate: candidate{name: "peer"}},
		},
		ops:    10,
		ns:     [][]float64{{10, 100, 1000}, {11, 110, 1100}, {22, 220, 2200}},
		bytes:  []float64{1, 2, 3},
		allocs: []float64{4, 5, 6},
	}
	w := h.summarise(workloads()[0], s)
	guard, peer := w.cell(guardName), w.cell("peer")
	if w.cell(rawName).Ratio != nil {
		t.Error("raw has a ratio to itself")
	}
	if math.Abs(guard.Ratio.Median-1.1) > 1e-9 || guard.Ratio.High-guard.Ratio.Low > 1e-9 {
		t.Errorf("ratio = %+v, want 1.1 in every round", guard.Ratio)
	}
	if guard.GuardTo != nil || math.Abs(peer.GuardTo.Median-0.5) > 1e-9 {
		t.Errorf("guard to itself %v, to the peer %+v", guard.GuardTo, peer.GuardTo)
	}
	if guard.NsMedian != 110 || guard.NsMin != 11 || guard.BytesPerOp != 2 || guard.AllocsPerOp != 5 {
		t.Errorf("cell = %+v", guard)
	}
}

func TestMeanCountsExtraOnlyWhenAsked(t *testing.T) {
	r := sample()
	_, bg := r.mean("bg", guardName, false)
	_, ctx := r.mean("ctx", guardName, false)
	_, all := r.mean("ctx", guardName, true)
	if bg != 10 || ctx != 10 || all != 12 {
		t.Errorf("means of %d, %d and %d workloads, want 10, 10 and 12", bg, ctx, all)
	}
	if mean, n := r.mean("bg", "nobody", false); n != 0 || !math.IsNaN(mean) {
		t.Errorf("mean of nobody is %v of %d", mean, n)
	}
}
