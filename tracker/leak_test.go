package tracker

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestLeakString(t *testing.T) {
	base := func(kind Kind, reason Reason, change func(l *Leak)) Leak {
		l := Leak{
			ID: 7, Kind: kind, Reason: reason, Pool: "app", ConnectionID: "app#3", Resource: 2,
			Age: 10*time.Minute + 1234*time.Microsecond, Idle: 6*time.Minute + 30*time.Second + 400*time.Millisecond, Limit: 5 * time.Minute,
		}
		if change != nil {
			change(&l)
		}
		return l
	}
	for _, c := range []struct {
		l    Leak
		want string
	}{
		{base(KindRows, ReasonLeakAfter, func(l *Leak) { l.Query = "SELECT *\n\tFROM t" }),
			"rows without activity for 6m30s (leak_after 5m0s, open for 10m0s) on app#3: opened at unknown: SELECT * FROM t"},
		{base(KindTransaction, ReasonTxTimeout, func(l *Leak) { l.Limit = 10 * time.Minute; l.Query = "BEGIN" }),
			"transaction open for 10m0s (tx_timeout 10m0s) on app#3: opened at unknown: BEGIN"},
		{base(KindTransaction, ReasonTxTimeout, func(l *Leak) { l.Operations = 1 }),
			"transaction open for 10m0s (tx_timeout 5m0s, 1 operation since it was first reported) on app#3: opened at unknown"},
		{base(KindTransaction, ReasonTxTimeout, func(l *Leak) { l.Operations = 12345 }),
			"transaction open for 10m0s (tx_timeout 5m0s, 12345 operations since it was first reported) on app#3: opened at unknown"},
		{base(KindTransaction, ReasonTxLimit, nil),
			"transaction open for 10m0s (tx_limit 5m0s) on app#3: opened at unknown"},
		{base(KindStatement, ReasonMaxStatements, func(l *Leak) {
			l.Count = 100
			l.Kept = "a statement may be in use: close it in the program"
			l.Query = "SELECT 1"
		}),
			"statement prepared 100 times and not closed (max_statements) on app#3: opened at unknown: SELECT 1 (kept: a statement may be in use: close it in the program)"},
		{base(KindTransaction, ReasonInPool, func(l *Leak) { l.Idle = 1234 * time.Millisecond; l.Query = "BEGIN IMMEDIATE" }),
			"transaction left open in the pool for 1.23s (in_pool) on app#3: opened at unknown: BEGIN IMMEDIATE"},
		{base(KindRows, ReasonProven, func(l *Leak) { l.Age = 12345678 * time.Nanosecond }),
			"rows never closed and out of reach after 10ms (proven) on app#3: opened at unknown"},
		{base(KindConnection, ReasonPanic, func(l *Leak) { l.Age = 999 * time.Microsecond; l.Kept = "a call never came back from SQLite" }),
			"connection suspect after 1ms (panic) on app#3: opened at unknown (kept: a call never came back from SQLite)"},
		{base(KindConnection, "too many rows", nil),
			"connection suspect after 10m0s (too many rows) on app#3: opened at unknown"},
		{base(KindConnection, ReasonLeakAfter, func(l *Leak) { l.Exempt = "nightly import"; l.Kept = "the raw connection is in use" }),
			"connection without activity for 6m30s (leak_after 5m0s, open for 10m0s) on app#3: opened at unknown (exempt: nightly import)"},
	} {
		if got := c.l.String(); got != c.want {
			t.Errorf("\n%s, want\n%s", got, c.want)
		}
	}
}

// The text names the call that opened it.
func TestLeakSite(t *testing.T) {
	h := newHolder(t, false)
	at := inlined(h)
	l := Leak{Kind: KindConnection, Reason: ReasonLeakAfter, ConnectionID: "a#1", Stack: h.stack(), Query: "SELECT 1"}
	if l.Site().String() != at || !strings.Contains(l.String(), ": opened at "+at+": SELECT 1") {
		t.Errorf("%s, want %s", l, at)
	}
}

func TestRound(t *testing.T) {
	for _, c := range []struct{ d, want string }{
		{"1h2m3.6s", "1h2m4s"}, {"1m0.4s", "1m0s"}, {"59.996s", "1m0s"}, {"1.2345s", "1.23s"}, {"1s", "1s"},
		{"999.996ms", "1s"}, {"57.743644ms", "60ms"}, {"9.6ms", "10ms"}, {"3.4ms", "3ms"}, {"999.9µs", "1ms"}, {"5ns", "0s"}, {"0s", "0s"},
	} {
		d, err := time.ParseDuration(c.d)
		if err != nil {
			t.Fatal(err)
		}
		if got := round(d).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.d, got, c.want)
		}
	}
}

func TestShorten(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name, query string
		n           int
		want        string
	}{
		{"empty", "", 80, ""},
		{"blank", " \t\r\n ", 80, ""},
		{"folded", "  SELECT\t a,\r\n\n b\v\fFROM t ; ", 80, "SELECT a, b FROM t ;"},
		{"fits", x(80), 80, x(80)},
		{"one too many", x(81), 80, x(77) + "…"},
		{"fits when folded", x(40) + "   " + x(39), 80, x(40) + " " + x(39)},
		{"cut between runes", strings.Repeat("ä", 50), 80, strings.Repeat("ä", 38) + "…"}, // 77 bytes would cut one
		{"cut at a rune", "x" + strings.Repeat("ä", 50), 80, "x" + strings.Repeat("ä", 38) + "…"},
		{"four bytes", strings.Repeat("🙂", 50), 80, strings.Repeat("🙂", 19) + "…"},
		{"huge", x(10 << 20), 80, x(77) + "…"},
	} {
		if got := shorten(c.query, c.n); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Wherever a text is cut, what is shown is not longer than asked for, valid if
// the text was, one line, and says that there is more.
func TestShortenAnyText(t *testing.T) {
	broken := func(query string) string {
		got, folded := shorten(query, 80), strings.Join(strings.Fields(query), " ")
		switch {
		case len(got) > 80 || !utf8.ValidString(got) || strings.ContainsAny(got, "\n\t") || strings.Contains(got, "  "):
			return "it is too long, invalid, or not one line"
		case len(folded) > 80 && !strings.HasSuffix(got, "…"):
			return "it does not say that there is more"
		case len(folded) > 0 && got == "":
			return "nothing is shown"
		}
		return ""
	}
parts:
	for _, part := range []string{"x", "ä", "€", "🙂", "x ", "\n", "  ä", "€\t\t\t\t\t"} {
		for lead := range 10 {
			for _, blank := range []int{0, 1, 70, 300, 500} {
				query := strings.Repeat(" ", blank) + strings.Repeat("y", lead) + strings.Repeat(part, 400)
				if why := broken(query); why != "" {
					t.Errorf("%d blanks, %d y, 400 times %q: %q: %s", blank, lead, part, shorten(query, 80), why)
					continue parts
				}
			}
		}
	}
}

func FuzzShorten(f *testing.F) {
	f.Add("SELECT 1")
	f.Add(strings.Repeat("ä ", 200))
	f.Add(strings.Repeat(" ", 319) + "ä")
	f.Fuzz(func(t *testing.T, query string) {
		got := shorten(query, 80)
		if len(got) > 80 || strings.ContainsAny(got, "\n\r\t") || utf8.ValidString(query) && !utf8.ValidString(got) {
			t.Errorf("%q: %q", query, got)
		}
	})
}

func TestLeakJSON(t *testing.T) {
	full := Leak{
		ID: 7, Kind: KindTransaction, Reason: ReasonTxTimeout, Pool: "app", ConnectionID: "app#3", Resource: 2,
		OpenedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Age: time.Minute, Idle: time.Second, Limit: time.Hour,
		Count: 3, Operations: 9, Level: 2, Query: "BEGIN", Exempt: "import", Kept: "raw", Stack: Stack{1},
	}
	const all = `{"id":7,"kind":"transaction","reason":"tx_timeout","pool":"app","connection_id":"app#3","resource":2,` +
		`"opened_at":"2026-01-02T03:04:05Z","age":60000000000,"idle":1000000000,"limit":3600000000000,` +
		`"count":3,"operations":9,"level":2,"query":"BEGIN","exempt":"import","kept":"raw"}`
	const zero = `{"id":0,"kind":"connection","reason":"","pool":"","connection_id":"","resource":0,` +
		`"opened_at":"0001-01-01T00:00:00Z","age":0,"idle":0,"limit":0}`
	const event = `{"type":"reaped","time":"2026-01-02T03:04:05Z","pool":"app","connection_id":"app#3","reason":"tx_timeout","leak":` + all + `}`
	for _, c := range []struct {
		v    any
		want string
	}{
		{full, all}, {Leak{}, zero},
		{Event{Type: EventReaped, Time: full.OpenedAt, Pool: "app", ConnectionID: "app#3", Reason: ReasonTxTimeout, Leak: &full}, event},
		{Event{Type: EventCheckIn}, `{"type":"check-in","time":"0001-01-01T00:00:00Z","pool":"","connection_id":""}`},
	} {
		if got, err := json.Marshal(c.v); err != nil || string(got) != c.want {
			t.Errorf("%s, %v\nwant\n%s", got, err, c.want)
		}
	}
}

func TestNames(t *testing.T) {
	var kinds, types []string
	for k := KindConnection; k <= KindRows; k++ {
		text, _ := k.MarshalText()
		kinds = append(kinds, k.String(), string(text))
	}
	for e := EventOpened; e <= EventClosed; e++ {
		text, _ := e.MarshalText()
		types = append(types, e.String(), string(text))
	}
	if got := strings.Join(kinds, " "); got != "connection connection transaction transaction statement statement rows rows" {
		t.Error(got)
	}
	if got := strings.Join(types, " "); got != "opened opened check-out check-out check-in check-in suspect suspect proven proven "+
		"recovered recovered reaped reaped recycled recycled refreshed refreshed kept kept closed closed" {
		t.Error(got)
	}
}
