package otel

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The guard's own attributes, of events only.
const (
	keyConnection = attribute.Key("sqlite_leakguard.connection.id")
	keyLeak       = attribute.Key("sqlite_leakguard.leak.id")
	keyAge        = attribute.Key("sqlite_leakguard.age")
	keyIdle       = attribute.Key("sqlite_leakguard.idle")
	keyLimit      = attribute.Key("sqlite_leakguard.limit")
	keyPrepared   = attribute.Key("sqlite_leakguard.prepared")
	keyLevel      = attribute.Key("sqlite_leakguard.transaction.level")
	keyExempt     = attribute.Key("sqlite_leakguard.exempt")
	keyKept       = attribute.Key("sqlite_leakguard.kept")
)

// severities are the tracker's events that become events here, and the kinds
// they can be of.
var severities = map[tracker.EventType]log.Severity{
	tracker.EventSuspect:   log.SeverityWarn,
	tracker.EventProven:    log.SeverityWarn,
	tracker.EventReaped:    log.SeverityWarn,
	tracker.EventRecovered: log.SeverityInfo,
	tracker.EventKept:      log.SeverityWarn,
	tracker.EventRecycled:  log.SeverityDebug,
}

// eventName is of a fixed set: the kinds with what becomes of them, and two of
// connections alone.
func eventName(e tracker.Event) string {
	kind := tracker.KindConnection
	if e.Leak != nil {
		kind = e.Leak.Kind
	}
	return namespace + kind.String() + "." + e.Type.String()
}

// events emits log records on the tracker's dispatcher.
type events struct {
	logger    log.Logger
	attrs     []attribute.KeyValue
	queryText bool
}

func (e *events) tell(ev tracker.Event) {
	severity, ok := severities[ev.Type]
	if !ok {
		return
	}
	ctx, name := background, eventName(ev)
	if l := ev.Leak; l != nil && l.Trace.IsValid() {
		ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
			TraceID:    l.Trace.TraceID,
			SpanID:     l.Trace.SpanID,
			TraceFlags: trace.TraceFlags(l.Trace.Flags),
		}))
	}
	if !e.logger.Enabled(ctx, log.EnabledParameters{Severity: severity, EventName: name}) {
		return
	}
	var r log.Record
	r.SetEventName(name)
	r.SetTimestamp(ev.Time)
	r.SetObservedTimestamp(ev.Time)
	r.SetSeverity(severity)
	r.AddAttributes(e.attrs...)
	r.AddAttributes(
		semconv.DBSystemNameSQLite,
		semconv.DBClientConnectionPoolName(ev.Pool),
		keyConnection.String(ev.ConnectionID),
	)
	if ev.Type == tracker.EventKept {
		r.AddAttributes(keyKept.String(string(ev.Reason)))
	} else {
		r.AddAttributes(keyReason.String(string(ev.Reason)))
	}
	if ev.Leak != nil {
		r.AddAttributes(e.leak(ev.Leak)...)
		r.SetBody(attribute.StringValue(e.body(*ev.Leak)))
	}
	e.logger.Emit(ctx, r)
}

// body is the leak as one line for a person, with its query only if that may
// be shown.
func (e *events) body(l tracker.Leak) string {
	if !e.queryText {
		l.Query = ""
	}
	return l.String()
}

func (e *events) leak(l *tracker.Leak) []attribute.KeyValue {
	attrs := []attribute.KeyValue{
		keyLeak.Int64(int64(l.ID)),
		keyKind.String(l.Kind.String()),
		keyAge.Float64(l.Age.Seconds()),
		keyIdle.Float64(l.Idle.Seconds()),
	}
	if l.Limit > 0 {
		attrs = append(attrs, keyLimit.Float64(l.Limit.Seconds()))
	}
	if l.Count > 0 {
		attrs = append(attrs, keyPrepared.Int64(l.Count))
	}
	if l.Level > 0 {
		attrs = append(attrs, keyLevel.Int(l.Level))
	}
	if l.Exempt != "" {
		attrs = append(attrs, keyExempt.String(l.Exempt))
	}
	if l.Kept != "" {
		attrs = append(attrs, keyKept.String(l.Kept))
	}
	if site := l.Site(); site != (tracker.Frame{}) {
		attrs = append(attrs,
			semconv.CodeFunctionName(site.Function),
			semconv.CodeFilePath(site.File),
			semconv.CodeLineNumber(site.Line),
			semconv.CodeStacktrace(l.Stack.String()),
		)
	}
	if e.queryText && l.Query != "" {
		attrs = append(attrs, semconv.DBQueryText(l.Query))
	}
	return attrs
}
