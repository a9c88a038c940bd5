package tracker

import "github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"

// Attached is a database that a connection has open beside its main one, see
// https://www.sqlite.org/lang_attach.html.
type Attached struct {
	Schema string // the name that SQL has for it
	File   File
}

// openFile is a database of a connection.
type openFile struct {
	Attached
	at *callstack.Stack // where it was attached, nil for the main one
}

// mainSchema is SQLite's name for the database that the connection was opened with.
const mainSchema = "main"

// more is what few connections have.
type more struct {
	// left is what a lease with the real connection left behind: its id is 0 if
	// nothing is known to be. Guarded as Conn.lease is. Nil: there was none.
	left *Resource

	// Guarded by Tracker.mu.
	attached []openFile // beside the main file
	logs     []*walLog  // of those that are not the main file, once it is registered
	keeps    *keeps     // see KeepsLocks
}

// moreLocked returns what more the connection has, to be changed. Tracker.mu and
// Conn.mu are held.
func (c *Conn) moreLocked() *more {
	if c.more == nil {
		c.more = new(more)
	}
	return c.more
}

// attachedLocked returns the databases beside the main one. Tracker.mu is held.
func (c *Conn) attachedLocked() []openFile {
	if c.more == nil {
		return nil
	}
	return c.more.attached
}

// Attached records which databases the connection has attached by now, all of them.
// The driver calls it from the owner's call that changed them, or behind the lease
// that had the real connection.
func (c *Conn) Attached(all []Attached) {
	t := c.pool.tracker
	var at *callstack.Stack
	c.lock()
	if c.raw {
		at = c.lease.stack
	}
	c.unlock()
	if at == nil && c.pool.stacks {
		at = callstack.Capture(nil)
	}
	var f findings
	t.mu.Lock()
	c.lock()
	was, m := c.attachedLocked(), c.moreLocked()
	c.unlock()
	m.attached = nil
	for _, a := range all {
		one := openFile{a, at}
		for _, w := range was {
			if w.Attached == a {
				one.at = w.at
			}
		}
		m.attached = append(m.attached, one)
	}
	if c.control != nil { // else Register does it
		t.wals.detach(c)
		t.wals.attach(c)
	}
	for _, w := range was {
		if len(c.hasLocked(w.File)) == 0 {
			c.unpin(&f, w.File) // it cannot be read any more
		}
	}
	t.mu.Unlock()
	for _, n := range f.news {
		c.settle(n.typ, n.leak)
	}
}

// keeps says that a connection keeps its locks, and who wanted that.
type keeps struct{ at *callstack.Stack }

// KeepsLocks records that the connection keeps the locks that it took when its
// transactions are over (https://www.sqlite.org/pragma.html#pragma_locking_mode), or
// that it does not any more. Before Register it is the pool's doing.
func (c *Conn) KeepsLocks(on bool) {
	t := c.pool.tracker
	k := &keeps{c.pool.stack}
	if on && c.control != nil && c.pool.stacks {
		k.at = callstack.Capture(nil)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c.lock()
	m := c.moreLocked()
	c.unlock()
	if m.keeps = nil; on {
		m.keeps = k
	}
}

// filesLocked returns the databases of the connection, the main one first. Tracker.mu
// is held.
func (c *Conn) filesLocked() []openFile {
	return append([]openFile{{Attached: Attached{mainSchema, c.file}}}, c.attachedLocked()...)
}

// hasLocked returns the schemas by which the connection has the file open. Tracker.mu
// is held.
func (c *Conn) hasLocked(file File) (schemas []string) {
	if c.file.Same(file) {
		schemas = append(schemas, mainSchema)
	}
	for _, a := range c.attachedLocked() {
		if a.File.Same(file) {
			schemas = append(schemas, a.Schema)
		}
	}
	return schemas
}

// txState returns what SQLite says of the transaction in these databases of the
// connection, the furthest it has gone in any; without any in all.
func (c *Conn) txState(schemas ...string) TxState {
	t := c.pool.tracker
	t.asking.Lock()
	defer t.asking.Unlock()
	k, ok := c.control.(DatabaseControl)
	if !ok || len(schemas) == 0 {
		return c.control.TxState()
	}
	most := TxUnknown
	for _, s := range schemas {
		state := k.TxStateOf(s)
		if state == TxUnknown {
			return TxUnknown
		}
		most = max(most, state)
	}
	return most
}

// keepsLock returns who had the connection keep a lock on the file without a
// transaction, nil if it does not. A PRAGMA that went past the guard, in a ConnectHook
// or on the real connection, is known by its effect alone; and a lock stays until the
// file is used next, also when the PRAGMA was taken back.
func (w *inTheWay) keepsLock() *keeps {
	k, ok := w.conn.control.(interface{ KeptLock(schema string) TxState })
	if !ok {
		return w.keeps
	}
	t := w.conn.pool.tracker
	t.asking.Lock()
	kept := k.KeptLock(w.file.Schema)
	t.asking.Unlock()
	switch {
	case kept == TxNone:
		return nil
	case w.keeps == nil && (kept == TxWrite || kept == TxRead && !hasWAL(w.file.File.Path)):
		return new(keeps)
	}
	return w.keeps
}
