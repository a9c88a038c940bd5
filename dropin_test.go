//go:build cgo

package leakguard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	dropinTheirName = "github.com/mattn/go-sqlite3.driverName"
	dropinOurName   = "github.com/sqlite-leakguard/sqlite-leakguard.driverName"
)

// dropinReport is what testdata/dropin prints.
type dropinReport struct {
	Drivers              []string
	Driver               string
	Insert, Commit, Rows string
}

// TestDropIn builds a program that opens "sqlite3" as it is, plus one file with
// the blank import. Names given to the linker make it run guarded.
func TestDropIn(t *testing.T) {
	if testing.Short() {
		t.Skip("builds programs")
	}
	dsn := func(busyTimeout string) string {
		return "file:" + filepath.ToSlash(filepath.Join(t.TempDir(), "dropin.db")) + "?_journal_mode=WAL&_busy_timeout=" + busyTimeout +
			"&_leakguard_tx_timeout=50ms&_leakguard_check_interval=10ms"
	}

	t.Run("guarded", func(t *testing.T) {
		program := dropinBuild(t, dropinTheirName+"=sqlite3-raw", dropinOurName+"=sqlite3")
		got, stderr := dropinRun(t, program, dsn("60000"))
		if want := []string{"sqlite3", "sqlite3-raw"}; !slices.Equal(got.Drivers, want) {
			t.Errorf("drivers %q, want %q", got.Drivers, want)
		}
		if want := "*leakguard.Driver"; got.Driver != want {
			t.Errorf("sqlite3 is a %s, want %s", got.Driver, want)
		}
		if got.Insert != "<nil>" || got.Rows != "in time" {
			t.Errorf("the forgotten transaction was in the way: %s, rows: %s", got.Insert, got.Rows)
		}
		if want := "leakguard: transaction rolled back after "; !strings.HasPrefix(got.Commit, want) {
			t.Errorf("Commit: %q, want %q…", got.Commit, want)
		}
		site := "dropin/main.go:" + dropinLine(t, "db.Begin()")
		for _, s := range []string{got.Commit, stderr} {
			if !strings.Contains(s, site) {
				t.Errorf("does not say %s: %s", site, s)
			}
		}
	})

	t.Run("not registered", func(t *testing.T) {
		program := dropinBuild(t, dropinOurName+"=")
		got, stderr := dropinRun(t, program, dsn("100"))
		if want := []string{"sqlite3"}; !slices.Equal(got.Drivers, want) {
			t.Errorf("drivers %q, want %q", got.Drivers, want)
		}
		if want := "*sqlite3.SQLiteDriver"; got.Driver != want {
			t.Errorf("sqlite3 is a %s, want %s", got.Driver, want)
		}
		if got.Insert != "database is locked" || got.Commit != "<nil>" || got.Rows != "forgotten" {
			t.Errorf("go-sqlite3 is guarded: %+v", got)
		}
		if stderr != "" {
			t.Errorf("stderr: %s", stderr)
		}
	})

	// go-sqlite3 has another name for itself there than the linker was given.
	t.Run("without cgo", func(t *testing.T) {
		t.Setenv("CGO_ENABLED", "0")
		program := dropinBuild(t, dropinTheirName+"=sqlite3-raw", dropinOurName+"=sqlite3")
		out, err := exec.CommandContext(t.Context(), program, dsn("100")).CombinedOutput()
		if text := string(out); err == nil || !strings.Contains(text, "go-sqlite3 requires cgo to work") || strings.Contains(text, "panic") {
			t.Errorf("%v, want go-sqlite3's own error:\n%s", err, out)
		}
	})
}

// dropinLine returns the line of the program that has the text.
func dropinLine(t *testing.T, text string) string {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("testdata", "dropin", "main.go"))
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(src), text)
	if !ok {
		t.Fatalf("no %s in the program", text)
	}
	return strconv.Itoa(1 + strings.Count(before, "\n"))
}

// dropinBuild builds testdata/dropin with names for the linker to set. Only
// linking differs: the packages are the ones that this test was built with.
func dropinBuild(t *testing.T, names ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "dropin")
	if runtime.GOOS == "windows" {
		program += ".exe"
	}
	args := []string{"build", "-buildvcs=false", "-o", program, "-ldflags", "-X " + strings.Join(names, " -X ")}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			race := s.Key == "-race" && s.Value == "true" && os.Getenv("CGO_ENABLED") != "0" // it needs cgo
			if race || s.Key == "-tags" && s.Value != "" {
				args = append(args, s.Key+"="+s.Value)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", append(args, "./testdata/dropin")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, out)
	}
	return program
}

func dropinRun(t *testing.T, program, dsn string) (r dropinReport, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, dsn)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", dsn, err, errs.String())
	}
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r, errs.String()
}
