package callstack

// What each lease captures is in this file, whose name puts it beside the assembly in
// the binary: behind a system call each page of code costs.

// Capture returns the caller's stack, from the function that calls Capture on.
// last is the stack that was captured at this place before, or any other, or nil:
// where the present one is the same, it is found by one comparison.
//
//go:noinline
func Capture(last *Stack) *Stack {
	if last != nil && last.walked.Load() && same(&last.key[0], len(last.key), MaxDepth) {
		last.touch(epoch.Load())
		return last
	}
	return capture()
}

// touch notes that the stack was captured in the epoch.
func (s *Stack) touch(epoch uint32) {
	if s.seen.Load() != epoch {
		s.seen.Store(epoch)
	}
}
