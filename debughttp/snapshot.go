package debughttp

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// snapshot is everything that a request is about.
type snapshot struct {
	title   string
	now     time.Time
	control bool // there is a page to act on
	stats   tracker.Stats
	records []tracker.Record // leased first, the longest lease first
	held    []tracker.Held   // the longest held first
	// suspects are the open leaks, the oldest first.
	suspects []tracker.Leak
	events   []tracker.Event       // oldest first
	leaks    []tracker.Event       // those of leaks, which reach back further
	blamed   []tracker.BlameCount  // the most frequent first
	memory   []tracker.MemoryPoint // oldest first
}

func (h *handler) snapshot() *snapshot {
	s := &snapshot{
		title:   h.title,
		now:     time.Now(),
		control: h.control != nil,
		stats:   h.tracker.Stats(),
		records: h.tracker.Records(),
		held:    h.tracker.Held(),
		events:  h.tracker.History(),
		leaks:   h.tracker.LeakHistory(),
		blamed:  h.tracker.Blamed(),
		memory:  h.tracker.MemoryHistory(),
	}
	slices.SortFunc(s.records, func(a, b tracker.Record) int {
		if a.Leased != b.Leased {
			if a.Leased {
				return -1
			}
			return 1
		}
		return cmp.Or(a.LeasedAt.Compare(b.LeasedAt), a.Opened.Compare(b.Opened), cmp.Compare(a.ConnectionID, b.ConnectionID))
	})
	s.suspects = s.openLeaks()
	return s
}

// openLeaks returns the suspects with their ages as of now, the oldest first.
// A connection whose call never came back from SQLite is one as well, and so are
// too many pools and what a lease left open on the raw connection; their suspicions
// stand in the history only.
func (s *snapshot) openLeaks() []tracker.Leak {
	var out []tracker.Leak
	records := make(map[string]*tracker.Record, len(s.records))
	for i := range s.records {
		records[s.records[i].ConnectionID] = &s.records[i]
	}
	over := make(map[uint64]bool)
	for _, e := range s.leaks {
		if e.Type == tracker.EventRecovered {
			over[e.Leak.ID] = true
		}
	}
	held := make(map[uint64]bool)
	for _, h := range s.held {
		if h.Suspect != nil {
			held[h.Suspect.ID] = true
			l := *h.Suspect
			l.Age, l.Idle = h.Age, h.Idle
			if r := records[h.ConnectionID]; r != nil && len(r.Last) > 0 {
				l.Last = r.Last
			}
			out = append(out, l)
		}
	}
	for _, e := range s.leaks {
		if e.Type != tracker.EventSuspect {
			continue
		}
		lost := e.Leak.Reason == tracker.ReasonPanic && records[e.ConnectionID] != nil
		pools := e.Leak.Kind == tracker.KindPool && !over[e.Leak.ID]
		left := e.Leak.Kind == tracker.KindConnection && e.Leak.Reason == tracker.ReasonWALLimit &&
			!over[e.Leak.ID] && !held[e.Leak.ID] && records[e.ConnectionID] != nil
		if lost || pools || left {
			l := *e.Leak
			l.Age = s.now.Sub(l.OpenedAt)
			out = append(out, l)
		}
	}
	slices.SortStableFunc(out, func(a, b tracker.Leak) int { return cmp.Compare(b.Age, a.Age) })
	return out
}

// verdict is the whole page in a few words.
func (s *snapshot) verdict() string {
	starved := 0
	for _, n := range s.stats.Places {
		if n.Starved != nil {
			starved++
		}
	}
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{starved, "starved pool"}, {s.stats.Lost, "lost place"}, {len(s.suspects), "suspect"}} {
		if part.n > 0 {
			parts = append(parts, many(part.n, part.what))
		}
	}
	if len(parts) == 0 && s.stats.Verdict == tracker.Attention {
		parts = append(parts, many(s.stats.Resting, "lease")+" at rest")
	}
	if len(parts) > 0 {
		return strings.Join(parts, ", ")
	}
	return "nothing forgotten"
}

// mode returns the mode of a connection's pool.
func (s *snapshot) mode(connection string) tracker.Mode {
	for i := range s.records {
		if s.records[i].ConnectionID == connection {
			return s.records[i].Mode
		}
	}
	return tracker.Enforce
}

func many(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case what == "rows":
		return fmt.Sprintf("%d rows", n)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ageText leaves out what nobody acts on.
func ageText(d time.Duration) string {
	switch {
	case d >= time.Minute:
		d = d.Round(time.Second)
	case d >= time.Second:
		d = d.Round(100 * time.Millisecond)
	default:
		d = d.Round(time.Millisecond)
	}
	return max(d, 0).String()
}
