package gate

import (
	"context"
	"runtime"
)

// Gate is the lock between a connection's owner and the reaper. The owner is
// one goroutine at a time: database/sql locks each connection. The reaper only
// ever tries: nearly every call into SQLite waits for the connection's mutex,
// that is, for as long as a statement runs.
type Gate struct {
	word *Word

	// turn is what the owner waits for while the reaper is inside.
	turn turn

	// shared is not nil for a connection that shares its cache: one mutex in
	// SQLite serves them all, so any owner of one keeps the reaper out of all.
	// It comes first: who has one of the bits busy and reaping is inside it.
	// See https://www.sqlite.org/sharedcache.html.
	common *Shared
}

// Init begins the gate of a connection whose activity word this is. bubbled: its tracker
// lives in a synctest bubble.
func (g *Gate) Init(word *Word, bubbled bool) {
	g.word = word
	g.turn.start(bubbled)
}

// Load returns the word as it is at this moment.
func (g *Gate) Load() uint64 { return g.word.Load() }

// Has reports whether a bit is set at this moment.
func (g *Gate) Has(bit uint64) bool { return g.word.Load()&bit != 0 }

// Generation counts the operations that are over, in the word's bits above the flags.
func (g *Gate) Generation() uint64 { return g.word.Load() &^ Flags }

// Shared returns what the gate has in common with those that share its cache, nil if
// its cache is its own.
func (g *Gate) Shared() *Shared { return g.common }

// Awaited reports whether an owner waits for the reaper, which is inside, at this moment.
func (g *Gate) Awaited() bool {
	if g.common != nil {
		return g.common.word.Load()&Awaited != 0
	}
	return g.Has(Awaited)
}

// Drop follows share, when the connection is closed.
func (g *Gate) Drop() { g.common.Drop() }

// Share makes the gate one of those of a shared cache, if it is not nil.
func (g *Gate) Share(common *Shared) {
	if g.common = common; common != nil {
		g.Set(Sharing)
	}
}

// Cache names the shared cache, empty for a connection that has its own.
func (g *Gate) Cache() string {
	if g.common == nil {
		return ""
	}
	return g.common.name
}

// Enter begins an operation and returns the tombed and dead bits. It returns
// the busy bit, and has begun nothing, if an operation is in flight: then a
// call never came back from SQLite (a Go function called by SQL panicked), or
// two goroutines use one driver connection.
func (g *Gate) Enter() uint64 {
	if w := g.word.Load(); w&Flags == 0 && g.word.CompareAndSwap(w, w|Busy) {
		return 0
	}
	return g.enterSlow(nil, Busy)
}

// EnterUntil is enter for an operation that ends with ctx. It returns the
// reaping bit, and has begun nothing, if ctx is over while the reaper is inside.
func (g *Gate) EnterUntil(ctx context.Context) uint64 {
	if w := g.word.Load(); w&Flags == 0 && g.word.CompareAndSwap(w, w|Busy) {
		return 0
	}
	return g.enterSlow(ctx.Done(), Busy)
}

// EnterAs is enterUntil with further bits: ending for an operation that may end
// the transaction, recording for one that begins with writing the record (see
// tracker.Conn.Record).
func (g *Gate) EnterAs(ctx context.Context, bits uint64) uint64 {
	if w := g.word.Load(); w&Flags == 0 && g.word.CompareAndSwap(w, w|bits) {
		return 0
	}
	return g.enterSlow(ctx.Done(), bits)
}

// EnterEnding is enter for an operation that may end the transaction, so that
// an order for it may come to nothing.
func (g *Gate) EnterEnding() uint64 { return g.EnterAs(context.Background(), Busy|Ending) }

// enterSlow waits for a reaper that is inside until done is closed.
func (g *Gate) enterSlow(done <-chan struct{}, bits uint64) uint64 {
	if g.common != nil && !g.common.enter(done) {
		return Reaping
	}
	for {
		w := g.word.Load()
		switch {
		case w&Busy != 0:
			g.common.leave()
			return Busy
		case w&Reaping != 0: // never inside a shared cache
			if !g.turn.await(g.word, done) {
				return Reaping
			}
		case bits&Recording != 0 && w&Reading != 0:
			runtime.Gosched() // a report is being written
		case g.word.CompareAndSwap(w, w|bits):
			return w & (Tombed | Dead)
		}
	}
}

// NotAtAll is how long those wait who must not wait for the reaper.
var NotAtAll = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// EnterNow is enter for callers that must not wait for the reaper; false if
// the reaper is inside.
func (g *Gate) EnterNow() (uint64, bool) {
	f := g.EnterUntil(NotAtAll)
	return f, f&Reaping == 0
}

// Left is leave where nothing stands in the way.
func (g *Gate) Left() bool {
	w := g.word.Load()
	return w&(Interrupt|Condemned|Stopped|Attended|Closing|Sharing) == 0 && g.word.CompareAndSwap(w, w&^ofOne+operation)
}

// Leave ends the operation. It returns false, and has not ended it, if there is
// something to see to first: take it and leave again.
//
// It is not deferred anywhere: a panic that comes through SQLite leaves the
// connection's mutex locked, and the busy bit that stays keeps everybody out.
func (g *Gate) Leave() bool {
	return g.Left() || g.leaveSlow()
}

func (g *Gate) leaveSlow() bool {
	for {
		w := g.word.Load()
		switch {
		case w&Interrupt != 0:
			runtime.Gosched() // two microseconds: it must not hit what comes next
		case w&(Condemned|Stopped|Attended|Closing) != 0:
			return false
		default:
			if g.word.CompareAndSwap(w, w&^ofOne+operation) {
				g.common.leave()
				return true
			}
		}
	}
}

// Take returns which of the bits are set and clears them. Behind it, none of
// those who set them is still sending an interrupt.
func (g *Gate) Take(bits uint64) uint64 {
	bits &= g.word.Load()
	g.Clear(bits)
	for g.word.Load()&Interrupt != 0 {
		runtime.Gosched()
	}
	return bits
}

// Set and clear change flags; the caller is inside.
func (g *Gate) Set(bits uint64)   { g.word.Or(bits) }
func (g *Gate) Clear(bits uint64) { g.word.And(^bits) }

// Try takes the gate for the reaper if nobody is inside.
func (g *Gate) Try() bool { return g.tryWhere(Busy|Reaping, 0) }

// TryAt is try for a decision that was made at this generation: nothing has
// moved since.
func (g *Gate) TryAt(generation uint64) bool {
	return g.tryWhere(Busy|Reaping|^Flags, generation)
}

// tryWhere takes the gate for the reaper if these bits of the word are as
// wanted.
func (g *Gate) tryWhere(bits, want uint64) bool {
	if g.word.Load()&bits != want {
		return false
	}
	if g.common == nil {
		g.turn.prepare()
	} else if !g.common.try() {
		return false
	}
	for {
		w := g.word.Load()
		if w&bits != want {
			g.common.release()
			return false
		}
		if g.word.CompareAndSwap(w, w|Reaping) {
			return true
		}
	}
}

// Release gives the gate back after try. The generation stays: what the reaper
// does is no activity.
func (g *Gate) Release() {
	if g.word.And(^(Reaping|Awaited))&Awaited != 0 {
		g.turn.end()
	}
	g.common.release()
}

// Close leaves the closing of the connection to the operation in flight, and returns
// false if there is none. Before it leaves, that finds the bit.
func (g *Gate) Close() bool {
	for {
		w := g.word.Load()
		if w&Busy == 0 {
			return false
		}
		if w&Closing != 0 || g.word.CompareAndSwap(w, w|Closing) {
			return true
		}
	}
}

// Condemn marks the operation in flight, and returns false if there is none.
// The mark of an order that was taken back does as well: who takes it looks for
// an order behind it.
func (g *Gate) Condemn() bool {
	for {
		w := g.word.Load()
		if w&Busy == 0 {
			return false
		}
		if w&Condemned != 0 || g.word.CompareAndSwap(w, w|Condemned) {
			return true
		}
	}
}

// Hit calls send while the condemned operation is certain to be in flight, and
// returns false if it is over. The bit excludes a second sender before the
// swap: with it in the word already, the swap would succeed and change nothing.
func (g *Gate) Hit(send func()) bool {
	w := g.word.Load()
	if w&Busy == 0 || w&Condemned == 0 {
		return false
	}
	if w&Interrupt == 0 && g.word.CompareAndSwap(w, w|Interrupt) {
		send()
		g.Clear(Interrupt)
	}
	return true
}

// Peek calls look while an operation is in flight, and returns what it says; false if
// none is. The operation cannot leave before the interrupt bit is cleared, so the
// handle and what belongs to it stay. One that is closing the handle has set the dead
// bit, and waits behind that for the interrupt bit.
func (g *Gate) Peek(look func() bool) (yes bool) {
	w := g.word.Load()
	if w&Busy == 0 || w&(Interrupt|Dead) != 0 || !g.word.CompareAndSwap(w, w|Interrupt) {
		return false
	}
	yes = look()
	g.Clear(Interrupt)
	return yes
}

// Attend marks the watched operation that the word shows as one whose context a goroutine
// waits for; false if it is over, or has one already.
func (g *Gate) Attend(w uint64) bool {
	for {
		now := g.word.Load()
		if now&(Busy|Watched|Attended) != Busy|Watched || now&^Flags != w&^Flags {
			return false
		}
		if g.word.CompareAndSwap(now, now|Attended) {
			return true
		}
	}
}

// Stop is hit for the watched operation that the word shows; false if it is
// over or another has begun. It leaves the stopped bit.
func (g *Gate) Stop(w uint64, send func()) bool {
	for {
		now := g.word.Load()
		if now&(Busy|Watched) != Busy|Watched || now&^Flags != w&^Flags {
			return false
		}
		if now&Interrupt != 0 {
			return true
		}
		if g.word.CompareAndSwap(now, now|Interrupt|Stopped) {
			send()
			g.Clear(Interrupt)
			return true
		}
	}
}
