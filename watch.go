package leakguard

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/sqltext"
)

// Cancellation. go-sqlite3 starts a goroutine for each Exec with a context that
// can be cancelled. Here it gets one that cannot, and the guard watches the
// caller's: an operation announces the context's channel, if it is not the one
// announced before, and marks itself watched in the gate's word; the watchdog
// looks at what is in flight every two milliseconds. An operation that is over
// by then has paid for nothing but that.

// watch is what the watchdog knows of a connection.
type watch struct {
	c *conn
	// announced is the owner's own copy of done, compared before it takes mu.
	announced <-chan struct{}
	// listed says that the watchdog has the connection on its list.
	listed atomic.Bool

	mu   sync.Mutex
	done <-chan struct{}
	over chan struct{} // ends the goroutine that attends a long operation

	// The watchdog's own.
	idle int
	seen uint64
}

// arm makes the operation that has just entered the gate end with ctx. own is
// how many of the open rows are the operation's own. It returns the context for
// go-sqlite3 and whether the operation is watched; with an error, ctx is over
// and nothing must run.
func (c *conn) arm(ctx context.Context, own int) (context.Context, bool, error) {
	c.ops++
	c.at = 0
	done := ctx.Done()
	if done == nil {
		return ctx, false, nil
	}
	return c.armDone(ctx, done, own)
}

func (c *conn) armDone(ctx context.Context, done <-chan struct{}, own int) (context.Context, bool, error) {
	w := &c.watch
	if !c.wait.OK() {
		return ctx, false, nil // go-sqlite3 watches
	}
	if done != w.announced {
		// Polling the channel of a synctest bubble from outside is fatal, and
		// the watchdog is outside.
		if gate.InBubble() {
			return ctx, false, nil
		}
		w.announced = done
		w.mu.Lock()
		w.done = done
		w.mu.Unlock()
	}
	if len(c.rows) > own {
		c.spare()
		c.gate.Set(gate.Watched | gate.Beside)
	} else {
		c.gate.Set(gate.Watched)
	}
	// In this order: the watchdog takes a connection from its list first and
	// looks at the word then.
	if !w.listed.Load() && !theWatchdog.add(w) {
		w.attend(c.gate.Load())
	}
	// From here on no cancellation is missed, so one that came before is seen.
	if err := ctx.Err(); err != nil {
		c.disarm()
		return ctx, false, err
	}
	return context.Background(), true, nil
}

// disarm takes the watch off the operation.
func (c *conn) disarm() {
	c.gate.Clear(gate.Watched)
	c.unwatch(c.gate.Take(gate.Stopped | gate.Attended))
	c.gate.Clear(gate.Beside) // not before take: who sends the interrupt looks at it
}

// unwatch sees to what the watchdog left on an operation.
func (c *conn) unwatch(bits uint64) {
	if bits&gate.Attended != 0 {
		c.watch.dismiss()
	}
	if bits&gate.Stopped != 0 {
		c.wait.Stop(false)
		c.endRows()
	}
}

// endRows closes the rows whose context is over behind an operation that was
// stopped. If it left rows open, an interrupt would stick to them and stop
// whatever comes next on the connection (there were none beside it then, see
// interrupt). They answer with their context's error, as they do by go-sqlite3.
// See https://www.sqlite.org/c3ref/interrupt.html.
func (c *conn) endRows() {
	for i := len(c.rows) - 1; i >= 0; i-- {
		st := c.rows[i]
		if st.ctx == nil {
			continue
		}
		if over := st.ctx.Err(); over != nil {
			c.kill(st, over)
		}
	}
}

// spare prepares the connection for an operation that sqlite3_interrupt must
// not stop, because other rows are open beside it, or because what ends them
// all may come to nothing: the interrupt would stop them too, and stick until
// all of them are closed. A progress handler stops the one that runs.
func (c *conn) spare() {
	if !c.progress {
		c.progress = true
		c.wait.Progress(c.db(), true)
	}
}

// interrupt tells the watched operation in flight to stop. The caller holds
// the gate's interrupt bit.
func (c *conn) interrupt() {
	c.wait.Stop(true)
	if !c.gate.Has(gate.Beside) {
		c.db().Interrupt()
	}
}

// ended returns what a watched operation returns: the context's error where
// SQLite gave up and the context is over.
func ended(ctx context.Context, err error) error {
	if err != nil && gaveUp(err) {
		if over := ctx.Err(); over != nil {
			return over
		}
	}
	return err
}

// begun follows a query. Its first step is done; go-sqlite3 drops its rows if
// the context is over by then. Not those of a COMMIT, which has committed.
func (c *conn) begun(ctx context.Context, guarded bool, class sqltext.Class, query string, opened sqliteRows, err error) (sqliteRows, error) {
	if guarded && err != nil {
		err = ended(ctx, err)
	}
	if class != 0 || err != nil {
		c.after(ctx, class, query, err)
	}
	if err != nil {
		return nil, err
	}
	if guarded && class&sqltext.EndsTx == 0 {
		if over := ctx.Err(); over != nil {
			c.rowsClose(opened)
			return nil, over
		}
	}
	return opened, nil
}

// cancelled reports whether the watched operation's context is over.
func (w *watch) cancelled() bool {
	w.mu.Lock()
	done := w.done
	w.mu.Unlock()
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// stop tells the watched operation of word to stop; false if it is over.
func (w *watch) stop(word uint64) bool { return w.c.gate.Stop(word, w.c.interrupt) }

// attend waits for the end of a long operation's context on a goroutine of its
// own, in microseconds instead of ticks. The operation's own way out ends it.
func (w *watch) attend(word uint64) {
	// Bit and channel change together: who finds the bit closes this channel.
	w.mu.Lock()
	if !w.c.gate.Attend(word) {
		w.mu.Unlock()
		return // over already: nobody would dismiss the goroutine
	}
	over, done := make(chan struct{}), w.done
	w.over = over
	w.mu.Unlock()
	go func() {
		select {
		case <-over:
			return
		case <-done:
		}
		began := time.Now()
		t := time.NewTimer(watchInterval)
		defer t.Stop()
		// SQLite forgets an interrupt that comes before the first step. An operation
		// that goes on to its next statement is hit within a quarter of the time
		// since it was cancelled.
		for w.stop(word) {
			select {
			case <-over:
				return
			case <-t.C:
				t.Reset(min(max(time.Since(began)/4, watchInterval), watchSlowly))
			}
		}
	}()
}

// dismiss ends the goroutine that attends the operation which is over.
func (w *watch) dismiss() {
	w.mu.Lock()
	close(w.over)
	w.over = nil
	w.mu.Unlock()
}
