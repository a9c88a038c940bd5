// Package bend calls a function with a frame pointer that is none. Only the
// tests of callstack import it.
package bend

// Call calls f, for which the frame pointer of its caller is bp.
func Call(bp uintptr, f func())

// Address returns the address of a variable, which may stay on the stack.
//
//go:noescape
func Address(p *uintptr) uintptr
