package tracker

import (
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// patience is how long a pacer waits for its first step: a pool that is opened
// and closed at once costs no goroutine. For the same reason the timer stays
// armed when the last connection closes, and finds nothing when it fires.
const patience = 10 * time.Millisecond

// rests, returned by a pacer's step, is to be armed again by somebody else.
const rests = time.Duration(-1)

// pacer takes one step after the other as long as there are connections that
// can break a limit. It is a timer, and a goroutine only during a step: an idle
// process keeps nothing.
type pacer struct {
	t      *Tracker
	step   func() (wait time.Duration)
	needed func() bool // there is something to do it for; Tracker.mu is held

	// Guarded by Tracker.mu.
	timer    *time.Timer // nil until it was first needed
	patience time.Duration
	armed    bool
	running  bool
	again    bool // take another step at once
	planned  time.Duration
	over     chan struct{} // closed when the step under way is over
}

// atRestLocked reports whether it must be armed to take a step at all.
func (p *pacer) atRestLocked() bool { return !p.armed && !p.running }

// mayStart reports whether a timer may be made here: inside a synctest bubble
// that is not the tracker's own it would belong to the bubble.
func (p *pacer) mayStart() bool { return p.t.bubble || !gate.InBubble() }

func (p *pacer) armLocked(wait time.Duration) {
	p.armed, p.planned = true, wait
	if p.timer == nil {
		p.timer = time.AfterFunc(wait, p.fire)
	} else {
		p.timer.Reset(wait)
	}
}

// wakeLocked has it take a step at once. In a synctest bubble that is not the
// tracker's own it comes when it is due: a timer that is set off there goes by
// the bubble's clock and would not fire for decades.
func (p *pacer) wakeLocked() {
	switch {
	case p.running:
		p.again = true
	case p.armed && p.mayStart():
		p.timer.Reset(0)
	}
}

// restLocked follows the last connection that it could do anything for.
func (p *pacer) restLocked() {
	if p.armed && p.patience == 0 && !p.needed() {
		p.armed = false
		p.timer.Stop()
	}
}

// await waits until no step is under way.
func (p *pacer) await() {
	p.t.mu.Lock()
	over, running := p.over, p.running
	p.t.mu.Unlock()
	if running {
		<-over
	}
}

// fire is what the timer runs.
func (p *pacer) fire() {
	p.t.mu.Lock()
	if !p.armed || p.running {
		p.t.mu.Unlock()
		return // stopped, or set off twice
	}
	p.armed = false
	if !p.needed() {
		p.t.mu.Unlock()
		return
	}
	p.running, p.again = true, false
	p.over = make(chan struct{})     // by the pacer, never in somebody's bubble
	wait := max(p.planned, patience) // should somebody's code end the goroutine
	p.t.mu.Unlock()

	defer func() {
		p.t.mu.Lock()
		defer p.t.mu.Unlock()
		p.running = false
		close(p.over)
		switch {
		case !p.needed():
		case p.again:
			p.armLocked(0)
		case wait == rests:
		default:
			p.armLocked(wait)
		}
	}()
	wait = p.step()
}
