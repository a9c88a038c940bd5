//go:build !nopeers

package main

import (
	"context"

	xsam "github.com/XSAM/otelsql"
	"github.com/mattn/go-sqlite3"
	nhat "go.nhat.io/otelsql"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

const (
	xsamModule = "github.com/XSAM/otelsql"
	nhatModule = "go.nhat.io/otelsql"
)

// otelPeers run twice: without an SDK, as a library that is linked but not
// configured, and with one.
var otelPeers = []candidate{
	{
		name: "otelsql", what: "XSAM/otelsql with no-op providers",
		module: xsamModule, wrapsAll: true, start: withProviders(noProviders, openXSAM),
	},
	{
		name: "otelsql-sdk", what: "XSAM/otelsql with SDK metrics and traces, no exporter",
		module: xsamModule, wrapsAll: true, start: withProviders(sdkProviders, openXSAM),
	},
	{
		name: "nhat", what: "go.nhat.io/otelsql with no-op providers; does not wrap rows",
		module: nhatModule, start: withProviders(noProviders, openNhat),
	},
	{
		name: "nhat-sdk", what: "go.nhat.io/otelsql with SDK metrics and traces, no exporter; does not wrap rows",
		module: nhatModule, start: withProviders(sdkProviders, openNhat),
	},
}

// providers are made for one candidate: nothing of OpenTelemetry is global here.
type providers struct {
	metrics metric.MeterProvider
	traces  trace.TracerProvider
	stop    func()
}

func noProviders() providers {
	return providers{metricnoop.NewMeterProvider(), tracenoop.NewTracerProvider(), nil}
}

// sdkProviders record everything and export nothing: what remains is the
// instrumentation and the SDK's own work.
func sdkProviders() providers {
	m := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader()))
	t := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
	return providers{m, t, func() {
		m.Shutdown(context.Background())
		t.Shutdown(context.Background())
	}}
}

func withProviders(provide func() providers, open func(providers) opener) func() (opener, func(), error) {
	return func() (opener, func(), error) {
		p := provide()
		return open(p), p.stop, nil
	}
}

func openXSAM(p providers) opener {
	return opensWith(xsam.WrapDriver(&sqlite3.SQLiteDriver{},
		xsam.WithMeterProvider(p.metrics), xsam.WithTracerProvider(p.traces)))
}

// openNhat allows root spans: without a span in the context nothing would be
// traced otherwise.
func openNhat(p providers) opener {
	return opensWith(nhat.Wrap(&sqlite3.SQLiteDriver{},
		nhat.WithMeterProvider(p.metrics), nhat.WithTracerProvider(p.traces), nhat.AllowRoot()))
}
