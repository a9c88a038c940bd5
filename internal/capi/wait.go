package capi

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// Wait is a flag in C memory that a connection's busy handler and progress
// handler look at, so that an operation can be told to give up where
// sqlite3_interrupt does not reach it: while it waits for a lock, and beside
// other statements that must go on. The zero Wait does nothing, and nothing is done
// for the zero DB: a connection that was closed.
type Wait struct{ p unsafe.Pointer } // a capi_wait

// FileID says which file a connection waits for, by what the system numbers files
// with. The zero FileID is one that is not known.
type FileID struct{ Device, Inode uint64 }

// NewWait returns a flag for the connection, the zero Wait if SQLite or cgo is
// not there. Before the connection is closed comes Retire, and Free after. With a
// timeout it does what Busy does. file is its database's: connections of one file
// wait in turn.
func NewWait(d DB, file FileID, timeout time.Duration) Wait {
	if d.p == nil {
		return Wait{}
	}
	return Wait{newWait(d.p, file, int(max(timeout, 0).Milliseconds()))}
}

// OK reports whether there is a flag.
func (w Wait) OK() bool { return w.p != nil }

// Stop tells the operation in flight to give up, or takes that back; one that
// sleeps for a lock is woken. It waits for nothing and may be called from any
// goroutine until Free.
func (w Wait) Stop(on bool) {
	if w.p == nil {
		return
	}
	var v int32
	if on {
		v = 1
	}
	flags := (*[2]int32)(w.p) // capi_wait begins with stop and asleep, timeout and took
	atomic.StoreInt32(&flags[0], v)
	// In this order: capi_sleep says that it sleeps first and looks at stop then.
	if on && atomic.LoadInt32(&flags[1]) != 0 {
		waitUp(w.p)
	}
}

// Asleep reports whether the operation in flight sleeps for a lock. It may be called
// as Stop may, and is always false on Windows and where SQLite waits by itself.
func (w Wait) Asleep() bool {
	return w.p != nil && atomic.LoadInt32(&(*[2]int32)(w.p)[1]) != 0
}

// Released says that the connection may have given back a lock of its file: of
// the connections that sleep for one, the one that has waited longest tries at
// once. If nobody sleeps for any file it costs one load.
func (w Wait) Released() {
	if atomic.LoadInt32(&waiting[0]) != 0 && w.p != nil {
		waitNext(w.p)
	}
}

// Busy installs a busy handler that waits for timeout in total, as
// sqlite3_busy_timeout does, and gives up when the flag is set. The wait then
// fails with SQLITE_BUSY. At any age of a wait it looks at least as often as
// SQLite's own, and sooner when that is its turn: together, the connections that
// wait for one file look each 0.1 to 2 ms, and each 5 ms after a third of a second.
// Like sqlite3_busy_handler it makes PRAGMA busy_timeout read 0.
//
// https://www.sqlite.org/c3ref/busy_handler.html
func (w Wait) Busy(d DB, timeout time.Duration) {
	if w.p != nil && d.p != nil {
		waitBusy(w.p, d.p, int(timeout.Milliseconds()))
	}
}

// Default gives the connection SQLite's own busy handler back, with the timeout
// that Busy was given, so that PRAGMA busy_timeout reads and writes it.
//
// https://www.sqlite.org/c3ref/busy_timeout.html
func (w Wait) Default(d DB) {
	if w.p != nil && d.p != nil {
		waitDefault(w.p, d.p)
	}
}

// Progress installs, or removes, a progress handler that stops the running
// statement when the flag is set: only that one, where Interrupt stops all that
// are active. It is asked every thousand instructions of SQLite's machine, so a
// single long instruction (the count(*) of a table) goes on.
//
// https://www.sqlite.org/c3ref/progress_handler.html
func (w Wait) Progress(d DB, on bool) {
	if w.p != nil && d.p != nil {
		waitProgress(w.p, d.p, on)
	}
}

// Retire takes the handlers off a connection that is about to be closed, and gives it
// SQLite's own busy handler back if Busy had taken its place: statements that somebody
// else has prepared keep the closed connection as a zombie, which goes on to call them.
//
// https://www.sqlite.org/c3ref/close.html
func (w Wait) Retire(d DB) {
	if w.p != nil && d.p != nil {
		waitRetire(w.p, d.p)
	}
}

// Free returns the memory. Nothing may use the flag any more: not for a connection
// that was closed without Retire.
func (w Wait) Free() {
	w.Quiet()
	if w.p != nil {
		waitFree(w.p)
	}
}
