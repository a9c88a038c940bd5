//go:build cgo

package leakguard

import (
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestSharedCacheAndReports: who waits for the lock of a shared cache keeps no
// reader of its record out. The reaper, which holds that lock, may need
// Tracker.mu to close a handle, and a report holds that while it reads.
func TestSharedCacheAndReports(t *testing.T) {
	for name, operation := range map[string]func(c *conn){
		"check-out": func(c *conn) { c.ResetSession(background) },
		"check-in":  func(c *conn) { c.IsValid() },
	} {
		t.Run(name, func(t *testing.T) {
			g := open(t, Config{DSN: fileDSN(t, "cache=shared")})
			connect := func() *conn {
				opened, err := g.connector.Connect(background)
				if err != nil {
					t.Fatal(err)
				}
				return opened.(*conn)
			}
			a, b := connect(), connect()
			if !b.gate.Try() {
				t.Fatal("the gate is not free")
			}
			waits, reports, closes := make(chan bool), make(chan bool), make(chan bool)
			go func() { operation(a); close(waits) }()
			for !a.gate.Awaited() {
				time.Sleep(time.Millisecond)
			}
			go func() { g.tracker.Records(); close(reports) }()
			time.Sleep(20 * time.Millisecond)
			go func() { // as die does
				b.rec.Pool().Tracker().Go(func() {})
				b.gate.Release()
				close(closes)
			}()
			for what, done := range map[string]chan bool{"the closing": closes, "the report": reports, name: waits} {
				select {
				case <-done:
				case <-time.After(time.Minute):
					a.gate.Clear(gate.Recording)
					t.Errorf("%s hangs", what)
				}
			}
			a.Close()
			b.Close()
		})
	}
}

var _ = tracker.Enforce
