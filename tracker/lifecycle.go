package tracker

// SubscribeLifecycle is Subscribe for the events that History keeps: without
// check-outs and check-ins, so that leases cost no more than before. It panics
// if f is nil.
func (t *Tracker) SubscribeLifecycle(f func(Event)) (cancel func()) {
	if f == nil {
		panic("tracker: SubscribeLifecycle: f is nil")
	}
	return t.subscribe(&subscriber{f: func(e Event) {
		if e.Type != EventCheckOut && e.Type != EventCheckIn { // told for others
			f(e)
		}
	}})
}
