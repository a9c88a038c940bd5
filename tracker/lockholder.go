package tracker

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/proclocks"
)

// Who holds a lock that somebody waits for: a connection of this process, or else
// another process, of which the system may know.

// lockHolder is who.
type lockHolder struct {
	place lockPlace
	// Of a guarded connection:
	held Held
	// Of another process, 0 and "" if not known:
	pid     int
	command string
	query   string // the holder's, as it may be told
}

type lockPlace uint8

const (
	heldNotKnown lockPlace = iota
	heldByGuarded
	heldPastGuard // by this process
	heldElsewhere // by another one
)

// String returns LockWaits.Holder.
func (h *lockHolder) String() string {
	switch {
	case h.place == heldElsewhere && h.pid > 0 && h.command != "":
		return fmt.Sprintf("process %d (%s)", h.pid, h.command)
	case h.place == heldElsewhere && h.pid > 0:
		return fmt.Sprintf("process %d", h.pid)
	}
	return h.group()
}

// group is String without what is another one each time that a program runs.
func (h *lockHolder) group() string {
	switch h.place {
	case heldByGuarded:
		return h.held.Kind.String()
	case heldPastGuard:
		return "this process, past the guard"
	case heldElsewhere:
		if h.command != "" {
			return h.command
		}
		return "another process"
	}
	return "not known"
}

// site is the call that opened what holds the lock, "" if it is not of a guarded
// connection.
func (h *lockHolder) site() string {
	if h.place != heldByGuarded {
		return ""
	}
	return h.held.Site().String()
}

// whoHolds returns who is in the way of the connection, which waits for a lock to run
// the query, and the files in question, of which there is one at least. It may be
// called inside the connection's gate and from any goroutine.
func (c *Conn) whoHolds(query string) (by lockHolder, files []openFile) {
	files = c.inQuestion(ReasonBusy, query)
	for range 2 { // in between the lock may have gone from hand to hand
		found, sure := c.holders(files, ReasonBusy, false), false
		if len(found) > 0 {
			h := found[0]
			by = lockHolder{place: heldByGuarded, held: h.Held, query: h.Query}
			sure = !h.Maybe && (h.State == TxRead || h.State == TxWrite)
		}
		if sure {
			return by, files
		}
		switch other := otherHolder(files, strings.Contains(strings.ToLower(query), "checkpoint")); {
		case other.place == heldElsewhere:
			return other, files
		case len(found) > 0, other.place == heldNotKnown:
			return by, files
		}
	}
	return lockHolder{place: heldPastGuard}, files
}

// otherHolder returns what the system says of who holds a lock on one of the files:
// heldElsewhere, heldPastGuard if it is somebody of this process, or heldNotKnown. No
// file is opened. checkpoint: the operation that waits is one, for which all readers are
// in the way.
func otherHolder(files []openFile, checkpoint bool) (by lockHolder) {
	self := proclocks.Self()
	for _, f := range files {
		if f.File.Path == "" || f.File.Inode == 0 {
			continue
		}
		locks := fileLocks{self: self, checkpoint: checkpoint}
		locks.main, _ = proclocks.Held(proclocks.File{Device: f.File.Device, Inode: f.File.Inode})
		if id, ok := statID(f.File.Path + "-shm"); ok {
			locks.wal = true
			locks.shm, _ = proclocks.Held(id)
		}
		if found := locks.holder(); found.place > by.place {
			by = found
		}
	}
	if by.pid > 0 {
		by.command = printable(proclocks.Command(by.pid))
	}
	return by
}

func statID(path string) (proclocks.File, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return proclocks.File{}, false
	}
	return fileNumbers(info)
}

// fileLocks are the locks on a database's file and on its -shm.
type fileLocks struct {
	main, shm  []proclocks.Lock
	wal        bool
	checkpoint bool
	self       int // the PID of this process, 0 if not known
}

// The bytes that SQLite locks, see https://www.sqlite.org/fileformat2.html#wal_index_format
// and https://www.sqlite.org/lockingv3.html.
const (
	pendingByte, reservedByte   = 0x40000000, 0x40000001
	sharedFirst, sharedLast     = 0x40000002, 0x40000002 + 509
	walWriteByte, walLastMarker = 120, 127 // write, checkpoint, recover, five readers
)

// holder returns who has a lock by which others wait. Who waits for his own commit has
// some himself, so that another process comes before this one.
func (l *fileLocks) holder() lockHolder {
	first, last, locks := int64(pendingByte), int64(sharedLast), l.main
	if l.wal {
		first, last, locks = walWriteByte, walLastMarker, l.shm
	}
	write := l.find(locks, first, last, true)
	if l.wal && l.checkpoint {
		if by := most(write, l.find(locks, first, last, false)); by.place == heldElsewhere {
			return by
		}
		return lockHolder{} // the locks of this process are its own
	}
	if l.wal {
		// With locking_mode=EXCLUSIVE it is the file that is locked.
		return most(write, l.find(l.main, sharedFirst, sharedLast, true))
	}
	if write.place != heldElsewhere && write.place != heldNotKnown {
		// Somebody here wants to commit, which readers keep him from.
		return most(l.find(l.main, sharedFirst, sharedLast, false), write)
	}
	return write
}

func most(a, b lockHolder) lockHolder {
	if a.place >= b.place {
		return a
	}
	return b
}

// find returns who has a lock on one of the bytes: another process, one that is known
// first, or else this one.
func (l *fileLocks) find(locks []proclocks.Lock, first, last int64, write bool) (by lockHolder) {
	for _, one := range locks {
		if one.Write != write || !one.Covers(first, last) {
			continue
		}
		found := lockHolder{place: heldElsewhere, pid: one.PID}
		if one.PID > 0 && one.PID == l.self {
			found = lockHolder{place: heldPastGuard}
		}
		if cmp.Or(cmp.Compare(found.place, by.place), cmp.Compare(min(found.pid, 1), min(by.pid, 1))) > 0 {
			by = found
		}
	}
	return by
}
