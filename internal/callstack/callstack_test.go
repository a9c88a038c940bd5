package callstack

import (
	"runtime"
	"strings"
	"testing"
)

//go:noinline
func a(f func() *Stack) *Stack { return b(f) }
func b(f func() *Stack) *Stack { s := c(f); return s }

//go:noinline
func c(f func() *Stack) *Stack { s := f(); return s }

func names(s *Stack) []string {
	var out []string
	fs := runtime.CallersFrames(s.PCs())
	for {
		f, more := fs.Next()
		out = append(out, f.Function[strings.LastIndexByte(f.Function, '.')+1:])
		if !more {
			return out
		}
	}
}

func TestCapture(t *testing.T) {
	t.Log("walkable:", walkable)
	var stacks []*Stack
	for range 3 {
		stacks = append(stacks, a(func() *Stack { return Capture(nil) }))
	}
	t.Log(names(stacks[0]), stacks[0].Partial())
	if stacks[0] != stacks[2] {
		t.Error("not interned")
	}
}

func BenchmarkCapture(b *testing.B) {
	var last *Stack
	for name, f := range map[string]func() *Stack{
		"again": func() *Stack { last = Capture(last); return last },
		"known": func() *Stack { return Capture(nil) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				a(f)
			}
		})
	}
}

// The comparison takes what the walk returns, no more and no less of it.
func TestSame(t *testing.T) {
	if !walkable {
		t.Skip("no frame pointers")
	}
	done := make(chan struct{})
	go func() { // a stack that ends within the bound
		defer close(done)
		a(func() *Stack { compareWalks(t); return nil })
	}()
	<-done
}

//go:noinline
func compareWalks(t *testing.T) {
	var pcs [MaxDepth + 2]uintptr
	n := frames(&pcs[0], MaxDepth)
	if n < 3 || n >= MaxDepth {
		t.Errorf("%d frames", n)
		return
	}
	pcs[n] = pcs[n-1] // what lies behind must not matter
	for k := 1; k <= n+1; k++ {
		if got := same(&pcs[0], k, MaxDepth); got != (k == n) {
			t.Errorf("%d of %d frames: %v", k, n, got)
		}
	}
	// A walk that stops at its bound is the same up to there.
	if !same(&pcs[0], 2, 2) || same(&pcs[0], 1, 2) || same(&pcs[0], 3, 2) {
		t.Error("the bound")
	}
	for k := range n {
		pcs[k]++
		if same(&pcs[0], n, MaxDepth) {
			t.Errorf("frame %d is another", k)
		}
		pcs[k]--
	}
}
