package tracker

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestTimeLeases times leases that begin and end while somebody asks.
func TestTimeLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		p := newPool(t, tr, PoolConfig{Name: "db", Mode: Basic, Logger: quiet})
		c := p.Open(still{}, true, "")
		defer c.Close()
		var told box[[]time.Duration]
		hear := func(pool string, took time.Duration) {
			if pool != "db" {
				t.Errorf("pool %q", pool)
			}
			told.set(append(told.get(), took))
		}
		expect := func(want ...time.Duration) {
			t.Helper()
			synctest.Wait()
			got := told.swap(nil)
			if len(got) != len(want) {
				t.Errorf("told %v, want %v", got, want)
				return
			}
			for i := range got {
				if got[i] != want[i] {
					t.Errorf("told %v, want %v", got, want)
				}
			}
		}
		lease := func(d time.Duration) {
			c.CheckOut("")
			time.Sleep(d)
			c.CheckIn()
		}
		flush, cancel := tr.TimeLeases(hear)
		c.CheckIn() // began before anybody asked
		lease(time.Second)
		lease(2 * time.Second)
		expect()
		flush()
		expect(time.Second, 2*time.Second)
		flush()
		expect()

		// A later one takes over; what the first one has is void.
		lease(time.Second)
		flush2, cancel2 := tr.TimeLeases(hear)
		cancel()
		lease(3 * time.Second)
		flush()
		expect()
		flush2()
		expect(3 * time.Second)
		c.CheckOut("")
		cancel2()
		c.CheckIn()
		flush2()
		expect()
		if tr.leaseEvents.Load() {
			t.Error("leases are timed for nobody")
		}
		flush3, cancel3 := tr.TimeLeases(hear)
		defer cancel3()
		c.CheckIn()
		lease(4 * time.Second)
		flush3()
		expect(4 * time.Second)
	})
}

// TestTimeLeasesBatches: a full batch is told of without flush, and while f is
// slow what does not fit is dropped and counted.
func TestTimeLeasesBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		c := newPool(t, tr, PoolConfig{Mode: Basic, Logger: quiet}).Open(still{}, false, "")
		defer c.Close()
		var n atomic.Int64
		hold := make(chan struct{})
		_, cancel := tr.TimeLeases(func(string, time.Duration) {
			n.Add(1)
			<-hold
			if n.Load() == 2 {
				panic("contained")
			}
		})
		defer cancel()
		leases := func(count int) {
			for range count {
				c.CheckOut("")
				c.CheckIn()
			}
			synctest.Wait()
		}
		leases(batchSize - 1)
		if n.Load() != 0 {
			t.Error("told before the batch was full")
		}
		leases(1)
		if n.Load() != 1 {
			t.Error("a full batch is not told of")
		}
		leases(batchSize + 5)
		if d := tr.Figures().EventsDropped; d != 5 {
			t.Errorf("%d dropped, want 5", d)
		}
		close(hold)
		synctest.Wait()
		if got := n.Load(); got != 2+batchSize { // the panic ends its batch
			t.Errorf("told %d times, want %d", got, 2+batchSize)
		}
		if s := tr.Stats(); s.CallbackPanics != 1 {
			t.Errorf("%d panics counted", s.CallbackPanics)
		}
	})
}

// BenchmarkLeaseTimed is BenchmarkLease for one who wants use times.
func BenchmarkLeaseTimed(b *testing.B) {
	tr := New(Options{})
	c := newPool(b, tr, PoolConfig{Mode: Basic, Logger: quiet}).Open(still{}, false, "")
	defer c.Close()
	_, cancel := tr.TimeLeases(func(string, time.Duration) {})
	defer cancel()
	for b.Loop() {
		c.CheckOut("")
		c.CheckIn()
	}
}
