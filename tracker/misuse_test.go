package tracker

import (
	"encoding"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// What is none of the known values prints its number, and is an error where it
// would be written down. The known ones are spelled as they print.
func TestUnknownValues(t *testing.T) {
	type value interface {
		fmt.Stringer
		encoding.TextMarshaler
	}
	for want, v := range map[string]value{
		"Kind(5)": KindPool + 1, "Kind(255)": Kind(255),
		"EventType(19)": EventLost + 1, "EventType(255)": EventType(255),
		"TxState(4)": TxWrite + 1, "TxState(255)": TxState(255),
		"Mode(4)": Off + 1,
	} {
		if v.String() != want {
			t.Errorf("%q, want %s", v, want)
		}
		if text, err := v.MarshalText(); err == nil || text != nil || !strings.HasPrefix(err.Error(), "unknown ") {
			t.Errorf("%s: %q, %v", want, text, err)
		}
		if text, err := json.Marshal(v); err == nil {
			t.Errorf("%s: %s", want, text)
		}
	}
	for want, v := range map[string]value{"pool": KindPool, "lent": EventLent, "write": TxWrite, "off": Off} {
		text, err := v.MarshalText()
		if v.String() != want || string(text) != want || err != nil {
			t.Errorf("%s: %v, %s, %v", want, v, text, err)
		}
	}
}

// Nothing that is empty panics when it is printed.
func TestEmptyValues(t *testing.T) {
	for _, v := range []fmt.Stringer{
		Leak{}, Leak{Kind: 99}, Blame{}, Pressure{}, Frame{}, Stack(nil), Trace{}, Held{}.Site(), BlameCount{}.Site(), Leak{}.LastSite(),
	} {
		_ = v.String()
	}
	for _, e := range []Event{{}, {Type: 99}, {Type: EventSuspect, Leak: &Leak{}}, {Type: EventBlocked, Blame: &Blame{}}, {Type: EventPressure, Pressure: &Pressure{}}} {
		_ = e.message()
	}
	var s Stats
	_ = s.Sub(Stats{})
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}

// A nil callback is refused when it is given, not when it would be called.
func TestNilCallbacks(t *testing.T) {
	tr := New(Options{})
	for want, f := range map[string]func(){
		"Subscribe: f":          func() { tr.Subscribe(nil) },
		"SubscribeLifecycle: f": func() { tr.SubscribeLifecycle(nil) },
		"OnLeak: f":             func() { tr.OnLeak(nil) },
		"AddDetector: d":        func() { tr.AddDetector(nil) },
		"TimeLeases: f":         func() { tr.TimeLeases(nil) },
		"Go: f":                 func() { tr.Go(nil) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); got != "tracker: "+want+" is nil" {
					t.Errorf("panic %q, want tracker: %s is nil", got, want)
				}
			}()
			f()
		}()
	}
	// These mean something by it.
	tr.SetTraceHook(nil)
	tr.SetMemorySource(nil)
	tr.OfferMemorySource(nil, nil)
	p := newPool(t, tr, PoolConfig{Logger: quiet})
	p.Open(still{}, true, "").Close()
	p.Close()
	tr.Close()

	if n, err := tr.WriteTo(nil); n != 0 || err == nil || !strings.Contains(err.Error(), "w is nil") {
		t.Errorf("WriteTo: %d, %v", n, err)
	}
	for _, bad := range []*Tracker{nil, {}} {
		if p, err := bad.NewPool(PoolConfig{}); p != nil || err == nil || !strings.Contains(err.Error(), "New makes one") {
			t.Errorf("NewPool of a Tracker that nobody made: %v, %v", p, err)
		}
	}
}
