package tracker

import "fmt"

// File says which database file a connection has open. The zero File stands
// for a database in memory, a temporary one, or an unknown one.
type File struct {
	// Path is absolute, as SQLite reports it.
	Path string
	// Device and Inode identify the file where the system has them; two paths
	// may lead to one file.
	Device, Inode uint64
	// Cache names the cache that the connection shares with others, empty if it
	// has its own. A database in memory may have one, too.
	Cache string
}

// Same reports whether f and g are one file.
func (f File) Same(g File) bool {
	if f.Inode != 0 && g.Inode != 0 {
		return f.Device == g.Device && f.Inode == g.Inode
	}
	return f.Path != "" && f.Path == g.Path
}

// TxState is what SQLite says of a connection's transaction, see
// https://www.sqlite.org/c3ref/txn_state.html.
type TxState uint8

const (
	// TxUnknown: an operation is inside SQLite, or the binary cannot tell.
	TxUnknown TxState = iota
	// TxNone: no lock is held.
	TxNone
	// TxRead: a snapshot is read. It keeps the WAL from being reset.
	TxRead
	// TxWrite: the write lock is held.
	TxWrite
)

var txStateNames = [...]string{"unknown", "none", "read", "write"}

// String returns "unknown", "none", "read" or "write", and for what is no state
// its number: "TxState(9)".
func (s TxState) String() string {
	if int(s) < len(txStateNames) {
		return txStateNames[s]
	}
	return fmt.Sprintf("TxState(%d)", uint8(s))
}

// MarshalText spells the state as String does; what is no state is an error.
func (s TxState) MarshalText() ([]byte, error) {
	if int(s) >= len(txStateNames) {
		return nil, fmt.Errorf("unknown transaction state %d", uint8(s))
	}
	return []byte(txStateNames[s]), nil
}
