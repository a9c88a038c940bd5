package tracker

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func setMode(t testing.TB, p *Pool, m Mode) {
	t.Helper()
	if err := p.SetMode(m); err != nil || p.Mode() != m {
		t.Fatalf("mode %v: %v, mode %v", m, err, p.Mode())
	}
}

func TestSetModeErrors(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Logger: quiet})
	for _, c := range []struct {
		m    Mode
		want string
	}{
		{Off, "tracker: mode off cannot be set while the program runs, for what is open stays under the guard: want observe, which undoes nothing, enforce or basic"},
		{9, "tracker: mode is Mode(9): want enforce, observe or basic"},
	} {
		if err := p.SetMode(c.m); err == nil || err.Error() != c.want {
			t.Errorf("%v: %v, want %s", c.m, err, c.want)
		}
	}
	off := newPool(t, tr, PoolConfig{Name: "off", Mode: Off, Logger: quiet})
	if err := off.SetMode(Enforce); err == nil || !strings.Contains(err.Error(), "cannot be left") || off.Mode() != Off {
		t.Errorf("off: %v, %v", err, off.Mode())
	}
	if p.Mode() != Enforce || len(tr.History()) != 0 {
		t.Errorf("mode %v, %v", p.Mode(), tr.History())
	}
}

// In observe and basic nothing is undone, and back in enforce what is forgotten is
// found, with the age that it has by then.
func TestSetModeAndBack(t *testing.T) {
	for _, m := range []Mode{Observe, Basic} {
		t.Run(m.String(), func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, leakAfter(5*mins))
				f := l.open(p, true)
				f.query("SELECT 1", "")
				l.sleep(time.Minute)
				setMode(t, p, m)
				l.sleep(time.Hour + 7*time.Second)
				if m == Observe {
					l.expect("6m0s suspect rows leak_after #1")
				} else {
					l.expect()
				}
				f.expectOrders()
				setMode(t, p, Enforce)
				if m == Basic {
					l.sleep(2 * time.Minute) // found, and found again
				} // else it is known, and undone at once
				told := strings.Join(l.told(), "\n")
				if !strings.Contains(told, "reaped rows leak_after #1") {
					t.Errorf("told %s", told)
				}
				if given := f.given(); len(given) != 1 || given[0].out != Done {
					t.Errorf("ordered %v", given)
				}
				checkBalance(t, p.Stats(), 0)
			})
		})
	}
}

// A connection that was opened in basic is watched from the change on.
func TestSetModeOfBasicPool(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Basic, leakAfter(5*mins))
		f := l.open(p, true)
		f.query("SELECT 1", "")
		l.sleep(time.Hour)
		if l.running() {
			t.Error("a reaper in basic")
		}
		setMode(t, p, Observe)
		l.sleep(time.Minute)
		l.expect() // its age begins with the first look
		l.sleep(6 * time.Minute)
		if told := l.told(); len(told) != 1 || !strings.Contains(told[0], "suspect rows leak_after #1") {
			t.Errorf("told %q", told)
		}
	})
}

// What somebody works on while nobody looks is not taken for forgotten afterwards.
func TestSetModeAccusesNobody(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, leakAfter(5*mins))
		f := l.open(p, true)
		r := f.query("SELECT 1", "")
		l.sleep(time.Minute)
		setMode(t, p, Basic)
		l.sleep(time.Hour)
		f.next(r)
		setMode(t, p, Enforce)
		l.sleep(4 * time.Minute)
		l.expect()
		f.expectOrders()
	})
}

// The change comes while one order is being carried out and another one waits: the
// first is finished, and the second is void and comes again in enforce.
func TestSetModeWhileOrdersAreUnderWay(t *testing.T) {
	for _, m := range []Mode{Observe, Basic} {
		t.Run(m.String(), func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, leakAfter(5*mins))
				first, second := l.open(p, true), l.open(p, true)
				entered, goOn := make(chan struct{}), make(chan struct{})
				var once sync.Once
				for _, f := range []*fake{first, second} {
					f.query("SELECT 1", "")
					f.carry(func(o *Order) Outcome {
						once.Do(func() { close(entered); <-goOn })
						return f.drive(o)
					})
				}
				<-entered // time passes
				setMode(t, p, m)
				close(goOn)
				l.sleep(time.Hour)
				if n := len(first.given()) + len(second.given()); n != 1 {
					t.Errorf("%d orders were carried out, want the one that was under way", n)
				}
				if s := p.Stats(); s.Reaped != 1 || s.LeakedDetected != 2 {
					t.Errorf("%d of %d reaped", s.Reaped, s.LeakedDetected)
				}
				setMode(t, p, Enforce)
				l.sleep(2 * time.Minute)
				if s := p.Stats(); s.Reaped != 2 || s.LeakedDetected != 2 {
					t.Errorf("back in enforce %d of %d reaped", s.Reaped, s.LeakedDetected)
				}
			})
		})
	}
}

// An idle connection is not given up in observe, whoever asked for it before.
func TestSetModeKeepsConnections(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, limits(func(p *Policy) { p.ConnMemory = 1 }))
		f := l.open(p, true)
		f.in()
		setMode(t, p, Observe)
		l.giveUp([]*Conn{f.Conn}, ReasonConnMemory)
		f.expectOrders()
		setMode(t, p, Enforce)
		l.giveUp([]*Conn{f.Conn}, ReasonConnMemory)
		f.expectOrders("0s give up conn_memory done")
	})
}

// Logs are measured for whom the reaper looks at, and the counts come back to
// nothing however modes are changed meanwhile.
func TestSetModeKeepsCounts(t *testing.T) {
	tr := New(Options{})
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		p := newPool(t, tr, PoolConfig{Name: "db", Mode: Mode(random.IntN(3)), Logger: quiet})
		var open []*Conn
		for range 40 {
			switch n := random.IntN(4); {
			case n == 0 || len(open) == 0:
				c := p.New(true, "")
				c.OpenedFile(File{Path: "/db"})
				c.Register(still{})
				open = append(open, c)
			case n == 1:
				i := random.IntN(len(open))
				open[i].Close()
				open = slices.Delete(open, i, i+1)
			case n == 2:
				open[random.IntN(len(open))].Lost()
			default:
				setMode(t, p, Mode(random.IntN(3)))
			}
			tr.mu.Lock()
			watched, blind := 0, 0
			for _, c := range open {
				if c.unwatched || !p.watched() {
					blind++
				}
				if p.watched() {
					watched++
				}
			}
			for _, w := range tr.wals.list {
				if w.watched != watched || w.blind != blind {
					t.Fatalf("%d watched and %d blind, want %d and %d", w.watched, w.blind, watched, blind)
				}
			}
			tr.mu.Unlock()
		}
		for _, c := range open {
			c.Close()
		}
		p.Close()
		tr.mu.Lock()
		if tr.watched != 0 || len(tr.wals.list) != 0 {
			t.Fatalf("%d watched, %d logs", tr.watched, len(tr.wals.list))
		}
		tr.mu.Unlock()
	}
	tr.Close()
}

// Leases begin and end, are forgotten and reaped, while the mode changes all the time.
func TestSetModeRace(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Policy: limits(func(p *Policy) {
		p.LeakAfter, p.MaxIdle, p.CheckInterval = time.Millisecond, time.Millisecond, time.Millisecond
	}), Logger: quiet})
	l := &lab{t: t, Tracker: tr, start: time.Now()}
	stop := make(chan struct{})
	var changer, owners sync.WaitGroup
	changer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				p.SetMode(Mode(i % 3))
				p.Settings()
			}
		}
	})
	for range 4 {
		owners.Go(func() {
			for range 300 {
				f := newFake(l, p, false)
				f.out("")
				r := f.query("SELECT 1", "")
				f.touch()
				f.mu.Lock()
				dead := f.dead
				f.mu.Unlock()
				if !dead && !f.closed(r) {
					f.touch()
				}
				f.in()
				f.Close()
			}
		})
	}
	owners.Wait()
	close(stop)
	changer.Wait()
	p.Close()
	tr.Close()
	checkBalance(t, tr.Stats(), 0)
}

// Changes are events, and the log has them without a logger that takes all.
func TestSetModeIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		p := newPool(t, tr, PoolConfig{Name: "db", Logger: quiet})
		setMode(t, p, Observe)
		setMode(t, p, Observe)
		p.Close()
		var told []string
		for _, e := range tr.History() {
			told = append(told, e.Type.String()+" "+string(e.Reason))
		}
		if !slices.Equal(told, []string{"changed pool db: mode observe, it was enforce"}) {
			t.Errorf("told %q", told)
		}
		if e := tr.History()[0]; !e.logged() {
			t.Error("not logged")
		}
	})
}
