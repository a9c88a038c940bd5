package tracker

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func (f *fake) says(s TxState) {
	f.mu.Lock()
	f.state = s
	f.mu.Unlock()
}

// ids are the connections of suspects, in their order.
func ids(all []Suspect) string {
	var out []string
	for _, s := range all {
		out = append(out, s.ConnectionID)
	}
	return strings.Join(out, " ")
}

// Who keeps others waiting comes first, then the write lock, then the WAL, then age;
// what is exempt comes last, whatever it holds.
func TestSuspectsByHarm(t *testing.T) {
	dir := t.TempDir()
	big, other := File{Path: dir + "/big.db"}, File{Path: dir + "/other.db"}
	for _, wal := range []struct {
		file File
		size int
	}{{big, 3 << 20}, {other, 1}} {
		if err := os.WriteFile(wal.file.Path+"-wal", make([]byte, wal.size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(func(p *Policy) { p.LeakAfter, p.WALLimit = mins, 2<<20 }))
		open := func(file File, state TxState, exempt string) *several {
			f := l.on(p, file).with(nil)
			f.out("")
			f.begin("BEGIN", exempt)
			f.says(state)
			l.sleep(sec)
			return f
		}
		exempt := open(other, TxWrite, "import") // db#1, the oldest
		old := open(other, TxNone, "")
		reads := open(other, TxRead, "") // keeps nobody waiting: there is a WAL
		pins := open(big, TxRead, "")
		writes := open(big, TxWrite, "")
		blocks := open(other, TxWrite, "") // the youngest
		w := l.on(p, other).with(nil)
		w.out("")
		w.waits(true)
		w.enter()
		l.sleep(10 * mins)

		all := l.Suspects()
		if got, want := ids(all), strings.Join([]string{blocks.ID(), writes.ID(), pins.ID(), old.ID(), reads.ID(), exempt.ID()}, " "); got != want {
			t.Errorf("by harm %s, want %s", got, want)
		}
		for _, s := range all {
			want := fmt.Sprint(s.ConnectionID == blocks.ID() || s.ConnectionID == exempt.ID(), s.ConnectionID == pins.ID() || s.ConnectionID == writes.ID())
			if got := fmt.Sprint(len(s.Waiting) == 1 && s.Blocks(), s.PinsWAL); got != want {
				t.Errorf("%s: it blocks and pins: %s, want %s", s.ConnectionID, got, want)
			}
			if s.Age < 10*mins || s.Idle < 9*mins {
				t.Errorf("%s: %v old, idle for %v, as when it was found", s.ConnectionID, s.Age, s.Idle)
			}
		}
		if n := len(l.Waiting()); n != 1 {
			t.Errorf("%d wait", n)
		}
		var report strings.Builder
		l.WriteTo(&report)
		text, at := report.String(), 0
		for _, part := range []string{"5 open suspects", "1 operation waits for its lock, at ", "exempt: reported, never undone", "import"} {
			i := strings.Index(text[at:], part)
			if i < 0 {
				t.Fatalf("%q is missing, or too early, in:\n%s", part, text)
			}
			at += i
		}
		w.waits(false)
		w.leave()
	})
}

// What is exempt makes nothing red, whatever is exempt: the lease, the transaction, or
// rows alone.
func TestExemptIsNotBad(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(func(p *Policy) { p.LeakAfter = mins }))
		f := l.open(p, true)
		rows := f.query("SELECT 1", "import")
		l.sleep(5 * mins)
		if s := l.Stats(); s.Verdict != Good || len(s.Findings) != 0 || s.LeakDetection.PotentiallyLeakedCount != 1 {
			t.Errorf("%v %q", s.Verdict, s.Findings)
		}
		other := f.query("SELECT 2", "")
		l.sleep(5 * mins)
		s := l.Stats()
		if s.Verdict != Bad || len(s.Findings) != 1 || !strings.HasPrefix(s.Findings[0], "something is forgotten on 1 connection, opened at tracker/fake_test.go:") {
			t.Errorf("%v %q", s.Verdict, s.Findings)
		}
		f.finish(other)
		f.finish(rows)
	})
}

// Too many pools make it bad, and the line that opens them is named.
func TestTooManyPoolsAreBad(t *testing.T) {
	inBubble(t, func(l *lab) {
		policy := limits(func(p *Policy) { p.MaxPools = 3 })
		for range 3 {
			defer newPool(t, l.Tracker, PoolConfig{Name: "db", Path: "/a.db", Policy: policy, Logger: quiet}).Close()
		}
		l.sleep(mins)
		s := l.Stats()
		if s.Verdict != Bad || len(s.Findings) != 1 || !strings.HasPrefix(s.Findings[0], "too many pools are opened and not closed, at tracker/fake_test.go:") {
			t.Errorf("%v %q", s.Verdict, s.Findings)
		}
		if all := l.Suspects(); len(all) != 1 || all[0].Age != mins {
			t.Errorf("%+v", all)
		}
	})
}

// What rests is listed as the most that it holds, until it is a suspect.
func TestListOfResting(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(func(p *Policy) { p.ReportAfter, p.LeakAfter = 30*sec, 5*mins }))
		f, exempt, works := l.open(p, true), l.open(p, true), l.open(p, true)
		f.query("SELECT 1", "")
		f.begin("BEGIN", "")
		exempt.begin("BEGIN", "import")
		l.sleep(mins)
		works.touch()
		l.sleep(20 * sec)
		all := l.Resting()
		if len(all) != 1 || all[0].ConnectionID != f.ID() || all[0].Kind != KindTransaction || all[0].Reason != ReasonReportAfter || all[0].Age < mins+20*sec {
			t.Errorf("%+v", all)
		}
		l.sleep(10 * mins)
		if all := l.Resting(); len(all) != 0 {
			t.Errorf("%+v rest, and are suspects", all)
		}
	})
}

// Who is asked for its state is not waited for, and one whose driver is not there is not
// asked.
func TestSuspectsWithoutDriver(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: quiet})
	c, other := p.Open(nil, true, ""), p.Open(nil, true, "")
	c.Lost()
	other.Record()
	rows := new(Resource)
	other.OpenRows(rows, "SELECT 1", "")
	other.Recorded()
	other.Proven(rows, false)
	all := tr.Suspects()
	if len(all) != 2 || all[0].Reason != ReasonPanic || all[1].Reason != ReasonProven {
		t.Fatalf("%+v", all)
	}
	for _, s := range all {
		if s.Lock != TxUnknown || s.Age <= 0 {
			t.Errorf("%+v", s)
		}
	}
	c.Close()
	other.Close()
	p.Close()
}

// The report of thousands is one that a person can read.
func TestReportIsBounded(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: quiet})
	var conns []*Conn
	for range 1000 {
		c := p.Open(nil, true, "")
		c.Executing("SELECT something, quite, long FROM a_table WHERE id = ?")
		conns = append(conns, c)
	}
	var b strings.Builder
	tr.WriteTo(&b)
	if !strings.Contains(b.String(), "and 800 more") || b.Len() > 50_000 {
		t.Errorf("%d bytes:\n%s", b.Len(), b.String())
	}
	for _, c := range conns {
		c.Close()
	}
	p.Close()
}
