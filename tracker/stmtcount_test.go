package tracker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
)

func maxStatements(n int64) Policy { return limits(func(p *Policy) { p.MaxStatements = n }) }

// prepareAt opens a statement at the line that calls open.
func (f *fake) prepareAt(open func(r *Resource)) *Resource {
	r := &Resource{}
	f.do(func() { open(r) })
	return r
}

// Statements whose texts differ, prepared by one line.
func TestStatementsOfOnePlace(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Enforce, maxStatements(100))
		f := l.open(p, true)
		var all []*Resource
		one := func(i int) {
			all = append(all, f.prepareAt(func(r *Resource) { f.OpenStatement(r, fmt.Sprint("SELECT ", i), "") }))
		}
		for i := range 99 {
			one(i)
			f.prepareAt(func(r *Resource) { f.OpenStatement(r, fmt.Sprint("SELECT ", i), "") }) // elsewhere
		}
		l.until(10 * mins)
		l.expect()
		for i := range 401 { // by another way to the same line
			one(1000 + i)
		}
		l.until(11 * mins)
		l.expect("11m0s suspect statement max_statements #1")
		leak := l.LeakHistory()[0].Leak
		if leak.Count != 500 || !leak.OnePlace || leak.Query != "SELECT 0" || leak.Age != 11*mins || leak.Resource != all[0].ID() {
			t.Errorf("%+v", leak)
		}
		if s := leak.String(); !strings.HasPrefix(s, "statement left open, one of 500 from one place (max_statements) on db#1: opened at ") || !strings.Contains(s, "/stmtcount_test.go:") {
			t.Error(s)
		}
		if s := limitText(leak); s != "max_statements (500 open from one place)" {
			t.Error(s)
		}
		for _, r := range all[:400] {
			f.finish(r)
		}
		l.until(20 * mins)
		l.expect() // 100 are left
		suspects := 0
		for _, h := range l.Held() {
			if h.Suspect == nil {
				continue
			}
			if suspects++; h.Resource != all[400].ID() || h.Suspect.ID != 1 || h.Suspect.Count != 100 {
				t.Errorf("%+v", h.Suspect)
			}
		}
		if suspects != 1 {
			t.Errorf("%d suspects are held", suspects)
		}
		if leak.Count != 500 {
			t.Errorf("what was told has changed: %+v", leak)
		}
		f.finish(all[400])
		l.until(30 * mins)
		l.expect("21m0s recovered statement max_statements #1")
		checkBalance(t, p.Stats(), 0)
		f.expectOrders()
	})
}

// The higher count is told: by text, where all of one text is of one line.
func TestStatementsTextOrPlace(t *testing.T) {
	for _, c := range []struct {
		name                 string
		sameText, otherTexts int // at one place
		sameTextElsewhere    int
		noStacks, onePlace   bool
		count                int64
	}{
		{name: "one text at one place", sameText: 10, count: 10},
		{name: "one text at two places", sameText: 6, sameTextElsewhere: 6, count: 12},
		{name: "several texts", sameText: 6, otherTexts: 6, onePlace: true, count: 12},
		{name: "more of the text", sameText: 11, otherTexts: 2, sameTextElsewhere: 3, count: 14},
		{name: "too few", sameText: 5, otherTexts: 4, sameTextElsewhere: 4},
		{name: "place not known", otherTexts: 20, noStacks: true},
		{name: "text at a place not known", sameText: 10, otherTexts: 20, noStacks: true, count: 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(l *lab) {
				p := newPool(t, l.Tracker, PoolConfig{Name: "db", Mode: Observe, Policy: maxStatements(10), Logger: quiet, NoStacks: c.noStacks})
				f := l.open(p, true)
				prepare := func(text string) {
					f.prepareAt(func(r *Resource) { f.OpenStatement(r, text, "") })
				}
				for range c.sameText {
					prepare("SELECT x")
				}
				for i := range c.otherTexts {
					prepare(fmt.Sprint("SELECT ", i))
				}
				for range c.sameTextElsewhere {
					f.prepareAt(func(r *Resource) { f.OpenStatement(r, "SELECT x", "") })
				}
				l.until(10 * mins)
				h := l.LeakHistory()
				if c.count == 0 {
					if len(h) != 0 {
						t.Errorf("%v", h[0].Leak)
					}
					return
				}
				if len(h) != 1 || h[0].Leak.Count != c.count || h[0].Leak.OnePlace != c.onePlace {
					t.Errorf("%+v", h)
				}
			})
		})
	}
}

// Many statements are counted when something can have changed, not at each check
// of a suspect.
func TestStatementsCountedOnce(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, maxStatements(3))
		f := l.open(p, true)
		var all []*Resource
		for range 3 {
			all = append(all, f.prepare("SELECT 1"))
		}
		l.until(mins)
		l.expect("1m0s suspect statement max_statements #1")
		// Behind the guard's back: a count would find it.
		f.Conn.lock()
		texts, stack := []string{"a", "b", "c"}, all[0].stack
		for i, r := range all {
			r.query, r.stack = texts[i], nil
		}
		f.Conn.unlock()
		l.until(10 * mins)
		l.expect()
		f.touch()
		l.until(11 * mins)
		l.expect("11m0s recovered statement max_statements #1")
		f.Conn.lock()
		for _, r := range all {
			r.stack = stack
		}
		f.Conn.unlock()
		l.until(20 * mins)
		l.expect()
		if err := p.SetPolicy(maxStatements(2)); err != nil {
			t.Fatal(err)
		}
		l.until(21 * mins)
		l.expect("20m0s suspect statement max_statements #2")
		// The reaper itself closes without counting the generation up.
		f.CloseResource(all[0])
		f.CloseResource(all[1])
		l.until(22 * mins)
		l.expect("22m0s recovered statement max_statements #2")
	})
}

// A line is known by its file and number, whatever came before in the stack, and
// whose library stands between.
func TestPlaceOf(t *testing.T) {
	p := newPool(t, New(Options{}), PoolConfig{Mode: Basic, Logger: quiet})
	c := p.Open(still{}, true, "")
	defer c.Close()
	var r Resource
	open := func() place {
		owned{c}.OpenRows(&r, "SELECT 1", "")
		defer owned{c}.CloseResource(&r)
		return placeOf(r.stack)
	}
	a := open()
	b := func() place { return open() }()
	if a != b || a.line == 0 || !strings.HasSuffix(a.file, "_test.go") {
		t.Errorf("%v, %v", a, b)
	}
	if placeOf(nil) != (place{}) {
		t.Error("a stack that was not recorded has a place")
	}
	before := *wrappers.Load()
	defer func() { wrappers.Store(&before) }()
	owned{c}.OpenRows(&r, "SELECT 1", "")
	stack := r.stack
	placeOf(stack).before(a)
	if n := testing.AllocsPerRun(100, func() { placeOf(stack) }); n > 0 {
		t.Errorf("asked again, it allocates %v times", n)
	}
	stack.Annotate(placed{place{"elsewhere", 1}, wrappers.Load()})
	if placeOf(stack) != (place{"elsewhere", 1}) {
		t.Error("it was not kept")
	}
	SkipPackages("example.com/lib")
	if placeOf(stack).file == "elsewhere" {
		t.Error("it was kept when the libraries changed")
	}
}

// One look at a connection with many statements: one that moves, and one at rest
// that is a suspect for them.
func BenchmarkCountStatements(b *testing.B) {
	for _, moved := range []bool{true, false} {
		b.Run(fmt.Sprintf("moved=%v", moved), func(b *testing.B) {
			const n = 20_000
			r := scanned(b, 1, true)
			c := r.t.conns[0]
			all := make([]Resource, n)
			for i := range all {
				c.OpenStatement(&all[i], fmt.Sprint("SELECT ", i), "")
			}
			c.word.Add(gate.Flags + 1)
			now := time.Millisecond
			r.scan(now)
			if c.seen.most == nil {
				b.Fatal("not found")
			}
			b.ReportAllocs()
			for b.Loop() {
				if moved {
					c.word.Add(gate.Flags + 1)
				}
				r.t.epoch++
				now++
				r.scan(now)
			}
		})
	}
}
