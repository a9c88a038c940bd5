package leakguard

import (
	"database/sql"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// shop is a program of which everything goes through one method.
type shop struct{ db *sql.DB }

func (s shop) query(text string) *sql.Rows {
	rows, err := s.db.Query(text)
	if err != nil {
		panic(err)
	}
	return rows
}

func (s shop) users() *sql.Rows { return s.query("SELECT 1") }
func (s shop) items() *sql.Rows { return s.query("SELECT 2") }
func (s shop) carts() *sql.Rows { return s.query("SELECT 3") }
func (s shop) bills() *sql.Rows { return s.query("SELECT 4") }
func (s shop) taxes() *sql.Rows { return s.query("SELECT 5") }
func (s shop) mails() *sql.Rows { return s.query("SELECT 6") }
func (s shop) clubs() *sql.Rows { return s.query("SELECT 7") }
func (s shop) order(at *tracker.Frame) *sql.Rows {
	_, at.File, at.Line, _ = runtime.Caller(0)
	return s.query("SELECT 8")
}

// What was opened through a helper is told by who called that, through database/sql
// and the driver; the lease as well as the rows.
func TestHeldThroughHelper(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	g := open(t, Config{Tracker: tr})
	s := shop{g.DB}
	for _, call := range []func() *sql.Rows{s.users, s.items, s.carts, s.bills, s.taxes, s.mails, s.clubs} {
		call().Close()
	}
	var at tracker.Frame
	defer s.order(&at).Close()
	at.Line++
	var kinds []tracker.Kind
	for _, h := range tr.Held() {
		kinds = append(kinds, h.Kind)
		if site := h.Site(); site.String() != at.String() || !strings.HasSuffix(site.Function, ".shop.order") {
			t.Errorf("the %v was opened at %v in %s, want %v", h.Kind, site, site.Function, at)
		}
		if f := h.Stack.UserFrames()[0]; !strings.HasSuffix(f.Function, ".shop.query") || h.Stack.Through() != f.String() {
			t.Errorf("the %v was opened through %q, by %s at %v", h.Kind, h.Stack.Through(), f.Function, f)
		}
	}
	if slices.Sort(kinds); !slices.Equal(kinds, []tracker.Kind{tracker.KindConnection, tracker.KindRows}) {
		t.Errorf("held are %v", kinds)
	}
}

// A lease that an operation took for itself began with what it opened. One that was
// taken to be used later is at least as old as that.
func TestAgeOfLeases(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	connector, err := NewConnector(Config{DSN: fileDSN(t), Tracker: tr, Mode: tracker.Basic}) // no reaper looks
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector) // the fixture's wrapper would be the program
	defer db.Close()
	check := func(what string, atLeast bool) {
		t.Helper()
		n := 0
		for _, h := range tr.Held() {
			if h.Kind == tracker.KindConnection {
				n++
				if h.AgeAtLeast != atLeast {
					t.Errorf("%s: at least: %v", what, h.AgeAtLeast)
				}
			} else if h.AgeAtLeast {
				t.Errorf("%s: of the %v only a bound is known", what, h.Kind)
			}
		}
		if n != 1 {
			t.Errorf("%s: %d leases", what, n)
		}
	}
	for range 2 { // on a fresh connection and on one from the pool
		tx, err := db.Begin()
		if err != nil {
			t.Fatal(err)
		}
		check("Begin", false)
		tx.Rollback()
		rows := query(t, db, "SELECT 1")
		check("Query", false)
		rows.Close()
	}
	c, err := db.Conn(background)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := c.QueryContext(background, "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	check("Conn", true) // also before anybody has looked at it
	rows.Close()
	c.Close()
}
