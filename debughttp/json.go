package debughttp

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// document is the page as JSON. Durations are in seconds, as in Stats.
type document struct {
	Time     time.Time   `json:"time"`
	Verdict  string      `json:"verdict"`
	Suspects []leakJSON  `json:"suspects"`
	Held     []heldJSON  `json:"held"`
	Leaks    []eventJSON `json:"leaks"`
	History  []eventJSON `json:"history"`
	// Blamed is who kept others waiting, the most frequent first; the events of
	// type blocked in History have the single cases.
	Blamed        []blamedJSON          `json:"blamed"`
	MemoryHistory []tracker.MemoryPoint `json:"memory_history"`
	Stats         tracker.Stats         `json:"stats"`
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
	Trace        string       `json:"trace,omitempty"`
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
	Bytes        int64          `json:"bytes,omitempty"`
	LimitBytes   int64          `json:"limit_bytes,omitempty"`
	Level        int            `json:"level,omitempty"`
	Site         string         `json:"site"`
	LastSite     string         `json:"last_site,omitempty"`
	Trace        string         `json:"trace,omitempty"`
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
	Blame        *blameJSON        `json:"blame,omitempty"`
	Pressure     *tracker.Pressure `json:"pressure,omitempty"`
	Starved      *tracker.Starved  `json:"starved,omitempty"`
	Places       *tracker.Places   `json:"places,omitempty"`
	Duration     float64           `json:"duration,omitempty"`
}

type blamedJSON struct {
	Kind  tracker.Kind `json:"kind"`
	Count uint64       `json:"count"`
	Last  time.Time    `json:"last"`
	Site  string       `json:"site"`
	Query string       `json:"query,omitempty"`
	Stack []frameJSON  `json:"stack"`
}

type blameJSON struct {
	File  string      `json:"file,omitempty"`
	Files []string    `json:"files,omitempty"`
	Site  string      `json:"site"`
	Query string      `json:"query,omitempty"`
	Stack []frameJSON `json:"stack"`
	// Holders is empty if another process or a connection that is not guarded is in
	// the way, or whoever was had let go.
	Holders []holderJSON `json:"holders"`
}

type holderJSON struct {
	heldJSON
	State tracker.TxState `json:"state"`
	Own   bool            `json:"own,omitempty"`
	// File, Through, Maybe and AttachedAt are as in tracker.Holder.
	File       string `json:"file,omitempty"`
	Through    string `json:"through,omitempty"`
	Maybe      bool   `json:"maybe,omitempty"`
	AttachedAt string `json:"attached_at,omitempty"`
}

func (s *snapshot) writeJSON(b *bytes.Buffer) error {
	d := document{
		Time:     s.now,
		Verdict:  s.verdict(),
		Suspects: make([]leakJSON, 0, len(s.suspects)),
		Held:     make([]heldJSON, 0, len(s.held)),
		Leaks:    eventsJSON(s.leaks),
		History:  eventsJSON(s.events),
		Blamed:   make([]blamedJSON, 0, len(s.blamed)),
		Stats:    s.stats,
	}
	d.MemoryHistory = append([]tracker.MemoryPoint{}, s.memory...)
	for _, n := range s.blamed {
		d.Blamed = append(d.Blamed, blamedJSON{n.Kind, n.Count, n.Last, n.Site().String(), n.Query, framesOf(n.Stack)})
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
		Trace:        h.Trace.String(),
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
	out := &leakJSON{
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
		Bytes:        l.Bytes,
		LimitBytes:   l.LimitBytes,
		Level:        l.Level,
		Site:         l.Site().String(),
		Query:        l.Query,
		Exempt:       l.Exempt,
		Kept:         l.Kept,
		Trace:        l.Trace.String(),
		Stack:        framesOf(l.Stack),
	}
	if len(l.Last) > 0 {
		out.LastSite = l.LastSite().String()
	}
	return out
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
		out = append(out, eventJSON{
			Type: e.Type, Time: e.Time, Pool: e.Pool, ConnectionID: e.ConnectionID, Reason: e.Reason,
			Leak: leakOf(e.Leak), Blame: blameJSONOf(e.Blame), Pressure: e.Pressure,
			Starved: e.Starved, Places: e.Places, Duration: e.Duration.Seconds(),
		})
	}
	return out
}

func blameJSONOf(b *tracker.Blame) *blameJSON {
	if b == nil {
		return nil
	}
	out := &blameJSON{
		File: b.File, Files: b.Files, Site: b.Site().String(), Query: b.Query, Stack: framesOf(b.Stack),
		Holders: make([]holderJSON, 0, len(b.Holders)),
	}
	for i := range b.Holders {
		h := &b.Holders[i]
		one := holderJSON{heldJSON: heldOf(&h.Held), State: h.State, Own: h.Own, File: h.File, Through: h.Through, Maybe: h.Maybe}
		if len(h.Attached) > 0 {
			one.AttachedAt = h.AttachedAt().String()
		}
		out.Holders = append(out.Holders, one)
	}
	return out
}
