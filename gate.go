package leakguard

import (
	"context"
	"runtime"
	"sync/atomic"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The bits of a connection's activity word. Above them counts the generation,
// one for each operation that is over.
const (
	busy      = uint64(tracker.BusyBit) // the owner's operation is inside SQLite
	reaping   = uint64(1) << 1          // the reaper is
	interrupt = uint64(1) << 2          // the operation in flight is being told to stop
	condemned = uint64(1) << 3          // the operation in flight carries an order out on its way back
	tombed    = uint64(1) << 4          // the transaction is over and its owner does not know yet
	dead      = uint64(1) << 5          // the SQLite handle is closed or being closed
	watched   = uint64(1) << 6          // the operation in flight ends with its context
	beside    = uint64(1) << 7          // other rows are open beside the operation in flight
	stopped   = uint64(1) << 8          // the operation in flight was told to stop
	attended  = uint64(1) << 9          // a goroutine waits for the end of its context
	ending    = uint64(1) << 10         // the operation in flight may end the transaction
	closing   = uint64(1) << 15         // Close came beside the operation in flight, which closes on its way out
	recording = uint64(tracker.RecordingBit)
	sharing   = uint64(tracker.SharingBit) // always, for a connection that shares its cache: no short cuts
	awaited   = uint64(1) << 14            // the owner waits for the reaper, which is inside
	ofOne     = busy | watched | beside | ending | recording
	flags     = uint64(tracker.FlagBits)
	operation = flags + 1
)

// gate is the lock between a connection's owner and the reaper. The owner is
// one goroutine at a time: database/sql locks each connection. The reaper only
// ever tries: nearly every call into SQLite waits for the connection's mutex,
// that is, for as long as a statement runs.
type gate struct {
	word *atomic.Uint64

	// turn is what the owner waits for while the reaper is inside.
	turn turn

	// shared is not nil for a connection that shares its cache: one mutex in
	// SQLite serves them all, so any owner of one keeps the reaper out of all.
	// It comes first: who has one of the bits busy and reaping is inside it.
	// See https://www.sqlite.org/sharedcache.html.
	shared *cacheGate
}

// share makes the gate one of those of a shared cache, if it is not nil.
func (g *gate) share(common *cacheGate) {
	if g.shared = common; common != nil {
		g.set(sharing)
	}
}

// cache names the shared cache, empty for a connection that has its own.
func (g *gate) cache() string {
	if g.shared == nil {
		return ""
	}
	return g.shared.name
}

// enter begins an operation and returns the tombed and dead bits. It returns
// the busy bit, and has begun nothing, if an operation is in flight: then a
// call never came back from SQLite (a Go function called by SQL panicked), or
// two goroutines use one driver connection.
func (g *gate) enter() uint64 {
	if w := g.word.Load(); w&flags == 0 && g.word.CompareAndSwap(w, w|busy) {
		return 0
	}
	return g.enterSlow(nil, busy)
}

// enterUntil is enter for an operation that ends with ctx. It returns the
// reaping bit, and has begun nothing, if ctx is over while the reaper is inside.
func (g *gate) enterUntil(ctx context.Context) uint64 {
	if w := g.word.Load(); w&flags == 0 && g.word.CompareAndSwap(w, w|busy) {
		return 0
	}
	return g.enterSlow(ctx.Done(), busy)
}

// enterAs is enterUntil with further bits: ending for an operation that may end
// the transaction, recording for one that begins with writing the record (see
// tracker.Conn.Record).
func (g *gate) enterAs(ctx context.Context, bits uint64) uint64 {
	if w := g.word.Load(); w&flags == 0 && g.word.CompareAndSwap(w, w|bits) {
		return 0
	}
	return g.enterSlow(ctx.Done(), bits)
}

// enterEnding is enter for an operation that may end the transaction, so that
// an order for it may come to nothing.
func (g *gate) enterEnding() uint64 { return g.enterAs(context.Background(), busy|ending) }

// enterSlow waits for a reaper that is inside until done is closed.
func (g *gate) enterSlow(done <-chan struct{}, bits uint64) uint64 {
	if g.shared != nil && !g.shared.enter(done) {
		return reaping
	}
	for {
		w := g.word.Load()
		switch {
		case w&busy != 0:
			g.shared.leave()
			return busy
		case w&reaping != 0: // never inside a shared cache
			if !g.turn.await(g.word, done) {
				return reaping
			}
		case bits&recording != 0 && !tracker.Readable(w):
			runtime.Gosched() // a report is being written
		case g.word.CompareAndSwap(w, w|bits):
			return w & (tombed | dead)
		}
	}
}

// notAtAll is how long those wait who must not wait for the reaper.
var notAtAll = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// enterNow is enter for callers that must not wait for the reaper; false if
// the reaper is inside.
func (g *gate) enterNow() (uint64, bool) {
	f := g.enterUntil(notAtAll)
	return f, f&reaping == 0
}

// left is leave where nothing stands in the way.
func (g *gate) left() bool {
	w := g.word.Load()
	return w&(interrupt|condemned|stopped|attended|closing|sharing) == 0 && g.word.CompareAndSwap(w, w&^ofOne+operation)
}

// leave ends the operation. It returns false, and has not ended it, if there is
// something to see to first: take it and leave again.
//
// It is not deferred anywhere: a panic that comes through SQLite leaves the
// connection's mutex locked, and the busy bit that stays keeps everybody out.
func (g *gate) leave() bool {
	return g.left() || g.leaveSlow()
}

func (g *gate) leaveSlow() bool {
	for {
		w := g.word.Load()
		switch {
		case w&interrupt != 0:
			runtime.Gosched() // two microseconds: it must not hit what comes next
		case w&(condemned|stopped|attended|closing) != 0:
			return false
		default:
			if g.word.CompareAndSwap(w, w&^ofOne+operation) {
				g.shared.leave()
				return true
			}
		}
	}
}

// take returns which of the bits are set and clears them. Behind it, none of
// those who set them is still sending an interrupt.
func (g *gate) take(bits uint64) uint64 {
	bits &= g.word.Load()
	g.clear(bits)
	for g.word.Load()&interrupt != 0 {
		runtime.Gosched()
	}
	return bits
}

// set and clear change flags; the caller is inside.
func (g *gate) set(bits uint64)   { g.word.Or(bits) }
func (g *gate) clear(bits uint64) { g.word.And(^bits) }

// try takes the gate for the reaper if nobody is inside.
func (g *gate) try() bool { return g.tryWhere(busy|reaping, 0) }

// tryAt is try for a decision that was made at this generation: nothing has
// moved since.
func (g *gate) tryAt(generation uint64) bool {
	return g.tryWhere(busy|reaping|^flags, generation)
}

// tryWhere takes the gate for the reaper if these bits of the word are as
// wanted.
func (g *gate) tryWhere(bits, want uint64) bool {
	if g.word.Load()&bits != want {
		return false
	}
	if g.shared == nil {
		g.turn.prepare()
	} else if !g.shared.try() {
		return false
	}
	for {
		w := g.word.Load()
		if w&bits != want {
			g.shared.release()
			return false
		}
		if g.word.CompareAndSwap(w, w|reaping) {
			return true
		}
	}
}

// release gives the gate back after try. The generation stays: what the reaper
// does is no activity.
func (g *gate) release() {
	if g.word.And(^(reaping|awaited))&awaited != 0 {
		g.turn.end()
	}
	g.shared.release()
}

// close leaves the closing of the connection to the operation in flight, and returns
// false if there is none. Before it leaves, that finds the bit.
func (g *gate) close() bool {
	for {
		w := g.word.Load()
		if w&busy == 0 {
			return false
		}
		if w&closing != 0 || g.word.CompareAndSwap(w, w|closing) {
			return true
		}
	}
}

// condemn marks the operation in flight, and returns false if there is none.
// The mark of an order that was taken back does as well: who takes it looks for
// an order behind it.
func (g *gate) condemn() bool {
	for {
		w := g.word.Load()
		if w&busy == 0 {
			return false
		}
		if w&condemned != 0 || g.word.CompareAndSwap(w, w|condemned) {
			return true
		}
	}
}

// hit calls send while the condemned operation is certain to be in flight, and
// returns false if it is over. The bit excludes a second sender before the
// swap: with it in the word already, the swap would succeed and change nothing.
func (g *gate) hit(send func()) bool {
	w := g.word.Load()
	if w&busy == 0 || w&condemned == 0 {
		return false
	}
	if w&interrupt == 0 && g.word.CompareAndSwap(w, w|interrupt) {
		send()
		g.clear(interrupt)
	}
	return true
}

// stop is hit for the watched operation that the word shows; false if it is
// over or another has begun. It leaves the stopped bit.
func (g *gate) stop(w uint64, send func()) bool {
	for {
		now := g.word.Load()
		if now&(busy|watched) != busy|watched || now&^flags != w&^flags {
			return false
		}
		if now&interrupt != 0 {
			return true
		}
		if g.word.CompareAndSwap(now, now|interrupt|stopped) {
			send()
			g.clear(interrupt)
			return true
		}
	}
}
