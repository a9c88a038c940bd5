//go:build (amd64 || arm64) && !leakguard_nofp

package callstack

// frames stores the return addresses of the caller's frame and those above it,
// at most max, and returns how many. It reads the frame pointers; each must lie
// within the goroutine's stack and above the one before, else the walk ends.
//
// It is assembly because assembly is never preempted: in Go code the stack
// could move under the walk.
//
//go:noescape
func frames(pcs *uintptr, max int) int

// same reports whether frames, called here with max, would store these n.
//
//go:noescape
func same(pcs *uintptr, n, max int) bool

const haveFrames = true
