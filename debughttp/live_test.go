//go:build cgo

package debughttp_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"testing"
	"time"

	leakguard "github.com/sqlite-leakguard/sqlite-leakguard"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var background = context.Background()

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
	policy.LeakAfter, policy.CheckInterval = 100*time.Millisecond, 50*time.Millisecond
	connector, err := leakguard.NewConnector(leakguard.Config{
		DSN:     "file:" + filepath.Join(t.TempDir(), "shop.db") + "?_journal_mode=WAL",
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
