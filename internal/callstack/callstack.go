package callstack

import (
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// MaxDepth bounds a stack: database/sql takes about ten frames, an ORM ten
	// to twenty more.
	MaxDepth = 32
	// MaxStacks bounds the table. A program has some hundreds of places that
	// open something; beyond the bound the least recently seen are dropped.
	MaxStacks = 4096

	buckets    = 1024
	maxLogical = 96
)

// Stack is an interned call stack. It stays valid when the table drops it.
type Stack struct {
	key       []uintptr     // what the walk returned
	seen      atomic.Uint32 // the epoch in which it was last captured
	operation atomic.Uint32 // what InOperation found
	walked    atomic.Bool   // by frame pointers, and still in the table
	few       [24]uintptr   // key, if it has room: Capture finds it in the same page
	hash      uint64
	next      atomic.Pointer[Stack]
	pcs       []uintptr // as runtime.Callers returns them, inlined calls included
	partial   bool
	visited   bool     // guarded by visits.mu
	calls     sync.Map // function name prefix to bool, see Calls; callee and caller, see CalledFrom
	note      atomic.Value
}

// Note returns what Annotate was given last, nil if it was not called.
func (s *Stack) Note() any { return s.note.Load() }

// Annotate keeps what somebody made of the stack, so that it need not be resolved
// again. It is always of one type.
func (s *Stack) Annotate(note any) { s.note.Store(note) }

// PCs returns the program counters for runtime.CallersFrames, innermost call
// first. Do not change them. A nil Stack has none.
func (s *Stack) PCs() []uintptr {
	if s == nil {
		return nil
	}
	return s.pcs
}

// Partial reports whether the walk ended before the goroutine's first call:
// deeper than MaxDepth, or below a Go function that C called.
func (s *Stack) Partial() bool { return s != nil && s.partial }

// Calls reports whether a function of the stack has a name that begins with
// prefix. It looks once for each prefix, so it costs next to nothing for a stack
// that comes again; ask for a few fixed prefixes only.
func (s *Stack) Calls(prefix string) bool {
	if s == nil {
		return false
	}
	if found, ok := s.calls.Load(prefix); ok {
		return found.(bool)
	}
	found := false
	for frames := runtime.CallersFrames(s.pcs); !found; {
		f, more := frames.Next()
		found = strings.HasPrefix(f.Function, prefix)
		if !more {
			break
		}
	}
	s.calls.Store(prefix, found)
	return found
}

// CalledFrom reports whether the first function of the stack with the name callee
// was called by one whose name begins with caller. It looks once for each pair, as
// Calls does.
func (s *Stack) CalledFrom(callee, caller string) bool {
	if s == nil {
		return false
	}
	key := [2]string{callee, caller}
	if found, ok := s.calls.Load(key); ok {
		return found.(bool)
	}
	found := false
	frames := runtime.CallersFrames(s.pcs)
	for {
		f, more := frames.Next()
		if f.Function == callee && more {
			f, _ = frames.Next()
			found = strings.HasPrefix(f.Function, caller)
			break
		}
		if !more {
			break
		}
	}
	s.calls.Store(key, found)
	return found
}

// table is a hash table that is read without a lock.
var table struct {
	heads [buckets]atomic.Pointer[Stack]

	mu      sync.Mutex // guards the rest, and all writing
	n       int
	dropped uint64
}

// epoch advances with the table's changes, for "recently". It is no part of the
// table, whose pages are cold.
var epoch atomic.Uint32

// capture is Capture's slower half. It has room for a walk on its stack, which the
// other need not clear.
//
//go:noinline
func capture() *Stack {
	var room [MaxDepth + 1]uintptr
	if !walkable {
		return captureSlow(room[:runtime.Callers(3, room[:MaxDepth])])
	}
	key := room[1:max(1, frames(&room[0], len(room)))] // without Capture itself
	h := hash(key)
	for s := table.heads[h%buckets].Load(); s != nil; s = s.next.Load() {
		if s.hash == h && equal(s.key, key) {
			s.touch(epoch.Load())
			return s
		}
	}
	return miss(key, h)
}

// miss enters a stack that was not seen before.
//
//go:noinline
func miss(key []uintptr, h uint64) *Stack {
	var logical [maxLogical]uintptr
	n := runtime.Callers(4, logical[:])
	s := &Stack{pcs: join(key, logical[:n]), hash: h}
	s.key = append(s.few[:0], key...)
	s.walked.Store(true)
	return enter(s)
}

// join returns the calls that the walk found, with those that are inlined in
// them. What runtime.Callers found beyond the end of the walk belongs to this
// capture alone: other stacks may have the same key. What it left out, the
// function that the compiler makes of a statement `go f(x)` or `defer f(x)`, is
// put back: it may be the only one that has a line of the program's.
func join(walked, called []uintptr) []uintptr {
	pcs := make([]uintptr, 0, len(called)+1)
	var left []uintptr
	for _, pc := range walked {
		if i := slices.Index(called, pc); i >= 0 {
			pcs = append(pcs, called[:i]...) // inlined in the one before
			pcs = append(append(pcs, left...), pc)
			called, left = called[i+1:], left[:0]
		}
		if of := statement(pc); of != 0 {
			left = append(left, of)
		}
	}
	return append(pcs, left...)
}

// statement returns a place in the function that the compiler made of a go or
// defer statement, if pc is in one or in what is inlined there, else 0.
func statement(pc uintptr) uintptr {
	f := runtime.FuncForPC(pc - 1)
	if f == nil {
		return 0
	}
	entry := f.Entry()
	name := runtime.FuncForPC(entry).Name()
	name = name[strings.LastIndexByte(name, '.')+1:]
	if strings.HasPrefix(name, "gowrap") || strings.HasPrefix(name, "deferwrap") {
		return entry + 1
	}
	return 0
}

// captureSlow interns what runtime.Callers returned.
func captureSlow(pcs []uintptr) *Stack {
	h := hash(pcs)
	for s := table.heads[h%buckets].Load(); s != nil; s = s.next.Load() {
		if s.hash == h && equal(s.key, pcs) {
			s.touch(epoch.Load())
			return s
		}
	}
	own := append([]uintptr(nil), pcs...)
	return enter(&Stack{pcs: own, key: own, hash: h})
}

// enter adds a stack to the table, or returns the one that came first.
func enter(s *Stack) *Stack {
	s.partial = len(s.pcs) > 0 && !(endsInGoexit(s.key) && endsInGoexit(s.pcs))
	table.mu.Lock()
	defer table.mu.Unlock()
	head := &table.heads[s.hash%buckets]
	for old := head.Load(); old != nil; old = old.next.Load() {
		if old.hash == s.hash && equal(old.key, s.key) {
			return old
		}
	}
	if table.n >= MaxStacks {
		dropOldest()
	}
	s.seen.Store(epoch.Add(1))
	s.next.Store(head.Load())
	head.Store(s)
	entered.Add(1) // after it can be found
	table.n++
	return s
}

// dropOldest drops the stacks that were not seen for longest, a quarter of the
// table if all are recent, so that the next drop is far off. Readers may still stand on a dropped stack;
// its next pointer stays.
func dropOldest() {
	now := epoch.Load()
	age := func(s *Stack) uint32 { return now - s.seen.Load() }
	limit := uint32(MaxStacks / 2)
	most := MaxStacks
	for dropped := 0; dropped == 0; limit /= 2 {
		for i := range table.heads {
			link := &table.heads[i]
			for s := link.Load(); s != nil; s = s.next.Load() {
				if age(s) >= limit && dropped < most {
					link.Store(s.next.Load())
					s.walked.Store(false)
					dropped++
					continue
				}
				link = &s.next
			}
		}
		table.n -= dropped
		table.dropped += uint64(dropped)
		most = MaxStacks / 4
	}
}

// entered counts the stacks that the table took in.
var entered atomic.Uint64

// visits is how far VisitNew has come.
var visits struct {
	mu   sync.Mutex
	upTo uint64
}

// VisitNew calls f for each stack of the table that it was not called for before,
// one at a time. While nothing new was captured it costs two loads and a lock, so
// that who reports may ask again and again. f captures nothing.
func VisitNew(f func(*Stack)) {
	visits.mu.Lock()
	defer visits.mu.Unlock()
	n := entered.Load()
	if n == visits.upTo {
		return
	}
	visits.upTo = n // before the walk: what comes during it may be missed, and is found by the next
	for i := range table.heads {
		for s := table.heads[i].Load(); s != nil; s = s.next.Load() {
			if !s.visited {
				s.visited = true
				f(s)
			}
		}
	}
}

// Len returns how many stacks the table holds, Dropped how many it gave up.
func Len() int {
	table.mu.Lock()
	defer table.mu.Unlock()
	return table.n
}

// Dropped returns how many stacks the table gave up to stay within MaxStacks.
func Dropped() uint64 {
	table.mu.Lock()
	defer table.mu.Unlock()
	return table.dropped
}

func hash(pcs []uintptr) uint64 {
	// Each place has its own odd factor, so that the products do not wait for
	// each other.
	h, factor := uint64(len(pcs)), uint64(0x9E3779B97F4A7C15)
	for _, pc := range pcs {
		h += uint64(pc) * factor
		factor += 0x3C6EF372FE94F82A
	}
	return h ^ h>>32
}

func equal(a, b []uintptr) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// endsInGoexit reports whether the outermost call is the goroutine's first.
func endsInGoexit(pcs []uintptr) bool {
	f := runtime.FuncForPC(pcs[len(pcs)-1] - 1)
	return f != nil && f.Name() == "runtime.goexit"
}

// walkable says that the walk along the frame pointers returns what
// runtime.Callers does. It is checked once: another compiler, or a runtime that
// lays out frames differently, must not make the guard read at random.
var walkable = haveFrames && check(3)

//go:noinline
func check(depth int) bool {
	if depth > 0 {
		return check(depth-1) && depth > 0
	}
	var walked, called [MaxDepth]uintptr
	n := frames(&walked[0], MaxDepth)
	m := runtime.Callers(2, called[:])
	if n < 4 || m < 4 {
		return false
	}
	// The physical frames must be found in the same order among the logical
	// ones. Both begin at check's caller.
	j := 0
	for _, pc := range walked[:n] {
		for j < m && called[j] != pc {
			j++
		}
		if j == m {
			return false
		}
	}
	return true
}
