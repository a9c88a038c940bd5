package tracker

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

func pressed(change func(p *Policy)) Policy {
	return limits(func(p *Policy) {
		p.Pressure = 0.85
		if change != nil {
			change(p)
		}
	})
}

// crossings returns the events of pressure, one a line: "1m30s db on 86 of 85".
func (l *lab) crossings() (lines []string) {
	for _, e := range l.typed(EventPressure) {
		p := e.Pressure
		state := "off"
		if p.On {
			state = "on"
		}
		line := fmt.Sprintf("%v %s %s %g of %.0f", e.Time.Sub(l.start), e.Pool, state, p.UsedPercent, p.Limit)
		if p.Stall > 0 {
			line += fmt.Sprintf(" stalled %g", p.Stall)
		}
		if p.Released > 0 || p.Closed > 0 {
			line += fmt.Sprintf(" released %d closed %d with %d", p.Released, p.Closed, p.ClosedBytes)
		}
		lines = append(lines, line)
	}
	return lines
}

func (l *lab) expectCrossings(want ...string) {
	l.t.Helper()
	if got := l.crossings(); !slices.Equal(got, want) {
		l.t.Errorf("at %v crossed\n\t%s\nwant\n\t%s", l.since(), strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func (l *lab) underPressure() bool { return l.Stats().MemoryMonitoring.MemoryPressure }

// The whole of it: one beginning, one end, idle connections closed once, the
// order of the steps, and the figures.
func TestPressure(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(84)
		p := l.pool(Enforce, pressed(nil))
		light, heavy := l.holding(p, true, 3<<20, 1<<20), l.holding(p, true, 30<<20, 2<<20)
		var idle []*fake
		for i := range 3 {
			idle = append(idle, l.holding(p, false, int64(i+1)<<20, 1000))
		}
		pooled := l.holding(p, false, 5<<20, 5<<20)
		pooled.begin("BEGIN", "") // sits in the pool with an open transaction
		busy, shut := l.holding(p, true, 7<<20, 0), l.holding(p, false, 7<<20, 0)
		l.sleep(30 * time.Second)
		busy.enter()
		shut.shutGate(true)
		l.expectCrossings()
		m.at(86)
		l.sleep(30 * time.Second)
		l.expectCrossings("1m0s db on 86 of 85 released 37745736 closed 3 with 3000")
		if want := int64(2<<20 + 28<<20 + 1<<20 + 2<<20 + 3<<20 - 3000); want != 37745736 {
			t.Errorf("want %d", want)
		}
		light.wantScopes("release pressure done")
		heavy.wantScopes("release pressure done")
		for _, f := range idle {
			f.wantScopes("release pressure done", "give up pressure done")
		}
		pooled.wantScopes("release pressure done")
		busy.wantScopes("release pressure void")
		shut.wantScopes("release pressure void", "give up pressure void")
		if s := l.Stats(); !s.MemoryMonitoring.MemoryPressure || s.MemoryMonitoring.PressureEventsCount != 1 || s.AggressiveCleanups != 1 || s.ForceClosed != 3 || s.Recycled != 3 || s.Expired != 0 {
			t.Errorf("%+v", s)
		}
		if s := p.Stats(); !s.MemoryMonitoring.MemoryPressure || s.MemoryMonitoring.PressureEventsCount != 1 || s.AggressiveCleanups != 1 {
			t.Errorf("of the pool: %+v", s)
		}
		m.at(83)
		light.in() // no connection that became idle later is closed
		l.sleep(30 * time.Second)
		m.at(90)
		l.sleep(time.Minute)
		m.at(80)
		l.sleep(30 * time.Second)
		light.wantScopes()
		for _, f := range idle {
			f.wantScopes()
		}
		if r := heavy.in(); r != "" || !l.underPressure() {
			t.Errorf("while it lasts: %q", r)
		}
		heavy.out("")
		m.at(79)
		l.sleep(30 * time.Second)
		if r := heavy.in(); r != "" || l.underPressure() {
			t.Errorf("afterwards: %q", r)
		}
		m.at(84)
		l.sleep(time.Hour)
		l.expectCrossings("1m0s db on 86 of 85 released 37745736 closed 3 with 3000", "3m30s db off 79 of 85")
		if s := l.Stats(); s.MemoryMonitoring.PressureEventsCount != 1 || s.AggressiveCleanups != 1 || s.ForceClosed != 3 {
			t.Errorf("%+v", s)
		}
		busy.leave()
		shut.shutGate(false)
		pooled.commit()
	})
}

// Exactly at the limit it begins, exactly at the lower one it lasts.
func TestPressureLimits(t *testing.T) {
	for _, c := range []struct {
		limit, below, begins, lasts, ends float64
	}{
		{0.85, 84.99, 85, 80, 79.99}, {1, 99.99, 100, 95, 94.9}, {0.04, 3.99, 4, 2, 1.99}, {0.06, 5.99, 6, 3, 2.99},
	} {
		inBubble(t, func(l *lab) {
			m := l.machine(c.below)
			l.open(l.pool(Enforce, limits(func(p *Policy) { p.Pressure = c.limit })), true)
			for i, used := range []float64{c.below, c.begins, c.lasts, c.ends, c.lasts} {
				m.at(used)
				l.sleep(30 * time.Second)
				if on := i == 1 || i == 2; l.underPressure() != on {
					t.Errorf("limit %g: at %g under pressure: %v", c.limit, used, !on)
				}
			}
		})
	}
}

// Tasks that wait for memory are pressure at any share in use, with or without a
// figure of that; and where much is always in use, a short stall does not last.
func TestPressureStall(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(82)
		stall := func(s float64) {
			now := m.get()
			now.Stall, now.HasStall = s, true
			m.set(now)
			l.sleep(30 * time.Second)
		}
		f := l.holding(l.pool(Enforce, pressed(nil)), true, 5<<20, 0)
		stall(9.9)
		l.expectCrossings()
		stall(10)
		stall(5)
		stall(4.9)
		m.set(Memory{})
		stall(12)
		stall(3)
		l.expectCrossings("1m0s db on 82 of 85 stalled 10 released 5242880 closed 0 with 0", "2m0s db off 82 of 85 stalled 4.9",
			"2m30s db on 0 of 85 stalled 12", "3m0s db off 0 of 85 stalled 3")
		f.wantScopes("release pressure done", "release pressure done")
	})
}

// A reading that fails says nothing; three in a row end what it had found.
func TestPressureReadingFails(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(90)
		l.open(l.pool(Enforce, pressed(nil)), true)
		l.sleep(30 * time.Second)
		m.set(Memory{})
		l.sleep(time.Minute)
		m.at(84)
		l.sleep(30 * time.Second)
		l.expectCrossings("30s db on 90 of 85")
		m.set(Memory{HasStall: true})
		l.sleep(time.Minute)
		l.expectCrossings("30s db on 90 of 85")
		l.sleep(30 * time.Second)
		l.expectCrossings("30s db on 90 of 85", "3m30s db off 0 of 85")
		m.set(Memory{Stall: 50, HasStall: true})
		l.sleep(30 * time.Second)
		m.at(10)
		l.sleep(time.Minute)
		if !l.underPressure() {
			t.Error("over with the second reading without stalls")
		}
		l.sleep(30 * time.Second)
		if l.underPressure() {
			t.Error("lasts without any reading of stalls")
		}
	})
}

// Each pool takes part by its own limit, and not at all with none.
func TestPressureOfSeveralPools(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(50)
		fs := make(map[string]*fake)
		for name, limit := range map[string]float64{"low": 0.6, "also low": 0.6, "high": 0.9, "none": 0} {
			p := newPool(t, l.Tracker, PoolConfig{Name: name, Logger: quiet, Policy: limits(func(p *Policy) { p.Pressure, p.ConnMemory = limit, 1<<40 })})
			fs[name] = l.holding(p, false, 3<<20, 2<<20)
		}
		l.sleep(30 * time.Second)
		m.at(70)
		l.sleep(30 * time.Second)
		fs["low"].wantScopes("release pressure done", "give up pressure done")
		fs["also low"].wantScopes("release pressure done", "give up pressure done")
		fs["high"].wantScopes()
		for name, on := range map[string]bool{"low": true, "also low": true, "high": false, "none": false} {
			s := fs[name].Pool().Stats()
			if want := uint64(len(map[bool][]int{true: {1}}[on])); s.MemoryMonitoring.MemoryPressure != on || s.AggressiveCleanups != want || s.MemoryMonitoring.PressureEventsCount != want {
				t.Errorf("%s: %+v", name, s.MemoryMonitoring)
			}
		}
		if s := l.Stats(); s.AggressiveCleanups != 1 || s.MemoryMonitoring.PressureEventsCount != 1 {
			t.Errorf("%+v", s)
		}
		later := l.holding(fs["low"].Pool(), false, 3<<20, 1<<20) // its pool's crossing is over
		m.at(95)
		l.sleep(30 * time.Second)
		later.wantScopes("release pressure done")
		fs["high"].wantScopes("release pressure done", "give up pressure done")
		fs["none"].wantScopes()
		m.at(75)
		l.sleep(30 * time.Second)
		if !l.underPressure() || fs["high"].Pool().Stats().MemoryMonitoring.MemoryPressure {
			t.Error("75 %")
		}
		m.at(10)
		l.sleep(30 * time.Second)
		fs["none"].wantScopes()
		l.expectCrossings("1m0s also low on 70 of 60 released 2097152 closed 2 with 4194304",
			"1m30s high on 95 of 90 released 1048576 closed 1 with 2097152",
			"2m0s high off 75 of 90", "2m30s also low off 10 of 60")
	})
}

// Limits that change and pools that go while it lasts: each beginning has its end.
func TestPressureEnds(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(90)
		p := l.pool(Enforce, pressed(nil))
		f := l.holding(p, true, 9<<20, 9<<20)
		l.sleep(30 * time.Second)
		p.SetPolicy(limits(func(p *Policy) { p.ConnMemory = 1 << 40 }))
		l.sleep(30 * time.Second)
		if r := f.in(); r != "" {
			t.Errorf("recycled for %q by a limit that is off", r)
		}
		q := newPool(t, l.Tracker, PoolConfig{Name: "q", Policy: pressed(nil), Logger: quiet})
		g := newFake(l, q, true)
		l.sleep(30 * time.Second)
		q.Close()
		g.Close()
		l.sleep(30 * time.Second)
		l.expectCrossings("30s db on 90 of 85", "1m0s db off 90 of 0", "1m30s q on 90 of 85", "2m0s db off 90 of 0")
		if l.underPressure() {
			t.Error("lasts")
		}
		m.at(10)
	})
}

// Observe reports and does nothing; basic does not even look.
func TestPressureModes(t *testing.T) {
	for mode, want := range map[Mode][]string{Observe: {"30s db on 90 of 85"}, Basic: nil, Off: nil} {
		inBubble(t, func(l *lab) {
			m := l.machine(90)
			p := l.pool(mode, pressed(nil))
			f, g := l.holding(p, false, 9<<20, 9<<20), l.holding(p, true, 9<<20, 9<<20)
			l.sleep(time.Minute)
			if r := g.in(); r != "" {
				t.Errorf("%v: recycled for %q", mode, r)
			}
			f.wantScopes()
			g.wantScopes()
			l.expectCrossings(want...)
			if s := l.Stats(); s.AggressiveCleanups != 0 || s.ForceClosed != 0 || s.MemoryMonitoring.PressureEventsCount != uint64(len(want)) {
				t.Errorf("%v: %+v", mode, s)
			}
			if mode != Observe && m.reads.Load() != 0 {
				t.Errorf("%v: the monitor runs", mode)
			}
		})
	}
	inBubble(t, func(l *lab) { // beside a pool that needs the monitor
		m := l.machine(90)
		l.open(l.pool(Enforce, pressed(nil)), true)
		f := l.holding(newPool(t, l.Tracker, PoolConfig{Name: "basic", Mode: Basic, Policy: pressed(func(p *Policy) { p.ConnMemory, p.LeakMemory = 1, 1 }), Logger: quiet}), false, 9<<20, 9<<20)
		l.sleep(time.Minute)
		f.wantScopes()
		f.out("")
		if r := f.in(); r != "" || f.detail().MemoryBytes != 0 || m.reads.Load() == 0 {
			t.Errorf("%q, %+v", r, f.detail())
		}
	})
}

// A connection that was opened for the pool's stock and never leased may have
// been handed to somebody who waits: it is not closed.
func TestPressureSparesFreshConnections(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.machine(90)
		f := l.open(l.pool(Enforce, pressed(nil)), false)
		l.sleep(time.Minute)
		f.wantScopes("release pressure done")
	})
}

// What is refreshed is not counted as closed.
func TestPressureRefreshes(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.machine(90)
		p := l.pool(Enforce, pressed(nil))
		missed, other := l.holding(p, false, 4<<20, 0), l.holding(p, false, 2<<20, 1000)
		missed.keep(true)
		l.sleep(30 * time.Second)
		missed.wantScopes("release pressure done", "give up pressure refreshed")
		other.wantScopes("release pressure done", "give up pressure done")
		l.expectCrossings("30s db on 90 of 85 released 6290456 closed 1 with 1000")
		l.expect("30s refreshed pressure", "30s recycled pressure")
		if s := l.Stats(); s.ForceClosed != 1 || s.Recycled != 1 || s.Refreshed != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// The crossing is told behind the giving up, which may take its time, with what
// that closed; the monitor does not wait for it.
func TestPressureToldBehindGivingUp(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(90)
		p := l.pool(Enforce, pressed(nil))
		slow, other := l.holding(p, false, 3<<20, 2<<20), l.holding(p, false, 3<<20, 2<<20)
		drive := slow.answer
		slow.carry(func(o *Order) Outcome {
			if o.Scope == ScopeGiveUp {
				time.Sleep(10 * time.Second) // a file system
			}
			return drive(o)
		})
		l.sleep(39 * time.Second)
		l.expectCrossings()
		if !l.underPressure() || l.Stats().AggressiveCleanups != 1 {
			t.Error("the response has not begun")
		}
		other.wantScopes("release pressure done")
		l.sleep(time.Second)
		l.expectCrossings("40s db on 90 of 85 released 2097152 closed 2 with 4194304")
		if n := m.reads.Load(); n != 1 {
			t.Errorf("%d passes in 40 seconds", n)
		}
	})
}

// Crossings are told in their order, however long the giving up takes.
func TestPressureToldInOrder(t *testing.T) {
	inBubble(t, func(l *lab) {
		m := l.machine(90)
		f := l.holding(l.pool(Enforce, pressed(nil)), false, 3<<20, 1<<20)
		drive := f.answer
		f.carry(func(o *Order) Outcome {
			if o.Scope == ScopeGiveUp {
				time.Sleep(2 * time.Minute)
			}
			return drive(o)
		})
		l.sleep(45 * time.Second)
		m.at(10)
		l.sleep(30 * time.Second) // it is over, and the first is not told yet
		m.at(95)
		l.sleep(30 * time.Second)
		l.expectCrossings()
		if !l.underPressure() || m.reads.Load() != 3 {
			t.Errorf("%d passes in 105 seconds, under pressure: %v", m.reads.Load(), l.underPressure())
		}
		l.sleep(time.Hour)
		if got := l.crossings(); len(got) != 3 || !strings.Contains(got[0], " on 90 ") || !strings.Contains(got[1], " off 10 ") || !strings.Contains(got[2], " on 95 ") {
			t.Errorf("crossed\n\t%s", strings.Join(got, "\n\t"))
		}
	})
}

// While it lasts, what holds more than a megabyte is released again at each pass,
// and given up if that does not help: in the pool only, and not again while it does
// not move.
func TestPressureLasts(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.machine(90)
		p := l.pool(Enforce, pressed(nil))
		light, heavy, helped := l.holding(p, true, 2<<20, 1<<20), l.holding(p, true, 9<<20, 2<<20), l.holding(p, true, 9<<20, 2<<20)
		l.sleep(30 * time.Second)
		const released, refreshed, closed = "release pressure done", "give up pressure refreshed", "give up pressure done"
		for _, f := range []*fake{light, heavy, helped} {
			f.wantScopes(released)
		}
		l.sleep(30 * time.Second)
		light.wantScopes()
		heavy.wantScopes(released) // leased: it is left alone
		helped.hold(9 << 20)
		helped.carry(func(o *Order) Outcome {
			helped.mu.Lock()
			defer helped.mu.Unlock()
			helped.bytes = 1 << 20
			return Done
		})
		for _, f := range []*fake{light, heavy, helped} {
			f.in()
		}
		heavy.keep(true)
		heavy.scopes()
		helped.scopes()
		l.sleep(30 * time.Second)
		light.wantScopes()
		heavy.wantScopes(released, refreshed)
		helped.wantScopes(released) // that was enough
		l.sleep(30 * time.Second)
		heavy.wantScopes(released) // it has not moved
		heavy.touch()
		l.sleep(30 * time.Second)
		heavy.wantScopes(released, refreshed)
		heavy.touch()
		heavy.keep(false)
		l.sleep(30 * time.Second)
		heavy.wantScopes(released, closed)
		l.sleep(30 * time.Second)
		heavy.wantScopes()
		if s := p.Stats(); s.Refreshed != 2 || s.Recycled != 1 || s.AggressiveCleanups != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// What was refreshed when it began is not given up again at the next pass, unless it
// has moved.
func TestPressureGivesUpOnce(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.machine(90)
		p := l.pool(Enforce, pressed(nil))
		f := l.holding(p, false, 9<<20, 2<<20)
		f.keep(true)
		l.sleep(30 * time.Second)
		f.wantScopes("release pressure done", "give up pressure refreshed")
		l.sleep(30 * time.Second)
		f.wantScopes("release pressure done")
		f.touch()
		l.sleep(30 * time.Second)
		f.wantScopes("release pressure done", "give up pressure refreshed")
	})
}

// An order that met a gate that was taken comes again at the next pass: what a
// connection holds must not depend on one moment.
func TestGivingUpForMemoryComesAgain(t *testing.T) {
	for reason, policy := range map[Reason]Policy{
		ReasonConnMemory: limits(func(p *Policy) { p.ConnMemory = 1 << 20 }),
		ReasonPressure:   pressed(nil),
	} {
		inBubble(t, func(l *lab) {
			l.machine(90)
			p := l.pool(Enforce, policy)
			f := l.holding(p, false, 9<<20, 2<<20)
			drive := f.answer
			var taken atomic.Bool
			taken.Store(true)
			f.carry(func(o *Order) Outcome {
				if o.Scope == ScopeGiveUp && taken.Load() {
					return Void
				}
				return drive(o)
			})
			released, gaveUp := "release "+string(reason)+" done", "give up "+string(reason)
			l.sleep(30 * time.Second)
			f.wantScopes(released, gaveUp+" void")
			l.sleep(30 * time.Second)
			f.wantScopes(released, gaveUp+" void")
			taken.Store(false)
			l.sleep(30 * time.Second)
			f.wantScopes(released, gaveUp+" done")
			l.sleep(30 * time.Second)
			f.wantScopes()
		})
	}
}

// Under permanent pressure a light workload meets nothing at all: no order, no
// refusal, no lock more than otherwise.
func TestPressureCostsLightWorkNothing(t *testing.T) {
	inBubble(t, func(l *lab) {
		l.machine(95)
		p := l.pool(Enforce, pressed(nil))
		f := l.holding(p, true, 1<<20, 1<<20)
		l.sleep(30 * time.Second)
		f.wantScopes("release pressure done")
		for range 10000 {
			if r := f.in(); r != "" {
				t.Fatalf("recycled for %q", r)
			}
			f.out("")
			l.sleep(time.Second)
		}
		f.wantScopes()
		l.expectCrossings("30s db on 95 of 85")
		l.expect()
		if s := p.Stats(); s.Refreshed != 0 || s.Recycled != 0 {
			t.Errorf("%d refreshed, %d recycled", s.Refreshed, s.Recycled)
		}
	})
}

func TestPressureText(t *testing.T) {
	p := Pressure{On: true, UsedPercent: 86.04, Limit: 85, Released: 3 << 20, Closed: 1, ClosedBytes: 1000}
	if got, want := p.String(), "memory pressure: 86.0 % used (pressure 85 %): released 3.0 MiB, closed 1 idle connection that held 1000 B"; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	p = Pressure{UsedPercent: 79, Stall: 2}
	if got, want := p.String(), "memory pressure is over: 79.0 % used, stalled for 2.0 %"; got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

// A light workload's check-ins, with pressure and without.
func BenchmarkCheckInUnderPressure(b *testing.B) {
	for _, used := range []float64{10, 95} {
		b.Run(fmt.Sprintf("used=%g", used), func(b *testing.B) {
			tr := New(Options{})
			m := new(machine)
			m.at(used)
			tr.SetMemorySource(m.read)
			c := newPool(b, tr, PoolConfig{Policy: pressed(func(p *Policy) { p.MemoryInterval = 30 * time.Second }), Logger: quiet, NoStacks: true}).Open(still{}, true, "")
			defer c.Close()
			tr.monitor.look()
			if tr.Stats().MemoryMonitoring.MemoryPressure != (used > 85) {
				b.Fatal("pressure")
			}
			for b.Loop() {
				c.Record()
				c.CheckIn()
				c.CheckOut("")
				c.Recorded()
			}
		})
	}
}

// roomy is a Control of a connection at rest.
type roomy struct{ still }

func (roomy) Memory() (int64, bool) { return 1 << 20, true }

// A full pass of the monitor over idle connections: all of them moved, or none.
func BenchmarkMonitorPass(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		for _, moved := range []bool{false, true} {
			b.Run(fmt.Sprintf("conns=%d/moved=%v", n, moved), func(b *testing.B) {
				tr := New(Options{})
				m := new(machine)
				m.at(10)
				tr.SetMemorySource(m.read)
				p := newPool(b, tr, PoolConfig{Policy: DefaultPolicy(), Logger: quiet, NoStacks: true})
				var conns []*Conn
				for range n {
					conns = append(conns, p.Open(roomy{}, false, ""))
				}
				for b.Loop() {
					if moved {
						for _, c := range conns {
							c.Word().Add(gate.Flags + 1)
						}
					}
					tr.monitor.look()
				}
				for _, c := range conns {
					c.Close()
				}
				p.Close()
			})
		}
	}
}
