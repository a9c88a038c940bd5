package leakguard

import (
	"sync"
	"testing"

	"github.com/mattn/go-sqlite3"
)

// A program may attach and detach with a connection that it kept from a ConnectHook,
// beside what the pool does with it: SQLite's mutex allows that.
func TestReviewListBesideAttach(t *testing.T) {
	t.Parallel()
	var kept *sqlite3.SQLiteConn
	g := open(t, Config{SQLite: &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error { kept = c; return nil }}})
	g.SetMaxOpenConns(1)
	run(t, g, createT)
	var wait sync.WaitGroup
	defer wait.Wait()
	stop := make(chan struct{})
	defer close(stop)
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, s := range []string{"ATTACH ':memory:' AS a1", "ATTACH ':memory:' AS a2", "ATTACH ':memory:' AS a3", "ATTACH ':memory:' AS a4"} {
				kept.Exec(s, nil)
			}
			for _, s := range []string{"DETACH a1", "DETACH a2", "DETACH a3", "DETACH a4"} {
				kept.Exec(s, nil)
			}
		}
	})

	c, d := g.conn(t), g.last().db()
	check(c.Raw(func(dc any) error { SQLiteConn(dc); return nil }))
	for range 300_000 {
		d.Databases() // as at each check-in
	}
}
