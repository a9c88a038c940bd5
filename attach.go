package leakguard

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Attach makes a pool's sql.DB known to the guard, which a driver is not told of:
//
//	db, err := sql.Open("sqlite-leakguard", "file:app.db")
//	…
//	detach, err := leakguard.Attach(db)
//
// From then on Stats, the page, the text report and OpenTelemetry say how many places
// the pool has (sql.DB.SetMaxOpenConns), how many are taken and how often somebody had
// to wait for one. A pool that has been full for 1 s while somebody waits and nobody
// gets a place is reported as [tracker.EventStarved], by default in the log: who has
// each place, for how long, by which line, and what he does. And while a lease that the
// guard undid is out, the pool is lent another place: its limit is one higher until the
// holder lets go, and who waits is served at once, so that a leak does not stop the
// service. Lent are as many places at most as the pool has, none to a pool whose limit
// is 1, and none for a lease whose SQLite handle stays open (of a database in memory,
// for one), so that no more handles are open than the program allowed. See
// [tracker.Pool.Attach] for what happens when the program sets the limit meanwhile. Who
// is served opens a connection, maybe while another leaked one is closed: with a busy
// timeout of 0 that may fail with "database is locked", as any opening beside a close.
//
// It costs operations nothing: db is asked twice a second while the pool has open
// connections and a limit, four times while it is full. sql.DB.Close detaches; detach
// does so earlier, gives the program its own limit back and may be called twice. db is
// not kept from being collected. In mode basic, and inside a testing/synctest bubble
// whose tracker was made outside, figures are all there is.
//
// An error says why db cannot be attached: it is nil or closed, is not the guard's or
// is hidden by a driver around the guard's (then NewConnector's [Connector.Attach] is
// the way), its mode is off, or its pool has a sql.DB attached already. Attach may be
// called by several goroutines at once.
func Attach(db *sql.DB, options ...AttachOption) (detach func(), err error) {
	if db == nil {
		return nil, errors.New("leakguard: Attach: db is nil")
	}
	c, driver := theProbe.connectorOf(db)
	if c == nil {
		return nil, fmt.Errorf("leakguard: Attach: db was opened with the driver %T, not with the guard's; "+
			"if that wraps the guard's, use Connector.Attach", driver)
	}
	return c.Attach(db, options...)
}

// Attach is the function Attach for a sql.DB that uses the connector through a driver
// around it. A db that does not use it at all is not noticed.
func (c *Connector) Attach(db *sql.DB, options ...AttachOption) (detach func(), err error) {
	if err := c.made(); err != nil {
		return nil, err
	}
	if db == nil {
		return nil, errors.New("leakguard: Attach: db is nil")
	}
	if c.pool == nil {
		return nil, errors.New("leakguard: Attach: the pool's mode is off, so nothing of it is watched")
	}
	o := tracker.AttachOptions{StarvedAfter: time.Second, Lend: -1}
	for _, option := range options {
		if option == nil {
			return nil, errors.New("leakguard: Attach: an option is nil")
		}
		option(&o)
	}
	if detach, err = c.pool.Attach(db, o); err != nil {
		return nil, fmt.Errorf("leakguard: %w", err)
	}
	return detach, nil
}

// AttachOption changes what Attach does.
type AttachOption func(*tracker.AttachOptions)

// StarvedAfter sets how long a pool has to be full, with somebody waiting and nobody
// getting a place, to be reported: 1s if the option is not given, 1ms at the least, 0
// never.
func StarvedAfter(d time.Duration) AttachOption {
	return func(o *tracker.AttachOptions) { o.StarvedAfter = d }
}

// LendPlaces sets how many places are lent at most, beside the pool's own limit, which
// is the most in any case: 0 none. Below 0, as without the option, only the limit
// counts.
func LendPlaces(most int) AttachOption {
	return func(o *tracker.AttachOptions) { o.Lend = most }
}

// LendTheOnlyPlace lends also to a pool with a limit of 1. Many programs use such a
// limit as a lock; while a place is lent, two goroutines may be inside.
func LendTheOnlyPlace() AttachOption {
	return func(o *tracker.AttachOptions) { o.LendSingle = true }
}

// OpenDB is NewConnector, sql.OpenDB and Attach in one; in mode off nothing is
// attached. An error is one of NewConnector's or about an option. sql.DB.Close ends all.
func OpenDB(cfg Config, options ...AttachOption) (*sql.DB, error) {
	c, err := NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(c)
	if c.pool == nil {
		return db, nil
	}
	if _, err := c.Attach(db, options...); err != nil {
		db.Close()
		return nil, err
	}
	return db, nil
}
