package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Results is what results.json holds.
type Results struct {
	Run       Run              `json:"run"`
	Workloads []WorkloadResult `json:"workloads"`
	LockWaits []LockWait       `json:"lock_waits,omitempty"`
	Cancels   []CancelLatency  `json:"cancel_latency,omitempty"`
	Lost      []LostCancels    `json:"lost_cancels,omitempty"`
}

// Run says where, when and how.
type Run struct {
	Date       string            `json:"date"`
	Command    string            `json:"command"`
	CPU        string            `json:"cpu"`
	Procs      int               `json:"procs"`
	Platform   string            `json:"platform"`
	Go         string            `json:"go"`
	SQLite     string            `json:"sqlite"`
	Rounds     int               `json:"rounds"`
	BatchMs    float64           `json:"batch_ms"`
	Seed       uint64            `json:"seed"`
	Candidates []CandidateResult `json:"candidates"`
	LeftOut    []string          `json:"left_out,omitempty"`
}

// CandidateResult is one line of the legend.
type CandidateResult struct {
	Name     string `json:"name"`
	What     string `json:"what"`
	Version  string `json:"version,omitempty"`
	WrapsAll bool   `json:"wraps_rows_and_tx"`
}

// WorkloadResult is one line of the tables.
type WorkloadResult struct {
	Name    string `json:"name"`
	Context string `json:"context"`         // bg, ctx or newctx
	Group   string `json:"group"`           // bg or ctx
	Extra   bool   `json:"extra,omitempty"` // not in the group's mean
	Ops     int    `json:"ops_per_batch"`
	Cells   []Cell `json:"candidates"`
}

// Cell is one candidate in one workload.
type Cell struct {
	Candidate   string    `json:"candidate"`
	NsMedian    float64   `json:"ns_per_op_median"`
	NsMin       float64   `json:"ns_per_op_min"`
	BytesPerOp  float64   `json:"bytes_per_op"`
	AllocsPerOp float64   `json:"allocs_per_op"`
	Ratio       *Interval `json:"ratio,omitempty"`    // to raw
	GuardTo     *Interval `json:"guard_to,omitempty"` // the guard's time divided by this one's
}

// summarise turns the rounds into figures.
func (h *harness) summarise(w workload, s samples) WorkloadResult {
	r := WorkloadResult{
		Name: w.name, Context: string(w.kind), Group: w.kind.group(), Extra: w.extra, Ops: s.ops,
	}
	guard := slices.IndexFunc(s.entries, func(e *entry) bool { return e.name == guardName })
	for i, e := range s.entries {
		c := Cell{
			Candidate:   e.name,
			NsMedian:    median(s.ns[i]),
			NsMin:       slices.Min(s.ns[i]),
			BytesPerOp:  s.bytes[i],
			AllocsPerOp: s.allocs[i],
		}
		if i > 0 {
			ratio := medianInterval(quotients(s.ns[i], s.ns[0]), h.rng)
			c.Ratio = &ratio
		}
		if guard >= 0 && i != guard {
			to := medianInterval(quotients(s.ns[guard], s.ns[i]), h.rng)
			c.GuardTo = &to
		}
		r.Cells = append(r.Cells, c)
	}
	return r
}

// cell returns the candidate's figures, or nil if it did not take part.
func (w *WorkloadResult) cell(candidate string) *Cell {
	for i := range w.Cells {
		if w.Cells[i].Candidate == candidate {
			return &w.Cells[i]
		}
	}
	return nil
}

func (r *Results) workload(name string) *WorkloadResult {
	for i := range r.Workloads {
		if r.Workloads[i].Name == name {
			return &r.Workloads[i]
		}
	}
	return nil
}

// mean returns the geometric mean of the candidate's ratios in a group ("" for
// all) and how many there are. Extra workloads count only where they are asked
// for.
func (r *Results) mean(group, candidate string, extra bool) (mean float64, n int) {
	var ratios []float64
	for i := range r.Workloads {
		w := &r.Workloads[i]
		if group != "" && w.Group != group || w.Extra && !extra {
			continue
		}
		if c := w.cell(candidate); c != nil && c.Ratio != nil {
			ratios = append(ratios, c.Ratio.Median)
		}
	}
	return geomean(ratios), len(ratios)
}

func readResults(file string) (*Results, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &Results{}
	if err := json.Unmarshal(content, r); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	return r, nil
}

// save writes results.json and the chart.
func (r *Results) save(folder string) error {
	content, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "results.json"), append(content, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(folder, "overhead.svg"), []byte(chart(r)), 0o644)
}
