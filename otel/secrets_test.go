package otel

import (
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// By default no event carries a value of a SQL text.
func TestNoSecretInEvents(t *testing.T) {
	const secret = "4111222233334444"
	tr := tracker.New(tracker.Options{})
	b := newBackend(t)
	e := events{logger: b.logs.Logger(ScopeName)}
	told := make(chan tracker.Event, 16)
	defer tr.Subscribe(func(ev tracker.Event) { told <- ev })()
	p, err := tr.NewPool(tracker.PoolConfig{Name: "db", Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := p.Open(still{}, true, "")
	defer c.Close()
	var rows tracker.Resource
	query := "SELECT '" + secret + "', x'" + secret + "', " + secret + " -- " + secret
	c.Record()
	c.OpenRows(&rows, query, "")
	c.Recorded()
	c.Proven(&rows, true)
	c.Blocked(tracker.ReasonBusy, false)
	for seen := map[tracker.EventType]bool{}; !seen[tracker.EventProven] || !seen[tracker.EventBlocked]; {
		ev := <-told
		seen[ev.Type] = true
		e.tell(ev)
	}
	texts := 0
	for _, r := range b.records() {
		all := r.Body().String()
		for _, v := range attributesOf(r) {
			all += " " + v.String()
		}
		if strings.Contains(all, secret) {
			t.Errorf("%s: %s", r.EventName(), all)
		}
		texts += strings.Count(all, "SELECT ?")
	}
	if texts == 0 {
		t.Error("no text of a query in any event: not the case that was meant")
	}
}
