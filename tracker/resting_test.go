package tracker

import (
	"fmt"
	"testing"
	"time"
)

func reportAfter(d time.Duration) Policy { return limits(func(p *Policy) { p.ReportAfter = d }) }

// resting returns what was told of leases that rest.
func (l *lab) resting() (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Type == EventResting {
			text := fmt.Sprintf("%v %s %s %v", e.Time.Sub(l.start), e.ConnectionID, e.Leak.Kind, e.level())
			for _, w := range e.Waiters {
				text += " before " + w.ConnectionID
			}
			all = append(all, text)
		}
	}
	return all
}

func (l *lab) wantResting(want ...string) {
	l.t.Helper()
	if got := l.resting(); fmt.Sprint(got) != fmt.Sprint(want) {
		l.t.Errorf("at %v told of %q, want %q", l.since(), got, want)
	}
}

// A lease that rests is told of once, as what it holds; it is no leak, nothing is
// undone, and after it has moved it is told of again.
func TestResting(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, reportAfter(30*sec))
		f, held, rows := l.open(p, true), l.open(p, true), l.open(p, true)
		f.begin("BEGIN", "")
		rows.query("SELECT 1", "")
		idle := l.open(p, true)
		idle.in() // rests where it may
		l.until(29 * sec)
		l.wantResting()
		l.until(35 * sec)
		if got := l.resting(); len(got) != 3 {
			t.Errorf("told of %q, want three", got)
		}
		l.until(10 * mins)
		if got := l.resting(); len(got) != 3 {
			t.Errorf("told of %q, want each once", got)
		}
		if s := l.Stats(); s.LeakedDetected != 0 || s.Reaped != 0 {
			t.Errorf("%d leaks, %d undone", s.LeakedDetected, s.Reaped)
		}
		if n := len(l.LeakHistory()); n != 0 {
			t.Errorf("%d in the history of leaks", n)
		}
		f.expectOrders()
		f.touch()
		l.until(10*mins + 40*sec)
		if got := l.resting(); len(got) != 4 || got[3][len(got[3])-len("transaction INFO"):] != "transaction INFO" {
			t.Errorf("told of %q, want the transaction again", got)
		}
		held.touch()
	})
}

// A running statement does not rest, however long it runs; nor does work.
func TestRestingIsNotBusy(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, reportAfter(30*sec))
		busy, works := l.open(p, true), l.open(p, true)
		busy.begin("BEGIN", "")
		busy.enter()
		works.begin("BEGIN", "")
		for range 60 {
			l.sleep(10 * sec)
			works.touch()
		}
		l.wantResting()
		busy.leave()
	})
}

// Where somebody waits for a lock behind it, five seconds suffice, and it is a warning.
func TestRestingInTheWay(t *testing.T) {
	file := File{Path: "/a.db"}
	for _, c := range []struct {
		name   string
		waits  time.Duration // when somebody comes to wait
		exempt string
		other  bool // for another file
		want   []string
	}{
		{name: "from the start", waits: sec, want: []string{"WARN"}},
		{name: "later", waits: 20 * sec, want: []string{"WARN"}},
		{name: "after it was told", waits: 40 * sec, want: []string{"INFO", "WARN"}},
		{name: "exempt", waits: 10 * sec, exempt: "import", want: []string{"INFO"}},
		{name: "for another file", waits: sec, other: true, want: []string{"INFO"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := l.pool(Enforce, reportAfter(30*sec))
				theirs := file
				if c.other {
					theirs = File{Path: "/b.db"}
				}
				f, w := l.on(p, file).with(nil), l.on(p, theirs).with(nil)
				f.out("")
				w.out("")
				f.begin("BEGIN IMMEDIATE", c.exempt)
				l.sleep(c.waits)
				w.waits(true)
				w.enter()
				began := l.since()
				l.sleep(mins)
				got := l.resting()
				var levels []string
				for _, e := range l.History() {
					if e.Type == EventResting && e.ConnectionID == f.ID() {
						levels = append(levels, e.level().String())
						if d := e.Time.Sub(l.start); e.level() >= 4 && d > max(began, 0)+8*sec {
							t.Errorf("told at %v, the wait began at %v", d, began)
						}
					}
				}
				if fmt.Sprint(levels) != fmt.Sprint(c.want) {
					t.Errorf("told %q, want %q: %q", levels, c.want, got)
				}
				w.waits(false)
				w.leave()
			})
		})
	}
}

// The guard looks each 2.5 s to tell of what rests. What is undone is undone no sooner
// for that: a suspect rests on for a check_interval first, also where it is one of many
// rows of a connection that moves.
func TestLooksForRestUndoNothingSooner(t *testing.T) {
	at := func(l *lab, typ EventType, kind Kind) (d time.Duration) {
		l.t.Helper()
		for _, e := range l.LeakHistory() {
			if e.Type == typ && e.Leak.Kind == kind {
				return e.Time.Sub(l.start)
			}
		}
		l.t.Fatalf("at %v: no %v of %v", l.since(), typ, kind)
		return 0
	}
	check := func(l *lab, kind Kind) {
		l.t.Helper()
		found, undone := at(l, EventSuspect, kind), at(l, EventReaped, kind)
		if found < 5*mins || found > 5*mins+10*sec {
			l.t.Errorf("%v: a suspect after %v", kind, found)
		}
		if d := undone - found; d < mins || d > mins+10*sec {
			l.t.Errorf("%v: undone %v after it was found, want a minute", kind, d)
		}
	}
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, DefaultPolicy()), true)
		f.begin("BEGIN", "")
		l.until(8 * mins)
		check(l, KindTransaction)
	})
	inBubble(t, func(l *lab) {
		f := l.open(l.pool(Enforce, DefaultPolicy()), true)
		left := f.query("SELECT left", "")
		for l.since() < 8*mins {
			f.touch()
			l.sleep(sec)
		}
		check(l, KindRows)
		if !f.closed(left) && left.ID() != 0 {
			f.finish(left)
		}
	})
}
