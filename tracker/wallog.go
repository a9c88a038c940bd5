package tracker

// walLog is the write-ahead log of one database file. Guarded by Tracker.mu.
type walLog struct {
	file  File
	path  string // of the log itself, "" until it is measured
	size  int64  // when it was measured last
	conns []*Conn
	one   [1]*Conn // conns, as long as it has room
	place int      // in walLogs.list

	// attached are the connections that have the file open beside their main one, and
	// only so. Nil if there are none.
	attached map[*Conn]bool

	// What can have changed it since: a connection of the file moved (moved), or one
	// holds something open, beside which anybody can write (pins, how many), or the
	// reaper does not look at one (blind, how many).
	moved       bool
	pins, blind int
	watched     int // connections of pools that the reaper looks at
}

// walKey is how a file is found: by its number, or by its path.
type walKey struct {
	device, inode uint64
	path          string
}

// walLogs are the logs of all files that connections have open. Guarded by
// Tracker.mu.
type walLogs struct {
	list []*walLog
	of   map[walKey]*walLog
	turn int // which files at rest are measured next, see due
}

// restingFiles is how many files at rest are measured at each check.
const restingFiles = 50

// find returns the log of a file, nil if nobody has it open.
func (l *walLogs) find(file File) *walLog {
	byPath := l.of[file.byPath()]
	if file.Inode == 0 {
		return byPath
	}
	if w := l.of[file.byNumber()]; w != nil {
		return w
	}
	if byPath != nil && byPath.file.Inode == 0 {
		return byPath
	}
	return nil
}

// join takes a connection in. A database in memory has no log.
func (l *walLogs) join(c *Conn) {
	if c.file.Path == "" {
		return
	}
	w := l.open(c.file)
	c.wal, c.walSlot = w, int32(len(w.conns))
	c.pool.wal = w
	w.conns = append(w.conns, c)
	w.enter(c)
}

// open returns the log of a file, a new one if nobody has it open.
func (l *walLogs) open(file File) *walLog {
	w := l.find(file)
	if w != nil {
		return w
	}
	w = &walLog{file: file, place: len(l.list)}
	w.conns = w.one[:0]
	l.list = append(l.list, w)
	if l.of == nil {
		l.of = make(map[walKey]*walLog)
	}
	if key := file.byPath(); l.of[key] == nil {
		l.of[key] = w
	}
	if file.Inode != 0 {
		l.of[file.byNumber()] = w
	}
	return w
}

// attach takes a connection in, by the databases that it has attached, once it is
// registered.
func (l *walLogs) attach(c *Conn) {
	if c.more == nil || c.slot < 0 {
		return
	}
	for _, a := range c.more.attached {
		if a.File.Path == "" {
			continue
		}
		w := l.open(a.File)
		if w == c.wal || w.attached[c] {
			continue
		}
		if w.attached == nil {
			w.attached = make(map[*Conn]bool)
		}
		w.attached[c] = true
		c.more.logs = append(c.more.logs, w)
		w.enter(c)
	}
}

// detach takes a connection out of the logs of what it has attached.
func (l *walLogs) detach(c *Conn) {
	if c.more == nil {
		return
	}
	for _, w := range c.more.logs {
		delete(w.attached, c)
		w.exit(c)
		l.close(w)
	}
	c.more.logs = nil
}

// enter and exit count a connection that has the log's file open.
func (w *walLog) enter(c *Conn) { w.count(c, 1) }
func (w *walLog) exit(c *Conn)  { w.count(c, -1) }

func (w *walLog) count(c *Conn, n int) {
	w.moved = true
	if c.unwatched || !c.pool.watched() {
		w.blind += n
	}
	if c.pool.watched() {
		w.watched += n
	}
	if c.seen.pins {
		w.pins += n
	}
}

func (f File) byPath() walKey   { return walKey{path: f.Path} }
func (f File) byNumber() walKey { return walKey{device: f.Device, inode: f.Inode} }

// leave takes a connection out.
func (l *walLogs) leave(c *Conn) {
	w := c.wal
	if w == nil {
		return
	}
	w.exit(c)
	last := len(w.conns) - 1
	w.conns[c.walSlot] = w.conns[last]
	w.conns[c.walSlot].walSlot = c.walSlot
	w.conns[last] = nil
	w.conns = w.conns[:last]
	c.wal = nil
	l.close(w)
}

// close takes a log out that nobody has open any more.
func (l *walLogs) close(w *walLog) {
	if len(w.conns) > 0 || len(w.attached) > 0 {
		return
	}
	last := len(l.list) - 1
	l.list[w.place] = l.list[last]
	l.list[w.place].place = w.place
	l.list[last] = nil
	l.list = l.list[:last]
	for _, key := range [...]walKey{w.file.byPath(), w.file.byNumber()} {
		if l.of[key] == w {
			delete(l.of, key)
		}
	}
	l.turn = min(l.turn, max(last-1, 0)) // within the list
}

// logs calls do for the logs of all files that the connection has open. Tracker.mu is
// held.
func (c *Conn) logs(do func(w *walLog)) {
	if c.wal != nil {
		do(c.wal)
	}
	if c.more != nil {
		for _, w := range c.more.logs {
			do(w)
		}
	}
}

// due appends the logs to be measured: those that can have changed in a way that
// matters, and of the others, which only another process or a connection beside
// the guard can have changed, some in turn.
func (l *walLogs) due(out []walFile) []walFile {
	n := len(l.list)
	for i, w := range l.list {
		turn := (i-l.turn+n)%n < restingFiles
		if w.watched == 0 || !(turn || w.moved || w.pins > 0 || w.blind > 0) {
			continue
		}
		w.moved = false // what moves from here on is seen at the next check
		if w.path == "" {
			w.path = w.file.Path + "-wal"
		}
		out = append(out, walFile{log: w, limit: w.limit()})
	}
	if n > 0 {
		l.turn = (l.turn + restingFiles) % n
	}
	return out
}

// movedWAL notes what the reaper saw of the connection: that it moved, and whether
// it holds something open that can keep the log from being reset. Tracker.mu is
// held.
func (c *Conn) movedWAL(moved, open bool) {
	n := 0
	switch {
	case open && !c.seen.pins:
		n = 1
	case !open && c.seen.pins:
		n = -1
	}
	c.seen.pins = open
	if moved || n != 0 {
		c.logs(func(w *walLog) {
			w.moved = w.moved || moved
			w.pins += n
		})
	}
}

// limit returns the lowest wal_limit of the pools that the reaper looks at, 0 if
// there is none.
func (w *walLog) limit() (limit int64) {
	see := func(c *Conn) {
		if l := c.pool.policy.Load().WALLimit; l > 0 && (limit == 0 || l < limit) && c.pool.watched() {
			limit = l
		}
	}
	for _, c := range w.conns {
		see(c)
	}
	for c := range w.attached {
		see(c)
	}
	return limit
}
