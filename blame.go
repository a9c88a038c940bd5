package leakguard

import (
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
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
func (k control) TxState() tracker.TxState {
	c := k.conn.Value()
	if c == nil || !c.gate.try() {
		return tracker.TxUnknown
	}
	defer c.gate.release()
	if c.gate.word.Load()&dead != 0 {
		return tracker.TxNone
	}
	if c.raw.Load() { // the program may be inside SQLite beside the gate
		return tracker.TxUnknown
	}
	state, ok := c.db().TxnState()
	if !ok {
		return tracker.TxUnknown
	}
	return txStates[state]
}
