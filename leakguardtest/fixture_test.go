package leakguardtest_test

import (
	"io"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The checks must need no more of the testing package than these.
var (
	_ leakguardtest.TestingT = (testing.TB)(nil)
	_ leakguardtest.TestingM = (*testing.M)(nil)
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))

// pool registers a pool without a driver behind it and without a reaper.
func pool(t testing.TB, tr *tracker.Tracker, name string) *tracker.Pool {
	t.Helper()
	p, err := tr.NewPool(tracker.PoolConfig{SQL: tracker.SQLFull, Name: name, Mode: tracker.Basic, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// lease opens a connection that is checked out until the test ends.
func lease(t testing.TB, p *tracker.Pool, exempt string) *tracker.Conn {
	t.Helper()
	c := p.Open(nil, true, exempt)
	t.Cleanup(c.Close)
	return c
}

// query opens rows.
func query(c *tracker.Conn, text string) *tracker.Resource {
	rows := new(tracker.Resource)
	c.Record()
	c.OpenRows(rows, text, "")
	c.Recorded()
	return rows
}

// here returns the place skip lines below its call, shortened as reports do.
func here(skip int) string {
	_, file, line, _ := runtime.Caller(1)
	return tracker.Frame{File: file, Line: line + skip}.String()
}

// text returns an error's text, "" for nil.
func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
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

// now looks once.
func now(tr *tracker.Tracker, more ...leakguardtest.Option) error {
	return leakguardtest.Find(append(more, leakguardtest.Tracker(tr), leakguardtest.Wait(0))...)
}
