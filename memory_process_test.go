package leakguard

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// A process of its own under a limit of memory, in a cgroup where the test may
// make one, else with a limit that only its guard is told of.

const (
	hungryLimit = 256 << 20
	hungryConns = 50
	hungryTable = 12 // MiB: together they would hold 600
	hungryKey   = "LEAKGUARD_TEST_HUNGRY"
)

// cgroup makes a cgroup with the limit below the test's own, and returns the
// file that takes its processes.
func cgroup(t *testing.T) (procs string, err error) {
	if runtime.GOOS != "linux" {
		return "", errors.New("only Linux has cgroups")
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		var dir, limit string
		switch {
		case f[1] == "memory":
			dir, limit = filepath.Join("/sys/fs/cgroup/memory", f[2]), "memory.limit_in_bytes"
		case f[0] == "0" && f[1] == "":
			dir, limit = filepath.Join("/sys/fs/cgroup", f[2]), "memory.max"
		default:
			continue
		}
		dir = filepath.Join(dir, fmt.Sprintf("leakguard-test-%d", os.Getpid()))
		if err = os.Mkdir(dir, 0o755); err != nil {
			continue
		}
		t.Cleanup(func() {
			for range 100 { // its processes have just ended
				if os.Remove(dir) == nil {
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Errorf("%s is left", dir)
		})
		if err = os.WriteFile(filepath.Join(dir, limit), []byte(strconv.Itoa(hungryLimit)), 0o644); err != nil {
			continue
		}
		// Where there is swap, the limit is none without this.
		for name, value := range map[string]int{"memory.swap.max": 0, "memory.memsw.limit_in_bytes": hungryLimit} {
			_ = os.WriteFile(filepath.Join(dir, name), []byte(strconv.Itoa(value)), 0o644)
		}
		return filepath.Join(dir, "cgroup.procs"), nil
	}
	if err == nil {
		err = errors.New("the process is in no cgroup that limits memory")
	}
	return "", err
}

// With the guard a program with 50 connections and big caches lives below the
// limit; without, it is killed or goes beyond it.
func TestProcessUnderPressure(t *testing.T) {
	if os.Getenv(hungryKey) != "" {
		hungry(t)
		return
	}
	if testing.Short() {
		t.Skip("two processes that fill 256 MiB")
	}
	if runtime.GOOS == "windows" {
		t.Skip("the resident memory is read from /proc")
	}
	db := fileDSN(t, "_synchronous=OFF", "_cache_size=-65536")
	g := open(t, Config{DSN: db, Policy: limits(nil)})
	fill(t, g, hungryTable)
	run(t, g, "PRAGMA wal_checkpoint(TRUNCATE)")
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("the resident memory is read from /proc")
	}
	procs, err := cgroup(t)
	if err != nil {
		t.Logf("no cgroup can be made (%v): the limit is injected", err)
	} else {
		t.Logf("in %s, limited to %d MiB", filepath.Dir(procs), hungryLimit>>20)
	}
	child := func(mode string) (string, error) {
		ctx, cancel := context.WithTimeout(background, time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestProcessUnderPressure$", "-test.count=1", "-test.v")
		cmd.Env = append(os.Environ(), hungryKey+"="+mode, hungryKey+"_DSN="+db, hungryKey+"_PROCS="+procs)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := child("enforce")
	t.Logf("with the guard: %v\n%s", err, report(out))
	if err != nil || !strings.Contains(out, "done, at most") {
		t.Errorf("with the guard: %v\n%s", err, out)
	}
	out, err = child("off")
	t.Logf("without: %v\n%s", err, report(out))
	if err == nil {
		t.Errorf("without the guard it lives: the test shows nothing\n%s", out)
	}
}

// report returns the lines of a child that tell something.
func report(out string) string {
	var lines []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, "hungry: ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, "\n")
}

func resident() int64 {
	text, _ := os.ReadFile("/proc/self/statm")
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.ParseInt(f[1], 10, 64)
	return n * int64(os.Getpagesize())
}

// hungry is the child.
func hungry(t *testing.T) {
	procs := os.Getenv(hungryKey + "_PROCS")
	if procs != "" {
		if err := os.WriteFile(procs, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cfg := Config{DSN: os.Getenv(hungryKey + "_DSN"), Logger: slog.New(slog.DiscardHandler), Tracker: tracker.New(tracker.Options{})}
	if err := cfg.Mode.UnmarshalText([]byte(os.Getenv(hungryKey))); err != nil {
		t.Fatal(err)
	}
	cfg.Policy = limits(func(p *tracker.Policy) { p.Pressure, p.MemoryInterval = 0.5, 2*time.Millisecond })
	var passes atomic.Int64 // that have begun
	cfg.Tracker.SetMemorySource(func() tracker.Memory {
		passes.Add(1)
		if procs != "" {
			return readMemory()
		}
		n := resident()
		return tracker.Memory{Total: hungryLimit, Used: uint64(n), UsedPercent: 100 * float64(n) / hungryLimit, LimitedBy: "cgroup"}
	})
	connector, err := NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	var most int64
	conns := make([]*sql.Conn, hungryConns)
	for i := range conns {
		if conns[i], err = db.Conn(background); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	for round := range 3 {
		for i, c := range conns {
			var n int64
			if err := c.QueryRowContext(background, scan).Scan(&n); err != nil || n != hungryTable*mib*3000 {
				t.Fatalf("round %d, connection %d: %d, %v", round, i, n, err)
			}
			most = max(most, resident())
			// The default is a pass every 30 s: let there be a whole one.
			for from := passes.Load(); cfg.Mode != tracker.Off && passes.Load() < from+2; {
				time.Sleep(time.Millisecond)
			}
		}
	}
	s := connector.Stats()
	m := s.MemoryMonitoring
	fmt.Printf("hungry: done, at most %d MiB; %d times under pressure, %d clean-ups, limited by %q, %d passes\n",
		most>>20, m.PressureEventsCount, s.AggressiveCleanups, m.LimitedBy, len(cfg.Tracker.MemoryHistory()))
	if most > hungryLimit {
		t.Errorf("beyond the limit: %d MiB", most>>20)
	}
}

// What SQLite frees goes back to the machine: glibc alone would keep nearly all
// of it in the process.
func TestReleasedMemoryGoesBack(t *testing.T) {
	if resident() == 0 {
		t.Skip("the resident memory is read from /proc")
	}
	if !alone(t) {
		return
	}
	tr := tracker.New(tracker.Options{})
	machineAt(tr, percent(99))
	g := open(t, Config{DSN: fileDSN(t, "_synchronous=OFF", "_cache_size=-65536"), Tracker: tr, Policy: limits(nil)})
	fill(t, g, 24)
	for range 4 {
		number(t, g.conn(t), scan)
	}
	full := resident()
	policy := limits(func(p *tracker.Policy) { p.Pressure, p.MemoryInterval = 0.5, 10*time.Millisecond })
	if err := g.connector.SetPolicy(policy); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); resident() > full-48<<20 && time.Since(begin) < 20*time.Second; {
		time.Sleep(20 * time.Millisecond)
	}
	if n := resident(); n > full-48<<20 {
		t.Errorf("%d MiB resident, %d after the release of 96", full>>20, n>>20)
	}
}
