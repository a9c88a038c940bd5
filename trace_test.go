package leakguard

import (
	"context"
	"errors"
	"testing"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

type spanKey struct{}

// TestTrace opens one of each kind in a span of its own and finds it again.
func TestTrace(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	tr.SetTraceHook(func(ctx context.Context, s *tracker.Trace) bool {
		n, ok := ctx.Value(spanKey{}).(byte)
		s.TraceID[0], s.SpanID[0] = n, n
		return ok
	})
	g := open(t, Config{Tracker: tr})
	in := func(span byte) context.Context { return context.WithValue(background, spanKey{}, span) }
	conn, err := g.Conn(in(1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stmt, err := conn.PrepareContext(in(2), "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	tx, err := conn.BeginTx(in(3), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	rows, err := tx.QueryContext(in(4), "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	want := map[tracker.Kind]byte{
		tracker.KindConnection: 1, tracker.KindStatement: 2, tracker.KindTransaction: 3, tracker.KindRows: 4,
	}
	held := tr.Held()
	for _, h := range held {
		if h.Trace.SpanID[0] != want[h.Kind] {
			t.Errorf("%v has the span %d, want %d", h.Kind, h.Trace.SpanID[0], want[h.Kind])
		}
	}
	if len(held) != len(want) {
		t.Errorf("%d things are held, want %d", len(held), len(want))
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
}

// TestOpenedIn: opening a file takes time, and its event says how much.
func TestOpenedIn(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{Tracker: tr})
	if err := g.Ping(); err != nil {
		t.Fatal(err)
	}
	for _, e := range tr.History() {
		if e.Type == tracker.EventOpened && e.Duration <= 0 {
			t.Errorf("opened in %v", e.Duration)
		}
	}
}

// TestReapedAtBegin: the transaction is rolled back before its sql.Tx exists. BeginTx
// says so, and the connection is as it was.
func TestReapedAtBegin(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{Tracker: tr})
	run(t, g, createT)
	c := g.conn(t)
	own := g.last()
	tr.SetTraceHook(func(context.Context, *tracker.Trace) bool { // runs in the operation
		if id := own.rec.Transaction(); id != 0 {
			k := control{weak.Make(own)}
			if out := k.Carry(order(tracker.ScopeTransaction, id)); out != tracker.Condemned {
				t.Errorf("Carry: %v, want Condemned", out)
			}
		}
		return false
	})
	tx, err := c.BeginTx(background, nil)
	if !errors.Is(err, ErrReaped) || tx != nil {
		t.Fatalf("BeginTx: %v", err)
	}
	tr.SetTraceHook(nil)
	run(t, c, "INSERT INTO t VALUES(1)")
	if n := g.rows(t); n != 1 {
		t.Errorf("%d rows, want 1", n)
	}
}
