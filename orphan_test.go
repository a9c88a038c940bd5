//go:build cgo

package leakguard

import (
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A connection that is leased while its pool closes is held until it is closed,
// and no longer.
func TestOrphans(t *testing.T) {
	held := func(c *conn) bool { _, ok := orphans.Load(c); return ok }
	t.Run("closed later", func(t *testing.T) {
		g := open(t, Config{})
		lease := g.conn(t)
		idle := g.conn(t)
		c := g.last()
		idle.Close()
		g.Close()
		if held(c) {
			t.Error("an idle connection, closed by database/sql, is held")
		}
		kept := g.conns[0]
		if !held(kept) {
			t.Error("the leased one is not held")
		}
		lease.Close()
		if held(kept) {
			t.Error("it is still held when it is closed")
		}
	})
	t.Run("opened beside", func(t *testing.T) {
		g := open(t, Config{})
		g.Close()
		opened, err := g.connector.Connect(background)
		if err != nil {
			t.Fatal(err)
		}
		c := opened.(*conn)
		if !held(c) {
			t.Error("a connection that its pool's end has not seen is not held")
		}
		c.Close()
		if held(c) {
			t.Error("it is still held when it is closed")
		}
	})
	t.Run("dead before", func(t *testing.T) {
		c := drive(t, Config{})
		if out := (control{weakOf(c)}).Carry(order(tracker.ScopeLease, 0)); out != tracker.Done {
			t.Fatalf("outcome %v", out)
		}
		c.connector.Close()
		if held(c) {
			t.Error("a connection that was reaped is held when its pool closes")
		}
	})
	t.Run("dead after", func(t *testing.T) {
		c := drive(t, Config{})
		c.connector.Close()
		if !held(c) {
			t.Error("the leased one is not held")
		}
		if out := (control{weakOf(c)}).Carry(order(tracker.ScopeLease, 0)); out != tracker.Done {
			t.Fatalf("outcome %v", out)
		}
		if held(c) {
			t.Error("it is still held when it was reaped")
		}
	})
}
