package leakguard

import (
	"sync"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/gate"
	"github.com/sqlite-leakguard/sqlite-leakguard/internal/meminfo"
	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

var machine = sync.OnceValue(meminfo.New)

// readMemory reads what machine, process and SQLite use, for the memory monitor.
func readMemory() tracker.Memory {
	r := machine().Read()
	m := tracker.Memory{
		Total: r.Total, Used: r.Used, UsedPercent: r.UsedPercent, LimitedBy: r.LimitedBy,
		ProcessRSS: r.ProcessRSS, SwapUsed: r.SwapUsed, SwapTotal: r.SwapTotal, GoLimit: r.GoLimit,
		Stall: r.Stall, HasStall: r.HasStall,
	}
	for _, s := range r.Sources {
		m.Sources = append(m.Sources, tracker.MemorySource{Name: s.Name, State: s.State})
	}
	state := "ok"
	if n, ok := capi.MemoryUsed(); ok {
		m.SQLite = uint64(n)
	} else {
		state = "this binary cannot tell"
	}
	m.Sources = append(m.Sources, tracker.MemorySource{Name: "sqlite", State: state})
	return m
}

// CacheSize returns what the program lets the connection's caches hold if the gate is
// free. An authorizer of the program may be called; if it panics, SQLite's mutex may
// be locked for ever, so nobody may touch the connection any more.
func (k control) CacheSize() (bytes int64, ok bool) {
	c := k.conn.Value()
	if c == nil || !c.gate.Try() {
		return 0, false
	}
	returned := false
	defer func() {
		if !returned {
			recover()
			c.gate.Set(gate.Busy)
			c.lose()
		}
		c.gate.Release()
	}()
	switch {
	case c.raw.Load():
	case c.gate.Has(gate.Dead):
		ok = true
	default:
		c.wait.Stop(true) // a schema that has to be read must not wait for a lock here
		bytes, ok = c.db().TryCacheSize()
		c.wait.Stop(false)
	}
	returned = true
	return bytes, ok
}

// Memory returns what SQLite holds for the connection if the gate is free.
func (k control) Memory() (bytes int64, ok bool) {
	c := k.conn.Value()
	if c == nil || !c.gate.Try() {
		return 0, false
	}
	defer c.gate.Release()
	switch {
	case c.raw.Load():
		return 0, false // what runs on it does not pass the gate
	case c.gate.Has(gate.Dead):
		return 0, true
	}
	return c.db().TryMemory(c.gate.Shared() != nil)
}
