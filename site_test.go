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
