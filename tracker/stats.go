package tracker

import (
	"slices"
	"strings"
	"time"
)

// Stats is one consistent snapshot of a tracker or of one pool. The counters
// only grow; Sub gives what happened between two snapshots.
type Stats struct {
	// TotalConnections are open, ActiveConnections of them leased, and
	// PoolSize of them idle.
	TotalConnections  int `json:"total_connections"`
	ActiveConnections int `json:"active_connections"`
	PoolSize          int `json:"pool_size"`
	// MaxConnections is the sum of the limits of the pools whose sql.DB is attached
	// (see Pool.Attach); 0 if none is or they have none: a driver is not told what
	// sql.DB.SetMaxOpenConns was given.
	MaxConnections int `json:"max_connections"`

	// Lost counts leases whose content the guard undid and whose holders have not let
	// go: until they do, the places of the pool are taken.
	Lost int `json:"lost"`
	// LostPlaces says which, the longest lost first, at most 100 of them.
	LostPlaces []LostPlace `json:"lost_places,omitempty"`
	// Resting counts leases that have done nothing for Policy.ReportAfter and are not
	// lost.
	Resting int `json:"resting"`
	// Verdict says in a word how things stand, and Findings why, the worst first: see
	// Verdict.
	Verdict  Verdict  `json:"verdict"`
	Findings []string `json:"findings,omitempty"`
	// Places are those of the pools whose sql.DB is attached, by name.
	Places []Places `json:"places,omitempty"`

	// Created counts connections opened, Reused leases of a connection that
	// had one before.
	Created uint64 `json:"created"`
	Reused  uint64 `json:"reused"`
	// Expired counts connections in the pool that were closed for max_lifetime
	// or max_idle, Recycled those closed for any limit, and Refreshed how often
	// a connection that a limit gave up was refreshed where it is instead (see
	// Expiry).
	Expired   uint64 `json:"expired"`
	Recycled  uint64 `json:"recycled"`
	Refreshed uint64 `json:"refreshed"`
	// LeakedDetected counts leaks; each of them is counted once and may then
	// be Proven, and is Recovered, Reaped or still open.
	LeakedDetected uint64 `json:"leaked_detected"`
	Proven         uint64 `json:"proven"`
	Recovered      uint64 `json:"recovered"`
	Reaped         uint64 `json:"reaped"`
	// ForceClosed counts SQLite handles closed by the guard.
	ForceClosed uint64 `json:"force_closed"`
	// AggressiveCleanups counts responses to memory pressure.
	AggressiveCleanups uint64 `json:"aggressive_cleanups"`
	// EventsDropped counts events that a full queue lost, CallbackPanics
	// panics contained in subscribers, detectors and loggers.
	EventsDropped  uint64 `json:"events_dropped"`
	CallbackPanics uint64 `json:"callback_panics"`

	// Blocked counts operations that failed because somebody else held a lock.
	Blocked uint64 `json:"blocked"`
	// LockWaitCount counts the waits for locks that took 100 ms or longer and are over,
	// whether the lock was got or not, and LockWaitSeconds is what they took together:
	// those for which the guard's busy handler waits. Not among them are waits for a
	// shared cache (SQLITE_LOCKED), which go-sqlite3 does by itself if it was built with
	// the tag sqlite_unlock_notify, and waits of a busy handler of the program's own.
	// One is counted when the guard sees that its operation is over: a Stats sees to it.
	LockWaitCount   uint64  `json:"lock_wait_count"`
	LockWaitSeconds float64 `json:"lock_wait_seconds"`
	// LockWaits says who waited and who held the lock, the longest in all first, at most
	// 64, of the pools that are open.
	LockWaits []LockWaits `json:"lock_waits,omitempty"`
	// LockWaiting are the operations that have waited 100 ms and wait at this moment,
	// the longest first, at most 20.
	LockWaiting []LockWaiting `json:"lock_waiting,omitempty"`
	// WALBytes is the size of the write-ahead logs as they were measured last: at the
	// last check those of which a connection had moved since, or held a transaction or
	// rows open; of the others, which only somebody beside the guard can change, 50 are
	// measured at each check, in turn.
	WALBytes int64 `json:"wal_bytes"`

	OpenTransactions int `json:"open_transactions"`
	OpenRows         int `json:"open_rows"`
	OpenStatements   int `json:"open_statements"`

	LeakDetection    LeakDetection    `json:"leak_detection"`
	MemoryMonitoring MemoryMonitoring `json:"memory_monitoring"`
	// Environment is what the operator set by the environment variable LEAKGUARD.
	Environment []EnvironmentItem `json:"environment,omitempty"`
	// Missing names what this build or machine lacks; the guard works with
	// what remains.
	Missing []string `json:"missing,omitempty"`
	// ActiveConnectionDetails lists every open connection, leased ones first
	// and among them the longest leased first.
	ActiveConnectionDetails []ConnectionDetail `json:"active_connection_details"`
}

// LeakDetection is about suspects.
type LeakDetection struct {
	// RecentLeakAlerts counts the leaks found that are still in the history of
	// leaks (see Tracker.LeakHistory).
	RecentLeakAlerts int `json:"recent_leak_alerts"`
	// ConnectionHistorySize is the number of events in the history.
	ConnectionHistorySize int `json:"connection_history_size"`
	// PotentiallyLeakedCount is the number of connections with an open
	// suspect.
	PotentiallyLeakedCount int `json:"potentially_leaked_count"`
}

// MemoryMonitoring is about the memory of the machine or container and of
// SQLite. The averages are over the last 120 passes of the memory monitor; all is
// zero before the first, one memory_interval after the first connection.
type MemoryMonitoring struct {
	AverageSystemMemoryPercent float64 `json:"average_system_memory_percent"`
	AverageProcessMemoryMB     float64 `json:"average_process_memory_mb"`
	PressureEventsCount        uint64  `json:"pressure_events_count"`
	MemoryPressure             bool    `json:"memory_pressure"`
	// SystemMemoryPercent is the last reading, LimitedBy whose memory it is:
	// "system" or "cgroup".
	SystemMemoryPercent float64 `json:"system_memory_percent"`
	LimitedBy           string  `json:"limited_by,omitempty"`
	// ConnectionMemoryBytes is the sum over the open connections,
	// SQLiteMemoryBytes all that SQLite has allocated in the process.
	ConnectionMemoryBytes int64  `json:"connection_memory_bytes"`
	SQLiteMemoryBytes     uint64 `json:"sqlite_memory_bytes"`
	// Sources says which sources of the last reading could be read.
	Sources []MemorySource `json:"sources,omitempty"`
}

// ConnectionDetail describes one open connection.
type ConnectionDetail struct {
	ConnectionID string `json:"connection_id"`
	Pool         string `json:"pool"`
	// State is "idle", "leased", or "busy" while an operation runs.
	State string `json:"state"`
	// Age and IdleTime are seconds. IdleTime counts from the guard's last look
	// and is short by up to one check_interval.
	Age      float64 `json:"age"`
	IdleTime float64 `json:"idle_time"`
	// TransactionLevel is 0 without a transaction, 1 in one, and 1 more for
	// each savepoint.
	TransactionLevel  int     `json:"transaction_level"`
	TransactionAge    float64 `json:"transaction_age,omitempty"`
	AccessCount       int64   `json:"access_count"`
	OpenRows          int     `json:"open_rows"`
	OpenStatements    int     `json:"open_statements"`
	PotentiallyLeaked bool    `json:"potentially_leaked"`
	// OpenedAt is the call that took the lease, as "dir/file.go:line"; empty
	// for an idle connection. It stands for the thread id of systems that have
	// one.
	OpenedAt string `json:"opened_at"`
	// Query is the last SQL text, shortened.
	Query  string `json:"query"`
	Exempt string `json:"exempt,omitempty"`
	Kept   string `json:"kept,omitempty"`
	// MemoryBytes is what SQLite held for it when the memory monitor looked,
	// MemoryAge seconds ago; MemoryPeakBytes is the most it saw.
	MemoryBytes     int64   `json:"memory_bytes"`
	MemoryPeakBytes int64   `json:"memory_peak_bytes"`
	MemoryAge       float64 `json:"memory_age,omitempty"`
	// LeaseAge is how long it is leased, in seconds; LeaseAgeAtLeast says that nobody
	// saw it begin: it may be longer.
	LeaseAge        float64 `json:"lease_age,omitempty"`
	LeaseAgeAtLeast bool    `json:"lease_age_at_least,omitempty"`
	// LastActivityAt is the call of the last activity, see Leak.Last.
	LastActivityAt string `json:"last_activity_at,omitempty"`
	// Reaped says that the guard has closed its SQLite handle, and its holder
	// has not let go of the pool's place yet. Lost says so for every lease whose
	// content was undone, closed or not; LostFor is since when, in seconds.
	Reaped  bool    `json:"reaped,omitempty"`
	Lost    bool    `json:"lost,omitempty"`
	LostFor float64 `json:"lost_for,omitempty"`
}

// Stats returns a snapshot over all pools, closed ones included.
func (t *Tracker) Stats() Stats { return t.stats(nil) }

// Stats returns a snapshot of the pool. History, events dropped and callback
// panics are its tracker's.
func (p *Pool) Stats() Stats { return p.tracker.stats(p) }

func (t *Tracker) stats(only *Pool) Stats {
	var s Stats
	capacities := t.capacities(only)
	t.mu.Lock()
	now := t.now()
	n := &t.n
	if only != nil {
		n = &only.n
	}
	// Outcomes before causes, so that no snapshot shows more of them.
	s.Reaped = n.reaped.Load()
	s.Recovered = n.recovered.Load()
	s.Proven = n.proven.Load()
	s.LeakedDetected = n.leaked.Load()
	s.Created = n.created
	s.Expired = n.expired.Load()
	s.Recycled = n.recycled.Load()
	s.Refreshed = n.refreshed.Load()
	s.ForceClosed = n.forceClosed.Load()
	s.Blocked = n.blocked.Load()
	s.AggressiveCleanups = n.cleanups.Load()
	s.MemoryMonitoring = t.monitor.statsLocked(only)
	s.Reused = n.reused
	s.Environment = slices.Clone(t.environment)
	for _, p := range t.pools {
		if only != nil && p != only {
			continue
		}
		s.Missing = append(s.Missing, p.missing...)
	}
	if only == nil {
		for _, p := range t.walPoolsLocked() {
			s.WALBytes += p.wal.size
		}
	} else {
		s.WALBytes = only.walBytesLocked()
	}
	crowds := make(map[string]int) // sites with too many pools
	for _, l := range t.tooManyPoolsLocked(now) {
		if only == nil || l.pool == only {
			crowds[l.Site().String()]++
		}
	}
	slices.Sort(s.Missing)
	s.Missing = slices.Compact(s.Missing)
	records := make([]Record, 0, len(t.conns))
	for _, c := range t.conns {
		if only != nil && c.pool != only {
			continue
		}
		r := c.report(now)
		records = append(records, r)
		s.Reused += reused(r.Accesses)
		if n := capacities[c.pool]; n != nil && r.Lost {
			n.Lost++
		}
	}
	t.mu.Unlock()

	slices.SortStableFunc(records, byLease)
	s.ActiveConnectionDetails = make([]ConnectionDetail, 0, len(records))
	for i := range records {
		r := &records[i]
		s.TotalConnections++
		if r.Leased {
			s.ActiveConnections++
		} else {
			s.PoolSize++
		}
		if r.Resting {
			s.Resting++
		}
		if r.Lost {
			s.Lost++
		}
		if r.TransactionLevel > 0 {
			s.OpenTransactions++
		}
		s.MemoryMonitoring.ConnectionMemoryBytes += r.Memory
		s.OpenRows += r.OpenRows
		s.OpenStatements += r.OpenStatements
		if r.Suspect {
			s.LeakDetection.PotentiallyLeakedCount++
		}
		s.ActiveConnectionDetails = append(s.ActiveConnectionDetails, r.detail())
	}
	for _, e := range t.History() {
		if only == nil || e.pool == only {
			s.LeakDetection.ConnectionHistorySize++
		}
	}
	for _, e := range t.LeakHistory() {
		if e.news && (only == nil || e.pool == only) {
			s.LeakDetection.RecentLeakAlerts++
		}
	}
	for _, n := range capacities {
		s.MaxConnections += n.Max
		s.Places = append(s.Places, *n)
	}
	slices.SortFunc(s.Places, func(a, b Places) int { return strings.Compare(a.Pool, b.Pool) })
	waiting := t.lockWaiting(s.countLockWaits(t, only))
	s.LockWaiting = waiting[:min(len(waiting), maxLockWaiting)]
	s.judge(records, crowds, waiting, t.clock.at(now))
	q := &t.queue
	q.mu.Lock()
	s.EventsDropped, s.CallbackPanics = q.dropped, q.panicked
	q.mu.Unlock()
	return s
}

// byLease sorts leased connections before idle ones, the longest lease first.
func byLease(a, b Record) int {
	switch {
	case a.Leased && !b.Leased:
		return -1
	case b.Leased && !a.Leased:
		return 1
	case a.Leased:
		return a.LeasedAt.Compare(b.LeasedAt)
	}
	return a.Opened.Compare(b.Opened)
}

// State returns "idle", "leased", or "busy" while an operation runs.
func (r *Record) State() string {
	switch {
	case r.Busy:
		return "busy"
	case r.Leased:
		return "leased"
	}
	return "idle"
}

func (r *Record) detail() ConnectionDetail {
	d := ConnectionDetail{
		ConnectionID:      r.ConnectionID,
		Pool:              r.Pool,
		State:             r.State(),
		Age:               seconds(r.Age),
		IdleTime:          seconds(r.Idle),
		TransactionLevel:  r.TransactionLevel,
		TransactionAge:    seconds(r.TxAge),
		AccessCount:       r.Accesses,
		OpenRows:          r.OpenRows,
		OpenStatements:    r.OpenStatements,
		PotentiallyLeaked: r.Suspect,
		Query:             shorten(r.Query, 200),
		Exempt:            r.Exempt,
		Kept:              r.Kept,
		Reaped:            r.Reaped,
		Lost:              r.Lost,
		MemoryBytes:       r.Memory,
		MemoryPeakBytes:   r.MemoryPeak,
		MemoryAge:         seconds(r.MemoryAge),
	}
	if r.Leased {
		d.LeaseAge, d.LeaseAgeAtLeast = seconds(r.leaseAge), r.atLeast
	}
	if r.Lost {
		d.LostFor = seconds(r.lostFor)
	}
	if len(r.Last) > 0 {
		d.LastActivityAt = r.Last.Site().String()
	}
	if len(r.Stack) > 0 {
		d.OpenedAt = r.Stack.Site().String()
	}
	return d
}

func seconds(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }

// Sub returns what was counted between old and s. What is not a counter is
// that of s.
func (s Stats) Sub(old Stats) Stats {
	s.Created -= old.Created
	s.Reused -= old.Reused
	s.Expired -= old.Expired
	s.Recycled -= old.Recycled
	s.Refreshed -= old.Refreshed
	s.LeakedDetected -= old.LeakedDetected
	s.Proven -= old.Proven
	s.Recovered -= old.Recovered
	s.Reaped -= old.Reaped
	s.ForceClosed -= old.ForceClosed
	s.AggressiveCleanups -= old.AggressiveCleanups
	s.Blocked -= old.Blocked
	s.LockWaitCount -= old.LockWaitCount
	s.LockWaitSeconds -= old.LockWaitSeconds
	s.EventsDropped -= old.EventsDropped
	s.CallbackPanics -= old.CallbackPanics
	s.MemoryMonitoring.PressureEventsCount -= old.MemoryMonitoring.PressureEventsCount
	return s
}
