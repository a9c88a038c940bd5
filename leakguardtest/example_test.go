package leakguardtest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

func ExampleVerifyNone() {
	_ = func(t *testing.T) { // a test
		defer leakguardtest.VerifyNone(t)
		// db, err := sql.Open("sqlite-leakguard", dsn)
		// defer db.Close()
		// …
	}
}

// Tests that run in parallel have a tracker each.
func ExampleTracker() {
	_ = func(t *testing.T) { // a test
		t.Parallel()
		own := tracker.New(tracker.Options{})
		defer leakguardtest.VerifyNone(t, leakguardtest.Tracker(own))
		// connector, err := leakguard.NewConnector(leakguard.Config{DSN: dsn, Tracker: own})
		// db := sql.OpenDB(connector)
		// …
	}
}

func ExampleVerifyTestMain() {
	_ = func(m *testing.M) { // TestMain
		leakguardtest.VerifyTestMain(m)
	}
}

// What a check says. The driver's part is played by the tracker's own calls.
func ExampleFind() {
	own := tracker.New(tracker.Options{})
	pool, err := own.NewPool(tracker.PoolConfig{Name: "shop.db", Mode: tracker.Basic})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	conn := pool.Open(nil, true, "")
	defer conn.Close()
	conn.Record()
	conn.OpenRows(new(tracker.Resource), "SELECT id FROM orders", "")
	conn.Recorded()

	err = leakguardtest.Find(leakguardtest.Tracker(own), leakguardtest.Wait(0))
	first, _, _ := strings.Cut(err.Error(), "\n")
	fmt.Println(first)
	// Output: leakguardtest: found 1 leak, opened at 1 site
}
