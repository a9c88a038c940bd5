package tracker

import (
	"cmp"
	"slices"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// A program that opens a pool for each request and closes none leaks slowly:
// each pool is legitimate by itself. They are counted for each database file.

// countPools returns the news about the pools of one file, after one was opened
// or closed. Tracker.mu is held.
func (t *Tracker) countPoolsLocked(p *Pool) (e Event, news bool) {
	if p.path == "" {
		return Event{}, false
	}
	var same []*Pool
	for _, o := range t.pools {
		if o.path == p.path && !o.closed {
			same = append(same, o)
		}
	}
	limit := p.policy.Load().MaxPools
	over := limit > 0 && int64(len(same)) >= limit
	known := t.tooMany[p.path]
	switch {
	case over && known == nil:
		l := t.poolLeak(same)
		if t.tooMany == nil {
			t.tooMany = make(map[string]*Leak)
		}
		t.tooMany[p.path] = l
		return Event{Type: EventSuspect, Reason: l.Reason, Leak: l, pool: t.pools[l.Pool], news: true}, true
	case !over && known != nil:
		delete(t.tooMany, p.path)
		if found := t.pools[known.Pool]; found != nil {
			p = found // one pool counts both
		}
		return Event{Type: EventRecovered, Reason: known.Reason, Leak: known, pool: p}, true
	}
	return Event{}, false
}

// poolLeak describes the pools by the place that opened most of them.
func (t *Tracker) poolLeak(same []*Pool) *Leak {
	count := make(map[*callstack.Stack]int)
	for _, p := range same {
		count[p.stack]++
	}
	most := slices.MaxFunc(same, func(a, b *Pool) int {
		return cmp.Or(cmp.Compare(count[a.stack], count[b.stack]), cmp.Compare(b.opened, a.opened))
	})
	return &Leak{
		ID:       t.leakID.Add(1),
		Kind:     KindPool,
		Reason:   ReasonMaxPools,
		Pool:     most.name,
		OpenedAt: t.clock.at(most.opened),
		Age:      t.now() - most.opened,
		Count:    int64(len(same)),
		Stack:    most.stack.PCs(),
		Kept:     "a pool may be in use: close it in the program",
		fate:     new(fate),
	}
}

// tellPools counts and emits what countPoolsLocked found, outside the lock.
func (t *Tracker) tellPools(e Event) {
	p := e.pool
	switch e.Type {
	case EventSuspect:
		p.count(func(n *counters) { n.leaked.Add(1) })
	case EventRecovered:
		if e.Leak.fate.sealed.Swap(true) {
			return
		}
		p.count(func(n *counters) { n.recovered.Add(1) })
	}
	p.tally.leak(e.Type, e.Leak, e.news)
	t.emit(e)
}
