//go:build unix && !linux

package leakguard

import "syscall"

// mayOpen reports whether the process may read a file, and write it if it is to. It
// asks with the real user's rights, which are those that files are opened with
// unless the process changed only its effective user.
func mayOpen(path string, write bool) bool {
	mode := uint32(4)
	if write {
		mode |= 2
	}
	return syscall.Access(path, mode) == nil
}
