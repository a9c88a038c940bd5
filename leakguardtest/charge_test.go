package leakguardtest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// recorder is a test of which nothing but its name is taken.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Error(args ...any) { r.errors = append(r.errors, args[0].(error).Error()) }

// verify returns what VerifyNone says in the test t.
func verify(t testing.TB, tr *tracker.Tracker) string {
	r := &recorder{TB: t}
	leakguardtest.VerifyNone(r, leakguardtest.Tracker(tr), leakguardtest.Wait(0))
	return strings.Join(r.errors, "\n")
}

// shared is the tracker of the tests below that are to blame for different leaks of it,
// which they open one after the other.
var shared = tracker.New(tracker.Options{})

var sharedPool = func() *tracker.Pool {
	p, err := shared.NewPool(tracker.PoolConfig{Name: "db", Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		panic(err)
	}
	return p
}()

// TestChargedFirst leaves a lease open and rows that were proven for the test after it, TestChargedSecond.
func TestChargedFirst(t *testing.T) {
	c := sharedPool.Open(nil, true, "")
	wants(t, verify(t, shared), "found 1 leak,", "TestChargedFirst")
	lost := query(c, "SELECT 1")
	c.Proven(lost, true)
	c.Record()
	c.CloseResource(lost)
	c.Recorded()
	first = c
}

var first *tracker.Conn

// TestChargedSecond: another test's leak is no fault of this one, which has to tell its own.
func TestChargedSecond(t *testing.T) {
	if first == nil {
		t.Skip("needs TestChargedFirst")
	}
	defer first.Close()
	if got := verify(t, shared); got != "" {
		t.Errorf("charged with the leak of another test:\n%s", got)
	}
	// Who asks for all gets all, what is over too: it was told to nobody.
	wants(t, text(now(shared)), "1 × rows proven to be lost", "TestChargedFirst")
	lease(t, sharedPool, "")
	got := verify(t, shared)
	wants(t, got, "found 1 leak,", "TestChargedSecond")
	if strings.Contains(got, "TestChargedFirst") {
		t.Errorf("charged with another test's leak beside its own:\n%s", got)
	}
}

// TestChargedSubtests: a subtest is charged with what its own function opened, by a defer
// and by a cleanup; the test that it is in with all of them.
func TestChargedSubtests(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p := pool(t, tr, "db")
	outer := p.Open(nil, true, "")
	defer outer.Close()
	var of [2]*tracker.Conn
	t.Run("first", func(t *testing.T) {
		of[0] = p.Open(nil, true, "")
		wants(t, verify(t, tr), "found 1 leak,", of[0].ID())
		var cleaned string
		t.Run("inner", func(t *testing.T) {
			inner := p.Open(nil, true, "")
			t.Cleanup(func() {
				cleaned = verify(t, tr)
				inner.Close()
			})
		})
		wants(t, cleaned, inner(of[0], 1))
		if strings.Contains(cleaned, outer.ID()+",") {
			t.Errorf("charged with the lease of the test around it:\n%s", cleaned)
		}
	})
	t.Run("second", func(t *testing.T) {
		if got := verify(t, tr); got != "" {
			t.Errorf("charged with the leak of another subtest:\n%s", got)
		}
		func() { of[1] = p.Open(nil, true, "") }()
		got := verify(t, tr)
		wants(t, got, "found 1 leak,", of[1].ID())
	})
	wants(t, verify(t, tr), "found 3 leaks,", outer.ID(), of[0].ID(), of[1].ID())
	for _, c := range of {
		c.Close()
	}
}

// inner returns the name of the connection that was opened n after c.
func inner(c *tracker.Conn, n int) string {
	name, number, _ := strings.Cut(c.ID(), "#")
	return name + "#" + string(rune(number[0])+rune(n))
}

// TestChargedStray: what a goroutine opened that no test is in the stack of falls to the
// test that runs, and it is said so; to none as long as others run.
func TestChargedStray(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p := pool(t, tr, "db")
	o := opener{p, make(chan *tracker.Conn)}
	time.AfterFunc(0, o.open) // not in a function literal of the test
	c := <-o.opened
	defer c.Close()
	if got := verify(t, tr); !strings.Contains(got, "charged to the test that was running: no test is in the call stack") {
		t.Errorf("by itself: %q", got)
	}

	check, checked := make(chan bool), make(chan string)
	t.Run("both", func(t *testing.T) {
		t.Run("one", func(t *testing.T) {
			t.Parallel()
			<-check // the other one runs
			checked <- verify(t, tr)
		})
		t.Run("other", func(t *testing.T) {
			t.Parallel()
			check <- true
			if got := <-checked; got != "" {
				t.Errorf("charged while another test runs:\n%s", got)
			}
		})
	})
}

// opener is a program that opens connections in a goroutine of its own.
type opener struct {
	pool   *tracker.Pool
	opened chan *tracker.Conn
}

func (o opener) open() { o.opened <- o.pool.Open(nil, true, "") }

// TestChargedWithoutStacks: where nothing is known, the test that runs is charged.
func TestChargedWithoutStacks(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Name: "db", Mode: tracker.Basic, Logger: quiet, NoStacks: true})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := lease(t, p, "")
	query(c, "SELECT 1")
	wants(t, verify(t, tr), "found 1 leak,", "charged to the test that was running", "call sites are off")
}

// BenchmarkCharged is what a check costs that finds nothing.
func BenchmarkCharged(b *testing.B) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Name: "db", Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer p.Close()
	for b.Loop() {
		leakguardtest.VerifyNone(b, leakguardtest.Tracker(tr), leakguardtest.Wait(time.Second))
	}
}
