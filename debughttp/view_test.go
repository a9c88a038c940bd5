package debughttp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// Memory is drawn once there are figures, connections once there are two
// moments.
func TestCharts(t *testing.T) {
	s := &snapshot{now: noon, stats: tracker.Stats{TotalConnections: 4, ActiveConnections: 4}}
	if c := s.charts(); len(c) != 0 {
		t.Errorf("one moment is drawn: %+v", c)
	}
	s.memory = []tracker.MemoryPoint{{Time: noon.Add(-10 * time.Second), Leased: 1, Open: 3}}
	c := s.charts()
	if len(c) != 1 || c[0].Title != "Connections" || c[0].Width != chartWidth || c[0].From != "−10s" || c[0].To != "now" {
		t.Fatalf("charts: %+v", c)
	}
	// From 1 of 4 at the left to the top at the right.
	if got, want := c[0].Series[1].Line, "M40.0 85.0L532.0 10.0"; got != want {
		t.Errorf("the line is %s, want %s", got, want)
	}
	if got, want := c[0].Series[1].Area, "M40.0 85.0L532.0 10.0L532.0 110.0L40.0 110.0Z"; got != want {
		t.Errorf("the area is %s, want %s", got, want)
	}
	s.memory = append(s.memory, tracker.MemoryPoint{
		Time: noon.Add(-5 * time.Second), ProcessRSS: 123 << 20, SystemPercent: 61.25, SQLite: 3 << 19, Connections: 1 << 20,
	})
	s.stats.MemoryMonitoring.LimitedBy = "cgroup"
	var got []string
	for _, c := range s.charts() {
		for _, series := range c.Series {
			got = append(got, c.Title+" "+series.Name+" "+series.Now+" "+c.To)
		}
	}
	want := []string{
		"Connections open 4 now", "Connections leased 4 now", "Connections suspects 0 now",
		"Memory of SQLite connections 1 MiB −5s", "Memory of SQLite all 1.5 MiB −5s",
		"Memory of this process resident 123 MiB −5s", "Memory of the container used 61.2 % −5s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("drawn: %q\nwant %q", got, want)
	}
}

// How many suspects there were is told by the leaks.
func TestSuspectsOverTime(t *testing.T) {
	at := func(seconds int) time.Time { return noon.Add(time.Duration(seconds) * time.Second) }
	event := func(typ tracker.EventType, id uint64, seconds int) tracker.Event {
		return tracker.Event{Type: typ, Time: at(seconds), Leak: &tracker.Leak{ID: id}}
	}
	exempt := event(tracker.EventSuspect, 9, 1)
	exempt.Leak.Exempt = "import"
	s := &snapshot{now: at(40), suspects: []tracker.Suspect{{Leak: tracker.Leak{ID: 2}}, {Leak: tracker.Leak{ID: 3}}}}
	s.leaks = []tracker.Event{
		exempt, event(tracker.EventSuspect, 1, 5), event(tracker.EventSuspect, 2, 15), event(tracker.EventReaped, 1, 25), event(tracker.EventProven, 2, 26),
	}
	for _, seconds := range []int{0, 10, 20, 30} {
		s.memory = append(s.memory, tracker.MemoryPoint{Time: at(seconds)})
	}
	var got []int
	for _, p := range s.points() {
		got = append(got, p.Suspects)
	}
	if want := []int{0, 1, 2, 1, 2}; !slices.Equal(got, want) {
		t.Errorf("suspects over time: %v, want %v", got, want)
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
	s.stats.MemoryMonitoring.Sources = []tracker.MemorySource{{Name: "meminfo", State: "no such file"}}
	notes := s.notes()
	got := fmt.Sprint(notes)
	for _, want := range []string{"Memory is short", "cannot be read", "a, b.", "1 event did", "2 panics in"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
	if notes[0].Class != "alarm" {
		t.Errorf("the first note is %+v", notes[0])
	}
	s.now = noon
	s.events = []tracker.Event{{Type: tracker.EventPressure, Time: noon, Pressure: &tracker.Pressure{On: true, UsedPercent: 91, Stall: 12.5, Limit: 85, Released: 3 << 20, Closed: 1, ClosedBytes: 2048}}}
	if got, want := s.notes()[0].Text, "Memory is short since 12:00:00: then 91.0 % were used (limit 85 %), tasks waited for it 12.5 % of the time. The guard released 3.0 MiB of caches. It closed 1 idle connection that held 2.0 KiB."; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A leak of bytes names them.
func TestLimits(t *testing.T) {
	for want, l := range map[string]tracker.Leak{
		"wal_limit 64.0 MiB: keeps a write-ahead log of 1.0 GiB": {Reason: tracker.ReasonWALLimit, LimitBytes: 64 << 20, Bytes: 1 << 30},
		"leak_memory 2.0 KiB: holds 900 B":                       {Reason: tracker.ReasonLeakMemory, LimitBytes: 2048, Bytes: 900},
		"max_pools: open 20 times":                               {Reason: tracker.ReasonMaxPools, Count: 20},
		"max_pools: 50 open from one place":                      {Reason: tracker.ReasonMaxPools, Count: 50, OnePlace: true},
		"max_statements: 500 open from one place":                {Reason: tracker.ReasonMaxStatements, Count: 500, OnePlace: true},
		"leak_after 5m0s":                                        {Reason: tracker.ReasonLeakAfter, Limit: 5 * time.Minute},
		"proven":                                                 {Reason: tracker.ReasonProven},
	} {
		if got := limitText(&l); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	// What to do about pools depends on whether they are of one file.
	pools := []tracker.Suspect{
		{Leak: tracker.Leak{Kind: tracker.KindPool, Reason: tracker.ReasonMaxPools, Pool: "a", Count: 20}},
		{Leak: tracker.Leak{Kind: tracker.KindPool, Reason: tracker.ReasonMaxPools, Pool: "b", Count: 50, OnePlace: true}},
	}
	if cards := new(snapshot).groups(pools, 0).Groups; len(cards) != 2 || !strings.Contains(cards[0].Fix, "for the file") || !strings.Contains(cards[1].Fix, "when it is done with") {
		t.Errorf("%+v", cards)
	}
	s := &snapshot{records: []tracker.Record{{ConnectionID: "a#1"}}}
	if got := s.next(&tracker.Leak{Kind: tracker.KindRows, Reason: tracker.ReasonWALLimit, ConnectionID: "a#1"}); !strings.Contains(got, "reported only") {
		t.Errorf("what follows: %s", got)
	}
	s.stats = tracker.Stats{TotalConnections: 1, WALBytes: 3 << 20, Blocked: 2}
	for text, want := range map[string]string{s.nowText(): "Write-ahead logs: 3.0 MiB.", s.pastText(): "2 operations failed because somebody else held a lock."} {
		if !strings.HasSuffix(text, want) {
			t.Errorf("%q does not end with %q", text, want)
		}
	}
}

// A figure that is old is marked unless the connection has not moved since.
func TestMemoryAge(t *testing.T) {
	for _, c := range []struct {
		r    tracker.Record
		want memoryOf
	}{
		{tracker.Record{}, memoryOf{}},
		{tracker.Record{Memory: 2048, MemoryPeak: 3 << 20, MemoryAge: 20 * time.Second}, memoryOf{"2.0 KiB", "3.0 MiB", ""}},
		{tracker.Record{Memory: 1, MemoryPeak: 1, MemoryAge: 2 * time.Minute, Idle: 2*time.Minute - time.Millisecond}, memoryOf{"1 B", "1 B", ""}},
		{tracker.Record{MemoryPeak: 1024, MemoryAge: 2 * time.Minute, Idle: time.Second}, memoryOf{"0 B", "1.0 KiB", "2m0s"}},
		{tracker.Record{Memory: 1, MemoryPeak: 1, MemoryAge: 2 * time.Minute, Idle: time.Hour}, memoryOf{"1 B", "1 B", ""}},
	} {
		if got := memoryOfConnection(&c.r); got != c.want {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
}

// One line of the program is one line of the table, whoever called it.
func TestBlamedByLine(t *testing.T) {
	s := &snapshot{now: noon, blamed: []tracker.BlameCount{
		{Kind: tracker.KindRows, Count: 3, Last: noon, Query: "old"},
		{Kind: tracker.KindTransaction, Count: 2, Last: noon},
		{Kind: tracker.KindTransaction, Count: 2, Last: noon.Add(time.Second), Query: "new"},
	}}
	got := s.blamedRows()
	if len(got) != 2 || got[0].Kind != "transaction" || got[0].Count != 4 || got[0].Last != "12:00:01" || got[0].Query != "new" || got[1].Count != 3 {
		t.Errorf("%+v", got)
	}
}

// A case with many holders names the most likely ones.
func TestManyHolders(t *testing.T) {
	s := &snapshot{now: noon, events: []tracker.Event{{Type: tracker.EventBlocked, Reason: tracker.ReasonLocked, Blame: &tracker.Blame{Holders: []tracker.Holder{
		{Held: tracker.Held{Kind: tracker.KindRows}, State: tracker.TxRead, Own: true},
		{Held: tracker.Held{Kind: tracker.KindConnection, Busy: true}},
		{State: tracker.TxUnknown}, {}, {},
	}}}}}
	rows := s.blockedRows()
	if len(rows) != 1 || len(rows[0].Holders) != 3 || rows[0].More != 2 {
		t.Fatalf("%+v", rows)
	}
	if h := rows[0].Holders; !strings.HasPrefix(h[0].What, "its own rows on ") || h[0].State != "reads" || h[0].Write || h[1].State != "running" || h[2].State != "state unknown" {
		t.Errorf("%+v", h)
	}
	var b bytes.Buffer
	if err := s.page(0).write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"its own rows", "and 2 more", ">locked<"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &b)
		}
	}
}

// How a holder comes to hold the file is told, and which of several files it is.
func TestHolderThrough(t *testing.T) {
	blame := &tracker.Blame{File: "/b.db", Files: []string{"/b.db", "/a.db"}, Holders: []tracker.Holder{
		{Held: tracker.Held{Kind: tracker.KindTransaction, ConnectionID: "db#2"}, State: tracker.TxWrite, File: "/b.db", Through: "ATTACH AS b", Attached: tracker.Stack{1}},
		{Held: tracker.Held{Kind: tracker.KindConnection, ConnectionID: "db#3", Age: 3 * time.Second}, Through: tracker.ThroughRaw, Maybe: true},
		{Held: tracker.Held{Kind: tracker.KindConnection, ConnectionID: "db#4"}, State: tracker.TxNone, Through: tracker.ThroughLockingMode, Maybe: true},
	}}
	raw := &tracker.Blame{Holders: []tracker.Holder{
		{Held: tracker.Held{Kind: tracker.KindConnection, ConnectionID: "db#5"}, State: tracker.TxRead, Through: tracker.ThroughRaw, Maybe: true, Own: true},
		{Held: tracker.Held{Kind: tracker.KindConnection, ConnectionID: "db#6", Age: time.Minute}, State: tracker.TxRead, Through: tracker.ThroughRaw},
	}}
	s := &snapshot{now: noon, events: []tracker.Event{
		{Type: tracker.EventBlocked, Reason: tracker.ReasonBusy, Blame: blame}, {Type: tracker.EventBlocked, Reason: tracker.ReasonLocked, Blame: raw},
	}}
	var b bytes.Buffer
	if err := s.page(0).write(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"transaction on db#2 through ATTACH AS b at ", "writes on /b.db", "a raw connection may hold it: db#3, taken 3s ago", "db#4 may still hold it: locking_mode=EXCLUSIVE keeps locks", "no transaction",
		"its own raw connection may hold it: db#5", "left open on the raw connection of db#6, taken 1m0s ago",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &b)
		}
	}
	out, err := json.Marshal(blameJSONOf(blame))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"files":["/b.db","/a.db"]`, `"file":"/b.db","through":"ATTACH AS b","attached_at":"`, `"through":"the raw connection","maybe":true`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s is missing in:\n%s", want, out)
		}
	}
}
