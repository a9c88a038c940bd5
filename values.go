package leakguard

import (
	"strings"
	"time"
)

// Values between Go and SQLite, as go-sqlite3 has them.

// becomes is what a column's values become, by its declared type.
type becomes uint8

const (
	itself becomes = iota
	aTime
	aBool
)

func becomesOf(declared string) becomes {
	switch strings.ToLower(declared) {
	case "timestamp", "datetime", "date":
		return aTime
	case "boolean":
		return aBool
	}
	return itself
}

func (k *runner) in(t time.Time) time.Time {
	if k.loc != nil {
		return t.In(k.loc)
	}
	return t
}

// unixTime takes seconds, or milliseconds if there are too many for that.
func unixTime(n int64) time.Time {
	if n > 1e12 || n < -1e12 {
		return time.Unix(0, n*int64(time.Millisecond)).UTC()
	}
	return time.Unix(n, 0).UTC()
}

// parseTime returns the zero time for a text that is none.
func parseTime(s string) time.Time {
	s = strings.TrimSuffix(s, "Z")
	for _, layout := range timeLayouts() {
		if t, err := time.ParseInLocation(layout, s, time.UTC); err == nil {
			return t
		}
	}
	return time.Time{}
}
