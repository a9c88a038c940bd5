package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	otelapi "go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/sqlite-leakguard/sqlite-leakguard/otel"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestCollector runs a program that leaks each kind and sends everything to a
// real collector, and compares what that wrote with the tables of the package
// documentation. The program is this test in a process of its own: what it
// forgets stays for as long as the process.
func TestCollector(t *testing.T) {
	const child = "LEAKGUARD_PROGRAM"
	if os.Getenv(child) != "" {
		export(t)
		return
	}
	c := startCollector(t)
	p := run(t, []string{child + "=1", "OTEL_EXPORTER_OTLP_ENDPOINT=" + c.endpoint},
		os.Args[0], "-test.run=^TestCollector$", "-test.timeout=3m")
	p.wait()
	c.stop() // writes what waits
	checkMetrics(t, metricsOf(written(t, c.metrics)))
	checkEvents(t, eventsOf(written(t, c.logs)))
}

// export is the program.
func export(t *testing.T) {
	ctx := context.Background()
	metrics, err := otlpmetrichttp.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	logs, err := otlploghttp.New(ctx)
	if err != nil {
		t.Fatal(err)
	}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics)))
	loggers := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(logs)))
	otelapi.SetMeterProvider(meters)
	otelapi.SetLoggerProvider(loggers)
	stop, err := otel.Start(tracker.Default(), otel.WithUseTime())
	if err != nil {
		t.Fatal(err)
	}

	// Subscribers are told one after the other: what arrives here was emitted.
	seen := make(map[string]bool)
	var mu sync.Mutex
	cancel := tracker.Default().SubscribeLifecycle(func(e tracker.Event) {
		name := "connection." + e.Type.String()
		switch {
		case e.Leak != nil:
			name = e.Leak.Kind.String() + "." + e.Type.String()
		case e.Starved != nil, e.Places != nil:
			name = "pool." + e.Type.String()
		case e.Type == tracker.EventDegraded:
			name = "memory.degraded"
		case e.Pressure != nil && e.Pressure.On:
			name = "memory.pressure.begun"
		case e.Pressure != nil:
			name = "memory.pressure.ended"
		}
		mu.Lock()
		defer mu.Unlock()
		seen[e.Pool+" "+name] = true
	})
	defer cancel()
	program(t, func(name string) {
		t.Helper()
		eventually(t, name, func() error {
			runtime.GC() // for what collection proves
			mu.Lock()
			defer mu.Unlock()
			if !seen[name] {
				return errors.New("nothing was told of it")
			}
			return nil
		})
	})

	bounded, done := context.WithTimeout(ctx, 30*time.Second)
	defer done()
	for _, end := range []func() error{
		func() error { return loggers.Shutdown(bounded) },
		func() error { return meters.Shutdown(bounded) },
		stop,
	} {
		if err := end(); err != nil {
			t.Error(err)
		}
	}
}

// above stands for any value above 0.
const above = -1

func checkMetrics(t *testing.T, got map[string]metric) {
	t.Helper()
	rows := table(t, "name instrument")
	for _, row := range rows {
		m, ok := got[row[0]]
		if !ok {
			t.Errorf("the collector got no %s", row[0])
			continue
		}
		kind, points := m.instrument()
		var attrs attributes
		for _, p := range points {
			attrs = append(attrs, p.Attributes...)
			if kind == "Histogram" && !slices.Equal(p.ExplicitBounds, []float64{.001, .005, .01, .05, .1, .5, 1, 5, 10}) {
				t.Errorf("%s has the bounds %v", m.Name, p.ExplicitBounds)
			}
		}
		is := []string{row[0], kind, m.Unit, strings.Join(attrs.keys(), ", ")}
		if want := append(row, "")[:4]; !slices.Equal(is, want) {
			t.Errorf("the collector got %q, doc.go says %q", is, want)
		}
	}
	if len(rows) != len(got) {
		t.Errorf("the collector got %d metrics, doc.go has %d", len(got), len(rows))
	}
	for _, want := range []struct {
		metric string
		attrs  string
		value  float64
	}{
		{"sqlite_leakguard.leaks", "enforced transaction leak_after", 1},
		{"sqlite_leakguard.leaks", "observed statement max_statements", 1},
		{"sqlite_leakguard.leaks", "proof rows proven", 1},
		{"sqlite_leakguard.reaped", "enforced rows", 1},
		{"sqlite_leakguard.recovered", "observed transaction", 1},
		{"sqlite_leakguard.transaction.count", "held", 1},
		{"sqlite_leakguard.rows.count", "held", 1},
		{"sqlite_leakguard.statement.count", "held", 1},
		{"db.client.connection.count", "held used", 1},
		{"db.client.connection.count", "held idle", 0},
		{"sqlite_leakguard.recycled", "heavy pressure", 1},
		{"sqlite_leakguard.force_closed", "heavy", 1},
		{"sqlite_leakguard.blocked", "blocked busy", 1},
		{"sqlite_leakguard.blocked", "blocked locked", 0},
		{"sqlite_leakguard.lock.waits", "blocked", 1},
		{"sqlite_leakguard.leaks", "logged transaction wal_limit", 1},
		{"sqlite_leakguard.leaks", "again pool max_pools", 1},
		{"sqlite_leakguard.recovered", "again pool", 1},
		{"sqlite_leakguard.sqlite.memory", "", sqliteBytes},
		{"sqlite_leakguard.memory.pressure.active", "", 0},
		{"sqlite_leakguard.memory.pressure.events", "", 1},
		{"sqlite_leakguard.connection.memory", "heavy", above},
		{"sqlite_leakguard.wal.size", "logged", above},
	} {
		_, points := got[want.metric].instrument()
		found := false
		for _, p := range points {
			var words []string
			for _, key := range []string{"db.client.connection.pool.name", "db.client.connection.state", "sqlite_leakguard.kind", "sqlite_leakguard.reason"} {
				if v := p.Attributes.get(key); v != "" {
					words = append(words, v)
				}
			}
			if strings.Join(words, " ") == want.attrs {
				found = true
				if p.value() != want.value && !(want.value == above && p.value() > 0) {
					t.Errorf("%s of %s is %v, want %v", want.metric, want.attrs, p.value(), want.value)
				}
			}
		}
		if !found {
			t.Errorf("no %s of %s", want.metric, want.attrs)
		}
	}
}

func checkEvents(t *testing.T, got map[string][]record) {
	t.Helper()
	severities := map[string]int{"DEBUG": 5, "INFO": 9, "WARN": 13}
	rows := table(t, "name severity")
	for _, row := range rows {
		records := got[row[0]]
		if len(records) == 0 {
			t.Errorf("the collector got no %s", row[0])
			continue
		}
		if n := records[0].SeverityNumber; n != severities[row[1]] {
			t.Errorf("%s has the severity %d, doc.go says %s", row[0], n, row[1])
		}
	}
	if len(rows) != len(got) {
		t.Errorf("the collector got %d kinds of events, doc.go has %d", len(got), len(rows))
	}

	types := make(map[string]string)
	for _, row := range table(t, "attribute type") {
		types[row[0]] = row[1]
	}
	for name, records := range got {
		for _, r := range records {
			for _, kv := range r.Attributes {
				if _, kind := kv.Value.text(); types[kv.Key] != kind {
					t.Errorf("%s has %s of type %s, doc.go says %q", name, kv.Key, kind, types[kv.Key])
				}
			}
		}
	}

	source, err := filepath.Abs("leaks_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range plants {
		for _, name := range p.events {
			line := strconv.Itoa(lineOf(t, "leaks_test.go", p.mark))
			var others []string
			found := slices.ContainsFunc(got["sqlite_leakguard."+name], func(r record) bool {
				a := r.Attributes
				others = append(others, a.get("code.file.path")+":"+a.get("code.line.number")+" "+r.TraceID+" "+r.SpanID)
				return a.get("code.file.path") == source &&
					a.get("code.line.number") == line &&
					strings.HasPrefix(a.get("code.function.name"), ours[:len(ours)-len("otel")]+"integration.") &&
					strings.Contains(a.get("code.stacktrace"), "leaks_test.go:"+line) &&
					r.TraceID == traceID(p.span) && r.SpanID == spanID(p.span)
			})
			if !found {
				t.Errorf("no %s of line %s in trace %s among %q", name, line, traceID(p.span), others)
			}
		}
	}
	checkBlocked(t, got["sqlite_leakguard.connection.blocked"])
	text := slices.ContainsFunc(got["sqlite_leakguard.rows.reaped"], func(r record) bool {
		return r.Attributes.get("db.query.text") == "SELECT text FROM notes"
	})
	if !text {
		t.Error("no db.query.text")
	}
}

var columns = regexp.MustCompile(` {2,}`)

// table reads a table of the package documentation, named by its first two
// columns, as the package's own tests do.
func table(t *testing.T, name string) (rows [][]string) {
	t.Helper()
	doc, err := os.ReadFile("../otel/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(doc)) {
		row, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "//\t")
		cells := columns.Split(row, -1)
		switch {
		case !indented || len(cells) < 2:
			inside = false
		case cells[0]+" "+cells[1] == name:
			inside = true
		case inside:
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		t.Fatalf("doc.go has no table of %s", name)
	}
	return rows
}
