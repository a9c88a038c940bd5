package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// watch collects what the guard tells about leaks. A program that only wants
// to be told uses leakguard.OnLeak; this one also wants to know what became of
// them.
type watch struct {
	mu      sync.Mutex
	leaks   []*told
	changed chan struct{}
	cancel  func()
}

// told is one leak and the last that was heard of it.
type told struct {
	leak tracker.Leak
	last tracker.EventType
	from string // site, as reports print it
}

func newWatch() *watch {
	w := &watch{changed: make(chan struct{}, 1)}
	w.cancel = tracker.Default().Subscribe(w.event)
	return w
}

// event runs on the guard's dispatcher, outside every lock.
func (w *watch) event(e tracker.Event) {
	if e.Leak == nil {
		return
	}
	w.mu.Lock()
	i := slices.IndexFunc(w.leaks, func(t *told) bool { return t.leak.ID == e.Leak.ID })
	if i < 0 {
		i = len(w.leaks)
		w.leaks = append(w.leaks, &told{from: e.Leak.Site().String()})
	}
	w.leaks[i].leak, w.leaks[i].last = *e.Leak, e.Type
	w.mu.Unlock()
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// of returns what was told of a planted leak, nil if nothing was.
func (w *watch) of(p plant) *told {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.leaks {
		if t.leak.Kind == p.kind && t.from == p.site.String() {
			found := *t
			return &found
		}
	}
	return nil
}

// done reports whether the guard has done with a planted leak what it should.
func (w *watch) done(p plant) bool {
	t := w.of(p)
	return t != nil && (p.undone == "" || t.last == tracker.EventReaped)
}

// until waits until everything planted is done, and returns false if that
// takes too long. Two of the leaks are proven by garbage collection; it would
// run by itself sooner or later, here it is called.
func (w *watch) until(plants []plant) bool {
	deadline := time.After(patience)
	collect := time.NewTicker(50 * time.Millisecond)
	defer collect.Stop()
	for slices.ContainsFunc(plants, func(p plant) bool { return !w.done(p) }) {
		select {
		case <-w.changed:
		case <-collect.C:
			runtime.GC()
		case <-deadline:
			return false
		}
	}
	return true
}

// check returns what is wrong about what was told of a planted leak, "" if
// nothing is.
func (w *watch) check(p plant, all []plant) string {
	t := w.of(p)
	switch {
	case t == nil:
		if other := w.misnamed(p.kind, all); other != "" {
			return fmt.Sprintf("%v was planted at %v, but the guard named %s", p, p.site, other)
		}
		return fmt.Sprintf("%v, planted at %v, was not found within %v", p, p.site, patience)
	case !w.done(p):
		return fmt.Sprintf("%v, planted at %v, was found but not undone", p, p.site)
	}
	return ""
}

// misnamed returns the sites of leaks of a kind that were not planted.
func (w *watch) misnamed(k tracker.Kind, all []plant) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var sites []string
	for _, t := range w.leaks {
		planted := slices.ContainsFunc(all, func(p plant) bool { return p.site.String() == t.from })
		if t.leak.Kind == k && !planted {
			sites = append(sites, t.from)
		}
	}
	return strings.Join(sites, ", ")
}

// others counts the leaks that were not planted.
func (w *watch) others(all []plant) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, t := range w.leaks {
		if !slices.ContainsFunc(all, func(p plant) bool { return p.site.String() == t.from }) {
			n++
		}
	}
	return n
}
