package leakguardtest_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/sqlite-leakguard/sqlite-leakguard/leakguardtest"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

type fakeT struct {
	helper bool
	errors []string
}

func (t *fakeT) Helper()           { t.helper = true }
func (t *fakeT) Error(args ...any) { t.errors = append(t.errors, fmt.Sprint(args...)) }

type fakeM int

func (m fakeM) Run() int { return int(m) }

func TestVerifyNone(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	opts := []leakguardtest.Option{leakguardtest.Tracker(tr), leakguardtest.Wait(0)}
	p := pool(t, tr, "db")
	var fine fakeT
	leakguardtest.VerifyNone(&fine, opts...)
	if len(fine.errors) != 0 || !fine.helper {
		t.Errorf("without a leak: %+v", fine)
	}
	lease(t, p, "")
	var bad fakeT
	leakguardtest.VerifyNone(&bad, opts...)
	if len(bad.errors) != 1 {
		t.Fatalf("with a leak: %+v", bad)
	}
	wants(t, bad.errors[0], "leakguardtest: found 1 leak")
}

func TestVerifyTestMain(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p := pool(t, tr, "db")
	opts := []leakguardtest.Option{leakguardtest.Tracker(tr), leakguardtest.Wait(0)}
	main := func(m fakeM, opts ...leakguardtest.Option) (int, string) {
		var out bytes.Buffer
		code := leakguardtest.VerifyMain(m, &out, opts...)
		return code, out.String()
	}
	if code, out := main(0, opts...); code != 0 || out != "" {
		t.Errorf("without a leak: %d, %q", code, out)
	}
	lease(t, p, "")
	if code, out := main(0, opts...); code != 1 {
		t.Errorf("with a leak: %d, %q", code, out)
	} else {
		wants(t, out, "found 1 leak")
	}
	if code, out := main(3, opts...); code != 3 || out != "" {
		t.Errorf("after tests that failed: %d, %q", code, out)
	}
	if code, out := main(0, leakguardtest.Wait(-1)); code != 1 {
		t.Errorf("with a bad option: %d, %q", code, out)
	}

	codes := leakguardtest.StubExit(t)
	leakguardtest.VerifyTestMain(fakeM(2))
	if fmt.Sprint(*codes) != "[2]" {
		t.Errorf("exit codes %v", *codes)
	}
}

func TestVerifyNothing(t *testing.T) {
	for want, f := range map[string]func(){
		"leakguardtest: VerifyNone: t is nil":     func() { leakguardtest.VerifyNone(nil) },
		"leakguardtest: VerifyTestMain: m is nil": func() { leakguardtest.VerifyTestMain(nil) },
	} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("panic %v, want %s", got, want)
				}
			}()
			f()
		}()
	}
}
