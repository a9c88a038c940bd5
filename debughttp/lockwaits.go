package debughttp

import (
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// lockWait is a pair of who waited long for a lock and who held it.
type lockWait struct {
	Waiter, Query      string
	Holder, HolderSite string
	HolderQuery        string
	Count              uint64
	Longest, Total     string
	Last               string
}

func (s *snapshot) lockWaits() (all []lockWait) {
	for _, n := range s.stats.LockWaits {
		all = append(all, lockWait{
			Waiter: n.WaiterSite, Query: n.Query, Holder: n.Holder, HolderSite: n.HolderSite, HolderQuery: n.HolderQuery,
			Count: n.Count, Longest: ageText(secondsOf(n.Longest)), Total: ageText(secondsOf(n.Total)), Last: n.Last.Format(time.TimeOnly),
		})
	}
	return all
}

func secondsOf(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// waitLong counts the operations that have waited for a lock for so long that the
// verdict says so.
func waitLong(s *tracker.Stats) (n int) {
	for _, w := range s.LockWaiting {
		if w.For >= tracker.WaitsLong.Seconds() {
			n++
		}
	}
	return n
}
