package main

import (
	"math"
	"strings"
	"testing"
)

func TestTables(t *testing.T) {
	var b strings.Builder
	r := sample()
	writeTables(&b, r)
	writeWaits(&b, r)
	writeVerdicts(&b, judge(r))
	golden(t, "tables.golden", b.String())
}

func TestTablesOfAPartialRun(t *testing.T) {
	r := sample()
	r.Workloads = r.Workloads[:1]
	r.Workloads[0].Cells = r.Workloads[0].Cells[:2]
	r.Run.Candidates = r.Run.Candidates[:2]
	r.Run.LeftOut = []string{"somebody: not to be had"}
	var b strings.Builder
	writeTables(&b, r)
	golden(t, "tables-partial.golden", b.String())
}

func TestGridPadsByCharacters(t *testing.T) {
	g := newGrid("a", "b")
	g.row("µs", "x")
	g.row("n", "yy")
	var b strings.Builder
	g.write(&b)
	want := "| a  | b  |\n|----|----|\n| µs | x  |\n| n  | yy |\n"
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func TestFormatRatioLeavesNothingBlank(t *testing.T) {
	if got := formatRatio(math.NaN()); got != "" {
		t.Errorf("no ratio is written as %q", got)
	}
	if got := formatRatio(1.005); got != "1.00" && got != "1.01" {
		t.Errorf("ratio is written as %q", got)
	}
}
