package main

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{3, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
		{[]float64{1, 1, 1000}, 1},
	} {
		if got := median(c.values); got != c.want {
			t.Errorf("median(%v) = %v, want %v", c.values, got, c.want)
		}
	}
	if got := median(nil); !math.IsNaN(got) {
		t.Errorf("median of nothing = %v, want NaN", got)
	}
}

func TestMedianKeepsTheOrderOfItsValues(t *testing.T) {
	values := []float64{3, 1, 2}
	median(values)
	quantile(values, 0.5)
	if values[0] != 3 || values[1] != 1 || values[2] != 2 {
		t.Errorf("values are now %v: rounds are paired by their place", values)
	}
}

func TestQuantile(t *testing.T) {
	values := []float64{10, 20, 30, 40, 50, 60, 70, 80, 90, 100}
	for q, want := range map[float64]float64{0: 10, 0.1: 10, 0.5: 50, 0.9: 90, 0.91: 100, 1: 100} {
		if got := quantile(values, q); got != want {
			t.Errorf("quantile(%v) = %v, want %v", q, got, want)
		}
	}
}

func TestGeomean(t *testing.T) {
	if got := geomean([]float64{0.5, 2}); math.Abs(got-1) > 1e-12 {
		t.Errorf("half and double give %v, want 1", got)
	}
	if got := geomean([]float64{1, 10, 100}); math.Abs(got-10) > 1e-9 {
		t.Errorf("geomean = %v, want 10", got)
	}
	if got := geomean(nil); !math.IsNaN(got) {
		t.Errorf("geomean of nothing = %v, want NaN", got)
	}
}

func TestMedianIntervalOfConstantHasNoWidth(t *testing.T) {
	got := medianInterval([]float64{7, 7, 7, 7}, rand.New(rand.NewPCG(1, 0)))
	if got != (Interval{7, 7, 7}) {
		t.Errorf("interval = %v", got)
	}
}

func TestMedianIntervalIsRepeatable(t *testing.T) {
	values := []float64{5, 3, 8, 1, 9, 2}
	a := medianInterval(values, rand.New(rand.NewPCG(1, 0)))
	b := medianInterval(values, rand.New(rand.NewPCG(1, 0)))
	if a != b {
		t.Errorf("%v and %v from the same seed", a, b)
	}
}

// A 95 % interval has to hold the true median in about 95 of 100 cases, also
// with the long tail that a busy machine makes.
func TestMedianIntervalCoversTheTruth(t *testing.T) {
	rng := rand.New(rand.NewPCG(42, 0))
	const cases, truth = 400, 1.0
	covered := 0
	for range cases {
		values := make([]float64, 101)
		for i := range values {
			values[i] = truth * math.Exp(0.1*rng.NormFloat64())
			if rng.IntN(20) == 0 {
				values[i] = truth + (values[i]-truth)*50
			}
		}
		i := medianInterval(values, rng)
		if i.Low > i.Median || i.Median > i.High {
			t.Fatalf("interval out of order: %v", i)
		}
		if i.Low <= truth && truth <= i.High {
			covered++
		}
	}
	if share := float64(covered) / cases; share < 0.90 || share > 0.99 {
		t.Errorf("covered the truth in %.1f %% of the cases, want about 95 %%", 100*share)
	}
}

func TestMedianIntervalNarrowsWithMoreRounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 0))
	width := func(n int) float64 {
		values := make([]float64, n)
		for i := range values {
			values[i] = rng.NormFloat64()
		}
		i := medianInterval(values, rng)
		return i.High - i.Low
	}
	if few, many := width(20), width(2000); many > few/3 {
		t.Errorf("width %v with 20 rounds and %v with 2000", few, many)
	}
}

func TestQuotientsArePaired(t *testing.T) {
	got := quotients([]float64{2, 30}, []float64{1, 10})
	if got[0] != 2 || got[1] != 3 {
		t.Errorf("quotients = %v", got)
	}
}
