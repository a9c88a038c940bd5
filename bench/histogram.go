package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// bucketEnds are the upper ends of the buckets of a latency histogram; one more
// takes the rest. 2.5 ms is the bound for the guard, 100 ms is lost.
var bucketEnds = []time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 100 * time.Millisecond,
}

func histogram(latencies []time.Duration) []int {
	counts := make([]int, len(bucketEnds)+1)
	for _, d := range latencies {
		i := 0
		for i < len(bucketEnds) && d > bucketEnds[i] {
			i++
		}
		counts[i]++
	}
	return counts
}

// writeHistogram leaves the empty buckets at both ends out.
func writeHistogram(w io.Writer, counts []int) {
	first, last, most := -1, -1, 0
	for i, n := range counts {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last, most = i, max(most, n)
		}
	}
	if first < 0 {
		return
	}
	const width = 40
	for i := first; i <= last; i++ {
		label := "      more"
		if i < len(bucketEnds) {
			label = fmt.Sprintf("<= %7v", bucketEnds[i])
		}
		bar := strings.Repeat("#", (counts[i]*width+most-1)/most)
		fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("  %s %4d %s", label, counts[i], bar), " "))
	}
}
