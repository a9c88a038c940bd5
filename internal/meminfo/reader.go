package meminfo

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Reader reads the memory of the machine it runs on. It may be used by several
// goroutines at once.
type Reader struct {
	host    host
	goLimit func() int64
	files   fs.FS // the root directory; nil where there are no cgroups
	mounts  mounts
}

// New returns a reader. Where the cgroups are mounted is looked up now, once;
// which ones the process is in, at each reading.
func New() *Reader {
	r := &Reader{
		host:    gopsutil(),
		goLimit: func() int64 { return debug.SetMemoryLimit(-1) },
	}
	if runtime.GOOS == "linux" {
		r.mount(os.DirFS("/"))
	}
	return r
}

func (r *Reader) mount(root fs.FS) {
	r.files = root
	// Without it the usual places are tried.
	info, _ := read(root, "proc/self/mountinfo", maxMountinfo)
	r.mounts = parseMounts(info)
}

// Read takes a reading. It returns within a fraction of a millisecond where no
// command has to be run for it; on darwin without cgo gopsutil runs vm_stat and
// ps, and gives up after seconds.
func (r *Reader) Read() Reading {
	var g Reading
	var shares []share

	m, err := attempt(r.host.memory)
	if err == nil && m.total == 0 {
		err = errors.New("the machine's memory is not known")
	}
	g.report("system", err)
	if err == nil {
		shares = append(shares, share{total: m.total, left: m.available, by: System})
	}

	g.ProcessRSS, err = attempt(r.host.rss)
	if err == nil && g.ProcessRSS == 0 {
		err = errors.New("the process's memory is not known")
	}
	g.report("process", err)

	s, err := attempt(r.host.swap)
	g.SwapTotal, g.SwapUsed = s.total, s.used
	g.report("swap", err)

	at, err := r.membership()
	if err != nil {
		g.report("cgroup", err)
		g.report("cgroup pressure", err)
	} else {
		limits, err := r.limits(at, m.total)
		g.report("cgroup", err)
		shares = append(shares, limits...)

		g.Stall, err = r.cgroupPressure(at)
		g.HasStall = err == nil
		g.report("cgroup pressure", err)
	}

	stall, err := r.systemPressure()
	if err == nil && !g.HasStall {
		g.Stall, g.HasStall = stall, true
	}
	g.report("system pressure", err)

	g.GoLimit, err = memoryLimit(r.goLimit())
	g.report("GOMEMLIMIT", err)

	g.divide(shares)
	return g
}

func memoryLimit(n int64) (uint64, error) {
	if n == math.MaxInt64 {
		return 0, errors.New("not set")
	}
	return uint64(max(n, 0)), nil
}

// attempt calls f and takes a panic for an error: what the kernel says is parsed
// by others there, who do not expect everything.
func attempt[T any](f func(context.Context) (T, error)) (v T, err error) {
	defer func() {
		if p := recover(); p != nil {
			var none T
			v, err = none, fmt.Errorf("panic: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return f(ctx)
}

// why spells an error without the operation, which is always to read.
func why(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return "/" + strings.TrimPrefix(p.Path, "/") + ": " + p.Err.Error()
	}
	return err.Error()
}
