package main

import (
	"context"
	"database/sql"
	"database/sql/driver"

	_ "github.com/mattn/go-sqlite3"
	_ "github.com/sqlite-leakguard/sqlite-leakguard"
)

// opener opens a pool on a DSN as a program that uses the candidate does.
type opener func(dsn string) (*sql.DB, error)

// candidate is one way to reach SQLite.
type candidate struct {
	name   string
	what   string // one line for the legend
	module string // whose version the legend shows

	// wrapsAll says that rows and transactions are wrapped too: what wraps
	// less has less to pay for and is no fair comparison.
	wrapsAll bool

	// start makes the candidate ready, once per run and only if it takes part:
	// providers, registrations. stop may be nil.
	start func() (open opener, stop func(), err error)
}

const (
	rawName   = "raw"  // what every ratio is relative to
	noiseName = "raw2" // the same once more
	guardName = "leakguard"

	sqliteModule = "github.com/mattn/go-sqlite3"
	guardModule  = "github.com/sqlite-leakguard/sqlite-leakguard"
)

// candidates is the order of every table. The first one is raw.
func candidates() []candidate {
	all := []candidate{
		{name: rawName, what: "go-sqlite3 itself", module: sqliteModule, start: registered("sqlite3", "")},
		{name: noiseName, what: "go-sqlite3 once more: the noise", module: sqliteModule, start: registered("sqlite3", "")},
	}
	all = append(all, guards...)
	return append(all, peers...)
}

var guards = []candidate{
	{
		name: guardName, what: "the guard with its defaults: enforce, stacks on",
		module: guardModule, wrapsAll: true, start: registered("sqlite-leakguard", ""),
	},
	{
		name: guardName + "-observe", what: "reports and undoes nothing",
		module: guardModule, wrapsAll: true, start: registered("sqlite-leakguard", "_leakguard=observe"),
	},
	{
		name: guardName + "-off", what: "the pass-through of mode off",
		module: guardModule, start: registered("sqlite-leakguard", "_leakguard=off"),
	},
	{
		name: guardName + "-nostacks", what: "enforce without stacks",
		module: guardModule, wrapsAll: true, start: registered("sqlite-leakguard", "_leakguard_stacks=off"),
	},
}

// registered is a candidate that needs nothing but its driver name and, maybe,
// a DSN parameter of its own.
func registered(driverName, param string) func() (opener, func(), error) {
	return func() (opener, func(), error) {
		return func(dsn string) (*sql.DB, error) {
			if param != "" {
				dsn += "&" + param
			}
			return sql.Open(driverName, dsn)
		}, nil, nil
	}
}

// opensWith does what sql.Open does with a driver that is not registered.
func opensWith(d driver.Driver) opener {
	return func(dsn string) (*sql.DB, error) {
		if d, ok := d.(driver.DriverContext); ok {
			c, err := d.OpenConnector(dsn)
			if err != nil {
				return nil, err
			}
			return sql.OpenDB(c), nil
		}
		return sql.OpenDB(dsnConnector{dsn, d}), nil
	}
}

// dsnConnector is that of database/sql, which is not exported.
type dsnConnector struct {
	dsn    string
	driver driver.Driver
}

func (c dsnConnector) Connect(context.Context) (driver.Conn, error) { return c.driver.Open(c.dsn) }
func (c dsnConnector) Driver() driver.Driver                        { return c.driver }
