package leakguard

import "github.com/sqlite-leakguard/sqlite-leakguard/tracker"

// Provable reports whether the connection has rows that nothing but the program holds.
// database/sql holds those whose context can be cancelled, which it waits for, and all
// of a sql.Tx, whose context always can.
func (k control) Provable() (yes bool) {
	c := k.conn.Value()
	if c == nil || !c.gate.Try() {
		return false
	}
	if c.wait.OK() { // else go-sqlite3 watches, and what is not known here may be watched
		for _, st := range c.rows {
			yes = yes || st.ctx == nil && st.tx == 0
		}
	}
	c.gate.Release()
	return yes
}

var _ tracker.ProofControl = control{}
