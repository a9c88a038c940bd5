package tracker

// Control is how the reaper reaches a driver's connection. No method may wait
// for a statement that runs, and none may keep the connection's driver object
// alive: hold it weakly. Any of them may be called beside another.
type Control interface {
	// Look calls f with the connection's gate held, and returns true, if the
	// gate is free. The driver writes Resource.Use under the same gate.
	Look(f func()) bool
	// Carry carries the order out if the gate is free and, unless the order is
	// absolute, nothing moved since. If the gate is not free, an order that may
	// hit running work condemns the connection and interrupts it; any other is
	// void. ScopeGiveUp opens the database a second time between two crossings of
	// the gate, so it can take as long as the file system does. The reaper calls it
	// on a goroutine of its own, once at a time for each connection, for undoing may
	// take long. The monitor, which releases memory, waits for that.
	Carry(o *Order) Outcome
	// Memory returns the bytes that SQLite holds for the connection, caches,
	// schema and statements together, if the gate is free.
	Memory() (bytes int64, ok bool)
	// TxState returns what SQLite says of the connection's transaction if the
	// gate is free, else TxUnknown.
	TxState() TxState
	// Nudge interrupts a condemned operation once more and returns false when
	// it is over.
	Nudge() bool
}

// DatabaseControl is a Control that can tell more of what SQLite knows. Its methods
// do not wait either.
type DatabaseControl interface {
	Control
	// TxStateOf is TxState of the database with that name in SQL alone.
	TxStateOf(schema string) TxState
	// CacheSize returns what the program lets the connection's page caches hold,
	// by PRAGMA cache_size, in bytes: 0 if it left that to SQLite. ok is false
	// while it cannot be asked.
	CacheSize() (bytes int64, ok bool)
}

// Scope is how much of a connection an order undoes.
type Scope uint8

const (
	// ScopeRows closes the rows Order.Resource.
	ScopeRows Scope = iota
	// ScopeTransaction closes all rows of the connection and rolls back the
	// transaction Order.Resource. An absolute one may hit running work.
	ScopeTransaction
	// ScopeLease closes rows and statements, rolls back, and closes the SQLite
	// handle, if the connection may be closed at all.
	ScopeLease
	// ScopeGiveUp closes a connection that no program can miss, and refreshes any
	// other where it is (see Expiry).
	ScopeGiveUp
	// ScopeRelease gives back the memory of the connection's caches.
	ScopeRelease
	// ScopeProven closes what garbage collection proved to be out of reach
	// while the gate was taken.
	ScopeProven
)

// Order is what the reaper wants done to one connection.
type Order struct {
	Scope Scope
	// Reason is why.
	Reason Reason
	// Word is the generation of the activity word at the time of the decision.
	// The order holds only while it is the same, unless it is Absolute: work
	// that has begun since is not meant.
	Word uint64
	// Absolute says that the order holds whatever has moved since: it means
	// Resource, or nothing that work could be harmed by. One of ScopeTransaction
	// may also hit running work; no other does.
	Absolute bool
	// Resource is the id of the rows or the transaction meant, 0 otherwise.
	Resource uint64
	// Leaks are what the order undoes, the first one being its cause. Empty
	// for ScopeGiveUp and ScopeRelease.
	Leaks []*Leak

	conn    *Conn
	became  Outcome // once it was carried out, for who waits for that
	lease   uint64  // the id of the lease at the decision, 0 in the pool
	targets []target
}

// holds reports whether the order is still to be carried out: the mode may have
// changed since the decision, and then only what the operator asked for is undone.
func (o *Order) holds() bool {
	switch o.Scope {
	case ScopeRows, ScopeTransaction, ScopeLease, ScopeGiveUp:
		return o.Reason == ReasonOperator || o.conn.pool.Mode() == Enforce
	}
	return true
}

// Bare reports whether the order is about a lease that holds nothing: if its
// connection must stay, nothing is undone.
func (o *Order) Bare() bool {
	return len(o.targets) == 1 && o.targets[0].r == &o.conn.lease
}

// target is a resource that an order is about, as it was at the decision.
type target struct {
	r    *Resource
	id   uint64
	uses uint32
}

// Rested reports whether the rows r are those the order means and have not
// been used since the decision. The caller holds the gate.
func (o *Order) Rested(r *Resource) bool {
	return len(o.targets) == 1 && o.targets[0] == target{r, r.id, r.uses}
}

// Outcome is what became of an order.
type Outcome uint8

const (
	// Void: the connection moved on, or the resource is closed.
	Void Outcome = iota
	// Done: it was undone.
	Done
	// Condemned: the owner will carry it out and call Conn.Settle.
	Condemned
	// Refreshed: the connection given up stays open, and was refreshed.
	Refreshed
)
