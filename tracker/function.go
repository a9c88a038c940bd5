package tracker

import "strings"

// The names of functions, as the runtime tells them: the import path of the package, a
// dot, and what the function is called there. A closure has the name of the function
// that it is in with ".func1", ".func1.2" and the like behind it, the body of a range
// over a function "-range1", a method value "-fm", and what the compiler makes of a
// statement `go f(x)` or `defer f(x)` ".gowrap1" or ".deferwrap1".

// typeArguments stand for those of a generic function or type.
const typeArguments = "[...]"

// packageOf returns the import path of a function, as it is spelled there.
func packageOf(function string) string {
	slash := strings.LastIndexByte(function, '/') + 1
	dot := strings.IndexByte(function[slash:], '.')
	if dot < 0 {
		return function
	}
	return function[:slash+dot]
}

// nameOf returns a function's name in its package, without type arguments.
func nameOf(function string) string {
	name := strings.TrimPrefix(function[len(packageOf(function)):], ".")
	return strings.ReplaceAll(name, typeArguments, "")
}

// ownName returns what a function, for a closure the one it is in, is called: "Query",
// or "(*Store).Get". Of a method of a value it has only the last part: that of the type
// cannot be told from a function that it is inlined in.
func ownName(function string) string {
	name := enclosingName(nameOf(function))
	dot := strings.LastIndexByte(name, '.')
	if dot > 0 && name[dot-1] == ')' {
		if i := strings.LastIndex(name[:dot], "(*"); i >= 0 {
			return name[i:]
		}
	}
	return name[dot+1:]
}

// inClosure reports whether a function is in another.
func inClosure(function string) bool {
	name := nameOf(function)
	return enclosingName(name) != name
}

func enclosingName(name string) string {
	for {
		dot := strings.LastIndexByte(name, '.')
		last := name[dot+1:]
		if i := strings.LastIndexByte(last, '-'); i > 0 { // -range1, -fm
			name = name[:dot+1+i]
			continue
		}
		if dot <= 0 || !closurePart(last) {
			return name
		}
		name = name[:dot]
	}
}

// closurePart reports whether the compiler gave the name: "func1", "1", "gowrap2", or
// none, between the two dots of a closure of a package's variable.
func closurePart(s string) bool {
	for _, word := range []string{"func", "gowrap", "deferwrap"} {
		if rest, ok := strings.CutPrefix(s, word); ok && rest != "" {
			s = rest
			break
		}
	}
	return strings.Trim(s, "0123456789") == ""
}
