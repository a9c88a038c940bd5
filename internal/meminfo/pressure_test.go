package meminfo

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func gopsutilGone(context.Context) (memory, error) { return memory{}, errors.New("gone") }

func TestPressure(t *testing.T) {
	const (
		own    = service + "/memory.pressure"
		system = "proc/pressure/memory" // 1.50
	)
	ofCgroup := map[string]string{own: "some avg10=12.34 avg60=5.00 avg300=1.00 total=99\nfull avg10=7.00 avg60=0.00 avg300=0.00 total=9\n"}
	for _, c := range []struct {
		name           string
		files          map[string]string
		broken         broken
		stall          float64
		has            bool
		cgroup, system string // states
	}{
		{name: "both", files: ofCgroup, stall: 12.34, has: true, cgroup: OK, system: OK},
		{name: "no file in the cgroup", stall: 1.5, has: true,
			cgroup: "/" + own + ": file does not exist", system: OK},
		{name: "psi=0, opening fails", files: ofCgroup,
			broken: broken{open: map[string]error{own: errNotSupported, system: errNotSupported}},
			cgroup: "/" + own + ": operation not supported", system: "/" + system + ": operation not supported"},
		{name: "psi=0, reading fails", files: ofCgroup,
			broken: broken{read: map[string]error{own: errNotSupported, system: errNotSupported}},
			cgroup: "/" + own + ": operation not supported", system: "/" + system + ": operation not supported"},
		{name: "only the cgroup's", files: ofCgroup, broken: broken{read: map[string]error{system: errNotSupported}},
			stall: 12.34, has: true, cgroup: OK, system: "/" + system + ": operation not supported"},
		{name: "a quiet cgroup on a busy machine", files: map[string]string{own: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"},
			stall: 0, has: true, cgroup: OK, system: OK},
		{name: "garbage in the cgroup", files: map[string]string{own: "none at all\n"}, stall: 1.5, has: true,
			cgroup: "/" + own + ": no avg10", system: OK},
		{name: "outside", files: map[string]string{"proc/self/cgroup": "0::/../..\n"}, stall: 1.5, has: true,
			cgroup: errOutside.Error(), system: OK},
		{name: "a parent of the cgroup is mounted", files: map[string]string{
			"proc/self/mountinfo":           "655 654 0:30 /.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
			"sys/fs/cgroup/memory.pressure": "some avg10=50.00\n",
		}, stall: 1.5, has: true, cgroup: errOutside.Error(), system: OK},
		{name: "no cgroup", files: map[string]string{"proc/self/cgroup": ""}, stall: 1.5, has: true,
			cgroup: "the process is in no cgroup", system: OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.broken.FS = unified.with(c.files).files()
			g := stand(c.broken).Read()
			check(t, g)
			if g.Stall != c.stall || g.HasStall != c.has {
				t.Errorf("%v, %v", g.Stall, g.HasStall)
			}
			if s := g.state(t, "cgroup pressure"); s != c.cgroup {
				t.Errorf("cgroup pressure: %s", s)
			}
			if s := g.state(t, "system pressure"); s != c.system {
				t.Errorf("system pressure: %s", s)
			}
			if g.Total != 8*gib {
				t.Errorf("the rest suffers: %+v", g)
			}
		})
	}
}

// In a hybrid system version 2 has no limits, and the pressure all the same.
func TestHybridPressure(t *testing.T) {
	g := stand(hybrid.with(system{"sys/fs/cgroup/unified/jobs/memory.pressure": "some avg10=3.00 avg60=0.00\n"}).files()).Read()
	check(t, g)
	if g.Stall != 3 || g.state(t, "cgroup pressure") != OK {
		t.Errorf("%v, %s", g.Stall, g.state(t, "cgroup pressure"))
	}
	// Version 1 alone: the machine's.
	g = stand(version1Host.with(system{"proc/pressure/memory": "some avg10=4.00 avg60=0.00\n"}).files()).Read()
	check(t, g)
	if g.Stall != 4 || g.state(t, "cgroup pressure") != "not mounted" {
		t.Errorf("%v, %s", g.Stall, g.state(t, "cgroup pressure"))
	}
}

func TestParsePressure(t *testing.T) {
	for _, c := range []struct {
		text string
		want float64
		err  string
	}{
		{"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", 0, ""},
		{"full avg10=9.00\nsome avg10=100.00 avg60=1\n", 100, ""},
		{"some avg10=100.07\n", 100, ""},
		{"some avg60=1 avg10=2.5", 2.5, ""},
		{"some avg10=NaN\n", 0, "no percentage"},
		{"some avg10=+Inf\n", 0, "no percentage"},
		{"some avg10=-1\n", 0, "no percentage"},
		{"some avg10=\n", 0, "no percentage"},
		{"some avg100=1\n", 0, "no avg10"},
		{"awesome avg10=1\n", 0, "no avg10"},
		{"full avg10=1\n", 0, "no avg10"},
		{"some\n", 0, "no avg10"},
		{"", 0, "no avg10"},
	} {
		got, err := parsePressure(c.text)
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
}
