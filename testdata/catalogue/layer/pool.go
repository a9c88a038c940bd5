package layer

import (
	"context"
	"database/sql/driver"
	"io"
	"sync"
)

// Connector notes the connections that it opens.
type Connector struct {
	driver.Connector

	mu     sync.Mutex
	opened []driver.Conn
}

// Connect opens a connection.
func (c *Connector) Connect(ctx context.Context) (driver.Conn, error) {
	opened, err := c.Connector.Connect(ctx)
	if err == nil {
		c.mu.Lock()
		c.opened = append(c.opened, opened)
		c.mu.Unlock()
	}
	return opened, err
}

// Close closes the connector.
func (c *Connector) Close() error { return c.Connector.(io.Closer).Close() }

// GiveUp closes all connections, whoever has them.
func (c *Connector) GiveUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, opened := range c.opened {
		opened.Close()
	}
}
