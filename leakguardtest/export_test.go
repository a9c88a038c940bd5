package leakguardtest

import "testing"

var VerifyMain = verifyMain

// StubExit collects exit codes instead of ending the process.
func StubExit(t testing.TB) *[]int {
	codes := new([]int)
	real := exit
	exit = func(code int) { *codes = append(*codes, code) }
	t.Cleanup(func() { exit = real })
	return codes
}

// Remembered returns for how many trackers it is noted what was told.
func Remembered() int {
	toldBy.Lock()
	defer toldBy.Unlock()
	return len(toldBy.of)
}
