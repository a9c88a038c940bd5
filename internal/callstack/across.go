package callstack

import (
	"runtime"
	"strings"
)

// CaptureAcross is Capture for a Go function that C calls: the frame pointers end where
// C begins, so that this takes microseconds. The stack begins with the guard's own
// function that had called into C, maybe by a library between.
func CaptureAcross() *Stack {
	var room [2 * MaxDepth]uintptr
	pcs := room[:runtime.Callers(2, room[:])]
	into := 0
	for i, pc := range pcs {
		name := functionAt(pc)
		if into == 0 && name == "runtime.cgocall" {
			into = i + 1
		} else if into > 0 && strings.HasPrefix(name, module) {
			into = i
			break
		}
	}
	pcs = pcs[into:]
	return captureSlow(pcs[:min(len(pcs), MaxDepth)])
}

func functionAt(pc uintptr) string {
	f := runtime.FuncForPC(pc - 1)
	if f == nil {
		return ""
	}
	return f.Name()
}
