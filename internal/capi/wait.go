package capi

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Wait is a flag in C memory that a connection's busy handler and progress
// handler look at, so that an operation can be told to give up where
// sqlite3_interrupt does not reach it: while it waits for a lock, and beside
// other statements that must go on. The zero Wait does nothing.
type Wait struct{ p unsafe.Pointer }

// NewWait returns a flag for the connection, the zero Wait if SQLite or cgo is
// not there. Free it after the connection was closed. With a timeout it does what
// Busy does.
func NewWait(d DB, timeout time.Duration) Wait {
	if d.p == nil {
		return Wait{}
	}
	return Wait{newWait(d.p, int(max(timeout, 0).Milliseconds()))}
}

// OK reports whether there is a flag.
func (w Wait) OK() bool { return w.p != nil }

// Stop tells the operation in flight to give up, or takes that back. It is one
// store and may be called from any goroutine until Free.
func (w Wait) Stop(on bool) {
	if w.p == nil {
		return
	}
	var v int32
	if on {
		v = 1
	}
	atomic.StoreInt32((*int32)(w.p), v) // capi_wait begins with it
}

// Busy installs a busy handler that waits for timeout in total, as
// sqlite3_busy_timeout does, but looks again sooner, and gives up when the flag
// is set. The wait then fails with SQLITE_BUSY. Like sqlite3_busy_handler it
// makes PRAGMA busy_timeout read 0.
//
// https://www.sqlite.org/c3ref/busy_handler.html
func (w Wait) Busy(timeout time.Duration) {
	if w.p != nil {
		waitBusy(w.p, int(timeout.Milliseconds()))
	}
}

// Default gives the connection SQLite's own busy handler back, with the timeout
// that Busy was given, so that PRAGMA busy_timeout reads and writes it.
//
// https://www.sqlite.org/c3ref/busy_timeout.html
func (w Wait) Default() {
	if w.p != nil {
		waitDefault(w.p)
	}
}

// Progress installs, or removes, a progress handler that stops the running
// statement when the flag is set: only that one, where Interrupt stops all that
// are active. It is asked every thousand instructions of SQLite's machine, so a
// single long instruction (the count(*) of a table) goes on.
//
// https://www.sqlite.org/c3ref/progress_handler.html
func (w Wait) Progress(on bool) {
	if w.p != nil {
		waitProgress(w.p, on)
	}
}

// Free returns the memory. Nothing may use the flag any more.
func (w Wait) Free() {
	if w.p != nil {
		waitFree(w.p)
	}
}
