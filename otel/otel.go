package otel

import (
	"context"
	"errors"
	"fmt"
	"sync"

	otelapi "go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// ScopeName is the instrumentation scope of everything emitted.
const ScopeName = "github.com/sqlite-leakguard/sqlite-leakguard/otel"

var background = context.Background()

var (
	mu      sync.Mutex
	running = make(map[*tracker.Tracker]*instrumentation)
)

func init() {
	i, err := start(tracker.Default(), config{})
	if err != nil {
		otelapi.Handle(err)
		return
	}
	i.imported = true
	running[tracker.Default()] = i
}

var errRunning = errors.New("otel: the tracker is instrumented already: its figures would be counted twice")

// Start instruments a tracker; nil is [tracker.Default]. What the import began
// for tracker.Default ends when that is started explicitly, and does not come
// back. A tracker that is started already is an error, because its figures
// would be counted twice; so are an instrument that the provider refuses, and an
// option that is nil.
//
// stop takes back everything that Start did: callback, subscription and hook.
// It is idempotent and may be called at any time, but not from a metric
// callback; an event that is being told at that moment may still arrive.
func Start(t *tracker.Tracker, opts ...Option) (stop func() error, err error) {
	if t == nil {
		t = tracker.Default()
	}
	var cfg config
	for i, o := range opts {
		if o == nil {
			return nil, fmt.Errorf("otel: Start: option %d of %d is nil", i+1, len(opts))
		}
		o(&cfg)
	}
	mu.Lock()
	defer mu.Unlock()
	if old, ok := running[t]; ok {
		if !old.imported {
			return nil, errRunning
		}
		delete(running, t)
		if err := old.stop(); err != nil {
			return nil, err
		}
	}
	i, err := start(t, cfg)
	if err != nil {
		return nil, err
	}
	running[t] = i
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		if running[t] != i {
			return nil
		}
		delete(running, t)
		return i.stop()
	}, nil
}

// instrumentation is what Start did.
type instrumentation struct {
	imported bool // by init
	undo     []func() error
}

func start(t *tracker.Tracker, cfg config) (*instrumentation, error) {
	i := &instrumentation{}
	explicit := cfg.loggers != nil
	if cfg.meters == nil {
		cfg.meters = otelapi.GetMeterProvider()
	}
	if cfg.loggers == nil {
		cfg.loggers = otelapi.GetLoggerProvider()
	}
	meter := cfg.meters.Meter(ScopeName, metric.WithSchemaURL(semconv.SchemaURL))
	logger := cfg.loggers.Logger(ScopeName, log.WithSchemaURL(semconv.SchemaURL))

	created, err := newCreateTime(meter, cfg.attrs)
	if err != nil {
		return nil, err
	}
	c := &collector{tracker: t, attrs: cfg.attrs}
	if cfg.useTime {
		used, err := newUseTime(meter, cfg.attrs)
		if err != nil {
			return nil, err
		}
		flush, cancel := t.TimeLeases(used.record)
		c.flush = append(c.flush, flush)
		i.later(cancel)
	}
	unregister, err := c.register(meter)
	if err != nil {
		return nil, errors.Join(err, i.stop())
	}
	i.undo = append(i.undo, unregister)

	e := &events{logger: logger, attrs: cfg.attrs}
	i.later(t.SubscribeLifecycle(func(ev tracker.Event) {
		if ev.Type == tracker.EventOpened && ev.Duration > 0 {
			created.record(ev.Pool, ev.Duration)
		}
		e.tell(ev)
	}))
	t.SetTraceHook(spans(logger, explicit))
	i.later(func() { t.SetTraceHook(nil) })
	return i, nil
}

func (i *instrumentation) later(f func()) {
	i.undo = append(i.undo, func() error { f(); return nil })
}

func (i *instrumentation) stop() error {
	var errs []error
	for _, f := range i.undo {
		errs = append(errs, f())
	}
	i.undo = nil
	return errors.Join(errs...)
}

// config is what options set.
type config struct {
	meters  metric.MeterProvider
	loggers log.LoggerProvider
	attrs   []attribute.KeyValue
	useTime bool
}

// Option is for Start.
type Option func(*config)

// WithMeterProvider takes the metrics elsewhere than to the global provider,
// which nil stands for.
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(c *config) { c.meters = p }
}

// WithLoggerProvider takes the events elsewhere than to the global provider,
// which nil stands for.
func WithLoggerProvider(p log.LoggerProvider) Option {
	return func(c *config) { c.loggers = p }
}

// WithAttributes adds attributes to every metric and event. Default none.
func WithAttributes(attrs ...attribute.KeyValue) Option {
	return func(c *config) { c.attrs = append(c.attrs, attrs...) }
}

// WithUseTime adds the metric db.client.connection.use_time. Default off,
// because it costs every lease two readings of the clock.
func WithUseTime() Option {
	return func(c *config) { c.useTime = true }
}
