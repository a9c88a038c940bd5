package tracker

import (
	"runtime/debug"
	"strings"
	"sync"
)

// modules are those that the program was built from.
type modules struct {
	main string
	deps []string
}

// program is read from the binary once. Other build systems than the go command do not
// write it there.
var program = sync.OnceValue(func() modules {
	var m modules
	if info, ok := debug.ReadBuildInfo(); ok {
		m.main = info.Main.Path
		for _, d := range info.Deps {
			m.deps = append(m.deps, d.Path)
		}
	}
	return m
})

// mainModule stands for the program's own module where its path is not known.
const mainModule = "main"

// moduleOf returns the module of a function, "" if it is the standard library's or not
// known.
func (m modules) moduleOf(f Frame) string {
	pkg := packageOf(f.Function)
	if pkg == "main" || pkg == "command-line-arguments" {
		return mainModule
	}
	if m.main == "" {
		// A guess: the standard library has no dot in the first element of its
		// paths, and files of a module cache have a version.
		first, _, _ := strings.Cut(pkg, "/")
		if strings.Contains(first, ".") && !strings.Contains(f.File, "@") && !strings.Contains(f.File, "/vendor/") {
			return mainModule
		}
		return ""
	}
	best := ""
	for _, path := range m.deps {
		if len(path) > len(best) && below(pkg, path) {
			best = path
		}
	}
	if len(m.main) > len(best) && below(pkg, m.main) {
		return mainModule
	}
	return best
}

// below reports whether a package, as a function's name spells it, belongs to a module.
// The package of a directory's outer tests ends in "_test".
func below(pkg, module string) bool {
	rest, ok := strings.CutPrefix(strings.ReplaceAll(pkg, "%2e", "."), module)
	return ok && (rest == "" || rest[0] == '/' || rest == "_test")
}

// own reports whether a site may move from a frame to the one that called it: to the
// program's main module from anywhere, else within one module. So it never moves to a
// framework or the standard library.
func (m modules) own(from, to Frame) bool {
	if internalFrame(to) {
		return false
	}
	module := m.moduleOf(to)
	return module == mainModule || module != "" && module == m.moduleOf(from)
}

// callerOf returns the index of the frame that called the function of the one at the
// index, -1 if it was not the program's: an entry point, a goroutine's first function,
// what a server or a library calls back. A function that calls itself is called by
// who called it first, a closure by who called its function.
func (m modules) callerOf(frames []Frame, at int) int {
	callee := frames[at]
	self := functionAt(callee)
	for at = outerOf(frames, at) + 1; at < len(frames) && functionAt(frames[at]) == self; at++ {
	}
	if at < len(frames) && m.own(callee, frames[at]) {
		return at
	}
	return -1
}

// outerOf returns the index of the frame whose function the closure at the index is in,
// that index if it is in none or that is over.
func outerOf(frames []Frame, at int) int {
	if !inClosure(frames[at].Function) {
		return at
	}
	self := functionAt(frames[at])
	for i := at + 1; i < len(frames); i++ {
		if functionAt(frames[i]) == self && !inClosure(frames[i].Function) {
			return i
		}
	}
	return at
}
