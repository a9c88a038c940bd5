//go:build unix

package leakguard

import (
	"syscall"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// fileID says which file a path led to: device and inode, 0 if that is not known.
type fileID struct{ device, inode uint64 }

func identify(path string) fileID {
	var st syscall.Stat_t
	for {
		switch err := syscall.Stat(path, &st); err {
		case nil:
			return fileID{uint64(st.Dev), uint64(st.Ino)}
		case syscall.EINTR: // some network file systems return it
		default:
			return fileID{}
		}
	}
}

func (f fileID) known() bool            { return f != fileID{} }
func (f fileID) same(other fileID) bool { return f.known() && f == other }

func (f fileID) describe(path, cache string) tracker.File {
	return tracker.File{Path: path, Device: f.device, Inode: f.inode, Cache: cache}
}
