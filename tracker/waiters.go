package tracker

import (
	"cmp"
	"runtime"
	"slices"
	"strings"
)

// Who waits for a place: database/sql counts waits and tells nobody who waits now, so
// the goroutines are looked through for those inside sql.DB that wait for one.

// maxGoroutines bounds what a profile costs: 5 MB and some milliseconds.
const maxGoroutines = 20000

// profileGoroutines returns the stacks of all goroutines; false if there are too many.
func profileGoroutines() ([]runtime.StackRecord, bool) {
	for range 3 { // more may begin meanwhile
		n := runtime.NumGoroutine()
		if n > maxGoroutines {
			return nil, false
		}
		all := make([]runtime.StackRecord, n+n/8+16)
		if n, ok := runtime.GoroutineProfile(all); ok {
			return all[:n], true
		}
	}
	return nil, false
}

// waitersOf groups those that wait for a place by their call, the most frequent first.
func waitersOf(goroutines []runtime.StackRecord) (waiters []Waiter, total int) {
	index := make(map[string]int)
	for i := range goroutines {
		pcs := Stack(goroutines[i].Stack())
		if !awaitsPlace(pcs) {
			continue
		}
		all := pcs.Frames()
		if slices.ContainsFunc(all, func(f Frame) bool { return f.Function == servingFunction }) {
			continue // the guard itself
		}
		total++
		frames := userFrames(pcs)
		var key strings.Builder
		for _, f := range frames {
			key.WriteString(f.Function)
			key.WriteString(f.String())
			key.WriteByte('\n')
		}
		at, known := index[key.String()]
		if !known {
			at = len(waiters)
			index[key.String()] = at
			waiters = append(waiters, Waiter{Stack: slices.Clone(pcs), frames: frames})
		}
		waiters[at].Count++
	}
	slices.SortStableFunc(waiters, func(a, b Waiter) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.Site().String(), b.Site().String()))
	})
	return waiters, total
}

// servingFunction is where the guard itself waits for a place.
var servingFunction = modulePath + "/tracker.sqlDB.serve"

// awaitsPlace reports whether a goroutine waits inside sql.DB for a place: the function
// that finds a connection waits by select for nothing else.
func awaitsPlace(pcs Stack) bool {
	selects := false
	for frames, more := runtime.CallersFrames(pcs), len(pcs) > 0; more; {
		var f runtime.Frame
		f, more = frames.Next()
		switch {
		case f.Function == "runtime.selectgo":
			selects = true
		case strings.HasPrefix(f.Function, "runtime."):
		default:
			return selects && f.Function == "database/sql.(*DB).conn"
		}
	}
	return false
}

// cameBy reports whether a goroutine with these frames came by the calls by which a
// lease was taken, and is further on in the function that took it: most likely it is
// the holder. Stacks may end early, so as much as both have is compared.
func cameBy(lease, waiter []Frame) bool {
	if len(lease) == 0 {
		return false
	}
	for i, f := range waiter {
		if f.Function != lease[0].Function || i == 0 && f == lease[0] {
			continue // it is another one that takes its first place there
		}
		n := min(len(lease)-1, len(waiter)-1-i)
		if n > 0 && slices.Equal(lease[1:n+1], waiter[i+1:i+1+n]) || n == 0 && len(lease) == 1 && len(waiter) == i+1 {
			return true
		}
	}
	return false
}
