package tracker

import (
	"slices"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Giving connections up for a limit. The fake closes what sits in the pool unless
// keep was called, and refreshes everything else.

func TestMaxIdle(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = 5 * mins }))
		fresh, used := l.open(p, false), l.open(p, true)
		used.touch()
		used.in()
		word := used.Word().Load() &^ gate.Flags
		l.until(6*mins - 1)
		l.expect()
		l.until(24 * time.Hour)
		l.expect("6m0s recycled max_idle")
		orders := used.given()
		if len(orders) != 1 || orders[0].String() != "6m0s give up max_idle done" || orders[0].o.Word != word || len(orders[0].o.Leaks) != 0 {
			t.Errorf("ordered %+v", orders)
		}
		fresh.expectOrders() // database/sql may have handed it to somebody
		if s := p.Stats(); s.Expired != 1 || s.Recycled != 1 || s.Refreshed != 0 || s.ForceClosed != 1 || s.LeakedDetected != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// An order that found the gate taken is given again at the next check: max_idle
// must not depend on one moment.
func TestMaxIdleComesAgain(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = 5 * mins }))
		f := l.open(p, true)
		f.in()
		f.shutGate(true) // another connection of a shared cache is busy
		l.until(6*mins + 1)
		f.expectOrders("6m0s give up max_idle void")
		f.shutGate(false)
		l.until(7*mins + 1)
		f.expectOrders("7m0s give up max_idle done")
	})
}

// The next check is that of its pool, also if nothing else is due for long.
func TestMaxIdleComesAgainSoon(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = 4 * sec }))
		f := l.open(p, true)
		l.sleep(500 * time.Millisecond)
		f.in()
		f.shutGate(true)
		l.until(5500 * time.Millisecond)
		f.expectOrders("5s give up max_idle void")
		f.shutGate(false)
		l.until(mins)
		f.expectOrders("6s give up max_idle done")
	})
}

// A connection that a program could miss is refreshed once for each time that it
// idles.
func TestMaxIdleRefreshes(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = 5 * mins }))
		var fakes []*fake
		for range 3 {
			f := l.open(p, true)
			f.keep(true)
			fakes = append(fakes, f)
		}
		l.sleep(10 * sec)
		for _, f := range fakes {
			f.in()
		}
		l.until(24 * time.Hour)
		l.expect("6m0s refreshed max_idle", "6m0s refreshed max_idle", "6m0s refreshed max_idle")
		for _, f := range fakes {
			f.expectOrders("6m0s give up max_idle refreshed")
		}
		// It moved and idles again.
		fakes[0].out("")
		fakes[0].in()
		l.until(48 * time.Hour)
		l.expect("24h6m0s refreshed max_idle")
		fakes[0].expectOrders("24h6m0s give up max_idle refreshed")
		for _, f := range fakes[1:] {
			f.expectOrders()
		}
		if s := p.Stats(); s.Refreshed != 4 || s.Recycled != 0 || s.Expired != 0 || s.ForceClosed != 0 || s.TotalConnections != 3 {
			t.Errorf("%+v", s)
		}
	})
}

// What is kept for good is told of once for each pool, and refreshed all the same.
func TestMaxIdleKept(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle = 5 * mins }))
		for range 2 {
			f := l.open(p, true)
			f.keep(true)
			f.carry(func(o *Order) Outcome {
				f.ReportKept("in-memory database")
				return f.drive(o)
			})
		}
		l.sleep(10 * sec)
		for _, f := range l.fakes {
			f.in()
		}
		l.until(time.Hour)
		got := l.told()
		slices.Sort(got)
		if want := []string{"6m0s kept in-memory database", "6m0s refreshed max_idle", "6m0s refreshed max_idle"}; !slices.Equal(got, want) {
			t.Errorf("told %q, want %q", got, want)
		}
	})
}

func TestMaxLifetime(t *testing.T) {
	expiring := limits(func(p *Policy) { p.MaxLifetime = 30 * mins })
	t.Run("idle", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, expiring)
			a, b := l.open(p, true), l.open(p, true)
			a.live(0.025) // 29m15s
			b.live(0)
			a.in()
			b.in()
			word := a.Word().Load() &^ gate.Flags
			l.until(29*mins + 15*sec - 1)
			a.expectOrders()
			l.until(29*mins + 16*sec)
			orders := a.given()
			if len(orders) != 1 || orders[0].String() != "29m15s give up max_lifetime done" || orders[0].o.Word != word {
				t.Errorf("ordered %+v", orders)
			}
			l.expect("29m15s recycled max_lifetime")
			l.until(2 * time.Hour) // all at their time: nothing is rationed
			b.expectOrders("30m0s give up max_lifetime done")
			if s := p.Stats(); s.Expired != 2 || s.Recycled != 2 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("leased", func(t *testing.T) { // at work, and refreshed when its gate is free; check-in has no reason
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, expiring)
			f := l.open(p, true)
			f.live(0)
			for l.since() < 29*mins {
				l.sleep(mins)
				f.touch()
			}
			l.sleep(30 * sec)
			f.enter()
			l.until(31*mins + 30*sec)
			if got := f.scopes(); !slices.Equal(got, []string{"give up max_lifetime void", "give up max_lifetime void"}) {
				t.Errorf("busy: ordered %q", got)
			}
			f.leave()
			l.until(32 * mins)
			f.expectOrders("32m0s give up max_lifetime refreshed")
			l.expect("32m0s refreshed max_lifetime")
			if r := f.in(); r != "" {
				t.Errorf("check-in says %q", r)
			}
			f.out("")
		})
	})
	t.Run("anew after each refresh", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, expiring)
			f := l.open(p, true)
			f.live(0)
			for l.since() < 100*mins {
				l.sleep(mins)
				f.touch()
			}
			// Seen to be refreshed a minute after it was.
			f.expectOrders("30m0s give up max_lifetime refreshed", "1h1m0s give up max_lifetime refreshed", "1h32m0s give up max_lifetime refreshed")
			if s := p.Stats(); s.Refreshed != 3 || s.ActiveConnectionDetails[0].Age != 6000 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("anew after a refresh for another limit", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, expiring), true)
			f.live(0)
			l.until(20*mins + 30*sec)
			f.touch()
			f.Renewed(ReasonMaxAccess) // noticed at 21m
			l.until(51*mins - 1)
			f.expectOrders()
			l.until(51 * mins)
			f.expectOrders("51m0s give up max_lifetime refreshed")
		})
	})
	t.Run("once for each time that it idles", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, expiring), true)
			f.live(0)
			f.keep(true)
			f.in()
			l.until(24 * time.Hour)
			f.expectOrders("30m0s give up max_lifetime refreshed")
		})
	})
	t.Run("in a transaction", func(t *testing.T) { // never closed
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, expiring), true)
			f.live(0)
			l.until(29*mins + 50*sec)
			f.begin("BEGIN", "")
			f.in()
			l.until(2 * time.Hour)
			f.expectOrders("30m0s give up max_lifetime refreshed")
		})
	})
	t.Run("opened later", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, expiring)
			l.open(p, false)
			l.until(10*mins + 10*sec)
			f := l.open(p, true)
			f.live(0)
			f.in()
			l.until(2 * time.Hour)
			f.expectOrders("40m10s give up max_lifetime done")
		})
	})
	for name, policy := range map[string]Policy{
		"off":    limits(nil),
		"raised": limits(func(p *Policy) { p.MaxLifetime = 2 * time.Hour }),
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, expiring)
				f := l.open(p, true)
				f.in()
				f.shutGate(true)
				l.until(31*mins + 30*sec)
				f.given()
				if err := p.SetPolicy(policy); err != nil {
					t.Fatal(err)
				}
				f.shutGate(false)
				l.sleep(time.Hour)
				f.expectOrders() // although it was due before
			})
		})
	}
}

// A lease is not covered by what happens to its connection: one that is forgotten
// is found, refreshed or not.
func TestRefreshedLeaseIsStillFound(t *testing.T) {
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.MaxLifetime = 5*mins, 30*mins })), true)
		f.live(0)
		for l.since() < 27*mins {
			l.sleep(mins)
			f.touch()
		}
		l.until(24 * time.Hour)
		f.expectOrders("30m0s give up max_lifetime refreshed", "33m0s release leak_after done")
		l.expect("30m0s refreshed max_lifetime", "33m0s suspect connection leak_after #1")
	})
}

// With several limits the one that says most about the connection counts, and one
// refresh is enough.
func TestGiveUpForSeveralLimits(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle, p.MaxLifetime, p.MaxAccess, p.Expire = 5*mins, 5*mins, 1, Close }))
		f := l.open(p, true)
		f.live(0)
		f.keep(true)
		f.shutGate(true) // until all three have passed
		f.in()
		l.until(7*mins - 1)
		f.given()
		f.shutGate(false)
		l.until(24 * time.Hour)
		f.expectOrders("7m0s give up max_idle refreshed")
	})
	inBubble(t, func(l *lab) { // the idle time of one that is used now and then never makes it old
		p := l.pool(Enforce, limits(func(p *Policy) { p.MaxIdle, p.MaxLifetime = 5*mins, 30*mins }))
		f := l.open(p, true)
		f.live(0)
		f.keep(true)
		f.in()
		for range 20 {
			l.sleep(10 * mins)
			f.out("")
			f.in()
		}
		for _, c := range f.given() {
			if c.o.Reason != ReasonMaxIdle {
				t.Errorf("ordered %v", c)
			}
		}
		if n := p.Stats().Refreshed; n != 20 {
			t.Errorf("%d times refreshed in 20 times idling", n)
		}
	})
}

// max_access is check-in's, but where connections are closed for it: that the
// reaper sees to, in the pool.
func TestMaxAccess(t *testing.T) {
	three := func(e Expiry) Policy { return limits(func(p *Policy) { p.MaxAccess, p.Expire = 3, e }) }
	lease := func(f *fake, times int) (r Reason) {
		for range times {
			f.out("")
			r = f.in()
		}
		return r
	}
	t.Run("refresh", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, three(Refresh)), false)
			if r := lease(f, 5); r != ReasonMaxAccess {
				t.Errorf("check-in says %q", r)
			}
			l.until(time.Hour)
			f.expectOrders()
		})
	})
	t.Run("close", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, three(Close))
			below, f := l.open(p, false), l.open(p, false)
			lease(below, 2)
			lease(f, 3)
			l.until(time.Hour)
			f.expectOrders("1m0s give up max_access done")
			below.expectOrders()
			if s := p.Stats(); s.Recycled != 1 || s.Expired != 0 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("close, but it must not be", func(t *testing.T) { // counting begins anew
		inBubble(t, func(l *lab) {
			f := l.open(l.pool(Enforce, three(Close)), false)
			f.keep(true)
			lease(f, 10)
			l.until(time.Hour)
			f.expectOrders("1m0s give up max_access refreshed")
			lease(f, 2)
			l.until(2 * time.Hour)
			f.expectOrders()
			lease(f, 1)
			l.until(3 * time.Hour)
			f.expectOrders("2h1m0s give up max_access refreshed")
		})
	})
	t.Run("set to close at run time", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, three(Refresh))
			f := l.open(p, false)
			lease(f, 3)
			l.until(30*mins + 30*sec)
			f.expectOrders()
			if err := p.SetPolicy(three(Close)); err != nil {
				t.Fatal(err)
			}
			f.expectOrders("30m30s give up max_access done")
		})
	})
}

// What the guard has closed is not given up again: not the one whose pool has not
// noticed, nor the one whose holder has not let go, however it moves.
func TestGiveUpNothingThatIsClosed(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.MaxIdle, p.MaxLifetime = 5*mins, 5*mins, 30*mins }))
		reaped, idle := l.open(p, true), l.open(p, true)
		reaped.query("SELECT 1", "")
		idle.in()
		l.until(10 * mins)
		reaped.wantScopes("lease leak_after done")
		idle.wantScopes("give up max_idle done")
		for l.since() < 2*time.Hour {
			l.sleep(30 * sec)
			reaped.touch() // fails
			idle.touch()
		}
		reaped.expectOrders()
		idle.expectOrders()
	})
}

// Nothing is given up by a pool that only observes, or that has no reaper.
func TestGiveUpOnlyIfEnforced(t *testing.T) {
	for _, mode := range []Mode{Observe, Basic} {
		inBubble(t, func(l *lab) {
			l.open(newPool(t, l.Tracker, PoolConfig{Name: "other", Policy: limits(nil), Logger: quiet}), true) // keeps the reaper
			p := l.pool(mode, limits(func(p *Policy) { p.MaxIdle, p.MaxLifetime, p.MaxAccess, p.Expire = mins, mins, 1, Close }))
			f, g := l.open(p, true), l.open(p, true)
			f.in()
			for range 60 {
				l.sleep(mins)
				g.touch()
			}
			f.expectOrders()
			g.expectOrders()
			l.expect()
		})
	}
}
