package otel_test

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/sqlite-leakguard/sqlite-leakguard/otel"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Start takes providers that are not the global ones.
func ExampleStart() {
	reader := sdkmetric.NewManualReader() // or a periodic one with an exporter
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	watched := tracker.New(tracker.Options{}) // the one in your Config.Tracker
	stop, err := otel.Start(watched,
		otel.WithMeterProvider(provider),
		otel.WithAttributes(attribute.String("deployment.environment.name", "production")),
		otel.WithUseTime(),
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		fmt.Println(err)
	}
	// No pool is open, so there are only the process's own metrics.
	for _, m := range collected.ScopeMetrics[0].Metrics {
		fmt.Println(m.Name, m.Unit)
	}
	if err := stop(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// sqlite_leakguard.events.dropped {event}
	// sqlite_leakguard.sqlite.memory By
	// sqlite_leakguard.memory.pressure.active {state}
	// sqlite_leakguard.memory.pressure.events {event}
}
