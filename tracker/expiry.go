package tracker

import "fmt"

// Expiry says what becomes of a connection that a limit gives up: max_lifetime,
// max_idle, max_access, conn_memory or pressure.
type Expiry uint8

const (
	// Refresh closes only what a program cannot tell from a new one: a connection
	// that sits in the pool beside another one, where none that sits there has a
	// history that SQL can read (total_changes(), changes() and
	// last_insert_rowid() are 0, and no text asked for PRAGMA data_version) or
	// session state, and whose file has a write-ahead log, is still what the DSN
	// names and can be opened again. Every other one is
	// refreshed where it is: the statements that the guard keeps prepared are
	// finalized and, but for max_access, its caches released. The default.
	Refresh Expiry = iota
	// Close closes every connection in the pool that carries no session state
	// and whose file can be opened again. A program that reads
	// last_insert_rowid(), changes(), total_changes() or PRAGMA data_version by
	// a statement of its own can then get another connection's answer, the last
	// close of a file tears its write-ahead log down, and the next use of the
	// pool has to open the file.
	Close
)

var expiryNames = [...]string{Refresh: "refresh", Close: "close"}

// String returns "refresh" or "close".
func (e Expiry) String() string {
	if int(e) < len(expiryNames) {
		return expiryNames[e]
	}
	return fmt.Sprintf("Expiry(%d)", uint8(e))
}

// MarshalText spells the value as the DSN does.
func (e Expiry) MarshalText() ([]byte, error) {
	if int(e) >= len(expiryNames) {
		return nil, fmt.Errorf("unknown expiry %d", uint8(e))
	}
	return []byte(expiryNames[e]), nil
}

// UnmarshalText accepts "refresh" and "close".
func (e *Expiry) UnmarshalText(text []byte) error {
	for i, name := range expiryNames {
		if string(text) == name {
			*e = Expiry(i)
			return nil
		}
	}
	return fmt.Errorf("unknown expiry %q: want refresh or close", text)
}
