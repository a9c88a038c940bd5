package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bench runs the program and returns its exit code and what it printed.
func bench(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, log strings.Builder
	code = run(args, &out, &log)
	return code, out.String(), log.String()
}

func TestRun(t *testing.T) {
	out := t.TempDir()
	args := []string{"-quick", "-rounds", "2", "-workloads", "^(QueryRow|StmtExecTx)/bg$", "-candidates", "^(raw2|leakguard)$", "-out", out, "-dir", t.TempDir()}
	code, stdout, stderr := bench(t, args...)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for _, want := range []string{"QueryRow/bg", "StmtExecTx/bg", "geomean bg", "B/op and allocs/op", "leakguard"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	svg, err := os.ReadFile(filepath.Join(out, "overhead.svg"))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, string(svg))

	results := filepath.Join(out, "results.json")
	content, err := os.ReadFile(results)
	if err != nil || !json.Valid(content) {
		t.Fatalf("results.json: %v", err)
	}
	if strings.Contains(string(content), out) {
		t.Error("results.json names a folder of this machine")
	}

	// Judging it measures nothing: the same table, and no bound that a part of
	// the workloads cannot decide.
	code, again, stderr := bench(t, "-from", results, "-accept")
	if code == exitError || !strings.Contains(again, missing) || !strings.HasPrefix(again, stdout[:strings.Index(stdout, "### B/op")]) {
		t.Errorf("exit code %d: %s%s", code, again, stderr)
	}
}

func TestRunLeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	code, _, stderr := bench(t, "-quick", "-rounds", "1", "-workloads", "^BeginCommit/ctx$", "-candidates", "^leakguard$", "-out", t.TempDir(), "-dir", dir)
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestGateExitCodes(t *testing.T) {
	for _, c := range []struct {
		limit string
		code  int
		says  string
	}{{"1000", exitOK, "passed"}, {"0.001", exitBroken, "FAILED"}} {
		code, stdout, stderr := bench(t, "-gate", "-quick", "-rounds", "3", "-workloads", "^ExecTx/bg$", "-gate-bg", c.limit, "-dir", t.TempDir())
		if code != c.code || !strings.Contains(stdout, c.says) {
			t.Errorf("limit %s: exit code %d: %s%s", c.limit, code, stdout, stderr)
		}
	}
	if code, _, _ := bench(t, "-gate", "-gate-bg", "0", "-gate-ctx-exec", "0", "-dir", t.TempDir()); code != exitError {
		t.Errorf("a gate that checks nothing: exit code %d", code)
	}
}

func TestProfile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.prof")
	code, stdout, stderr := bench(t, "-quick", "-cpuprofile", file, "-workloads", "^QueryRow/bg$", "-candidates", "^leakguard$", "-dir", t.TempDir())
	if code != exitOK || !strings.Contains(stdout, "QueryRow/bg on leakguard") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	if info, err := os.Stat(file); err != nil || info.Size() == 0 {
		t.Errorf("profile: %v, %v", info, err)
	}
	if code, _, _ := bench(t, "-quick", "-cpuprofile", file, "-dir", t.TempDir()); code != exitError {
		t.Errorf("profile of everything: exit code %d", code)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"-help"}, exitOK},
		{[]string{"-nonsense"}, exitError},
		{[]string{"-from", "no such file"}, exitError},
		{[]string{"-workloads", "^no such workload$"}, exitError},
		{[]string{"-dir", filepath.Join("no", "such", "folder")}, exitError},
	} {
		if code, _, _ := bench(t, c.args...); code != c.code {
			t.Errorf("%v: exit code %d, want %d", c.args, code, c.code)
		}
	}
}
