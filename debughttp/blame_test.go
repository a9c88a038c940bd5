package debughttp_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// blocked makes a tracker in which one connection was in the way twice, and
// another process once.
func blocked(s *scene, query string) {
	p := s.pool(badPool)
	holder := s.openFile(p, figured{}, "/data/<shop>.db")
	waiter := s.openFile(p, still{}, "/data/<shop>.db")
	holdLock(holder, query)
	pass(90 * time.Second)
	wantLock(waiter, query, tracker.ReasonBusy)
	pass(2 * time.Second)
	wantLock(waiter, query, tracker.ReasonBusySnapshot)
	other := s.openFile(p, still{}, "/data/other.db")
	pass(2 * time.Second)
	wantLock(other, query, tracker.ReasonBusy)
}

func part(page, id string) string {
	_, html, _ := strings.Cut(page, `id="`+id+`"`)
	html, _, _ = strings.Cut(html, "</section>")
	return html
}

// Who kept others waiting stands right below the suspects: first the places of
// the program, then the single cases.
func TestBlame(t *testing.T) {
	inBubble(t, func(s *scene) {
		blocked(s, badQuery)
		page := body(t, debughttp.Handler(s.Tracker), "/")
		inOrder(t, page, `id="verdict"`, "3 operations failed because somebody else held a lock.", `id="blame"`, `id="connections"`)
		html := part(page, "blame")
		inOrder(t, html,
			"Who kept others waiting", `<td class="r" data-l="times"><b>2</b></td>`, "transaction", "debughttp/fixture_test.go:", "debughttp_test.holdLock", "&lt;script&gt;",
			"Blocked last",
			">busy<", "wantLock", "another process, or let go since",
			">busy_snapshot<", "wantLock",
			">busy<", "&lt;shop&gt;.db", "wantLock", "SELECT 1 -- &lt;/code&gt;", "holdLock", "transaction on shop", "open for 1m30s", `<span class="tag warn">writes</span>`,
		)
		lacks(t, html, "<script", "<img")
		wants(t, part(page, "history"), "blocked", "busy_snapshot")
	})
}

func TestBlameJSON(t *testing.T) {
	inBubble(t, func(s *scene) {
		blocked(s, "SELECT s3cret")
		var d struct {
			Blamed  []map[string]any
			History []struct {
				Type  string
				Blame map[string]any
			}
		}
		if err := json.Unmarshal([]byte(body(t, debughttp.Handler(s.Tracker), "/?format=json")), &d); err != nil {
			t.Fatal(err)
		}
		if got, want := keys(t, d.Blamed[0]), "count function kind last query site stack"; got != want || d.Blamed[0]["count"] != 2.0 {
			t.Errorf("blamed: %v, want %s", d.Blamed, want)
		}
		var blames []map[string]any
		for _, e := range d.History {
			if e.Type == "blocked" {
				blames = append(blames, e.Blame)
			}
		}
		if len(blames) != 3 {
			t.Fatalf("%d were blocked, want 3", len(blames))
		}
		if got, want := keys(t, blames[0]), "file function holders query site stack"; got != want {
			t.Errorf("blame has %s, want %s", got, want)
		}
		h := blames[0]["holders"].([]any)[0].(map[string]any)
		if got, want := keys(t, h), "age busy connection_id function idle kind level opened_at pool query resource site stack state"; got != want || h["state"] != "write" || h["age"] != 90.0 {
			t.Errorf("holder has %s: %v", got, h)
		}
		if none, ok := blames[2]["holders"].([]any); !ok || len(none) != 0 {
			t.Errorf("without a holder: %v", blames[2])
		}
		// The tracker's own are untouched.
		for _, e := range s.History() {
			if e.Blame != nil && (e.Blame.Query == "" || len(e.Blame.Holders) > 0 && e.Blame.Holders[0].Query == "") {
				t.Errorf("the history lost the query: %v", e.Blame)
			}
		}
	})
}

// A suspect says where its connection moved last, and whose trace it is.
func TestLastActivityAndTrace(t *testing.T) {
	inBubble(t, func(s *scene) {
		s.SetTraceHook(func(_ context.Context, tr *tracker.Trace) bool {
			tr.TraceID, tr.SpanID, tr.Flags = [16]byte{0x4b, 0xf9}, [8]byte{0xab}, 1
			return true
		})
		c := s.open(s.pool("shop.db"), true, "")
		c.TraceLease(t.Context())
		forgetRows(c, "SELECT 1", "")
		goOn(c)
		pass(6 * time.Minute)
		page := body(t, debughttp.Handler(s.Tracker), "/")
		inOrder(t, part(page, "suspects"), "forgetRows", "last activity", "debughttp/blame_test.go:", "trace", "4bf90000000000000000000000000000 (span ab00000000000000)")
		inOrder(t, part(page, "connections"), "last at", "debughttp/blame_test.go:", "goOn")
		wants(t, body(t, debughttp.Handler(s.Tracker), "/?format=json"),
			`"trace": "00-4bf90000000000000000000000000000-ab00000000000000-01"`, `"last_site": "debughttp/blame_test.go:`, `"last_activity_at": "debughttp/blame_test.go:`)
	})
}

func goOn(c *tracker.Conn) { c.Executing("SELECT 2") }

// Too many pools of one file are a suspect without a connection.
func TestPoolLeak(t *testing.T) {
	inBubble(t, func(s *scene) {
		policy := tracker.DefaultPolicy()
		policy.MaxPools = 2
		var pools []*tracker.Pool
		for range 3 {
			p, err := s.NewPool(tracker.PoolConfig{Name: "shop.db", Path: "/data/shop.db", Policy: policy, Logger: quiet})
			if err != nil {
				t.Fatal(err)
			}
			pools = append(pools, p)
			pass(time.Second)
		}
		h := debughttp.Handler(s.Tracker)
		pass(time.Minute)
		page := body(t, h, "/")
		wants(t, page, "<strong>1 suspect</strong>")
		html := part(page, "suspects")
		inOrder(t, html, `<span class="tag bad">pool</span>`, "debughttp/blame_test.go:", "TestPoolLeak",
			"<b>1m3s</b>, since 00:00:00</dd>", "max_pools: open 2 times", "<dt>pool</dt><dd>shop.db</dd>",
			"It is not undone: a pool may be in use", "share it, or close each")
		lacks(t, html, "connection<", "idle")
		wants(t, body(t, h, "/?format=json"), `"kind": "pool"`, `"reason": "max_pools"`)
		for _, p := range pools {
			p.Close()
		}
		wants(t, body(t, h, "/"), "<strong>nothing forgotten</strong>", "came back")
	})
}

// A lease whose handle the guard has closed is marked: its place is taken.
func TestReapedButHeld(t *testing.T) {
	inBubble(t, func(s *scene) {
		c := s.open(s.pool("shop.db"), true, "")
		c.ForceClosed()
		pass(time.Minute)
		inOrder(t, part(body(t, debughttp.Handler(s.Tracker), "/"), "connections"), "1m0s", `<span class="tag bad">reaped</span>`, "shop.db#1",
			"Its SQLite handle is closed; its holder has not let go of the pool")
		wants(t, body(t, debughttp.Handler(s.Tracker), "/?format=json"), `"reaped": true`)
	})
}
