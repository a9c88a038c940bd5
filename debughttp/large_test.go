package debughttp_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// deep opens rows far down in calls that call each other.
func deep(n int, c *tracker.Conn, query string) *tracker.Resource {
	if n > 0 {
		return deep(n-1, c, query)
	}
	return forgetRows(c, query, "")
}

// crowd is a program with a thousand connections of 300 pools, and 300 suspects with
// long texts and deep stacks.
func crowd(s *scene) {
	query := "SELECT " + strings.Repeat("a_column_with_a_long_name, ", 200) + "1 FROM t"
	var keys []tracker.Key
	for range 25 {
		keys = append(keys, leakAfterKey)
	}
	var pools []*tracker.Pool
	for i := range 300 {
		p, err := s.NewPool(tracker.PoolConfig{
			SQL: tracker.SQLFull, Name: fmt.Sprintf("customer-%d.with.a.long.name.db", i), Mode: tracker.Observe, Keys: keys, Logger: quiet,
		})
		if err != nil {
			s.t.Fatal(err)
		}
		pools = append(pools, p)
	}
	for i := range 300 {
		c := s.open(pools[i], true, "")
		c.Executing(query)
		deep(40, c, query) // a suspect
	}
	pass(6 * time.Minute)
	for i := range 200 { // leaks that are over
		c := pools[i].Open(still{}, true, "")
		r := deep(40, c, query)
		c.Proven(r, true)
		c.Close()
	}
	for i := range 700 {
		c := s.open(pools[i%300], i%2 == 0, "")
		c.Executing(query)
		if i%2 == 0 {
			c.BeginTx(query, "")
			deep(40, c, query)
			c.OpenStatement(new(tracker.Resource), query, "")
		}
	}
	pass(time.Second)
}

// The page of a large program in trouble is one that a phone can load, says how much it
// leaves out and where that is, and is made in no time.
func TestLargePage(t *testing.T) {
	inBubble(t, func(s *scene) {
		crowd(s)
		h := debughttp.Handler(s.Tracker, debughttp.Control())
		for _, path := range []string{"/", "/control", "/?format=text"} {
			page := body(t, h, path)
			if len(page) > 200_000 {
				t.Errorf("%s has %d bytes", path, len(page))
			}
			t.Log(path, len(page), "bytes")
		}
		page := body(t, h, "/")
		inOrder(t, page, "300 suspects", `id="pools"`, "and 275 more", `id="suspects"`, "300 at 300 sites", "and 260 more sites", `href="?format=json"`,
			`id="connections"`, "650", "and 620 more", "Idle connections (350)", "and 320 more", `id="transaction"`, "and 330 more", `id="rows"`, "and 630 more", `id="over"`, "and 98 more")
		if n := strings.Count(page, `<li><span class="at">`); n != 200 {
			t.Errorf("%d calls of stacks", n)
		}
		wants(t, page, "No room for this call stack here")
		lacks(t, page, "call sites are off")
		one := body(t, h, "/control?pool=customer-299.with.a.long.name.db")
		wants(t, one, "What is held of pool customer-299.", "Pool customer-299.")
		lacks(t, one, "customer-298.")
		wants(t, body(t, h, "/control"), "and 290 more:", `name="pool" placeholder="name"`)
		var d struct{ Suspects, Held, Pools []any }
		if err := json.Unmarshal([]byte(body(t, h, "/?format=json")), &d); err != nil || len(d.Suspects) != 300 || len(d.Pools) != 300 || len(d.Held) != 300*2+350*4 {
			t.Errorf("the JSON has %d suspects, %d pools and %d that are held: %v", len(d.Suspects), len(d.Pools), len(d.Held), err)
		}
	})
}

func BenchmarkLargePage(b *testing.B) {
	s := &scene{Tracker: tracker.New(tracker.Options{}), t: b}
	p, err := s.NewPool(tracker.PoolConfig{Name: "db", Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		c := s.open(p, true, "")
		r := deep(i%60, c, "SELECT 1")
		if i < 300 {
			c.Proven(r, false)
		}
	}
	h := debughttp.Handler(s.Tracker)
	for b.Loop() {
		get(b, h, "/")
	}
	for _, c := range s.conns {
		c.Close()
	}
}
