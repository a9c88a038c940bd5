//go:build !(amd64 || arm64) || leakguard_nofp

package callstack

func frames(*uintptr, int) int { return 0 }

const haveFrames = false
