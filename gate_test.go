package leakguard

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// newGates returns the gates of n connections: with shared, of connections
// that share one cache.
func newGates(n int, shared bool) []*gate {
	var group *cacheGate
	if shared {
		group = &cacheGate{}
	}
	gates := make([]*gate, n)
	for i := range gates {
		gates[i] = &gate{word: new(atomic.Uint64)}
		gates[i].share(group)
	}
	return gates
}

// wordOf returns the gate's word without the bit that a shared cache sets for
// good.
func wordOf(g *gate) uint64 { return g.word.Load() &^ sharing }

// linger widens the window that it is called in: other goroutines get to run
// while the caller is in the middle of something.
func linger() {
	for range rand.IntN(4) {
		runtime.Gosched()
	}
}

// eachGate runs f for a connection with a cache of its own and for one that
// shares it with others.
func eachGate(t *testing.T, f func(t *testing.T, g *gate)) {
	t.Run("own cache", func(t *testing.T) { f(t, newGates(1, false)[0]) })
	t.Run("shared cache", func(t *testing.T) { f(t, newGates(1, true)[0]) })
}

// generation is the number of operations that are over.
func (g *gate) generation() uint64 { return wordOf(g) &^ flags }

func TestGateEnter(t *testing.T) {
	eachGate(t, func(t *testing.T, g *gate) {
		for _, state := range []uint64{0, tombed, dead, tombed | dead} {
			g.word.Store(7*operation | state | g.word.Load()&sharing)
			if f := g.enter(); f != state {
				t.Errorf("enter with flags %#x: %#x", state, f)
			}
			if w := wordOf(g); w != 7*operation|state|busy {
				t.Errorf("inside with flags %#x the word is %#x", state, w)
			}
			if f := g.enter(); f != busy {
				t.Errorf("enter with an operation in flight: %#x, want busy", f)
			}
			if f, inside := g.enterNow(); f != busy || !inside {
				t.Errorf("enterNow with an operation in flight: %#x, %v, want busy", f, inside)
			}
			if g.try() {
				t.Error("the reaper got in beside an operation")
			}
			g.set(watched | beside) // end with the operation
			if !g.leave() {
				t.Error("leave: nothing is to be seen to")
			}
			if w := wordOf(g); w != 8*operation|state {
				t.Errorf("behind the operation the word is %#x, want one operation more and flags %#x", w, state)
			}
			if f, inside := g.enterNow(); f != state || !inside {
				t.Errorf("enterNow with flags %#x: %#x, %v", state, f, inside)
			}
			g.leave()
			if !g.try() {
				t.Fatal("the gate is not free behind the operations")
			}
			g.release()
		}
	})
}

// A call that never comes back keeps everybody out for good.
func TestGateLost(t *testing.T) {
	eachGate(t, func(t *testing.T, g *gate) {
		g.enter()
		for range 3 {
			if f := g.enter(); f != busy {
				t.Errorf("enter: %#x, want busy", f)
			}
			if g.try() {
				t.Error("the reaper got in")
			}
		}
	})
}

func TestGateTryIsExact(t *testing.T) {
	eachGate(t, func(t *testing.T, g *gate) {
		if !g.tryAt(0) { // a generation as any other
			t.Error("tryAt(0) before the first operation")
		} else {
			g.release()
		}
		g.enter()
		g.leave()
		if g.tryAt(0) {
			t.Error("tryAt(0) after an operation")
		}
		word := g.generation()
		tryAt := func(word uint64, want bool, when string) {
			t.Helper()
			got := g.tryAt(word)
			if got != want {
				t.Errorf("tryAt(%#x) %s: %v, want %v", word, when, got, want)
			}
			if got {
				g.release()
			}
		}
		try := func(want bool, when string) {
			t.Helper()
			got := g.try()
			if got != want {
				t.Errorf("try %s: %v, want %v", when, got, want)
			}
			if got {
				g.release()
			}
		}
		tryAt(word, true, "with nothing moved")
		tryAt(word, true, "after another try: what the reaper does is no activity")
		for _, f := range []uint64{tombed, dead, tombed | dead} {
			g.set(f)
			tryAt(word, true, "with a flag set that is no activity")
			g.clear(f)
		}
		tryAt(word+operation, false, "for an operation that is not over")
		g.enter()
		tryAt(word, false, "inside an operation")
		try(false, "inside an operation")
		g.leave()
		tryAt(word, false, "after an operation")
		try(true, "after an operation, for any generation")
		tryAt(word+operation, true, "with nothing moved")

		if !g.try() {
			t.Fatal("the gate is not free")
		}
		try(false, "with the reaper inside")
		g.release()
		try(true, "after the reaper")
		if wordOf(g) != word+operation {
			t.Errorf("the word is %#x, want %#x", wordOf(g), word+operation)
		}
	})
}

// The owner waits for a reaper that is inside, except where it must not wait.
func TestGateOwnerWaits(t *testing.T) {
	eachGate(t, func(t *testing.T, g *gate) {
		for range 200 {
			var steps []string // guarded by the gate alone
			if !g.try() {
				t.Fatal("the gate is not free")
			}
			if f, inside := g.enterNow(); inside {
				t.Fatalf("enterNow got inside beside the reaper: %#x", f)
			}
			entering, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				close(entering)
				if f := g.enter(); f != tombed {
					t.Errorf("enter: %#x, want what the reaper left", f)
				}
				steps = append(steps, "owner")
				g.clear(tombed)
				g.leave()
			}()
			<-entering
			linger()
			g.set(tombed)
			steps = append(steps, "reaper")
			g.release()
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
	eachGate(t, func(t *testing.T, g *gate) {
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
						inside = g.try()
					} else {
						word := g.generation()
						linger()
						if inside = g.tryAt(word); inside && word != uint64(owner)*operation {
							t.Errorf("tryAt(%#x) succeeded after %d operations", word, owner)
						}
					}
					if !inside {
						runtime.Gosched()
						continue
					}
					before := plain
					linger()
					plain = before + 1
					byReaper[i]++
					g.release()
				}
			})
		}
		for range ops {
			g.enter()
			before := plain
			linger()
			plain = before + 1
			owner++
			for !g.leave() {
				t.Error("condemned by nobody")
				g.take(condemned)
			}
			for range 3 {
				linger()
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
	eachGate(t, func(t *testing.T, g *gate) {
		sent := 0
		send := func() { sent++ }
		if g.condemn() {
			t.Error("condemned with no operation in flight")
		}
		if g.hit(send) {
			t.Error("hit with no operation in flight")
		}
		g.enter()
		if g.hit(send) {
			t.Error("hit an operation that is not condemned")
		}
		if !g.condemn() {
			t.Error("an operation in flight was not condemned")
		}
		if !g.condemn() {
			t.Error("an operation that is marked is not condemned")
		}
		if sent != 0 {
			t.Fatalf("%d interrupts so far", sent)
		}
		for i := range 3 { // a nudge may come again and again
			if !g.hit(send) || sent != i+1 {
				t.Errorf("hit %d: %d interrupts", i+1, sent)
			}
		}
		for range 2 {
			if g.leave() {
				t.Fatal("a condemned operation left")
			}
			if wordOf(g) != busy|condemned {
				t.Errorf("leave changed the word to %#x", wordOf(g))
			}
		}
		if bits := g.take(condemned | stopped); bits != condemned || wordOf(g) != busy {
			t.Errorf("take returned %#x and left %#x", bits, wordOf(g))
		}
		if g.hit(send) || sent != 3 {
			t.Error("hit an operation whose order was carried out")
		}
		if !g.leave() || wordOf(g) != operation {
			t.Errorf("the operation did not end: %#x", wordOf(g))
		}
		if g.hit(send) || g.condemn() || sent != 3 {
			t.Error("the operation is over")
		}
		if !g.try() {
			t.Fatal("the gate is not free")
		}
		if g.condemn() || g.hit(send) {
			t.Error("the reaper condemned itself")
		}
		g.release()
	})
}

// While one interrupt is being sent there is no second one, and the operation
// does not end.
func TestGateHitExcludes(t *testing.T) {
	eachGate(t, func(t *testing.T, g *gate) {
		g.enter()
		g.condemn()
		sent, second := 0, 0
		if !g.hit(func() {
			sent++
			if w := wordOf(g); w != busy|condemned|interrupt {
				t.Errorf("while sending the word is %#x", w)
			}
			if !g.hit(func() { second++ }) {
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
			g.hit(func() {
				sending = true
				close(inside)
				for range 100 {
					runtime.Gosched()
				}
				sending = false
			})
		})
		<-inside
		g.clear(condemned)
		if !g.leave() {
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
		g.enter()
		g.condemn()
		inside = make(chan struct{})
		wg.Go(func() {
			g.hit(func() {
				sending = true
				close(inside)
				for range 100 {
					runtime.Gosched()
				}
				sending = false
			})
		})
		<-inside
		g.take(condemned)
		if sending {
			t.Error("take did not wait for the interrupt")
		}
		g.leave()
		wg.Wait()
	})
}

// A cancelled context stops the operation that it came with, and no other.
func TestGateStop(t *testing.T) {
	eachGate(t, func(t *testing.T, g *gate) {
		sent := 0
		send := func() { sent++ }
		stop := func(w uint64, want bool, n int, when string) {
			t.Helper()
			if got := g.stop(w, send); got != want || sent != n {
				t.Errorf("stop %s: %v with %d interrupts, want %v with %d", when, got, sent, want, n)
			}
		}
		stop(0, false, 0, "with no operation in flight")
		g.enter()
		stop(wordOf(g), false, 0, "for an operation that is not watched")
		g.set(watched)
		first := wordOf(g)
		stop(first, true, 1, "for the operation")
		stop(first, true, 2, "for the operation once more")
		g.set(interrupt)
		stop(first, true, 2, "while another interrupt is under way")
		g.clear(interrupt)
		if g.leave() {
			t.Error("an operation that was stopped left without seeing to it")
		}
		if bits := g.take(stopped | attended); bits != stopped {
			t.Errorf("take: %#x, want stopped", bits)
		}
		if !g.leave() {
			t.Error("the operation did not end")
		}
		stop(first, false, 2, "for an operation that is over")
		g.enter()
		g.set(watched)
		stop(first, false, 2, "for an operation that is over, inside another")
		stop(wordOf(g), true, 3, "for the other")
		g.take(stopped)
		g.leave()
		if w := wordOf(g); w != 2*operation {
			t.Errorf("after two operations the word is %#x", w)
		}
	})
}

// The reaper condemns at random moments, the watchdog stops what is watched,
// another goroutine interrupts on top, and the owner runs one short operation
// after the other.
func TestGateCondemnStress(t *testing.T) {
	eachGate(t, func(t *testing.T, g *gate) {
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
			linger()
			// The owner sets the one, and waits behind taking the others.
			const may = watched | condemned | stopped
			if w&(flags&^may) != busy|interrupt || (wordOf(g)^w)&^may != 0 || over.Load() > op {
				t.Errorf("an interrupt for operation %d with flags %#x, %d are over and the word is %#x", op, w&flags, over.Load(), wordOf(g))
			}
			hitOp = op
			sent.Add(1)
			sending.Add(-1)
		}
		condemnations, stops := 0, 0
		wg.Go(func() { // the reaper
			for !stop.Load() {
				linger()
				if !g.condemn() {
					continue
				}
				condemnations++
				for g.hit(send) {
					linger()
				}
			}
		})
		wg.Go(func() { // a second one that only interrupts
			for !stop.Load() {
				g.hit(send)
				linger()
			}
		})
		wg.Go(func() { // the watchdog, which may come late
			for !stop.Load() {
				w := wordOf(g)
				linger()
				if w&watched != 0 && g.stop(w, send) {
					stops++
				}
			}
		})
		wg.Go(func() { // looks on
			for !stop.Load() {
				switch w := wordOf(g); {
				case w&busy == 0 && w&(condemned|interrupt|watched|stopped) != 0:
					t.Errorf("something survived its operation: %#x", w)
				case w&busy != 0 && w&reaping != 0:
					t.Errorf("owner and reaper are inside: %#x", w)
				}
				runtime.Gosched()
			}
		})
		carried, struck := 0, 0
		for op := range uint64(ops) {
			if f := g.enter(); f != 0 {
				t.Fatalf("operation %d began with flags %#x", op, f)
			}
			if op%2 == 0 {
				g.set(watched)
			}
			linger()
			orders, stopsHere := 0, 0
			for !g.leave() {
				switch bits := g.take(condemned | stopped); {
				case bits&condemned != 0:
					orders++
				case bits&stopped != 0:
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

	if f := a.enter(); f != 0 {
		t.Fatalf("enter: %#x", f)
	}
	if a.try() || b.try() {
		t.Error("an owner inside one connection left the reaper into the cache")
	}
	if w := wordOf(b); w != 0 {
		t.Errorf("the try left %#x behind", w)
	}
	if !other.try() {
		t.Error("another cache is none of its business")
	} else {
		other.release()
	}
	if f := b.enter(); f != 0 { // does not wait for the first owner
		t.Fatalf("enter of the second connection: %#x", f)
	}
	a.leave()
	if a.try() || gates[2].try() {
		t.Error("the second owner is still inside")
	}
	b.leave()
	for _, g := range gates {
		if !g.try() {
			t.Fatal("nobody is inside any more")
		}
		g.release()
	}

	// The reaper inside one keeps the owners of all out.
	for range 100 {
		if !a.try() {
			t.Fatal("the gate is not free")
		}
		var steps []string // guarded by the gates alone
		entering, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			close(entering)
			b.enter()
			steps = append(steps, "owner")
			b.leave()
		}()
		<-entering
		linger()
		steps = append(steps, "reaper")
		a.release()
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
			g.enter()
			inside.Done()
			inside.Wait()
			g.leave()
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
				g.enter()
				before, seen := own[i], common
				linger()
				own[i] = before + 1
				if common != seen {
					t.Error("the reaper was inside the cache beside an owner")
				}
				for !g.leave() {
					own[i]++ // an order is carried out inside the gate
					own[i]--
					g.take(condemned)
				}
				for range 4 { // long enough for all to be outside now and then
					linger()
				}
			}
		})
	}
	others.Go(func() {
		for n := 0; !stop.Load(); n++ {
			i := n % len(gates)
			if !gates[i].try() {
				runtime.Gosched()
				continue
			}
			before := common
			for i := range own {
				own[i]++
			}
			linger()
			for i := range own {
				own[i]--
			}
			common = before + 1
			reaps[i]++
			gates[i].release()
		}
	})
	others.Go(func() {
		for !stop.Load() {
			g := gates[rand.IntN(len(gates))]
			if g.condemn() {
				g.hit(linger)
			}
			linger()
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

// The registry gives one lock to connections of one shared cache, and none to
// the others.
func TestCacheGateRegistry(t *testing.T) {
	of := func(dsn, filename string) *cacheGate { return traitsOf(dsn).cacheGate(filename) }
	if g := of("file:a.db", "/x/a.db"); g != nil {
		t.Error("a connection with a cache of its own got a lock")
	}
	a1, a2 := of("file:a.db?cache=shared", "/x/a.db"), of("file:./a.db?cache=shared&_fk=1", "/x/a.db")
	b := of("file:b.db?cache=shared", "/x/b.db")
	if a1 == nil || a1 != a2 || a1 == b {
		t.Errorf("locks: %p and %p for one file, %p for another", a1, a2, b)
	}
	m1, m2 := of("file:m?mode=memory&cache=shared", ""), of("file:m?cache=shared&mode=memory", "")
	n := of("file:n?mode=memory&cache=shared", "")
	if m1 == nil || m1 != m2 || m1 == n {
		t.Errorf("locks: %p and %p for one memory database, %p for another", m1, m2, n)
	}
	for _, g := range []*cacheGate{a1, a2, b, m1, m2, n, nil} {
		g.drop()
	}
	cacheGates.Lock()
	left := len(cacheGates.m)
	cacheGates.Unlock()
	if left != 0 {
		t.Errorf("%d locks are left without a connection", left)
	}
	if g := of("file:a.db?cache=shared", "/x/a.db"); g == a1 {
		t.Error("a lock came back after its last connection")
	} else {
		g.drop()
	}
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
				g.enter()
				g.leave()
			}
		})
		b.Run("enter+leave tombed/"+name, func(b *testing.B) {
			g := newGates(1, shared)[0]
			g.set(tombed)
			b.ReportAllocs()
			for b.Loop() {
				g.enter()
				g.leave()
			}
		})
		b.Run("try+release/"+name, func(b *testing.B) {
			g := newGates(1, shared)[0]
			b.ReportAllocs()
			for b.Loop() {
				g.try()
				g.release()
			}
		})
		b.Run("condemn+hit/"+name, func(b *testing.B) {
			g := newGates(1, shared)[0]
			send := func() {}
			b.ReportAllocs()
			for b.Loop() {
				g.enter()
				g.condemn()
				g.hit(send)
				g.leave()
				g.take(condemned)
				g.leave()
			}
		})
	}
	b.Run("enter+leave/parallel shared", func(b *testing.B) {
		gates := newGates(runtime.GOMAXPROCS(0), true)
		var next atomic.Int32
		b.RunParallel(func(pb *testing.PB) {
			g := gates[int(next.Add(1)-1)%len(gates)]
			for pb.Next() {
				g.enter()
				g.leave()
			}
		})
	})
}
