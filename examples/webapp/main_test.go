package main

import (
	"context"
	"database/sql"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var tel *telemetry

// TestMain sets providers once: what OpenTelemetry handed out before follows
// the first ones that are set, and no others.
func TestMain(m *testing.M) {
	var err error
	if tel, err = startTelemetry(context.Background()); err != nil {
		log.Fatal(err)
	}
	code := m.Run()
	if err := tel.shutdown(); err != nil {
		log.Fatal(err)
	}
	os.Exit(code)
}

// TestService writes notes, walks into the planted leak and sees what the
// guard made of it.
func TestService(t *testing.T) {
	dsn := "file:" + filepath.Join(t.TempDir(), "notes.db") +
		"?_journal_mode=WAL&_leakguard_name=notes&_leakguard_leak_after=50ms&_leakguard_check_interval=50ms"
	db, err := sql.Open("sqlite-leakguard", dsn)
	if err != nil {
		t.Fatal(err)
	}
	notes, err := openNotes(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(routes(notes, tel))
	t.Cleanup(func() {
		server.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	reaped := make(chan *tracker.Leak, 1)
	t.Cleanup(tracker.Default().Subscribe(func(e tracker.Event) {
		if e.Type == tracker.EventReaped {
			reaped <- e.Leak
		}
	}))

	call := func(method, path, body string, header ...string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if len(header) > 0 {
			req.Header.Set(header[0], header[1])
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(text)
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	if code, text := call("POST", "/notes", url.Values{"text": {"milk"}}.Encode(), form...); code != 201 {
		t.Fatalf("POST /notes: %d %s", code, text)
	}
	if code, text := call("POST", "/import", "one\ntwo\n"); code != 201 {
		t.Fatalf("POST /import: %d %s", code, text)
	}
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if code, _ := call("POST", "/import", "three\n\nfour\n", "traceparent", parent); code != 400 {
		t.Errorf("a line is empty: %d", code)
	}
	select {
	case l := <-reaped:
		if l.Kind != tracker.KindTransaction || !strings.HasSuffix(l.Site().File, "notes.go") {
			t.Errorf("reaped: %v", l)
		}
		if !strings.Contains(l.Trace.String(), "0af7651916cd43dd8448eb211c80319c") {
			t.Errorf("trace %v", l.Trace)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the planted leak was not reaped")
	}
	if _, text := call("GET", "/", ""); text != "milk\none\ntwo\n" {
		t.Errorf("GET /: %q", text)
	}
	_, text := call("GET", "/metrics", "")
	leaks := regexp.MustCompile(`(?m)^sqlite_leakguard_leaks_total\{.*kind="transaction".*reason="leak_after".*\} 1$`)
	if !leaks.MatchString(text) {
		t.Errorf("the leak is not counted in\n%s", text)
	}
	if code, text := call("GET", "/debug/leakguard/", ""); code != 200 || !strings.Contains(text, "notes.go") {
		t.Errorf("GET /debug/leakguard/: %d %s", code, text)
	}
	if err := db.PingContext(context.Background()); err != nil {
		t.Error(err)
	}
}
