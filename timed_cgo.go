//go:build cgo

package leakguard

import (
	"errors"

	"github.com/mattn/go-sqlite3"
)

// resultCode returns SQLite's extended result code of an error.
func resultCode(err error) (int, bool) {
	var e sqlite3.Error
	if !errors.As(err, &e) {
		return 0, false
	}
	if e.ExtendedCode != 0 {
		return int(e.ExtendedCode), true
	}
	return int(e.Code), true
}
