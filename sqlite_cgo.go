//go:build cgo

package leakguard

import "github.com/mattn/go-sqlite3"

// codeError returns go-sqlite3's error for an extended result code.
func codeError(code int) error {
	return sqlite3.Error{Code: sqlite3.ErrNo(code & 0xff), ExtendedCode: sqlite3.ErrNoExtended(code)}
}

// textResult is the result of a text that changed nothing.
func textResult() *sqlite3.SQLiteResult { return &sqlite3.SQLiteResult{} }

// gaveUp reports whether SQLite returned early: interrupted, or its busy
// handler was told not to wait.
func gaveUp(err error) bool {
	e, ok := err.(sqlite3.Error)
	return ok && (e.Code == sqlite3.ErrInterrupt || e.Code == sqlite3.ErrBusy)
}
