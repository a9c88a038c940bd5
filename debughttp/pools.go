package debughttp

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// pools is the table of them, those in trouble first.
type pools struct {
	Rows    []poolRow
	More    int
	Unknown bool // of some the capacity is not known
}

// poolRow is one pool.
type poolRow struct {
	Key, Pool, Mode         string
	Observes                bool // nothing is undone
	Limits                  string
	Settings                []tracker.Setting
	Capacity                string
	InUse, Lost, Lent, Idle int
	Waiting                 []string // who waits now
	Waits                   string   // so far, for a place
	Starved, Bad            bool
}

// starved says who has the places of a pool that starves.
type starved struct {
	Pool, For, Waiting string
	Waiters            []waiter
	Holders            []placeHolder
	More               int
}

type waiter struct {
	Count          int
	Site, Function string
	Query          string // none: a template asks
}

type placeHolder struct {
	Doing, Class   string
	Kind           string
	Age, Idle      string
	Connection     string
	Site, Function string
	Query          string // none: a template asks
	Lock, LockSite string
	InTheWay       int
	Exempt         string
}

// class says how much the verdict matters.
func (s *snapshot) class() string {
	switch {
	case s.stats.Verdict == tracker.Bad || len(s.suspects) > 0:
		return "bad"
	case s.stats.Verdict == tracker.Attention || slices.ContainsFunc(s.resting, blocks):
		return "warn"
	}
	return "good"
}

func (s *snapshot) poolRows() (out pools) {
	figures, forLock := s.poolFigures()
	for _, p := range s.pools {
		f := figures[p.Name()]
		if f == nil {
			continue // opened or closed meanwhile
		}
		limits := p.Policy()
		row := poolRow{
			Key: keyOf("pool", p.Name()), Pool: p.Name(), Mode: p.Mode().String(), Observes: p.Mode() != tracker.Enforce,
			Limits:   fmt.Sprintf("report_after %s, leak_after %s, tx_timeout %s", limitOf(limits.ReportAfter), limitOf(limits.LeakAfter), limitOf(limits.TxTimeout)),
			Capacity: "?", InUse: f.Leased, Lost: f.Lost, Idle: f.Idle,
		}
		if n := f.Places; n != nil {
			row.Capacity, row.InUse, row.Lost, row.Lent, row.Idle = "no limit", n.InUse, n.Lost, n.Lent, n.Idle
			if n.Max > 0 {
				row.Capacity = fmt.Sprint(n.Max)
			}
			if n.Starved != nil {
				row.Starved = true
				if !n.Starved.WaitersUnknown {
					row.Waiting = append(row.Waiting, fmt.Sprintf("%d for a place", n.Starved.Waiting))
				}
			}
			if n.Waits > 0 {
				row.Waits = fmt.Sprintf("so far %s for a place, %s in all", many(int(n.Waits), "wait"), ageText(time.Duration(n.WaitDuration*float64(time.Second))))
			}
		} else {
			out.Unknown = true
		}
		if n := forLock[row.Pool]; n > 0 {
			row.Waiting = append(row.Waiting, fmt.Sprintf("%d for a lock", n))
		}
		row.Bad = row.Starved || row.Lost > 0
		out.Rows = append(out.Rows, row)
	}
	slices.SortStableFunc(out.Rows, func(a, b poolRow) int {
		worse := func(r *poolRow) int {
			switch {
			case r.Starved:
				return 0
			case r.Lost > 0:
				return 1
			case len(r.Waiting) > 0:
				return 2
			}
			return 3
		}
		return cmp.Or(cmp.Compare(worse(&a), worse(&b)), cmp.Compare(b.Lost, a.Lost), cmp.Compare(b.InUse, a.InUse))
	})
	if n := len(out.Rows) - maxPools; n > 0 {
		out.Rows, out.More = out.Rows[:maxPools], n
	}
	for i := range out.Rows {
		at := slices.IndexFunc(s.pools, func(p *tracker.Pool) bool { return p.Name() == out.Rows[i].Pool })
		out.Rows[i].Settings = s.pools[at].Settings()[1:] // without the mode
	}
	return out
}

// poolFigures are the pools' by name, and how many operations wait for a lock in each.
func (s *snapshot) poolFigures() (figures map[string]*tracker.PoolFigures, forLock map[string]int) {
	figures, forLock = make(map[string]*tracker.PoolFigures, len(s.figures)), make(map[string]int)
	for i := range s.figures {
		figures[s.figures[i].Pool] = &s.figures[i]
	}
	for _, w := range s.waiting {
		forLock[w.Pool]++
	}
	return figures, forLock
}

// limitOf words a limit.
func limitOf(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	return d.String()
}

func (s *snapshot) starved() (all []starved) {
	for _, n := range s.stats.Places {
		if n.Starved != nil {
			all = append(all, s.starvedPool(n.Starved))
		}
	}
	return all
}

// starvedPool shows the ages as they are now: nothing has moved since.
func (s *snapshot) starvedPool(r *tracker.Starved) starved {
	out := starved{Pool: r.Pool, For: ageText(s.now.Sub(r.Since)), Waiting: "who waits is not known", More: r.More}
	if !r.WaitersUnknown {
		out.Waiting = many(r.Waiting, "goroutine") + " waiting for a place"
	}
	for _, w := range r.Waiters {
		f := w.Site()
		out.Waiters = append(out.Waiters, waiter{Count: w.Count, Site: f.String(), Function: f.Function})
	}
	since := s.now.Sub(r.Since) - r.For
	for _, h := range r.Places {
		f := h.Site()
		one := placeHolder{
			Doing: string(h.Doing), Kind: h.Kind.String(), Age: boundText(h.Age+since, h.AgeAtLeast), Connection: h.ConnectionID,
			Site: f.String(), Function: f.Function, Lock: h.Lock, InTheWay: h.InTheWay, Exempt: h.Exempt,
		}
		if h.Lock != "" {
			one.LockSite = h.LockSite.String()
		}
		if h.Idle > 0 {
			one.Idle = ageText(h.Idle + since)
		}
		switch {
		case h.Doing == tracker.DoingLost || h.InTheWay > 0:
			one.Class = "bad"
		case h.Doing == tracker.DoingNothing && h.Exempt == "":
			one.Class = "warn"
		}
		out.Holders = append(out.Holders, one)
	}
	return out
}
