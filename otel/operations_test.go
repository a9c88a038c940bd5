package otel

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestOperationDuration: an operation has SQLite's name for it, and its error
// as the conventions want it.
func TestOperationDuration(t *testing.T) {
	b := newBackend(t)
	tr := tracker.New(tracker.Options{})
	stop := b.instrument(tr, WithOperationDuration())
	c := newPool(t, tr, "db", tracker.Policy{}).Open(still{}, true, "")
	defer c.Close()
	c.Operated("SELECT", 20*time.Millisecond, "")
	c.Operated("INSERT", 30*time.Millisecond, "2067")
	c.Operated("", 40*time.Millisecond, "*errors.errorString")
	h := b.collect()["db.client.operation.duration"]
	want := map[float64]map[string]string{
		0.02: {"db.system.name": "sqlite", "db.operation.name": "SELECT"},
		0.03: {"db.system.name": "sqlite", "db.operation.name": "INSERT", "error.type": "2067", "db.response.status_code": "2067"},
		0.04: {"db.system.name": "sqlite", "error.type": "*errors.errorString"},
	}
	for _, p := range h.points {
		if !maps.Equal(p.attrs, want[p.value]) || p.count != 1 {
			t.Errorf("%v s, %d times: %v", p.value, p.count, p.attrs)
		}
	}
	if len(h.points) != len(want) || len(h.bounds) != 9 {
		t.Errorf("%+v", h)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if tr.TimesOperations() {
		t.Error("operations are timed after stop")
	}
}

// TestOperationsAreBounded, whatever errors a program makes up.
func TestOperationsAreBounded(t *testing.T) {
	b := newBackend(t)
	o, err := newOperations(b.meters.Meter(ScopeName), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		o.record(tracker.Operation{Name: "SELECT", Took: time.Millisecond, Error: fmt.Sprint("*error", i)})
		o.record(tracker.Operation{Name: "SELECT", Took: time.Millisecond})
	}
	h := b.collect()["db.client.operation.duration"]
	if _, n := h.at("error.type", "_OTHER"); n != 1 || len(h.points) != maxOperations+1 {
		t.Errorf("%d series, %d of them other", len(h.points), n)
	}
}
