package tracker

import (
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/proclocks"
)

// Who is in the way, by the locks on a database's files. This process is 7.
func TestLockHolderOfFiles(t *testing.T) {
	lock := func(pid int, write bool, first, last int64) proclocks.Lock {
		return proclocks.Lock{PID: pid, Write: write, First: first, Last: last}
	}
	type locks = []proclocks.Lock
	shared := func(pid int) proclocks.Lock { return lock(pid, false, sharedFirst, sharedLast) }
	dms := func(pid int) proclocks.Lock { return lock(pid, false, 128, 128) } // who has the -shm open
	for name, c := range map[string]struct {
		files fileLocks
		want  lockHolder
	}{
		"nobody":                      {fileLocks{}, lockHolder{}},
		"nobody that writes, WAL":     {fileLocks{wal: true, main: locks{shared(7), shared(8)}, shm: locks{dms(7), dms(8), lock(8, false, 124, 124)}}, lockHolder{}},
		"a writer, WAL":               {fileLocks{wal: true, main: locks{shared(7), shared(8)}, shm: locks{dms(7), lock(8, true, 120, 120)}}, lockHolder{place: heldElsewhere, pid: 8}},
		"one here, WAL":               {fileLocks{wal: true, shm: locks{lock(7, true, 120, 120)}}, lockHolder{place: heldPastGuard}},
		"one in another namespace":    {fileLocks{wal: true, shm: locks{lock(0, true, 120, 120)}}, lockHolder{place: heldElsewhere}},
		"the known one of two":        {fileLocks{wal: true, shm: locks{lock(0, true, 120, 120), lock(9, true, 122, 122), lock(0, true, 121, 121)}}, lockHolder{place: heldElsewhere, pid: 9}},
		"exclusive, WAL":              {fileLocks{wal: true, main: locks{lock(8, true, sharedFirst, sharedLast)}}, lockHolder{place: heldElsewhere, pid: 8}},
		"readers before a checkpoint": {fileLocks{wal: true, checkpoint: true, shm: locks{lock(7, true, 120, 121), lock(8, false, 124, 124)}}, lockHolder{place: heldElsewhere, pid: 8}},
		"a checkpoint's own":          {fileLocks{wal: true, checkpoint: true, shm: locks{lock(7, true, 120, 121), lock(7, false, 124, 124)}}, lockHolder{}},
		"a writer":                    {fileLocks{main: locks{shared(8), lock(8, true, reservedByte, reservedByte)}}, lockHolder{place: heldElsewhere, pid: 8}},
		"one that commits":            {fileLocks{main: locks{lock(8, true, pendingByte, pendingByte)}}, lockHolder{place: heldElsewhere, pid: 8}},
		"exclusive":                   {fileLocks{main: locks{lock(8, true, pendingByte, sharedLast)}}, lockHolder{place: heldElsewhere, pid: 8}},
		"a reader before a commit":    {fileLocks{main: locks{lock(7, true, pendingByte, reservedByte), shared(7), shared(8)}}, lockHolder{place: heldElsewhere, pid: 8}},
		"readers, and no commit":      {fileLocks{main: locks{shared(7), shared(8)}}, lockHolder{}},
		"one here":                    {fileLocks{main: locks{lock(7, true, reservedByte, reservedByte), shared(7)}}, lockHolder{place: heldPastGuard}},
	} {
		c.files.self = 7
		if got := c.files.holder(); got.place != c.want.place || got.pid != c.want.pid {
			t.Errorf("%s: place %d, process %d, want %d, %d", name, got.place, got.pid, c.want.place, c.want.pid)
		}
	}
}
