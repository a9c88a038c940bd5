package main

import (
	"strings"
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	counts := histogram([]time.Duration{0, 50 * time.Microsecond, 51 * time.Microsecond, 2 * time.Millisecond, time.Second})
	want := []int{2, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1}
	for i := range want {
		if counts[i] != want[i] {
			t.Fatalf("counts = %v, want %v", counts, want)
		}
	}
}

func TestWriteHistogram(t *testing.T) {
	var b strings.Builder
	writeHistogram(&b, []int{0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0})
	want := "  <=   100µs    2 " + strings.Repeat("#", 40) + "\n" +
		"  <=   250µs    0\n" +
		"  <=   500µs    1 " + strings.Repeat("#", 20) + "\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	b.Reset()
	writeHistogram(&b, make([]int, len(bucketEnds)+1))
	if b.Len() > 0 {
		t.Errorf("an empty histogram is %q", b.String())
	}
}
