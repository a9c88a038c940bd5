package capi

import "sync/atomic"

// Waiting returns how many connections sleep for locks, and how many files have a
// queue of connections that do or did.
func Waiting() (asleep, queues int) {
	return int(atomic.LoadInt32(&waiting[0])), int(atomic.LoadInt32(&waiting[1]))
}
