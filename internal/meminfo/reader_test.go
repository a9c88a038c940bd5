package meminfo

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/shirou/gopsutil/v3/mem"
)

var names = []string{"system", "process", "swap", "cgroup", "cgroup pressure", "system pressure", "GOMEMLIMIT"}

func check(t *testing.T, g Reading) {
	t.Helper()
	for i, s := range g.Sources {
		if i >= len(names) || s.Name != names[i] || s.State == "" {
			t.Errorf("source %d is %q", i, s)
		}
	}
	if len(g.Sources) != len(names) {
		t.Errorf("%d sources, want %d", len(g.Sources), len(names))
	}
	if g.Used > g.Total || !(g.UsedPercent >= 0 && g.UsedPercent <= 100) || !(g.Stall >= 0 && g.Stall <= 100) {
		t.Errorf("impossible: %+v", g)
	}
	if (g.LimitedBy == "") != (g.Total == 0) || g.LimitedBy != "" && g.LimitedBy != System && g.LimitedBy != Cgroup {
		t.Errorf("limited by %q with a total of %d", g.LimitedBy, g.Total)
	}
	if !g.HasStall && g.Stall != 0 {
		t.Errorf("a stall of %v that is not known", g.Stall)
	}
}

// What every machine that runs the tests has.
func TestThisMachine(t *testing.T) {
	g := New().Read()
	t.Logf("%+v", g)
	check(t, g)
	if g.Total == 0 || g.ProcessRSS == 0 || g.state(t, "system") != OK || g.state(t, "process") != OK {
		t.Errorf("gopsutil works on every platform that is tested: %+v", g)
	}
	if runtime.GOOS != "linux" && g.state(t, "cgroup") != errNotLinux.Error() {
		t.Errorf("cgroup: %s", g.state(t, "cgroup"))
	}
}

func TestOverMachine(t *testing.T) {
	g := stand(nil).Read()
	check(t, g)
	want := Reading{
		Total: 8 * gib, Used: 2 * gib, UsedPercent: 25, LimitedBy: System,
		ProcessRSS: 50 * mib, SwapTotal: 2 * gib, SwapUsed: gib,
		Sources: []Source{
			{"system", OK}, {"process", OK}, {"swap", OK},
			{"cgroup", "only Linux has it"}, {"cgroup pressure", "only Linux has it"}, {"system pressure", "only Linux has it"},
			{"GOMEMLIMIT", "not set"},
		},
	}
	if !reflect.DeepEqual(g, want) {
		t.Errorf("%+v, want %+v", g, want)
	}
}

// A container that watches its host has HOST_PROC set. There the number of this
// process is another's.
func TestHostProcIsNotOurs(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has it")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"meminfo":                            "MemTotal: 1 kB\nMemAvailable: 1 kB\n",
		strconv.Itoa(os.Getpid()) + "/statm": "1 1 1 1 1 1 1\n",
	} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOST_PROC", dir)
	g := New().Read()
	if g.Total < mib || g.ProcessRSS < mib {
		t.Errorf("read from HOST_PROC: %+v", g)
	}
}

// Nothing is there, or everything fails: the reading says so.
func TestEverySourceMissing(t *testing.T) {
	failed := errors.New("it failed")
	for name, r := range map[string]*Reader{
		"errors": {
			host: host{
				memory: func(context.Context) (memory, error) { return memory{}, failed },
				rss:    func(context.Context) (uint64, error) { return 0, failed },
				swap:   func(context.Context) (swap, error) { return swap{}, failed },
			},
			goLimit: func() int64 { return math.MaxInt64 },
		},
		"panics": {
			host: host{
				memory: func(context.Context) (memory, error) { panic(failed) },
				rss:    func(context.Context) (uint64, error) { var none []string; return uint64(len(none[1])), nil },
				swap:   func(context.Context) (swap, error) { panic(failed) },
			},
			goLimit: func() int64 { return math.MaxInt64 },
		},
		"zeros": {
			host: host{
				memory: func(context.Context) (memory, error) { return memory{}, nil },
				rss:    func(context.Context) (uint64, error) { return 0, nil },
				swap:   func(context.Context) (swap, error) { return swap{}, failed },
			},
			goLimit: func() int64 { return math.MaxInt64 },
		},
	} {
		for _, files := range []system{nil, {}} {
			if files != nil {
				r.mount(files.files())
			}
			g := r.Read()
			check(t, g)
			for _, s := range g.Sources {
				if s.State == OK {
					t.Errorf("%s: %s is ok", name, s.Name)
				}
			}
			g.Sources = nil
			if !reflect.DeepEqual(g, Reading{}) {
				t.Errorf("%s: %+v", name, g)
			}
		}
	}
}

func TestGoLimit(t *testing.T) {
	for _, c := range []struct {
		n     int64
		want  uint64
		state string
	}{
		{math.MaxInt64, 0, "not set"},
		{gib, gib, OK},
		{0, 0, OK},
		{-1, 0, OK},
	} {
		r := stand(nil)
		r.goLimit = func() int64 { return c.n }
		g := r.Read()
		if g.GoLimit != c.want || g.state(t, "GOMEMLIMIT") != c.state {
			t.Errorf("%d: %d, %s", c.n, g.GoLimit, g.state(t, "GOMEMLIMIT"))
		}
	}
	// The limit itself is not touched.
	before := debug.SetMemoryLimit(64 * gib)
	defer debug.SetMemoryLimit(before)
	if g := New().Read(); g.GoLimit != 64*gib || debug.SetMemoryLimit(-1) != 64*gib {
		t.Errorf("the limit is %d, read as %d", debug.SetMemoryLimit(-1), g.GoLimit)
	}
}

func TestDivide(t *testing.T) {
	machine := share{8 * gib, 6 * gib, System}
	for _, c := range []struct {
		name    string
		shares  []share
		total   uint64
		used    uint64
		by      string
		percent float64
	}{
		{"nothing is known", nil, 0, 0, "", 0},
		{"a share of nothing", []share{{0, 0, System}}, 0, 0, "", 0},
		{"the machine", []share{machine}, 8 * gib, 2 * gib, System, 25},
		{"more available than there is", []share{{gib, 2 * gib, System}}, gib, 0, System, 0},
		{"a container", []share{machine, {gib, gib / 4, Cgroup}}, gib, 3 * gib / 4, Cgroup, 75},
		{"a container without the machine", []share{{gib, gib / 4, Cgroup}}, gib, 3 * gib / 4, Cgroup, 75},
		{"a full container", []share{machine, {gib, 0, Cgroup}}, gib, gib, Cgroup, 100},
		{"both full", []share{{8 * gib, 0, System}, {gib, 0, Cgroup}}, gib, gib, System, 100},
		{"the pod is fuller", []share{machine, {2 * gib, gib, Cgroup}, {3 * gib, gib / 2, Cgroup}}, 2 * gib, 3 * gib / 2, Cgroup, 75},
		{"the container is fuller", []share{machine, {2 * gib, gib, Cgroup}, {4 * gib, 2 * gib, Cgroup}}, 2 * gib, gib, Cgroup, 50},
		{"a full machine", []share{{8 * gib, gib / 4, System}, {gib, gib, Cgroup}}, gib, 3 * gib / 4, System, 75},
	} {
		var g Reading
		g.divide(c.shares)
		if g.Total != c.total || g.Used != c.used || g.LimitedBy != c.by || g.UsedPercent != c.percent {
			t.Errorf("%s: %+v", c.name, g)
		}
	}
}

func TestReadAtOnce(t *testing.T) {
	r := New()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { check(t, r.Read()) })
	}
	wg.Wait()
}

// The paths are under a directory as they are under the real root.
func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	for name, text := range unified.with(group(service, "1073741824", "900000000", "100000000")) {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := stand(os.DirFS(dir))
	g := r.Read()
	check(t, g)
	if g.Total != gib || g.Used != 800000000 || g.LimitedBy != Cgroup || !g.HasStall || g.Stall != 1.5 {
		t.Errorf("%+v", g)
	}
	if s := g.state(t, "cgroup pressure"); !strings.HasPrefix(s, "/sys/fs/cgroup/system.slice/app.service/memory.pressure: ") {
		t.Errorf("cgroup pressure: %s", s)
	}
}

func BenchmarkRead(b *testing.B) {
	r := New()
	b.ReportAllocs()
	for b.Loop() {
		r.Read()
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		New()
	}
}

func TestPagingFiles(t *testing.T) {
	got := pagingFiles([]*mem.SwapDevice{{UsedBytes: mib, FreeBytes: 3 * mib}, {UsedBytes: 2 * mib}})
	if got != (swap{total: 6 * mib, used: 3 * mib}) || pagingFiles(nil) != (swap{}) {
		t.Errorf("%+v", got)
	}
}
