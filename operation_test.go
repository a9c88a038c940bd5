package leakguard

import (
	"slices"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestFirstStack: what an operation of sql.DB opens has the stack that was taken
// when it took its connection; what is opened later, or on a sql.Conn, has its
// own.
func TestFirstStack(t *testing.T) {
	g := open(t, Config{})
	run(t, g, "CREATE TABLE t (a)")
	held := func(kind tracker.Kind) tracker.Held {
		t.Helper()
		for _, h := range g.tracker.Held() {
			if h.Kind == kind {
				return h
			}
		}
		t.Fatalf("no %v is held", kind)
		return tracker.Held{}
	}
	same := func(want bool, kind tracker.Kind) {
		t.Helper()
		lease, other := held(tracker.KindConnection), held(kind)
		if got := slices.Equal(lease.Stack, other.Stack); got != want {
			t.Errorf("lease and %v have the same stack: %v, want %v", kind, got, want)
		}
		if want && lease.Site() != other.Site() {
			t.Errorf("sites %v and %v", lease.Site(), other.Site())
		}
	}
	for range 2 { // a fresh connection, and one from the pool
		rows := query(t, g, "SELECT 1")
		same(true, tracker.KindRows)
		rows.Close()
	}
	tx, err := g.BeginTx(background, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(true, tracker.KindTransaction)
	rows := query(t, tx, "SELECT 1")
	if a, b := held(tracker.KindTransaction).Site(), held(tracker.KindRows).Site(); a == b {
		t.Errorf("rows of a transaction were opened where it began, at %v", a)
	}
	rows.Close()
	tx.Rollback()

	c, err := g.Conn(background)
	if err != nil {
		t.Fatal(err)
	}
	rows = query(t, c, "SELECT 1")
	same(false, tracker.KindRows)
	rows.Close()
	c.Close()
}
