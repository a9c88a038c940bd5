package tracker

import (
	"runtime"
	"testing"
)

// heap returns the bytes of live heap.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestHeap: a connection at rest takes less than a kilobyte, and a thousand of
// them with open transactions, rows and statements and a full history less than
// five megabytes.
func TestHeap(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory counts")
	}
	const n = 1000
	before := heap()
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Logger: quiet, Policy: limits(nil)})
	conns := make([]*Conn, n)
	for i := range conns {
		conns[i] = p.Open(still{}, false, "")
	}
	each := int64(heap()-before) / n
	if each > 1024 {
		t.Errorf("%d bytes for a connection, want at most 1024", each)
	}
	resources := make([]Resource, 4*n)
	for i, c := range conns {
		for range 3 {
			c.CheckOut("")
			c.CheckIn()
		}
		c.CheckOut("")
		c.BeginTx("BEGIN", "")
		c.OpenRows(&resources[4*i], "SELECT 1", "")
		c.OpenStatement(&resources[4*i+1], "SELECT 2", "")
		c.Lost() // each of them is a leak in the history
	}
	if all := int64(heap() - before); all > 5<<20 {
		t.Errorf("%d bytes for %d connections in use, want at most 5 MiB", all, n)
	} else {
		t.Logf("%d bytes for a connection at rest, %d for %d in use with a full history", each, all, n)
	}
	if got := len(tr.History()); got != 256 {
		t.Errorf("%d events in the history, want it full", got)
	}
	for _, c := range conns {
		c.Close()
	}
	runtime.KeepAlive(resources)
}
