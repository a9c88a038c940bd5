package tracker

import "runtime"

// A connection's record is written by its owner and read by the reaper and by
// reports. The owner writes four times for one row of a prepared query, so it
// does not take Conn.mu for that: it holds a bit of the activity word, which the
// driver's gate sets on the way in and clears on the way out together with its
// own bits, at no cost. Readers hold Conn.mu and the other bit.
const (
	// RecordingBit says that the owner writes. Its holder is inside the driver's
	// gate, calls nothing but the methods that ask for it, and never SQLite.
	RecordingBit = 1 << 11
	readingBit   = 1 << 12
	// SharingBit says that the connection shares its cache: its memory changes
	// while it does not move itself.
	SharingBit = 1 << 13
)

// Readable reports whether nobody reads at the activity word w, so that
// RecordingBit may be set together with other bits.
func Readable(w uint64) bool { return w&readingBit == 0 }

// lock keeps the owner from writing, and other readers out. Who holds it may
// write, too.
func (c *Conn) lock() {
	c.mu.Lock()
	for {
		w := c.word.Load()
		if w&RecordingBit == 0 && c.word.CompareAndSwap(w, w|readingBit) {
			return
		}
		runtime.Gosched() // a writer takes less than a microsecond
	}
}

// tryLock is lock for those who must not wait for the owner.
func (c *Conn) tryLock() bool {
	if !c.mu.TryLock() {
		return false
	}
	w := c.word.Load()
	if w&RecordingBit == 0 && c.word.CompareAndSwap(w, w|readingBit) {
		return true
	}
	c.mu.Unlock()
	return false
}

func (c *Conn) unlock() {
	c.word.And(^uint64(readingBit))
	c.mu.Unlock()
}

// Record begins writing: CheckOut, CheckIn, OpenRows and CloseResource come
// between it and Recorded. The caller is inside the driver's gate. BeganTx and
// EndedTx begin by themselves.
func (c *Conn) Record() {
	for {
		w := c.word.Load()
		if w&(RecordingBit|readingBit) == 0 && c.word.CompareAndSwap(w, w|RecordingBit) {
			return
		}
		runtime.Gosched() // a reader takes microseconds
	}
}

// Recorded ends writing. Leaving the gate with the bit cleared does so as well.
func (c *Conn) Recorded() { c.word.And(^uint64(RecordingBit)) }
