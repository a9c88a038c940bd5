//go:build cgo

package debughttp_test

import (
	"context"
	"database/sql"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var background = context.Background()

// The page and the profile of a real program name the line and the function
// that forgot its rows, the profile as go tool pprof fetches it.
func TestRealProgram(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	s := openShop(t, tr)
	mux := http.NewServeMux()
	mux.Handle("/debug/leakguard/", debughttp.Handler(tr))
	server := httptest.NewServer(mux)
	defer server.Close()
	page := body(t, mux, "/debug/leakguard/")
	inOrder(t, page, `id="blame"`, "debughttp_test.(*shop).forgetSome", "Blocked last", "debughttp_test.(*shop).wait", "debughttp_test.(*shop).forgetSome", "transaction on", "writes", `id="connections"`)
	wants(t, page, "<strong>2 suspects</strong>", "debughttp_test.(*shop).forgetOrders", "defer rows.Close()")
	lacks(t, withoutScript(t, page), "<script")

	first := pprofTop(t, "-tagfocus=kind=rows", server.URL+"/debug/leakguard/pprof")
	if !strings.HasSuffix(first, "debughttp_test.(*shop).forgetOrders") {
		t.Errorf("go tool pprof -top lists %q first", first)
	}

	s.close()
	wants(t, body(t, mux, "/debug/leakguard/"), "<strong>nothing forgotten</strong>", "came back")
}

// shop is a real pool whose program forgets one of each kind.
type shop struct {
	db   *sql.DB
	rows *sql.Rows
	tx   *sql.Tx
	conn *sql.Conn
}

// openShop plants the leaks and waits until they are suspects: rows with a
// query that would like to be a script, a transaction and a connection.
func openShop(t *testing.T, tr *tracker.Tracker) *shop {
	t.Helper()
	policy := tracker.DefaultPolicy()
	policy.MemoryInterval = 50 * time.Millisecond
	connector, err := leakguard.NewConnector(leakguard.Config{
		DSN:     "file:" + filepath.Join(t.TempDir(), "shop.db") + "?_journal_mode=WAL&_busy_timeout=1",
		Name:    badPool,
		Mode:    tracker.Observe,
		Policy:  policy,
		Tracker: tr,
		Logger:  quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	found := make(chan tracker.Leak, 16)
	cancel := tr.OnLeak(func(l tracker.Leak) { found <- l })
	defer cancel()
	s := &shop{db: sql.OpenDB(connector)}
	t.Cleanup(s.close)
	if _, err := s.db.Exec("CREATE TABLE orders(id); INSERT INTO orders VALUES(1), (2)"); err != nil {
		t.Fatal(err)
	}
	s.forgetSome(t)
	s.wait(t)
	// Not before: on a busy machine the work until here takes its time.
	policy.LeakAfter, policy.CheckInterval = 100*time.Millisecond, 50*time.Millisecond
	if err := connector.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(time.Minute)
	for range 3 {
		select {
		case <-found:
		case <-deadline:
			t.Fatal("the suspects were not found within a minute")
		}
	}
	return s
}

func (s *shop) forgetSome(t *testing.T) {
	t.Helper()
	var err error
	if s.conn, err = s.db.Conn(leakguard.Exempt(background, badExempt)); err != nil {
		t.Fatal(err)
	}
	s.forgetOrders(t)
	if s.tx, err = s.db.Begin(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.tx.Exec("UPDATE orders SET id = id + 1"); err != nil {
		t.Fatal(err)
	}
}

// wait is who the forgotten transaction keeps waiting.
func (s *shop) wait(t *testing.T) {
	t.Helper()
	if _, err := s.db.Exec("DELETE FROM orders /* " + badQuery + "\n*/"); err == nil || err.Error() != "database is locked" {
		t.Fatalf("a writer beside the forgotten transaction: %v", err)
	}
}

// forgetOrders is the site that the page must name.
func (s *shop) forgetOrders(t *testing.T) {
	t.Helper()
	var err error
	s.rows, err = s.db.Query("SELECT id FROM orders /* " + badQuery + "\n*/") // forgotten: rows
	if err != nil {
		t.Fatal(err)
	}
}

func (s *shop) close() {
	if s.rows != nil {
		s.rows.Close()
	}
	if s.tx != nil {
		s.tx.Rollback()
	}
	if s.conn != nil {
		s.conn.Close()
	}
	s.db.Close()
}

// A reader that keeps the write-ahead log from being reset is shown with its
// size, and so is the size of the logs.
func TestWALPin(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	policy := tracker.DefaultPolicy()
	policy.WALLimit, policy.CheckInterval = 1, 50*time.Millisecond
	connector, err := leakguard.NewConnector(leakguard.Config{
		DSN: "file:" + filepath.Join(t.TempDir(), "shop.db") + "?_journal_mode=WAL", Name: "shop.db", Policy: policy, Tracker: tr, Logger: quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	found := make(chan tracker.Leak, 16)
	defer tr.OnLeak(func(l tracker.Leak) { found <- l })()
	s := &shop{db: sql.OpenDB(connector)}
	defer s.close()
	if _, err := s.db.Exec("CREATE TABLE orders(id); INSERT INTO orders VALUES(1), (2)"); err != nil {
		t.Fatal(err)
	}
	s.forgetOrders(t)
	select {
	case <-found:
	case <-time.After(time.Minute):
		t.Fatal("no leak was found within a minute")
	}
	page := body(t, debughttp.Handler(tr), "/")
	inOrder(t, page, "<strong>1 suspect</strong>", "Write-ahead logs: ", "forgetOrders", "wal_limit 1 B: keeps a write-ahead log of ", "KiB", "It is reported only")
	wants(t, body(t, debughttp.Handler(tr), "/?format=json"), `"reason": "wal_limit"`, `"limit_bytes": 1`, `"wal_bytes": `)
}
