package tracker

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// stock opens a connection that sits in its pool and had a lease.
func stock(p *Pool) owned {
	c := owned{p.Open(still{}, false, "")}
	c.CheckOut("")
	c.CheckIn()
	return c
}

// Who stays in a connection's place sits in the same pool, had a lease, and has its
// handle.
func TestLeave(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet})
	c := stock(p)
	stays := func(when string) {
		t.Helper()
		if c.Leave() {
			t.Errorf("%s: it may leave", when)
		}
	}
	stays("alone")
	stock(newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet}))
	stays("beside one of another pool")
	fresh := owned{p.Open(still{}, false, "")}
	stays("beside one that had no lease")
	leased := stock(p)
	leased.CheckOut("")
	stays("beside a leased one")
	lost := stock(p)
	lost.Lost()
	stays("beside a lost one")
	closed := stock(p)
	closed.ForceClosed()
	stays("beside one that the guard closed")
	gone := stock(p)
	gone.Close()
	stays("beside one that its pool closed")
	reaped := stock(p)
	reaped.CheckOut("")
	reaped.ForceClosed()
	reaped.CheckIn()
	stays("beside a reaped one")
	fresh.CheckOut("")
	fresh.CheckIn()
	leased.CheckIn()
	idle := stock(p)
	for i, want := range []bool{true, true, true, false} { // one stays
		o := []owned{idle, fresh, leased, c}[i]
		if got := o.Leave(); got != want {
			t.Errorf("the %d. may leave: %v", i+1, got)
		}
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
			all = append(all, stock(p))
		}
		busy := owned{p.Open(still{}, true, "")} // leased all the time
		var left atomic.Int64
		var begin, over sync.WaitGroup
		begin.Add(1)
		for _, c := range all {
			over.Go(func() {
				begin.Wait()
				runtime.Gosched()
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
				c := stock(p)
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
