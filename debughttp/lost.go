package debughttp

import (
	"cmp"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// lost is the places that one line of the program lost: what its leases held was undone,
// and their holders have not let go.
type lost struct {
	Pool, Site, Function string
	Count                int
	Undone, Since, For   string // of the longest lost
	Where, Fix           string
}

// lostGroups returns them, those of the most places first.
func (s *snapshot) lostGroups() (out []lost) {
	type key struct {
		pool string
		site tracker.Frame
		kind tracker.Kind
	}
	since, on := make(map[int]time.Time), make(map[int][]string)
	index := make(map[key]int)
	for i := range s.records {
		r := &s.records[i]
		if !r.Lost {
			continue
		}
		site := r.Stack.Site()
		k := key{r.Pool, site, r.Undone}
		at, known := index[k]
		if !known {
			at = len(out)
			index[k] = at
			out = append(out, lost{Pool: r.Pool, Site: site.String(), Function: site.Function, Undone: undoneText(r.Undone), Fix: tracker.Leak{Kind: r.Undone}.Cure()})
		}
		if out[at].Count++; !known || r.LostSince.Before(since[at]) {
			since[at] = r.LostSince
		}
		on[at] = append(on[at], r.ConnectionID)
	}
	for i := range out {
		out[i].Since, out[i].For, out[i].Where = clock(since[i], s.now), ageText(s.now.Sub(since[i])), someOf(on[i], 5)
	}
	slices.SortStableFunc(out, func(a, b lost) int { return cmp.Compare(b.Count, a.Count) })
	return out[:min(len(out), maxSites)]
}

func undoneText(k tracker.Kind) string {
	switch k {
	case tracker.KindTransaction:
		return "the transaction was rolled back"
	case tracker.KindRows:
		return "the rows were closed"
	}
	return "the connection was closed"
}
