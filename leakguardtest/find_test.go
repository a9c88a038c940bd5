package leakguardtest_test

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Each kind is found, at the line that opened it.
func TestFindsEachKind(t *testing.T) {
	for _, c := range []struct {
		name string
		open func(c *tracker.Conn) string
		want []string
	}{
		{"rows", func(c *tracker.Conn) string { query(c, "SELECT a FROM t"); return "" },
			[]string{"1 × rows not closed", "SELECT a FROM t", "hint: rows are open until rows.Close"}},
		{"transaction", func(c *tracker.Conn) string { c.BeginTx("BEGIN IMMEDIATE", ""); return here(0) },
			[]string{"1 × transaction neither committed nor rolled back", "BEGIN IMMEDIATE", "defer the Rollback"}},
		{"connection", func(*tracker.Conn) string { return "" },
			[]string{"1 × connection not given back", "hint: a connection of db.Conn"}},
		{"statement", func(c *tracker.Conn) string {
			c.OpenStatement(new(tracker.Resource), "SELECT 2", "")
			c.Record()
			c.CheckIn()
			c.Recorded()
			return here(-4)
		}, []string{"1 × statement not closed", "SELECT 2", "hint: a prepared statement"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tr := tracker.New(tracker.Options{})
			conn := lease(t, pool(t, tr, "db"), "")
			at := c.open(conn)
			got := text(now(tr))
			wants(t, got, c.want...)
			wants(t, got, "found 1 leak, opened at 1 site\n", "leakguardtest/", "_test.go:"+at[strings.LastIndexByte(at, ':')+1:],
				"    "+conn.ID()+", open for ", "    stack:\n", "leakguardtest_test.", "hint: what stays open on purpose")
			if strings.Contains(got, "runtime.goexit") {
				t.Errorf("frames of the runtime:\n%s", got)
			}
			conn.Close()
			if err := now(tr); err != nil {
				t.Errorf("after Close: %v", err)
			}
		})
	}
}

// A lease is told with what was opened in it, and else by itself.
func TestLeaseIsOneLeakWithItsOwn(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	c := lease(t, pool(t, tr, "db"), "")
	rows := query(c, "SELECT 1")
	got := text(now(tr))
	wants(t, got, "found 1 leak,", "1 × rows")
	c.Record()
	c.CloseResource(rows)
	c.Recorded()
	wants(t, text(now(tr)), "1 × connection")

	// A transaction by SQL text from before the lease is no part of it.
	c.BeginTx("BEGIN", "")
	c.Record()
	c.CheckIn()
	c.Recorded()
	c.Record()
	c.CheckOut("")
	c.Recorded()
	wants(t, text(now(tr)), "found 2 leaks,", "1 × connection", "1 × transaction")
}

func TestGroupsBySite(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p := pool(t, tr, "db")
	for i := range 7 {
		query(lease(t, p, ""), fmt.Sprint("SELECT ", i))
	}
	lease(t, p, "").BeginTx("BEGIN", "")
	got := text(now(tr))
	wants(t, got, "found 8 leaks, opened at 2 sites\n", "7 × rows", "    and 2 more\n", "1 × transaction")
	if strings.Index(got, "7 × rows") > strings.Index(got, "1 × transaction") {
		t.Errorf("the largest group is not the first:\n%s", got)
	}
	if n := strings.Count(got, "SELECT "); n != 5 {
		t.Errorf("%d of a group are described:\n%s", n, got)
	}
}

// Leaks that are over are told once, and the lease that they were in is not
// told in their place.
func TestLeakThatIsOver(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p := pool(t, tr, "db")
	c := lease(t, p, "")
	rows := query(c, "SELECT 1")
	c.Proven(rows, true)
	c.Record()
	c.CloseResource(rows)
	c.Recorded()
	wants(t, text(now(tr)), "found 1 leak,", "1 × rows proven to be lost", "found when open for ", "SELECT 1")
	if err := now(tr); err != nil {
		t.Errorf("told twice: %v", err)
	}
	if n := len(tr.Held()); n != 1 {
		t.Fatalf("%d are held, want the lease: not the case that was meant", n)
	}

	// What was told as open is not told again when it is over.
	other := lease(t, p, "")
	lost := query(other, "SELECT 2")
	wants(t, text(now(tr)), "1 × rows not closed")
	other.Proven(lost, true)
	other.Record()
	other.CloseResource(lost)
	other.Recorded()
	other.Record()
	other.CheckIn()
	other.Recorded()
	if err := now(tr); err != nil {
		t.Errorf("told again: %v", err)
	}
}

// What is open is told by each check, until it is closed.
func TestOpenLeakIsToldAgain(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	c := lease(t, pool(t, tr, "db"), "")
	for range 2 {
		wants(t, text(now(tr)), "1 × connection")
	}
	c.Record()
	c.CheckIn()
	c.Recorded()
	if err := now(tr); err != nil {
		t.Error(err)
	}
}

// A check waits for what ends a little later, and no longer than needed. The
// bubble's time stands still while anything moves.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		c := lease(t, pool(t, tr, "db"), "")
		start := time.Now()
		timer := time.AfterFunc(700*time.Millisecond, func() { c.Record(); c.CheckIn(); c.Recorded() })
		if err := leakguardtest.Find(leakguardtest.Tracker(tr)); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d < 700*time.Millisecond || d > 900*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		timer.Stop()

		c.Record()
		c.CheckOut("")
		c.Recorded()
		for _, wait := range []time.Duration{0, time.Millisecond, 30 * time.Second} {
			start = time.Now()
			err := leakguardtest.Find(leakguardtest.Wait(wait), leakguardtest.Tracker(tr))
			wants(t, text(err), "1 × connection")
			if d := time.Since(start); d != wait {
				t.Errorf("Wait(%v) took %v", wait, d)
			}
		}
		start = time.Now()
		leakguardtest.Find(leakguardtest.Tracker(tr))
		if d := time.Since(start); d != time.Second {
			t.Errorf("it waits for %v unless told otherwise", d)
		}
	})
}

func TestIgnorePool(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	rows := query(lease(t, pool(t, tr, "cache.db-1"), ""), "SELECT 1")
	_ = rows
	lease(t, pool(t, tr, "a[1].db"), "")
	for _, c := range []struct {
		patterns []string
		want     string
	}{
		{nil, "found 2 leaks"},
		{[]string{"cache.db"}, "found 2 leaks"},
		{[]string{"cache.db-1"}, "1 × connection"},
		{[]string{"cache.db-*"}, "1 × connection"},
		{[]string{"a[1].db"}, "1 × rows"},
		{[]string{"cache*", "a[1].db"}, ""},
		{[]string{"*"}, ""},
	} {
		var opts []leakguardtest.Option
		for _, p := range c.patterns {
			opts = append(opts, leakguardtest.IgnorePool(p))
		}
		got := text(now(tr, opts...))
		if wants(t, got, c.want); c.want == "" && got != "" {
			t.Errorf("%q: %s", c.patterns, got)
		}
	}
}

func TestIgnoreExempt(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p := pool(t, tr, "db")
	query(lease(t, p, "nightly\nimport"), "SELECT 1")
	wants(t, text(now(tr)), "1 × rows", "exempt: nightly import")
	if err := now(tr, leakguardtest.IgnoreExempt()); err != nil {
		t.Error(err)
	}
	lease(t, p, "").BeginTx("BEGIN", "")
	wants(t, text(now(tr, leakguardtest.IgnoreExempt())), "found 1 leak,", "1 × transaction")
}

func TestIgnoreCurrent(t *testing.T) {
	tr, other := tracker.New(tracker.Options{}), tracker.New(tracker.Options{})
	p := pool(t, tr, "db")
	old := lease(t, p, "")
	lost := query(old, "SELECT lost")
	old.Proven(lost, true)
	old.Record()
	old.CloseResource(lost)
	old.Recorded()
	lease(t, pool(t, other, "other"), "")

	both := leakguardtest.IgnoreCurrent(tr, other)
	one, two := leakguardtest.IgnoreCurrent(tr), leakguardtest.IgnoreCurrent(other, nil)
	for _, of := range []*tracker.Tracker{tr, other} {
		if err := now(of, both); err != nil {
			t.Error(err)
		}
		if err := now(of, one, two); err != nil {
			t.Error(err)
		}
	}
	query(old, "SELECT new")
	got := text(now(tr, both))
	wants(t, got, "found 1 leak,", "SELECT new")
	if strings.Contains(got, "SELECT lost") {
		t.Errorf("what was over before is told:\n%s", got)
	}
	// Ignoring tells nothing: the next check without it does.
	wants(t, text(now(tr)), "SELECT lost")
}

func TestDefaultTracker(t *testing.T) {
	before := leakguardtest.IgnoreCurrent()
	c := lease(t, pool(t, tracker.Default(), "db"), "")
	for name, opts := range map[string][]leakguardtest.Option{"none": nil, "nil": {leakguardtest.Tracker(nil)}} {
		got := text(leakguardtest.Find(append(opts, before, leakguardtest.Wait(0))...))
		t.Run(name, func(t *testing.T) { wants(t, got, "found 1 leak,", c.ID()) })
	}
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	err := leakguardtest.Find(leakguardtest.Wait(-time.Second), leakguardtest.IgnorePool("[a"))
	wants(t, text(err), "Wait(-1s)", `IgnorePool("[a")`)
	wants(t, text(leakguardtest.Find(leakguardtest.IgnoreExempt(), nil)), "leakguardtest: option 2 of 2 is nil")
	if !errors.Is(err, path.ErrBadPattern) {
		t.Errorf("%v", err)
	}
}

// Texts of strangers stay on their line.
func TestTextsAreFolded(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	c := lease(t, pool(t, tr, "db"), "")
	query(c, "SELECT\n\t'\x1b[31m\xff'"+strings.Repeat(" + 1", 200))
	got := text(now(tr))
	wants(t, got, "SELECT '\ufffd[31m\ufffd' + 1", "…\n")
	if strings.ContainsAny(got, "\x1b\t") {
		t.Errorf("%q", got)
	}
}

func TestWithoutCallSites(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: "db", Mode: tracker.Basic, NoStacks: true, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	lease(t, p, "")
	wants(t, text(now(tr)), "opened at unknown\n", "call sites are off")
}

// A suspect is told with the limit that it broke.
func TestSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := tracker.New(tracker.Options{})
		p, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: "db", Mode: tracker.Observe, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		c := p.Open(still{}, true, "")
		query(c, "SELECT 1")
		time.Sleep(time.Hour)
		wants(t, text(now(tr)), "open for 1h0m0s, a suspect for leak_after of 5m0s: SELECT 1")
		c.Close()
		p.Close()
		tr.Close()
		if err := now(tr); err != nil {
			t.Errorf("a suspect that came back: %v", err)
		}
	})
}

// still is a connection that does nothing.
type still struct{}

func (still) Look(f func()) bool                   { f(); return true }
func (still) Carry(*tracker.Order) tracker.Outcome { return tracker.Void }
func (still) Nudge() bool                          { return false }
func (still) Memory() (int64, bool)                { return 0, false }
func (still) TxState() tracker.TxState             { return tracker.TxUnknown }

// openThrough is a helper of the program: whose leak it is says who called it.
func openThrough(p *tracker.Pool) *tracker.Conn { return p.Open(nil, true, "") }

func TestThroughHelper(t *testing.T) {
	tracker.SkipFunctions("github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest_test.openThrough")
	tr := tracker.New(tracker.Options{})
	at := here(1)
	defer openThrough(pool(t, tr, "db")).Close()
	wants(t, text(now(tr)), "opened at "+at+" in leakguardtest_test.TestThroughHelper through leakguardtest/find_test.go:")
}
