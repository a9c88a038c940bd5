package tracker

import (
	"cmp"
	"time"
)

// Pools that one line opens and nobody closes, whatever their files: a pool for
// each request. A pool for each tenant looks the same, but is used now and then, so
// only those count that nobody has used for leak_after. They are found by the
// reaper, which knows when connections moved, and reported only.

// poolPlace is a line that opens pools which the reaper watches. Guarded by
// Tracker.mu.
type poolPlace struct {
	key  place
	open int // pools that are not closed
	// crowded says that there have been as many as max_pools at once, so that a
	// look at them is worth it.
	crowded bool
	told    crowd // reported, if it has a leak

	// Of one look: pools that nobody uses, those that may come to count, and the
	// lowest limit of both.
	unused, waiting, limit int64
	most                   *Pool // unused, and opened first
}

// manyPlaces is how many lines without a pool are remembered.
const manyPlaces = 64

// poolUse is what the reaper knows of a pool's use, on its own clock. Guarded by
// Tracker.mu.
type poolUse struct {
	run     uint64 // of the reaper's clock, see reaper.run
	created uint64 // connections, at the last look
	moved   bool   // since then, one that is closed by now
	last    time.Duration
}

// openedAtPlaceLocked and closedAtPlaceLocked follow the pools of a line.
func (t *Tracker) openedAtPlaceLocked(p *Pool, at place) {
	if at == (place{}) || !p.watched() {
		return
	}
	p.at = t.places[at]
	if p.at == nil {
		p.at = &poolPlace{key: at}
		if t.places == nil {
			t.places = make(map[place]*poolPlace)
		}
		t.places[at] = p.at
	}
	p.at.open++
	t.crowdLocked(p)
}

func (t *Tracker) closedAtPlaceLocked(p *Pool) {
	at := p.at
	if at == nil {
		return
	}
	p.at = nil
	// The reaper may be at rest by now, and not come back.
	if at.open--; at.told.leak != nil && int64(at.open) < at.limit {
		t.forgiveLocked(at)
	}
	if at.open > 0 {
		return
	}
	at.crowded = false
	if t.crowded && !t.anyCrowdLocked() {
		t.watchPlacesLocked(false)
	}
	if len(t.places) > manyPlaces {
		delete(t.places, at.key)
	}
}

// anyCrowdLocked reports whether a look at the places is worth it.
func (t *Tracker) anyCrowdLocked() bool {
	for _, at := range t.places {
		if at.crowded {
			return true
		}
	}
	return false
}

// crowdLocked sees to it that the reaper looks at the pool's place if it has got
// too many.
func (t *Tracker) crowdLocked(p *Pool) {
	if l := p.policy.Load(); p.at == nil || l.MaxPools == 0 || l.LeakAfter == 0 || int64(p.at.open) < l.MaxPools {
		return
	}
	p.at.crowded = true
	if p.at.told.leak == nil {
		t.watchPlacesLocked(true)
	}
}

// watchPlacesLocked says whether there are pools, maybe without connections, for
// which the reaper has to stay at work.
func (t *Tracker) watchPlacesLocked(on bool) {
	t.crowded = on
	switch r := &t.reaper; {
	case !on:
		r.restLocked()
	case r.atRestLocked() && r.mayStart():
		r.beginLocked()
	}
}

// countPlaces looks at the places that have too many pools, tells what is news, and
// returns when one of their pools may come to count as unused.
func (t *Tracker) countPlaces(now time.Duration) (wait time.Duration) {
	wait = time.Minute
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.anyCrowdLocked() {
		t.watchPlacesLocked(false)
		return wait
	}
	for _, at := range t.places {
		at.unused, at.waiting, at.most = 0, 0, nil
	}
	t.usesLocked(now)
	for _, p := range t.pools {
		if p.at == nil || !p.at.crowded {
			continue
		}
		l := p.policy.Load()
		if _, told := t.tooMany[p.path]; told || l.LeakAfter == 0 || l.MaxPools == 0 {
			continue // told for their file
		}
		left := p.use.last + l.LeakAfter - now
		p.at.count(p, l.MaxPools, left <= 0)
		if left > 0 && p.open == 0 { // the reaper comes for the others anyhow
			wait = min(wait, max(left, l.period()))
		}
	}
	needed := false
	for _, at := range t.places {
		over := at.unused > 0 && at.unused >= at.limit
		switch {
		case over && at.told.leak == nil:
			t.accuseLocked(at, now)
		case !over && at.told.leak != nil:
			t.forgiveLocked(at)
		}
		needed = needed || !over && at.waiting > 0 && at.unused+at.waiting >= at.limit
		at.crowded = at.crowded && int64(at.open) >= at.limit
	}
	t.watchPlacesLocked(needed)
	return wait
}

// count takes a pool in. The lowest limit counts.
func (at *poolPlace) count(p *Pool, limit int64, unused bool) {
	if at.unused+at.waiting == 0 || limit < at.limit {
		at.limit = limit
	}
	if !unused {
		at.waiting++
		return
	}
	at.unused++
	if at.most == nil || cmp.Or(cmp.Compare(p.opened, at.most.opened), cmp.Compare(p.name, at.most.name)) < 0 {
		at.most = p
	}
}

// usesLocked brings the uses of all pools up to date, with what the scan has seen of
// their connections. That an idle one is closed is no use of its pool.
func (t *Tracker) usesLocked(now time.Duration) {
	for _, p := range t.pools {
		u := &p.use
		switch {
		case u.run != t.reaper.run && p.open > 0:
			u.last = 0 // its connections know better
		case u.run != t.reaper.run, u.created != p.n.created, u.moved:
			u.last = now
		}
		u.run, u.created, u.moved = t.reaper.run, p.n.created, false
	}
	for _, c := range t.conns {
		u := &c.pool.use
		if s := &c.seen; !s.known || s.leased {
			u.last = now
		} else {
			u.last = max(u.last, s.active) // now, if it is busy
		}
	}
}

// accuseLocked tells of a place with too many unused pools.
func (t *Tracker) accuseLocked(at *poolPlace, now time.Duration) {
	l := t.leakOfPools(at.most, at.unused)
	l.OnePlace, l.Idle = true, now-at.most.use.last
	at.told = crowd{l, at.most}
	at.most.tell(EventSuspect, l)
}

func (t *Tracker) forgiveLocked(at *poolPlace) {
	at.told.pool.tell(EventRecovered, at.told.leak)
	at.told = crowd{}
}
