package tracker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func (r *report) writeSuspects() {
	switch {
	case len(r.suspects) > 0:
		r.writeGroups(many(len(r.suspects), "open suspect"), r.suspects)
	case r.stats.LeakedDetected == 0 && len(r.settled) == 0:
		r.WriteString("\nno leaks\n")
	default:
		r.WriteString("\nno open suspects\n")
	}
}

// groupedByHarm returns the suspects by site, the group that does most harm first and in
// each the most harmful one.
func groupedByHarm(all []Suspect) (groups [][]Suspect) {
	type key struct {
		siteKey
		exempt string
	}
	index := make(map[key]int)
	for _, s := range all {
		k := key{siteOf(&s.Leak), s.Exempt}
		at, known := index[k]
		if !known {
			at = len(groups)
			index[k] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], s)
	}
	return groups
}

// writeGroups writes suspects by site below a heading, nothing if there are none.
func (r *report) writeGroups(heading string, all []Suspect) {
	if len(all) == 0 {
		return
	}
	groups := groupedByHarm(all)
	fmt.Fprintf(r, "\n%s, at %s\n", heading, many(len(groups), "site"))
	for i, g := range groups {
		if i == maxGroups && len(groups) > maxGroups+1 {
			fmt.Fprintf(r, "\n  and %d more sites\n", len(groups)-i)
			return
		}
		r.writeGroup(g)
	}
}

func (r *report) writeGroup(g []Suspect) {
	s := &g[0]
	fmt.Fprintf(r, "\n  %d x %s at %s: %s\n", len(g), s.Kind, printable(s.Stack.at()), limitText(&s.Leak))
	if s.Kind == KindPool {
		r.detail("pool", s.Pool)
	} else {
		r.detail("connection", connectionsOf(g))
	}
	r.detail("harm", harmText(g))
	oldest := slices.MaxFunc(g, func(a, b Suspect) int { return cmp.Compare(a.Age, b.Age) })
	label := "age"
	if len(g) > 1 {
		label = "oldest"
	}
	r.detail(label, ages(&oldest.Leak))
	if s.Level > 1 {
		r.detail("level", fmt.Sprint(s.Level))
	}
	r.detail("query", shorten(s.Query, 100))
	if s.Exempt != "" {
		r.detail("exempt", s.Exempt)
	}
	r.detail("kept", s.Kept)
	r.detail("follows", s.outcome())
	r.detail("to mend it", s.Cure())
	for i, f := range userFrames(s.Stack) {
		if label = ""; i == 0 {
			label = "stack"
		}
		fmt.Fprintf(r, "      %-10s  %s  %s\n", label, printable(f.String()), printable(f.Function))
	}
}

// harmText says what a group keeps others from, the worst first.
func harmText(g []Suspect) string {
	var all []string
	some := func(is func(*Suspect) bool, text string) {
		if slices.ContainsFunc(g, func(s Suspect) bool { return is(&s) }) {
			all = append(all, text)
		}
	}
	sites := make(map[string]int)
	seen := make(map[string]bool)
	for i := range g {
		for _, w := range g[i].Waiting {
			if !seen[w.ConnectionID] {
				seen[w.ConnectionID] = true
				sites[w.Site().String()]++
			}
		}
	}
	if len(seen) > 0 {
		wait := "waits"
		if len(seen) > 1 {
			wait = "wait"
		}
		all = append(all, fmt.Sprintf("%s %s for its lock, at %s", many(len(seen), "operation"), wait, sitesText(sites)))
	}
	some(func(s *Suspect) bool { return s.Starves }, "takes a place of a starved pool")
	some(func(s *Suspect) bool { return s.Lock == TxWrite }, "holds the write lock")
	some(func(s *Suspect) bool { return s.PinsWAL }, "keeps a large write-ahead log from being reset")
	return strings.Join(all, "; ")
}

// connectionsOf names the connections of a group, the first few of many.
func connectionsOf(g []Suspect) string {
	var ids []string
	for i := range g {
		if !slices.Contains(ids, g[i].ConnectionID) {
			ids = append(ids, g[i].ConnectionID)
		}
	}
	if n := len(ids) - 5; n > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(ids[:5], ", "), n)
	}
	return strings.Join(ids, ", ")
}

// ages says how old a suspect is. Some may be in use: how long they idle is not said.
func ages(l *Leak) string {
	switch l.Reason {
	case ReasonMaxStatements, ReasonMaxPools, ReasonTxTimeout, ReasonTxLimit, ReasonWALLimit, ReasonLeakMemory, ReasonPanic:
		return AgeText(l.Age, l.AgeAtLeast)
	}
	return fmt.Sprintf("%s, idle for %s", AgeText(l.Age, l.AgeAtLeast), ageText(l.Idle))
}
