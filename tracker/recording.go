package tracker

// lock keeps the owner from writing the connection's record, and other readers out. Who
// holds it may write, too.
func (c *Conn) lock() {
	c.mu.Lock()
	c.word.Read()
}

// tryLock is lock for those who must not wait for the owner.
func (c *Conn) tryLock() bool {
	if !c.mu.TryLock() {
		return false
	}
	if c.word.TryRead() {
		return true
	}
	c.mu.Unlock()
	return false
}

func (c *Conn) unlock() {
	c.word.EndRead()
	c.mu.Unlock()
}

// Record begins writing: CheckOut, CheckIn, OpenRows and CloseResource come
// between it and Recorded. The caller is inside the driver's gate. BeganTx and
// EndedTx begin by themselves.
func (c *Conn) Record() { c.word.Record() }

// Recorded ends writing. Leaving the gate does so as well.
func (c *Conn) Recorded() { c.word.Recorded() }
