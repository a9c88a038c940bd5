package otel

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError + 1}))

// still is a driver that lets the reaper do everything.
type still struct{}

func (still) Look(f func()) bool       { f(); return true }
func (still) Nudge() bool              { return false }
func (still) TxState() tracker.TxState { return tracker.TxUnknown }
func (still) Memory() (int64, bool)    { return 0, false }

// Carry says that it was done, as a driver would that has nothing to do.
func (s still) Carry(o *tracker.Order) tracker.Outcome { return tracker.Done }

func newPool(t testing.TB, tr *tracker.Tracker, name string, p tracker.Policy) *tracker.Pool {
	t.Helper()
	mode := tracker.Enforce
	if p == (tracker.Policy{}) {
		mode = tracker.Basic
	}
	pool, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: name, Mode: mode, Policy: p, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	return pool
}

// limits are off, but for set.
func limits(set func(p *tracker.Policy)) tracker.Policy {
	p := tracker.Policy{CheckInterval: time.Minute, MemoryInterval: time.Minute}
	set(&p)
	return p
}

// backend is what a program's providers bring in.
type backend struct {
	t      testing.TB
	reader *sdkmetric.ManualReader
	meters *sdkmetric.MeterProvider

	logs *sdklog.LoggerProvider
	mu   sync.Mutex
	got  []sdklog.Record
}

func newBackend(t testing.TB) *backend {
	b := &backend{t: t, reader: sdkmetric.NewManualReader()}
	b.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.reader))
	b.logs = sdklog.NewLoggerProvider(sdklog.WithProcessor(b))
	return b
}

// instrument starts tr with the backend's providers until the test ends.
func (b *backend) instrument(tr *tracker.Tracker, opts ...Option) (stop func() error) {
	b.t.Helper()
	stop, err := Start(tr, append([]Option{WithMeterProvider(b.meters), WithLoggerProvider(b.logs)}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := stop(); err != nil {
			b.t.Error(err)
		}
	})
	return stop
}

func (b *backend) OnEmit(_ context.Context, r *sdklog.Record) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.got = append(b.got, r.Clone())
	return nil
}

func (b *backend) Enabled(context.Context, sdklog.EnabledParameters) bool { return true }
func (b *backend) Shutdown(context.Context) error                         { return nil }
func (b *backend) ForceFlush(context.Context) error                       { return nil }

// records returns what arrived and forgets it.
func (b *backend) records() []sdklog.Record {
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.got
	b.got = nil
	return got
}

// event returns the one record of that name.
func event(t testing.TB, records []sdklog.Record, name string) sdklog.Record {
	t.Helper()
	var names []string
	for _, r := range records {
		if r.EventName() == name {
			return r
		}
		names = append(names, r.EventName())
	}
	t.Fatalf("no event %s among %q", name, names)
	return sdklog.Record{}
}

func attributesOf(r sdklog.Record) map[attribute.Key]attribute.Value {
	m := make(map[attribute.Key]attribute.Value)
	r.WalkAttributes(func(kv attribute.KeyValue) bool {
		m[kv.Key] = kv.Value
		return true
	})
	return m
}

// point is one series of a collection.
type point struct {
	attrs map[string]string
	value float64 // of a histogram the sum
	count uint64  // of a histogram
}

// collected is one metric of a collection.
type collected struct {
	instrument, unit string
	bounds           []float64
	points           []point
}

func (b *backend) read(rm *metricdata.ResourceMetrics) {
	b.t.Helper()
	if err := b.reader.Collect(context.Background(), rm); err != nil {
		b.t.Fatal(err)
	}
}

func (b *backend) collect() map[string]collected {
	b.t.Helper()
	var rm metricdata.ResourceMetrics
	b.read(&rm)
	all := make(map[string]collected)
	for _, sm := range rm.ScopeMetrics {
		for _, m := range sm.Metrics {
			c := collected{unit: m.Unit}
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				c.instrument = "UpDownCounter"
				if d.IsMonotonic {
					c.instrument = "Counter"
				}
				for _, p := range d.DataPoints {
					c.points = append(c.points, point{attrs: texts(p.Attributes), value: float64(p.Value)})
				}
			case metricdata.Sum[float64]:
				c.instrument = "UpDownCounter"
				if d.IsMonotonic {
					c.instrument = "Counter"
				}
				for _, p := range d.DataPoints {
					c.points = append(c.points, point{attrs: texts(p.Attributes), value: p.Value})
				}
			case metricdata.Gauge[float64]:
				c.instrument = "Gauge"
				for _, p := range d.DataPoints {
					c.points = append(c.points, point{attrs: texts(p.Attributes), value: p.Value})
				}
			case metricdata.Gauge[int64]:
				c.instrument = "Gauge"
				for _, p := range d.DataPoints {
					c.points = append(c.points, point{attrs: texts(p.Attributes), value: float64(p.Value)})
				}
			case metricdata.Histogram[float64]:
				c.instrument = "Histogram"
				for _, p := range d.DataPoints {
					c.bounds = p.Bounds
					c.points = append(c.points, point{attrs: texts(p.Attributes), value: p.Sum, count: p.Count})
				}
			default:
				b.t.Errorf("%s is a %T", m.Name, d)
			}
			if len(c.points) > 0 {
				all[m.Name] = c
			}
		}
	}
	return all
}

func texts(s attribute.Set) map[string]string {
	m := make(map[string]string)
	for i := s.Iter(); i.Next(); {
		kv := i.Attribute()
		m[string(kv.Key)] = kv.Value.String()
	}
	return m
}

// at returns the sum of a metric's points that have these attributes, given as
// key, value, key, value.
func (c collected) at(attrs ...string) (sum float64, n int) {
	for _, p := range c.points {
		fits := true
		for kv := range slices.Chunk(attrs, 2) {
			fits = fits && p.attrs[kv[0]] == kv[1]
		}
		if fits {
			sum += p.value
			n++
		}
	}
	return sum, n
}

const (
	poolName = "db.client.connection.pool.name"
	state    = "db.client.connection.state"
)

// within is a context in the span n.
func within(n byte) context.Context {
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}, TraceFlags: trace.FlagsSampled,
	}))
}

var _ sdklog.Processor = (*backend)(nil)
