package leakguard

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/sqlite-leakguard/sqlite-leakguard/tracker"
)

// dsnPrefix begins every key that is the guard's.
const dsnPrefix = "_leakguard"

// dsnParam is one key of the DSN.
type dsnParam struct {
	key   string
	doc   string
	limit bool // of the policy, which can be changed while the pool is open
	set   func(c *Config, value string) error
	get   func(c *Config) string
}

// dsnParams is the one place that knows the keys. Its order is the order in
// which FormatDSN writes them.
var dsnParams = []dsnParam{
	dsnField(dsnPrefix, "mode: enforce, observe, basic or off",
		dsnMode, func(c *Config) *tracker.Mode { return &c.Mode }),
	dsnField(dsnPrefix+"_name", "name of the pool in reports and metrics",
		dsnText, func(c *Config) *string { return &c.Name }),
	dsnField(dsnPrefix+"_stacks", "on or off: record the call sites",
		dsnSwitchedOff, func(c *Config) *bool { return &c.NoStacks }),
	dsnField(dsnPrefix+"_sql", "redacted, full or off: how SQL texts are told",
		dsnSQL, func(c *Config) *tracker.SQLText { return &c.SQL }),
	dsnField(dsnPrefix+"_log", "on or off: write to the log",
		dsnSwitchedOff, func(c *Config) *bool { return &c.NoLog }),

	dsnLimit("max_lifetime", "age at which a connection is given up",
		dsnDuration, func(p *tracker.Policy) *time.Duration { return &p.MaxLifetime }),
	dsnLimit("max_idle", "time in the pool after which a connection is given up",
		dsnDuration, func(p *tracker.Policy) *time.Duration { return &p.MaxIdle }),
	dsnLimit("report_after", "time without activity after which a lease is reported as resting",
		dsnDuration, func(p *tracker.Policy) *time.Duration { return &p.ReportAfter }),
	dsnLimit("collect", "on or off: collect garbage when rows rest before somebody",
		dsnSwitchedOn, func(p *tracker.Policy) *bool { return &p.Collect }),
	dsnLimit("leak_after", "time without activity that makes a lease a suspect",
		dsnDuration, func(p *tracker.Policy) *time.Duration { return &p.LeakAfter }),
	dsnLimit("tx_timeout", "age at which a transaction is a suspect, rolled back once it rests",
		dsnDuration, func(p *tracker.Policy) *time.Duration { return &p.TxTimeout }),
	dsnLimit("tx_limit", "age at which a transaction is rolled back even if it works",
		dsnDuration, func(p *tracker.Policy) *time.Duration { return &p.TxLimit }),
	dsnLimit("max_access", "leases after which what is kept prepared is finalized",
		dsnCount, func(p *tracker.Policy) *int64 { return &p.MaxAccess }),
	dsnLimit("max_statements", "open statements of one SQL text or line that are reported",
		dsnCount, func(p *tracker.Policy) *int64 { return &p.MaxStatements }),
	dsnLimit("max_pools", "open pools of one file, or unused ones of one line, that are reported",
		dsnCount, func(p *tracker.Policy) *int64 { return &p.MaxPools }),
	dsnLimit("wal_limit", "size of the WAL above which its oldest reader is a suspect",
		dsnSize, func(p *tracker.Policy) *int64 { return &p.WALLimit }),
	dsnLimit("conn_memory", "memory above which a connection is shrunk",
		dsnSize, func(p *tracker.Policy) *int64 { return &p.ConnMemory }),
	dsnLimit("leak_memory", "memory above which a leased connection is a suspect",
		dsnSize, func(p *tracker.Policy) *int64 { return &p.LeakMemory }),
	dsnLimit("pressure", "used share of the system's memory that starts a clean-up",
		dsnShare, func(p *tracker.Policy) *float64 { return &p.Pressure }),
	dsnLimit("expire", "refresh or close: what giving a connection up means",
		dsnExpiry, func(p *tracker.Policy) *tracker.Expiry { return &p.Expire }),
	dsnLimit("check_interval", "period of the reaper, cannot be 0",
		dsnPeriod("want a duration of 1ms or more such as 60s (_leakguard=basic runs without the reaper)"),
		func(p *tracker.Policy) *time.Duration { return &p.CheckInterval }),
	dsnLimit("memory_interval", "period of the memory monitor, cannot be 0",
		dsnPeriod("want a duration of 1ms or more such as 30s"),
		func(p *tracker.Policy) *time.Duration { return &p.MemoryInterval }),
}

// dsnKind reads and writes one kind of value. An error of parse says what is
// allowed; the caller adds the key and the value.
type dsnKind[T any] struct {
	parse  func(string) (T, error)
	format func(T) string
}

func dsnField[T any](key, doc string, k dsnKind[T], field func(*Config) *T) dsnParam {
	return dsnParam{
		key: key,
		doc: doc,
		set: func(c *Config, value string) error {
			v, err := k.parse(value)
			if err != nil {
				return err
			}
			*field(c) = v
			return nil
		},
		get: func(c *Config) string { return k.format(*field(c)) },
	}
}

func dsnLimit[T any](limit, doc string, k dsnKind[T], field func(*tracker.Policy) *T) dsnParam {
	p := dsnField(dsnPrefix+"_"+limit, doc, k, func(c *Config) *T { return field(&c.Policy) })
	p.limit = true
	return p
}

// ParseDSN reads a data source name as sql.Open takes it: whatever go-sqlite3
// understands, plus the guard's own parameters, which are taken out. Every
// other byte of the DSN is kept as it is.
//
//	_leakguard                  mode: enforce, observe, basic or off
//	_leakguard_name             name of the pool in reports and metrics
//	_leakguard_stacks           on or off: record the call sites
//	_leakguard_sql              redacted, full or off: how SQL texts are told
//	_leakguard_log              on or off: write to the log
//	_leakguard_max_lifetime     age at which a connection is given up
//	_leakguard_max_idle         time in the pool after which a connection is given up
//	_leakguard_report_after     time without activity after which a lease is reported as resting
//	_leakguard_collect          on or off: collect garbage when rows rest before somebody
//	_leakguard_leak_after       time without activity that makes a lease a suspect
//	_leakguard_tx_timeout       age at which a transaction is a suspect, rolled back once it rests
//	_leakguard_tx_limit         age at which a transaction is rolled back even if it works
//	_leakguard_max_access       leases after which what is kept prepared is finalized
//	_leakguard_max_statements   open statements of one SQL text or line that are reported
//	_leakguard_max_pools        open pools of one file, or unused ones of one line, that are reported
//	_leakguard_wal_limit        size of the WAL above which its oldest reader is a suspect
//	_leakguard_conn_memory      memory above which a connection is shrunk
//	_leakguard_leak_memory      memory above which a leased connection is a suspect
//	_leakguard_pressure         used share of the system's memory that starts a clean-up
//	_leakguard_expire           refresh or close: what giving a connection up means
//	_leakguard_check_interval   period of the reaper, cannot be 0
//	_leakguard_memory_interval  period of the memory monitor, cannot be 0
//
// Durations are written as [time.ParseDuration] takes them (90s, 1h30m), 1ms or more, sizes
// in bytes or with one of the units B, kB, MB, GB (powers of 1000), KiB, MiB,
// GiB (powers of 1024) in any case, the share as 0.85 or 85%. The limits and
// their defaults are those of [tracker.Policy]; 0 switches one off. Values are
// escaped as in a URL query.
//
// A key that begins with _leakguard but is not listed, one that nearly does
// (leakguard_tx_limit, _LEAKGUARD), one of the listed in a DSN without a question
// mark, one that is given twice and a value that cannot be used are errors that name
// the key. The Config
// returned has its Policy complete; Tracker, SQLite and Logger are nil.
func ParseDSN(dsn string) (Config, error) {
	rest, ours, err := dsnSplit(dsn)
	if err != nil {
		return Config{}, fmt.Errorf("leakguard: %w", err)
	}
	if len(ours) == 0 {
		return Config{DSN: rest, Policy: tracker.DefaultPolicy()}, nil
	}
	return dsnApply(rest, ours)
}

// dsnApply is the configuration that the settings make of the defaults.
func dsnApply(rest string, ours []dsnSetting) (Config, error) {
	c := Config{DSN: rest, Policy: tracker.DefaultPolicy()}
	seen := make(map[string]string, len(ours))
	for _, s := range ours {
		value, err := s.value()
		p := dsnLookup(s.key)
		if p == nil {
			return Config{}, fmt.Errorf("leakguard: unknown key %q with value %q: %s", s.key, value, dsnKnown(s.key))
		}
		if first, ok := seen[s.key]; ok {
			return Config{}, fmt.Errorf("leakguard: %s=%q: given twice, first as %q: want each key once", s.key, value, first)
		}
		seen[s.key] = value
		if err == nil {
			err = p.set(&c, value)
		}
		if err != nil {
			return Config{}, fmt.Errorf("leakguard: %s=%q: %w", s.key, value, err)
		}
	}
	return c, nil
}

// FormatDSN returns c.DSN with a parameter added for every field that is not
// at its default. [ParseDSN] reads c back from it, with two exceptions:
// Tracker, SQLite and Logger have no spelling and are dropped, and a zero
// Policy comes back as the [tracker.DefaultPolicy] it stands for.
//
// A c that a connector would reject (a negative limit, a DSN with _leakguard
// keys) yields a DSN that ParseDSN rejects.
func (c Config) FormatDSN() string {
	def := Config{Policy: tracker.DefaultPolicy()}
	if c.Policy == (tracker.Policy{}) {
		c.Policy = def.Policy
	}
	var add []string
	for _, p := range dsnParams {
		// Every format is exact, so equal texts are equal values.
		if v := p.get(&c); v != p.get(&def) {
			add = append(add, p.key+"="+url.QueryEscape(v))
		}
	}
	if len(add) == 0 {
		return c.DSN
	}
	head, query, fragment, hasQuery := dsnCut(c.DSN)
	params := strings.Join(add, "&")
	if hasQuery {
		// Also behind an empty query: "app.db?&_leakguard=…" leaves one empty
		// segment, hence "app.db?", when our keys are taken out again.
		params = query + "&" + params
	}
	return head + "?" + params + fragment
}

// dsnSetting is one of the guard's segments of a DSN: its unescaped key, and
// its value as it is written.
type dsnSetting struct{ key, raw string }

// value unescapes the value. With an error it returns what is written.
func (s dsnSetting) value() (string, error) {
	if strings.Contains(s.raw, ";") {
		// net/url, hence go-sqlite3, rejects it too: it used to separate.
		return s.raw, errors.New(`want "&" between parameters and ";" in a value escaped as %3B`)
	}
	// A trailing percent sign cannot begin an escape, so it may stand for
	// itself: nobody writes _leakguard_pressure=85%25.
	raw, percent := strings.CutSuffix(s.raw, "%")
	v, err := url.QueryUnescape(raw)
	if err != nil {
		return s.raw, errors.New(`want "%" in a value escaped as %25`)
	}
	if percent {
		v += "%"
	}
	return v, nil
}

// dsnCut finds the parameters as go-sqlite3 does, behind the first question
// mark, and sets the fragment apart that SQLite sees in a file: URI. A bare
// path has no fragment: a number sign there is a letter like any other.
func dsnCut(dsn string) (head, query, fragment string, hasQuery bool) {
	head, query, hasQuery = strings.Cut(dsn, "?")
	if !strings.HasPrefix(dsn, "file:") {
		return head, query, "", hasQuery
	}
	s := &head
	if hasQuery {
		s = &query
	}
	if i := strings.IndexByte(*s, '#'); i >= 0 {
		*s, fragment = (*s)[:i], (*s)[i:]
	}
	return head, query, fragment, hasQuery
}

// dsnSplit takes the guard's segments out of a DSN and leaves every other one
// as it is written. An error names the key but has no prefix yet.
func dsnSplit(dsn string) (rest string, ours []dsnSetting, err error) {
	head, query, fragment, hasQuery := dsnCut(dsn)
	if !dsnMentions(query) && !dsnMentions(fragment) && !strings.Contains(head, dsnPrefix) &&
		(strings.IndexByte(head, '#') < 0 || !dsnMentions(head)) {
		return dsn, nil, nil
	}
	name := head
	if strings.HasPrefix(dsn, "file:") {
		name, _, _ = strings.Cut(head, "#")
		// Behind the number sign our keys are lost on SQLite's reading and
		// half seen on go-sqlite3's. Better to say so than to drop a limit.
		_, inHead, _ := strings.Cut(head, "#")
		for _, part := range []string{inHead, strings.TrimPrefix(fragment, "#")} {
			for segment := range strings.SplitSeq(part, "&") {
				if s, ok := dsnOurs(segment); ok {
					value, _ := s.value()
					return "", nil, fmt.Errorf(`key %q with value %q stands behind the "#" of a file: URI: want it before`, s.key, value)
				}
			}
		}
	}
	if s, ok := dsnInName(name); ok {
		return "", nil, fmt.Errorf(`key %q with value %q stands in the name of the file: want "?" before the first parameter, and "&" between them`, s.key, s.raw)
	}
	if !hasQuery {
		return dsn, nil, nil
	}
	var keep []string
	for segment := range strings.SplitSeq(query, "&") {
		if s, ok := dsnOurs(segment); ok {
			ours = append(ours, s)
		} else {
			keep = append(keep, segment)
		}
	}
	switch {
	case len(ours) == 0:
		return dsn, nil, nil
	// The question mark stays where the next one, in the fragment, would
	// become the first: go-sqlite3 would take what follows it for parameters.
	case len(keep) == 0 && !strings.Contains(fragment, "?"):
		return head + fragment, ours, nil
	}
	return head + "?" + strings.Join(keep, "&") + fragment, ours, nil
}

// dsnMentions reports whether there can be a key of the guard's, or nearly one, in a
// part of a DSN: an escape could hide one.
func dsnMentions(part string) bool {
	const word = "guard"
	for i := range len(part) {
		switch c := part[i]; {
		case c == '%':
			return true
		case c|0x20 == word[0] && len(part)-i >= len(word) && strings.EqualFold(part[i:i+len(word)], word):
			return true
		}
	}
	return false
}

// dsnInName returns the parameter of the guard's that somebody wrote behind the name
// of the file without a question mark. Only what stands where one would, or has a
// value that one has, counts: a name is free to have our prefix in it.
func dsnInName(name string) (dsnSetting, bool) {
	for _, p := range dsnParams {
		before, value, ok := strings.Cut(name, p.key+"=")
		value, _, _ = strings.Cut(value, "&")
		if ok && (strings.HasSuffix(before, "&") || p.set(&Config{}, value) == nil) {
			return dsnSetting{p.key, value}, true
		}
	}
	return dsnSetting{}, false
}

// dsnOurs reports whether a segment is the guard's, or nearly: then its key is
// unknown, and better told than left to go-sqlite3, which ignores it. A key whose
// escapes are malformed stands for itself: it is unknown too, and go-sqlite3's to
// reject unless it is plainly ours.
func dsnOurs(segment string) (dsnSetting, bool) {
	key, raw, _ := strings.Cut(segment, "=")
	if k, err := url.QueryUnescape(key); err == nil {
		key = k
	}
	_, ok := dsnName(key)
	return dsnSetting{key, raw}, ok
}

// dsnName returns what follows the prefix of a key, in small letters and with
// underscores, however the prefix is written: in any case, with dashes, and with
// underscores too many or too few around its two words.
func dsnName(key string) (name string, ok bool) {
	rest := strings.ReplaceAll(strings.ToLower(key), "-", "_")
	for _, word := range [...]string{"leak", "guard"} { // see dsnMentions
		if rest, ok = strings.CutPrefix(strings.TrimLeft(rest, "_"), word); !ok {
			return "", false
		}
	}
	return rest, true
}

func dsnLookup(key string) *dsnParam {
	for i := range dsnParams {
		if dsnParams[i].key == key {
			return &dsnParams[i]
		}
	}
	return nil
}

// dsnKnown says what could have been written instead of key.
func dsnKnown(key string) string {
	var b strings.Builder
	if s := dsnSuggest(key); s != "" {
		fmt.Fprintf(&b, "did you mean %s? ", s)
	}
	b.WriteString("Known keys: ")
	for i, p := range dsnParams {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(p.key)
	}
	return b.String()
}

// dsnSuggest returns the known key that key was probably meant to be, or "".
func dsnSuggest(key string) string {
	name, _ := dsnName(key)
	if name == "_mode" || name == "" {
		return dsnPrefix // by letters _mode is closer to _name, which is wrong
	}
	best, suggestion := min(len(name)/3+1, 3), "" // more than that is no slip of the finger
	for _, p := range dsnParams {
		if d := dsnDistance(name, strings.TrimPrefix(p.key, dsnPrefix)); d < best {
			best, suggestion = d, p.key
		}
	}
	return suggestion
}

// dsnDistance is the number of letters to insert, drop or change (Levenshtein).
func dsnDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
