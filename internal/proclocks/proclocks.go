// Package proclocks reads which processes hold POSIX locks on a file, from the
// system's list of them: the file itself is never opened, which would drop the locks
// that this process holds on it when it is closed. It imports the standard library only
// and knows no paths of files.
//
// Linux has that list, https://man7.org/linux/man-pages/man5/proc_locks.5.html.
package proclocks

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// File says which file, by what stat says of it.
type File struct{ Device, Inode uint64 }

// Lock is a POSIX lock that a process holds on a range of bytes.
type Lock struct {
	// PID is its process, 0 if that is not known: it lives in another PID namespace, or
	// the lock belongs to an open file description.
	PID         int
	Write       bool // nobody else may have one
	First, Last int64
}

// Covers reports whether the lock is on one of these bytes.
func (l Lock) Covers(first, last int64) bool { return l.First <= last && first <= l.Last }

// parse returns the locks that are held of a list in the form of /proc/locks. Lines
// that are not understood are left out.
func parse(list []byte, file File) (held []Lock) {
	major, minor := numbers(file.Device)
	for line := range bytes.Lines(list) {
		// 1: POSIX  ADVISORY  WRITE 3568 fe:00:2531452 0 EOF
		// 1: -> POSIX  ADVISORY  WRITE 3548 fe:00:2531452 0 EOF
		f := strings.Fields(string(line))
		if len(f) != 8 || f[1] != "POSIX" && f[1] != "OFDLCK" {
			continue // somebody who waits, and flock, which SQLite does not use, among them
		}
		id := strings.Split(f[5], ":")
		if len(id) != 3 || !is(id[0], 16, major) || !is(id[1], 16, minor) || !is(id[2], 10, file.Inode) {
			continue
		}
		l := Lock{Write: f[3] == "WRITE", Last: math.MaxInt64}
		var err error
		if l.First, err = strconv.ParseInt(f[6], 10, 64); err != nil {
			continue
		}
		if f[7] != "EOF" {
			if l.Last, err = strconv.ParseInt(f[7], 10, 64); err != nil {
				continue
			}
		}
		if pid, err := strconv.Atoi(f[4]); err == nil && pid > 0 {
			l.PID = pid
		}
		held = append(held, l)
	}
	return held
}

func is(text string, base int, want uint64) bool {
	n, err := strconv.ParseUint(text, base, 64)
	return err == nil && n == want
}

// numbers takes a device number apart as Linux puts it together.
//
// https://man7.org/linux/man-pages/man3/makedev.3.html
func numbers(device uint64) (major, minor uint64) {
	return device>>8&0xfff | device>>32&^0xfff, device&0xff | device>>12&^0xff&0xffffffff
}
