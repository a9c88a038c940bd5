package otel

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// listen returns a channel that is closed when an event of that type was told
// to everybody who subscribed before.
func listen(t *testing.T, tr *tracker.Tracker, typ tracker.EventType) <-chan struct{} {
	done := make(chan struct{})
	var once sync.Once
	t.Cleanup(tr.SubscribeLifecycle(func(e tracker.Event) {
		if e.Type == typ {
			once.Do(func() { close(done) })
		}
	}))
	return done
}

// TestLeak follows a leaked transaction from its span to metrics and events.
func TestLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		tr := tracker.New(tracker.Options{})
		b.instrument(tr)
		p := newPool(t, tr, "db", limits(func(p *tracker.Policy) { p.LeakAfter = 2 * time.Minute }))
		c := p.Open(still{}, false, "")
		defer c.Close()
		time.Sleep(time.Second)
		c.Record()
		c.CheckOut("")
		c.Recorded()
		c.TraceLease(within(1))
		c.BeginTx("BEGIN", "")
		c.TraceTx(within(2))
		var rows tracker.Resource
		c.Record()
		c.OpenRows(&rows, "SELECT 1", "")
		c.Recorded()
		c.TraceResource(within(3), &rows)
		time.Sleep(time.Second)

		m := b.collect()
		for name, want := range map[string]float64{
			"sqlite_leakguard.transaction.count":      1,
			"sqlite_leakguard.transaction.oldest_age": 1,
			"sqlite_leakguard.rows.count":             1,
			"sqlite_leakguard.rows.oldest_age":        1,
			"sqlite_leakguard.statement.count":        0,
			"sqlite_leakguard.statement.oldest_age":   0,
			"sqlite_leakguard.leaks":                  0,
			"sqlite_leakguard.events.dropped":         0,
		} {
			if got, n := m[name].at(); got != want || n == 0 {
				t.Errorf("%s is %v in %d series, want %v", name, got, n, want)
			}
		}
		for s, want := range map[string]float64{"used": 1, "idle": 0} {
			if got, n := m["db.client.connection.count"].at(poolName, "db", state, s); got != want || n != 1 {
				t.Errorf("%v connections are %s", got, s)
			}
		}
		if got, n := m["sqlite_leakguard.leaks"].at("sqlite_leakguard.kind", "rows", "sqlite_leakguard.reason", "leak_after"); got != 0 || n != 1 {
			t.Errorf("before its first leak, the usual series is %v in %d series", got, n)
		}

		time.Sleep(10 * time.Minute) // reaped
		synctest.Wait()
		m = b.collect()
		for _, kind := range []string{"transaction", "rows"} {
			if got, _ := m["sqlite_leakguard.leaks"].at("sqlite_leakguard.kind", kind, "sqlite_leakguard.reason", "leak_after"); got != 1 {
				t.Errorf("%v leaks of kind %s", got, kind)
			}
			if got, _ := m["sqlite_leakguard.reaped"].at("sqlite_leakguard.kind", kind); got != 1 {
				t.Errorf("%v reaped of kind %s", got, kind)
			}
		}
		got := b.records()
		for kind, span := range map[string]byte{"transaction": 2, "rows": 3} {
			for _, what := range []string{"suspect", "reaped"} {
				r := event(t, got, "sqlite_leakguard."+kind+"."+what)
				if id := r.SpanID(); id[0] != span {
					t.Errorf("%s %s is of span %v, want %d", kind, what, id, span)
				}
				if text := attributesOf(r)["db.query.text"]; text.String() != "SELECT 1" {
					t.Errorf("%s %s shows %s", kind, what, text.String())
				}
			}
		}
	})
}

// TestPoolsComeAndGo: a closed pool's series end, and beyond a hundred pools
// the others share a name.
func TestPoolsComeAndGo(t *testing.T) {
	b := newBackend(t)
	tr := tracker.New(tracker.Options{})
	b.instrument(tr)
	var pools []*tracker.Pool
	var conns []*tracker.Conn
	for i := range maxPools + 20 {
		p := newPool(t, tr, fmt.Sprintf("db%03d", i), tracker.Policy{})
		pools = append(pools, p)
		conns = append(conns, p.Open(still{}, i%2 == 0, ""))
	}
	count := func() collected { return b.collect()["db.client.connection.count"] }
	expect := func(name string, want float64, series int) {
		t.Helper()
		if got, n := count().at(poolName, name); got != want || n != series {
			t.Errorf("%s has %v connections in %d series, want %v in %d", name, got, n, want, series)
		}
	}
	expect(otherPools, 20, 2)
	expect("db000", 1, 2)
	if sum, n := count().at(); sum != maxPools+20 || n != 2*(maxPools+1) {
		t.Errorf("%v connections in %d series", sum, n)
	}
	conns[0].Close()
	pools[0].Close()
	expect("db000", 0, 0)
	expect(otherPools, 19, 2) // one has a name of its own now
	for i := range pools {
		conns[i].Close()
		pools[i].Close()
	}
	if sum, n := count().at(); n != 0 {
		t.Errorf("%v connections in %d series of closed pools", sum, n)
	}
}

// TestDurations: opening and leases are timed, into the recommended buckets.
func TestDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		tr := tracker.New(tracker.Options{})
		b.instrument(tr, WithUseTime())
		p := newPool(t, tr, "db", tracker.Policy{})
		c := p.New(true, "")
		c.OpenedIn(3 * time.Millisecond)
		c.Register(still{})
		defer c.Close()
		time.Sleep(20 * time.Millisecond)
		c.Record()
		c.CheckIn()
		c.Recorded()
		synctest.Wait()
		m := b.collect()
		for name, want := range map[string]float64{"db.client.connection.create_time": 0.003, "db.client.connection.use_time": 0.02} {
			h := m[name]
			if len(h.points) != 1 || h.points[0].count != 1 || h.points[0].value != want || h.points[0].attrs[poolName] != "db" {
				t.Errorf("%s: %+v", name, h)
			}
			if got := fmt.Sprint(h.bounds); got != "[0.001 0.005 0.01 0.05 0.1 0.5 1 5 10]" {
				t.Errorf("%s has the boundaries %v", name, got)
			}
		}
	})
}

// TestHistogramsAreBounded: pools that come and go leave a bounded number of
// series, because a histogram's never end.
func TestHistogramsAreBounded(t *testing.T) {
	b := newBackend(t)
	d, err := newCreateTime(b.meters.Meter(ScopeName), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		d.record(fmt.Sprint(i), time.Millisecond)
	}
	h := b.collect()["db.client.connection.create_time"]
	if len(h.points) != maxPools+1 {
		t.Errorf("%d series", len(h.points))
	}
}

// TestStartTwice is an error, and a stop is idempotent.
func TestStartTwice(t *testing.T) {
	b := newBackend(t)
	tr := tracker.New(tracker.Options{})
	if _, err := Start(tr, WithUseTime(), nil); err == nil || err.Error() != "otel: Start: option 2 of 2 is nil" {
		t.Errorf("an option that is nil: %v", err)
	}
	stop := b.instrument(tr)
	if _, err := Start(tr); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("the second Start: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	again := b.instrument(tr)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if len(b.collect()) == 0 {
		t.Error("the first stop ended the second Start")
	}
	if err := again(); err != nil {
		t.Error(err)
	}
	if m := b.collect(); len(m) != 0 {
		t.Errorf("after stop: %v", m)
	}
}

// TestLeavesNothing starts and stops a thousand times.
func TestLeavesNothing(t *testing.T) {
	b := newBackend(t)
	tr := tracker.New(tracker.Options{})
	p := newPool(t, tr, "db", tracker.Policy{})
	c := p.Open(still{}, false, "")
	defer c.Close()
	cycle := func() {
		stop, err := Start(tr, WithMeterProvider(b.meters), WithLoggerProvider(b.logs), WithUseTime())
		if err != nil {
			t.Fatal(err)
		}
		b.collect()
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for range 10 {
		cycle()
	}
	goroutines, before := runtime.NumGoroutine(), heap()
	const n = 1000
	for range n {
		cycle()
	}
	after := heap()
	t.Logf("%d goroutines before, %d after; heap %+d bytes", goroutines, runtime.NumGoroutine(), int64(after)-int64(before))
	if g := runtime.NumGoroutine(); g > goroutines {
		t.Errorf("%d goroutines before, %d after", goroutines, g)
	}
	if after > before+100*n {
		t.Errorf("the heap grew by %d bytes in %d rounds", after-before, n)
	}
	if m := b.collect(); len(m) != 0 {
		t.Errorf("series are left: %v", m)
	}
	mu.Lock()
	defer mu.Unlock()
	if _, ok := running[tr]; ok {
		t.Error("the tracker is still known")
	}
}

// load runs leases on n connections until stop is closed.
func load(tr *tracker.Tracker, p *tracker.Pool, n int, stop <-chan struct{}) *sync.WaitGroup {
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c := p.Open(still{}, false, "")
			defer c.Close()
			var rows, stmt tracker.Resource
			for {
				select {
				case <-stop:
					return
				default:
				}
				c.Record()
				c.CheckOut("")
				c.Recorded()
				c.TraceLease(context.Background())
				c.BeginTx("BEGIN", "")
				c.TraceTx(within(1))
				c.Record()
				c.OpenRows(&rows, "SELECT 1", "")
				c.Recorded()
				c.TraceResource(within(2), &rows)
				c.OpenStatement(&stmt, "SELECT 1", "")
				c.Record()
				c.CloseResource(&rows)
				c.CloseResource(&stmt)
				c.Recorded()
				c.EndTx()
				c.Record()
				c.CheckIn()
				c.Recorded()
				runtime.Gosched()
			}
		})
	}
	return &wg
}

// TestCollectUnderLoad is for the race detector: two readers collect while
// leases run, pools come and go, and somebody starts and stops.
func TestCollectUnderLoad(t *testing.T) {
	b := newBackend(t)
	second := sdkmetric.NewManualReader()
	b.meters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(b.reader), sdkmetric.WithReader(second))
	other := &backend{t: t, reader: second}
	tr := tracker.New(tracker.Options{})
	p := newPool(t, tr, "db", tracker.Policy{})
	stop := make(chan struct{})
	loads := load(tr, p, 4, stop)
	for range 20 {
		end := b.instrument(tr, WithUseTime())
		var readers sync.WaitGroup
		for _, r := range []*backend{b, other} {
			readers.Go(func() {
				for range 5 {
					r.collect()
				}
			})
		}
		extra := newPool(t, tr, "extra", tracker.Policy{})
		extra.Open(still{}, true, "").Close()
		extra.Close()
		readers.Wait()
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	loads.Wait()
}

// crowd is a thousand connections in so many pools, each with a transaction,
// rows and two statements.
func crowd(t testing.TB, pools int) *tracker.Tracker {
	tr := tracker.New(tracker.Options{})
	for i := range pools {
		p := newPool(t, tr, fmt.Sprint("db", i), tracker.Policy{})
		for range 1000 / pools {
			c := p.Open(still{}, true, "")
			t.Cleanup(c.Close)
			c.BeginTx("BEGIN", "")
			c.Record()
			c.OpenRows(new(tracker.Resource), "SELECT 1", "")
			c.Recorded()
			c.OpenStatement(new(tracker.Resource), "SELECT 1", "")
			c.OpenStatement(new(tracker.Resource), "SELECT 1", "")
		}
	}
	return tr
}

// TestCollectIsQuick: a thousand connections in less than a millisecond, with
// the SDK. In a hundred pools they have 4200 series, for which the SDK alone
// needs two; there it is the guard's own share. The fastest of several counts,
// for the machine may be busy.
func TestCollectIsQuick(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector is slow")
	}
	quick := func(what string, pools int, collect func()) {
		best := time.Hour
		for range 50 {
			began := time.Now()
			collect()
			best = min(best, time.Since(began))
		}
		t.Logf("%s: 1000 connections in %d pools: %v", what, pools, best)
		if best > time.Millisecond {
			t.Errorf("%s: 1000 connections in %d pools take %v", what, pools, best)
		}
	}
	for _, pools := range []int{1, 10} {
		b := newBackend(t)
		b.instrument(crowd(t, pools))
		var rm metricdata.ResourceMetrics
		quick("with the SDK", pools, func() { b.read(&rm) })
	}
	quick("alone", 100, alone(t, 100))
}

// alone collects a crowd for a provider that does nothing.
func alone(t testing.TB, pools int) (collect func()) {
	c := &collector{tracker: crowd(t, pools)}
	if _, err := c.register(noop.Meter{}); err != nil {
		t.Fatal(err)
	}
	return func() { c.collect(t.Context(), noop.Observer{}) }
}

// BenchmarkCollectAlone is the guard's own share of BenchmarkCollect.
func BenchmarkCollectAlone(b *testing.B) {
	for _, pools := range []int{1, 10, 100} {
		b.Run(fmt.Sprint("pools=", pools), func(b *testing.B) {
			collect := alone(b, pools)
			b.ReportAllocs()
			for b.Loop() {
				collect()
			}
		})
	}
}

func BenchmarkCollect(b *testing.B) {
	for _, pools := range []int{1, 10, 100} {
		b.Run(fmt.Sprint("pools=", pools), func(b *testing.B) {
			back := newBackend(b)
			back.instrument(crowd(b, pools))
			var rm metricdata.ResourceMetrics
			b.ReportAllocs()
			for b.Loop() {
				back.read(&rm)
			}
		})
	}
}
