package tracker

import (
	"runtime"
	"testing"
	"time"
)

// A detector that ends its goroutine each time does not slow the guard down.
func TestDetectorExitsAlways(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.AddDetector(func(Record) Reason { runtime.Goexit(); return "" })
		policy := limits(func(p *Policy) { p.LeakAfter, p.CheckInterval = 5*time.Second, time.Second })
		f := l.open(l.pool(Enforce, policy), true)
		f.begin("BEGIN", "")
		l.until(8 * sec)
		l.expect("6s suspect transaction leak_after #1", "7s reaped transaction leak_after #1")
	})
}
