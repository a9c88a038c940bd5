package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Interval is a median with its 95 % confidence interval.
type Interval struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// resamples of the bootstrap. Its own error is far below the interval's width.
const resamples = 1000

// median returns NaN for no values.
func median(values []float64) float64 {
	return medianSorted(slices.Sorted(slices.Values(values)))
}

func medianSorted(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return math.NaN()
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// quantile returns the smallest value that at least a share q is not above.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return math.NaN()
	}
	i := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(i, 0), len(sorted)-1)]
}

// medianInterval bootstraps the median: the medians of as many samples, drawn
// with replacement, show how far it could have come out differently. It assumes
// nothing of the distribution, which has a long tail wherever others use the
// machine too.
func medianInterval(values []float64, rng *rand.Rand) Interval {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	if n == 0 {
		return Interval{math.NaN(), math.NaN(), math.NaN()}
	}
	// A sample of a sorted list is sorted by counting how often each place was
	// drawn.
	drawn := make([]int, n)
	medians := make([]float64, resamples)
	for r := range medians {
		clear(drawn)
		for range n {
			drawn[rng.IntN(n)]++
		}
		medians[r] = (nth(sorted, drawn, (n-1)/2) + nth(sorted, drawn, n/2)) / 2
	}
	return Interval{medianSorted(sorted), quantile(medians, 0.025), quantile(medians, 0.975)}
}

// nth returns the value at place k of the sample that drawn describes.
func nth(sorted []float64, drawn []int, k int) float64 {
	for i, times := range drawn {
		if k -= times; k < 0 {
			return sorted[i]
		}
	}
	panic("bench: place outside of the sample")
}

// geomean returns NaN for no values. It is the mean for ratios: half and double
// cancel out.
func geomean(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sum := 0.0
	for _, v := range values {
		sum += math.Log(v)
	}
	return math.Exp(sum / float64(len(values)))
}

// quotients divides place by place.
func quotients(a, b []float64) []float64 {
	q := make([]float64, len(a))
	for i := range a {
		q[i] = a[i] / b[i]
	}
	return q
}
