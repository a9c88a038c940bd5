package debughttp

import (
	"bytes"
	"cmp"
	"os"
	"slices"
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
	held := h.tracker.Held()
	own := ownTimes(held)
	for i := range held {
		bytes := int64(0)
		if held[i].Kind == tracker.KindConnection { // its lease, and once
			bytes = memory[held[i].ConnectionID]
		}
		p.add(&held[i], own[i], bytes)
	}
	return p.Write(b)
}

// ownTimes returns how long each of what is held was what its connection was held by: a
// transaction until rows were opened in it, and the rows from then on. So each moment of
// a connection is one thing's, whatever is open on it. A statement holds none.
func ownTimes(all []tracker.Held) []time.Duration {
	own := make([]time.Duration, len(all))
	last := make(map[string]int) // by connection
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	// What was opened first comes first: of one moment the lease, then the transaction.
	rank := map[tracker.Kind]int{tracker.KindTransaction: 1, tracker.KindRows: 2}
	slices.SortFunc(order, func(i, j int) int {
		a, b := &all[i], &all[j]
		return cmp.Or(cmp.Compare(b.Age, a.Age), cmp.Compare(rank[a.Kind], rank[b.Kind]), cmp.Compare(a.Resource, b.Resource))
	})
	for _, i := range order {
		h := &all[i]
		if h.Kind == tracker.KindStatement {
			continue
		}
		own[i] = h.Age
		if before, ok := last[h.ConnectionID]; ok {
			own[before] -= h.Age
		}
		last[h.ConnectionID] = i
	}
	return own
}

// sampleTypes are made for each profile: writing it writes into them.
func sampleTypes() []*profile.ValueType {
	return []*profile.ValueType{
		{Type: "connections", Unit: "count"}, {Type: "transactions", Unit: "count"}, {Type: "rows", Unit: "count"},
		{Type: "statements", Unit: "count"}, {Type: "age", Unit: "nanoseconds"}, {Type: "memory", Unit: "bytes"},
	}
}

// Where they stand, those of kinds below.
const (
	ageSample    = 4
	memorySample = 5
	samples      = 6
)

var countSample = map[tracker.Kind]int{
	tracker.KindConnection: 0, tracker.KindTransaction: 1, tracker.KindRows: 2, tracker.KindStatement: 3,
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
			SampleType:        sampleTypes(),
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

func (p *profiler) add(h *tracker.Held, own time.Duration, memory int64) {
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
		s = &profile.Sample{Location: locations, Value: make([]int64, samples), Label: labels}
		p.samples[string(key)] = s
		p.Sample = append(p.Sample, s)
	}
	s.Value[countSample[h.Kind]]++
	s.Value[ageSample] += int64(own)
	s.Value[memorySample] += memory
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
