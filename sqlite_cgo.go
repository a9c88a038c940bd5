//go:build cgo

package leakguard

import (
	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// codeError returns go-sqlite3's error for an extended result code.
func codeError(code int) error {
	return sqlite3.Error{Code: sqlite3.ErrNo(code & 0xff), ExtendedCode: sqlite3.ErrNoExtended(code)}
}

// textResult is the result of a text that changed nothing.
func textResult() *sqlite3.SQLiteResult { return &sqlite3.SQLiteResult{} }

// blockedBy returns why an operation could not go on for somebody else's sake,
// "" for any other error.
func blockedBy(err error) tracker.Reason {
	e, ok := err.(sqlite3.Error)
	switch {
	case !ok:
	case e.ExtendedCode == sqlite3.ErrBusySnapshot:
		return tracker.ReasonBusySnapshot
	case e.Code == sqlite3.ErrBusy:
		return tracker.ReasonBusy
	case e.Code == sqlite3.ErrLocked:
		return tracker.ReasonLocked
	}
	return ""
}

// gaveUp reports whether SQLite returned early: interrupted, or its busy
// handler was told not to wait.
func gaveUp(err error) bool {
	e, ok := err.(sqlite3.Error)
	return ok && (e.Code == sqlite3.ErrInterrupt || e.Code == sqlite3.ErrBusy)
}
