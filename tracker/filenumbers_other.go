//go:build !linux

package tracker

import (
	"io/fs"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/proclocks"
)

func fileNumbers(fs.FileInfo) (proclocks.File, bool) { return proclocks.File{}, false }
