package otel

import (
	"context"
	"reflect"
	"sync/atomic"

	otelapi "go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// unset is the global provider of a program that has not set one.
var unset = otelapi.GetLoggerProvider()

// spans returns the tracker's hook. It reads span contexts from the moment on at
// which there is somebody to send events to; until then no context is asked.
// The logger is asked now, because the hook runs inside database/sql, where code
// of others has no business.
func spans(l log.Logger, explicit bool) tracker.TraceHook {
	var on atomic.Bool
	on.Store(explicit ||
		!reflect.TypeOf(unset).Comparable() ||
		l.Enabled(background, log.EnabledParameters{Severity: log.SeverityWarn, EventName: namespace + "transaction.suspect"}))
	return func(ctx context.Context, t *tracker.Trace) bool {
		if !on.Load() {
			if otelapi.GetLoggerProvider() == unset {
				return false
			}
			on.Store(true)
		}
		return spanOf(ctx, t)
	}
}

// spanOf stands by itself so that who finds no provider does not pay for its
// frame.
//
//go:noinline
func spanOf(ctx context.Context, t *tracker.Trace) bool {
	sc := trace.SpanContextFromContext(ctx)
	t.TraceID, t.SpanID, t.Flags = sc.TraceID(), sc.SpanID(), byte(sc.TraceFlags())
	return sc.IsValid()
}
