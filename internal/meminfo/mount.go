package meminfo

import (
	"errors"
	"slices"
	"strings"
)

// mount is where a cgroup hierarchy is seen: the directory root of the hierarchy
// is at point in the file system. Paths of cgroups, root as well, are relative to
// the root of the process's cgroup namespace and begin with /.. if they are
// outside it.
type mount struct{ root, point string }

type hierarchy []mount

// mounts has the hierarchy of version 1 that controls memory, and version 2.
type mounts struct{ v1, v2 hierarchy }

var errOutside = errors.New("the process's cgroup is outside what is mounted")

// parseMounts reads /proc/self/mountinfo, and names the usual places if it has no
// cgroups.
//
// https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
func parseMounts(text string) (m mounts) {
	for line := range strings.Lines(text) {
		left, right, _ := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if len(l) < 5 || len(r) < 3 {
			continue
		}
		at := mount{root: escapes.Replace(l[3]), point: strings.Trim(escapes.Replace(l[4]), "/")}
		switch {
		case r[0] == "cgroup2":
			m.v2 = append(m.v2, at)
		case r[0] == "cgroup" && lists(r[2], "memory"):
			m.v1 = append(m.v1, at)
		}
	}
	if m.v1 == nil && m.v2 == nil {
		m.v1 = hierarchy{{root: "/", point: "sys/fs/cgroup/memory"}}
		m.v2 = hierarchy{{root: "/", point: "sys/fs/cgroup"}}
	}
	return m
}

// The kernel writes these characters of a path in octal.
var escapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")

// locate returns the mount point at which a cgroup is seen, and the names that
// lead from there to it. If not even its parents' names are known, but what is
// mounted is one of them, there are no names and exact is false.
func (h hierarchy) locate(cgroup string) (point string, below []string, exact bool, err error) {
	if cgroup == "" || len(h) == 0 {
		return "", nil, false, errors.New("not mounted")
	}
	err = errOutside
	for _, m := range h {
		b, e, ok := relate(m.root, cgroup)
		if ok && (err != nil || e && !exact) {
			point, below, exact, err = m.point, b, e, nil
		}
	}
	return point, below, exact, err
}

// relate returns the names that lead from one cgroup to one below it. If they are
// below different parents of the namespace's root, the names between are not
// known, and exact is false.
func relate(root, cgroup string) (below []string, exact, ok bool) {
	ru, rn, ok1 := split(root)
	cu, cn, ok2 := split(cgroup)
	switch {
	case !ok1 || !ok2:
		return nil, false, false
	case ru == cu:
		if len(rn) > len(cn) || !slices.Equal(rn, cn[:len(rn)]) {
			return nil, false, false
		}
		return cn[len(rn):], true, true
	case ru > cu && len(rn) == 0:
		return nil, false, true
	}
	// The cgroup is further up, or on another branch.
	return nil, false, false
}

// split takes a cgroup's path apart: how far up it leads from the namespace's
// root, and the names from there down.
func split(p string) (up int, names []string, ok bool) {
	if !strings.HasPrefix(p, "/") {
		return 0, nil, false
	}
	if p == "/" {
		return 0, nil, true
	}
	names = strings.Split(p[1:], "/")
	for len(names) > 0 && names[0] == ".." {
		up++
		names = names[1:]
	}
	for _, n := range names {
		if n == "" || n == "." || n == ".." {
			return 0, nil, false
		}
	}
	return up, names, true
}
