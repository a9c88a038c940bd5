//go:build amd64 && !leakguard_nofp

package callstack

import (
	"math/rand/v2"
	"reflect"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack/testdata/bend"
)

// lastBent is what bent captured last: each is compared with the one before.
var lastBent *Stack

// bent captures a stack whose chain goes on at bp, and expects what
// runtime.Callers finds without it.
func bent(t *testing.T, bp uintptr) (walked int) {
	t.Helper()
	bend.Call(bp, func() {
		var key [MaxDepth]uintptr
		var pcs [maxLogical]uintptr
		var s *Stack
		var n int
		last := lastBent
		s, n = Capture(last), runtime.Callers(1, pcs[:])
		// The innermost call is found whatever the chain says.
		got, want := expand(s.PCs()), expand(pcs[:n])
		if len(got) == 0 || got[0] != want[0] {
			t.Errorf("frame pointer %#x: %v, want %v", bp, got, want)
		}
		// By chance it may lead to a frame that there is.
		if got = slices.DeleteFunc(got, ofStatement); !s.Partial() && !slices.Equal(got, want) {
			t.Errorf("frame pointer %#x: the stack counts as complete: %v, want %v", bp, got, want)
		}
		lastBent = s
		walked = frames(&key[0], MaxDepth)
	})
	return walked
}

// steady calls f with room below it on its stack, which does not move.
func steady(f func()) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection shrinks stacks
	done := make(chan struct{})
	go func() {
		defer close(done)
		grow(make([]byte, 1))
		f()
	}()
	<-done
}

// A chain that is broken ends the walk; nothing else happens.
func TestBrokenChain(t *testing.T) {
	steady(func() {
		var here [2]uintptr
		at := bend.Address(&here[0])
		for name, bp := range map[string]uintptr{
			"nil": 0, "one": 1, "all ones": ^uintptr(0), "all ones but aligned": ^uintptr(7), "the last page": ^uintptr(4095),
			"not canonical": 1 << 62, "the first page": 8, "not aligned": at + 1, "half aligned": at + 4,
			"far above": at + 1<<30, "far below": at - 1<<30, "below": at - 1<<16,
			"heap": reflect.ValueOf(new([64]uintptr)).Pointer(), "code": reflect.ValueOf(TestBrokenChain).Pointer(),
		} {
			if n := bent(t, bp); n != 1 {
				t.Errorf("%s: %d frames, want the one before the break", name, n)
			}
		}
	})
}

// forged is a frame in memory that is none: where it says that the next one is,
// in words from the first, and whether it has a return address.
type forged struct {
	next int
	ret  bool
}

const end = 1 << 50 // no next one

// A chain that goes on through memory which is no frame goes upward, stays
// within its stack and ends.
func TestForgedChain(t *testing.T) {
	long := make(map[int]forged)
	for i := range 50 {
		long[2*i] = forged{2*i + 2, true}
	}
	for name, test := range map[string]struct {
		frames map[int]forged // by their word
		want   int            // frames that are found
	}{
		"ends":           {map[int]forged{0: {2, true}, 2: {4, true}, 4: {end, true}}, 3},
		"to itself":      {map[int]forged{0: {0, true}}, 1},
		"in a circle":    {map[int]forged{0: {4, true}, 4: {0, true}}, 2},
		"back":           {map[int]forged{0: {6, true}, 6: {2, true}, 2: {8, true}, 8: {end, true}}, 2},
		"no return":      {map[int]forged{0: {2, true}, 2: {4, false}, 4: {end, true}}, 1},
		"too far":        {map[int]forged{0: {2, true}, 2: {1 << 40, true}}, 2},
		"below":          {map[int]forged{0: {2, true}, 2: {-1 << 40, true}}, 2},
		"more than fits": {long, MaxDepth - 1},
	} {
		steady(func() {
			var memory [128]uintptr
			base := bend.Address(&memory[0])
			for at, f := range test.frames {
				if f.next != end {
					memory[at] = base + uintptr(f.next)*8
				}
				if f.ret {
					memory[at+1] = 0x1234567
				}
			}
			if n := bent(t, base) - 1; n != test.want {
				t.Errorf("%s: %d frames, want %d", name, n, test.want)
			}
		})
	}
}

// Random addresses as frame pointers, and random words as frames: the walk
// ends, whatever is there.
func TestRandomChain(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	steady(func() {
		var memory [128]uintptr
		base := bend.Address(&memory[0])
		for range 5000 {
			for i := range memory {
				switch memory[i] = 0; r.IntN(4) {
				case 0:
					memory[i] = base + uintptr(r.IntN(128))*8
				case 1:
					memory[i] = base + uintptr(r.IntN(1<<18)) - 1<<17
				case 2:
					memory[i] = uintptr(r.Uint64() >> r.UintN(64))
				}
			}
			bent(t, memory[r.IntN(len(memory))])
			bent(t, base+uintptr(r.IntN(1<<16))&^7)
		}
	})
}
