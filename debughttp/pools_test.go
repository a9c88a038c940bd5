package debughttp_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// opener is a sql.DB's connector whose connections do nothing.
type opener struct {
	s *scene
	p *tracker.Pool
}

func (opener) Driver() driver.Driver { return nil }

func (o opener) Connect(context.Context) (driver.Conn, error) {
	c := o.p.New(true, badExempt)
	c.Executing(badQuery)
	c.Register(still{})
	return opened{c}, nil
}

type opened struct{ *tracker.Conn }

func (opened) Prepare(string) (driver.Stmt, error) { return nil, errors.ErrUnsupported }
func (opened) Begin() (driver.Tx, error)           { return nil, errors.ErrUnsupported }
func (o opened) Close() error                      { o.Conn.Close(); return nil }

// waitForPlace is where a place is waited for.
func waitForPlace(db *sql.DB) {
	if c, err := db.Conn(context.Background()); err == nil {
		c.Close()
	}
}

// TestPlaces: a pool whose sql.DB is attached has its places on the page. One that
// starves makes the page red, and says who has them and who waits; no SQL text is
// shown by that.
func TestPlaces(t *testing.T) {
	inBubble(t, func(s *scene) {
		p := s.pool(badPool)
		db := sql.OpenDB(opener{s, p})
		defer db.Close()
		db.SetMaxOpenConns(1)
		detach, err := p.Attach(db, tracker.AttachOptions{StarvedAfter: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer detach()
		c, err := db.Conn(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		h := debughttp.Handler(s.Tracker)
		page := body(t, h, "/")
		inOrder(t, page, `class="verdict good"`, `id="pools"`, `data-l="capacity">1</td>`, `data-l="in use">1</td>`, `data-l="lost">0</td>`, `id="connections"`)
		lacks(t, page, "starved")
		go waitForPlace(db)
		pass(2 * time.Second)
		page = body(t, h, "/")
		inOrder(t, page, "<title>1 starved pool · ", `class="verdict bad"`, "nobody has got a place for 2.99s", `id="pools"`, `<span class="tag bad">starved</span>`,
			"Nobody got a place of shop&#34;&gt;", " for 3s, 1 goroutine waiting for a place", "1 × waiting", "debughttp/pools_test.go:", "debughttp_test.waitForPlace",
			`<span class="tag ">idle</span>`, "debughttp/pools_test.go:", "exempt: import&lt;/span&gt;", `id="connections"`)
		lacks(t, withoutScript(t, page), "<script")
		var d struct {
			Verdict string
			History []struct {
				Type    string
				Starved *struct {
					For     float64
					Waiting int
					Places  []struct{ Doing, Site string }
				}
			}
		}
		text := body(t, h, "/?format=json")
		if err := json.Unmarshal([]byte(text), &d); err != nil {
			t.Fatal(err)
		}
		if last := d.History[len(d.History)-1]; d.Verdict != "1 starved pool" || last.Type != "starved" || last.Starved == nil ||
			last.Starved.Waiting != 1 || len(last.Starved.Places) != 1 || last.Starved.Places[0].Doing != "idle" {
			t.Errorf("%+v", d)
		}
		c.Close()
		pass(time.Second)
		lacks(t, body(t, h, "/"), `class="tag bad">starved`)
	})
}
