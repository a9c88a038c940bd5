//go:build !unix

package leakguard

import (
	"os"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// fileID says which file a path led to, for comparing.
type fileID struct{ info os.FileInfo }

func identify(path string) fileID {
	info, _ := os.Stat(path)
	return fileID{info}
}

func (f fileID) known() bool { return f.info != nil }

func (f fileID) same(other fileID) bool {
	return f.known() && other.known() && os.SameFile(f.info, other.info)
}

// describe names the file by its path alone.
func (f fileID) describe(path, cache string) tracker.File {
	return tracker.File{Path: path, Cache: cache}
}

// mayOpen reports whether the file is there; its rights are not asked.
func mayOpen(path string, write bool) bool { return identify(path).known() }
