package otel

import (
	"database/sql"
	"database/sql/driver"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var columns = regexp.MustCompile(` {2,}`)

// tables reads the tables of the package documentation, each named after its
// first two columns.
func tables(t *testing.T) map[string][][]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	return tablesOf(f.Doc)
}

func tablesOf(doc *ast.CommentGroup) map[string][][]string {
	all := make(map[string][][]string)
	var name string
	for line := range strings.Lines(doc.Text()) {
		line = strings.TrimRight(line, "\n")
		row, indented := strings.CutPrefix(line, "\t")
		cells := columns.Split(strings.TrimSpace(row), -1)
		switch {
		case !indented || len(cells) < 2:
			name = ""
		case name == "":
			name = cells[0] + " " + cells[1]
		default:
			all[name] = append(all[name], cells)
		}
	}
	return all
}

// unopened is a sql.DB's connector that nobody opens anything by.
type unopened struct{ driver.Connector }

// TestDocumentedMetrics emits every metric and compares with the table.
func TestDocumentedMetrics(t *testing.T) {
	b := newBackend(t)
	tr := tracker.New(tracker.Options{})
	b.instrument(tr, WithUseTime())
	p := newPool(t, tr, "db", tracker.Policy{})
	db := sql.OpenDB(unopened{})
	defer db.Close()
	db.SetMaxOpenConns(2)
	detach, err := p.Attach(db, tracker.AttachOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer detach()
	c := p.New(false, "")
	c.OpenedIn(3 * time.Millisecond)
	opened := listen(t, tr, tracker.EventOpened)
	c.Register(still{})
	defer c.Close()
	<-opened
	c.Record()
	c.CheckOut("")
	c.CheckIn()
	c.Recorded()

	want := make(map[string]string)
	for _, row := range tables(t)["name instrument"] {
		want[row[0]] = strings.Join(append(row[1:], "")[:3], " | ")
	}
	got := make(map[string]string)
	for name, m := range b.collect() {
		var attrs []string
		for _, p := range m.points {
			attrs = slices.AppendSeq(attrs, maps.Keys(p.attrs))
		}
		slices.Sort(attrs)
		attrs = slices.Compact(attrs)
		got[name] = m.instrument + " | " + m.unit + " | " + strings.Join(attrs, ", ")
	}
	compare(t, "metric", got, want)
}

// never are the pairs that the tracker does not tell: a lease that holds nothing
// or a pool is only reported, and of these and transactions collection proves
// nothing.
var never = map[[2]string]bool{
	{"connection", "reaped"}:  true,
	{"connection", "proven"}:  true,
	{"transaction", "proven"}: true,
	{"pool", "reaped"}:        true,
	{"pool", "proven"}:        true,
}

// TestDocumentedEvents emits every event with every attribute.
func TestDocumentedEvents(t *testing.T) {
	b := newBackend(t)
	e := events{logger: b.logs.Logger(ScopeName)}
	for typ := tracker.EventOpened; typ <= tracker.EventLost; typ++ {
		if typ == tracker.EventChanged { // of the program's settings, not of what it holds
			continue
		}
		ev := tracker.Event{Type: typ, Time: time.Now(), Pool: "db", ConnectionID: "db#1", Reason: "why"}
		switch typ {
		case tracker.EventSuspect, tracker.EventProven, tracker.EventRecovered, tracker.EventReaped:
			for _, k := range kinds {
				if never[[2]string{k.String(), typ.String()}] {
					continue
				}
				full := fullLeak()
				full.Kind = k
				ev.Leak = &full
				e.tell(ev)
			}
		case tracker.EventResting:
			for _, k := range []tracker.Kind{tracker.KindConnection, tracker.KindTransaction, tracker.KindRows} {
				full := fullLeak()
				full.Kind = k
				full.Exempt = "" // then it would be no warning, either
				ev.Leak = &full
				e.tell(ev)
			}
		case tracker.EventBlocked:
			b := fullBlame()
			ev.Blame = &b
			e.tell(ev)
		case tracker.EventStarved:
			ev.Starved = &tracker.Starved{Pool: "db", For: time.Second, Places: []tracker.PlaceHolder{{Stack: fullLeak().Stack}}}
			ev.ConnectionID, ev.Reason = "", ""
			e.tell(ev)
		case tracker.EventLent, tracker.EventLost:
			ev.Places = &tracker.Places{Pool: "db", Max: 2, Lent: 1}
			ev.ConnectionID, ev.Reason = "", ""
			e.tell(ev)
		case tracker.EventPressure:
			for _, on := range []bool{true, false} {
				ev.Pressure = &tracker.Pressure{On: on, UsedPercent: 90, Stall: 12, Limit: 85, Released: 1, Closed: 2, ClosedBytes: 3}
				e.tell(ev)
			}
		default:
			e.tell(ev)
		}
	}
	docs := tables(t)
	want := make(map[string]string)
	for _, row := range docs["name severity"] {
		want[row[0]] = row[1]
	}
	got := make(map[string]string)
	types := make(map[string]string)
	for _, r := range b.records() {
		got[r.EventName()] = r.Severity().String()
		for k, v := range attributesOf(r) {
			types[string(k)] = spelled.Replace(v.Type().String())
		}
	}
	compare(t, "event", got, want)
	want = make(map[string]string)
	for _, row := range docs["attribute type"] {
		want[row[0]] = row[1]
	}
	compare(t, "attribute", types, want)
}

// spelled turns the names of attribute types into those of the table.
var spelled = strings.NewReplacer("STRING", "string", "INT64", "int", "FLOAT64", "double", "BOOL", "boolean")

// fullLeak has everything that a leak can have.
func fullLeak() tracker.Leak {
	tr := tracker.New(tracker.Options{})
	pool, err := tr.NewPool(tracker.PoolConfig{Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		panic(err)
	}
	tracker.SkipFunctions("github.com/sqlite-leakguard/sqlite-leakguard/otel.openThrough")
	c := openThrough(pool)
	defer c.Close()
	return tracker.Leak{
		ID: 7, Kind: tracker.KindTransaction, Reason: tracker.ReasonLeakAfter, Pool: "db", ConnectionID: "db#1",
		Age: time.Minute, Idle: time.Second, Limit: time.Second, Count: 100, Bytes: 5000, LimitBytes: 4000, Level: 2,
		Query: "SELECT 'secret'", Exempt: "on purpose", Kept: "attached", Stack: tr.Held()[0].Stack,
		Trace: tracker.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Flags: 1},
	}
}

// openThrough is a helper of the program.
func openThrough(pool *tracker.Pool) *tracker.Conn { return pool.Open(still{}, true, "") }

// fullBlame has everything that a blame can have.
func fullBlame() tracker.Blame {
	l := fullLeak()
	return tracker.Blame{
		File: "/home/someone/db", Files: []string{"/home/someone/db", "/home/someone/other"}, Query: "INSERT 'secret'", Stack: l.Stack,
		Trace: tracker.Trace{TraceID: [16]byte{7}, SpanID: [8]byte{8}},
		Holders: []tracker.Holder{
			{State: tracker.TxWrite, File: "/home/someone/db", Through: "ATTACH AS b", Held: tracker.Held{
				Kind: tracker.KindTransaction, Pool: "other", ConnectionID: "other#1", Age: time.Minute,
				Query: "UPDATE 'secret'", Stack: l.Stack, Trace: l.Trace,
			}},
			{State: tracker.TxUnknown, Held: tracker.Held{Kind: tracker.KindRows, ConnectionID: "db#2", Query: "SELECT 'secret'"}},
		},
	}
}

func compare(t *testing.T, what string, got, want map[string]string) {
	t.Helper()
	if len(want) == 0 {
		t.Fatalf("no table of %ss", what)
	}
	for name, g := range got {
		if w, ok := want[name]; !ok {
			t.Errorf("%s %s (%s) is emitted and not in doc.go", what, name, g)
		} else if g != w {
			t.Errorf("%s %s is %q, doc.go says %q", what, name, g, w)
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s %s is in doc.go and not emitted", what, name)
		}
	}
}

// TestLeakEvent reads one event in full.
func TestLeakEvent(t *testing.T) {
	for _, text := range []bool{false, true} {
		b := newBackend(t)
		e := events{logger: b.logs.Logger(ScopeName), attrs: []attribute.KeyValue{attribute.String("own", "x")}}
		l := fullLeak()
		if !text {
			l.Query = ""
		}
		at := time.Now()
		e.tell(tracker.Event{Type: tracker.EventReaped, Time: at, Pool: "db", ConnectionID: "db#1", Reason: l.Reason, Leak: &l})
		r := event(t, b.records(), "sqlite_leakguard.transaction.reaped")
		if !r.Timestamp().Equal(at) || r.Severity() != log.SeverityWarn || r.SeverityText() != "" {
			t.Errorf("timestamp %v, severity %v %q", r.Timestamp(), r.Severity(), r.SeverityText())
		}
		if r.TraceID() != l.Trace.TraceID || r.SpanID() != l.Trace.SpanID || r.TraceFlags() != 1 {
			t.Errorf("trace %v %v %v", r.TraceID(), r.SpanID(), r.TraceFlags())
		}
		site := l.Site()
		attrs := attributesOf(r)
		for k, want := range map[attribute.Key]attribute.Value{
			"own":                                attribute.StringValue("x"),
			"db.system.name":                     attribute.StringValue("sqlite"),
			poolName:                             attribute.StringValue("db"),
			"sqlite_leakguard.connection.id":     attribute.StringValue("db#1"),
			"sqlite_leakguard.leak.id":           attribute.Int64Value(7),
			"sqlite_leakguard.kind":              attribute.StringValue("transaction"),
			"sqlite_leakguard.reason":            attribute.StringValue("leak_after"),
			"sqlite_leakguard.age":               attribute.Float64Value(60),
			"sqlite_leakguard.idle":              attribute.Float64Value(1),
			"sqlite_leakguard.limit":             attribute.Float64Value(1),
			"sqlite_leakguard.count":             attribute.Int64Value(100),
			"sqlite_leakguard.bytes":             attribute.Int64Value(5000),
			"sqlite_leakguard.limit_bytes":       attribute.Int64Value(4000),
			"sqlite_leakguard.exempt":            attribute.StringValue("on purpose"),
			"sqlite_leakguard.kept":              attribute.StringValue("attached"),
			"sqlite_leakguard.transaction.level": attribute.Int64Value(2),
			"code.function.name":                 attribute.StringValue(site.Function),
			"code.file.path":                     attribute.StringValue(site.File),
			"code.line.number":                   attribute.IntValue(site.Line),
			"code.stacktrace":                    attribute.StringValue(l.Stack.String()),
		} {
			if attrs[k] != want {
				t.Errorf("%s is %v, want %v", k, attrs[k].String(), want.String())
			}
		}
		if site.Line == 0 || !strings.HasSuffix(site.File, "doc_test.go") {
			t.Errorf("site %v", site)
		}
		all := r.Body().String()
		for _, v := range attrs {
			all += v.String()
		}
		if strings.Contains(all, "secret") != text || (attrs["db.query.text"].String() == "SELECT 'secret'") != text {
			t.Errorf("with query text %v: %s", text, all)
		}
		if !strings.Contains(r.Body().String(), "without activity for 1s") {
			t.Errorf("body %q", r.Body().String())
		}
	}
}
