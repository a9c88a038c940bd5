//go:build cgo

package leakguard

import (
	"database/sql/driver"
	"errors"
	"io"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// TestReapBesideReading: rows of kept texts that are reaped, killed and proven
// while their owner reads never look complete, and never race.
func TestReapBesideReading(t *testing.T) {
	const text = "SELECT a FROM t"
	c := keptTexts(t, Config{}, text)
	second(c.ExecContext(background, "INSERT INTO t VALUES (1, 2), (2, 3), (3, 4)", nil))
	var wg sync.WaitGroup
	stop := make(chan bool)
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			control{weakOf(c)}.Look(func() { c.killRows(ErrReaped) })
			control{weakOf(c)}.Carry(&tracker.Order{Scope: tracker.ScopeRelease})
			c.rec.Pool().Tracker().Records()
			time.Sleep(20 * time.Microsecond)
		}
	})
	row := make([]driver.Value, 1)
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		r, err := c.QueryContext(background, text, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for err = r.Next(row); err == nil; err = r.Next(row) {
			n++
		}
		if err == io.EOF && n != 3 || err != io.EOF && !errors.Is(err, ErrReaped) {
			t.Fatalf("%d rows, then %v", n, err)
		}
		r.Close()
	}
	close(stop)
	wg.Wait()
	for _, kept := range c.texts.list {
		if kept.busy {
			t.Error("in use")
		}
	}
}

func weakOf(c *conn) weak.Pointer[conn] { return weak.Make(c) }
