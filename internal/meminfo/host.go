package meminfo

import (
	"context"
	"os"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v3/common"
	"github.com/shirou/gopsutil/v3/mem"
	"github.com/shirou/gopsutil/v3/process"
)

// patience is how long a command that gopsutil runs may take, as far as it lets
// itself be told. No other reading waits.
const patience = time.Second

// host is what is asked of gopsutil, all in bytes.
type host struct {
	memory func(context.Context) (memory, error)
	rss    func(context.Context) (uint64, error)
	swap   func(context.Context) (swap, error)
}

type memory struct{ total, available uint64 }

type swap struct{ total, used uint64 }

func gopsutil() host { return host{hostMemory, hostRSS, hostSwap} }

// own makes gopsutil read the process's own /proc. HOST_PROC is set where a
// container watches its host: there the number of this process is another's.
func own(ctx context.Context) context.Context {
	return context.WithValue(ctx, common.EnvKey, common.EnvMap{common.HostProcEnvKey: "/proc"})
}

func hostMemory(ctx context.Context) (memory, error) {
	v, err := mem.VirtualMemoryWithContext(own(ctx))
	if err != nil {
		return memory{}, err
	}
	return memory{total: v.Total, available: v.Available}, nil
}

func hostRSS(ctx context.Context) (uint64, error) {
	// process.NewProcess would look up the time of its start as well.
	p := process.Process{Pid: int32(os.Getpid())}
	info, err := p.MemoryInfoWithContext(own(ctx))
	if err != nil {
		return 0, err
	}
	return info.RSS, nil
}

func hostSwap(ctx context.Context) (swap, error) {
	switch runtime.GOOS {
	case "linux":
		// SwapMemory reads vmstat as well, which sums up every processor's
		// counters.
		v, err := mem.VirtualMemoryWithContext(own(ctx))
		if err != nil {
			return swap{}, err
		}
		return swap{total: v.SwapTotal, used: less(v.SwapTotal, v.SwapFree)}, nil
	case "windows":
		// SwapMemory is the commit charge there, memory included.
		files, err := mem.SwapDevicesWithContext(ctx)
		return pagingFiles(files), err
	}
	v, err := mem.SwapMemoryWithContext(own(ctx))
	if err != nil {
		return swap{}, err
	}
	return swap{total: v.Total, used: v.Used}, nil
}

func pagingFiles(files []*mem.SwapDevice) (s swap) {
	for _, f := range files {
		s.total += f.UsedBytes + f.FreeBytes
		s.used += f.UsedBytes
	}
	return s
}
