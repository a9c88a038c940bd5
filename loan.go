package leakguard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// A transaction that is open while the program has the raw connection may end there
// unseen. If SQLite rolled it back, what its owner does next would run in
// autocommit: half a transaction. So it gets a tomb, as with any other abort. If
// the program ended it by its own COMMIT or ROLLBACK, it gets none: it knows, and
// may rightly go on in autocommit.
//
// Each hook of SQLite that would tell is one slot, and the program's. Without one:
//
//   - Each database counts what this connection committed to it (lent.own). If any
//     of the counts moved, there was a COMMIT, and no tomb is made, whatever else
//     happened.
//   - Otherwise the result of the last call tells. An error that SQLite rolls back
//     for was the abort: who meets one mostly stops there. A constraint that is
//     violated mostly rolls nothing back, so it tells only where the transaction
//     had written something, or is a sql.Tx's.
//   - If that call went well, a ROLLBACK of the program's own is likely. A sql.Tx
//     that had written something gets its tomb all the same: it can end in an error
//     only, so nobody is robbed of anything. Its Rollback returns what go-sqlite3's
//     does, and its Commit would have failed.
//   - A transaction that had written nothing and ended without an error is left
//     alone: its COMMIT and its ROLLBACK are the same to everybody, there is no
//     half of it, and a committed one is never called failed.
//
// What stays in doubt is decided for the program, without a tomb: an abort behind
// which it wrote in autocommit (that looks like a COMMIT) or began a transaction of
// its own, and an abort of a transaction by SQL text behind which another call went
// well. The other way round, a ROLLBACK of the program's own behind which another
// statement failed, as the last call, is taken for an abort.

// loan is what was known of the open transaction when the raw connection was handed
// out, or when the transaction was first seen if that was later. Guarded by the gate.
type loan struct {
	tx        uint64 // whose this is, 0: nobody's
	databases []lent // none: not known
	written   bool   // one of them was written to
}

// lent is one database of the connection.
type lent struct {
	schema  string
	version uint32
	// own counts this connection's commits. It is not read, and 0, where the
	// transaction has not come to the database yet: reading it would take a
	// snapshot in the program's place.
	own uint32
}

var errUndoneInRaw = errors.New("it was rolled back while the raw connection was out")

// met returns the flags that an operation met at the gate, f. If the program has the
// raw connection, it is asked first what became of the transaction meanwhile.
func (c *conn) met(f uint64) uint64 {
	if c.raw.Load() {
		f = c.metRaw(f)
	}
	return f
}

// metRaw is kept apart so that met is inlined.
//
//go:noinline
func (c *conn) metRaw(f uint64) uint64 {
	if f&(gate.Busy|gate.Dead|gate.Reaping) != 0 { // it is not inside, or has nothing to ask
		return f
	}
	c.sync()
	if c.txn.open && c.loan.tx != c.txn.id {
		c.lend()
	}
	return f | c.gate.Load()&gate.Tombed
}

// sync asks SQLite for the transaction when others may have had a hand in it.
func (c *conn) sync() {
	switch auto := c.autocommit(); {
	case auto && c.txn.open:
		if cause := c.undoneInRaw(); cause != nil {
			c.abort(cause)
		} else {
			c.endTx()
		}
	case !auto && !c.txn.open && c.txn.tomb == nil:
		c.beginTx(context.Background(), "")
		c.rec.TxOfLease()
	}
}

// lend notes how the open transaction stands.
func (c *conn) lend() {
	l := &c.loan
	*l = loan{databases: l.databases[:0]}
	if !c.txn.open {
		return
	}
	l.tx = c.txn.id
	all, _ := c.db().Databases()
	for _, d := range all {
		version, ok := c.db().DataVersion(d.Schema)
		state, told := c.db().TryTxnState(d.Schema)
		if !ok || !told {
			l.databases = l.databases[:0]
			return
		}
		one := lent{schema: d.Schema, version: version}
		if state != capi.TxnNone {
			one.own, _ = c.ownCommits(d.Schema)
		}
		l.written = l.written || state == capi.TxnWrite
		l.databases = append(l.databases, one)
	}
}

// ownCommits counts what this connection has committed to a database:
// SQLITE_FCNTL_DATA_VERSION counts that and each time the page cache was thrown
// away, for a commit of somebody else or an error of the file, and PRAGMA
// data_version the latter alone. Outside a transaction, the PRAGMA locks the file for
// a moment.
//
// https://www.sqlite.org/pragma.html#pragma_data_version
func (c *conn) ownCommits(schema string) (n uint32, ok bool) {
	query := `PRAGMA "` + strings.ReplaceAll(schema, `"`, `""`) + `".data_version`
	before, ok := c.db().DataVersion(schema)
	for range 3 { // the PRAGMA may throw the cache away, and a shared one is others', too
		others := c.count(query)
		version, told := c.db().DataVersion(schema)
		if !ok || !told || others < 0 {
			return 0, false
		}
		if version == before {
			return version - uint32(others), true
		}
		before = version
	}
	return 0, false
}

// undoneInRaw returns why the transaction, which is over by now, was rolled back;
// nil if it was not, or by the program itself.
func (c *conn) undoneInRaw() error {
	l := &c.loan
	if l.tx != c.txn.id || len(l.databases) == 0 {
		return nil
	}
	code := c.db().LastError() // first: what follows runs statements
	switch {
	case c.committedInRaw():
		return nil
	case rollsBack(code) && (!isConstraint(code) || l.written || c.txn.ofTx):
		return fmt.Errorf("%w: %w", errUndoneInRaw, codeError(code))
	case l.written && c.txn.ofTx:
		return errUndoneInRaw
	}
	return nil
}

// committedInRaw reports whether anything was committed since lend, or may have
// been.
func (c *conn) committedInRaw() bool {
	all, ok := c.db().Databases()
	if !ok {
		return true
	}
	left := len(c.loan.databases)
	// A lock of somebody else's must not keep the owner waiting here.
	c.wait.Stop(true)
	defer c.wait.Stop(false)
	for _, d := range all {
		var then lent // of one opened since
		if i := slices.IndexFunc(c.loan.databases, func(l lent) bool { return l.schema == d.Schema }); i >= 0 {
			then = c.loan.databases[i]
			left--
			if now, ok := c.db().DataVersion(d.Schema); ok && now == then.version {
				continue
			}
		}
		if now, ok := c.ownCommits(d.Schema); !ok || now != then.own {
			return true
		}
	}
	return left > 0 // one was detached
}
