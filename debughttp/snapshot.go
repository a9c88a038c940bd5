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
	// suspects are the open leaks, those that do most harm first, exempt those of them
	// that are, and resting is what is no leak yet.
	suspects, exempt, resting []tracker.Suspect
	pools                     []*tracker.Pool
	figures                   []tracker.PoolFigures
	waiting                   []tracker.LockWaiter
	events                    []tracker.Event       // oldest first
	leaks                     []tracker.Event       // those of leaks, which reach back further
	blamed                    []tracker.BlameCount  // the most frequent first
	memory                    []tracker.MemoryPoint // oldest first
	frames                    int                   // how many calls of stacks the page has by now
}

func (h *handler) snapshot() *snapshot {
	s := &snapshot{
		title:   h.title,
		now:     time.Now(),
		control: h.control != nil,
		stats:   h.tracker.Stats(),
		pools:   h.tracker.Pools(),
		figures: h.tracker.Figures().Pools,
		waiting: h.tracker.Waiting(),
		resting: h.tracker.Resting(),
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
	for _, l := range h.tracker.Suspects() {
		if l.Exempt == "" {
			s.suspects = append(s.suspects, l)
		} else {
			s.exempt = append(s.exempt, l)
		}
	}
	return s
}

// verdict is the whole page in a few words.
func (s *snapshot) verdict() string {
	starved := 0
	for _, n := range s.stats.Places {
		if n.Starved != nil {
			starved++
		}
	}
	blocked := make(map[string]bool)
	for _, l := range slices.Concat(s.suspects, s.resting) {
		for _, w := range l.Waiting {
			blocked[w.ConnectionID] = true
		}
	}
	for _, w := range s.stats.LockWaiting { // behind whoever it is
		if w.For >= tracker.WaitsLong.Seconds() {
			blocked[w.ConnectionID] = true
		}
	}
	var parts []string
	for _, part := range []struct {
		n    int
		what string
	}{{starved, "starved pool"}, {len(blocked), "blocked operation"}, {s.stats.Lost, "lost place"}, {len(s.suspects), "suspect"}} {
		if part.n > 0 {
			parts = append(parts, many(part.n, part.what))
		}
	}
	if s.class() == "warn" && len(s.resting) > 0 {
		parts = append(parts, many(len(s.resting), "lease")+" at rest")
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

func blocks(s tracker.Suspect) bool { return s.Blocks() }

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

// boundText is ageText, and says so of an age of which only a bound is known.
func boundText(d time.Duration, atLeast bool) string {
	if atLeast {
		return "≥ " + ageText(d)
	}
	return ageText(d)
}
