//go:build !cgo

package capi

import (
	"time"
	"unsafe"
)

// Without cgo there is no SQLite to ask. connOf never returns a handle, so the
// others are not reached; they exist to compile.

func connOf(any) Conn                 { return Conn{} }
func handleOfStmt(any) unsafe.Pointer { return nil }

func interrupt(unsafe.Pointer)                                {}
func autocommit(unsafe.Pointer) (on, ok bool)                 { return false, false }
func txnState(unsafe.Pointer) (TxnState, bool)                { return TxnNone, false }
func openStatements(unsafe.Pointer) (open, busy int, ok bool) { return 0, 0, false }
func busySQL(unsafe.Pointer) (string, bool)                   { return "", false }
func tryMemory(unsafe.Pointer, bool) (int64, bool)            { return 0, false }
func memoryUsed() (int64, bool)                               { return 0, false }
func tryReleaseMemory(unsafe.Pointer) bool                    { return false }
func filename(unsafe.Pointer) (string, bool)                  { return "", false }
func trim()                                                   {}
func columns(unsafe.Pointer) int                              { return 0 }
func reset(unsafe.Pointer) int                                { return 0 }
func stmtReadOnly(unsafe.Pointer) (readOnly, ok bool)         { return false, false }
func statementEnd(unsafe.Pointer, string) (int, int, bool)    { return 0, 0, false }
func missing() []string                                       { return []string{"cgo"} }

var waiting = new([2]int32)

func newWait(unsafe.Pointer, FileID, int) unsafe.Pointer { return nil }
func waitNext(unsafe.Pointer)                            {}
func waitBusy(_, _ unsafe.Pointer, _ int)                {}
func waitDefault(_, _ unsafe.Pointer)                    {}
func waitProgress(_, _ unsafe.Pointer, _ bool)           {}
func waitRetire(_, _ unsafe.Pointer)                     {}
func waitUp(unsafe.Pointer)                              {}
func waitFree(unsafe.Pointer)                            {}

func history(unsafe.Pointer) (History, bool)          { return History{}, false }
func readOnlyMain(unsafe.Pointer) (readOnly, ok bool) { return false, false }
func reopens(string, bool) (path string, ok bool)     { return "", false }

func canRun() bool               { return false }
func (c *Cursor) exec(*Args) int { return Unbound }

// Query is not called: NewCursor returned nil, Init false.
func (c *Cursor) Query(*Args) (code int, fresh bool) { return Unbound, false }
func (c *Cursor) runOnce(bool) int                   { return Unbound }
func (c *Cursor) readRow()                           {}
func (c *Cursor) step() int                          { return Unbound }
func (c *Cursor) reset() int                         { return OK }
func (c *Cursor) columnName(int) string              { return "" }
func (c *Cursor) columnType(int) string              { return "" }

func setStmt(any, any) bool                      { return false }
func monotonic() (int64, bool)                   { return 0, false }
func location(any) (loc *time.Location, ok bool) { return nil, false }

func databases(unsafe.Pointer) ([]Database, bool)         { return nil, false }
func tryTxnState(unsafe.Pointer, string) (TxnState, bool) { return TxnNone, false }
func tryLockState(unsafe.Pointer, string) int             { return -1 }
func dataVersion(unsafe.Pointer, string) (uint32, bool)   { return 0, false }
func lastError(unsafe.Pointer) int                        { return 0 }
func tryCacheSize(unsafe.Pointer) (int64, bool)           { return 0, false }
