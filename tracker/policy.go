package tracker

import (
	"fmt"
	"time"
)

// Mode says how far the guard goes.
type Mode uint8

const (
	// Enforce detects, reports and undoes. The default.
	Enforce Mode = iota
	// Observe detects and reports, and undoes nothing but what garbage
	// collection proved to be out of reach: go-sqlite3's finalizers would close
	// that too.
	Observe
	// Basic does only what happens inside the program's own calls: expiry and
	// clean-up at check-in. No reaper is started; meant for unit tests.
	Basic
	// Off passes everything through: nothing is tracked.
	Off
)

var modeNames = [...]string{Enforce: "enforce", Observe: "observe", Basic: "basic", Off: "off"}

// String returns the mode's name as the DSN spells it.
func (m Mode) String() string {
	if int(m) < len(modeNames) {
		return modeNames[m]
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// MarshalText spells the mode as the DSN does.
func (m Mode) MarshalText() ([]byte, error) {
	if int(m) >= len(modeNames) {
		return nil, fmt.Errorf("unknown mode %d", uint8(m))
	}
	return []byte(modeNames[m]), nil
}

// UnmarshalText accepts "enforce", "observe", "basic" and "off".
func (m *Mode) UnmarshalText(text []byte) error {
	for i, name := range modeNames {
		if string(text) == name {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("unknown mode %q: want enforce, observe, basic or off", text)
}

// Policy holds the limits of one pool. A zero limit is switched off; the zero
// Policy as a whole stands for [DefaultPolicy] wherever one is taken. To change
// single limits start from DefaultPolicy; a duration is 1ms or more.
//
// Ages run on the reaper's own clock from the check at which it first saw the
// resource in its present state, so a limit is met late by up to a quarter of
// itself or one CheckInterval, whichever is shorter, and never early.
type Policy struct {
	// MaxLifetime is the age, since it was opened or last refreshed, at which a
	// connection is given up (see Expire), less up to 2.5 % at random so that a
	// pool does not expire at once. Default 30m.
	MaxLifetime time.Duration
	// MaxIdle is how long a connection may sit in the pool before it is given
	// up. Default 5m.
	MaxIdle time.Duration
	// ReportAfter is how long a lease, with its transaction and rows, may rest
	// before it is reported once as resting: no leak yet, and nothing is undone.
	// Where somebody waits for a lock behind it, 5s suffice if this is longer.
	// Default 30s.
	ReportAfter time.Duration
	// Collect has a garbage collection asked for when rows have rested for ReportAfter,
	// or 5s, that were opened outside a sql.Tx with a context that cannot be cancelled,
	// and somebody waits for a lock behind them: if nobody has the rows any more, that
	// is proven at once, and they are closed. At most one a minute in the process and one
	// for each time that rows rest, on a goroutine of its own; never while GOGC is off or
	// more than 1 GiB of the heap is live. Default true.
	Collect bool
	// LeakAfter is how long a lease may go without activity before it is a
	// suspect; still so at the next check, it is reaped. Default 5m. Rows that
	// are not read on for as long count as forgotten even if their connection
	// moves: a loop body that works longer than that for one row wants a longer
	// limit, or Exempt.
	LeakAfter time.Duration
	// TxTimeout is the age at which a transaction is a suspect. One that works
	// on is reported again each TxTimeout; it is rolled back as soon as it
	// rests: no operation for a tenth of TxTimeout, counted from the look that
	// found the last one. Default 10m.
	TxTimeout time.Duration
	// TxLimit is the one absolute age: an older transaction is interrupted if
	// it is running, and rolled back. Default 0: off.
	TxLimit time.Duration
	// MaxAccess is the number of leases, since it was opened or last refreshed,
	// after which the statements that the guard keeps prepared on a connection
	// are finalized. Default 1000.
	MaxAccess int64
	// MaxStatements is the number of open statements of the same SQL text, or
	// prepared by the same line whatever their texts, on one connection at which
	// they are reported. Default 100.
	MaxStatements int64
	// MaxPools is the number of open pools of the same database file at which they
	// are reported; and, whatever their files, in memory too, of pools that one line
	// opened and that nobody has used for LeakAfter: a pool for each tenant is
	// legitimate as long as it is used now and then. Nothing is undone. Default 20.
	MaxPools int64
	// WALLimit is the size in bytes of a database's write-ahead log above which
	// the oldest reader that keeps it from being reset is a suspect. Default
	// 64 MiB.
	WALLimit int64
	// ConnMemory is the memory in bytes above which a connection's caches are
	// released, and the connection is given up if that did not help. Default
	// 50 MiB. Where the program set a cache_size of its own, in whatever way, it
	// is at least that and a quarter, over all of the connection's databases
	// together: https://www.sqlite.org/pragma.html#pragma_cache_size.
	ConnMemory int64
	// LeakMemory is the memory in bytes above which a leased connection is a
	// suspect. Default 100 MiB, and at least the program's own cache_size and a
	// quarter, as for ConnMemory.
	LeakMemory int64
	// Pressure is the used share of the system's (or the cgroup's) memory, 0
	// to 1, from which on the guard gives memory back. Default 0.85.
	Pressure float64
	// Expire says what giving a connection up means. The zero value is Refresh.
	Expire Expiry
	// CheckInterval is the longest time between two checks of the reaper.
	// Default 60s; it cannot be switched off: Mode Basic runs without the
	// reaper.
	CheckInterval time.Duration
	// MemoryInterval is the period of the memory monitor. Default 30s; it
	// cannot be switched off.
	MemoryInterval time.Duration
}

// DefaultPolicy returns the limits that hold where nothing else was said.
func DefaultPolicy() Policy {
	return Policy{
		MaxLifetime:    30 * time.Minute,
		MaxIdle:        5 * time.Minute,
		ReportAfter:    30 * time.Second,
		Collect:        true,
		LeakAfter:      5 * time.Minute,
		TxTimeout:      10 * time.Minute,
		MaxAccess:      1000,
		MaxStatements:  100,
		MaxPools:       20,
		WALLimit:       64 << 20,
		ConnMemory:     50 << 20,
		LeakMemory:     100 << 20,
		Pressure:       0.85,
		CheckInterval:  time.Minute,
		MemoryInterval: 30 * time.Second,
	}
}

// defaultPolicy serves the pools that have it. Nobody writes to it.
var defaultPolicy = DefaultPolicy()

// shortest is the shortest duration that a limit may have: what is below was meant to
// have a unit.
const shortest = time.Millisecond

// Validate returns an error that names the first limit that cannot be used, by its
// key in the DSN, and says what is allowed.
func (p Policy) Validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"max_lifetime", p.MaxLifetime}, {"max_idle", p.MaxIdle}, {"report_after", p.ReportAfter},
		{"leak_after", p.LeakAfter}, {"tx_timeout", p.TxTimeout}, {"tx_limit", p.TxLimit},
	} {
		if d.value != 0 && d.value < shortest {
			return fmt.Errorf("%s is %v: want a duration of 1ms or more, or 0 to switch it off", d.name, d.value)
		}
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"max_access", p.MaxAccess}, {"max_statements", p.MaxStatements},
		{"max_pools", p.MaxPools}, {"wal_limit", p.WALLimit},
		{"conn_memory", p.ConnMemory}, {"leak_memory", p.LeakMemory},
	} {
		if n.value < 0 {
			return fmt.Errorf("%s is %d: want a positive number, or 0 to switch it off", n.name, n.value)
		}
	}
	if !(p.Pressure >= 0 && p.Pressure <= 1) {
		return fmt.Errorf("pressure is %v: want a share between 0 and 1, or 0 to switch it off", p.Pressure)
	}
	if _, err := p.Expire.MarshalText(); err != nil {
		return fmt.Errorf("expire: %w: want refresh or close", err)
	}
	for _, d := range []struct {
		name, more string
		value      time.Duration
	}{
		{"check_interval", " (mode basic runs without the reaper)", p.CheckInterval},
		{"memory_interval", "", p.MemoryInterval},
	} {
		switch {
		case d.value == 0:
			// Nearly always a literal Policy{TxTimeout: …}, whose author takes the
			// rest to be defaults.
			return fmt.Errorf("%s is 0: want a duration of 1ms or more%s; start from tracker.DefaultPolicy() to change single limits", d.name, d.more)
		case d.value < shortest:
			return fmt.Errorf("%s is %v: want a duration of 1ms or more%s", d.name, d.value, d.more)
		}
	}
	return nil
}
