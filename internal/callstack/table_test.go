package callstack

import (
	"runtime"
	"slices"
	"sync"
	"testing"
)

// The table of stacks. Its tests make stacks by the thousand: a path to the
// left or to the right at each of thirteen levels.

//go:noinline
func left(last *Stack, way, levels int) *Stack { s := turn(last, way, levels); return s }

//go:noinline
func right(last *Stack, way, levels int) *Stack { s := turn(last, way, levels); return s }

func turn(last *Stack, way, levels int) *Stack {
	if levels == 0 {
		return Capture(last)
	}
	if way&1 == 0 {
		return left(last, way>>1, levels-1)
	}
	return right(last, way>>1, levels-1)
}

// way returns the stack of one of 8192 ways, whoever asks: it is taken on a
// goroutine of its own.
func way(n int) *Stack {
	s := make(chan *Stack)
	go func() { s <- turn(nil, n, 13) }()
	return <-s
}

// ways returns where a stack turned, from the innermost turn on.
func ways(s *Stack) (n int) {
	for _, f := range names(s) {
		switch f {
		case "left":
			n <<= 1
		case "right":
			n = n<<1 | 1
		}
	}
	return n
}

// empty drops everything.
func empty() {
	table.mu.Lock()
	defer table.mu.Unlock()
	for i := range table.heads {
		table.heads[i].Store(nil)
	}
	table.n = 0
}

func TestTableIsBounded(t *testing.T) {
	t.Run("walk", tableIsBounded)
	t.Run("fallback", func(t *testing.T) {
		defer func(before bool) { walkable = before }(walkable)
		walkable = false
		tableIsBounded(t)
	})
}

func tableIsBounded(t *testing.T) {
	empty()
	before := Dropped()
	const entered = 8192
	hot := way(0)
	for n := 1; n < entered; n++ {
		s := way(n)
		if w := ways(s); w != n {
			t.Fatalf("way %d shows as %d", n, w)
		}
		if n%500 == 0 && way(0) != hot {
			t.Fatalf("after %d others, the stack that comes again and again is dropped", n)
		}
		if l := Len(); l > MaxStacks || l < min(n, MaxStacks/4) {
			t.Fatalf("%d stacks after %d, want at most %d", l, n, MaxStacks)
		}
		if Len()+int(Dropped()-before) != n+1 {
			t.Fatalf("%d stacks and %d dropped, of %d", Len(), Dropped()-before, n+1)
		}
	}
	if Dropped() == before {
		t.Fatal("nothing was dropped")
	}
	// Who comes back is a new one, with the same calls; the old one stays good.
	was := Dropped()
	again := way(0)
	if again != hot || Dropped() != was {
		t.Error("the hot one is not there any more")
	}
}

// What was not seen for longest goes first.
func TestTableDropsTheOldest(t *testing.T) {
	empty()
	var stacks []*Stack
	for n := range MaxStacks {
		stacks = append(stacks, way(n))
	}
	for n := range 100 { // the first, seen again
		way(n)
	}
	way(5000)
	old, recent := way(150), stacks[150]
	if old == recent {
		t.Error("the oldest one was not dropped")
	}
	if !slices.Equal(expand(old.PCs()), expand(recent.PCs())) {
		t.Errorf("the same way shows as\n%v\nand\n%v", expand(old.PCs()), expand(recent.PCs()))
	}
	for _, n := range []int{0, 50, 99, MaxStacks - 1, MaxStacks - 500} {
		if way(n) != stacks[n] {
			t.Errorf("way %d was dropped", n)
		}
	}
}

// Where all are as recent, a part goes and not everything.
func TestTableOfRecentOnes(t *testing.T) {
	empty()
	for range 2 {
		for n := range MaxStacks {
			way(n)
		}
	}
	if Len() != MaxStacks {
		t.Fatalf("%d stacks, want %d", Len(), MaxStacks)
	}
	way(5000)
	if n := Len(); n < MaxStacks/2 || n > MaxStacks {
		t.Errorf("%d stacks are left, want most of %d", n, MaxStacks)
	}
}

// Many goroutines capture the same stacks and new ones at the same time.
func TestTableIsShared(t *testing.T) {
	for _, slow := range []bool{false, true} {
		empty()
		if slow {
			defer func(before bool) { walkable = before }(walkable)
			walkable = false
		}
		const each, few = 1000, 64
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				var last *Stack
				for i := range each {
					n := i % few
					if i%3 == 0 {
						n = few + (g*each+i)%(8192-few)
					}
					if last = turn(last, n, 13); ways(last) != n {
						t.Errorf("way %d shows as %d", n, ways(last))
						return
					}
					if i%100 == 0 {
						runtime.Gosched()
					}
				}
			})
		}
		wg.Wait()
		if n := Len(); n > MaxStacks {
			t.Errorf("%d stacks, want at most %d", n, MaxStacks)
		}
		inTable := 0
		for i := range table.heads {
			seen := make(map[string]bool)
			for s := table.heads[i].Load(); s != nil; s = s.next.Load() {
				inTable++
				if seen[keyText(s)] {
					t.Error("a stack is in the table twice")
				}
				seen[keyText(s)] = true
			}
		}
		if inTable != Len() {
			t.Errorf("%d stacks are in the table, it says %d", inTable, Len())
		}
	}
}

func keyText(s *Stack) string {
	b := make([]byte, 0, 8*len(s.key))
	for _, pc := range s.key {
		for range 8 {
			b = append(b, byte(pc))
			pc >>= 8
		}
	}
	return string(b)
}

// Calls looks at every call, inlined ones included, and remembers.
func TestCalls(t *testing.T) {
	s := way(5)
	const here = "github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack."
	for range 2 {
		for prefix, want := range map[string]bool{
			here + "way.func1": true, here + "left": true, here + "turn": true, "runtime.goexit": true,
			here + "nothing": false, "left": false,
		} {
			if s.Calls(prefix) != want {
				t.Errorf("Calls(%q): %v", prefix, !want)
			}
		}
	}
	var none *Stack
	if none.Calls("") || none.PCs() != nil || none.Partial() {
		t.Error("a nil stack has calls")
	}
}

// A stack that the table has dropped is found anew, also by comparison with it:
// else one place would have two stacks from then on.
func TestDroppedStack(t *testing.T) {
	empty()
	again := func(last *Stack) *Stack {
		s := make(chan *Stack)
		go func() { s <- turn(last, 1, 13) }()
		return <-s
	}
	first := again(nil)
	known := func() bool {
		for s := table.heads[first.hash%buckets].Load(); s != nil; s = s.next.Load() {
			if s == first {
				return true
			}
		}
		return false
	}
	for known() {
		for n := 2; n < 8192; n++ {
			way(n)
		}
	}
	if compared, fresh := again(first), again(nil); compared != fresh || compared == first {
		t.Error("two stacks for one place")
	}
}

// Each stack is visited once, also those that come while others are visited.
func TestVisitNew(t *testing.T) {
	var mu sync.Mutex
	seen := make(map[*Stack]int)
	visit := func(s *Stack) {
		mu.Lock()
		defer mu.Unlock()
		seen[s]++
	}
	VisitNew(visit)
	clear(seen)
	VisitNew(func(s *Stack) { t.Errorf("%v is not new", names(s)) })

	empty()
	const goroutines, each = 4, 200
	var all [goroutines * each]*Stack
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			for i := g * each; i < (g+1)*each; i++ {
				all[i] = way(i)
				if i%10 == 0 {
					VisitNew(visit)
				}
			}
		})
	}
	wg.Wait()
	VisitNew(visit)
	for i, s := range all {
		if seen[s] != 1 {
			t.Errorf("stack %d was visited %d times", i, seen[s])
		}
	}
}
