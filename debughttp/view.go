package debughttp

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// How much of each list the page shows; the JSON has all.
const (
	maxSites  = 50
	maxRows   = 100
	openStack = 2 // suspects whose stacks are unfolded
)

// page is what the template shows, most important first.
type page struct {
	Title, Time string
	Refresh     int
	ShowSQL     bool
	Verdict     string
	Bad         bool
	Now, Past   string // one line each on what is open and what was found
	Notes       []string
	Suspects    []suspect
	MoreSites   int
	Blame       []blame
	Charts      []chart
	Leased      table[connection]
	Idle        table[connection]
	Held        []table[held]
	Over        table[over]
	Events      table[event]
	Counters    []counter
}

// table is a list with a heading, cut to what a page can show.
type table[T any] struct {
	Title, Kind string
	Total       int
	Rows        []T
	More        int
}

func tableOf[T any](title string, rows []T) table[T] {
	t := table[T]{Title: title, Total: len(rows), Rows: rows}
	if n := len(rows) - maxRows; n > 0 {
		t.Rows, t.More = rows[:maxRows], n
	}
	return t
}

// suspect is all suspects of one site.
type suspect struct {
	Kind           string
	Count          int
	Site, Function string
	Limit          string
	Age, Idle      string
	Connections    string
	Level          int
	Query          string
	Next, Fix      string
	Stack          []frame
	Unfolded       bool
}

// frame is a call: Place is as in Site, Path the file's whole path.
type frame struct{ Function, Place, Path string }

type connection struct {
	ID, Pool, State    string
	Suspect            bool
	Lease              string // age of the lease
	Bar                int    // of the lease, in percent of the longest
	Idle, Age          string
	Tx                 string
	Rows, Statements   int
	Leases             int64
	Site, Function     string
	Query, Exempt, Why string
}

type held struct {
	Age            string
	Bar            int
	Suspect        bool
	State          string
	Connection     string
	Level          int
	Site, Function string
	Query, Exempt  string
	Stack          []frame
}

// over is a leak that is no suspect any more.
type over struct {
	Time, Outcome, Class, Kind, Limit, Age string
	Site, Function, Connection, Query      string
}

type event struct{ Time, Type, Pool, Connection, Reason, Site string }

// blame says who kept whom waiting.
type blame struct {
	Time, Pool, Waiting, Reason           string
	Kind, Age, Holder, Site, Query, Names string
}

type counter struct {
	Name, Means string
	Value       uint64
}

func (s *snapshot) page(refresh int) *page {
	p := &page{
		Title:   s.title,
		Time:    s.now.Format("2006-01-02 15:04:05 MST"),
		Refresh: refresh,
		ShowSQL: s.showSQL,
		Verdict: s.verdict(),
		Bad:     len(s.suspects) > 0,
		Charts:  s.charts(),
	}
	p.Now, p.Past = s.nowText(), s.pastText()
	p.Notes = s.notes()
	p.Suspects, p.MoreSites = s.suspectCards()
	p.Blame = s.blame()
	leased, idle := s.connections()
	p.Leased, p.Idle = tableOf("Leased connections", leased), tableOf("Idle connections", idle)
	for _, k := range []struct {
		title string
		kind  tracker.Kind
	}{{"Transactions", tracker.KindTransaction}, {"Rows", tracker.KindRows}, {"Statements", tracker.KindStatement}} {
		if rows := s.heldOf(k.kind); len(rows) > 0 {
			t := tableOf(k.title, rows)
			t.Kind = k.kind.String()
			p.Held = append(p.Held, t)
		}
	}
	p.Over = tableOf("Leaks that are over", s.over())
	p.Events = tableOf("All events", s.eventRows())
	p.Counters = s.counters()
	return p
}

func (s *snapshot) nowText() string {
	st := &s.stats
	if st.TotalConnections == 0 {
		return "No connection is open."
	}
	return fmt.Sprintf("Open now: %s (%d leased, %d idle), %s, %s, %s.",
		many(st.TotalConnections, "connection"), st.ActiveConnections, st.PoolSize,
		many(st.OpenTransactions, "transaction"), many(st.OpenRows, "result set"), many(st.OpenStatements, "statement"))
}

func (s *snapshot) pastText() string {
	st := &s.stats
	if st.LeakedDetected == 0 {
		return "No leak has been found so far."
	}
	return fmt.Sprintf("Found so far: %s; %d undone, %d came back by themselves.",
		many(int(st.LeakedDetected), "leak"), st.Reaped, st.Recovered)
}

func (s *snapshot) notes() []string {
	var notes []string
	if s.stats.MemoryMonitoring.MemoryPressure {
		notes = append(notes, "The system is short of memory: caches are released and idle connections closed.")
	}
	if len(s.stats.Missing) > 0 {
		notes = append(notes, "Missing in this build or on this machine: "+strings.Join(s.stats.Missing, ", ")+".")
	}
	if n := s.stats.EventsDropped; n > 0 {
		notes = append(notes, fmt.Sprintf("%s did not reach slow subscribers.", many(int(n), "event")))
	}
	if n := s.stats.CallbackPanics; n > 0 {
		notes = append(notes, fmt.Sprintf("%s in callbacks, detectors or loggers.", many(int(n), "panic")))
	}
	return notes
}

// suspectCards groups the suspects by site: the oldest first.
func (s *snapshot) suspectCards() (cards []suspect, more int) {
	type siteKey struct {
		frame    tracker.Frame
		kind     tracker.Kind
		reason   tracker.Reason
		pool     string
		nextStep string
	}
	index := make(map[siteKey]int)
	ids := make(map[int][]string)
	for i := range s.suspects {
		l := &s.suspects[i]
		next := s.next(l)
		k := siteKey{l.Site(), l.Kind, l.Reason, l.Pool, next}
		at, known := index[k]
		if !known {
			at = len(cards)
			index[k] = at
			cards = append(cards, suspect{
				Kind: l.Kind.String(), Site: k.frame.String(), Function: k.frame.Function,
				Limit: limitText(l), Age: ageText(l.Age), Idle: ageText(l.Idle),
				Level: l.Level, Query: l.Query, Next: next, Fix: fixes[l.Kind],
				Stack: framesText(l.Stack), Unfolded: at < openStack,
			})
		}
		cards[at].Count++
		if !slices.Contains(ids[at], l.ConnectionID) {
			ids[at] = append(ids[at], l.ConnectionID)
		}
	}
	for i := range cards {
		all := ids[i]
		if n := len(all) - 5; n > 1 {
			cards[i].Connections = fmt.Sprintf("%s and %d more", strings.Join(all[:5], ", "), n)
		} else {
			cards[i].Connections = strings.Join(all, ", ")
		}
	}
	if n := len(cards) - maxSites; n > 0 {
		cards, more = cards[:maxSites], n
	}
	return cards, more
}

// next says what the guard will do about a suspect.
func (s *snapshot) next(l *tracker.Leak) string {
	switch {
	case l.Reason == tracker.ReasonPanic:
		return "A call never came back from SQLite, so nobody may touch this connection again. Only a restart frees it."
	case l.Exempt != "":
		return "Exempt, so it is never undone: " + l.Exempt
	case l.Kept != "":
		return "It is not undone: " + l.Kept
	case l.Reason == tracker.ReasonProven:
		return "Closed as soon as its connection is free."
	case s.mode(l.ConnectionID) == tracker.Observe:
		return "Nothing: the pool is in mode observe."
	case l.Reason == tracker.ReasonInPool:
		return "Rolled back once it has been left for leak_after, or is older than tx_timeout."
	case l.Reason == tracker.ReasonMaxStatements:
		return "Nothing: that many statements are reported only."
	case l.Kind == tracker.KindConnection && l.Reason == tracker.ReasonLeakAfter:
		return "Nothing: it holds no rows and no transaction, only its place in the pool. Its holder must give it back."
	}
	return "Undone at the next check, unless it moves."
}

var fixes = map[tracker.Kind]string{
	tracker.KindConnection:  "defer conn.Close() at this line",
	tracker.KindTransaction: "defer tx.Rollback() at this line; after a Commit it does nothing",
	tracker.KindStatement:   "close the statement, or prepare it once",
	tracker.KindRows:        "defer rows.Close() at this line",
}

func limitText(l *tracker.Leak) string {
	switch {
	case l.Limit > 0:
		return fmt.Sprintf("%s %v", l.Reason, l.Limit)
	case l.Count > 0:
		return fmt.Sprintf("%s: open %d times", l.Reason, l.Count)
	}
	return string(l.Reason)
}

func framesText(stack tracker.Stack) []frame {
	var out []frame
	for _, f := range stack.UserFrames() {
		out = append(out, frame{f.Function, f.String(), fmt.Sprintf("%s:%d", f.File, f.Line)})
	}
	return out
}

// percent is a bar's length: what is there at all shows.
func percent(d, longest time.Duration) int {
	if longest <= 0 || d <= 0 {
		return 1
	}
	return max(1, int(100*d/longest))
}

func (s *snapshot) connections() (leased, idle []connection) {
	var longest time.Duration
	leases := make(map[string]tracker.Held)
	for _, h := range s.held {
		if h.Kind == tracker.KindConnection {
			leases[h.ConnectionID] = h
			longest = max(longest, h.Age)
		}
	}
	for i := range s.records {
		r := &s.records[i]
		c := connection{
			ID: r.ConnectionID, Pool: r.Pool, State: r.State(), Suspect: r.Suspect,
			Idle: ageText(r.Idle), Age: ageText(r.Age), Rows: r.OpenRows, Statements: r.OpenStatements,
			Leases: r.Accesses, Query: r.Query, Exempt: r.Exempt, Why: r.Kept,
		}
		if h, ok := leases[r.ConnectionID]; ok {
			c.Lease, c.Bar = ageText(h.Age), percent(h.Age, longest)
		}
		if r.TransactionLevel > 0 {
			c.Tx = ageText(r.TxAge)
		}
		if len(r.Stack) > 0 {
			site := r.Stack.Site()
			c.Site, c.Function = site.String(), site.Function
		}
		if r.Leased {
			leased = append(leased, c)
		} else {
			idle = append(idle, c)
		}
	}
	return leased, idle
}

func (s *snapshot) heldOf(kind tracker.Kind) []held {
	var longest time.Duration
	var out []held
	for i := range s.held {
		h := &s.held[i]
		if h.Kind != kind {
			continue
		}
		longest = max(longest, h.Age) // the first one's
		site := h.Site()
		row := held{
			Age: ageText(h.Age), Bar: percent(h.Age, longest), Suspect: h.Suspect != nil,
			State: "idle for " + ageText(h.Idle), Connection: h.ConnectionID, Level: h.Level,
			Site: site.String(), Function: site.Function, Query: h.Query, Exempt: h.Exempt,
		}
		switch {
		case h.Busy:
			row.State = "running"
		case h.Idle < time.Second:
			row.State = "moving"
		}
		if len(out) < maxRows {
			row.Stack = framesText(h.Stack)
		}
		out = append(out, row)
	}
	return out
}

// over returns the leaks that are over, the last one first.
func (s *snapshot) over() []over {
	open := make(map[uint64]bool)
	for i := range s.suspects {
		open[s.suspects[i].ID] = true
	}
	seen := make(map[uint64]bool)
	var out []over
	for _, e := range slices.Backward(s.leaks) {
		l := e.Leak
		if seen[l.ID] || open[l.ID] || isBlame(e) {
			continue
		}
		seen[l.ID] = true
		site := l.Site()
		o := over{
			Time: clock(e.Time, s.now), Kind: l.Kind.String(), Limit: limitText(l), Age: ageText(l.Age),
			Site: site.String(), Function: site.Function, Connection: l.ConnectionID, Query: l.Query,
		}
		switch e.Type {
		case tracker.EventReaped:
			o.Outcome, o.Class = "closed", "undone"
			if l.Kind == tracker.KindTransaction {
				o.Outcome = "rolled back"
			}
		case tracker.EventRecovered:
			o.Outcome, o.Class = "came back", "recovered"
		case tracker.EventProven:
			o.Outcome, o.Class = "proven", "undone"
		default:
			o.Outcome, o.Class = "gone", "recovered"
		}
		out = append(out, o)
	}
	return out
}

// clock leaves the date out if it is today's.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04:05")
	}
	return t.Format("Jan 2 15:04:05")
}

func (s *snapshot) eventRows() []event {
	var out []event
	for _, e := range slices.Backward(s.events) {
		row := event{Time: clock(e.Time, s.now), Type: e.Type.String(), Pool: e.Pool, Connection: e.ConnectionID, Reason: string(e.Reason)}
		if e.Leak != nil {
			row.Site = e.Leak.Kind.String() + " of " + e.Leak.Site().String()
		}
		out = append(out, row)
	}
	return out
}

// isBlame reports whether an event says that an operation was blocked by
// somebody else of this process.
func isBlame(e tracker.Event) bool { return e.Type.String() == "blocked" }

// blame returns who was blocked by whom, the last one first. The leak of such
// an event describes the holder: who opened what is in the way.
func (s *snapshot) blame() []blame {
	var out []blame
	for _, e := range slices.Backward(s.events) {
		if isBlame(e) && len(out) < maxRows {
			out = append(out, blameOf(e, s.now))
		}
	}
	return out
}

func blameOf(e tracker.Event, now time.Time) blame {
	b := blame{Time: clock(e.Time, now), Pool: e.Pool, Waiting: e.ConnectionID, Reason: string(e.Reason)}
	if l := e.Leak; l != nil {
		site := l.Site()
		b.Kind, b.Age, b.Holder = l.Kind.String(), ageText(l.Age), l.ConnectionID
		b.Site, b.Names, b.Query = site.String(), site.Function, l.Query
	}
	return b
}

func (s *snapshot) counters() []counter {
	st := &s.stats
	return []counter{
		{"leaked_detected", "leaks found", st.LeakedDetected},
		{"proven", "proven by garbage collection", st.Proven},
		{"reaped", "undone by the guard", st.Reaped},
		{"recovered", "came back by themselves", st.Recovered},
		{"created", "connections opened", st.Created},
		{"reused", "leases of one that had a lease before", st.Reused},
		{"expired", "given up for age or idleness", st.Expired},
		{"recycled", "given up for any limit", st.Recycled},
		{"force_closed", "handles closed by the guard", st.ForceClosed},
		{"aggressive_cleanups", "responses to memory pressure", st.AggressiveCleanups},
	}
}

// shorten folds a text into one line of at most n characters.
func shorten(text string, n int) string {
	r := []rune(strings.Join(strings.Fields(text), " "))
	if len(r) <= n {
		return string(r)
	}
	return string(r[:n-1]) + "…"
}
