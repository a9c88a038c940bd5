package tracker

import (
	"cmp"
	"os"
	"time"
)

// A reader keeps SQLite from starting the WAL over, so the file grows as long
// as the oldest snapshot is read: https://www.sqlite.org/wal.html#ckpt. It is
// named when the file has grown beyond wal_limit.

// walFile is the WAL of one database file as it was found.
type walFile struct {
	log   *walLog
	limit int64
	size  int64
}

// walSizes looks at the files that are due and names who pins the large ones.
// Nothing but stat: closing a descriptor of the database would drop the locks that
// the process has on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
func (r *reaper) walSizes(now time.Duration) {
	r.t.mu.Lock()
	due := r.t.wals.due(r.due[:0])
	r.t.mu.Unlock()
	r.due = due
	for _, w := range due {
		if info, err := os.Stat(w.log.path); err == nil {
			w.size = info.Size()
		}
		var f findings
		r.t.pinned(&f, w, now)
		r.carry(&f)
	}
	clear(due)
}

// walPoolsLocked returns one pool for each write-ahead log: of those of its file
// with connections the oldest. Tracker.mu is held.
func (t *Tracker) walPoolsLocked() map[*walLog]*Pool {
	oldest := make(map[*walLog]*Pool)
	for _, p := range t.pools {
		if p.walBytesLocked() == 0 {
			continue
		}
		o := oldest[p.wal]
		if o == nil || cmp.Or(cmp.Compare(p.opened, o.opened), cmp.Compare(p.name, o.name)) < 0 {
			oldest[p.wal] = p
		}
	}
	return oldest
}

// walBytesLocked is the size of the log of the pool's file, 0 without
// connections: nobody looks at it then. Tracker.mu is held.
func (p *Pool) walBytesLocked() int64 {
	if p.wal == nil || p.open == 0 {
		return 0
	}
	return p.wal.size
}

// reader is what may keep a WAL from being reset.
type reader struct {
	conn    *Conn
	schemas []string // by which it has the file
	held    Held
	raw     bool // by what the guard did not hand out: see more.left
	out     bool // the real connection is out
	word    uint64
}

// pinned brings the suspicions about one WAL up to date.
func (t *Tracker) pinned(f *findings, w walFile, now time.Duration) {
	over := w.limit > 0 && w.size > w.limit
	var readers []reader
	t.mu.Lock()
	w.log.size = w.size
	at := t.now()
	see := func(c *Conn) {
		if over {
			readers = append(readers, c.readersLocked(c.hasLocked(w.log.file), at)...)
		} else {
			c.unpin(f, w.log.file)
		}
	}
	for _, c := range w.log.conns {
		see(c)
	}
	for c := range w.log.attached {
		see(c)
	}
	t.mu.Unlock()
	var oldest, likely *reader
	for i := range readers {
		one := &readers[i]
		if one.out { // nobody may ask
			if likely == nil || one.held.Age > likely.held.Age {
				likely = one
			}
			continue
		}
		older := oldest == nil || one.held.Age > oldest.held.Age
		if !older && !one.raw {
			continue
		}
		s := one.conn.txState(one.schemas...)
		if one.raw && one.conn.generation() != one.word {
			continue // its state may be that of a lease that has begun since
		}
		switch {
		case s == TxNone && one.raw:
			one.conn.letGo(f, w.log.file)
		case older && (s == TxRead || s == TxWrite || s == TxUnknown && one.held.Busy):
			oldest = one
		}
	}
	if oldest = cmp.Or(oldest, likely); oldest != nil {
		oldest.conn.pin(f, oldest, w, now)
	}
}

// readersLocked returns what may read in these databases of the connection.
// Tracker.mu is held.
func (c *Conn) readersLocked(schemas []string, now time.Duration) (all []reader) {
	word := c.generation()
	held := c.heldLocked(nil, now)
	for _, h := range held {
		if h.Kind == KindTransaction || h.Kind == KindRows {
			all = append(all, reader{conn: c, schemas: schemas, held: h})
		}
	}
	c.lock()
	out := c.raw
	c.unlock()
	left := c.leftLocked(now)
	switch {
	case out:
		for _, h := range held {
			if h.Kind == KindConnection {
				all = append(all, reader{conn: c, held: h, raw: true, out: true})
			}
		}
	case len(all) == 0 && (left.Resource != 0 || len(held) == 0): // else SQLite speaks of what is held
		all = append(all, reader{conn: c, schemas: schemas, held: left, raw: true, word: word})
	}
	return all
}

// pin makes what reads a suspect for the WAL that it keeps, if it is still open.
func (c *Conn) pin(f *findings, by *reader, w walFile, now time.Duration) {
	t := c.pool.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	c.lock()
	defer c.unlock()
	if c.slot < 0 {
		return
	}
	one := func(r *Resource, kept string) {
		if r.id == 0 || r.id != by.held.Resource || r.suspect() {
			return
		}
		r.see(now)
		l, _ := c.suspect(f, r, ReasonWALLimit, 0, now, 0)
		l.Bytes, l.LimitBytes, l.wal = w.size, w.limit, w.log.file
		if kept != "" {
			l.Kept, l.Query, l.maybe = kept, c.told(r.query), by.out
			if l.Trace = r.trace(); !by.out { // not whoever has the lease now
				l.Exempt = r.exempt
			}
		}
	}
	switch {
	case by.out:
		c.stampLease(t.now())
		one(&c.lease, "a raw connection may hold it, and the guard cannot look while it is out")
		return
	case by.raw:
		r := c.leavingLocked()
		if r.id == 0 && by.held.Resource == 0 { // opened past the guard, who knows when
			c.seq++
			r.id, by.held.Resource = c.seq, c.seq
			if r.opened == 0 {
				r.opened = t.now()
			}
		}
		one(r, "it was opened on the raw connection, so only the program can close it")
		return
	}
	if c.tx.id != 0 {
		one(&c.tx, "")
	}
	for r := c.rows.head; r != nil; r = r.next {
		one(r, "")
	}
}

// letGo takes the suspicion of what was left back: it is over, which nobody told.
func (c *Conn) letGo(f *findings, file File) {
	t := c.pool.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	c.lock()
	defer c.unlock()
	if r := c.left(); r != nil {
		c.unpinned(f, r, file)
	}
}

// unpinned takes the suspicion back that r keeps the file's WAL. Tracker.mu and
// Conn.mu are held.
func (c *Conn) unpinned(f *findings, r *Resource, file File) {
	if r.id != 0 && r.suspect() && r.watch.leak.Reason == ReasonWALLimit && r.watch.leak.wal.Same(file) {
		c.recover(f, r)
	}
}

// unpin takes the suspicions back: the file's WAL is small. Tracker.mu is held.
func (c *Conn) unpin(f *findings, file File) {
	c.lock()
	defer c.unlock()
	c.unpinned(f, &c.lease, file)
	c.unpinned(f, &c.tx, file)
	if r := c.left(); r != nil {
		c.unpinned(f, r, file)
	}
	for r := c.rows.head; r != nil; r = r.next {
		c.unpinned(f, r, file)
	}
}
