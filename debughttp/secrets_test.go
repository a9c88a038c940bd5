//go:build cgo

package debughttp_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// shared is a buffer that the dispatcher writes and a test reads.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A program with secrets in literals, blobs, comments, numbers and its DSN, which
// leaks, is blocked and gets errors of the guard: no output of the guard has one.
func TestNoSecretLeaves(t *testing.T) {
	const secret = "4111222233334444"
	var log shared
	tr := tracker.New(tracker.Options{})
	policy := tracker.DefaultPolicy()
	policy.ReportAfter, policy.LeakAfter, policy.CheckInterval = 20*time.Millisecond, 100*time.Millisecond, 20*time.Millisecond
	policy.MaxStatements = 2
	connector, err := leakguard.NewConnector(leakguard.Config{
		DSN:     "file:" + filepath.Join(t.TempDir(), "shop.db") + "?_journal_mode=WAL&_busy_timeout=1&x_password=" + secret,
		Policy:  policy,
		Tracker: tr,
		Logger:  slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan tracker.Event, 1024)
	defer tr.Subscribe(func(e tracker.Event) { events <- e })()
	db := sql.OpenDB(connector)
	defer db.Close()
	exec := func(on interface {
		Exec(string, ...any) (sql.Result, error)
	}, text string) error {
		_, err := on.Exec(text)
		return err
	}
	if err := exec(db, "CREATE TABLE cards(no UNIQUE, b, i)"); err != nil {
		t.Fatal(err)
	}
	texts := []string{
		"SELECT '" + secret + "'",
		"SELECT x'" + secret + "' -- " + secret,
		"SELECT /* " + secret + " */ " + secret + ", \"card " + secret + "\"",
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	if err := exec(tx, fmt.Sprintf("INSERT INTO cards VALUES('%s', x'%s', %s)", secret, secret, secret)); err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		rows, err := db.Query(text)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for range 3 {
			s, err := db.Prepare(text)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
		}
	}
	if err := exec(db, "UPDATE cards SET no = '"+secret+"'"); err == nil {
		t.Error("not blocked")
	}
	var outputs []string
	look := func() {
		h := debughttp.Handler(tr)
		var text strings.Builder
		tr.WriteTo(&text)
		outputs = append(outputs, body(t, h, "/"), body(t, h, "/?format=json"), body(t, h, "/pprof"), debughttp.Var(tr).String(), text.String())
	}
	look()
	seen, undone := map[tracker.EventType]bool{}, false
	deadline := time.After(time.Minute)
	for !undone || !seen[tracker.EventBlocked] || !seen[tracker.EventResting] {
		select {
		case e := <-events:
			seen[e.Type] = true
			undone = undone || e.Type == tracker.EventReaped && e.Leak.Kind == tracker.KindTransaction
			if e.Leak != nil {
				outputs = append(outputs, e.Leak.String())
			}
			if e.Blame != nil {
				outputs = append(outputs, e.Blame.String())
			}
		case <-deadline:
			t.Fatalf("seen only %v", seen)
		}
	}
	err = exec(tx, "INSERT INTO cards VALUES('"+secret+"', 0, 0)")
	if !errors.Is(err, leakguard.ErrReaped) {
		t.Errorf("INSERT: %v, want ErrReaped", err)
	} else {
		outputs = append(outputs, err.Error())
	}
	look()
	tx.Rollback()
	outputs = append(outputs, log.String())
	for i, out := range outputs {
		if strings.Contains(out, secret) {
			at := strings.Index(out, secret)
			t.Errorf("output %d has it: …%s", i, out[max(0, at-200):at+len(secret)])
		}
	}
	if !strings.Contains(log.String(), "SELECT ?") {
		t.Errorf("no text at all in the log:\n%s", log.String())
	}
}
