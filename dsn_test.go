package leakguard

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// dsnConfig is what ParseDSN returns for dsn, changed by change.
func dsnConfig(dsn string, change func(*Config)) Config {
	c := Config{DSN: dsn, Policy: tracker.DefaultPolicy()}
	if change != nil {
		change(&c)
	}
	return c
}

func ExampleConfig_FormatDSN() {
	cfg, err := ParseDSN("file:app.db?_journal_mode=WAL&_leakguard_tx_timeout=90s")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(cfg.DSN, cfg.Policy.TxTimeout)

	cfg.Mode = tracker.Observe
	fmt.Println(cfg.FormatDSN())
	// Output:
	// file:app.db?_journal_mode=WAL 1m30s
	// file:app.db?_journal_mode=WAL&_leakguard=observe&_leakguard_tx_timeout=1m30s
}

func TestParseDSN(t *testing.T) {
	observe := func(c *Config) { c.Mode = tracker.Observe }
	for _, tt := range []struct {
		dsn, want string
		change    func(*Config)
	}{
		// Nothing of ours: every byte stays.
		{"", "", nil},
		{"?", "?", nil},
		{"app.db", "app.db", nil},
		{"app.db?", "app.db?", nil},
		{"app.db?&", "app.db?&", nil},
		{":memory:", ":memory:", nil},
		{"file:app.db?cache=shared&mode=memory", "file:app.db?cache=shared&mode=memory", nil},
		{"a%20b.db?x=%zz&&y;z&=", "a%20b.db?x=%zz&&y;z&=", nil},
		{"file:_leakguard%3Doff", "file:_leakguard%3Doff", nil}, // a file of that name
		{"/srv/_leakguard/app.db", "/srv/_leakguard/app.db", nil},
		{"_leakguard_tx_limit.db", "_leakguard_tx_limit.db", nil},
		{"leakguard=1.db", "leakguard=1.db", nil},
		{"my_leakguard=1.db", "my_leakguard=1.db", nil},
		{"app.db?leakguar=1&guard=2&_guard_leak=3&leak=4", "app.db?leakguar=1&guard=2&_guard_leak=3&leak=4", nil},
		{"app.db?x=_leakguard=off", "app.db?x=_leakguard=off", nil},
		{"app.db?x=1?_leakguard=off", "app.db?x=1?_leakguard=off", nil},
		{"app.db?%255Fleakguard=off", "app.db?%255Fleakguard=off", nil},
		{"file:x?mode=ro#frag?a&b", "file:x?mode=ro#frag?a&b", nil},

		// Ours alone, and among others in any place.
		{"app.db?_leakguard=observe", "app.db", observe},
		{"app.db?&_leakguard=observe", "app.db?", observe},
		{"app.db?_leakguard=observe&", "app.db?", observe},
		{":memory:?_leakguard=observe", ":memory:", observe},
		{"?_leakguard=observe", "", observe},
		{"?&_leakguard=observe", "?", observe},
		{"?a=b&_leakguard=observe", "?a=b", observe},
		{"file:a?_fk=1&_leakguard=observe&_txlock=immediate", "file:a?_fk=1&_txlock=immediate", observe},
		{"file:a%3fb?_leakguard=observe&_loc=Europe%2FParis&x=+%20", "file:a%3fb?_loc=Europe%2FParis&x=+%20", observe},
		{"app.db?%5Fleak%67uard=obs%65rve", "app.db", observe},
		{"app.db?_leakguard=observe&a#b", "app.db?a#b", observe}, // no fragment in a bare path
		{"a#b?_leakguard=observe", "a#b", observe},
		{"file:x?mode=ro&_leakguard=observe#frag", "file:x?mode=ro#frag", observe},
		{"file:x?_leakguard=observe#frag", "file:x#frag", observe},
		{"file:x?_leakguard=observe#frag?_fk=1", "file:x?#frag?_fk=1", observe}, // else _fk=1 would come to count
		{"file:x?&_leakguard=observe#", "file:x?#", observe},
		{"file:x#y?_leakguard=observe", "file:x#y", observe}, // go-sqlite3 reads on behind the fragment

		// Values.
		{"a?_leakguard=enforce", "a", nil},
		{"a?_leakguard=basic", "a", func(c *Config) { c.Mode = tracker.Basic }},
		{"a?_leakguard=off", "a", func(c *Config) { c.Mode = tracker.Off }},
		{"a?_leakguard_name=", "a", nil},
		{"a?_leakguard_name=my+pool%26%23%3B=%00", "a", func(c *Config) { c.Name = "my pool&#;=\x00" }},
		{"a?_leakguard_name=100%", "a", func(c *Config) { c.Name = "100%" }},
		{"a?_leakguard_stacks=on", "a", nil},
		{"a?_leakguard_stacks=off", "a", func(c *Config) { c.NoStacks = true }},
		{"a?_leakguard_sql=redacted", "a", nil},
		{"a?_leakguard_sql=full", "a", func(c *Config) { c.SQL = tracker.SQLFull }},
		{"a?_leakguard_sql=off", "a", func(c *Config) { c.SQL = tracker.SQLOff }},
		{"a?_leakguard_max_lifetime=1h30m", "a", func(c *Config) { c.Policy.MaxLifetime = 90 * time.Minute }},
		{"a?_leakguard_max_idle=0", "a", func(c *Config) { c.Policy.MaxIdle = 0 }},
		{"a?_leakguard_leak_after=0s", "a", func(c *Config) { c.Policy.LeakAfter = 0 }},
		{"a?_leakguard_tx_timeout=1.5s", "a", func(c *Config) { c.Policy.TxTimeout = 1500 * time.Millisecond }},
		{"a?_leakguard_tx_timeout=5000µs", "a", func(c *Config) { c.Policy.TxTimeout = 5 * time.Millisecond }},
		{"a?_leakguard_tx_limit=1h", "a", func(c *Config) { c.Policy.TxLimit = time.Hour }},
		{"a?_leakguard_tx_limit=0", "a", nil},
		{"a?_leakguard_expire=refresh", "a", nil},
		{"a?_leakguard_expire=close", "a", func(c *Config) { c.Policy.Expire = tracker.Close }},
		{"a?_leakguard_max_access=0", "a", func(c *Config) { c.Policy.MaxAccess = 0 }},
		{"a?_leakguard_max_access=9223372036854775807", "a", func(c *Config) { c.Policy.MaxAccess = math.MaxInt64 }},
		{"a?_leakguard_max_statements=7", "a", func(c *Config) { c.Policy.MaxStatements = 7 }},
		{"a?_leakguard_conn_memory=0", "a", func(c *Config) { c.Policy.ConnMemory = 0 }},
		{"a?_leakguard_conn_memory=1234", "a", func(c *Config) { c.Policy.ConnMemory = 1234 }},
		{"a?_leakguard_conn_memory=1234b", "a", func(c *Config) { c.Policy.ConnMemory = 1234 }},
		{"a?_leakguard_conn_memory=64kB", "a", func(c *Config) { c.Policy.ConnMemory = 64e3 }},
		{"a?_leakguard_conn_memory=64KB", "a", func(c *Config) { c.Policy.ConnMemory = 64e3 }},
		{"a?_leakguard_conn_memory=64MB", "a", func(c *Config) { c.Policy.ConnMemory = 64e6 }},
		{"a?_leakguard_conn_memory=2gb", "a", func(c *Config) { c.Policy.ConnMemory = 2e9 }},
		{"a?_leakguard_conn_memory=64KIB", "a", func(c *Config) { c.Policy.ConnMemory = 64 << 10 }},
		{"a?_leakguard_conn_memory=064MiB", "a", func(c *Config) { c.Policy.ConnMemory = 64 << 20 }},
		{"a?_leakguard_leak_memory=1.5GiB", "a", func(c *Config) { c.Policy.LeakMemory = 3 << 29 }},
		{"a?_leakguard_leak_memory=0.000000000931322574615478515625GiB", "a", func(c *Config) { c.Policy.LeakMemory = 1 }},
		{"a?_leakguard_leak_memory=9223372036854775807", "a", func(c *Config) { c.Policy.LeakMemory = math.MaxInt64 }},
		{"a?_leakguard_pressure=0.9", "a", func(c *Config) { c.Policy.Pressure = 0.9 }},
		{"a?_leakguard_pressure=90%", "a", func(c *Config) { c.Policy.Pressure = 0.9 }},
		{"a?_leakguard_pressure=12.3%25", "a", func(c *Config) { c.Policy.Pressure = 0.123 }},
		{"a?_leakguard_pressure=0%&x", "a?x", func(c *Config) { c.Policy.Pressure = 0 }},
		{"file:a?_leakguard_pressure=100%#f", "file:a#f", func(c *Config) { c.Policy.Pressure = 1 }},
		{"a?_leakguard_check_interval=10s", "a", func(c *Config) { c.Policy.CheckInterval = 10 * time.Second }},
		{"a?_leakguard_memory_interval=1ms", "a", func(c *Config) { c.Policy.MemoryInterval = time.Millisecond }},
	} {
		got, err := ParseDSN(tt.dsn)
		if err != nil {
			t.Errorf("ParseDSN(%q): %v", tt.dsn, err)
			continue
		}
		if want := dsnConfig(tt.want, tt.change); got != want {
			t.Errorf("ParseDSN(%q)\n got %+v\nwant %+v", tt.dsn, got, want)
		}
		if again, err := ParseDSN(got.FormatDSN()); err != nil || again != got {
			t.Errorf("ParseDSN(%q) = %+v, %v\nwant %+v", got.FormatDSN(), again, err, got)
		}
	}
}

func TestParseDSNErrors(t *testing.T) {
	const (
		known = `Known keys: _leakguard, _leakguard_name, _leakguard_stacks, _leakguard_sql, _leakguard_log, _leakguard_max_lifetime, ` +
			`_leakguard_max_idle, _leakguard_report_after, _leakguard_collect, _leakguard_leak_after, _leakguard_tx_timeout, _leakguard_tx_limit, _leakguard_max_access, ` +
			`_leakguard_max_statements, _leakguard_max_pools, _leakguard_wal_limit, _leakguard_conn_memory, _leakguard_leak_memory, _leakguard_pressure, _leakguard_expire, ` +
			`_leakguard_check_interval, _leakguard_memory_interval`
		duration = `want a duration of 1ms or more such as 90s, 10m or 24h (units ms, s, m and h), or 0 to switch it off`
		check    = `want a duration of 1ms or more such as 60s (_leakguard=basic runs without the reaper)`
		count    = `want a whole number such as 1000, or 0 to switch it off`
		size     = `want a size such as 50MiB, 64MB or 1048576 (bytes), or 0 to switch it off`
		share    = `want a share between 0 and 1 such as 0.85 or 85%, or 0 to switch it off`
		mode     = `want enforce, observe, basic or off`
	)
	for _, tt := range []struct{ dsn, want string }{
		{"a?_leakguard", `_leakguard="": ` + mode},
		{"a?_leakguard=", `_leakguard="": ` + mode},
		{"a?_leakguard=on", `_leakguard="on": ` + mode},
		{"a?_leakguard=Observe", `_leakguard="Observe": ` + mode},
		{"a?_leakguard=observe#frag", `_leakguard="observe#frag": ` + mode},
		{"a?_leakguard=observe?x=1", `_leakguard="observe?x=1": ` + mode},
		{"?_leakguard=x%0a", `_leakguard="x\n": ` + mode},
		{"a?_leakguard_sql=on", `_leakguard_sql="on": want redacted, full or off`},
		{"a?_leakguard_stacks=true", `_leakguard_stacks="true": want on or off`},
		{"a?_leakguard_name=a%zz", `_leakguard_name="a%zz": want "%" in a value escaped as %25`},
		{"a?_leakguard_name=%%", `_leakguard_name="%%": want "%" in a value escaped as %25`},
		{"a?_leakguard_name=a;b=1", `_leakguard_name="a;b=1": want "&" between parameters and ";" in a value escaped as %3B`},

		{"a?_leakguard_tx_timeout=abc", `_leakguard_tx_timeout="abc": ` + duration},
		{"a?_leakguard_tx_timeout", `_leakguard_tx_timeout="": ` + duration},
		{"a?_leakguard_tx_limit=1", `_leakguard_tx_limit="1": ` + duration},
		{"a?_leakguard_expire=", `_leakguard_expire="": want refresh or close`},
		{"a?_leakguard_expire=Close", `_leakguard_expire="Close": want refresh or close`},
		{"a?_leakguard_max_lifetime=-5m", `_leakguard_max_lifetime="-5m": ` + duration},
		{"a?_leakguard_max_lifetime=-0s", `_leakguard_max_lifetime="-0s": ` + duration},
		{"a?_leakguard_max_idle=90", `_leakguard_max_idle="90": ` + duration},
		{"a?_leakguard_leak_after=1d", `_leakguard_leak_after="1d": ` + duration},
		{"a?_leakguard_leak_after=+5m", `_leakguard_leak_after=" 5m": ` + duration},
		{"a?_leakguard_leak_after=9999999h", `_leakguard_leak_after="9999999h": ` + duration},
		{"a?_leakguard_leak_after=0.1ns", `_leakguard_leak_after="0.1ns": ` + duration},
		{"a?_leakguard_leak_after=5us", `_leakguard_leak_after="5us": ` + duration},
		{"a?_leakguard_leak_after=999999ns", `_leakguard_leak_after="999999ns": ` + duration},
		{"a?_leakguard_check_interval=999us", `_leakguard_check_interval="999us": ` + check},
		{"a?_leakguard_check_interval=0", `_leakguard_check_interval="0": ` + check},
		{"a?_leakguard_check_interval=0s", `_leakguard_check_interval="0s": ` + check},
		{"a?_leakguard_check_interval=-1s", `_leakguard_check_interval="-1s": ` + check},
		{"a?_leakguard_memory_interval=0", `_leakguard_memory_interval="0": want a duration of 1ms or more such as 30s`},
		{"a?_leakguard_memory_interval=30", `_leakguard_memory_interval="30": want a duration of 1ms or more such as 30s`},

		{"a?_leakguard_max_access=-1", `_leakguard_max_access="-1": ` + count},
		{"a?_leakguard_max_access=1e3", `_leakguard_max_access="1e3": ` + count},
		{"a?_leakguard_max_access=1_000", `_leakguard_max_access="1_000": ` + count},
		{"a?_leakguard_max_access=9223372036854775808", `_leakguard_max_access="9223372036854775808": ` + count},
		{"a?_leakguard_max_statements=", `_leakguard_max_statements="": ` + count},

		{"a?_leakguard_conn_memory=MiB", `_leakguard_conn_memory="MiB": ` + size},
		{"a?_leakguard_conn_memory=", `_leakguard_conn_memory="": ` + size},
		{"a?_leakguard_conn_memory=-1MiB", `_leakguard_conn_memory="-1MiB": ` + size},
		{"a?_leakguard_conn_memory=50M", `_leakguard_conn_memory="50M": ` + size},
		{"a?_leakguard_conn_memory=50 MiB", `_leakguard_conn_memory="50 MiB": ` + size},
		{"a?_leakguard_conn_memory=1TB", `_leakguard_conn_memory="1TB": ` + size},
		{"a?_leakguard_conn_memory=1.", `_leakguard_conn_memory="1.": ` + size},
		{"a?_leakguard_conn_memory=1.2.3MB", `_leakguard_conn_memory="1.2.3MB": ` + size},
		{"a?_leakguard_conn_memory=1/2MB", `_leakguard_conn_memory="1/2MB": ` + size},
		{"a?_leakguard_conn_memory=5\u212aB", "_leakguard_conn_memory=\"5\u212aB\": " + size}, // the Kelvin sign is a k in another case
		{"a?_leakguard_conn_memory=1.5", `_leakguard_conn_memory="1.5": want a whole number of bytes`},
		{"a?_leakguard_conn_memory=1.0001kB", `_leakguard_conn_memory="1.0001kB": want a whole number of bytes`},
		{"a?_leakguard_leak_memory=8589934592GiB", `_leakguard_leak_memory="8589934592GiB": want at most 9223372036854775807 bytes`},
		{"a?_leakguard_leak_memory=9223372036854775808", `_leakguard_leak_memory="9223372036854775808": want at most 9223372036854775807 bytes`},

		{"a?_leakguard_pressure=85", `_leakguard_pressure="85": ` + share},
		{"a?_leakguard_pressure=101%", `_leakguard_pressure="101%": ` + share},
		{"a?_leakguard_pressure=1.00000000000000000001", `_leakguard_pressure="1.00000000000000000001": ` + share},
		{"a?_leakguard_pressure=-0.5", `_leakguard_pressure="-0.5": ` + share},
		{"a?_leakguard_pressure=NaN", `_leakguard_pressure="NaN": ` + share},
		{"a?_leakguard_pressure=%", `_leakguard_pressure="%": ` + share},
		{"a?_leakguard_pressure=0." + strings.Repeat("0", 400) + "1",
			`_leakguard_pressure="0.` + strings.Repeat("0", 400) + `1": ` + share},

		{"a?_leakguard=off&_leakguard=off", `_leakguard="off": given twice, first as "off": want each key once`},
		{"a?_leakguard_tx_timeout=1m&x&%5fleakguard_tx_timeout=2m", `_leakguard_tx_timeout="2m": given twice, first as "1m": want each key once`},

		{"a?_leakguard_tx_timout=1m", `unknown key "_leakguard_tx_timout" with value "1m": did you mean _leakguard_tx_timeout? ` + known},
		{"a?_leakguard-max-idle=1m", `unknown key "_leakguard-max-idle" with value "1m": did you mean _leakguard_max_idle? ` + known},
		{"a?_leakguard_STACKS", `unknown key "_leakguard_STACKS" with value "": did you mean _leakguard_stacks? ` + known},
		{"a?_leakguard_mode=off", `unknown key "_leakguard_mode" with value "off": did you mean _leakguard? ` + known},
		{"a?_leakguard_=off", `unknown key "_leakguard_" with value "off": ` + known},
		{"a?_leakguards=off", `unknown key "_leakguards" with value "off": ` + known},
		{"a?leakguard_tx_limit=1h", `unknown key "leakguard_tx_limit" with value "1h": did you mean _leakguard_tx_limit? ` + known},
		{"a?_LEAKGUARD_TX_LIMIT=1h", `unknown key "_LEAKGUARD_TX_LIMIT" with value "1h": did you mean _leakguard_tx_limit? ` + known},
		{"a?_LeakGuard=off", `unknown key "_LeakGuard" with value "off": did you mean _leakguard? ` + known},
		{"a?leakguard=off", `unknown key "leakguard" with value "off": did you mean _leakguard? ` + known},
		{"a?_leak_guard_max_idle=0", `unknown key "_leak_guard_max_idle" with value "0": did you mean _leakguard_max_idle? ` + known},
		{"a?leak-guard-max-idle=0", `unknown key "leak-guard-max-idle" with value "0": did you mean _leakguard_max_idle? ` + known},
		{"a?%4Ceakguard=off", `unknown key "Leakguard" with value "off": did you mean _leakguard? ` + known},
		{"file:a#leakguard=off", `key "leakguard" with value "off" stands behind the "#" of a file: URI: want it before`},

		{"app.db&_leakguard=off", `key "_leakguard" with value "off" stands in the name of the file: want "?" before the first parameter, and "&" between them`},
		{"app.db_leakguard_tx_limit=1h&x=1", `key "_leakguard_tx_limit" with value "1h" stands in the name of the file: want "?" before the first parameter, and "&" between them`},
		{"app.db&_leakguard=of", `key "_leakguard" with value "of" stands in the name of the file: want "?" before the first parameter, and "&" between them`},
		{"_leakguard=off", `key "_leakguard" with value "off" stands in the name of the file: want "?" before the first parameter, and "&" between them`},
		{"file:app.db&_leakguard_name=n", `key "_leakguard_name" with value "n" stands in the name of the file: want "?" before the first parameter, and "&" between them`},
		{"a?_leakguard_colour=%72ed", `unknown key "_leakguard_colour" with value "red": ` + known},
		{"a?_leakguard%zz=1", `unknown key "_leakguard%zz" with value "1": ` + known},

		{"file:a?x#y&_leakguard=off", `key "_leakguard" with value "off" stands behind the "#" of a file: URI: want it before`},
		{"file:a#_leakguard=off", `key "_leakguard" with value "off" stands behind the "#" of a file: URI: want it before`},
		{"file:a#b&_leakguard_name=n?x", `key "_leakguard_name" with value "n" stands behind the "#" of a file: URI: want it before`},
	} {
		c, err := ParseDSN(tt.dsn)
		if err == nil {
			t.Errorf("ParseDSN(%q) = %+v, want an error", tt.dsn, c)
			continue
		}
		if want := "leakguard: " + tt.want; err.Error() != want {
			t.Errorf("ParseDSN(%q)\n got %s\nwant %s", tt.dsn, err, want)
		}
		if c != (Config{}) {
			t.Errorf("ParseDSN(%q) = %+v with an error, want the zero Config", tt.dsn, c)
		}
	}
}

func TestFormatDSN(t *testing.T) {
	observe := func(c *Config) { c.Mode = tracker.Observe }
	for _, tt := range []struct {
		dsn    string
		change func(*Config)
		want   string
	}{
		{"app.db", nil, "app.db"},
		{"app.db?", nil, "app.db?"},
		{"app.db", func(c *Config) { c.Policy = tracker.Policy{} }, "app.db"},
		{"app.db", observe, "app.db?_leakguard=observe"},
		{"app.db?", observe, "app.db?&_leakguard=observe"},
		{"", observe, "?_leakguard=observe"},
		{"?", observe, "?&_leakguard=observe"},
		{"a#b", observe, "a#b?_leakguard=observe"},
		{"file:x?mode=ro#frag", observe, "file:x?mode=ro&_leakguard=observe#frag"},
		{"file:x#frag", observe, "file:x?_leakguard=observe#frag"},
		{"file:x#frag?y", observe, "file:x#frag?y&_leakguard=observe"},
		{"a", func(c *Config) {
			c.Policy.TxTimeout = 90 * time.Second
			c.NoStacks = true
			c.Name = "a b&c#d;é"
			c.Mode = tracker.Off
		}, "a?_leakguard=off&_leakguard_name=a+b%26c%23d%3B%C3%A9&_leakguard_stacks=off&_leakguard_tx_timeout=1m30s"},
	} {
		c := dsnConfig(tt.dsn, tt.change)
		if got := c.FormatDSN(); got != tt.want {
			t.Errorf("FormatDSN of %+v\n got %s\nwant %s", c, got, tt.want)
		}
	}
}

func TestDSNValuesAreReadable(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                     "0",
		1:                     "1ns",
		1500:                  "1.5us",
		20 * time.Millisecond: "20ms",
		10 * time.Second:      "10s",
		90 * time.Second:      "1m30s",
		5 * time.Minute:       "5m",
		10 * time.Minute:      "10m",
		10*time.Minute + 1:    "10m0.000000001s",
		time.Hour:             "1h",
		20 * time.Hour:        "20h",
		100 * time.Minute:     "1h40m",
		time.Hour + 5e9:       "1h0m5s",
		math.MaxInt64:         "2562047h47m16.854775807s",
	} {
		if got := dsnDuration.format(d); got != want {
			t.Errorf("%d ns: got %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{
		0:             "0",
		1:             "1",
		1000:          "1kB",
		1024:          "1KiB",
		1536:          "1536",
		50 << 20:      "50MiB",
		3 << 29:       "1536MiB",
		2 << 30:       "2GiB",
		64e6:          "64MB",
		5e9:           "5GB",
		1024e3:        "1024kB", // 1000KiB is longer
		math.MaxInt64: "9223372036854775807",
	} {
		if got := dsnSize.format(n); got != want {
			t.Errorf("%d bytes: got %s, want %s", n, got, want)
		}
	}
	for f, want := range map[float64]string{0: "0", 1: "1", 0.85: "0.85", 1.0 / 3: "0.3333333333333333"} {
		if got := dsnShare.format(f); got != want {
			t.Errorf("share %v: got %s, want %s", f, got, want)
		}
	}
	if got := dsnShare.format(math.Copysign(0, -1)); got != "0" {
		t.Errorf("share -0: got %s, want 0", got)
	}
}

// The values are listed here, by key, so that a new key fails this test until
// it has one.
func TestDSNEveryKeyRoundTrips(t *testing.T) {
	values := map[string]string{
		"_leakguard":                 "observe",
		"_leakguard_name":            "orders",
		"_leakguard_stacks":          "off",
		"_leakguard_max_lifetime":    "1h",
		"_leakguard_max_idle":        "1m30s",
		"_leakguard_leak_after":      "0",
		"_leakguard_tx_timeout":      "1m",
		"_leakguard_tx_limit":        "1h",
		"_leakguard_max_access":      "50",
		"_leakguard_max_statements":  "0",
		"_leakguard_max_pools":       "7",
		"_leakguard_wal_limit":       "16MiB",
		"_leakguard_conn_memory":     "8MiB",
		"_leakguard_leak_memory":     "12345",
		"_leakguard_pressure":        "0.9",
		"_leakguard_expire":          "close",
		"_leakguard_sql":             "full",
		"_leakguard_log":             "off",
		"_leakguard_report_after":    "7s",
		"_leakguard_collect":         "off",
		"_leakguard_check_interval":  "5s",
		"_leakguard_memory_interval": "250ms",
	}
	all := "file:app.db?mode=rwc"
	changed := map[string]string{} // field by key
	for _, p := range dsnParams {
		value, ok := values[p.key]
		if !ok {
			t.Errorf("%s: no value in this test", p.key)
			continue
		}
		dsn := "app.db?" + p.key + "=" + value
		all += "&" + p.key + "=" + value
		c, err := ParseDSN(dsn)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := c.FormatDSN(); got != dsn {
			t.Errorf("%s: comes back as %s", dsn, got)
		}
		// Exactly one field differs from the defaults, and no other key's.
		fields := dsnDiff(reflect.ValueOf(c), reflect.ValueOf(dsnConfig("app.db", nil)), "")
		if len(fields) != 1 {
			t.Errorf("%s changes %v, want one field", dsn, fields)
			continue
		}
		for key, field := range changed {
			if field == fields[0] {
				t.Errorf("%s and %s both change %s", key, p.key, field)
			}
		}
		changed[p.key] = fields[0]
	}
	if len(values) != len(dsnParams) {
		t.Errorf("%d values for %d keys", len(values), len(dsnParams))
	}
	// Every limit there is has a key.
	if n := reflect.TypeFor[tracker.Policy]().NumField() + 5; n != len(changed) {
		t.Errorf("%d fields are reached by a key, want %d", len(changed), n)
	}
	c, err := ParseDSN(all)
	if err != nil {
		t.Fatal(err)
	}
	if c.DSN != "file:app.db?mode=rwc" || c.FormatDSN() != all {
		t.Errorf("all keys: DSN %s, formatted %s", c.DSN, c.FormatDSN())
	}
}

// dsnDiff returns the names of the fields that differ.
func dsnDiff(a, b reflect.Value, prefix string) (names []string) {
	for i := range a.NumField() {
		name := prefix + a.Type().Field(i).Name
		switch x, y := a.Field(i), b.Field(i); {
		case x.Kind() == reflect.Struct:
			names = append(names, dsnDiff(x, y, name+".")...)
		case !x.Equal(y):
			names = append(names, name)
		}
	}
	return names
}

// The comment of ParseDSN is the reference that users read.
func TestDSNKeysAreDocumented(t *testing.T) {
	src, err := os.ReadFile("dsn.go")
	if err != nil {
		t.Fatal(err)
	}
	_, comment, _ := strings.Cut(string(src), "\n// ParseDSN ")
	comment, _, _ = strings.Cut(comment, "\nfunc ParseDSN")
	var got, want []string
	for line := range strings.Lines(comment) {
		if row, ok := strings.CutPrefix(line, "//\t"); ok {
			got = append(got, strings.TrimSpace(row))
		}
	}
	for _, p := range dsnParams {
		want = append(want, fmt.Sprintf("%-26s  %s", p.key, p.doc))
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("the comment of ParseDSN says\n%s\nwant\n%s", g, w)
	}
}

func TestConfigWithDefaults(t *testing.T) {
	c, err := Config{DSN: "app.db", Mode: tracker.Basic}.withDefaults()
	if want := dsnConfig("app.db", func(c *Config) { c.Mode = tracker.Basic }); err != nil || c != want {
		t.Errorf("got %+v, %v\nwant %+v", c, err, want)
	}
	own := dsnConfig("", func(c *Config) { c.Policy.TxTimeout = 0 }) // switched off, not defaulted
	if c, err := own.withDefaults(); err != nil || c != own {
		t.Errorf("got %+v, %v\nwant %+v", c, err, own)
	}

	const hint = "; start from tracker.DefaultPolicy() to change single limits"
	for _, tt := range []struct {
		want   string
		change func(*Config)
	}{
		{`Config.DSN has the key "_leakguard_tx_timeout": use ParseDSN to read it`,
			func(c *Config) { c.DSN = "a?x=1&_leakguard_tx_timeout=1m" }},
		{`Config.DSN has the key "_leakguard": use ParseDSN to read it`,
			func(c *Config) { c.DSN = "?%5Fleakguard=off" }},
		{`Config.DSN: key "_leakguard" with value "" stands behind the "#" of a file: URI: want it before`,
			func(c *Config) { c.DSN = "file:a#_leakguard" }},
		{`Config.Mode is Mode(9): want enforce, observe, basic or off`,
			func(c *Config) { c.Mode = 9 }},
		{`Config.Policy: tx_timeout is -1ns: want a duration of 1ms or more, or 0 to switch it off`,
			func(c *Config) { c.Policy.TxTimeout = -1 }},
		{`Config.Policy: pressure is NaN: want a share between 0 and 1, or 0 to switch it off`,
			func(c *Config) { c.Policy.Pressure = math.NaN() }},
		{`Config.Policy: check_interval is 0: want a duration of 1ms or more (mode basic runs without the reaper)` + hint,
			func(c *Config) { c.Policy = tracker.Policy{TxTimeout: time.Minute} }},
		{`Config.Policy: memory_interval is 0: want a duration of 1ms or more` + hint,
			func(c *Config) { c.Policy.MemoryInterval = 0 }},
	} {
		c := dsnConfig("app.db", tt.change)
		if _, err := c.withDefaults(); err == nil || err.Error() != "leakguard: "+tt.want {
			t.Errorf("withDefaults of %+v\n got %v\nwant leakguard: %s", c, err, tt.want)
		}
	}
}

func FuzzDSN(f *testing.F) {
	for _, dsn := range []string{
		"", "?", "app.db", "app.db?", ":memory:", "app.db?&&", "file:x?mode=ro#frag", "file:x#a?b#c",
		"app.db?_leakguard=observe", "?&_leakguard=off", "file:x?_leakguard=observe#frag",
		"file:x#a&_leakguard=off?_leakguard=basic", "file:x?_leakguard=off#a?_leakguard=basic", "file:x#_leak?_leakguard=off#guard",
		"a?%5Fleakguard_name=a%20b+c%&x=%zz", "a?_leakguard=off;x", "a?_leakguard%zz",
		"a?_leakguard_pressure=85%&_leakguard_tx_timeout=1m30s&_leakguard_max_access=7",
		"a?_leakguard_conn_memory=1.5GiB&_leakguard_leak_memory=64kB&_leakguard_stacks=off",
		"?leAkguAr_d", "?leak_guArd", "file:_leakguard=off#?_leakguard=basic", "/leakguard/app.db?leAk-guard_sql=off",
		"a?_leakguard_max_idle=0&_leakguard_check_interval=5s&_leakguard_memory_interval=1ms",
	} {
		f.Add(dsn)
	}
	f.Fuzz(dsnCheck)
}

// Whole tokens in any order get further into the grammar in a second than
// FuzzDSN does with letters in a minute.
func TestDSNOfRandomTokens(t *testing.T) {
	tokens := strings.Fields(`file: a :memory: ? ? & & # = ; : + % %5F %23 %26 %zz x=1
		_leak guard GUARD leakguard _leakguard _leakguard=off _leakguard_name=n% _leakguard_pressure=85%
		_leakguard_max_idle=90s _leakguard_conn_memory=1.5GiB`)
	random := rand.New(rand.NewPCG(1, 2)) // the same ones in every run
	for range 20_000 {
		var b strings.Builder
		for range random.IntN(12) {
			b.WriteString(tokens[random.IntN(len(tokens))])
		}
		dsnCheck(t, b.String())
	}
}

// dsnCheck holds for any string.
func dsnCheck(t *testing.T, dsn string) {
	traitsCheck(t, dsn)
	c, err := ParseDSN(dsn)
	ours := dsnMayBeOurs(dsn)
	if err != nil {
		if !ours || !strings.HasPrefix(err.Error(), "leakguard: ") || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Fatalf("ParseDSN(%q): %q", dsn, err)
		}
		return
	}
	formatted := c.FormatDSN()
	if !ours && (c.DSN != dsn || formatted != dsn) {
		t.Fatalf("%q becomes %q and %q", dsn, c.DSN, formatted)
	}
	if again, err := ParseDSN(formatted); err != nil || again != c {
		t.Fatalf("%q is\n%+v, but by way of %q\n%+v, %v", dsn, c, formatted, again, err)
	}
	if full, err := c.withDefaults(); err != nil || full != c {
		t.Fatalf("%q is\n%+v, with defaults\n%+v, %v", dsn, c, full, err)
	}
	dsnSameForSQLite(t, dsn, c.DSN)

	// What was left is a DSN that takes any parameters.
	c.Mode, c.Name, c.NoStacks = tracker.Observe, "a&b#c?d", true
	formatted = c.FormatDSN()
	if again, err := ParseDSN(formatted); err != nil || again != c {
		t.Fatalf("by way of %q\n%+v becomes\n%+v, %v", formatted, c, again, err)
	}
}

// dsnMayBeOurs reports whether the guard may have an opinion on a DSN.
func dsnMayBeOurs(dsn string) bool {
	return strings.Contains(strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(dsnUnescape(dsn))), "leakguard")
}

// dsnSameForSQLite checks that go-sqlite3 finds in stripped what it would have
// found in dsn, our keys left out: the same name and the same parameters.
func dsnSameForSQLite(t *testing.T, dsn, stripped string) {
	t.Helper()
	name, query, _ := strings.Cut(dsn, "?")
	gotName, gotQuery, _ := strings.Cut(stripped, "?")
	if strings.HasPrefix(dsn, "file:") && strings.Contains(dsn, "#") {
		return // go-sqlite3 takes the fragment for part of a value
	}
	if name != gotName {
		t.Fatalf("%q becomes %q: another name", dsn, stripped)
	}
	want, wantErr := url.ParseQuery(query)
	got, gotErr := url.ParseQuery(gotQuery)
	for key := range want {
		if strings.HasPrefix(key, dsnPrefix) {
			delete(want, key)
		}
	}
	for key := range got {
		if strings.HasPrefix(key, dsnPrefix) {
			t.Fatalf("%q becomes %q: still has %s", dsn, stripped, key)
		}
	}
	// A percent sign that we let stand for itself is an error on their reading.
	if !reflect.DeepEqual(got, want) || gotErr != nil && wantErr == nil {
		t.Fatalf("%q becomes %q: %v, %v\nwant %v, %v", dsn, stripped, got, gotErr, want, wantErr)
	}
}

// dsnUnescape replaces the well-formed escapes and leaves the others.
func dsnUnescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := url.PathUnescape(s[i : i+3]); err == nil {
				b.WriteString(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func FuzzConfigRoundTrip(f *testing.F) {
	f.Add("app.db", "", uint8(0), false, int64(0), int64(1), int64(2), int64(3), int64(4), int64(5), int64(6), int64(7), 0.5, int64(8), int64(9))
	f.Add("file:x?mode=ro#frag", "a b&c=d#e%?", uint8(1), true, int64(30*time.Minute), int64(90*time.Second), int64(time.Hour),
		int64(math.MaxInt64), int64(1000), int64(math.MaxInt64), int64(50<<20), int64(64e6), 1.0/3, int64(1500), int64(time.Minute))
	f.Add("?", "\x00\xff", uint8(3), false, int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), int64(-1), 5e-324, int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, dsn, name string, mode uint8, noStacks bool,
		maxLifetime, maxIdle, leakAfter, txTimeout, maxAccess, maxStatements, connMemory, leakMemory int64,
		pressure float64, checkInterval, memoryInterval int64) {
		if pressure = math.Abs(pressure); !(pressure <= 1) {
			pressure = 1 / pressure // NaN stays, and is left out below
		}
		const positive = math.MaxInt64
		long := func(n int64) time.Duration { // or off
			if d := time.Duration(n & positive); d == 0 || d >= time.Millisecond {
				return d
			}
			return time.Millisecond
		}
		c := Config{
			DSN: dsn, Name: name, Mode: tracker.Mode(mode % 4), NoStacks: noStacks,
			Policy: tracker.Policy{
				MaxLifetime:    long(maxLifetime),
				MaxIdle:        long(maxIdle),
				LeakAfter:      long(leakAfter),
				TxTimeout:      long(txTimeout),
				MaxAccess:      maxAccess & positive,
				MaxStatements:  maxStatements & positive,
				ConnMemory:     connMemory & positive,
				LeakMemory:     leakMemory & positive,
				Pressure:       pressure,
				CheckInterval:  max(long(checkInterval), time.Millisecond),
				MemoryInterval: max(long(memoryInterval), time.Millisecond),
			},
		}
		if _, err := c.withDefaults(); err != nil {
			if !math.IsNaN(pressure) && !dsnMayBeOurs(dsn) {
				t.Fatalf("%+v: %v", c, err)
			}
			return
		}
		formatted := c.FormatDSN()
		got, err := ParseDSN(formatted)
		if err != nil || got != c {
			t.Fatalf("by way of %q\n%+v becomes\n%+v, %v", formatted, c, got, err)
		}
		if again := got.FormatDSN(); again != formatted {
			t.Fatalf("%q becomes %q", formatted, again)
		}
	})
}
