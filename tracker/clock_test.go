package tracker

import (
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

func TestReaperClock(t *testing.T) {
	const ms = time.Millisecond
	type step struct {
		planned, now time.Duration // on the tracker's clock
		want         time.Duration // on the reaper's
	}
	for _, c := range []struct {
		name  string
		from  time.Duration
		steps []step
	}{
		{"regular", 0, []step{{mins, mins, mins}, {mins, 2 * mins, 2 * mins}, {2 * ms, 2*mins + 2*ms, 2*mins + 2*ms}}},
		{"begins late", time.Hour, []step{{0, time.Hour, 0}, {mins, time.Hour + mins, mins}}},
		{"woken early", 0, []step{{mins, sec, sec}, {mins, 3 * sec, 3 * sec}, {mins, 3 * sec, 3 * sec}}},
		{"a little late", 0, []step{{mins, 90 * sec, 90 * sec}, {mins, 3*mins + 50*ms, 3*mins + 50*ms}}},
		{"too late", 0, []step{{mins, 2 * mins, mins}, {mins, 3 * mins, 2 * mins}}},
		{"suspended for hours", 0, []step{{mins, mins, mins}, {mins, 9 * time.Hour, 2 * mins}, {mins, 9*time.Hour + mins, 3 * mins}}},
		{"suspended in a short sleep", 0, []step{{2 * ms, time.Hour, 2 * ms}}},
		{"nothing planned", 0, []step{{0, time.Hour, 0}}},
		{"back", time.Hour, []step{{mins, mins, 0}, {mins, 2 * mins, mins}}},
		{"back for hours, then on", time.Hour, []step{{mins, time.Hour + mins, mins}, {mins, -5 * time.Hour, mins}, {mins, -5*time.Hour + sec, mins + sec}}},
		{"back and forth", time.Hour, []step{{mins, 0, 0}, {mins, time.Hour, mins}}},
	} {
		r := reaperClock{last: c.from}
		for i, s := range c.steps {
			r.planned = s.planned
			if got := r.tick(s.now); got != s.want {
				t.Errorf("%s, step %d: %v, want %v", c.name, i, got, s.want)
			}
		}
	}
}

// Whatever the clock does, the reaper's neither goes back, nor faster than the
// clock, nor faster than planned by more than half.
func TestReaperClockBounds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		var r reaperClock
		var now, forward, most, last time.Duration
		for range 20 {
			r.planned = time.Duration(rng.Int64N(int64(time.Hour)))
			step := time.Duration(rng.Int64N(int64(10*time.Hour))) - 2*time.Hour
			now += step
			forward += max(step, 0)
			most += r.planned*3/2 + 50*time.Millisecond
			got := r.tick(now)
			if got < last || got > forward || got > most {
				t.Fatalf("%v after %v, %v forward, %v at most", got, last, forward, most)
			}
			last = got
		}
	}
}

func TestInBubble(t *testing.T) {
	if gate.InBubble() {
		t.Error("outside: true")
	}
	synctest.Test(t, func(t *testing.T) {
		if !gate.InBubble() {
			t.Error("inside: false")
		}
		tr := New(Options{})
		time.Sleep(time.Hour)
		if d := tr.now(); d < time.Hour || d > time.Hour+time.Microsecond {
			t.Errorf("an hour of the bubble is %v", d)
		}
		if at := tr.clock.at(tr.now()); !at.Equal(time.Now()) {
			t.Errorf("%v, want %v", at, time.Now())
		}
	})
}

// Go runs f on a goroutine of its own, except in a bubble that is not the
// tracker's: the goroutine would keep it from ending.
func TestGo(t *testing.T) {
	outside := New(Options{})
	inline := func(tr *Tracker) bool {
		caller := make(chan struct{})
		ran := make(chan bool, 1)
		tr.Go(func() {
			select {
			case <-caller: // Go has returned
				ran <- false
			case <-time.After(time.Minute):
				ran <- true
			}
		})
		close(caller)
		return <-ran
	}
	if inline(outside) {
		t.Error("outside a bubble f ran inline")
	}
	outside.Close()
	synctest.Test(t, func(t *testing.T) {
		if !inline(outside) {
			t.Error("in a foreign bubble f ran on another goroutine")
		}
		own := New(Options{})
		if inline(own) {
			t.Error("in the tracker's own bubble f ran inline")
		}
		done := false
		own.Go(func() { time.Sleep(time.Hour); done = true })
		own.Close()
		if !done {
			t.Error("Close did not wait")
		}
	})
}

// Closing one pool while others begin to close connections is not misuse of
// what Close waits on.
func TestGoWhileClosing(t *testing.T) {
	if !inChild(t) { // a panic may hit any goroutine
		return
	}
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Logger: quiet})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 5000 { // one after the other, so that often none is left
				done := make(chan bool)
				tr.Go(func() { runtime.Gosched(); close(done) })
				<-done
			}
		})
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					t.Error(r)
				}
			}()
			for range 5000 {
				p.Close()
				tr.Close()
			}
		})
	}
	wg.Wait()
	tr.Close()
}

// A tracker made outside and used in a bubble starts nothing there, so the
// bubble ends; what it was told there it tells later.
func TestForeignBubble(t *testing.T) {
	tr := New(Options{})
	var mu sync.Mutex
	var told []string
	more := make(chan bool, 1)
	defer tr.Subscribe(func(e Event) {
		if gate.InBubble() {
			t.Error("told inside the bubble")
		}
		mu.Lock()
		told = append(told, e.Type.String())
		mu.Unlock()
		if e.ConnectionID == "outside#2" && e.Type == EventClosed {
			more <- true
		}
	})()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, tr, PoolConfig{Name: "inside", Policy: leakAfter(4 * time.Millisecond)})
		c := p.Open(still{}, true, "")
		c.BeginTx("BEGIN", "")
		if err := p.SetPolicy(leakAfter(8 * time.Millisecond)); err != nil {
			t.Error(err)
		}
		c.Pending()
		tr.AddDetector(func(Record) Reason { return "" })()
		time.Sleep(time.Hour)
		tr.mu.Lock()
		if tr.reaper.armed || tr.reaper.running {
			t.Error("a reaper runs in the bubble")
		}
		tr.mu.Unlock()
		tr.Stats()
		c.CheckIn()
		c.Close()
		p.Close()
		tr.Close()
	})
	p := newPool(t, tr, PoolConfig{Name: "outside"})
	p.Open(still{}, false, "").Close()
	<-more
	p.Close()
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(told, " "); got != "opened check-out check-in closed opened closed" {
		t.Errorf("told %s", got)
	}
}

// Close in a bubble waits for what was begun outside, and is woken from there.
func TestForeignBubbleAwaitsClosing(t *testing.T) {
	if !inChild(t) { // it may end the process
		return
	}
	tr := New(Options{})
	release, ended := make(chan bool), false
	tr.Go(func() { <-release; ended = true })
	go func() {
		buf := make([]byte, 1<<20)
		for !strings.Contains(string(buf[:runtime.Stack(buf, true)]), ".(*Pool).Close(") {
			runtime.Gosched()
		}
		close(release)
	}()
	synctest.Test(t, func(t *testing.T) {
		newPool(t, tr, PoolConfig{Logger: quiet}).Close()
		if !ended {
			t.Error("Close did not wait")
		}
	})
}

// The same with the reaper running outside already, and with Default.
func TestForeignBubbleWithReaper(t *testing.T) {
	tr := Default()
	out := newPool(t, tr, PoolConfig{Name: "outside", Logger: quiet})
	c := out.Open(still{}, true, "")
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, tr, PoolConfig{Name: "inside", Logger: quiet, Policy: leakAfter(4 * time.Hour)})
		in := p.Open(still{}, true, "")
		in.BeginTx("BEGIN", "")
		if err := p.SetPolicy(leakAfter(8 * time.Hour)); err != nil {
			t.Error(err)
		}
		in.Pending()
		tr.Go(func() {})
		p.Stats()
		time.Sleep(24 * time.Hour)
		in.Close()
		p.Close()
	})
	c.Close()
	out.Close()
	noReaper(t)
	if s := out.Stats(); s.LeakedDetected != 0 {
		t.Errorf("%+v", s)
	}
}

// What a cleanup does runs outside all bubbles, also for a tracker that was made
// in one: it may ask for the reaper, which comes at its next check.
func TestOwnBubbleFromOutside(t *testing.T) {
	if !inChild(t) {
		return
	}
	work := make(chan func())
	done := make(chan bool)
	go func() {
		for f := range work {
			f()
			done <- true
		}
		close(done)
	}()
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.touch()
		if f.OutOfBubble() {
			t.Error("inside: out of bubble")
		}
		out := false
		work <- func() {
			out = f.OutOfBubble()
			f.Pending()
			f.Dropped() // cannot be told from there
		}
		<-done
		if n := len(p.Records()); n != 1 {
			t.Errorf("%d connections", n)
		}
		if !out {
			t.Error("outside: not out of bubble")
		}
		l.sleep(mins + 1)
		f.expectOrders("1m0s proven proven done")
		f.Dropped()
		if n := len(p.Records()); n != 0 || l.running() {
			t.Errorf("%d connections after Dropped", n)
		}
	})
	close(work)
	<-done
}
