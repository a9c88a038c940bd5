package leakguard

import (
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Giving a connection up for a limit. A connection is more than a way to its file:
// SQL reads what it did before, and database/sql's free connections are a stack, so
// a program with one goroutine knows which one it gets. Closed is only what no
// program can miss; every other one is refreshed where it is.

// giveUp carries an order of ScopeGiveUp out. It comes without the gate: between two
// crossings of it the file system is asked, which may take its time, and whoever
// wants the connection meanwhile gets it.
func (c *conn) giveUp(o *tracker.Order) tracker.Outcome {
	var again reopening
	closes := false
	out := c.crossing(o, func() tracker.Outcome {
		var why string
		if again, why, closes = c.closable(); closes {
			return tracker.Done
		}
		return c.renew(o.Reason, why)
	})
	if !closes || out == tracker.Void {
		return out
	}
	// One at a time, for each asks what the others are; the next look comes back.
	if !c.connector.leaving.TryLock() {
		return tracker.Void
	}
	defer c.connector.leaving.Unlock()
	opens := again.works() && (!c.refreshes() || again.keepsWAL() && c.others())
	return c.crossing(o, func() tracker.Outcome {
		_, why, closes := c.closable()
		if !closes || !opens || c.refreshes() && !c.rec.Leave() {
			return c.renew(o.Reason, why)
		}
		c.finalizeAll()
		c.rec.Recycled(o.Reason)
		c.die(&ReapedError{Leak: tracker.Leak{Kind: tracker.KindConnection, Reason: o.Reason}})
		return tracker.Done
	})
}

// crossing calls f with the gate held, if it is free and nothing moved since the
// order was given.
func (c *conn) crossing(o *tracker.Order, f func() tracker.Outcome) tracker.Outcome {
	if !c.gate.TryAt(o.Word) {
		return tracker.Void
	}
	return c.inside(o, func() tracker.Outcome {
		if c.raw.Load() || c.gate.Has(gate.Dead) {
			return tracker.Void
		}
		return f()
	})
}

// refreshes reports whether only what no program can miss is closed, and not
// whatever carries no session state.
func (c *conn) refreshes() bool { return c.rec.Pool().Policy().Expire == tracker.Refresh }

// closable reports whether the connection sits in the pool and may be closed there,
// as far as it can be told without the file, and what there is to find out about
// that; why says what it carries that keeps it open. The caller is inside the gate.
// Unless everything without session state is closed, no query is run: it would take a
// lock on the file, and count as a look at it for PRAGMA data_version.
func (c *conn) closable() (again reopening, why string, ok bool) {
	s := &c.session
	why = s.forever
	if c.leased || c.txn.open || c.txn.tomb != nil || len(c.rows) > 0 || c.hidden() {
		return again, why, false
	}
	readOnly, known := c.db().ReadOnly()
	again = reopening{c.connector.traits, s.path, s.file, readOnly}
	if !c.refreshes() {
		why = s.verify(c)
		return again, why, known && why == ""
	}
	return again, why, known && c.spotless() && !c.connector.polled.Load()
}

// spotless reports whether a fresh connection would be the same to SQL: without
// history and session state. The caller is inside the gate.
func (c *conn) spotless() bool {
	past, known := c.db().History()
	return known && past == capi.History{} && c.session.none() && !c.txn.open && c.txn.tomb == nil
}

// others reports whether all other connections that sit in the pool are spotless.
// Closing one shifts the stack of free connections: those who would have got this one
// get the next below, which must be the same to them. One that is out comes back on
// top of the gap.
func (c *conn) others() bool {
	for _, k := range c.rec.Pool().Controls() {
		n := k.(control).conn.Value()
		if n == nil || n == c {
			continue
		}
		if !n.gate.Try() {
			if n.gate.Has(gate.Busy) {
				continue // out
			}
			return false
		}
		same := n.gate.Has(gate.Dead) || n.leased || !n.raw.Load() && n.spotless()
		n.gate.Release()
		if !same {
			return false
		}
	}
	return true
}

// hidden reports whether a wrapper around the driver hides ResetSession or IsValid
// from database/sql, as far as is known: then nobody says that a connection in the
// pool is closed, and a statement would fail for it. Each connection speaks for
// itself: a Connector may be under two wrappers.
func (c *conn) hidden() bool { return c.wrapped && !(c.sawReset && c.sawCheckIn) }

// reopening is what a connection that takes another one's place has to open.
type reopening struct {
	dsn      traits
	path     string
	file     fileID
	readOnly bool
}

// works reports whether the DSN names the file now and a new connection could open
// it, with its write-ahead log: go-sqlite3 reads the file when it opens it, so every
// connection has that open. It asks the file system and may take its time; the caller
// is outside the gate.
func (r reopening) works() bool {
	if !r.dsn.names(r.path, r.file) {
		return false
	}
	if path, ok := capi.Reopens(r.dsn.path, r.readOnly); !ok || path != r.path || !identify(path).same(r.file) {
		return false
	}
	if !r.keepsWAL() {
		return true
	}
	return mayOpen(r.path+"-wal", !r.readOnly) && mayOpen(r.path+"-shm", !r.readOnly)
}

// keepsWAL reports whether the file has a write-ahead log. Without one, opening the
// file takes a lock that somebody may hold when the pool opens it next, where a
// connection that is open answers what needs no lock.
func (r reopening) keepsWAL() bool { return identify(r.path + "-wal").known() }

// renew refreshes the connection where it is, and tells why it stays open. The caller
// is inside the gate.
func (c *conn) renew(reason tracker.Reason, why string) tracker.Outcome {
	c.refresh(reason)
	if why != "" {
		c.rec.ReportKept(why)
	}
	return tracker.Refreshed
}

// refresh finalizes what the guard keeps prepared and releases the caches, for
// max_access not: that would cost readers the pages that they read again and again.
// The caller is inside the gate.
func (c *conn) refresh(reason tracker.Reason) {
	c.texts.drop()
	c.begins.drop()
	if reason != tracker.ReasonMaxAccess {
		c.db().TryReleaseMemory()
	}
	c.rec.Renewed(reason)
}

// expire follows a check-in that is due for a limit, and reports whether the
// connection may go into the pool. What the reaper is going to close there is left
// to it; in mode basic there is none.
func (c *conn) expire(reason tracker.Reason) bool {
	p := c.rec.Pool()
	if p.Policy().Expire == tracker.Close {
		if p.Mode() == tracker.Enforce {
			return true
		}
		again, why, ok := c.closable()
		if ok && again.works() {
			c.rec.Recycled(reason)
			return false
		}
		c.renew(reason, why)
		return true
	}
	c.refresh(reason)
	return true
}

// shownReset notes that ResetSession is not hidden, and reports whether the
// connection may be used: one that is not fit for the pool gets here if IsValid is.
func (c *conn) shownReset(f uint64) bool {
	c.sawReset = true
	if c.leased {
		c.missedCheckIn(f)
	}
	return !c.discard
}

// missedCheckIn ends a lease whose end nobody told, because a wrapper around the
// driver hides IsValid: the next one begins now. The caller is inside the gate.
func (c *conn) missedCheckIn(f uint64) {
	c.drain()
	c.takeBack(f)
	c.rec.Record()
	reason := c.rec.CheckIn()
	c.rec.Recorded()
	c.leased = false
	if t := c.txn.tomb; t != nil {
		t.pooled = true
	} else if f&gate.Dead == 0 && reason != "" && !c.txn.open {
		c.refresh(reason)
	}
}
