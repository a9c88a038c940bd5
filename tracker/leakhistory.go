package tracker

// LeakHistory returns the last events of leaks (suspect, proven, recovered,
// reaped), oldest first. Like [Tracker.History] it is bounded by
// Options.History, but connections that come and go push nothing out of it: a
// program with a busy pool can still ask what was undone an hour ago.
func (t *Tracker) LeakHistory() []Event {
	h := &t.leaks
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(append(make([]Event, 0, len(h.events)), h.events[h.next:]...), h.events[:h.next]...)
}
