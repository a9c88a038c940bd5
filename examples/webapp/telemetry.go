package main

import (
	"context"
	"errors"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/propagation"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// telemetry is the program's one set of global providers. The guard knows
// nothing of it: its package otel finds them.
type telemetry struct {
	metrics http.Handler // for Prometheus to scrape
	tracer  trace.Tracer
	stops   []func(context.Context) error
}

// startTelemetry sets global providers: for Prometheus always, for OTLP where
// the environment names an endpoint.
func startTelemetry(ctx context.Context) (*telemetry, error) {
	registry := prometheus.NewRegistry()
	reader, err := otelprometheus.New(otelprometheus.WithRegisterer(registry))
	if err != nil {
		return nil, err
	}
	metrics := []sdkmetric.Option{sdkmetric.WithReader(reader)}
	var logs []sdklog.LoggerProviderOption
	var traces []sdktrace.TracerProviderOption
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		m, err := otlpmetrichttp.New(ctx)
		if err != nil {
			return nil, err
		}
		l, err := otlploghttp.New(ctx)
		if err != nil {
			return nil, err
		}
		t, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, err
		}
		metrics = append(metrics, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(m)))
		logs = append(logs, sdklog.WithProcessor(sdklog.NewBatchProcessor(l)))
		traces = append(traces, sdktrace.WithBatcher(t))
	}
	meters := sdkmetric.NewMeterProvider(metrics...)
	loggers := sdklog.NewLoggerProvider(logs...)
	tracers := sdktrace.NewTracerProvider(traces...)
	otel.SetMeterProvider(meters)
	otel.SetLoggerProvider(loggers)
	otel.SetTracerProvider(tracers)
	otel.SetTextMapPropagator(propagation.TraceContext{})
	return &telemetry{
		metrics: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
		tracer:  tracers.Tracer("webapp"),
		stops:   []func(context.Context) error{loggers.Shutdown, tracers.Shutdown, meters.Shutdown},
	}, nil
}

// shutdown sends what waits.
func (t *telemetry) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var errs []error
	for _, stop := range t.stops {
		errs = append(errs, stop(ctx))
	}
	return errors.Join(errs...)
}

// traced runs each request in a span, which the events of a leak then name.
func (t *telemetry) traced(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := otel.GetTextMapPropagator().Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, span := t.tracer.Start(ctx, r.Method, trace.WithSpanKind(trace.SpanKindServer))
		defer span.End()
		r = r.WithContext(ctx)
		h.ServeHTTP(w, r)
		if r.Pattern != "" { // a path would make a name of each mistyped one
			span.SetName(r.Pattern)
		}
	})
}
