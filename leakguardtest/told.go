package leakguardtest

import (
	"runtime"
	"sync"
	"weak"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// toldLeaks are those that a check has told of one tracker. A leak that is
// over stays in the history, and the tests that come later are not to blame.
type toldLeaks struct {
	mu   sync.Mutex
	keys map[key]struct{}
}

var toldBy struct {
	sync.Mutex
	of map[weak.Pointer[tracker.Tracker]]*toldLeaks // without keeping trackers alive
}

func toldOf(t *tracker.Tracker) *toldLeaks {
	toldBy.Lock()
	defer toldBy.Unlock()
	w := weak.Make(t)
	told := toldBy.of[w]
	if told == nil {
		if toldBy.of == nil {
			toldBy.of = make(map[weak.Pointer[tracker.Tracker]]*toldLeaks)
		}
		told = &toldLeaks{keys: make(map[key]struct{})}
		toldBy.of[w] = told
		runtime.AddCleanup(t, func(w weak.Pointer[tracker.Tracker]) {
			toldBy.Lock()
			defer toldBy.Unlock()
			delete(toldBy.of, w)
		}, w)
	}
	return told
}

func (l *toldLeaks) has(k key) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, ok := l.keys[k]
	return ok
}

// add notes what is told now, and forgets what can never be found again.
func (l *toldLeaks) add(found findings, remembered current) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := range l.keys {
		if _, ok := remembered[k]; !ok {
			delete(l.keys, k)
		}
	}
	for _, f := range found {
		l.keys[f.key] = struct{}{}
	}
}

// tell words what was found, nil if nothing was.
func (o *options) tell(found findings) error {
	if len(found) == 0 {
		return nil
	}
	toldOf(o.tracker).add(found, currentOf(o.tracker))
	return describe(found)
}
