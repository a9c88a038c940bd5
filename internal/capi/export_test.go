package capi

// Queues returns how many queues there are, how many connections they have, and
// how many of those sleep.
func Queues() (files, users, asleep int) {
	queues.mu.Lock()
	defer queues.mu.Unlock()
	for _, q := range queues.of {
		files++
		users += q.users
		asleep += int(q.asleep())
	}
	return files, users, asleep
}
