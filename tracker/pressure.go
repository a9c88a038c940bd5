package tracker

import (
	"fmt"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Pressure: the machine or the container is short of memory. What the guard
// does, in this order: it releases the caches of every connection whose gate is
// free, gives idle connections up, and, while it lasts, releases again what holds
// much and gives up what still does so in the pool.

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

// unread is for how many passes in a row a reading may fail that the pressure
// was found by until it counts as over.
const unread = 3

// pressureState is the tracker's: whether any pool is under pressure. Guarded by
// Tracker.mu.
type pressureState struct {
	on             bool
	events         uint64
	noUse, noStall int // readings in a row without it
}

// shortage is a pool's view, by its own limit. Use and stalls begin and end on
// their own: where 82 % are always in use, a short stall is not to last for ever.
// Guarded by Tracker.mu.
type shortage struct {
	use, stall bool
	events     uint64
}

func (s *shortage) on() bool { return s.use || s.stall }

// follow takes a reading. What is not in it leaves things as they are for a
// while.
func (s *shortage) follow(limit float64, now *Memory, m *pressureState) {
	used := now.UsedPercent / 100
	switch {
	case limit == 0:
		s.use, s.stall = false, false
		return
	case now.Total == 0:
		s.use = s.use && m.noUse < unread
	case s.use:
		s.use = used >= max(limit-pressureBand, limit/2)
	default:
		s.use = used >= limit
	}
	switch {
	case !now.HasStall:
		s.stall = s.stall && m.noStall < unread
	case s.stall:
		s.stall = now.Stall >= stallEnds
	default:
		s.stall = now.Stall >= stallBegins
	}
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
	// Released is what releasing caches gave back, in bytes. Closed connections
	// of the pool, which no program can miss, held ClosedBytes; the other idle
	// ones were refreshed.
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

// pressure follows one reading. Each pool takes part by its own limit. It returns
// what was released, and whether a pool was told to.
func (t *Tracker) pressure(now Memory) (released int64, began bool) {
	m := &t.monitor.under
	t.mu.Lock()
	m.noUse, m.noStall = m.noUse+1, m.noStall+1
	if now.Total > 0 {
		m.noUse = 0
	}
	if now.HasStall {
		m.noStall = 0
	}
	entered, ended := make(map[*Pool]bool), make(map[*Pool]bool)
	was := m.on
	m.on = false
	for _, p := range t.pools {
		before, limit := p.short.on(), 0.0
		if p.watched() {
			limit = p.policy.Load().Pressure
		}
		p.short.follow(limit, &now, m)
		on := p.short.on()
		m.on = m.on || on
		if on != before {
			if on {
				entered[p] = true
			} else {
				ended[p] = true
			}
		}
	}
	var fresh, full []*Conn // of pools that begin; of the others those that are heavy
	for _, c := range t.conns {
		switch {
		case !c.pool.short.on() || c.pool.Mode() != Enforce || c.lost.Load() || c.memory.gone:
		case entered[c.pool]:
			fresh = append(fresh, c)
		case c.memory.known && c.memory.bytes > heavyBytes:
			full = append(full, c)
		}
	}
	begins := t.crossedLocked(entered, &now)
	if begins != nil {
		begins.Pressure.On = true
		m.events++
		responded := false
		for p := range entered {
			p.short.events++
			if p.Mode() == Enforce && p.open > 0 {
				p.n.cleanups.Add(1)
				responded = true
			}
		}
		if responded {
			began = true
			t.n.cleanups.Add(1)
		}
	}
	if was && !m.on && len(ended) == 0 { // the pool that was is gone
		if p := t.firstPoolLocked(func(*Pool) bool { return true }); p != nil {
			ended[p] = true
		}
	}
	ends := t.crossedLocked(ended, &now)
	t.mu.Unlock()

	if ends != nil {
		t.monitor.tell(ends, func() {})
	}
	released = t.release(full, ReasonPressure)
	if still := t.stillAbove(full, func(c *Conn) bool { return c.memory.bytes > heavyBytes }); len(still) > 0 {
		t.Go(func() { t.giveUp(still, ReasonPressure) })
	}
	if begins != nil {
		begins.Pressure.Released = t.release(fresh, ReasonPressure)
		released += begins.Pressure.Released
		t.monitor.tell(begins, func() {
			begins.Pressure.Closed, begins.Pressure.ClosedBytes = t.giveUp(fresh, ReasonPressure)
		})
	}
	return released, began
}

// tell tells a crossing when what belongs to it is done. That may take as long as a
// file system does, so no pass waits for it; the crossings stay in order, or who
// follows them would take a pressure that is over for one that lasts.
func (m *monitor) tell(e *Event, first func()) {
	before, told := m.telling, make(chan struct{})
	m.telling = told
	m.t.Go(func() {
		defer close(told)
		first()
		if before != nil {
			<-before
		}
		m.t.emit(*e)
	})
}

// stillAbove returns those of the connections that hold too much after a release
// and have moved since they were given up for that: what did not help once does
// not help again.
func (t *Tracker) stillAbove(conns []*Conn, above func(*Conn) bool) (still []*Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range conns {
		word := c.word.Load() &^ gate.Flags
		if m := &c.memory; m.known && above(c) && (!m.gaveUp || m.gaveUpAt != word) {
			m.gaveUp, m.gaveUpAt = true, word
			still = append(still, c)
		}
	}
	return still
}

// crossedLocked makes the event of the pools that crossed their limit at this
// reading, nil if there are none.
func (t *Tracker) crossedLocked(pools map[*Pool]bool, now *Memory) *Event {
	if len(pools) == 0 {
		return nil
	}
	told := &Pressure{UsedPercent: now.UsedPercent, Stall: now.Stall}
	for p := range pools {
		if limit := 100 * p.policy.Load().Pressure; told.Limit == 0 || limit < told.Limit {
			told.Limit = limit
		}
	}
	first := t.firstPoolLocked(func(p *Pool) bool { return pools[p] })
	return &Event{Type: EventPressure, Reason: ReasonPressure, Pressure: told, pool: first}
}

// giveUp gives connections up that hold too much, or sit in the pool when memory
// gets short, and returns how many were closed and what they held. One that never
// had a lease may be out all the same: see idleTooLong.
func (t *Tracker) giveUp(conns []*Conn, reason Reason) (closed int, bytes int64) {
	for _, c := range conns {
		t.mu.Lock()
		held := c.memory.bytes
		t.mu.Unlock()
		c.lock()
		word := c.word.Load()
		idle := !c.leased && c.accesses > 0 && c.tx.id == 0 && word&gate.Busy == 0
		c.unlock()
		if !idle && reason == ReasonPressure {
			continue
		}
		o := &Order{Scope: ScopeGiveUp, Reason: reason, Word: word &^ gate.Flags, conn: c}
		out := Void
		if o.holds() {
			out = c.control.Carry(o)
		}
		if out == Done {
			closed++
			bytes += held
		}
		t.mu.Lock()
		c.memory.gaveUp, c.memory.gaveUpAt = out != Void, o.Word // a void one comes again
		t.mu.Unlock()
	}
	return closed, bytes
}
