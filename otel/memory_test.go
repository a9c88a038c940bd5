package otel

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/log"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// heavy is a connection that holds memory.
type heavy struct{ still }

func (heavy) Memory() (int64, bool) { return 2000, true }

// TestMemory follows pressure as it comes and goes.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		tr := tracker.New(tracker.Options{})
		b.instrument(tr)
		var mu sync.Mutex
		used := 90.0
		tr.SetMemorySource(func() tracker.Memory {
			mu.Lock()
			defer mu.Unlock()
			return tracker.Memory{Total: 100, UsedPercent: used, SQLite: 7000}
		})
		p := newPool(t, tr, "db", limits(func(p *tracker.Policy) { p.Pressure = 0.85 }))
		for range 2 {
			c := p.Open(heavy{}, false, "")
			defer c.Close()
		}
		expect := func(active, begun, sqlite float64) {
			t.Helper()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			m := b.collect()
			for name, want := range map[string]float64{
				"sqlite_leakguard.memory.pressure.active": active,
				"sqlite_leakguard.memory.pressure.events": begun,
				"sqlite_leakguard.sqlite.memory":          sqlite,
				"sqlite_leakguard.connection.memory":      4000,
				"sqlite_leakguard.wal.size":               0,
			} {
				if got, n := m[name].at(); got != want || n != 1 {
					t.Errorf("%s is %v in %d series, want %v", name, got, n, want)
				}
			}
		}
		expect(1, 1, 7000)
		r := event(t, b.records(), "sqlite_leakguard.memory.pressure.begun")
		attrs := attributesOf(r)
		if r.Severity() != log.SeverityWarn || fmt.Sprint(attrs["sqlite_leakguard.memory.utilization"].AsFloat64(),
			attrs["sqlite_leakguard.memory.limit"].AsFloat64()) != "0.9 0.85" {
			t.Errorf("%v %v", r.Severity(), attrs)
		}
		if _, ok := attrs[poolName]; ok {
			t.Error("pressure is said to be a pool's")
		}
		mu.Lock()
		used = 10
		mu.Unlock()
		expect(0, 1, 7000)
		if r := event(t, b.records(), "sqlite_leakguard.memory.pressure.ended"); r.Severity() != log.SeverityInfo {
			t.Errorf("severity %v", r.Severity())
		}
	})
}

// TestDegraded tells what is missing.
func TestDegraded(t *testing.T) {
	b := newBackend(t)
	e := events{logger: b.logs.Logger(ScopeName)}
	e.tell(tracker.Event{Type: tracker.EventDegraded, Pool: "db", Reason: "the machine's memory cannot be read"})
	r := event(t, b.records(), "sqlite_leakguard.memory.degraded")
	if attrs := attributesOf(r); len(attrs) != 1 || r.Body().String() != "the machine's memory cannot be read" {
		t.Errorf("%q with %v", r.Body().String(), attrs)
	}
}

// TestBlockedAndForceClosed are counters of a pool.
func TestBlockedAndForceClosed(t *testing.T) {
	b := newBackend(t)
	tr := tracker.New(tracker.Options{})
	b.instrument(tr)
	c := newPool(t, tr, "db", tracker.Policy{}).Open(still{}, true, "")
	defer c.Close()
	for _, want := range []float64{0, 3} {
		m := b.collect()
		if got, n := m["sqlite_leakguard.blocked"].at(poolName, "db", "sqlite_leakguard.reason", "busy_snapshot"); got != want || n != 1 {
			t.Errorf("%v blocked in %d series, want %v", got, n, want)
		}
		if _, n := m["sqlite_leakguard.blocked"].at(poolName, "db"); n != 3 {
			t.Errorf("%d reasons", n)
		}
		if got, n := m["sqlite_leakguard.force_closed"].at(poolName, "db"); got != want/3 || n != 1 {
			t.Errorf("%v closed by force in %d series, want %v", got, n, want/3)
		}
		for range 3 {
			c.Blocked(tracker.ReasonBusySnapshot, false)
		}
		c.ForceClosed()
	}
}

// TestPoolSuspect: too many pools of one file are a leak without a connection.
func TestPoolSuspect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBackend(t)
		tr := tracker.New(tracker.Options{})
		b.instrument(tr)
		var pools []*tracker.Pool
		for range 2 {
			p, err := tr.NewPool(tracker.PoolConfig{
				Name: "db", Mode: tracker.Basic, Path: "/db", Logger: quiet,
				Policy: limits(func(p *tracker.Policy) { p.MaxPools = 2 }),
			})
			if err != nil {
				t.Fatal(err)
			}
			pools = append(pools, p)
		}
		synctest.Wait()
		attrs := attributesOf(event(t, b.records(), "sqlite_leakguard.pool.suspect"))
		if _, ok := attrs["sqlite_leakguard.connection.id"]; ok || attrs["sqlite_leakguard.count"].AsInt64() != 2 ||
			attrs["sqlite_leakguard.reason"].AsString() != "max_pools" || attrs["code.file.path"].AsString() == "" {
			t.Errorf("attributes %v", attrs)
		}
		if got, _ := b.collect()["sqlite_leakguard.leaks"].at("sqlite_leakguard.kind", "pool", "sqlite_leakguard.reason", "max_pools"); got != 1 {
			t.Errorf("%v leaks", got)
		}
		for _, p := range pools {
			p.Close()
		}
		synctest.Wait()
		event(t, b.records(), "sqlite_leakguard.pool.recovered")
	})
}
