package debughttp

import (
	"fmt"
	"slices"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// point is one moment of the charts: a pass of the memory monitor, or now.
type point struct {
	tracker.MemoryPoint
	Suspects int
}

// points returns the passes and, behind them, the present moment, whose memory
// is not known. How many suspects there were, but for exempt ones, the leaks tell, as far as their
// history reaches.
func (s *snapshot) points() []point {
	type span struct{ from, to time.Time }
	leaks := make(map[uint64]*span)
	for _, e := range s.leaks {
		if e.Leak.Exempt != "" {
			continue
		}
		if l := leaks[e.Leak.ID]; l != nil {
			l.to = e.Time
		} else {
			leaks[e.Leak.ID] = &span{e.Time, e.Time}
		}
	}
	for i := range s.suspects {
		if l := leaks[s.suspects[i].ID]; l != nil {
			l.to = s.now.Add(1)
		}
	}
	out := make([]point, 0, len(s.memory)+1)
	for _, m := range s.memory {
		p := point{MemoryPoint: m}
		for _, l := range leaks {
			if !m.Time.Before(l.from) && m.Time.Before(l.to) {
				p.Suspects++
			}
		}
		out = append(out, p)
	}
	now := tracker.MemoryPoint{Time: s.now, Open: s.stats.TotalConnections, Leased: s.stats.ActiveConnections}
	return append(out, point{now, len(s.suspects)})
}

// memory is the section about it.
type memory struct {
	Figures  []labelled
	Sources  []tracker.MemorySource
	Unfolded bool // something is wrong with the sources
	Usable   int
}

type labelled struct{ Label, Text string }

func (s *snapshot) memoryView() memory {
	m := &s.stats.MemoryMonitoring
	v := memory{Sources: m.Sources, Unfolded: s.degraded()}
	for _, source := range m.Sources {
		if source.State == "ok" {
			v.Usable++
		}
	}
	add := func(known bool, label, text string) {
		if known {
			v.Figures = append(v.Figures, labelled{label, text})
		}
	}
	whose := "system"
	if m.LimitedBy == "cgroup" {
		whose = "container"
	}
	add(m.SystemMemoryPercent > 0, "of the "+whose, fmt.Sprintf("%.1f %% used, %.1f %% on average", m.SystemMemoryPercent, m.AverageSystemMemoryPercent))
	if n := len(s.memory); n > 0 {
		last := &s.memory[n-1]
		add(last.ProcessRSS > 0, "of this process", bytesText(int64(last.ProcessRSS))+" resident")
	}
	add(m.SQLiteMemoryBytes > 0, "of SQLite", bytesText(int64(m.SQLiteMemoryBytes)))
	add(m.ConnectionMemoryBytes > 0, "of open connections", bytesText(m.ConnectionMemoryBytes))
	add(s.stats.WALBytes > 0, "write-ahead logs", bytesText(s.stats.WALBytes)+" on disk")
	if m.PressureEventsCount > 0 {
		text := fmt.Sprintf("%s so far", many(int(m.PressureEventsCount), "time"))
		if at, p := s.lastPressure(); p != nil && !p.On { // else the banner says it
			text += fmt.Sprintf(", last at %s: %s", clock(at, s.now), p)
		}
		add(true, "short of memory", text)
	}
	return v
}

// lastPressure returns the last crossing in the history.
func (s *snapshot) lastPressure() (time.Time, *tracker.Pressure) {
	for _, e := range slices.Backward(s.events) {
		if e.Pressure != nil {
			return e.Time, e.Pressure
		}
	}
	return time.Time{}, nil
}

// pressureText is the banner while memory is short.
func (s *snapshot) pressureText() string {
	if !s.stats.MemoryMonitoring.MemoryPressure {
		return ""
	}
	text := "Memory is short: caches are released and idle connections closed."
	if at, p := s.lastPressure(); p != nil && p.On {
		text = fmt.Sprintf("Memory is short since %s: then %.1f %% were used (limit %.0f %%)", clock(at, s.now), p.UsedPercent, p.Limit)
		if p.Stall > 0 {
			text += fmt.Sprintf(", tasks waited for it %.1f %% of the time", p.Stall)
		}
		text += "."
		if p.Released > 0 {
			text += fmt.Sprintf(" The guard released %s of caches.", bytesText(p.Released))
		}
		if p.Closed > 0 {
			text += fmt.Sprintf(" It closed %s that held %s.", many(p.Closed, "idle connection"), bytesText(p.ClosedBytes))
		}
	}
	return text
}

// degraded reports whether the monitor has looked and found nothing to go by.
func (s *snapshot) degraded() bool {
	m := &s.stats.MemoryMonitoring
	return len(m.Sources) > 0 && m.SystemMemoryPercent == 0
}

// memoryOf is a connection's memory: Bytes is empty if nobody has looked, and
// Old is how old the figure is, if it may be wrong by now.
type memoryOf struct{ Bytes, Peak, Old string }

// memoryFresh is twice the default memory_interval, and the default
// check_interval.
const memoryFresh = time.Minute

func memoryOfConnection(r *tracker.Record) memoryOf {
	if r.Memory == 0 && r.MemoryPeak == 0 {
		return memoryOf{}
	}
	m := memoryOf{Bytes: bytesText(r.Memory), Peak: bytesText(r.MemoryPeak)}
	// It has moved since; Idle is short by up to a check_interval.
	if r.Idle+memoryFresh < r.MemoryAge {
		m.Old = ageText(r.MemoryAge)
	}
	return m
}

// bytesText words a number of bytes.
func bytesText(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
