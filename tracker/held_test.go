package tracker

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// TestHeld lists what is held with ages, the longest held first, and with its
// suspicion; what is closed is gone.
func TestHeld(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(func(p *Policy) { p.LeakAfter = 2 * time.Minute }))
		f := l.open(p, false)
		f.out("") // the lease is timed from the first thing that it opens
		f.begin("BEGIN", "")
		l.sleep(time.Second)
		rows := f.query("SELECT 1", "on purpose")
		l.sleep(time.Second)
		stmt := f.prepare("SELECT 2")
		l.sleep(time.Second)

		list := func() (out []string) {
			for _, h := range l.Held() {
				if h.Pool != "db" || h.ConnectionID != f.ID() || !h.OpenedAt.Equal(time.Now().Add(-h.Age)) {
					t.Errorf("Held: %+v", h)
				}
				out = append(out, fmt.Sprintf("%v %v %q %s busy=%v suspect=%v", h.Kind, h.Age, h.Query, h.Exempt, h.Busy, h.Suspect != nil))
			}
			return out
		}
		expect := func(want ...string) {
			t.Helper()
			if got := list(); !slices.Equal(got, want) {
				t.Errorf("held:\n%q\nwant:\n%q", got, want)
			}
		}
		expect(
			`connection 3s "SELECT 1"  busy=false suspect=false`,
			`transaction 3s "SELECT 1"  busy=false suspect=false`,
			`rows 2s "SELECT 1" on purpose busy=false suspect=false`,
			`statement 1s "SELECT 2"  busy=false suspect=false`,
		)
		f.enter()
		for _, h := range l.Held() {
			if !h.Busy || h.Idle != 0 {
				t.Errorf("during an operation: %+v", h)
			}
		}
		f.leave()
		f.finish(stmt)
		l.sleep(10 * time.Minute)
		for _, h := range l.Held() {
			if want := h.Kind == KindTransaction || h.Kind == KindRows; (h.Suspect != nil) != want {
				t.Errorf("after ten minutes, %v: suspect %v, want %v", h.Kind, h.Suspect, want)
			}
			if h.Idle < 9*time.Minute {
				t.Errorf("after ten minutes, %v is idle for %v", h.Kind, h.Idle)
			}
		}
		f.finish(rows)
		f.commit()
		f.in()
		expect()
	})
}
