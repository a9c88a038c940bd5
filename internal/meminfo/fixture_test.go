package meminfo

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"testing"
	"testing/fstest"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// system is a directory tree, by path and text.
type system map[string]string

func (s system) files() fs.FS {
	m := fstest.MapFS{}
	for name, text := range s {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

// with returns a system that has the files of others as well.
func (s system) with(others ...system) system {
	all := system{}
	for _, o := range append([]system{s}, others...) {
		for name, text := range o {
			all[name] = text
		}
	}
	return all
}

// stand returns a machine of 8 GiB, 6 GiB of them available, with these files.
func stand(files fs.FS) *Reader {
	r := &Reader{
		host: host{
			memory: func(context.Context) (memory, error) { return memory{8 * gib, 6 * gib}, nil },
			rss:    func(context.Context) (uint64, error) { return 50 * mib, nil },
			swap:   func(context.Context) (swap, error) { return swap{2 * gib, gib}, nil },
		},
		goLimit: func() int64 { return math.MaxInt64 },
	}
	if files != nil {
		r.mount(files)
	}
	return r
}

func (g Reading) state(t *testing.T, name string) string {
	t.Helper()
	for _, s := range g.Sources {
		if s.Name == name {
			return s.State
		}
	}
	t.Fatalf("no source %q in %v", name, g.Sources)
	return ""
}

// broken is a file system in which some files cannot be read.
type broken struct {
	fs.FS
	open map[string]error // opening fails
	read map[string]error // opening works, reading fails
}

func (b broken) Open(name string) (fs.File, error) {
	if err := b.open[name]; err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	f, err := b.FS.Open(name)
	if e := b.read[name]; e != nil && err == nil {
		f = unreadable{f, &fs.PathError{Op: "read", Path: name, Err: e}}
	}
	return f, err
}

type unreadable struct {
	fs.File
	err error
}

func (u unreadable) Read([]byte) (int, error) { return 0, u.err }

// EOPNOTSUPP, which not every platform has.
var errNotSupported = errors.New("operation not supported")

// Of real kernels, shortened by lines that nobody reads here.

// Linux 6.8 with version 2 alone; a service in a slice.
var unified = system{
	"proc/self/mountinfo": `22 29 0:21 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
23 29 0:22 / /proc rw,nosuid,nodev,noexec,relatime shared:14 - proc proc rw
29 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
35 22 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
36 22 0:31 / /sys/fs/pstore rw,nosuid,nodev,noexec,relatime shared:10 - pstore pstore rw
`,
	"proc/self/cgroup":             "0::/system.slice/app.service\n",
	"proc/pressure/memory":         "some avg10=1.50 avg60=0.12 avg300=0.01 total=123456\nfull avg10=0.50 avg60=0.05 avg300=0.00 total=1234\n",
	"sys/fs/cgroup/memory.stat":    "anon 1218207744\nfile 3154116608\ninactive_file 2000000000\n",
	"sys/fs/cgroup/cgroup.procs":   "1\n2\n",
	"sys/fs/cgroup/cgroup.stat":    "nr_descendants 74\nnr_dying_descendants 12\n",
	"sys/fs/cgroup/cpu.pressure":   "some avg10=9.99 avg60=0.12 avg300=0.01 total=123456\n",
	"sys/fs/cgroup/memory.reclaim": "",
}

// group is a cgroup of version 2.
func group(dir, limit, current, inactive string) system {
	return system{
		dir + "/memory.max":     limit + "\n",
		dir + "/memory.current": current + "\n",
		dir + "/memory.stat": "anon 8507392\nfile 9744384\nkernel 1032192\nkernel_stack 49152\ninactive_anon 5963776\nactive_anon 1572864\n" +
			"inactive_file " + inactive + "\nactive_file 316579840\nworkingset_refault_file 0\n",
	}
}

const (
	slice   = "sys/fs/cgroup/system.slice"
	service = "sys/fs/cgroup/system.slice/app.service"
)

// Linux 4.18 with version 1 alone, outside a container.
var version1Host = system{
	"proc/self/mountinfo": `25 30 0:23 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
31 25 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755
32 31 0:27 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
36 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:14 - cgroup cgroup rw,cpu,cpuacct
39 31 0:34 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,memory
`,
	"proc/self/cgroup": `10:cpu,cpuacct:/user.slice
4:memory:/user.slice/user-1000.slice
1:name=systemd:/user.slice/user-1000.slice/session-3.scope
`,
}

// group1 is a cgroup of version 1.
func group1(dir, limit, usage, inactive, hierarchical string) system {
	return system{
		dir + "/memory.limit_in_bytes": limit + "\n",
		dir + "/memory.usage_in_bytes": usage + "\n",
		dir + "/memory.stat": "cache 9744384\nrss 8507392\ninactive_file 61440\nhierarchical_memory_limit " + hierarchical +
			"\nhierarchical_memsw_limit 9223372036854771712\ntotal_cache 564367360\ntotal_inactive_file " + inactive + "\ntotal_active_file 316579840\n",
	}
}

const (
	root1 = "sys/fs/cgroup/memory"
	none1 = "9223372036854771712"
)

// Linux 6.18 with version 1 and, for what that lacks, version 2.
var hybrid = system{
	"proc/self/mountinfo": `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`,
	"proc/self/cgroup": `9:name=systemd:/
4:memory:/jobs/72a1f595434e04dc
1:cpu:/
0::/jobs
`,
	"proc/pressure/memory": "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
}

// A container on a host with version 2, in a cgroup namespace of its own.
var container = system{
	"proc/self/mountinfo": `651 650 0:52 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
654 650 0:57 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
655 654 0:30 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
`,
	"proc/self/cgroup": "0::/\n",
}
