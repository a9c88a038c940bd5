package leakguard

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// The operator's last word, without a rebuild: the environment variable LEAKGUARD.
// It must never keep a service from starting, so that what is wrong in it is told,
// and ignored.

// environment is what LEAKGUARD says.
type environment struct {
	items []tracker.EnvironmentItem // as written
	rules []rule                    // those that can be used
	told  atomic.Bool
}

// rule is one item that can be used.
type rule struct {
	pool  string // whose it is, "" for all
	param *dsnParam
	value string
}

// theEnvironment reads the variable when the first pool is made, and never again. It
// is nil if there is none.
var theEnvironment = sync.OnceValue(func() *environment {
	return parseEnvironment(os.Getenv("LEAKGUARD"))
})

// parseEnvironment reads a comma-separated list of the DSN's keys without their
// prefix, with their values as they are, not escaped; a mode stands for itself, and
// pool=NAME: limits the item behind it to that pool.
func parseEnvironment(text string) *environment {
	e := &environment{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		r, err := parseRule(item)
		if err == nil {
			err = e.add(r)
		}
		known := tracker.EnvironmentItem{Text: item}
		if err != nil {
			known.Error = err.Error()
		}
		e.items = append(e.items, known)
	}
	if len(e.items) == 0 {
		return nil
	}
	return e
}

func parseRule(item string) (rule, error) {
	var r rule
	if named, ok := strings.CutPrefix(item, "pool="); ok {
		i := strings.LastIndexByte(named, ':') // a name may have one
		if i <= 0 {
			return rule{}, errors.New("want pool=NAME: and behind it what is for that pool")
		}
		r.pool, item = named[:i], strings.TrimSpace(named[i+1:])
	}
	key, value, assigned := strings.Cut(item, "=")
	if assigned {
		r.param, r.value = dsnLookup(dsnPrefix+"_"+strings.TrimSpace(key)), strings.TrimSpace(value)
	} else {
		r.param, r.value = dsnLookup(dsnPrefix), item // a mode
	}
	switch {
	case r.param != nil:
	case environmentKey(key) != "":
		return rule{}, fmt.Errorf("unknown key %q: did you mean %s? %s", key, environmentKey(key), environmentKnown())
	default:
		return rule{}, fmt.Errorf("unknown key %q: %s", key, environmentKnown())
	}
	if err := r.param.set(&Config{}, r.value); err != nil {
		switch {
		case assigned:
			return rule{}, err
		case dsnLookup(dsnPrefix+"_"+item) != nil:
			return rule{}, fmt.Errorf("want a value for it: %s=…", item)
		}
		return rule{}, errors.New(environmentKnown())
	}
	return r, nil
}

// environmentKey is how the key that was probably meant is written here.
func environmentKey(key string) string {
	if name, ok := dsnName(key); ok { // with its prefix
		key = strings.TrimPrefix(name, "_")
	}
	if key == "mode" || key == "" {
		return "one of enforce, observe, basic and off by itself"
	}
	return strings.TrimPrefix(dsnSuggest(dsnPrefix+"_"+key), dsnPrefix+"_")
}

// environmentKnown says what may be written.
func environmentKnown() string {
	var b strings.Builder
	b.WriteString("want enforce, observe, basic or off, or a value for one of ")
	for i, p := range dsnParams[1:] {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strings.TrimPrefix(p.key, dsnPrefix+"_"))
	}
	return b.String()
}

func (e *environment) add(r rule) error {
	for _, first := range e.rules {
		if first.pool == r.pool && first.param == r.param {
			return fmt.Errorf("given twice, first as %q: want each key once", first.value)
		}
	}
	e.rules = append(e.rules, r)
	return nil
}

// apply puts what is said for the pool with one of these names into its
// configuration, and returns the keys. What is said for the pool beats what is said
// for all.
func (e *environment) apply(c *Config, names ...string) (pinned []string) {
	if e == nil {
		return nil
	}
	for _, named := range []bool{false, true} {
		for _, r := range e.rules {
			if named != (r.pool != "") || named && r.pool != c.Name && !slices.Contains(names, r.pool) {
				continue
			}
			r.param.set(c, r.value) // checked when it was read
			pinned = append(pinned, pinName(r.param.key))
		}
	}
	return pinned
}

// names reports whether something is said for the pool with that name.
func (e *environment) names(pool string) bool {
	return e != nil && slices.ContainsFunc(e.rules, func(r rule) bool { return r.pool == pool })
}

// tell notes it for the reports of a tracker, and has it logged once in the process,
// by the logger of the first pool; p is nil in mode off.
func (e *environment) tell(t *tracker.Tracker, p *tracker.Pool) {
	if e == nil {
		return
	}
	t.SetEnvironment(e.items)
	if !e.told.Swap(true) {
		t.TellEnvironment(p)
	}
}

// pinName is a key as the tracker's pools know it.
func pinName(key string) string {
	if key == dsnPrefix {
		return tracker.KeyMode
	}
	return strings.TrimPrefix(key, dsnPrefix+"_")
}

// poolKeys are the limits as the tracker's pools know them: they can be changed while
// the pool is open.
var poolKeys = sync.OnceValue(func() (keys []tracker.Key) {
	for _, p := range dsnParams {
		if !p.limit {
			continue
		}
		keys = append(keys, tracker.Key{
			Name: pinName(p.key),
			Doc:  p.doc,
			Get:  func(policy *tracker.Policy) string { return p.get(&Config{Policy: *policy}) },
			Set: func(policy *tracker.Policy, value string) error {
				c := Config{Policy: *policy}
				err := p.set(&c, value)
				if err == nil {
					*policy = c.Policy
				}
				return err
			},
		})
	}
	return keys
})
