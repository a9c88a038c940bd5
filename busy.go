package leakguard

import (
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// Waiting for a lock. SQLite's own busy handler sleeps up to 100 ms between
// two looks, and no interrupt wakes it. The guard's waits as long in total,
// looks again sooner, and gives up when the operation is cancelled or
// condemned.

// startWaiting installs the busy handler on a fresh connection, with the
// timeout that it has: go-sqlite3's from the DSN, or what ConnectHook made of
// it. A timeout of 0 is no handler or somebody else's, and stays.
func (c *conn) startWaiting() {
	d, timeout := c.connector.sqlite, c.connector.traits.busyTimeout
	if d.ConnectHook != nil || len(d.Extensions) > 0 {
		timeout = 0
	}
	switch c.wait = capi.NewWait(c.db(), c.fileID(), timeout); {
	case !c.wait.OK():
	case timeout > 0:
		c.busyHandler = true
	case d.ConnectHook != nil || len(d.Extensions) > 0:
		c.installBusy()
	}
	rec := c.rec // not c, which must stay collectable
	c.wait.Tell(func(w *capi.LongWait) { rec.WaitsLong(w) })
}

// installBusy reads the timeout that SQLite's own handler has and takes over.
func (c *conn) installBusy() {
	c.ownBusy(time.Duration(c.count("PRAGMA busy_timeout")) * time.Millisecond)
}

func (c *conn) ownBusy(timeout time.Duration) {
	if timeout > 0 {
		c.wait.Busy(c.db(), timeout)
		c.busyHandler = true
	}
}

// namesBusyTimeout reports whether the text may read or set PRAGMA busy_timeout,
// which sees SQLite's own handler only. A text that begins with another word can do
// so by the table-valued function alone
// (https://www.sqlite.org/pragma.html#pragfunc); others speak of it in a string.
func namesBusyTimeout(class sqltext.Class, query string) bool {
	function := false
	if class&(sqltext.Multi|sqltext.Pragma) == 0 && query != "" {
		b := query[0] | 0x20
		function = 'a' <= b && b <= 'z' && b != 'p'
	}
	const pragma, busy, timeout = "pragma_", "busy", "timeout"
	for i := 0; ; i++ {
		n := strings.IndexByte(query[i:], '_')
		if n < 0 {
			return false
		}
		i += n
		at, end := i-len(busy), i+1+len(timeout)
		if at < 0 || end > len(query) || !sqltext.EqualFold(query[at:i], busy) || !sqltext.EqualFold(query[i+1:end], timeout) {
			continue
		}
		if !function || at >= len(pragma) && sqltext.EqualFold(query[at-len(pragma):at], pragma) {
			return true
		}
	}
}

// leaveBusyTimeout gives the connection SQLite's own handler for a text that
// namesBusyTimeout; takeBusyTimeout comes behind it.
func (c *conn) leaveBusyTimeout() {
	if c.busyHandler {
		c.wait.Default(c.db())
	}
}

// takeBusyTimeout installs the handler again behind such a text, with the
// timeout that it left.
func (c *conn) takeBusyTimeout(given bool, class sqltext.Class, query string) {
	if given || namesBusyTimeout(class, query) {
		c.busyHandler = false
		c.installBusy()
	}
}

// fileID says whose locks the connection waits for.
func (c *conn) fileID() capi.FileID {
	f := c.session.file.describe("", "")
	return capi.FileID{Device: f.Device, Inode: f.Inode}
}

// wrote follows an Exec: outside a transaction it has given the write lock back, if
// it took it. The end of a transaction is seen to by endedTx.
func (c *conn) wrote(class sqltext.Class) {
	if !c.txn.open && class&sqltext.Tx == 0 {
		c.wait.Released()
	}
}
