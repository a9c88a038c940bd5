package tracker

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// number makes an event that can be told from others.
func number(p *Pool, n int) Event {
	return Event{Type: EventRecycled, Reason: Reason(fmt.Sprint(n)), pool: p}
}

func TestSubscribeOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: quiet})
		var got []string
		var inside atomic.Int64
		for _, name := range []string{"a", "b"} {
			defer tr.Subscribe(func(e Event) {
				if inside.Add(1) != 1 {
					t.Error("two callbacks at once")
				}
				runtime.Gosched()
				inside.Add(-1)
				if e.Pool != "db" || e.Time.IsZero() {
					t.Errorf("%+v", e)
				}
				got = append(got, name+string(e.Reason))
			})()
		}
		var want []string
		for i := range 500 {
			tr.emit(number(p, i))
			if i%20 == 0 {
				runtime.Gosched()
			}
			want = append(want, fmt.Sprint("a", i), fmt.Sprint("b", i))
		}
		synctest.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("%d of %d, or another order", len(got), len(want))
		}
	})
}

// All that a connection lives through, as its events tell it.
func TestLifecycleEvents(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Basic, DefaultPolicy())
		var got []string
		defer l.Subscribe(func(e Event) {
			if e.ConnectionID != "db#1" || e.Pool != "db" {
				t.Errorf("%+v", e)
			}
			got = append(got, e.Type.String())
		})()
		f := l.open(p, true)
		f.in()
		f.in()
		f.out("")
		f.begin("BEGIN", "")
		f.commit()
		f.in()
		f.Recycled(ReasonMaxAccess)
		f.Close()
		f.Close()
		f.CheckIn()
		synctest.Wait()
		if s := strings.Join(got, " "); s != "opened check-out check-in check-out check-in recycled closed" {
			t.Error(s)
		}
		// The history does without the leases.
		got = nil
		for _, e := range l.History() {
			got = append(got, e.Type.String())
		}
		if s := strings.Join(got, " "); s != "opened recycled closed" {
			t.Error(s)
		}
	})
}

// Nobody listens: check-outs make no events.
func TestLeaseEventsOnlyIfWanted(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	want := func(when string, want bool) {
		t.Helper()
		if got := tr.leaseEvents.Load(); got != want {
			t.Errorf("%s: %v", when, got)
		}
	}
	want("nobody", false)
	cancel := tr.Subscribe(func(Event) {})
	want("subscriber", true)
	second := tr.Subscribe(func(Event) {})
	cancel()
	cancel()
	want("second subscriber", true)
	second()
	want("cancelled", false)
	debug := newPool(t, tr, PoolConfig{Logger: slog.New(slog.NewTextHandler(&bytes.Buffer{}, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	want("debug logger", true)
	debug.Close()
	want("debug logger's pool closed", false)
	info := newPool(t, tr, PoolConfig{Logger: slog.New(slog.NewTextHandler(&bytes.Buffer{}, &slog.HandlerOptions{Level: slog.LevelInfo}))})
	want("info logger", false)
	info.Close()
	p.Close()
}

// cancel ends it: nothing is told after it returned, also not what waited.
func TestSubscribeCancel(t *testing.T) {
	t.Run("from outside", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := New(Options{})
			p := newPool(t, tr, PoolConfig{Logger: quiet})
			first, calls := make(chan bool), 0
			cancel := tr.Subscribe(func(Event) {
				calls++
				if calls == 1 {
					<-first
				}
			})
			others := 0
			defer tr.Subscribe(func(Event) { others++ })()
			for i := range 10 {
				tr.emit(number(p, i))
			}
			synctest.Wait()
			for i := range 10 {
				tr.emit(number(p, i))
			}
			cancel()
			close(first)
			synctest.Wait()
			if calls != 1 || others != 20 {
				t.Errorf("called %d times, the other %d times; want 1 and 20", calls, others)
			}
		})
	})
	t.Run("while another is told", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := New(Options{})
			p := newPool(t, tr, PoolConfig{Logger: quiet})
			first, calls := make(chan bool), 0
			defer tr.Subscribe(func(Event) { <-first })()
			cancel := tr.Subscribe(func(Event) { calls++ })
			tr.emit(number(p, 1))
			synctest.Wait()
			cancel()
			close(first)
			synctest.Wait()
			if calls != 0 {
				t.Errorf("called %d times", calls)
			}
		})
	})
	t.Run("from the callback", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := New(Options{})
			p := newPool(t, tr, PoolConfig{Logger: quiet})
			var cancel func()
			calls := 0
			tr.queue.mu.Lock() // so that all are one batch
			tr.queue.running = true
			tr.queue.mu.Unlock()
			cancel = tr.Subscribe(func(Event) { calls++; cancel() })
			for i := range 10 {
				tr.emit(number(p, i))
			}
			go tr.queue.dispatch()
			synctest.Wait()
			if calls != 1 {
				t.Errorf("called %d times", calls)
			}
		})
	})
}

// A panic is contained and counted, others are told all the same, and so are
// later events.
func TestSubscriberPanics(t *testing.T) {
	inBubble(t, func(l *lab) {
		defer l.Subscribe(func(e Event) {
			if e.Type == EventOpened {
				panic(e)
			}
		})()
		defer l.Subscribe(func(e Event) {
			if e.Type == EventOpened {
				var m map[string]int
				m["x"] = 1
			}
		})()
		p := l.pool(Basic, DefaultPolicy())
		for range 5 {
			l.open(p, false).Recycled(ReasonMaxIdle)
		}
		if got := l.told(); len(got) != 5 {
			t.Errorf("told %q", got)
		}
		if s := l.Stats(); s.CallbackPanics != 10 {
			t.Errorf("%d panics counted", s.CallbackPanics)
		}
	})
}

// runtime.Goexit, as t.FailNow calls it, must not end the dispatcher.
func TestSubscriberExits(t *testing.T) {
	inBubble(t, func(l *lab) {
		defer l.Subscribe(func(e Event) {
			if e.Reason == ReasonMaxIdle {
				runtime.Goexit()
			}
		})()
		var told atomic.Int64
		defer l.Subscribe(func(e Event) { told.Add(1) })()
		p := l.pool(Basic, DefaultPolicy())
		f := l.open(p, false)
		for range 3 {
			f.Recycled(ReasonMaxIdle)
			f.Recycled(ReasonMaxAccess)
		}
		synctest.Wait()
		if n := told.Load(); n < 4 { // the one told after it may miss what it exited on
			t.Errorf("told of %d events of 7", n)
		}
		if s := l.Stats(); s.CallbackPanics != 3 {
			t.Errorf("%d counted", s.CallbackPanics)
		}
	})
}

// A slow subscriber loses events beyond the queue, and they are counted; what
// emits never waits for it.
func TestSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		p := newPool(t, tr, PoolConfig{Logger: quiet})
		gate := make(chan bool)
		var got []string
		defer tr.Subscribe(func(e Event) { <-gate; got = append(got, string(e.Reason)) })()
		tr.emit(number(p, 0))
		synctest.Wait() // under way
		var want []string
		want = append(want, "0")
		for i := 1; i <= queueSize+100; i++ {
			tr.emit(number(p, i))
			if i <= queueSize {
				want = append(want, fmt.Sprint(i))
			}
		}
		if s := tr.Stats(); s.EventsDropped != 100 {
			t.Errorf("%d dropped", s.EventsDropped)
		}
		close(gate)
		synctest.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("told %d events, want the first %d", len(got), len(want))
		}
		// It goes on, and forgets what it held.
		tr.emit(number(p, 1))
		synctest.Wait()
		if len(got) != queueSize+2 || tr.Stats().EventsDropped != 100 {
			t.Errorf("told %d events", len(got))
		}
		if q := &tr.queue; q.waiting != nil || q.running {
			t.Errorf("%d waiting, running %v", len(q.waiting), q.running)
		}
	})
}

// A callback may call anything, Close of its own pool included.
func TestCallbackCallsEverything(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		var f *fake
		done := false
		l.OnLeak(func(leak Leak) {
			f.do(f.rollback) // as sql.DB.Close does
			cancel := l.Subscribe(func(Event) {})
			l.OnLeak(func(Leak) {})()
			l.AddDetector(func(Record) Reason { return "" })()
			l.Stats()
			l.History()
			l.Records()
			p.Records()
			p.Stats()
			if err := p.SetPolicy(leakAfter(4 * mins)); err != nil {
				t.Error(err)
			}
			leak.Site()
			other, err := l.NewPool(PoolConfig{Logger: quiet})
			if err != nil {
				t.Error(err)
			}
			other.Open(still{}, true, "").Close()
			other.Close()
			f.Close()
			p.Close()
			l.Tracker.Close()
			cancel()
			done = true
		})
		f = l.open(p, true)
		f.begin("BEGIN", "")
		l.until(time.Hour)
		if !done {
			t.Error("the callback hangs")
		}
		if l.running() {
			t.Error("the reaper runs")
		}
		l.expect("6m0s suspect transaction leak_after #1", "6m0s recovered transaction leak_after #1")
	})
}

// The same outside a bubble, where a deadlock would be seen as such.
func TestCallbackClosesPoolForReal(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Policy: leakAfter(time.Millisecond), Logger: quiet})
	c := p.Open(still{}, true, "")
	c.Word().Add(gate.Flags + 1)
	done := make(chan bool)
	var once sync.Once
	defer tr.OnLeak(func(Leak) {
		once.Do(func() {
			c.Close()
			p.Close()
			close(done)
		})
	})()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("the callback hangs")
	}
	noReaper(t)
}

func TestHistory(t *testing.T) {
	tr := New(Options{History: 5})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	if h := tr.History(); h == nil || len(h) != 0 {
		t.Errorf("%v", h)
	}
	for n := range 23 {
		tr.emit(number(p, n))
		var want, got []string
		for i := max(0, n-4); i <= n; i++ {
			want = append(want, fmt.Sprint(i))
		}
		for _, e := range tr.History() {
			got = append(got, string(e.Reason))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	h := tr.History()
	h[0].Reason = "changed"
	if tr.History()[0].Reason == "changed" {
		t.Error("History hands out its own memory")
	}
	for _, e := range []Event{{Type: EventCheckOut, pool: p}, {Type: EventCheckIn, pool: p}} {
		tr.emit(e)
	}
	if got := tr.History(); got[4].Reason != "22" {
		t.Errorf("%+v", got[4])
	}
	if n := cap(New(Options{}).history.events); n != 256 {
		t.Errorf("%d events by default", n)
	}
	if n := cap(New(Options{History: -1}).history.events); n != 256 {
		t.Errorf("%d events for -1", n)
	}
}

// Many emit at once: the history stays in the order of time.
func TestHistoryOrdered(t *testing.T) {
	tr := New(Options{History: 4096})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 1000 {
				tr.emit(number(p, i))
			}
		})
	}
	wg.Wait()
	h := tr.History()
	if len(h) != 4000 {
		t.Errorf("%d events", len(h))
	}
	if !slices.IsSortedFunc(h, func(a, b Event) int { return a.Time.Compare(b.Time) }) {
		t.Error("an event stands before an older one")
	}
}

// records is a handler that keeps what it is given.
type records struct {
	level  slog.Level
	mu     sync.Mutex
	lines  []string
	onCall func() // in Enabled and Handle
	onLine func() // in Handle
}

func (h *records) Enabled(_ context.Context, l slog.Level) bool {
	if h.onCall != nil {
		h.onCall()
	}
	return l >= h.level
}

func (h *records) Handle(_ context.Context, r slog.Record) error {
	if h.onCall != nil {
		h.onCall()
	}
	if h.onLine != nil {
		h.onLine()
	}
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lines = append(h.lines, line)
	return nil
}

func (h *records) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h *records) WithGroup(string) slog.Handler      { return h }

func (h *records) take() string {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := strings.Join(h.lines, "\n")
	h.lines = nil
	return lines
}

// life opens a connection, and has it leak, recover, leak again and be reaped.
func life(l *lab, p *Pool) {
	f := l.open(p, false)
	f.out("")
	f.do(func() { f.tx = f.BeginTx("BEGIN\n IMMEDIATE", "") })
	l.sleep(6*mins + 30*sec)
	f.commit()
	f.in()
	f.ReportKept("temp objects")
	f.Recycled(ReasonMaxAccess)
	f.out("")
	f.query("SELECT 1", "")
	l.sleep(10 * mins)
	f.in()
	f.Close()
}

func TestLogger(t *testing.T) {
	debug := []string{
		"DEBUG connection opened component=leakguard pool=db connection=db#1",
		"DEBUG connection check-out component=leakguard pool=db connection=db#1",
		"WARN leak found component=leakguard pool=db kind=transaction site=tracker/dispatch_test.go:LINE age=6m0s reason=leak_after limit=5m0s outcome=undone at the next check, unless it moves cure=defer tx.Rollback() at this line; after a Commit it does nothing query=BEGIN IMMEDIATE connection=db#1 idle=5m0s leak=1",
		"INFO leak recovered component=leakguard pool=db kind=transaction site=tracker/dispatch_test.go:LINE age=6m0s reason=leak_after limit=5m0s outcome=came back by itself query=BEGIN IMMEDIATE connection=db#1 idle=5m0s leak=1",
		"DEBUG connection check-in component=leakguard pool=db connection=db#1",
		"WARN connection kept component=leakguard pool=db reason=temp objects connection=db#1",
		"DEBUG connection recycled component=leakguard pool=db reason=max_access connection=db#1",
		"DEBUG connection check-out component=leakguard pool=db connection=db#1",
		"WARN leak found component=leakguard pool=db kind=rows site=tracker/fake_test.go:LINE age=5m30s reason=leak_after limit=5m0s outcome=undone at the next check, unless it moves cure=defer rows.Close() at this line query=SELECT 1 connection=db#1 idle=5m0s leak=2",
		"WARN leak undone component=leakguard pool=db kind=rows site=tracker/fake_test.go:LINE age=5m30s reason=leak_after limit=5m0s outcome=closed cure=defer rows.Close() at this line query=SELECT 1 connection=db#1 idle=5m0s leak=2",
		"WARN place lost component=leakguard pool=db lost=1 site=tracker/fake_test.go:LINE cure=the holder has to let go: close what was opened at this line",
		"DEBUG connection check-in component=leakguard pool=db connection=db#1",
		"DEBUG connection closed component=leakguard pool=db connection=db#1",
	}
	atLeast := func(levels ...string) string {
		var lines []string
		for _, line := range debug {
			if slices.Contains(levels, strings.Fields(line)[0]) {
				lines = append(lines, line)
			}
		}
		return strings.Join(lines, "\n")
	}
	for _, c := range []struct {
		name  string
		level slog.Level
		want  string
	}{
		{"debug", slog.LevelDebug, atLeast("DEBUG", "INFO", "WARN")},
		{"info", slog.LevelInfo, atLeast("INFO", "WARN")},
		{"warn", slog.LevelWarn, atLeast("WARN")},
		{"error", slog.LevelError, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				h := &records{level: c.level}
				life(l, newPool(t, l.Tracker, PoolConfig{Name: "db", Policy: leakAfter(5 * mins), Logger: slog.New(h)}))
				compareLog(t, h.take(), c.want)
			})
		})
	}
	t.Run("default", func(t *testing.T) { // of the program, warnings only
		before := slog.Default()
		defer slog.SetDefault(before)
		inBubble(t, func(l *lab) {
			h := &records{level: slog.LevelDebug}
			slog.SetDefault(slog.New(h))
			life(l, newPool(t, l.Tracker, PoolConfig{Name: "db", Policy: leakAfter(5 * mins)}))
			compareLog(t, h.take(), atLeast("WARN"))
		})
	})
	t.Run("without subscribers", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			tr := New(Options{})
			h := &records{level: slog.LevelDebug}
			p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: slog.New(h)})
			p.Open(still{}, true, "").Close()
			compareLog(t, h.take(), "DEBUG connection opened component=leakguard pool=db connection=db#1\n"+
				"DEBUG connection check-out component=leakguard pool=db connection=db#1\nDEBUG connection closed component=leakguard pool=db connection=db#1")
		})
	})
	t.Run("nobody", func(t *testing.T) { // wants to know: no goroutine is started for it
		synctest.Test(t, func(t *testing.T) {
			tr := New(Options{})
			newPool(t, tr, PoolConfig{Name: "db", Mode: Basic}).Open(still{}, true, "").Close()
			tr.queue.mu.Lock()
			defer tr.queue.mu.Unlock()
			if tr.queue.running || len(tr.queue.waiting) != 0 {
				t.Error("a dispatcher was started for what nobody wants")
			}
		})
	})
	t.Run("more", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			h := &records{level: slog.LevelInfo}
			p := newPool(t, l.Tracker, PoolConfig{Name: "db", Policy: leakAfter(5 * mins), Logger: slog.New(h), NoStacks: true})
			f := l.open(p, false)
			f.out("nightly import")
			f.do(f.HandedOut)
			l.sleep(time.Hour) // the lease opened nothing: it is as old as the first look at it
			compareLog(t, h.take(), "WARN leak found component=leakguard pool=db kind=connection site=unknown age=5m0s reason=leak_after age_at_least=true limit=5m0s outcome=reported only: exempt "+
				"cure=defer conn.Close() at this line exempt=nightly import kept=the raw connection is in use connection=db#1 idle=5m0s leak=1")
		})
	})
}

var stackAttrs = regexp.MustCompile(` function=\S+ frames=.*`)

var lineNumber = regexp.MustCompile(`_test\.go:\d+`)

func compareLog(t *testing.T, got, want string) {
	t.Helper()
	// Which line it is is for site_test.go to say.
	got = lineNumber.ReplaceAllString(got, "_test.go:LINE")
	got = stackAttrs.ReplaceAllString(got, "")
	if got != want {
		t.Errorf("logged\n%s\nwant\n%s", got, want)
	}
}

// A logger is somebody else's code: it panics.
func TestLoggerIsContained(t *testing.T) {
	inBubble(t, func(l *lab) {
		h := &records{level: slog.LevelInfo, onLine: func() { panic("no") }}
		p := newPool(t, l.Tracker, PoolConfig{Policy: leakAfter(5 * mins), Logger: slog.New(h)})
		f := l.open(p, true)
		f.begin("BEGIN", "")
		l.until(time.Hour)
		l.expect("6m0s suspect transaction leak_after #1", "7m0s reaped transaction leak_after #1")
		if n := l.Stats().CallbackPanics; n != 3 { // and that the place is lost
			t.Errorf("%d panics counted", n)
		}
	})
}

// Nobody's code runs under a lock: a handler may ask the tracker in each of its
// methods.
func TestLoggerMayAsk(t *testing.T) {
	tr := New(Options{})
	done := make(chan bool)
	go func() {
		defer close(done)
		asked := 0
		var h *records
		h = &records{level: slog.LevelDebug, onCall: func() {
			h.mu.Lock()
			asked++
			h.mu.Unlock()
			tr.Stats()
			tr.History()
		}}
		p, err := tr.NewPool(PoolConfig{Mode: Basic, Logger: slog.New(h)})
		if err != nil {
			t.Error(err)
			return
		}
		cancel := tr.Subscribe(func(Event) {})
		c := p.Open(still{}, true, "")
		c.Record() // for the logger's Stats read it
		c.CheckIn()
		c.Recorded()
		cancel()
		p.Close()
		c.Close()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("a handler that calls Stats deadlocks")
	}
}

// Nobody's code runs in a driver's hook either: what a driver calls from there
// asks no logger.
func TestLoggerNotAskedInHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		var hook atomic.Bool
		var caught atomic.Int64
		main := goroutine()
		h := &records{level: slog.LevelDebug, onCall: func() {
			if hook.Load() && goroutine() == main {
				caught.Add(1)
			}
		}}
		p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: slog.New(h)})
		newPool(t, tr, PoolConfig{Mode: Basic, Logger: slog.New(h)})
		c, d := p.Open(still{}, false, ""), p.Open(still{}, false, "")
		p.Close() // the pool's end comes with its last connection
		hook.Store(true)
		c.CheckOut("")
		c.CheckIn()
		c.Close()
		d.Close()
		hook.Store(false)
		synctest.Wait()
		if n := caught.Load(); n != 0 {
			t.Errorf("a logger was asked %d times in a hook", n)
		}
	})
}

func goroutine() string {
	buf := make([]byte, 64)
	return strings.Fields(string(buf[:runtime.Stack(buf, false)]))[1]
}
