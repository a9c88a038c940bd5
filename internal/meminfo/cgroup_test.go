package meminfo

import (
	"io/fs"
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	const host = 8 * gib
	dockerV1 := system{
		"proc/self/mountinfo": "655 654 0:34 /docker/0f3c /sys/fs/cgroup/memory ro,relatime master:17 - cgroup cgroup rw,memory\n",
		"proc/self/cgroup":    "4:memory:/docker/0f3c\n1:name=systemd:/docker/0f3c\n",
	}
	for _, c := range []struct {
		name  string
		files system
		total uint64
		used  uint64 // of a machine of 8 GiB with 2 GiB used
		by    string
		state string // begins with
	}{
		{"v2, no memory controller",
			unified, host, 2 * gib, System, "no memory.max in the process's cgroups"},
		{"v2, the process in the root",
			unified.with(system{"proc/self/cgroup": "0::/\n"}), host, 2 * gib, System, "no memory.max"},
		{"v2, max",
			unified.with(group(service, "max", "700000000", "0"), group(slice, "max", "900000000", "0")),
			host, 2 * gib, System, "no limit below the machine's memory"},
		{"v2, a limit and max above",
			unified.with(group(service, "1073741824", "700000000", "100000000"), group(slice, "max", "900000000", "0")),
			gib, 600000000, Cgroup, OK},
		{"v2, max and a limit above",
			unified.with(group(service, "max", "700000000", "0"), group(slice, "1073741824", "900000000", "100000000")),
			gib, 800000000, Cgroup, OK},
		{"v2, the controller only above",
			unified.with(group(slice, "1073741824", "900000000", "100000000")),
			gib, 800000000, Cgroup, OK},
		{"v2, two limits, the lower one full",
			unified.with(group(service, "1073741824", "1073741824", "0"), group(slice, "2147483648", "1073741824", "0")),
			gib, gib, Cgroup, OK},
		{"v2, two limits, the higher one full",
			unified.with(group(service, "1073741824", "0", "0"), group(slice, "2147483648", "2147483648", "0")),
			gib, gib, Cgroup, OK},
		{"v2, a limit larger than the machine",
			unified.with(group(service, "17179869184", "700000000", "0")), host, 2 * gib, System, "no limit below"},
		{"v2, a limit as large as the machine",
			unified.with(group(service, "8589934592", "700000000", "0")), host, 2 * gib, System, "no limit below"},
		{"v2, current below inactive_file",
			unified.with(group(service, "1073741824", "100000000", "200000000")), gib, 0, Cgroup, OK},
		{"v2, current above the limit",
			unified.with(group(service, "1073741824", "1073745920", "0")), gib, gib, Cgroup, OK},
		{"v2, huge values",
			unified.with(group(service, "9223372036854771712", "9223372036854771712", "18446744073709551615")), host, 2 * gib, System, "no limit below"},
		{"v2, huge usage",
			unified.with(group(service, "1073741824", "18446744073709551615", "0")), gib, gib, Cgroup, OK},
		{"v2, a limit of nothing",
			unified.with(group(service, "0", "0", "0")), host, 2 * gib, System, "/sys/fs/cgroup/system.slice/app.service/memory.max: nothing is allowed"},
		{"v2, garbage",
			unified.with(group(service, "a lot", "700000000", "0")), host, 2 * gib, System,
			`/sys/fs/cgroup/system.slice/app.service/memory.max: no number: "a lot"`},
		{"v2, out of range",
			unified.with(group(service, "99999999999999999999", "700000000", "0")), host, 2 * gib, System,
			`/sys/fs/cgroup/system.slice/app.service/memory.max: no number: "99999999999999999999"`},
		{"v2, negative",
			unified.with(group(service, "1073741824", "-1", "0")), host, 2 * gib, System,
			`/sys/fs/cgroup/system.slice/app.service/memory.current: no number: "-1"`},
		{"v2, empty",
			unified.with(group(service, "", "700000000", "0")), host, 2 * gib, System, "/sys/fs/cgroup/system.slice/app.service/memory.max: no number"},
		{"v2, garbage below, a limit above",
			unified.with(group(service, "?", "0", "0"), group(slice, "1073741824", "900000000", "100000000")),
			gib, 800000000, Cgroup, "/sys/fs/cgroup/system.slice/app.service/memory.max: no number"},
		{"v2, no memory.stat",
			unified.with(system{service + "/memory.max": "1073741824", service + "/memory.current": "0"}), host, 2 * gib, System,
			"/sys/fs/cgroup/system.slice/app.service/memory.stat: file does not exist"},
		{"v2, memory.stat without the line",
			unified.with(group(service, "1073741824", "0", "0"), system{service + "/memory.stat": "inactive_file_huge 3\nfile 5\n"}), host, 2 * gib, System,
			"/sys/fs/cgroup/system.slice/app.service/memory.stat: no inactive_file"},
		{"v2, no mountinfo",
			system{"proc/self/cgroup": "0::/system.slice/app.service\n"}.with(group(service, "1073741824", "700000000", "0")),
			gib, 700000000, Cgroup, OK},
		{"v2, the cgroup was removed",
			unified.with(group(slice, "1073741824", "900000000", "0"), system{"proc/self/cgroup": "0::/system.slice/app.service (deleted)\n"}),
			gib, 900000000, Cgroup, OK},

		{"namespace",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000")), gib / 2, 400000000, Cgroup, OK},
		{"namespace, below its root",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000"), group("sys/fs/cgroup/init", "max", "0", "0"),
				system{"proc/self/cgroup": "0::/init\n"}), gib / 2, 400000000, Cgroup, OK},
		{"namespace, the process was moved up",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000"),
				system{"proc/self/cgroup": "0::/../..\n"}), host, 2 * gib, System, "the process's cgroup is outside what is mounted"},
		{"namespace, the process was moved aside",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000"), group("sys/fs/cgroup/other", "1", "1", "1"),
				system{"proc/self/cgroup": "0::/../other\n"}), host, 2 * gib, System, "the process's cgroup is outside what is mounted"},
		{"namespace, a path that leads out",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000"), group("etc", "1", "1", "1"),
				system{"proc/self/cgroup": "0::/a/../../../../etc\n"}), host, 2 * gib, System, "the process's cgroup is outside what is mounted"},
		{"namespace, the host's tree is mounted, the process in a cgroup of it",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000"), group("sys/fs/cgroup/other", "268435456", "0", "0"), system{
				"proc/self/cgroup":    "0::/../../other\n",
				"proc/self/mountinfo": "655 654 0:30 /../.. /sys/fs/cgroup ro,relatime - cgroup2 cgroup rw\n",
			}), gib / 4, gib/4 - (gib/2 - 400000000), Cgroup, OK},
		{"namespace, the host's tree is mounted, names unknown",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000"), system{
				"proc/self/mountinfo": "655 654 0:30 /../.. /sys/fs/cgroup ro,relatime - cgroup2 cgroup rw\n",
			}), gib / 2, 400000000, Cgroup, OK},
		{"namespace, the host's tree is mounted as well",
			container.with(group("sys/fs/cgroup", "536870912", "500000000", "100000000"), group("host/sys/fs/cgroup", "1048576", "0", "0"), system{
				"proc/self/mountinfo": "600 599 0:30 /../.. /host/sys/fs/cgroup ro - cgroup2 cgroup rw\n" + container["proc/self/mountinfo"],
			}), gib / 2, 400000000, Cgroup, OK},
		{"no namespace, the host's whole tree",
			container.with(group("sys/fs/cgroup/docker/0f3c", "536870912", "500000000", "100000000"),
				system{"proc/self/cgroup": "0::/docker/0f3c\n"}), gib / 2, 400000000, Cgroup, OK},
		{"a mount point with spaces",
			container.with(group("cgroups of mine", "536870912", "500000000", "100000000"), system{
				"proc/self/mountinfo": "655 654 0:30 / /cgroups\\040of\\040mine ro - cgroup2 cgroup rw\n",
			}), gib / 2, 400000000, Cgroup, OK},

		{"v1, no limit",
			version1Host.with(group1(root1+"/user.slice/user-1000.slice", none1, "700000000", "0", none1), group1(root1, none1, "900000000", "0", none1)),
			host, 2 * gib, System, "no limit below"},
		{"v1, a limit",
			version1Host.with(group1(root1+"/user.slice/user-1000.slice", "1073741824", "700000000", "100000000", "1073741824"), group1(root1, none1, "900000000", "0", none1)),
			gib, 600000000, Cgroup, OK},
		{"v1, a limit above",
			version1Host.with(group1(root1+"/user.slice/user-1000.slice", none1, "700000000", "100000000", "1073741824"),
				group1(root1+"/user.slice", "1073741824", "900000000", "100000000", "1073741824")),
			gib, 800000000, Cgroup, OK},
		{"v1, a limit above that is not handed down",
			version1Host.with(group1(root1+"/user.slice/user-1000.slice", "2147483648", "700000000", "100000000", "2147483648"),
				group1(root1+"/user.slice", "1048576", "1048576", "0", "1048576")),
			2 * gib, 600000000, Cgroup, OK},
		{"v1, the limit was lowered between two reads",
			version1Host.with(group1(root1+"/user.slice/user-1000.slice", "1073741824", "700000000", "100000000", "2147483648")),
			gib, 600000000, Cgroup, OK},
		{"v1, larger than the machine",
			version1Host.with(group1(root1+"/user.slice/user-1000.slice", "17179869184", "700000000", "0", "17179869184")),
			host, 2 * gib, System, "no limit below"},
		{"v1, container",
			dockerV1.with(group1(root1, "536870912", "500000000", "100000000", "536870912")), gib / 2, 400000000, Cgroup, OK},
		{"v1, container in a pod that is not mounted",
			dockerV1.with(group1(root1, none1, "500000000", "100000000", "536870912")), gib / 2, 400000000, Cgroup, OK},
		{"v1, container with the host's path and no mountinfo",
			dockerV1.with(system{"proc/self/mountinfo": ""}, group1(root1, "536870912", "500000000", "100000000", "536870912")), gib / 2, 400000000, Cgroup, OK},
		{"v1, usage below inactive_file",
			dockerV1.with(group1(root1, "536870912", "1000", "2000", "536870912")), gib / 2, 0, Cgroup, OK},
		{"v1, another hierarchy only",
			version1Host.with(system{"proc/self/cgroup": "10:cpu,cpuacct:/user.slice\n"}), host, 2 * gib, System, "the process is in no cgroup"},
		{"v1, not mounted",
			version1Host.with(system{"proc/self/mountinfo": "36 31 0:31 / /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n"}), host, 2 * gib, System, "not mounted"},

		{"hybrid",
			hybrid.with(group1(root1+"/jobs/72a1f595434e04dc", "1073741824", "700000000", "100000000", "1073741824")),
			gib, 600000000, Cgroup, OK},
		{"hybrid, no limit",
			hybrid.with(group1(root1+"/jobs/72a1f595434e04dc", none1, "700000000", "100000000", none1)),
			host, 2 * gib, System, "no limit below"},

		{"no cgroups", system{}, host, 2 * gib, System, "/proc/self/cgroup: file does not exist"},
		{"garbage", system{"proc/self/cgroup": "\x00\n:::\n0\n0:\n0::\n4:memory:nowhere\n"}, host, 2 * gib, System, "the process is in no cgroup"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := stand(c.files.files()).Read()
			check(t, g)
			if g.Total != c.total || g.Used != c.used || g.LimitedBy != c.by {
				t.Errorf("%d of %d, by %s; want %d of %d, by %s", g.Used, g.Total, g.LimitedBy, c.used, c.total, c.by)
			}
			if s := g.state(t, "cgroup"); !strings.HasPrefix(s, c.state) || c.state == OK && s != OK {
				t.Errorf("state %q, want %q", s, c.state)
			}
		})
	}
}

// Without the machine's memory a limit that means none is still none.
func TestLimitWithoutMachine(t *testing.T) {
	for _, c := range []struct {
		limit string
		total uint64
	}{
		{none1, 0},
		{"9223372036854710272", 0}, // with pages of 64 KiB
		{"9223372036854775807", 0}, // before Linux 3.19
		{"18446744073709551615", 0},
		{"1073741824", gib},
	} {
		r := stand(version1Host.with(group1(root1, c.limit, "1000", "0", c.limit)).files())
		r.host.memory = gopsutilGone
		g := r.Read()
		check(t, g)
		if g.Total != c.total {
			t.Errorf("%s: %d, %s", c.limit, g.Total, g.state(t, "cgroup"))
		}
	}
}

func TestUnreadable(t *testing.T) {
	files := broken{
		FS:   unified.with(group(service, "1073741824", "700000000", "100000000")).files(),
		open: map[string]error{service + "/memory.max": fs.ErrPermission},
	}
	g := stand(files).Read()
	check(t, g)
	if want := "/" + service + "/memory.max: permission denied"; g.LimitedBy != System || g.state(t, "cgroup") != want {
		t.Errorf("by %s, %s", g.LimitedBy, g.state(t, "cgroup"))
	}
	files.open = map[string]error{"proc/self/mountinfo": fs.ErrPermission}
	if g := stand(files).Read(); g.LimitedBy != Cgroup || g.Used != 600000000 {
		t.Errorf("no mountinfo: %+v", g)
	}
}

func TestRelate(t *testing.T) {
	for _, c := range []struct {
		root, cgroup, below string
		exact, ok           bool
	}{
		{"/", "/", "", true, true},
		{"/", "/a/b", "a/b", true, true},
		{"/a", "/a", "", true, true},
		{"/a", "/a/b", "b", true, true},
		{"/a", "/ab", "", false, false},
		{"/a/b", "/a", "", false, false},
		{"/", "/..", "", false, false},
		{"/", "/../a", "", false, false},
		{"/..", "/", "", false, true},
		{"/..", "/a", "", false, true},
		{"/..", "/..", "", true, true},
		{"/..", "/../a", "a", true, true},
		{"/../../a", "/../../a/b", "b", true, true},
		{"/../../a", "/../b", "", false, false},
		{"/../../a", "/", "", false, false},
		{"/", "", "", false, false},
		{"", "/", "", false, false},
		{"/", "a", "", false, false},
		{"/", "/a//b", "", false, false},
		{"/", "/a/", "", false, false},
		{"/", "/a/../b", "", false, false},
		{"/", "/a/./b", "", false, false},
	} {
		below, exact, ok := relate(c.root, c.cgroup)
		if strings.Join(below, "/") != c.below || exact != c.exact || ok != c.ok {
			t.Errorf("%q from %q: %q, %v, %v", c.cgroup, c.root, below, exact, ok)
		}
	}
}

func TestMembership(t *testing.T) {
	for _, c := range []struct {
		text string
		want membership
	}{
		{"", membership{}},
		{"0::/\n", membership{v2: "/"}},
		{"0::/", membership{v2: "/"}},
		{"0::/a:b/c\n", membership{v2: "/a:b/c"}},
		{"0::/../..\n", membership{v2: "/../.."}},
		{"11:memory:/docker/0f3c\n", membership{v1: "/docker/0f3c"}},
		{"3:cpu,memory:/x\n0::/y\n", membership{v1: "/x", v2: "/y"}},
		{"3:cpuset,memoryless:/x\n1:name=memory:/z\n", membership{}},
		{"0:memory:/x\n", membership{v1: "/x"}},
	} {
		if got := parseMembership(c.text); got != c.want {
			t.Errorf("%q: %+v", c.text, got)
		}
	}
}
