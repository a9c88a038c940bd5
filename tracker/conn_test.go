package tracker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

// Check-in has a reason for max_access, and for max_lifetime where no reaper looks.
// What a connection holds, and how long it rests, is not its business.
func TestCheckIn(t *testing.T) {
	for _, c := range []struct {
		name   string
		mode   Mode
		policy Policy
		leases int
		kept   bool
		age    time.Duration
		want   Reason
	}{
		{"fresh", Enforce, DefaultPolicy(), 1, false, 0, ""},
		{"below max_access", Enforce, limits(func(p *Policy) { p.MaxAccess = 3 }), 2, false, 0, ""},
		{"max_access", Enforce, limits(func(p *Policy) { p.MaxAccess = 3 }), 3, false, 0, ReasonMaxAccess},
		{"beyond max_access", Enforce, limits(func(p *Policy) { p.MaxAccess = 3 }), 9, false, 0, ReasonMaxAccess},
		{"max_access, close", Enforce, limits(func(p *Policy) { p.MaxAccess, p.Expire = 3, Close }), 3, false, 0, ReasonMaxAccess},
		{"max_access off", Enforce, limits(nil), 2000, false, 0, ""},
		{"max_access, basic", Basic, limits(func(p *Policy) { p.MaxAccess = 1 }), 1, false, 0, ReasonMaxAccess},
		{"max_access, observe", Observe, limits(func(p *Policy) { p.MaxAccess = 1 }), 5, false, 0, ""},
		{"old", Enforce, limits(func(p *Policy) { p.MaxLifetime = time.Hour }), 1, false, 2 * time.Hour, ""},
		{"old, close", Enforce, limits(func(p *Policy) { p.MaxLifetime, p.Expire = time.Hour, Close }), 1, false, 2 * time.Hour, ""},
		{"old, basic", Basic, limits(func(p *Policy) { p.MaxLifetime = time.Hour }), 1, false, time.Hour, ReasonMaxLifetime},
		{"max_access first", Basic, limits(func(p *Policy) { p.MaxAccess, p.MaxLifetime = 1, time.Hour }), 1, false, time.Hour, ReasonMaxAccess},
		{"not old, basic", Basic, limits(func(p *Policy) { p.MaxLifetime = time.Hour }), 1, false, 58 * time.Minute, ""},
		{"old and kept, basic", Basic, limits(func(p *Policy) { p.MaxLifetime = time.Hour }), 1, true, time.Hour, ReasonMaxLifetime}, // it is refreshed
		{"old, basic, off", Basic, limits(nil), 1, false, 24 * time.Hour, ""},
		{"old, observe", Observe, limits(func(p *Policy) { p.MaxLifetime = time.Hour }), 1, false, time.Hour, ""},
		{"idle, basic", Basic, limits(func(p *Policy) { p.MaxIdle, p.ConnMemory, p.Pressure = time.Minute, 1, 0.01 }), 1, false, time.Hour, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, New(Options{}), PoolConfig{Mode: c.mode, Policy: c.policy, Logger: quiet})
				conn := owned{p.Open(still{}, false, "")}
				defer conn.Close()
				if c.kept {
					conn.Keep("attached databases")
				}
				time.Sleep(c.age)
				var got Reason
				for range c.leases {
					conn.CheckOut("")
					got = conn.CheckIn()
				}
				if got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
				if got := conn.CheckIn(); got != "" {
					t.Errorf("a second check-in says %q", got)
				}
			})
		})
	}
}

// Accesses and lifetime count anew when the connection was refreshed, for whatever
// limit.
func TestCheckInAfterRenewed(t *testing.T) {
	for _, why := range []Reason{ReasonMaxAccess, ReasonMaxLifetime, ReasonMaxIdle, ReasonConnMemory, ReasonPressure} {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(t, New(Options{}), PoolConfig{Mode: Basic, Policy: limits(func(p *Policy) { p.MaxAccess, p.MaxLifetime = 3, time.Hour }), Logger: quiet})
			conn := owned{p.Open(still{}, false, "")}
			defer conn.Close()
			lease := func(want Reason) {
				t.Helper()
				conn.CheckOut("")
				if got := conn.CheckIn(); got != want {
					t.Errorf("%s: after %v and %d leases check-in says %q, want %q", why, p.Tracker().now(), conn.accesses, got, want)
				}
			}
			for range 3 {
				time.Sleep(time.Minute)
				lease("")
				lease("")
				lease(ReasonMaxAccess)
				lease(ReasonMaxAccess) // until it is refreshed
				conn.Renewed(why)
			}
			lease("")
			time.Sleep(58 * time.Minute)
			lease("")
			time.Sleep(2 * time.Minute)
			conn.Renewed(ReasonMaxAccess)
			time.Sleep(58 * time.Minute)
			lease("") // an hour after it was refreshed before, two after it was opened
			time.Sleep(2 * time.Minute)
			lease(ReasonMaxLifetime)
			conn.Renewed(why)
			lease("")
			if s := p.Stats(); s.Refreshed != 5 || s.Recycled != 0 || s.ActiveConnectionDetails[0].AccessCount != 17 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// New makes a record that nobody sees; Register tells of it.
func TestNewRegister(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := &fake{l: l, owned: owned{p.New(true, "import")}}
		f.begin("BEGIN", "")
		if len(p.Records()) != 0 || l.running() || p.Stats().Created != 0 || len(l.History()) != 0 {
			t.Error("a record that is not registered is seen")
		}
		f.Register(f)
		l.fakes = append(l.fakes, f)
		if r := p.Records(); len(r) != 1 || !r[0].Leased || r[0].Accesses != 1 || r[0].Exempt != "import" || r[0].ConnectionID != "db#1" || r[0].TransactionLevel != 1 {
			t.Errorf("%+v", r)
		}
		l.until(time.Hour)
		l.expect("5m0s suspect transaction leak_after #1")
		if h := l.History(); len(h) != 2 || h[0].Type != EventOpened || h[0].ConnectionID != "db#1" {
			t.Errorf("%+v", h)
		}
	})
}

func TestConnIDs(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "a", Mode: Basic, Logger: quiet})
	q := newPool(t, tr, PoolConfig{Name: "b", Mode: Basic, Logger: quiet})
	c := p.Open(still{}, true, "")
	d := q.Open(still{}, true, "")
	if c.ID() != "a#1" || d.ID() != "b#2" || c.Pool() != p || d.Pool() != q {
		t.Errorf("%s and %s", c.ID(), d.ID())
	}
	var rows, again, stmt Resource
	if rows.ID() != 0 {
		t.Error("rows that were never opened have an id")
	}
	c.OpenRows(&rows, "SELECT 1", "")
	tx := c.BeginTx("BEGIN", "")
	c.OpenStatement(&stmt, "SELECT 2", "")
	c.OpenRows(&again, "SELECT 1", "")
	// The lease is a resource too.
	if rows.ID() != 2 || tx != 3 || stmt.ID() != 4 || again.ID() != 5 {
		t.Errorf("ids %d %d %d %d", rows.ID(), tx, stmt.ID(), again.ID())
	}
	c.CloseResource(&rows)
	c.CloseResource(&rows)
	c.CloseResource(&stmt)
	c.CloseResource(&stmt)
	if r := p.Records()[0]; r.OpenRows != 1 || r.OpenStatements != 0 || rows.ID() != 0 || again.ID() != 5 {
		t.Errorf("%+v", r)
	}
	c.OpenRows(&rows, "SELECT 3", "")
	if rows.ID() != 6 {
		t.Errorf("used again: %d", rows.ID())
	}
	c.CloseResource(&rows)
	c.CloseResource(&again)
	c.EndTx()
	c.EndTx()
	c.Close()
	c.Close()
	d.Close()
	if s := tr.Stats(); s.TotalConnections != 0 || s.Created != 2 || s.LeakedDetected != 0 {
		t.Errorf("%+v", s)
	}
	closed := 0
	for _, e := range tr.History() {
		if e.Type == EventClosed {
			closed++
		}
	}
	if closed != 2 {
		t.Errorf("told of %d closed connections", closed)
	}
}

// The intrusive list behaves as a slice would.
func TestList(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var l list
	var model []*Resource
	for range 5000 {
		if len(model) == 0 || rng.IntN(20) > len(model) {
			r := &Resource{}
			l.add(r)
			model = append(model, r)
		} else {
			i := rng.IntN(len(model))
			l.remove(model[i])
			if model[i].next != nil || model[i].prev != nil {
				t.Fatal("a removed resource keeps others alive")
			}
			model = slices.Delete(model, i, i+1)
		}
		var got []*Resource
		var prev *Resource
		for r := l.head; r != nil; prev, r = r, r.next {
			if r.prev != prev {
				t.Fatal("prev does not lead back")
			}
			got = append(got, r)
		}
		slices.Reverse(got)
		if !slices.Equal(got, model) || l.n != len(model) {
			t.Fatalf("%d in the list, n is %d, want %d", len(got), l.n, len(model))
		}
	}
}

func TestKeep(t *testing.T) {
	p := newPool(t, New(Options{}), PoolConfig{Mode: Basic, Logger: quiet})
	c, raw := p.Open(still{}, true, ""), p.Open(still{}, true, "")
	defer c.Close()
	defer raw.Close()
	if c.KeptBecause() != "" {
		t.Error(c.KeptBecause())
	}
	c.Keep("attached databases")
	c.Keep("temp objects")
	c.HandedOut()
	if c.KeptBecause() != "attached databases" {
		t.Error(c.KeptBecause())
	}
	raw.HandedOut()
	raw.CheckIn()
	if raw.KeptBecause() != "the raw connection was handed out" {
		t.Error(raw.KeptBecause())
	}
	if d := p.Stats().ActiveConnectionDetails[0]; d.Kept != "attached databases" {
		t.Errorf("%+v", d)
	}
	raw.CheckOut("")
	raw.mu.Lock()
	defer raw.mu.Unlock()
	if raw.raw {
		t.Error("the next lease is raw too")
	}
}

func TestRecycled(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Basic, DefaultPolicy())
		f := l.open(p, true)
		for _, r := range []Reason{ReasonMaxLifetime, ReasonMaxIdle, ReasonMaxAccess} {
			f.Recycled(r)
		}
		f.ForceClosed()
		l.expect("0s recycled max_lifetime", "0s recycled max_idle", "0s recycled max_access")
		if s := p.Stats(); s.Expired != 2 || s.Recycled != 3 || s.ForceClosed != 1 || s.Refreshed != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// What is refreshed is neither expired nor recycled.
func TestRenewed(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Basic, DefaultPolicy())
		f := l.open(p, true)
		for _, r := range []Reason{ReasonMaxLifetime, ReasonMaxIdle, ReasonMaxAccess, ReasonMaxIdle} {
			f.Renewed(r)
		}
		l.expect("0s refreshed max_lifetime", "0s refreshed max_idle", "0s refreshed max_access", "0s refreshed max_idle")
		before := Stats{Refreshed: 1}
		for who, s := range map[string]Stats{"pool": p.Stats(), "tracker": l.Stats()} {
			if s.Refreshed != 4 || s.Expired != 0 || s.Recycled != 0 || s.ForceClosed != 0 || s.Sub(before).Refreshed != 3 {
				t.Errorf("%s: %+v", who, s)
			}
		}
		want := []ReasonCount{{ReasonMaxAccess, 1}, {ReasonMaxIdle, 2}, {ReasonMaxLifetime, 1}}
		if got := l.Figures().Pools[0]; !slices.Equal(got.Refreshed, want) || len(got.Recycled) != 0 {
			t.Errorf("refreshed %v, recycled %v; want %v and none", got.Refreshed, got.Recycled, want)
		}
	})
}

// A call that never came back is reported once, and nobody touches the
// connection any more.
func TestLost(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.LeakAfter, p.TxTimeout, p.MaxIdle, p.CheckInterval = mins, mins, mins, mins }))
		l.open(p, false) // keeps the reaper
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.query("SELECT panics()", "")
		f.enter()
		f.Lost()
		f.Lost()
		f.CheckIn()
		f.Lost()
		f.Pending()
		l.until(time.Hour)
		l.expect("0s suspect connection panic #1")
		f.expectOrders()
		if len(f.nudges) != 0 {
			t.Error("nudged")
		}
		leak := l.History()[2].Leak
		if leak.Kept != "a call never came back from SQLite" || leak.Query != "SELECT panics()" || leak.Resource != 1 {
			t.Errorf("%+v", leak)
		}
		if s := p.Stats(); s.LeakedDetected != 1 || s.LeakDetection.RecentLeakAlerts != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// There is nothing that the reaper could do for a lost connection: with no
// other left it ends.
func TestLostEndsReaper(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, DefaultPolicy())
		f, g := l.open(p, true), l.open(p, true)
		f.Lost()
		if !l.running() {
			t.Error("the reaper ended with a connection left")
		}
		g.Lost()
		g.Lost()
		if l.running() {
			t.Error("the reaper runs for lost connections")
		}
		if err := p.SetPolicy(leakAfter(mins)); err != nil || l.running() {
			t.Error("SetPolicy started it again", err)
		}
		f.Close()
		h := l.open(p, true)
		if !l.running() {
			t.Error("a new connection did not start it again")
		}
		g.Close()
		if !l.running() {
			t.Error("the end of a lost connection ended it")
		}
		h.Close()
		if l.running() {
			t.Error("it runs without connections")
		}
	})
}

// A lost connection is one that is potentially leaked, until it is given up.
func TestLostIsSuspect(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, DefaultPolicy())
		f := l.open(p, true)
		f.enter()
		f.Lost()
		if s := p.Stats(); s.LeakDetection.PotentiallyLeakedCount != 1 || !s.ActiveConnectionDetails[0].PotentiallyLeaked {
			t.Errorf("%+v", s.LeakDetection)
		}
		checkBalance(t, p.Stats(), 1)
	})
}

func TestProven(t *testing.T) {
	t.Run("news", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, leakAfter(5*mins))
			var leaks []Leak
			l.OnLeak(func(leak Leak) { leaks = append(leaks, leak) })
			f := l.open(p, true)
			r := f.query("SELECT 1", "")
			l.sleep(10 * sec)
			f.Proven(r, true)
			f.finish(r)
			f.Proven(r, true) // closed: nothing to prove
			f.in()
			l.until(time.Hour)
			l.expect("10s proven rows proven #1", "10s reaped rows proven #1")
			if len(leaks) != 1 || leaks[0].Reason != ReasonProven || leaks[0].Query != "SELECT 1" || leaks[0].Age != 10*sec || leaks[0].Limit != 0 {
				t.Errorf("OnLeak: %+v", leaks)
			}
			if s := p.Stats(); s.LeakedDetected != 1 || s.Proven != 1 || s.Reaped != 1 || s.Recovered != 0 || s.LeakDetection.RecentLeakAlerts != 1 {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("covers its lease", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, leakAfter(5*mins))
			f := l.open(p, true)
			l.sleep(10 * sec)
			r := f.query("SELECT 1", "")
			f.Proven(r, true) // before any check saw it
			f.CloseResource(r)
			l.until(time.Hour)
			l.expect("10s proven rows proven #1", "10s reaped rows proven #1")
			f.touch()
			l.until(2 * time.Hour)
			l.expect("1h6m0s suspect connection leak_after #2")
		})
	})
	t.Run("suspect before", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Observe, leakAfter(5*mins))
			var leaks []Leak
			l.OnLeak(func(leak Leak) { leaks = append(leaks, leak) })
			f := l.open(p, true)
			r := f.query("SELECT 1", "")
			l.until(6 * mins)
			f.Proven(r, true)
			f.finish(r)
			l.expect("6m0s suspect rows leak_after #1", "6m0s proven rows proven #1", "6m0s reaped rows proven #1")
			if len(leaks) != 1 || leaks[0].Reason != ReasonLeakAfter {
				t.Errorf("OnLeak: %+v", leaks)
			}
			// One leak, one alert.
			if s := p.Stats(); s.LeakedDetected != 1 || s.Proven != 1 || s.Reaped != 1 || s.LeakDetection.RecentLeakAlerts != 1 {
				t.Errorf("%+v", s)
			}
			checkBalance(t, p.Stats(), 0)
		})
	})
	t.Run("not undone", func(t *testing.T) {
		inBubble(t, func(l *lab) {
			p := l.pool(Enforce, leakAfter(5*mins))
			f := l.open(p, true)
			r := f.query("SELECT 1", "")
			f.Proven(r, false)
			l.until(time.Hour)
			l.expect("0s proven rows proven #1")
			f.expectOrders()
			if n := p.Stats().LeakDetection.PotentiallyLeakedCount; n != 1 {
				t.Errorf("%d potentially leaked", n)
			}
		})
	})
}

// Leaks of several connections, found and proven in whatever order: OnLeak has
// each exactly once.
func TestOnLeakOncePerLeak(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		seen := make(map[uint64]int)
		l.OnLeak(func(leak Leak) { seen[leak.ID]++ })
		var fakes []*fake
		var rows []*Resource
		for range 4 {
			f := l.open(p, true)
			f.carry(func(*Order) Outcome { return Void })
			fakes = append(fakes, f)
			rows = append(rows, f.query("SELECT 1", ""))
		}
		// Another leak is proven between the decision on the first four and the
		// moment they are told.
		late := l.open(p, true)
		stolen := late.query("SELECT 2", "")
		once := true
		l.AddDetector(func(r Record) Reason {
			if l.since() > 5*mins && once {
				once = false
				late.Proven(stolen, true)
				late.finish(stolen)
			}
			return ""
		})
		for l.since() < 6*mins+30*sec {
			l.sleep(50 * sec)
			late.touch()
		}
		for i := len(fakes) - 1; i >= 0; i-- { // proven in another order than found
			fakes[i].Proven(rows[i], true)
			fakes[i].finish(rows[i])
		}
		l.until(time.Hour)
		if len(seen) < 5 {
			t.Errorf("OnLeak saw %v", seen)
		}
		for id, n := range seen {
			if n != 1 {
				t.Errorf("leak %d: %d times", id, n)
			}
		}
		if s := p.Stats(); uint64(len(seen)) != s.LeakedDetected {
			t.Errorf("OnLeak saw %d of %d leaks", len(seen), s.LeakedDetected)
		}
	})
}

// Settle counts what an order's end means, also if the connection and its pool
// are gone by then.
func TestSettleAfterClose(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		f.query("SELECT 1", "")
		var closing sync.WaitGroup
		f.carry(func(o *Order) Outcome {
			out := f.drive(o)
			f.Close() // as the owner may, before the reaper is back
			closing.Go(p.Close)
			time.Sleep(sec)
			return out
		})
		l.until(8 * mins)
		closing.Wait()
		l.expect("6m0s suspect rows leak_after #1", "7m1s reaped rows leak_after #1")
		if s := l.Stats(); s.LeakedDetected != 1 || s.Reaped != 1 {
			t.Errorf("in all %d leaks found, %d reaped", s.LeakedDetected, s.Reaped)
		}
	})
}

// No leak is left over when its connection closes.
func TestCloseSettlesAll(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(func(p *Policy) { p.LeakAfter, p.MaxStatements = mins, 2 }))
		f := l.open(p, true)
		f.begin("BEGIN", "")
		f.query("SELECT 1", "")
		f.prepare("SELECT 2")
		f.prepare("SELECT 2")
		l.until(5 * mins)
		if s := p.Stats(); s.LeakedDetected != 3 {
			t.Errorf("%d leaks", s.LeakedDetected)
		}
		f.Close() // without closing rows and statements first, as after Lost
		checkBalance(t, p.Stats(), 0)
	})
}

// Many goroutines work on their own connections while everybody reads.
func TestConcurrentUse(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Logger: quiet, Policy: limits(func(p *Policy) { p.LeakAfter, p.MaxStatements = time.Millisecond, 2 })})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			c := owned{p.Open(still{}, true, "")}
			var rows, stmt, more Resource
			for j := range 300 {
				c.Word().Add(gate.Flags + 1)
				c.BeginTx("BEGIN", "")
				c.SetLevel(2)
				c.OpenStatement(&stmt, "SELECT 1", "")
				c.OpenStatement(&more, "SELECT 1", "")
				c.OpenRows(&rows, "SELECT 1", "")
				c.Executing("SELECT 2")
				if j%10 == 0 {
					c.Pending()
				}
				c.CloseResource(&rows)
				c.CloseResource(&stmt)
				c.CloseResource(&more)
				c.EndTx()
				c.CheckIn()
				c.CheckOut("")
			}
			if i == 0 {
				c.Lost()
			}
			c.Close()
		})
		wg.Go(func() {
			for range 100 {
				tr.Stats()
				p.Records()
				tr.History()
				c := p.Open(still{}, false, "")
				c.Keep(fmt.Sprint(i))
				c.ReportKept(fmt.Sprint(i))
				c.Close()
			}
		})
	}
	wg.Wait()
	p.Close()
	if s := tr.Stats(); s.Created != 808 || s.Reused != 8*300 || s.TotalConnections != 0 {
		t.Errorf("%+v", s)
	}
}
