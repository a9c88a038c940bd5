package leakguardtest_test

import (
	"bytes"
	"flag"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A check that cannot find anything says so.
func TestNoPoolWasSeen(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	wants(t, text(now(tr)), "leakguardtest: no guarded pool was seen: the tests opened none with this tracker")
	tr.PassedThrough()
	wants(t, text(now(tr)), "leakguardtest: no guarded pool was seen: 1 pool in mode off", "LEAKGUARD")
	p := pool(t, tr, "db")
	if err := now(tr); err != nil {
		t.Error(err)
	}
	p.Close() // it was seen
	if err := now(tr); err != nil {
		t.Error(err)
	}
}

// Who asks for one test may ask for one without a database.
func TestNoPoolWasSeenBySomeTests(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	main := func() (int, string) {
		var out bytes.Buffer
		code := leakguardtest.VerifyMain(fakeM(0), &out, leakguardtest.Tracker(tr), leakguardtest.Wait(0))
		return code, out.String()
	}
	for _, name := range []string{"test.run", "test.skip", "test.short", "test.list"} {
		f := flag.Lookup(name)
		was := f.Value.String()
		defer f.Value.Set(was)
		f.Value.Set(f.DefValue)
	}
	if code, out := main(); code != 1 {
		t.Errorf("all tests: %d, %q", code, out)
	} else {
		wants(t, out, "no guarded pool was seen")
	}
	flag.Lookup("test.run").Value.Set("TestX")
	if code, out := main(); code != 0 || out != "" {
		t.Errorf("some tests: %d, %q", code, out)
	}
}
