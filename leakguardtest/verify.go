package leakguardtest

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// TestingT is what VerifyNone needs of a *testing.T, *testing.B or *testing.F.
type TestingT interface {
	Helper()
	Error(args ...any)
}

// TestingM is what VerifyTestMain needs of a *testing.M.
type TestingM interface {
	Run() int
}

// VerifyNone fails the test if it leaks: the same as Find, but for this test alone (see
// the package's "Tests in parallel"), with the error reported to t. Call it when
// everything should be closed: by a defer or, if the test closes things by t.Cleanup or
// has parallel subtests, by a t.Cleanup, in its first line. It panics if t is nil.
func VerifyNone(t TestingT, opts ...Option) {
	if t == nil {
		panic("leakguardtest: VerifyNone: t is nil")
	}
	t.Helper()
	if err := find(chargeOf(t), false, opts...); err != nil {
		t.Error(err)
	}
}

// VerifyTestMain runs the tests and ends the process. If they pass and leave a
// leak behind, that goes to the standard error and the exit code is 1. Tests
// that fail are not checked: they often leave things open. That no pool was seen is
// no failure where only some of the tests were asked for (-run, -skip, -short, -list).
// It panics if m is nil.
func VerifyTestMain(m TestingM, opts ...Option) {
	if m == nil {
		panic("leakguardtest: VerifyTestMain: m is nil")
	}
	exit(verifyMain(m, os.Stderr, opts...))
}

var exit = os.Exit // overridden in tests

func verifyMain(m TestingM, w io.Writer, opts ...Option) (code int) {
	if code = m.Run(); code != 0 {
		return code
	}
	if err := find(nil, partial(), opts...); err != nil {
		fmt.Fprintln(w, err)
		return 1
	}
	return 0
}

// partial reports whether only some of the tests were asked for.
func partial() bool {
	for _, name := range []string{"test.run", "test.skip", "test.short", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != f.DefValue {
			return true
		}
	}
	return false
}

// sees returns an error if nothing can be found, for the tracker has never seen a pool.
func (o *options) sees() error {
	guarded, off := o.tracker.Opened()
	switch {
	case guarded > 0:
		return nil
	case off > 0:
		return fmt.Errorf("leakguardtest: no guarded pool was seen: %s in mode off, which hides everything "+
			"(_leakguard=off in the DSN, Config.Mode, or off in the environment variable LEAKGUARD)", many(int(off), "pool"))
	}
	return errors.New("leakguardtest: no guarded pool was seen: the tests opened none with this tracker " +
		`(want sql.Open("sqlite-leakguard", …), and the option Tracker for a tracker of one's own)`)
}

// Pauses between two looks grow from the first to the longest.
const (
	firstPause   = time.Millisecond
	longestPause = 100 * time.Millisecond
)

// Find returns an error that describes all leaks, nil if there are none. An
// option that cannot be used, nil included, is an error too, and so is a tracker
// that has never seen a pool under the guard: then nothing can be found.
func Find(opts ...Option) error { return find(nil, false, opts...) }

// find is Find for those leaks that a test is charged with; blind says that having seen
// no pool is all right.
func find(test *charge, blind bool, opts ...Option) error {
	o, err := gather(opts)
	if err != nil {
		return err
	}
	o.test = test
	if err := o.sees(); err != nil {
		if blind {
			return nil
		}
		return err
	}
	deadline := time.Now().Add(o.wait)
	pause := firstPause
	for looks := 1; ; looks++ {
		found := o.look()
		left := time.Until(deadline)
		if !found.mayEnd() || left <= 0 {
			return o.tell(found.charged())
		}
		if looks&(looks-1) == 0 { // ever more rarely: a bubble's hour passes at once
			runtime.GC() // what nobody can reach is proven, and named as such
		}
		time.Sleep(min(pause, left))
		pause = min(2*pause, longestPause)
	}
}
