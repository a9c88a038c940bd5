package tracker

import (
	"fmt"
	"time"
)

// Pressure: the machine or the container is short of memory. What the guard
// does, in this order: it releases the caches of every connection whose gate is
// free, closes idle connections, and, while it lasts, gives up at check-in those
// that still hold much.

const (
	// pressureBand is how far use must fall below Policy.Pressure until the
	// pressure is over: crossings are told, not levels.
	pressureBand = 0.05
	// stallBegins and stallEnds are shares, in percent, of the last ten seconds
	// in which some task waited for memory. See
	// https://docs.kernel.org/accounting/psi.html.
	stallBegins, stallEnds = 10, 5
	// heavyBytes is what a connection may hold under pressure after a release.
	heavyBytes = 1 << 20
)

// pressureState is guarded by Tracker.mu.
type pressureState struct {
	on     bool
	events uint64
}

// Pressure is what EventPressure tells.
type Pressure struct {
	// On says that the pressure has begun; else it is over.
	On bool `json:"on"`
	// UsedPercent is the used memory of the machine or container, Stall as in
	// Memory, Limit the share in percent at which it begins.
	UsedPercent float64 `json:"used_percent"`
	Stall       float64 `json:"stall_percent"`
	Limit       float64 `json:"limit_percent"`
	// Released is what releasing caches gave back, in bytes; Closed connections
	// that were idle held ClosedBytes.
	Released    int64 `json:"released_bytes"`
	Closed      int   `json:"closed"`
	ClosedBytes int64 `json:"closed_bytes"`
}

// String returns the crossing as one line.
func (p Pressure) String() string {
	stall := ""
	if p.Stall > 0 {
		stall = fmt.Sprintf(", stalled for %.1f %%", p.Stall)
	}
	if !p.On {
		return fmt.Sprintf("memory pressure is over: %.1f %% used%s", p.UsedPercent, stall)
	}
	return fmt.Sprintf("memory pressure: %.1f %% used (pressure %.0f %%)%s: released %s, closed %s that held %s",
		p.UsedPercent, p.Limit, stall, bytesText(p.Released), many(p.Closed, "idle connection"), bytesText(p.ClosedBytes))
}

// pressure follows one reading.
func (t *Tracker) pressure(now Memory) {
	t.mu.Lock()
	limit := 0.0 // the lowest
	var pool *Pool
	var all []*Conn
	for _, c := range t.conns {
		p := c.pool
		if share := p.policy.Load().Pressure; share > 0 && p.watched() && !c.lost.Load() {
			if limit == 0 || share < limit {
				limit, pool = share, p
			}
			if p.mode == Enforce {
				all = append(all, c)
			}
		}
	}
	s := &t.monitor.under
	used := now.UsedPercent / 100
	begins := limit > 0 && now.Total > 0 && (used >= limit || now.HasStall && now.Stall >= stallBegins)
	lasts := limit > 0 && now.Total > 0 && (used >= limit-pressureBand || now.HasStall && now.Stall >= stallEnds)
	was := s.on
	s.on = begins || was && lasts
	if s.on && !was {
		s.events++
	}
	on := s.on
	if !on {
		for _, c := range t.conns {
			if c.heavy.Load() {
				c.heavy.Store(false)
			}
		}
	}
	t.mu.Unlock()
	if !on && !was {
		return
	}
	told := Pressure{On: on, UsedPercent: now.UsedPercent, Stall: now.Stall, Limit: 100 * limit}
	if on {
		told.Released = t.release(all, ReasonPressure)
		if !was {
			told.Closed, told.ClosedBytes = t.closeIdle(all)
		}
		t.mu.Lock()
		for _, c := range all {
			c.heavy.Store(c.memory.known && c.memory.bytes > heavyBytes)
		}
		t.mu.Unlock()
	}
	if on == was || pool == nil && on {
		return
	}
	if on {
		pool.count(func(n *counters) { n.cleanups.Add(1) })
	}
	t.tellPressure(told)
}

// tellPressure emits a crossing, for any pool: the log of one is enough.
func (t *Tracker) tellPressure(told Pressure) {
	t.mu.Lock()
	var pool *Pool
	for _, p := range t.pools {
		if pool == nil || p.name < pool.name {
			pool = p
		}
	}
	t.mu.Unlock()
	if pool != nil {
		t.emit(Event{Type: EventPressure, Reason: ReasonPressure, Pressure: &told, pool: pool})
	}
}

// closeIdle closes the connections that sit in the pool, and returns how many
// did and what they held.
func (t *Tracker) closeIdle(all []*Conn) (closed int, bytes int64) {
	for _, c := range all {
		c.lock()
		idle := !c.leased && c.tx.id == 0
		c.unlock()
		word := c.word.Load()
		if !idle || word&BusyBit != 0 {
			continue
		}
		t.mu.Lock()
		held := c.memory.bytes
		t.mu.Unlock()
		o := &Order{Scope: ScopeClose, Reason: ReasonPressure, Word: word &^ FlagBits, conn: c}
		if c.control.Carry(o) == Done {
			closed++
			bytes += held
		}
	}
	return closed, bytes
}

// mayDiscard reports whether the pool may lose a connection that is too heavy
// under pressure: one each memory_interval, and never the last.
func (p *Pool) mayDiscard() bool {
	p.tracker.mu.Lock()
	open := p.open
	p.tracker.mu.Unlock()
	last := p.discard.Load()
	return open > 1 && (last == 0 || p.tracker.clock.now()+1-time.Duration(last) >= p.policy.Load().MemoryInterval)
}

func (p *Pool) allowDiscard() bool {
	last := p.discard.Load()
	return p.mayDiscard() && p.discard.CompareAndSwap(last, int64(p.tracker.clock.now())+1)
}
