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
