package debughttp

import (
	"fmt"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// places are those of a pool whose sql.DB is attached.
type places struct {
	Pool                    string
	Max                     string // "none" without a limit
	InUse, Lost, Lent, Idle int
	Waits                   int64
	Waited                  string
	Starved                 *starved
}

// starved says who has the places of a pool that starves.
type starved struct {
	For, Waiting string
	Waiters      []waiter
	Holders      []placeHolder
	More         int
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
	case s.stats.Verdict == tracker.Attention:
		return "warn"
	}
	return "good"
}

func (s *snapshot) places() (all []places) {
	for _, n := range s.stats.Places {
		one := places{
			Pool: n.Pool, Max: "none", InUse: n.InUse, Lost: n.Lost, Lent: n.Lent, Idle: n.Idle, Waits: n.Waits,
			Waited: ageText(time.Duration(n.WaitDuration * float64(time.Second))),
		}
		if n.Max > 0 {
			one.Max = fmt.Sprint(n.Max)
		}
		if n.Starved != nil {
			one.Starved = s.starved(n.Starved)
		}
		all = append(all, one)
	}
	return all
}

// starved shows the ages as they are now: nothing has moved since.
func (s *snapshot) starved(r *tracker.Starved) *starved {
	out := &starved{For: ageText(s.now.Sub(r.Since)), Waiting: "who waits is not known", More: r.More}
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
			Doing: string(h.Doing), Kind: h.Kind.String(), Age: ageText(h.Age + since), Connection: h.ConnectionID,
			Site: f.String(), Function: f.Function, Lock: h.Lock, InTheWay: h.InTheWay, Exempt: h.Exempt,
		}
		if h.Lock != "" {
			one.LockSite = h.LockSite.String()
		}
		if h.Idle > 0 {
			one.Idle = ageText(h.Idle + since)
		}
		if h.Doing == tracker.DoingLost || h.InTheWay > 0 {
			one.Class = "bad"
		}
		out.Holders = append(out.Holders, one)
	}
	return out
}
