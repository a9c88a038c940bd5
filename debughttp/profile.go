package debughttp

import (
	"bytes"
	"os"
	"time"

	"github.com/google/pprof/profile"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// profile writes everything open as a gzip'd pprof profile.
func (h *handler) profile(b *bytes.Buffer) error {
	p := newProfile(time.Now())
	memory := make(map[string]int64)
	for _, r := range h.tracker.Records() {
		memory[r.ConnectionID] = r.Memory
	}
	for _, held := range h.tracker.Held() {
		bytes := int64(0)
		if held.Kind == tracker.KindConnection { // its lease, and once
			bytes = memory[held.ConnectionID]
		}
		p.add(held, bytes)
	}
	return p.Write(b)
}

// profiler builds a profile: one sample for all that was opened by the same
// calls and has the same labels.
type profiler struct {
	*profile.Profile
	samples   map[string]*profile.Sample
	functions map[[2]string]*profile.Function
	locations map[tracker.Frame]*profile.Location
}

func newProfile(now time.Time) *profiler {
	// Everything is resolved here, so pprof needs no look at the program.
	m := &profile.Mapping{ID: 1, HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true}
	m.File, _ = os.Executable()
	return &profiler{
		Profile: &profile.Profile{
			SampleType:        []*profile.ValueType{{Type: "count", Unit: "count"}, {Type: "age", Unit: "seconds"}, {Type: "memory", Unit: "bytes"}},
			DefaultSampleType: "age",
			TimeNanos:         now.UnixNano(),
			Mapping:           []*profile.Mapping{m},
		},
		samples:   make(map[string]*profile.Sample),
		functions: make(map[[2]string]*profile.Function),
		locations: make(map[tracker.Frame]*profile.Location),
	}
}

// unrecorded stands for the stack where call sites are off.
var unrecorded = []tracker.Frame{{Function: "unknown (call sites are off)"}}

func (p *profiler) add(h tracker.Held, memory int64) {
	labels := map[string][]string{"kind": {h.Kind.String()}, "pool": {h.Pool}}
	suspect := ""
	if h.Suspect != nil {
		suspect = string(h.Suspect.Reason)
		labels["suspect"] = []string{suspect}
	}
	frames := h.Stack.UserFrames()
	if len(frames) == 0 {
		frames = unrecorded
	}
	key := []byte(h.Kind.String() + "\x00" + h.Pool + "\x00" + suspect)
	locations := make([]*profile.Location, len(frames))
	for i, f := range frames {
		locations[i] = p.location(f)
		key = append(key, 0)
		key = append(key, f.Function...)
		key = append(key, f.String()...)
	}
	s := p.samples[string(key)]
	if s == nil {
		s = &profile.Sample{Location: locations, Value: make([]int64, 3), Label: labels}
		p.samples[string(key)] = s
		p.Sample = append(p.Sample, s)
	}
	s.Value[0]++
	// Rounded up: what was opened a moment ago counts too.
	s.Value[1] += int64((h.Age + time.Second - 1) / time.Second)
	s.Value[2] += memory
}

// location returns that of a frame. Addresses are left out: a frame that was
// inlined has none of its own.
func (p *profiler) location(f tracker.Frame) *profile.Location {
	if l := p.locations[f]; l != nil {
		return l
	}
	key := [2]string{f.Function, f.File}
	fn := p.functions[key]
	if fn == nil {
		fn = &profile.Function{ID: uint64(len(p.functions) + 1), Name: f.Function, SystemName: f.Function, Filename: f.File}
		p.functions[key] = fn
		p.Function = append(p.Function, fn)
	}
	l := &profile.Location{
		ID:      uint64(len(p.locations) + 1),
		Mapping: p.Mapping[0],
		Line:    []profile.Line{{Function: fn, Line: int64(f.Line)}},
	}
	p.locations[f] = l
	p.Location = append(p.Location, l)
	return l
}
