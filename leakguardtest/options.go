package leakguardtest

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Option changes what is checked and how.
type Option func(*options) error

type options struct {
	tracker *tracker.Tracker
	wait    time.Duration
	pools   []string // patterns
	exempt  bool     // is ignored
	known   map[*tracker.Tracker]current
	test    *charge // whose leaks are looked for
}

func gather(opts []Option) (*options, error) {
	o := &options{tracker: tracker.Default(), wait: time.Second}
	var errs []error
	for i, opt := range opts {
		if opt == nil {
			errs = append(errs, fmt.Errorf("leakguardtest: option %d of %d is nil", i+1, len(opts)))
			continue
		}
		errs = append(errs, opt(o))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return o, nil
}

// Tracker checks t instead of tracker.Default(), which nil stands for.
func Tracker(t *tracker.Tracker) Option {
	return func(o *options) error {
		if o.tracker = t; t == nil {
			o.tracker = tracker.Default()
		}
		return nil
	}
}

// Wait is how long to wait for what is open to be closed, 1s unless given. 0
// looks once, without collecting garbage. In a synctest bubble it is the
// bubble's time.
func Wait(d time.Duration) Option {
	return func(o *options) error {
		if d < 0 {
			return fmt.Errorf("leakguardtest: Wait(%v): want 0 or more", d)
		}
		o.wait = d
		return nil
	}
}

// IgnorePool leaves out pools by name. As in path.Match, * stands for any
// characters but "/": a pool that was given no name is called by its file and
// a number, so IgnorePool("cache.db-*") leaves out those of cache.db.
func IgnorePool(pattern string) Option {
	return func(o *options) error {
		if _, err := path.Match(pattern, ""); err != nil {
			return fmt.Errorf("leakguardtest: IgnorePool(%q): %w", pattern, err)
		}
		o.pools = append(o.pools, pattern)
		return nil
	}
}

// IgnoreExempt leaves out what was opened with leakguard.Exempt.
func IgnoreExempt() Option {
	return func(o *options) error {
		o.exempt = true
		return nil
	}
}

// IgnoreCurrent leaves out what is open, and the leaks that are over, at the
// time of its own call, in the trackers given or, if none is, in
// tracker.Default():
//
//	defer leakguardtest.VerifyNone(t, leakguardtest.IgnoreCurrent())
func IgnoreCurrent(of ...*tracker.Tracker) Option {
	if len(of) == 0 {
		of = []*tracker.Tracker{tracker.Default()}
	}
	known := make(map[*tracker.Tracker]current, len(of))
	for _, t := range of {
		if t == nil {
			t = tracker.Default()
		}
		known[t] = currentOf(t)
	}
	return func(o *options) error {
		if o.known == nil {
			o.known = make(map[*tracker.Tracker]current)
		}
		for t, c := range known {
			all := maps.Clone(c)
			maps.Copy(all, o.known[t])
			o.known[t] = all
		}
		return nil
	}
}

// ignoresPool reports whether a pool was named by IgnorePool.
func (o *options) ignoresPool(name string) bool {
	for _, pattern := range o.pools {
		if ok, _ := path.Match(pattern, name); ok || pattern == name {
			return true
		}
	}
	return false
}
