package leakguard

import (
	"fmt"
	"log/slog"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Config describes one pool. The DSN parameters are a spelling of it:
// [ParseDSN] reads them, [Config.FormatDSN] writes them.
//
// The zero value of every field is its default, so that
//
//	leakguard.Config{DSN: "file:app.db"}
//
// is a complete configuration. What the operator has set by the environment variable
// LEAKGUARD beats it. A Config is a plain value: it may be copied and
// read by several goroutines, and changing it after a connector was made from
// it changes nothing for that connector. What its pointers lead to is shared,
// not copied.
type Config struct {
	// DSN is what go-sqlite3 gets, byte for byte: a path, ":memory:" or a
	// file: URI, with go-sqlite3's own parameters. It holds no _leakguard
	// keys; a DSN that has them goes through [ParseDSN]. Like go-sqlite3's, an
	// empty DSN is a private temporary database for each connection.
	DSN string

	// Name is the pool's name in reports and metrics. Empty: the base name of
	// the database file plus a number.
	Name string

	// Mode says how far the guard goes. The zero Mode is [tracker.Enforce].
	Mode tracker.Mode

	// Policy holds the limits. The zero Policy as a whole stands for
	// [tracker.DefaultPolicy]. In any other Policy a limit that is zero is
	// switched off, except CheckInterval and MemoryInterval, which have to be
	// set; to change a single limit, start from the defaults:
	//
	//	cfg.Policy = tracker.DefaultPolicy()
	//	cfg.Policy.TxTimeout = time.Minute
	Policy tracker.Policy

	// NoStacks switches the recording of call sites off: reports then do not
	// say where a resource was opened. In a DSN: _leakguard_stacks=off.
	NoStacks bool
	// NoLog has nothing written to a log, neither to Logger nor to slog.Default.
	// Events, reports and figures stay. In a DSN: _leakguard_log=off.
	NoLog bool
	// SQL says how the pool's SQL texts are told in reports, logs and errors: without
	// the values that are written in them (the zero value), in full, or not at all.
	// In a DSN: _leakguard_sql=redacted, full or off.
	SQL tracker.SQLText

	// Tracker is where the pool registers its resources. Nil: the process-wide
	// tracker.Default(). Several pools may share one Tracker.
	Tracker *tracker.Tracker

	// SQLite is the driver that opens the connections; ConnectHook and
	// Extensions go here. Nil: a plain one. go-sqlite3 calls ConnectHook for
	// each connection, from any goroutine and possibly from several at once.
	// The driver must not be changed any more once a connector uses it.
	SQLite *sqlite3.SQLiteDriver

	// Logger gets leaks at level warn, recoveries at info and every other event
	// at debug. Nil: slog.Default(), leaks only. Whether it takes debug lines
	// is asked when the pool is made.
	Logger *slog.Logger
}

// withDefaults returns c with the Policy filled in, or an error that names the
// field that cannot be used. Tracker, SQLite and Logger stay nil where they
// are: their defaults are process-wide and looked up by whoever uses them.
func (c Config) withDefaults() (Config, error) {
	if _, ours, err := dsnSplit(c.DSN); err != nil || len(ours) > 0 {
		// Passed on, the key would reach go-sqlite3, which ignores it: a limit
		// that somebody set would silently not hold.
		if err != nil {
			return Config{}, fmt.Errorf("leakguard: Config.DSN: %w", err)
		}
		return Config{}, fmt.Errorf("leakguard: Config.DSN has the key %q: use ParseDSN to read it", ours[0].key)
	}
	if c.Mode > tracker.Off {
		return Config{}, fmt.Errorf("leakguard: Config.Mode is %v: %w", c.Mode, errDSNMode)
	}
	if c.Policy == (tracker.Policy{}) {
		c.Policy = tracker.DefaultPolicy()
	}
	if err := c.Policy.Validate(); err != nil {
		return Config{}, fmt.Errorf("leakguard: Config.Policy: %w", err)
	}
	return c, nil
}

// logger returns what the pool writes to; nil stands for slog.Default.
func (c Config) logger() *slog.Logger {
	if c.NoLog {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}
