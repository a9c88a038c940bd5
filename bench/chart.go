package main

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Sizes of the chart in pixels.
const (
	chartWidth  = 860
	labelWidth  = 165
	panelGap    = 40
	valueWidth  = 42 // behind the longest bar
	panelWidth  = (chartWidth - labelWidth - panelGap - 10) / 2
	rowHeight   = 22
	barHeight   = 12
	headHeight  = 66
	titleHeight = 34
)

// The style follows the reader's preference for light or dark; nothing is
// loaded. The chart brings its own background, because what shows it may know
// the page but not the preference, or the other way round.
const chartStyle = `
  .page { fill: #ffffff; }
  text { font: 12px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328; }
  .title { font-size: 15px; font-weight: 600; }
  .note, .tick { fill: #59636e; }
  .own { font-weight: 600; }
  .bar { fill: #8c959f; }
  .bar.own { fill: #1a7f37; }
  .whisker { stroke: #1a7f37; stroke-width: 2; }
  .dot { fill: #1a7f37; }
  .noise { stroke: #8c959f; stroke-width: 2; }
  .one { stroke: #cf222e; stroke-width: 1; stroke-dasharray: 3 3; }
  .grid { stroke: #d1d9e0; stroke-width: 1; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; }
    text { fill: #f0f6fc; }
    .note, .tick { fill: #9198a1; }
    .bar { fill: #656c76; }
    .bar.own { fill: #3fb950; }
    .whisker { stroke: #3fb950; }
    .dot { fill: #3fb950; }
    .noise { stroke: #656c76; }
    .one { stroke: #f85149; }
    .grid { stroke: #3d444d; }
  }
`

// panels are the two halves: each is a group of workloads.
var panels = []struct{ group, title string }{
	{"bg", "context.Background()"},
	{"ctx", "cancellable context"},
}

// chart draws a run: above, the geometric mean of every candidate; below, the
// guard by workload with its confidence interval.
func chart(r *Results) string {
	c := &canvas{}
	y := c.meansPart(r, 0)
	y = c.workloadsPart(r, y)

	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %.0f" width="%d" role="img" aria-labelledby="title desc">`+"\n",
		chartWidth, y+24, chartWidth)
	out.WriteString(`<title id="title">Overhead of sqlite-leakguard and its peers relative to raw go-sqlite3</title>` + "\n")
	fmt.Fprintf(&out, "<desc id=\"desc\">%s</desc>\n", escape(chartDescription(r)))
	fmt.Fprintf(&out, "<style>%s</style>\n", chartStyle)
	out.WriteString(`<rect class="page" width="100%" height="100%" rx="6"/>` + "\n")
	out.WriteString(c.String())
	fmt.Fprintf(&out, `<text class="note" x="10" y="%.0f">%s</text>`+"\n", y+12,
		escape(fmt.Sprintf("%s · %s · %s · SQLite %s · medians of %d paired rounds", r.Run.Date, r.Run.CPU, r.Run.Go, r.Run.SQLite, r.Run.Rounds)))
	out.WriteString("</svg>\n")
	return out.String()
}

// chartDescription is the chart in words, for who cannot see it.
func chartDescription(r *Results) string {
	var parts []string
	for _, p := range panels {
		for _, name := range charted(r) {
			if mean, n := r.mean(p.group, name, false); n > 0 {
				parts = append(parts, fmt.Sprintf("%s, %s: %.2f", p.title, name, mean))
			}
		}
	}
	return "Geometric means of the time per operation, raw is 1. " + strings.Join(parts, "; ")
}

// charted returns everybody but raw, which is the line at 1, fastest first.
func charted(r *Results) []string {
	var names []string
	for _, c := range r.Run.Candidates {
		if c.Name != rawName {
			names = append(names, c.Name)
		}
	}
	slices.SortStableFunc(names, func(a, b string) int {
		x, _ := r.mean("", a, false)
		y, _ := r.mean("", b, false)
		return cmp.Compare(x, y)
	})
	return names
}

// canvas collects the elements.
type canvas struct{ strings.Builder }

func (c *canvas) text(class, anchor string, x, y float64, s string) {
	fmt.Fprintf(c, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, anchor, x, y, escape(s))
}

func (c *canvas) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(c, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

// scale turns ratios into places within a panel.
type scale struct {
	left, width float64
	top         float64 // the ratio at the right end
}

func (s scale) x(ratio float64) float64 {
	return s.left + s.width*min(max(ratio, 0), s.top)/s.top
}

// axis draws the ticks, the line of raw and the panel's title.
func (c *canvas) axis(s scale, title string, y, bottom float64) {
	c.text("own", "start", s.left, y-24, title)
	step := 0.5
	if s.top > 4 {
		step = 1
	}
	for t := 0.0; t <= s.top+1e-9; t += step {
		if t != 1 {
			c.line("grid", s.x(t), y-4, s.x(t), bottom)
		}
		c.text("tick", "middle", s.x(t), y-8, fmt.Sprintf("%g", t))
	}
	c.line("one", s.x(1), y-4, s.x(1), bottom)
}

func panelLeft(i int) float64 { return labelWidth + float64(i)*(panelWidth+panelGap) }

// top rounds up to a tick, and leaves room for raw's line.
func top(values []float64) float64 {
	most := 1.5
	for _, v := range values {
		if !math.IsNaN(v) {
			most = max(most, v)
		}
	}
	return math.Ceil(most*2) / 2
}

func (c *canvas) meansPart(r *Results, y float64) float64 {
	names := charted(r)
	c.text("title", "start", 10, y+titleHeight-12, "Time per operation, raw go-sqlite3 = 1 (geometric mean, shorter is faster)")
	y += titleHeight + headHeight - 20
	bottom := y + rowHeight*float64(len(names))
	var all []float64
	for _, p := range panels {
		for _, name := range names {
			mean, _ := r.mean(p.group, name, false)
			all = append(all, mean)
		}
	}
	for n, name := range names {
		c.text(ownClass(name, ""), "end", labelWidth-10, y+rowHeight*float64(n)+15, name)
	}
	for i, p := range panels {
		s := scale{panelLeft(i), panelWidth - valueWidth, top(all)}
		c.axis(s, p.title, y, bottom)
		for n, name := range names {
			mean, count := r.mean(p.group, name, false)
			if count == 0 {
				continue
			}
			rowY := y + rowHeight*float64(n)
			fmt.Fprintf(c, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%d"/>`+"\n",
				ownClass(name, "bar"), s.left, rowY+(rowHeight-barHeight)/2, s.x(mean)-s.left, barHeight)
			c.text(ownClass(name, ""), "start", s.x(mean)+5, rowY+15, fmt.Sprintf("%.2f", mean))
		}
	}
	return bottom + 10
}

// ownClass sets the guard apart from the others.
func ownClass(name, class string) string {
	if strings.HasPrefix(name, guardName) {
		class += " own"
	}
	return strings.TrimSpace(class)
}

// workloadsPart shows the guard with its defaults only.
func (c *canvas) workloadsPart(r *Results, y float64) float64 {
	var all []float64
	most := 0
	byGroup := map[string][]*WorkloadResult{}
	for i := range r.Workloads {
		w := &r.Workloads[i]
		if g := w.cell(guardName); g != nil && g.Ratio != nil {
			byGroup[w.Group] = append(byGroup[w.Group], w)
			most = max(most, len(byGroup[w.Group]))
			all = append(all, g.Ratio.High)
		}
	}
	if most == 0 {
		return y
	}
	c.text("title", "start", 10, y+titleHeight-12, guardName+" by workload: median and 95 % interval; grey: raw against itself")
	y += titleHeight + headHeight - 20
	// Each panel has workloads of its own, so the labels stand in the panels.
	const label = 138
	for i, p := range panels {
		group := byGroup[p.group]
		left := 10 + float64(i)*(chartWidth-10)/2
		s := scale{left + label, (chartWidth-10)/2 - label - valueWidth - 12, top(all)}
		c.axis(s, p.title, y, y+rowHeight*float64(len(group)))
		for n, w := range group {
			rowY := y + rowHeight*float64(n) + rowHeight/2
			c.text("", "end", s.left-10, rowY+4, w.Name)
			if noise := w.cell(noiseName); noise != nil && noise.Ratio != nil {
				c.line("noise", s.x(noise.Ratio.Low), rowY+4, s.x(noise.Ratio.High), rowY+4)
			}
			ratio := w.cell(guardName).Ratio
			c.line("whisker", s.x(ratio.Low), rowY, s.x(ratio.High), rowY)
			fmt.Fprintf(c, `<circle class="dot" cx="%.1f" cy="%.1f" r="4"/>`+"\n", s.x(ratio.Median), rowY)
			c.text("own", "start", s.left+s.width+10, rowY+4, fmt.Sprintf("%.2f", ratio.Median))
		}
	}
	return y + rowHeight*float64(most) + 10
}

func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s))
	return b.String()
}
