package debughttp_test

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// However it is mounted, the page, its JSON and the profile are found, and
// nothing else.
func TestMounting(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	h := debughttp.Handler(tr)
	for _, c := range []struct {
		name, prefix string
		mount        func(mux *http.ServeMux)
	}{
		{"root", "/", func(mux *http.ServeMux) { mux.Handle("/", h) }},
		{"prefix", "/debug/leakguard/", func(mux *http.ServeMux) { mux.Handle("/debug/leakguard/", h) }},
		{"method and host", "/debug/leakguard/", func(mux *http.ServeMux) { mux.Handle("GET example.com/debug/leakguard/", h) }},
		{"wildcard", "/tenants/7/leaks/", func(mux *http.ServeMux) { mux.Handle("/tenants/{id}/leaks/", h) }},
		{"stripped", "/debug/leakguard/", func(mux *http.ServeMux) {
			mux.Handle("/debug/leakguard/", http.StripPrefix("/debug/leakguard", h))
		}},
		{"stripped whole", "/debug/leakguard/", func(mux *http.ServeMux) {
			mux.Handle("/debug/leakguard/", http.StripPrefix("/debug/leakguard/", h))
		}},
		{"inner mux", "/debug/leakguard/", func(mux *http.ServeMux) {
			inner := http.NewServeMux()
			inner.Handle("/leakguard/", h)
			mux.Handle("/debug/", http.StripPrefix("/debug", inner))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			mux := http.NewServeMux()
			c.mount(mux)
			for path, want := range map[string]string{
				"":                "text/html; charset=utf-8",
				"?format=html":    "text/html; charset=utf-8",
				"?format=json":    "application/json",
				"?format=text":    "text/plain; charset=utf-8",
				"pprof":           "application/octet-stream",
				"pprof?seconds=1": "application/octet-stream",
			} {
				r := get(t, mux, "http://example.com"+c.prefix+path)
				if got := r.Header.Get("Content-Type"); r.StatusCode != http.StatusOK || got != want {
					t.Errorf("%s%s: %s, %s, want %s", c.prefix, path, r.Status, got, want)
				}
				if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%s%s: %v", c.prefix, path, r.Header)
				}
			}
			for _, path := range []string{"x", "page.css", "pprof2", "favicon.ico"} {
				if r := get(t, mux, "http://example.com"+c.prefix+path); r.StatusCode != http.StatusNotFound {
					t.Errorf("%s%s: %s", c.prefix, path, r.Status)
				}
			}
		})
	}
	t.Run("deeper", func(t *testing.T) {
		mux := http.NewServeMux()
		mux.Handle("/debug/leakguard/", h)
		for _, path := range []string{"x/", "x/pprof", "pprof/", "pprof/pprof"} {
			if r := get(t, mux, "/debug/leakguard/"+path); r.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %s", path, r.Status)
			}
		}
	})
	t.Run("without a mux", func(t *testing.T) {
		body(t, h, "/any/where/")
		body(t, h, "/any/where/pprof")
		if r := get(t, h, "/any/where/else"); r.StatusCode != http.StatusNotFound {
			t.Error(r.Status)
		}
	})
}

func TestMethods(t *testing.T) {
	h := debughttp.Handler(tracker.New(tracker.Options{}))
	server := httptest.NewServer(h)
	defer server.Close()
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		r := ask(h, method, "/")
		if r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: %s, Allow %q", method, r.Status, r.Header.Get("Allow"))
		}
	}
	r, err := server.Client().Head(server.URL + "/?format=json")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if text, err := io.ReadAll(r.Body); r.StatusCode != http.StatusOK || len(text) != 0 || err != nil || r.ContentLength < 100 {
		t.Errorf("HEAD: %s, %d bytes of %d, %v", r.Status, len(text), r.ContentLength, err)
	}
	r = get(t, h, "/?format=xml")
	if text, _ := io.ReadAll(r.Body); r.StatusCode != http.StatusBadRequest || string(text) != "format=\"xml\": want html, json or text\n" {
		t.Errorf("an unknown format: %s %s", r.Status, text)
	}
}

// The policy allows the page's own style sheet and script and nothing else, and the
// page has nothing else.
func TestContentSecurityPolicy(t *testing.T) {
	h := debughttp.Handler(tracker.New(tracker.Options{}))
	policy := get(t, h, "/").Header.Get("Content-Security-Policy")
	wants(t, policy, "default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'")
	lacks(t, policy, "unsafe", "*", "http")
	page := body(t, h, "/")
	styles := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(page, -1)
	if len(styles) != 1 {
		t.Fatalf("%d style sheets", len(styles))
	}
	sum := sha256.Sum256([]byte(styles[0][1]))
	wants(t, policy, "style-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"';")
	script := strings.TrimSuffix(strings.TrimPrefix(ownScript.FindString(page), "<script>"), "</script>")
	sum = sha256.Sum256([]byte(script))
	wants(t, policy, "; script-src 'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"';")
	lacks(t, withoutScript(t, page), "<script", " style=", " src=", "<link", "@import", "url(")
	if on := regexp.MustCompile(`\son[a-z]+=`).FindString(page); on != "" {
		t.Errorf("a handler of events:%s", on)
	}
}

func TestRefresh(t *testing.T) {
	h := debughttp.Handler(tracker.New(tracker.Options{}))
	for query, want := range map[string]string{
		"":                        "10",
		"?refresh=60":             "60",
		"?refresh=1000000":        "3600",
		"?refresh=-1":             "10",
		"?refresh=1;url=evil.com": "10",
		"?refresh=0":              "",
	} {
		page := body(t, h, "/"+query)
		got := ""
		if m := regexp.MustCompile(`<meta http-equiv="refresh" content="([^"]*)">`).FindStringSubmatch(page); m != nil {
			got = m[1]
		}
		if got != want {
			t.Errorf("%q: reloads after %q, want %q", query, got, want)
		}
		lacks(t, page, "evil")
	}
}

// Nobody works for the handler between requests, and many may ask at once.
func TestConcurrentRequests(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Name: "db", Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	h := debughttp.Handler(tr)
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 20 {
				c := p.Open(nil, true, "")
				forgetRows(c, "SELECT 1", "")
				get(t, h, []string{"/", "/?format=json", "/pprof"}[i%3])
				c.Close()
			}
		}()
	}
	for range 4 {
		<-done
	}
	p.Close()
}

func TestNilOption(t *testing.T) {
	defer func() {
		if got := recover(); got != "debughttp: Handler: option 1 of 1 is nil" {
			t.Errorf("panic %v", got)
		}
	}()
	debughttp.Handler(nil, nil)
}

func TestDefaultTracker(t *testing.T) {
	p, err := tracker.Default().NewPool(tracker.PoolConfig{Name: "of-default", Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := p.Open(nil, true, "")
	defer c.Close()
	wants(t, body(t, debughttp.Handler(nil), "/"), c.ID())
	wants(t, debughttp.Var(nil).String(), c.ID())
}

func TestTitle(t *testing.T) {
	page := body(t, debughttp.Handler(tracker.New(tracker.Options{}), debughttp.Title("shop <1>")), "/")
	wants(t, page, "<h1>shop &lt;1&gt;</h1>", "<title>nothing forgotten · shop &lt;1&gt;</title>")
}
