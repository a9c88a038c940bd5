package leakguard

import (
	"context"
	"database/sql/driver"
	"hash/maphash"
	"math/rand/v2"
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// SQL texts that come again. Parsing is a third to a half of what a short query
// costs, and database/sql has a driver parse a text each time it is run. The
// guard keeps the statements of the latest texts of a connection prepared, as
// long as nobody can see a difference: only plain SELECT, INSERT, UPDATE,
// DELETE and REPLACE, never on a connection whose handle the program had (an
// authorizer is asked when a text is parsed). SQLite parses them again by
// itself when the schema has changed, see
// https://www.sqlite.org/c3ref/prepare.html.

const (
	// maxTexts bounds the statements that a connection keeps, maxTextLen the
	// length of their texts, and maxTextArgs the bytes of their arguments:
	// go-sqlite3 keeps a copy of those with the statement.
	maxTexts    = 32
	maxTextLen  = 4096
	maxTextArgs = 4096
	seenTexts   = 64
	// textCredit is how many texts must find no room until one that is not used
	// gives its place up: a program with more texts in turn than there is room
	// for must not parse each of them twice.
	textCredit = 64
)

// texts are the statements kept of a connection. Guarded by the gate.
type texts struct {
	on   bool
	list []*text // the more often used ones in front
	*textHashes
}

// textHashes come with the first text: many connections are opened and run none.
type textHashes struct {
	hashes [maxTexts]uint32 // of the list
	// seen has a hash of texts that came once, each at the place that its hash
	// gives it: a text that never comes again costs no more than that.
	seen [seenTexts]uint32
}

// text is one of them.
type text struct {
	query  string
	credit int
	prepared
	inputs  int  // parameters
	columns bool // it returns columns
	busy    bool // rows are open on it
	dropped bool // to be closed with them
}

// findText returns the statement of a text, nil if it is to be run by its text.
// again says that the text came before: once it has run, it is to be kept.
func (c *conn) findText(query string, args []driver.NamedValue) (t *text, again bool) {
	ts := &c.texts
	if !ts.on {
		return nil, false
	}
	if len(query) > maxTextLen {
		return nil, false
	}
	if ts.textHashes == nil {
		ts.textHashes = new(textHashes)
	}
	h := maphash.String(textSeed, query)
	short := uint32(h >> 32)
	for i, t := range ts.list {
		if ts.hashes[i] != short || t.query != query {
			continue
		}
		t.credit = textCredit
		if i > 0 { // one step to the front
			ts.list[i-1], ts.list[i] = t, ts.list[i-1]
			ts.hashes[i-1], ts.hashes[i] = short, ts.hashes[i-1]
		}
		if t.busy || len(args) != t.inputs || !keepable(args) {
			return nil, false
		}
		return t, false
	}
	slot := &ts.seen[h%seenTexts]
	if *slot != short {
		// Texts in turn that have the same place would put each other out for
		// ever if each took it.
		if *slot == 0 || rand.Uint32()&1 == 0 {
			*slot = short
		}
		return nil, false
	}
	if n := len(ts.list); n == maxTexts {
		if ts.list[n-1].credit--; ts.list[n-1].credit > 0 {
			return nil, false
		}
	}
	*slot = 0
	return nil, true
}

// keepable reports whether arguments may stay with a statement: go-sqlite3
// binds those of a text by position, and some of them by name.
func keepable(args []driver.NamedValue) bool {
	size := 0
	for i := range args {
		a := &args[i]
		if a.Name != "" || a.Ordinal != i+1 {
			return false
		}
		switch v := a.Value.(type) {
		case string:
			size += len(v)
		case []byte:
			size += len(v)
		}
	}
	return size <= maxTextArgs
}

var textSeed = maphash.MakeSeed()

// keepText prepares a text that has just run, so that the schema is at hand and
// no lock in the way, unless it is not to be kept.
func (c *conn) keepText(ctx context.Context, query string) {
	s := query[sqltext.SkipSpace(query, 0):]
	if !sqltext.Harmless(s) || s[0]|0x20 == 'v' || strings.IndexByte(query, 0) >= 0 || namesBusyTimeout(sqltext.Multi, query) {
		return
	}
	// A comment behind it is a statement of its own to go-sqlite3, which then
	// returns that one's rows: none.
	if semi := strings.IndexByte(query, ';'); semi >= 0 && !sqltext.IsBlank(query[semi+1:]) {
		return
	}
	ts := &c.texts
	if len(ts.list) == maxTexts {
		last := ts.list[maxTexts-1]
		if last.busy {
			return
		}
		last.inner.Close()
		ts.list[maxTexts-1] = nil
		ts.list = ts.list[:maxTexts-1]
	}
	opened, err := c.innerPrepare(ctx, query)
	if err != nil {
		return
	}
	inner, ok := opened.(sqliteStmt)
	handle := capi.OfStmt(opened)
	if !ok || !handle.OK() {
		opened.Close()
		return
	}
	ts.hashes[len(ts.list)] = uint32(maphash.String(textSeed, query) >> 32)
	ts.list = append(ts.list, &text{query: strings.Clone(query), credit: textCredit, prepared: prepared{inner: inner, handle: handle}, inputs: inner.NumInput(), columns: handle.Columns() > 0})
}

// drop closes the statements; those with open rows go with them.
func (ts *texts) drop() {
	for i, t := range ts.list {
		if t.busy {
			t.dropped = true
		} else {
			t.inner.Close()
		}
		ts.list[i] = nil
	}
	ts.list = ts.list[:0]
}

// stop ends the keeping for good.
func (ts *texts) stop() {
	ts.on = false
	ts.drop()
	ts.list, ts.textHashes = nil, nil
}

// free takes the rows off a statement. The one that waited for that is closed, with the
// error that go-sqlite3's rows return where the program has closed the connection.
func (t *text) free() error {
	t.busy = false
	if t.dropped {
		return t.inner.Close()
	}
	return nil
}

// execText is ExecContext for a text that is kept. The connection is inside the
// gate.
func (c *conn) execText(ctx context.Context, t *text, args []driver.NamedValue) (driver.Result, error) {
	if !c.leased {
		c.checkOutNow(ctx)
	}
	c.rec.Executing(t.query)
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		_, err = c.stmtQuery(ctx, &t.prepared, true, args) // binds, and finds the same
		return nil, c.leave(err)
	}
	res, err := c.textExec(inner, t, args)
	if err != nil {
		if guarded {
			err = ended(ctx, err)
		}
		c.after(ctx, 0, t.query, err)
	}
	c.wrote(0)
	if err = c.leave(err); err != nil {
		return nil, err
	}
	return res, nil
}

// queryText is QueryContext for a text that is kept. The connection is inside
// the gate.
func (c *conn) queryText(ctx context.Context, t *text, args []driver.NamedValue) (driver.Rows, error) {
	if !c.leased {
		c.checkOutNow(ctx)
	}
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		inner, guarded = ctx, false // go-sqlite3 binds, and finds the same
	}
	opened, err := c.stmtQuery(inner, &t.prepared, false, args)
	if guarded || err != nil {
		opened, err = c.begun(ctx, guarded, 0, t.query, opened, err)
	}
	if err != nil {
		c.rec.Executing(t.query)
		return nil, c.leave(err)
	}
	r := c.openRows(ctx, guarded, opened, nil, t, t.query)
	if err = c.leave(nil); err != nil {
		return nil, err
	}
	return r, nil
}
