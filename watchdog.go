package leakguard

import (
	"sync"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

const (
	// watchInterval is how long a cancelled operation goes on at the most
	// while it is young. An older one has a goroutine that waits.
	watchInterval = 2 * time.Millisecond
	// watchSlowly is how often one that was told to stop and does not end is
	// told again. It is stuck in a Go function of the program, or in one long step
	// of SQLite, and knows already.
	watchSlowly = 250 * time.Millisecond
	// watchIdle is after how many ticks without a watched operation a
	// connection leaves the list.
	watchIdle = 50
)

// watchdog looks at the watched operations in flight. It is one goroutine for
// the process and exists only while connections are listed; it holds them for
// no longer than a tenth of a second after their last watched operation.
type watchdog struct {
	mu      sync.Mutex
	list    []*watch
	running bool
	ended   chan struct{} // closed when the last run is over
	again   chan struct{} // closed when something is listed again
	wake    chan struct{}
}

var theWatchdog = watchdog{wake: make(chan struct{}, 1)}

// add lists a connection. It returns false if that must not be done from here:
// a goroutine started inside a synctest bubble would belong to it.
func (d *watchdog) add(w *watch) bool {
	bubble := gate.InBubble()
	d.mu.Lock()
	defer d.mu.Unlock()
	if bubble && !d.running {
		return false
	}
	if w.listed.Load() {
		return true
	}
	w.idle, w.seen = 0, 0
	w.listed.Store(true)
	if len(d.list) == 0 && d.again != nil {
		close(d.again)
		d.again = nil
	}
	d.list = append(d.list, w)
	if !d.running {
		d.running = true
		d.ended = make(chan struct{})
		go d.run(d.ended)
	}
	return true
}

// remove takes a connection that closes from the list.
func (d *watchdog) remove(w *watch) {
	if !w.listed.Load() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, e := range d.list {
		if e == w {
			last := len(d.list) - 1
			d.list[i], d.list[last] = d.list[last], nil
			d.list = d.list[:last]
			break
		}
	}
	w.listed.Store(false)
	if len(d.list) == 0 {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}
}

// settle waits for the watchdog to end if it has nothing left to watch.
func (d *watchdog) settle() {
	d.mu.Lock()
	ended, idle := d.ended, len(d.list) == 0
	if !idle || ended == nil || gate.InBubble() {
		d.mu.Unlock()
		return
	}
	if d.again == nil {
		d.again = make(chan struct{})
	}
	again := d.again
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
	select {
	case <-ended:
	case <-again: // another pool needs it
	}
}

func (d *watchdog) run(ended chan struct{}) {
	defer close(ended)
	t := time.NewTicker(watchInterval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-d.wake:
		}
		if !d.tick() {
			return
		}
	}
}

// tick looks at every listed connection and returns false if none is left.
func (d *watchdog) tick() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	kept := d.list[:0]
	for _, w := range d.list {
		if !w.look() {
			w.listed.Store(false)
			// Its owner marks an operation watched first and looks at the list
			// then: one of the two sees the other.
			if word := w.c.gate.Load(); word&gate.Watched == 0 || word&gate.Attended != 0 || !w.listed.CompareAndSwap(false, true) {
				continue
			}
		}
		kept = append(kept, w)
	}
	clear(d.list[len(kept):])
	d.list = kept
	d.running = len(kept) > 0
	return d.running
}

// look sees to one connection and returns whether it stays on the list: not
// without a watched operation for long, nor with one that is attended. One that is
// cancelled and does not end is attended, too.
func (w *watch) look() bool {
	word := w.c.gate.Load()
	if word&(gate.Busy|gate.Watched) != gate.Busy|gate.Watched {
		w.idle++
		return w.idle < watchIdle
	}
	w.idle = 0
	switch {
	case word&gate.Attended != 0:
		return false
	case word&^gate.Flags == w.seen:
		w.attend(word)
	case w.cancelled():
		w.stop(word) // by its generation: another operation is not hit
	}
	w.seen = word &^ gate.Flags
	return true
}
