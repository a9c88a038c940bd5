package otel

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	otelapi "go.opentelemetry.io/otel"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// inChild runs the test in a process of its own, where nobody has set a global
// provider: it returns true in the child, and in the parent fails the test if
// the child did.
func inChild(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv("OTEL_TEST_CHILD") == t.Name() {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.timeout=20s")
	cmd.Env = append(append(os.Environ(), "OTEL_TEST_CHILD="+t.Name()), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// leased is a connection of the default tracker whose transaction was begun in
// the span n.
func leased(t *testing.T, name string, n byte) *tracker.Conn {
	c := newPool(t, tracker.Default(), name, tracker.Policy{}).Open(still{}, true, "")
	t.Cleanup(c.Close)
	c.BeginTx("BEGIN", "")
	c.TraceTx(within(n))
	return c
}

func heldSpan(t *testing.T, c *tracker.Conn) byte {
	t.Helper()
	for _, h := range tracker.Default().Held() {
		if h.ConnectionID == c.ID() && h.Kind == tracker.KindTransaction {
			return h.Trace.SpanID[0]
		}
	}
	t.Fatal("no transaction")
	return 0
}

// TestImport: the import instruments the default tracker for global providers
// that the program sets, at whatever time.
func TestImport(t *testing.T) {
	if !inChild(t) {
		return
	}
	early := leased(t, "early", 1)
	if s := heldSpan(t, early); s != 0 {
		t.Errorf("without a provider, the span %d was read", s)
	}
	b := newBackend(t)
	otelapi.SetMeterProvider(b.meters)
	otelapi.SetLoggerProvider(b.logs)
	done := listen(t, tracker.Default(), tracker.EventSuspect)
	late := leased(t, "late", 2)
	if s := heldSpan(t, late); s != 2 {
		t.Errorf("with a provider, the span %d was read, want 2", s)
	}
	m := b.collect()
	for _, pool := range []string{"early", "late"} {
		if got, _ := m["sqlite_leakguard.transaction.count"].at(poolName, pool); got != 1 {
			t.Errorf("pool %s has %v transactions", pool, got)
		}
	}
	late.Lost()
	<-done
	event(t, b.records(), "sqlite_leakguard.connection.suspect")
}

// TestImportAfterProviders: a provider that was there first is used as well.
func TestImportAfterProviders(t *testing.T) {
	if !inChild(t) {
		return
	}
	b := newBackend(t)
	otelapi.SetMeterProvider(b.meters)
	otelapi.SetLoggerProvider(b.logs)
	stop, err := Start(nil) // as the import would, now
	if err != nil {
		t.Fatal(err)
	}
	c := leased(t, "db", 3)
	if s := heldSpan(t, c); s != 3 {
		t.Errorf("the span %d was read, want 3", s)
	}
	// What the import began has ended: nothing counts twice.
	if got, n := b.collect()["sqlite_leakguard.transaction.count"].at(); got != 1 || n != 1 {
		t.Errorf("%v transactions in %d series", got, n)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if m := b.collect(); len(m) != 0 {
		t.Errorf("after stop: %v", m)
	}
	if _, err := Start(tracker.Default()); err != nil {
		t.Errorf("a new Start: %v", err)
	}
}

// TestNoProvider costs an opening nothing but the look for one, and is no
// error.
func TestNoProvider(t *testing.T) {
	if !inChild(t) {
		return
	}
	otelapi.SetErrorHandler(otelapi.ErrorHandlerFunc(func(err error) { t.Error(err) }))
	c := leased(t, "db", 1)
	asked := &asking{Context: context.Background()}
	if n := testing.AllocsPerRun(100, func() { c.TraceTx(asked) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if asked.n != 0 {
		t.Errorf("the context was asked %d times", asked.n)
	}
	c.Lost()
}

// asking counts how often it is asked.
type asking struct {
	context.Context
	n int
}

func (a *asking) Value(key any) any {
	a.n++
	return a.Context.Value(key)
}

// BenchmarkTrace is what an opening pays for the hook, without a provider and
// with one.
func BenchmarkTrace(b *testing.B) {
	open := func(t testing.TB, tr *tracker.Tracker) *tracker.Conn {
		c := newPool(t, tr, "db", tracker.Policy{}).Open(still{}, true, "")
		t.Cleanup(c.Close)
		return c
	}
	ctx := within(1)
	b.Run("none", func(b *testing.B) {
		c := open(b, tracker.Default())
		for b.Loop() {
			c.TraceLease(ctx)
		}
	})
	b.Run("provider", func(b *testing.B) {
		tr := tracker.New(tracker.Options{})
		newBackend(b).instrument(tr)
		c := open(b, tr)
		for b.Loop() {
			c.TraceLease(ctx)
		}
	})
}
