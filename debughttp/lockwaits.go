package debughttp

import "time"

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
