package tracker

import "time"

// clock is a tracker's time line: durations since the tracker was made. One
// reading costs half of time.Now, and inside a synctest bubble it follows the
// bubble's clock as long as the tracker was made there.
type clock struct {
	base time.Time
}

func newClock() clock { return clock{base: time.Now()} }

func (c clock) now() time.Duration { return time.Since(c.base) }

func (c clock) at(d time.Duration) time.Time { return c.base.Add(d) }

// reaperClock is the time that ages are measured in. It advances by what was
// slept; where that is much more than was planned, by what was planned, so a
// suspended machine, a stopped process or a jump of the clock ages nothing.
type reaperClock struct {
	elapsed time.Duration
	last    time.Duration // on the tracker's clock
	planned time.Duration // 0: nothing was planned, the first reading
}

// tick takes the tracker's time and returns the reaper's.
func (r *reaperClock) tick(now time.Duration) time.Duration {
	step := now - r.last
	if limit := r.planned + r.planned/2 + 50*time.Millisecond; step > limit {
		step = r.planned
	}
	if step > 0 {
		r.elapsed += step
	}
	r.last = now
	return r.elapsed
}
