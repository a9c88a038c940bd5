package debughttp_test

import (
	"errors"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// willing is a connection that carries out what it is told.
type willing struct {
	still
	conn *tracker.Conn
	rows *tracker.Resource
}

func (w *willing) Carry(o *tracker.Order) tracker.Outcome {
	if o.Scope != tracker.ScopeRows || !o.Rested(w.rows) {
		return tracker.Void
	}
	closeRows(w.conn, w.rows)
	return tracker.Done
}

// leakAfterKey is a limit as a driver describes it.
var leakAfterKey = tracker.Key{
	Name: "leak_after", Doc: "time without activity",
	Get: func(p *tracker.Policy) string { return p.LeakAfter.String() },
	Set: func(p *tracker.Policy, s string) (err error) {
		if p.LeakAfter, err = time.ParseDuration(s); err != nil {
			return errors.New("want a duration such as 90s")
		}
		return nil
	},
}

// operator is a browser that has opened the page.
type operator struct {
	t      *testing.T
	h      http.Handler
	cookie *http.Cookie
	token  string
	last   string // the page
}

const controlURL = "http://example.com/debug/leakguard/control"

func newOperator(t *testing.T, h http.Handler) *operator {
	t.Helper()
	o := &operator{t: t, h: h}
	r := get(t, h, controlURL)
	if len(r.Cookies()) != 1 {
		t.Fatalf("%d cookies", len(r.Cookies()))
	}
	o.cookie = r.Cookies()[0]
	o.last = body(t, h, controlURL)
	o.token = regexp.MustCompile(`name="token" value="([^"]+)"`).FindStringSubmatch(o.last)[1]
	return o
}

// send sends a form, as the change says.
func (o *operator) send(form url.Values, change func(r *http.Request)) *http.Response {
	o.t.Helper()
	switch form.Get("token") {
	case "":
		form.Set("token", o.token)
	case "none":
		form.Del("token")
	}
	r := httptest.NewRequest(http.MethodPost, controlURL, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.AddCookie(o.cookie)
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	o.h.ServeHTTP(w, r)
	o.last = html.UnescapeString(w.Body.String())
	return w.Result()
}

// wants sends a form and checks what the page says of it.
func (o *operator) wants(status int, says string, fields ...string) {
	o.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	if r := o.send(form, nil); r.StatusCode != status || !strings.Contains(o.last, says) {
		o.t.Errorf("%v: %s, want %d and %q in\n%s", form, r.Status, status, says, o.last)
	}
}

func TestControlIsOff(t *testing.T) {
	h := debughttp.Handler(tracker.New(tracker.Options{}))
	if r := get(t, h, controlURL); r.StatusCode != http.StatusNotFound {
		t.Error(r.Status)
	}
	if r := ask(h, http.MethodPost, controlURL); r.StatusCode != http.StatusMethodNotAllowed {
		t.Error(r.Status)
	}
	lacks(t, body(t, h, "/"), "<form", `href="control"`)

	h = debughttp.Handler(tracker.New(tracker.Options{}), debughttp.Control())
	for _, path := range []string{"/", "/pprof", "/?format=json"} {
		if r := ask(h, http.MethodPost, path); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("POST %s: %s", path, r.Status)
		}
	}
	if r := ask(h, http.MethodPut, controlURL); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Error(r.Status)
	}
	wants(t, body(t, h, "/"), `<a href="control">control</a>`)
}

// Nothing is done for a form that is not of this process's own page.
func TestControlForgery(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Name: "db", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o := newOperator(t, debughttp.Handler(tr, debughttp.Control()))
	if c := o.cookie; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "" || c.Domain != "" || len(c.Value) < 20 || c.Value == o.token {
		t.Errorf("cookie %v", c)
	}
	for name, change := range map[string]func(f url.Values, r *http.Request){
		"no token":       func(f url.Values, r *http.Request) { f.Set("token", "none") },
		"another token":  func(f url.Values, r *http.Request) { f.Set("token", o.token[1:]+"A") },
		"the cookie's":   func(f url.Values, r *http.Request) { f.Set("token", o.cookie.Value) },
		"no cookie":      func(f url.Values, r *http.Request) { r.Header.Del("Cookie") },
		"another cookie": func(f url.Values, r *http.Request) { r.Header.Set("Cookie", o.cookie.Name+"=x") },
		"cross-site":     func(f url.Values, r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") },
		"same-site":      func(f url.Values, r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") },
		"another origin": func(f url.Values, r *http.Request) {
			r.Header.Del("Sec-Fetch-Site")
			r.Header.Set("Origin", "http://evil.example")
		},
		"no origin known": func(f url.Values, r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "null") },
		"plain text":      func(f url.Values, r *http.Request) { r.Header.Set("Content-Type", "text/plain") },
		"token in the URL": func(f url.Values, r *http.Request) {
			f.Set("token", "none")
			r.URL.RawQuery = "token=" + o.token
		},
	} {
		form := url.Values{"do": {"set"}, "pool": {"db"}, "was.mode": {"enforce"}, "set.mode": {"observe"}}
		change(form, httptest.NewRequest(http.MethodPost, controlURL, nil))
		if r := o.send(form, func(r *http.Request) { change(url.Values{}, r) }); r.StatusCode < 400 || p.Mode() != tracker.Enforce {
			t.Errorf("%s: %s, mode %v", name, r.Status, p.Mode())
		}
	}
	large := url.Values{"do": {strings.Repeat("x", 1<<20)}}
	if r := o.send(large, nil); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a large form: %s", r.Status)
	}
	// An old browser, or one on plain HTTP, says the origin only.
	good := url.Values{"do": {"set"}, "pool": {"db"}, "was.mode": {"enforce"}, "set.mode": {"observe"}}
	if r := o.send(good, func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "http://example.com") }); r.StatusCode != http.StatusOK || p.Mode() != tracker.Observe {
		t.Errorf("its own origin: %s, mode %v", r.Status, p.Mode())
	}
}

func TestControlSettings(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Name: "shop.db", Keys: []tracker.Key{leakAfterKey}, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	o := newOperator(t, debughttp.Handler(tr, debughttp.Control()))
	inOrder(t, o.last, "Pool shop.db", `name="was.mode" value="enforce"`, "<option selected>enforce</option>", "<option>observe</option>", "<option>basic</option>",
		`name="was.leak_after" value="5m0s"`, `name="set.leak_after"`, `value="5m0s"`, "time without activity")
	lacks(t, o.last, "operator's</span>", "<option>off")

	o.wants(http.StatusOK, "Done: changed: pool shop.db.", "do", "set", "pool", "shop.db",
		"was.mode", "enforce", "set.mode", "observe", "was.leak_after", "5m0s", "set.leak_after", " 30s ")
	if p.Mode() != tracker.Observe || p.Policy().LeakAfter != 30*time.Second {
		t.Errorf("%v, %+v", p.Mode(), p.Policy())
	}
	inOrder(t, o.last, "<option selected>observe</option>", "operator's", `name="set.leak_after"`, `value="30s"`, "operator's")
	// From an old page: what it did not change stays.
	o.wants(http.StatusOK, "Done: changed", "do", "set", "pool", "shop.db",
		"was.mode", "enforce", "set.mode", "enforce", "was.leak_after", "5m0s", "set.leak_after", "40s")
	if p.Mode() != tracker.Observe || p.Policy().LeakAfter != 40*time.Second {
		t.Errorf("%v, %+v", p.Mode(), p.Policy())
	}
	o.wants(http.StatusOK, "Done: nothing to change.", "do", "set", "pool", "shop.db", "was.mode", "observe", "set.mode", "observe")
	o.wants(http.StatusConflict, `Not done: tracker: leak_after="1d": want a duration such as 90s`, "do", "set", "pool", "shop.db",
		"was.mode", "observe", "set.mode", "enforce", "was.leak_after", "40s", "set.leak_after", "1d")
	o.wants(http.StatusConflict, "Not done: tracker: mode off cannot be set", "do", "set", "pool", "shop.db", "was.mode", "observe", "set.mode", "off")
	o.wants(http.StatusConflict, `there is no pool "x" any more`, "do", "set", "pool", "x", "was.mode", "observe", "set.mode", "basic")
	o.wants(http.StatusConflict, `unknown form "x": want set, undo, spare or collect`, "do", "x")
	if p.Mode() != tracker.Observe || p.Policy().LeakAfter != 40*time.Second {
		t.Errorf("%v, %+v", p.Mode(), p.Policy())
	}
	o.wants(http.StatusOK, "Done: garbage collected", "do", "collect")
}

func TestControlUndoAndSpare(t *testing.T) {
	inBubble(t, func(s *scene) {
		p := s.pool(badPool)
		o := newOperator(t, debughttp.Handler(s.Tracker, debughttp.Control()))
		wants(t, o.last, "Nothing.")
		open := func() *willing {
			w := &willing{}
			w.conn = p.New(true, "")
			w.conn.Register(w)
			s.conns = append(s.conns, w.conn)
			w.rows = forgetRows(w.conn, badQuery, "")
			return w
		}
		first, second := open(), open()
		pass(6 * time.Minute)
		fresh := open()
		pass(time.Second)
		page := body(t, o.h, controlURL)
		inOrder(t, page, "6m1s", ">suspect<", "rows", "forgetRows", `name="reason"`, "spare this one", "undo this one", "Pool shop") // Enter behind a reason presses the first button: it must not undo
		lacks(t, page, "<script", "<img")

		id := func(w *willing) (string, string) { return w.conn.ID(), strconv.FormatUint(w.rows.ID(), 10) }
		c, r := id(first)
		o.wants(http.StatusOK, "Done: undone: rows on "+c, "do", "undo", "kind", "rows", "connection", c, "resource", r)
		if first.rows.ID() != 0 || p.Stats().Reaped != 1 {
			t.Errorf("%d reaped", p.Stats().Reaped)
		}
		o.wants(http.StatusConflict, "nothing is held there any more", "do", "undo", "connection", c, "resource", r)
		o.wants(http.StatusConflict, "nothing is held there any more", "do", "spare", "connection", c, "resource", "x")
		c, r = id(second)
		o.wants(http.StatusOK, "Done: spared: rows on "+c, "do", "spare", "kind", "rows", "connection", c, "resource", r, "reason", badExempt)
		lacks(t, body(t, o.h, controlURL), "<script")
		wants(t, o.last, "exempt: "+badExempt)
		c, r = id(fresh)
		o.wants(http.StatusOK, "Done: spared", "do", "spare", "connection", c, "resource", r)
		wants(t, o.last, "exempt: spared by an operator")
	})
}

// What stands in the environment is on both pages, and red if it is ignored.
func TestEnvironmentOnThePage(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	tr.SetEnvironment([]tracker.EnvironmentItem{{Text: "observe"}, {Text: "leak_after=<b>", Error: "want a duration"}})
	h := debughttp.Handler(tr, debughttp.Control())
	for _, path := range []string{"/", "/control"} {
		wants(t, body(t, h, path),
			`<p class="note">Set by the environment variable LEAKGUARD: observe</p>`,
			`<p class="alarm bad">Ignored in the environment variable LEAKGUARD: leak_after=&lt;b&gt;: want a duration</p>`)
	}
	wants(t, body(t, h, "/?format=json"), `"environment"`, `"error": "want a duration"`)
}

func TestControlPolicy(t *testing.T) {
	r := get(t, debughttp.Handler(tracker.New(tracker.Options{}), debughttp.Control()), controlURL)
	policy := r.Header.Get("Content-Security-Policy")
	wants(t, policy, "default-src 'none'", "form-action 'self'", "frame-ancestors 'none'")
	lacks(t, policy, "unsafe", "script")
	// With no-referrer a browser would send "Origin: null".
	if got := r.Header.Get("Referrer-Policy"); got != "same-origin" || r.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%v", r.Header)
	}
}
