// Package capi asks SQLite itself what it knows of a connection or statement
// that github.com/mattn/go-sqlite3 opened: the transaction state, the
// statements still open, how to stop a running one. The driver keeps these
// answers to itself.
//
// It is the only package of the module with cgo and unsafe. It compiles no
// SQLite of its own: the C functions are declared weak, so at link time they
// resolve to the copy that go-sqlite3 links into the same binary (also with
// the build tag libsqlite3). A function that is not there is never called; what
// needs it reports "not known" instead, and [Missing] names it. The same holds
// for all of them in a build without cgo.
//
// # Handles
//
// A [DB] or [Stmt] is the bare C pointer, read once from the driver's value. It
// does not keep the connection open and does not notice that it was closed:
// using it after Close of the connection (for a Stmt, of the statement) is a use
// of freed memory. The zero value is safe: every method on it does nothing and
// reports "not known". A program can close the driver's connection itself, so
// what lives as long as the connection keeps a [Conn] and asks it for the DB each
// time. A Stmt stays: the driver does not finalize the statements of a connection
// that it closes, and SQLite keeps such a connection, as a zombie, for as long as
// it has statements.
//
// https://www.sqlite.org/c3ref/close.html
//
// # What blocks
//
// SQLite holds the connection's mutex for the whole of a sqlite3_step, which may
// last as long as the query does. [DB.Autocommit], [DB.TxnState],
// [DB.OpenStatements], [DB.BusySQL], [Stmt.Reset], [Stmt.ResetCode] and
// [StatementEnd] take that mutex, so when
// another goroutine is inside a step they wait for it to end. The mutex is
// recursive: inside a Go function that SQLite called (a registered function, a
// hook) they do not wait. What is called Try… does not wait, either: it does
// nothing while another goroutine is inside. [DB.Interrupt], [Stmt.Columns] and
// [Stmt.ReadOnly] take no mutex.
//
// A connection opened with the driver's _mutex=no has no mutex. Then only
// Interrupt may run beside other work on the connection.
package capi

import (
	"slices"
	"sync"
	"time"
	"unsafe"
)

// DB is the sqlite3* of one connection. Values of the same connection compare
// equal.
type DB struct{ p unsafe.Pointer }

// Of returns the handle of a *sqlite3.SQLiteConn. It returns the zero DB for
// any other value, for a nil or closed connection and in a build without cgo.
// It must not run at the same time as the connection's Close.
func Of(sqliteConn any) DB { return ConnOf(sqliteConn).DB() }

// Conn is where a *sqlite3.SQLiteConn has its handle. It keeps the driver's value
// from being collected. The zero Conn has none: its DB is the zero DB, and nothing
// happens to it.
type Conn struct {
	db *unsafe.Pointer
	mu *sync.Mutex // the driver's own, which its Close holds; nil if not found
}

// ConnOf returns the zero Conn for any other value, for a nil connection and in a
// build without cgo.
//
// The handle sits in the unexported field db. The type's name and package are
// checked first, because a field db that points to something other than a
// sqlite3 would crash on first use.
func ConnOf(sqliteConn any) Conn { return connOf(sqliteConn) }

// DB returns the handle as it is now, the zero DB once the connection is closed. It
// must not run at the same time as the connection's Close, and what it returns is
// good until then.
func (c Conn) DB() DB {
	if c.db == nil {
		return DB{}
	}
	return DB{*c.db}
}

// Forget makes the driver take the connection for closed, without closing it. It
// is for one that SQLite never came back from, because a Go function panicked below
// it: SQLite's mutex may be locked for ever, and the driver's finalizers, which would
// close the connection and its statements, would wait for it and stop all finalizers
// of the process.
func (c Conn) Forget() {
	if c.mu != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		*c.db = nil
	}
}

// OK reports whether d is the handle of a connection.
func (d DB) OK() bool { return d.p != nil }

// Interrupt makes the statements running on the connection fail with
// SQLITE_INTERRUPT. It sets one flag, without the mutex, and returns in less than
// a microsecond. It may be called from any goroutine as long as the connection is
// not closed meanwhile.
//
// The flag stays set as long as any statement is active, so one that starts
// beside an interrupted one fails as well. It is cleared when a statement starts
// while none is active: with nothing running Interrupt has no effect, and one
// that comes just before the first step is lost. An interrupted INSERT, UPDATE or
// DELETE inside a transaction rolls back the whole transaction.
//
// https://www.sqlite.org/c3ref/interrupt.html
func (d DB) Interrupt() {
	if d.p != nil {
		interrupt(d.p)
	}
}

// Autocommit reports whether the connection is outside BEGIN ... COMMIT. SQLite
// itself turns it on again when an error rolls the transaction back. ok is false
// when it is not known. It waits for a running statement.
//
// https://www.sqlite.org/c3ref/get_autocommit.html
func (d DB) Autocommit() (on, ok bool) {
	if d.p == nil {
		return false, false
	}
	return autocommit(d.p)
}

// Filename returns the absolute path of the main database's file, empty for one in
// memory. ok is false when it is not known.
//
// https://www.sqlite.org/c3ref/db_filename.html
func (d DB) Filename() (path string, ok bool) {
	if d.p == nil {
		return "", false
	}
	return filename(d.p)
}

// TxnState is how far a connection's transaction has gone.
type TxnState int

const (
	TxnNone  TxnState = iota // no transaction on any file; a bare BEGIN is still here
	TxnRead                  // holds a snapshot, which keeps a WAL from being reset
	TxnWrite                 // holds the write lock
)

func (s TxnState) String() string {
	switch s {
	case TxnNone:
		return "none"
	case TxnRead:
		return "read"
	case TxnWrite:
		return "write"
	}
	return "unknown"
}

// TxnState returns the highest state of all databases of the connection (main,
// temp and the attached ones). Unlike Autocommit it also sees the implicit
// transaction of an unfinished statement. The bool is false when the state is
// not known, as with an SQLite older than 3.34. It waits for a running statement.
//
// https://www.sqlite.org/c3ref/txn_state.html
func (d DB) TxnState() (TxnState, bool) {
	if d.p == nil {
		return TxnNone, false
	}
	return txnState(d.p)
}

// OpenStatements counts the prepared statements of the connection (open) and
// those of them that were stepped and neither finished nor reset (busy). ok is
// false when this is not known. It waits for a running statement and then holds
// the mutex, so the counts are of one moment.
//
// The numbers are for reading only. They include statements that FTS and RTREE
// keep for themselves, and those that the driver caches; finalizing one that
// somebody else owns crashes the process.
//
// https://www.sqlite.org/c3ref/next_stmt.html
// https://www.sqlite.org/c3ref/stmt_busy.html
func (d DB) OpenStatements() (open, busy int, ok bool) {
	if d.p == nil {
		return 0, 0, false
	}
	return openStatements(d.p)
}

// BusySQL returns a copy of the SQL text, without bound values, of the first busy
// statement in SQLite's list, "" if none is busy. The list begins with the
// statement prepared last. The bool is false when this is not known. It waits for
// a running statement.
//
// https://www.sqlite.org/c3ref/expanded_sql.html
func (d DB) BusySQL() (string, bool) {
	if d.p == nil {
		return "", false
	}
	return busySQL(d.p)
}

// TryMemory returns the bytes that SQLite holds for the connection: page caches,
// schema and prepared statements. With shared, its share of caches that it has in
// common with others. ok is false when this is not known, and when somebody else is
// inside the connection at this moment.
//
// https://www.sqlite.org/c3ref/c_dbstatus_options.html
func (d DB) TryMemory(shared bool) (bytes int64, ok bool) {
	if d.p == nil {
		return 0, false
	}
	return tryMemory(d.p, shared)
}

// MemoryUsed returns the bytes that SQLite has allocated in this process, for all
// connections. ok is false when this is not known.
//
// https://www.sqlite.org/c3ref/memory_highwater.html
func MemoryUsed() (bytes int64, ok bool) { return memoryUsed() }

// TryReleaseMemory frees the pages of the connection's caches that are neither in
// use by a statement nor changed. The next query reads them from the file again. It
// returns false, and has freed nothing, if somebody else is inside the connection at
// this moment, and when it cannot be done.
//
// https://www.sqlite.org/c3ref/db_release_memory.html
func (d DB) TryReleaseMemory() bool { return d.p != nil && tryReleaseMemory(d.p) }

// TrimHeap gives the C heap's free memory back to the system, where the C library
// is glibc and keeps it otherwise; elsewhere it does nothing. It takes some 30 ms
// for each GiB given back, in which other threads' allocations may wait.
func TrimHeap() { trim() }

// Stmt is the sqlite3_stmt* of one prepared statement.
type Stmt struct{ p unsafe.Pointer }

// OfStmt returns the handle of a *sqlite3.SQLiteStmt, read from its unexported
// field s. As [Of], it returns the zero Stmt for anything else, and also for a
// statement without SQL (only a comment), for which SQLite has no handle. It must
// not run at the same time as the statement's Close.
func OfStmt(sqliteStmt any) Stmt { return Stmt{handleOfStmt(sqliteStmt)} }

// SetStmt makes a new *sqlite3.SQLiteRows one of the *sqlite3.SQLiteStmt, so that
// it can be asked for the types of the columns. Nothing else may be done with it.
// It returns false, and does nothing, for any other values.
func SetStmt(sqliteRows, sqliteStmt any) bool { return setStmt(sqliteRows, sqliteStmt) }

// Location returns the time zone that a *sqlite3.SQLiteConn puts times into, nil
// for none. ok is false when it is not known.
func Location(sqliteConn any) (loc *time.Location, ok bool) { return location(sqliteConn) }

// OK reports whether s is the handle of a statement.
func (s Stmt) OK() bool { return s.p != nil }

// Columns returns how many columns a row of the statement has: 0 for a statement
// without rows, such as an INSERT without RETURNING, and 0 when it is not known.
// It takes no mutex.
//
// https://www.sqlite.org/c3ref/column_count.html
func (s Stmt) Columns() int {
	if s.p == nil {
		return 0
	}
	return columns(s.p)
}

// Reset ends the run of a statement that has rows left, and with it the implicit
// transaction and the locks that the run holds. The bound values stay. It waits
// for a running statement and, when it has to commit, may run the busy handler
// and Go hooks.
//
// It is for a statement after Exec, not for one with open Rows: the next step of
// those would run the statement again from the start.
//
// The result is dropped, for callers that have nobody left to tell. Mostly it
// repeats the error of the last step, which that step has already returned. It
// says something new when the commit itself fails (see ResetCode).
//
// https://www.sqlite.org/c3ref/reset.html
func (s Stmt) Reset() { s.ResetCode() }

// ResetCode is Reset with SQLite's extended result code, 0 for success and when
// it is not known.
//
// After a statement that the driver's Exec stepped only to its first row, such as
// an INSERT ... RETURNING, the code is the only report of a failed commit: a
// violated deferred foreign key or a reader in the way undoes a change that Exec has
// already reported as done. The driver's Close of the statement would have
// returned that error; after a reset it no longer does.
func (s Stmt) ResetCode() int {
	if s.p == nil {
		return 0
	}
	return reset(s.p)
}

// ReadOnly reports whether the statement itself changes no database file. It is
// true for BEGIN, COMMIT and ROLLBACK too, but not for BEGIN IMMEDIATE. ok is
// false when it is not known. It takes no mutex.
//
// https://www.sqlite.org/c3ref/stmt_readonly.html
func (s Stmt) ReadOnly() (readOnly, ok bool) {
	if s.p == nil {
		return false, false
	}
	return stmtReadOnly(s.p)
}

// StatementEnd returns where the first statement of sql ends, as the offset of
// the byte after its semicolon, and how many parameters it takes. Comments and
// empty statements before it are part of it; an sql of nothing else is one
// statement without parameters that ends at len(sql). When ok, end is at least 1,
// so a loop that cuts sql at end comes to an end.
//
// ok is false when sql is empty, when SQLite cannot prepare it (a syntax error,
// but also a table that an earlier, not yet executed statement would create), or
// when this is not known.
//
// SQLite finds the end by compiling the statement on the connection, which has
// side effects. Many PRAGMAs take effect when compiled, before they are executed.
// The schema may be read from the file, an authorizer or a virtual table written
// in Go may be called, and the connection's last error is overwritten. It waits
// for a running statement.
//
// https://www.sqlite.org/c3ref/prepare.html
// https://www.sqlite.org/c3ref/bind_parameter_count.html
// https://www.sqlite.org/c3ref/finalize.html
func StatementEnd(d DB, sql string) (end, params int, ok bool) {
	if d.p == nil || sql == "" {
		return 0, 0, false
	}
	return statementEnd(d.p, sql)
}

// Missing returns the sorted names of the C functions that this binary does not
// have. It is empty when all are there, and {"cgo"} in a build without cgo.
func Missing() []string { return slices.Clone(missingOnce()) }

var missingOnce = sync.OnceValue(missing)
