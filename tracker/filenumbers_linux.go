package tracker

import (
	"io/fs"
	"syscall"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/proclocks"
)

func fileNumbers(info fs.FileInfo) (proclocks.File, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return proclocks.File{}, false
	}
	return proclocks.File{Device: uint64(st.Dev), Inode: st.Ino}, true
}
