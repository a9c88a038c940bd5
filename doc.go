// Package leakguard is a database/sql driver for SQLite that finds forgotten
// connections, transactions, statements and result sets, names the call that
// opened them (file:line), and undoes them safely. It wraps
// github.com/mattn/go-sqlite3 and registers as "sqlite-leakguard":
//
//	import _ "github.com/sqlite-leakguard/sqlite-leakguard"
//
//	db, err := sql.Open("sqlite-leakguard", "file:app.db?_journal_mode=WAL")
//
// The rest of the program stays as it is. The DSN is go-sqlite3's, with keys of
// the guard's own beside it. A [Config] with [NewConnector] and [sql.OpenDB]
// says the same in Go.
//
// # What it guards
//
// database/sql closes nothing that a program forgets. A forgotten [sql.Rows]
// keeps a read transaction open, and with it the WAL from being reset: the file
// grows without end. A forgotten [sql.Tx] that has written keeps everybody else
// from writing: "database is locked". Each of them, and each forgotten
// [sql.Conn], takes a place in the pool for ever. What the guard does about it,
// with the default limits:
//
//	forgotten                            found           undone
//	rows, their connection idle          leak_after      closed at the next check, with all that the lease holds
//	rows, their connection in use        leak_after      closed at the next check, these rows alone
//	rows that nothing points to          when collected  closed at once
//	transaction, its lease idle          leak_after      rolled back at the next check
//	transaction, old, at work            tx_timeout      not as long as it works; reported each tx_timeout
//	transaction, old, at rest            tx_timeout      rolled back once it did nothing for a tenth of that
//	transaction, however busy            tx_limit        interrupted and rolled back at once
//	BEGIN by SQL text, left in the pool  1s              rolled back after leak_after
//	statement that nothing points to     when collected  closed at once
//	statements of one text, or one line  max_statements  reported
//	pools of one file                    max_pools       reported
//	pools of one line that nobody uses   leak_after      reported, at max_pools of them
//	sql.Conn that holds nothing          leak_after      reported, its memory released
//
// A statement that runs is activity, however long it runs; so is reading rows.
// tx_limit, off by default, is the only limit that hits running work.
//
// # DSN keys
//
// All keys begin with _leakguard. They are taken out before go-sqlite3 sees the
// DSN; every other byte of it stays as it is. An unknown key, one that is nearly
// of the guard's (leakguard_tx_limit), a key given twice
// and a value that cannot be used are errors of [sql.Open] that name them. See
// [ParseDSN] for how values are written; 0 switches a limit off.
//
// The pool:
//
//	key                         default            consequence
//	_leakguard                  enforce            mode, see below
//	_leakguard_name             file and number    name of the pool in reports
//	_leakguard_stacks           on                 off: no call sites are recorded, so reports name none
//	_leakguard_log              on                 off: nothing is written to the log; events, reports and figures stay
//	_leakguard_sql              redacted           full: SQL texts are told with the values that are written in them; off: not at all
//
// Limits of a connection. One that is given up is refreshed where it is: what the
// guard keeps prepared on it is finalized, and its caches are released. It is closed
// only where no program can miss it (see [tracker.Refresh]):
//
//	key                         default            consequence
//	_leakguard_max_lifetime     30m                age since it was opened or refreshed (less up to 2.5 % at random) at which it is given up
//	_leakguard_max_idle         5m                 time in the pool after which it is given up
//	_leakguard_max_access       1000               leases, since it was opened or refreshed, after which what is kept prepared is finalized
//	_leakguard_expire           refresh            close: whatever sits in the pool and carries no session state is closed, see [tracker.Close]
//
// Limits of what a program holds:
//
//	key                         default            consequence
//	_leakguard_report_after     30s                time without activity after which a lease is reported as resting, 5s while somebody waits for a lock behind it; nothing is undone
//	_leakguard_collect          on                 off: no garbage collection is asked for when rows have rested for so long before somebody; see [tracker.Policy]
//	_leakguard_leak_after       5m                 time without activity after which what a lease holds is reported; undone at the next check
//	_leakguard_tx_timeout       10m                age at which a transaction is reported, again each tx_timeout; rolled back once it rests for a tenth of that
//	_leakguard_tx_limit         0                  age at which a transaction is interrupted and rolled back, also at work
//	_leakguard_max_statements   100                open statements of one text, or prepared by one line, on one connection that are reported
//	_leakguard_max_pools        20                 open pools of one database file, or of one line and unused for leak_after, that are reported with the call that opened most of them
//	_leakguard_wal_limit        64MiB              size of the WAL above which the oldest reader that keeps it from being reset is reported
//
// How often the guard looks. A limit is met late by up to a quarter of itself
// or one check_interval, whichever is shorter, and never early:
//
//	key                         default            consequence
//	_leakguard_check_interval   1m                 longest time between two checks; cannot be 0
//
// Limits of memory, looked at by a monitor that waits for nobody:
//
//	key                         default            consequence
//	_leakguard_conn_memory      50MiB              memory above which a connection's caches are released, and it is given up if that did not help
//	_leakguard_leak_memory      100MiB             memory above which a leased connection is reported; nothing is undone
//	_leakguard_pressure         0.85               used share of the machine's or container's memory at which caches are released and idle connections given up
//	_leakguard_memory_interval  30s                period of the memory monitor; cannot be 0
//
// [Connector.SetPolicy] changes the limits while the pool is in use.
//
// # Modes
//
//	enforce  find, report, undo; the default
//	observe  find and report; no limit undoes anything
//	basic    no goroutine: only what happens in the program's own calls, that is
//	         max_lifetime and max_access, which refresh at check-in; for unit tests
//	off      go-sqlite3 itself, nothing in between
//
// Rows and statements that nothing points to any more are closed in every mode
// but off, as go-sqlite3 does by a finalizer: nobody can use them.
//
// enforce, observe and basic can be changed while connections are open, by
// [tracker.Pool.SetMode] of what [tracker.Tracker.Pools] returns.
//
// # The operator's last word
//
// The environment variable LEAKGUARD has a say in a program that nobody rebuilds: a
// comma-separated list of the DSN's keys without their prefix, a mode by itself, and
// pool=NAME: before an item that is for one pool alone, by its name with or without
// the number:
//
//	LEAKGUARD=observe,leak_after=30s,pool=cache.db:off ./program
//
// It is read once, when the first pool is made, and beats DSN and Config; what is said
// for one pool beats what is said for all. It is logged once at level info, and stands
// on the page and in [Stats]. What it sets stays: SetPolicy and SetMode leave it alone,
// only the page's control (debughttp.Control) changes it. An item that cannot be used is
// logged at level error with what is allowed, and ignored: the program starts.
//
// # Errors
//
// What SQLite and go-sqlite3 return is passed on as it is: err.(sqlite3.Error)
// works. Two errors are the guard's own.
//
// [ReapedError], with errors.Is(err, [ErrReaped]), is what a reaped resource
// answers to every later call. It says what was undone, when, why, and where it
// was opened:
//
//	leakguard: transaction rolled back after 10m0s (tx_timeout 10m): opened at billing/invoice.go:88
//
// [TxAbortedError], with errors.Is(err, [ErrTxAborted]), is what a transaction
// answers after SQLite itself rolled it back: an INSERT that was interrupted, a
// full disk, ON CONFLICT ROLLBACK. Without it, what is left of the transaction
// would run and commit statement by statement, as it does with go-sqlite3.
//
// After either of them every statement of that transaction fails, prepared ones
// and open rows included, until the program's own Rollback; Commit fails.
// Rollback returns nil if the guard had rolled back, and SQLite's error if
// SQLite had. Reaped rows end with an error and never with io.EOF, so that a
// short result does not look complete.
//
// A transaction begun by SQL text belongs to no lease, so nobody may come for
// it: whoever uses its connection next gets the error once, and the connection
// is replaced.
//
// # Cancellation
//
// A ctx that ends stops its own operation, also while that waits for a lock,
// and leaves other open rows of the connection alone. The operation returns
// ctx.Err(), as with go-sqlite3. Inside a transaction an INSERT, UPDATE or
// DELETE that is stopped may take the transaction with it: then it goes on as
// [TxAbortedError] says.
//
// # Being told
//
// Leaks are logged at level warn to [slog.Default], or to Config.Logger. [OnLeak]
// calls a function once for each of them. [tracker.Tracker.Subscribe] tells of
// every event: opened, suspect, proven, recovered, reaped, recycled, refreshed,
// kept, closed, blocked, pressure, degraded, resting, changed, starved, lent, and
// check-out and check-in while somebody listens. Callbacks run one
// after the other on a goroutine of the guard's, outside every lock; they may
// call anything, sql.DB.Close included. A panic in one is contained and counted,
// and when more than 1024 events wait, later ones are dropped and counted.
//
// When an operation fails with SQLITE_BUSY or SQLITE_LOCKED, the event blocked
// names who was in the way on the same file, as far as it is this process: the
// call that opened it, its last text, its age. The error stays as it is. There
// is one such event a second and pool; [tracker.Tracker.Blamed] counts by place.
//
// Places of the pool, and who waits for one, a driver is not told of. [Attach] makes
// the sql.DB known: then a pool that is full and serves nobody is reported, with who
// has its places.
//
// [Stats] returns the figures, and tracker.Default().WriteTo a report to read.
// A long job that is known is marked by [Exempt]: reported, never undone.
//
// # What is never undone
//
// A connection is never closed by the guard if a new one would lack something:
//
//   - databases in memory and temporary ones (:memory:, mode=memory, vfs=memdb,
//     an empty name, a shared cache in memory): closing would destroy the data
//   - a database is attached, or temporary objects exist
//   - a PRAGMA was set by the program, also if it was set back
//   - locking_mode=EXCLUSIVE, a vfs that is not the system's own
//   - the DSN names another file by now
//   - the program saw its handle: the real connection was handed out
//     ([SQLiteConn], Raw), ever, or Config.SQLite has a ConnectHook or extensions
//
// That is told once per pool and reason. What its lease holds is undone all the
// same, and its memory released. While the real connection is out, and for what
// was opened with an [Exempt] context, nothing is undone at all. Neither is a
// lease that holds no rows and no transaction: a sql.Conn may be kept on
// purpose.
//
// # Limits
//
//   - A place in the pool comes back only when its holder calls Close, Commit
//     or Rollback. The guard frees the lock, the WAL and the memory; it cannot
//     make database/sql forget a lease. With [Attach] the pool is lent another place
//     meanwhile. Use sql.DB.SetMaxOpenConns with room to spare, and mend what is
//     named.
//   - It sees the connections of this process that were opened through it.
//   - It needs cgo, as go-sqlite3 does. Without cgo the package builds, and
//     opening a connection fails as go-sqlite3 fails.
//   - An interrupt stops SQLite's own work. A Go function that SQL calls has to
//     return by itself. If it panics instead, SQLite's mutex may stay locked:
//     the connection is reported and never touched again.
//
// # Reading
//
// SQLite: [transactions], [WAL], [interrupt], [autocommit], [closing over open
// statements], [shared cache]. Go issues about what database/sql
// does not do: [rows need Close], [finding leaks by a wrapped driver].
//
// [transactions]: https://www.sqlite.org/lang_transaction.html
// [WAL]: https://www.sqlite.org/wal.html#avoiding_excessively_large_wal_files
// [interrupt]: https://www.sqlite.org/c3ref/interrupt.html
// [autocommit]: https://www.sqlite.org/c3ref/get_autocommit.html
// [closing over open statements]: https://www.sqlite.org/c3ref/close.html
// [shared cache]: https://www.sqlite.org/sharedcache.html
// [rows need Close]: https://go.dev/issue/46863
// [finding leaks by a wrapped driver]: https://go.dev/issue/18080
package leakguard
