package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
)

// What the collector writes: OTLP as JSON, one export a line, as far as the
// tests read it. https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding

type exported struct {
	ResourceMetrics []struct {
		ScopeMetrics []struct {
			Scope   scope
			Metrics []metric
		}
	}
	ResourceLogs []struct {
		ScopeLogs []struct {
			Scope      scope
			LogRecords []record
		}
	}
}

type scope struct{ Name string }

type metric struct {
	Name, Unit string
	Sum        *data
	Gauge      *data
	Histogram  *data
}

type data struct {
	IsMonotonic bool
	DataPoints  []point
}

type point struct {
	Attributes     attributes
	AsInt          string
	AsDouble       float64
	Count          string
	ExplicitBounds []float64
}

func (p point) value() float64 {
	if p.AsInt == "" {
		return p.AsDouble
	}
	n, err := strconv.ParseFloat(p.AsInt, 64)
	if err != nil {
		return -1
	}
	return n
}

type record struct {
	EventName       string
	SeverityNumber  int
	TraceID, SpanID string
	Body            value
	Attributes      attributes
}

type attributes []struct {
	Key   string
	Value value
}

type value struct {
	StringValue *string
	IntValue    *string
	DoubleValue *float64
	BoolValue   *bool
}

// text returns the value, and the type as doc.go spells it.
func (v value) text() (text, kind string) {
	switch {
	case v.StringValue != nil:
		return *v.StringValue, "string"
	case v.IntValue != nil:
		return *v.IntValue, "int"
	case v.DoubleValue != nil:
		return strconv.FormatFloat(*v.DoubleValue, 'g', -1, 64), "double"
	case v.BoolValue != nil:
		return strconv.FormatBool(*v.BoolValue), "boolean"
	}
	return "", ""
}

func (a attributes) get(key string) string {
	for _, kv := range a {
		if kv.Key == key {
			text, _ := kv.Value.text()
			return text
		}
	}
	return ""
}

func (a attributes) keys() []string {
	keys := make(map[string]bool)
	for _, kv := range a {
		keys[kv.Key] = true
	}
	return slices.Sorted(maps.Keys(keys))
}

// written reads a file of the collector.
func written(t *testing.T, file string) (exports []exported) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var e exported
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v in %s", err, lines.Text())
		}
		exports = append(exports, e)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return exports
}

const ours = "github.com/sqlite-leakguard/sqlite-leakguard/otel"

// metricsOf returns the library's metrics, the last export of each.
func metricsOf(exports []exported) map[string]metric {
	all := make(map[string]metric)
	for _, e := range exports {
		for _, rm := range e.ResourceMetrics {
			for _, sm := range rm.ScopeMetrics {
				if sm.Scope.Name != ours {
					continue
				}
				for _, m := range sm.Metrics {
					all[m.Name] = m
				}
			}
		}
	}
	return all
}

// instrument returns the kind as doc.go spells it, and the points.
func (m metric) instrument() (string, []point) {
	switch {
	case m.Sum != nil && m.Sum.IsMonotonic:
		return "Counter", m.Sum.DataPoints
	case m.Sum != nil:
		return "UpDownCounter", m.Sum.DataPoints
	case m.Gauge != nil:
		return "Gauge", m.Gauge.DataPoints
	case m.Histogram != nil:
		return "Histogram", m.Histogram.DataPoints
	}
	return "", nil
}

// eventsOf returns the library's events by name.
func eventsOf(exports []exported) map[string][]record {
	all := make(map[string][]record)
	for _, e := range exports {
		for _, rl := range e.ResourceLogs {
			for _, sl := range rl.ScopeLogs {
				if sl.Scope.Name != ours {
					continue
				}
				for _, r := range sl.LogRecords {
					all[r.EventName] = append(all[r.EventName], r)
				}
			}
		}
	}
	return all
}
