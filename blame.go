package leakguard

import (
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// blame tells who was in the way of an operation that is over with err. It is
// called outside the gate, and only with an error.
func (c *conn) blame(err error) {
	if reason, own := blockedBy(err); reason != "" {
		c.rec.Blocked(reason, own)
	}
}

var txStates = map[capi.TxnState]tracker.TxState{
	capi.TxnNone: tracker.TxNone, capi.TxnRead: tracker.TxRead, capi.TxnWrite: tracker.TxWrite,
}

// TxState returns the state of the transaction if the gate is free.
func (k control) TxState() tracker.TxState { return k.TxStateOf("") }

// TxStateOf returns the state of the transaction in one database, in all with "", if
// the gate is free and nobody is inside SQLite beside it: a program may use a
// connection that it has seen in a ConnectHook or by Raw whenever it likes.
func (k control) TxStateOf(schema string) tracker.TxState {
	return k.state(func(c *conn) (capi.TxnState, bool) { return c.db().TryTxnState(schema) })
}

// KeptLock returns which lock the connection keeps on a database's file without a
// transaction. That of a shared cache may be another connection's.
func (k control) KeptLock(schema string) tracker.TxState {
	return k.state(func(c *conn) (capi.TxnState, bool) {
		kept, ok := c.db().TryKeptLock(schema)
		return kept, ok && c.gate.Shared() == nil
	})
}

func (k control) state(ask func(c *conn) (capi.TxnState, bool)) tracker.TxState {
	c := k.conn.Value()
	if c == nil || !c.gate.Try() {
		return tracker.TxUnknown
	}
	defer c.gate.Release()
	if c.gate.Has(gate.Dead) {
		return tracker.TxNone
	}
	if c.raw.Load() { // the program may be inside SQLite beside the gate
		return tracker.TxUnknown
	}
	state, ok := ask(c)
	if !ok {
		return tracker.TxUnknown
	}
	return txStates[state]
}

// listAttached tells which databases are attached by now. The connection is inside
// the gate.
func (c *conn) listAttached() {
	all, ok := c.db().Databases()
	if !ok {
		return
	}
	var attached []tracker.Attached
	for _, d := range all {
		if d.Schema == "main" || d.Schema == "temp" || d.Path == "" {
			continue // nobody else reaches one in memory
		}
		cache := ""
		if c.gate.Shared() != nil { // attached ones are as the first
			cache = d.Path
		}
		attached = append(attached, tracker.Attached{Schema: d.Schema, File: identify(d.Path).describe(d.Path, cache)})
	}
	if len(attached) > 0 || c.session.listed {
		c.session.listed = len(attached) > 0
		c.rec.Attached(attached)
	}
}

// leftBehind tells what the lease that had the raw connection leaves open on it.
func (c *conn) leftBehind() {
	state, query := tracker.TxUnknown, ""
	if now, ok := c.db().TryTxnState(""); ok {
		switch {
		case now == capi.TxnNone:
			state = tracker.TxNone
		case !c.txn.open && len(c.rows) == 0: // else SQLite speaks of what is known
			state, c.remains = txStates[now], true
			query, _ = c.db().BusySQL()
		}
	}
	c.rec.TakenBack(state, query)
}

// stillLeft looks, at check-out, whether what was left behind is over by now: nobody
// tells, and what the lease that begins holds is its own.
func (c *conn) stillLeft() {
	if now, ok := c.db().TryTxnState(""); ok && now == capi.TxnNone {
		c.remains = false
		c.rec.NothingLeft()
	}
}
