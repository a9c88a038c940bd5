//go:build cgo && !windows

package capi_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mattn/go-sqlite3"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

// The queue is C, which the race detector does not see. It is seen with
// CGO_CFLAGS="-O1 -g -fsanitize=thread" CGO_LDFLAGS=-fsanitize=thread go test -v .

// waiter is a connection with a busy handler of ours.
type waiter struct {
	*sqlite3.SQLiteConn
	capi.Wait
}

func openWaiter(t *testing.T, path string, file capi.FileID, timeout time.Duration) *waiter {
	t.Helper()
	c := open(t, path)
	w := &waiter{c, capi.NewWait(capi.Of(c), file, timeout)}
	if !w.OK() {
		t.Fatal("no flag")
	}
	t.Cleanup(func() {
		c.Close()
		w.Free()
	})
	return w
}

// write runs an INSERT. A lock that was not to be had is no error.
func (w *waiter) write(t *testing.T) (done bool) {
	_, err := w.Exec("INSERT INTO t VALUES (1)", nil)
	if e, ok := errors.AsType[sqlite3.Error](err); ok && e.Code == sqlite3.ErrBusy {
		return false
	} else if err != nil {
		t.Error(err)
	}
	return err == nil
}

// tableIn makes a database with a table.
func tableIn(t *testing.T) (path string) {
	t.Helper()
	path = tempFile(t)
	c := open(t, path)
	defer c.Close()
	if _, err := c.Exec("PRAGMA journal_mode=WAL; CREATE TABLE t (a)", nil); err != nil {
		t.Fatal(err)
	}
	return path
}

// lock takes the write lock on a connection without a handler of ours, and
// returns what gives it back.
func lock(t *testing.T, path string) (unlock func()) {
	t.Helper()
	c := open(t, path)
	if _, err := c.Exec("BEGIN IMMEDIATE", nil); err != nil {
		t.Fatal(err)
	}
	return sync.OnceFunc(func() { c.Close() })
}

// A file has one queue from the first wait until the last of its connections that
// waited is closed.
func TestQueues(t *testing.T) {
	expect := func(want int) {
		t.Helper()
		if asleep, queues := capi.Waiting(); queues != want || asleep != 0 {
			t.Errorf("%d queues in which %d sleep, want %d", queues, asleep, want)
		}
	}
	path := tableIn(t)
	defer lock(t, path)()
	join := func(file capi.FileID) *waiter {
		w := &waiter{open(t, path), capi.Wait{}}
		w.Wait = capi.NewWait(capi.Of(w.SQLiteConn), file, time.Millisecond)
		if w.write(t) {
			t.Error("the lock is held")
		}
		return w
	}
	leave := func(w *waiter) {
		w.Close()
		w.Free()
	}
	idle := capi.NewWait(capi.Of(open(t, path)), capi.FileID{1, 7}, time.Second)
	expect(0)
	a, b := join(capi.FileID{1, 7}), join(capi.FileID{1, 7})
	expect(1)
	c := join(capi.FileID{2, 7})
	expect(2)
	same := join(capi.FileID{2 + 64, 7 + 64}) // as far as the table is concerned
	expect(3)
	unknown, too := join(capi.FileID{}), join(capi.FileID{})
	expect(5)
	leave(a)
	leave(unknown)
	leave(too)
	expect(3)
	leave(same)
	leave(c)
	expect(1)
	idle.Released() // nobody sleeps
	idle.Free()
	leave(b)
	expect(0)
	leave(join(capi.FileID{1, 7}))
	expect(0)
}

// Many connections wait for few files. Locks are given back in time, too late and
// while they are being given up; each wait ends with the lock, when it is told to
// stop, or when its time is over, and not before.
func TestWaits(t *testing.T) {
	const files, each, want = 4, 8, 50
	var got, stopped, late atomic.Int64
	enough := func() bool { return min(got.Load(), stopped.Load(), late.Load()) >= want }
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	more := func() bool { return ctx.Err() == nil && !enough() }
	var all sync.WaitGroup
	for i := range files {
		path, file := tableIn(t), capi.FileID{1, uint64(i + 1)}
		holder := openWaiter(t, path, file, time.Minute)
		all.Go(func() {
			for more() {
				if _, err := holder.Exec("BEGIN IMMEDIATE", nil); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(rand.N(20 * time.Millisecond))
				if _, err := holder.Exec("COMMIT", nil); err != nil {
					t.Error(err)
				}
				if rand.N(2) == 0 {
					holder.Released()
				}
			}
		})
		for range each {
			w := openWaiter(t, path, file, time.Second)
			all.Go(func() {
				for more() {
					timeout := time.Duration(1+rand.N(30)) * time.Millisecond
					w.Busy(capi.Of(w.SQLiteConn), timeout)
					var told atomic.Bool
					over := make(chan struct{})
					stopper := time.AfterFunc(rand.N(30*time.Millisecond), func() {
						told.Store(true)
						w.Stop(true)
						close(over)
					})
					began := time.Now()
					done := w.write(t)
					took := time.Since(began)
					if !stopper.Stop() {
						<-over
					}
					w.Stop(false)
					switch {
					case done:
						got.Add(1)
						w.Released()
					case told.Load():
						stopped.Add(1)
					case took < timeout-time.Millisecond:
						t.Errorf("gave up after %v of %v", took, timeout)
					default:
						late.Add(1)
					}
					if took > timeout+5*time.Second {
						t.Errorf("waited %v, the timeout is %v", took, timeout)
					}
				}
			})
		}
	}
	all.Wait()
	if !enough() {
		t.Errorf("%d got the lock, %d were stopped, %d were too late: want %d each", got.Load(), stopped.Load(), late.Load(), want)
	}
	if asleep, queues := capi.Waiting(); asleep != 0 || queues == 0 || queues > files {
		t.Errorf("%d sleep in %d queues", asleep, queues)
	}
}

// sleeping waits until so many connections sleep for a lock.
func sleeping(t *testing.T, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		asleep, _ := capi.Waiting()
		if asleep == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sleep, want %d", asleep, n)
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// Who waits in a long queue sleeps for a tenth of a second at a time; told to stop,
// all are back much sooner.
func TestStopWakes(t *testing.T) {
	const n = 30
	path, file := tableIn(t), capi.FileID{1, 1}
	defer lock(t, path)()
	var waiters []*waiter
	for range n {
		waiters = append(waiters, openWaiter(t, path, file, time.Minute))
	}
	took := best(t, 30*time.Millisecond, func() time.Duration {
		var all sync.WaitGroup
		for _, w := range waiters {
			all.Go(func() {
				if w.write(t) {
					t.Error("the lock is held")
				}
			})
		}
		time.Sleep(time.Second)
		began := time.Now()
		for _, w := range waiters {
			w.Stop(true)
		}
		all.Wait()
		took := time.Since(began)
		for _, w := range waiters {
			w.Stop(false)
		}
		return took
	})
	t.Logf("%d were back after %v", n, took)
}

// Where the lock is passed on, all have had it before most would have looked again.
func TestReleasedWakes(t *testing.T) {
	const n = 30
	path, file := tableIn(t), capi.FileID{1, 1}
	var waiters []*waiter
	for range n {
		waiters = append(waiters, openWaiter(t, path, file, time.Minute))
	}
	took := best(t, 40*time.Millisecond, func() time.Duration {
		unlock := lock(t, path)
		defer unlock()
		var all sync.WaitGroup
		for _, w := range waiters {
			all.Go(func() {
				if w.write(t) {
					w.Released()
				}
			})
		}
		time.Sleep(time.Second)
		began := time.Now()
		unlock()
		waiters[0].Released()
		all.Wait()
		return time.Since(began)
	})
	t.Logf("%d had the lock within %v", n, took)
}

// best runs f until it takes less than limit, for a machine may be busy with
// something else, and returns what it took.
func best(t *testing.T, limit time.Duration, f func() time.Duration) (took time.Duration) {
	t.Helper()
	for range 5 {
		if took = f(); took < limit {
			return took
		}
	}
	t.Errorf("took %v, want less than %v once in five times", took, limit)
	return took
}

// The one that has waited longest is woken first.
func TestReleasedWakesTheOldest(t *testing.T) {
	const n = 8
	path, file := tableIn(t), capi.FileID{1, 1}
	var order []int
	inOrder := func() bool {
		unlock := lock(t, path)
		defer unlock()
		var mu sync.Mutex
		order = nil
		var all sync.WaitGroup
		for i := range n {
			w := openWaiter(t, path, file, time.Minute)
			all.Go(func() {
				if w.write(t) {
					mu.Lock()
					order = append(order, i)
					mu.Unlock()
					w.Released()
				}
			})
			sleeping(t, i+1)
		}
		time.Sleep(400 * time.Millisecond) // each sleeps for longer than the whole takes
		unlock()
		w := openWaiter(t, path, file, 0)
		w.Released()
		all.Wait()
		for i := range n {
			if order[i] != i {
				return false
			}
		}
		return true
	}
	for range 20 { // one that looks by itself just then comes in between
		if inOrder() {
			return
		}
	}
	t.Errorf("the last order was %v", order)
}
