// Package gate is the lock between the owner of a connection and the reaper: one word
// of bits for each connection, which says who is inside SQLite and what is to happen on
// the way out. It knows no database. internal/model has a model of its protocol, which
// a change goes into first.
package gate

import (
	"runtime"
	"sync/atomic"
)

// The bits of a connection's activity word. Above them counts the generation, one for
// each operation that is over: who has seen a word knows by that whether anything moved.
//
//	bit        set by                      cleared by              why
//	Busy       the owner, entering         the owner, leaving      its operation is inside SQLite
//	Reaping    the reaper, by Try          the reaper, by Release  the reaper is inside
//	Interrupt  who sends an interrupt      the same                the operation must not leave under it (law 5)
//	Condemned  the reaper, by Condemn      the owner, by Take      the operation carries an order out on its way back
//	Tombed     who ends a transaction      the owner's Rollback    the transaction is over and its owner does not know yet
//	Dead       who closes the handle       nobody                  the SQLite handle is closed or being closed
//	Watched    the owner                   the owner, leaving      the operation ends with its context
//	Beside     the owner                   the owner, leaving      other rows are open, to which an interrupt would stick
//	Stopped    the watchdog, by Stop       the owner, by Take      the operation was told to stop
//	Attended   a watchdog's goroutine      the owner, by Take      a goroutine waits for the end of the operation's context
//	Ending     the owner                   the owner, leaving      the operation may end the transaction: no interrupt
//	Recording  the owner                   the owner               it writes the connection's record
//	Reading    reports and the reaper      the same                they read the record
//	Sharing    who opens the connection    nobody                  it shares its cache: no short cuts
//	Awaited    an owner that waits         the reaper, by Release  somebody has to be woken
//	Closing    Close, by Gate.Close        the owner, by Take      the operation in flight closes on its way out
const (
	Busy uint64 = 1 << iota
	Reaping
	Interrupt
	Condemned
	Tombed
	Dead
	Watched
	Beside
	Stopped
	Attended
	Ending
	Recording
	Reading
	Sharing
	Awaited
	Closing
)

const (
	// Flags are the bits; the rest of a word is its generation.
	Flags uint64 = 1<<16 - 1
	// operation is one more operation that is over.
	operation = Flags + 1
	// ofOne are the bits that end with the operation in flight.
	ofOne = Busy | Watched | Beside | Ending | Recording
)

// Word is the activity word of one connection. The gate is one of its users; the
// connection's record is guarded by two of its bits. The owner writes the record four
// times for one row of a prepared query, so it takes no lock for that: it holds the
// bit Recording, which the gate sets on the way in and clears on the way out together
// with its own bits, at no cost. Who reads holds the bit Reading, and a lock that keeps
// other readers out.
type Word struct{ atomic.Uint64 }

// Generation counts the operations that are over, in the bits above Flags.
func (w *Word) Generation() uint64 { return w.Load() &^ Flags }

// Record waits until nobody reads the record, and begins writing it. The caller is
// inside the gate, and calls nothing until Recorded but what asks for an open record.
func (w *Word) Record() {
	for {
		now := w.Load()
		if now&(Recording|Reading) == 0 && w.CompareAndSwap(now, now|Recording) {
			return
		}
		runtime.Gosched() // a reader takes microseconds
	}
}

// Recorded ends writing. Leaving the gate does so as well.
func (w *Word) Recorded() { w.And(^Recording) }

// Read waits until the record is not being written, and keeps the owner from writing.
// Who holds it may write, too. Readers exclude each other by a lock of their own.
func (w *Word) Read() {
	for !w.TryRead() {
		runtime.Gosched() // a writer takes less than a microsecond
	}
}

// TryRead is Read for who must not wait for the owner; false if it writes, or enters or
// leaves the gate at this moment.
func (w *Word) TryRead() bool {
	now := w.Load()
	return now&Recording == 0 && w.CompareAndSwap(now, now|Reading)
}

// EndRead follows Read.
func (w *Word) EndRead() { w.And(^Reading) }
