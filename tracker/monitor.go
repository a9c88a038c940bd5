package tracker

import (
	"math"
	"time"
)

// monitor watches memory: that of each connection, which only SQLite knows, and
// that of the machine or container. It looks each memory_interval and never
// waits for a connection.
type monitor struct {
	pacer

	// Guarded by Tracker.mu.
	read   func() Memory
	given  bool // by the program
	wait   time.Duration
	last   Memory
	told   bool // what is missing
	points []MemoryPoint
	under  pressureState
}

// startLocked arms the monitor if the pool has a limit of memory.
func (m *monitor) startLocked(p *Pool) {
	policy := p.policy.Load()
	if !policy.watchesMemory() {
		return
	}
	switch {
	case !m.atRestLocked():
		if policy.MemoryInterval < m.wait {
			m.wakeLocked()
		}
	case m.mayStart():
		m.armLocked(policy.MemoryInterval)
	}
	m.wait = min(policy.MemoryInterval, max(m.wait, 1))
	if m.wait <= 1 {
		m.wait = policy.MemoryInterval
	}
}

func (p *Policy) watchesMemory() bool { return p.ConnMemory > 0 || p.LeakMemory > 0 || p.Pressure > 0 }

// look is one pass.
func (m *monitor) look() (wait time.Duration) {
	t := m.t
	t.mu.Lock()
	read := m.read
	t.mu.Unlock()
	var now Memory
	if read != nil {
		now = read()
	}
	t.askMemory(func(c *Conn) bool { return c.pool.policy.Load().watchesMemory() })
	var f findings
	t.mu.Lock()
	wait = time.Duration(math.MaxInt64)
	for _, p := range t.pools {
		if policy := p.policy.Load(); p.watched() && p.open > 0 && policy.watchesMemory() {
			wait = min(wait, policy.MemoryInterval)
		}
	}
	if wait == math.MaxInt64 {
		wait = time.Minute // until a pool has connections again
	}
	m.wait = wait
	t.mu.Unlock()
	t.heavy(&f)
	t.reaper.carry(&f)
	t.pressure(now)
	m.note(now)
	return wait
}

// statsLocked returns the figures of reports. Tracker.mu is held.
func (m *monitor) statsLocked() MemoryMonitoring {
	s := MemoryMonitoring{
		PressureEventsCount: m.under.events,
		MemoryPressure:      m.pressedLocked(),
		SystemMemoryPercent: m.last.UsedPercent,
		LimitedBy:           m.last.LimitedBy,
		SQLiteMemoryBytes:   m.last.SQLite,
		Sources:             m.last.Sources,
	}
	if n := float64(len(m.points)); n > 0 {
		for _, p := range m.points {
			s.AverageSystemMemoryPercent += p.SystemPercent / n
			s.AverageProcessMemoryMB += float64(p.ProcessRSS) / (1 << 20) / n
		}
	}
	return s
}

// pressedLocked reports whether there is memory pressure. Without connections
// the monitor is at rest and does not see its end. Tracker.mu is held.
func (m *monitor) pressedLocked() bool { return m.under.on && m.t.watched > 0 }

// askMemory brings the figures of connections up to date that have moved since.
// One that is busy keeps its last figure.
func (t *Tracker) askMemory(which func(*Conn) bool) {
	type asked struct {
		conn *Conn
		word uint64
	}
	var moved []asked
	t.mu.Lock()
	for i, p := range t.pulses {
		c := t.conns[i]
		if word := p.word.Load(); !c.lost.Load() && c.pool.watched() && which(c) &&
			word&BusyBit == 0 && (!c.memory.known || c.memory.word != word&^FlagBits) {
			moved = append(moved, asked{c, word &^ FlagBits})
		}
	}
	t.mu.Unlock()
	for _, a := range moved {
		bytes, ok := a.conn.control.Memory()
		if !ok {
			continue
		}
		t.mu.Lock()
		a.conn.memory = memory{bytes: bytes, peak: max(a.conn.memory.peak, bytes), known: true, at: t.now(), word: a.word}
		t.mu.Unlock()
	}
}

// release gives back the caches of connections whose gate is free, and returns
// how many bytes that made.
func (t *Tracker) release(conns []*Conn, reason Reason) (released int64) {
	for _, c := range conns {
		t.mu.Lock()
		before := c.memory
		t.mu.Unlock()
		if c.control.Carry(&Order{Scope: ScopeRelease, Reason: reason, conn: c}) != Done {
			continue
		}
		bytes, ok := c.control.Memory()
		if !ok {
			continue
		}
		t.mu.Lock()
		c.memory.bytes, c.memory.at = bytes, t.now()
		t.mu.Unlock()
		if before.known {
			released += max(before.bytes-bytes, 0)
		}
	}
	return released
}

// heavy applies conn_memory and leak_memory.
func (t *Tracker) heavy(f *findings) {
	var over []*Conn
	t.mu.Lock()
	for _, c := range t.conns {
		if limit := c.pool.policy.Load().ConnMemory; c.pool.mode == Enforce && limit > 0 && c.memory.known && c.memory.bytes > limit {
			over = append(over, c)
		}
	}
	t.mu.Unlock()
	t.release(over, ReasonConnMemory)
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.reaper.clock.elapsed
	for _, c := range t.conns {
		policy := c.pool.policy.Load()
		above := policy.ConnMemory > 0 && c.memory.known && c.memory.bytes > policy.ConnMemory
		if c.tooHeavy.Load() != above {
			c.tooHeavy.Store(above) // recycled at check-in
		}
		if policy.LeakMemory > 0 && c.pool.watched() && c.memory.known {
			c.judgeMemory(f, policy.LeakMemory, now)
		}
	}
}

// judgeMemory makes a lease that holds too much a suspect, and takes that back.
// Tracker.mu is held.
func (c *Conn) judgeMemory(f *findings, limit int64, now time.Duration) {
	c.lock()
	defer c.unlock()
	if !c.leased {
		return
	}
	suspect := c.lease.suspect()
	switch {
	case c.memory.bytes > limit && !suspect && !c.lease.watch.taken:
		c.lease.see(now)
		c.stampLease(c.pool.tracker.now())
		l, _ := c.suspect(f, &c.lease, ReasonLeakMemory, 0, now, 0)
		l.Bytes, l.LimitBytes = c.memory.bytes, limit
	case c.memory.bytes <= limit && suspect && c.lease.watch.leak.Reason == ReasonLeakMemory:
		c.recover(f, &c.lease)
	}
}

// note keeps the pass for reports, and tells once what is missing.
func (m *monitor) note(now Memory) {
	t := m.t
	t.mu.Lock()
	m.last = now
	point := MemoryPoint{Time: t.clock.at(t.now()), SystemPercent: now.UsedPercent, ProcessRSS: now.ProcessRSS, SQLite: now.SQLite, Open: len(t.conns)}
	var pool *Pool
	for _, c := range t.conns {
		point.Connections += uint64(c.memory.bytes)
		c.lock()
		if c.leased {
			point.Leased++
		}
		c.unlock()
		pool = c.pool
	}
	if len(m.points) == memoryPoints {
		m.points = append(m.points[:0], m.points[1:]...)
	}
	m.points = append(m.points, point)
	var missing string
	if !m.told && pool != nil && m.read != nil && now.UsedPercent == 0 {
		m.told = true
		missing = "the machine's memory cannot be read"
		for _, s := range now.Sources {
			if s.State != "ok" {
				missing += "; " + s.Name + ": " + s.State
			}
		}
	}
	t.mu.Unlock()
	if missing != "" {
		t.emit(Event{Type: EventDegraded, Reason: Reason(missing), pool: pool})
	}
}
