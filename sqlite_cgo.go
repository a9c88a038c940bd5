//go:build cgo

package leakguard

import (
	"strings"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// nameTaken reports whether go-sqlite3 has taken a name that it was not given.
// With cgo it takes none.
func nameTaken(string) bool { return false }

// codeError returns go-sqlite3's error for an extended result code.
func codeError(code int) error {
	return sqlite3.Error{Code: sqlite3.ErrNo(code & 0xff), ExtendedCode: sqlite3.ErrNoExtended(code)}
}

// isCode reports whether err is go-sqlite3's for the result code, extended or not.
func isCode(err error, code int) bool {
	e, ok := err.(sqlite3.Error)
	return ok && (int(e.ExtendedCode) == code || int(e.Code) == code&0xff)
}

// timeLayouts are go-sqlite3's; a program may change them.
func timeLayouts() []string { return sqlite3.SQLiteTimestampFormats }

// rowsOf returns go-sqlite3's rows of a statement, which can tell the types of its
// columns and nothing else; nil if that cannot be made.
func rowsOf(stmt sqliteStmt) sqliteRows {
	rows := &sqlite3.SQLiteRows{}
	if !capi.SetStmt(rows, stmt) {
		return nil
	}
	return rows
}

// textResult is the result of a text that changed nothing.
func textResult() *sqlite3.SQLiteResult { return &sqlite3.SQLiteResult{} }

// blockedBy returns why an operation could not go on for somebody else's sake,
// "" for any other error. own: it was the connection's own doing, as far as
// SQLite tells. See https://www.sqlite.org/rescode.html#locked.
func blockedBy(err error) (reason tracker.Reason, own bool) {
	e, ok := err.(sqlite3.Error)
	switch {
	case !ok:
	case e.ExtendedCode == sqlite3.ErrBusySnapshot:
		return tracker.ReasonBusySnapshot, true
	case e.Code == sqlite3.ErrBusy:
		return tracker.ReasonBusy, strings.Contains(e.Error(), "SQL statements in progress")
	case e.Code == sqlite3.ErrLocked:
		shared := e.ExtendedCode == sqlite3.ErrLockedSharedCache || strings.Contains(e.Error(), "schema is locked")
		return tracker.ReasonLocked, !shared
	}
	return "", false
}

// rollsBack reports whether SQLite rolls a transaction back for the result code; not
// each time it returns it. See
// https://www.sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction
// and, for constraints, https://www.sqlite.org/lang_conflict.html. SQLITE_BUSY, which
// the former names, is left out: a statement that finds a lock taken leaves its
// transaction open, and a BEGIN of the program's own may well be the last to fail so.
func rollsBack(code int) bool {
	switch sqlite3.ErrNo(code & 0xff) {
	case sqlite3.ErrFull, sqlite3.ErrIoErr, sqlite3.ErrNomem, sqlite3.ErrInterrupt, sqlite3.ErrCorrupt, sqlite3.ErrConstraint:
		return true
	}
	return false
}

func isConstraint(code int) bool { return sqlite3.ErrNo(code&0xff) == sqlite3.ErrConstraint }

// gaveUp reports whether SQLite returned early: interrupted, or its busy
// handler was told not to wait.
func gaveUp(err error) bool {
	e, ok := err.(sqlite3.Error)
	return ok && (e.Code == sqlite3.ErrInterrupt || e.Code == sqlite3.ErrBusy)
}
