package meminfo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// controller names the files of one version of the memory controller.
type controller struct {
	limit, usage string
	// In memory.stat: file cache that is reclaimed first, of the cgroup and all
	// below it, and (version 1) the lowest limit from the cgroup up.
	inactive, hierarchical string
}

// https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
// https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
var (
	version2 = controller{limit: "memory.max", usage: "memory.current", inactive: "inactive_file"}
	version1 = controller{
		limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes",
		inactive: "total_inactive_file", hierarchical: "hierarchical_memory_limit",
	}
)

// unlimited is where a limit begins to mean that there is none: version 1 has no
// word for it and says 9223372036854771712, or another number of pages near the
// largest.
const unlimited = 1 << 62

// A file of a cgroup has less than a page or two; mountinfo has a line for each
// mount.
const (
	maxFile      = 64 << 10
	maxMountinfo = 4 << 20
)

var (
	errNotLinux = errors.New("only Linux has it")
	errNoLimit  = errors.New("no limit below the machine's memory")
)

// membership is the path of the process's cgroup in the hierarchy of version 1
// that controls memory and in the one of version 2. Empty: it is in none. In a
// hybrid system version 1 has the limits and version 2 the pressure.
type membership struct{ v1, v2 string }

func (r *Reader) membership() (membership, error) {
	if r.files == nil {
		return membership{}, errNotLinux
	}
	text, err := read(r.files, "proc/self/cgroup", maxFile)
	if err != nil {
		return membership{}, err
	}
	at := parseMembership(text)
	if at == (membership{}) {
		return at, errors.New("the process is in no cgroup")
	}
	return at, nil
}

// parseMembership reads /proc/self/cgroup: lines of hierarchy number,
// controllers and path, separated by colons. The path may have colons as well.
func parseMembership(text string) (at membership) {
	for line := range strings.Lines(text) {
		number, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, where, _ := strings.Cut(rest, ":")
		switch {
		case !strings.HasPrefix(where, "/"):
		case number == "0" && controllers == "":
			at.v2 = where
		case lists(controllers, "memory"):
			at.v1 = where
		}
	}
	return at
}

// limits returns what the process's cgroup and those above it leave of the
// machine's memory, in bytes (0 if it is not known). There may be an error beside
// shares: then some are missing.
func (r *Reader) limits(at membership, machine uint64) ([]share, error) {
	if machine == 0 {
		machine = unlimited
	}
	// A process in a memory hierarchy of version 1 has no limits in version 2.
	c, found, where := version2, r.mounts.v2, at.v2
	if at.v1 != "" {
		c, found, where = version1, r.mounts.v1, at.v1
	}
	point, below, _, err := found.locate(where)
	if err != nil {
		return nil, err
	}

	var (
		shares []share
		errs   []error
		seen   bool
		lowest uint64
	)
	for i := len(below); i >= 0; i-- {
		dir := path.Join(point, path.Join(below[:i]...))
		limit, err := r.number(dir, c.limit)
		if errors.Is(err, fs.ErrNotExist) {
			// The root of version 2 has no limit, nor has a cgroup for which the
			// controller is not switched on. Those above may have one.
			continue
		}
		if err == nil && c.hierarchical != "" && !seen {
			// It knows of limits above what is mounted here.
			if lowest, err = r.stat(dir, c.hierarchical); err == nil {
				limit = min(limit, lowest)
				lowest = limit
			}
		}
		seen = true
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case limit == 0:
			// Allowed, but no process runs for long like that.
			errs = append(errs, &fs.PathError{Op: "parse", Path: path.Join(dir, c.limit), Err: errors.New("nothing is allowed")})
			continue
		case limit >= machine:
			continue
		case limit < lowest:
			continue // without memory.use_hierarchy it is not for those below
		}
		used, err := r.used(dir, c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		shares = append(shares, share{total: limit, left: less(limit, used), by: Cgroup})
	}
	switch {
	case len(errs) > 0:
		return shares, errs[0]
	case len(shares) > 0:
		return shares, nil
	case !seen:
		return nil, fmt.Errorf("no %s in the process's cgroups", c.limit)
	}
	return nil, errNoLimit
}

// used is the working set of a cgroup in bytes: what the kernel counts less the
// file cache it gives up first. Database files fill any limit with cache, so
// without the one figure the other says nothing.
func (r *Reader) used(dir string, c controller) (uint64, error) {
	usage, err := r.number(dir, c.usage)
	if err != nil {
		return 0, err
	}
	inactive, err := r.stat(dir, c.inactive)
	return less(usage, inactive), err
}

// number reads a file that has one number, or "max", for which it returns the
// largest.
func (r *Reader) number(dir, name string) (uint64, error) {
	name = path.Join(dir, name)
	text, err := read(r.files, name, maxFile)
	if err != nil {
		return 0, err
	}
	n, err := parseNumber(text)
	if err != nil {
		return 0, &fs.PathError{Op: "parse", Path: name, Err: err}
	}
	return n, nil
}

// stat reads one line of memory.stat.
func (r *Reader) stat(dir, key string) (uint64, error) {
	name := path.Join(dir, "memory.stat")
	text, err := read(r.files, name, maxFile)
	if err != nil {
		return 0, err
	}
	n, err := parseStat(text, key)
	if err != nil {
		return 0, &fs.PathError{Op: "parse", Path: name, Err: err}
	}
	return n, nil
}

func parseNumber(text string) (uint64, error) {
	text = strings.TrimSpace(text)
	if text == "max" {
		return 1<<64 - 1, nil
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("no number: %.20q", text)
	}
	return n, nil
}

// parseStat finds the number after a key at the beginning of a line.
func parseStat(text, key string) (uint64, error) {
	for line := range strings.Lines(text) {
		if k, v, _ := strings.Cut(line, " "); k == key {
			return parseNumber(v)
		}
	}
	return 0, errors.New("no " + key)
}

// lists reports whether a list separated by commas has a word.
func lists(list, word string) bool { return slices.Contains(strings.Split(list, ","), word) }

// read returns a file's text, at most limit bytes of it.
func read(files fs.FS, name string, limit int64) (string, error) {
	f, err := files.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, limit))
	return string(text), err
}
