package leakguard

import (
	"encoding/json"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// refreshed returns how many connections were refreshed where they are.
func refreshed(s tracker.Stats) uint64 {
	var counts struct {
		Refreshed uint64 `json:"refreshed"`
	}
	text, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(text, &counts)
	}
	if err != nil {
		panic(err)
	}
	return counts.Refreshed
}
