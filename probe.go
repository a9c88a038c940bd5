package leakguard

import (
	"database/sql"
	"database/sql/driver"
	"sync"
	"sync/atomic"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// probe finds the connector of a sql.DB, which does not tell it: but sql.DB.Driver asks
// the connector for its driver.
type probe struct {
	mu     sync.Mutex // one sql.DB at a time
	asking atomic.Bool
	found  *Connector // guarded by mu: the one who asks and who answers are one goroutine
}

var theProbe probe

// connectorOf returns the connector of db, nil if it is not the guard's, and db's driver.
func (p *probe) connectorOf(db *sql.DB) (*Connector, driver.Driver) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asking.Store(true)
	defer p.asking.Store(false)
	p.found = nil
	d := db.Driver()
	c := p.found
	p.found = nil
	return c, d
}

// answer notes the connector if it is asked by connectorOf: others may ask another
// connector at the same moment.
func (p *probe) answer(c *Connector) {
	if p.asking.Load() && callstack.Capture(nil).Calls(probeFunction) {
		p.found = c
	}
}

const probeFunction = "github.com/sqlite-leakguard/sqlite-leakguard.(*probe).connectorOf"
