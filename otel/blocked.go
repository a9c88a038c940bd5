package otel

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// holder is the prefix of what is said of who was in the way: behind it are the
// names that the same has where an event is about it.
const holder = namespace + "holder."

const (
	keyHolderCount = attribute.Key(holder + "count")
	keyHolderKind  = attribute.Key(holder + "kind")
	keyHolderState = attribute.Key(holder + "state")
	keyHolderAge   = attribute.Key(holder + "age")
	keyHolderOwn   = attribute.Key(holder + "own")
	// keyHolderThrough and keyHolderMaybe are as in tracker.Holder.
	keyHolderThrough = attribute.Key(holder + "through")
	keyHolderMaybe   = attribute.Key(holder + "maybe")
	keyHolderConn    = attribute.Key(holder + "connection.id")
	keyHolderPool    = attribute.Key(holder + "connection.pool.name")
	keyHolderTrace   = attribute.Key(holder + "trace_id")
	keyHolderSpan    = attribute.Key(holder + "span_id")
	keyHolderQuery   = attribute.Key(holder + "query.text")
)

// blocked says which call could not go on, and who was the likeliest in its way.
func (e *events) blocked(r *log.Record, b *tracker.Blame) {
	r.AddAttributes(code("", b.Stack)...)
	r.AddAttributes(keyHolderCount.Int(len(b.Holders)))
	if b.Query != "" {
		r.AddAttributes(semconv.DBQueryText(b.Query))
	}
	if len(b.Holders) > 0 {
		h := &b.Holders[0]
		r.AddAttributes(
			keyHolderKind.String(h.Kind.String()),
			keyHolderState.String(h.State.String()),
			keyHolderAge.Float64(h.Age.Seconds()),
			keyHolderOwn.Bool(h.Own),
			keyHolderMaybe.Bool(h.Maybe),
			keyHolderConn.String(h.ConnectionID),
			keyHolderPool.String(h.Pool),
		)
		if h.Through != "" {
			r.AddAttributes(keyHolderThrough.String(h.Through))
		}
		r.AddAttributes(code(holder, h.Stack)...)
		if h.Trace.IsValid() {
			sc := spanContext(h.Trace)
			r.AddAttributes(keyHolderTrace.String(sc.TraceID().String()), keyHolderSpan.String(sc.SpanID().String()))
		}
		if h.Query != "" {
			r.AddAttributes(keyHolderQuery.String(h.Query))
		}
	}
	r.SetBody(attribute.StringValue(e.blame(*b)))
}

// blame is the blame as one line for a person, without the files' paths, as with
// pools.
func (e *events) blame(b tracker.Blame) string {
	b.File, b.Files = "", nil
	b.Holders = append([]tracker.Holder(nil), b.Holders...)
	for i := range b.Holders {
		b.Holders[i].File = ""
	}
	return b.String()
}
