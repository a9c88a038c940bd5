// Package otel makes the pools of a process visible in any OpenTelemetry
// backend: metrics by the semantic conventions for database clients, and each
// leak as an event with its trace, its site and its stack.
//
//	import _ "github.com/sqlite-leakguard/sqlite-leakguard/otel"
//
// instruments [tracker.Default] with the global MeterProvider and
// LoggerProvider, whether the program sets them before or after. Without one
// nothing is emitted, and nothing is an error. [Start] takes providers and
// other trackers:
//
//	stop, err := otel.Start(tracker.Default(), otel.WithMeterProvider(p))
//
// It needs the OpenTelemetry API only, and builds without cgo.
//
// # Metrics
//
// Counters, UpDownCounters and Gauges are observable: they are read from the
// tracker when somebody collects, and cost the program nothing in between. The
// names and units of db.client.* are those of the semantic conventions v1.43.0.
//
//	name                                     instrument     unit           attributes
//	db.client.connection.count               UpDownCounter  {connection}   db.client.connection.pool.name, db.client.connection.state
//	db.client.connection.max                 UpDownCounter  {connection}   db.client.connection.pool.name
//	db.client.connection.create_time         Histogram      s              db.client.connection.pool.name
//	db.client.connection.use_time            Histogram      s              db.client.connection.pool.name
//	sqlite_leakguard.pool.waits              Counter        {wait}         db.client.connection.pool.name
//	sqlite_leakguard.pool.wait_duration      Counter        s              db.client.connection.pool.name
//	sqlite_leakguard.pool.starved            Counter        {starvation}   db.client.connection.pool.name
//	sqlite_leakguard.pool.lent               UpDownCounter  {connection}   db.client.connection.pool.name
//	sqlite_leakguard.leases.lost             UpDownCounter  {lease}        db.client.connection.pool.name
//	sqlite_leakguard.leases.resting          UpDownCounter  {lease}        db.client.connection.pool.name
//	sqlite_leakguard.leaks                   Counter        {leak}         db.client.connection.pool.name, sqlite_leakguard.kind, sqlite_leakguard.reason
//	sqlite_leakguard.reaped                  Counter        {leak}         db.client.connection.pool.name, sqlite_leakguard.kind
//	sqlite_leakguard.recovered               Counter        {leak}         db.client.connection.pool.name, sqlite_leakguard.kind
//	sqlite_leakguard.recycled                Counter        {connection}   db.client.connection.pool.name, sqlite_leakguard.reason
//	sqlite_leakguard.refreshed               Counter        {connection}   db.client.connection.pool.name, sqlite_leakguard.reason
//	sqlite_leakguard.force_closed            Counter        {connection}   db.client.connection.pool.name
//	sqlite_leakguard.blocked                 Counter        {operation}    db.client.connection.pool.name, sqlite_leakguard.reason
//	sqlite_leakguard.lock.waits              Counter        {wait}         db.client.connection.pool.name
//	sqlite_leakguard.lock.wait_duration      Counter        s              db.client.connection.pool.name
//	sqlite_leakguard.connection.memory       UpDownCounter  By             db.client.connection.pool.name
//	sqlite_leakguard.wal.size                UpDownCounter  By             db.client.connection.pool.name
//	sqlite_leakguard.transaction.count       UpDownCounter  {transaction}  db.client.connection.pool.name
//	sqlite_leakguard.rows.count              UpDownCounter  {rows}         db.client.connection.pool.name
//	sqlite_leakguard.statement.count         UpDownCounter  {statement}    db.client.connection.pool.name
//	sqlite_leakguard.transaction.oldest_age  Gauge          s              db.client.connection.pool.name
//	sqlite_leakguard.rows.oldest_age         Gauge          s              db.client.connection.pool.name
//	sqlite_leakguard.statement.oldest_age    Gauge          s              db.client.connection.pool.name
//	sqlite_leakguard.sqlite.memory           UpDownCounter  By
//	sqlite_leakguard.memory.pressure.active  Gauge          {state}
//	sqlite_leakguard.memory.pressure.events  Counter        {event}
//	sqlite_leakguard.events.dropped          Counter        {event}
//
// create_time is how long SQLite took to open a connection. use_time is there
// only with [WithUseTime]; it times leases that begin after Start and end with
// a check-in. Both have the buckets that the conventions recommend, 1 ms to 10 s.
// Operations are not timed here: db.client.operation.duration comes from a wrapper
// such as github.com/XSAM/otelsql, which goes around the guard like any other driver.
//
// connection.max and pool.* are there for pools whose sql.DB is attached
// (leakguard.Attach), max where that has a limit: the program's own, without what is
// lent. wait_duration is how long those have waited for a place who do not wait any
// more.
//
// connection.memory and sqlite.memory are of the memory monitor's last pass (each
// memory_interval, 30 s) and 0 before the first; wal.size is of the last check
// (each check_interval at the latest). A file counts once: of several pools that
// have it open, the oldest has the size of its log and the others 0.
// memory.pressure.active is 1 while the machine or container is short of memory,
// else 0; memory.pressure.events counts how often that began. force_closed counts
// SQLite handles that the guard closed and not their pool. blocked has the reasons busy, busy_snapshot
// and locked, after SQLITE_BUSY, SQLITE_BUSY_SNAPSHOT and SQLITE_LOCKED. lock.waits and
// lock.wait_duration are of waits of 100 ms and more in the guard's busy handler, those
// that end with blocked included, and are counted when they are over; waits for a
// shared cache are not among them.
//
// The pool's name is that of Config.Name or _leakguard_name, by default the
// base name of the file and a number, never the DSN. A pool that is closed and
// has no open connection left is gone from the next collection; in a histogram
// its series stays until the provider ends, as the API has no way to end one.
// Beyond 100 pools the others share the name "other". Kinds are connection,
// transaction, statement, rows and pool; those of leaks have as reasons the limits'
// names in the DSN, proven, in_pool, panic, and what a [tracker.Detector] returns,
// 64 pairs of kind and reason in a pool at most. No metric has a query, an id, a stack or an
// error's text as an attribute.
//
// A collection costs what the SDK takes for each series, about thirty a pool, and
// hardly depends on the number of connections: a thousand in up to ten pools take
// a fraction of a millisecond, in a hundred pools some milliseconds. See
// BenchmarkCollect.
//
// Of the db.client.connection.* metrics these are not emitted, because a driver
// cannot measure them: idle.max and idle.min (sql.DB does not tell), pending_requests,
// timeouts and wait_time (waiting happens in sql.DB, which tells how often and how
// long in all).
//
// # Events
//
// Events are log records with an event name. Those of a leak carry the span
// context of the operation that opened what leaked (of its lease, if it was
// opened without), so that a backend shows them in that trace; that of a blocked
// operation carries the context of its own transaction or lease.
//
//	name                                    severity
//	sqlite_leakguard.connection.suspect     WARN
//	sqlite_leakguard.connection.recovered   INFO
//	sqlite_leakguard.connection.kept        WARN
//	sqlite_leakguard.connection.recycled    DEBUG
//	sqlite_leakguard.connection.refreshed   DEBUG
//	sqlite_leakguard.connection.blocked     WARN
//	sqlite_leakguard.transaction.suspect    WARN
//	sqlite_leakguard.transaction.recovered  INFO
//	sqlite_leakguard.transaction.reaped     WARN
//	sqlite_leakguard.statement.suspect      WARN
//	sqlite_leakguard.statement.proven       WARN
//	sqlite_leakguard.statement.recovered    INFO
//	sqlite_leakguard.statement.reaped       WARN
//	sqlite_leakguard.rows.suspect           WARN
//	sqlite_leakguard.rows.proven            WARN
//	sqlite_leakguard.rows.recovered         INFO
//	sqlite_leakguard.rows.reaped            WARN
//	sqlite_leakguard.connection.resting     INFO
//	sqlite_leakguard.transaction.resting    INFO
//	sqlite_leakguard.rows.resting           INFO
//	sqlite_leakguard.pool.suspect           WARN
//	sqlite_leakguard.pool.recovered         INFO
//	sqlite_leakguard.pool.starved           WARN
//	sqlite_leakguard.pool.lent              INFO
//	sqlite_leakguard.pool.lost              INFO
//	sqlite_leakguard.memory.pressure.begun  WARN
//	sqlite_leakguard.memory.pressure.ended  INFO
//	sqlite_leakguard.memory.degraded        WARN
//
// What rests has done nothing for report_after, or for 5s while somebody waits for a
// lock behind it: it is no leak yet, and WARN while somebody waits. A suspect broke a limit, and is told again each tx_timeout while it is a
// transaction that works on; it recovered by itself or was reaped. Proven is
// garbage collection's word that nobody can close it. A connection that a limit
// gave up was recycled, that is closed in the pool, or refreshed where it is. Kept,
// once for each pool and reason, is one that the guard would have closed and that
// must not be closed. Blocked is an operation that failed because
// somebody else held a lock, with who that was; at most one each second and pool,
// where the metric counts all. Starved is a pool that served nobody while somebody
// waited; its body says who has the places. Lent says that its limit was raised for
// places that are lost, or lowered again. The events of memory are the process's: pressure as
// it begins and ends, and degraded, once, if memory cannot be measured, with what
// is missing as its body.
//
//	attribute                                     type     present
//	db.system.name                                string   always: sqlite
//	db.client.connection.pool.name                string   but for memory
//	sqlite_leakguard.connection.id                string   but for memory and pool
//	sqlite_leakguard.reason                       string   but for memory, kept, starved and lent: the limit that was broken, or why it was blocked
//	sqlite_leakguard.leak.id                      int      of a leak: the same for all its events
//	sqlite_leakguard.kind                         string   of a leak
//	sqlite_leakguard.age                          double   of a leak: seconds since it was opened, when it was found; of starved: since somebody got a place
//	sqlite_leakguard.idle                         double   of a leak: seconds without activity
//	sqlite_leakguard.waiting                      int      of what rests: operations that wait for a lock behind it
//	sqlite_leakguard.limit                        double   of a leak: the limit in seconds, if the reason has one
//	sqlite_leakguard.count                        int      of a leak: statements of one text or line for max_statements, pools of one file or line for max_pools
//	sqlite_leakguard.bytes                        int      of a leak: the log's size for wal_limit, the connection's memory for leak_memory
//	sqlite_leakguard.limit_bytes                  int      of a leak: the limit of these
//	sqlite_leakguard.transaction.level            int      of a transaction: 1, and 1 more for each savepoint
//	sqlite_leakguard.exempt                       string   of a leak: the reason given to Exempt
//	sqlite_leakguard.kept                         string   why the guard does not undo or close it
//	code.function.name                            string   of a leak: the call that opened it; of blocked: the call that could not go on; of starved: the call that holds the place listed first
//	code.file.path                                string   as code.function.name
//	code.line.number                              int      as code.function.name
//	code.stacktrace                               string   as code.function.name: the whole stack
//	sqlite_leakguard.code.through                 string   as code.function.name, where that called a helper: the lines in between, with commas (see tracker.Stack.Through)
//	db.query.text                                 string   of a leak or blocked, as the pool's setting sql has it
//	sqlite_leakguard.holder.count                 int      of blocked: connections of this process that are or may be in the way; 0 if it was another process, a connection that is not guarded, or who did has let go
//	sqlite_leakguard.holder.kind                  string   of blocked, as all that follow: what the likeliest of them holds the lock with
//	sqlite_leakguard.holder.state                 string   its transaction: read, write, or unknown while it runs or the raw connection is out; none with locking_mode=EXCLUSIVE
//	sqlite_leakguard.holder.age                   double   seconds since that was opened
//	sqlite_leakguard.holder.own                   boolean  it is the blocked connection's own
//	sqlite_leakguard.holder.maybe                 boolean  it is not known to hold the lock: the guard cannot look
//	sqlite_leakguard.holder.through               string   how, if not by what the guard handed out on the file it opened: ATTACH AS a name, the raw connection, locking_mode=EXCLUSIVE
//	sqlite_leakguard.holder.connection.id         string
//	sqlite_leakguard.holder.connection.pool.name  string
//	sqlite_leakguard.holder.code.function.name    string   the call that opened it
//	sqlite_leakguard.holder.code.file.path        string
//	sqlite_leakguard.holder.code.line.number      int
//	sqlite_leakguard.holder.code.stacktrace       string
//	sqlite_leakguard.holder.code.through          string
//	sqlite_leakguard.holder.trace_id              string   32 hexadecimal digits: the trace it was opened in
//	sqlite_leakguard.holder.span_id               string   16 hexadecimal digits
//	sqlite_leakguard.holder.query.text            string   as the pool's setting sql has it
//	sqlite_leakguard.memory.utilization           double   of pressure, as all that follow: memory in use, a share of 1
//	sqlite_leakguard.memory.limit                 double   the share at which pressure begins
//	sqlite_leakguard.memory.stall                 double   the share of the last 10 s in which some task waited for memory, if known
//	sqlite_leakguard.memory.released              int      of begun: bytes that releasing caches gave back
//	sqlite_leakguard.memory.closed                int      of begun: idle connections closed
//	sqlite_leakguard.memory.closed_bytes          int      of begun: bytes that these had held
//
// The code attributes are missing where the pool records no stacks. The body is
// the event as one line, with queries only if db.query.text may be there.
//
// Span contexts are read from the contexts given to database/sql, and only
// where there is a LoggerProvider to send events to. A global one that is set
// after operations began counts from then on.
package otel
