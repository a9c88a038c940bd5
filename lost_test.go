package leakguard

import (
	"errors"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// lostIs compares how many places are lost, in Stats, in Figures and by connection.
func (g *guarded) lostIs(t testing.TB, want int) (lost []tracker.Record) {
	t.Helper()
	s := g.connector.Stats()
	details := 0
	for _, d := range s.ActiveConnectionDetails {
		if d.Lost {
			details++
		}
	}
	for _, r := range g.connector.pool.Records() {
		if r.Lost {
			lost = append(lost, r)
		}
	}
	if n := g.connector.tracker.Figures().Pools[0].Lost; s.Lost != want || n != want || len(lost) != want || details != want {
		t.Fatalf("lost: stats %d, figures %d, records %d, details %d; want %d", s.Lost, n, len(lost), details, want)
	}
	return lost
}

// TestLostPlace: a lease whose content was undone keeps its place until its holder lets
// go; its handle may be closed or kept.
func TestLostPlace(t *testing.T) {
	for _, dsn := range []string{"", "file:lost?mode=memory"} {
		t.Run(dsn, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := open(t, Config{DSN: dsn, Policy: leakAfter(time.Minute)})
				g.lostIs(t, 0)
				began := time.Now()
				tx := g.begin(t)
				time.Sleep(50 * time.Second)
				g.lostIs(t, 0)
				time.Sleep(3 * time.Minute)
				r := g.lostIs(t, 1)[0]
				if at := r.LostSince.Sub(began); r.Undone != tracker.KindTransaction || at < time.Minute || at > 4*time.Minute || r.Reaped == (dsn != "") {
					t.Errorf("%v of %v undone after %v", r.Undone, r.Reaped, at)
				}
				var report strings.Builder
				g.connector.tracker.WriteTo(&report)
				if !regexp.MustCompile(`(?m) lost +1$`).MatchString(report.String()) {
					t.Error(report.String())
				}
				tx.Rollback()
				g.lostIs(t, 0)
				g.begin(t)
				g.lostIs(t, 0) // the next lease of the connection is another one
			})
		})
	}
}

// TestPlaceNotLost: rows of a lease are undone, and its holder goes on.
func TestPlaceNotLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := open(t, Config{DSN: "file:notlost?mode=memory", Policy: leakAfter(time.Minute)})
		c := g.conn(t)
		rows, err := c.QueryContext(background, "SELECT * FROM "+three)
		if err != nil {
			t.Fatal(err)
		}
		rows.Next()
		for range 20 {
			time.Sleep(30 * time.Second)
			run(t, c, "SELECT 1")
		}
		if n := g.connector.Stats().Reaped; n != 1 {
			t.Fatalf("%d reaped", n)
		}
		g.lostIs(t, 0)
		if rows.Next() || !errors.Is(rows.Err(), ErrReaped) {
			t.Fatal(rows.Err())
		}
	})
}

// TestLostByProof: nobody can let go of a query's place once its rows were collected.
func TestLostByProof(t *testing.T) {
	g := open(t, Config{})
	g.warm(t, 1)
	forget(t, g)
	for deadline := time.Now().Add(10 * time.Second); g.connector.Stats().Reaped == 0; runtime.GC() {
		if time.Now().After(deadline) {
			t.Fatal("not proven")
		}
		time.Sleep(time.Millisecond)
	}
	if r := g.lostIs(t, 1)[0]; r.Undone != tracker.KindRows || r.Reaped {
		t.Errorf("%+v", r)
	}
	g.giveUp(t)
}

//go:noinline
func forget(t *testing.T, g *guarded) {
	rows, err := g.QueryContext(background, "SELECT * FROM "+three)
	if err != nil {
		t.Fatal(err)
	}
	rows.Next()
}
