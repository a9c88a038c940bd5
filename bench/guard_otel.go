//go:build !nopeers

package main

import (
	"context"
	"database/sql"
	"errors"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/otel"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// guardOTel is the guard as an instrumented program has it.
var guardOTel = candidate{
	name: guardName + "-otel", what: "the guard with OpenTelemetry: SDK metrics collected each second, SDK logs, no exporter",
	module: guardModule, wrapsAll: true, start: startGuardOTel,
}

// The import has instrumented the default tracker, which is that of the other
// guards: they are to stay as they are without it.
func init() {
	stop, err := otel.Start(tracker.Default())
	if err == nil {
		err = stop()
	}
	if err != nil {
		panic(err)
	}
}

// startGuardOTel has a tracker of its own.
func startGuardOTel() (opener, func(), error) {
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(
		sdkmetric.NewPeriodicReader(noExport{}, sdkmetric.WithInterval(time.Second))))
	loggers := sdklog.NewLoggerProvider()
	own := tracker.New(tracker.Options{})
	stop, err := otel.Start(own, otel.WithMeterProvider(meters), otel.WithLoggerProvider(loggers))
	if err != nil {
		return nil, nil, errors.Join(err, meters.Shutdown(context.Background()))
	}
	open := func(dsn string) (*sql.DB, error) {
		cfg, err := leakguard.ParseDSN(dsn)
		if err != nil {
			return nil, err
		}
		cfg.Tracker = own
		c, err := leakguard.NewConnector(cfg)
		if err != nil {
			return nil, err
		}
		return sql.OpenDB(c), nil
	}
	return open, func() {
		stop()
		meters.Shutdown(context.Background())
		loggers.Shutdown(context.Background())
	}, nil
}

// noExport drops what was collected.
type noExport struct{}

func (noExport) Temporality(k sdkmetric.InstrumentKind) metricdata.Temporality {
	return sdkmetric.DefaultTemporalitySelector(k)
}
func (noExport) Aggregation(k sdkmetric.InstrumentKind) sdkmetric.Aggregation {
	return sdkmetric.DefaultAggregationSelector(k)
}
func (noExport) Export(context.Context, *metricdata.ResourceMetrics) error { return nil }
func (noExport) ForceFlush(context.Context) error                          { return nil }
func (noExport) Shutdown(context.Context) error                            { return nil }
