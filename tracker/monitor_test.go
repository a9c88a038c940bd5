package tracker

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"reflect"
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

// machine is a memory source that a test turns.
type machine struct {
	box[Memory]
	reads atomic.Int64
}

func (m *machine) read() Memory {
	m.reads.Add(1)
	return m.get()
}

// at sets the share in use.
func (m *machine) at(percent float64) {
	m.set(Memory{
		Total: 1000 << 20, Used: uint64(percent * 10 * (1 << 20)), UsedPercent: percent, LimitedBy: "system",
		ProcessRSS: 200 << 20, Sources: []MemorySource{{"system", "ok"}, {"cgroup pressure", "no such file"}},
	})
}

func (l *lab) machine(percent float64) *machine {
	m := new(machine)
	m.at(percent)
	l.SetMemorySource(m.read)
	return m
}

// holding opens a connection that holds bytes, and least after a release.
func (l *lab) holding(p *Pool, leased bool, bytes, least int64) *fake {
	f := l.open(p, leased)
	if !leased { // a connection without any lease may be out
		f.out("")
		f.in()
	}
	f.hold(bytes)
	f.carry(func(o *Order) Outcome {
		out := f.drive(o)
		f.mu.Lock()
		defer f.mu.Unlock()
		if out == Done {
			switch o.Scope {
			case ScopeRelease:
				f.bytes = min(f.bytes, least)
			case ScopeGiveUp:
				f.bytes = 0
			}
		}
		return out
	})
	return f
}

// hold is an operation after which so much is held.
func (f *fake) hold(bytes int64) {
	f.do(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.bytes = bytes
	})
}

// scopes returns what was ordered since the last call, but for the reaper's own.
func (f *fake) scopes() (s []string) {
	for _, c := range f.given() {
		s = append(s, scopeNames[c.o.Scope]+" "+string(c.o.Reason)+" "+outcomeNames[c.out])
	}
	return s
}

func (f *fake) wantScopes(want ...string) {
	f.l.t.Helper()
	if got := f.scopes(); !slices.Equal(got, want) {
		f.l.t.Errorf("at %v %s was ordered %q, want %q", f.l.since(), f.ID(), got, want)
	}
}

func (f *fake) detail() ConnectionDetail {
	for _, d := range f.l.Stats().ActiveConnectionDetails {
		if d.ConnectionID == f.ID() {
			return d
		}
	}
	return ConnectionDetail{}
}

// typed returns the events of a type so far.
func (l *lab) typed(typ EventType) (events []Event) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Type == typ {
			events = append(events, e)
		}
	}
	return events
}

// Bytes, peak and age; a connection that rests is not asked again, one that is
// busy is not waited for and shows its last figure with its age.
func TestMemoryOfConnections(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.ConnMemory = 1 << 40 }))
		a, b := l.holding(p, true, 3<<20, 0), l.holding(p, true, 1<<20, 0)
		if d := a.detail(); d.MemoryBytes != 0 || d.MemoryAge != 0 {
			t.Errorf("before the first pass %+v", d)
		}
		l.sleep(30 * time.Second)
		b.hold(500)
		a.enter()
		l.sleep(30 * time.Second)
		d, e := a.detail(), b.detail()
		if d.MemoryBytes != 3<<20 || d.MemoryPeakBytes != 3<<20 || d.MemoryAge != 30 {
			t.Errorf("busy: %+v", d)
		}
		if e.MemoryBytes != 500 || e.MemoryPeakBytes != 1<<20 || e.MemoryAge != 0 {
			t.Errorf("moved: %+v", e)
		}
		if s := l.Stats().MemoryMonitoring; s.ConnectionMemoryBytes != 3<<20+500 {
			t.Errorf("together %d", s.ConnectionMemoryBytes)
		}
		a.leave()
		a.shutGate(true)
		l.sleep(40 * time.Second)
		if d := a.detail(); d.MemoryBytes != 3<<20 || d.MemoryAge != 70 {
			t.Errorf("gate taken: %+v", d)
		}
		a.shutGate(false)
		b.mu.Lock()
		b.bytes = 7 // without having moved: is not asked for
		b.mu.Unlock()
		l.sleep(30 * time.Second)
		if d := a.detail(); d.MemoryAge != 10 {
			t.Errorf("gate free: %+v", d)
		}
		if e := b.detail(); e.MemoryBytes != 500 || e.MemoryAge != 10 {
			t.Errorf("at rest: %+v, want the figure confirmed 10 s ago", e)
		}
	})
}

// The share of a connection in a shared cache changes while it rests.
func TestMemoryOfSharedCaches(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.ConnMemory = 1 << 40 }))
		a := l.holding(p, true, 20<<20, 0)
		a.Word().Or(gate.Sharing)
		l.sleep(30 * time.Second)
		b := l.holding(p, true, 10<<20, 0)
		b.Word().Or(gate.Sharing)
		a.mu.Lock()
		a.bytes = 10 << 20
		a.mu.Unlock()
		l.sleep(30 * time.Second)
		if n := l.Stats().MemoryMonitoring.ConnectionMemoryBytes; n != 20<<20 {
			t.Errorf("together %d, want the cache once", n)
		}
	})
}

// conn_memory: released; still above: given up, in the pool and in a lease, and
// not again for as long as the connection does not move. Nothing of it at check-in.
func TestConnMemory(t *testing.T) {
	for _, mode := range []Mode{Enforce, Observe, Basic} {
		inBubble(t, func(l *lab) {
			p := l.pool(mode, limits(func(p *Policy) { p.ConnMemory = 50 << 20 }))
			light := l.holding(p, true, 50<<20, 0)
			full, stuck := l.holding(p, true, 60<<20, 1000), l.holding(p, true, 60<<20, 51<<20)
			pooled, missed := l.holding(p, false, 60<<20, 51<<20), l.holding(p, false, 60<<20, 51<<20)
			missed.keep(true)
			busy := l.holding(p, true, 60<<20, 51<<20)
			l.sleep(29 * time.Second)
			full.wantScopes()
			l.sleep(time.Second)
			want := func(f *fake, scopes ...string) {
				t.Helper()
				if mode != Enforce {
					scopes = nil
				}
				f.wantScopes(scopes...)
			}
			const released, refreshed = "release conn_memory done", "give up conn_memory refreshed"
			want(full, released)
			want(stuck, released, refreshed)
			want(pooled, released, "give up conn_memory done")
			want(missed, released, refreshed)
			want(busy, released, refreshed)
			busy.enter()
			l.sleep(30 * time.Second) // a pass over what has not moved
			light.wantScopes()
			full.wantScopes()
			want(stuck, released)
			pooled.wantScopes()
			want(missed, released)
			want(busy, "release conn_memory void")
			bytes := map[Mode]int64{Enforce: 1000, Observe: 60 << 20}[mode]
			if d := full.detail(); d.MemoryBytes != bytes {
				t.Errorf("%v: %d bytes, want %d", mode, d.MemoryBytes, bytes)
			}
			for _, f := range []*fake{full, stuck, light} {
				if r := f.in(); r != "" {
					t.Errorf("%v: check-in says %q", mode, r)
				}
				f.out("")
			}
			l.sleep(30 * time.Second)
			want(stuck, released, refreshed) // it has moved
			want(missed, released)
			busy.leave()
			s := p.Stats()
			if counted := map[Mode][2]uint64{Enforce: {4, 1}}[mode]; [2]uint64{s.Refreshed, s.Recycled} != counted || s.Expired != 0 {
				t.Errorf("%v: %d refreshed, %d recycled, want %v", mode, s.Refreshed, s.Recycled, counted)
			}
			for _, line := range l.told() {
				if mode != Enforce || !strings.HasSuffix(line, "conn_memory") {
					t.Errorf("%v: told %s", mode, line)
				}
			}
		})
	}
}

// leak_memory: a suspect once, with its bytes; below, given back or the limit
// off: recovered. Never reaped for it, in no mode.
func TestLeakMemory(t *testing.T) {
	for _, mode := range []Mode{Enforce, Observe, Basic} {
		inBubble(t, func(l *lab) {
			limit := limits(func(p *Policy) { p.LeakMemory = 100 << 20 })
			p := l.pool(mode, limit)
			f := l.holding(p, true, 100<<20+1, 100<<20+1)
			idle := l.holding(p, false, 200<<20, 200<<20)
			l.sleep(30 * time.Second)
			if mode == Basic {
				l.expect()
				return
			}
			l.mu.Lock()
			leak := l.events[len(l.events)-1].Leak
			l.mu.Unlock()
			if leak == nil || leak.Bytes != 100<<20+1 || leak.LimitBytes != 100<<20 || leak.Kind != KindConnection || !strings.Contains(leak.String(), "leak_memory") {
				t.Fatalf("leak: %v", leak)
			}
			l.expect("30s suspect connection leak_memory #1")
			f.touch()
			l.sleep(2 * time.Hour) // moving or not, once
			f.touch()
			l.sleep(time.Minute)
			l.expect()
			if n := l.Stats().LeakDetection.PotentiallyLeakedCount; n != 1 {
				t.Errorf("%d suspects", n)
			}
			f.hold(100 << 20)
			l.sleep(30 * time.Second)
			l.expect("2h2m0s recovered connection leak_memory #1")
			f.hold(101 << 20)
			l.sleep(30 * time.Second)
			f.in()
			f.out("")
			l.expect("2h2m30s suspect connection leak_memory #2", "2h2m30s recovered connection leak_memory #2")
			l.sleep(30 * time.Second)
			l.expect("2h3m0s suspect connection leak_memory #3")
			limit.LeakMemory, limit.ConnMemory = 0, 1<<50
			p.SetPolicy(limit)
			l.sleep(30 * time.Second)
			l.expect("2h3m30s recovered connection leak_memory #3")
			f.wantScopes()
			idle.wantScopes()
			checkBalance(t, l.Stats(), 0)
		})
	}
}

// A lease that is a suspect for something else stays that, and what was told of
// it does not change.
func TestLeakMemoryBesideAnotherReason(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakMemory, p.LeakAfter = 100, time.Minute }))
		f := l.holding(p, true, 50, 50)
		l.sleep(10 * time.Minute)
		f.mu.Lock()
		f.bytes = 200
		f.mu.Unlock()
		f.Word().Or(gate.Sharing) // asked, and not moved
		l.sleep(2 * time.Minute)
		if d := f.detail(); d.MemoryBytes != 200 {
			t.Fatalf("%+v", d)
		}
		events := l.typed(EventSuspect)
		if len(events) != 1 || events[0].Leak.Reason != ReasonLeakAfter || events[0].Leak.Bytes != 0 {
			t.Errorf("%v", events)
		}
		f.in()
		l.told()
		checkBalance(t, l.Stats(), 0)
	})
}

// An exempt lease is reported as such.
func TestLeakMemoryExempt(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.holding(l.pool(Enforce, limits(func(p *Policy) { p.LeakMemory = 1 })), false, 2, 2)
		f.out("import")
		l.sleep(30 * time.Second)
		events := l.typed(EventSuspect)
		if len(events) != 1 || events[0].Leak.Exempt != "import" {
			t.Errorf("%v", events)
		}
	})
}

// A connection that SQLite never came back from is left alone.
func TestMemoryOfLostConnections(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakMemory, p.ConnMemory, p.Pressure = 1, 1, 0.5 }))
		m := l.machine(10)
		f, other := l.holding(p, true, 5, 5), l.holding(p, true, 0, 0)
		other.touch()
		f.Lost()
		l.told()
		m.at(90)
		l.sleep(time.Minute)
		l.expect()
		f.wantScopes()
	})
}

// What the guard closed holds nothing, though its pool has not noticed.
func TestMemoryOfClosedHandles(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.ConnMemory, p.MaxIdle = 1<<40, time.Minute }))
		l.holding(p, true, 0, 0)
		f := l.holding(p, false, 9<<20, 0)
		l.sleep(30 * time.Second)
		if n := l.Stats().MemoryMonitoring.ConnectionMemoryBytes; n != 9<<20 {
			t.Fatalf("%d bytes", n)
		}
		l.sleep(2 * time.Minute)
		if n := l.Stats().MemoryMonitoring.ConnectionMemoryBytes; n != 0 {
			t.Errorf("%d bytes, closed", n)
		}
		if d := f.detail(); d.MemoryPeakBytes != 9<<20 {
			t.Errorf("%+v", d)
		}
		f.wantScopes("give up max_idle done") // and no release: it is closed
	})
}

// The history is bounded, and what a pass cannot know does not count as zero.
func TestMemoryHistory(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(40)
		p := l.pool(Observe, limits(func(p *Policy) { p.LeakMemory = 1 << 40 }))
		f := l.holding(p, true, 1<<20, 0)
		l.sleep(30 * time.Second)
		if h := l.MemoryHistory(); len(h) != 1 || h[0].SystemPercent != 40 || h[0].ProcessRSS != 200<<20 ||
			h[0].Connections != 1<<20 || h[0].Open != 1 || h[0].Leased != 1 || !h[0].Time.Equal(l.start.Add(30*time.Second)) {
			t.Errorf("%+v", h)
		}
		m.at(60)
		l.sleep(30 * time.Second)
		m.set(Memory{SQLite: 77})
		l.sleep(30 * time.Second)
		s := l.Stats().MemoryMonitoring
		want := MemoryMonitoring{AverageSystemMemoryPercent: 50, AverageProcessMemoryMB: 200, ConnectionMemoryBytes: 1 << 20, SQLiteMemoryBytes: 77}
		if !reflect.DeepEqual(s, want) {
			t.Errorf("%+v, want %+v", s, want)
		}
		m.at(80)
		l.sleep(90 * time.Minute)
		h := l.MemoryHistory()
		if len(h) != 120 || h[0].SystemPercent != 80 || h[119].Time.Sub(h[0].Time) != 119*30*time.Second {
			t.Errorf("%d points", len(h))
		}
		if s := l.Stats().MemoryMonitoring; math.Abs(s.AverageSystemMemoryPercent-80) > 1e-9 || s.SystemMemoryPercent != 80 || s.LimitedBy != "system" || len(s.Sources) != 2 {
			t.Errorf("%+v", s)
		}
		h[0].Open = 99
		if l.MemoryHistory()[0].Open == 99 {
			t.Error("the history is not a copy")
		}
		f.in()
	})
}

// Each source may be missing alone, and all together: the guard works, Stats
// says what, and there is at most one warning in a tracker's life, and none for
// what many systems do not have.
func TestMissingSources(t *testing.T) {
	const gone = "no such file or directory"
	for name, c := range map[string]struct {
		memory Memory
		none   bool // no source
		warns  string
	}{
		"no system":     {Memory{Total: 100, UsedPercent: 50, Sources: []MemorySource{{"system", gone}, {"cgroup", "ok"}}}, false, "the machine's memory cannot be read; system: " + gone},
		"no cgroup":     {Memory{Total: 100, UsedPercent: 50, Sources: []MemorySource{{"system", "ok"}, {"cgroup", gone}}}, false, ""},
		"no PSI":        {Memory{Total: 100, UsedPercent: 50, Sources: []MemorySource{{"system", "ok"}, {"cgroup pressure", gone}, {"system pressure", gone}}}, false, ""},
		"no SQLite":     {Memory{Total: 100, UsedPercent: 50, Sources: []MemorySource{{"system", "ok"}, {"sqlite", "this binary cannot tell"}}}, false, "SQLite does not tell what it uses; sqlite: this binary cannot tell"},
		"PSI alone":     {Memory{HasStall: true, Sources: []MemorySource{{"system", gone}, {"system pressure", "ok"}}}, false, "how much memory is used cannot be read, so the limit pressure has no effect; system: " + gone},
		"nothing":       {Memory{Sources: []MemorySource{{"system", gone}, {"cgroup", gone}}}, false, "how much memory is used cannot be read, so the limit pressure has no effect; system: " + gone + "; cgroup: " + gone},
		"nothing used":  {Memory{Total: 100, Sources: []MemorySource{{"system", "ok"}}}, false, ""},
		"without cgo":   {none: true},
		"not even that": {Memory{}, false, "how much memory is used cannot be read, so the limit pressure has no effect"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				var log box[[]string]
				logger := slog.New(handler(func(r slog.Record) {
					line := r.Message
					r.Attrs(func(a slog.Attr) bool {
						if a.Key == "reason" {
							line += ": " + a.Value.String()
						}
						return true
					})
					log.set(append(log.get(), line))
				}))
				p := newPool(t, l.Tracker, PoolConfig{Name: "db", Policy: limits(func(p *Policy) {
					p.Pressure, p.ConnMemory, p.LeakMemory, p.LeakAfter = 0.9, 1, 1, time.Hour
				}), Logger: logger})
				if !c.none {
					l.SetMemorySource(func() Memory { return c.memory })
				}
				f := l.open(p, true)
				f.shutGate(true) // SQLite does not tell, either
				l.sleep(2 * time.Minute)
				f.shutGate(false)
				l.sleep(3 * time.Hour)
				l.expect("1h0m0s suspect connection leak_after #1")
				var told []string
				for _, line := range log.get() {
					if !strings.Contains(line, "leak_after") {
						told = append(told, line)
					}
				}
				var want []string
				if c.warns != "" {
					want = []string{"memory monitor degraded: " + c.warns}
				}
				if !slices.Equal(told, want) {
					t.Errorf("warned\n%q, want\n%q", told, want)
				}
				if s := l.Stats().MemoryMonitoring; !reflect.DeepEqual(s.Sources, c.memory.Sources) || s.MemoryPressure {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// handler is a slog.Handler for warnings.
type handler func(slog.Record)

func (h handler) Enabled(_ context.Context, l slog.Level) bool  { return l >= slog.LevelWarn }
func (h handler) Handle(_ context.Context, r slog.Record) error { h(r); return nil }
func (h handler) WithAttrs([]slog.Attr) slog.Handler            { return h }
func (h handler) WithGroup(string) slog.Handler                 { return h }

// A source that panics or ends the goroutine is a source that is missing.
func TestMemorySourcePanics(t *testing.T) {
	inBubble(t, func(l *lab) {
		var n atomic.Int64
		l.SetMemorySource(func() Memory { n.Add(1); panic(errors.New("no")) })
		f := l.holding(l.pool(Enforce, limits(func(p *Policy) { p.ConnMemory = 1 })), true, 5, 0)
		l.sleep(time.Minute)
		if n.Load() != 2 || l.Stats().CallbackPanics != 2 {
			t.Errorf("asked %d times, %d panics counted", n.Load(), l.Stats().CallbackPanics)
		}
		f.wantScopes("release conn_memory done")
	})
}

// The program's source stays; nil leaves the connections'.
func TestMemorySourceOffered(t *testing.T) {
	inBubble(t, func(l *lab) {
		own, offered := new(machine), new(machine)
		l.OfferMemorySource(offered.read, nil)
		p := l.pool(Enforce, limits(func(p *Policy) { p.Pressure = 0.9 }))
		f := l.open(p, true)
		l.sleep(30 * time.Second)
		l.SetMemorySource(own.read)
		l.OfferMemorySource(offered.read, nil)
		l.sleep(30 * time.Second)
		l.SetMemorySource(nil)
		l.OfferMemorySource(offered.read, nil)
		l.sleep(30 * time.Second)
		if own.reads.Load() != 1 || offered.reads.Load() != 1 {
			t.Errorf("read %d and %d times", own.reads.Load(), offered.reads.Load())
		}
		f.in()
	})
}

// The monitor runs while there are connections and limits of memory, and no
// longer; a shorter interval wakes it.
func TestMonitorRests(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(10)
		passes := func(d time.Duration, want int64) {
			t.Helper()
			before := m.reads.Load()
			l.sleep(d)
			if n := m.reads.Load() - before; n != want {
				t.Errorf("at %v %d passes in %v, want %d", l.since(), n, d, want)
			}
		}
		on := limits(func(p *Policy) { p.Pressure = 0.9 })
		p := l.pool(Enforce, on)
		passes(time.Hour, 0)
		f := l.open(p, true)
		passes(time.Hour, 120)
		p.SetPolicy(limits(nil))
		passes(30*time.Second, 0) // finds nothing to do
		passes(time.Hour, 0)
		p.SetPolicy(on)
		passes(time.Minute, 2)
		on.MemoryInterval = time.Second
		p.SetPolicy(on)
		passes(time.Minute, 61)
		on.MemoryInterval = time.Hour
		p.SetPolicy(on)
		passes(59*time.Minute, 1)
		q := newPool(t, l.Tracker, PoolConfig{Name: "q", Mode: Basic, Policy: on, Logger: quiet})
		l.open(q, true)
		f.Close()
		l.fakes = l.fakes[1:]
		passes(5*time.Hour, 0) // basic is no reason
		if l.monitor.armed {
			t.Error("it has a timer")
		}
		g := l.open(p, true)
		passes(3*time.Hour, 3)
		g.in()
	})
}

// Two pools with different intervals: the shorter one decides, and only as long
// as it has connections.
func TestMonitorInterval(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(10)
		slow := limits(func(p *Policy) { p.Pressure, p.MemoryInterval = 0.9, time.Minute })
		fast := slow
		fast.MemoryInterval = 10 * time.Second
		a, b := l.pool(Enforce, slow), newPool(t, l.Tracker, PoolConfig{Name: "b", Policy: fast, Logger: quiet})
		l.open(a, true)
		l.sleep(5 * time.Second)
		f := newFake(l, b, true)
		l.sleep(time.Minute)
		if n := m.reads.Load(); n != 7 { // at once, and each ten seconds
			t.Errorf("%d passes, want 7", n)
		}
		f.Close()
		m.reads.Store(0)
		l.sleep(10 * time.Minute)
		if n := m.reads.Load(); n < 9 || n > 11 {
			t.Errorf("%d passes in ten minutes, want one a minute", n)
		}
	})
}

// A tracker of the process keeps its timers out of somebody's bubble.
func TestMonitorOutsideBubble(t *testing.T) {
	tr := New(Options{})
	m := new(machine)
	m.at(10)
	tr.SetMemorySource(m.read)
	p := newPool(t, tr, PoolConfig{Policy: limits(func(p *Policy) { p.Pressure, p.MemoryInterval = 0.9, time.Millisecond }), Logger: quiet})
	synctest.Test(t, func(t *testing.T) {
		c := p.Open(still{}, true, "")
		defer c.Close()
		time.Sleep(time.Hour)
		if n := m.reads.Load(); n != 0 {
			t.Errorf("%d passes for a bubble", n)
		}
	})
	c := p.Open(still{}, true, "")
	for deadline := time.Now().Add(10 * time.Second); m.reads.Load() < 3 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if m.reads.Load() < 3 {
		t.Error("no passes")
	}
	synctest.Test(t, func(t *testing.T) {
		p.SetPolicy(limits(func(p *Policy) { p.Pressure, p.MemoryInterval = 0.9, time.Millisecond }))
	})
	c.Close()
	p.Close()
	tr.Close()
	noReaper(t)
}

// churning is a connection without resources whose gate is a bit of the word.
type churning struct {
	*Conn
	still
	bytes atomic.Int64
	dead  atomic.Bool
}

func (k *churning) do(what func()) {
	k.Word().Or(gate.Busy)
	k.Record()
	what()
	k.Recorded()
	k.Word().Add(gate.Flags + 1 - gate.Busy)
}

func (k *churning) Memory() (int64, bool) { return k.bytes.Load(), k.Word().Load()&gate.Busy == 0 }

func (k *churning) Carry(o *Order) Outcome {
	switch {
	case k.Word().Load()&gate.Busy != 0:
		return Void
	case o.Scope == ScopeRelease:
		k.bytes.Store(k.bytes.Load() / 2) // that does not always help
		return Done
	case o.Scope == ScopeGiveUp && k.Leave():
		k.dead.Store(true)
		k.Recycled(o.Reason)
		return Done
	case o.Scope == ScopeGiveUp:
		k.Renewed(o.Reason)
		return Refreshed
	}
	return Void
}

// Under -race: everything at once.
func TestMonitorChurn(t *testing.T) {
	tr := New(Options{})
	m := new(machine)
	m.at(10)
	tr.SetMemorySource(m.read)
	var begun atomic.Int64 // pressure
	var over atomic.Bool   // it has begun ten times
	defer time.AfterFunc(time.Minute, func() { over.Store(true) }).Stop()
	cancel := tr.Subscribe(func(e Event) {
		if e.Pressure == nil {
			return
		}
		_ = e.Pressure.String()
		if e.Pressure.On && begun.Add(1) == 10 {
			over.Store(true)
		}
	})
	defer cancel()
	var pools []*Pool
	for i, mode := range []Mode{Enforce, Observe, Enforce} {
		pools = append(pools, newPool(t, tr, PoolConfig{Mode: mode, Logger: quiet, Policy: Policy{
			ConnMemory: 50, LeakMemory: 80, Pressure: 0.5 + 0.2*float64(i), LeakAfter: 3 * time.Millisecond, MaxIdle: 2 * time.Millisecond, MaxLifetime: 5 * time.Millisecond,
			CheckInterval: time.Millisecond, MemoryInterval: time.Millisecond,
		}}))
	}
	var work sync.WaitGroup
	for i := range 8 {
		work.Go(func() {
			p := pools[i%len(pools)]
			for n := int64(0); n < 200 || !over.Load(); n++ {
				k := new(churning)
				k.Conn = p.New(n%2 == 0, "")
				k.Register(k)
				for i := 0; i < 20 && !k.dead.Load(); i++ {
					k.do(func() { k.CheckOut("") })
					k.bytes.Store(n * 7 << 14 % (3 << 20))
					runtime.Gosched() // the monitor may come
					var r Reason
					k.do(func() { r = k.CheckIn() })
					if r != "" {
						k.Renewed(r)
					}
					runtime.Gosched() // it sits in the pool
				}
				k.Close()
				m.at(float64(n * 13 % 100))
			}
		})
	}
	work.Go(func() {
		for !over.Load() {
			for _, s := range []Stats{tr.Stats(), pools[0].Stats()} {
				if s.MemoryMonitoring.ConnectionMemoryBytes < 0 {
					t.Error("negative")
				}
			}
			tr.MemoryHistory()
			tr.Figures()
			policy := pools[1].Policy()
			policy.MemoryInterval = max(policy.MemoryInterval*2%(3*time.Millisecond), time.Millisecond)
			pools[1].SetPolicy(policy)
		}
	})
	work.Wait()
	for _, p := range pools {
		p.Close()
	}
	tr.Close()
	noReaper(t)
	if n := begun.Load(); n < 10 {
		t.Errorf("%d times under pressure", n)
	}
	if s := tr.Stats(); s.Refreshed == 0 || s.Recycled == 0 {
		t.Errorf("%d refreshed and %d recycled", s.Refreshed, s.Recycled)
	}
}

// What was released is given back to the machine: after each pass that released
// something, and twice when pressure begins, for handles close meanwhile.
func TestMemoryIsTrimmed(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := new(machine)
		m.at(10)
		var trims atomic.Int64
		l.OfferMemorySource(m.read, func() { trims.Add(1); panic("contained") })
		want := func(n int64) {
			t.Helper()
			l.sleep(30 * time.Second)
			if got := trims.Swap(0); got != n {
				t.Errorf("at %v trimmed %d times, want %d", l.since(), got, n)
			}
		}
		f := l.holding(l.pool(Enforce, pressed(func(p *Policy) { p.ConnMemory = 5 << 20 })), true, 4<<20, 100)
		o := l.holding(newPool(t, l.Tracker, PoolConfig{Mode: Observe, Policy: limits(func(p *Policy) { p.Pressure = 0.5 }), Logger: quiet}), true, 9<<20, 0)
		want(0)
		f.hold(6 << 20)
		want(1)
		want(0)
		m.at(60) // for who only observes
		want(0)
		m.at(90)
		want(1)
		want(1)
		want(0)
		f.hold(1<<20 + 101)
		want(1)
		f.hold(1 << 20)
		want(0)
		o.wantScopes()
	})
}

// inside is a Control of a connection that is inside SQLite: who asks it waits.
type inside struct {
	still
	t *testing.T
}

func (k inside) Memory() (int64, bool) { k.t.Error("asked while busy"); return 0, false }

// A pass over 100 connections, one of them busy, waits for nobody and is short.
func TestMonitorPassIsShort(t *testing.T) {
	tr := New(Options{})
	m := new(machine)
	m.at(10)
	tr.SetMemorySource(m.read)
	p := newPool(t, tr, PoolConfig{Policy: DefaultPolicy(), Logger: quiet})
	busy := p.New(true, "")
	busy.Word().Or(gate.Busy)
	busy.Register(inside{t: t})
	conns := []*Conn{busy}
	for range 99 {
		conns = append(conns, p.Open(roomy{}, true, ""))
	}
	best := time.Hour // the machine may have other things to do
	for range 5 {
		for _, c := range conns {
			c.Word().Add(gate.Flags + 1)
		}
		begin := time.Now()
		tr.monitor.look()
		best = min(best, time.Since(begin))
	}
	if best > 5*time.Millisecond {
		t.Errorf("a pass takes %v", best)
	}
	if n := tr.Stats().MemoryMonitoring.ConnectionMemoryBytes; n != 99<<20 {
		t.Errorf("%d bytes", n)
	}
	busy.Word().And(^uint64(gate.Busy))
	for _, c := range conns {
		c.Close()
	}
	p.Close()
}
