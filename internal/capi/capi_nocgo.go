//go:build !cgo

package capi

import (
	"time"
	"unsafe"
)

// Without cgo there is no SQLite to ask. handle never returns a handle, so the
// others are not reached; they exist to compile.

func handle(any, string, string) unsafe.Pointer { return nil }

func interrupt(unsafe.Pointer)                                {}
func autocommit(unsafe.Pointer) (on, ok bool)                 { return false, false }
func txnState(unsafe.Pointer) (TxnState, bool)                { return TxnNone, false }
func openStatements(unsafe.Pointer) (open, busy int, ok bool) { return 0, 0, false }
func busySQL(unsafe.Pointer) (string, bool)                   { return "", false }
func memory(unsafe.Pointer, bool) (int64, bool)               { return 0, false }
func memoryUsed() (int64, bool)                               { return 0, false }
func releaseMemory(unsafe.Pointer)                            {}
func trim()                                                   {}
func columns(unsafe.Pointer) int                              { return 0 }
func reset(unsafe.Pointer) int                                { return 0 }
func runOnce(unsafe.Pointer) (code int, ok bool)              { return 0, false }
func stmtReadOnly(unsafe.Pointer) (readOnly, ok bool)         { return false, false }
func statementEnd(unsafe.Pointer, string) (int, int, bool)    { return 0, 0, false }
func missing() []string                                       { return []string{"cgo"} }

func newWait(unsafe.Pointer) unsafe.Pointer { return nil }
func waitBusy(unsafe.Pointer, int)          {}
func waitDefault(unsafe.Pointer)            {}
func waitProgress(unsafe.Pointer, bool)     {}
func waitFree(unsafe.Pointer)               {}

func forget(any) {}

func canRun() bool                   { return false }
func cursorExec(*Cursor, *Args) int  { return Unbound }
func cursorQuery(*Cursor, *Args) int { return Unbound }
func cursorRow(*Cursor)              {}
func cursorStep(*Cursor) int         { return Unbound }
func cursorReset(*Cursor) int        { return OK }
func cursorName(*Cursor, int) string { return "" }
func cursorType(*Cursor, int) string { return "" }

func setStmt(any, any) bool                      { return false }
func location(any) (loc *time.Location, ok bool) { return nil, false }
