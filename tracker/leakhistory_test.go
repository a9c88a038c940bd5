package tracker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestLeakHistory keeps leaks although connections come and go, and of leaks
// the last ones.
func TestLeakHistory(t *testing.T) {
	const size = 4
	tr := New(Options{History: size})
	p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Policy: limits(nil), Logger: quiet})
	list := func() (out []string) {
		for _, e := range tr.LeakHistory() {
			out = append(out, fmt.Sprintf("%v %s #%d", e.Type, e.Leak.Query, e.Leak.ID))
		}
		return out
	}
	expect := func(want ...string) {
		t.Helper()
		if got := list(); !slices.Equal(got, want) {
			t.Errorf("leaks %q, want %q", got, want)
		}
	}
	lose := func(query string) {
		c := p.Open(nil, true, "")
		var rows Resource
		c.OpenRows(&rows, query, "")
		c.Proven(&rows, true)
		c.CloseResource(&rows)
		c.Close()
	}
	expect()
	lose("a")
	for range 10 * size {
		p.Open(nil, false, "").Close()
	}
	if h := tr.History(); len(h) != size || slices.ContainsFunc(h, Event.leak) {
		t.Fatalf("%d events in the history, want %d without a leak: not the case that was meant", len(h), size)
	}
	expect("proven a #1", "reaped a #1")
	lose("b")
	lose("c")
	expect("proven b #2", "reaped b #2", "proven c #3", "reaped c #3")

	events := tr.LeakHistory()
	events[0] = Event{}
	if tr.LeakHistory()[0].Leak == nil {
		t.Error("what is returned is not the caller's own")
	}
	if at := events[3].Time; time.Since(at) > time.Minute {
		t.Errorf("the last event is of %v", at)
	}
}

// A busy pool refreshes its connections each max_access leases: what was leaked
// stays in Stats and in the report all the same.
func TestRefreshingPushesNoLeakOut(t *testing.T) {
	tr := New(Options{History: 4})
	p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Policy: limits(nil), Logger: quiet})
	c := owned{p.Open(still{}, true, "")}
	var rows Resource
	c.OpenRows(&rows, "SELECT forgotten", "")
	c.Proven(&rows, true)
	c.CloseResource(&rows)
	for range 100 {
		c.Renewed(ReasonMaxAccess)
	}
	for who, s := range map[string]Stats{"tracker": tr.Stats(), "pool": p.Stats()} {
		if d := s.LeakDetection; d.RecentLeakAlerts != 1 || d.ConnectionHistorySize != 4 {
			t.Errorf("%s: %+v", who, d)
		}
	}
	var b strings.Builder
	if _, err := tr.WriteTo(&b); err != nil || !strings.Contains(b.String(), "SELECT forgotten") {
		t.Errorf("%s, %v", &b, err)
	}
	c.Close()
}

// TestUserFrames begins where the site is and ends before the runtime.
func TestUserFrames(t *testing.T) {
	p := newPool(t, New(Options{}), PoolConfig{Name: "db", Mode: Basic, Policy: limits(nil), Logger: quiet})
	c := p.Open(nil, false, "")
	defer c.Close()
	c.BeginTx("BEGIN", "")
	held := p.Tracker().Held()[0]
	frames := held.Stack.UserFrames()
	if len(frames) < 2 || frames[0] != held.Site() || frames[0].Line == 0 {
		t.Fatalf("frames %v of a site %v", frames, held.Site())
	}
	if last := frames[len(frames)-1].Function; !strings.HasPrefix(last, "testing.") {
		t.Errorf("the outermost frame is %s", last)
	}
	if none := Stack(nil).UserFrames(); len(none) != 0 {
		t.Errorf("frames of nothing: %v", none)
	}
}
