package tracker

import "time"

// Memory is one reading of what the machine, the process and SQLite use. What
// is zero is not known.
type Memory struct {
	// Total and Used are bytes, of the machine or of the container if that has
	// less; UsedPercent is 0 to 100. LimitedBy says which of them decided.
	Total, Used uint64
	UsedPercent float64
	LimitedBy   string
	// ProcessRSS is the process's resident memory, SwapUsed of SwapTotal the
	// machine's swap, GoLimit the limit of GOMEMLIMIT; all in bytes.
	ProcessRSS, SwapUsed, SwapTotal, GoLimit uint64
	// Stall is the share of the last ten seconds, 0 to 100, in which some task
	// waited for memory (Linux PSI, "some avg10"), if HasStall.
	Stall    float64
	HasStall bool
	// SQLite is what all of SQLite has allocated in this process, in bytes.
	SQLite uint64
	// Sources says for each source whether it could be read.
	Sources []MemorySource
}

// MemorySource is one source of a reading.
type MemorySource struct {
	Name string `json:"name"`
	// State is "ok", or why its figures are missing.
	State string `json:"state"`
}

// MemoryPoint is one pass of the memory monitor.
type MemoryPoint struct {
	Time          time.Time `json:"time"`
	SystemPercent float64   `json:"system_percent"`
	// ProcessRSS, Connections (the sum over all connections) and SQLite are
	// bytes.
	ProcessRSS  uint64 `json:"process_rss_bytes"`
	Connections uint64 `json:"connection_bytes"`
	SQLite      uint64 `json:"sqlite_bytes"`
	// Open and Leased count connections.
	Open   int `json:"open"`
	Leased int `json:"leased"`
}

// memoryPoints bounds the history: an hour at the default memory_interval.
const memoryPoints = 120

// SetMemorySource says where the memory monitor takes its readings from; nil
// leaves what SQLite says of its connections. The guard's driver sets the
// machine's. read is called on the monitor's goroutine, outside every lock; it
// should not take longer than some milliseconds.
func (t *Tracker) SetMemorySource(read func() Memory) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.monitor.read, t.monitor.given = read, true
}

// OfferMemorySource is SetMemorySource, nil included, unless somebody called
// that. trim, if not nil, gives memory that was released back to the machine; it
// is called as read is, after a pass that released some.
func (t *Tracker) OfferMemorySource(read func() Memory, trim func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.monitor.trim = trim
	if !t.monitor.given {
		t.monitor.read = read
	}
}

// MemoryHistory returns the last passes of the memory monitor, oldest first, at
// most 120.
func (t *Tracker) MemoryHistory() []MemoryPoint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]MemoryPoint(nil), t.monitor.points...)
}

// memory is what is known of one connection's. Guarded by Tracker.mu.
type memory struct {
	bytes, peak int64
	known       bool
	gone        bool          // the guard closed its handle: it holds nothing
	gaveUp      bool          // given up for what it holds, at the generation gaveUpAt
	asked       bool          // cache is known, from the activity word askedAt
	at          time.Duration // known to be so, on the tracker's clock
	word        uint64        // the activity word when SQLite was asked
	gaveUpAt    uint64
	cache       int64 // what the program lets the caches hold, if asked
	askedAt     uint64
}

// limit returns a limit of the policy as it holds for the connection: no less than
// the cache that the program asked for, with a quarter for what else it holds. 0 is
// off, as it is as long as the connection could not be asked.
func (m *memory) limit(policy int64) int64 {
	if policy == 0 || m.bytes > policy && !m.asked {
		return 0
	}
	return max(policy, m.cache+m.cache/4)
}

// holdsLocked notes what the connection holds by now.
func (c *Conn) holdsLocked(bytes int64) {
	if m := &c.memory; !m.gone {
		m.bytes, m.peak, m.known, m.at = bytes, max(m.peak, bytes), true, c.pool.tracker.now()
	}
}

// goneLocked follows the end of the handle: closed by the guard, it may stay in
// its pool for as long as nobody asks for it.
func (c *Conn) goneLocked() {
	if !c.memory.gone {
		c.memory = memory{peak: c.memory.peak, gone: true}
	}
}
