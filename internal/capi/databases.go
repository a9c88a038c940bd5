package capi

// Database is one of the databases of a connection: main, temp, or one that was
// attached.
type Database struct {
	Schema string // the name that SQL has for it
	Path   string // absolute, empty for one in memory and for temp
}

// Databases lists the databases that the connection has open, main first. temp is
// among them once it holds something. ok is false when that is not known, as with
// an SQLite older than 3.39. It waits for a running statement: SQLite itself takes no
// mutex for it, and an ATTACH beside it, which a program may run on a connection that it
// has kept, would move what is read.
//
// https://www.sqlite.org/c3ref/db_name.html
// https://www.sqlite.org/c3ref/db_filename.html
func (d DB) Databases() (all []Database, ok bool) {
	if d.p == nil {
		return nil, false
	}
	return databases(d.p)
}

// TryTxnState is TxnState for one schema, or for all with "", if nobody else is
// inside the connection at this moment: it does not wait. ok is false if somebody
// is, for a schema that there is not, and where TxnState's is.
//
// https://www.sqlite.org/c3ref/mutex_alloc.html
func (d DB) TryTxnState(schema string) (state TxnState, ok bool) {
	if d.p == nil {
		return TxnNone, false
	}
	return tryTxnState(d.p, schema)
}

// TryKeptLock returns which lock the connection keeps on the schema's file while no
// transaction of it is open, as by PRAGMA locking_mode=EXCLUSIVE: with TxnRead nobody can
// write, with TxnWrite nobody can read. One that has a write-ahead log keeps TxnRead all
// the time. It does not wait, and ok is false if somebody is inside the connection, a
// transaction is open, or it is not known.
//
// https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntllockstate
func (d DB) TryKeptLock(schema string) (kept TxnState, ok bool) {
	if d.p == nil {
		return TxnNone, false
	}
	level := tryLockState(d.p, schema)
	return TxnState(min(max(level, 0), 2)), level >= 0
}

// DataVersion returns a number that changes when the connection commits a change
// of the schema's database, or finds that somebody else has. It does not change by
// a ROLLBACK, except one that throws the page cache away because of an error of
// the file, or for want of a journal. ok is false when it is not known. It reads
// nothing from the file; it waits for a running statement.
//
// PRAGMA data_version is this number less what the connection itself committed.
//
// https://www.sqlite.org/c3ref/c_fcntl_begin_atomic_write.html#sqlitefcntldataversion
func (d DB) DataVersion(schema string) (version uint32, ok bool) {
	if d.p == nil {
		return 0, false
	}
	return dataVersion(d.p, schema)
}

// LastError returns the extended result code of the last call that prepared or ran
// something on the connection, 0 if it went well or is not known. It takes no
// mutex.
//
// https://www.sqlite.org/c3ref/errcode.html
func (d DB) LastError() int {
	if d.p == nil {
		return 0
	}
	return lastError(d.p)
}

// TryCacheSize returns what the page caches of the connection's databases may hold
// together by their PRAGMA cache_size, in bytes, if nobody else is inside the
// connection at this moment. It returns 0 if all of them have SQLite's default of
// 2000 KiB. ok is false if somebody is inside, and when it is not known: an
// authorizer of the program, which is asked, may refuse. It locks no file, unless a
// schema has to be read first.
//
// https://www.sqlite.org/pragma.html#pragma_cache_size
func (d DB) TryCacheSize() (bytes int64, ok bool) {
	if d.p == nil {
		return 0, false
	}
	return tryCacheSize(d.p)
}
