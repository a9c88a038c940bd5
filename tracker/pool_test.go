package tracker

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPoolNames(t *testing.T) {
	tr := New(Options{})
	name := func(name string, numbered bool) *Pool {
		return newPool(t, tr, PoolConfig{Name: name, Numbered: numbered, Logger: quiet})
	}
	var open []*Pool
	for _, c := range []struct {
		name     string
		numbered bool
		want     string
	}{
		{"app", false, "app"},
		{"app", false, "app-1"},
		{"app", false, "app-2"},
		{"db", true, "db-1"},
		{"db", true, "db-2"},
		{"db", false, "db"},
		{"db", false, "db-3"},
		{"app-3", false, "app-3"},
		{"app", false, "app-4"}, // app-3 is taken
		{"", false, "sqlite-1"},
		{"", true, "sqlite-2"},
		{"sqlite", false, "sqlite"},
	} {
		p := name(c.name, c.numbered)
		open = append(open, p)
		if p.Name() != c.want {
			t.Errorf("%q, %v: %q, want %q", c.name, c.numbered, p.Name(), c.want)
		}
	}
	for _, p := range open {
		p.Close()
	}
	if n := len(tr.pools); n != 0 {
		t.Errorf("%d pools are left", n)
	}
	// Numbers are not given again at once, free names are.
	for _, want := range []string{"app", "app-5"} {
		if p := name("app", false); p.Name() != want {
			t.Errorf("%q, want %q", p.Name(), want)
		}
	}
}

// Pools that come and go leave nothing behind.
func TestPoolsBounded(t *testing.T) {
	tr := New(Options{})
	for i := range 2000 {
		p := newPool(t, tr, PoolConfig{Name: fmt.Sprint("file", i), Numbered: true, Mode: Basic, Logger: quiet})
		c := p.Open(still{}, true, "")
		for j := range 70 {
			c.ReportKept(fmt.Sprint(i, j))
		}
		if n := len(p.kept); n > 64 {
			t.Fatalf("%d reasons kept", n)
		}
		c.Close()
		p.Close()
	}
	tr.queue.mu.Lock()
	waiting := len(tr.queue.waiting)
	tr.queue.mu.Unlock()
	if len(tr.pools) != 0 || len(tr.conns) != 0 || len(tr.lastNumber) > 1024 || len(tr.History()) != 256 || waiting > queueSize {
		t.Errorf("left: %d pools, %d connections, %d numbers, %d events, %d waiting",
			len(tr.pools), len(tr.conns), len(tr.lastNumber), len(tr.History()), waiting)
	}
	// Names stay unique when the numbers were forgotten.
	seen := make(map[string]bool)
	for i := range 1200 {
		p := newPool(t, tr, PoolConfig{Name: "one", Logger: quiet})
		if seen[p.Name()] {
			t.Fatalf("%s twice", p.Name())
		}
		seen[p.Name()] = true
		if i%100 == 0 {
			for j := range 100 {
				newPool(t, tr, PoolConfig{Name: fmt.Sprint(i, "-", j), Numbered: true, Logger: quiet}).Close()
			}
		}
	}
}

func TestPoolPolicy(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Mode: Observe, Logger: quiet})
	if p.Policy() != DefaultPolicy() || p.Mode() != Observe || p.Tracker() != tr {
		t.Errorf("%+v, %v", p.Policy(), p.Mode())
	}
	other := leakAfter(mins)
	if err := p.SetPolicy(other); err != nil || p.Policy() != other {
		t.Errorf("%+v, %v", p.Policy(), err)
	}
	if err := p.SetPolicy(Policy{}); err != nil || p.Policy() != DefaultPolicy() {
		t.Errorf("%+v, %v", p.Policy(), err)
	}
	if q := newPool(t, tr, PoolConfig{Policy: other, Logger: quiet}); q.Policy() != other || p.Policy() != DefaultPolicy() {
		t.Error("pools share a policy")
	}
}

func TestPoolRecords(t *testing.T) {
	inBubble(t, func(l *lab) {
		a, b := l.pool(Enforce, unreported()), l.pool(Observe, unreported())
		f, _ := l.open(a, true), l.open(b, false)
		l.sleep(10 * sec)
		f.begin("BEGIN", "import")
		f.SetLevel(3)
		f.query("SELECT 1", "")
		f.prepare("SELECT 2")
		f.do(func() { f.Executing("SELECT 3") })
		l.sleep(10 * sec)
		if n := len(l.Records()); n != 2 {
			t.Errorf("%d records in all", n)
		}
		if rs := b.Records(); len(rs) != 1 || rs[0].Pool != "db-1" || rs[0].Leased || rs[0].State() != "idle" || rs[0].Mode != Observe ||
			!rs[0].LeasedAt.IsZero() || !rs[0].TxOpened.IsZero() || len(rs[0].Stack) != 0 || rs[0].Accesses != 0 {
			t.Errorf("%+v", rs)
		}
		rs := a.Records()
		if len(rs) != 1 {
			t.Fatalf("%d records", len(rs))
		}
		r := rs[0]
		if !strings.HasSuffix(r.Stack.Site().Function, ".(*lab).open") {
			t.Errorf("the lease was opened at %v", r.Stack.Site())
		}
		if !strings.HasSuffix(r.Last.Site().Function, ".TestPoolRecords.func1.1") {
			t.Errorf("the last activity was at %v", r.Last.Site())
		}
		r.Stack, r.Last = nil, nil
		at := func(d time.Duration) time.Time { return l.start.Add(d) }
		if fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", Record{
			Pool: "db", ConnectionID: "db#1", Mode: Enforce, Leased: true,
			Opened: at(0), LeasedAt: at(0), TxOpened: at(10 * sec), Age: 20 * sec, TxAge: 10 * sec,
			Accesses: 1, TransactionLevel: 3, OpenRows: 1, OpenStatements: 1, Query: "SELECT 3", Exempt: "import",
			lifetime: r.lifetime, leaseAge: 20 * sec, atLeast: true,
		}) {
			t.Errorf("%+v", r)
		}
		l.sleep(10 * sec)
		if r := a.Records()[0]; r.Idle != 10*sec { // since the guard's last look
			t.Errorf("idle for %v", r.Idle)
		}
		f.enter()
		if r := a.Records()[0]; !r.Busy || r.Idle != 0 || r.State() != "busy" {
			t.Errorf("busy: %+v", r)
		}
		f.leave()
		f.commit()
		f.in()
		if r := a.Records()[0]; r.Leased || r.TransactionLevel != 0 || r.TxAge != 0 || r.State() != "idle" || len(r.Stack) != 0 {
			t.Errorf("idle: %+v", r)
		}
	})
}

func TestReportKept(t *testing.T) {
	inBubble(t, func(l *lab) {
		a, b := l.pool(Basic, DefaultPolicy()), l.pool(Basic, DefaultPolicy())
		f, g, other := l.open(a, true), l.open(a, true), l.open(b, true)
		f.ReportKept("attached databases")
		g.ReportKept("attached databases")
		f.ReportKept("temp objects")
		f.ReportKept("temp objects")
		other.ReportKept("attached databases")
		l.expect("0s kept attached databases", "0s kept temp objects", "0s kept attached databases")
		f.expectOrders()
	})
}

func TestLacks(t *testing.T) {
	tr := New(Options{})
	missing := []string{"a"}
	p := newPool(t, tr, PoolConfig{Missing: missing, Logger: quiet})
	q := newPool(t, tr, PoolConfig{Missing: missing, Logger: quiet})
	p.Lacks("b")
	p.Lacks("b")
	p.Lacks("a")
	if got := p.Stats().Missing; !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("missing %q", got)
	}
	if got := q.Stats().Missing; !slices.Equal(got, []string{"a"}) {
		t.Errorf("the other pool misses %q", got)
	}
	got := tr.Stats().Missing
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("missing in all %q", got)
	}
}

// The list that Stats gives does not depend on chance.
func TestMissingOrdered(t *testing.T) {
	tr := New(Options{})
	for _, m := range []string{"b", "a", "d", "c"} {
		newPool(t, tr, PoolConfig{Missing: []string{m}, Logger: quiet})
	}
	first := tr.Stats().Missing
	for range 100 {
		if got := tr.Stats().Missing; !slices.Equal(got, first) {
			t.Fatalf("%q, then %q", first, got)
		}
	}
}

// Closing twice, closing with leases out, and a name that came back to life.
func TestPoolCloseTwice(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: quiet})
	c := p.Open(still{}, true, "")
	c.Recycled(ReasonMaxAccess)
	p.Close()
	p.Close()
	q := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: quiet})
	if q.Name() != "db-1" {
		t.Errorf("the name of a pool with leases was given again: %s", q.Name())
	}
	c.Close()
	r := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: quiet})
	if r.Name() != "db" {
		t.Errorf("%s is not free", r.Name())
	}
	p.Close() // the old one
	if tr.pools["db"] != r {
		t.Error("closing the old pool dropped the new one")
	}
	if s := tr.Stats(); s.Created != 1 || s.Recycled != 1 {
		t.Errorf("%+v", s)
	}
}

// TestSetPolicyIsWhole: a policy and what leases read of it change together, so not
// while another SetPolicy may be at it.
func TestSetPolicyIsWhole(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	policy := DefaultPolicy()
	policy.MaxAccess = 7
	tr.mu.Lock() // the other one
	set := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		close(begun)
		set <- p.SetPolicy(policy)
	}()
	<-begun
	for range 1000 {
		runtime.Gosched()
		if p.Policy().MaxAccess == 7 || p.maxAccess.Load() == 7 {
			t.Error("the policy changes beside another SetPolicy")
			break
		}
	}
	tr.mu.Unlock()
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	if p.Policy().MaxAccess != 7 || p.maxAccess.Load() != 7 {
		t.Errorf("%d and %d, want 7", p.Policy().MaxAccess, p.maxAccess.Load())
	}
}
