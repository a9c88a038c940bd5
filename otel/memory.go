package otel

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

const (
	keyUtilization = attribute.Key("sqlite_leakguard.memory.utilization")
	keyMemoryLimit = attribute.Key("sqlite_leakguard.memory.limit")
	keyStall       = attribute.Key("sqlite_leakguard.memory.stall")
	keyReleased    = attribute.Key("sqlite_leakguard.memory.released")
	keyClosed      = attribute.Key("sqlite_leakguard.memory.closed")
	keyClosedBytes = attribute.Key("sqlite_leakguard.memory.closed_bytes")
)

// pressure says how short memory is and what the guard gave back.
func pressure(r *log.Record, p *tracker.Pressure) {
	r.AddAttributes(
		keyUtilization.Float64(p.UsedPercent/100),
		keyMemoryLimit.Float64(p.Limit/100),
	)
	if p.Stall > 0 {
		r.AddAttributes(keyStall.Float64(p.Stall / 100))
	}
	if p.On {
		r.AddAttributes(
			keyReleased.Int64(p.Released),
			keyClosed.Int(p.Closed),
			keyClosedBytes.Int64(p.ClosedBytes),
		)
	}
	r.SetBody(attribute.StringValue(p.String()))
}
