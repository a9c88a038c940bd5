package debughttp

import (
	"encoding/json"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// Var returns an expvar.Var that is the tracker's Stats as JSON; nil stands for tracker.Default():
//
//	expvar.Publish("leakguard", debughttp.Var(nil))
//
// This package does not import expvar, which serves /debug/vars by being
// imported.
func Var(t *tracker.Tracker) interface{ String() string } {
	if t == nil {
		t = tracker.Default()
	}
	return statsVar{t}
}

type statsVar struct{ t *tracker.Tracker }

func (v statsVar) String() string {
	text, err := json.Marshal(v.t.Stats())
	if err != nil {
		return "{}" // figures and valid texts always marshal
	}
	return string(text)
}
