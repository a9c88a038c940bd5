package debughttp

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// groups are suspects by site, those that do most harm first.
type groups struct {
	Total, Sites int
	Groups       []group
	More         int // sites that are not shown
}

// group is all suspects of one site.
type group struct {
	Key, Class     string
	Kind           string
	Count          int
	Site, Function string
	Harm           []harm
	Waiters        string
	Limit          string
	Age, Idle      string // of the oldest
	Since          string
	On, Where      string // what it is on: "connection", and which
	Last           string // the call of the last activity
	Trace          string
	Level          int
	Query, Exempt  string
	Next, Fix      string
	Stack          *stack
	Each           []one
	MoreEach       int
	Unfolded       bool
	Control        bool
}

// harm is one thing that a suspect does to others. Class is how much it matters.
type harm struct{ Class, Text string }

// one is one suspect of a group.
type one struct{ Connection, Age, Idle, Last string }

// groups groups suspects that are sorted by harm. The first few are unfolded.
func (s *snapshot) groups(all []tracker.Suspect, unfolded int) groups {
	type siteKey struct {
		frame              tracker.Frame
		kind               tracker.Kind
		reason             tracker.Reason
		pool, next, exempt string
	}
	index := make(map[siteKey]int)
	var members [][]*tracker.Suspect
	for i := range all {
		l := &all[i]
		k := siteKey{l.Site(), l.Kind, l.Reason, l.Pool, s.next(&l.Leak), l.Exempt}
		at, known := index[k]
		if !known {
			at = len(members)
			index[k] = at
			members = append(members, nil)
		}
		members[at] = append(members[at], l)
	}
	out := groups{Total: len(all), Sites: len(members)}
	for i, m := range members {
		if i == maxSites {
			out.More = len(members) - i
			break
		}
		g := s.group(m)
		g.Unfolded = i < unfolded
		out.Groups = append(out.Groups, g)
	}
	return out
}

// group describes the suspects of one site, the most harmful first.
func (s *snapshot) group(members []*tracker.Suspect) group {
	l := members[0]
	oldest := slices.MaxFunc(members, func(a, b *tracker.Suspect) int { return cmp.Compare(a.Age, b.Age) })
	site := l.Site()
	g := group{
		Key:  keyOf(l.Kind, l.Reason, l.Pool, site, l.Exempt),
		Kind: l.Kind.String(), Count: len(members), Class: "bad",
		Site: site.String(), Function: site.Function,
		Limit: limitText(&l.Leak), Age: boundText(oldest.Age, oldest.AgeAtLeast), Idle: ageText(oldest.Idle), Since: clock(oldest.OpenedAt, s.now),
		Level: l.Level, Query: l.Query, Exempt: l.Exempt, Next: s.next(&l.Leak), Fix: l.Cure(),
		Stack: s.stackOf(l.Stack), On: "connection", Control: s.control,
	}
	switch {
	case l.Exempt != "":
		g.Class, g.Fix = "quiet", ""
	case l.Reason == tracker.ReasonReportAfter:
		g.Class = "warn"
	}
	if l.Kind == tracker.KindPool {
		g.On, g.Idle, g.Control = "pool", "", false
	}
	g.Harm = harmOf(members)
	var on, traces, last, waiters []string
	for i, m := range members {
		on = append(on, cmp.Or(m.ConnectionID, m.Pool))
		each := one{Connection: cmp.Or(m.ConnectionID, m.Pool), Age: boundText(m.Age, m.AgeAtLeast), Idle: ageText(m.Idle)}
		if m.Trace.IsValid() {
			traces = append(traces, fmt.Sprintf("%x (span %x)", m.Trace.TraceID, m.Trace.SpanID))
		}
		if at := m.LastSite(); len(m.Last) > 0 && at != site {
			each.Last = at.String()
			last = append(last, each.Last)
		}
		for _, w := range m.Waiting {
			waiters = append(waiters, w.Site().String())
		}
		if i < maxEach {
			g.Each = append(g.Each, each)
		}
	}
	g.MoreEach = len(members) - len(g.Each)
	if len(members) == 1 {
		g.Each = nil // the card says it
	}
	g.Where, g.Trace, g.Last, g.Waiters = someOf(on, 5), someOf(traces, 3), someOf(last, 3), someOf(waiters, 3)
	return g
}

// harmOf says what suspects of one site keep others from, the worst first.
func harmOf(members []*tracker.Suspect) (all []harm) {
	waiters := make(map[string]bool)
	var starves, writes, pins bool
	for _, m := range members {
		for _, w := range m.Waiting {
			waiters[w.ConnectionID] = true
		}
		starves = starves || m.Starves
		writes = writes || m.Lock == tracker.TxWrite
		pins = pins || m.PinsWAL
	}
	if n := len(waiters); n > 0 {
		wait := " wait"
		if n == 1 {
			wait = " waits"
		}
		all = append(all, harm{"bad", many(n, "operation") + wait + " for its lock"})
	}
	if starves {
		all = append(all, harm{"bad", "takes a place of a starved pool"})
	}
	if writes {
		all = append(all, harm{"warn", "holds the write lock"})
	}
	if pins {
		all = append(all, harm{"warn", "keeps a large write-ahead log"})
	}
	return all
}

// first is where to look first, and what to do there.
type first struct{ Site, Function, Why, Fix, Then string }

// first names one line of the program: that of the suspect that does most harm, else
// that which lost most places, else that of what rests. Nil if nothing has to be done.
func (s *snapshot) first() *first {
	of := func(l *tracker.Suspect) *first {
		site := l.Site()
		f := &first{Site: site.String(), Function: site.Function, Fix: l.Cure()}
		f.Why = fmt.Sprintf("Opened there %s ago and not closed: %s", ageText(l.Age), l.Kind)
		for _, h := range harmOf([]*tracker.Suspect{l}) {
			f.Why += "; " + h.Text
		}
		return f
	}
	switch {
	case len(s.suspects) > 0:
		return of(&s.suspects[0])
	case s.stats.Lost > 0:
		g := s.lostGroups()[0]
		then := "Until that is mended, a restart gives the places back at once."
		if figures, _ := s.poolFigures(); figures[g.Pool] != nil && figures[g.Pool].Places == nil {
			then += " With leakguard.Attach(db) the pool is lent others meanwhile."
		}
		return &first{
			Site: g.Site, Function: g.Function, Fix: g.Fix,
			Why:  fmt.Sprintf("%s lost: %s, and nobody has let go since %s", many(g.Count, "place"), g.Undone, g.Since),
			Then: then,
		}
	case s.class() != "good" && len(s.resting) > 0:
		return of(&s.resting[0])
	}
	return nil
}
