package debughttp

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// How much of each list the page shows, so that it stays one that a phone can load; the
// JSON has all.
const (
	maxSites   = 40
	maxPools   = 25
	maxRows    = 30 // connections
	maxHeld    = 20 // of each kind
	maxOver    = 30
	maxEvents  = 60
	maxBlame   = 10
	maxBlocked = 5
	maxHolders = 3
	maxEach    = 10  // of one group, by connection
	maxFrames  = 30  // of one stack
	allFrames  = 200 // of all stacks, those of the worst suspects first
	openStack  = 2   // suspects whose stacks are unfolded
)

// page is what the template shows, most important first.
type page struct {
	Title, Time string
	Refresh     int
	Control     bool // there is a page to act on
	Verdict     string
	Class       string // good, warn or bad
	Findings    []string
	First       *first
	Now, Past   string // one line each on what is open and what was found
	Notes       []note
	Pools       pools
	Starved     []starved
	Lost        []lost
	Suspects    groups
	Resting     groups
	Exempt      groups
	Blamed      table[blamed]
	Blocked     table[blocked]
	LockWaits   table[lockWait]
	Charts      []chart
	Leased      table[connection]
	Idle        table[connection]
	Held        []table[held]
	Over        table[over]
	Events      table[event]
	Memory      memory
	HasMemory   bool // some connection's is known
	Counters    []counter
}

// table is a list with a heading, cut to what a page can show.
type table[T any] struct {
	Title, Kind string
	Total       int
	Rows        []T
	More        int
}

func topOf[T any](title string, rows []T, most int) table[T] {
	t := table[T]{Title: title, Total: len(rows), Rows: rows}
	if n := len(rows) - most; n > 0 {
		t.Rows, t.More = rows[:most], n
	}
	return t
}

// frame is a call: Place is as in Site.
type frame struct{ Function, Place string }

type connection struct {
	ID, Pool, State    string
	Suspect            bool   // and not exempt
	Lease              string // age of the lease
	Bar                int    // of the lease, in percent of the longest
	Idle, Age          string
	Holds              []string // "transaction 3m", "2 rows"
	Leases             int64
	Site, Function     string
	Query, Exempt, Why string
	Last, LastFunction string // of the last activity, if not Site
	Reaped             bool   // and its place in the pool not given back
	Memory             memoryOf
}

// note is one line below the verdict. Class is how much it matters.
type note struct{ Class, Text string }

type held struct {
	Key, Age       string
	Bar            int
	Suspect        bool // and not exempt
	State          string
	Connection     string
	Level          int
	Site, Function string
	Query, Exempt  string
	Stack          *stack // nil where the page has no room for it
}

// over is a leak that is no suspect any more.
type over struct {
	Time, Outcome, Class, Kind, Limit, Age string
	Site, Function, Connection, Query      string
}

type event struct{ Time, Type, Pool, Connection, Reason, Site string }

type counter struct {
	Name, Means string
	Value       uint64
}

func (s *snapshot) page(refresh int) *page {
	p := &page{
		Title:   s.title,
		Time:    s.now.Format("2006-01-02 15:04:05 MST"),
		Refresh: refresh,
		Control: s.control,
		Verdict: s.verdict(),
		Class:   s.class(),
		Charts:  s.charts(),
	}
	p.Now, p.Past = s.nowText(), s.pastText()
	for _, f := range s.stats.Findings {
		p.Findings = append(p.Findings, sentence(f))
	}
	p.First = s.first()
	p.Notes = s.notes()
	p.Pools, p.Starved, p.Lost = s.poolRows(), s.starved(), s.lostGroups()
	p.Suspects, p.Resting, p.Exempt = s.groups(s.suspects, openStack), s.groups(s.resting, 0), s.groups(s.exempt, 0)
	p.Blamed = topOf("Who kept others waiting", s.blamedRows(), maxBlame)
	p.Blocked = topOf("Blocked last", s.blockedRows(), maxBlocked)
	p.LockWaits = topOf("Long waits for locks", s.lockWaits(), maxBlame)
	p.Memory = s.memoryView()
	leased, idle := s.connections()
	p.HasMemory = slices.ContainsFunc(slices.Concat(leased, idle), func(c connection) bool { return c.Memory.Bytes != "" })
	p.Leased, p.Idle = topOf("Leased connections", leased, maxRows), topOf("Idle connections", idle, maxRows)
	for _, k := range []struct {
		title string
		kind  tracker.Kind
	}{{"Transactions", tracker.KindTransaction}, {"Rows", tracker.KindRows}, {"Statements", tracker.KindStatement}} {
		if rows := s.heldOf(k.kind); len(rows) > 0 {
			t := topOf(k.title, rows, maxHeld)
			t.Kind = k.kind.String()
			p.Held = append(p.Held, t)
		}
	}
	p.Over = topOf("Leaks that are over", s.over(), maxOver)
	p.Events = topOf("All events", s.eventRows(), maxEvents)
	p.Counters = s.counters()
	return p
}

func (s *snapshot) nowText() string {
	st := &s.stats
	if st.TotalConnections == 0 {
		return "No connection is open."
	}
	wal := ""
	if st.WALBytes > 0 {
		wal = " Write-ahead logs: " + bytesText(st.WALBytes) + "."
	}
	return fmt.Sprintf("Open now: %s (%d leased, %d idle), %s, %s, %s.%s",
		many(st.TotalConnections, "connection"), st.ActiveConnections, st.PoolSize,
		many(st.OpenTransactions, "transaction"), many(st.OpenRows, "result set"), many(st.OpenStatements, "statement"), wal)
}

func (s *snapshot) pastText() string {
	st := &s.stats
	text := "No leak has been found so far."
	if st.LeakedDetected > 0 {
		text = fmt.Sprintf("Found so far: %s; %d undone, %d came back by themselves.",
			many(int(st.LeakedDetected), "leak"), st.Reaped, st.Recovered)
	}
	if st.Blocked > 0 {
		text += fmt.Sprintf(" %s failed because somebody else held a lock.", many(int(st.Blocked), "operation"))
	}
	return text
}

func (s *snapshot) notes() []note {
	var notes []note
	if text := s.pressureText(); text != "" {
		notes = append(notes, note{"alarm", text})
	}
	notes = append(notes, s.environmentNotes()...)
	if s.degraded() {
		notes = append(notes, note{"note", "The memory of this machine cannot be read, so a shortage goes unnoticed: see the sources below."})
	}
	if len(s.stats.Missing) > 0 {
		notes = append(notes, note{"note", "Missing in this build or on this machine: " + strings.Join(s.stats.Missing, ", ") + "."})
	}
	if n := s.stats.EventsDropped; n > 0 {
		notes = append(notes, note{"note", fmt.Sprintf("%s did not reach slow subscribers.", many(int(n), "event"))})
	}
	if n := s.stats.CallbackPanics; n > 0 {
		notes = append(notes, note{"note", fmt.Sprintf("%s in callbacks, detectors or loggers.", many(int(n), "panic"))})
	}
	return notes
}

// environmentNotes says what the operator set in the environment.
func (s *snapshot) environmentNotes() (notes []note) {
	var good []string
	for _, i := range s.stats.Environment {
		if i.Error == "" {
			good = append(good, i.Text)
		} else {
			notes = append(notes, note{"alarm bad", fmt.Sprintf("Ignored in the environment variable LEAKGUARD: %s: %s", i.Text, i.Error)})
		}
	}
	if len(good) > 0 {
		notes = append(notes, note{"note", "Set by the environment variable LEAKGUARD: " + strings.Join(good, ",")})
	}
	return notes
}

// someOf lists the first few of many.
func someOf(all []string, most int) string {
	var each []string
	for _, one := range all {
		if !slices.Contains(each, one) {
			each = append(each, one)
		}
	}
	if n := len(each) - most; n > 1 {
		return fmt.Sprintf("%s and %d more", strings.Join(each[:most], ", "), n)
	}
	return strings.Join(each, ", ")
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
	case l.Reason == tracker.ReasonReportAfter && s.mode(l.ConnectionID) == tracker.Enforce && l.Kind != tracker.KindConnection:
		return "Nothing yet. It is undone if it rests for leak_after."
	case l.Reason == tracker.ReasonReportAfter:
		return "Nothing is undone."
	case s.mode(l.ConnectionID) == tracker.Observe:
		return "Nothing: the pool is in mode observe."
	case l.Reason == tracker.ReasonInPool:
		return "Rolled back once it has been left for leak_after, or rests beyond tx_timeout."
	case l.Reason == tracker.ReasonWALLimit, l.Reason == tracker.ReasonLeakMemory:
		return "It is reported only, until it is left for leak_after or rests beyond tx_timeout."
	case l.Reason == tracker.ReasonMaxStatements:
		return "Nothing: that many statements are reported only."
	case l.Kind == tracker.KindConnection && l.Reason == tracker.ReasonLeakAfter:
		return "Nothing: it holds no rows and no transaction, only its place in the pool. Its holder must give it back."
	}
	return "Undone at the next check, unless it moves."
}

func limitText(l *tracker.Leak) string {
	switch {
	case l.LimitBytes > 0:
		what := "holds"
		if l.Reason == tracker.ReasonWALLimit {
			what = "keeps a write-ahead log of"
		}
		return fmt.Sprintf("%s %s: %s %s", l.Reason, bytesText(l.LimitBytes), what, bytesText(l.Bytes))
	case l.Limit > 0:
		return fmt.Sprintf("%s %v", l.Reason, l.Limit)
	case l.OnePlace:
		return fmt.Sprintf("%s: %d open from one place", l.Reason, l.Count)
	case l.Count > 0:
		return fmt.Sprintf("%s: open %d times", l.Reason, l.Count)
	}
	return string(l.Reason)
}

// stack is a call stack as far as the page has room for it; More counts the other calls.
type stack struct {
	Frames []frame
	More   int
}

// stackOf takes a call stack from what the page has room for, nil if there is none left.
func (s *snapshot) stackOf(pcs tracker.Stack) *stack {
	if s.frames >= allFrames {
		return nil
	}
	all := pcs.UserFrames()
	out := &stack{}
	for i, f := range all {
		if i == maxFrames || s.frames >= allFrames {
			out.More = len(all) - i
			break
		}
		s.frames++
		out.Frames = append(out.Frames, frame{f.Function, f.String()})
	}
	return out
}

// sentence makes one of a finding.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] + "." }

// keyOf names what can be unfolded, the same at each load of the page.
func keyOf(parts ...any) string {
	h := fnv.New32a()
	fmt.Fprintln(h, parts...)
	return fmt.Sprintf("k%x", h.Sum32())
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
	leases, accused := make(map[string]tracker.Held), make(map[string]bool)
	for i := range s.suspects {
		accused[s.suspects[i].ConnectionID] = true
	}
	for _, h := range s.held {
		if h.Kind == tracker.KindConnection {
			leases[h.ConnectionID] = h
			longest = max(longest, h.Age)
		}
	}
	for i := range s.records {
		r := &s.records[i]
		c := connection{
			ID: r.ConnectionID, Pool: r.Pool, State: r.State(), Suspect: accused[r.ConnectionID],
			Idle: ageText(r.Idle), Age: ageText(r.Age), Leases: r.Accesses, Query: r.Query, Exempt: r.Exempt, Why: r.Kept,
			Reaped: r.Reaped, Memory: memoryOfConnection(r),
		}
		if h, ok := leases[r.ConnectionID]; ok {
			c.Lease, c.Bar = boundText(h.Age, h.AgeAtLeast), percent(h.Age, longest)
		}
		if r.TransactionLevel > 0 {
			c.Holds = append(c.Holds, "transaction "+ageText(r.TxAge))
		}
		if r.OpenRows > 0 {
			c.Holds = append(c.Holds, many(r.OpenRows, "result set"))
		}
		if r.OpenStatements > 0 {
			c.Holds = append(c.Holds, many(r.OpenStatements, "statement"))
		}
		list := &idle
		if r.Leased {
			list = &leased
		}
		shown := len(*list) < maxRows // finding out what a stack says takes microseconds
		if shown && len(r.Stack) > 0 {
			site := r.Stack.Site()
			c.Site, c.Function = site.String(), site.Function
		}
		if shown && len(r.Last) > 0 {
			if last := r.Last.Site(); last.String() != c.Site {
				c.Last, c.LastFunction = last.String(), last.Function
			}
		}
		*list = append(*list, c)
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
		if len(out) >= maxHeld {
			out = append(out, held{}) // counted
			continue
		}
		site := h.Site()
		row := held{
			Key: keyOf(h.ConnectionID, h.Kind, h.Resource),
			Age: boundText(h.Age, h.AgeAtLeast), Bar: percent(h.Age, longest), Suspect: h.Suspect != nil && h.Suspect.Exempt == "",
			State: "idle for " + ageText(h.Idle), Connection: h.ConnectionID, Level: h.Level,
			Site: site.String(), Function: site.Function, Query: h.Query, Exempt: h.Exempt,
		}
		switch {
		case h.Busy:
			row.State = "running"
		case h.Idle < time.Second:
			row.State = "moving"
		}
		row.Stack = s.stackOf(h.Stack)
		out = append(out, row)
	}
	return out
}

// over returns the leaks that are over, the last one first.
func (s *snapshot) over() []over {
	open := make(map[uint64]bool)
	for _, l := range slices.Concat(s.suspects, s.exempt) {
		open[l.ID] = true
	}
	seen := make(map[uint64]bool)
	var out []over
	for _, e := range slices.Backward(s.leaks) {
		l := e.Leak
		if seen[l.ID] || open[l.ID] {
			continue
		}
		seen[l.ID] = true
		site := l.Site()
		o := over{
			Time: clock(e.Time, s.now), Kind: l.Kind.String(), Limit: limitText(l), Age: boundText(l.Age, l.AgeAtLeast),
			Site: site.String(), Function: site.Function, Connection: cmp.Or(l.ConnectionID, l.Pool), Query: l.Query,
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
		switch {
		case e.Leak != nil:
			row.Connection = cmp.Or(e.ConnectionID, e.Pool)
			row.Site = e.Leak.Kind.String() + " of " + e.Leak.Site().String()
		case e.Blame != nil:
			row.Site = e.Blame.Site().String()
		case e.Pressure != nil:
			row.Site = e.Pressure.String()
		}
		out = append(out, row)
	}
	return out
}

func (s *snapshot) counters() []counter {
	st := &s.stats
	return []counter{
		{"leaked_detected", "leaks found", st.LeakedDetected},
		{"proven", "proven by garbage collection", st.Proven},
		{"reaped", "undone by the guard", st.Reaped},
		{"recovered", "came back by themselves", st.Recovered},
		{"blocked", "operations that found a lock taken", st.Blocked},
		{"created", "connections opened", st.Created},
		{"reused", "leases of one that had a lease before", st.Reused},
		{"expired", "closed in the pool for age or idleness", st.Expired},
		{"recycled", "closed in the pool for any limit", st.Recycled},
		{"refreshed", "given up for a limit, refreshed where they are", st.Refreshed},
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
