package leakguard

import (
	"context"
	"database/sql/driver"
	"hash/maphash"
	"math/rand/v2"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The second part of the hot path (see hotpath_lease.go): a query, to its first row.

// NumInput returns the number of parameters. It does not reach SQLite.
func (s *stmt) NumInput() int { return s.inputs }

// enter begins an operation on the statement, whose handle is h. done: it was the
// rollback of a transaction that the guard had rolled back, and the operation is over.
func (s *stmt) enter(ctx context.Context, h *stmtHandle) (done bool, err error) {
	c, st := h.c, h.st
	f := c.enterFor(ctx, st.class)
	if s.h.Load() == nil && f&(busy|reaping) == 0 { // closed meanwhile: the handle may be another's
		return false, c.leave(errStmtClosed)
	}
	if f != 0 {
		// Only the first statement of a text is prepared.
		_, done, err := c.enterText(ctx, f, st.class&^textMulti, st.query)
		if done || err != nil {
			return done, err
		}
	}
	if st.slot < 0 {
		return false, c.leave(errStmtClosed)
	}
	if !c.leased {
		c.checkOutNow(ctx)
	}
	return false, nil
}

// enterFor enters the gate for a text.
func (c *conn) enterFor(ctx context.Context, class textClass) uint64 {
	if class&textTx == 0 {
		return c.met(c.gate.enterUntil(ctx))
	}
	return c.met(c.insist(c.gate.enterAs(ctx, busy|ending), class))
}

// QueryContext runs the statement and returns its rows.
func (s *stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	h := s.h.Load()
	if h == nil {
		return nil, errStmtClosed
	}
	c, st := h.c, h.st
	if done, err := s.enter(ctx, h); err != nil {
		return nil, err
	} else if done {
		return noRows{}, nil
	}
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		inner, guarded = ctx, false // go-sqlite3 binds, and finds the same
	}
	if st.timeout {
		c.leaveBusyTimeout()
	}
	opened, err := c.stmtQuery(inner, &st.prepared, st.open > 0, args)
	if guarded || st.class != 0 || err != nil {
		opened, err = c.begun(ctx, guarded, st.class, st.query, opened, err)
	}
	if st.timeout {
		c.takeBusyTimeout(true, st.class, st.query)
	}
	if err != nil {
		c.rec.Executing(st.query)
		return nil, c.leave(err)
	}
	r := c.openRows(ctx, guarded, opened, st, nil, st.query)
	if err = c.leave(nil); err != nil {
		return nil, err
	}
	return r, nil
}

// QueryContext runs statements and returns the rows of the last one.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	f, again := c.met(c.gate.enterUntil(ctx)), false
	if f == 0 {
		var t *text
		if t, again = c.findText(query, args); t != nil {
			return c.queryText(ctx, t, args)
		}
	}
	class := classify(query)
	f = c.insist(f, class)
	c.mayEnd(f, class)
	if f != 0 {
		rest, done, err := c.enterText(ctx, f, class, query)
		if err != nil {
			return nil, err
		}
		if done {
			return noRows{}, nil
		}
		if rest != query {
			query, class = rest, classify(rest)
		}
	}
	if !c.leased {
		c.checkOutNow(ctx)
	}
	inner, guarded, err := c.arm(ctx, 0)
	if err != nil {
		inner, guarded = ctx, false // go-sqlite3 prepares, and finds the same
	}
	restore := c.busyHandler && namesBusyTimeout(class, query)
	if restore {
		c.wait.Default(c.db())
	}
	var opened sqliteRows
	if class&(textMulti|textTx) == textMulti|textTx && c.db().OK() {
		c.spare()
		opened, err = c.queryEach(ctx, inner, guarded, query, args)
	} else {
		opened, err = c.innerQuery(inner, query, args)
		opened, err = c.begun(ctx, guarded, class, query, opened, err)
		if again && class == 0 && err == nil {
			c.keepText(inner, query)
		}
	}
	if restore || class&textPragma != 0 {
		c.takeBusyTimeout(restore, class, query)
	}
	if err != nil {
		c.rec.Executing(query)
		return nil, c.leave(err)
	}
	r := c.openRows(ctx, guarded, opened, nil, nil, query)
	if err = c.leave(nil); err != nil {
		return nil, err
	}
	return r, nil
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

// arm makes the operation that has just entered the gate end with ctx. own is
// how many of the open rows are the operation's own. It returns the context for
// go-sqlite3 and whether the operation is watched; with an error, ctx is over
// and nothing must run.
func (c *conn) arm(ctx context.Context, own int) (context.Context, bool, error) {
	c.ops++
	c.at = 0
	done := ctx.Done()
	if done == nil {
		return ctx, false, nil
	}
	return c.armDone(ctx, done, own)
}

func (c *conn) armDone(ctx context.Context, done <-chan struct{}, own int) (context.Context, bool, error) {
	w := &c.watch
	if !c.wait.OK() {
		return ctx, false, nil // go-sqlite3 watches
	}
	if done != w.announced {
		// Polling the channel of a synctest bubble from outside is fatal, and
		// the watchdog is outside.
		if tracker.InBubble() {
			return ctx, false, nil
		}
		w.announced = done
		w.mu.Lock()
		w.done = done
		w.mu.Unlock()
	}
	if len(c.rows) > own {
		c.spare()
		c.gate.set(watched | beside)
	} else {
		c.gate.set(watched)
	}
	// In this order: the watchdog takes a connection from its list first and
	// looks at the word then.
	if !w.listed.Load() && !theWatchdog.add(w) {
		w.attend(c.gate.word.Load())
	}
	// From here on no cancellation is missed, so one that came before is seen.
	if err := ctx.Err(); err != nil {
		c.disarm()
		return ctx, false, err
	}
	return context.Background(), true, nil
}

// stmtQuery runs a statement to its first row. open: there are rows of an earlier
// run.
func (c *conn) stmtQuery(ctx context.Context, p *prepared, open bool, args []driver.NamedValue) (rows sqliteRows, err error) {
	ok := false
	defer c.returned(&ok)
	if k := c.direct(ctx, p, open, args); k != nil {
		if err, ok = k.query(&c.args); ok {
			if err != nil {
				return nil, err
			}
			c.happened(&k.run)
			return k, nil
		}
	}
	opened, err := p.inner.QueryContext(ctx, args)
	ok = true
	return asRows(opened, err)
}

// direct returns the runner for a run with these arguments, which it takes into
// c.args; nil where go-sqlite3 has to run the statement: when it is to watch the
// context, or finds arguments that only it knows. open: there are rows of an
// earlier run.
func (c *conn) direct(ctx context.Context, p *prepared, open bool, args []driver.NamedValue) *runner {
	if open || ctx.Done() != nil {
		return nil
	}
	if p.runner == nil {
		if p.asked {
			return nil
		}
		p.asked = true
		if p.runner = c.newRunner(p.inner, p.handle); p.runner == nil {
			return nil
		}
	}
	if !bind(&c.args, args) {
		return nil
	}
	return p.runner
}

// bind takes arguments by position. It returns false for those that go-sqlite3 is
// to bind, or to refuse.
func bind(to *capi.Args, args []driver.NamedValue) bool {
	to.Clear()
	if len(args) > maxDirectArgs {
		return false
	}
	size := 0
	for i := range args {
		a := &args[i]
		if a.Name != "" || a.Ordinal != i+1 {
			return false
		}
		switch v := a.Value.(type) {
		case int64:
			to.Int(v)
		case string:
			if size += len(v); size > maxDirectBytes {
				return false
			}
			to.Text(v)
		case nil:
			to.Null()
		case float64:
			to.Float(v)
		case bool:
			if v {
				to.Int(1)
			} else {
				to.Int(0)
			}
		case []byte:
			if size += len(v); size > maxDirectBytes {
				return false
			}
			if v == nil {
				to.Null()
			} else {
				to.Blob(v)
			}
		case time.Time:
			to.Time(v, timeLayouts()[0])
		default:
			return false
		}
	}
	return true
}

// query runs the statement to its first row, and is its rows then. done is false
// if nothing ran.
func (k *runner) query(args *capi.Args) (err error, done bool) {
	code, fresh := k.run.Query(args)
	if fresh {
		k.described = false // also when it failed
	}
	switch code {
	case capi.Unbound:
		return nil, false
	case capi.Row, capi.Done:
	default:
		return k.failed(code), true
	}
	if !k.described {
		k.describe()
	}
	k.code = code
	return nil, true
}

// happened takes the time of what was run and is going to be recorded: that costs
// less than to read the clock.
func (c *conn) happened(run *capi.Cursor) {
	if c.skew == 0 {
		return
	}
	if ns := run.At(); ns != 0 {
		c.at = time.Duration(ns) + c.skew
	}
}
