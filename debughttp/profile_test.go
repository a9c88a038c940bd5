package debughttp_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

//go:noinline
func leakingFunction(c *tracker.Conn) { forget(c) }

//go:noinline
func forget(c *tracker.Conn) { c.BeginTx("BEGIN", "") }

//go:noinline
func busyFunction(c *tracker.Conn) { c.OpenStatement(new(tracker.Resource), "SELECT 1", "") }

// profiled serves the profile of one old transaction and some younger
// statements.
func profiled(t *testing.T) (text []byte) {
	inBubble(t, func(s *scene) {
		p := s.pool("shop.db")
		c := s.open(p, false, "")
		leakingFunction(c)
		pass(6 * time.Minute)
		other := s.open(p, false, "")
		for range 3 {
			busyFunction(other)
		}
		pass(1500 * time.Millisecond)
		text = []byte(body(t, debughttp.Handler(s.Tracker), "/pprof"))
	})
	return text
}

func TestProfile(t *testing.T) {
	p, err := profile.ParseData(profiled(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	var types []string
	for _, s := range p.SampleType {
		types = append(types, s.Type+" in "+s.Unit)
	}
	if got := strings.Join(types, ", "); got != "connections in count, transactions in count, rows in count, statements in count, age in nanoseconds, memory in bytes" || p.DefaultSampleType != "age" {
		t.Errorf("sample types %s, by default %s", got, p.DefaultSampleType)
	}
	if len(p.Mapping) != 1 || !p.HasFunctions() || !p.HasFileLines() {
		t.Errorf("mappings %v", p.Mapping)
	}
	if len(p.Sample) != 2 {
		t.Fatalf("%d samples:\n%v", len(p.Sample), p)
	}
	for i, want := range []struct {
		function, kind, suspect string
		values                  []int64
	}{
		{"debughttp_test.forget", "transaction", "in_pool", []int64{0, 1, 0, 0, int64(361500 * time.Millisecond), 0}},
		{"debughttp_test.busyFunction", "statement", "", []int64{0, 0, 0, 3, 0, 0}},
	} {
		s := p.Sample[i]
		at := s.Location[0].Line[0]
		if !strings.HasSuffix(at.Function.Name, want.function) || at.Line == 0 || filepath.Base(at.Function.Filename) != "profile_test.go" {
			t.Errorf("sample %d is of %v", i, at)
		}
		if !slices.Equal(s.Value, want.values) {
			t.Errorf("sample %d: %v, want %v", i, s.Value, want.values)
		}
		if l := s.Label; l["kind"][0] != want.kind || l["pool"][0] != "shop.db" || strings.Join(l["suspect"], "") != want.suspect {
			t.Errorf("sample %d: labels %v", i, l)
		}
	}
}

// A connection with a transaction, and rows within it, is one connection: in each sample
// type a thing counts once, and the ages add up to how long it is held.
func TestProfileCountsOnce(t *testing.T) {
	inBubble(t, func(s *scene) {
		c := s.open(s.pool("shop.db"), true, "")
		c.Executing("SELECT 1") // the lease has its time
		c.StampLease()
		pass(time.Minute)
		leakingFunction(c) // a transaction
		pass(time.Hour)
		left := forgetRows(c, "SELECT 2", "")
		pass(10 * time.Minute)
		forgetRows(c, "SELECT 3", "")
		busyFunction(c)
		pass(time.Second)
		p, err := profile.ParseData([]byte(body(t, debughttp.Handler(s.Tracker), "/pprof")))
		if err != nil {
			t.Fatal(err)
		}
		sums := make([]int64, len(p.SampleType))
		ages := make(map[string]time.Duration)
		for _, sample := range p.Sample {
			for i, v := range sample.Value {
				sums[i] += v
			}
			ages[sample.Label["kind"][0]] += time.Duration(sample.Value[4])
		}
		held := time.Hour + 11*time.Minute + time.Second
		if want := []int64{1, 1, 2, 1, int64(held), 0}; !slices.Equal(sums, want) {
			t.Errorf("in all %v, want %v", sums, want)
		}
		// The rows count from the first on: who wants the lock back has to close them.
		for kind, want := range map[string]time.Duration{"connection": time.Minute, "transaction": time.Hour, "rows": 10*time.Minute + time.Second, "statement": 0} {
			if ages[kind] != want {
				t.Errorf("%s for %v, want %v", kind, ages[kind], want)
			}
		}
		closeRows(c, left)
	})
}

// go tool pprof lists the function that leaks first.
func TestProfileTop(t *testing.T) {
	file := filepath.Join(t.TempDir(), "leakguard.pb.gz")
	if err := os.WriteFile(file, profiled(t), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  []string
		first string
	}{
		{[]string{"-unit=seconds"}, `^361.50s .*debughttp_test\.forget$`},
		{[]string{"-sample_index=statements"}, `^3 .*debughttp_test\.busyFunction$`},
		{[]string{"-sample_index=transactions"}, `^1 .*debughttp_test\.forget$`},
	} {
		if first := pprofTop(t, append(c.args, file)...); !regexp.MustCompile(c.first).MatchString(first) {
			t.Errorf("%q: the first line is %q, want %s", c.args, first, c.first)
		}
	}
}

// pprofTop returns the first line of the table that go tool pprof -top prints.
func pprofTop(t *testing.T, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command in PATH")
	}
	cmd := exec.Command(tool, append([]string{"tool", "pprof", "-top"}, args...)...)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &errs)
	}
	_, table, _ := strings.Cut(string(out), "cum%\n")
	first, _, _ := strings.Cut(table, "\n")
	return strings.TrimSpace(first)
}

// Without call sites there is still something to count.
func TestProfileWithoutCallSites(t *testing.T) {
	tr := tracker.New(tracker.Options{})
	p, err := tr.NewPool(tracker.PoolConfig{Name: "db", Mode: tracker.Basic, NoStacks: true, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer p.Open(nil, true, "").Close()
	got, err := profile.ParseData([]byte(body(t, debughttp.Handler(tr), "/pprof")))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Sample) != 1 || got.Sample[0].Location[0].Line[0].Function.Name != "unknown (call sites are off)" {
		t.Error(got)
	}
}

func TestProfileOfNothing(t *testing.T) {
	got, err := profile.ParseData([]byte(body(t, debughttp.Handler(tracker.New(tracker.Options{})), "/pprof")))
	if err != nil || len(got.Sample) != 0 {
		t.Errorf("%v, %v", got, err)
	}
}
