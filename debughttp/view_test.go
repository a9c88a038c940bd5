package debughttp

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// Who blocked whom stands right below the suspects.
func TestBlame(t *testing.T) {
	e := tracker.Event{Time: noon, Pool: "shop.db", ConnectionID: "shop.db#2", Reason: "<busy>", Leak: &tracker.Leak{
		Kind: tracker.KindTransaction, ConnectionID: "shop.db#1", Age: 90 * time.Second, Query: "UPDATE <b>",
	}}
	s := &snapshot{now: noon, samples: []sample{{Time: noon}}}
	p := s.page(0)
	p.Blame = []blame{blameOf(e, noon), blameOf(tracker.Event{Time: noon.Add(-24 * time.Hour), ConnectionID: "shop.db#3"}, noon)}
	var b bytes.Buffer
	if err := p.write(&b); err != nil {
		t.Fatal(err)
	}
	_, html, _ := strings.Cut(b.String(), `id="blame"`)
	html, _, _ = strings.Cut(html, "</section>")
	for _, want := range []string{"12:00:00", "shop.db#2", "&lt;busy&gt;", "transaction", "shop.db#1", "1m30s", "unknown", "UPDATE &lt;b&gt;", "Jan 1 12:00:00", "shop.db#3"} {
		if !strings.Contains(html, want) {
			t.Errorf("%q is missing in:\n%s", want, html)
		}
	}
	if isBlame(tracker.Event{Type: tracker.EventSuspect}) {
		t.Error("a suspect blocks nobody yet")
	}
}

// Memory is drawn once there are figures.
func TestCharts(t *testing.T) {
	s := &snapshot{samples: []sample{{Time: noon, Leased: 1, Connections: 3}, {Time: noon.Add(10 * time.Second), Leased: 4, Connections: 4}}}
	c := s.charts()
	if len(c) != 1 || c[0].Title != "Connections" || c[0].Width != 2*chartWidth || c[0].From != "−10s" {
		t.Fatalf("charts: %+v", c)
	}
	// From 1 of 4 at the left to the top at the right.
	if got, want := c[0].Series[1].Line, "M40.0 85.0L1072.0 10.0"; got != want {
		t.Errorf("the line is %s, want %s", got, want)
	}
	if got, want := c[0].Series[1].Area, "M40.0 85.0L1072.0 10.0L1072.0 110.0L40.0 110.0Z"; got != want {
		t.Errorf("the area is %s, want %s", got, want)
	}
	s.samples[1].ProcessMB, s.samples[1].SystemPercent = 123.4, 61.25
	c = s.charts()
	if len(c) != 3 || c[0].Width != chartWidth || c[1].Series[0].Now != "123 MB" || c[2].Series[0].Now != "61.2 %" {
		t.Errorf("with memory: %+v", c)
	}
}

func TestScale(t *testing.T) {
	for v, want := range map[float64]float64{0: 2, 1: 2, 2: 2, 3: 4, 5: 10, 10: 10, 11: 20, 399: 400, 401: 1000} {
		if got := niceAbove(v); got != want {
			t.Errorf("above %v: %v, want %v", v, got, want)
		}
	}
}

func TestNotes(t *testing.T) {
	s := &snapshot{stats: tracker.Stats{EventsDropped: 1, CallbackPanics: 2, Missing: []string{"a", "b"}}}
	s.stats.MemoryMonitoring.MemoryPressure = true
	got := strings.Join(s.notes(), "\n")
	for _, want := range []string{"short of memory", "a, b.", "1 event did", "2 panics in"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
}
