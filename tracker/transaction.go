package tracker

// BeginTx records that a transaction began and returns its id; level 1 is the
// transaction itself.
func (c *Conn) BeginTx(query, exempt string) uint64 {
	id := c.BeganTx(query, exempt)
	c.Recorded()
	return id
}

// BeganTx is BeginTx, and leaves the record open.
func (c *Conn) BeganTx(query, exempt string) uint64 {
	c.said = query
	c.Record()
	c.query = query
	c.open(&c.tx, query, exempt)
	c.stamp(&c.tx)
	c.tx.level = 1
	return c.tx.id
}

// TxOfLease gives the open transaction the lease's call stack: it was begun on the
// real connection, and what is known of that is who took it.
func (c *Conn) TxOfLease() {
	c.Record()
	if c.leased {
		c.tx.stack = c.lease.stack
	}
	c.Recorded()
}

// SetLevel records the transaction's depth: 1 more for each savepoint.
func (c *Conn) SetLevel(level int) {
	c.Record()
	c.tx.level = int32(level)
	c.Recorded()
}

// EndTx records that the transaction is over.
func (c *Conn) EndTx() {
	c.EndedTx()
	c.Recorded()
}

// EndedTx is EndTx, and leaves the record open.
func (c *Conn) EndedTx() {
	c.Record()
	if leak := c.closeLocked(&c.tx); leak != nil {
		c.settle(EventRecovered, leak)
	}
}

// Transaction returns the id of the open transaction, 0 if there is none.
func (c *Conn) Transaction() uint64 {
	c.lock()
	defer c.unlock()
	return c.tx.id
}

// TryTransaction is Transaction for those who must not wait: ok is false while
// somebody writes or reads the record.
func (c *Conn) TryTransaction() (id uint64, ok bool) {
	if !c.tryLock() {
		return 0, false
	}
	defer c.unlock()
	return c.tx.id, true
}
