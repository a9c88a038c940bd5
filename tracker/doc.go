// Package tracker knows which connections, transactions, statements and
// result sets of a process are open, who opened them, and which of them were
// forgotten.
//
// A driver produces: it registers a [Pool] and its connections as [Conn], and
// tells each Conn of check-outs, check-ins and what is opened and closed.
// Everybody else consumes: [Tracker.Stats], [Tracker.Subscribe],
// [Tracker.Records], [Tracker.WriteTo].
//
// The words used here:
//
//   - A pool is one connector, hence one sql.DB. A lease is one check-out of a
//     connection, up to its check-in; an access is one lease.
//   - A resource is a connection, a transaction, a statement or rows. Its
//     holder is who opened it: call site, stack, query.
//   - A suspect broke a limit of its [Policy]; it is reported once. It
//     recovered when it came back by itself, was reaped when the guard undid
//     it, and is proven when garbage collection showed that nobody can ever
//     close it.
//
// The package imports the standard library and internal/callstack, holds ids and texts but no
// driver object, and keeps everything it records within bounds. All exported
// methods may be called concurrently unless they say otherwise.
package tracker
