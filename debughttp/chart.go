package debughttp

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The drawing area of a chart, in the units of its viewBox.
const (
	chartWidth  = 540 // half a page's, or a phone's whole, where the texts are larger
	chartHeight = 130
	chartLeft   = 40 // room for the scale
	chartRight  = 8
	chartTop    = 10
	chartBottom = 20 // room for the times
)

// chart is a drawing of some figures over time.
type chart struct {
	Title  string
	Series []series
	Grid   []gridLine
	// From and To name the ends of the time axis; From is empty while there is
	// one sample only.
	From, To                   string
	Width, Height              float64
	Left, Right, TextX, TextY2 float64
}

// series is one line of a chart. Class is its colour in the style sheet.
type series struct {
	Name, Class string
	Now         string // the last figure
	Line, Area  string // SVG paths; Area is empty if the line stands for itself
	X, Y        float64
}

type gridLine struct {
	Y, TextY float64
	Label    string
}

// figure is what a series shows of each sample.
type figure struct {
	name, class string
	of          func(*point) float64
	area        bool
}

// newChart draws figures of at least one point in time.
func newChart(title, unit string, now time.Time, samples []point, figures ...figure) chart {
	most := 0.0
	for i := range samples {
		for _, f := range figures {
			most = max(most, f.of(&samples[i]))
		}
	}
	most = niceAbove(most)
	first, last := samples[0].Time, samples[len(samples)-1].Time
	span := last.Sub(first)
	x := func(t time.Time) float64 {
		if span <= 0 {
			return chartWidth - chartRight
		}
		return chartLeft + (chartWidth-chartLeft-chartRight)*float64(t.Sub(first))/float64(span)
	}
	y := func(v float64) float64 {
		return chartHeight - chartBottom - (chartHeight-chartTop-chartBottom)*v/most
	}
	c := chart{
		Title: title, Width: chartWidth, Height: chartHeight, To: "now",
		Left: chartLeft, Right: chartWidth - chartRight, TextX: chartLeft - 6, TextY2: chartHeight - 5,
	}
	if span > 0 {
		c.From = "−" + ageText(now.Sub(first).Round(time.Second))
	}
	if ago := now.Sub(last).Round(time.Second); ago > 0 {
		c.To = "−" + ageText(ago)
	}
	for _, v := range []float64{most, most / 2, 0} {
		c.Grid = append(c.Grid, gridLine{Y: y(v), TextY: y(v) + 4, Label: number(v)})
	}
	for _, f := range figures {
		s := series{Name: f.name, Class: f.class}
		var line strings.Builder
		for i := range samples {
			s.X, s.Y = x(samples[i].Time), y(f.of(&samples[i]))
			step := "L"
			if i == 0 {
				step = "M"
			}
			fmt.Fprintf(&line, "%s%.1f %.1f", step, s.X, s.Y)
		}
		s.Now = number(f.of(&samples[len(samples)-1])) + unit
		s.Line = line.String()
		if f.area && span > 0 {
			s.Area = fmt.Sprintf("%sL%.1f %.1fL%.1f %.1fZ", s.Line, x(last), y(0), x(first), y(0))
		}
		c.Series = append(c.Series, s)
	}
	return c
}

// niceAbove returns the smallest of 2, 4, 10, 20, 40, 100, … that a figure
// stays within, so that half of it is a whole number.
func niceAbove(v float64) float64 {
	for scale := 1.0; scale < 1e15; scale *= 10 {
		for _, n := range []float64{2, 4, 10} {
			if v <= n*scale {
				return n * scale
			}
		}
	}
	return math.Max(v, 1)
}

// number writes a figure without digits that say nothing.
func number(v float64) string {
	if v >= 100 || v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// charts draws what there are figures of; one moment alone is no drawing.
func (s *snapshot) charts() []chart {
	points := s.points()
	past := points[:len(points)-1] // the memory of now is not known
	known := func(of func(*point) float64) bool {
		return len(past) > 1 && slices.ContainsFunc(past, func(p point) bool { return of(&p) > 0 })
	}
	process := func(p *point) float64 { return float64(p.ProcessRSS) / (1 << 20) }
	system := func(p *point) float64 { return p.SystemPercent }
	sqlite := func(p *point) float64 { return float64(p.SQLite) / (1 << 20) }
	connections := func(p *point) float64 { return float64(p.Connections) / (1 << 20) }

	type plan struct {
		title, unit string
		points      []point
		figures     []figure
	}
	var plans []plan
	if len(points) > 1 {
		plans = append(plans, plan{"Connections", "", points, []figure{
			{"open", "c-open", func(p *point) float64 { return float64(p.Open) }, false},
			{"leased", "c-leased", func(p *point) float64 { return float64(p.Leased) }, true},
			{"suspects", "c-suspects", func(p *point) float64 { return float64(p.Suspects) }, false},
		}})
	}
	if known(sqlite) || known(connections) {
		figures := []figure{{"connections", "c-leased", connections, true}}
		if known(sqlite) {
			figures = append(figures, figure{"all", "c-open", sqlite, false})
		}
		plans = append(plans, plan{"Memory of SQLite", " MiB", past, figures})
	}
	if known(process) {
		plans = append(plans, plan{"Memory of this process", " MiB", past, []figure{{"resident", "c-leased", process, true}}})
	}
	if known(system) {
		title := "Memory of the system"
		if s.stats.MemoryMonitoring.LimitedBy == "cgroup" {
			title = "Memory of the container"
		}
		plans = append(plans, plan{title, " %", past, []figure{{"used", "c-open", system, true}}})
	}
	out := make([]chart, 0, len(plans))
	for _, p := range plans {
		out = append(out, newChart(p.title, p.unit, s.now, p.points, p.figures...))
	}
	return out
}
