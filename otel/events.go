package otel

import (
	"cmp"
	"context"

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
	keyCount      = attribute.Key("sqlite_leakguard.count")
	keyBytes      = attribute.Key("sqlite_leakguard.bytes")
	keyLimitBytes = attribute.Key("sqlite_leakguard.limit_bytes")
	keyLevel      = attribute.Key("sqlite_leakguard.transaction.level")
	keyExempt     = attribute.Key("sqlite_leakguard.exempt")
	keyKept       = attribute.Key("sqlite_leakguard.kept")
	keyWaiting    = attribute.Key("sqlite_leakguard.waiting")
)

// severities are the tracker's events that become events here.
var severities = map[tracker.EventType]log.Severity{
	tracker.EventSuspect:   log.SeverityWarn,
	tracker.EventProven:    log.SeverityWarn,
	tracker.EventReaped:    log.SeverityWarn,
	tracker.EventRecovered: log.SeverityInfo,
	tracker.EventKept:      log.SeverityWarn,
	tracker.EventRecycled:  log.SeverityDebug,
	tracker.EventRefreshed: log.SeverityDebug,
	tracker.EventBlocked:   log.SeverityWarn,
	tracker.EventPressure:  log.SeverityWarn,
	tracker.EventDegraded:  log.SeverityWarn,
	tracker.EventResting:   log.SeverityInfo,
	tracker.EventStarved:   log.SeverityWarn,
	tracker.EventLent:      log.SeverityInfo,
	tracker.EventLost:      log.SeverityInfo,
}

// nameAndSeverity are of a fixed set: kinds with what becomes of them, what
// happens to connections alone, and what is told of memory. ok is false for
// what is no event here.
func nameAndSeverity(e *tracker.Event) (name string, s log.Severity, ok bool) {
	s, ok = severities[e.Type]
	what, how := tracker.KindConnection.String(), e.Type.String()
	switch {
	case e.Leak != nil:
		what = e.Leak.Kind.String()
		if e.Type == tracker.EventResting && len(e.Waiters) > 0 && e.Leak.Exempt == "" {
			s = log.SeverityWarn
		}
	case e.Type == tracker.EventPressure && e.Pressure.On:
		what, how = "memory", "pressure.begun"
	case e.Type == tracker.EventPressure:
		what, how, s = "memory", "pressure.ended", log.SeverityInfo
	case e.Type == tracker.EventDegraded:
		what = "memory"
	case e.Type == tracker.EventStarved, e.Type == tracker.EventLent, e.Type == tracker.EventLost:
		what = tracker.KindPool.String()
	}
	return namespace + what + "." + how, s, ok
}

// events emits log records on the tracker's dispatcher.
type events struct {
	logger log.Logger
	attrs  []attribute.KeyValue
}

func (e *events) tell(ev tracker.Event) {
	name, severity, ok := nameAndSeverity(&ev)
	if !ok {
		return
	}
	ctx := background
	if ev.Leak != nil {
		ctx = inSpan(ctx, ev.Leak.Trace)
	} else if ev.Blame != nil {
		ctx = inSpan(ctx, ev.Blame.Trace)
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
	r.AddAttributes(semconv.DBSystemNameSQLite)
	switch ev.Type { // the process's: the pool is only the one whose logger is told
	case tracker.EventPressure:
		pressure(&r, ev.Pressure)
	case tracker.EventDegraded:
		r.SetBody(attribute.StringValue(string(ev.Reason)))
	default:
		e.pool(&r, &ev)
	}
	e.logger.Emit(ctx, r)
}

// pool says what happened in a pool.
func (e *events) pool(r *log.Record, ev *tracker.Event) {
	r.AddAttributes(semconv.DBClientConnectionPoolName(ev.Pool))
	if ev.ConnectionID != "" {
		r.AddAttributes(keyConnection.String(ev.ConnectionID))
	}
	switch ev.Type {
	case tracker.EventStarved: // none of it is a SQL text
		s := ev.Starved
		r.SetBody(attribute.StringValue(s.String()))
		r.AddAttributes(keyAge.Float64(s.For.Seconds()))
		if len(s.Places) > 0 {
			r.AddAttributes(code("", s.Places[0].Stack)...)
		}
	case tracker.EventLent, tracker.EventLost:
		r.SetBody(attribute.StringValue(ev.Places.String()))
	case tracker.EventKept:
		r.AddAttributes(keyKept.String(string(ev.Reason)))
	default:
		r.AddAttributes(keyReason.String(string(ev.Reason)))
	}
	if ev.Type == tracker.EventResting {
		r.AddAttributes(keyWaiting.Int(len(ev.Waiters)))
	}
	if ev.Leak != nil {
		r.AddAttributes(e.leak(ev.Leak)...)
		r.SetBody(attribute.StringValue(ev.Leak.String()))
	}
	if ev.Blame != nil {
		e.blocked(r, ev.Blame)
	}
}

// inSpan returns a context in the span that a trace names.
func inSpan(ctx context.Context, t tracker.Trace) context.Context {
	if !t.IsValid() {
		return ctx
	}
	return trace.ContextWithSpanContext(ctx, spanContext(t))
}

func spanContext(t tracker.Trace) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID:    t.TraceID,
		SpanID:     t.SpanID,
		TraceFlags: trace.TraceFlags(t.Flags),
	})
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
		attrs = append(attrs, keyCount.Int64(l.Count))
	}
	if l.LimitBytes > 0 {
		attrs = append(attrs, keyBytes.Int64(l.Bytes), keyLimitBytes.Int64(l.LimitBytes))
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
	attrs = append(attrs, code("", l.Stack)...)
	if l.Query != "" {
		attrs = append(attrs, semconv.DBQueryText(l.Query))
	}
	return attrs
}

// code says where a call stack was, under the names of the conventions behind a
// prefix; nothing if it was not recorded.
func code(prefix attribute.Key, stack tracker.Stack) []attribute.KeyValue {
	site := stack.Site()
	if site == (tracker.Frame{}) {
		return nil
	}
	attrs := []attribute.KeyValue{
		(prefix + semconv.CodeFunctionNameKey).String(site.Function),
		(prefix + semconv.CodeFilePathKey).String(site.File),
		(prefix + semconv.CodeLineNumberKey).Int(site.Line),
		(prefix + semconv.CodeStacktraceKey).String(stack.String()),
	}
	if through := stack.Through(); through != "" {
		attrs = append(attrs, (cmp.Or(prefix, namespace) + "code.through").String(through))
	}
	return attrs
}
