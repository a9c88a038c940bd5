package debughttp

import (
	"sync"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Figures over time: how many, and how far apart at least.
const (
	maxSamples  = 360
	sampleEvery = time.Second
)

// sample is what a request saw.
type sample struct {
	Time          time.Time `json:"time"`
	Connections   int       `json:"connections"`
	Leased        int       `json:"leased"`
	Suspects      int       `json:"suspects"`
	ProcessMB     float64   `json:"process_memory_mb,omitempty"`
	SystemPercent float64   `json:"system_memory_percent,omitempty"`
}

// samples is a ring of the last ones.
type samples struct {
	mu   sync.Mutex // guards the rest
	ring []sample
	next int // the oldest one, once the ring is full
	last time.Time
}

// add keeps a sample, if the last one is old enough, and returns all that are
// kept, oldest first.
func (s *samples) add(now time.Time, stats *tracker.Stats, suspects int) []sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ring) == 0 || now.Sub(s.last) >= sampleEvery {
		one := sample{
			Time:          now,
			Connections:   stats.TotalConnections,
			Leased:        stats.ActiveConnections,
			Suspects:      suspects,
			ProcessMB:     stats.MemoryMonitoring.AverageProcessMemoryMB,
			SystemPercent: stats.MemoryMonitoring.AverageSystemMemoryPercent,
		}
		s.last = now
		if len(s.ring) < maxSamples {
			s.ring = append(s.ring, one)
		} else {
			s.ring[s.next] = one
			s.next = (s.next + 1) % maxSamples
		}
	}
	return append(append(make([]sample, 0, len(s.ring)), s.ring[s.next:]...), s.ring[:s.next]...)
}
