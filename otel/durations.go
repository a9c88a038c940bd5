package otel

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"
)

// boundaries are those that the conventions recommend for db.client metrics, in
// seconds. The generated instruments do not set them, and by default everything
// below five seconds would fall into one bucket.
var boundaries = metric.WithExplicitBucketBoundaries(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)

// durations is a histogram of seconds by pool. Its series stay for as long as
// the provider lives, so the pools that are told apart are the first ones.
type durations struct {
	inst  metric.Float64Histogram
	attrs []attribute.KeyValue

	mu    sync.Mutex // guards the rest
	names poolNames
	opts  map[string][]metric.RecordOption
}

func newCreateTime(m metric.Meter, attrs []attribute.KeyValue) (*durations, error) {
	h, err := dbconv.NewClientConnectionCreateTime(m, boundaries)
	return &durations{inst: h.Inst(), attrs: attrs}, err
}

func newUseTime(m metric.Meter, attrs []attribute.KeyValue) (*durations, error) {
	h, err := dbconv.NewClientConnectionUseTime(m, boundaries)
	return &durations{inst: h.Inst(), attrs: attrs}, err
}

func (d *durations) record(pool string, took time.Duration) {
	if d.inst.Enabled(background) {
		d.inst.Record(background, took.Seconds(), d.options(pool)...)
	}
}

func (d *durations) options(pool string) []metric.RecordOption {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := d.names.of(pool)
	if opts, ok := d.opts[name]; ok {
		return opts
	}
	set := attribute.NewSet(poolAttributes(d.attrs, name)...)
	opts := []metric.RecordOption{metric.WithAttributeSet(set)}
	if d.opts == nil {
		d.opts = make(map[string][]metric.RecordOption)
	}
	d.opts[name] = opts
	return opts
}
