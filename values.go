package leakguard

import (
	"database/sql/driver"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/internal/capi"
)

// Values between Go and SQLite, as go-sqlite3 has them.

// bind takes arguments by position. It returns false for those that go-sqlite3 is
// to bind, or to refuse.
func bind(to *capi.Args, args []driver.NamedValue) bool {
	to.Clear()
	if len(args) > maxDirectArgs {
		return false
	}
	size := 0
	for i := range args {
		a := &args[i]
		if a.Name != "" || a.Ordinal != i+1 {
			return false
		}
		switch v := a.Value.(type) {
		case int64:
			to.Int(v)
		case string:
			if size += len(v); size > maxDirectBytes {
				return false
			}
			to.Text(v)
		case nil:
			to.Null()
		case float64:
			to.Float(v)
		case bool:
			if v {
				to.Int(1)
			} else {
				to.Int(0)
			}
		case []byte:
			if size += len(v); size > maxDirectBytes {
				return false
			}
			if v == nil {
				to.Null()
			} else {
				to.Blob(v)
			}
		case time.Time:
			to.Time(v, timeLayouts()[0])
		default:
			return false
		}
	}
	return true
}

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

// values hands the present row out.
func (k *runner) values(dest []driver.Value) {
	row := k.run.Row()
	for i := range dest {
		v := &row[i]
		switch v.Kind() {
		case capi.Integer:
			switch n := v.Int(); k.becomes[i] {
			case itself:
				dest[i] = n
			case aTime:
				dest[i] = k.in(unixTime(n))
			case aBool:
				dest[i] = n > 0
			}
		case capi.Text:
			s := v.Text()
			if k.becomes[i] == aTime {
				dest[i] = k.in(parseTime(s))
			} else {
				dest[i] = s
			}
		case capi.Float:
			dest[i] = v.Float()
		case capi.Blob:
			dest[i] = v.Blob()
		default:
			dest[i] = nil
		}
	}
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
