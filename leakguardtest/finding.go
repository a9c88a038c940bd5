package leakguardtest

import (
	"cmp"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// key names a resource in its tracker.
type key struct {
	connection string
	resource   uint64
}

// finding is one leak.
type finding struct {
	key
	fate    fate
	kind    tracker.Kind
	pool    string
	age     time.Duration
	atLeast bool // is it that old
	query   string
	exempt  string
	stack   tracker.Stack
	// stray is one that no test can be charged with by its stack.
	stray bool
	// leak is what the guard said of it, nil if nothing.
	leak *tracker.Leak
}

// fate is what became of a leak so far.
type fate int

const (
	open   fate = iota
	proven      // by garbage collection
	undone      // by the guard
)

type findings []finding

// mayEnd reports whether some of it may still be closed by the program.
func (f findings) mayEnd() bool {
	return slices.ContainsFunc(f, func(one finding) bool { return one.fate == open })
}

// current is what a tracker knew at one moment.
type current map[key]struct{}

func currentOf(t *tracker.Tracker) current {
	c := make(current)
	for _, h := range t.Held() {
		c[key{h.ConnectionID, h.Resource}] = struct{}{}
	}
	for _, f := range over(t) {
		c[f.key] = struct{}{}
	}
	return c
}

// look returns what is leaked at this moment, the oldest first.
func (o *options) look() findings {
	// In this order, what is undone in between shows up once at least.
	held := o.tracker.Held()
	ended := over(o.tracker)

	isOver := make(map[key]bool)
	newest := make(map[string]uint64) // rows and transactions by connection
	for _, f := range ended {
		isOver[f.key] = true
		if f.kind != tracker.KindStatement {
			newest[f.connection] = max(newest[f.connection], f.resource)
		}
	}
	for _, h := range held {
		if h.Kind == tracker.KindRows || h.Kind == tracker.KindTransaction {
			newest[h.ConnectionID] = max(newest[h.ConnectionID], h.Resource)
		}
	}
	var out findings
	for _, h := range held {
		f := finding{
			key:  key{h.ConnectionID, h.Resource},
			kind: h.Kind,
			pool: h.Pool,
			age:  h.Age, atLeast: h.AgeAtLeast,
			query:  h.Query,
			exempt: h.Exempt,
			stack:  h.Stack,
			leak:   h.Suspect,
		}
		// Ids grow: what is newer than the lease was opened in it.
		within := f.kind == tracker.KindConnection && newest[f.connection] > f.resource
		if !within && !isOver[f.key] && !o.ignores(&f) {
			out = append(out, f)
		}
	}
	told := toldOf(o.tracker)
	for _, f := range ended {
		if !o.ignores(&f) && !told.has(f.key) {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b finding) int { return cmp.Compare(b.age, a.age) })
	return out
}

// over returns the leaks that were proven or undone, as far as the tracker
// remembers.
func over(t *tracker.Tracker) findings {
	var out findings
	index := make(map[key]int)
	for _, e := range t.LeakHistory() {
		var became fate
		switch e.Type {
		case tracker.EventProven:
			became = proven
		case tracker.EventReaped:
			became = undone
		default:
			continue
		}
		l := e.Leak
		k := key{e.ConnectionID, l.Resource}
		if _, known := index[k]; known {
			continue // a proof says more than that it was carried out
		}
		index[k] = len(out)
		out = append(out, finding{
			key:  k,
			fate: became,
			kind: l.Kind,
			pool: l.Pool,
			age:  l.Age, atLeast: l.AgeAtLeast,
			query:  l.Query,
			exempt: l.Exempt,
			stack:  l.Stack,
			leak:   l,
		})
	}
	return out
}

// ignores reports whether a leak is to be left out; if not, it is found out whether the
// test is to blame for certain.
func (o *options) ignores(f *finding) bool {
	_, known := o.known[o.tracker][f.key]
	if known || o.exempt && f.exempt != "" || o.ignoresPool(f.pool) {
		return true
	}
	v := o.test.of(f.stack)
	f.stray = v == unknown
	return v == other
}

// charged leaves out what no test can be charged with while others are running: it may
// be theirs, and the last of them is told.
func (f findings) charged() findings {
	stray := func(one finding) bool { return one.stray }
	if slices.ContainsFunc(f, stray) && othersRun() {
		return slices.DeleteFunc(f, stray)
	}
	return f
}
