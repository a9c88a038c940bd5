package tracker

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"
)

func TestDefaultPolicy(t *testing.T) {
	want := Policy{
		MaxLifetime: 30 * time.Minute, MaxIdle: 5 * time.Minute, ReportAfter: 30 * time.Second, Collect: true, LeakAfter: 5 * time.Minute, TxTimeout: 10 * time.Minute,
		MaxAccess: 1000, MaxStatements: 100, MaxPools: 20, WALLimit: 64 << 20, ConnMemory: 50 << 20, LeakMemory: 100 << 20, Pressure: 0.85,
		CheckInterval: time.Minute, MemoryInterval: 30 * time.Second,
	}
	if got := DefaultPolicy(); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := want.Validate(); err != nil {
		t.Error(err)
	}
	if err := limits(nil).Validate(); err != nil {
		t.Errorf("all limits off: %v", err)
	}
}

func TestPolicyValidate(t *testing.T) {
	for _, c := range []struct {
		change func(p *Policy)
		want   string
	}{
		{func(p *Policy) { p.MaxLifetime = -1 }, "max_lifetime is -1ns: want a duration of 1ms or more, or 0 to switch it off"},
		{func(p *Policy) { p.MaxIdle = -time.Second }, "max_idle is -1s: want a duration of 1ms or more, or 0 to switch it off"},
		{func(p *Policy) { p.LeakAfter = -time.Minute }, "leak_after is -1m0s: want a duration of 1ms or more, or 0 to switch it off"},
		{func(p *Policy) { p.TxTimeout = -1 }, "tx_timeout is -1ns: want a duration of 1ms or more, or 0 to switch it off"},
		{func(p *Policy) { p.TxLimit = -time.Hour }, "tx_limit is -1h0m0s: want a duration of 1ms or more, or 0 to switch it off"},
		{func(p *Policy) { p.Expire = 2 }, "expire: unknown expiry 2: want refresh or close"},
		{func(p *Policy) { p.MaxAccess = -1 }, "max_access is -1: want a positive number, or 0 to switch it off"},
		{func(p *Policy) { p.MaxStatements = -2 }, "max_statements is -2: want a positive number, or 0 to switch it off"},
		{func(p *Policy) { p.ConnMemory = -3 }, "conn_memory is -3: want a positive number, or 0 to switch it off"},
		{func(p *Policy) { p.LeakMemory = -4 }, "leak_memory is -4: want a positive number, or 0 to switch it off"},
		{func(p *Policy) { p.Pressure = 85 }, "pressure is 85: want a share between 0 and 1, or 0 to switch it off"},
		{func(p *Policy) { p.Pressure = -0.1 }, "pressure is -0.1: want a share between 0 and 1, or 0 to switch it off"},
		{func(p *Policy) { p.Pressure = math.NaN() }, "pressure is NaN: want a share between 0 and 1, or 0 to switch it off"},
		{func(p *Policy) { p.CheckInterval = 0 }, "check_interval is 0: want a duration of 1ms or more (mode basic runs without the reaper); start from tracker.DefaultPolicy() to change single limits"},
		{func(p *Policy) { p.CheckInterval = -1 }, "check_interval is -1ns: want a duration of 1ms or more (mode basic runs without the reaper)"},
		{func(p *Policy) { p.MemoryInterval = 0 }, "memory_interval is 0: want a duration of 1ms or more; start from tracker.DefaultPolicy() to change single limits"},
		{func(p *Policy) { p.MemoryInterval = -1 }, "memory_interval is -1ns: want a duration of 1ms or more"},
		{func(p *Policy) { p.LeakAfter = 300 }, "leak_after is 300ns: want a duration of 1ms or more, or 0 to switch it off"},
		{func(p *Policy) { p.MemoryInterval = 30 }, "memory_interval is 30ns: want a duration of 1ms or more"},
	} {
		p := DefaultPolicy()
		c.change(&p)
		if err := p.Validate(); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
		tr := New(Options{})
		if _, err := tr.NewPool(PoolConfig{Policy: p}); err == nil || err.Error() != "tracker: policy: "+c.want {
			t.Errorf("NewPool: %v", err)
		}
		if n := len(tr.pools); n != 0 {
			t.Errorf("NewPool registered %d pools in spite of the error", n)
		}
		pool := newPool(t, tr, PoolConfig{Logger: quiet})
		if err := pool.SetPolicy(p); err == nil || err.Error() != "tracker: policy: "+c.want {
			t.Errorf("SetPolicy: %v", err)
		}
		if pool.Policy() != DefaultPolicy() {
			t.Error("SetPolicy changed the policy in spite of the error")
		}
	}
	for _, change := range []func(p *Policy){
		func(p *Policy) { p.Pressure = 1 }, func(p *Policy) { p.Pressure = 0 },
		func(p *Policy) { p.MaxLifetime, p.MaxIdle, p.LeakAfter, p.TxTimeout = 0, 0, 0, 0 },
		func(p *Policy) { p.MaxAccess, p.MaxStatements, p.ConnMemory, p.LeakMemory = 0, 0, 0, 0 },
		func(p *Policy) { p.CheckInterval, p.MemoryInterval = time.Millisecond, time.Millisecond },
		func(p *Policy) { p.TxLimit, p.Expire = time.Minute, Close },
	} {
		p := DefaultPolicy()
		change(&p)
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestMode(t *testing.T) {
	for _, c := range []struct {
		m    Mode
		name string
	}{{Enforce, "enforce"}, {Observe, "observe"}, {Basic, "basic"}, {Off, "off"}} {
		if c.m.String() != c.name {
			t.Errorf("%v, want %s", c.m, c.name)
		}
		text, err := json.Marshal(c.m)
		if err != nil || string(text) != `"`+c.name+`"` {
			t.Errorf("%s: %s, %v", c.name, text, err)
		}
		var back Mode
		if err := json.Unmarshal(text, &back); err != nil || back != c.m {
			t.Errorf("%s: back as %v, %v", c.name, back, err)
		}
	}
	if s := Mode(9).String(); s != "Mode(9)" {
		t.Error(s)
	}
	if _, err := Mode(9).MarshalText(); err == nil || err.Error() != "unknown mode 9" {
		t.Error(err)
	}
	m := Observe
	for _, text := range []string{"", "Enforce", "on", "enforce "} {
		if err := m.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), `unknown mode "`+text+`": want enforce, observe, basic or off`) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if m != Observe {
		t.Error("an error changed the mode")
	}
	if new(Mode).String() != "enforce" {
		t.Error("the zero mode is not enforce")
	}
}
