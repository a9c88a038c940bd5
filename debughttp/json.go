package debughttp

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// document is the page as JSON. Durations are in seconds, as in Stats.
type document struct {
	Time    time.Time `json:"time"`
	Verdict string    `json:"verdict"`
	// Suspects are those that do most harm first, exempt ones behind all others; Resting
	// is what rests and is no leak yet.
	Suspects []suspectJSON `json:"suspects"`
	Resting  []suspectJSON `json:"resting"`
	Pools    []poolJSON    `json:"pools"`
	Held     []heldJSON    `json:"held"`
	Leaks    []eventJSON   `json:"leaks"`
	History  []eventJSON   `json:"history"`
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
	AgeAtLeast   bool         `json:"age_at_least,omitempty"`
	Idle         float64      `json:"idle"`
	Busy         bool         `json:"busy"`
	Level        int          `json:"level,omitempty"`
	Site         string       `json:"site"`
	Function     string       `json:"function,omitempty"`
	// Through is as in tracker.Stack.Through; of a holder it is SiteThrough.
	Through string `json:"through,omitempty"`
	Query   string `json:"query,omitempty"`
	Exempt  string `json:"exempt,omitempty"`
	Trace   string `json:"trace,omitempty"`
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
	AgeAtLeast   bool           `json:"age_at_least,omitempty"`
	Idle         float64        `json:"idle"`
	Limit        float64        `json:"limit,omitempty"`
	Count        int64          `json:"count,omitempty"`
	Bytes        int64          `json:"bytes,omitempty"`
	LimitBytes   int64          `json:"limit_bytes,omitempty"`
	Level        int            `json:"level,omitempty"`
	Site         string         `json:"site"`
	Function     string         `json:"function,omitempty"`
	Through      string         `json:"through,omitempty"`
	LastSite     string         `json:"last_site,omitempty"`
	Trace        string         `json:"trace,omitempty"`
	Query        string         `json:"query,omitempty"`
	Exempt       string         `json:"exempt,omitempty"`
	Kept         string         `json:"kept,omitempty"`
	Stack        []frameJSON    `json:"stack"`
}

// suspectJSON is a leak that is open, and the harm that it does.
type suspectJSON struct {
	*leakJSON
	Cure string `json:"cure"`
	// Next says what will become of it.
	Next    string          `json:"next"`
	Lock    tracker.TxState `json:"lock"`
	PinsWAL bool            `json:"pins_wal,omitempty"`
	Starves bool            `json:"starves,omitempty"`
	Waiting []waiterJSON    `json:"waiting,omitempty"`
}

// waiterJSON is an operation that waits for a lock.
type waiterJSON struct {
	Pool         string `json:"pool"`
	ConnectionID string `json:"connection_id"`
	Site         string `json:"site"`
	Query        string `json:"query,omitempty"`
}

// poolJSON is a pool with what an operator can set.
type poolJSON struct {
	Pool     string            `json:"pool"`
	Mode     string            `json:"mode"`
	Settings []tracker.Setting `json:"settings"`
	Leased   int               `json:"leased"`
	Idle     int               `json:"idle"`
	Lost     int               `json:"lost"`
	Resting  int               `json:"resting"`
	// Waiting counts the operations that wait for a lock.
	Waiting int `json:"waiting"`
	// Places is null unless the pool's sql.DB is attached.
	Places *tracker.Places `json:"places"`
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
	Kind     tracker.Kind `json:"kind"`
	Count    uint64       `json:"count"`
	Last     time.Time    `json:"last"`
	Site     string       `json:"site"`
	Function string       `json:"function,omitempty"`
	Through  string       `json:"through,omitempty"`
	Query    string       `json:"query,omitempty"`
	Stack    []frameJSON  `json:"stack"`
}

type blameJSON struct {
	File     string      `json:"file,omitempty"`
	Files    []string    `json:"files,omitempty"`
	Site     string      `json:"site"`
	Function string      `json:"function,omitempty"`
	Through  string      `json:"through,omitempty"`
	Query    string      `json:"query,omitempty"`
	Stack    []frameJSON `json:"stack"`
	// Holders is empty if another process or a connection that is not guarded is in
	// the way, or whoever was had let go.
	Holders []holderJSON `json:"holders"`
}

type holderJSON struct {
	heldJSON
	State tracker.TxState `json:"state"`
	Own   bool            `json:"own,omitempty"`
	// File, Through, Maybe and AttachedAt are as in tracker.Holder.
	File        string `json:"file,omitempty"`
	Through     string `json:"through,omitempty"`
	Maybe       bool   `json:"maybe,omitempty"`
	AttachedAt  string `json:"attached_at,omitempty"`
	SiteThrough string `json:"site_through,omitempty"`
}

func (s *snapshot) writeJSON(b *bytes.Buffer) error {
	d := document{
		Time:     s.now,
		Verdict:  s.verdict(),
		Suspects: s.suspectsJSON(slices.Concat(s.suspects, s.exempt)),
		Resting:  s.suspectsJSON(s.resting),
		Pools:    s.poolsJSON(),
		Held:     make([]heldJSON, 0, len(s.held)),
		Leaks:    eventsJSON(s.leaks),
		History:  eventsJSON(s.events),
		Blamed:   make([]blamedJSON, 0, len(s.blamed)),
		Stats:    s.stats,
	}
	d.MemoryHistory = append([]tracker.MemoryPoint{}, s.memory...)
	for _, n := range s.blamed {
		d.Blamed = append(d.Blamed, blamedJSON{
			Kind: n.Kind, Count: n.Count, Last: n.Last, Site: n.Site().String(), Function: n.Site().Function,
			Through: n.Stack.Through(), Query: n.Query, Stack: framesOf(n.Stack),
		})
	}
	for i := range s.held {
		d.Held = append(d.Held, heldOf(&s.held[i]))
	}
	e := json.NewEncoder(b)
	e.SetIndent("", "  ")
	return e.Encode(d)
}

func (s *snapshot) suspectsJSON(all []tracker.Suspect) []suspectJSON {
	out := make([]suspectJSON, 0, len(all))
	for i := range all {
		l := &all[i]
		one := suspectJSON{
			leakJSON: leakOf(&l.Leak), Cure: l.Cure(), Next: s.next(&l.Leak),
			Lock: l.Lock, PinsWAL: l.PinsWAL, Starves: l.Starves,
		}
		for _, w := range l.Waiting {
			one.Waiting = append(one.Waiting, waiterJSON{w.Pool, w.ConnectionID, w.Site().String(), w.Query})
		}
		out = append(out, one)
	}
	return out
}

func (s *snapshot) poolsJSON() []poolJSON {
	figures, waiting := s.poolFigures()
	out := make([]poolJSON, 0, len(s.pools))
	for _, p := range s.pools {
		f := figures[p.Name()]
		if f == nil {
			continue // opened or closed meanwhile
		}
		out = append(out, poolJSON{
			Pool: p.Name(), Mode: p.Mode().String(), Settings: p.Settings()[1:], // without the mode
			Leased: f.Leased, Idle: f.Idle, Lost: f.Lost, Resting: f.Resting, Waiting: waiting[p.Name()], Places: f.Places,
		})
	}
	return out
}

func heldOf(h *tracker.Held) heldJSON {
	out := heldJSON{
		Kind:         h.Kind,
		Pool:         h.Pool,
		ConnectionID: h.ConnectionID,
		Resource:     h.Resource,
		OpenedAt:     h.OpenedAt,
		Age:          h.Age.Seconds(),
		AgeAtLeast:   h.AgeAtLeast,
		Idle:         h.Idle.Seconds(),
		Busy:         h.Busy,
		Level:        h.Level,
		Site:         h.Site().String(),
		Function:     h.Site().Function,
		Through:      h.Stack.Through(),
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
		AgeAtLeast:   l.AgeAtLeast,
		Idle:         l.Idle.Seconds(),
		Limit:        l.Limit.Seconds(),
		Count:        l.Count,
		Bytes:        l.Bytes,
		LimitBytes:   l.LimitBytes,
		Level:        l.Level,
		Site:         l.Site().String(),
		Function:     l.Site().Function,
		Through:      l.Stack.Through(),
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
		File: b.File, Files: b.Files, Site: b.Site().String(), Function: b.Site().Function, Through: b.Stack.Through(), Query: b.Query, Stack: framesOf(b.Stack),
		Holders: make([]holderJSON, 0, len(b.Holders)),
	}
	for i := range b.Holders {
		h := &b.Holders[i]
		one := holderJSON{heldJSON: heldOf(&h.Held), State: h.State, Own: h.Own, File: h.File, Through: h.Through, Maybe: h.Maybe, SiteThrough: h.Stack.Through()}
		if len(h.Attached) > 0 {
			one.AttachedAt = h.AttachedAt().String()
		}
		out.Holders = append(out.Holders, one)
	}
	return out
}
