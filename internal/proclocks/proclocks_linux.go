package proclocks

import (
	"io"
	"os"
	"strconv"
	"strings"
)

// maxList bounds what is read: a line has about 70 bytes.
const maxList = 4 << 20

// Held returns the locks that processes hold on the file, as far as this one can see:
// in another PID namespace, or where a file system numbers its files in two ways, as
// some that lie over others do, none. An error says that nothing is known.
func Held(file File) ([]Lock, error) {
	list, err := read("/proc/locks", maxList)
	if err != nil {
		return nil, err
	}
	return parse(list, file), nil
}

// Self returns the PID of this process as the list has it, 0 if that is not known.
func Self() int {
	name, err := os.Readlink("/proc/self") // another namespace's /proc may be mounted
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(name)
	return pid
}

// Command returns the name of a process's program, at most 15 bytes of it, "" if it is
// not known. Arguments, which may have secrets, are not read.
func Command(pid int) string {
	name, err := read("/proc/"+strconv.Itoa(pid)+"/comm", 64)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(name))
}

func read(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
