package leakguard

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/mattn/go-sqlite3"
)

// driverName is the name that the driver registers under, none if it is
// empty. Like go-sqlite3's it can be changed when linking, so that a program
// that opens "sqlite3" runs guarded without a change of its own:
//
//	go build -ldflags '-X github.com/mattn/go-sqlite3.driverName=sqlite3-raw -X github.com/sqlite-leakguard/sqlite-leakguard.driverName=sqlite3'
var driverName = "sqlite-leakguard"

func init() {
	if driverName != "" && !nameTaken(driverName) {
		sql.Register(driverName, unnamed)
	}
}

// unnamed is the driver of those who bring none.
var unnamed = &Driver{}

// Driver is the guarded driver. The zero value is ready for use, and is what
// "sqlite-leakguard" stands for. A program with hooks or extensions of its own
// registers one of its own:
//
//	sql.Register("sqlite3_with_functions", &leakguard.Driver{SQLite: &sqlite3.SQLiteDriver{ConnectHook: …}})
//
// Its methods may be called by several goroutines at once.
type Driver struct {
	// SQLite is the driver that opens the connections, as Config.SQLite is. Nil:
	// a plain one. Once the Driver is registered or in use, neither the field
	// nor what it leads to may be changed.
	SQLite *sqlite3.SQLiteDriver
}

var (
	_ driver.Driver        = (*Driver)(nil)
	_ driver.DriverContext = (*Driver)(nil)
)

// OpenConnector returns a connector, hence a pool, for the DSN (see ParseDSN).
// sql.Open calls it, so an error in a _leakguard key comes from there.
func (d *Driver) OpenConnector(dsn string) (driver.Connector, error) {
	if d == nil {
		return nil, errNilDriver
	}
	cfg, err := ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	cfg.SQLite = d.SQLite
	c, err := newConnector(cfg)
	if err != nil {
		return nil, err
	}
	c.driver = d
	return c, nil
}

// Open opens one connection in a pool of its own, which ends with it.
// database/sql calls OpenConnector instead.
func (d *Driver) Open(dsn string) (driver.Conn, error) {
	connector, err := d.OpenConnector(dsn)
	if err != nil {
		return nil, err
	}
	c := connector.(*Connector)
	conn, err := c.Connect(context.Background())
	// The pool's record goes with its last connection, or now if there is none.
	c.Close()
	return conn, err
}
