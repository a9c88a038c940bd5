package leakguard

import (
	"errors"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// How the values of a DSN are written: each kind with its parser, its spelling and what
// an error says is allowed.

var errDSNMode = errors.New("want enforce, observe, basic or off")

var dsnMode = dsnKind[tracker.Mode]{
	parse: func(s string) (m tracker.Mode, err error) {
		if m.UnmarshalText([]byte(s)) != nil {
			err = errDSNMode // the caller has named the value already
		}
		return m, err
	},
	format: tracker.Mode.String,
}

var dsnExpiry = dsnKind[tracker.Expiry]{
	parse: func(s string) (e tracker.Expiry, err error) {
		if e.UnmarshalText([]byte(s)) != nil {
			err = errors.New("want refresh or close")
		}
		return e, err
	},
	format: tracker.Expiry.String,
}

var dsnSQL = dsnKind[tracker.SQLText]{
	parse: func(s string) (t tracker.SQLText, err error) {
		if t.UnmarshalText([]byte(s)) != nil {
			err = errors.New("want redacted, full or off")
		}
		return t, err
	},
	format: tracker.SQLText.String,
}

var dsnText = dsnKind[string]{
	parse:  func(s string) (string, error) { return s, nil },
	format: func(s string) string { return s },
}

var dsnSwitchedOn = dsnKind[bool]{
	parse: func(s string) (on bool, err error) {
		if s != "on" && s != "off" {
			return false, errors.New("want on or off")
		}
		return s == "on", nil
	},
	format: func(on bool) string {
		if on {
			return "on"
		}
		return "off"
	},
}

// dsnSwitchedOff is the wrong way round because the fields are: false, the zero
// value, has to be the default.
var dsnSwitchedOff = dsnKind[bool]{
	parse: func(s string) (off bool, err error) {
		on, err := dsnSwitchedOn.parse(s)
		return !on && err == nil, err
	},
	format: func(off bool) string { return dsnSwitchedOn.format(!off) },
}

var dsnDuration = dsnKind[time.Duration]{
	parse: func(s string) (time.Duration, error) {
		d, ok := dsnParseDuration(s)
		if !ok {
			return 0, errors.New("want a duration of 1ms or more such as 90s, 10m or 24h (units ms, s, m and h), or 0 to switch it off")
		}
		return d, nil
	},
	format: dsnFormatDuration,
}

// dsnPeriod is a duration that cannot be switched off.
func dsnPeriod(want string) dsnKind[time.Duration] {
	return dsnKind[time.Duration]{
		parse: func(s string) (time.Duration, error) {
			d, ok := dsnParseDuration(s)
			if !ok || d == 0 {
				return 0, errors.New(want)
			}
			return d, nil
		},
		format: dsnFormatDuration,
	}
}

func dsnParseDuration(s string) (time.Duration, bool) {
	d, err := time.ParseDuration(s)
	if err != nil || strings.HasPrefix(s, "-") {
		return 0, false
	}
	// ParseDuration rounds 0.1ns down to 0, which would switch the limit off.
	return d, d >= time.Millisecond || d == 0 && !strings.ContainsAny(s, "123456789")
}

func dsnFormatDuration(d time.Duration) string {
	if d == 0 {
		return "0"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return strings.Replace(s, "µs", "us", 1) // survives escaping readably
}

var dsnCount = dsnKind[int64]{
	parse: func(s string) (int64, error) {
		n, err := strconv.ParseUint(s, 10, 63) // unsigned: no sign, not even +
		if err != nil {
			return 0, errors.New("want a whole number such as 1000, or 0 to switch it off")
		}
		return int64(n), nil
	},
	format: func(n int64) string { return strconv.FormatInt(n, 10) },
}

// dsnUnits is in the order of preference among equally short spellings.
var dsnUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"", 1}, {"B", 1},
}

var dsnSize = dsnKind[int64]{
	parse: func(s string) (int64, error) {
		digits := strings.TrimRight(s, "BGIKMbgikm")
		n, ok := dsnDecimal(digits)
		for _, u := range dsnUnits {
			if !ok || !strings.EqualFold(s[len(digits):], u.name) {
				continue
			}
			n.Mul(n, new(big.Rat).SetInt64(u.bytes))
			if !n.IsInt() {
				return 0, errors.New("want a whole number of bytes")
			}
			if !n.Num().IsInt64() {
				return 0, errors.New("want at most 9223372036854775807 bytes")
			}
			return n.Num().Int64(), nil
		}
		return 0, errors.New("want a size such as 50MiB, 64MB or 1048576 (bytes), or 0 to switch it off")
	},
	format: func(n int64) string {
		if n == 0 {
			return "0"
		}
		var shortest string
		for _, u := range dsnUnits {
			if n%u.bytes != 0 {
				continue
			}
			if s := strconv.FormatInt(n/u.bytes, 10) + u.name; shortest == "" || len(s) < len(shortest) {
				shortest = s
			}
		}
		return shortest
	},
}

var dsnShare = dsnKind[float64]{
	parse: func(s string) (float64, error) {
		digits, percent := strings.CutSuffix(s, "%")
		if n, ok := dsnDecimal(digits); ok {
			if percent {
				// Exactly, so that 12.3% is the same number as 0.123.
				n.Mul(n, big.NewRat(1, 100))
			}
			// The share that is too small for a float64 must not become 0,
			// which would switch the limit off; nor 1.00…01 become 1.
			f, _ := n.Float64()
			if n.Cmp(big.NewRat(1, 1)) <= 0 && (f != 0 || n.Sign() == 0) {
				return f, nil
			}
		}
		return 0, errors.New("want a share between 0 and 1 such as 0.85 or 85%, or 0 to switch it off")
	},
	format: func(f float64) string {
		if f == 0 {
			return "0" // also for the negative zero, which parse would not take
		}
		return strconv.FormatFloat(f, 'f', -1, 64)
	},
}

// dsnDecimal reads digits with at most one point between them. It takes less
// than big.Rat does: no sign, no exponent, no quotient, no other base.
func dsnDecimal(s string) (*big.Rat, bool) {
	whole, fraction, point := strings.Cut(s, ".")
	if whole == "" || point && fraction == "" || strings.Trim(whole+fraction, "0123456789") != "" {
		return nil, false
	}
	return new(big.Rat).SetString(s)
}
