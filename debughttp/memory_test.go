package debughttp_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/pprof/profile"

	"github.com/sqlite-leakguard/sqlite-leakguard/debughttp"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Memory stands beside its connection, over time in the charts and in a section
// with the sources; a shortage is a banner.
func TestMemory(t *testing.T) {
	inBubble(t, func(s *scene) {
		var used atomic.Value
		used.Store(61.25)
		s.SetMemorySource(func() tracker.Memory {
			return tracker.Memory{
				Total: 100 << 20, Used: 61 << 20, UsedPercent: used.Load().(float64), LimitedBy: "cgroup", ProcessRSS: 40 << 20, SQLite: 6 << 20,
				Sources: []tracker.MemorySource{{Name: "cgroup <2>", State: "ok"}, {Name: "psi", State: `no <b>file</b>`}},
			}
		})
		p := s.pool("shop.db")
		s.openFile(p, figured{bytes: 5 << 20}, "/data/shop.db")
		h := debughttp.Handler(s.Tracker)
		page := body(t, h, "/")
		lacks(t, page, `id="memory"`, `id="charts"`, `<th scope="col" class="r">memory</th>`)
		pass(29 * time.Second)
		for range 2 { // useful within the first minute
			pass(30 * time.Second)
			page = body(t, h, "/")
			wants(t, part(page, "charts"), "open 1")
		}
		inOrder(t, part(page, "charts"), "Connections", "Memory of SQLite", "connections 5 MiB", "all 6 MiB", "Memory of this process", "resident 40 MiB", "Memory of the container", "used 61.2 %")
		inOrder(t, part(page, "connections"), `<th scope="col" class="r">memory</th>`, `<span title="at most 5.0 MiB">5.0 MiB</span>`)
		html := part(page, "memory")
		inOrder(t, html, "of the container", "61.2 % used, 61.2 % on average", "40.0 MiB resident", "of SQLite", "6.0 MiB", "of open connections", "5.0 MiB",
			`<details id="sources"><summary>sources (1 of 2 can be read)`, "cgroup &lt;2&gt;", "ok", "psi", "no &lt;b&gt;file&lt;/b&gt;")
		lacks(t, page, `class="alarm"`, `class="note"`, "short of memory")

		used.Store(91.0)
		pass(30 * time.Second)
		page = body(t, h, "/")
		inOrder(t, page, `id="verdict"`, `<p class="alarm">Memory is short since `, "91.0 % were used (limit 85 %)", `id="connections"`)
		inOrder(t, part(page, "memory"), "short of memory", "1 time so far</dd>")
		wants(t, part(page, "history"), "pressure", "memory pressure: 91.0 % used")
		used.Store(20.0)
		pass(30 * time.Second)
		page = body(t, h, "/")
		lacks(t, page, `class="alarm"`)
		wants(t, part(page, "memory"), "1 time so far, last at ", "memory pressure is over: 20.0 % used")
		wants(t, body(t, h, "/?format=json"), `"memory_bytes": 5242880`, `"memory_history": [`, `"system_percent": 61.25`, `"pressure": {`, `"name": "psi"`)

		got, err := profile.ParseData([]byte(body(t, h, "/pprof")))
		if err != nil || len(got.Sample) != 1 || got.Sample[0].Value[5] != 5<<20 || got.SampleType[5].Unit != "bytes" {
			t.Errorf("the profile: %v, %v", got, err)
		}
	})
}

func TestDegraded(t *testing.T) {
	inBubble(t, func(s *scene) {
		s.SetMemorySource(func() tracker.Memory {
			return tracker.Memory{Sources: []tracker.MemorySource{{Name: "meminfo", State: "permission denied"}}}
		})
		s.open(s.pool("shop.db"), true, "")
		pass(time.Minute)
		page := body(t, debughttp.Handler(s.Tracker), "/")
		inOrder(t, page, `<p class="note">The memory of this machine cannot be read`, `<details id="sources" open><summary>sources (0 of 1 can be read)`, "permission denied")
		wants(t, part(page, "history"), "degraded", "meminfo: permission denied")
	})
}
