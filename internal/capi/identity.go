package capi

// What a program can know of one connection and not of the next: its history, and
// the file that it has open.

// History is what SQL reads of a connection's past: last_insert_rowid(), changes()
// and total_changes(). A fresh connection has zeros.
//
// https://www.sqlite.org/c3ref/last_insert_rowid.html
// https://www.sqlite.org/c3ref/changes.html
// https://www.sqlite.org/c3ref/total_changes.html
type History struct{ RowID, Changes, TotalChanges int64 }

// History returns the connection's history; ok is false when it is not known. It
// waits for a running statement.
func (d DB) History() (h History, ok bool) {
	if d.p == nil {
		return History{}, false
	}
	return history(d.p)
}

// ReadOnly reports whether the main database was opened for reading alone. ok is
// false when it is not known.
//
// https://www.sqlite.org/c3ref/db_readonly.html
func (d DB) ReadOnly() (readOnly, ok bool) {
	if d.p == nil {
		return false, false
	}
	return readOnlyMain(d.p)
}

// Reopens opens a database by its name a second time, without creating it, and
// closes it again. It returns the path that SQLite made of the name, with the
// working directory and links as they are now, and whether it was opened as asked
// for; ok is false when that failed or is not known. Nothing is read, so no lock is
// taken: closing one of several connections, or locking the file, is what a program
// could notice. It takes as long as the file system does.
//
// https://www.sqlite.org/c3ref/open.html
func Reopens(name string, readOnly bool) (path string, ok bool) {
	if name == "" { // a temporary database
		return "", false
	}
	return reopens(name, readOnly)
}
