package tracker

import (
	"cmp"
	"slices"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// A program that opens a pool for each request and closes none leaks slowly:
// each pool is legitimate by itself. They are counted for each database file, and
// for each line that opens them (poolplace.go).

// crowd is what was told of a file with too many pools.
type crowd struct {
	leak *Leak
	pool *Pool // that is named
}

// countPoolsLocked looks at the pools of one file, after one was opened or
// closed, and tells what is news. The lowest of their limits counts. Tracker.mu
// is held: the news come in order.
func (t *Tracker) countPoolsLocked(p *Pool) {
	if p.path == "" {
		return
	}
	if l := p.policy.Load().MaxPools; l > 0 && (t.fewest == 0 || l < t.fewest) {
		t.fewest = l
	}
	if len(t.tooMany) == 0 && (t.fewest == 0 || int64(len(t.pools)) < t.fewest) {
		return // nobody's limit can be reached: opening a pool looks at no other
	}
	var n, limit int64
	for _, o := range t.pools {
		if o.path != p.path || o.closed {
			continue
		}
		n++
		if l := o.policy.Load().MaxPools; l > 0 && (limit == 0 || l < limit) {
			limit = l
		}
	}
	over := limit > 0 && n >= limit
	known, told := t.tooMany[p.path]
	switch {
	case over && !told:
		l, most := t.poolLeak(p.path)
		if t.tooMany == nil {
			t.tooMany = make(map[string]crowd)
		}
		t.tooMany[p.path] = crowd{l, most}
		most.tell(EventSuspect, l)
	case !over && told:
		delete(t.tooMany, p.path)
		known.pool.tell(EventRecovered, known.leak)
	}
}

// poolLeak describes the open pools of a file by the place that opened most of
// them.
func (t *Tracker) poolLeak(path string) (l *Leak, most *Pool) {
	var same []*Pool
	count := make(map[*callstack.Stack]int)
	for _, p := range t.pools {
		if p.path == path && !p.closed {
			same = append(same, p)
			count[p.stack]++
		}
	}
	most = slices.MaxFunc(same, func(a, b *Pool) int {
		return cmp.Or(cmp.Compare(count[a.stack], count[b.stack]), cmp.Compare(b.opened, a.opened))
	})
	return t.leakOfPools(most, int64(len(same))), most
}

// leakOfPools describes so many pools by one of them.
func (t *Tracker) leakOfPools(most *Pool, n int64) *Leak {
	return &Leak{
		ID:       t.leakID.Add(1),
		Kind:     KindPool,
		Reason:   ReasonMaxPools,
		Pool:     most.name,
		OpenedAt: t.clock.at(most.opened),
		Age:      t.now() - most.opened,
		Count:    n,
		Stack:    most.stack.PCs(),
		Kept:     "a pool may be in use: close it in the program",
		fate:     new(fate),
	}
}

// tell counts and emits what was found of pools.
func (p *Pool) tell(typ EventType, l *Leak) {
	news := typ == EventSuspect
	if news {
		p.count(func(n *counters) { n.leaked.Add(1) })
	} else {
		l.fate.sealed.Store(true)
		p.count(func(n *counters) { n.recovered.Add(1) })
	}
	p.tally.leak(typ, l, news)
	p.tracker.emit(Event{Type: typ, Reason: l.Reason, Leak: l, pool: p, news: news})
}
