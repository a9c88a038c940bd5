package leakguard

import "syscall"

// mayOpen reports whether the process may read a file, and write it if it is to, with
// the rights that it opens files with. Nothing is opened.
//
// https://man7.org/linux/man-pages/man2/faccessat.2.html
func mayOpen(path string, write bool) bool {
	const atCwd, atEffective = -100, 0x200 // AT_FDCWD, AT_EACCESS
	mode := uint32(4)                      // R_OK
	if write {
		mode |= 2 // W_OK
	}
	return syscall.Faccessat(atCwd, path, mode, atEffective) == nil
}
