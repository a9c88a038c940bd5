package tracker

import (
	"slices"
	"strings"
	"sync"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/callstack"
)

// Helpers: functions that a program has around database/sql. The line in one is the
// same for all who go through it, so whose leak it was is told by who called it. They
// are known by that: many different functions call them. It is learned when somebody
// asks for a site, from the stacks that were recorded anyway.

const (
	// manyCallers is how many different callers a helper has.
	manyCallers = 8
	// maxCalled bounds the functions whose callers are counted. Those that come
	// later are not.
	maxCalled = 1024
)

// helpers are those of the process, as are the stacks.
var helpers = callers{program: program}

// callers knows who called what.
type callers struct {
	program func() modules

	mu    sync.RWMutex // a leaf
	calls map[function]*calledBy
}

// calledBy are the callers of one function, as long as it is no helper.
type calledBy struct {
	from   []function
	helper bool
}

// function is one with its closures. By its file and its own name alone: a closure of a
// function that is inlined has the name of who it is inlined in, and must not count
// once for each.
type function struct{ file, name string }

func functionAt(f Frame) function { return function{f.File, ownName(f.Function)} }

// learn takes in the stacks that are new.
func (h *callers) learn() {
	callstack.VisitNew(func(s *callstack.Stack) { h.see(Stack(s.PCs()).Frames()) })
}

// see counts the callers along one stack.
func (h *callers) see(frames []Frame) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := innermostOf(frames)
	for at >= 0 {
		from := h.program().callerOf(frames, at)
		if from < 0 {
			return
		}
		if !testFunction(frames[from]) {
			h.countLocked(functionAt(frames[at]), functionAt(frames[from]))
		}
		at = from
	}
}

func (h *callers) countLocked(callee, from function) {
	n := h.calls[callee]
	if n == nil {
		if len(h.calls) >= maxCalled {
			return
		}
		if h.calls == nil {
			h.calls = make(map[function]*calledBy)
		}
		n = new(calledBy)
		h.calls[callee] = n
	}
	if n.helper || slices.Contains(n.from, from) {
		return
	}
	if n.from = append(n.from, from); len(n.from) >= manyCallers {
		n.helper, n.from = true, nil
	}
}

// has reports whether the frame's function is a helper.
func (h *callers) has(f Frame) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	n := h.calls[functionAt(f)]
	return n != nil && n.helper
}

// testFunction reports whether a frame is in a test, benchmark, fuzz test or example.
// They do not count as callers: what many tests call is not what many of the program
// do, and where a test finds a leak must not depend on which others ran before it.
func testFunction(f Frame) bool {
	if !strings.HasSuffix(f.File, "_test.go") {
		return false
	}
	name := enclosingName(nameOf(f.Function))
	for _, word := range []string{"Test", "Benchmark", "Fuzz", "Example"} {
		if strings.HasPrefix(name, word) {
			return true
		}
	}
	return false
}
