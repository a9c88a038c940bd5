package leakguard

import (
	"os/signal"
	"syscall"
	"testing"

	"github.com/mattn/go-sqlite3"
)

// The disk fails while the program has the raw connection. SQLite throws the page
// cache away, which looks like a commit to SQLITE_FCNTL_DATA_VERSION.
func TestDiskFailsInRaw(t *testing.T) {
	if !alone(t) { // the limit is the process's
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	for _, journal := range []string{"WAL", "DELETE"} {
		for _, way := range []string{"tx", "text"} {
			g := open(t, Config{DSN: fileDSN(t, "_cache_size=5", "_journal_mode="+journal)})
			run(t, g, createT)
			c := g.conn(t)
			o := beginBy(t, c, way)
			run(t, o, "INSERT INTO t VALUES('first half')")
			check(c.Raw(func(dc any) error {
				raw, _ := SQLiteConn(dc)
				var limit syscall.Rlimit
				check(syscall.Getrlimit(syscall.RLIMIT_FSIZE, &limit))
				defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit)
				check(syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 20000, Max: limit.Max}))
				_, err := raw.Exec("INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n LIMIT 300) SELECT randomblob(3000) FROM n", nil)
				wantCode(t, "in Raw", err, sqlite3.ErrIoErr)
				return nil
			}))
			wantErr(t, journal+", a text", try(o, "INSERT INTO t VALUES('second half')"), ErrTxAborted)
			wantCode(t, "ROLLBACK", o.rollback(), sqlite3.ErrError)
			run(t, c, "INSERT INTO t VALUES('after')")
			if n := number(t, c, "SELECT count(*) FROM t"); n != 1 {
				t.Errorf("%d rows, want 1", n)
			}
		}
	}
}
