//go:build unix

package leakguard

import (
	"os"
	"syscall"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// identify says which file a path led to; info may be nil.
func identify(path string, info os.FileInfo) tracker.File {
	f := tracker.File{Path: path}
	if info != nil {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			f.Device, f.Inode = uint64(st.Dev), uint64(st.Ino)
		}
	}
	return f
}
