package leakguard

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"
)

// registered numbers the drivers that tests register: a name is taken for good.
var registered atomic.Int64

// Two drivers with hooks of their own in one process: each one's connections
// have its hooks and no others, and their DSNs have the guard's keys.
func TestDriversWithHooks(t *testing.T) {
	t.Parallel()
	type side struct {
		name   string
		driver *Driver
		hooked atomic.Int64
	}
	var sides [2]*side
	for i := range sides {
		s := &side{name: fmt.Sprintf("hooked-%d", registered.Add(1))}
		s.driver = &Driver{SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
			s.hooked.Add(1)
			return c.RegisterFunc("whose", func() string { return s.name }, true)
		}}}
		sql.Register(s.name, s.driver)
		sides[i] = s
	}
	const whose = "SELECT whose()"
	for i, s := range sides {
		dsn := fileDSN(t, "_leakguard_tx_timeout=7m", "_leakguard_name="+s.name)
		db, err := sql.Open(s.name, dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if d := db.Driver(); d != s.driver {
			t.Errorf("%s: the pool's driver is %v, want the one that was registered", s.name, d)
		}
		var got string
		if err := db.QueryRow(whose).Scan(&got); err != nil || got != s.name {
			t.Errorf("%s: %q, %v", s.name, got, err)
		}
		if n, other := s.hooked.Load(), sides[1-i].hooked.Load(); n != 1 || other != int64(i) {
			t.Errorf("%s: its hook was called %d times, the other's %d", s.name, n, other)
		}
		s.hooked.Store(1)

		connector, err := s.driver.OpenConnector(dsn)
		if err != nil {
			t.Fatal(err)
		}
		c := connector.(*Connector)
		if c.Driver() != driver.Driver(s.driver) || c.pool.Policy().TxTimeout != 7*time.Minute || !strings.HasPrefix(c.pool.Name(), s.name) {
			t.Errorf("%s: %v, %v, %s", s.name, c.Driver(), c.pool.Policy().TxTimeout, c.pool.Name())
		}
		c.Close()
	}
	db, err := sql.Open("sqlite-leakguard", fileDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRow(whose).Scan(new(string)); err == nil || !strings.Contains(err.Error(), "no such function: whose") {
		t.Errorf("the driver without hooks: %v", err)
	}

	// In mode off, and opened one by one.
	s := sides[0]
	for _, dsn := range []string{":memory:?_leakguard=off", ":memory:"} {
		before := s.hooked.Load()
		c, err := s.driver.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if n := s.hooked.Load() - before; n != 1 {
			t.Errorf("%s: the hook was called %d times", dsn, n)
		}
		c.Close()
	}
}

// What opens more connections by a connector's Driver gets its hooks too.
func TestDriverOfConnector(t *testing.T) {
	t.Parallel()
	sqlite := &sqlite3.SQLiteDriver{}
	for _, want := range []*sqlite3.SQLiteDriver{nil, sqlite} {
		c, err := NewConnector(Config{DSN: fileDSN(t), SQLite: want})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if d := c.Driver().(*Driver); d.SQLite != want {
			t.Errorf("the Driver's SQLite is %p, want %p", d.SQLite, want)
		}
	}
	c, err := (&Driver{}).OpenConnector(fileDSN(t))
	if err != nil {
		t.Fatal(err)
	}
	c.(*Connector).Close()
	if d := c.Driver().(*Driver); d == unnamed || d.SQLite != nil {
		t.Errorf("the Driver of an empty one is %v", d)
	}
}
