package tracker

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestExpiry(t *testing.T) {
	for _, c := range []struct {
		e    Expiry
		name string
	}{{Refresh, "refresh"}, {Close, "close"}} {
		if c.e.String() != c.name {
			t.Errorf("%v, want %s", c.e, c.name)
		}
		text, err := json.Marshal(c.e)
		if err != nil || string(text) != `"`+c.name+`"` {
			t.Errorf("%s: %s, %v", c.name, text, err)
		}
		back := Expiry(7)
		if err := json.Unmarshal(text, &back); err != nil || back != c.e {
			t.Errorf("%s: back as %v, %v", c.name, back, err)
		}
	}
	if s := Expiry(9).String(); s != "Expiry(9)" {
		t.Error(s)
	}
	if _, err := Expiry(9).MarshalText(); err == nil || err.Error() != "unknown expiry 9" {
		t.Error(err)
	}
	e := Close
	for _, text := range []string{"", "Close", "on", "refresh "} {
		if err := e.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), `unknown expiry "`+text+`": want refresh or close`) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if e != Close {
		t.Error("an error changed the value")
	}
	if *new(Expiry) != Refresh || DefaultPolicy().Expire != Refresh {
		t.Error("who says nothing does not get refresh")
	}
}

// The zero policy as a whole stands for the defaults; one that says only what is to
// become of connections is a policy without limits, and needs its intervals.
func TestExpiryOfPolicies(t *testing.T) {
	tr := New(Options{})
	p := newPool(t, tr, PoolConfig{Logger: quiet})
	policy := p.Policy()
	policy.Expire = Close
	if err := p.SetPolicy(policy); err != nil || p.Policy().Expire != Close {
		t.Errorf("%v, %v", p.Policy().Expire, err)
	}
	if q := newPool(t, tr, PoolConfig{Policy: policy, Logger: quiet}); q.Policy() != policy {
		t.Errorf("%+v", q.Policy())
	}
	if err := p.SetPolicy(Policy{}); err != nil || p.Policy() != DefaultPolicy() {
		t.Errorf("%+v, %v", p.Policy(), err)
	}
	if err := p.SetPolicy(Policy{Expire: Close}); err == nil || p.Policy() != DefaultPolicy() {
		t.Errorf("%+v, %v", p.Policy(), err)
	}
}
