package leakguard

import (
	"context"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Connector is one pool. sql.OpenDB takes it, and sql.DB.Close closes it.
// NewConnector makes it: the methods of one that is nil or empty return an error
// that says so, and those that return none panic with it.
type Connector struct {
	dsn     string
	tracker *tracker.Tracker
	driver  *Driver
	sqlite  *sqlite3.SQLiteDriver
	pool    *tracker.Pool // nil in mode off
	traits  traits

	// polled: a text that named PRAGMA data_version passed by.
	polled atomic.Bool
	// leaving is held while one of its connections is about to be closed in the pool.
	leaving sync.Mutex

	mu     sync.Mutex
	closed bool
}

// plain is the driver of those who bring none.
var plain = &sqlite3.SQLiteDriver{}

// NewConnector registers a pool for the configuration. It opens nothing; an
// error names the field that cannot be used.
func NewConnector(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return newConnector(cfg)
}

// newConnector is NewConnector for a configuration that is complete and has
// nothing of the guard's left in its DSN, as ParseDSN returns it: a DSN is read
// once.
func newConnector(cfg Config) (*Connector, error) {
	c := &Connector{dsn: cfg.DSN, tracker: cfg.Tracker, driver: unnamed, sqlite: plain, traits: traitsOf(cfg.DSN)}
	if cfg.SQLite != nil {
		c.driver, c.sqlite = &Driver{SQLite: cfg.SQLite}, cfg.SQLite
	}
	if c.tracker == nil {
		c.tracker = tracker.Default()
	}
	operator := theEnvironment()
	given := cfg
	name, numbered := c.poolName(cfg)
	pinned := operator.apply(&cfg, name)
	if cfg.Name != "" { // which may be the operator's
		name, numbered = cfg.Name, false
	}
	pool, err := c.open(cfg, name, numbered, pinned)
	if err != nil {
		return nil, err
	}
	if pool != nil && pool.Name() != name && operator.names(pool.Name()) {
		// Only now it is known by the name that the operator meant.
		exact := pool.Name()
		pool.Close()
		pinned = operator.apply(&given, name, exact)
		if pool, err = c.open(given, exact, false, pinned); err != nil {
			return nil, err
		}
	}
	c.pool = pool
	operator.tell(c.tracker, pool)
	return c, nil
}

// poolName is the pool's name where the operator has none for it, and whether a number
// comes behind it.
func (c *Connector) poolName(cfg Config) (name string, numbered bool) {
	switch {
	case cfg.Name != "":
		return cfg.Name, false
	case c.traits.path == "":
		return "temp", true
	}
	return filepath.Base(c.traits.path), true
}

// open registers the pool, nil in mode off.
func (c *Connector) open(cfg Config, name string, numbered bool, pinned []string) (*tracker.Pool, error) {
	if cfg.Mode == tracker.Off {
		c.tracker.PassedThrough()
		return nil, nil
	}
	c.tracker.OfferMemorySource(readMemory, capi.TrimHeap)
	pool, err := c.tracker.NewPool(tracker.PoolConfig{
		Name:     name,
		Path:     c.traits.file(),
		Numbered: numbered,
		Mode:     cfg.Mode,
		Policy:   cfg.Policy,
		NoStacks: cfg.NoStacks,
		SQL:      cfg.SQL,
		Logger:   cfg.logger(),
		Missing:  capi.Missing(),
		Keys:     poolKeys(),
		Pinned:   pinned,
	})
	if err != nil {
		return nil, fmt.Errorf("leakguard: %w", err)
	}
	return pool, nil
}

// made returns an error unless NewConnector made the connector.
func (c *Connector) made() error {
	switch {
	case c == nil:
		return errNilConnector
	case c.driver == nil:
		return errEmptyConnector
	}
	return nil
}

// Driver returns the guarded driver that made the connector, or one with the
// same SQLite: what is opened by it has the same hooks.
func (c *Connector) Driver() driver.Driver {
	if err := c.made(); err != nil {
		panic(err)
	}
	theProbe.answer(c)
	return c.driver
}

// Stats returns a snapshot of the pool; all zero in mode off.
func (c *Connector) Stats() tracker.Stats {
	if err := c.made(); err != nil {
		panic(err)
	}
	if c.pool == nil {
		return tracker.Stats{}
	}
	return c.pool.Stats()
}

// SetPolicy changes the pool's limits at run time, from the next check on. The
// zero Policy as a whole stands for the defaults. In mode off it only checks. What
// the operator has set by the environment variable LEAKGUARD or on the page stays as
// it is, which is no error: see [tracker.Pool.SetPolicy].
func (c *Connector) SetPolicy(p tracker.Policy) error {
	if err := c.made(); err != nil {
		return err
	}
	if c.pool == nil {
		if p == (tracker.Policy{}) {
			return nil
		}
		if err := p.Validate(); err != nil {
			return fmt.Errorf("leakguard: %w", err)
		}
		return nil
	}
	if err := c.pool.SetPolicy(p); err != nil {
		return fmt.Errorf("leakguard: %w", err)
	}
	return nil
}

// Connect opens a connection. In mode off it is go-sqlite3's own.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	if err := c.made(); err != nil {
		return nil, err
	}
	if c.pool == nil {
		return c.sqlite.Open(c.dsn)
	}
	caller := openers()
	// A wrapper that opens connections on a goroutine of its own hides whether this
	// one is for the pool's stock: until it is used, nobody knows.
	far := !caller.Calls("database/sql.")
	return c.connect(ctx, far || fromOpener(caller), !fromSQL(caller))
}

// connect opens a guarded connection. idle: it goes into the pool's stock. wrapped:
// database/sql may not see all of its methods.
func (c *Connector) connect(ctx context.Context, idle, wrapped bool) (driver.Conn, error) {
	began := time.Now()
	opened, err := c.sqlite.Open(c.dsn)
	if err != nil {
		return nil, err
	}
	inner, ok := opened.(sqliteConn)
	if !ok {
		opened.Close()
		return nil, lacking(opened)
	}
	took := time.Since(began)
	n := &conn{connector: c, inner: inner, sqlite: capi.ConnOf(opened)}
	n.tx.c = n
	n.rows, n.freeRows = n.oneRows[:0], n.oneFree[:0]
	n.watch.c = n
	if !n.db().OK() {
		c.pool.Lacks("sqlite3 handle")
	}
	n.leased, n.wrapped = !idle, wrapped
	n.rec = c.pool.New(n.leased, exemption(ctx))
	if wrapped {
		n.rec.Wrapped()
	}
	n.rec.TraceLease(ctx)
	n.rec.OpenedIn(took)
	_, machine := c.tracker.Now()
	n.gate.Init(n.rec.Word(), !machine)
	if c.traits.shared {
		n.gate.Share(c.traits.cacheGate(n.filename()))
	}
	n.begins.once = c.showsHandles()
	n.texts.on = !c.traits.keepsTexts && n.gate.Shared() == nil && !n.begins.once
	n.session.start(n)
	n.startWaiting()
	if c.sqlite.ConnectHook != nil {
		n.sync()
		n.listAttached()
	}
	n.dropped = runtime.AddCleanup(n, (*tracker.Conn).Dropped, n.rec)
	n.rec.Register(control{weak.Make(n)}) // the reaper may come from here on
	c.mu.Lock()
	if c.closed && !n.forgotten { // beside Close, which has not seen it
		orphans.Store(n, struct{}{})
	}
	c.mu.Unlock()
	return n, nil
}

// Close ends the pool. database/sql calls it from sql.DB.Close, after it has
// closed the idle connections. Connections that are still leased stay watched.
func (c *Connector) Close() error {
	if err := c.made(); err != nil {
		return err
	}
	var open []tracker.Control
	if c.pool != nil {
		open = c.pool.Controls()
	}
	c.mu.Lock()
	c.closed = true
	// Nothing of database/sql holds what is still leased from here on. It stays
	// watched until it is closed or reaped; collected, it would keep its locks.
	for _, k := range open {
		if n := k.(control).conn.Value(); n != nil && !n.forgotten {
			orphans.Store(n, struct{}{})
		}
	}
	c.mu.Unlock()
	theWatchdog.settle()
	if c.pool != nil {
		c.pool.Close()
	}
	return nil
}

// showsHandles reports whether the program sees the handle of each connection, and
// may keep it.
func (c *Connector) showsHandles() bool {
	return c.sqlite.ConnectHook != nil || len(c.sqlite.Extensions) > 0
}

// orphans holds the connections that are leased while their pool is closed.
var orphans sync.Map // of *conn

// forgetConn says that a connection is closed: it is no orphan, nor becomes one.
func (n *conn) forgetConn() {
	c := n.connector
	c.mu.Lock()
	n.forgotten = true
	closed := c.closed
	c.mu.Unlock()
	if closed {
		orphans.Delete(n)
	}
}

// handle is an open SQLite handle without its connection, and what only it uses.
type handle struct {
	inner  sqliteConn
	sqlite capi.Conn
	wait   capi.Wait
}

// close closes the handle. What the program prepared with the real connection may keep
// it as a zombie, which must not look at wait any more. If the program closed it,
// nobody could take the handlers off, and wait stays: a few bytes.
func (h handle) close() error {
	db := h.sqlite.DB()
	h.wait.Quiet()
	h.wait.Retire(db)
	err := h.inner.Close()
	if db.OK() {
		h.wait.Free()
	}
	return err
}

// takeHandle takes the handle from a dead connection. The caller is inside the
// gate, and nobody who could tell an operation to stop is on his way.
func (c *conn) takeHandle() handle {
	h := handle{c.inner, c.sqlite, c.wait}
	c.wait = capi.Wait{}
	return h
}

// fromOpener reports whether database/sql's background opener is calling Connect: it
// puts the connection into the pool, or hands it to somebody who waits, without a
// word.
func fromOpener(caller *callstack.Stack) bool {
	return caller.Calls("database/sql.(*DB).openNewConnection")
}

// fromSQL reports whether database/sql itself is calling Connect. A wrapper in
// between may hide ResetSession and IsValid from it.
func fromSQL(caller *callstack.Stack) bool {
	return caller.CalledFrom("github.com/sqlite-leakguard/sqlite-leakguard.(*Connector).Connect", "database/sql.(*DB).")
}

// openers is the stack of who calls Connect. The next one often has the same callers,
// which are then known by one comparison.
func openers() *callstack.Stack {
	last := openPlace.Load()
	s := callstack.Capture(last)
	if s != last {
		openPlace.Store(s)
	}
	return s
}

// openPlace is where a connection was opened last.
var openPlace atomic.Pointer[callstack.Stack]
