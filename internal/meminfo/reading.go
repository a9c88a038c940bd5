package meminfo

// What LimitedBy says.
const (
	System = "system"
	Cgroup = "cgroup"
)

// OK is the state of a source whose figures are in the reading.
const OK = "ok"

// Reading is one look at the memory. A figure whose source is missing is zero.
type Reading struct {
	// Total is what the process could have at most, in bytes: the machine's
	// memory, or the lowest limit of its cgroups if that is lower. 0: unknown.
	Total uint64
	// Used is Total less what is still to be had, in bytes. Still to be had is
	// what is available on the machine or left below the limit of one of the
	// cgroups, whichever is less; file cache that the kernel would give up first
	// counts as left.
	Used uint64
	// UsedPercent is Used of Total, 0 to 100, and 0 if Total is 0.
	UsedPercent float64
	// LimitedBy says where the least is left, and so which one decided Used:
	// System or Cgroup. Empty if Total is 0.
	LimitedBy string

	// ProcessRSS is what this process has in the machine's memory, in bytes.
	// 0: unknown.
	ProcessRSS uint64

	// SwapTotal and SwapUsed are the machine's swap space in bytes, on Windows
	// the paging files. A total of 0: there is none, or it is unknown.
	SwapTotal, SwapUsed uint64

	// GoLimit is GOMEMLIMIT or what debug.SetMemoryLimit made of it, in bytes. It
	// does not cover what SQLite allocates. 0: there is none.
	GoLimit uint64

	// Stall is the share of the last ten seconds, 0 to 100 percent, in which at
	// least one task waited for memory: tasks of the process's cgroup where the
	// kernel tells, otherwise of the whole machine. HasStall tells a Stall of 0
	// from one that is unknown.
	Stall    float64
	HasStall bool

	// Sources has an entry for each source, always the same ones in the same
	// order.
	Sources []Source
}

// Source says of one source whether it was read.
type Source struct {
	// Name is "system", "process", "swap", "cgroup", "cgroup pressure", "system
	// pressure" or "GOMEMLIMIT".
	Name string
	// State is OK, or why figures are missing or incomplete, in words.
	State string
}

// share is a memory that the process cannot leave: the machine's or that below a
// limit of a cgroup.
type share struct {
	total, left uint64 // bytes
	by          string
}

// divide sets Total, Used, UsedPercent and LimitedBy. The lowest total and the
// least left need not be of the same share: a container that has used little
// gets nothing more on a machine that is full, nor in a pod whose other
// container took the rest.
func (r *Reading) divide(shares []share) {
	var left uint64
	for _, s := range shares {
		if s.total == 0 {
			continue
		}
		if r.Total == 0 || s.total < r.Total {
			r.Total = s.total
		}
		if r.LimitedBy == "" || s.left < left {
			left, r.LimitedBy = s.left, s.by
		}
	}
	if r.Total > 0 {
		r.Used = less(r.Total, left)
		r.UsedPercent = 100 * float64(r.Used) / float64(r.Total)
	}
}

func (r *Reading) report(name string, err error) {
	state := OK
	if err != nil {
		state = why(err)
	}
	r.Sources = append(r.Sources, Source{Name: name, State: state})
}

// less is a minus b, and 0 where counters that were read one after the other
// contradict each other.
func less(a, b uint64) uint64 { return a - min(a, b) }
