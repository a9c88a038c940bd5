//go:build cgo

package capi

import "C"

import "unsafe"

// leakguardLongWait is what C calls. The preamble of a file with an export must have
// no definitions, so it has a file of its own.
//
//export leakguardLongWait
func leakguardLongWait(p unsafe.Pointer) { longWait(p) }
