package tracker

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
)

// beside says which connections sit in the pool beside others.
type beside struct {
	still
	name string
}

// stock opens a connection that sits in its pool and had a lease.
func stock(p *Pool, name string) owned {
	c := owned{p.Open(beside{name: name}, false, "")}
	c.CheckOut("")
	c.CheckIn()
	return c
}

func besides(c owned) (names []string) {
	for _, k := range c.Neighbours() {
		names = append(names, k.(beside).name)
	}
	slices.Sort(names)
	return names
}

// Who sits beside a connection is who sits in the same pool, had a lease, and has
// its handle.
func TestNeighbours(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	q := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	c := stock(p, "itself")
	if got := besides(c); len(got) != 0 || c.Leave() {
		t.Errorf("alone beside %q, and may leave", got)
	}
	stock(q, "other pool")
	fresh := owned{p.Open(beside{name: "fresh"}, false, "")}
	leased := stock(p, "leased")
	leased.CheckOut("")
	lost := stock(p, "lost")
	lost.Lost()
	closed := stock(p, "closed by the guard")
	closed.ForceClosed()
	gone := stock(p, "closed by its pool")
	gone.Close()
	reaped := stock(p, "reaped")
	reaped.CheckOut("")
	reaped.ForceClosed()
	reaped.CheckIn()
	if got := besides(c); len(got) != 0 || c.Leave() {
		t.Errorf("beside %q, and may leave", got)
	}
	// Each of those that can comes to stay.
	fresh.CheckOut("")
	if got := besides(c); len(got) != 0 || c.Leave() {
		t.Errorf("beside %q, and may leave", got)
	}
	fresh.CheckIn()
	leased.CheckIn()
	a := stock(p, "idle")
	if got, want := besides(c), []string{"fresh", "idle", "leased"}; !slices.Equal(got, want) {
		t.Errorf("beside %q, want %q", got, want)
	}
	for i, want := range []bool{true, true, true, false} { // one stays
		o := []owned{a, fresh, leased, c}[i]
		if got := o.Leave(); got != want {
			t.Errorf("the %d. may leave: %v", i+1, got)
		}
	}
	if got := besides(a); !slices.Equal(got, []string{"itself"}) {
		t.Errorf("who left sits beside %q", got)
	}
	for range 20 {
		stock(p, "more")
	}
	if got := besides(c); len(got) != 8 {
		t.Errorf("%d neighbours, want no more than 8", len(got))
	}
}

// Of connections that leave at the same time one stays, whoever asks first and
// whatever the others do.
func TestLeaveConcurrently(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	for range 500 {
		var all []owned
		for range 2 + rand.IntN(4) {
			all = append(all, stock(p, ""))
		}
		busy := owned{p.Open(still{}, true, "")} // leased all the time
		var left atomic.Int64
		var begin, over sync.WaitGroup
		begin.Add(1)
		for _, c := range all {
			over.Go(func() {
				begin.Wait()
				if len(c.Neighbours()) > 0 {
					runtime.Gosched() // between asking and leaving
				}
				if c.Leave() {
					left.Add(1)
					c.ForceClosed()
				}
			})
		}
		over.Go(func() {
			begin.Wait()
			for range 10 {
				var r Resource
				busy.OpenRows(&r, "SELECT 1", "")
				busy.CloseResource(&r)
			}
		})
		begin.Done()
		over.Wait()
		if n := int(left.Load()); n != len(all)-1 {
			t.Fatalf("%d of %d left", n, len(all))
		}
		for _, c := range append(all, busy) {
			c.Close()
		}
	}
}

// Under -race: connections leave while others are leased, given back, closed and
// reported.
func TestLeaveBesideLeases(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	var work sync.WaitGroup
	for range 4 {
		work.Go(func() {
			for range 200 {
				c := stock(p, "")
				c.CheckOut("")
				c.CheckIn()
				if c.Leave() {
					c.Recycled(ReasonMaxIdle)
					c.ForceClosed()
				} else {
					c.Renewed(ReasonMaxIdle)
				}
				c.Close()
			}
		})
		work.Go(func() {
			for range 50 {
				tr.Stats()
				tr.Figures()
				p.Records()
			}
		})
	}
	work.Wait()
	if s := tr.Stats(); s.Recycled+s.Refreshed != 800 || s.Recycled != s.ForceClosed || s.TotalConnections != 0 {
		t.Errorf("%+v", s)
	}
}
