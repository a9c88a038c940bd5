package debughttp

import (
	"cmp"
	"slices"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// blamed is a place of the program that kept others waiting.
type blamed struct {
	Count                 uint64
	Key, Last, Kind       string
	Site, Function, Query string
	Stack                 *stack
}

// blamedRows adds up what the tracker counts for each call stack: a page is
// read by line.
func (s *snapshot) blamedRows() []blamed {
	type place struct {
		kind tracker.Kind
		site tracker.Frame
	}
	var all []tracker.BlameCount
	index := make(map[place]int)
	for _, n := range s.blamed { // the most frequent first: its stack is shown
		key := place{n.Kind, n.Site()}
		i, known := index[key]
		if !known {
			index[key] = len(all)
			all = append(all, n)
			continue
		}
		if all[i].Count += n.Count; n.Last.After(all[i].Last) {
			all[i].Last, all[i].Query = n.Last, n.Query
		}
	}
	slices.SortStableFunc(all, func(a, b tracker.BlameCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), b.Last.Compare(a.Last))
	})
	out := make([]blamed, 0, len(all))
	for i := range all {
		n := &all[i]
		site := n.Site()
		row := blamed{
			Count: n.Count, Key: keyOf("blamed", n.Kind, site), Last: clock(n.Last, s.now), Kind: n.Kind.String(),
			Site: site.String(), Function: site.Function, Query: n.Query,
		}
		if i < maxBlame {
			row.Stack = s.stackOf(n.Stack)
		}
		out = append(out, row)
	}
	return out
}

// blocked is an operation that found a lock taken.
type blocked struct {
	Time, Reason, Connection, File string
	Site, Function, Query          string
	Holders                        []holder
	More                           int // holders that are not shown
}

// holder is who was in the way.
type holder struct {
	What, State           string
	Write                 bool
	Site, Function, Query string
}

// holderText says what a holder holds the lock with, and since when.
func holderText(h *tracker.Holder) string {
	own := ""
	if h.Own {
		own = "its own "
	}
	switch h.Through {
	case tracker.ThroughLockingMode:
		return h.ConnectionID + " may still hold it: " + h.Through + " keeps locks when a transaction is over"
	case tracker.ThroughRaw:
		text := "left open on the raw connection of " + h.ConnectionID
		if h.Maybe {
			text = cmp.Or(own, "a ") + "raw connection may hold it: " + h.ConnectionID
		}
		if h.Age > 0 {
			text += ", taken " + boundText(h.Age, h.AgeAtLeast) + " ago"
		}
		return text
	}
	text := own + h.Kind.String() + " on " + h.ConnectionID
	if h.Through != "" {
		text += " through " + h.Through + " at " + h.AttachedAt().String()
	}
	return text + ", open for " + boundText(h.Age, h.AgeAtLeast)
}

var txStates = map[tracker.TxState]string{
	tracker.TxNone: "no transaction", tracker.TxRead: "reads", tracker.TxWrite: "writes", tracker.TxUnknown: "state unknown",
}

// blockedRows returns what was blocked, the last one first.
func (s *snapshot) blockedRows() []blocked {
	var out []blocked
	for _, e := range slices.Backward(s.events) {
		if e.Blame == nil {
			continue
		}
		site := e.Blame.Site()
		row := blocked{
			Time: clock(e.Time, s.now), Reason: string(e.Reason), Connection: e.ConnectionID, File: e.Blame.File,
			Site: site.String(), Function: site.Function, Query: e.Blame.Query,
		}
		for i, h := range e.Blame.Holders {
			if i == maxHolders {
				row.More = len(e.Blame.Holders) - i
				break
			}
			site := h.Site()
			one := holder{
				What: holderText(&h), State: txStates[h.State], Write: h.State == tracker.TxWrite,
				Site: site.String(), Function: site.Function, Query: h.Query,
			}
			if h.State == tracker.TxUnknown && h.Busy {
				one.State = "running"
			}
			if h.File != "" {
				one.State += " on " + h.File
			}
			row.Holders = append(row.Holders, one)
		}
		out = append(out, row)
	}
	return out
}
