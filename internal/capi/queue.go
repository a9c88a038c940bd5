package capi

import (
	"sync"
	"sync/atomic"
	"unsafe"
)

// FileID says which file a connection waits for, by what the system numbers files
// with. The zero FileID is one that is not known.
type FileID struct{ Device, Inode uint64 }

// queue is where the connections of one file wait for its locks (wait_queue.h).
// It is there as long as one of them is open.
type queue struct {
	p     unsafe.Pointer // a capi_queue
	file  FileID
	users int // guarded by queues.mu
}

var queues struct {
	mu sync.Mutex
	of map[FileID]*queue
}

// joinQueue returns the queue of the file, or one for the caller alone if the file
// is not known; nil if there is no memory, or no queue in this build.
func joinQueue(file FileID) *queue {
	queues.mu.Lock()
	defer queues.mu.Unlock()
	if q := queues.of[file]; q != nil {
		q.users++
		return q
	}
	p := newQueue()
	if p == nil {
		return nil
	}
	q := &queue{p: p, file: file, users: 1}
	if file != (FileID{}) {
		if queues.of == nil {
			queues.of = make(map[FileID]*queue)
		}
		queues.of[file] = q
	}
	return q
}

// leave frees the queue with its last connection.
func (q *queue) leave() {
	queues.mu.Lock()
	defer queues.mu.Unlock()
	if q.users--; q.users > 0 {
		return
	}
	if queues.of[q.file] == q {
		delete(queues.of, q.file)
	}
	queueFree(q.p)
}

// asleep returns how many connections sleep in the queue.
func (q *queue) asleep() int32 { return atomic.LoadInt32((*int32)(q.p)) } // capi_queue begins with it
