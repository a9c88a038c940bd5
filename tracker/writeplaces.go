package tracker

import (
	"fmt"
	"text/tabwriter"
	"time"
)

// writePlaces lists the pools whose places are known, and says who has those of a pool
// that starves.
func (r *report) writePlaces() {
	if len(r.stats.Places) == 0 {
		return
	}
	r.WriteString("\nplaces\n\n")
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  pool\tlimit\tin use\tlost\tlent\tidle\twaits\twaited")
	for _, n := range r.stats.Places {
		limit := "none"
		if n.Max > 0 {
			limit = fmt.Sprint(n.Max)
		}
		fmt.Fprintf(tw, "  %s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", printable(n.Pool), limit, n.InUse, n.Lost, n.Lent, n.Idle,
			n.Waits, ageText(time.Duration(n.WaitDuration*float64(time.Second))))
	}
	tw.Flush()
	for _, n := range r.stats.Places {
		if n.Starved != nil {
			r.writeStarved(n.Starved)
		}
	}
}

func (r *report) writeStarved(s *Starved) {
	waiting := "who waits is not known"
	if !s.WaitersUnknown {
		waiting = many(s.Waiting, "goroutine") + " waiting"
		if text := s.waitersText(5); text != "" {
			waiting += ": " + text
		}
	}
	fmt.Fprintf(r, "\n  pool %s starves: nobody got a place for %s, %s\n", printable(s.Pool), ageText(r.now.Sub(s.Since)), printable(waiting))
	for _, line := range s.groups() {
		fmt.Fprintf(r, "    %s\n", printable(line))
	}
	if s.More > 0 {
		fmt.Fprintf(r, "    and %d more\n", s.More)
	}
}
