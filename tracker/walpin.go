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

// pinned brings the suspicions about one WAL up to date.
func (t *Tracker) pinned(f *findings, w walFile, now time.Duration) {
	over := w.limit > 0 && w.size > w.limit
	type reader struct {
		conn *Conn
		held Held
	}
	var readers []reader
	t.mu.Lock()
	w.log.size = w.size
	at := t.now()
	for _, c := range w.log.conns {
		if !over {
			c.unpin(f)
			continue
		}
		for _, h := range c.heldLocked(nil, at) {
			if h.Kind == KindTransaction || h.Kind == KindRows {
				readers = append(readers, reader{c, h})
			}
		}
	}
	t.mu.Unlock()
	var oldest *reader
	for i := range readers {
		one := &readers[i]
		if oldest != nil && one.held.Age <= oldest.held.Age {
			continue
		}
		if s := one.conn.control.TxState(); s == TxRead || s == TxWrite || s == TxUnknown && one.held.Busy {
			oldest = one
		}
	}
	if oldest != nil {
		oldest.conn.pin(f, oldest.held.Resource, w, now)
	}
}

// pin makes a resource a suspect for the WAL that it keeps, if it is still
// open.
func (c *Conn) pin(f *findings, resource uint64, w walFile, now time.Duration) {
	t := c.pool.tracker
	t.mu.Lock()
	defer t.mu.Unlock()
	c.lock()
	defer c.unlock()
	if c.slot < 0 {
		return
	}
	one := func(r *Resource) {
		if r.id != resource || r.suspect() {
			return
		}
		r.see(now)
		l, _ := c.suspect(f, r, ReasonWALLimit, 0, now, 0)
		l.Bytes, l.LimitBytes = w.size, w.limit
	}
	if c.tx.id != 0 {
		one(&c.tx)
	}
	for r := c.rows.head; r != nil; r = r.next {
		one(r)
	}
}

// unpin takes the suspicions back: the WAL is small. Tracker.mu is held.
func (c *Conn) unpin(f *findings) {
	c.lock()
	defer c.unlock()
	take := func(r *Resource) {
		if r.id != 0 && r.suspect() && r.watch.leak.Reason == ReasonWALLimit {
			c.recover(f, r)
		}
	}
	take(&c.tx)
	for r := c.rows.head; r != nil; r = r.next {
		take(r)
	}
}
