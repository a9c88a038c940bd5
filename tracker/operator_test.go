package tracker

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// durationKey is a limit that is written as time.ParseDuration takes it.
func durationKey(name string, field func(*Policy) *time.Duration) Key {
	return Key{
		Name: name, Doc: "the " + name,
		Get: func(p *Policy) string { return field(p).String() },
		Set: func(p *Policy, s string) error {
			d, err := time.ParseDuration(s)
			if err != nil {
				return errors.New("want a duration such as 90s")
			}
			*field(p) = d
			return nil
		},
	}
}

var testKeys = []Key{
	durationKey("leak_after", func(p *Policy) *time.Duration { return &p.LeakAfter }),
	durationKey("tx_timeout", func(p *Policy) *time.Duration { return &p.TxTimeout }),
}

func changesTold(t *Tracker) (told []string) {
	for _, e := range t.History() {
		if e.Type == EventChanged {
			told = append(told, string(e.Reason))
		}
	}
	return told
}

func TestPools(t *testing.T) {
	tr := New(Options{})
	if got := tr.Pools(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	b := newPool(t, tr, PoolConfig{Name: "b", Logger: quiet})
	a := newPool(t, tr, PoolConfig{Name: "a", Mode: Basic, Logger: quiet})
	c := a.Open(still{}, true, "")
	got := tr.Pools()
	if len(got) != 2 || got[0] != a || got[1] != b {
		t.Errorf("%v", got)
	}
	a.Close()
	b.Close()
	if got := tr.Pools(); len(got) != 1 || got[0] != a {
		t.Errorf("closed, and one has a connection left: %v", got)
	}
	c.Close()
	if got := tr.Pools(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if guarded, off := tr.Opened(); guarded != 2 || off != 0 {
		t.Errorf("%d guarded, %d off", guarded, off)
	}
	tr.PassedThrough()
	if guarded, off := tr.Opened(); guarded != 2 || off != 1 {
		t.Errorf("%d guarded, %d off", guarded, off)
	}
}

// What the operator has set stays, and all else is the program's to change.
func TestPinned(t *testing.T) {
	tr := New(Options{})
	own := DefaultPolicy()
	own.LeakAfter = 30 * time.Second
	p := newPool(t, tr, PoolConfig{Name: "db", Mode: Observe, Policy: own, Keys: testKeys, Pinned: []string{KeyMode, "leak_after"}, Logger: quiet})
	want := DefaultPolicy()
	want.LeakAfter, want.TxTimeout = time.Hour, time.Minute
	if err := p.SetPolicy(want); err != nil {
		t.Fatal(err)
	}
	want.LeakAfter = 30 * time.Second
	if p.Policy() != want {
		t.Errorf("%+v", p.Policy())
	}
	for _, m := range []Mode{Enforce, Basic, Observe} {
		if err := p.SetMode(m); err != nil || p.Mode() != Observe {
			t.Errorf("%v: %v, mode %v", m, err, p.Mode())
		}
	}
	if err := p.SetMode(Off); err == nil {
		t.Error("off")
	}
	got := changesTold(tr)
	if len(got) != 3 || got[0] != "pool db: the operator's word stays, the program does not change it: leak_after=30s" ||
		got[1] != "pool db: the operator's word stays, the program does not change it: observe" {
		t.Errorf("%q", got)
	}

	// The operator himself changes his mind, and that stays.
	if err := p.Operate(map[string]string{KeyMode: "enforce", "leak_after": "20s"}); err != nil {
		t.Fatal(err)
	}
	if err := p.Operate(map[string]string{"tx_timeout": "9m"}); err != nil {
		t.Fatal(err)
	}
	p.SetPolicy(DefaultPolicy())
	p.SetMode(Basic)
	if p.Mode() != Enforce || p.Policy().LeakAfter != 20*time.Second || p.Policy().TxTimeout != 9*time.Minute {
		t.Errorf("%v, %+v", p.Mode(), p.Policy())
	}
	if got := changesTold(tr)[3]; got != "pool db: by the operator: leak_after=20s, it was 30s; mode=enforce, it was observe" {
		t.Error(got)
	}
	set := make(map[string]Setting)
	for _, s := range p.Settings() {
		set[s.Key] = s
	}
	if !maps.Equal(set, map[string]Setting{
		KeyMode:      {KeyMode, "enforce", "enforce, observe or basic", true},
		"leak_after": {"leak_after", "20s", "the leak_after", true},
		"tx_timeout": {"tx_timeout", "9m0s", "the tx_timeout", true},
	}) {
		t.Errorf("%v", set)
	}
}

// An error says what is allowed, and changes nothing at all.
func TestOperateErrors(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Name: "db", Keys: testKeys, Logger: quiet})
	for _, c := range []struct {
		key, value, want string
	}{
		{KeyMode, "of", `tracker: mode="of": want enforce, observe or basic`},
		{KeyMode, "off", `tracker: mode off cannot be set while the program runs`},
		{"tx_timeout", "1d", `tracker: tx_timeout="1d": want a duration such as 90s`},
		{"tx_timeout", "-1s", `tracker: policy: `},
		{"tx_timout", "1s", `tracker: unknown key "tx_timout": want one of mode, leak_after, tx_timeout`},
	} {
		err := p.Operate(map[string]string{"leak_after": "7s", c.key: c.value})
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s=%s: %v, want %s", c.key, c.value, err, c.want)
		}
	}
	if p.Policy() != DefaultPolicy() || p.Mode() != Enforce || len(changesTold(tr)) != 0 || p.Settings()[1].Pinned {
		t.Errorf("changed: %+v, %v, %q, %v", p.Policy(), p.Mode(), changesTold(tr), p.Settings())
	}
}

func TestEnvironmentIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New(Options{})
		var log bytes.Buffer
		p := newPool(t, tr, PoolConfig{Name: "db", Logger: slog.New(slog.NewTextHandler(&log, nil))})
		tr.SetEnvironment([]EnvironmentItem{{Text: "observe"}, {Text: "leak_after=1d", Error: "want a duration"}, {Text: "tx_limit=1h"}})
		tr.TellEnvironment(p)
		synctest.Wait()
		for _, want := range []string{
			`level=ERROR msg="setting ignored" component=leakguard pool=db reason="\"leak_after=1d\" of the environment variable LEAKGUARD is ignored: want a duration"`,
			`level=INFO msg="setting changed" component=leakguard pool=db reason="environment variable LEAKGUARD: observe,tx_limit=1h"`,
		} {
			if strings.Count(log.String(), want) != 1 {
				t.Errorf("%s is missing in\n%s", want, &log)
			}
		}
		tr.TellEnvironment(nil) // to slog.Default, and of no pool
		synctest.Wait()
		text, err := json.Marshal(tr.Stats())
		if err != nil || !strings.Contains(string(text), `"environment":[{"text":"observe"},{"text":"leak_after=1d","error":"want a duration"},{"text":"tx_limit=1h"}]`) {
			t.Errorf("%s, %v", text, err)
		}
		var report strings.Builder
		tr.WriteTo(&report)
		for _, want := range []string{"\nset by the environment variable LEAKGUARD: observe\n", "\nignored in the environment variable LEAKGUARD: leak_after=1d: want a duration\n"} {
			if !strings.Contains(report.String(), want) {
				t.Errorf("%q is missing in\n%s", want, &report)
			}
		}
		p.Close()
	})
}
