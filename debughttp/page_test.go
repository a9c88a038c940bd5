package debughttp_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// inOrder fails the test unless a text has the parts in this order.
func inOrder(t *testing.T, got string, parts ...string) {
	t.Helper()
	rest := got
	for _, part := range parts {
		i := strings.Index(rest, part)
		if i < 0 {
			t.Fatalf("%q is missing, or not in this place, in:\n%s", part, got)
		}
		rest = rest[i+len(part):]
	}
}

func TestPageWithoutAnything(t *testing.T) {
	page := body(t, debughttp.Handler(tracker.New(tracker.Options{})), "/")
	inOrder(t, page, "<title>nothing forgotten · SQLite leak guard</title>", `class="verdict good"`,
		"<strong>nothing forgotten</strong>", "No connection is open.", "No leak has been found so far.", "Leased connections", "None.")
	lacks(t, page, `id="suspects"`, `id="blame"`, `id="rows"`, `id="over"`, `id="charts"`, `id="memory"`, "<figure", `class="note"`, `class="alarm"`)
}

// What matters most stands on top, and a suspect says everything that is
// needed to mend it.
func TestPage(t *testing.T) {
	inBubble(t, func(s *scene) {
		p := s.pool("shop.db")
		h := debughttp.Handler(s.Tracker)
		for range 2 {
			forgetRows(s.open(p, true, ""), "SELECT id\n\tFROM orders", "")
		}
		s.open(p, true, "nightly").BeginTx("BEGIN", "")
		s.open(p, false, "")
		get(t, h, "/")
		pass(6 * time.Minute)
		fresh := s.open(p, true, "")
		fresh.OpenStatement(new(tracker.Resource), "SELECT 3", "")
		pass(time.Second)
		page := body(t, h, "/?refresh=0")

		inOrder(t, page,
			"<strong>2 suspects</strong>", "Something is forgotten on 2 connections, opened at debughttp/fixture_test.go:",
			"Look first at", "debughttp/fixture_test.go:", "Opened there 6m1s ago and not closed: rows.", "defer rows.Close() at this line.",
			"Open now: 5 connections (4 leased, 1 idle), 1 transaction, 2 result sets, 1 statement.",
			"Found so far: 3 leaks; 0 undone, 0 came back by themselves.",
			`id="pools"`, `<th scope="row" class="id">shop.db</th>`, ">?<", `data-l="in use">4<`, "observe", "nothing is undone", "report_after 30s, leak_after 5m0s, tx_timeout 10m0s",
			`id="suspects"`, "2 at 1 site;", `<span class="tag bad">2 × rows</span>`, `class="mono site">debughttp/fixture_test.go:`, "debughttp_test.forgetRows",
			"<b>6m1s</b>, idle for 6m", "leak_after 5m0s", "shop.db#1, shop.db#2", "SELECT id FROM orders",
			"Nothing: the pool is in mode observe.", "defer rows.Close() at this line",
			" open>", `class="stack mono"`, "forgetRows", "TestPage", "shop.db#1: 6m1s, idle for 6m", "shop.db#2: 6m1s, idle for 6m",
			`id="exempt"`, `<span class="tag quiet">transaction</span>`, "Exempt, so it is never undone: nightly",
			`id="charts"`, "Connections", "leased 4", "suspects 2", "−5m31s",
			`id="connections"`, "Leased connections", "shop.db#5", "Idle connections (1)", "shop.db#4",
			`id="transaction"`, "BEGIN", "exempt: nightly",
			`id="rows"`, `class="is-suspect"`, "6m1s", `width="100"`,
			`id="statement"`, "SELECT 3", `id="counters"`, "<b>3</b><span>leaks found</span>",
			`id="history"`, "All events", "suspect", "rows of debughttp/fixture_test.go:",
			"SQL texts are shown as each pool’s setting")
		lacks(t, page, `http-equiv="refresh"`, `id="blame"`, `id="over"`)
	})
}

// A leak that is over stays on the page.
func TestLeaksThatAreOver(t *testing.T) {
	inBubble(t, func(s *scene) {
		p := s.pool("shop.db")
		c := s.open(p, true, "")
		c.Proven(forgetRows(c, "SELECT lost", ""), true)
		other := s.open(p, true, "")
		late := forgetRows(other, "SELECT late", "")
		pass(6 * time.Minute)
		closeRows(other, late)
		c.Close()
		other.Close()
		for range 1000 {
			p.Open(still{}, false, "").Close()
		}
		page := body(t, debughttp.Handler(s.Tracker), "/")
		inOrder(t, page, "<strong>nothing forgotten</strong>", "Found so far: 2 leaks; 1 undone, 1 came back by themselves.",
			`id="over"`, `<span class="tag good">came back</span>`, "leak_after 5m0s", "forgetRows",
			`<span class="tag warn">closed</span>`, "proven", "forgetRows", "All events (256)", "and 196 more")
	})
}

func TestWhatFollows(t *testing.T) {
	inBubble(t, func(s *scene) {
		p, err := s.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: "enforced", Mode: tracker.Enforce, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		q := s.pool("observed")
		s.open(p, true, "")
		forgetRows(s.open(p, true, ""), "", "")
		s.open(q, true, "").HandedOut()
		lost := s.open(q, true, "")
		lost.Lost()
		pass(6 * time.Minute)
		wants(t, body(t, debughttp.Handler(s.Tracker), "/"),
			"<strong>4 suspects</strong>",
			"only its place in the pool. Its holder must give it back.",
			"Undone at the next check, unless it moves.",
			"It is not undone: the raw connection is in use",
			"A call never came back from SQLite", "Only a restart frees it.")
	})
}

// Whatever a program calls things, nothing of it becomes markup.
func TestEscaping(t *testing.T) {
	inBubble(t, func(s *scene) {
		p := s.pool(badPool)
		c := s.open(p, true, badExempt)
		c.Keep(badQuery)
		forgetRows(c, badQuery, badExempt)
		c.BeginTx(badQuery, "")
		c.OpenStatement(new(tracker.Resource), badQuery, "")
		gone := s.open(p, true, badExempt)
		gone.Proven(forgetRows(gone, badQuery, badExempt), true)
		gone.ReportKept(badQuery)
		cancel := s.AddDetector(func(tracker.Record) tracker.Reason { return badQuery })
		defer cancel()
		pass(20 * time.Minute)
		page := body(t, debughttp.Handler(s.Tracker, debughttp.Title(badPool)), "/")
		wants(t, page, "&lt;script&gt;", "&lt;/style&gt;")
		lacks(t, withoutScript(t, page), "<script", "<img", `document.title="owned"`)
		if n := strings.Count(page, "</style>"); n != 1 {
			t.Errorf("the style sheet ends %d times", n)
		}
		// Nothing opens an element that the template does not.
		for _, m := range regexp.MustCompile(`<([a-zA-Z]+)`).FindAllStringSubmatch(page, -1) {
			if !strings.Contains(" html head meta title style body header h time nav span a main section strong p article dl dt dd b "+
				"details summary script ol ul li figure figcaption svg line text path circle rect div table thead tr th tbody td code footer DOCTYPE ", " "+m[1]+" ") {
				t.Errorf("element %q", m[1])
			}
		}
	})
}

// By default no value of a query is on the page, in the JSON, in the profile or in the
// variable.
func TestSQLIsRedacted(t *testing.T) {
	inBubble(t, func(s *scene) {
		p, err := s.NewPool(tracker.PoolConfig{Name: "shop.db", Mode: tracker.Observe, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		c := s.open(p, true, "")
		const secret = "s3cret"
		query := fmt.Sprintf("SELECT 1 WHERE name = '%s'", secret)
		c.Proven(forgetRows(c, query, ""), true)
		forgetRows(c, query, "")
		c.BeginTx(query, "")
		c.OpenStatement(new(tracker.Resource), query, "")
		c.Executing(query)
		pass(20 * time.Minute)
		h := debughttp.Handler(s.Tracker)
		for _, path := range []string{"/", "/?format=json"} {
			lacks(t, body(t, h, path), secret)
			wants(t, body(t, h, path), "SELECT ? WHERE name = ?")
		}
		lacks(t, body(t, h, "/pprof"), secret)
		lacks(t, debughttp.Var(s.Tracker).String(), secret)
	})
}

// Long lists are cut, and say so.
func TestBounds(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: "db", Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := p.Open(nil, true, "")
	defer c.Close()
	for range 250 {
		c.OpenStatement(new(tracker.Resource), "SELECT 1", "")
	}
	page := body(t, debughttp.Handler(tr), "/")
	inOrder(t, page, `id="statement"`, "250", "and 230 more")
	_, page, _ = strings.Cut(page, `id="statement"`)
	if n := strings.Count(page, "SELECT 1"); n != 20 {
		t.Errorf("%d rows", n)
	}
}

// An age of which only a bound is known is told as one.
func TestPageAgeAtLeast(t *testing.T) {
	inBubble(t, func(s *scene) {
		c := s.open(s.pool("shop.db"), true, "")
		pass(30 * time.Second)
		c.BeginTx("BEGIN", "")
		pass(6 * time.Minute)
		text := body(t, debughttp.Handler(s.Tracker), "/")
		wants(t, text, "≥ 6m3")
		if strings.Contains(text, "≥ 6m0s") {
			t.Error("the transaction's beginning is known")
		}
	})
}
