package gate

import "time"

// InBubble reports whether the caller runs inside a testing/synctest bubble, whose time
// has no monotonic reading. Goroutines and timers that outlive the caller must not be
// started there by something that was made outside: they would keep the bubble from
// ending. Nor may who is outside close a channel that was made inside.
func InBubble() bool {
	t := time.Now()
	return t == t.Round(0)
}
