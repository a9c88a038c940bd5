package gate

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newGates returns the gates of n connections: with shared, of connections
// that share one cache.
func newGates(n int, shared bool) []*Gate {
	var group *Shared
	if shared {
		group = &Shared{}
	}
	gates := make([]*Gate, n)
	for i := range gates {
		gates[i] = &Gate{word: new(Word)}
		gates[i].Share(group)
	}
	return gates
}

// wordOf returns the gate's word without the bit that a shared cache sets for
// good.
func wordOf(g *Gate) uint64 { return g.word.Load() &^ Sharing }

// widen widens the window that it is called in: other goroutines get to run
// while the caller is in the middle of something.
func widen() {
	for range rand.IntN(4) {
		runtime.Gosched()
	}
}

// eachGate runs f for a connection with a cache of its own and for one that
// shares it with others.
func eachGate(t *testing.T, f func(t *testing.T, g *Gate)) {
	t.Run("own cache", func(t *testing.T) { f(t, newGates(1, false)[0]) })
	t.Run("shared cache", func(t *testing.T) { f(t, newGates(1, true)[0]) })
}

// generation is the number of operations that are over.

func TestGateEnter(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		for _, state := range []uint64{0, Tombed, Dead, Tombed | Dead} {
			g.word.Store(7*operation | state | g.word.Load()&Sharing)
			if f := g.Enter(); f != state {
				t.Errorf("enter with flags %#x: %#x", state, f)
			}
			if w := wordOf(g); w != 7*operation|state|Busy {
				t.Errorf("inside with flags %#x the word is %#x", state, w)
			}
			if f := g.Enter(); f != Busy {
				t.Errorf("enter with an operation in flight: %#x, want busy", f)
			}
			if f, inside := g.EnterNow(); f != Busy || !inside {
				t.Errorf("enterNow with an operation in flight: %#x, %v, want busy", f, inside)
			}
			if g.Try() {
				t.Error("the reaper got in beside an operation")
			}
			g.Set(Watched | Beside) // end with the operation
			if !g.Leave() {
				t.Error("leave: nothing is to be seen to")
			}
			if w := wordOf(g); w != 8*operation|state {
				t.Errorf("behind the operation the word is %#x, want one operation more and flags %#x", w, state)
			}
			if f, inside := g.EnterNow(); f != state || !inside {
				t.Errorf("enterNow with flags %#x: %#x, %v", state, f, inside)
			}
			g.Leave()
			if !g.Try() {
				t.Fatal("the gate is not free behind the operations")
			}
			g.Release()
		}
	})
}

// A call that never comes back keeps everybody out for good.
func TestGateLost(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		g.Enter()
		for range 3 {
			if f := g.Enter(); f != Busy {
				t.Errorf("enter: %#x, want busy", f)
			}
			if g.Try() {
				t.Error("the reaper got in")
			}
		}
	})
}

func TestGateTryIsExact(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		if !g.TryAt(0) { // a generation as any other
			t.Error("tryAt(0) before the first operation")
		} else {
			g.Release()
		}
		g.Enter()
		g.Leave()
		if g.TryAt(0) {
			t.Error("tryAt(0) after an operation")
		}
		word := g.Generation()
		tryAt := func(word uint64, want bool, when string) {
			t.Helper()
			got := g.TryAt(word)
			if got != want {
				t.Errorf("tryAt(%#x) %s: %v, want %v", word, when, got, want)
			}
			if got {
				g.Release()
			}
		}
		try := func(want bool, when string) {
			t.Helper()
			got := g.Try()
			if got != want {
				t.Errorf("try %s: %v, want %v", when, got, want)
			}
			if got {
				g.Release()
			}
		}
		tryAt(word, true, "with nothing moved")
		tryAt(word, true, "after another try: what the reaper does is no activity")
		for _, f := range []uint64{Tombed, Dead, Tombed | Dead} {
			g.Set(f)
			tryAt(word, true, "with a flag set that is no activity")
			g.Clear(f)
		}
		tryAt(word+operation, false, "for an operation that is not over")
		g.Enter()
		tryAt(word, false, "inside an operation")
		try(false, "inside an operation")
		g.Leave()
		tryAt(word, false, "after an operation")
		try(true, "after an operation, for any generation")
		tryAt(word+operation, true, "with nothing moved")

		if !g.Try() {
			t.Fatal("the gate is not free")
		}
		try(false, "with the reaper inside")
		g.Release()
		try(true, "after the reaper")
		if wordOf(g) != word+operation {
			t.Errorf("the word is %#x, want %#x", wordOf(g), word+operation)
		}
	})
}

// The owner waits for a reaper that is inside, except where it must not wait.
func TestGateOwnerWaits(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		for range 200 {
			var steps []string // guarded by the gate alone
			if !g.Try() {
				t.Fatal("the gate is not free")
			}
			if f, inside := g.EnterNow(); inside {
				t.Fatalf("enterNow got inside beside the reaper: %#x", f)
			}
			entering, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				close(entering)
				if f := g.Enter(); f != Tombed {
					t.Errorf("enter: %#x, want what the reaper left", f)
				}
				steps = append(steps, "owner")
				g.Clear(Tombed)
				g.Leave()
			}()
			<-entering
			widen()
			g.Set(Tombed)
			steps = append(steps, "reaper")
			g.Release()
			<-done
			if len(steps) != 2 || steps[0] != "reaper" {
				t.Fatalf("steps: %v", steps)
			}
		}
	})
}

// One plain variable, written by the owner in its operations, by the reaper
// and by a cleanup: the race detector and the sum prove that they exclude each
// other, and that only the owner's operations move the generation.
func TestGateExclusion(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		const ops = 5000
		var plain, owner int
		var byReaper [2]int
		var stop atomic.Bool
		var wg sync.WaitGroup
		for i := range byReaper {
			wg.Go(func() {
				for !stop.Load() {
					inside := false
					if i == 0 {
						inside = g.Try()
					} else {
						word := g.Generation()
						widen()
						if inside = g.TryAt(word); inside && word != uint64(owner)*operation {
							t.Errorf("tryAt(%#x) succeeded after %d operations", word, owner)
						}
					}
					if !inside {
						runtime.Gosched()
						continue
					}
					before := plain
					widen()
					plain = before + 1
					byReaper[i]++
					g.Release()
				}
			})
		}
		for range ops {
			g.Enter()
			before := plain
			widen()
			plain = before + 1
			owner++
			for !g.Leave() {
				t.Error("condemned by nobody")
				g.Take(Condemned)
			}
			for range 3 {
				widen()
			}
		}
		stop.Store(true)
		wg.Wait()
		if want := owner + byReaper[0] + byReaper[1]; plain != want {
			t.Errorf("the variable is %d after %d increments", plain, want)
		}
		if w := wordOf(g); w != ops*operation {
			t.Errorf("after %d operations the word is %#x", ops, w)
		}
		if byReaper[0]+byReaper[1] == 0 {
			t.Error("the reaper never got in")
		}
		t.Logf("%d operations, reaper inside %d times, %d of them for a given generation", ops, byReaper[0]+byReaper[1], byReaper[1])
	})
}

func TestGateCondemn(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		sent := 0
		send := func() { sent++ }
		if g.Condemn() {
			t.Error("condemned with no operation in flight")
		}
		if g.Hit(send) {
			t.Error("hit with no operation in flight")
		}
		g.Enter()
		if g.Hit(send) {
			t.Error("hit an operation that is not condemned")
		}
		if !g.Condemn() {
			t.Error("an operation in flight was not condemned")
		}
		if !g.Condemn() {
			t.Error("an operation that is marked is not condemned")
		}
		if sent != 0 {
			t.Fatalf("%d interrupts so far", sent)
		}
		for i := range 3 { // a nudge may come again and again
			if !g.Hit(send) || sent != i+1 {
				t.Errorf("hit %d: %d interrupts", i+1, sent)
			}
		}
		for range 2 {
			if g.Leave() {
				t.Fatal("a condemned operation left")
			}
			if wordOf(g) != Busy|Condemned {
				t.Errorf("leave changed the word to %#x", wordOf(g))
			}
		}
		if bits := g.Take(Condemned | Stopped); bits != Condemned || wordOf(g) != Busy {
			t.Errorf("take returned %#x and left %#x", bits, wordOf(g))
		}
		if g.Hit(send) || sent != 3 {
			t.Error("hit an operation whose order was carried out")
		}
		if !g.Leave() || wordOf(g) != operation {
			t.Errorf("the operation did not end: %#x", wordOf(g))
		}
		if g.Hit(send) || g.Condemn() || sent != 3 {
			t.Error("the operation is over")
		}
		if !g.Try() {
			t.Fatal("the gate is not free")
		}
		if g.Condemn() || g.Hit(send) {
			t.Error("the reaper condemned itself")
		}
		g.Release()
	})
}

// While one interrupt is being sent there is no second one, and the operation
// does not end.
func TestGateHitExcludes(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		g.Enter()
		g.Condemn()
		sent, second := 0, 0
		if !g.Hit(func() {
			sent++
			if w := wordOf(g); w != Busy|Condemned|Interrupt {
				t.Errorf("while sending the word is %#x", w)
			}
			if !g.Hit(func() { second++ }) {
				t.Error("a second hit took the operation for over")
			}
		}) {
			t.Error("the operation is in flight")
		}
		if sent != 1 || second != 0 {
			t.Errorf("%d interrupts, %d inside of them", sent, second)
		}

		sending := false // guarded by leave
		inside := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			g.Hit(func() {
				sending = true
				close(inside)
				for range 100 {
					runtime.Gosched()
				}
				sending = false
			})
		})
		<-inside
		g.Clear(Condemned)
		if !g.Leave() {
			t.Error("the operation did not end")
		}
		if sending {
			t.Error("leave did not wait for the interrupt")
		}
		wg.Wait()
		if wordOf(g) != operation {
			t.Errorf("the word is %#x", wordOf(g))
		}

		// So does take: what the owner does behind it is not hit.
		g.Enter()
		g.Condemn()
		inside = make(chan struct{})
		wg.Go(func() {
			g.Hit(func() {
				sending = true
				close(inside)
				for range 100 {
					runtime.Gosched()
				}
				sending = false
			})
		})
		<-inside
		g.Take(Condemned)
		if sending {
			t.Error("take did not wait for the interrupt")
		}
		g.Leave()
		wg.Wait()
	})
}

// A cancelled context stops the operation that it came with, and no other.
func TestGateStop(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		sent := 0
		send := func() { sent++ }
		stop := func(w uint64, want bool, n int, when string) {
			t.Helper()
			if got := g.Stop(w, send); got != want || sent != n {
				t.Errorf("stop %s: %v with %d interrupts, want %v with %d", when, got, sent, want, n)
			}
		}
		stop(0, false, 0, "with no operation in flight")
		g.Enter()
		stop(wordOf(g), false, 0, "for an operation that is not watched")
		g.Set(Watched)
		first := wordOf(g)
		stop(first, true, 1, "for the operation")
		stop(first, true, 2, "for the operation once more")
		g.Set(Interrupt)
		stop(first, true, 2, "while another interrupt is under way")
		g.Clear(Interrupt)
		if g.Leave() {
			t.Error("an operation that was stopped left without seeing to it")
		}
		if bits := g.Take(Stopped | Attended); bits != Stopped {
			t.Errorf("take: %#x, want stopped", bits)
		}
		if !g.Leave() {
			t.Error("the operation did not end")
		}
		stop(first, false, 2, "for an operation that is over")
		g.Enter()
		g.Set(Watched)
		stop(first, false, 2, "for an operation that is over, inside another")
		stop(wordOf(g), true, 3, "for the other")
		g.Take(Stopped)
		g.Leave()
		if w := wordOf(g); w != 2*operation {
			t.Errorf("after two operations the word is %#x", w)
		}
	})
}

// The reaper condemns at random moments, the watchdog stops what is watched,
// another goroutine interrupts on top, and the owner runs one short operation
// after the other.
func TestGateCondemnStress(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		const ops = 20000
		var (
			over    atomic.Uint64 // operations that are over
			sending atomic.Int32
			sent    atomic.Int64
			hitOp   = ^uint64(0) // the operation interrupted last: guarded by leave
			stop    atomic.Bool
			wg      sync.WaitGroup
		)
		send := func() {
			if sending.Add(1) != 1 {
				t.Error("two interrupts at once")
			}
			w := wordOf(g)
			op := w / operation
			hitOp = op
			widen()
			// The owner sets the one, and waits behind taking the others.
			const may = Watched | Condemned | Stopped
			if w&(Flags&^may) != Busy|Interrupt || (wordOf(g)^w)&^may != 0 || over.Load() > op {
				t.Errorf("an interrupt for operation %d with flags %#x, %d are over and the word is %#x", op, w&Flags, over.Load(), wordOf(g))
			}
			hitOp = op
			sent.Add(1)
			sending.Add(-1)
		}
		condemnations, stops := 0, 0
		wg.Go(func() { // the reaper
			for !stop.Load() {
				widen()
				if !g.Condemn() {
					continue
				}
				condemnations++
				for g.Hit(send) {
					widen()
				}
			}
		})
		wg.Go(func() { // a second one that only interrupts
			for !stop.Load() {
				g.Hit(send)
				widen()
			}
		})
		wg.Go(func() { // the watchdog, which may come late
			for !stop.Load() {
				w := wordOf(g)
				widen()
				if w&Watched != 0 && g.Stop(w, send) {
					stops++
				}
			}
		})
		wg.Go(func() { // looks on
			for !stop.Load() {
				switch w := wordOf(g); {
				case w&Busy == 0 && w&(Condemned|Interrupt|Watched|Stopped) != 0:
					t.Errorf("something survived its operation: %#x", w)
				case w&Busy != 0 && w&Reaping != 0:
					t.Errorf("owner and reaper are inside: %#x", w)
				}
				runtime.Gosched()
			}
		})
		carried, struck := 0, 0
		for op := range uint64(ops) {
			if f := g.Enter(); f != 0 {
				t.Fatalf("operation %d began with flags %#x", op, f)
			}
			if op%2 == 0 {
				g.Set(Watched)
			}
			widen()
			orders, stopsHere := 0, 0
			for !g.Leave() {
				switch bits := g.Take(Condemned | Stopped); {
				case bits&Condemned != 0:
					orders++
				case bits&Stopped != 0:
					stopsHere++
				}
			}
			over.Store(op + 1)
			if orders > 0 {
				carried++
			}
			if stopsHere > 0 && op%2 != 0 {
				t.Errorf("operation %d was stopped and not watched", op)
			}
			if hitOp == op {
				struck++
				if orders+stopsHere == 0 {
					t.Errorf("operation %d was interrupted and not condemned or stopped", op)
				}
			}
		}
		stop.Store(true)
		wg.Wait()
		if wordOf(g) != ops*operation {
			t.Errorf("after %d operations the word is %#x", ops, wordOf(g))
		}
		if carried == 0 || stops == 0 || sent.Load() == 0 {
			t.Errorf("nothing was tried: %d orders carried out, %d stops, %d interrupts", carried, stops, sent.Load())
		}
		t.Logf("%d operations, %d condemned %d times, %d stops, %d interrupted, %d interrupts", ops, carried, condemnations, stops, struck, sent.Load())
	})
}

func TestGateSharedCache(t *testing.T) {
	gates := newGates(3, true)
	a, b, other := gates[0], gates[1], newGates(1, true)[0]

	if f := a.Enter(); f != 0 {
		t.Fatalf("enter: %#x", f)
	}
	if a.Try() || b.Try() {
		t.Error("an owner inside one connection left the reaper into the cache")
	}
	if w := wordOf(b); w != 0 {
		t.Errorf("the try left %#x behind", w)
	}
	if !other.Try() {
		t.Error("another cache is none of its business")
	} else {
		other.Release()
	}
	if f := b.Enter(); f != 0 { // does not wait for the first owner
		t.Fatalf("enter of the second connection: %#x", f)
	}
	a.Leave()
	if a.Try() || gates[2].Try() {
		t.Error("the second owner is still inside")
	}
	b.Leave()
	for _, g := range gates {
		if !g.Try() {
			t.Fatal("nobody is inside any more")
		}
		g.Release()
	}

	// The reaper inside one keeps the owners of all out.
	for range 100 {
		if !a.Try() {
			t.Fatal("the gate is not free")
		}
		var steps []string // guarded by the gates alone
		entering, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			close(entering)
			b.Enter()
			steps = append(steps, "owner")
			b.Leave()
		}()
		<-entering
		widen()
		steps = append(steps, "reaper")
		a.Release()
		<-done
		if len(steps) != 2 || steps[0] != "reaper" {
			t.Fatalf("steps: %v", steps)
		}
	}
}

// Owners of different connections are inside at the same time: each waits in
// its operation for all the others.
func TestGateSharedOwnersRunTogether(t *testing.T) {
	gates := newGates(4, true)
	var inside, wg sync.WaitGroup
	inside.Add(len(gates))
	for _, g := range gates {
		wg.Go(func() {
			g.Enter()
			inside.Done()
			inside.Wait()
			g.Leave()
		})
	}
	wg.Wait()
}

// Plain variables again: each owner writes its own and reads the common one,
// the reaper, inside any of the connections, writes all of them. Meanwhile
// operations are condemned, which sends leave through its slow path.
func TestGateSharedExclusion(t *testing.T) {
	const ops = 3000
	gates := newGates(4, true)
	var common int
	own := make([]int, len(gates))
	reaps := make([]int, len(gates))
	var stop atomic.Bool
	var owners, others sync.WaitGroup
	for i, g := range gates {
		owners.Go(func() {
			for range ops {
				g.Enter()
				before, seen := own[i], common
				widen()
				own[i] = before + 1
				if common != seen {
					t.Error("the reaper was inside the cache beside an owner")
				}
				for !g.Leave() {
					own[i]++ // an order is carried out inside the gate
					own[i]--
					g.Take(Condemned)
				}
				for range 4 { // long enough for all to be outside now and then
					widen()
				}
			}
		})
	}
	others.Go(func() {
		for n := 0; !stop.Load(); n++ {
			i := n % len(gates)
			if !gates[i].Try() {
				runtime.Gosched()
				continue
			}
			before := common
			for i := range own {
				own[i]++
			}
			widen()
			for i := range own {
				own[i]--
			}
			common = before + 1
			reaps[i]++
			gates[i].Release()
		}
	})
	others.Go(func() {
		for !stop.Load() {
			g := gates[rand.IntN(len(gates))]
			if g.Condemn() {
				g.Hit(widen)
			}
			widen()
		}
	})
	owners.Wait()
	stop.Store(true)
	others.Wait()
	total := 0
	for i, g := range gates {
		if own[i] != ops {
			t.Errorf("owner %d: the variable is %d after %d increments", i, own[i], ops)
		}
		if wordOf(g) != ops*operation {
			t.Errorf("owner %d: after %d operations the word is %#x", i, ops, wordOf(g))
		}
		total += reaps[i]
	}
	if common != total {
		t.Errorf("the common variable is %d after %d increments", common, total)
	}
	if total == 0 {
		t.Error("the reaper never got in")
	}
	t.Logf("%d operations on %d connections, reaper inside %d times", ops*len(gates), len(gates), total)
}

func BenchmarkGate(b *testing.B) {
	for _, shared := range []bool{false, true} {
		name := "own"
		if shared {
			name = "shared"
		}
		b.Run("enter+leave/"+name, func(b *testing.B) {
			g := newGates(1, shared)[0]
			b.ReportAllocs()
			for b.Loop() {
				g.Enter()
				g.Leave()
			}
		})
		b.Run("enter+leave tombed/"+name, func(b *testing.B) {
			g := newGates(1, shared)[0]
			g.Set(Tombed)
			b.ReportAllocs()
			for b.Loop() {
				g.Enter()
				g.Leave()
			}
		})
		b.Run("try+release/"+name, func(b *testing.B) {
			g := newGates(1, shared)[0]
			b.ReportAllocs()
			for b.Loop() {
				g.Try()
				g.Release()
			}
		})
		b.Run("condemn+hit/"+name, func(b *testing.B) {
			g := newGates(1, shared)[0]
			send := func() {}
			b.ReportAllocs()
			for b.Loop() {
				g.Enter()
				g.Condemn()
				g.Hit(send)
				g.Leave()
				g.Take(Condemned)
				g.Leave()
			}
		})
	}
	b.Run("enter+leave/parallel shared", func(b *testing.B) {
		gates := newGates(runtime.GOMAXPROCS(0), true)
		var next atomic.Int32
		b.RunParallel(func(pb *testing.PB) {
			g := gates[int(next.Add(1)-1)%len(gates)]
			for pb.Next() {
				g.Enter()
				g.Leave()
			}
		})
	})
}

// A Close that must not wait finds the reaper inside another connection of the
// shared cache. An order that comes meanwhile finds no operation to condemn: one
// that is taken back at once would never carry it out.
func TestOrderBesideEnterNow(t *testing.T) {
	t.Parallel()
	gates := newGates(2, true)
	g, other := gates[0], gates[1]
	if !other.Try() {
		t.Fatal("the gate is not free")
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() { // the reaper's orders
		for {
			select {
			case <-stop:
				return
			default:
			}
			if g.Condemn() {
				t.Error("condemned, and nobody is inside")
				return
			}
		}
	})
	for range 100000 {
		if f, inside := g.EnterNow(); inside {
			t.Fatalf("inside beside the reaper: %#x", f)
		}
	}
	close(stop)
	wg.Wait()
	if w := wordOf(g); w != 0 {
		t.Errorf("the word is %#x", w)
	}
	other.Release()
	if f, inside := g.EnterNow(); f != 0 || !inside {
		t.Errorf("enterNow of a free gate: %#x, %v", f, inside)
	}
	if other.Try() {
		t.Error("the reaper got into the cache beside an owner")
	}
	g.Leave()
	if !other.Try() {
		t.Error("the cache is not free behind its owner")
	}
	other.Release()
}

func TestGateGivesUp(t *testing.T) {
	for name, shared := range map[string]bool{"own cache": false, "shared cache": true} {
		t.Run(name, func(t *testing.T) {
			gates := newGates(2, shared)
			owner, reaper := gates[0], gates[0]
			if shared {
				reaper = gates[1] // inside another connection of the cache
			}
			for range 100 {
				before := wordOf(owner)
				if !reaper.Try() {
					t.Fatal("the gate is not free")
				}
				ctx, cancel := context.WithCancel(context.Background())
				f := make(chan uint64, 1)
				go func() { f <- owner.EnterUntil(ctx) }()
				waitedFor(t, owner)
				cancel()
				if f := returned(t, "enterUntil", f); f != Reaping {
					t.Fatalf("enterUntil: %#x, want reaping", f)
				}
				if f := owner.EnterUntil(ctx); f != Reaping {
					t.Fatalf("enterUntil, over before: %#x, want reaping", f)
				}
				go func() { f <- owner.Enter() }() // behind one who gave up
				widen()
				reaper.Set(Tombed)
				reaper.Release()
				if f := returned(t, "enter", f); f != wordOf(owner)&Tombed {
					t.Fatalf("enter: %#x", f)
				}
				if reaper.Try() {
					t.Fatal("the reaper got in beside an owner")
				}
				reaper.Clear(Tombed)
				owner.Leave()
				if w := wordOf(owner); w != before+operation {
					t.Fatalf("the word is %#x behind %#x: who gave up has left something", w, before)
				}
				if f := owner.EnterUntil(ctx); f != 0 { // nothing to wait for
					t.Fatalf("enterUntil of a free gate: %#x", f)
				}
				owner.Leave()
			}
		})
	}
}

// Several reapers take and release, owners come with contexts that end at random
// moments and without: nobody is inside beside another, and nobody is forgotten.
func TestGateGivesUpStress(t *testing.T) {
	for name, n := range map[string]int{"own cache": 1, "shared cache": 3} {
		t.Run(name, func(t *testing.T) {
			const ops = 2000
			gates := newGates(n, n > 1)
			var common int // written by the reapers, read by the owners
			var gaveUp, entered atomic.Int64
			var stop atomic.Bool
			var owners, others sync.WaitGroup
			for _, g := range gates {
				owners.Go(func() {
					for i := range ops {
						ctx, cancel := context.Background(), func() {}
						if i%3 != 0 {
							ctx, cancel = context.WithCancel(context.Background())
						}
						over := make(chan struct{})
						go func() {
							defer close(over)
							widen()
							cancel()
						}()
						if f := g.EnterUntil(ctx); f == Reaping {
							gaveUp.Add(1)
						} else {
							entered.Add(1)
							before := common
							widen()
							if common != before {
								t.Error("the reaper was inside beside an owner")
							}
							g.Leave()
						}
						<-over
					}
				})
			}
			for range 2 {
				others.Go(func() {
					for !stop.Load() {
						if g := gates[rand.IntN(len(gates))]; g.Try() {
							before := common
							widen()
							widen()
							common = before + 1
							g.Release()
						}
						for range 4 { // long enough for the owners to get in now and then
							widen()
						}
						runtime.Gosched()
					}
				})
			}
			done := make(chan struct{})
			go func() { owners.Wait(); close(done) }()
			for last, over := int64(-1), false; !over; {
				select {
				case <-done:
					over = true
				case <-time.After(20 * time.Second):
					now := entered.Load() + gaveUp.Load()
					if now == last {
						t.Fatal("an owner was forgotten")
					}
					last = now
				}
			}
			stop.Store(true)
			others.Wait()
			if entered.Load() == 0 || gaveUp.Load() == 0 {
				t.Error("nothing was tried")
			}
			for _, g := range gates {
				if w := wordOf(g) & Flags; w != 0 {
					t.Errorf("flags %#x are left", w)
				}
				if !g.Try() {
					t.Fatal("the gate is not free")
				}
				g.Release()
			}
			t.Logf("%d operations, reaper inside %d times, %d gave up", entered.Load(), common, gaveUp.Load())
		})
	}
}

// The first who takes the gate does it from somebody's bubble, where no channel
// may be made: the owner outside waits all the same.
func TestOwnerWaitsForSomebodysBubble(t *testing.T) {
	eachGate(t, func(t *testing.T, g *Gate) {
		for _, giveUp := range []bool{false, true} {
			g.turn.over.Store(nil)
			synctest.Test(t, func(t *testing.T) {
				if !g.Try() {
					t.Fatal("the gate is not free")
				}
			})
			ctx, cancel := context.WithCancel(context.Background())
			f := make(chan uint64, 1)
			entering := make(chan struct{})
			go func() { close(entering); f <- g.EnterUntil(ctx) }()
			<-entering
			widen()
			if giveUp {
				cancel()
				if f := returned(t, "enterUntil", f); f != Reaping {
					t.Errorf("enterUntil: %#x, want reaping", f)
				}
			}
			synctest.Test(t, func(*testing.T) { g.Release() })
			if !giveUp {
				if f := returned(t, "enterUntil", f); f != 0 {
					t.Errorf("enterUntil: %#x", f)
				}
				g.Leave()
			}
			cancel()
		}
	})
}

// waitedFor waits until somebody waits for the gate.
func waitedFor(t *testing.T, g *Gate) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !g.Awaited(); {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits for the gate")
		}
		runtime.Gosched()
	}
}

// returned waits for what an operation returns.
func returned[T any](t *testing.T, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs", what)
	}
	return v
}

// TestSharedOf: one for each name, as long as somebody has it.
func TestSharedOf(t *testing.T) {
	a, again, b := SharedOf("TestSharedOf a"), SharedOf("TestSharedOf a"), SharedOf("TestSharedOf b")
	if a != again || a == b {
		t.Errorf("%p and %p for one name, %p for another", a, again, b)
	}
	a.Drop()
	if SharedOf("TestSharedOf a") != a {
		t.Error("forgotten while somebody has it")
	}
	for _, g := range []*Shared{a, a, b, nil} {
		g.Drop()
	}
	caches.Lock()
	defer caches.Unlock()
	for name := range caches.m {
		t.Errorf("%s is left", name)
	}
}
