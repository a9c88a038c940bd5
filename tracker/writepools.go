package tracker

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// writePools lists the pools with what is known of their places, says who has those of
// one that starves, and which are lost.
func (r *report) writePools() {
	if len(r.pools) == 0 {
		return
	}
	figures := make(map[string]*PoolFigures, len(r.figures))
	for i := range r.figures {
		figures[r.figures[i].Pool] = &r.figures[i]
	}
	forLock := make(map[string]int)
	for _, w := range r.waiting {
		forLock[w.Pool]++
	}
	r.WriteString("\npools\n\n")
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  pool\tmode\treport_after\tleak_after\ttx_timeout\tcapacity\tin use\tlost\tlent\tidle\twaiting\twaits\twaited")
	unknown := false
	for i, p := range r.pools {
		if i == maxPoolLines && len(r.pools) > maxPoolLines+1 {
			fmt.Fprintf(tw, "  and %d more\n", len(r.pools)-i)
			break
		}
		f := figures[p.name]
		if f == nil {
			continue // opened or closed meanwhile
		}
		limits := p.Policy()
		fmt.Fprintf(tw, "  %s\t%s\t%s\t%s\t%s\t", printable(p.name), p.Mode(), limitOf(limits.ReportAfter), limitOf(limits.LeakAfter), limitOf(limits.TxTimeout))
		var waiting []string
		if n := f.Places; n != nil {
			capacity := "no limit"
			if n.Max > 0 {
				capacity = fmt.Sprint(n.Max)
			}
			if n.Starved != nil && !n.Starved.WaitersUnknown {
				waiting = append(waiting, fmt.Sprintf("%d for a place", n.Starved.Waiting))
			}
			waiting = appendWaiting(waiting, forLock[p.name])
			fmt.Fprintf(tw, "%s\t%d\t%d\t%d\t%d\t%s\t%d\t%s\n", capacity, n.InUse, n.Lost, n.Lent, n.Idle,
				noneOf(waiting), n.Waits, ageText(time.Duration(n.WaitDuration*float64(time.Second))))
			continue
		}
		unknown = true
		waiting = appendWaiting(waiting, forLock[p.name])
		fmt.Fprintf(tw, "?\t%d\t%d\t-\t%d\t%s\t?\t?\n", f.Leased, f.Lost, f.Idle, noneOf(waiting))
	}
	tw.Flush()
	if unknown {
		r.WriteString("  ? is not known: leakguard.Attach(db) tells the capacity of a pool and who waits for a place\n")
	}
	for _, n := range r.stats.Places {
		if n.Starved != nil {
			r.writeStarved(n.Starved)
		}
	}
	r.writeLostPlaces()
}

func appendWaiting(all []string, forLock int) []string {
	if forLock > 0 {
		all = append(all, fmt.Sprintf("%d for a lock", forLock))
	}
	return all
}

func noneOf(all []string) string {
	if len(all) == 0 {
		return "-"
	}
	return strings.Join(all, ", ")
}

// limitOf words a limit.
func limitOf(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	return d.String()
}

// writeLostPlaces says which places are lost, and since when.
func (r *report) writeLostPlaces() {
	if r.stats.Lost == 0 {
		return
	}
	fmt.Fprintf(r, "\n%s lost: each comes back when its holder lets go\n\n", many(r.stats.Lost, "place"))
	tw := tabwriter.NewWriter(r, 0, 0, 2, ' ', 0)
	for i, l := range r.stats.LostPlaces {
		if i == maxLostLines && r.stats.Lost > maxLostLines+1 {
			fmt.Fprintf(tw, "  and %d more\n", r.stats.Lost-i)
			break
		}
		fmt.Fprintf(tw, "  %s\tsince %s\t%s\topened at %s\n", printable(l.ConnectionID), l.Since.Format("15:04:05"), l.Undone, printable(l.Site))
	}
	tw.Flush()
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
	now := *s // nothing has moved since it was found
	now.Places = slices.Clone(s.Places)
	for i := range now.Places {
		now.Places[i].Age += r.now.Sub(s.Since) - s.For
	}
	for _, line := range now.groups() {
		fmt.Fprintf(r, "    %s\n", printable(line))
	}
	if s.More > 0 {
		fmt.Fprintf(r, "    and %d more\n", s.More)
	}
}
