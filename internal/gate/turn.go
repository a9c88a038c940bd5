package gate

import (
	"runtime"
	"sync/atomic"
)

// turn is how owners wait until the reaper lets a gate go: for a channel that is
// closed then, so that they can wait for their context as well. The reaper's
// side makes the channel before it takes the gate. An owner could not: inside a
// synctest bubble it may receive from a channel that was made outside, but
// nobody outside may close one that was made inside.
type turn struct {
	over atomic.Pointer[turnOver]
}

// turnOver is closed when it is over. Without a channel it says only whose turn
// it is: where none is, nobody's bubble.
type turnOver struct {
	closed  chan struct{}
	bubbled bool // made in the bubble of the connection's tracker, and used only there
}

var inItsBubble = &turnOver{bubbled: true}

// start says that the tracker of the connection lives in a synctest bubble.
func (t *turn) start(bubbled bool) {
	if bubbled {
		t.over.Store(inItsBubble)
	}
}

// prepare makes the channel, if there is none and it may be made here.
func (t *turn) prepare() {
	if old := t.over.Load(); old == nil || old.closed == nil {
		t.over.CompareAndSwap(old, old.next())
	}
}

// next returns the channel of the next turn, none if this is somebody's bubble:
// an operation that is blocked looks from there who is in its way.
func (o *turnOver) next() *turnOver {
	bubbled := o != nil && o.bubbled
	switch {
	case InBubble() == bubbled:
		return &turnOver{closed: make(chan struct{}), bubbled: bubbled}
	case bubbled:
		return inItsBubble
	}
	return nil
}

// end wakes whoever waits.
func (t *turn) end() {
	old := t.over.Load()
	if old = t.over.Swap(old.next()); old != nil && old.closed != nil {
		close(old.closed)
	}
}

// await waits until the reaper, which holds the word, is likely to have let it
// go. It returns false if done is closed first.
func (t *turn) await(word *Word, done <-chan struct{}) bool {
	// In this order: if this channel's turn is over by then, it is closed.
	over := t.over.Load()
	w := word.Load()
	if w&Reaping == 0 {
		return true
	}
	if over == nil || over.closed == nil { // a look from somebody's bubble: microseconds
		select {
		case <-done:
			return false
		default:
			runtime.Gosched()
			return true
		}
	}
	// Who lets the word go sees the bit in the same step.
	if w&Awaited == 0 && !word.CompareAndSwap(w, w|Awaited) {
		return true
	}
	select {
	case <-over.closed:
		return true
	case <-done:
		return false
	}
}
