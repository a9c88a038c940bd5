package leakguardtest

import (
	"bytes"
	"path"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// charge says for which leaks a test is to blame: those that it opened, by the test
// function in their call stack. A nil charge is to blame for all.
type charge struct {
	test string // the top-level test function by the test's name, "TestOrders"
	// by is the function that the testing package runs for the test, as path.Base of its
	// name; "" if the check was called from elsewhere than it and a cleanup in it.
	by  string
	sub bool // the test is a subtest, for others of its function are not
}

// chargeOf returns the charge of t, whose check is on the caller's stack. It is nil for a
// t that cannot tell its name.
func chargeOf(t TestingT) *charge {
	named, ok := t.(interface{ Name() string })
	if !ok {
		return nil
	}
	top, _, sub := strings.Cut(named.Name(), "/")
	if !isTest(top) {
		return nil
	}
	c := &charge{test: top, sub: sub}
	pcs := make([]uintptr, 100)
	by, direct := testIn(pcs[:runtime.Callers(2, pcs)])
	if i := strings.LastIndexByte(by, '.'); !direct && topLevel(by[:max(i, 0)]) != "" {
		by = by[:i] // a cleanup is a function literal in the test's
	}
	c.by = by
	return c
}

// verdict is what a charge says of a leak.
type verdict int

const (
	own     verdict = iota // the test opened it
	other                  // another test did
	unknown                // no test is in its stack
)

func (c *charge) of(s tracker.Stack) verdict {
	if c == nil {
		return own
	}
	in, _ := testIn(s)
	if in == "" {
		return unknown
	}
	top := topLevel(in)
	if top != c.test && top != topLevel(c.by) {
		return other
	}
	if !c.sub || topLevel(c.by) != top {
		return own
	}
	// Subtests are function literals of one function, and each is to blame for its own.
	if in == c.by || strings.HasPrefix(in, c.by+".") {
		return own
	}
	return other
}

// testIn returns the outermost function of a stack that is a test or a function literal
// in one, as path.Base of its name, and whether the testing package called it. It is ""
// if there is none: in a goroutine of the program's, or where the stack was cut off.
func testIn(s tracker.Stack) (function string, direct bool) {
	frames := s.Frames()
	for i, f := range frames {
		if !strings.HasSuffix(f.File, "_test.go") || !isTest(topLevel(f.Function)) {
			continue
		}
		function = path.Base(f.Function)
		direct = i+1 < len(frames) && frames[i+1].Function == "testing.tRunner"
	}
	return function, direct
}

// topLevel returns the function that a function literal is in, without its package; a
// method is none.
func topLevel(function string) string {
	_, name, _ := strings.Cut(path.Base(function), ".")
	name, _, _ = strings.Cut(name, ".")
	name, _, _ = strings.Cut(name, "-range") // the body of a loop over a function
	return name
}

// isTest reports whether the go command runs a function of this name.
func isTest(name string) bool {
	for _, prefix := range []string{"Test", "Benchmark", "Fuzz", "Example"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			first, _ := utf8.DecodeRuneInString(rest)
			return rest == "" || !unicode.IsLower(first)
		}
	}
	return false
}

// maxGoroutines is the size of the text in which other tests are looked for.
const maxGoroutines = 16 << 20

// othersRun reports whether a test other than the caller's is running.
func othersRun() bool {
	text := make([]byte, 64<<10)
	for {
		n := runtime.Stack(text, true)
		if n < len(text) || n >= maxGoroutines {
			text = text[:n]
			break
		}
		text = make([]byte, 4*len(text))
	}
	for goroutine := range bytes.SplitSeq(text, []byte("\n\n")) {
		if runsTest(goroutine) {
			return true
		}
	}
	return false
}

// here is the prefix of this package's functions.
var here = strings.TrimSuffix(callerName(), "callerName")

func callerName() string {
	pc, _, _, _ := runtime.Caller(0)
	return runtime.FuncForPC(pc).Name()
}

// runsTest reports whether a goroutine, as runtime.Stack writes it, runs a test that
// neither checks for leaks, nor waits for its subtests or for its turn, nor is over.
func runsTest(goroutine []byte) bool {
	above, _, ok := bytes.Cut(goroutine, []byte("\ntesting.tRunner("))
	if !ok {
		return false
	}
	// The last two lines above are the function that was called and where it is.
	lines := bytes.Split(above, []byte("\n"))
	called := lines[max(0, len(lines)-2)]
	if bytes.HasPrefix(called, []byte("testing.tRunner.func")) && !bytes.Contains(above, []byte("\ntesting.(*common).runCleanup(")) {
		return false // the test has returned, and its cleanups too
	}
	for _, waits := range []string{"\ntesting.(*T).Run(", "\ntesting.(*T).Parallel(", "\n" + here + "find("} {
		if bytes.Contains(goroutine, []byte(waits)) {
			return false
		}
	}
	return true
}
