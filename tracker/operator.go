package tracker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// KeyMode stands for the mode among the keys of a pool.
const KeyMode = "mode"

// Key is one limit as an operator knows it: by its key in the DSN, without the
// prefix, and with values written as there. Get and Set are pure.
type Key struct {
	Name, Doc string
	Get       func(*Policy) string
	// Set reads a value. Its error says what is allowed, and names neither key nor
	// value.
	Set func(*Policy, string) error
}

// Setting is what a pool has of one key at this moment.
type Setting struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	Doc   string `json:"doc"`
	// Pinned says that the operator has set it, by the environment or on the page.
	Pinned bool `json:"pinned,omitempty"`
}

// EnvironmentItem is one item of the environment variable LEAKGUARD.
type EnvironmentItem struct {
	Text string `json:"text"`
	// Error says why it is ignored, and what is allowed. Empty: it is in force.
	Error string `json:"error,omitempty"`
}

// Pools returns the pools that are open, and those that are closed and have
// connections left, by name. They change at run time by their SetPolicy and SetMode.
func (t *Tracker) Pools() []*Pool {
	t.mu.Lock()
	defer t.mu.Unlock()
	pools := make([]*Pool, 0, len(t.pools))
	for _, p := range t.pools {
		pools = append(pools, p)
	}
	slices.SortFunc(pools, func(a, b *Pool) int { return cmp.Compare(a.name, b.name) })
	return pools
}

// Settings returns what can be changed by Operate, the mode first.
func (p *Pool) Settings() []Setting {
	p.tracker.mu.Lock()
	defer p.tracker.mu.Unlock()
	policy := p.Policy()
	s := make([]Setting, 0, 1+len(p.keys))
	s = append(s, Setting{KeyMode, p.Mode().String(), "enforce, observe or basic", p.pinned[KeyMode]})
	for _, k := range p.keys {
		s = append(s, Setting{k.Name, k.Get(&policy), k.Doc, p.pinned[k.Name]})
	}
	return s
}

// Operate changes mode and limits by an operator's word, which beats what he said in
// the environment: values by key, KeyMode for the mode, as Settings returns them.
// SetPolicy and SetMode leave these keys alone from then on. An unknown key or a
// value that cannot be used is an error that says what is allowed, and then nothing
// is changed.
func (p *Pool) Operate(values map[string]string) error {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	t := p.tracker
	t.mu.Lock()
	mode, policy := p.Mode(), p.Policy()
	var changes []string
	for _, name := range names {
		was, err := p.operate(&mode, &policy, name, values[name])
		if err != nil {
			t.mu.Unlock()
			return err
		}
		changes = append(changes, fmt.Sprintf("%s=%s, it was %s", name, values[name], was))
	}
	if err := policy.Validate(); err != nil {
		t.mu.Unlock()
		return fmt.Errorf("tracker: policy: %w", err)
	}
	p.pin(names)
	p.setPolicyLocked(policy)
	p.setModeLocked(mode)
	t.mu.Unlock()
	if len(changes) > 0 {
		p.changed("by the operator: " + strings.Join(changes, "; "))
	}
	return nil
}

// operate changes one value of mode and policy, and returns what it was.
func (p *Pool) operate(mode *Mode, policy *Policy, name, value string) (was string, err error) {
	if name == KeyMode {
		var m Mode
		if m.UnmarshalText([]byte(value)) != nil {
			return "", fmt.Errorf("tracker: %s=%q: want enforce, observe or basic", name, value)
		}
		if m != *mode || m == Off {
			if err := p.mayTurn(m); err != nil {
				return "", err
			}
		}
		was, *mode = mode.String(), m
		return was, nil
	}
	for _, k := range p.keys {
		if k.Name != name {
			continue
		}
		was = k.Get(policy)
		if err := k.Set(policy, value); err != nil {
			return "", fmt.Errorf("tracker: %s=%q: %w", name, value, err)
		}
		return was, nil
	}
	known := []string{KeyMode}
	for _, k := range p.keys {
		known = append(known, k.Name)
	}
	return "", fmt.Errorf("tracker: unknown key %q: want one of %s", name, strings.Join(known, ", "))
}

// pin says that these keys are the operator's. The pool is new, or Tracker.mu is held.
func (p *Pool) pin(keys []string) {
	if len(keys) > 0 && p.pinned == nil {
		p.pinned = make(map[string]bool)
	}
	for _, name := range keys {
		p.pinned[name] = true
	}
}

// keepPinnedLocked puts what the operator has set into a policy that is to come, and
// returns what of it would have changed. Tracker.mu is held.
func (p *Pool) keepPinnedLocked(policy *Policy) (held []string) {
	have := p.policy.Load()
	for _, k := range p.keys {
		value := k.Get(have)
		if p.pinned[k.Name] && k.Get(policy) != value && k.Set(policy, value) == nil {
			held = append(held, k.Name+"="+value)
		}
	}
	return held
}

// toldPinned tells what the program could not change.
func (p *Pool) toldPinned(held ...string) {
	if len(held) > 0 {
		p.changed("the operator's word stays, the program does not change it: " + strings.Join(held, ", "))
	}
}

// changed tells of a change at run time.
func (p *Pool) changed(what string) {
	p.tracker.emit(Event{Type: EventChanged, Reason: Reason("pool " + p.name + ": " + what), pool: p})
}

// SetEnvironment notes what the operator set in the environment, for Stats and
// reports.
func (t *Tracker) SetEnvironment(items []EnvironmentItem) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.environment = items
}

// TellEnvironment tells loggers and subscribers of it: what is in force at info, what
// is ignored at error. The logger is p's, slog.Default if p is nil.
func (t *Tracker) TellEnvironment(p *Pool) {
	t.mu.Lock()
	items := t.environment
	t.mu.Unlock()
	var good []string
	for _, i := range items {
		if i.Error == "" {
			good = append(good, i.Text)
			continue
		}
		t.emit(Event{Type: EventChanged, Reason: Reason(fmt.Sprintf("%q of the environment variable LEAKGUARD is ignored: %s", i.Text, i.Error)), pool: p, bad: true})
	}
	if len(good) > 0 {
		t.emit(Event{Type: EventChanged, Reason: Reason("environment variable LEAKGUARD: " + strings.Join(good, ",")), pool: p})
	}
}

// PassedThrough counts a pool in mode off, of which nothing else is known.
func (t *Tracker) PassedThrough() { t.off.Add(1) }

// Opened returns how many pools were ever opened: under the guard, and in mode off,
// of which nothing is seen.
func (t *Tracker) Opened() (guarded, off uint64) { return t.guarded.Load(), t.off.Load() }
