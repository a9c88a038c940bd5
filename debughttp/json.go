package debughttp

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// document is the page as JSON. Durations are in seconds, as in Stats.
type document struct {
	Time     time.Time     `json:"time"`
	Verdict  string        `json:"verdict"`
	ShowsSQL bool          `json:"shows_sql"`
	Suspects []leakJSON    `json:"suspects"`
	Held     []heldJSON    `json:"held"`
	Leaks    []eventJSON   `json:"leaks"`
	History  []eventJSON   `json:"history"`
	Samples  []sample      `json:"samples"`
	Stats    tracker.Stats `json:"stats"`
}

type frameJSON struct {
	Function string `json:"function"`
	File     string `json:"file"`
	Line     int    `json:"line"`
}

type heldJSON struct {
	Kind         tracker.Kind `json:"kind"`
	Pool         string       `json:"pool"`
	ConnectionID string       `json:"connection_id"`
	Resource     uint64       `json:"resource"`
	OpenedAt     time.Time    `json:"opened_at"`
	Age          float64      `json:"age"`
	Idle         float64      `json:"idle"`
	Busy         bool         `json:"busy"`
	Level        int          `json:"level,omitempty"`
	Site         string       `json:"site"`
	Query        string       `json:"query,omitempty"`
	Exempt       string       `json:"exempt,omitempty"`
	// Suspect is the id of the open leak, 0 if it is none.
	Suspect uint64      `json:"suspect,omitempty"`
	Stack   []frameJSON `json:"stack"`
}

type leakJSON struct {
	ID           uint64         `json:"id"`
	Kind         tracker.Kind   `json:"kind"`
	Reason       tracker.Reason `json:"reason"`
	Pool         string         `json:"pool"`
	ConnectionID string         `json:"connection_id"`
	Resource     uint64         `json:"resource"`
	OpenedAt     time.Time      `json:"opened_at"`
	Age          float64        `json:"age"`
	Idle         float64        `json:"idle"`
	Limit        float64        `json:"limit,omitempty"`
	Count        int64          `json:"count,omitempty"`
	Level        int            `json:"level,omitempty"`
	Site         string         `json:"site"`
	Query        string         `json:"query,omitempty"`
	Exempt       string         `json:"exempt,omitempty"`
	Kept         string         `json:"kept,omitempty"`
	Stack        []frameJSON    `json:"stack"`
}

type eventJSON struct {
	Type         tracker.EventType `json:"type"`
	Time         time.Time         `json:"time"`
	Pool         string            `json:"pool"`
	ConnectionID string            `json:"connection_id"`
	Reason       tracker.Reason    `json:"reason,omitempty"`
	Leak         *leakJSON         `json:"leak,omitempty"`
}

func (s *snapshot) writeJSON(b *bytes.Buffer) error {
	d := document{
		Time:     s.now,
		Verdict:  s.verdict(),
		ShowsSQL: s.showSQL,
		Suspects: make([]leakJSON, 0, len(s.suspects)),
		Held:     make([]heldJSON, 0, len(s.held)),
		Leaks:    eventsJSON(s.leaks),
		History:  eventsJSON(s.events),
		Samples:  s.samples,
		Stats:    s.stats,
	}
	for i := range s.suspects {
		d.Suspects = append(d.Suspects, *leakOf(&s.suspects[i]))
	}
	for i := range s.held {
		d.Held = append(d.Held, heldOf(&s.held[i]))
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

func heldOf(h *tracker.Held) heldJSON {
	out := heldJSON{
		Kind:         h.Kind,
		Pool:         h.Pool,
		ConnectionID: h.ConnectionID,
		Resource:     h.Resource,
		OpenedAt:     h.OpenedAt,
		Age:          h.Age.Seconds(),
		Idle:         h.Idle.Seconds(),
		Busy:         h.Busy,
		Level:        h.Level,
		Site:         h.Site().String(),
		Query:        h.Query,
		Exempt:       h.Exempt,
		Stack:        framesOf(h.Stack),
	}
	if h.Suspect != nil {
		out.Suspect = h.Suspect.ID
	}
	return out
}

func leakOf(l *tracker.Leak) *leakJSON {
	if l == nil {
		return nil
	}
	return &leakJSON{
		ID:           l.ID,
		Kind:         l.Kind,
		Reason:       l.Reason,
		Pool:         l.Pool,
		ConnectionID: l.ConnectionID,
		Resource:     l.Resource,
		OpenedAt:     l.OpenedAt,
		Age:          l.Age.Seconds(),
		Idle:         l.Idle.Seconds(),
		Limit:        l.Limit.Seconds(),
		Count:        l.Count,
		Level:        l.Level,
		Site:         l.Site().String(),
		Query:        l.Query,
		Exempt:       l.Exempt,
		Kept:         l.Kept,
		Stack:        framesOf(l.Stack),
	}
}

func framesOf(s tracker.Stack) []frameJSON {
	out := []frameJSON{}
	for _, f := range s.UserFrames() {
		out = append(out, frameJSON(f))
	}
	return out
}

func eventsJSON(events []tracker.Event) []eventJSON {
	out := make([]eventJSON, 0, len(events))
	for _, e := range events {
		out = append(out, eventJSON{e.Type, e.Time, e.Pool, e.ConnectionID, e.Reason, leakOf(e.Leak)})
	}
	return out
}
