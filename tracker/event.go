package tracker

import (
	"fmt"
	"time"
)

// EventType says what happened.
type EventType uint8

const (
	// EventOpened: a connection was opened.
	EventOpened EventType = iota
	// EventCheckOut and EventCheckIn: a lease began or ended. They exist only
	// while somebody is subscribed or a pool's logger takes debug lines, and
	// are not kept in the history.
	EventCheckOut
	EventCheckIn
	// EventSuspect: a resource broke a limit, once for each leak; a transaction
	// that works on beyond tx_timeout is told again each tx_timeout, with the
	// same Leak.ID.
	EventSuspect
	// EventProven: garbage collection showed that nobody can close it. It
	// stands instead of EventSuspect, or after it if age was faster.
	EventProven
	// EventRecovered: a suspect came back by itself.
	EventRecovered
	// EventReaped: the guard undid it.
	EventReaped
	// EventRecycled: a connection in the pool was closed by policy
	// (max_lifetime, max_idle, max_access, conn_memory, pressure).
	EventRecycled
	// EventRefreshed: a connection that a limit gave up stayed open: what the
	// guard keeps prepared on it was finalized and, but for max_access, its
	// caches were released.
	EventRefreshed
	// EventKept: the guard would have closed a connection that must not be
	// closed; Reason says why. Once per pool and reason.
	EventKept
	// EventClosed: a connection was closed.
	EventClosed
	// EventBlocked: an operation failed because somebody else held a lock;
	// Blame says who. At most one each second and pool.
	EventBlocked
	// EventPressure: memory got short, or the shortage is over; Pressure says
	// more.
	EventPressure
	// EventDegraded: the memory monitor lacks what it needs; Reason says what.
	// Once in a tracker's life.
	EventDegraded
	// EventResting: a lease rests for ReportAfter, or for 5s while somebody waits
	// for a lock behind it: Leak is the transaction, the rows or the lease, which is
	// no leak yet, and Waiters who waits. Once for each time that it rests, and once
	// more when somebody comes to wait.
	EventResting
	// EventChanged: the mode of a pool was changed at run time, its limits were by
	// an operator, he spared something, the program tried to change what is his, or
	// his environment was read; Reason says what. Loggers are told at info.
	EventChanged
	// EventStarved: a pool with a sql.DB attached was full, somebody waited and nobody
	// got a place; Starved says more. At most one each minute and pool.
	EventStarved
	// EventLent: the limit of a pool with a sql.DB attached was raised for places that
	// are lost, or lowered again; Places says by how much.
	EventLent
	// EventLost: the number of places of a pool changed that are lost; Places says how
	// many, and what is known of the pool's limit.
	EventLost
)

var eventNames = [...]string{
	"opened", "check-out", "check-in", "suspect", "proven", "recovered",
	"reaped", "recycled", "refreshed", "kept", "closed", "blocked", "pressure", "degraded", "resting", "changed",
	"starved", "lent", "lost",
}

// String returns the event type's name, for example "suspect", and for what is
// no type its number: "EventType(99)".
func (t EventType) String() string {
	if int(t) < len(eventNames) {
		return eventNames[t]
	}
	return fmt.Sprintf("EventType(%d)", uint8(t))
}

// MarshalText spells the type as String does; what is no type is an error.
func (t EventType) MarshalText() ([]byte, error) {
	if int(t) >= len(eventNames) {
		return nil, fmt.Errorf("unknown event type %d", uint8(t))
	}
	return []byte(eventNames[t]), nil
}

// Event is one step in the life of a resource.
type Event struct {
	Type EventType `json:"type"`
	Time time.Time `json:"time"`
	Pool string    `json:"pool"`
	// ConnectionID names the connection, unique in the tracker.
	ConnectionID string `json:"connection_id"`
	// Reason is set for recycled, refreshed, kept, blocked, degraded, changed and the events of a leak.
	Reason Reason `json:"reason,omitempty"`
	// Leak is set for suspect, proven, recovered and reaped. It is shared
	// between subscribers: read it, do not change it.
	Leak *Leak `json:"leak,omitempty"`
	// Waiters is set for resting, if somebody waits, and shared as Leak is.
	Waiters []LockWaiter `json:"waiters,omitempty"`
	// Blame is set for blocked, and shared as Leak is.
	Blame *Blame `json:"blame,omitempty"`
	// Pressure is set for pressure, and shared as Leak is.
	Pressure *Pressure `json:"pressure,omitempty"`
	// Starved is set for starved, Places for lent, and shared as Leak is.
	Starved *Starved `json:"starved,omitempty"`
	Places  *Places  `json:"places,omitempty"`
	// Duration is set for opened, in nanoseconds: how long SQLite took to open
	// the connection, 0 if the driver did not say.
	Duration time.Duration `json:"duration,omitempty"`

	pool *Pool // whose logger is told
	news bool  // the leak's first event; more was lent
	bad  bool  // of EventChanged: something of the environment is ignored
	// sites is for EventLost: where the leases of the lost places were opened.
	sites string
}

// leak reports whether the event belongs to a leak.
func (e Event) leak() bool { return e.Leak != nil && e.Type != EventResting }
