package main

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/mattn/go-sqlite3"
)

// describe says what a reader needs to repeat the run or to doubt it.
func (h *harness) describe() Run {
	sqlite, _, _ := sqlite3.Version()
	r := Run{
		Date:     time.Now().UTC().Format(time.DateOnly),
		Command:  h.opts.command(),
		CPU:      cpuModel(),
		Procs:    runtime.GOMAXPROCS(0),
		Platform: runtime.GOOS + "/" + runtime.GOARCH,
		Go:       runtime.Version(),
		SQLite:   sqlite,
		Rounds:   h.opts.rounds,
		BatchMs:  float64(h.opts.batch().Microseconds()) / 1000,
		Seed:     h.opts.seed,
	}
	versions := moduleVersions()
	for _, e := range h.entries {
		r.Candidates = append(r.Candidates, CandidateResult{e.name, e.what, versions[e.module], e.wrapsAll})
	}
	if len(peers) == 0 {
		r.LeftOut = append(r.LeftOut, "all peers: built with the tag nopeers")
	}
	return r
}

// moduleVersions returns the versions this program was linked with. The guard
// has none: it is the working tree.
func moduleVersions() map[string]string {
	versions := map[string]string{}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return versions
	}
	for _, m := range info.Deps {
		if m.Replace == nil {
			versions[m.Path] = m.Version
		}
	}
	return versions
}

// cpuModel returns the processor's name where the system tells it simply.
func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}
