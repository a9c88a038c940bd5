package tracker

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"
)

type spanKey struct{}

// numbered is a context in span n.
func numbered(n byte) context.Context {
	return context.WithValue(context.Background(), spanKey{}, n)
}

// numberOf is a hook for numbered.
func numberOf(ctx context.Context, t *Trace) bool {
	n, ok := ctx.Value(spanKey{}).(byte)
	t.TraceID[15], t.SpanID[7], t.Flags = n, n, 1
	return ok
}

// TestTrace follows each kind's span to Held and Leak, and sees to it that none
// is taken for the next resource's.
func TestTrace(t *testing.T) {
	inBubble(t, func(l *lab) {
		p := l.pool(Observe, limits(func(p *Policy) { p.LeakAfter = 2 * time.Minute }))
		f := l.open(p, false)
		f.TraceLease(numbered(99)) // without a hook, and without a lease
		l.SetTraceHook(numberOf)
		f.TraceLease(numbered(98))
		var rows, stmt Resource
		lease := func(span byte) {
			f.do(func() {
				f.CheckOut("")
				f.TraceLease(numbered(span))
			})
		}
		lease(1)
		f.do(func() {
			f.BeginTx("BEGIN", "")
			f.TraceTx(numbered(2))
			f.OpenRows(&rows, "SELECT 1", "")
			f.TraceResource(numbered(3), &rows)
			f.OpenStatement(&stmt, "SELECT 2", "")
			f.TraceResource(context.Background(), &stmt)
		})
		expect := func(want map[Kind]byte) {
			t.Helper()
			for _, h := range l.Held() {
				if h.Trace.SpanID[7] != want[h.Kind] {
					t.Errorf("%v has the span %d, want %d", h.Kind, h.Trace.SpanID[7], want[h.Kind])
				}
			}
		}
		// A statement without a span has its lease's.
		expect(map[Kind]byte{KindConnection: 1, KindTransaction: 2, KindRows: 3, KindStatement: 1})
		l.sleep(10 * time.Minute)
		for _, h := range l.Held() {
			if h.Suspect != nil && h.Suspect.Trace != h.Trace {
				t.Errorf("the leak of %v has the trace %v, want %v", h.Kind, h.Suspect.Trace, h.Trace)
			}
		}

		f.do(func() { f.CloseResource(&rows); f.CloseResource(&stmt); f.EndTx() })
		f.in()
		l.SetTraceHook(nil)
		lease(4)
		f.do(func() {
			f.BeginTx("BEGIN", "")
			f.TraceTx(numbered(4))
			f.OpenRows(&rows, "SELECT 1", "")
			f.TraceResource(numbered(4), &rows)
		})
		expect(nil)
		f.do(func() { f.CloseResource(&rows); f.EndTx() })
		f.in()
	})
}

// TestTraceHookReachesPools: those that are there, and those that come.
func TestTraceHookReachesPools(t *testing.T) {
	tr := New(Options{})
	spans := func(c *Conn) (n int) {
		c.Record()
		c.CheckOut("")
		c.TraceLease(numbered(7))
		c.Recorded()
		for _, h := range tr.Held() {
			if h.ConnectionID == c.ID() && h.Trace.SpanID[7] == 7 {
				n++
			}
		}
		c.Record()
		c.CheckIn()
		c.Recorded()
		return n
	}
	early := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet}).Open(still{}, false, "")
	defer early.Close()
	if n := spans(early); n != 0 {
		t.Errorf("%d spans without a hook", n)
	}
	tr.SetTraceHook(numberOf)
	late := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet}).Open(still{}, false, "")
	defer late.Close()
	if spans(early) != 1 || spans(late) != 1 {
		t.Error("no span of a lease")
	}
	// Connections that are opened while their pools are closed.
	tr.SetTraceHook(nil)
	one, two := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet}), newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	one.Close()
	two.Close()
	before := one.Open(still{}, false, "")
	defer before.Close()
	tr.SetTraceHook(numberOf)
	after := two.Open(still{}, false, "")
	defer after.Close()
	if spans(before) != 1 || spans(after) != 1 {
		t.Error("no span in a closed pool")
	}
	tr.SetTraceHook(nil)
	if spans(early) != 0 || early.pool.heard.Load() || late.pool.heard.Load() {
		t.Error("the hook is gone, and leases still look for it")
	}
}

func TestTraceText(t *testing.T) {
	tr := Trace{TraceID: [16]byte{15: 0xab}, SpanID: [8]byte{0: 1}, Flags: 1}
	const want = "00-000000000000000000000000000000ab-0100000000000000-01"
	if got := tr.String(); got != want {
		t.Errorf("String: %s, want %s", got, want)
	}
	if got := (Trace{TraceID: tr.TraceID}).String(); got != "" {
		t.Errorf("a trace without a span is %q", got)
	}
	for text, has := range map[string]bool{
		marshal(t, Leak{Trace: tr}): true, marshal(t, Held{Trace: tr}): true,
		marshal(t, Leak{}): false, marshal(t, Held{}): false,
	} {
		if strings.Contains(text, `"trace":"`+want+`"`) != has || strings.Contains(text, `"trace"`) != has {
			t.Errorf("as JSON, trace %v: %s", has, text)
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTraceAllocates: nothing, with a hook and without.
func TestTraceAllocates(t *testing.T) {
	tr := New(Options{})
	c := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet}).Open(still{}, false, "")
	defer c.Close()
	ctx := numbered(1)
	var r Resource
	one := func() {
		c.OpenRows(&r, "SELECT 1", "")
		c.TraceResource(ctx, &r)
		c.CloseResource(&r)
	}
	if n := testing.AllocsPerRun(100, one); n != 0 {
		t.Errorf("%v allocations without a hook", n)
	}
	tr.SetTraceHook(numberOf)
	if n := testing.AllocsPerRun(100, one); n != 0 {
		t.Errorf("%v allocations with a hook", n)
	}
}

// BenchmarkTrace is what each opening pays.
func BenchmarkTrace(b *testing.B) {
	tr := New(Options{})
	c := newPool(b, tr, PoolConfig{Mode: Basic, Logger: quiet}).Open(still{}, true, "")
	defer c.Close()
	ctx := numbered(1)
	b.Run("off", func(b *testing.B) {
		for b.Loop() {
			c.TraceLease(ctx)
		}
	})
	b.Run("on", func(b *testing.B) {
		tr.SetTraceHook(numberOf)
		for b.Loop() {
			c.TraceLease(ctx)
		}
	})
}
