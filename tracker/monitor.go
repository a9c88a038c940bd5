package tracker

import (
	"math"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// monitor watches memory: that of each connection, which only SQLite knows, and
// that of the machine or container. It looks each memory_interval and never
// waits for a connection.
type monitor struct {
	pacer

	// Of one pass at a time: pressure began at the last one, and telling is closed
	// when its last crossing was told, nil if there was none.
	began   bool
	telling chan struct{}

	// Guarded by Tracker.mu.
	read   func() Memory
	trim   func()
	given  bool          // by the program
	wait   time.Duration // until the next pass
	last   Memory
	told   bool // what is missing
	points []MemoryPoint
	under  pressureState
}

// startLocked arms the monitor if the pool has a limit of memory, and wakes it
// if it waits longer than the pool's interval.
func (m *monitor) startLocked(p *Pool) {
	policy := p.policy.Load()
	if !policy.watchesMemory() {
		return
	}
	switch {
	case !m.atRestLocked():
		if policy.MemoryInterval < m.wait {
			m.wait = policy.MemoryInterval
			m.wakeLocked()
		}
	case m.mayStart():
		m.wait = policy.MemoryInterval
		m.armLocked(m.wait)
	}
}

func (p *Policy) watchesMemory() bool { return p.ConnMemory > 0 || p.LeakMemory > 0 || p.Pressure > 0 }

// look is one pass.
func (m *monitor) look() (wait time.Duration) {
	t := m.t
	t.mu.Lock()
	wait = math.MaxInt64
	for _, p := range t.pools {
		if policy := p.policy.Load(); p.watched() && p.open > 0 && policy.watchesMemory() {
			wait = min(wait, policy.MemoryInterval)
		}
	}
	m.wait = wait // whoever needs less from here on wakes it
	read, trim := m.read, m.trim
	t.mu.Unlock()
	if wait == math.MaxInt64 {
		return rests // until a pool has connections and limits again
	}
	var now Memory
	if read != nil {
		t.queue.contain(func() { now = read() })
	}
	t.askMemory()
	released := t.heavy()
	more, began := t.pressure(now)
	if trim != nil && (released+more > heavyBytes || began || m.began) {
		t.queue.contain(trim)
	}
	m.began = began // the handles are closed meanwhile
	m.note(now, read != nil)
	return wait
}

// statsLocked returns the figures of reports, of one pool or of all. Tracker.mu
// is held.
func (m *monitor) statsLocked(only *Pool) MemoryMonitoring {
	s := MemoryMonitoring{
		PressureEventsCount: m.under.events,
		MemoryPressure:      m.pressedLocked(),
		SystemMemoryPercent: m.last.UsedPercent,
		LimitedBy:           m.last.LimitedBy,
		SQLiteMemoryBytes:   m.last.SQLite,
		Sources:             m.last.Sources,
	}
	if only != nil {
		s.PressureEventsCount, s.MemoryPressure = only.short.events, only.short.on()
	}
	var system, process float64 // passes with a reading
	for _, p := range m.points {
		if p.SystemPercent > 0 {
			s.AverageSystemMemoryPercent += p.SystemPercent
			system++
		}
		if p.ProcessRSS > 0 {
			s.AverageProcessMemoryMB += float64(p.ProcessRSS) / (1 << 20)
			process++
		}
	}
	s.AverageSystemMemoryPercent /= max(system, 1)
	s.AverageProcessMemoryMB /= max(process, 1)
	return s
}

// pressedLocked reports whether there is memory pressure. Without connections
// the monitor is at rest and does not see its end. Tracker.mu is held.
func (m *monitor) pressedLocked() bool { return m.under.on && m.t.watched > 0 }

// askMemory brings the figures of connections up to date. Only those that have
// moved are asked; one that is busy keeps its last figure, with its age.
func (t *Tracker) askMemory() {
	type asked struct {
		conn *Conn
		word uint64
	}
	var moved []asked
	t.mu.Lock()
	now := t.now()
	for i, p := range t.pulses {
		c := t.conns[i]
		word := p.word.Load()
		if word&gate.Busy != 0 || c.memory.gone || c.lost.Load() || !c.pool.watched() || !c.pool.policy.Load().watchesMemory() {
			continue
		}
		if c.memory.known && c.memory.word == word&^gate.Flags && word&gate.Sharing == 0 {
			c.memory.at = now // nothing has moved since
			continue
		}
		moved = append(moved, asked{c, word &^ gate.Flags})
	}
	t.mu.Unlock()
	for _, a := range moved {
		bytes, ok := a.conn.control.Memory()
		if !ok {
			continue
		}
		t.mu.Lock()
		a.conn.holdsLocked(bytes)
		a.conn.memory.word = a.word // if it moved since, it is asked again
		t.mu.Unlock()
	}
}

// release gives back the caches of connections whose gate is free, and returns
// how many bytes that made. All are asked first: those of a shared cache have
// nothing left after the first.
func (t *Tracker) release(conns []*Conn, reason Reason) (released int64) {
	held := make([]int64, len(conns))
	for i, c := range conns {
		held[i], _ = c.control.Memory()
	}
	for i, c := range conns {
		if c.control.Carry(&Order{Scope: ScopeRelease, Reason: reason, Absolute: true, conn: c}) != Done {
			continue
		}
		bytes, ok := c.control.Memory()
		if !ok {
			continue
		}
		t.mu.Lock()
		c.holdsLocked(bytes)
		t.mu.Unlock()
		released += max(held[i]-bytes, 0)
	}
	return released
}

// heavy applies conn_memory and leak_memory, and returns what was released.
func (t *Tracker) heavy() (released int64) {
	t.askCaches()
	var over []*Conn
	t.mu.Lock()
	for _, c := range t.conns {
		if c.overLimitLocked() {
			over = append(over, c)
		}
	}
	t.mu.Unlock()
	released = t.release(over, ReasonConnMemory)
	if still := t.stillAbove(over, (*Conn).overLimitLocked); len(still) > 0 {
		t.Go(func() { t.giveUp(still, ReasonConnMemory) })
	}
	var f findings
	t.mu.Lock()
	for _, c := range t.conns {
		if c.memory.known && c.pool.watched() && !c.lost.Load() {
			c.judgeMemory(&f, c.memory.limit(c.pool.policy.Load().LeakMemory), t.reaper.now)
		}
	}
	t.mu.Unlock()
	for _, n := range f.news {
		n.conn.settle(n.typ, n.leak)
	}
	return released
}

// overLimitLocked reports whether the guard is to see to it that the connection
// holds less.
func (c *Conn) overLimitLocked() bool {
	limit := c.memory.limit(c.pool.policy.Load().ConnMemory)
	return c.pool.Mode() == Enforce && limit > 0 && c.memory.known && c.memory.bytes > limit && !c.lost.Load()
}

// askCaches asks connections that hold more than a limit what the program lets them
// hold. They are few, so it is asked again whenever one has moved: how the program
// sets it, and when, is its own affair. While one cannot be asked, its limits wait.
func (t *Tracker) askCaches() {
	type asked struct {
		conn *Conn
		word uint64
	}
	var full []asked
	t.mu.Lock()
	for i, c := range t.conns {
		m, p := &c.memory, c.pool.policy.Load()
		if !c.pool.watched() || c.lost.Load() || !m.known || m.bytes <= p.memoryLimit() {
			continue
		}
		word := t.pulses[i].word.Load()
		if !m.asked || m.askedAt != word&^gate.Flags || word&gate.Sharing != 0 {
			full = append(full, asked{c, word &^ gate.Flags})
		}
	}
	t.mu.Unlock()
	for _, a := range full {
		k, can := a.conn.control.(DatabaseControl)
		bytes, ok := int64(0), true
		if can {
			bytes, ok = k.CacheSize()
		}
		if !ok {
			continue
		}
		t.mu.Lock()
		m := &a.conn.memory
		m.cache, m.asked, m.askedAt = bytes, true, a.word
		t.mu.Unlock()
	}
}

// memoryLimit returns the lower of the limits of memory that are on.
func (p *Policy) memoryLimit() int64 {
	low := int64(math.MaxInt64)
	for _, limit := range []int64{p.ConnMemory, p.LeakMemory} {
		if limit > 0 {
			low = min(low, limit)
		}
	}
	return low
}

// judgeMemory makes a lease that holds too much a suspect, and takes that back.
// Tracker.mu is held.
func (c *Conn) judgeMemory(f *findings, limit int64, now time.Duration) {
	c.lock()
	defer c.unlock()
	if !c.leased {
		return
	}
	above := limit > 0 && c.memory.bytes > limit && !c.maybePooled()
	suspect := c.lease.suspect()
	switch {
	case above && !suspect && !c.lease.watch.taken:
		c.lease.see(now)
		c.stampLease(c.pool.tracker.now())
		l, _ := c.suspect(f, &c.lease, ReasonLeakMemory, 0, now, 0)
		l.Bytes, l.LimitBytes = c.memory.bytes, limit
	case !above && suspect && c.lease.watch.leak.Reason == ReasonLeakMemory:
		c.recover(f, &c.lease)
	}
}

// note keeps the pass for reports, and tells once what is missing.
func (m *monitor) note(now Memory, asked bool) {
	t := m.t
	t.mu.Lock()
	m.last = now
	point := MemoryPoint{Time: t.clock.at(t.now()), SystemPercent: now.UsedPercent, ProcessRSS: now.ProcessRSS, SQLite: now.SQLite, Open: len(t.conns)}
	for _, c := range t.conns {
		point.Connections += uint64(c.memory.bytes)
		c.lock()
		if c.leased {
			point.Leased++
		}
		c.unlock()
	}
	if len(m.points) == memoryPoints {
		m.points = append(m.points[:0], m.points[1:]...)
	}
	m.points = append(m.points, point)
	var missing string
	var pool *Pool
	if asked && !m.told {
		if missing = now.lacks(); missing != "" {
			pool = t.firstPoolLocked(func(p *Pool) bool { return p.watched() })
			m.told = pool != nil
		}
	}
	t.mu.Unlock()
	if pool != nil {
		t.emit(Event{Type: EventDegraded, Reason: Reason(missing), pool: pool})
	}
}

// lacks returns what the reading lacks of what the limits need, "" if nothing.
// That many systems have no cgroups and no stall information is no news.
func (m *Memory) lacks() string {
	var what string
	var states []string
	for _, s := range m.Sources {
		if s.State == "ok" {
			continue
		}
		states = append(states, s.Name+": "+s.State)
		switch s.Name {
		case "system":
			what = "the machine's memory cannot be read"
		case "sqlite":
			if what == "" {
				what = "SQLite does not tell what it uses"
			}
		}
	}
	if m.Total == 0 {
		what = "how much memory is used cannot be read, so the limit pressure has no effect"
	}
	if what == "" {
		return ""
	}
	return strings.Join(append([]string{what}, states...), "; ")
}

// firstPoolLocked returns the first pool by name that f likes, nil if there is
// none.
func (t *Tracker) firstPoolLocked(f func(*Pool) bool) (first *Pool) {
	for _, p := range t.pools {
		if f(p) && (first == nil || p.name < first.name) {
			first = p
		}
	}
	return first
}
