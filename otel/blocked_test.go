package otel

import (
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestBlockedEvent names the call that could not go on and who was in its way,
// in the trace of the first, and no path, and SQL as the tracker tells it.
func TestBlockedEvent(t *testing.T) {
	for _, text := range []bool{false, true} {
		b := newBackend(t)
		e := events{logger: b.logs.Logger(ScopeName)}
		blame := fullBlame()
		if !text {
			blame.Query = ""
			for i := range blame.Holders {
				blame.Holders[i].Query = ""
			}
		}
		e.tell(tracker.Event{Type: tracker.EventBlocked, Pool: "db", ConnectionID: "db#1", Reason: tracker.ReasonBusy, Blame: &blame})
		r := event(t, b.records(), "sqlite_leakguard.connection.blocked")
		if r.TraceID() != blame.Trace.TraceID || r.SpanID() != blame.Trace.SpanID || r.Severity() != log.SeverityWarn {
			t.Errorf("trace %v %v, severity %v", r.TraceID(), r.SpanID(), r.Severity())
		}
		site := blame.Site()
		attrs := attributesOf(r)
		for k, want := range map[attribute.Key]attribute.Value{
			poolName:                                       attribute.StringValue("db"),
			"sqlite_leakguard.connection.id":               attribute.StringValue("db#1"),
			"sqlite_leakguard.reason":                      attribute.StringValue("busy"),
			"code.function.name":                           attribute.StringValue(site.Function),
			"code.line.number":                             attribute.IntValue(site.Line),
			"sqlite_leakguard.holder.count":                attribute.IntValue(2),
			"sqlite_leakguard.holder.kind":                 attribute.StringValue("transaction"),
			"sqlite_leakguard.holder.state":                attribute.StringValue("write"),
			"sqlite_leakguard.holder.age":                  attribute.Float64Value(60),
			"sqlite_leakguard.holder.own":                  attribute.BoolValue(false),
			"sqlite_leakguard.holder.connection.id":        attribute.StringValue("other#1"),
			"sqlite_leakguard.holder.connection.pool.name": attribute.StringValue("other"),
			"sqlite_leakguard.holder.code.function.name":   attribute.StringValue(site.Function),
			"sqlite_leakguard.holder.code.file.path":       attribute.StringValue(site.File),
			"sqlite_leakguard.holder.trace_id":             attribute.StringValue("01000000000000000000000000000000"),
			"sqlite_leakguard.holder.span_id":              attribute.StringValue("0200000000000000"),
		} {
			if attrs[k] != want {
				t.Errorf("%s is %v, want %v", k, attrs[k].String(), want.String())
			}
		}
		all := r.Body().String()
		if !strings.Contains(all, "held by transaction on other#1") {
			t.Errorf("body %q", all)
		}
		for _, v := range attrs {
			all += v.String()
		}
		if n := strings.Count(all, "secret"); (n > 0) != text || strings.Contains(all, "someone") {
			t.Errorf("with query text %v: %s", text, all)
		}
		_, query := attrs["db.query.text"]
		_, holder := attrs["sqlite_leakguard.holder.query.text"]
		if query != text || holder != text {
			t.Errorf("with query text %v: %v", text, attrs)
		}
		if blame.Holders[0].ConnectionID == "" || blame.File == "" {
			t.Error("the blame was changed, which others are told as well")
		}
	}
}

// TestBlockedByNobody: another process holds the file, and no stacks are kept.
func TestBlockedByNobody(t *testing.T) {
	b := newBackend(t)
	e := events{logger: b.logs.Logger(ScopeName)}
	e.tell(tracker.Event{Type: tracker.EventBlocked, Pool: "db", ConnectionID: "db#1", Reason: tracker.ReasonBusy, Blame: new(tracker.Blame)})
	attrs := attributesOf(event(t, b.records(), "sqlite_leakguard.connection.blocked"))
	if n, ok := attrs["sqlite_leakguard.holder.count"]; !ok || n.AsInt64() != 0 || len(attrs) != 5 {
		t.Errorf("attributes %v", attrs)
	}
}
