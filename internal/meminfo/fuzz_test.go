package meminfo

import (
	"strings"
	"testing"
)

// Whatever the files say, a reading comes back and is possible, and no cgroup
// leads out of its mount.
func FuzzRead(f *testing.F) {
	for _, s := range []system{unified, version1Host, hybrid, container} {
		f.Add(s["proc/self/mountinfo"], s["proc/self/cgroup"], "1073741824", "700000000", "inactive_file 100\ntotal_inactive_file 100\nhierarchical_memory_limit 1073741824\n", s["proc/pressure/memory"])
		f.Add(s["proc/self/mountinfo"], "0::/../..\n4:memory:/../x\n", "max", none1, "inactive_file 18446744073709551615\n", "some avg10=-1")
	}
	f.Fuzz(func(t *testing.T, mounts, member, limit, usage, stat, pressure string) {
		files := system{
			"proc/self/mountinfo": mounts, "proc/self/cgroup": member, "proc/pressure/memory": pressure,
		}
		for _, dir := range []string{"sys/fs/cgroup", service, root1, root1 + "/jobs", "sys/fs/cgroup/unified/jobs"} {
			for name, text := range map[string]string{
				"memory.max": limit, "memory.current": usage, "memory.limit_in_bytes": limit, "memory.usage_in_bytes": usage,
				"memory.stat": stat, "memory.pressure": pressure,
			} {
				files[dir+"/"+name] = text
			}
		}
		check(t, stand(files.files()).Read())
		for _, h := range []hierarchy{parseMounts(mounts).v1, parseMounts(mounts).v2} {
			at := parseMembership(member)
			for _, where := range []string{at.v1, at.v2} {
				_, below, exact, err := h.locate(where)
				for _, name := range below {
					if err != nil || !exact || name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
						t.Errorf("%q leads to %q, %v", where, below, err)
					}
				}
			}
		}
	})
}
