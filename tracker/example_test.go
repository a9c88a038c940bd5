package tracker_test

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// control stands for a driver's connection; see tracker.Control.
type control struct{}

func (control) Look(f func()) bool                   { f(); return true }
func (control) Carry(*tracker.Order) tracker.Outcome { return tracker.Void }
func (control) Nudge() bool                          { return false }
func (control) Memory() (int64, bool)                { return 0, false }
func (control) TxState() tracker.TxState             { return tracker.TxUnknown }

// A driver registers what it opens, and tells of what happens to it.
func Example() {
	tr := tracker.New(tracker.Options{})
	pool, err := tr.NewPool(tracker.PoolConfig{Name: "app.db", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		fmt.Println(err)
		return
	}
	conn := pool.Open(control{}, true, "")
	conn.BeginTx("BEGIN", "")
	fmt.Println(conn.ID(), tr.Stats().ActiveConnections, "leased,", tr.Stats().OpenTransactions, "in a transaction")

	conn.EndTx()
	conn.CheckIn()
	conn.Close()
	pool.Close()
	fmt.Println(tr.Stats().TotalConnections, "open")
	// Output:
	// app.db#1 1 leased, 1 in a transaction
	// 0 open
}

func ExampleTracker_OnLeak() {
	tr := tracker.New(tracker.Options{})
	pool, err := tr.NewPool(tracker.PoolConfig{Name: "app.db", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		fmt.Println(err)
		return
	}
	told := make(chan tracker.Leak)
	cancel := tr.OnLeak(func(l tracker.Leak) { told <- l })
	defer cancel()

	conn := pool.Open(control{}, true, "")
	var rows tracker.Resource
	conn.OpenRows(&rows, "SELECT * FROM invoice", "")
	conn.Proven(&rows, true) // garbage collection found that nobody holds them
	conn.CloseResource(&rows)

	leak := <-told
	fmt.Println(leak.Kind, leak.Reason, leak.Query)
	conn.Close()
	pool.Close()
	// Output: rows proven SELECT * FROM invoice
}

func ExampleTracker_AddDetector() {
	tr := tracker.Default()
	cancel := tr.AddDetector(func(r tracker.Record) tracker.Reason {
		if r.OpenRows > 100 {
			return "more than 100 open result sets"
		}
		return ""
	})
	defer cancel()
}

func ExampleStats_Sub() {
	before := tracker.Stats{Created: 10, Reused: 500, TotalConnections: 4}
	after := tracker.Stats{Created: 12, Reused: 700, TotalConnections: 3}
	d := after.Sub(before)
	fmt.Println(d.Created, d.Reused, d.TotalConnections)
	// Output: 2 200 3
}

func ExampleLeak_String() {
	fmt.Println(tracker.Leak{
		Kind: tracker.KindTransaction, Reason: tracker.ReasonTxTimeout, ConnectionID: "app.db#3",
		Age: 10 * time.Minute, Limit: 10 * time.Minute, Query: "BEGIN IMMEDIATE", Exempt: "nightly import",
	})
	// Output: transaction open for 10m0s (tx_timeout 10m0s) on app.db#3: opened at unknown: BEGIN IMMEDIATE (exempt: nightly import)
}
