package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// writeTables prints a run as Markdown that can be read as it is.
func writeTables(w io.Writer, r *Results) {
	run := r.Run
	fmt.Fprintf(w, "%s, %s, %d procs, %s, %s, SQLite %s\n", run.Date, run.CPU, run.Procs, run.Platform, run.Go, run.SQLite)
	fmt.Fprintf(w, "%s: %d rounds of %g ms, seed %d\n\n", run.Command, run.Rounds, run.BatchMs, run.Seed)
	for _, l := range run.LeftOut {
		fmt.Fprintf(w, "Left out: %s\n\n", l)
	}
	writeLegend(w, run)

	var near, far []string
	for _, c := range run.Candidates {
		switch {
		case c.Name == rawName:
		case c.Name == noiseName || strings.HasPrefix(c.Name, guardName):
			near = append(near, c.Name)
		default:
			far = append(far, c.Name)
		}
	}
	fmt.Fprint(w, "\n### Time relative to raw: median over the rounds, 95 % confidence interval\n\n")
	writeRatios(w, r, near, formatInterval)
	if len(far) > 0 {
		fmt.Fprint(w, "\n### Time relative to raw: the peers, median over the rounds\n\n")
		writeRatios(w, r, far, func(i Interval) string { return formatRatio(i.Median) })
	}
	fmt.Fprint(w, "\n### B/op and allocs/op\n\n")
	writeAllocs(w, r)
}

func writeLegend(w io.Writer, run Run) {
	g := newGrid("candidate", "version", "what it is")
	for _, c := range run.Candidates {
		version := c.Version
		if version == "" {
			version = "this tree"
		}
		g.row(c.Name, version, c.What)
	}
	g.write(w)
}

func writeRatios(w io.Writer, r *Results, names []string, format func(Interval) string) {
	g := newGrid(append([]string{"workload", "raw ns/op (min)"}, names...)...)
	for i := range r.Workloads {
		wl := &r.Workloads[i]
		raw := wl.cell(rawName)
		line := []string{wl.Name, fmt.Sprintf("%.0f (%.0f)", raw.NsMedian, raw.NsMin)}
		for _, name := range names {
			text := ""
			if c := wl.cell(name); c != nil && c.Ratio != nil {
				text = format(*c.Ratio)
			}
			line = append(line, text)
		}
		g.row(line...)
	}
	for _, m := range []struct{ label, group string }{
		{"geomean bg", "bg"}, {"geomean ctx", "ctx"}, {"geomean", ""},
	} {
		line, any := []string{m.label, ""}, false
		for _, name := range names {
			mean, n := r.mean(m.group, name, false)
			line = append(line, formatRatio(mean))
			any = any || n > 0
		}
		if any {
			g.row(line...)
		}
	}
	g.write(w)
	for i := range r.Workloads {
		if r.Workloads[i].Extra {
			fmt.Fprintf(w, "\nOpenPingClose/ctx and ParQueryRow/ctx are not in the geometric means.\n")
			break
		}
	}
}

func writeAllocs(w io.Writer, r *Results) {
	names := []string{"workload"}
	for _, c := range r.Run.Candidates {
		names = append(names, c.Name)
	}
	g := newGrid(names...)
	for i := range r.Workloads {
		wl := &r.Workloads[i]
		line := []string{wl.Name}
		for _, name := range names[1:] {
			text := ""
			if c := wl.cell(name); c != nil {
				text = fmt.Sprintf("%.0f B / %.0f", c.BytesPerOp, c.AllocsPerOp)
			}
			line = append(line, text)
		}
		g.row(line...)
	}
	g.write(w)
}

func formatRatio(v float64) string {
	if math.IsNaN(v) {
		return ""
	}
	return fmt.Sprintf("%.2f", v)
}

func formatInterval(i Interval) string {
	return fmt.Sprintf("%.3f [%.3f-%.3f]", i.Median, i.Low, i.High)
}

// grid is a Markdown table with its columns padded.
type grid struct{ rows [][]string }

func newGrid(head ...string) *grid { return &grid{[][]string{head}} }

func (g *grid) row(cells ...string) { g.rows = append(g.rows, cells) }

func (g *grid) write(w io.Writer) {
	width := make([]int, len(g.rows[0]))
	for _, row := range g.rows {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	for n, row := range g.rows {
		for i, cell := range row {
			fmt.Fprintf(w, "| %-*s ", width[i], cell)
		}
		fmt.Fprintln(w, "|")
		if n == 0 {
			for i := range row {
				fmt.Fprintf(w, "|%s", strings.Repeat("-", width[i]+2))
			}
			fmt.Fprintln(w, "|")
		}
	}
}
