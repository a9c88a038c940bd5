package tracker

import (
	"context"
	"database/sql"
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// hungry is a pool of two in a bubble, and what was told of its starving.
type hungry struct {
	t    *testing.T
	db   *sql.DB
	s    *stub
	told box[[]*Starved]
}

// starve runs f with a pool of two that is reported when nobody was served for a second.
func starve(t *testing.T, o AttachOptions, f func(h *hungry)) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		o.StarvedAfter = time.Second
		h := &hungry{t: t}
		h.db, h.s, _ = stubDB(t, tr, 2, o)
		defer tr.Subscribe(func(e Event) {
			if e.Type == EventStarved {
				h.told.set(append(h.told.get(), e.Starved))
			}
		})()
		f(h)
	})
}

// events returns what was told since the last call.
func (h *hungry) events() []*Starved {
	synctest.Wait()
	return h.told.swap(nil)
}

// waits has n goroutines wait for a place until they are released, which gives up.
func (h *hungry) waits(n int) (giveUp func()) {
	ctx, cancel := context.WithCancel(context.Background())
	for range n {
		go h.wait(ctx)
	}
	synctest.Wait()
	return cancel
}

func (h *hungry) wait(ctx context.Context) {
	if c, err := h.db.Conn(ctx); err == nil {
		c.Close()
	}
}

func (h *hungry) present() *Starved { return h.s.pool.Stats().Places[0].Starved }

func TestStarved(t *testing.T) {
	starve(t, AttachOptions{}, func(h *hungry) {
		a, lost := take(t, h.db)
		time.Sleep(time.Second)
		b, _ := take(t, h.db)
		defer a.Close()
		time.Sleep(5 * time.Second)
		if got := h.events(); got != nil {
			t.Fatalf("full, but nobody waits: %v", got[0])
		}
		giveUp := h.waits(3)
		defer giveUp()
		time.Sleep(1999 * time.Millisecond)
		got := h.events()
		if len(got) != 1 {
			t.Fatalf("told %d times", len(got))
		}
		r := got[0]
		if r.Max != 2 || r.InUse != 2 || r.Lost != 0 || r.WaitersUnknown || h.present() != r {
			t.Errorf("%+v", r)
		}
		i := slices.IndexFunc(r.Waiters, func(w Waiter) bool { return strings.HasSuffix(w.Site().Function, "(*hungry).wait") })
		if i < 0 || r.Waiters[i].Count != 3 || r.Waiting < 3 {
			t.Errorf("waiters %+v", r.Waiters)
		}
		if len(r.Places) != 2 || r.Places[0].ConnectionID != lost.rec.ID() || r.Places[0].Doing != DoingNothing ||
			r.Places[0].Age <= r.Places[1].Age || r.Places[1].Age < 6*time.Second || r.Places[0].Idle < 6*time.Second {
			t.Errorf("places %+v", r.Places)
		}
		text, err := json.Marshal(h.s.pool.Stats().Places)
		if err != nil || !strings.Contains(string(text), `"doing":"idle"`) || !strings.Contains(string(text), `"site":"tracker/fake_test.go`) {
			t.Errorf("%s, %v", text, err)
		}
		var report strings.Builder
		h.s.pool.tracker.WriteTo(&report)
		if s := report.String(); !strings.Contains(s, "pool db starves: nobody got a place for ") || !strings.Contains(s, "2 idle, oldest for ") {
			t.Error(s)
		}

		// It is told again while it lasts, with what is the case by then.
		lost.reap()
		time.Sleep(50 * time.Second)
		if got = h.events(); got != nil {
			t.Errorf("told again after %v", got[0].For)
		}
		time.Sleep(20 * time.Second)
		got = h.events()
		if len(got) != 1 || got[0].Lost != 1 || got[0].Places[0].Doing != DoingLost || got[0].Places[0].ConnectionID != lost.rec.ID() {
			t.Fatalf("%+v", got)
		}
		if s := got[0].String(); !strings.HasPrefix(s, "pool db: all 2 places taken, nobody served for ") ||
			!strings.Contains(s, "; 1 undone, not let go, for ") || !strings.Contains(s, "; 1 idle, for ") {
			t.Error(s)
		}

		// Who waits is served: it is over.
		b.Close()
		time.Sleep(time.Second)
		if n := h.s.pool.Stats().Places[0]; n.Starved != nil || n.StarvedTotal != 1 {
			t.Errorf("%+v", n)
		}
	})
}

// TestNotStarved: a pool whose places change hands, and one for which nobody waits any
// more, does not starve.
func TestNotStarved(t *testing.T) {
	t.Run("busy", func(t *testing.T) {
		starve(t, AttachOptions{}, func(h *hungry) {
			a, _ := take(t, h.db)
			defer a.Close()
			giveUp := h.waits(1)
			defer giveUp()
			done := make(chan struct{})
			for range 3 {
				go func() {
					for {
						select {
						case <-done:
							return
						default:
							c, _ := take(t, h.db)
							time.Sleep(800 * time.Millisecond)
							c.Close()
						}
					}
				}()
			}
			time.Sleep(30 * time.Second)
			if got := h.events(); got != nil {
				t.Error(got[0])
			}
			close(done)
			time.Sleep(10 * time.Second)
		})
	})
	t.Run("gave up", func(t *testing.T) {
		starve(t, AttachOptions{}, func(h *hungry) {
			// Other tests of this process may wait for places.
			h.s.pool.attached.profile = func() ([]runtime.StackRecord, bool) { return nil, true }
			for range 2 {
				c, _ := take(t, h.db)
				defer c.Close()
			}
			h.waits(3)()
			time.Sleep(2 * time.Minute)
			if got := h.events(); got != nil {
				t.Error(got[0])
			}
		})
	})
	t.Run("switched off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := &hungry{t: t}
			h.db, h.s, _ = stubDB(t, New(Options{}), 1, AttachOptions{})
			c, _ := take(t, h.db)
			defer h.waits(1)()
			time.Sleep(time.Hour)
			if h.present() != nil {
				t.Error("told")
			}
			c.Close()
		})
	})
}

// TestStarvedProfiles: at most one profile a minute is taken, and none where there are
// too many goroutines; it is told all the same.
func TestStarvedProfiles(t *testing.T) {
	starve(t, AttachOptions{}, func(h *hungry) {
		var taken atomic.Int64
		h.s.pool.attached.profile = func() ([]runtime.StackRecord, bool) {
			taken.Add(1)
			return nil, false
		}
		a, _ := take(t, h.db)
		defer a.Close()
		for range 20 {
			b, _ := take(t, h.db)
			giveUp := h.waits(1)
			time.Sleep(3 * time.Second)
			if r := h.present(); r == nil || !r.WaitersUnknown {
				t.Errorf("%+v", r)
			}
			giveUp()
			b.Close()
			time.Sleep(time.Second)
		}
		n := h.s.pool.Stats().Places[0]
		if got := len(h.events()); n.StarvedTotal != 20 || got != 2 || taken.Load() != 2 {
			t.Errorf("%d profiles, %d events, %+v", taken.Load(), got, n)
		}
	})
}

func TestCameBy(t *testing.T) {
	frames := func(text string) (all []Frame) {
		for _, f := range strings.Fields(text) {
			name, line, _ := strings.Cut(f, ":")
			all = append(all, Frame{Function: name, Line: int(line[0])})
		}
		return all
	}
	for _, c := range []struct {
		lease, waiter string
		want          bool
	}{
		{"order:1 handle:5 main:9", "order:2 handle:5 main:9", true},
		{"order:1 handle:5 main:9", "item:7 order:2 handle:5 main:9", true},
		{"order:1 handle:5 main:9", "order:1 handle:5 main:9", false}, // its first place
		{"order:1 handle:5 main:9", "order:2 handle:6 main:9", false}, // by other calls
		{"order:1 handle:5 main:9", "item:2 handle:5 main:9", false},  // it has returned
		{"order:1 handle:5", "order:2 handle:5 main:9", true},         // the stack ends early
		{"order:1", "order:2 handle:5", false},                        // too early to know
		{"order:1", "order:2", true},
		{"order:1", "item:1 order:2", true},
		{"", "order:2", false},
		{"order:1", "", false},
	} {
		if got := cameBy(frames(c.lease), frames(c.waiter)); got != c.want {
			t.Errorf("%s, %s: %v", c.lease, c.waiter, got)
		}
	}
}

// TestStarvedOrder: causes stand before victims, and only so many are listed.
func TestStarvedOrder(t *testing.T) {
	r := Starved{Places: []PlaceHolder{
		{ConnectionID: "lock", Doing: DoingAwaitsLock, Age: 9},
		{ConnectionID: "runs", Doing: DoingRunning, Age: 9},
		{ConnectionID: "self", Doing: DoingAwaitsPlace, Age: 9},
		{ConnectionID: "idle", Doing: DoingNothing, Age: 1},
		{ConnectionID: "older", Doing: DoingNothing, Age: 9},
		{ConnectionID: "holds", Doing: DoingRunning, InTheWay: 1},
		{ConnectionID: "lost", Doing: DoingLost},
	}}
	r.sort()
	var got []string
	for _, p := range r.Places {
		got = append(got, p.ConnectionID)
	}
	if s := strings.Join(got, " "); s != "lost holds older idle self runs lock" {
		t.Error(s)
	}
	r.Places = make([]PlaceHolder, maxPlaceHolders+3)
	if r.sort(); len(r.Places) != maxPlaceHolders || r.More != 3 {
		t.Errorf("%d and %d more", len(r.Places), r.More)
	}
}
