package debughttp_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))

// Texts that programs choose, as bad as they come.
const (
	badPool   = `shop"><script>document.title="owned"</script>.db`
	badExempt = `import</span><script>document.title="owned"</script>`
	badQuery  = `SELECT 1 -- </code></style><script>document.title="owned"</script><img src=x onerror="document.title='owned'">`
)

// still is a connection that does nothing.
type still struct{}

func (still) Look(f func()) bool                   { f(); return true }
func (still) Carry(*tracker.Order) tracker.Outcome { return tracker.Void }
func (still) Nudge() bool                          { return false }
func (still) Memory() (int64, bool)                { return 0, false }
func (still) TxState() tracker.TxState             { return tracker.TxUnknown }

// figured is a connection that writes, with so many bytes of memory.
type figured struct {
	still
	bytes int64
}

func (f figured) Memory() (int64, bool)  { return f.bytes, true }
func (figured) TxState() tracker.TxState { return tracker.TxWrite }

// scene is a tracker in a synctest bubble, with pools that only observe.
type scene struct {
	*tracker.Tracker
	t     testing.TB
	conns []*tracker.Conn
}

func inBubble(t *testing.T, f func(s *scene)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{Tracker: tracker.New(tracker.Options{}), t: t}
		defer func() {
			for _, c := range s.conns {
				c.Close()
			}
			s.Close()
		}()
		f(s)
	})
}

func (s *scene) pool(name string) *tracker.Pool {
	s.t.Helper()
	p, err := s.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: name, Mode: tracker.Observe, Logger: quiet})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *scene) open(p *tracker.Pool, leased bool, exempt string) *tracker.Conn {
	c := p.Open(still{}, leased, exempt)
	s.conns = append(s.conns, c)
	return c
}

// openFile opens a leased connection of a file.
func (s *scene) openFile(p *tracker.Pool, control tracker.Control, path string) *tracker.Conn {
	c := p.New(true, "")
	c.OpenedFile(tracker.File{Path: path})
	c.Register(control)
	s.conns = append(s.conns, c)
	return c
}

// holdLock and wantLock are where one connection keeps another from writing.
func holdLock(c *tracker.Conn, query string) {
	c.Executing(query)
	c.BeginTx(query, "")
}

func wantLock(c *tracker.Conn, query string, reason tracker.Reason) {
	c.Executing(query)
	c.Blocked(reason, reason == tracker.ReasonBusySnapshot)
}

// forgetRows is where the rows of most tests are opened.
func forgetRows(c *tracker.Conn, query, exempt string) *tracker.Resource {
	r := new(tracker.Resource)
	c.Record()
	c.OpenRows(r, query, exempt)
	c.Recorded()
	return r
}

func closeRows(c *tracker.Conn, r *tracker.Resource) {
	c.Record()
	c.CloseResource(r)
	c.Recorded()
}

// pass lets time pass in the bubble.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// get asks a handler.
func get(t testing.TB, h http.Handler, target string) *http.Response {
	t.Helper()
	return ask(h, http.MethodGet, target)
}

func ask(h http.Handler, method, target string) *http.Response {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, nil))
	return w.Result()
}

// body asks a handler for what must be there.
func body(t testing.TB, h http.Handler, target string) string {
	t.Helper()
	r := get(t, h, target)
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v\n%s", target, r.Status, err, text)
	}
	return string(text)
}

// wants fails the test for each part that a text lacks.
func wants(t testing.TB, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			t.Errorf("%q is missing in:\n%s", part, got)
		}
	}
}

// ownScript is the script of the page itself, which each page has once.
var ownScript = regexp.MustCompile(`(?s)<script>// Keeps unfolded what was.*?</script>`)

// withoutScript takes the page's own script away: any other one is not the page's.
func withoutScript(t testing.TB, page string) string {
	t.Helper()
	if n := len(ownScript.FindAllString(page, -1)); n != 1 {
		t.Errorf("the page has its script %d times", n)
	}
	return ownScript.ReplaceAllString(page, "")
}

func lacks(t testing.TB, got string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(got, part) {
			t.Errorf("%q is in:\n%s", part, got)
		}
	}
}
