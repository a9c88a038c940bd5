package integration

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// sqliteBytes is what the program's memory monitor reads of SQLite.
const sqliteBytes = 7000

// pressure has the machine's memory unknown, short, and free again. It comes
// first: pressure closes what is idle in every pool.
func pressure(t *testing.T, db *sql.DB, told func(string)) {
	var used atomic.Int64 // 0: not known
	tracker.Default().SetMemorySource(func() tracker.Memory {
		m := tracker.Memory{UsedPercent: float64(used.Load()), SQLite: sqliteBytes}
		if m.UsedPercent > 0 {
			m.Total = 100
		}
		return m
	})
	told("heavy memory.degraded")
	conn, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := db.Exec("INSERT INTO notes VALUES (4)"); err != nil { // on another one, which is idle then
		t.Fatal(err)
	}
	used.Store(99)
	told("heavy memory.pressure.begun")
	used.Store(10)
	told("heavy memory.pressure.ended")
}
