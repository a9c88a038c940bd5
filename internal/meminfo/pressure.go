package meminfo

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// systemPressure is the share of the last ten seconds, in percent, in which a
// task of the machine waited for memory. A kernel that was started without psi=1
// has no such file, or one that cannot be read.
//
// https://docs.kernel.org/accounting/psi.html
func (r *Reader) systemPressure() (float64, error) {
	if r.files == nil {
		return 0, errNotLinux
	}
	return r.pressure("proc/pressure/memory")
}

// cgroupPressure is the same for the tasks of the process's cgroup and those
// below it. It needs no memory controller, so it works in a hybrid system too.
func (r *Reader) cgroupPressure(at membership) (float64, error) {
	point, below, exact, err := r.mounts.v2.locate(at.v2)
	if err != nil {
		return 0, err
	}
	if !exact {
		return 0, errOutside
	}
	return r.pressure(path.Join(point, path.Join(below...), "memory.pressure"))
}

func (r *Reader) pressure(name string) (float64, error) {
	text, err := read(r.files, name, maxFile)
	if err != nil {
		return 0, err
	}
	percent, err := parsePressure(text)
	if err != nil {
		return 0, &fs.PathError{Op: "parse", Path: name, Err: err}
	}
	return percent, nil
}

// parsePressure finds avg10 in a line "some avg10=0.00 avg60=0.00 …".
func parsePressure(text string) (float64, error) {
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(line, " ")
		if kind != "some" {
			continue
		}
		for field := range strings.FieldsSeq(rest) {
			if v, ok := strings.CutPrefix(field, "avg10="); ok {
				percent, err := strconv.ParseFloat(v, 64)
				if err != nil || !(percent >= 0) || math.IsInf(percent, 1) { // NaN as well
					return 0, fmt.Errorf("no percentage: %.20q", v)
				}
				return min(percent, 100), nil
			}
		}
	}
	return 0, errors.New("no avg10")
}
