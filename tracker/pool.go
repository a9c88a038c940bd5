package tracker

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// PoolConfig describes a pool to Tracker.NewPool.
type PoolConfig struct {
	// Name labels the pool in reports and metrics. A name that is taken gets a
	// number behind it.
	Name string
	// Numbered puts a number behind the name even if it is free.
	Numbered bool
	Mode     Mode
	// Policy: zero as a whole is DefaultPolicy.
	Policy Policy
	// NoStacks switches the recording of call sites off.
	NoStacks bool
	// SQL says how SQL texts are told. The zero value tells them without the values
	// that are written in them.
	SQL SQLText
	// Logger is told of leaks at warn and of every other event at debug. Nil
	// is slog.Default, leaks only.
	Logger *slog.Logger
	// Path is the absolute path of the database file, empty for one in memory.
	Path string
	// Missing names what this build lacks, for Stats.
	Missing []string
	// Keys are the limits by the names that an operator knows, for Settings and
	// Operate. Without them only the mode can be changed by name.
	Keys []Key
	// Pinned names the keys that the operator's environment has set, KeyMode for
	// the mode: SetPolicy and SetMode leave them as they are.
	Pinned []string
}

// Pool is the record of one pool: one connector, hence one sql.DB.
type Pool struct {
	tracker *Tracker
	policy  atomic.Pointer[Policy]
	mode    atomic.Uint32 // a Mode; changed with Tracker.mu held
	stacks  bool
	sql     SQLText
	// heard says that the tracker wants check-outs and check-ins or has a trace
	// hook, and maxAccess is the policy's: leases read them here, where they have
	// the cache line at hand.
	heard     atomic.Bool
	maxAccess atomic.Int64
	name      string
	logger    *slog.Logger // nil: slog.Default, leaks only
	debug     bool         // the logger takes debug lines; asked once, when the pool was made
	missing   []string     // guarded by Tracker.mu

	keys   []Key           // immutable
	pinned map[string]bool // keys that are the operator's, guarded by Tracker.mu

	path   string
	opened time.Duration
	stack  *callstack.Stack // who opened it

	blamed atomic.Int64 // tracker time of the last Blame, 0 never

	// checkIns says that database/sql calls IsValid on connections that it reaches
	// through somebody else's driver.
	checkIns atomic.Bool

	// foreign: a connection was opened inside a synctest bubble that is not the
	// tracker's. Who waits there must not be served from outside.
	foreign  atomic.Bool
	attached *attachment // nil without a sql.DB, or closed; guarded by Tracker.mu

	n     counters
	tally tally
	waits poolWaits // guarded by longWaits.mu

	mu   sync.Mutex
	kept map[string]bool // reasons told
	open int             // connections, guarded by Tracker.mu
	// lostTold is how many of its places were lost when that was told last; guarded by
	// Tracker.mu.
	lostTold int
	short    shortage   // guarded by Tracker.mu
	closed   bool       // guarded by Tracker.mu
	at       *poolPlace // where it was opened, nil if closed or nobody watches; guarded by Tracker.mu
	use      poolUse
	vacant   int     // leases that are out while their handle is closed, guarded by Tracker.mu
	wal      *walLog // of the newest connection's file, nil in memory; guarded by Tracker.mu
}

// count counts for the pool and for its tracker, which outlives it.
func (p *Pool) count(f func(*counters)) {
	f(&p.n)
	f(&p.tracker.n)
}

// counters only grow. They change rarely enough to be shared.
type counters struct {
	leaked, proven, recovered, reaped, recycled, expired, refreshed, forceClosed, blocked, cleanups atomic.Uint64
	// Guarded by Tracker.mu. reused is what closed connections had.
	created, reused uint64
}

// NewPool registers a pool. It fails if the policy is invalid, and for a Tracker
// that New has not made.
func (t *Tracker) NewPool(cfg PoolConfig) (*Pool, error) {
	if t == nil || t.pools == nil {
		return nil, errors.New("tracker: the Tracker is nil or empty: New makes one")
	}
	if cfg.Policy == (Policy{}) {
		cfg.Policy = DefaultPolicy()
	}
	if err := cfg.Policy.Validate(); err != nil {
		return nil, fmt.Errorf("tracker: policy: %w", err)
	}
	if int(cfg.SQL) >= len(sqlTextNames) {
		return nil, fmt.Errorf("tracker: SQL is %v: want redacted, full or off", cfg.SQL)
	}
	p := &Pool{tracker: t, stacks: !cfg.NoStacks, sql: cfg.SQL, logger: cfg.Logger, missing: cfg.Missing, keys: cfg.Keys}
	p.mode.Store(uint32(cfg.Mode))
	p.pin(cfg.Pinned)
	p.limit(cfg.Policy)
	p.debug = p.logger != nil && p.logger.Enabled(logContext, slog.LevelDebug)
	p.path, p.opened = cfg.Path, t.now()
	if p.stacks {
		last := t.poolPlace.Load()
		if p.stack = callstack.Capture(last); p.stack != last {
			t.poolPlace.Store(p.stack)
		}
	}
	at := placeOf(p.stack)
	t.mu.Lock()
	p.name = t.freeNameLocked(cfg.Name, cfg.Numbered)
	t.pools[p.name] = p
	t.guarded.Add(1)
	p.heard.Store(t.heard)
	if p.debug { // else nothing changes
		t.countListenersLocked()
	}
	t.countPoolsLocked(p)
	t.openedAtPlaceLocked(p, at)
	t.mu.Unlock()
	return p, nil
}

// limit sets the policy. Nobody else does: the pool is new, or Tracker.mu is held.
func (p *Pool) limit(policy Policy) {
	held := &defaultPolicy
	if policy != defaultPolicy {
		own := policy
		held = &own
	}
	p.policy.Store(held)
	p.maxAccess.Store(policy.MaxAccess)
}

// freeNameLocked returns the name, with the lowest free number behind it if it
// is taken or numbered.
func (t *Tracker) freeNameLocked(name string, numbered bool) string {
	if name == "" {
		name, numbered = "sqlite", true
	}
	if !numbered {
		if _, taken := t.pools[name]; !taken {
			return name
		}
	}
	for i := t.lastNumber[name] + 1; ; i++ {
		try := numberedName(name, '-', uint64(i))
		if _, taken := t.pools[try]; !taken {
			t.numberedLocked(name, i)
			return try
		}
	}
}

// numberedName is the name, the sign and the number, by one allocation.
func numberedName(name string, sign byte, n uint64) string {
	b := make([]byte, 0, 64)
	return string(strconv.AppendUint(append(append(b, name...), sign), n, 10))
}

// numberedLocked remembers the last number given to a name, so that a pool's
// name is not used again soon; bounded, and forgotten as a whole when full.
func (t *Tracker) numberedLocked(name string, i int) {
	if len(t.lastNumber) >= 1024 {
		clear(t.lastNumber)
	}
	t.lastNumber[name] = i
}

// Name returns the pool's name, unique in its tracker.
func (p *Pool) Name() string { return p.name }

// Tracker returns the pool's tracker.
func (p *Pool) Tracker() *Tracker { return p.tracker }

// Mode returns the pool's mode.
func (p *Pool) Mode() Mode { return Mode(p.mode.Load()) }

// Policy returns the limits in force.
func (p *Pool) Policy() Policy { return *p.policy.Load() }

// SetPolicy changes the limits from the next check on. The zero Policy as a whole
// stands for the defaults. It may be called by several goroutines at once, and
// while connections are open.
//
// What the operator has set, by the environment variable LEAKGUARD or on the page,
// stays as it is. That is no error, for a program must not fail over it: an
// EventChanged tells, and Policy returns what holds.
func (p *Pool) SetPolicy(policy Policy) error {
	if policy == (Policy{}) {
		policy = DefaultPolicy()
	}
	if err := policy.Validate(); err != nil {
		return fmt.Errorf("tracker: policy: %w", err)
	}
	t := p.tracker
	t.mu.Lock()
	held := p.keepPinnedLocked(&policy)
	p.setPolicyLocked(policy)
	t.mu.Unlock()
	p.toldPinned(held...)
	return nil
}

// setPolicyLocked puts a valid policy into force. Tracker.mu is held.
func (p *Pool) setPolicyLocked(policy Policy) {
	t := p.tracker
	p.limit(policy)
	t.epoch++
	t.countPoolsLocked(p)
	t.crowdLocked(p)
	t.startLocked(p)
	t.reaper.wakeLocked()
}

// Close marks the pool closed. Its connections that are still leased stay
// watched; the pool's record ends with the last of them. If nothing at all is
// left to watch, Close waits for the reaper to come to rest.
func (p *Pool) Close() {
	t := p.tracker
	t.mu.Lock()
	p.closed = true
	t.countPoolsLocked(p)
	t.closedAtPlaceLocked(p)
	t.dropPoolLocked(p)
	a := p.attached
	a.goneLocked()
	await := len(t.conns) == 0 && (t.reaper.running || t.monitor.running || t.closing > 0)
	t.mu.Unlock()
	if a != nil {
		a.await()
	}
	if !await {
		return
	}
	t.reaper.await()
	t.monitor.await()
	t.awaitClosings()
}

// Controls returns what Register was given for the pool's open connections.
func (p *Pool) Controls() []Control {
	t := p.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.open == 0 {
		return nil
	}
	var controls []Control
	for _, c := range t.conns {
		if c.pool == p {
			controls = append(controls, c.control)
		}
	}
	return controls
}

// Records returns what is known of the pool's open connections.
func (p *Pool) Records() []Record {
	return p.tracker.records(p)
}

// Lacks adds what turned out to be missing to what Stats says.
func (p *Pool) Lacks(what string) {
	p.tracker.mu.Lock()
	defer p.tracker.mu.Unlock()
	p.lacksLocked(what)
}

// lacksLocked is Lacks with Tracker.mu held.
func (p *Pool) lacksLocked(what string) {
	if !slices.Contains(p.missing, what) {
		p.missing = append(slices.Clip(p.missing), what)
	}
}

// firstKept reports whether this reason is new for the pool.
func (p *Pool) firstKept(why string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept[why] || len(p.kept) >= 64 {
		return false
	}
	if p.kept == nil {
		p.kept = make(map[string]bool)
	}
	p.kept[why] = true
	return true
}
